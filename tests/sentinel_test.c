/*
 * Sentinel: the persister writes to the master that the sentinels name, and a fail-over loses nothing
 * that was answered durable.  Real servers and sentinels, killed and stopped under load.
 */
#include "tests/replicas.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { BINDERS = 3 };

struct world {
    struct deployment d;
    const char *name;
    sesstab *table;
    pid_t persister;
    const char *options[OPTIONS_MAX]; /* the persister's */
    _Atomic bool stop;
    _Atomic unsigned binders;
    _Atomic uint64_t durable[BINDERS]; /* the number of the last binding that was durable */
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

/* A master, two replicas, three sentinels; durable is what ACK says. */
static struct world *start_world(const char *ack)
{
    struct world *world = new_world();
    start_replicated(&world->d, 2);
    start_sentinels(&world->d);
    const char *const options[] = { "--ack", ack, "--sentinel", world->d.sentinels, "--master",
                                    MASTER_NAME, NULL };
    memcpy(world->options, options, sizeof options);
    start_world_persister(world, NULL);
    open_world(world);
    return world;
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
        int result = sesstab_bind(world->table, me + 1, player, 3000);
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
    struct world *world = start_world("replicas=1");
    pid_t binders[BINDERS];
    (void)state;
    start_load(world, binders);
    kill_redis(world->d.servers[0].redis);
    struct redis *master = promoted(&world->d);
    wait_until(file_says(persister_log(), "event=master-changed"));
    wait_for_more(world);
    end_load(world, binders);
    check_nothing_lost(world, master);
    check_world(world, master);
}

/* The master serves on, but its replicas, cut off, can't log in again. */
static void cut_off_replicas(struct redis *master)
{
    freeReplyObject(redis_query(master, "CONFIG SET requirepass secret"));
    freeReplyObject(redis_query(master, "CLIENT KILL TYPE replica"));
}

/* No persister helps: what was durable is in the one that was promoted, and nothing else was durable. */
static void what_a_replica_acknowledged_is_there_when_it_is_promoted(void **state)
{
    struct world *world = start_world("replicas=1");
    pid_t binders[BINDERS];
    (void)state;
    start_load(world, binders);
    cut_off_replicas(world->d.servers[0].redis);
    pause_ms(2500); /* WAIT is answered twice */
    kill_redis(world->d.servers[0].redis);
    kill_child(world->persister);
    end_load(world, binders);
    struct redis *master = promoted(&world->d);
    check_nothing_lost(world, master);
    start_world_persister(world, NULL);
    check_world(world, master);
}

/* As the sentinels would, after some seconds. */
static void demote(struct world *world, const struct redis *master)
{
    struct redis *old = world->d.servers[0].redis;
    for (unsigned i = 1; i < SERVERS; i++)
        if (world->d.servers[i].redis == master)
            freeReplyObject(redis_query(old, "REPLICAOF %s %s", deployment_host(),
                                        world->d.servers[i].port));
    wait_until(replication_says(old, "master_link_status:up"));
}

static void a_master_that_was_stopped_and_is_demoted_changes_nothing(void **state)
{
    struct world *world = start_world("memory");
    pid_t binders[BINDERS];
    (void)state;
    start_load(world, binders);
    kill(world->d.servers[0].redis->pid, SIGSTOP);
    struct redis *master = promoted(&world->d);
    wait_for_more(world);
    kill(world->d.servers[0].redis->pid, SIGCONT);
    demote(world, master);
    wait_for_more(world);
    end_load(world, binders);
    check_nothing_lost(world, master);
    check_world(world, master);
    check_world(world, world->d.servers[0].redis);
}

/* The sentinels are asked in turn; a master that serves is not left because they are gone. */
static void the_master_is_kept_to_while_sentinels_are_away(void **state)
{
    struct world *world = start_world("memory");
    (void)state;
    insert_plain(world->table, 1);
    for (unsigned i = 0; i < SENTINELS; i++) {
        kill_child(world->d.sentinel_pids[i]);
        pause_ms(300);
        check_ok(sesstab_bind(world->table, 1, i % 2 ? "odd" : "even", WAIT_LIMIT));
    }
    wait_until(file_says(persister_log(), "event=sentinels-silent"));
    check_ok(sesstab_bind(world->table, 1, "still", WAIT_LIMIT));
    check(!file_says(persister_log(), "event=disconnected"));
    check_world(world, world->d.servers[0].redis);
}

/* ---------------------------------------------------------------- what is done once ------ */

static int do_once(struct world *world, const char *what, const char *more, const char *master,
                   char *output, size_t size)
{
    const char *argv[] = { program("persister"), "--table", world->name, "--prefix", TEST_PREFIX,
                           "--sentinel", world->d.sentinels, "--master", master, what, more, NULL };
    return run_program(argv, output, size);
}

/* Importing, and looking for differences: where the master is now. */
static void what_is_done_once_finds_the_master_too(void **state)
{
    static char output[16384];
    struct world *world = new_world();
    (void)state;
    start_replicated(&world->d, 2);
    start_sentinels(&world->d);
    freeReplyObject(redis_query(world->d.servers[0].redis, "SET old:conn:7 %s",
                                "{\"Handle\":7,\"State\":\"Connected\","
                                "\"ConnectedAt\":\"2026-01-01T00:00:00Z\","
                                "\"LastSeen\":\"2026-01-01T00:00:00Z\"}"));
    freeReplyObject(redis_query(world->d.servers[0].redis, "SADD old:conn:active 7"));
    check_equal(do_once(world, "--import-json=old", NULL, MASTER_NAME, output, sizeof output), 0);
    check(strstr(output, "sessions=1") != NULL);
    const char *const options[] = { "--sentinel", world->d.sentinels, "--master", MASTER_NAME, NULL };
    memcpy(world->options, options, sizeof options);
    start_world_persister(world, NULL);
    open_world(world);
    check(look(world->table, 7).handle == 7);
    check_world(world, world->d.servers[0].redis);
    kill_redis(world->d.servers[0].redis);
    struct redis *master = promoted(&world->d);
    check_ok(sesstab_set(world->table, 7, "key", "value", 5));
    check_world(world, master);
    check_equal(do_once(world, "--reconcile", "--dry-run", MASTER_NAME, output, sizeof output), 0);
    freeReplyObject(redis_query(master, "SADD " TEST_PREFIX ":conn:active 99"));
    check_equal(do_once(world, "--reconcile", "--dry-run", MASTER_NAME, output, sizeof output), 1);
}

static void who_finds_no_master_says_so(void **state)
{
    static char output[16384];
    struct world *world = new_world();
    (void)state;
    snprintf(world->d.sentinels, sizeof world->d.sentinels, "127.0.0.1:1");
    close_table(open_table(world->name, &(sesstab_options){ .create = true }));
    check_equal(do_once(world, "--import-json=old", "--timeout=500", "main", output, sizeof output), 2);
    check(strstr(output, "no sentinel says where it is") != NULL);
    check_equal(do_once(world, "--reconcile", "--dry-run", "main", output, sizeof output), 2);
    check(strstr(output, "no sentinel says where it is") != NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_master_killed_under_load_loses_no_durable_binding),
        TEST(what_a_replica_acknowledged_is_there_when_it_is_promoted),
        TEST(a_master_that_was_stopped_and_is_demoted_changes_nothing),
        TEST(the_master_is_kept_to_while_sentinels_are_away),
        TEST(what_is_done_once_finds_the_master_too),
        TEST(who_finds_no_master_says_so),
    };
    return run_all(tests);
}
