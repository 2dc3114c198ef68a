/*
 * The modes: what waits for Redis in each, what a caller is told, what becomes of what Redis refuses,
 * and that nothing is lost when a table is switched from one to another under load, by whomever.
 */
#include "tests/harness.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/table.h"

#define KEY(handle) TEST_PREFIX ":conn:" #handle
#define METADATA KEY(1) ":metadata"

struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
    pid_t persister;
    _Atomic bool stop;
    _Atomic uint64_t done;
};

static void restart_persister(struct world *world)
{
    world->persister = start_persister(world->name, world->redis->url, NULL);
}

/* A table in MODE, whose calls wait for ever, with a persister and a Redis. */
static struct world *start_world(sesstab_mode mode)
{
    struct world *world = shared_memory(sizeof *world);
    world->name = new_name();
    world->redis = start_redis(NULL);
    world->table = open_table(world->name, &(sesstab_options){ .create = true, .mode = mode,
                                                               .wait_ms = WAIT_LIMIT });
    restart_persister(world);
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    return world;
}

static void check_world(struct world *world)
{
    wait_until_redis_equals(world->table, world->redis);
    check_table(world->name);
}

static void tell_redis(struct world *world, const char *command)
{
    freeReplyObject(redis_query(world->redis, command));
}

static int set_text(sesstab *table, uint64_t handle, const char *key, const char *value)
{
    return sesstab_set(table, handle, key, value, strlen(value));
}

static void behind(sesstab *table)
{
    check_ok(sesstab_set_class(table, SESSTAB_BEHIND, 0));
}

static void synchronous(sesstab *table, int timeout_ms)
{
    check_ok(sesstab_set_class(table, SESSTAB_SYNCHRONOUS, timeout_ms));
}

/* What is evaluated once. */
static void check_one_of(int result, int one, int other)
{
    check_either(result, one, other);
}

/* ---------------------------------------------------------------- kinds of changes ------- */

static int insert_nine(sesstab *table)
{
    uint64_t handle = 9;
    return sesstab_insert(table, &handle, &(sesstab_info){ .type = "nine" });
}

static int set_new(sesstab *table) { return set_text(table, 1, "new", "value"); }
static int set_old(sesstab *table) { return set_text(table, 1, "old", "another"); }
static int set_nothing(sesstab *table) { return set_text(table, 1, "old", ""); }
static int delete_old(sesstab *table) { return sesstab_delete(table, 1, "old"); }
static int count_on(sesstab *table) { return sesstab_increment(table, 1, "count", 7, NULL); }
static int count_first(sesstab *table) { return sesstab_increment(table, 1, "n", -3, NULL); }
static int to_account(sesstab *table) { return sesstab_set_state(table, 1, SESSTAB_ACCOUNT, NULL); }

static uint64_t version_of(sesstab *table, const char *key)
{
    uint64_t version = 0;
    const void *value;
    sesstab_view view = look(table, 1);
    check_one_of(sesstab_metadata(&view, key, &value, NULL, &version), SESSTAB_OK, SESSTAB_NOTFOUND);
    return version;
}

static int exchange_old(sesstab *table)
{
    return sesstab_compare_and_set(table, 1, "old", version_of(table, "old"), "exchanged", 9, NULL);
}

static const struct kind {
    const char *name;
    int (*make)(sesstab *table);
    bool adds; /* to the metadata; what takes from it replaces the key, whatever it holds */
} kinds[] = {
    { "insert", insert_nine, false },     { "set a new key", set_new, true },
    { "set a key", set_old, true },       { "set to nothing", set_nothing, true },
    { "delete", delete_old, false },       { "increment", count_on, true },
    { "increment a new key", count_first, true },
    { "compare and set", exchange_old, true },
    { "set the state", to_account, false },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* ---------------------------------------------------------------- what there is ---------- */

static const char *const keys[] = { "old", "new", "count", "n" };
enum { KEYS = sizeof keys / sizeof *keys, TEXT = 256 };

static void put(char text[TEXT], const char *name, const char *value)
{
    size_t length = strlen(text);
    snprintf(text + length, TEXT - length, "%s=%s ", name, value);
}

/* Session 1, and whether there is a 9, as the table has it. */
static void table_text(sesstab *table, char text[TEXT])
{
    char buffer[1024];
    size_t size = sizeof buffer;
    sesstab_view view;
    *text = 0;
    put(text, "nine", sesstab_get(table, 9, &view, buffer, &size) == SESSTAB_OK ? "1" : "0");
    view = look(table, 1);
    put(text, "state", sesstab_state_name(view.state));
    for (size_t i = 0; i < KEYS; i++)
        put(text, keys[i], metadata_of(&view, keys[i]) ? metadata_of(&view, keys[i]) : "(none)");
}

/* The same as Redis has it now. */
static void redis_text_of(struct redis *redis, char text[TEXT])
{
    char value[128];
    *text = 0;
    put(text, "nine", redis_integer(redis, "SISMEMBER " KEY(active) " 9") ? "1" : "0");
    redis_text(redis, value, sizeof value, "HGET " KEY(1) " State");
    put(text, "state", value);
    for (size_t i = 0; i < KEYS; i++)
        put(text, keys[i], redis_text(redis, value, sizeof value, "HGET " METADATA " %s", keys[i])
                               ? value : "(none)");
}

static void prepare(struct world *world)
{
    behind(world->table);
    insert_plain(world->table, 1);
    check_ok(set_text(world->table, 1, "old", "before"));
    check_ok(set_text(world->table, 1, "count", "35"));
    check_ok(sesstab_set_class(world->table, SESSTAB_BY_MODE, 0));
    wait_until_redis_equals(world->table, world->redis);
}

/* ---------------------------------------------------------------- write-through ---------- */

static void in_mode_write_through_ok_means_that_redis_has_it(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    char here[TEXT], there[TEXT];
    (void)state;
    prepare(world);
    for (size_t i = 0; i < KINDS; i++) {
        check_ok(kinds[i].make(world->table));
        table_text(world->table, here);
        redis_text_of(world->redis, there);
        check_string(there, here);
    }
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#1"));
    check_ok(sesstab_remove(world->table, 1));
    check_equal(redis_integer(world->redis, "EXISTS " KEY(1) " " METADATA), 0);
    check_equal(redis_integer(world->redis, "SISMEMBER " KEY(active) " 1"), 0);
    check_world(world);
}

static void change_and_look(struct world *world, uint64_t handle, unsigned i)
{
    char key[64], value[32];
    snprintf(key, sizeof key, TEST_PREFIX ":conn:%llu:metadata", (unsigned long long)handle);
    snprintf(value, sizeof value, "%u", i);
    check_ok(set_text(world->table, handle, "key", value));
    check(redis_field_is(world->redis, key, "key", value));
    check_ok(sesstab_increment(world->table, handle, "n", 1, NULL));
    snprintf(value, sizeof value, "%u", i + 1);
    check(redis_field_is(world->redis, key, "n", value));
    check_ok(sesstab_touch(world->table, handle, 0));
}

static void live_and_look(void *context)
{
    struct world *world = context;
    uint64_t handle = 100 + child_index;
    redis_own_connection(world->redis);
    check_ok(sesstab_insert(world->table, &handle, NULL));
    for (unsigned i = 0; i < rounds(60); i++)
        change_and_look(world, handle, i);
    check_ok(sesstab_remove(world->table, handle));
    check_equal(redis_integer(world->redis, "SISMEMBER " KEY(active) " %d", (int)handle), 0);
}

static void what_many_write_through_at_once_is_there(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    (void)state;
    run_children(6, live_and_look, world);
    check_world(world);
}

static void remove_and_insert_again(void *context)
{
    struct world *world = context;
    redis_own_connection(world->redis);
    for (unsigned i = 0; i < rounds(100); i++) {
        uint64_t handle = 7;
        int inserted = sesstab_insert(world->table, &handle, NULL);
        check(inserted == SESSTAB_OK || inserted == SESSTAB_EXISTS || inserted == SESSTAB_NOTFOUND);
        check_one_of(sesstab_remove(world->table, 7), SESSTAB_OK, SESSTAB_NOTFOUND);
    }
}

/* Tombstones are revived before they are acknowledged, and slots are used again: all are answered. */
static void removals_of_one_handle_by_many_are_all_answered(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    (void)state;
    run_children(4, remove_and_insert_again, world);
    check_world(world);
    check_equal(redis_integer(world->redis, "EXISTS " KEY(7)), 0);
}

/* ---------------------------------------------------------------- refused ---------------- */

static void refuse_each(struct world *world, const char *refuse, const char *accept, bool additions)
{
    char before[TEXT], after[TEXT];
    for (size_t i = 0; i < KINDS; i++) {
        if (additions && !kinds[i].adds)
            continue;
        table_text(world->table, before);
        uint64_t version = version_of(world->table, "old");
        tell_redis(world, refuse);
        int result = kinds[i].make(world->table);
        if (result != SESSTAB_REFUSED)
            test_fail(__FILE__, __LINE__, "%s: %s", kinds[i].name, sesstab_strerror(result));
        table_text(world->table, after);
        check_string(after, before);
        check_equal(version_of(world->table, "old"), version);
        tell_redis(world, accept);
        wait_until_redis_equals(world->table, world->redis);
    }
}

static void what_redis_has_no_memory_for_is_taken_back(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    (void)state;
    prepare(world);
    refuse_each(world, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", false);
    tell_redis(world, "CONFIG SET maxmemory 1");
    check_ok(sesstab_remove(world->table, 1)); /* which frees memory */
    check_equal(redis_integer(world->redis, "EXISTS " KEY(1) " " METADATA), 0);
    tell_redis(world, "CONFIG SET maxmemory 0");
    check_world(world);
}

/* The record is written, the metadata isn't. */
static void metadata_that_redis_refuses_is_taken_back(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    (void)state;
    prepare(world);
    refuse_each(world, "EVAL redis.call('DEL',KEYS[1]);return(redis.call('SET',KEYS[1],1)) 1 " METADATA,
                "DEL " METADATA, true);
    check_world(world);
}

static void what_redis_must_not_write_is_taken_back(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    (void)state;
    prepare(world);
    refuse_each(world, "ACL SETUSER default -hset", "ACL SETUSER default +hset", false);
    check_world(world);
}

/* A removal is never taken back. */
static void a_removal_that_redis_refuses_is_unknown_and_comes_to_pass(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    (void)state;
    prepare(world);
    tell_redis(world, "ACL SETUSER default -del");
    synchronous(world->table, 200);
    check_result(sesstab_remove(world->table, 1), SESSTAB_UNKNOWN);
    check_result(sesstab_touch(world->table, 1, 0), SESSTAB_NOTFOUND);
    tell_redis(world, "ACL SETUSER default +del");
    check_world(world);
    check_equal(redis_integer(world->redis, "EXISTS " KEY(1)), 0);
}

/* ---------------------------------------------------------------- on top ----------------- */

struct rival {
    struct world *world;
    pthread_t thread;
    int result;
};

static void *count_and_wait(void *context)
{
    struct rival *rival = context;
    synchronous(rival->world->table, WAIT_LIMIT);
    rival->result = sesstab_increment(rival->world->table, 1, "count", 1, NULL);
    return NULL;
}

/* Many add to one key, and all are refused: what is left is what there was. */
static void refused_increments_take_away_what_they_added(void **state)
{
    enum { RIVALS = 8 };
    struct world *world = start_world(SESSTAB_SELECTIVE);
    struct rival rivals[RIVALS];
    (void)state;
    prepare(world);
    tell_redis(world, "CONFIG SET maxmemory 1");
    for (int i = 0; i < RIVALS; i++) {
        rivals[i] = (struct rival){ .world = world };
        check(pthread_create(&rivals[i].thread, NULL, count_and_wait, &rivals[i]) == 0);
    }
    for (int i = 0; i < RIVALS; i++) {
        pthread_join(rivals[i].thread, NULL);
        check_result(rivals[i].result, SESSTAB_REFUSED);
    }
    sesstab_view view = look(world->table, 1);
    check_string(metadata_of(&view, "count"), "35");
    tell_redis(world, "CONFIG SET maxmemory 0");
    check_world(world);
}

static void *insert_and_wait(void *context)
{
    struct rival *rival = context;
    synchronous(rival->world->table, WAIT_LIMIT);
    rival->result = insert_nine(rival->world->table);
    return NULL;
}

static bool is_there(sesstab *table, uint64_t handle)
{
    return sesstab_touch(table, handle, 0) == SESSTAB_OK;
}

static void a_refused_session_that_somebody_has_bound_stays(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    struct rival rival = { .world = world };
    (void)state;
    kill(world->persister, SIGSTOP);
    check(pthread_create(&rival.thread, NULL, insert_and_wait, &rival) == 0);
    wait_until(is_there(world->table, 9));
    check_result(sesstab_bind(world->table, 9, "#9", 0), SESSTAB_UNKNOWN);
    tell_redis(world, "CONFIG SET maxmemory 1");
    kill(world->persister, SIGCONT);
    pthread_join(rival.thread, NULL);
    check_result(rival.result, SESSTAB_UNKNOWN);
    check_string(look(world->table, 9).player, "#9");
    tell_redis(world, "CONFIG SET maxmemory 0");
    check_world(world);
}

/* A process that makes a change and waits, and is stopped before it learns what Redis said. */
struct late {
    struct world *world;
    int (*make)(sesstab *table);
    pid_t pid;
    _Atomic int result;
};

static void make_late(void *context)
{
    struct late *late = context;
    synchronous(late->world->table, WAIT_LIMIT);
    late->result = late->make(late->world->table);
}

static bool is_changed(struct world *world, const char *before)
{
    char now[TEXT];
    table_text(world->table, now);
    return strcmp(now, before) != 0;
}

/* The persister is stopped; the change is made, and its caller waits. */
static struct late *start_late(struct world *world, int (*make)(sesstab *table))
{
    struct late *late = shared_memory(sizeof *late);
    char before[TEXT];
    *late = (struct late){ .world = world, .make = make, .result = -1 };
    table_text(world->table, before);
    late->pid = start_child(make_late, late);
    wait_until(is_changed(world, before));
    return late;
}

static unsigned tickets_in(sesstab *table, enum ticket_state state)
{
    unsigned count = 0;
    for (uint64_t i = 0; i < load_acquire(&table->shm.header->thread_high); i++)
        count += TICKET_STATE(load_acquire(&table->shm.tickets[i].word)) == state;
    return count;
}

/* All who wait were refused; those who are stopped do not know it. */
static void refuse_late(struct world *world, struct late *const *late, unsigned count)
{
    tell_redis(world, "CONFIG SET maxmemory 1");
    for (unsigned i = 0; i < count; i++) {
        wait_until(tickets_in(world->table, TICKET_WAITING) == count);
        kill(late[i]->pid, SIGSTOP);
    }
    kill(world->persister, SIGCONT);
    wait_until(tickets_in(world->table, TICKET_REFUSED) == count);
}

static int go_on(struct late *late)
{
    kill(late->pid, SIGCONT);
    join_child(late->pid);
    return late->result;
}

static void accept(struct world *world)
{
    tell_redis(world, "CONFIG SET maxmemory 0");
    check_world(world);
}

static void check_old(struct world *world, const char *value)
{
    sesstab_view view = look(world->table, 1);
    check_string(metadata_of(&view, "old") ? metadata_of(&view, "old") : "(none)", value);
}

static int set_first(sesstab *table) { return set_text(table, 1, "old", "first"); }
static int set_second(sesstab *table) { return set_text(table, 1, "old", "second"); }

/* Who takes back first finds the other's on top, who will put back what he found. */
static void of_two_refused_changes_of_one_key_none_comes_back_that_was_told_refused(void **state)
{
    (void)state;
    for (int earlier = 0; earlier < 2; earlier++) {
        struct world *world = start_world(SESSTAB_SELECTIVE);
        prepare(world);
        kill(world->persister, SIGSTOP);
        struct late *first = start_late(world, set_first), *second = start_late(world, set_second);
        refuse_late(world, (struct late *[]){ first, second }, 2);
        if (earlier) {
            check_result(go_on(first), SESSTAB_UNKNOWN);
            check_old(world, "second");
            check_result(go_on(second), SESSTAB_REFUSED);
            check_old(world, "first");
        } else {
            check_result(go_on(second), SESSTAB_REFUSED);
            check_old(world, "first");
            check_result(go_on(first), SESSTAB_REFUSED);
            check_old(world, "before");
        }
        accept(world);
    }
}

static void delete_again(sesstab *table)
{
    check_ok(set_text(table, 1, "old", "another"));
    check_ok(sesstab_delete(table, 1, "old"));
}

static void set_state_again(sesstab *table)
{
    check_ok(sesstab_set_state(table, 1, SESSTAB_CONNECTED, NULL));
    check_ok(sesstab_set_state(table, 1, SESSTAB_ACCOUNT, NULL));
}

static void change_nine(sesstab *table)
{
    check_ok(set_text(table, 9, "width", "80"));
}

/* What others made meanwhile was answered OK: it is not taken back with what was refused below. */
static void who_learns_late_that_it_was_refused_takes_back_nobody_elses_change(void **state)
{
    static const struct {
        int (*make)(sesstab *table);
        void (*meanwhile)(sesstab *table);
    } cases[] = { { delete_old, delete_again }, { to_account, set_state_again },
                  { insert_nine, change_nine } };
    struct world *world = start_world(SESSTAB_SELECTIVE);
    char before[TEXT], after[TEXT];
    (void)state;
    prepare(world);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kill(world->persister, SIGSTOP);
        struct late *late = start_late(world, cases[i].make);
        refuse_late(world, &late, 1);
        cases[i].meanwhile(world->table);
        accept(world);
        table_text(world->table, before);
        check_result(go_on(late), SESSTAB_UNKNOWN);
        table_text(world->table, after);
        check_string(after, before);
        check_world(world);
    }
}

/* Nothing is changed by it, and OK is promised all the same. */
static void a_state_that_is_set_again_is_not_taken_back(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    prepare(world);
    kill(world->persister, SIGSTOP);
    struct late *late = start_late(world, to_account);
    refuse_late(world, &late, 1);
    tell_redis(world, "CONFIG SET maxmemory 0");
    synchronous(world->table, WAIT_LIMIT);
    check_ok(sesstab_set_state(world->table, 1, SESSTAB_ACCOUNT, NULL));
    check_result(go_on(late), SESSTAB_UNKNOWN);
    check_equal(look(world->table, 1).state, SESSTAB_ACCOUNT);
    check_world(world);
}

/* What was answered OK at once was promised to nobody but its caller; it is kept all the same. */
static void a_binding_that_was_answered_at_once_is_not_rolled_back(void **state)
{
    static const sesstab_mode modes[] = { SESSTAB_MEMORY, SESSTAB_WRITE_BEHIND };
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "first", WAIT_LIMIT));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        char player[16], refused[16];
        snprintf(player, sizeof player, "kept-%zu", i);
        snprintf(refused, sizeof refused, "refused-%zu", i);
        tell_redis(world, "CONFIG SET maxmemory 1");
        check_ok(sesstab_set_mode(world->table, modes[i]));
        check_ok(sesstab_bind(world->table, 1, player, WAIT_LIMIT));
        check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
        check(look(world->table, 1).pending);
        check_result(sesstab_bind(world->table, 1, refused, WAIT_LIMIT), SESSTAB_REFUSED);
        check_string(look(world->table, 1).player, player);
        check_result(sesstab_bind(world->table, 1, player, 300), SESSTAB_UNKNOWN);
        check_string(look(world->table, 1).player, player);
        tell_redis(world, "CONFIG SET maxmemory 0");
        check_world(world);
        check(redis_field_is(world->redis, KEY(1), "PlayerRef", player));
    }
}

/* A leader that is about to tell all who wait that nothing is durable in mode MEMORY comes late. */
static void who_asks_after_the_switch_is_not_told_of_the_mode_before(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    char player[24];
    (void)state;
    insert_plain(world->table, 1);
    for (unsigned i = 0; i < rounds(2000); i++) {
        snprintf(player, sizeof player, "player-%u", i);
        check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
        if (i % 2)
            sched_yield();
        check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
        check_ok(sesstab_bind(world->table, 1, player, WAIT_LIMIT));
    }
    check_world(world);
}

static void a_pending_binding_that_is_confirmed_at_once_is_not_rolled_back(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "first", WAIT_LIMIT));
    kill(world->redis->pid, SIGSTOP);
    check_result(sesstab_bind(world->table, 1, "second", 10), SESSTAB_UNKNOWN);
    behind(world->table);
    check_ok(sesstab_bind(world->table, 1, "second", 0));
    kill(world->redis->pid, SIGCONT);
    wait_until(!look(world->table, 1).pending);
    check_string(look(world->table, 1).player, "second");
    check_world(world);
}

/* Of a refused image a binding may be in Redis, and metadata not: the one is said, the other kept. */
static void a_binding_is_durable_though_its_metadata_is_refused_and_that_is_not_forgotten(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    prepare(world);
    tell_redis(world, "DEL " METADATA);
    tell_redis(world, "SET " METADATA " x");
    check_ok(set_text(world->table, 1, "old", "after"));
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#1"));
    check(look(world->table, 1).pending);
    tell_redis(world, "CONFIG SET maxmemory 1"); /* now the whole of it is refused */
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    check(look(world->table, 1).pending);
    tell_redis(world, "DEL " METADATA);
    tell_redis(world, "CONFIG SET maxmemory 0");
    check_world(world);
    check(redis_field_is(world->redis, METADATA, "old", "after"));
}

/* ---------------------------------------------------------------- unknown ---------------- */

static void what_redis_does_not_answer_is_unknown_and_stands(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    char before[TEXT], after[TEXT];
    (void)state;
    prepare(world);
    kill(world->redis->pid, SIGSTOP);
    synchronous(world->table, 30);
    for (size_t i = 0; i < KINDS; i++) {
        table_text(world->table, before);
        check_result(kinds[i].make(world->table), SESSTAB_UNKNOWN);
        table_text(world->table, after);
        check(strcmp(before, after) != 0);
    }
    check_result(sesstab_set_state(world->table, 1, SESSTAB_ACCOUNT, NULL), SESSTAB_UNKNOWN);
    check_result(sesstab_remove(world->table, 9), SESSTAB_UNKNOWN);
    kill(world->redis->pid, SIGCONT);
    check_world(world);
}

/* ---------------------------------------------------------------- classes ---------------- */

static void *wait_though_selective(void *context)
{
    struct world *world = context;
    synchronous(world->table, WAIT_LIMIT);
    check_ok(set_text(world->table, 1, "new", "by a thread"));
    return NULL;
}

static void a_class_is_a_thread_s_own(void **state)
{
    struct world *world = start_world(SESSTAB_WRITE_THROUGH);
    pthread_t thread;
    (void)state;
    prepare(world);
    behind(world->table);
    kill(world->redis->pid, SIGSTOP);
    for (size_t i = 0; i < KINDS; i++)
        check_ok(kinds[i].make(world->table));
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    kill(world->redis->pid, SIGCONT);
    check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
    check(pthread_create(&thread, NULL, wait_though_selective, world) == 0);
    pthread_join(thread, NULL);
    check(redis_field_is(world->redis, METADATA, "new", "by a thread"));
    check_result(sesstab_set_class(world->table, (sesstab_class)7, 0), SESSTAB_INVALID);
    check_result(sesstab_set_class(world->table, SESSTAB_SYNCHRONOUS, -1), SESSTAB_INVALID);
    check_world(world);
}

static void change_without_waiting(void *context)
{
    struct world *world = context;
    check_ok(set_text(world->table, 1, "old", "by a child"));
    check_result(sesstab_bind(world->table, 1, "#child", 0), SESSTAB_UNKNOWN);
}

static void a_forked_child_follows_the_mode_again(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    prepare(world);
    kill(world->redis->pid, SIGSTOP);
    synchronous(world->table, 30);
    check_result(set_text(world->table, 1, "old", "by the parent"), SESSTAB_UNKNOWN);
    run_child(change_without_waiting, world);
    check_result(set_text(world->table, 1, "old", "by the parent"), SESSTAB_UNKNOWN);
    kill(world->redis->pid, SIGCONT);
    check_world(world);
}

/* ---------------------------------------------------------------- memory ----------------- */

static void in_mode_memory_neither_redis_nor_persister_is_needed(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    check(sesstab_ready(table));
    insert_plain(table, 1);
    check_ok(set_text(table, 1, "old", "before"));
    synchronous(table, WAIT_LIMIT); /* nothing waits all the same */
    for (size_t i = 0; i < KINDS; i++)
        check_ok(kinds[i].make(table));
    check_ok(sesstab_bind(table, 1, "#1", WAIT_LIMIT));
    check(!look(table, 1).pending);
    check_ok(sesstab_unbind(table, 1, WAIT_LIMIT));
    check_ok(sesstab_remove(table, 1));
    check_result(sesstab_set_mode(table, (sesstab_mode)7), SESSTAB_INVALID);
}

static bool rests(struct world *world)
{
    return redis_integer(world->redis, "EXISTS " TEST_PREFIX ":leader") == 0;
}

static void *bind_and_wait(void *context)
{
    struct rival *rival = context;
    rival->result = sesstab_bind(rival->world->table, 1, "#1", WAIT_LIMIT);
    return NULL;
}

static void who_waits_when_the_mode_becomes_memory_is_told_unknown(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    struct rival rival = { .world = world };
    (void)state;
    prepare(world);
    kill(world->redis->pid, SIGSTOP);
    check(pthread_create(&rival.thread, NULL, bind_and_wait, &rival) == 0);
    wait_until(look(world->table, 1).pending);
    check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
    pthread_join(rival.thread, NULL);
    check_one_of(rival.result, SESSTAB_UNKNOWN, SESSTAB_OK); /* OK: its call began after the switch */
    check(!look(world->table, 1).pending);
    kill(world->redis->pid, SIGCONT);
    check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
    check_world(world);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#1"));
}

static void who_has_started_a_binding_is_told_so_too(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    sesstab_answer answer;
    (void)state;
    prepare(world);
    kill(world->redis->pid, SIGSTOP);
    check_ok(sesstab_start_bind(world->table, 1, "#1", NULL, NULL));
    check_result(sesstab_next_answer(world->table, &answer), SESSTAB_NOTFOUND);
    check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
    kill(world->redis->pid, SIGCONT);
    wait_until(sesstab_next_answer(world->table, &answer) == SESSTAB_OK);
    check_one_of(answer.result, SESSTAB_UNKNOWN, SESSTAB_OK); /* OK: Redis was quicker than the switch */
    check_ok(sesstab_set_mode(world->table, SESSTAB_WRITE_BEHIND));
    kill(world->redis->pid, SIGSTOP);
    check_ok(sesstab_start_bind(world->table, 1, "#2", NULL, NULL));
    check_ok(sesstab_next_answer(world->table, &answer));
    check_ok(answer.result);
    kill(world->redis->pid, SIGCONT);
    check_world(world);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#2"));
}

static bool readable(int descriptor)
{
    struct pollfd p = { .fd = descriptor, .events = POLLIN };
    return poll(&p, 1, WAIT_LIMIT) == 1;
}

static void without_a_persister_too_who_has_started_a_binding_is_told_unknown(void **state)
{
    const char *name;
    sesstab *table = selective_table(&name);
    sesstab_answer answer;
    int descriptor;
    (void)state;
    for (uint64_t handle = 1; handle <= 100; handle++) {
        insert_plain(table, handle);
        check_ok(sesstab_start_bind(table, handle, "#1", NULL, NULL));
    }
    check_result(sesstab_next_answer(table, &answer), SESSTAB_NOTFOUND);
    check_ok(sesstab_descriptor(table, &descriptor));
    check_ok(sesstab_set_mode(table, SESSTAB_MEMORY));
    for (uint64_t count = 0; count < 100; count++) {
        while (sesstab_next_answer(table, &answer) != SESSTAB_OK)
            check(readable(descriptor));
        check_result(answer.result, SESSTAB_UNKNOWN);
    }
    check_result(sesstab_next_answer(table, &answer), SESSTAB_NOTFOUND);
    check_table(name);
}

static void insert_and_die(void *context)
{
    struct world *world = context;
    insert_plain(world->table, 5);
    raise(SIGKILL);
}

static void in_mode_memory_the_persister_leaves_redis_and_mends_what_the_dead_leave(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    prepare(world);
    insert_plain(world->table, 2);
    wait_until_redis_equals(world->table, world->redis);
    check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
    wait_until(rests(world));
    long long writes = redis_calls(world->redis, "hset");
    check_ok(set_text(world->table, 1, "old", "in memory"));
    check_ok(sesstab_bind(world->table, 1, "#1", 0));
    check_ok(sesstab_remove(world->table, 2));
    kill_child(world->persister); /* and one that comes to such a table rests as well */
    restart_persister(world);
    pid_t child = start_child(insert_and_die, world);
    wait_until(is_there(world->table, 5) && look(world->table, 5).state == SESSTAB_DETACHED);
    check(rests(world));
    check_equal(redis_calls(world->redis, "hset"), writes);
    check(redis_field_is(world->redis, METADATA, "old", "before"));
    check_equal(redis_integer(world->redis, "SISMEMBER " KEY(active) " 2"), 1);
    check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
    check_world(world);
    check_equal(redis_integer(world->redis, "SISMEMBER " KEY(active) " 2"), 0);
    (void)child;
}

/* Nobody announces anything in between, and the leader never sees that the mode was another. */
static void what_changed_in_memory_while_the_persister_was_stopped_is_found(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    prepare(world);
    for (int i = 0; i < 5; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        kill(world->persister, SIGSTOP);
        check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
        check_ok(set_text(world->table, 1, "old", value));
        check_ok(sesstab_touch(world->table, 1, sesstab_now() + 1000 * (uint64_t)(i + 1)));
        check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
        kill(world->persister, SIGCONT);
        wait_until_redis_equals(world->table, world->redis);
    }
    check_world(world);
}

static void a_stopped_persister_leaves_in_mode_memory_without_redis(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    (void)state;
    prepare(world);
    check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
    wait_until(rests(world));
    check_ok(set_text(world->table, 1, "old", "in memory"));
    kill(world->persister, SIGTERM);
    join_child(world->persister);
    check(redis_field_is(world->redis, METADATA, "old", "before"));
    check_ok(sesstab_set_mode(world->table, SESSTAB_WRITE_BEHIND));
    restart_persister(world);
    check_world(world);
}

/* ---------------------------------------------------------------- loading ---------------- */

/* What an earlier table left in Redis. */
static void leave_sessions_in_redis(struct redis *redis)
{
    const char *name = new_name();
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    pid_t persister = start_persister(name, redis->url, NULL);
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    for (uint64_t handle = 1; handle <= 3; handle++) {
        insert_plain(table, handle);
        check_ok(set_text(table, handle, "from", "the earlier table"));
    }
    wait_until_redis_equals(table, redis);
    kill(persister, SIGTERM);
    join_child(persister);
    close_table(table);
    check_ok(sesstab_unlink(name));
}

static void a_table_made_in_memory_loads_redis_when_it_leaves_that_mode(void **state)
{
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    world->redis = start_redis(NULL);
    leave_sessions_in_redis(world->redis);
    world->name = new_name();
    world->table = open_table(world->name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
    insert_plain(world->table, 3);
    insert_plain(world->table, 4);
    insert_plain(world->table, 5);
    check_ok(sesstab_remove(world->table, 5));
    restart_persister(world);
    check_equal(redis_integer(world->redis, "SCARD " KEY(active)), 3);
    check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    check_equal(count_sessions(world->table), 4);
    sesstab_view view = look(world->table, 1);
    check_equal(view.state, SESSTAB_DETACHED);
    check_string(metadata_of(&view, "from"), "the earlier table");
    view = look(world->table, 3);
    check_equal(view.state, SESSTAB_CONNECTED);
    check(!metadata_of(&view, "from"));
    check_world(world);
}

/* ---------------------------------------------------------------- under load ------------- */

static void change_once(sesstab *table, uint64_t first)
{
    char text[16];
    uint64_t handle = first + random_below(20);
    snprintf(text, sizeof text, "%u", (unsigned)random_below(10));
    switch (random_below(9)) {
    case 0: sesstab_remove(table, handle); break;
    case 1: sesstab_bind(table, handle, text, (int)random_below(20)); break;
    case 2: sesstab_unbind(table, handle, 0); break;
    case 3: sesstab_touch(table, handle, 0); break;
    case 4: sesstab_delete(table, handle, text); break;
    case 5: sesstab_increment(table, handle, "n", 1, NULL); break;
    case 6: sesstab_set_state(table, handle, SESSTAB_ACCOUNT, NULL); break;
    case 7: set_text(table, handle, text, text); break;
    default: sesstab_insert(table, &handle, &(sesstab_info){ .type = "test" });
    }
}

/* With the class changing all the time as well; sessions are shared by two each. */
static void change_until_stopped(void *context)
{
    struct world *world = context;
    while (!world->stop) {
        sesstab_class class = (sesstab_class)random_below(3);
        check_ok(sesstab_set_class(world->table, class, (int)random_below(20)));
        change_once(world->table, 1000 + child_index / 2 * 1000);
        world->done++;
    }
}

enum { LOAD = 4 };

static pid_t start_load(struct world *world, unsigned index)
{
    child_index = index;
    return start_child(change_until_stopped, world);
}

static void switch_somewhere(struct world *world)
{
    uint64_t before = world->done;
    check_ok(sesstab_set_mode(world->table, (sesstab_mode)random_below(SESSTAB_MODE_COUNT)));
    pause_ms((unsigned)random_below(60));
    wait_until(world->done > before);
}

static void nothing_is_lost_by_switching_under_load_with_everybody_killed_in_between(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    pid_t load[LOAD];
    (void)state;
    for (unsigned i = 0; i < LOAD; i++)
        load[i] = start_load(world, i);
    for (unsigned round = 0; round < rounds(60); round++) {
        switch_somewhere(world);
        if (round % 3 == 0) {
            unsigned victim = (unsigned)random_below(LOAD);
            kill_child(load[victim]);
            load[victim] = start_load(world, victim);
        }
        if (round % 5 == 0) {
            kill_child(world->persister);
            restart_persister(world);
        }
        if (round % 20 == 19) {
            check_ok(sesstab_set_mode(world->table, (sesstab_mode)(round / 20 % 2 * 2)));
            world->stop = true;
            for (unsigned i = 0; i < LOAD; i++)
                join_child(load[i]);
            check_world(world);
            world->stop = false;
            for (unsigned i = 0; i < LOAD; i++)
                load[i] = start_load(world, i);
        }
    }
    check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
    world->stop = true;
    for (unsigned i = 0; i < LOAD; i++)
        join_child(load[i]);
    check_world(world);
}

static void each_mode_works_under_load(void **state)
{
    (void)state;
    for (int mode = 0; mode < SESSTAB_MODE_COUNT; mode++) {
        struct world *world = start_world((sesstab_mode)mode);
        pid_t load[LOAD];
        for (unsigned i = 0; i < LOAD; i++)
            load[i] = start_load(world, i);
        wait_until(world->done > rounds(2000));
        world->stop = true;
        for (unsigned i = 0; i < LOAD; i++)
            join_child(load[i]);
        check_ok(sesstab_set_mode(world->table, SESSTAB_WRITE_BEHIND));
        check_world(world);
        kill_child(world->persister);
    }
}

/* ---------------------------------------------------------------- the tool --------------- */

static int ctl(const char *table, const char *command, const char *argument, char output[1024])
{
    return run_program((const char *[]){ program("sesstabctl"), "-t", table, command, argument, NULL },
                       output, 1024);
}

static void the_tool_shows_and_switches_the_mode(void **state)
{
    const char *name = new_name();
    char output[1024], line[32];
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    (void)state;
    for (int mode = SESSTAB_MODE_COUNT - 1; mode >= 0; mode--) {
        snprintf(line, sizeof line, "%s\n", sesstab_mode_name(mode));
        check_equal(ctl(name, "mode", sesstab_mode_name(mode), output), 0);
        check_string(output, line);
        check_equal(sesstab_table_mode(table), mode);
        check_equal(ctl(name + 1, "mode", NULL, output), 0);
        check_string(output, line);
        check_equal(run_program((const char *[]){ program("shmdump"), name, NULL }, output,
                                sizeof output), 0);
        check(strstr(output, sesstab_mode_name(mode)) != NULL);
    }
}

static void the_tool_waits_until_redis_has_everything(void **state)
{
    struct world *world = start_world(SESSTAB_SELECTIVE);
    char output[1024];
    (void)state;
    prepare(world);
    for (int i = 0; i < 5; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        check_ok(set_text(world->table, 1, "old", value));
        check_equal(ctl(world->name, "flush", "60000", output), 0);
        check_string(output, "flushed\n");
        check(redis_field_is(world->redis, METADATA, "old", value));
    }
    kill(world->redis->pid, SIGSTOP);
    check_ok(set_text(world->table, 1, "old", "last"));
    check_equal(ctl(world->name, "flush", "50", output), 1);
    kill(world->redis->pid, SIGCONT);
    check_equal(ctl(world->name, "flush", NULL, output), 0);
    check_world(world);
}

static void wrong_usage_of_the_tool_is_told_so(void **state)
{
    char output[1024];
    (void)state;
    check_equal(ctl("/nobody", "mode", NULL, output), 1);
    check_equal(ctl("/nobody", "mode", "fast", output), 64);
    check_equal(ctl("/nobody", "dance", NULL, output), 64);
    check_equal(ctl("/nobody", "flush", "soon", output), 64);
    check_equal(ctl("/nobody", NULL, NULL, output), 64);
    check_equal(ctl("/nobody", "--owner", "no such user", output), 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_mode_write_through_ok_means_that_redis_has_it),
        TEST(what_many_write_through_at_once_is_there),
        TEST(removals_of_one_handle_by_many_are_all_answered),
        TEST(what_redis_has_no_memory_for_is_taken_back),
        TEST(metadata_that_redis_refuses_is_taken_back),
        TEST(what_redis_must_not_write_is_taken_back),
        TEST(a_removal_that_redis_refuses_is_unknown_and_comes_to_pass),
        TEST(refused_increments_take_away_what_they_added),
        TEST(a_refused_session_that_somebody_has_bound_stays),
        TEST(of_two_refused_changes_of_one_key_none_comes_back_that_was_told_refused),
        TEST(who_learns_late_that_it_was_refused_takes_back_nobody_elses_change),
        TEST(a_state_that_is_set_again_is_not_taken_back),
        TEST(a_binding_that_was_answered_at_once_is_not_rolled_back),
        TEST(who_asks_after_the_switch_is_not_told_of_the_mode_before),
        TEST(a_pending_binding_that_is_confirmed_at_once_is_not_rolled_back),
        TEST(a_binding_is_durable_though_its_metadata_is_refused_and_that_is_not_forgotten),
        TEST(what_redis_does_not_answer_is_unknown_and_stands),
        TEST(a_class_is_a_thread_s_own),
        TEST(a_forked_child_follows_the_mode_again),
        TEST(in_mode_memory_neither_redis_nor_persister_is_needed),
        TEST(who_waits_when_the_mode_becomes_memory_is_told_unknown),
        TEST(who_has_started_a_binding_is_told_so_too),
        TEST(without_a_persister_too_who_has_started_a_binding_is_told_unknown),
        TEST(in_mode_memory_the_persister_leaves_redis_and_mends_what_the_dead_leave),
        TEST(what_changed_in_memory_while_the_persister_was_stopped_is_found),
        TEST(a_stopped_persister_leaves_in_mode_memory_without_redis),
        TEST(a_table_made_in_memory_loads_redis_when_it_leaves_that_mode),
        TEST(nothing_is_lost_by_switching_under_load_with_everybody_killed_in_between),
        TEST(each_mode_works_under_load),
        TEST(the_tool_shows_and_switches_the_mode),
        TEST(the_tool_waits_until_redis_has_everything),
        TEST(wrong_usage_of_the_tool_is_told_so),
    };
    return run_all(tests);
}
