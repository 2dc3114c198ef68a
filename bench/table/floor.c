/*
 * What the machine takes for itself: an empty loop, and an array whose index is the handle.
 *
 * The array has no hash, no lock and no check, and its readers may see half a change: nothing that
 * shares memory can be quicker.  A session takes STRIDE bytes of it, as many as in sesstab with its
 * index, so that a dependent get is one load of a random cache line out of the same bytes.
 */
#include "bench/table/loops.h"

#include <stdlib.h>

enum { STRIDE = 384 };

struct table {
    uint8_t *bytes;
    size_t sessions;
};

static struct record *at(void *table, uint64_t handle)
{
    struct table *t = table;
    return (struct record *)(t->bytes + handle * STRIDE);
}

static void *open_table(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    *t = (struct table){ table_memory((sessions + 1) * STRIDE, true), sessions };
    for (uint64_t handle = 1; handle <= sessions; handle++)
        *at(t, handle) = usual_record(handle);
    return t;
}

static void close_table(void *table)
{
    struct table *t = table;
    table_memory_free(t->bytes, (t->sessions + 1) * STRIDE);
    free(t);
}

static uint64_t view(void *table, uint64_t handle)
{
    return words_of(at(table, handle));
}

static bool copy(void *table, uint64_t handle, struct record *record)
{
    *record = *at(table, handle);
    return true;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    for (size_t i = 0; i < count; i++)
        *sum += view(table, handles[i]);
    return count;
}

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    at(table, handle)->last_seen = now;
    return true;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    memcpy(at(table, handle)->metadata, value, SET_BYTES);
    return true;
}

static size_t scan(void *table, uint64_t *sum)
{
    struct table *t = table;
    for (uint64_t handle = 1; handle <= t->sessions; handle++)
        *sum += view(t, handle);
    return t->sessions;
}

LOOP(get_view, each_view, view)
LOOP(get_copy, each_copy, copy)
LOOP(get_dependent, each_dependent, view)
LOOP(get_batch, each_batch, batch)
LOOP(touches, each_touch, touch)
LOOP(sets, each_set, set)
LOOP(scans, each_scan, scan)
LOOP(mix, each_mix, view, touch)

const struct contender floor_contender = {
    .name = "floor",
    .scope = SCOPE_PROCESSES,
    .lacks = "not a table: an array indexed by the handle, without hash, lock or check; what the "
             "memory itself takes, with as many bytes to a session as sesstab",
    .reference = true,
    .bytes_per_session = STRIDE,
    .open = open_table,
    .close = close_table,
    .read_back = copy,
    .operations = {
        [OPERATION_VIEW] = get_view,
        [OPERATION_COPY] = get_copy,
        [OPERATION_DEPENDENT] = get_dependent,
        [OPERATION_BATCH] = get_batch,
        [OPERATION_TOUCH] = touches,
        [OPERATION_SET] = sets,
        [OPERATION_SCAN] = scans,
        [OPERATION_MIX] = mix,
    },
};

/* ---------------------------------------------------------------- nothing --------------- */

static void *open_nothing(size_t sessions)
{
    (void)sessions;
    return bench_memory(1, 1);
}

static uint64_t look_at_nothing(void *table, uint64_t handle)
{
    (void)table;
    __asm__ volatile("" : "+r"(handle));
    return handle;
}

LOOP(no_view, each_view, look_at_nothing)

const struct contender empty_contender = {
    .name = "empty",
    .scope = SCOPE_PROCESSES,
    .lacks = "not a table: the loop (and, in the latency rows, the clock) that is in every figure",
    .open = open_nothing,
    .close = free,
    .operations = { [OPERATION_VIEW] = no_view },
};
