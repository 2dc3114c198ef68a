/*
 * Concurrency Kit's ck_ht under ck_epoch: any number of reading threads, one writer at a time (a
 * spinlock sees to that).  The map is provided large enough beforehand; entries as in lfht.h.
 *
 * Removing leaves tombstones in the map, which later inserts use again.  In a map with this much
 * room ck_ht_gc() is not needed: after tens of millions of both a miss costs what it did.
 */
#include "bench/table/loops.h"

#include <ck_epoch.h>
#include <ck_ht.h>
#include <ck_spinlock.h>
#include <stdlib.h>

enum { GRACE_BATCH = 256 };

struct entry {
    uint64_t handle;
    struct record record;
} __attribute__((aligned(64)));

struct shared {
    size_t sessions;
    ck_ht_t map;
    ck_epoch_t epoch;
    ck_spinlock_t writer;
    struct entry *entries, **free;
    size_t free_count, retired_count;
    struct entry *retired[GRACE_BATCH];
};

/* A thread's access. */
struct table {
    struct shared *shared;
    ck_epoch_record_t *epoch;
};

/* ---------------------------------------------------------------- finding --------------- */

static ck_ht_hash_t hash_in(struct shared *s, uint64_t handle)
{
    ck_ht_hash_t hash;
    ck_ht_hash_direct(&hash, &s->map, handle);
    return hash;
}

/* Inside a section, or as the writer. */
static struct entry *find(struct shared *s, uint64_t handle)
{
    ck_ht_entry_t found;
    ck_ht_entry_key_set_direct(&found, handle);
    if (!ck_ht_get_spmc(&s->map, hash_in(s, handle), &found))
        return NULL;
    return (struct entry *)ck_ht_entry_value_direct(&found);
}

static uint64_t view(void *table, uint64_t handle)
{
    struct table *t = table;
    ck_epoch_begin(t->epoch, NULL);
    struct entry *e = find(t->shared, handle);
    uint64_t words = e ? words_of(&e->record) : 0;
    ck_epoch_end(t->epoch, NULL);
    return words;
}

static bool copy(void *table, uint64_t handle, struct record *record)
{
    struct table *t = table;
    ck_epoch_begin(t->epoch, NULL);
    struct entry *e = find(t->shared, handle);
    if (e)
        *record = e->record;
    ck_epoch_end(t->epoch, NULL);
    return e;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    struct table *t = table;
    size_t found = 0;
    ck_epoch_begin(t->epoch, NULL);
    for (size_t i = 0; i < count; i++) {
        struct entry *e = find(t->shared, handles[i]);
        found += e != NULL;
        *sum += e ? words_of(&e->record) : 0;
    }
    ck_epoch_end(t->epoch, NULL);
    return found;
}

/* A walk must not meet a writer. */
static size_t scan(void *table, uint64_t *sum)
{
    struct table *t = table;
    ck_ht_iterator_t at = CK_HT_ITERATOR_INITIALIZER;
    ck_ht_entry_t *found;
    size_t seen = 0;
    ck_spinlock_lock(&t->shared->writer);
    while (ck_ht_next(&t->shared->map, &at, &found)) {
        *sum += words_of(&((struct entry *)ck_ht_entry_value_direct(found))->record);
        seen++;
    }
    ck_spinlock_unlock(&t->shared->writer);
    return seen;
}

/* ---------------------------------------------------------------- changing -------------- */

/* The three of them as the writer. */

static struct entry *claim(struct shared *s)
{
    return s->free[--s->free_count];
}

static void retire(struct table *t, struct entry *e)
{
    struct shared *s = t->shared;
    s->retired[s->retired_count++] = e;
    if (s->retired_count < GRACE_BATCH)
        return;
    ck_epoch_synchronize(t->epoch);
    while (s->retired_count)
        s->free[s->free_count++] = s->retired[--s->retired_count];
}

/* Puts E where its handle was or was not; the entry before it, or NULL. */
static struct entry *put(struct shared *s, struct entry *e)
{
    ck_ht_entry_t pair;
    ck_ht_hash_t hash = hash_in(s, e->handle);
    ck_ht_entry_set_direct(&pair, hash, e->handle, (uintptr_t)e);
    if (!ck_ht_set_spmc(&s->map, hash, &pair))
        bench_fail("ck_ht_set_spmc failed");
    return ck_ht_entry_empty(&pair) ? NULL : (struct entry *)ck_ht_entry_value_direct(&pair);
}

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    struct table *t = table;
    ck_epoch_begin(t->epoch, NULL);
    struct entry *e = find(t->shared, handle);
    if (e)
        ck_pr_store_64(&e->record.last_seen, now);
    ck_epoch_end(t->epoch, NULL);
    return e;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    struct table *t = table;
    ck_spinlock_lock(&t->shared->writer);
    struct entry *old = find(t->shared, handle);
    if (old) {
        struct entry *e = claim(t->shared);
        *e = *old;
        memcpy(e->record.metadata, value, SET_BYTES);
        retire(t, put(t->shared, e));
    }
    ck_spinlock_unlock(&t->shared->writer);
    return old;
}

static bool insert(void *table, uint64_t handle, const struct record *record)
{
    struct table *t = table;
    ck_spinlock_lock(&t->shared->writer);
    struct entry *e = claim(t->shared);
    *e = (struct entry){ handle, *record };
    struct entry *before = put(t->shared, e);
    ck_spinlock_unlock(&t->shared->writer);
    return !before;
}

static bool erase(void *table, uint64_t handle)
{
    struct table *t = table;
    ck_ht_entry_t pair;
    ck_ht_entry_key_set_direct(&pair, handle);
    ck_spinlock_lock(&t->shared->writer);
    bool gone = ck_ht_remove_spmc(&t->shared->map, hash_in(t->shared, handle), &pair);
    if (gone)
        retire(t, (struct entry *)ck_ht_entry_value_direct(&pair));
    ck_spinlock_unlock(&t->shared->writer);
    return gone;
}

/* ---------------------------------------------------------------- open, close ----------- */

static void *map_malloc(size_t size)
{
    return malloc(size);
}

static void *map_realloc(void *memory, size_t before, size_t after, bool later)
{
    (void)before, (void)later;
    return realloc(memory, after);
}

/* LATER: readers may still be in it.  A large enough map is never replaced while there are. */
static void map_free(void *memory, size_t size, bool later)
{
    (void)size;
    if (!later)
        free(memory);
}

static struct ck_malloc map_memory = { map_malloc, map_realloc, map_free };

static void *join(void *table)
{
    struct table *with = table, *t = bench_memory(1, sizeof *t);
    t->shared = with->shared;
    t->epoch = aligned_alloc(64, (sizeof *t->epoch + 63) / 64 * 64);
    if (!t->epoch)
        bench_fail("out of memory for ck_epoch");
    ck_epoch_register(&t->shared->epoch, t->epoch, NULL);
    return t;
}

/* The record stays ck_epoch's, for the next thread. */
static void leave(void *table)
{
    struct table *t = table;
    ck_epoch_unregister(t->epoch);
    free(t);
}

static size_t entries_of(size_t sessions)
{
    return sessions + 2 * GRACE_BATCH;
}

static struct shared *shared_new(size_t sessions)
{
    struct shared *s = bench_memory(1, sizeof *s);
    size_t entries = entries_of(sessions);
    s->sessions = sessions;
    ck_epoch_init(&s->epoch);
    ck_spinlock_init(&s->writer);
    if (!ck_ht_init(&s->map, CK_HT_MODE_DIRECT, NULL, &map_memory, 4 * entries, bench_seed()))
        bench_fail("ck_ht_init for %zu sessions failed", sessions);
    s->entries = table_memory(entries * sizeof *s->entries, false);
    s->free = table_memory(entries * sizeof *s->free, false);
    for (size_t i = entries; i-- > 0;)
        s->free[s->free_count++] = &s->entries[i];
    return s;
}

static void *open_table(size_t sessions)
{
    struct table first = { shared_new(sessions), NULL }, *t = join(&first);
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        struct record record = usual_record(handle);
        insert(t, handle, &record);
    }
    return t;
}

static void close_table(void *table)
{
    struct shared *s = ((struct table *)table)->shared;
    leave(table);
    ck_ht_destroy(&s->map);
    table_memory_free(s->entries, entries_of(s->sessions) * sizeof *s->entries);
    table_memory_free(s->free, entries_of(s->sessions) * sizeof *s->free);
    free(s);
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

const struct contender ck_contender = {
    .name = "ck_ht",
    .scope = SCOPE_THREADS,
    .lacks = "threads of one process only, one of which may write; a walk stops the writer; a reader "
             "pays a full fence; nothing survives the process; nothing is found by player",
    .bytes_per_session = 410,
    .open = open_table,
    .close = close_table,
    .join = join,
    .leave = leave,
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
