/*
 * liburcu's cds_lfht under the memb flavour, as a process would use it for itself: presized, its
 * entries in one piece of memory, each on cache lines of its own.
 *
 * A change of several bytes is what RCU asks for: a new entry replaces the old one, which is used
 * again after a grace period.  One synchronize_rcu() serves many of them; with a single thread this
 * is quicker than call_rcu().
 */
#include "bench/contender.h"

#define _LGPL_SOURCE /* inlines the read side; the header allows it to compatible licences */
#include <urcu/urcu-memb.h>
#include <urcu/rculfhash.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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
    struct cds_lfht *sessions, *players;
    struct entry *entries;
    struct player_entry *player_entries;
    struct entry **free;     /* not in the table */
    size_t free_count;
    struct entry *retired[GRACE_BATCH];
    size_t retired_count;
    uint64_t now;
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
    cds_lfht_lookup(t->sessions, hash_of(handle), has_handle, &handle, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? entry_of(node) : NULL;
}

static struct entry *must_find(struct table *t, uint64_t handle)
{
    struct entry *e = find(t, handle);
    if (!e)
        bench_fail("lfht did not find session %llu", (unsigned long long)handle);
    return e;
}

static unsigned long player_hash(const char *player)
{
    return XXH3_64bits(player, strlen(player));
}

/* ---------------------------------------------------------------- memory ---------------- */

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
    urcu_memb_synchronize_rcu();
    while (t->retired_count)
        t->free[t->free_count++] = t->retired[--t->retired_count];
}

/* ---------------------------------------------------------------- open, close ----------- */

static size_t power_of_two(size_t least)
{
    size_t n = 1;
    while (n < least)
        n *= 2;
    return n;
}

static struct cds_lfht *new_lfht(size_t sessions)
{
    size_t buckets = power_of_two(sessions);
    struct cds_lfht *lfht = cds_lfht_new_flavor(buckets, buckets, 0, 0, &urcu_memb_flavor, NULL);
    if (!lfht)
        bench_fail("cds_lfht_new of %zu buckets failed", buckets);
    return lfht;
}

static void add(struct table *t, struct entry *e, uint64_t handle)
{
    e->handle = handle;
    urcu_memb_read_lock();
    struct cds_lfht_node *there =
        cds_lfht_add_unique(t->sessions, hash_of(handle), has_handle, &handle, &e->node);
    urcu_memb_read_unlock();
    if (there != &e->node)
        bench_fail("lfht has session %llu already", (unsigned long long)handle);
}

static void add_player(struct table *t, struct player_entry *p, uint64_t handle)
{
    p->handle = handle;
    player_of(handle, p->player);
    urcu_memb_read_lock();
    cds_lfht_add(t->players, player_hash(p->player), &p->node);
    urcu_memb_read_unlock();
}

static void *open_table(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    size_t entries = sessions + 2 * GRACE_BATCH;
    urcu_memb_register_thread();
    t->sessions = new_lfht(sessions);
    t->players = new_lfht(sessions);
    t->entries = aligned_alloc(sizeof *t->entries, entries * sizeof *t->entries);
    t->player_entries = bench_memory(sessions, sizeof *t->player_entries);
    t->free = bench_memory(entries, sizeof(struct entry *));
    if (!t->entries)
        bench_fail("out of memory: %zu entries for lfht", entries);
    for (size_t i = entries; i-- > 0;)
        t->free[t->free_count++] = &t->entries[i];
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        struct entry *e = claim(t);
        e->record = usual_record(handle);
        add(t, e, handle);
        add_player(t, &t->player_entries[handle - 1], handle);
    }
    t->now = USUAL_CONNECTED_AT;
    return t;
}

static void empty(struct cds_lfht *lfht)
{
    struct cds_lfht_iter iter;
    struct cds_lfht_node *node;
    urcu_memb_read_lock();
    cds_lfht_for_each(lfht, &iter, node)
        cds_lfht_del(lfht, node);
    urcu_memb_read_unlock();
    urcu_memb_synchronize_rcu();
    cds_lfht_destroy(lfht, NULL);
}

static void close_table(void *table)
{
    struct table *t = table;
    empty(t->sessions);
    empty(t->players);
    urcu_memb_unregister_thread();
    free(t->entries);
    free(t->player_entries);
    free(t->free);
    free(t);
}

/* ---------------------------------------------------------------- reading --------------- */

static uint64_t get_view(void *table, const struct keys *keys)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < keys->count; i++) {
        urcu_memb_read_lock();
        const struct record *r = &must_find(table, keys->handles[i])->record;
        sum += read_words(r->connected_at, r->player);
        urcu_memb_read_unlock();
    }
    return sum;
}

static uint64_t get_dependent(void *table, const struct keys *keys)
{
    uint64_t sum = 0, last = 0;
    for (size_t i = 0; i < keys->count; i++) {
        urcu_memb_read_lock();
        const struct record *r = &must_find(table, keys->handles[i] + (last & 1))->record;
        last = r->connected_at;
        sum += read_words(last, r->player);
        urcu_memb_read_unlock();
    }
    return sum;
}

static uint64_t get_copy(void *table, const struct keys *keys)
{
    struct record copy;
    uint64_t sum = 0;
    for (size_t i = 0; i < keys->count; i++) {
        urcu_memb_read_lock();
        copy = must_find(table, keys->handles[i])->record;
        urcu_memb_read_unlock();
        __asm__ volatile("" : : "r"(&copy) : "memory"); /* all of it is wanted */
        sum += read_words(copy.connected_at, copy.player);
    }
    return sum;
}

static uint64_t get_miss(void *table, const struct keys *keys)
{
    uint64_t misses = 0;
    for (size_t i = 0; i < keys->count; i++) {
        urcu_memb_read_lock();
        misses += find(table, keys->handles[i]) == NULL;
        urcu_memb_read_unlock();
    }
    if (misses != keys->count)
        bench_fail("lfht found a session that is not there");
    return misses;
}

static uint64_t scan(void *table, const struct keys *keys)
{
    struct table *t = table;
    uint64_t sum = 0;
    size_t seen = 0;
    while (seen < keys->count) {
        struct cds_lfht_iter iter;
        struct entry *e;
        urcu_memb_read_lock();
        cds_lfht_for_each_entry(t->sessions, &iter, e, node) {
            sum += read_words(e->record.connected_at, e->record.player);
            seen++;
        }
        urcu_memb_read_unlock();
    }
    if (seen != keys->count)
        bench_fail("a walk over lfht saw %zu sessions instead of %zu", seen, keys->count);
    return sum;
}

static uint64_t by_player(void *table, const struct keys *keys)
{
    struct table *t = table;
    uint64_t sum = 0;
    for (size_t i = 0; i < keys->count; i++) {
        struct cds_lfht_iter iter;
        struct player_entry *p;
        const char *player = keys->players[i];
        urcu_memb_read_lock();
        cds_lfht_for_each_entry_duplicate(t->players, player_hash(player), has_player, player,
                                          &iter, p, node) {
            const struct record *r = &must_find(t, p->handle)->record;
            if (strcmp(r->player, player) == 0)
                sum += read_words(r->connected_at, r->player);
        }
        urcu_memb_read_unlock();
    }
    if (sum < keys->count * USUAL_CONNECTED_AT)
        bench_fail("lfht did not find every player's session");
    return sum;
}

/* ---------------------------------------------------------------- changing -------------- */

static uint64_t touch(void *table, const struct keys *keys)
{
    struct table *t = table;
    for (size_t i = 0; i < keys->count; i++) {
        urcu_memb_read_lock();
        struct record *r = &must_find(t, keys->handles[i])->record;
        if (uatomic_read(&r->last_seen) < ++t->now)
            uatomic_set(&r->last_seen, t->now);
        urcu_memb_read_unlock();
    }
    return t->now;
}

static void replace(struct table *t, uint64_t handle, const void *value)
{
    struct cds_lfht_iter iter;
    unsigned long hash = hash_of(handle);
    struct entry *new = claim(t), *old;
    int failed;
    urcu_memb_read_lock();
    do { /* another writer may be first */
        cds_lfht_lookup(t->sessions, hash, has_handle, &handle, &iter);
        old = entry_of(cds_lfht_iter_get_node(&iter));
        new->handle = handle;
        new->record = old->record;
        memcpy(new->record.metadata, value, METADATA_SET_BYTES);
        failed = cds_lfht_replace(t->sessions, &iter, hash, has_handle, &handle, &new->node);
    } while (failed);
    urcu_memb_read_unlock();
    retire(t, old);
}

static uint64_t metadata_set(void *table, const struct keys *keys)
{
    uint64_t value[METADATA_SET_BYTES / 8] = { 0 };
    for (size_t i = 0; i < keys->count; i++) {
        value[0]++;
        replace(table, keys->handles[i], value);
    }
    return value[0];
}

static uint64_t insert_remove(void *table, const struct keys *keys)
{
    struct table *t = table;
    const struct record usual = usual_record(1);
    for (size_t i = 0; i < keys->count; i++) {
        struct entry *e = claim(t);
        e->record = usual;
        add(t, e, keys->handles[i]);
        urcu_memb_read_lock();
        e = must_find(t, keys->handles[i]);
        bool gone = cds_lfht_del(t->sessions, &e->node) == 0;
        urcu_memb_read_unlock();
        if (!gone)
            bench_fail("lfht did not remove a session");
        retire(t, e);
    }
    return keys->count;
}

const struct contender lfht_contender = {
    .name = "lfht",
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
        [OPERATION_BY_PLAYER] = by_player,
    },
};
