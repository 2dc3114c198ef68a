/*
 * Damage in a live table: it is told as CORRUPT, nobody crashes, hangs or gets another one's session;
 * what is damaged is kept from Redis, and can be removed.  (tests/fuzz/ tries far more damage; here are
 * the promises, by name.)
 */
#include "tests/harness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/store.h"
#include "lib/table.h"

enum { SESSIONS = 20, DAMAGED = 7, TORN = 6, WRONG = 1, UNREADABLE = 2 };

static char output[1 << 16];

static int shmdump(const char *view, const char *name)
{
    return run_program((const char *[]){ program("shmdump"), view, name, NULL }, output, sizeof output);
}

static const char *player_of(uint64_t handle)
{
    static const char *const players[] = { "#even", "#odd" };
    return players[handle % 2];
}

static void insert_full(sesstab *t, uint64_t handle, size_t padding)
{
    static const char value[4096];
    char host[32];
    snprintf(host, sizeof host, "host-%llu", (unsigned long long)handle);
    const sesstab_pair pairs[] = { { "width", "80", 2 }, { "padding", value, padding } };
    check_ok(sesstab_insert(t, &handle, &(sesstab_info){ .address = "192.0.2.7", .host = host,
                            .type = "telnet", .metadata = pairs, .metadata_count = 2 }));
}

static void check_session(sesstab *t, uint64_t handle)
{
    char host[32];
    snprintf(host, sizeof host, "host-%llu", (unsigned long long)handle);
    sesstab_view view = look(t, handle);
    check_equal(view.handle, handle);
    check_string(view.host, host);
    check_string(metadata_of(&view, "width"), "80");
}

static void fill(sesstab *t)
{
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        insert_full(t, handle, handle == 9 ? 1000 : 10);
        int result = sesstab_bind(t, handle, player_of(handle), 0);
        check_either(result, SESSTAB_OK, SESSTAB_UNKNOWN);
    }
}

/* ---------------------------------------------------------------- damage ----------------- */

static struct slot *slot_of(sesstab *t, uint64_t handle)
{
    check_ok(sesstab_read_begin(t));
    int error;
    struct slot *s = index_lookup(context_of(&t->shm, &error), handle);
    sesstab_read_end(t);
    check(s != NULL);
    return s;
}

static struct block *block_of(sesstab *t, uint64_t handle)
{
    return block_at(&t->shm, CURRENT_BLOCK(load_acquire(&slot_of(t, handle)->current)));
}

static uint8_t *first_key_length(sesstab *t, uint64_t handle)
{
    struct block *b = block_of(t, handle);
    return (uint8_t *)b + b->metadata_at + offsetof(struct metadata, key_length);
}

static void other_handle(struct slot *s, struct block *b) { (void)s; b->handle++; }
static void other_version(struct slot *s, struct block *b) { (void)s; b->version++; }
static void too_long(struct slot *s, struct block *b) { (void)s; b->size = 1 << 20; }
static void beyond_its_block(struct slot *s, struct block *b) { (void)s; b->size = BLOCK_UNIT + 1; }
static void too_short(struct slot *s, struct block *b) { (void)s; b->size = 100; }
static void no_state(struct slot *s, struct block *b) { (void)s; b->state = 99; }
static void longer_player(struct slot *s, struct block *b) { (void)s; b->player_length++; }
static void metadata_elsewhere(struct slot *s, struct block *b) { (void)s; b->metadata_at += 8; }
static void born_in_the_future(struct slot *s, struct block *b) { (void)s; b->birth = UINT64_MAX / 2; }
static void block_outside(struct slot *s, struct block *b)
{
    (void)b;
    s->current |= UINT64_C(0xfffff) << 44;
}
static void other_block(struct slot *s, struct block *b)
{
    (void)b;
    s->current += UINT64_C(1) << 32;
}

static const struct damage {
    const char *what;
    void (*make)(struct slot *s, struct block *b);
} damages[] = {
    { "another handle", other_handle },      { "another version", other_version },
    { "a huge size", too_long },             { "a size beyond its block", beyond_its_block },
    { "a tiny size", too_short },            { "no state", no_state },
    { "a longer player", longer_player },    { "metadata elsewhere", metadata_elsewhere },
    { "a birth in the future", born_in_the_future },
    { "a block outside", block_outside },    { "another block", other_block },
};
enum { DAMAGES = sizeof damages / sizeof *damages };

static int find(sesstab *t, uint64_t handle)
{
    sesstab_view view;
    check_ok(sesstab_read_begin(t));
    int result = sesstab_find(t, handle, &view);
    sesstab_read_end(t);
    return result;
}

static int get(sesstab *t, uint64_t handle)
{
    char buffer[4096];
    size_t size = sizeof buffer;
    sesstab_view view;
    return sesstab_get(t, handle, &view, buffer, &size);
}

/* Nobody reads or changes the session; all others are as they were. */
static void check_quarantine(sesstab *t, uint64_t damaged)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    unsigned corrupt = 0, sound = 0;
    int result;
    check_result(find(t, damaged), SESSTAB_CORRUPT);
    check_result(get(t, damaged), SESSTAB_CORRUPT);
    check_result(sesstab_set(t, damaged, "key", "value", 5), SESSTAB_CORRUPT);
    check_result(sesstab_bind(t, damaged, "#9", 0), SESSTAB_CORRUPT);
    check_result(sesstab_set_state(t, damaged, SESSTAB_DETACHED, NULL), SESSTAB_CORRUPT);
    uint64_t again = damaged;
    check_result(sesstab_insert(t, &again, NULL), SESSTAB_EXISTS);
    while ((result = sesstab_next(t, &cursor, &view)) != SESSTAB_NOTFOUND) {
        check_either(result, SESSTAB_OK, SESSTAB_CORRUPT);
        *(result == SESSTAB_OK ? &sound : &corrupt) += 1;
    }
    check_equal(corrupt, 1);
    check_equal(sound, SESSIONS - 1);
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        if (handle != damaged)
            check_session(t, handle);
}

static void damage_quarantine_and_remove(sesstab *t, const char *name, const struct damage *d)
{
    fill(t);
    d->make(slot_of(t, DAMAGED), block_of(t, DAMAGED));
    check_quarantine(t, DAMAGED);
    check_equal(shmdump("--check", name), WRONG);
    check(strstr(output, "handle 7:") || strstr(output, "born in era"));
    check_ok(sesstab_remove(t, DAMAGED));
    check_result(find(t, DAMAGED), SESSTAB_NOTFOUND);
    check_result(sesstab_remove(t, DAMAGED), SESSTAB_NOTFOUND);
    insert_full(t, DAMAGED, 10);
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        check_session(t, handle);
    check_table(name);
}

static void a_damaged_record_is_corrupt_until_it_is_removed(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * DAMAGES; i++) {
        const char *name = new_name();
        sesstab *t = open_table(name, &(sesstab_options){ .create = true, .max_bytes = 64 << 20,
                                      .mode = i < DAMAGES ? SESSTAB_MEMORY : SESSTAB_SELECTIVE });
        print_message("%s, mode %s\n", damages[i % DAMAGES].what, i < DAMAGES ? "MEMORY" : "SELECTIVE");
        damage_quarantine_and_remove(t, name, &damages[i % DAMAGES]);
        close_table(t);
    }
}

/* What the public calls can't see at once is told where it matters. */
static void a_string_without_its_end_and_torn_metadata_are_corrupt(void **state)
{
    sesstab *t = memory_table();
    const void *value;
    (void)state;
    fill(t);
    struct block *b = block_of(t, DAMAGED);
    char *player = (char *)(b + 1);
    player[b->player_length] = 'x';
    check_result(get(t, DAMAGED), SESSTAB_CORRUPT);
    check_result(sesstab_set(t, DAMAGED, "key", "value", 5), SESSTAB_CORRUPT);
    player[b->player_length] = 0;
    check_session(t, DAMAGED);
    *first_key_length(t, DAMAGED) = 200;
    sesstab_view view = look(t, DAMAGED);
    check_result(sesstab_metadata(&view, "width", &value, NULL, NULL), SESSTAB_CORRUPT);
    check_result(sesstab_set(t, DAMAGED, "key", "value", 5), SESSTAB_CORRUPT);
    check_result(sesstab_delete(t, DAMAGED, "width"), SESSTAB_CORRUPT);
    *first_key_length(t, DAMAGED) = 5;
    check_session(t, DAMAGED);
}

/* Takes and gives back so much that what was freed wrongly would be somebody else's by now. */
static void churn(sesstab *t)
{
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t handle = 1000 + i % 10;
        insert_full(t, handle, 20);
        check_ok(sesstab_set(t, handle, "width", "80", 2));
        check_ok(sesstab_remove(t, handle));
    }
}

static void a_wrong_reference_never_leads_to_another_session(void **state)
{
    sesstab *t = memory_table();
    (void)state;
    fill(t);
    struct slot *mine = slot_of(t, DAMAGED), *other = slot_of(t, 9);
    uint64_t sound = mine->current;
    mine->current = other->current; /* another session's record, down to its version */
    check_quarantine(t, DAMAGED);
    check_ok(sesstab_remove(t, DAMAGED));
    churn(t);
    check_session(t, 9);
    insert_full(t, DAMAGED, 10);
    /* What is left of the removed session's record is not found, though it has the handle. */
    mine = slot_of(t, DAMAGED);
    uint64_t now = mine->current;
    mine->current = (sound & ~(uint64_t)UINT32_MAX) | (now & UINT32_MAX);
    check_result(find(t, DAMAGED), SESSTAB_CORRUPT);
    mine->current = now;
    check_session(t, DAMAGED);
    /* A record that names another slot may be that slot's: it is not replaced, nor given away. */
    block_of(t, DAMAGED)->slot = slot_ref_of(&t->shm, other).at;
    check_result(sesstab_set(t, DAMAGED, "width", "1", 1), SESSTAB_CORRUPT);
    check_ok(sesstab_remove(t, DAMAGED));
    churn(t);
    check_session(t, 9);
}

enum { CHAIN = 12 };

/* Handles of one bucket; all but the last get sessions, which stand behind each other. */
static void fill_a_bucket(sesstab *t, uint64_t handles[CHAIN + 1])
{
    uint64_t handle = 1, bucket = 0;
    for (int i = 0; i <= CHAIN; handle++) {
        uint64_t mask = index_mask(&t->shm, INDEX_HANDLES), hash = hash_of_handle(&t->shm, handle);
        if (i > 0 && (hash & mask) != bucket)
            continue;
        handles[i++] = handle;
        if (i <= CHAIN)
            insert_full(t, handle, 10);
        bucket = hash & index_mask(&t->shm, INDEX_HANDLES);
    }
}

static void bend(sesstab *t, struct slot *s, uint64_t to)
{
    s->node.next = LINK_WORD(slot_ref_of(&t->shm, slot_of(t, to)).at,
                             HASH_TAG(hash_of_handle(&t->shm, to)), 0);
}

/* Whatever link is bent to wherever: every call ends, and finds the right one or says that it can't. */
static void no_circle_in_an_index_keeps_anybody(void **state)
{
    const char *name = new_name();
    sesstab *t = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
    uint64_t handles[CHAIN + 1];
    unsigned corrupt = 0;
    (void)state;
    fill_a_bucket(t, handles);
    for (int k = 0; k < CHAIN * CHAIN; k++) {
        struct slot *s = slot_of(t, handles[k / CHAIN]);
        uint64_t sound = s->node.next;
        bend(t, s, handles[k % CHAIN]);
        for (int i = 0; i < CHAIN; i++) {
            int result = find(t, handles[i]);
            corrupt += result == SESSTAB_CORRUPT;
            check(result == SESSTAB_OK || result == SESSTAB_NOTFOUND || result == SESSTAB_CORRUPT);
        }
        int result = sesstab_insert(t, &handles[CHAIN], NULL);
        check_either(result, SESSTAB_OK, SESSTAB_CORRUPT);
        sesstab_remove(t, handles[CHAIN]);
        s->node.next = sound;
    }
    check(corrupt > 0);
    for (int i = 0; i < CHAIN; i++)
        check_session(t, handles[i]);
    check_ok(sesstab_unlink(name)); /* what came and went meanwhile may be linked in the wrong place */
}

/* ---------------------------------------------------------------- the header ------------- */

static volatile size_t sink;

static int look_at(const sesstab_view *view, void *context)
{
    size_t position = 0;
    sesstab_pair pair;
    (void)context;
    sink += strlen(view->player) + strlen(view->address) + strlen(view->host) + strlen(view->type);
    while (sesstab_metadata_next(view, &position, &pair, NULL) == SESSTAB_OK)
        sink += strlen(pair.key) + pair.length;
    return 0;
}

/* All that goes by the header's numbers: growth, walks, sweeps, the persister's side. */
static void use_everything(sesstab *t)
{
    struct store *store = store_open(t);
    struct store_image images[8];
    check(store != NULL);
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        find(t, handle);
        sesstab_set(t, handle, "width", "80", 2);
        sesstab_touch(t, handle, 0);
    }
    uint64_t new = 100;
    if (sesstab_insert(t, &new, NULL) == SESSTAB_OK)
        sesstab_remove(t, new);
    sesstab_by_player(t, "#odd", look_at, NULL);
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    while (sesstab_next(t, &cursor, &view) == SESSTAB_OK)
        look_at(&view, NULL);
    for (int i = 0; i < 10; i++)
        store_take(store, images, 8, false);
    store_recover(t, NULL, 0, NULL);
    store_close(store);
}

static void no_number_in_the_header_leads_outside(void **state)
{
    const char *name;
    sesstab *t = selective_table(&name);
    struct header *h = t->shm.header;
    atomic_u64 *const numbers[] = { &h->committed, &h->handles.buckets, &h->players.buckets,
                                    &h->worker_high, &h->thread_high, &h->group_high, &h->sweep_cursor };
    static const uint64_t values[] = { 0, 1, 12345, UINT32_MAX, UINT64_C(1) << 40, UINT64_MAX };
    (void)state;
    fill(t);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            uint64_t sound = *numbers[i];
            *numbers[i] = values[k];
            h->overflow = h->sweep_wanted = 1; /* look at everything */
            use_everything(t);
            *numbers[i] = sound;
        }
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        check_session(t, handle);
    check_ok(sesstab_unlink(name)); /* a growth that went by a wrong number has left its traces */
}

/* ---------------------------------------------------------------- Redis ------------------ */

static void what_is_damaged_is_kept_from_redis_and_from_nobody_else(void **state)
{
    const char *name;
    struct redis *redis = start_redis(NULL);
    sesstab *t = selective_table(&name);
    (void)state;
    pid_t persister = start_persister(name, redis->url, NULL);
    check_ok(sesstab_wait_ready(t, WAIT_LIMIT));
    fill(t);
    wait_until_redis_equals(t, redis);
    *first_key_length(t, TORN) = 200;
    char version[32];
    check(redis_text(redis, version, sizeof version, "HGET " TEST_PREFIX ":conn:7 Version"));
    check_ok(sesstab_set_state(t, TORN, SESSTAB_DETACHED, NULL));
    struct block *b = block_of(t, DAMAGED);
    uint8_t sound = b->state;
    b->state = 99;
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        check_ok(sesstab_touch(t, handle, sesstab_now() + 5000));
        check_either(sesstab_set(t, handle, "width", "100", 3), SESSTAB_OK, SESSTAB_CORRUPT);
    }
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        char key[64];
        snprintf(key, sizeof key, TEST_PREFIX ":conn:%llu:metadata", (unsigned long long)handle);
        if (handle != DAMAGED && handle != TORN)
            wait_until(redis_field_is(redis, key, "width", "100"));
    }
    /* Nor does another leader, which compares the table with Redis. */
    kill_child(persister);
    start_persister(name, redis->url, NULL);
    check_ok(sesstab_set(t, 1, "width", "101", 3));
    wait_until(redis_field_is(redis, TEST_PREFIX ":conn:1:metadata", "width", "101"));
    check(redis_field_is(redis, TEST_PREFIX ":conn:7", "Version", version));
    check(redis_field_is(redis, TEST_PREFIX ":conn:7:metadata", "width", "80"));
    check(redis_field_is(redis, TEST_PREFIX ":conn:6", "State", "logged-in"));
    *first_key_length(t, TORN) = 5;
    check_ok(sesstab_touch(t, TORN, sesstab_now() + 10000));
    wait_until(redis_field_is(redis, TEST_PREFIX ":conn:6", "State", "detached"));
    check_equal(shmdump("--check", name), WRONG);
    check(strstr(output, "handle 7:") != NULL);
    b->state = sound; /* once more as it was: then it is ended in the worst state */
    b->handle = 8;
    check_ok(sesstab_remove(t, DAMAGED));
    wait_until(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:7") == 0);
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:8"), 1);
}

/* ---------------------------------------------------------------- a scribbler ------------ */

struct arena {
    sesstab *table;
    _Atomic unsigned ready;
    _Atomic bool stop;
    uint64_t scribbles, reads, writes;
};

enum { READERS = 2, CHILDREN = READERS + 2 };

/* Any word of what the table uses, but the words that say which table it is. */
static void scribble(void *context)
{
    struct arena *arena = context;
    struct shm *shm = &arena->table->shm;
    const uint64_t parts[][2] = {
        { offsetof(struct header, era), sizeof(struct header) - offsetof(struct header, era) },
        { shm->at.workers, 8 * sizeof(struct worker) }, { shm->at.threads, 8 * sizeof(struct thread) },
        { shm->at.urgent, shm->at.tickets - shm->at.urgent },  { shm->at.tickets, 8 * sizeof(struct ticket) },
        { shm->at.rings, 8 * sizeof(struct ring) },     { shm->at.chunks, 4 * sizeof(struct chunk) },
        { shm->at.handles, 32768 },                     { shm->at.players, 32768 },
        { shm->at.heap + PAGE_BYTES, 30 * PAGE_BYTES }, { shm->at.heap + CHUNK_BYTES, 4 * PAGE_BYTES },
    };
    check_ok(sesstab_attach(arena->table));
    meet(&arena->ready, CHILDREN);
    for (; !arena->stop; arena->scribbles++) {
        const uint64_t *part = parts[random_below(sizeof parts / sizeof *parts)];
        atomic_u64 *word = (atomic_u64 *)(shm->base + part[0] + random_below(part[1] / 8) * 8);
        uint64_t sound = load_relaxed(word);
        store_relaxed(word, random_below(2) ? sound ^ UINT64_C(1) << random_below(64)
                                            : random_number());
        if (random_below(4)) /* or else it would be all rubbish soon, and nobody would get far */
            store_relaxed(word, sound);
    }
}

static void read_damaged(void *context)
{
    struct arena *arena = context;
    sesstab_view view;
    check_ok(sesstab_attach(arena->table));
    meet(&arena->ready, CHILDREN);
    for (; !arena->stop; arena->reads++) {
        uint64_t handle = 1 + random_below(SESSIONS + 5);
        if (sesstab_read_begin(arena->table) == SESSTAB_OK) {
            if (sesstab_find(arena->table, handle, &view) == SESSTAB_OK) {
                check_equal(view.handle, handle);
                look_at(&view, NULL);
            }
            sesstab_read_end(arena->table);
        }
        get(arena->table, handle);
        if (arena->reads % 16 == 0)
            sesstab_by_player(arena->table, player_of(handle), look_at, NULL);
        sesstab_cursor cursor = sesstab_part((unsigned)random_below(64), 64);
        for (int i = 0; i < 5 && sesstab_next(arena->table, &cursor, &view) == SESSTAB_OK; i++)
            look_at(&view, NULL);
        sesstab_pause(arena->table, &cursor);
    }
}

static void write_damaged(void *context)
{
    struct arena *arena = context;
    sesstab *t = arena->table;
    check_ok(sesstab_attach(t));
    meet(&arena->ready, CHILDREN);
    for (; !arena->stop; arena->writes++) {
        uint64_t handle = 1 + random_below(SESSIONS + 5);
        sesstab_touch(t, handle, sesstab_now());
        sesstab_set(t, handle, "width", "81", 2);
        sesstab_bind(t, handle, player_of(random_below(2)), 0);
        if (random_below(8) == 0)
            sesstab_remove(t, handle);
        sesstab_insert(t, &handle, &(sesstab_info){ .host = "again" });
    }
}

static void a_scribbler_on_a_live_table_kills_and_stops_nobody(void **state)
{
    static const char *const views[] = { "--json", "--sessions", "--session=7", "--workers", "--rings",
                                         "--memory", "--check" };
    struct arena *arena = shared_memory(sizeof *arena);
    const char *name;
    (void)state;
    arena->table = selective_table(&name);
    fill(arena->table);
    pid_t pids[CHILDREN];
    pids[0] = start_child(scribble, arena);
    pids[1] = start_child(write_damaged, arena);
    for (int i = 0; i < READERS; i++)
        pids[2 + i] = start_child(read_damaged, arena);
    for (int i = 0; i < rounds(28); i++)
        check(shmdump(views[i % 7], name) <= UNREADABLE);
    wait_until(arena->scribbles > 1000 && arena->reads > 100 && arena->writes > 10);
    arena->stop = true;
    for (int i = 0; i < CHILDREN; i++)
        join_child(pids[i]);
    check_ok(sesstab_unlink(name));
}

/* What it stands for can't be known: nobody must conclude that it has ended. */
static void a_session_whose_key_is_damaged_is_not_taken_for_gone(void **state)
{
    sesstab *t = memory_table();
    (void)state;
    for (uint64_t handle = 1; handle <= 100; handle++)
        insert_plain(t, handle);
    for (uint64_t handle = 1; handle <= 100; handle++) {
        struct slot *s = slot_of(t, handle);
        s->node.key ^= UINT64_C(1) << 40;
        check_result(find(t, handle), SESSTAB_CORRUPT);
        check_result(get(t, handle), SESSTAB_CORRUPT);
        s->node.key ^= UINT64_C(1) << 40;
        check_ok(find(t, handle));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_damaged_record_is_corrupt_until_it_is_removed),
        TEST(a_string_without_its_end_and_torn_metadata_are_corrupt),
        TEST(a_wrong_reference_never_leads_to_another_session),
        TEST(no_circle_in_an_index_keeps_anybody),
        TEST(no_number_in_the_header_leads_outside),
        TEST(what_is_damaged_is_kept_from_redis_and_from_nobody_else),
        TEST(a_scribbler_on_a_live_table_kills_and_stops_nobody),
        TEST(a_session_whose_key_is_damaged_is_not_taken_for_gone),
    };
    return run_all(tests);
}
