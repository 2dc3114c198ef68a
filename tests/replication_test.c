/*
 * What --ack promises: replicas that must have a change, a disk that must have it.  What can't be
 * promised is not said.  Real servers.
 */
#include "tests/replicas.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle

struct world {
    struct deployment d;
    const char *name;
    sesstab *table;
    pid_t persister;
    const char *options[OPTIONS_MAX]; /* the persister's */
};

static void start_world_persister(struct world *world, const char *url)
{
    world->persister = start_persister(world->name, url, world->options);
}

static void open_world(struct world *world)
{
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
}

static struct world *new_world(void)
{
    struct world *world = shared_memory(sizeof *world);
    world->name = new_name();
    return world;
}

static void check_world(struct world *world, struct redis *master)
{
    wait_until_redis_equals(world->table, master);
    check_table(world->name);
}

/* A master, COUNT replicas, a persister that asks the master for what ACK says. */
static struct world *start_world(unsigned count, const char *ack)
{
    struct world *world = new_world();
    start_replicated(&world->d, count);
    const char *const options[] = { "--ack", ack, "--ttl", "6", NULL };
    memcpy(world->options, options, sizeof options);
    start_world_persister(world, world->d.servers[0].url);
    open_world(world);
    return world;
}

/* ---------------------------------------------------------------- replicas --------------- */

static void wait_until_renewed(struct redis *redis)
{
    long long left = redis_integer(redis, "PTTL " KEY(4));
    wait_until(redis_integer(redis, "PTTL " KEY(4)) > left);
}

/* Asked until it does: a WAIT that a busy machine delays makes the persister say otherwise meanwhile. */
static bool table_says(struct world *world, const char *text)
{
    char output[4096];
    run_program((const char *[]){ program("shmdump"), world->name, NULL }, output, sizeof output);
    return strstr(output, text) != NULL;
}

static void without_enough_replicas_nothing_is_durable_until_they_are_back(void **state)
{
    struct world *world = start_world(1, "replicas=1");
    (void)state;
    for (uint64_t handle = 1; handle <= 100; handle++)
        insert_plain(world->table, handle);
    check_ok(sesstab_bind(world->table, 1, "before", WAIT_LIMIT));
    wait_until(table_says(world, "acknowledged in 1 replicas"));
    check_world(world, world->d.servers[0].redis);
    kill_redis(world->d.servers[1].redis);
    check_result(sesstab_bind(world->table, 1, "without", 1500), SESSTAB_UNKNOWN);
    check(look(world->table, 1).pending);
    wait_until(table_says(world, "acknowledged nothing at present"));
    check(file_says(persister_log(), "event=replicas-missing"));
    check_ok(sesstab_remove(world->table, 2));
    check_result(sesstab_bind(world->table, 3, "without", 100), SESSTAB_UNKNOWN);
    wait_until_renewed(world->d.servers[0].redis);
    restart_redis(world->d.servers[1].redis);
    wait_until(!look(world->table, 1).pending && !look(world->table, 3).pending);
    check(redis_field_is(world->d.servers[1].redis, KEY(1), "PlayerRef", "without"));
    check(redis_field_is(world->d.servers[1].redis, KEY(3), "PlayerRef", "without"));
    check(file_says(persister_log(), "event=replicas-back"));
    check_world(world, world->d.servers[0].redis);
}

static void more_replicas_than_there_are_make_nothing_durable_from_the_start(void **state)
{
    struct world *world = start_world(1, "replicas=2");
    (void)state;
    insert_plain(world->table, 1);
    wait_until(file_says(persister_log(), "event=replicas-missing"));
    check_result(sesstab_bind(world->table, 1, "waits", 300), SESSTAB_UNKNOWN);
    start_server(&world->d, 2, &world->d.servers[0], NULL);
    wait_until(!look(world->table, 1).pending);
    check_world(world, world->d.servers[0].redis);
}

static void a_persister_that_leaves_without_replicas_leaves_all_to_the_next(void **state)
{
    struct world *world = start_world(1, "replicas=1");
    int status;
    (void)state;
    insert_plain(world->table, 1);
    kill_redis(world->d.servers[1].redis);
    check_result(sesstab_bind(world->table, 1, "left", 1500), SESSTAB_UNKNOWN);
    kill(world->persister, SIGTERM);
    check(waitpid(world->persister, &status, 0) == world->persister && status == 0);
    check(look(world->table, 1).pending);
    restart_redis(world->d.servers[1].redis);
    start_world_persister(world, world->d.servers[0].url);
    wait_until(!look(world->table, 1).pending);
    check_world(world, world->d.servers[0].redis);
}

/* NOREPLICAS, READONLY and MASTERDOWN: kept, and durable when it is over. */
static void what_a_master_refuses_for_now_is_durable_later(void **state)
{
    struct world *world = new_world();
    (void)state;
    start_server(&world->d, 0, NULL, NULL);
    start_server(&world->d, 1, NULL, NULL);
    start_world_persister(world, world->d.servers[0].url);
    open_world(world);
    struct redis *redis = world->d.servers[0].redis;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "before", WAIT_LIMIT));
    freeReplyObject(redis_query(redis, "CONFIG SET min-replicas-to-write 1"));
    check_result(sesstab_bind(world->table, 1, "few", 200), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), "NOREPLICAS"));
    freeReplyObject(redis_query(redis, "CONFIG SET min-replicas-to-write 0"));
    wait_until(!look(world->table, 1).pending);
    freeReplyObject(redis_query(redis, "REPLICAOF %s %s", deployment_host(), world->d.servers[1].port));
    check_result(sesstab_bind(world->table, 1, "demoted", 200), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), "it is a replica"));
    freeReplyObject(redis_query(redis, "CONFIG SET replica-serve-stale-data no"));
    kill_redis(world->d.servers[1].redis);
    check_result(sesstab_bind(world->table, 1, "alone", 200), SESSTAB_UNKNOWN);
    freeReplyObject(redis_query(redis, "REPLICAOF NO ONE"));
    wait_until(!look(world->table, 1).pending);
    check(redis_field_is(redis, KEY(1), "PlayerRef", "alone"));
    check_world(world, redis);
}

/* ---------------------------------------------------------------- fsync ------------------ */

/* How a persister ends that wants fsync of this server, and what it says. */
static int refused_start(struct world *world, char *said, size_t size)
{
    const char *const argv[] = { program("persister"), "--table", world->name, "--create",
                                 "--redis", world->d.servers[0].redis->url, "--prefix", TEST_PREFIX,
                                 "--ack", "fsync", NULL };
    return run_program(argv, said, size);
}

static void fsync_is_refused_where_the_server_does_not_do_it(void **state)
{
    static const char *const wrong[][4] = {
        { "appendonly no", "appendfsync always", "no-appendfsync-on-rewrite no", "appendonly yes" },
        { "appendonly yes", "appendfsync everysec", "no-appendfsync-on-rewrite no",
          "appendfsync always" },
        { "appendonly yes", "appendfsync always", "no-appendfsync-on-rewrite yes",
          "no-appendfsync-on-rewrite no" },
    };
    struct world *world = new_world();
    char said[4096], expected[64];
    (void)state;
    start_server(&world->d, 0, NULL, NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        for (size_t k = 0; k < 3; k++) {
            char command[64];
            snprintf(command, sizeof command, "CONFIG SET %s", wrong[i][k]);
            freeReplyObject(redis_query(world->d.servers[0].redis, command));
        }
        check_equal(refused_start(world, said, sizeof said), 1);
        snprintf(expected, sizeof expected, "set %s", wrong[i][3]);
        check(strstr(said, expected));
    }
    freeReplyObject(redis_query(world->d.servers[0].redis, "CONFIG SET no-appendfsync-on-rewrite no"));
    freeReplyObject(redis_query(world->d.servers[0].redis, "ACL SETUSER default -config"));
    check_equal(refused_start(world, said, sizeof said), 1);
    check(strstr(said, "can't be proved") && strstr(said, "NOPERM"));
}

static void fsync_that_ends_ends_the_answers_until_it_is_back(void **state)
{
    struct world *world = new_world();
    (void)state;
    start_server(&world->d, 0, NULL, (const char *const[2]){ "--appendonly", "yes" });
    struct redis *redis = world->d.servers[0].redis;
    freeReplyObject(redis_query(redis, "CONFIG SET appendfsync always"));
    world->options[0] = "--ack";
    world->options[1] = "fsync";
    start_world_persister(world, redis->url);
    open_world(world);
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "on disk", WAIT_LIMIT));
    wait_until(table_says(world, "acknowledged in disk"));
    freeReplyObject(redis_query(redis, "CONFIG SET appendfsync everysec"));
    wait_until(file_says(persister_log(), "event=fsync-missing"));
    check_result(sesstab_bind(world->table, 1, "somewhere", 200), SESSTAB_UNKNOWN);
    freeReplyObject(redis_query(redis, "CONFIG SET appendfsync always"));
    wait_until(!look(world->table, 1).pending);
    check(file_says(persister_log(), "event=fsync-back"));
    check_world(world, redis);
}

/* ---------------------------------------------------------------- options ---------------- */

static void options_that_make_no_sense_are_said_to(void **state)
{
    static const char *const wrong[][7] = {
        { "--ack", "sometimes" }, { "--ack", "replicas=0" }, { "--ack", "replicas=1x" },
        { "--sentinel", "127.0.0.1:1" }, { "--master", "main" },
        { "--sentinel", "127.0.0.1", "--master", "main" },
        { "--sentinel", "127.0.0.1:1,,127.0.0.1:2", "--master", "main" },
        { "--sentinel", "127.0.0.1:1", "--master", "main", "--redis", "tcp:127.0.0.1:1" },
        { "--sentinel-password-file", "/dev/null" },
        { "--redis", "tls:127.0.0.1:6379" },
    };
    char said[4096];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *argv[9] = { program("persister") };
        memcpy(argv + 1, wrong[i], sizeof wrong[i]);
        check_equal(run_program(argv, said, sizeof said), 64);
        check(strstr(said, i + 1 < sizeof wrong / sizeof *wrong ? "--" : "hiredis 1.0"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_enough_replicas_nothing_is_durable_until_they_are_back),
        TEST(more_replicas_than_there_are_make_nothing_durable_from_the_start),
        TEST(a_persister_that_leaves_without_replicas_leaves_all_to_the_next),
        TEST(what_a_master_refuses_for_now_is_durable_later),
        TEST(fsync_is_refused_where_the_server_does_not_do_it),
        TEST(fsync_that_ends_ends_the_answers_until_it_is_back),
        TEST(options_that_make_no_sense_are_said_to),
    };
    return run_all(tests);
}
