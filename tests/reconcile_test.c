/*
 * The comparers: `shmdump --diff-redis`, and the persister's --reconcile and SIGUSR1.  Each kind of
 * difference is made by hand; each tool finds exactly that one, and none while everything changes.
 */
#include "tests/harness.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle
#define METADATA(handle) KEY(handle) ":metadata"

enum { SESSIONS = 300, OUTPUT = 65536 };

struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
    pid_t persister;
    _Atomic bool stop;
};

static void start_world(struct world *world)
{
    world->name = new_name();
    world->redis = start_redis(NULL);
    world->persister = start_persister(world->name, world->redis->url, NULL);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
}

/* Sessions 1 to SESSIONS; those that 3 divides have metadata, the even ones a player. */
static struct world *filled_world(void)
{
    struct world *world = shared_memory(sizeof *world);
    start_world(world);
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        char player[32];
        insert_plain(world->table, handle);
        snprintf(player, sizeof player, "#%" PRIu64, handle);
        if (handle % 3 == 0)
            check_ok(sesstab_set(world->table, handle, "width", "80", 2));
        if (handle % 2 == 0)
            check_result(sesstab_bind(world->table, handle, player, 0), SESSTAB_UNKNOWN);
    }
    wait_until_redis_equals(world->table, world->redis);
    return world;
}

/* A difference that is made by hand, and its line: handle, where, field, table, Redis. */
struct damage {
    const char *commands[3];
    const char *line[5];
    const char *sums;
};

static const struct damage damages[] = {
    { { "HSET " KEY(2) " PlayerRef #other" },
      { "2", "different", "PlayerRef", "#2", "#other" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "HDEL " KEY(2) " Hostname" },
      { "2", "different", "Hostname", "-", "(none)" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "HSET " KEY(2) " Foreign field" },
      { "2", "different", "Foreign", "(none)", "field" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "HSET " KEY(2) " LastSeen 2001-01-01T00:00:00.000Z" },
      { "2", "different", "LastSeen", NULL, "2001-01-01T00:00:00.000Z" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "HSET " METADATA(3) " width 132" },
      { "3", "different", "metadata:width", "80", "132" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "HSET " METADATA(1) " added yes" },
      { "1", "different", "metadata:added", "(none)", "yes" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "DEL " METADATA(3) },
      { "3", "different", "metadata:width", "80", "(none)" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "SREM " KEY(active) " 5" },
      { "5", "different", "active", "member", "(none)" },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "DEL " KEY(6) },
      { "6", "only-table", "record", "#6", "(none)" },
      "equal 299, only_table 1, only_redis 0, different 0, in_flight 0" },
    { { "DEL " KEY(2), "SET " KEY(2) " text" },
      { "2", "different", "record", "a\\x20hash", NULL },
      "equal 299, only_table 0, only_redis 0, different 1, in_flight 0" },
    { { "SADD " KEY(active) " 999" },
      { "999", "only-redis", "active", "(none)", "member" },
      "equal 300, only_table 0, only_redis 1, different 0, in_flight 0" },
    { { "COPY " KEY(2) " " KEY(999), "HSET " KEY(999) " Handle 999 PlayerRef #999" },
      { "999", "only-redis", "record", "(none)", "#999" },
      "equal 300, only_table 0, only_redis 1, different 0, in_flight 0" },
    { { "HSET " METADATA(999) " left behind" },
      { "999", "only-redis", "metadata", "(none)", NULL },
      "equal 300, only_table 0, only_redis 1, different 0, in_flight 0" },
};
enum { DAMAGES = sizeof damages / sizeof *damages };

static void run_commands(struct world *world, const struct damage *damage)
{
    for (size_t i = 0; i < 3 && damage->commands[i]; i++)
        freeReplyObject(redis_query(world->redis, damage->commands[i]));
}

/* The leader, which goes on comparing slowly, is stopped so that it does not come first. */
static void do_damage(struct world *world, const struct damage *damage)
{
    kill(world->persister, SIGSTOP);
    run_commands(world, damage);
}

static void have_it_repaired(struct world *world)
{
    kill(world->persister, SIGUSR1);
    kill(world->persister, SIGCONT);
}

/* ---------------------------------------------------------------- shmdump --------------- */

static int diff(struct world *world, bool json, char *output)
{
    char option[160];
    snprintf(option, sizeof option, "--diff-redis=%s", world->redis->url);
    const char *argv[] = { program("shmdump"), option, "--prefix", TEST_PREFIX, world->name,
                           json ? "--json" : NULL, NULL };
    return run_program(argv, output, OUTPUT);
}

/* LINE's columns are what DAMAGE says. */
static bool is_line_of(char *line, const struct damage *damage)
{
    char *rest = NULL, *column = strtok_r(line, " ", &rest);
    for (size_t i = 0; i < 5; i++, column = strtok_r(NULL, " ", &rest))
        if (!column || (damage->line[i] && strcmp(column, damage->line[i]) != 0))
            return false;
    return column == NULL;
}

/* A head, the one line, the sums. */
static void check_found(const char *output, const struct damage *damage)
{
    char *rest = NULL, text[OUTPUT];
    snprintf(text, sizeof text, "%s", output);
    check(strtok_r(text, "\n", &rest) != NULL);
    char *line = strtok_r(NULL, "\n", &rest), *sums = strtok_r(NULL, "\n", &rest);
    if (!line || !sums || strtok_r(NULL, "\n", &rest) || !is_line_of(line, damage) ||
        strncmp(sums, damage->sums, strlen(damage->sums)) != 0)
        test_fail(__FILE__, __LINE__, "after %s: %s", damage->commands[0], output);
}

static void shmdump_finds_each_difference_and_no_other(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    check_equal(diff(world, false, output), 0);
    for (size_t i = 0; i < DAMAGES; i++) {
        do_damage(world, &damages[i]);
        check_equal(diff(world, false, output), 1);
        check_found(output, &damages[i]);
        have_it_repaired(world);
        wait_until(diff(world, false, output) == 0);
    }
    check(file_says(persister_log(), "event=difference"));
    wait_until_redis_equals(world->table, world->redis);
}

/* More often than a comparison takes. */
static void what_is_asked_for_again_and_again_comes_to_its_end(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    for (uint64_t handle = SESSIONS + 1; handle <= SESSIONS + rounds(20000); handle++)
        insert_plain(world->table, handle);
    wait_until_redis_equals(world->table, world->redis);
    wait_until((kill(world->persister, SIGUSR1), file_says(persister_log(), "thorough=yes")));
    do_damage(world, &damages[0]);
    have_it_repaired(world); /* while one runs, perhaps past it */
    wait_until(diff(world, false, output) == 0);
}

static void a_difference_is_json_if_that_is_asked_for(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    do_damage(world, &damages[0]);
    check_equal(diff(world, true, output), 1);
    check(strstr(output, "{\"handle\":2,\"kind\":\"different\",\"field\":\"PlayerRef\","
                         "\"table\":\"#2\",\"redis\":\"#other\"}") != NULL);
    check(strstr(output, "\"equal\":299,\"only_table\":0,\"only_redis\":0,\"different\":1") !=
          NULL);
}

static void what_is_no_session_is_counted_as_strange(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    freeReplyObject(redis_query(world->redis, "SADD " KEY(active) " no-number"));
    freeReplyObject(redis_query(world->redis, "SET " TEST_PREFIX ":conn:no-number x"));
    freeReplyObject(redis_query(world->redis, "SET " TEST_PREFIX ":connection x"));
    check_equal(diff(world, false, output), 0);
    check(strstr(output, "strange 2\n") != NULL);
}

static void what_redis_was_not_told_yet_is_in_flight(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    kill(world->persister, SIGSTOP);
    check_result(sesstab_bind(world->table, 1, "#1", 0), SESSTAB_UNKNOWN);
    check_ok(sesstab_set(world->table, 2, "key", "value", 5));
    check_ok(sesstab_remove(world->table, 3));
    insert_plain(world->table, SESSIONS + 1);
    check_ok(sesstab_touch(world->table, 4, sesstab_now() + 5000));
    check_equal(diff(world, false, output), 0);
    check(strstr(output, "equal 297, only_table 0, only_redis 0, different 0, in_flight 4") !=
          NULL);
    kill(world->persister, SIGCONT);
    wait_until_redis_equals(world->table, world->redis);
}

/* diff() as a user of Redis whose password is in FILE. */
static int diff_as(struct world *world, const char *user, const char *file, char *output)
{
    char option[160];
    snprintf(option, sizeof option, "--diff-redis=%s", world->redis->url);
    return run_program((const char *[]){ program("shmdump"), option, "--prefix", TEST_PREFIX,
                                         "--user", user, "--password-file", file, world->name,
                                         NULL }, output, OUTPUT);
}

static void a_user_who_may_only_read_is_enough_and_one_who_may_not_is_told(void **state)
{
    static char output[OUTPUT];
    char file[128];
    struct world *world = filled_world();
    (void)state;
    snprintf(file, sizeof file, "%s/password", scratch_directory());
    FILE *f = fopen(file, "w");
    check(f != NULL && fputs("secret\n", f) >= 0 && fclose(f) == 0);
    freeReplyObject(redis_query(world->redis, "ACL SETUSER reader on >secret ~" TEST_PREFIX
                                ":conn:* +scard +sscan +scan +hgetall +sismember"));
    freeReplyObject(redis_query(world->redis, "ACL SETUSER blind on >secret ~" TEST_PREFIX
                                ":conn:* +scard +sscan +scan +sismember"));
    check_equal(diff_as(world, "reader", file, output), 0);
    check_equal(diff_as(world, "blind", file, output), 2);
    check(strstr(output, "NOPERM") != NULL);
    check_equal(diff_as(world, "nobody", file, output), 2);
}

static void a_leader_that_may_not_read_says_so_and_goes_on(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    freeReplyObject(redis_query(world->redis, "ACL SETUSER default -hgetall"));
    kill(world->persister, SIGUSR1);
    wait_until(file_says(persister_log(), "event=compare-refused"));
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    check(!file_says(persister_log(), "event=disconnected"));
    freeReplyObject(redis_query(world->redis, "ACL SETUSER default +hgetall"));
    wait_until_redis_equals(world->table, world->redis);
    check_equal(diff(world, false, output), 0);
}

static void dead_owners_are_counted(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    check_ok(sesstab_set_state(world->table, 1, SESSTAB_DETACHED, NULL));
    wait_until_redis_equals(world->table, world->redis);
    check_equal(diff(world, false, output), 0);
    check(strstr(output, "equal 300") != NULL && strstr(output, "owner_gone 1,") != NULL);
}

static void without_redis_or_without_a_table_it_says_so(void **state)
{
    char output[OUTPUT];
    const char *name;
    (void)state;
    close_table(selective_table(&name));
    check_equal(run_program((const char *[]){ program("shmdump"), "--diff-redis=unix:/nowhere",
                                              name, NULL }, output, sizeof output), 2);
    check(strstr(output, "/nowhere") != NULL);
    struct redis *redis = start_redis(NULL);
    char option[160];
    snprintf(option, sizeof option, "--diff-redis=%s", redis->url);
    check_equal(run_program((const char *[]){ program("shmdump"), option, name, NULL }, output,
                            sizeof output), 2);
    check(strstr(output, "not been loaded") != NULL);
    check_equal(run_program((const char *[]){ program("shmdump"), "--diff-redis=here", name, NULL },
                            output, sizeof output), 64);
    check_equal(run_program((const char *[]){ program("shmdump"), "--prefix", "x", name, NULL },
                            output, sizeof output), 64);
}

/* ---------------------------------------------------------------- the persister --------- */

/* MORE: up to two options, NULL-terminated. */
static int reconcile(struct world *world, const char *const *more, char *output)
{
    const char *argv[] = { program("persister"), "--reconcile", "--table", world->name, "--redis",
                           world->redis->url, "--prefix", TEST_PREFIX, NULL, NULL, NULL, NULL };
    for (size_t i = 8; *more; i++)
        argv[i] = *more++;
    return run_program(argv, output, OUTPUT);
}

static const char *const plainly[] = { NULL }, *const dry[] = { "--dry-run", NULL },
                  *const by_redis[] = { "--policy", "redis", NULL };

static void a_dry_run_finds_what_shmdump_finds_beside_a_leader(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    check_equal(reconcile(world, dry, output), 0);
    for (size_t i = 0; i < 3; i++) {
        do_damage(world, &damages[4 * i]);
        check_equal(reconcile(world, dry, output), 1);
        check_found(output, &damages[4 * i]);
        have_it_repaired(world);
        wait_until(reconcile(world, dry, output) == 0);
    }
}

static void reconciling_repairs_each_difference_and_leaves(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    kill_child(world->persister);
    for (size_t i = 0; i < DAMAGES; i++) {
        run_commands(world, &damages[i]);
        check_equal(reconcile(world, plainly, output), 1);
        if (!strstr(output, damages[i].sums) || !strstr(output, "left 0, not_durable 0\n"))
            test_fail(__FILE__, __LINE__, "after %s: %s", damages[i].commands[0], output);
        check_equal(reconcile(world, plainly, output), 0);
        check_equal(diff(world, false, output), 0);
    }
    wait_until_redis_equals(world->table, world->redis);
}

static void reconciling_beside_a_leader_says_whom_to_ask(void **state)
{
    static char output[OUTPUT];
    char expected[64];
    struct world *world = filled_world();
    (void)state;
    check_equal(reconcile(world, plainly, output), 2);
    snprintf(expected, sizeof expected, "send SIGUSR1 to pid %d ", (int)world->persister);
    check(strstr(output, expected) != NULL);
}

static void what_can_not_be_compared_is_status_2(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    kill_child(world->persister);
    check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
    check_equal(reconcile(world, plainly, output), 2);
    check(strstr(output, "mode memory") != NULL);
    check_equal(diff(world, false, output), 2);
    check(strstr(output, "mode memory") != NULL);
    check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
    kill_redis(world->redis);
    check_equal(reconcile(world, plainly, output), 2);
    check(strstr(output, "trying again") == NULL);
    check_equal(reconcile(world, dry, output), 2);
    check_equal(reconcile(world, (const char *[]){ "--policy", "mine", NULL }, output), 64);
    check_equal(run_program((const char *[]){ program("persister"), "--dry-run", NULL }, output,
                            OUTPUT), 64);
}

/* Session HANDLE as another table might have left it in Redis. */
static void make_foreign(struct world *world, unsigned handle, unsigned long long generation)
{
    freeReplyObject(redis_query(world->redis, "COPY " KEY(2) " " TEST_PREFIX ":conn:%u REPLACE",
                                handle));
    freeReplyObject(redis_query(world->redis, "HSET " TEST_PREFIX ":conn:%u Handle %u "
                                "PlayerRef #foreign Generation %llu", handle, handle, generation));
    freeReplyObject(redis_query(world->redis, "HSET " TEST_PREFIX ":conn:%u:metadata key value",
                                handle));
    freeReplyObject(redis_query(world->redis, "SADD " KEY(active) " %u", handle));
}

static void check_adopted(struct world *world, uint64_t handle)
{
    sesstab_view view = look(world->table, handle);
    check_equal(view.state, SESSTAB_DETACHED);
    check_string(view.player, "#foreign");
    check_string(metadata_of(&view, "key"), "value");
}

/* Into slots that were used before, two of them newer than each other, in whatever order. */
static void what_was_never_here_is_adopted_if_that_is_wanted(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    uint64_t newest;
    (void)state;
    for (uint64_t handle = 100; handle <= SESSIONS; handle++)
        check_ok(sesstab_remove(world->table, handle));
    wait_until_redis_equals(world->table, world->redis);
    insert_plain(world->table, SESSIONS + 1);
    newest = look(world->table, SESSIONS + 1).generation;
    wait_until_redis_equals(world->table, world->redis);
    kill_child(world->persister);
    make_foreign(world, 1001, newest + 2000000000);
    make_foreign(world, 1002, newest + 1000000000);
    check_equal(reconcile(world, by_redis, output), 1);
    check(strstr(output, "adopted 2, left 0, not_durable 0") != NULL);
    check_adopted(world, 1001);
    check_adopted(world, 1002);
    check_equal(reconcile(world, by_redis, output), 0);
    insert_plain(world->table, 1003);
    check(look(world->table, 1003).generation > newest + 2000000000);
    check_ok(sesstab_remove(world->table, 1001));
    world->persister = start_persister(world->name, world->redis->url, NULL);
    wait_until_redis_equals(world->table, world->redis);
    check_equal(redis_integer(world->redis, "EXISTS " KEY(1001)), 0);
}

/* Redis has gone back to a copy in which a session was that ended since. */
static void a_session_that_ended_is_not_adopted(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    freeReplyObject(redis_query(world->redis, "COPY " KEY(6) " copy"));
    check_ok(sesstab_remove(world->table, 6));
    wait_until_redis_equals(world->table, world->redis);
    kill_child(world->persister);
    freeReplyObject(redis_query(world->redis, "RENAME copy " KEY(6)));
    freeReplyObject(redis_query(world->redis, "SADD " KEY(active) " 6"));
    check_equal(reconcile(world, by_redis, output), 1);
    check(strstr(output, "adopted 0, left 1,") != NULL);
    check_equal(count_sessions(world->table), SESSIONS - 1);
    check_equal(redis_integer(world->redis, "EXISTS " KEY(6)), 1);
    check_equal(reconcile(world, plainly, output), 1);
    check_equal(redis_integer(world->redis, "EXISTS " KEY(6)), 0);
}

/* The first of the foreign sessions 1001 to 1008 that is adopted; the others will be. */
static uint64_t adopted_first(struct world *world)
{
    sesstab_view view;
    char buffer[4096];
    uint64_t limit = milliseconds() + WAIT_LIMIT;
    for (uint64_t handle = 1001; milliseconds() < limit; handle = handle < 1008 ? handle + 1 : 1001) {
        size_t size = sizeof buffer;
        if (sesstab_get(world->table, handle, &view, buffer, &size) == SESSTAB_OK)
            return handle;
    }
    test_fail(__FILE__, __LINE__, "none was adopted");
}

/*
 * Redis goes back while the comparison, which is a long one, is on its way: the record of a session
 * that it adopted and that ended is there again, when it comes to the keys.
 */
static void a_session_that_was_adopted_and_ended_is_not_adopted_again(void **state)
{
    struct world *world = filled_world();
    uint64_t newest = look(world->table, SESSIONS).generation;
    (void)state;
    kill_child(world->persister);
    for (unsigned handle = 1001; handle <= 1008; handle++) {
        make_foreign(world, handle, newest + 1000000000 + handle);
        freeReplyObject(redis_query(world->redis, "COPY " TEST_PREFIX ":conn:%u copy:%u", handle,
                                    handle));
    }
    freeReplyObject(redis_query(world->redis, "EVAL %s 0",
                                "for i = 2001, 42000 do redis.call('SADD', '" KEY(active) "', i) "
                                "redis.call('SET', '" TEST_PREFIX ":conn:'..i, 'no hash') end"));
    start_persister(world->name, world->redis->url,
                    (const char *[]){ "--reconcile", "--policy", "redis", NULL });
    uint64_t handle = adopted_first(world);
    check_ok(sesstab_remove(world->table, handle));
    check_ok(sesstab_flush(world->table, WAIT_LIMIT));
    freeReplyObject(redis_query(world->redis, "RENAME copy:%u " TEST_PREFIX ":conn:%u",
                                (unsigned)handle, (unsigned)handle));
    wait_until(file_says(persister_log(), "event=ended"));
    check(file_says(persister_log(), "thorough=yes"));
    check_result(sesstab_remove(world->table, handle), SESSTAB_NOTFOUND);
}

static void insert_one(void *context)
{
    struct world *world = context;
    insert_plain(world->table, SESSIONS + 7);
}

static void a_dead_workers_sessions_come_back_detached(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    (void)state;
    kill_child(world->persister);
    run_child(insert_one, world);
    check_equal(reconcile(world, plainly, output), 0);
    check_equal(look(world->table, SESSIONS + 7).state, SESSTAB_DETACHED);
    check_equal(diff(world, false, output), 0);
    check(strstr(output, "owner_gone 1,") != NULL);
}

/* ---------------------------------------------------------------- under load ------------ */

static void change_this_and_that(sesstab *table, uint64_t handle)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, random_number());
    switch (random_below(6)) {
    case 0: sesstab_set(table, handle, "key", text, strlen(text)); break;
    case 1: sesstab_bind(table, handle, text, 0); break;
    case 2: sesstab_delete(table, handle, "key"); break;
    case 3: sesstab_touch(table, handle, 0); break;
    case 4: sesstab_remove(table, handle); break;
    case 5: sesstab_insert(table, &handle, NULL); break;
    }
}

static void change_until_told(void *context)
{
    struct world *world = context;
    while (!atomic_load(&world->stop)) {
        for (int i = 0; i < 20; i++)
            change_this_and_that(world->table, 1 + random_below(2 * SESSIONS));
        pause_ms(1);
    }
}

static void nothing_is_found_while_everything_changes(void **state)
{
    static char output[OUTPUT];
    struct world *world = filled_world();
    pid_t workers[2];
    (void)state;
    for (size_t i = 0; i < 2; i++)
        workers[i] = start_child(change_until_told, world);
    for (unsigned i = 0; i < rounds(12); i++) {
        kill(world->persister, SIGUSR1);
        if (diff(world, false, output) != 0)
            test_fail(__FILE__, __LINE__, "%s", output);
    }
    atomic_store(&world->stop, true);
    for (size_t i = 0; i < 2; i++)
        join_child(workers[i]);
    wait_until_redis_equals(world->table, world->redis);
    check_equal(diff(world, false, output), 0);
    wait_until(file_says(persister_log(), "thorough=yes"));
    check(!file_says(persister_log(), "event=difference"));
}

/* What Redis has of an adopted session is older than whatever is made of it, in a used place as well. */
static void an_adopted_session_is_newer_than_what_redis_has_of_it(void **state)
{
    const uint64_t version = 1000000000;
    struct world *world = filled_world();
    char command[64];
    (void)state;
    for (uint64_t handle = 3; handle <= SESSIONS; handle++)
        check_ok(sesstab_remove(world->table, handle));
    insert_plain(world->table, SESSIONS + 1);
    uint64_t newest = look(world->table, SESSIONS + 1).generation;
    wait_until_redis_equals(world->table, world->redis);
    kill_child(world->persister);
    make_foreign(world, 1001, newest + 1000000000);
    snprintf(command, sizeof command, "HSET " KEY(1001) " Version %llu", (unsigned long long)version);
    freeReplyObject(redis_query(world->redis, command));
    freeReplyObject(redis_query(world->redis, "CONFIG SET maxmemory 1"));
    world->persister = start_persister(world->name, world->redis->url,
                                       (const char *[]){ "--policy", "redis", NULL });
    wait_until(sesstab_touch(world->table, 1001, 0) == SESSTAB_OK);
    check(look(world->table, 1001).version > version);
    check_result(sesstab_bind(world->table, 1001, "later", 200), SESSTAB_UNKNOWN);
    freeReplyObject(redis_query(world->redis, "CONFIG SET maxmemory 0"));
    wait_until(!look(world->table, 1001).pending);
    check(redis_field_is(world->redis, KEY(1001), "PlayerRef", "later"));
    wait_until_redis_equals(world->table, world->redis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(shmdump_finds_each_difference_and_no_other),
        TEST(what_is_asked_for_again_and_again_comes_to_its_end),
        TEST(a_difference_is_json_if_that_is_asked_for),
        TEST(what_is_no_session_is_counted_as_strange),
        TEST(what_redis_was_not_told_yet_is_in_flight),
        TEST(a_user_who_may_only_read_is_enough_and_one_who_may_not_is_told),
        TEST(a_leader_that_may_not_read_says_so_and_goes_on),
        TEST(dead_owners_are_counted),
        TEST(without_redis_or_without_a_table_it_says_so),
        TEST(a_dry_run_finds_what_shmdump_finds_beside_a_leader),
        TEST(reconciling_repairs_each_difference_and_leaves),
        TEST(reconciling_beside_a_leader_says_whom_to_ask),
        TEST(what_can_not_be_compared_is_status_2),
        TEST(what_was_never_here_is_adopted_if_that_is_wanted),
        TEST(a_session_that_ended_is_not_adopted),
        TEST(a_session_that_was_adopted_and_ended_is_not_adopted_again),
        TEST(a_dead_workers_sessions_come_back_detached),
        TEST(an_adopted_session_is_newer_than_what_redis_has_of_it),
        TEST(nothing_is_found_while_everything_changes),
    };
    return run_all(tests);
}
