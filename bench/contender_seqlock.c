/*
 * A sequence lock per slot in shared memory: open addressing, at most half full, the record in the
 * slot.  A reader copies and looks whether the sequence moved; a writer makes it odd meanwhile.
 *
 * A key lies at most `reach` slots behind its home; reach only rises, so that removing leaves a gap
 * and no tombstone.  There is no crash safety here: a writer that dies leaves an odd sequence, on
 * which every reader of that slot spins for ever.
 */
#include "bench/contender.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct slot {
    _Atomic uint64_t sequence;   /* odd: a writer is at work */
    _Atomic uint64_t handle;     /* 0: free                  */
    _Atomic uint32_t reach;      /* of keys whose home this is */
    struct record record;
} __attribute__((aligned(64)));

struct table {
    struct slot *slots;
    size_t mask;
    uint64_t now;
};

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

/* ---------------------------------------------------------------- finding --------------- */

static bool holds(struct slot *s, uint64_t handle)
{
    return atomic_load_explicit(&s->handle, memory_order_relaxed) == handle;
}

static struct slot *home_of(struct table *t, uint64_t handle)
{
    return &t->slots[hash_of(handle) & t->mask];
}

static struct slot *behind(struct table *t, struct slot *home, size_t distance)
{
    return &t->slots[((size_t)(home - t->slots) + distance) & t->mask];
}

/* The slot that holds the handle just now; who uses it checks again under the sequence. */
static struct slot *find(struct table *t, uint64_t handle)
{
    struct slot *home = home_of(t, handle);
    if (holds(home, handle))
        return home;
    uint32_t reach = atomic_load_explicit(&home->reach, memory_order_acquire);
    for (uint32_t i = 1; i <= reach; i++)
        if (holds(behind(t, home, i), handle))
            return behind(t, home, i);
    return NULL;
}

static struct slot *must_find(struct table *t, uint64_t handle)
{
    struct slot *s = find(t, handle);
    if (!s)
        bench_fail("seqlock did not find session %llu", (unsigned long long)handle);
    return s;
}

/* ---------------------------------------------------------------- open, close ----------- */

static void raise_reach(struct slot *home, uint32_t distance)
{
    uint32_t reach = atomic_load_explicit(&home->reach, memory_order_relaxed);
    while (reach < distance && !atomic_compare_exchange_weak(&home->reach, &reach, distance))
        ;
}

/* A free slot for the handle, locked. */
static struct slot *claim(struct table *t, uint64_t handle)
{
    struct slot *home = home_of(t, handle);
    for (uint32_t distance = 0;; distance++) {
        struct slot *s = behind(t, home, distance);
        if (!holds(s, 0))
            continue;
        write_start(s);
        if (holds(s, 0)) {
            raise_reach(home, distance);
            return s;
        }
        write_end(s);
    }
}

/* Only one process inserts a handle at a time. */
static void insert(struct table *t, uint64_t handle, const struct record *record)
{
    struct slot *s = claim(t, handle);
    s->record = *record;
    atomic_store_explicit(&s->handle, handle, memory_order_relaxed);
    write_end(s);
}

static size_t bytes_of(const struct table *t)
{
    return (t->mask + 1) * sizeof *t->slots;
}

static void *open_table(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    size_t slots = 2;
    while (slots < 2 * sessions)
        slots *= 2;
    t->mask = slots - 1;
    t->slots = mmap(NULL, bytes_of(t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (t->slots == MAP_FAILED)
        bench_fail("out of memory: %zu bytes for seqlock", bytes_of(t));
    memset((void *)t->slots, 0, bytes_of(t));
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        struct record record = usual_record(handle);
        insert(t, handle, &record);
    }
    t->now = USUAL_CONNECTED_AT;
    return t;
}

static void close_table(void *table)
{
    struct table *t = table;
    munmap(t->slots, bytes_of(t));
    free(t);
}

/* ---------------------------------------------------------------- reading --------------- */

/* Two words of the session; ask again when the slot has changed hands. */
static uint64_t words(struct table *t, uint64_t handle, uint64_t *connected_at)
{
    for (;;) {
        struct slot *s = must_find(t, handle);
        uint64_t sequence = read_start(s);
        *connected_at = s->record.connected_at;
        uint64_t sum = read_words(*connected_at, s->record.player);
        if (holds(s, handle) && read_valid(s, sequence))
            return sum;
    }
}

static uint64_t get_view(void *table, const struct keys *keys)
{
    uint64_t sum = 0, connected_at;
    for (size_t i = 0; i < keys->count; i++)
        sum += words(table, keys->handles[i], &connected_at);
    return sum;
}

static uint64_t get_dependent(void *table, const struct keys *keys)
{
    uint64_t sum = 0, last = 0;
    for (size_t i = 0; i < keys->count; i++)
        sum += words(table, keys->handles[i] + (last & 1), &last);
    return sum;
}

static void copy_out(struct table *t, uint64_t handle, struct record *copy)
{
    for (;;) {
        struct slot *s = must_find(t, handle);
        uint64_t sequence = read_start(s);
        *copy = s->record;
        if (holds(s, handle) && read_valid(s, sequence))
            return;
    }
}

static uint64_t get_copy(void *table, const struct keys *keys)
{
    struct record copy;
    uint64_t sum = 0;
    for (size_t i = 0; i < keys->count; i++) {
        copy_out(table, keys->handles[i], &copy);
        __asm__ volatile("" : : "r"(&copy) : "memory"); /* all of it is wanted */
        sum += read_words(copy.connected_at, copy.player);
    }
    return sum;
}

static uint64_t get_miss(void *table, const struct keys *keys)
{
    uint64_t misses = 0;
    for (size_t i = 0; i < keys->count; i++)
        misses += find(table, keys->handles[i]) == NULL;
    if (misses != keys->count)
        bench_fail("seqlock found a session that is not there");
    return misses;
}

static uint64_t scan(void *table, const struct keys *keys)
{
    struct table *t = table;
    uint64_t sum = 0;
    for (size_t seen = 0; seen < keys->count;) {
        for (size_t i = 0; i <= t->mask; i++) {
            struct slot *s = &t->slots[i];
            uint64_t sequence, handle, read;
            do {
                sequence = read_start(s);
                handle = atomic_load_explicit(&s->handle, memory_order_relaxed);
                read = handle ? read_words(s->record.connected_at, s->record.player) : 0;
            } while (!read_valid(s, sequence));
            sum += read;
            seen += handle != 0;
        }
    }
    return sum;
}

/* ---------------------------------------------------------------- changing -------------- */

/* The session's slot, locked. */
static struct slot *lock(struct table *t, uint64_t handle)
{
    for (;;) {
        struct slot *s = must_find(t, handle);
        write_start(s);
        if (holds(s, handle))
            return s;
        write_end(s);
    }
}

static uint64_t touch(void *table, const struct keys *keys)
{
    struct table *t = table;
    for (size_t i = 0; i < keys->count; i++) {
        struct slot *s = lock(t, keys->handles[i]);
        s->record.last_seen = ++t->now;
        write_end(s);
    }
    return t->now;
}

static uint64_t metadata_set(void *table, const struct keys *keys)
{
    uint64_t value[METADATA_SET_BYTES / 8] = { 0 };
    for (size_t i = 0; i < keys->count; i++) {
        value[0]++;
        struct slot *s = lock(table, keys->handles[i]);
        memcpy(s->record.metadata, value, sizeof value);
        write_end(s);
    }
    return value[0];
}

static uint64_t insert_remove(void *table, const struct keys *keys)
{
    const struct record usual = usual_record(1);
    for (size_t i = 0; i < keys->count; i++) {
        insert(table, keys->handles[i], &usual);
        struct slot *s = lock(table, keys->handles[i]);
        atomic_store_explicit(&s->handle, 0, memory_order_relaxed);
        write_end(s);
    }
    return keys->count;
}

const struct contender seqlock_contender = {
    .name = "seqlock",
    .open = open_table,
    .close = close_table,
    .operations = {
        [OPERATION_GET_VIEW] = get_view,
        [OPERATION_GET_COPY] = get_copy,
        [OPERATION_GET_MISS] = get_miss,
        [OPERATION_GET_DEPENDENT] = get_dependent,
        [OPERATION_TOUCH] = touch,
        [OPERATION_METADATA_SET] = metadata_set,
        [OPERATION_INSERT_REMOVE] = insert_remove,
        [OPERATION_SCAN] = scan,
    },
};
