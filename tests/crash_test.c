/*
 * The crash microscope's short version: a stride of the instructions of every operation
 * (`make crash` kills after each), and a few points with a real persister and a real Redis.
 *
 * Not with sanitizers: what they add is another program, with many times as many instructions.
 */
#include "tests/harness.h"

#include <stdio.h>
#include <string.h>

#include "tests/stepper.h"

enum { STRIDE = 599, POINTS = 30, LONGEST = 3000, SESSIONS = 20 };

static bool can_trace(void)
{
    if (SANITIZED)
        print_message("not with a sanitizer: it is another program that would be stepped\n");
    return !SANITIZED;
}

/* ---------------------------------------------------------------- the microscope ------------ */

static void run_microscope(const char *option)
{
    static char output[64 * 1024];
    char stride[24];
    snprintf(stride, sizeof stride, "--stride=%d", STRIDE);
    const char *const argv[] = { program("tests/crash/crash"), "--brief", option, stride, NULL };
    if (!can_trace())
        skip();
    int status = run_program(argv, output, sizeof output);
    fputs(output, stdout); /* longer than print_message() can be */
    check_equal(status, 0);
}

static void a_worker_killed_at_an_instruction_hurts_nobody(void **state)
{
    (void)state;
    run_microscope("--how=kill");
}

static void what_it_leaves_is_found_before_anybody_comes_by(void **state)
{
    (void)state;
    run_microscope("--early");
}

static void a_worker_stopped_at_an_instruction_hurts_nobody(void **state)
{
    (void)state;
    run_microscope("--how=stop");
}

/* ---------------------------------------------------------------- with Redis ---------------- */

struct scene {
    sesstab *table;
    unsigned round;
};

/* Changes, binds, removes and inserts the same sessions again and again, with other values. */
static void change_something(void *context)
{
    const struct scene *scene = context;
    uint64_t handle = 1 + scene->round / 5 % SESSIONS;
    char text[24];
    snprintf(text, sizeof text, "round %u", scene->round);
    check_ok(sesstab_attach(scene->table));
    stepper_mark();
    switch (scene->round % 5) {
    case 0: sesstab_set(scene->table, handle, "key", text, strlen(text)); break;
    case 1: sesstab_bind(scene->table, handle, text, 0); break;
    case 2: sesstab_unbind(scene->table, handle, 0); break;
    case 3: sesstab_remove(scene->table, handle); break;
    default: sesstab_insert(scene->table, &handle, &(sesstab_info){ .host = text }); break;
    }
    stepper_mark();
}

static void kill_after(struct scene *scene, uint64_t instructions)
{
    pid_t pid = stepper_start(change_something, scene);
    enum stepped result = STEPPED;
    while (result == STEPPED && instructions--)
        result = stepper_step(pid, NULL);
    check(result != STEPPED_GONE);
    stepper_kill(pid);
}

static void what_a_worker_killed_at_an_instruction_had_published_reaches_redis(void **state)
{
    (void)state;
    if (!can_trace())
        skip();
    const char *points = getenv("CRASH_POINTS"), *name = new_name();
    unsigned rounds_wanted = points ? (unsigned)strtoul(points, NULL, 10) : POINTS;
    struct redis *redis = start_redis(NULL);
    start_persister(name, redis->url, NULL);
    struct scene scene = { 0 };
    wait_until(sesstab_open(name, NULL, &scene.table) == SESSTAB_OK);
    check_ok(sesstab_wait_ready(scene.table, WAIT_LIMIT));
    for (uint64_t h = 1; h <= SESSIONS; h++)
        insert_plain(scene.table, h);
    for (; scene.round < rounds_wanted; scene.round++) {
        kill_after(&scene, random_below(LONGEST));
        wait_until_redis_equals(scene.table, redis);
    }
    check_table(name);
    sesstab_close(scene.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_worker_killed_at_an_instruction_hurts_nobody),
        TEST(what_it_leaves_is_found_before_anybody_comes_by),
        TEST(a_worker_stopped_at_an_instruction_hurts_nobody),
        TEST(what_a_worker_killed_at_an_instruction_had_published_reaches_redis),
    };
    return run_all(tests);
}
