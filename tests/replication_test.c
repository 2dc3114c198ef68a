/*
 * Replicas and Sentinel: what --ack promises is kept through fail-overs, and what can't be promised is
 * not said.  Real servers, real sentinels, on loopback addresses of the test's own.
 */
#include "tests/harness.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle
#define NAME "main"

enum { SERVERS = 3, SENTINELS = 3, BINDERS = 3, OPTIONS = 24, FIRST_PORT = 20000 };

/* A server that others reach by TCP as well. */
struct server {
    struct redis *redis;
    char port[12], url[64];
    const char *options[OPTIONS];
};

struct world {
    const char *name;
    sesstab *table;
    char host[24], sentinels[128];
    struct server servers[SERVERS];
    pid_t sentinel_pids[SENTINELS], persister;
    const char *options[OPTIONS]; /* the persister's */
    _Atomic bool stop;
    _Atomic unsigned binders;
    _Atomic uint64_t durable[BINDERS]; /* the number of the last binding that was durable */
};

/* ---------------------------------------------------------------- the deployment --------- */

static unsigned next_port(void)
{
    static unsigned used;
    return FIRST_PORT + used++;
}

/* 127.a.b.c is all this machine's: with the pid in it, nobody else's test listens there. */
static struct world *new_world(void)
{
    struct world *world = shared_memory(sizeof *world);
    unsigned pid = (unsigned)getpid();
    snprintf(world->host, sizeof world->host, "127.%u.%u.%u", 1 + (pid >> 16) % 254,
             pid >> 8 & 0xff, 1 + pid % 254);
    world->name = new_name();
    return world;
}

/* Server number I; of the MASTER, unless NULL.  MORE: another option and its value, or NULL. */
static void start_server(struct world *world, unsigned i, const struct server *master,
                         const char *const more[2])
{
    struct server *s = &world->servers[i];
    const char *const fixed[] = { "--port", s->port, "--bind", world->host,
                                  "--replica-announce-ip", world->host,
                                  "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period",
                                  "1" };
    size_t n = sizeof fixed / sizeof *fixed;
    unsigned port = next_port();
    snprintf(s->port, sizeof s->port, "%u", port);
    snprintf(s->url, sizeof s->url, "tcp:%s:%u", world->host, port);
    memcpy(s->options, fixed, sizeof fixed);
    if (master) {
        s->options[n++] = "--replicaof";
        s->options[n++] = world->host;
        s->options[n++] = master->port;
    }
    for (size_t k = 0; more && k < 2; k++)
        s->options[n++] = more[k];
    s->redis = start_redis(s->options);
}

/* By a connection of its own: a sentinel that changes a server's role cuts off its clients. */
static bool info_says(struct redis *redis, const char *text)
{
    redisContext *context = redisConnectUnix(redis->socket);
    check(context != NULL);
    redisReply *reply = context->err ? NULL : redisCommand(context, "INFO replication");
    bool says = reply && reply->type == REDIS_REPLY_STRING && strstr(reply->str, text);
    if (reply)
        freeReplyObject(reply);
    redisFree(context);
    redis_own_connection(redis);
    return says;
}

static void start_replicas(struct world *world, unsigned count)
{
    char online[32];
    snprintf(online, sizeof online, "connected_slaves:%u\r", count);
    for (unsigned i = 1; i <= count; i++)
        start_server(world, i, &world->servers[0], NULL);
    for (unsigned i = 1; i <= count; i++)
        wait_until(info_says(world->servers[i].redis, "master_link_status:up"));
    wait_until(info_says(world->servers[0].redis, online));
}

static void start_sentinel(struct world *world, unsigned i)
{
    char path[128], log[128];
    unsigned port = next_port();
    snprintf(path, sizeof path, "%s/sentinel-%u.conf", scratch_directory(), port);
    snprintf(log, sizeof log, "%s/sentinel-%u.log", scratch_directory(), port);
    FILE *file = fopen(path, "w");
    check(file != NULL);
    fprintf(file, "port %u\nbind %s\ndir %s\nsentinel announce-ip %s\n", port, world->host,
            scratch_directory(), world->host);
    fprintf(file, "sentinel monitor " NAME " %s %s 2\n", world->host, world->servers[0].port);
    fprintf(file, "sentinel down-after-milliseconds " NAME " 1000\n"
                  "sentinel failover-timeout " NAME " 5000\nsentinel parallel-syncs " NAME " 2\n");
    check(fclose(file) == 0);
    size_t used = strlen(world->sentinels);
    snprintf(world->sentinels + used, sizeof world->sentinels - used, "%s%s:%u", used ? "," : "",
             world->host, port);
    world->sentinel_pids[i] = start_program(
        (const char *[]){ "redis-server", path, "--sentinel", NULL }, log);
}

/* The last field of the first sentinel's look at the master: "slaves=2,sentinels=3". */
static bool sentinels_agree(struct world *world)
{
    char host[24];
    int port = 0;
    check(sscanf(world->sentinels, "%23[^:]:%d", host, &port) == 2);
    redisContext *context = redisConnect(host, port);
    check(context != NULL);
    redisReply *reply = context->err ? NULL : redisCommand(context, "INFO sentinel");
    bool agree = reply && reply->type == REDIS_REPLY_STRING &&
                 strstr(reply->str, "status=ok") && strstr(reply->str, "slaves=2,sentinels=3");
    if (reply)
        freeReplyObject(reply);
    redisFree(context);
    return agree;
}

static void start_world_persister(struct world *world, const char *url)
{
    world->persister = start_persister(world->name, url, world->options);
}

static void open_world(struct world *world)
{
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
}

/* A master, COUNT replicas, a persister that asks the master for what ACK says. */
static struct world *start_replicated(unsigned count, const char *ack)
{
    struct world *world = new_world();
    start_server(world, 0, NULL, NULL);
    start_replicas(world, count);
    world->options[0] = "--ack";
    world->options[1] = ack;
    start_world_persister(world, world->servers[0].url);
    open_world(world);
    return world;
}

/* The same with three sentinels, who say where the master is. */
static struct world *start_watched(const char *ack)
{
    struct world *world = new_world();
    start_server(world, 0, NULL, NULL);
    start_replicas(world, 2);
    for (unsigned i = 0; i < SENTINELS; i++)
        start_sentinel(world, i);
    wait_until(sentinels_agree(world));
    const char *const options[] = { "--ack", ack, "--sentinel", world->sentinels, "--master",
                                    NAME, NULL };
    memcpy(world->options, options, sizeof options);
    start_world_persister(world, NULL);
    open_world(world);
    return world;
}

/* Waits until one of the two that were replicas has been promoted. */
static struct redis *promoted(struct world *world)
{
    unsigned i = 1;
    wait_until(info_says(world->servers[i = 3 - i].redis, "role:master"));
    return world->servers[i].redis;
}

static void check_world(struct world *world, struct redis *master)
{
    wait_until_redis_equals(world->table, master);
    check_table(world->name);
}

/* ---------------------------------------------------------------- load ------------------- */

/* Binds its session to one number after the other, and notes which ones were durable. */
static void bind_on_and_on(void *context)
{
    struct world *world = context;
    unsigned me = atomic_fetch_add(&world->binders, 1);
    char player[32];
    for (uint64_t n = 1; !world->stop; n++) {
        snprintf(player, sizeof player, "%" PRIu64, n);
        int result = sesstab_bind(world->table, me + 1, player, 1000);
        if (result == SESSTAB_OK)
            world->durable[me] = n;
        else
            check_result(result, SESSTAB_UNKNOWN);
    }
}

static void start_load(struct world *world, pid_t binders[BINDERS])
{
    for (uint64_t handle = 1; handle <= BINDERS; handle++)
        insert_plain(world->table, handle);
    for (unsigned i = 0; i < BINDERS; i++)
        binders[i] = start_child(bind_on_and_on, world);
    for (unsigned i = 0; i < BINDERS; i++)
        wait_until(world->durable[i] >= 20);
}

static void end_load(struct world *world, const pid_t binders[BINDERS])
{
    world->stop = true;
    for (unsigned i = 0; i < BINDERS; i++)
        join_child(binders[i]);
}

/* More is durable than by now, for everybody. */
static void wait_for_more(struct world *world)
{
    for (unsigned i = 0; i < BINDERS; i++) {
        uint64_t before = world->durable[i];
        wait_until(world->durable[i] > before + 3);
    }
}

/* What MASTER holds of each session is what was durable last, or newer. */
static void check_nothing_lost(struct world *world, struct redis *master)
{
    char number[32];
    for (unsigned i = 0; i < BINDERS; i++) {
        check(redis_text(master, number, sizeof number, "HGET " TEST_PREFIX ":conn:%u PlayerRef",
                         i + 1));
        if (strtoull(number, NULL, 10) < world->durable[i])
            test_fail(__FILE__, __LINE__, "session %u: %" PRIu64 " was durable, %s is there",
                      i + 1, (uint64_t)world->durable[i], number);
    }
}

/* ---------------------------------------------------------------- fail-over -------------- */

static void a_master_killed_under_load_loses_no_durable_binding(void **state)
{
    struct world *world = start_watched("replicas=1");
    pid_t binders[BINDERS];
    (void)state;
    start_load(world, binders);
    kill_redis(world->servers[0].redis);
    struct redis *master = promoted(world);
    wait_until(file_says(persister_log(), "event=master-changed"));
    wait_for_more(world);
    end_load(world, binders);
    check_nothing_lost(world, master);
    check_world(world, master);
}

/* No persister helps: what was durable is in the one that was promoted, because it waited for it. */
static void what_a_replica_acknowledged_is_there_when_it_is_promoted(void **state)
{
    struct world *world = start_watched("replicas=1");
    pid_t binders[BINDERS];
    (void)state;
    start_load(world, binders);
    kill_redis(world->servers[0].redis);
    kill_child(world->persister);
    end_load(world, binders);
    struct redis *master = promoted(world);
    check_nothing_lost(world, master);
    start_world_persister(world, NULL);
    check_world(world, master);
}

static void a_master_that_was_stopped_and_is_demoted_changes_nothing(void **state)
{
    struct world *world = start_watched("memory");
    pid_t binders[BINDERS];
    (void)state;
    start_load(world, binders);
    kill(world->servers[0].redis->pid, SIGSTOP);
    struct redis *master = promoted(world);
    wait_for_more(world);
    kill(world->servers[0].redis->pid, SIGCONT);
    wait_until(info_says(world->servers[0].redis, "master_link_status:up"));
    wait_for_more(world);
    end_load(world, binders);
    check_nothing_lost(world, master);
    check_world(world, master);
    check_world(world, world->servers[0].redis);
}

/* The sentinels are asked in turn; a master that serves is not left because they are gone. */
static void the_master_is_kept_to_while_sentinels_are_away(void **state)
{
    struct world *world = start_watched("memory");
    (void)state;
    insert_plain(world->table, 1);
    for (unsigned i = 0; i < SENTINELS; i++) {
        kill_child(world->sentinel_pids[i]);
        pause_ms(300);
        check_ok(sesstab_bind(world->table, 1, i % 2 ? "odd" : "even", WAIT_LIMIT));
    }
    wait_until(file_says(persister_log(), "event=sentinels-silent"));
    check_ok(sesstab_bind(world->table, 1, "still", WAIT_LIMIT));
    check(!file_says(persister_log(), "event=disconnected"));
    check_world(world, world->servers[0].redis);
}

/* ---------------------------------------------------------------- replicas --------------- */

static void without_enough_replicas_nothing_is_durable_until_they_are_back(void **state)
{
    struct world *world = start_replicated(1, "replicas=1");
    char output[4096];
    (void)state;
    for (uint64_t handle = 1; handle <= 100; handle++)
        insert_plain(world->table, handle);
    check_ok(sesstab_bind(world->table, 1, "before", WAIT_LIMIT));
    run_program((const char *[]){ program("shmdump"), world->name, NULL }, output, sizeof output);
    check(strstr(output, "acknowledged in 1 replicas"));
    kill_redis(world->servers[1].redis);
    check_result(sesstab_bind(world->table, 1, "without", 1500), SESSTAB_UNKNOWN);
    check(look(world->table, 1).pending);
    wait_until(file_says(persister_log(), "event=replicas-missing"));
    run_program((const char *[]){ program("shmdump"), world->name, NULL }, output, sizeof output);
    check(strstr(output, "acknowledged nothing at present"));
    check_ok(sesstab_remove(world->table, 2));
    check_result(sesstab_bind(world->table, 3, "without", 100), SESSTAB_UNKNOWN);
    restart_redis(world->servers[1].redis);
    wait_until(!look(world->table, 1).pending && !look(world->table, 3).pending);
    check(redis_field_is(world->servers[1].redis, KEY(1), "PlayerRef", "without"));
    check(redis_field_is(world->servers[1].redis, KEY(3), "PlayerRef", "without"));
    check(file_says(persister_log(), "event=replicas-back"));
    check_world(world, world->servers[0].redis);
}

static void more_replicas_than_there_are_make_nothing_durable_from_the_start(void **state)
{
    struct world *world = start_replicated(1, "replicas=2");
    (void)state;
    insert_plain(world->table, 1);
    wait_until(file_says(persister_log(), "event=replicas-missing"));
    check_result(sesstab_bind(world->table, 1, "waits", 300), SESSTAB_UNKNOWN);
    start_server(world, 2, &world->servers[0], NULL);
    wait_until(!look(world->table, 1).pending);
    check_world(world, world->servers[0].redis);
}

static void a_persister_that_leaves_without_replicas_leaves_all_to_the_next(void **state)
{
    struct world *world = start_replicated(1, "replicas=1");
    int status;
    (void)state;
    insert_plain(world->table, 1);
    kill_redis(world->servers[1].redis);
    check_result(sesstab_bind(world->table, 1, "left", 1500), SESSTAB_UNKNOWN);
    kill(world->persister, SIGTERM);
    check(waitpid(world->persister, &status, 0) == world->persister && status == 0);
    check(look(world->table, 1).pending);
    restart_redis(world->servers[1].redis);
    start_world_persister(world, world->servers[0].url);
    wait_until(!look(world->table, 1).pending);
    check_world(world, world->servers[0].redis);
}

/* NOREPLICAS, READONLY and MASTERDOWN: kept, and durable when it is over. */
static void what_a_master_refuses_for_now_is_durable_later(void **state)
{
    struct world *world = new_world();
    (void)state;
    start_server(world, 0, NULL, NULL);
    start_server(world, 1, NULL, NULL);
    start_world_persister(world, world->servers[0].url);
    open_world(world);
    struct redis *redis = world->servers[0].redis;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "before", WAIT_LIMIT));
    freeReplyObject(redis_query(redis, "CONFIG SET min-replicas-to-write 1"));
    check_result(sesstab_bind(world->table, 1, "few", 200), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), "NOREPLICAS"));
    freeReplyObject(redis_query(redis, "CONFIG SET min-replicas-to-write 0"));
    wait_until(!look(world->table, 1).pending);
    freeReplyObject(redis_query(redis, "REPLICAOF %s %s", world->host, world->servers[1].port));
    check_result(sesstab_bind(world->table, 1, "demoted", 200), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), "it is a replica"));
    freeReplyObject(redis_query(redis, "CONFIG SET replica-serve-stale-data no"));
    kill_redis(world->servers[1].redis);
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
                                 "--redis", world->servers[0].redis->url, "--prefix", TEST_PREFIX,
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
    start_server(world, 0, NULL, NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        for (size_t k = 0; k < 3; k++) {
            char command[64];
            snprintf(command, sizeof command, "CONFIG SET %s", wrong[i][k]);
            freeReplyObject(redis_query(world->servers[0].redis, command));
        }
        check_equal(refused_start(world, said, sizeof said), 1);
        snprintf(expected, sizeof expected, "set %s", wrong[i][3]);
        check(strstr(said, expected));
    }
    freeReplyObject(redis_query(world->servers[0].redis, "CONFIG SET no-appendfsync-on-rewrite no"));
    freeReplyObject(redis_query(world->servers[0].redis, "ACL SETUSER default -config"));
    check_equal(refused_start(world, said, sizeof said), 1);
    check(strstr(said, "can't be proved") && strstr(said, "NOPERM"));
}

static void fsync_that_ends_ends_the_answers_until_it_is_back(void **state)
{
    struct world *world = new_world();
    char output[4096];
    (void)state;
    start_server(world, 0, NULL, (const char *const[2]){ "--appendonly", "yes" });
    struct redis *redis = world->servers[0].redis;
    freeReplyObject(redis_query(redis, "CONFIG SET appendfsync always"));
    world->options[0] = "--ack";
    world->options[1] = "fsync";
    start_world_persister(world, redis->url);
    open_world(world);
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "on disk", WAIT_LIMIT));
    run_program((const char *[]){ program("shmdump"), world->name, NULL }, output, sizeof output);
    check(strstr(output, "acknowledged in disk"));
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
        TEST(a_master_killed_under_load_loses_no_durable_binding),
        TEST(what_a_replica_acknowledged_is_there_when_it_is_promoted),
        TEST(a_master_that_was_stopped_and_is_demoted_changes_nothing),
        TEST(the_master_is_kept_to_while_sentinels_are_away),
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
