/*
 * Users, passwords and permissions: those that docs/persister.1 lists are enough for everything and
 * none is too many; each that is missing is said; no password is ever shown.
 */
#include "tests/replicas.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle

enum { COMMANDS_MAX = 64 };

struct world {
    struct deployment d;
    const char *name;
    sesstab *table;
    struct redis *redis;
    pid_t persister;
    char password_file[128];
    const char *options[OPTIONS_MAX]; /* the persister's */
};

/* ---------------------------------------------------------------- the documented ACL ------ */

/* TEXT with FROM replaced by TO. */
static void replace(char *text, size_t size, const char *from, const char *to)
{
    char rest[512];
    char *at = strstr(text, from);
    if (!at)
        return;
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    snprintf(at, size - (size_t)(at - text), "%s%s", to, rest);
}

/* Executes the manual's lines, with this test's password and prefix. */
static void grant_what_is_documented(struct redis *redis)
{
    char line[512];
    unsigned lines = 0;
    FILE *manual = fopen("docs/persister.1", "r");
    check(manual != NULL);
    while (fgets(line, sizeof line, manual)) {
        if (strncmp(line, "ACL SETUSER sesstab ", 20) != 0)
            continue;
        line[strcspn(line, "\n")] = '\0';
        replace(line, sizeof line, ">PASSWORD", ">secret");
        replace(line, sizeof line, "~sesstab:", "~" TEST_PREFIX ":");
        freeReplyObject(redis_query(redis, line));
        lines++;
    }
    fclose(manual);
    check(lines > 0);
}

/* The commands in it, as Redis names them: "config|get". */
static unsigned documented_commands(char commands[COMMANDS_MAX][32])
{
    char line[512];
    unsigned count = 0;
    FILE *manual = fopen("docs/persister.1", "r");
    check(manual != NULL);
    while (fgets(line, sizeof line, manual)) {
        if (strncmp(line, "ACL SETUSER sesstab ", 20) != 0)
            continue;
        for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
            if (*word == '+') {
                check(count < COMMANDS_MAX);
                snprintf(commands[count++], 32, "%s", word + 1);
            }
    }
    fclose(manual);
    return count;
}

/* ---------------------------------------------------------------- the world --------------- */

static void write_password(const struct world *world, const char *password, mode_t mode)
{
    int descriptor = open(world->password_file, O_WRONLY | O_CREAT | O_TRUNC, mode);
    check(descriptor >= 0 && fchmod(descriptor, mode) == 0);
    check(write(descriptor, password, strlen(password)) == (ssize_t)strlen(password));
    close(descriptor);
}

static void start_world_persister(struct world *world)
{
    world->persister = start_persister(world->name, world->redis->url, world->options);
}

/* A master with a replica, and a persister that has the documented permissions there. */
static struct world *start_world(void)
{
    struct world *world = shared_memory(sizeof *world);
    snprintf(world->password_file, sizeof world->password_file, "%s/password",
             scratch_directory());
    write_password(world, "secret\n", 0600);
    start_replicated(&world->d, 1);
    world->redis = world->d.servers[0].redis;
    grant_what_is_documented(world->redis);
    const char *const options[] = { "--user", "sesstab", "--password-file", world->password_file,
                                    "--ack", "replicas=1", NULL };
    memcpy(world->options, options, sizeof options);
    world->name = new_name();
    start_world_persister(world);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    return world;
}

static void tell(struct redis *redis, const char *command)
{
    freeReplyObject(redis_query(redis, command));
}

static void check_world(struct world *world)
{
    wait_until_redis_equals(world->table, world->redis);
    check_table(world->name);
}

/* A session with everything that is written of one. */
static void insert_whole(struct world *world, uint64_t handle)
{
    insert_plain(world->table, handle);
    check_ok(sesstab_set(world->table, handle, "key", "value", 5));
}

/* ---------------------------------------------------------------- permissions ------------- */

static void stop_persister(struct world *world)
{
    int status;
    kill(world->persister, SIGTERM);
    check(waitpid(world->persister, &status, 0) == world->persister && status == 0);
}

/* Another table under the same prefix: its persister finds the lead taken. */
static void start_rival(struct world *world)
{
    pid_t rival = start_persister(new_name(), world->redis->url, world->options);
    wait_until(file_says(persister_log(), "another table's persister is at work"));
    kill_child(rival);
}

static void add_option(struct world *world, const char *option, const char *value)
{
    size_t n = 0;
    while (world->options[n])
        n++;
    world->options[n] = option;
    world->options[n + 1] = value;
}

static void the_documented_permissions_are_enough_for_everything(void **state)
{
    struct world *world = start_world();
    (void)state;
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    for (uint64_t handle = 1; handle <= 3; handle++)
        insert_whole(world, handle);
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    check_ok(sesstab_touch(world->table, 2, sesstab_now() + 5000));
    check_world(world);
    start_rival(world);
    tell(world->redis, "CONFIG SET maxmemory 1");
    check_ok(sesstab_remove(world->table, 3));
    wait_until(redis_integer(world->redis, "EXISTS " KEY(3)) == 0);
    tell(world->redis, "CONFIG SET maxmemory 0");
    tell(world->redis, "FLUSHALL");
    check_world(world);
    stop_persister(world);
    tell(world->redis, "SADD " KEY(active) " 999");
    world->name = new_name(); /* a fresh table is loaded */
    add_option(world, "--ttl", "0");
    start_world_persister(world);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    check_equal(count_sessions(world->table), 2);
    kill(world->persister, SIGUSR1); /* compare thoroughly */
    wait_until(redis_calls(world->redis, "scan") && redis_calls(world->redis, "persist"));
    check_world(world);
    redisReply *log = redis_query(world->redis, "ACL LOG");
    check_equal(log->elements, 0);
    freeReplyObject(log);
}

/* Enough to do that every permission is needed which is not told apart below. */
static void make_work(struct world *world, uint64_t handle)
{
    insert_whole(world, handle);
    check_ok(sesstab_remove(world->table, handle - 1));
    tell(world->redis, "SADD " KEY(active) " 999");
    tell(world->redis, "CLIENT KILL TYPE normal SKIPME yes");
    sesstab_bind(world->table, 1, "waits", 0);
}

/* Is it needed, or for what else is it? */
static bool needed_in_every_work(const char *command)
{
    static const char *const others[] = {
        "select",                                               /* --db                       */
        "persist", "exists", "scan",                            /* --ttl 0, --reconcile       */
        "eval",                                                 /* a Redis without memory     */
        "client|setname", "client|list", "object|idletime",     /* another table's persister  */
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(command, others[i]) == 0)
            return false;
    return true;
}

static void work_without(struct world *world, const char *command, uint64_t handle)
{
    char text[96];
    snprintf(text, sizeof text, "ACL SETUSER sesstab -%.31s", command);
    tell(world->redis, text);
    make_work(world, handle);
    snprintf(text, sizeof text, "'%.31s' command", command);
    wait_until(file_says(persister_log(), text));
    snprintf(text, sizeof text, "ACL SETUSER sesstab +%.31s", command);
    tell(world->redis, text);
    check_equal(count_sessions(world->table), 2);
    tell(world->redis, "SREM " KEY(active) " 999"); /* what it was not let to remove */
    check_world(world);
}

static void each_permission_that_is_missing_is_said_and_nothing_is_lost(void **state)
{
    char commands[COMMANDS_MAX][32];
    struct world *world = start_world();
    unsigned count = documented_commands(commands);
    uint64_t handle = 10;
    (void)state;
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    insert_whole(world, 1);
    insert_whole(world, handle);
    check_world(world);
    for (unsigned i = 0; i < count; i++)
        if (needed_in_every_work(commands[i]))
            work_without(world, commands[i], ++handle);
    check(kill(world->persister, 0) == 0);
}

static size_t lines_that_say(const char *path, const char *text)
{
    char line[4096];
    size_t count = 0;
    FILE *log = fopen(path, "r");
    check(log != NULL);
    while (fgets(line, sizeof line, log))
        count += strstr(line, text) != NULL;
    fclose(log);
    return count;
}

/* For seconds every binding is refused for one reason; eight of them in a minute are news. */
static void a_flood_of_refusals_is_no_flood_in_the_log(void **state)
{
    struct world *world = start_world();
    uint64_t start = milliseconds(), passed;
    unsigned refused = 0;
    (void)state;
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    insert_whole(world, 1);
    check_world(world);
    tell(world->redis, "ACL SETUSER sesstab -hset");
    do {
        refused += sesstab_bind(world->table, 1, refused % 2 ? "odd" : "even", WAIT_LIMIT) ==
                   SESSTAB_REFUSED;
        passed = milliseconds() - start;
    } while (passed < 3000 || refused < 100);
    check(lines_that_say(persister_log(), "event=binding-refused ") > 0);
    check(lines_that_say(persister_log(), "refused ") <= (8 + 8 + 1) * (1 + passed / 60000));
    tell(world->redis, "ACL SETUSER sesstab +hset");
    check_world(world);
}

static void without_the_script_deletions_wait_for_memory_and_that_is_said(void **state)
{
    struct world *world = start_world();
    (void)state;
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    insert_whole(world, 1);
    check_world(world);
    tell(world->redis, "ACL SETUSER sesstab -eval");
    tell(world->redis, "CONFIG SET maxmemory 1");
    check_ok(sesstab_remove(world->table, 1));
    wait_until(file_says(persister_log(), "'eval' command"));
    tell(world->redis, "CONFIG SET maxmemory 0");
    check_world(world);
}

/* A table that can't be filled is not ready. */
static void what_may_not_be_loaded_is_waited_for(void **state)
{
    struct world *world = start_world();
    (void)state;
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    insert_whole(world, 1);
    check_world(world);
    stop_persister(world);
    tell(world->redis, "ACL SETUSER sesstab -hgetall");
    world->name = new_name();
    start_world_persister(world);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    wait_until(file_says(persister_log(), "'hgetall' command"));
    check_result(sesstab_wait_ready(world->table, 100), SESSTAB_TIMEOUT);
    tell(world->redis, "ACL SETUSER sesstab +hgetall");
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    check_equal(count_sessions(world->table), 1);
    check_world(world);
}

/* ---------------------------------------------------------------- passwords --------------- */

static void a_password_that_was_changed_is_used_without_a_restart(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "before", WAIT_LIMIT));
    tell(world->redis, "ACL SETUSER sesstab resetpass >rotated");
    tell(world->redis, "CLIENT KILL TYPE normal SKIPME yes");
    check_result(sesstab_bind(world->table, 1, "between", 100), SESSTAB_UNKNOWN);
    wait_until(file_says(persister_log(), "WRONGPASS"));
    write_password(world, "rotated\n", 0600);
    check_ok(sesstab_bind(world->table, 1, "after", WAIT_LIMIT));
    check(unlink(world->password_file) == 0);
    tell(world->redis, "CLIENT KILL TYPE normal SKIPME yes");
    wait_until(file_says(persister_log(), "No such file"));
    check_result(sesstab_bind(world->table, 1, "without", 100), SESSTAB_UNKNOWN);
    write_password(world, "rotated\n", 0644);
    wait_until(!look(world->table, 1).pending);
    check_world(world);
}

static void a_password_file_that_others_may_read_is_warned_of(void **state)
{
    struct world *world = start_world();
    (void)state;
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    check(!file_says(persister_log(), "event=password-exposed"));
    stop_persister(world);
    write_password(world, "secret\n", 0604);
    start_world_persister(world);
    wait_until(file_says(persister_log(), "event=password-exposed"));
}

static void a_password_file_that_is_missing_or_empty_is_an_error(void **state)
{
    struct world world = { .name = new_name() };
    char said[4096];
    (void)state;
    snprintf(world.password_file, sizeof world.password_file, "%s/no-password",
             scratch_directory());
    const char *const argv[] = { program("persister"), "--table", world.name, "--create",
                                 "--password-file", world.password_file, NULL };
    check_equal(run_program(argv, said, sizeof said), 1);
    check(strstr(said, "No such file"));
    write_password(&world, "\nsecond line\n", 0600);
    check_equal(run_program(argv, said, sizeof said), 1);
    check(strstr(said, "is empty"));
}

static bool process_shows(pid_t pid, const char *file, const char *text)
{
    char path[64], content[65536];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int descriptor = open(path, O_RDONLY);
    ssize_t n = read(descriptor, content, sizeof content);
    check(descriptor >= 0 && n > 0);
    close(descriptor);
    return memmem(content, (size_t)n, text, strlen(text));
}

/* Also where Redis repeats the command that it did not understand. */
static void a_password_is_neither_in_the_environment_nor_in_the_log(void **state)
{
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    world->redis = start_redis((const char *[]){ "--rename-command", "AUTH", "", NULL });
    world->name = new_name();
    check(setenv("SESSTAB_REDIS_PASSWORD", "do-not-show", 1) == 0);
    start_world_persister(world);
    check(unsetenv("SESSTAB_REDIS_PASSWORD") == 0);
    wait_until(file_says(persister_log(), "refused to log in"));
    check(!file_says(persister_log(), "do-not-show"));
    check(!process_shows(world->persister, "environ", "do-not-show"));
    check(!process_shows(world->persister, "cmdline", "do-not-show"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_documented_permissions_are_enough_for_everything),
        TEST(each_permission_that_is_missing_is_said_and_nothing_is_lost),
        TEST(a_flood_of_refusals_is_no_flood_in_the_log),
        TEST(without_the_script_deletions_wait_for_memory_and_that_is_said),
        TEST(what_may_not_be_loaded_is_waited_for),
        TEST(a_password_that_was_changed_is_used_without_a_restart),
        TEST(a_password_file_that_others_may_read_is_warned_of),
        TEST(a_password_file_that_is_missing_or_empty_is_an_error),
        TEST(a_password_is_neither_in_the_environment_nor_in_the_log),
    };
    return run_all(tests);
}
