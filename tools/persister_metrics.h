/*
 * What the persister counts: one list, which its parts add to and /metrics prints.
 *
 * Names follow the Prometheus conventions: sesstab_ first, _total for what only rises, base units.
 * Any thread may add and read; a reader sees each number whole, but not all of one moment.
 */
#ifndef TOOLS_PERSISTER_METRICS_H
#define TOOLS_PERSISTER_METRICS_H

#include <stdint.h>

/* Constant, type, name, labels (or ""), help.  Those of one name stand together. */
#define METRICS(X)                                                                                 \
    X(WRITES, counter, "sesstab_redis_writes_total", "",                                           \
      "Sessions written to Redis and acknowledged")                                                \
    X(DISCONNECTS, counter, "sesstab_redis_disconnects_total", "",                                 \
      "Connections to Redis that were lost or dropped")                                           \
    X(MODE_SWITCHES, counter, "sesstab_mode_switches_total", "",                                  \
      "Switches of the table's mode that this leader has followed")                               \
    X(CHANGES_REFUSED, counter, "sesstab_changes_refused_total", "",                              \
      "Sessions whose waiting callers were told that Redis refused a change other than a binding")

enum metric {
#define X(constant, type, name, labels, help) METRIC_##constant,
    METRICS(X)
#undef X
    METRIC_COUNT
};

/* Adds to a counter. */
void metric_add(enum metric metric, uint64_t n);

/* Sets a gauge. */
void metric_set(enum metric metric, uint64_t value);

uint64_t metric_get(enum metric metric);

#endif
