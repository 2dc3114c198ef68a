/*
 * A sequence lock per slot in shared memory: the floor of what a shared hash table costs.
 *
 * A reader looks, and looks again whether the sequence moved; a writer makes it odd meanwhile.
 * There is no crash safety: a writer that dies leaves an odd sequence, on which every reader of
 * that slot spins for ever.
 */
#include "bench/table/loops.h"
#include "bench/table/slots.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- the lock -------------- */

static uint64_t read_start(struct slot *s)
{
    uint64_t sequence;
    while ((sequence = atomic_load_explicit(&s->sequence, memory_order_acquire)) & 1)
        __builtin_ia32_pause();
    return sequence;
}

static bool read_valid(struct slot *s, uint64_t sequence)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&s->sequence, memory_order_relaxed) == sequence;
}

static void write_start(struct slot *s)
{
    uint64_t even = atomic_load_explicit(&s->sequence, memory_order_relaxed) & ~UINT64_C(1);
    while (!atomic_compare_exchange_weak(&s->sequence, &even, even + 1))
        even &= ~UINT64_C(1);
}

static void write_end(struct slot *s)
{
    uint64_t sequence = atomic_load_explicit(&s->sequence, memory_order_relaxed);
    atomic_store_explicit(&s->sequence, sequence + 1, memory_order_release);
}

/* The session's slot, locked; NULL: there is none. */
static struct slot *lock(void *table, uint64_t handle)
{
    struct slot *s;
    while ((s = find(table, handle))) {
        write_start(s);
        if (holds(s, handle))
            break;
        write_end(s); /* it has changed hands: look again */
    }
    return s;
}

/* ---------------------------------------------------------------- reading --------------- */

static uint64_t view(void *table, uint64_t handle)
{
    struct slot *s;
    while ((s = find(table, handle))) {
        uint64_t sequence = read_start(s), words = words_of(&s->record);
        if (holds(s, handle) && read_valid(s, sequence))
            return words;
    }
    return 0;
}

static bool copy(void *table, uint64_t handle, struct record *record)
{
    struct slot *s;
    while ((s = find(table, handle))) {
        uint64_t sequence = read_start(s);
        *record = s->record;
        if (holds(s, handle) && read_valid(s, sequence))
            return true;
    }
    return false;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t words = view(table, handles[i]);
        found += words != 0;
        *sum += words;
    }
    return found;
}

/* The words in a slot; 0: it is free. */
static uint64_t words_in(struct slot *s)
{
    for (;;) {
        uint64_t sequence = read_start(s), words = holds(s, 0) ? 0 : words_of(&s->record);
        if (read_valid(s, sequence))
            return words;
    }
}

static size_t scan(void *table, uint64_t *sum)
{
    const struct slots *t = table;
    size_t seen = 0;
    for (size_t i = 0; i < t->count; i++) {
        uint64_t words = words_in(&t->all[i]);
        seen += words != 0;
        *sum += words;
    }
    return seen;
}

/* ---------------------------------------------------------------- changing -------------- */

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    struct slot *s = lock(table, handle);
    if (!s)
        return false;
    s->record.last_seen = now;
    write_end(s);
    return true;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    struct slot *s = lock(table, handle);
    if (!s)
        return false;
    memcpy(s->record.metadata, value, SET_BYTES);
    write_end(s);
    return true;
}

/* A free slot for the handle, locked. */
static struct slot *claim(struct slots *t, uint64_t handle)
{
    for (uint32_t distance = 0;;) {
        struct slot *s = find_free(t, handle, &distance);
        write_start(s);
        if (holds(s, 0)) {
            raise_reach(t, handle, distance);
            return s;
        }
        write_end(s);
    }
}

/* Only one process inserts a handle at a time. */
static bool insert(void *table, uint64_t handle, const struct record *record)
{
    struct slot *s = claim(table, handle);
    s->record = *record;
    put_handle(s, handle);
    write_end(s);
    return true;
}

static bool erase(void *table, uint64_t handle)
{
    struct slot *s = lock(table, handle);
    if (!s)
        return false;
    put_handle(s, 0);
    write_end(s);
    return true;
}

/* ---------------------------------------------------------------- open, close ----------- */

static void *open_table(size_t sessions)
{
    struct slots *t = bench_memory(1, sizeof *t);
    *t = slots_new(sessions);
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        struct record record = usual_record(handle);
        insert(t, handle, &record);
    }
    return t;
}

static void close_table(void *table)
{
    slots_free(table);
    free(table);
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

const struct contender seqlock_contender = {
    .name = "seqlock",
    .scope = SCOPE_PROCESSES,
    .lacks = "a writer that dies stops every reader of its slot for ever; readers wait for writers; "
             "fixed size; nothing is found by player; no persistence",
    .reference = true,
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
