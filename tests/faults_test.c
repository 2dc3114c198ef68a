/*
 * What a Redis that refuses, or holds something else, must not do to those that are not concerned.
 * (`make redis-faults` does much more of it, at random and under load: tests/faults.)
 */
#include "tests/harness.h"

#include <string.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle

struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
    pid_t persister;
};

static void start_table(struct world *world)
{
    world->persister = start_persister(world->name, world->redis->url, NULL);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
}

static void start_world(struct world *world)
{
    world->name = new_name();
    world->redis = start_redis(NULL);
    start_table(world);
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
}

static void ask(struct world *world, const char *command)
{
    freeReplyObject(redis_query(world->redis, command));
}

static void bind_new(struct world *world, uint64_t handle, const char *player)
{
    insert_plain(world->table, handle);
    check_ok(sesstab_set(world->table, handle, "width", "80", 2));
    check_ok(sesstab_bind(world->table, handle, player, WAIT_LIMIT));
}

/* Ready means: what is not in the table does not exist, and may be deleted from Redis. */
static void a_session_that_cannot_be_read_while_loading_is_not_gone(void **state)
{
    struct world world;
    (void)state;
    start_world(&world);
    bind_new(&world, 1, "#1");
    bind_new(&world, 2, "#2");
    wait_until_redis_equals(world.table, world.redis);
    kill_child(world.persister);
    close_table(world.table);
    check_ok(sesstab_unlink(world.name));

    ask(&world, "ACL SETUSER default -hgetall");
    start_table(&world);
    wait_until(file_says(persister_log(), "NOPERM"));
    check(!sesstab_ready(world.table));
    ask(&world, "ACL SETUSER default +hgetall");
    check_ok(sesstab_wait_ready(world.table, WAIT_LIMIT));
    check_string(look(world.table, 1).player, "#1");
    check_string(look(world.table, 2).player, "#2");
    wait_until_redis_equals(world.table, world.redis);
}

/* Also when the connection is made anew, after which everything is compared. */
static void an_active_set_that_is_none_stops_no_other_write(void **state)
{
    struct world world;
    (void)state;
    start_world(&world);
    bind_new(&world, 1, "#1");
    wait_until_redis_equals(world.table, world.redis);
    ask(&world, "DEL " KEY(active));
    ask(&world, "SET " KEY(active) " x");
    ask(&world, "CLIENT KILL TYPE normal SKIPME yes");
    wait_until(file_says(persister_log(), "active-unreadable"));
    check_ok(sesstab_set(world.table, 1, "width", "132", 3));
    wait_until(redis_field_is(world.redis, KEY(1) ":metadata", "width", "132"));
    ask(&world, "DEL " KEY(active));
    wait_until_redis_equals(world.table, world.redis);
}

static void a_lost_session_is_written_whole_though_its_metadata_are_refused(void **state)
{
    struct world world;
    (void)state;
    start_world(&world);
    bind_new(&world, 1, "#1");
    wait_until_redis_equals(world.table, world.redis);
    ask(&world, "DEL " KEY(1) " " KEY(1) ":metadata");
    ask(&world, "SREM " KEY(active) " 1");
    ask(&world, "SET " KEY(1) ":metadata x");
    check_ok(sesstab_set(world.table, 1, "width", "132", 3));
    wait_until_redis_equals(world.table, world.redis);
}

static void why_redis_turned_the_persister_away_is_said(void **state)
{
    struct world world;
    (void)state;
    start_world(&world);
    bind_new(&world, 1, "#1");
    ask(&world, "CONFIG SET maxclients 1");
    ask(&world, "CLIENT KILL TYPE normal SKIPME yes");
    wait_until(file_says(persister_log(), "max number of clients"));
    ask(&world, "CONFIG SET maxclients 1000");
    check_ok(sesstab_bind(world.table, 1, "#2", WAIT_LIMIT));
    wait_until_redis_equals(world.table, world.redis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_session_that_cannot_be_read_while_loading_is_not_gone),
        TEST(an_active_set_that_is_none_stops_no_other_write),
        TEST(a_lost_session_is_written_whole_though_its_metadata_are_refused),
        TEST(why_redis_turned_the_persister_away_is_said),
    };
    return run_all(tests);
}
