/*
 * liburcu's cds_lfht, as a process would use it for itself: presized, its entries in one piece of
 * memory, each on cache lines of its own.  Included once for each flavour of RCU, whose names are
 * mapped by liburcu's headers; lfht_memb.c and lfht_qsbr.c.
 *
 * A change of several bytes is what RCU asks for: a new entry replaces the old one, which is used
 * again after a grace period.  One synchronize_rcu() serves many of them; for one writer this is
 * quicker than call_rcu().  Writers of more than 8 bytes come one at a time.
 */
#include "bench/table/loops.h"

#include <urcu/rculfhash.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>

enum { GRACE_BATCH = 256 };

struct entry {
    struct cds_lfht_node node;
    uint64_t handle;
    struct record record;
} __attribute__((aligned(64)));

/* The index by player leads to a handle, so that replacing a session leaves it alone. */
struct player_entry {
    struct cds_lfht_node node;
    uint64_t handle;
    char player[PLAYER_BYTES];
};

struct table {
    size_t sessions;
    struct cds_lfht *handles, *players;
    struct entry *entries;
    struct player_entry *player_entries;
    struct entry **free;     /* not in the table */
    size_t free_count;
    struct entry *retired[GRACE_BATCH];
    size_t retired_count;
};

/* ---------------------------------------------------------------- finding --------------- */

static struct entry *entry_of(struct cds_lfht_node *node)
{
    return caa_container_of(node, struct entry, node);
}

static int has_handle(struct cds_lfht_node *node, const void *handle)
{
    return entry_of(node)->handle == *(const uint64_t *)handle;
}

static int has_player(struct cds_lfht_node *node, const void *player)
{
    return strcmp(caa_container_of(node, struct player_entry, node)->player, player) == 0;
}

/* Inside a read section, as everything that uses what it returns. */
static struct entry *find(struct table *t, uint64_t handle)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(t->handles, hash_of(handle), has_handle, &handle, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? entry_of(node) : NULL;
}

static unsigned long player_hash(const char *player)
{
    return XXH3_64bits(player, strlen(player));
}

/* ---------------------------------------------------------------- reading --------------- */

static uint64_t view(void *table, uint64_t handle)
{
    rcu_read_lock();
    struct entry *e = find(table, handle);
    uint64_t words = e ? words_of(&e->record) : 0;
    rcu_read_unlock();
    quiesce();
    return words;
}

static bool copy(void *table, uint64_t handle, struct record *record)
{
    rcu_read_lock();
    struct entry *e = find(table, handle);
    if (e)
        *record = e->record;
    rcu_read_unlock();
    quiesce();
    return e;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    size_t found = 0;
    rcu_read_lock();
    for (size_t i = 0; i < count; i++) {
        struct entry *e = find(table, handles[i]);
        found += e != NULL;
        *sum += e ? words_of(&e->record) : 0;
    }
    rcu_read_unlock();
    quiesce();
    return found;
}

static size_t scan(void *table, uint64_t *sum)
{
    struct table *t = table;
    struct cds_lfht_iter iter;
    struct entry *e;
    size_t seen = 0;
    rcu_read_lock();
    cds_lfht_for_each_entry(t->handles, &iter, e, node) {
        *sum += words_of(&e->record);
        seen++;
    }
    rcu_read_unlock();
    quiesce();
    return seen;
}

static uint64_t by_player(void *table, const char *player)
{
    struct table *t = table;
    struct cds_lfht_iter iter;
    struct player_entry *p;
    uint64_t sum = 0;
    rcu_read_lock();
    cds_lfht_for_each_entry_duplicate(t->players, player_hash(player), has_player, player, &iter, p,
                                      node) {
        struct entry *e = find(t, p->handle);
        if (e && strcmp(e->record.player, player) == 0)
            sum += words_of(&e->record);
    }
    rcu_read_unlock();
    quiesce();
    return sum;
}

/* ---------------------------------------------------------------- changing -------------- */

static struct entry *claim(struct table *t)
{
    return t->free[--t->free_count];
}

/* Outside of read sections. */
static void retire(struct table *t, struct entry *e)
{
    t->retired[t->retired_count++] = e;
    if (t->retired_count < GRACE_BATCH)
        return;
    synchronize_rcu();
    while (t->retired_count)
        t->free[t->free_count++] = t->retired[--t->retired_count];
}

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    rcu_read_lock();
    struct entry *e = find(table, handle);
    if (e)
        uatomic_set(&e->record.last_seen, now);
    rcu_read_unlock();
    quiesce();
    return e;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    struct table *t = table;
    struct cds_lfht_iter iter;
    unsigned long hash = hash_of(handle);
    struct entry *new = claim(t), *old;
    rcu_read_lock();
    do { /* another writer may be first */
        cds_lfht_lookup(t->handles, hash, has_handle, &handle, &iter);
        old = entry_of(cds_lfht_iter_get_node(&iter));
        new->handle = handle;
        new->record = old->record;
        memcpy(new->record.metadata, value, SET_BYTES);
    } while (cds_lfht_replace(t->handles, &iter, hash, has_handle, &handle, &new->node) != 0);
    rcu_read_unlock();
    quiesce();
    retire(t, old);
    return true;
}

static bool insert(void *table, uint64_t handle, const struct record *record)
{
    struct table *t = table;
    struct entry *e = claim(t);
    e->record = *record;
    e->handle = handle;
    rcu_read_lock();
    struct cds_lfht_node *there =
        cds_lfht_add_unique(t->handles, hash_of(handle), has_handle, &handle, &e->node);
    rcu_read_unlock();
    quiesce();
    return there == &e->node;
}

static bool erase(void *table, uint64_t handle)
{
    struct table *t = table;
    rcu_read_lock();
    struct entry *e = find(t, handle);
    bool gone = e && cds_lfht_del(t->handles, &e->node) == 0;
    rcu_read_unlock();
    quiesce();
    if (gone)
        retire(t, e);
    return gone;
}

/* ---------------------------------------------------------------- open, close ----------- */

static struct cds_lfht *new_lfht(size_t sessions)
{
    size_t buckets = 1;
    while (buckets < sessions)
        buckets *= 2;
    struct cds_lfht *lfht = cds_lfht_new_flavor(buckets, buckets, 0, 0, &rcu_flavor, NULL);
    if (!lfht)
        bench_fail("cds_lfht_new of %zu buckets failed", buckets);
    return lfht;
}

static void add_player(struct table *t, struct player_entry *p, uint64_t handle)
{
    p->handle = handle;
    player_of(handle, p->player);
    rcu_read_lock();
    cds_lfht_add(t->players, player_hash(p->player), &p->node);
    rcu_read_unlock();
    quiesce();
}

static size_t entries_of(size_t sessions)
{
    return sessions + 2 * GRACE_BATCH;
}

static void *open_table(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    size_t entries = entries_of(sessions);
    rcu_register_thread();
    t->sessions = sessions;
    t->handles = new_lfht(sessions);
    t->players = new_lfht(sessions);
    t->entries = table_memory(entries * sizeof *t->entries, false);
    t->player_entries = table_memory(sessions * sizeof *t->player_entries, false);
    t->free = table_memory(entries * sizeof *t->free, false);
    for (size_t i = entries; i-- > 0;)
        t->free[t->free_count++] = &t->entries[i];
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        struct record record = usual_record(handle);
        insert(t, handle, &record);
        add_player(t, &t->player_entries[handle - 1], handle);
    }
    return t;
}

/* Only an empty cds_lfht can be destroyed, and to empty one takes longer than to fill it: its buckets
 * are left to the end of the process. */
static void close_table(void *table)
{
    struct table *t = table;
    rcu_unregister_thread();
    table_memory_free(t->entries, entries_of(t->sessions) * sizeof *t->entries);
    table_memory_free(t->player_entries, t->sessions * sizeof *t->player_entries);
    table_memory_free(t->free, entries_of(t->sessions) * sizeof *t->free);
    free(t);
}

static void *join(void *table)
{
    rcu_register_thread();
    return table;
}

static void leave(void *table)
{
    (void)table;
    rcu_unregister_thread();
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
LOOP(players, each_player, by_player)
LOOP(mix, each_mix, view, touch)

#define LFHT_LACKS                                                                                 \
    "threads of one process only; nothing survives it; an entry of 256 bytes and a bucket for each " \
    "session are provided beforehand"

/* What both flavours have. */
#define LFHT_CONTENDER                                                                             \
    .scope = SCOPE_THREADS, .bytes_per_session = 380, .walk_max = 1000000, .open = open_table,     \
    .close = close_table, .join = join, .leave = leave, .read_back = copy,                         \
    .operations = {                                                                                \
        [OPERATION_VIEW] = get_view,                                                               \
        [OPERATION_COPY] = get_copy,                                                               \
        [OPERATION_MISS] = get_miss,                                                               \
        [OPERATION_DEPENDENT] = get_dependent,                                                     \
        [OPERATION_BATCH] = get_batch,                                                             \
        [OPERATION_TOUCH] = touches,                                                               \
        [OPERATION_SET] = sets,                                                                    \
        [OPERATION_INSERT_REMOVE] = inserts,                                                       \
        [OPERATION_SCAN] = scans,                                                                  \
        [OPERATION_BY_PLAYER] = players,                                                           \
        [OPERATION_MIX] = mix,                                                                     \
    }
