/*
 * One pthread_rwlock between processes around a hash table in shared memory: what is usually
 * written first.  Every reader writes the lock's cache line, and one that dies inside holds it for
 * ever.
 */
#include "bench/table/loops.h"
#include "bench/table/slots.h"

#include <pthread.h>
#include <stdlib.h>

struct table {
    struct slots slots;
    pthread_rwlock_t *lock;
};

/* ---------------------------------------------------------------- reading --------------- */

static void lock_shared(struct table *t) { pthread_rwlock_rdlock(t->lock); }
static void lock_alone(struct table *t) { pthread_rwlock_wrlock(t->lock); }
static void unlock(struct table *t) { pthread_rwlock_unlock(t->lock); }

static uint64_t view(void *table, uint64_t handle)
{
    struct table *t = table;
    lock_shared(t);
    struct slot *s = find(&t->slots, handle);
    uint64_t words = s ? words_of(&s->record) : 0;
    unlock(t);
    return words;
}

static bool copy(void *table, uint64_t handle, struct record *record)
{
    struct table *t = table;
    lock_shared(t);
    struct slot *s = find(&t->slots, handle);
    if (s)
        *record = s->record;
    unlock(t);
    return s;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    struct table *t = table;
    size_t found = 0;
    lock_shared(t);
    for (size_t i = 0; i < count; i++) {
        struct slot *s = find(&t->slots, handles[i]);
        found += s != NULL;
        *sum += s ? words_of(&s->record) : 0;
    }
    unlock(t);
    return found;
}

static size_t scan(void *table, uint64_t *sum)
{
    struct table *t = table;
    size_t seen = 0;
    lock_shared(t);
    for (struct slot *s = t->slots.all; s < t->slots.all + t->slots.count; s++) {
        if (holds(s, 0))
            continue;
        *sum += words_of(&s->record);
        seen++;
    }
    unlock(t);
    return seen;
}

/* ---------------------------------------------------------------- changing -------------- */

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    struct table *t = table;
    lock_alone(t);
    struct slot *s = find(&t->slots, handle);
    if (s)
        s->record.last_seen = now;
    unlock(t);
    return s;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    struct table *t = table;
    lock_alone(t);
    struct slot *s = find(&t->slots, handle);
    if (s)
        memcpy(s->record.metadata, value, SET_BYTES);
    unlock(t);
    return s;
}

static bool insert(void *table, uint64_t handle, const struct record *record)
{
    struct table *t = table;
    uint32_t distance = 0;
    lock_alone(t);
    struct slot *s = find_free(&t->slots, handle, &distance);
    raise_reach(&t->slots, handle, distance);
    s->record = *record;
    put_handle(s, handle);
    unlock(t);
    return true;
}

static bool erase(void *table, uint64_t handle)
{
    struct table *t = table;
    lock_alone(t);
    struct slot *s = find(&t->slots, handle);
    if (s)
        put_handle(s, 0);
    unlock(t);
    return s;
}

/* ---------------------------------------------------------------- open, close ----------- */

static void *open_table(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    pthread_rwlockattr_t shared;
    pthread_rwlockattr_init(&shared);
    pthread_rwlockattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    t->slots = slots_new(sessions);
    t->lock = table_memory(sizeof *t->lock, true);
    if (pthread_rwlock_init(t->lock, &shared) != 0)
        bench_fail("a shared pthread_rwlock can't be had");
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        struct record record = usual_record(handle);
        insert(t, handle, &record);
    }
    return t;
}

static void close_table(void *table)
{
    struct table *t = table;
    slots_free(&t->slots);
    table_memory_free(t->lock, sizeof *t->lock);
    free(t);
}

LOOP(get_view, each_view, view)
LOOP(get_copy, each_copy, copy)
LOOP(get_miss, each_miss, view)
LOOP(get_dependent, each_dependent, view)
LOOP(get_batch, each_batch, batch)
LOOP(touches, each_touch, touch)
LOOP(sets, each_set, set)
LOOP(inserts, each_insert_remove, insert, erase)
LOOP(scans, each_scan, scan)
LOOP(mix, each_mix, view, touch)

const struct contender rwlock_contender = {
    .name = "rwlock",
    .scope = SCOPE_PROCESSES,
    .lacks = "one lock for all: whoever dies inside stops everybody for ever, and readers write its "
             "cache line; fixed size; nothing is found by player; no persistence",
    .bytes_per_session = 2 * sizeof(struct slot),
    .open = open_table,
    .close = close_table,
    .read_back = copy,
    .operations = {
        [OPERATION_VIEW] = get_view,
        [OPERATION_COPY] = get_copy,
        [OPERATION_MISS] = get_miss,
        [OPERATION_DEPENDENT] = get_dependent,
        [OPERATION_BATCH] = get_batch,
        [OPERATION_TOUCH] = touches,
        [OPERATION_SET] = sets,
        [OPERATION_INSERT_REMOVE] = inserts,
        [OPERATION_SCAN] = scans,
        [OPERATION_MIX] = mix,
    },
};
