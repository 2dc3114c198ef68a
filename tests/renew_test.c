/*
 * Time to live in Redis (tools/persister_renew.h): who lives keeps its sessions there, whose host
 * is gone loses them after a while, and what vanished from Redis by itself is written again.
 */
#include "tests/harness.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle
#define METADATA(handle) KEY(handle) ":metadata"
#define EVERYTHING KEY(1) " " METADATA(1) " " KEY(active)

struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
    pid_t persister;
};

static void restart_persister(struct world *world, const char *ttl)
{
    const char *const options[] = { "--ttl", ttl, NULL };
    world->persister = start_persister(world->name, world->redis->url, options);
}

static void open_world(struct world *world)
{
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
}

/* With session 1, which has metadata, in Redis. */
static struct world start_world(const char *ttl, const char *const *redis_options)
{
    struct world world = { .name = new_name(), .redis = start_redis(redis_options) };
    restart_persister(&world, ttl);
    open_world(&world);
    insert_plain(world.table, 1);
    check_ok(sesstab_set(world.table, 1, "width", "80", 2));
    check_ok(sesstab_bind(world.table, 1, "#1", WAIT_LIMIT));
    wait_until_redis_equals(world.table, world.redis);
    return world;
}

static long long ttl_of(struct world *world, const char *key)
{
    return redis_integer(world->redis, "TTL %s", key);
}

static bool ttl_is_within(struct world *world, const char *key, long long least, long long most)
{
    long long ttl = ttl_of(world, key);
    return ttl >= least && ttl <= most;
}

/* Each key's time to live is at most what was asked for, and there is one. */
static bool all_expire(struct world *world, long long ttl)
{
    return ttl_is_within(world, KEY(1), 1, ttl) && ttl_is_within(world, METADATA(1), 1, ttl) &&
           ttl_is_within(world, KEY(active), 1, 2 * ttl);
}

static bool none_expires(struct world *world)
{
    return ttl_of(world, KEY(1)) == -1 && ttl_of(world, METADATA(1)) == -1 &&
           ttl_of(world, KEY(active)) == -1;
}

static void persist_by_hand(struct world *world)
{
    freeReplyObject(redis_query(world->redis, "PERSIST " KEY(1)));
    freeReplyObject(redis_query(world->redis, "PERSIST " METADATA(1)));
    freeReplyObject(redis_query(world->redis, "PERSIST " KEY(active)));
}

static long long keys_left(struct world *world)
{
    return redis_integer(world->redis, "EXISTS " EVERYTHING);
}

/* ---------------------------------------------------------------- given ------------------ */

static void every_key_of_a_new_session_expires(void **state)
{
    struct world world = start_world("1000", NULL);
    (void)state;
    check(all_expire(&world, 1000));
    check(ttl_of(&world, KEY(active)) > 1000);
}

static void metadata_that_comes_later_expires(void **state)
{
    struct world world = start_world("1000", NULL);
    (void)state;
    insert_plain(world.table, 2);
    wait_until_redis_equals(world.table, world.redis);
    check(ttl_is_within(&world, KEY(2), 1, 1000));
    check_ok(sesstab_set(world.table, 2, "later", "yes", 3));
    wait_until_redis_equals(world.table, world.redis);
    check(ttl_is_within(&world, METADATA(2), 1, 1000));
}

static void a_revived_handle_expires(void **state)
{
    struct world world = start_world("1000", NULL);
    (void)state;
    check_ok(sesstab_remove(world.table, 1));
    insert_plain(world.table, 1);
    check_ok(sesstab_set(world.table, 1, "width", "132", 3));
    wait_until_redis_equals(world.table, world.redis);
    check(all_expire(&world, 1000));
}

static void with_a_ttl_of_zero_nothing_expires(void **state)
{
    struct world world = start_world("0", NULL);
    (void)state;
    check(none_expires(&world));
}

static void a_ttl_that_is_none_is_refused(void **state)
{
    static const char *const bad[] = { "", "1", "2", "-1", "day", "3s", "99999999999" };
    char output[4096];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_equal(run_program((const char *[]){ program("persister"), "--ttl", bad[i], NULL },
                                output, sizeof output), 64);
}

/* Where, in Redis's log, a touch of session 1 that is not alone in its transaction ends; NULL:
 * there is none.  (Redis leaves MULTI and EXEC out around a single write.) */
static const char *after_touch(const struct redis *redis, char *log, size_t size)
{
    static const char touch[] = "MULTI\r\n*4\r\n$4\r\nHSET\r\n$11\r\n" KEY(1)
                                "\r\n$8\r\nLastSeen\r\n";
    char path[160];
    snprintf(path, sizeof path, "%s/appendonlydir/appendonly.aof.1.incr.aof", redis->directory);
    FILE *f = fopen(path, "r");
    check(f != NULL);
    size_t length = fread(log, 1, size - 1, f);
    fclose(f);
    log[length] = '\0';
    const char *found = strstr(log, touch);
    return found ? found + sizeof touch - 1 : NULL;
}

/* Its time passed while nobody led; the first to write of it need not live to write the rest. */
static void a_touch_of_what_has_run_out_makes_nothing_that_never_ends(void **state)
{
    static char log[1 << 20];
    struct world world = start_world("1000", (const char *const[]){ "--appendonly", "yes", NULL });
    (void)state;
    kill_child(world.persister);
    check(after_touch(world.redis, log, sizeof log) == NULL);
    freeReplyObject(redis_query(world.redis, "DEL " EVERYTHING));
    check_ok(sesstab_touch(world.table, 1, sesstab_now() + 5000));
    start_persister(world.name, world.redis->url,
                    (const char *const[]){ "--ttl", "1000", "--flush-interval", "0", NULL });
    wait_until_redis_equals(world.table, world.redis);
    const char *rest = after_touch(world.redis, log, sizeof log);
    check(rest != NULL);
    const char *end = strstr(rest, "EXEC"), *expiry = strstr(rest, "PEXPIREAT");
    check(end != NULL && expiry != NULL && expiry < end);
}

/* ---------------------------------------------------------------- renewed ---------------- */

/* Without anything that changes: twice, so that it was not the walk after connecting. */
static void an_idle_session_is_renewed_again_and_again(void **state)
{
    struct world world = start_world("3", NULL);
    (void)state;
    for (int i = 0; i < 3; i++) {
        persist_by_hand(&world);
        wait_until(all_expire(&world, 3));
    }
    wait_until_redis_equals(world.table, world.redis);
}

static void many_sessions_are_all_renewed(void **state)
{
    enum { SESSIONS = 3000 };
    struct world world = start_world("3", NULL);
    char key[64];
    (void)state;
    for (uint64_t handle = 2; handle <= SESSIONS; handle++)
        insert_plain(world.table, handle);
    wait_until_redis_equals(world.table, world.redis);
    for (unsigned handle = 1; handle <= SESSIONS; handle++)
        freeReplyObject(redis_query(world.redis, "PERSIST " TEST_PREFIX ":conn:%u", handle));
    for (unsigned handle = 1; handle <= SESSIONS; handle++) {
        snprintf(key, sizeof key, TEST_PREFIX ":conn:%u", handle);
        wait_until(ttl_is_within(&world, key, 1, 3));
    }
}

static void sessions_are_renewed_while_redis_has_no_memory(void **state)
{
    struct world world = start_world("3", NULL);
    (void)state;
    freeReplyObject(redis_query(world.redis, "CONFIG SET maxmemory 1"));
    for (int i = 0; i < 2; i++) {
        persist_by_hand(&world);
        wait_until(all_expire(&world, 3));
    }
    freeReplyObject(redis_query(world.redis, "CONFIG SET maxmemory 0"));
}

static void another_ttl_takes_effect_when_the_persister_starts(void **state)
{
    struct world world = start_world("1000", NULL);
    (void)state;
    kill_child(world.persister);
    restart_persister(&world, "0");
    wait_until(none_expires(&world));
    kill_child(world.persister);
    restart_persister(&world, "50");
    wait_until(all_expire(&world, 50));
    wait_until_redis_equals(world.table, world.redis);
}

/* ---------------------------------------------------------------- lost ------------------- */

static void what_vanished_is_written_again(void **state)
{
    static const char *const keys[] = { KEY(1), METADATA(1), KEY(active), EVERYTHING };
    struct world world = start_world("3", NULL);
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        redisReply *reply = redis_query(world.redis, keys[i] == keys[3] ? "DEL " EVERYTHING
                                                                         : "DEL %s", keys[i]);
        check(reply->integer >= 1);
        freeReplyObject(reply);
        wait_until_redis_equals(world.table, world.redis);
        wait_until(all_expire(&world, 3));
    }
}

static void a_persister_that_was_dead_for_longer_writes_everything_again(void **state)
{
    struct world world = start_world("3", NULL);
    (void)state;
    kill_child(world.persister);
    wait_until(keys_left(&world) == 0);
    check_result(sesstab_bind(world.table, 1, "#2", 0), SESSTAB_UNKNOWN);
    restart_persister(&world, "3");
    wait_until_redis_equals(world.table, world.redis);
    check_table(world.name);
}

/* Redis keeps its file, and finds everything in it expired. */
static void a_redis_that_was_away_for_longer_is_filled_again(void **state)
{
    const char *const with_file[] = { "--appendonly", "yes", "--appendfsync", "always", NULL };
    struct world world = start_world("3", with_file);
    (void)state;
    kill_redis(world.redis);
    pause_ms(4000);
    restart_redis(world.redis);
    wait_until_redis_equals(world.table, world.redis);
    check_table(world.name);
}

static void a_crashed_hosts_sessions_end_by_themselves(void **state)
{
    struct world world = start_world("3", NULL);
    (void)state;
    kill_child(world.persister);
    close_table(world.table);
    check_ok(sesstab_unlink(world.name));
    wait_until(keys_left(&world) == 0);
    restart_persister(&world, "3");
    open_world(&world);
    check_equal(count_sessions(world.table), 0);
}

static void a_member_whose_session_has_expired_is_not_loaded_and_is_taken_out(void **state)
{
    struct world world = start_world("1000", NULL);
    (void)state;
    kill_child(world.persister);
    close_table(world.table);
    check_ok(sesstab_unlink(world.name));
    freeReplyObject(redis_query(world.redis, "DEL " KEY(1)));
    check_equal(redis_integer(world.redis, "SISMEMBER " KEY(active) " 1"), 1);
    restart_persister(&world, "1000");
    open_world(&world);
    check_equal(count_sessions(world.table), 0);
    wait_until(keys_left(&world) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_key_of_a_new_session_expires),
        TEST(metadata_that_comes_later_expires),
        TEST(a_revived_handle_expires),
        TEST(with_a_ttl_of_zero_nothing_expires),
        TEST(a_touch_of_what_has_run_out_makes_nothing_that_never_ends),
        TEST(a_ttl_that_is_none_is_refused),
        TEST(an_idle_session_is_renewed_again_and_again),
        TEST(many_sessions_are_all_renewed),
        TEST(sessions_are_renewed_while_redis_has_no_memory),
        TEST(another_ttl_takes_effect_when_the_persister_starts),
        TEST(what_vanished_is_written_again),
        TEST(a_persister_that_was_dead_for_longer_writes_everything_again),
        TEST(a_redis_that_was_away_for_longer_is_filled_again),
        TEST(a_crashed_hosts_sessions_end_by_themselves),
        TEST(a_member_whose_session_has_expired_is_not_loaded_and_is_taken_out),
    };
    return run_all(tests);
}
