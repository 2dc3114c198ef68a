/*
 * Open addressing in shared memory, half full, the record in the slot: what the seqlock and the
 * rwlock table have in common.  Locking is theirs.
 *
 * A handle lies at most `reach` slots behind its home; reach only rises, so that removing leaves a
 * gap and no tombstone.
 */
#ifndef BENCH_TABLE_SLOTS_H
#define BENCH_TABLE_SLOTS_H

#include "bench/table/contender.h"

#include <stdatomic.h>

struct slot {
    _Atomic uint64_t sequence;   /* the seqlock table's lock: odd, a writer is at work */
    _Atomic uint64_t handle;     /* 0: free                                            */
    _Atomic uint32_t reach;      /* of handles whose home this is                      */
    struct record record;
} __attribute__((aligned(64)));

struct slots {
    struct slot *all;
    size_t count;
};

static inline struct slots slots_new(size_t sessions)
{
    size_t count = 2 * sessions;
    return (struct slots){ table_memory(count * sizeof(struct slot), true), count };
}

static inline void slots_free(struct slots *s)
{
    table_memory_free(s->all, s->count * sizeof *s->all);
}

static inline bool holds(struct slot *s, uint64_t handle)
{
    return atomic_load_explicit(&s->handle, memory_order_relaxed) == handle;
}

static inline struct slot *home_of(const struct slots *s, uint64_t handle)
{
    return &s->all[(size_t)((unsigned __int128)hash_of(handle) * s->count >> 64)];
}

static inline struct slot *behind(const struct slots *s, struct slot *home, size_t distance)
{
    size_t at = (size_t)(home - s->all) + distance;
    return &s->all[at < s->count ? at : at % s->count];
}

/* The slot that holds the handle just now. */
static inline struct slot *find(const struct slots *s, uint64_t handle)
{
    struct slot *home = home_of(s, handle);
    if (holds(home, handle))
        return home;
    uint32_t reach = atomic_load_explicit(&home->reach, memory_order_acquire);
    for (uint32_t i = 1; i <= reach; i++)
        if (holds(behind(s, home, i), handle))
            return behind(s, home, i);
    return NULL;
}

/* The nearest slot that is free just now, at *DISTANCE or farther from the handle's home. */
static inline struct slot *find_free(const struct slots *s, uint64_t handle, uint32_t *distance)
{
    struct slot *home = home_of(s, handle);
    while (!holds(behind(s, home, *distance), 0))
        ++*distance;
    return behind(s, home, *distance);
}

static inline void raise_reach(const struct slots *s, uint64_t handle, uint32_t distance)
{
    struct slot *home = home_of(s, handle);
    uint32_t reach = atomic_load_explicit(&home->reach, memory_order_relaxed);
    while (reach < distance && !atomic_compare_exchange_weak(&home->reach, &reach, distance))
        ;
}

static inline void put_handle(struct slot *s, uint64_t handle)
{
    atomic_store_explicit(&s->handle, handle, memory_order_relaxed);
}

#endif
