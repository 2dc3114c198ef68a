/* What was lost; see faults.h. */
#include "tests/faults/faults.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void say(const char *kind, const char *format, va_list arguments)
{
    char text[512];
    vsnprintf(text, sizeof text, format, arguments);
    fprintf(stderr, "    %s: %s\n", kind, text);
}

void lose(struct stage *stage, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (stage->lost++ < 5)
        say("LOST", format, arguments);
    va_end(arguments);
}

void wrong(struct stage *stage, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (stage->wrong++ < 5)
        say("WRONG", format, arguments);
    va_end(arguments);
}

bool judge_wait_equal(struct stage *stage, unsigned limit_ms)
{
    char difference[512] = "";
    uint64_t limit = milliseconds() + limit_ms;
    while (!redis_equals(stage->table, stage->redis, difference, sizeof difference)) {
        if (milliseconds() > limit) {
            wrong(stage, "Redis never became equal: %s", difference);
            return false;
        }
        pause_ms(5);
    }
    return true;
}

bool judge_asks_shmdump(struct stage *stage, const char *name)
{
    char option[160], output[2048];
    snprintf(option, sizeof option, "--diff-redis=%s", stage->redis->url);
    const char *argv[] = { program("shmdump"), option, "--prefix", TEST_PREFIX, name, NULL };
    int status = run_program(argv, output, sizeof output);
    if (status != 0)
        wrong(stage, "shmdump --diff-redis finds what the tests do not; exit status %d: %s", status,
              output);
    return status == 0;
}

/* Whether ATTEMPT, of which nobody was told that it is not so, would show as PLAYER. */
static bool shows(const struct history *h, uint64_t handle, uint32_t attempt, const char *player)
{
    char text[32] = "";
    if (attempt && !h->attempt[attempt].unbind)
        player_text(text, handle, attempt);
    return h->attempt[attempt].told != TOLD_REFUSED && strcmp(player, text) == 0;
}

/* L1 */
static void judge_history(struct stage *stage, const struct history *h, uint64_t handle)
{
    uint32_t last = h->attempts;
    const char *player = look(stage->table, handle).player;
    bool found = false;
    for (; !found && last && h->attempt[last].told != TOLD_OK; last--)
        found = shows(h, handle, last, player);
    if (!found && !shows(h, handle, last, player))
        lose(stage, "session %llu ends as \"%s\"; of %u bindings the %uth was the last durable one",
             (unsigned long long)handle, player, (unsigned)h->attempts, last);
}

void judge_histories(struct stage *stage)
{
    char expected[24];
    for (unsigned w = 0; w < WORKERS; w++) {
        for (unsigned k = 0; k < BOUND; k++)
            judge_history(stage, &stage->workers[w].bound[k], bound_handle(w, k));
        for (unsigned k = 0; k < CHANGED; k++) {
            uint64_t handle = changed_handle(w, k), counted = stage->workers[w].counted[k];
            sesstab_view view = look(stage->table, handle);
            const char *n = metadata_of(&view, "n");
            snprintf(expected, sizeof expected, "%llu", (unsigned long long)counted);
            if (strcmp(n ? n : "0", expected) != 0)
                wrong(stage, "session %llu counts %s, expected %s", (unsigned long long)handle,
                      n ? n : "0", expected);
        }
    }
}
