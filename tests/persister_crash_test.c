/*
 * The persister killed, or stopped and superseded, at a few instructions between taking a change
 * and having announced what became of it; tests/crash/persister_world.h tells what must be true
 * then.  `make crash-persister` does the same at every instruction.
 */
#include "tests/crash/persister_world.h"

#include <stdio.h>
#include <sys/personality.h>

enum { POINTS = 4 };

static void run_operation(struct world *w, const struct operation *o)
{
    struct trace trace;
    world_record(w, o, &trace);
    size_t stride = trace.length / POINTS, offset = random_below(stride);
    print_message("%s: every %zuth of %zu instructions, from %zu on\n", o->name, stride,
                  trace.length, offset);
    for (size_t i = 0; i < POINTS; i++)
        world_point(w, o, &trace, offset + i * stride);
    trace_free(&trace);
}

static void run_operations(const char *const *names)
{
    if (SANITIZED) {
        print_message("an instrumented persister has too many instructions\n");
        skip();
    }
    if (personality(ADDR_NO_RANDOMIZE) < 0) {
        print_message("what was recorded of one persister is only true of the next without address "
                      "randomization, and personality(2) is not allowed here\n");
        skip();
    }
    struct world *w = world_start(new_name(), start_redis(NULL));
    for (; *names; names++)
        run_operation(w, operation_named(*names));
}

static void answers_are_truthful_wherever_the_persister_was_killed(void **state)
{
    (void)state;
    run_operations((const char *[]){ "bind", "bind-refused", "bind-then-full", "bind-ahead",
                                     "ahead-refused", NULL });
}

static void redis_equals_the_table_wherever_the_persister_was_killed(void **state)
{
    (void)state;
    run_operations((const char *[]){ "set", "touch", "remove", "batch", NULL });
}

static void a_superseded_persister_overwrites_nothing_wherever_it_was_stopped(void **state)
{
    (void)state;
    run_operations((const char *[]){ "bind-stopped", "ahead-stopped", "refused-stopped",
                                     "remove-stopped", NULL });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_are_truthful_wherever_the_persister_was_killed),
        TEST(redis_equals_the_table_wherever_the_persister_was_killed),
        TEST(a_superseded_persister_overwrites_nothing_wherever_it_was_stopped),
    };
    return run_all(tests);
}
