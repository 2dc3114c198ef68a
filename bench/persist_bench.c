/*
 * What the persister does for its money: binds, backlogs, a million touches a second, loading, and
 * what it uses of a processor, with a real persister and a real Redis, beside programs that talk to
 * the same Redis directly.  The rows are in bench/persist/.
 */
#include "bench/persist/rows.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS_MAX = 100000000, SESSIONS_USUAL = 100000, SESSIONS_SMOKE = 1000, MS_MAX = 3600000 };

/* ---------------------------------------------------------------- options --------------- */

struct settings {
    struct plan plan;
    const char *row, *json;
    bool smoke;
};

static const struct row {
    const char *name;
    void (*run)(struct stage *stage, const struct plan *plan);
} rows[] = {
    { "bind", row_bind },
    { "callers", row_callers },
    { "tickets", row_tickets },
    { "drain", row_drain },
    { "idle", row_idle },
    { "touches", row_touches },
};

enum { OPTION_SMOKE = 256, OPTION_ROUNDS, OPTION_SAMPLES, OPTION_MS, OPTION_FILL, OPTION_ROW,
       OPTION_JSON };

static const struct argp_option options[] = {
    { "sessions", 'n', "N", 0, "Measure a table of N sessions; repeatable (100000)", 0 },
    { "rounds", OPTION_ROUNDS, "N", 0, "Rounds that the median is taken of (9)", 0 },
    { "samples", OPTION_SAMPLES, "N", 0, "Binds in a round (200)", 0 },
    { "ms", OPTION_MS, "MS", 0, "Time of a round in which something is counted (1000)", 0 },
    { "fill", OPTION_FILL, "N", 0, "Sessions that are loaded and written again (1000000)", 0 },
    { "json", OPTION_JSON, "FILE", 0, "Write the figures here as well", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "See that everything runs: small, short, nothing to judge", 0 },
    { "row", OPTION_ROW, "NAME", 0, "Only bind, callers, tickets, drain, idle, touches or load", 1 },
    { 0 }
};

static void add_size(struct plan *plan, const char *argument, struct argp_state *state)
{
    size_t sessions = bench_number(argument, SESSIONS_MAX, "sessions");
    if (sessions < CALLERS_MAX)
        argp_error(state, "--sessions: there are %d callers, and each wants one", CALLERS_MAX);
    if (plan->size_count == SIZES_MAX)
        argp_error(state, "--sessions may be given %d times", SIZES_MAX);
    plan->sizes[plan->size_count++] = sessions;
}

static void choose_row(struct settings *s, const char *name, struct argp_state *state)
{
    bool known = strcmp(name, "load") == 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        known |= strcmp(name, rows[i].name) == 0;
    if (!known)
        argp_error(state, "--row: there is no row \"%s\"", name);
    s->row = name;
}

static void be_small(struct settings *s)
{
    s->smoke = true;
    s->plan = (struct plan){ .sizes = { SESSIONS_SMOKE }, .size_count = 1, .rounds = 2,
                             .samples = 10, .ms = 150, .idle_ms = 100, .fill = 2 * SESSIONS_SMOKE };
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case 'n':
        add_size(&s->plan, argument, state);
        return 0;
    case OPTION_ROUNDS:
        s->plan.rounds = bench_number(argument, ROUNDS_MAX, "rounds");
        return 0;
    case OPTION_SAMPLES:
        s->plan.samples = bench_number(argument, SAMPLES_MAX, "samples");
        return 0;
    case OPTION_MS:
        s->plan.ms = (unsigned)bench_number(argument, MS_MAX, "ms");
        return 0;
    case OPTION_FILL:
        s->plan.fill = bench_number(argument, SESSIONS_MAX, "fill");
        return 0;
    case OPTION_SMOKE:
        be_small(s);
        return 0;
    case OPTION_ROW:
        choose_row(s, argument, state);
        return 0;
    case OPTION_JSON:
        s->json = argument;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to do with \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        if (!s->plan.size_count)
            s->plan.sizes[s->plan.size_count++] = SESSIONS_USUAL;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, NULL,
    "Measures the persister, beside programs that talk to Redis directly.\v"
    "Takes the persister from the directory SESSTAB_BIN, or else from where this program was "
    "built; redis-server from PATH.  SESSTAB_SEED chooses other sessions than the usual.\n\n"
    "Exit status: 0 measured, 1 failed, 64 wrong usage.",
    NULL, NULL, NULL
};

/* ---------------------------------------------------------------- main ------------------ */

static void print_notes(void)
{
    static const char *const notes[][2] = {
        { "bind-*", "us until Redis has acknowledged a login; hset: its fields, written directly" },
        { "bind-asleep-*", "nothing else happens: both servers sleep when they are needed" },
        { "bind-busy-*", "another process touches a million random sessions a second" },
        { "binds-by-N", "logins of N threads that wait for each; hset: a connection each" },
        { "drain-records", "a backlog of changed metadata; raw-N: HSETs of the same fields" },
        { "drain-touches", "a backlog of touches; raw-N: HSETs of the same field" },
        { "cpu-idle", "of one processor, while nobody does anything" },
        { "touches-*", "a million touches a second, and the writes that they become" },
        { "insert-*", "sessions come: until they are in the table, until Redis has them" },
        { "tickets-N", "logins of one event loop with N outstanding; hset: 64 threads that wait" },
        { "compare", "a new persister compares Redis with a table that survived" },
        { "resync", "from the loss of all data (FLUSHALL) until Redis has everything again" },
        { "load", "from the persister's start until a fresh table is ready" },
    };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        output_note("row", notes[i][0], notes[i][1]);
    output_note("contender", "raw-N", "a pipeline of N sessions at a time, and nothing else to do");
    output_note("", "Redis", "on a unix socket, without persistence");
    output_note("", "ratio", "to hset, or to raw-1024: the median of the rounds' ratios");
}

static bool wanted(const struct settings *s, const char *row)
{
    return !s->row || strcmp(s->row, row) == 0;
}

static void run_size(const struct settings *settings, size_t sessions)
{
    struct stage stage;
    stage_open(&stage, false);
    stage_fill(&stage, sessions);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (wanted(settings, rows[i].name))
            rows[i].run(&stage, &settings->plan);
    stage_close(&stage);
}

int main(int argc, char **argv)
{
    struct settings s = { .plan = { .rounds = 9, .samples = 200, .ms = 1000, .idle_ms = 5000,
                                    .fill = 1000000 } };
    argp_parse(&argp, argc, argv, 0, NULL, &s);
    s.plan.seed = bench_seed();
    sandbox_start();
    output_begin("persister", !s.smoke);
    print_notes();
    output_header();
    for (size_t i = 0; i < s.plan.size_count; i++)
        if (!s.row || strcmp(s.row, "load") != 0)
            run_size(&s, s.plan.sizes[i]);
    if (wanted(&s, "load"))
        row_load(&s.plan);
    output_end(s.json);
    return 0;
}
