/* What the persister counts; see persister_metrics.h. */
#include "tools/persister_metrics.h"

#include <stdatomic.h>

static atomic_ullong values[METRIC_COUNT];

void metric_add(enum metric metric, uint64_t n)
{
    atomic_fetch_add_explicit(&values[metric], n, memory_order_relaxed);
}

void metric_set(enum metric metric, uint64_t value)
{
    atomic_store_explicit(&values[metric], value, memory_order_relaxed);
}

uint64_t metric_get(enum metric metric)
{
    return atomic_load_explicit(&values[metric], memory_order_relaxed);
}
