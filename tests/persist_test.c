/*
 * Table, persister and Redis together: what is durable, what is written behind, what happens when
 * any of them is slow, stopped, killed, full, empty or wrong.  At the end of each trouble Redis
 * holds exactly what the table does.
 */
#include "tests/harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle

/* Everything that a table with Redis behind it consists of. */
struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
    pid_t persister;
    const char *const *persister_options;
    _Atomic bool stop;
    _Atomic uint64_t acknowledged;
    _Atomic uint64_t last[16]; /* per child: the number of the last binding that was durable */
};

static void restart_persister(struct world *world)
{
    world->persister = start_persister(world->name, world->redis->url, world->persister_options);
}

static struct world *start_world(const char *const *redis_options, const char *const *options)
{
    struct world *world = shared_memory(sizeof *world);
    world->name = new_name();
    world->persister_options = options;
    world->redis = start_redis(redis_options);
    restart_persister(world);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    return world;
}

/* The table is all right, and Redis equals it. */
static void check_world(struct world *world)
{
    wait_until_redis_equals(world->table, world->redis);
    check_table(world->name);
}

static void set_text(sesstab *table, uint64_t handle, const char *key, const char *value)
{
    check_ok(sesstab_set(table, handle, key, value, strlen(value)));
}

static void bind_durably(struct world *world, uint64_t handle, const char *player)
{
    check_ok(sesstab_bind(world->table, handle, player, WAIT_LIMIT));
}

/* ---------------------------------------------------------------- plain work ------------- */

static void a_durable_binding_is_in_redis_with_all_its_fields(void **state)
{
    struct world *world = start_world(NULL, NULL);
    const sesstab_pair pair = { "width", "80", 2 };
    uint64_t handle = 1;
    (void)state;
    check_ok(sesstab_insert(world->table, &handle, &(sesstab_info){ .address = "203.0.113.7",
        .host = "dsl-7.example.net", .type = "telnet", .connected_at = 1700000000123,
        .metadata = &pair, .metadata_count = 1 }));
    bind_durably(world, 1, "#5:1234");
    static const char *const expected[][2] = {
        { "Handle", "1" }, { "PlayerRef", "#5:1234" }, { "State", "logged-in" },
        { "IpAddress", "203.0.113.7" }, { "Hostname", "dsl-7.example.net" },
        { "ConnectionType", "telnet" }, { "ConnectedAt", "2023-11-14T22:13:20.123Z" },
        { "LastSeen", "2023-11-14T22:13:20.123Z" },
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        check(redis_field_is(world->redis, KEY(1), expected[i][0], expected[i][1]));
    check(redis_field_is(world->redis, KEY(1) ":metadata", "width", "80"));
    check_equal(redis_integer(world->redis, "SISMEMBER " KEY(active) " 1"), 1);
    check(!look(world->table, 1).pending);
    check_ok(sesstab_unbind(world->table, 1, WAIT_LIMIT));
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", ""));
    check(redis_field_is(world->redis, KEY(1), "State", "connected"));
    check_world(world);
}

static void what_is_written_behind_arrives(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    for (uint64_t handle = 1; handle <= 200; handle++)
        insert_plain(world->table, handle);
    wait_until_redis_equals(world->table, world->redis);
    for (uint64_t handle = 1; handle <= 200; handle++) {
        check_ok(sesstab_set(world->table, handle, "binary", "\0\r\n\xff", 4));
        check_ok(sesstab_set(world->table, handle, "empty", "", 0));
        check_ok(sesstab_increment(world->table, handle, "n", (int64_t)handle, NULL));
        check_ok(sesstab_set_state(world->table, handle, SESSTAB_ACCOUNT, NULL));
        check_ok(sesstab_touch(world->table, handle, sesstab_now() + 5000));
    }
    wait_until_redis_equals(world->table, world->redis);
    for (uint64_t handle = 1; handle <= 200; handle += 2) {
        check_ok(sesstab_delete(world->table, handle, "binary"));
        check_ok(sesstab_delete(world->table, handle, "empty"));
    }
    for (uint64_t handle = 1; handle <= 200; handle += 4)
        check_ok(sesstab_delete(world->table, handle, "n"));
    for (uint64_t handle = 2; handle <= 200; handle += 4)
        check_ok(sesstab_remove(world->table, handle));
    check_world(world);
}

static void a_session_of_the_largest_size_arrives(void **state)
{
    static char value[SESSTAB_RECORD_MAX - 1000];
    struct world *world = start_world(NULL, NULL);
    (void)state;
    memset(value, 'v', sizeof value);
    for (uint64_t handle = 1; handle <= 30; handle++) {
        insert_plain(world->table, handle);
        check_ok(sesstab_set(world->table, handle, "value", value, sizeof value));
    }
    bind_durably(world, 30, "#1");
    check_world(world);
}

static void a_removed_session_leaves_nothing_in_redis(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    insert_plain(world->table, 1);
    check_ok(sesstab_set(world->table, 1, "key", "value", 5));
    bind_durably(world, 1, "#1");
    check_equal(redis_integer(world->redis, "EXISTS " KEY(1) " " KEY(1) ":metadata"), 2);
    check_ok(sesstab_remove(world->table, 1));
    wait_until(redis_integer(world->redis, "EXISTS " KEY(1) " " KEY(1) ":metadata") == 0);
    wait_until(redis_integer(world->redis, "SCARD " KEY(active)) == 0);
    check_world(world);
}

/* A thousand times the same session: Redis hears a few times of it. */
static void ten_thousand_touches_are_a_handful_of_writes(void **state)
{
    enum { INTERVAL = 200 };
    struct world *world = start_world(NULL, (const char *[]){ "--flush-interval", "200", NULL });
    (void)state;
    insert_plain(world->table, 1);
    bind_durably(world, 1, "#1");
    wait_until_redis_equals(world->table, world->redis);
    long long before = redis_calls(world->redis, "hset");
    uint64_t now = sesstab_now() + 1000, start = milliseconds();
    for (uint64_t i = 0; i < 10000; i++)
        check_ok(sesstab_touch(world->table, 1, now + i));
    wait_until_redis_equals(world->table, world->redis);
    long long writes = redis_calls(world->redis, "hset") - before;
    check(writes >= 1 && (uint64_t)writes <= 10 + (milliseconds() - start) / INTERVAL);
}

/* ---------------------------------------------------------------- slow Redis ------------- */

static void redis_ends_with_the_new_session_however_often_its_handle_was_reused(void **state)
{
    struct world *world = start_world(NULL, NULL);
    uint64_t last_generation = 0;
    char text[32];
    (void)state;
    for (int i = 0; i < 150; i++) {
        insert_plain(world->table, 7);
        check(look(world->table, 7).generation > last_generation);
        last_generation = look(world->table, 7).generation;
        snprintf(text, sizeof text, "only-%d", i);
        set_text(world->table, 7, text, text);
        set_text(world->table, 7, "round", text);
        check_result(sesstab_bind(world->table, 7, text, 0), SESSTAB_UNKNOWN);
        if (i % 7 == 0)
            freeReplyObject(redis_query(world->redis, "CLIENT PAUSE %d ALL",
                                        (int)random_below(30)));
        if (i % 3 == 0)
            pause_ms((unsigned)random_below(12));
        check_ok(sesstab_remove(world->table, 7));
        if (i % 5 == 0)
            pause_ms((unsigned)random_below(8));
    }
    insert_plain(world->table, 7);
    set_text(world->table, 7, "final", "yes");
    check(look(world->table, 7).generation > last_generation);
    check_world(world);
    /* Nothing late comes behind: another binding is acknowledged, and all is as it was. */
    insert_plain(world->table, 8);
    bind_durably(world, 8, "#8");
    pause_ms(100);
    wait_until_redis_equals(world->table, world->redis);
    redisReply *metadata = redis_query(world->redis, "HGETALL " KEY(7) ":metadata");
    check_equal(metadata->elements, 2);
    check_string(metadata->element[0]->str, "final");
    freeReplyObject(metadata);
    check(redis_field_is(world->redis, KEY(7), "PlayerRef", ""));
}

static void a_binding_whose_time_is_up_is_unknown_and_pending_and_durable_later(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    insert_plain(world->table, 1);
    bind_durably(world, 1, "before");
    kill(world->redis->pid, SIGSTOP);
    check_result(sesstab_bind(world->table, 1, "after", 100), SESSTAB_UNKNOWN);
    sesstab_view view = look(world->table, 1);
    check(view.pending);
    check_string(view.player, "after");
    check_equal(view.state, SESSTAB_LOGGED_IN);
    for (int i = 0; i < 10000; i++)
        check_ok(sesstab_touch(world->table, 1, 0));
    set_text(world->table, 1, "while", "stopped");
    check(look(world->table, 1).pending);
    kill(world->redis->pid, SIGCONT);
    wait_until(!look(world->table, 1).pending);
    check_string(look(world->table, 1).player, "after");
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "after"));
    check_world(world);
}

/* The connection breaks under a batch: nobody knows whether Redis had read it, and nobody says so. */
static void a_binding_of_unknown_fate_is_not_called_durable(void **state)
{
    struct world *world = start_world(NULL, (const char *[]){ "--timeout", "150", NULL });
    (void)state;
    insert_plain(world->table, 1);
    bind_durably(world, 1, "before");
    kill(world->redis->pid, SIGSTOP);
    check_result(sesstab_bind(world->table, 1, "after", 1000), SESSTAB_UNKNOWN);
    check(look(world->table, 1).pending);
    kill(world->redis->pid, SIGCONT);
    wait_until(!look(world->table, 1).pending);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "after"));
    check_world(world);
}

/* ---------------------------------------------------------------- refusing Redis --------- */

static void set_memory_limit(struct world *world, const char *bytes)
{
    freeReplyObject(redis_query(world->redis, "CONFIG SET maxmemory %s", bytes));
}

static int count_found(const sesstab_view *view, void *count)
{
    (void)view;
    ++*(unsigned *)count;
    return 0;
}

static unsigned sessions_of(sesstab *table, const char *player)
{
    unsigned count = 0;
    check_ok(sesstab_by_player(table, player, count_found, &count));
    return count;
}

static void a_binding_that_redis_refuses_is_rolled_back(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    insert_plain(world->table, 1);
    insert_plain(world->table, 2);
    insert_plain(world->table, 3);
    bind_durably(world, 1, "#1");
    wait_until_redis_equals(world->table, world->redis);
    set_memory_limit(world, "1");
    check_result(sesstab_bind(world->table, 1, "#other", WAIT_LIMIT), SESSTAB_REFUSED);
    sesstab_view view = look(world->table, 1);
    check_string(view.player, "#1");
    check_equal(view.state, SESSTAB_LOGGED_IN);
    check(!view.pending);
    check_result(sesstab_bind(world->table, 2, "#2", WAIT_LIMIT), SESSTAB_REFUSED);
    view = look(world->table, 2);
    check_string(view.player, "");
    check_equal(view.state, SESSTAB_CONNECTED);
    check(!view.pending);
    check_result(sesstab_unbind(world->table, 1, WAIT_LIMIT), SESSTAB_REFUSED);
    check_string(look(world->table, 1).player, "#1");
    check_equal(sessions_of(world->table, "#1"), 1);
    check_equal(sessions_of(world->table, "#other"), 0);
    check_equal(sessions_of(world->table, "#2"), 0);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#1"));
    check_ok(sesstab_remove(world->table, 3));
    set_text(world->table, 1, "written", "behind");
    set_memory_limit(world, "0");
    bind_durably(world, 2, "#2");
    check_world(world);
}

static void put_in_the_way(struct world *world, uint64_t handle)
{
    freeReplyObject(redis_query(world->redis, "SET " TEST_PREFIX ":conn:%llu x",
                                (unsigned long long)handle));
}

/*
 * The even handles' keys hold what is no hash, until the comparison, which never rests, finds it and
 * writes the session in its place: then a binding of such a one is durable as well.
 */
static void bind_where_half_is_refused(void *context)
{
    struct world *world = context;
    uint64_t handle = atomic_fetch_add(&world->acknowledged, 1) + 1;
    bool even = handle % 2 == 0;
    unsigned refused = 0;
    char key[64], player[32], last[32] = "";
    snprintf(key, sizeof key, TEST_PREFIX ":conn:%" PRIu64, handle);
    redis_own_connection(world->redis);
    for (unsigned i = 0; i < rounds(100); i++) {
        snprintf(player, sizeof player, "#%" PRIu64 ":%u", handle, i);
        if (even)
            put_in_the_way(world, handle);
        int result = sesstab_bind(world->table, handle, player, WAIT_LIMIT);
        check(result == SESSTAB_OK || (even && result == SESSTAB_REFUSED));
        refused += result == SESSTAB_REFUSED;
        if (result == SESSTAB_OK)
            strcpy(last, player);
        check_string(look(world->table, handle).player, last);
        check(result != SESSTAB_OK || redis_field_is(world->redis, key, "PlayerRef", player));
    }
    check(!even || refused);
}

/* In batches of two, so that the next one is always prepared while Redis executes one. */
static void bindings_behind_a_refused_one_are_judged_for_themselves(void **state)
{
    enum { CALLERS = 8 };
    const char *const small[] = { "--batch", "2", NULL };
    struct world *world = start_world(NULL, small);
    (void)state;
    for (uint64_t handle = 1; handle <= CALLERS; handle++)
        insert_plain(world->table, handle);
    wait_until_redis_equals(world->table, world->redis);
    run_children(CALLERS, bind_where_half_is_refused, world);
    for (unsigned handle = 2; handle <= CALLERS; handle += 2)
        freeReplyObject(redis_query(world->redis, "DEL " TEST_PREFIX ":conn:%u", handle));
    check_world(world);
}

/* A new session that Redis has never heard of, and one with a binding that was never written. */
static void a_refused_binding_does_not_bring_an_unacknowledged_one_back(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    insert_plain(world->table, 1);
    bind_durably(world, 1, "acknowledged");
    kill(world->persister, SIGSTOP);
    check_result(sesstab_bind(world->table, 1, "never known", 20), SESSTAB_UNKNOWN);
    kill_child(world->persister);
    set_memory_limit(world, "1");
    insert_plain(world->table, 2);
    restart_persister(world);
    check_result(sesstab_bind(world->table, 1, "refused", WAIT_LIMIT), SESSTAB_REFUSED);
    check_string(look(world->table, 1).player, "acknowledged");
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "acknowledged"));
    check_result(sesstab_bind(world->table, 2, "refused", WAIT_LIMIT), SESSTAB_REFUSED);
    check_string(look(world->table, 2).player, "");
    set_memory_limit(world, "0");
    check_world(world);
    check_equal(sessions_of(world->table, "refused"), 0);
}

static void start_bind(struct world *world, const char *player)
{
    check_ok(sesstab_start_bind(world->table, 1, player, NULL, NULL));
}

static void expect_durable(struct world *world)
{
    sesstab_answer answer;
    wait_until(sesstab_next_answer(world->table, &answer) == SESSTAB_OK);
    check_ok(answer.result);
}

static void expect_no_answer(struct world *world)
{
    sesstab_answer answer;
    check_result(sesstab_next_answer(world->table, &answer), SESSTAB_NOTFOUND);
}

/*
 * Starts to bind session 1 to PLAYER; leaves the binding in Redis, and the persister dead before it could
 * learn so.  One that is killed before it has sent the binding is tried again, with more time.
 */
static void bind_and_kill_the_persister(struct world *world, const char *player)
{
    for (unsigned ms = 20;; ms *= 2) {
        bind_durably(world, 1, "acknowledged");
        kill(world->redis->pid, SIGSTOP);
        start_bind(world, player);
        pause_ms(ms);
        kill_child(world->persister);
        kill(world->redis->pid, SIGCONT);
        if (redis_field_is(world->redis, KEY(1), "PlayerRef", player))
            return;
        restart_persister(world);
        expect_durable(world);
    }
}

/*
 * What Redis has, and nobody knew, is not told refused together with what is on top of it: else who looks
 * into Redis before the roll-back is written finds a refused binding there.  Another session's are refused
 * several times, so that the first one's have been judged by then.
 */
static void a_binding_in_redis_is_not_refused_with_the_one_on_top_of_it(void **state)
{
    struct world *world = start_world(
        (const char *[]){ "--appendonly", "yes", "--appendfsync", "always", NULL }, NULL);
    (void)state;
    insert_plain(world->table, 1);
    insert_plain(world->table, 2);
    wait_until_redis_equals(world->table, world->redis);
    bind_and_kill_the_persister(world, "below");
    set_memory_limit(world, "1");
    start_bind(world, "on top");
    restart_persister(world);
    for (int i = 0; i < 4; i++)
        check_result(sesstab_bind(world->table, 2, "refused", WAIT_LIMIT), SESSTAB_REFUSED);
    expect_no_answer(world);
    check(look(world->table, 1).pending);
    check_string(look(world->table, 1).player, "on top");
    check_result(sesstab_bind(world->table, 1, "last", 100), SESSTAB_UNKNOWN);
    kill_child(world->persister);
    kill_redis(world->redis);
    restart_redis(world->redis); /* with all the memory that it wants */
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "below"));
    expect_no_answer(world);
    restart_persister(world);
    expect_durable(world);
    expect_durable(world);
    check_world(world);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "last"));
}

/* ---------------------------------------------------------------- Redis away ------------- */

static void a_hundred_thousand_sessions_change_while_redis_is_away(void **state)
{
    const uint64_t count = rounds(100000);
    struct stat before, after;
    struct world *world = start_world(NULL, NULL);
    (void)state;
    kill_redis(world->redis);
    for (uint64_t handle = 1; handle <= count; handle++)
        insert_plain(world->table, handle);
    for (int round = 0; round < 5; round++) {
        /* The first round may still need room for what is replaced but not yet reusable. */
        if (round == 1)
            check(stat(object_path(world->name), &before) == 0);
        for (uint64_t handle = 1; handle <= count; handle++) {
            if (round == 0)
                check_ok(sesstab_set(world->table, handle, "n", "0", 1));
            else
                check_ok(sesstab_increment(world->table, handle, "n", 1, NULL));
            check_ok(sesstab_touch(world->table, handle, 0));
        }
    }
    check(stat(object_path(world->name), &after) == 0);
    if (after.st_blocks > before.st_blocks + (2 << 20) / 512)
        test_fail(__FILE__, __LINE__, "the segment grew from %ld to %ld KiB",
                  (long)before.st_blocks / 2, (long)after.st_blocks / 2);
    restart_redis(world->redis);
    check_world(world);
    check(redis_field_is(world->redis, KEY(77) ":metadata", "n", "4"));
}

/* Sessions that Redis never knew leave no trace: no tombstone either. */
static void sessions_that_come_and_go_while_redis_is_away_use_no_memory(void **state)
{
    struct stat before, after;
    struct world *world = start_world(NULL, NULL);
    (void)state;
    kill_redis(world->redis);
    for (uint64_t i = 0; i < (uint64_t)rounds(100000); i++) {
        if (i == 5000)
            check(stat(object_path(world->name), &before) == 0);
        uint64_t handle = 0;
        check_ok(sesstab_insert(world->table, &handle, &(sesstab_info){ .host = "fleeting" }));
        check_ok(sesstab_remove(world->table, handle));
    }
    check(stat(object_path(world->name), &after) == 0);
    check(after.st_blocks <= before.st_blocks + (2 << 20) / 512);
    restart_redis(world->redis);
    check_world(world);
}

static void bind_in_vain(void *context)
{
    struct world *world = context;
    check_result(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT), SESSTAB_NOTFOUND);
}

static void a_bind_that_waits_is_told_that_its_session_was_removed(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    insert_plain(world->table, 1);
    wait_until_redis_equals(world->table, world->redis);
    kill_redis(world->redis);
    pid_t pid = start_child(bind_in_vain, world);
    wait_until(look(world->table, 1).pending);
    pause_ms(20);
    check_ok(sesstab_remove(world->table, 1));
    restart_redis(world->redis);
    join_child(pid);
    check_world(world);
}

static void redis_that_lost_its_data_is_filled_again(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    for (uint64_t handle = 1; handle <= 500; handle++) {
        insert_plain(world->table, handle);
        set_text(world->table, handle, "key", "value");
    }
    bind_durably(world, 1, "#1");
    wait_until_redis_equals(world->table, world->redis);
    freeReplyObject(redis_query(world->redis, "FLUSHALL"));
    wait_until_redis_equals(world->table, world->redis);
    check_string(look(world->table, 1).player, "#1");
    kill_redis(world->redis);
    restart_redis(world->redis);
    wait_until_redis_equals(world->table, world->redis);
    freeReplyObject(redis_query(world->redis, "FLUSHALL"));
    for (uint64_t handle = 1; handle <= 500; handle++)
        check_ok(sesstab_touch(world->table, handle, 0));
    check_world(world);
}

static void without_redis_the_table_works_and_says_unknown(void **state)
{
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    world->name = new_name();
    world->redis = start_redis(NULL);
    kill_redis(world->redis);
    restart_persister(world);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    insert_plain(world->table, 1);
    check_result(sesstab_bind(world->table, 1, "#1", 100), SESSTAB_UNKNOWN);
    check(look(world->table, 1).pending && !sesstab_ready(world->table));
    wait_until(file_says(persister_log(), world->redis->socket));
    check(kill(world->persister, 0) == 0);
    restart_redis(world->redis);
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    wait_until(!look(world->table, 1).pending);
    check_world(world);
}

/* ---------------------------------------------------------------- wrong Redis ------------ */

static void a_password_that_is_missing_is_reported_and_waited_for(void **state)
{
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    world->name = new_name();
    world->redis = start_redis((const char *[]){ "--requirepass", "secret", NULL });
    restart_persister(world);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    insert_plain(world->table, 1);
    check_result(sesstab_bind(world->table, 1, "#1", 100), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), "NOAUTH"));
    check(kill(world->persister, 0) == 0);
    freeReplyObject(redis_query(world->redis, "AUTH secret"));
    freeReplyObject(redis_query(world->redis, "CONFIG SET requirepass %s", ""));
    wait_until(!look(world->table, 1).pending);
    check_world(world);
}

static void write_password(const char *path, const char *password)
{
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check(descriptor >= 0);
    check(write(descriptor, password, strlen(password)) == (ssize_t)strlen(password));
    close(descriptor);
}

static void a_wrong_password_is_reported_and_the_table_works(void **state)
{
    char file[128];
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    snprintf(file, sizeof file, "%s/password", scratch_directory());
    write_password(file, "wrong\n");
    world->name = new_name();
    world->redis = start_redis((const char *[]){ "--requirepass", "secret", NULL });
    world->persister_options = (const char *[]){ "--password-file", file, NULL };
    restart_persister(world);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    insert_plain(world->table, 1);
    check_result(sesstab_bind(world->table, 1, "#1", 100), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), "WRONGPASS"));
    check(kill(world->persister, 0) == 0);
    check(look(world->table, 1).pending);
}

/* Answers every connection with something that is not Redis's protocol. */
static void serve_nonsense(void *context)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", (const char *)context);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    check(listen(listener, 8) == 0);
    for (;;) {
        char request[512];
        int client = accept(listener, NULL, NULL);
        if (read(client, request, sizeof request) > 0 && write(client, answer, sizeof answer) < 0)
            _exit(1);
        close(client);
    }
}

static void a_server_that_is_not_redis_is_reported_and_the_table_works(void **state)
{
    char path[96], url[104];
    const char *name = new_name();
    (void)state;
    snprintf(path, sizeof path, "%s/nonsense", scratch_directory());
    snprintf(url, sizeof url, "unix:%s/nonsense", scratch_directory());
    start_child(serve_nonsense, path);
    wait_until(access(path, F_OK) == 0);
    pid_t persister = start_persister(name, url, NULL);
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    insert_plain(table, 1);
    check_result(sesstab_bind(table, 1, "#1", 200), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), url));
    check_equal(count_sessions(table), 1);
    check(look(table, 1).pending);
    check(kill(persister, 0) == 0);
    unlink(path);
}

/* A port that was free a moment ago. */
static int free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof address;
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(descriptor, (struct sockaddr *)&address, length) == 0);
    check(getsockname(descriptor, (struct sockaddr *)&address, &length) == 0);
    close(descriptor);
    return ntohs(address.sin_port);
}

static void tcp_a_password_and_another_database_work_as_well(void **state)
{
    char file[128], port[8], url[32];
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    snprintf(file, sizeof file, "%s/right-password", scratch_directory());
    write_password(file, "secret\n");
    snprintf(port, sizeof port, "%d", free_port());
    snprintf(url, sizeof url, "tcp:127.0.0.1:%s", port);
    world->name = new_name();
    world->redis = start_redis((const char *[]){ "--requirepass", "secret", "--port", port,
                                                 "--bind", "127.0.0.1", NULL });
    start_persister(world->name, url,
                    (const char *[]){ "--password-file", file, "--db", "3", NULL });
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    insert_plain(world->table, 1);
    bind_durably(world, 1, "#1");
    freeReplyObject(redis_query(world->redis, "AUTH secret"));
    check_equal(redis_integer(world->redis, "DBSIZE"), 0);
    freeReplyObject(redis_query(world->redis, "SELECT 3"));
    check_world(world);
}

/* ---------------------------------------------------------------- a Redis of its own ----- */

static void restart_spawning(struct world *world, const char *directory)
{
    const char *const argv[] = { program("persister"), "--table", world->name, "--create",
                                 "--spawn-redis", directory, "--prefix", TEST_PREFIX, NULL };
    char log[128];
    snprintf(log, sizeof log, "%s/spawning.log", scratch_directory());
    world->persister = start_program(argv, log);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
}

static void start_over(struct world *world)
{
    close_table(world->table);
    check_ok(sesstab_unlink(world->name));
}

/* The private server keeps the sessions, also when everything is killed. */
static void a_persister_can_bring_its_own_redis(void **state)
{
    char directory[96];
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    snprintf(directory, sizeof directory, "%s/own-redis", scratch_directory());
    world->name = new_name();
    restart_spawning(world, directory);
    insert_plain(world->table, 1);
    bind_durably(world, 1, "#1");
    kill(world->persister, SIGTERM);
    join_child(world->persister);
    start_over(world);

    restart_spawning(world, directory);
    check_string(look(world->table, 1).player, "#1");
    bind_durably(world, 1, "#2");
    kill_child(world->persister);
    start_over(world);

    restart_spawning(world, directory);
    check_string(look(world->table, 1).player, "#2");
    kill(world->persister, SIGTERM);
    join_child(world->persister);
}

static void wrong_usage_of_the_persister_is_told_so(void **state)
{
    static const char *const wrong[][2] = {
        { "--nonsense", "1" },      { "--redis", "http://x" },   { "--redis", "tcp:host:port" },
        { "--redis", "unix:" },     { "--timeout", "-1" },       { "--timeout", "soon" },
        { "--batch", "0" },         { "--flush-interval", "x" }, { "--permissions", "999" },
        { "--max-bytes", "12X" },   { "--db", "x" },             { "--log-level", "loud" },
        { "--prefix", "" },
    };
    char output[4096];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int status = run_program((const char *[]){ program("persister"), wrong[i][0], wrong[i][1],
                                                   NULL }, output, sizeof output);
        if (status != 64 || strlen(output) < 20)
            test_fail(__FILE__, __LINE__, "%s %s: exit status %d, \"%s\"", wrong[i][0],
                      wrong[i][1], status, output);
    }
}

static void a_persister_without_a_table_says_so(void **state)
{
    const char *const names[] = { new_name(), "no-slash/" };
    const int statuses[] = { 1, 64 };
    char output[4096];
    (void)state;
    for (int i = 0; i < 2; i++) {
        const char *const argv[] = { program("persister"), "--table", names[i], NULL };
        check_equal(run_program(argv, output, sizeof output), statuses[i]);
        check(strstr(output, names[i]));
    }
}

/* ---------------------------------------------------------------- dying workers ---------- */

/* One random change of a session between FIRST and FIRST + 40. */
static void change_once(sesstab *table, uint64_t first)
{
    char text[16];
    uint64_t handle = first + random_below(40);
    snprintf(text, sizeof text, "%u", (unsigned)random_below(20));
    switch (random_below(9)) {
    case 0: sesstab_remove(table, handle); break;
    case 1: sesstab_bind(table, handle, text, 0); break;
    case 2: sesstab_unbind(table, handle, 0); break;
    case 3: sesstab_touch(table, handle, 0); break;
    case 4: sesstab_delete(table, handle, text); break;
    case 5: sesstab_increment(table, handle, "n", 1, NULL); break;
    case 6: sesstab_set_state(table, handle, SESSTAB_ACCOUNT, NULL); break;
    case 7: sesstab_set(table, handle, text, text, strlen(text)); break;
    default: sesstab_insert(table, &handle, &(sesstab_info){ .type = "test" });
    }
}

static void change_until_killed(void *context)
{
    struct world *world = context;
    for (uint64_t first = 1000 + child_index * 1000;;)
        change_once(world->table, first);
}

static void change_once_and_die(void *context)
{
    struct world *world = context;
    uint64_t handle = 1 + child_index;
    check_ok(sesstab_increment(world->table, handle, "n", 1, NULL));
    raise(SIGKILL);
}

static bool orphans_are_detached(sesstab *table)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    bool all = true;
    while (all && sesstab_next(table, &cursor, &view) == SESSTAB_OK)
        all = view.state == SESSTAB_DETACHED || sesstab_owner_alive(table, view.owner);
    sesstab_pause(table, &cursor);
    return all;
}

static void what_a_killed_worker_published_reaches_redis(void **state)
{
    const int kills = rounds(120);
    struct world *world = start_world(NULL, NULL);
    (void)state;
    for (int i = 0; i < kills; i++) {
        child_index = (unsigned)i % 3;
        pid_t pid = start_child(change_until_killed, world);
        pause_ms((unsigned)random_below(10));
        kill_child(pid);
    }
    wait_until(orphans_are_detached(world->table));
    check_world(world);
    /* The last instruction before death is often the one that published. */
    for (uint64_t handle = 1; handle <= 4; handle++)
        insert_plain(world->table, handle);
    for (int i = 0; i < kills; i++) {
        child_index = (unsigned)i % 4;
        kill_child(start_child(change_once_and_die, world));
    }
    check_world(world);
}

static void insert_and_wait(void *context)
{
    struct world *world = context;
    insert_plain(world->table, 10);
    check_ok(sesstab_bind(world->table, 10, "#10", WAIT_LIMIT));
    insert_plain(world->table, 11);
    world->stop = true;
    for (;;)
        pause();
}

static void only_a_dead_worker_s_sessions_become_detached(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    insert_plain(world->table, 1);
    pid_t pid = start_child(insert_and_wait, world);
    wait_until(world->stop);
    kill(pid, SIGSTOP);
    pause_ms(300);
    check_equal(look(world->table, 11).state, SESSTAB_CONNECTED);
    kill_child(pid);
    wait_until(look(world->table, 10).state == SESSTAB_DETACHED);
    wait_until(look(world->table, 11).state == SESSTAB_DETACHED);
    check_string(look(world->table, 10).player, "#10");
    check_equal(look(world->table, 1).state, SESSTAB_CONNECTED);
    check_world(world);
    check(redis_field_is(world->redis, KEY(10), "State", "detached"));
    bind_durably(world, 10, "#10");
    check_equal(look(world->table, 10).owner, sesstab_self(world->table));
    check_world(world);
}

/* ---------------------------------------------------------------- dying persisters ------- */

/* Binds one session again and again; what is durable must be in Redis when it is said so. */
static void bind_and_ask_redis(void *context)
{
    struct world *world = context;
    uint64_t handle = 1 + child_index;
    char player[32], key[64];
    redis_own_connection(world->redis);
    snprintf(key, sizeof key, TEST_PREFIX ":conn:%u", 1 + child_index);
    for (unsigned i = 1; !world->stop; i++) {
        snprintf(player, sizeof player, "#%u", i);
        bind_durably(world, handle, player);
        check(redis_field_is(world->redis, key, "PlayerRef", player));
        world->acknowledged++;
        world->last[child_index] = i;
    }
}

static void change_until_stopped(void *context)
{
    struct world *world = context;
    while (!world->stop) {
        change_once(world->table, 1000 + child_index * 1000);
        if (random_below(50) == 0)
            pause_ms(1);
    }
}

static void start_load(struct world *world, pid_t pids[4])
{
    for (uint64_t handle = 1; handle <= 4; handle++)
        insert_plain(world->table, handle);
    for (child_index = 0; child_index < 4; child_index++)
        pids[child_index] = start_child(child_index < 3 ? bind_and_ask_redis : change_until_stopped,
                                        world);
}

static void stop_load(struct world *world, const pid_t pids[4])
{
    uint64_t enough = world->acknowledged + 10;
    wait_until(world->acknowledged > enough);
    world->stop = true;
    for (int i = 0; i < 4; i++)
        join_child(pids[i]);
}

static void a_persister_killed_at_any_moment_loses_nothing(void **state)
{
    struct world *world = start_world(NULL, NULL);
    pid_t load[4];
    (void)state;
    start_load(world, load);
    for (int i = 0; i < rounds(40); i++) {
        uint64_t before = world->acknowledged;
        wait_until(world->acknowledged > before);
        pause_ms((unsigned)random_below(20));
        kill_child(world->persister);
        restart_persister(world);
    }
    stop_load(world, load);
    check_world(world);
}

static void redis_stopped_and_continued_under_load_loses_nothing(void **state)
{
    struct world *world = start_world(NULL, (const char *[]){ "--timeout", "50", NULL });
    pid_t load[4];
    (void)state;
    start_load(world, load);
    for (int i = 0; i < rounds(24); i++) {
        pause_ms((unsigned)random_below(30));
        kill(world->redis->pid, SIGSTOP);
        pause_ms((unsigned)random_below(150));
        kill(world->redis->pid, SIGCONT);
    }
    stop_load(world, load);
    check_world(world);
}

static void bind_all_the_time(void *context)
{
    struct world *world = context;
    char player[32];
    for (unsigned i = 1; !world->stop; i++) {
        snprintf(player, sizeof player, "#%u", i);
        bind_durably(world, 1 + child_index, player);
        world->last[child_index] = i;
        world->acknowledged++;
    }
}

/* With appendfsync always an acknowledged binding is in the file. */
static void redis_killed_under_load_keeps_every_durable_binding(void **state)
{
    struct world *world = start_world(
        (const char *[]){ "--appendonly", "yes", "--appendfsync", "always", NULL }, NULL);
    pid_t load[3];
    (void)state;
    for (child_index = 0; child_index < 3; child_index++) {
        insert_plain(world->table, 1 + child_index);
        load[child_index] = start_child(bind_all_the_time, world);
    }
    for (int c = 0; c < 3; c++)
        wait_until(world->last[c]); /* of the others alone there may be enough for the first round */
    for (int i = 0; i < rounds(8); i++) {
        uint64_t last[3], before = world->acknowledged;
        char key[64], player[32];
        wait_until(world->acknowledged > before + 3);
        kill(world->persister, SIGSTOP);
        for (int c = 0; c < 3; c++)
            last[c] = world->last[c];
        kill_redis(world->redis);
        restart_redis(world->redis);
        for (int c = 0; c < 3; c++) {
            snprintf(key, sizeof key, TEST_PREFIX ":conn:%d", 1 + c);
            check(redis_text(world->redis, player, sizeof player, "HGET %s PlayerRef", key));
            check(strtoull(player + 1, NULL, 10) >= last[c]);
        }
        kill(world->persister, SIGCONT);
    }
    world->stop = true;
    for (int c = 0; c < 3; c++)
        join_child(load[c]);
    check_world(world);
}

static void a_second_persister_waits_and_takes_over(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    insert_plain(world->table, 1);
    bind_durably(world, 1, "#1");
    pid_t first = world->persister;
    restart_persister(world);
    wait_until(file_says(persister_log(), "standby"));
    bind_durably(world, 1, "#2");
    kill_child(first);
    bind_durably(world, 1, "#3");
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#3"));
    check_world(world);
}

/* A stopped leader has taken sessions in hand; continued, it must not overwrite what is newer. */
static void a_persister_that_was_stopped_overwrites_nothing_newer(void **state)
{
    struct world *world = start_world(NULL, NULL);
    char player[32];
    (void)state;
    insert_plain(world->table, 1);
    for (int i = 0; i < rounds(24); i++) {
        pid_t first = world->persister;
        snprintf(player, sizeof player, "old %d", i);
        sesstab_bind(world->table, 1, player, 0);
        pause_ms((unsigned)random_below(3));
        kill(first, SIGSTOP);
        restart_persister(world);
        snprintf(player, sizeof player, "new %d", i);
        sesstab_bind(world->table, 1, player, 20);
        kill(first, SIGCONT);
        bind_durably(world, 1, player);
        check(redis_field_is(world->redis, KEY(1), "PlayerRef", player));
        kill_child(first);
    }
    check_world(world);
}

static void a_persister_that_is_asked_to_stop_flushes_first(void **state)
{
    struct world *world =
        start_world(NULL, (const char *[]){ "--flush-interval", "60000", NULL });
    (void)state;
    for (uint64_t handle = 1; handle <= 1000; handle++) {
        insert_plain(world->table, handle);
        set_text(world->table, handle, "key", "value");
    }
    kill(world->persister, SIGTERM);
    join_child(world->persister);
    check_equal(redis_integer(world->redis, "SCARD " KEY(active)), 1000);
    check_world(world);
}

/* ---------------------------------------------------------------- starting over ---------- */

static void fill_for_reload(sesstab *table)
{
    char text[32];
    for (uint64_t handle = 1; handle <= 300; handle++) {
        uint64_t number = handle;
        snprintf(text, sizeof text, "#%llu", (unsigned long long)handle);
        check_ok(sesstab_insert(table, &number, &(sesstab_info){ .address = "192.0.2.1",
            .host = "host.example", .type = "telnet", .connected_at = 1600000000000 + handle }));
        check_ok(sesstab_set(table, handle, "binary", "\0\r\n\xff", 4));
        check_ok(sesstab_set(table, handle, text, text, strlen(text)));
        check_result(sesstab_bind(table, handle, text, 0), SESSTAB_UNKNOWN);
    }
}

static void check_reloaded(sesstab *table, uint64_t handle, uint64_t generation)
{
    char text[32];
    const void *binary;
    size_t length;
    snprintf(text, sizeof text, "#%llu", (unsigned long long)handle);
    sesstab_view view = look(table, handle);
    check_equal(view.generation, generation);
    check_equal(view.state, SESSTAB_DETACHED);
    check_string(view.player, text);
    check_string(view.address, "192.0.2.1");
    check_string(view.host, "host.example");
    check_string(view.type, "telnet");
    check_equal(view.connected_at, 1600000000000 + handle);
    check_equal(view.owner, 0);
    check_string(metadata_of(&view, text), text);
    check_ok(sesstab_metadata(&view, "binary", &binary, &length, NULL));
    check(length == 4 && memcmp(binary, "\0\r\n\xff", 4) == 0);
    check_equal(view.metadata_count, 2);
    check_equal(sessions_of(table, text), 1);
}

static void a_fresh_table_is_loaded_from_redis_before_it_is_ready(void **state)
{
    struct world *world = start_world(NULL, NULL);
    uint64_t generations[301], handle = 0, highest = 0;
    (void)state;
    fill_for_reload(world->table);
    wait_until_redis_equals(world->table, world->redis);
    for (uint64_t h = 1; h <= 300; h++) {
        generations[h] = look(world->table, h).generation;
        highest = generations[h] > highest ? generations[h] : highest;
    }
    kill_child(world->persister);
    close_table(world->table);
    check_ok(sesstab_unlink(world->name));

    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check(!sesstab_ready(world->table));
    check_equal(count_sessions(world->table), 0);
    restart_persister(world);
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    check_equal(count_sessions(world->table), 300);
    for (uint64_t h = 1; h <= 300; h++)
        check_reloaded(world->table, h, generations[h]);
    check_ok(sesstab_insert(world->table, &handle, NULL));
    check(handle > 300 && look(world->table, handle).generation > highest);
    check_result(sesstab_insert(world->table, &(uint64_t){ 5 }, NULL), SESSTAB_EXISTS);
    check_world(world);
    check(redis_field_is(world->redis, KEY(1), "State", "detached"));
}

/* What workers did before the load was done wins over what Redis still has. */
static void changes_before_the_load_win_over_redis(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    fill_for_reload(world->table);
    wait_until_redis_equals(world->table, world->redis);
    kill_child(world->persister);
    close_table(world->table);
    check_ok(sesstab_unlink(world->name));

    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    insert_plain(world->table, 1);
    insert_plain(world->table, 2);
    check_ok(sesstab_remove(world->table, 2));
    set_text(world->table, 1, "new", "yes");
    restart_persister(world);
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    check_string(look(world->table, 1).type, "test");
    check_string(look(world->table, 1).player, "");
    check_result(sesstab_touch(world->table, 2, 0), SESSTAB_NOTFOUND);
    check_equal(count_sessions(world->table), 299);
    check_world(world);
    check_equal(redis_integer(world->redis, "EXISTS " KEY(2)), 0);
}

static void a_table_that_survived_repairs_what_redis_has_wrong(void **state)
{
    struct world *world = start_world(NULL, NULL);
    (void)state;
    fill_for_reload(world->table);
    wait_until_redis_equals(world->table, world->redis);
    kill_child(world->persister);
    freeReplyObject(redis_query(world->redis, "DEL " KEY(3) " " KEY(4) ":metadata"));
    freeReplyObject(redis_query(world->redis, "HSET " KEY(5) " Version 1 PlayerRef wrong"));
    freeReplyObject(redis_query(world->redis, "HSET " KEY(999) " Handle 999 Generation 7 "
                                "Version 7 PlayerRef ghost State connected IpAddress x Hostname x "
                                "ConnectionType x ConnectedAt 2023-11-14T22:13:20.123Z "
                                "LastSeen 2023-11-14T22:13:20.123Z"));
    freeReplyObject(redis_query(world->redis, "SADD " KEY(active) " 999"));
    freeReplyObject(redis_query(world->redis, "SREM " KEY(active) " 6"));
    check_ok(sesstab_remove(world->table, 7));
    insert_plain(world->table, 8000);
    restart_persister(world);
    check_world(world);
    check_equal(redis_integer(world->redis, "EXISTS " KEY(999)), 0);
}

/*
 * Redis goes back to an older copy while the connection is away.  Whether a session changes before
 * it is compared or afterwards, Redis ends with all of it.
 */
static void what_changes_before_it_is_compared_is_sent_whole(void **state)
{
    enum { SESSIONS = 1000 };
    struct world *world = start_world(NULL, NULL);
    char player[32];
    (void)state;
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        insert_plain(world->table, handle);
        set_text(world->table, handle, "width", "80");
    }
    wait_until_redis_equals(world->table, world->redis);
    kill(world->persister, SIGSTOP);
    for (unsigned handle = 1; handle <= SESSIONS; handle++) {
        freeReplyObject(redis_query(world->redis, "HSET " TEST_PREFIX ":conn:%u Version 1",
                                    handle));
        freeReplyObject(redis_query(world->redis,
                                    "HSET " TEST_PREFIX ":conn:%u:metadata width old", handle));
    }
    freeReplyObject(redis_query(world->redis, "CLIENT KILL TYPE normal SKIPME yes"));
    kill(world->persister, SIGCONT);
    for (uint64_t handle = 1; handle <= SESSIONS; handle += 10) {
        snprintf(player, sizeof player, "#%" PRIu64, handle);
        bind_durably(world, handle, player);
    }
    check_world(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_durable_binding_is_in_redis_with_all_its_fields),
        TEST(what_is_written_behind_arrives),
        TEST(a_session_of_the_largest_size_arrives),
        TEST(a_removed_session_leaves_nothing_in_redis),
        TEST(ten_thousand_touches_are_a_handful_of_writes),
        TEST(redis_ends_with_the_new_session_however_often_its_handle_was_reused),
        TEST(a_binding_whose_time_is_up_is_unknown_and_pending_and_durable_later),
        TEST(a_binding_of_unknown_fate_is_not_called_durable),
        TEST(a_binding_that_redis_refuses_is_rolled_back),
        TEST(bindings_behind_a_refused_one_are_judged_for_themselves),
        TEST(a_refused_binding_does_not_bring_an_unacknowledged_one_back),
        TEST(a_binding_in_redis_is_not_refused_with_the_one_on_top_of_it),
        TEST(a_hundred_thousand_sessions_change_while_redis_is_away),
        TEST(sessions_that_come_and_go_while_redis_is_away_use_no_memory),
        TEST(a_bind_that_waits_is_told_that_its_session_was_removed),
        TEST(redis_that_lost_its_data_is_filled_again),
        TEST(without_redis_the_table_works_and_says_unknown),
        TEST(a_password_that_is_missing_is_reported_and_waited_for),
        TEST(a_wrong_password_is_reported_and_the_table_works),
        TEST(a_server_that_is_not_redis_is_reported_and_the_table_works),
        TEST(tcp_a_password_and_another_database_work_as_well),
        TEST(a_persister_can_bring_its_own_redis),
        TEST(wrong_usage_of_the_persister_is_told_so),
        TEST(a_persister_without_a_table_says_so),
        TEST(what_a_killed_worker_published_reaches_redis),
        TEST(only_a_dead_worker_s_sessions_become_detached),
        TEST(a_persister_killed_at_any_moment_loses_nothing),
        TEST(redis_stopped_and_continued_under_load_loses_nothing),
        TEST(redis_killed_under_load_keeps_every_durable_binding),
        TEST(a_second_persister_waits_and_takes_over),
        TEST(a_persister_that_was_stopped_overwrites_nothing_newer),
        TEST(a_persister_that_is_asked_to_stop_flushes_first),
        TEST(a_fresh_table_is_loaded_from_redis_before_it_is_ready),
        TEST(changes_before_the_load_win_over_redis),
        TEST(a_table_that_survived_repairs_what_redis_has_wrong),
        TEST(what_changes_before_it_is_compared_is_sent_whole),
    };
    return run_all(tests);
}
