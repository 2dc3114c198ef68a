/*
 * What the persister counts: one list, which its parts add to and /metrics prints.
 *
 * Names follow the Prometheus conventions: sesstab_ first, _total for what only rises, base units.
 * Any thread may add and read; a reader sees each number whole, but not all of one moment.
 */
#ifndef TOOLS_PERSISTER_METRICS_H
#define TOOLS_PERSISTER_METRICS_H

#include "lib/figures.h"

#include <stdint.h>
#include <stdio.h>

/*
 * Why Redis could not be used or said no: constant, kind.  First what a connection dies of, then the
 * codes of error replies; OTHER_REPLY is any other code.
 */
#define ERROR_KINDS(X, metric)                                                                     \
    X(metric, UNREACHABLE, "unreachable")                                                          \
    X(metric, TIMEOUT, "timeout")                                                                  \
    X(metric, CLOSED, "closed")                                                                    \
    X(metric, GARBAGE, "garbage")                                                                  \
    X(metric, TOO_LARGE, "too-large")                                                              \
    X(metric, UNUSABLE, "unusable")                                                                \
    X(metric, MAXCLIENTS, "maxclients")                                                            \
    X(metric, LOADING, "loading")                                                                  \
    X(metric, READONLY, "readonly")                                                                \
    X(metric, BUSY, "busy")                                                                        \
    X(metric, MASTERDOWN, "masterdown")                                                            \
    X(metric, CLUSTERDOWN, "clusterdown")                                                          \
    X(metric, TRYAGAIN, "tryagain")                                                                \
    X(metric, NOREPLICAS, "noreplicas")                                                            \
    X(metric, UNBLOCKED, "unblocked")                                                              \
    X(metric, NOAUTH, "noauth")                                                                    \
    X(metric, WRONGPASS, "wrongpass")                                                              \
    X(metric, NOPERM, "noperm")                                                                    \
    X(metric, OOM, "oom")                                                                          \
    X(metric, MISCONF, "misconf")                                                                  \
    X(metric, WRONGTYPE, "wrongtype")                                                              \
    X(metric, EXECABORT, "execabort")                                                              \
    X(metric, OTHER_REPLY, "other")

#define ERROR_METRIC(metric, constant, kind)                                                       \
    metric(ERROR_##constant, counter, "sesstab_redis_errors_total", "kind=\"" kind "\"",           \
           "Connections to Redis that failed and error replies, by kind")

/* Constant, type, name, labels (or ""), help.  Those of one name stand together. */
#define METRICS(X)                                                                                 \
    X(WRITES, counter, "sesstab_redis_writes_total", "",                                           \
      "Sessions written to Redis and acknowledged")                                                \
    X(DISCONNECTS, counter, "sesstab_redis_disconnects_total", "",                                 \
      "Connections to Redis that were lost or dropped")                                            \
    X(MODE_SWITCHES, counter, "sesstab_mode_switches_total", "",                                   \
      "Switches of the table's mode that this leader has followed")                                \
    X(CHANGES_REFUSED, counter, "sesstab_changes_refused_total", "",                               \
      "Changes other than bindings whose callers were told that Redis refused them")               \
    X(LEADER, gauge, "sesstab_leader", "", "1 while this persister leads, 0 while it stands by")   \
    X(TAKEOVERS_DEAD, counter, "sesstab_takeovers_total", "former=\"dead\"",                       \
      "Times that this persister took the lead from another one that had died, or was stopped")    \
    X(TAKEOVERS_STALLED, counter, "sesstab_takeovers_total", "former=\"stalled\"",                 \
      "Times that this persister took the lead from another one that had died, or was stopped")    \
    X(SUPERSEDED, counter, "sesstab_superseded_total", "",                                         \
      "Times that another persister took the lead from this one")                                  \
    X(FENCED, counter, "sesstab_fenced_total", "",                                                 \
      "Times that Redis did not hold this leader's token any more")                                \
    X(LOSSES_ALL, counter, "sesstab_redis_losses_total", "extent=\"all\"",                         \
      "Times that Redis was found to have lost this table's data, or to have gone back")           \
    X(LOSSES_SOME, counter, "sesstab_redis_losses_total", "extent=\"some\"",                       \
      "Times that Redis was found to have lost this table's data, or to have gone back")           \
    X(RESYNCED, counter, "sesstab_resynced_sessions_total", "",                                    \
      "Sessions written to Redis again because it had lost them")                                  \
    X(UNCONFIRMED, counter, "sesstab_redis_unconfirmed_writes_total", "",                          \
      "Sessions written to Redis and not acknowledged, because replicas were missing")             \
    X(PROMISE_KEPT, gauge, "sesstab_redis_promise_kept", "",                                       \
      "1 while Redis keeps what --ack asks for; else nothing is written")                          \
    X(IN_MEMORY, gauge, "sesstab_redis_acknowledged_in", "where=\"memory\"",                       \
      "1 for where what Redis acknowledges is")                                                    \
    X(IN_KERNEL, gauge, "sesstab_redis_acknowledged_in", "where=\"kernel\"",                       \
      "1 for where what Redis acknowledges is")                                                    \
    X(IN_DISK, gauge, "sesstab_redis_acknowledged_in", "where=\"disk\"",                           \
      "1 for where what Redis acknowledges is")                                                    \
    X(IN_REPLICAS, gauge, "sesstab_redis_acknowledged_in", "where=\"replicas\"",                   \
      "1 for where what Redis acknowledges is")                                                    \
    X(RECONFIGURED, counter, "sesstab_redis_reconfigurations_total", "",                           \
      "Times that another configuration of Redis changed where what it acknowledges is")           \
    X(MASTER_CHANGES, counter, "sesstab_sentinel_master_changes_total", "",                        \
      "Masters that the sentinels named after the first")                                          \
    X(SENTINEL_ERRORS, counter, "sesstab_sentinel_errors_total", "",                               \
      "Questions that a sentinel did not answer")                                                  \
    X(RENEWALS, counter, "sesstab_redis_renewals_total", "",                                       \
      "Sessions whose time to live in Redis was renewed")                                          \
    X(RENEWALS_REFUSED, counter, "sesstab_redis_renewals_refused_total", "",                       \
      "Times that Redis refused to renew a few sessions' time to live")                            \
    X(EXPIRED, counter, "sesstab_redis_expired_sessions_total", "",                                \
      "Sessions found gone from Redis when they were renewed, and written again")                  \
    X(ADOPTED, counter, "sesstab_redis_adopted_sessions_total", "",                                \
      "Sessions that only Redis had, and the table took over")                                     \
    X(NOT_ADOPTED, counter, "sesstab_redis_not_adopted_sessions_total", "",                        \
      "Sessions that only Redis had, and that were left there, though the policy is redis")        \
    X(REPAIRED, counter, "sesstab_redis_sessions_repaired_total", "",                              \
      "Sessions that Redis did not hold as it had acknowledged, and that are written again")       \
    X(CONNECTS, counter, "sesstab_redis_connects_total", "",                                       \
      "Connections to Redis over which this process took the lead")                                \
    ERROR_KINDS(ERROR_METRIC, X)                                                                   \
    X(BATCHES_COMMITTED, counter, "sesstab_redis_batches_total", "outcome=\"committed\"",          \
      "Batches of sessions sent to Redis, by what became of them")                                 \
    X(BATCHES_ABORTED, counter, "sesstab_redis_batches_total", "outcome=\"aborted\"",              \
      "Batches of sessions sent to Redis, by what became of them")                                 \
    X(BATCHES_FENCED, counter, "sesstab_redis_batches_total", "outcome=\"fenced\"",                \
      "Batches of sessions sent to Redis, by what became of them")                                 \
    X(BATCHES_BROKEN, counter, "sesstab_redis_batches_total", "outcome=\"unknown\"",               \
      "Batches of sessions sent to Redis, by what became of them")                                 \
    X(RETRIES, counter, "sesstab_redis_retries_total", "",                                         \
      "Sessions that were not written, or nobody knows, and are written again")                    \
    X(REFUSED_WRITES, counter, "sesstab_redis_refused_writes_total", "",                           \
      "Sessions whose write Redis refused")                                                        \
    X(LOST_KEYS, counter, "sesstab_redis_lost_keys_total", "",                                     \
      "Sessions whose keys Redis was found to have lost, and which are written whole")             \
    X(LEADS, counter, "sesstab_leads_total", "",                                                   \
      "Times that this process became the table's leader")                                         \
    X(LOADED, counter, "sesstab_loaded_sessions_total", "",                                        \
      "Sessions loaded from Redis into a fresh table")                                             \
    X(LOAD_BAD, counter, "sesstab_load_bad_records_total", "",                                     \
      "Records in Redis that could not be loaded")                                                 \
    X(COMPARISONS, counter, "sesstab_comparisons_total", "",                                       \
      "Comparisons of Redis with the table that were finished")                                    \
    X(REMOVED, counter, "sesstab_removed_sessions_total", "",                                      \
      "Sessions that a comparison found in Redis only, and removed")                               \
    X(CONNECTED, gauge, "sesstab_redis_up", "",                                                    \
      "1 while this process is connected to Redis and leads there")                                \
    X(COMPARING, gauge, "sesstab_comparing", "",                                                   \
      "1 while Redis is compared with the table")                                                  \
    X(QUARANTINED, gauge, "sesstab_quarantined_sessions", "",                                      \
      "Sessions that Redis refuses, kept and tried again")                                         \
    X(PARKED, gauge, "sesstab_parked_sessions", "",                                                \
      "Sessions kept back while Redis is out of memory")

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

/* The METRIC_ERROR_* of an error reply. */
enum metric metric_of_reply(const char *error);

/* The METRIC_ERROR_* of what a connection was dropped for, or not made; it may quote an error reply. */
enum metric metric_of_drop(const char *reason);

/* True for what connections die of, false for error replies. */
bool metric_is_of_connection(enum metric error);

const char *metric_error_kind(enum metric error);

/* A group of commands was answered this long after it was sent. */
void metric_round_trip(uint64_t microseconds);

/* The whole exposition, in the Prometheus text format; FIGURES are the table's, at NOW (sesstab_now()). */
void metrics_print(FILE *out, const struct figures *figures, uint64_t now);

#endif
