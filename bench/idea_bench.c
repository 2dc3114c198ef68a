/*
 * The idea's own table: what a server asks of its sessions many times a second, of sesstab and of
 * Redis alone in five forms, in one run, with real Redis and a real persister.  The operations and
 * contenders are in bench/idea/.
 *
 * In each round every contender is measured once (bench.h, M1 to M4).  Before the next one begins,
 * the persister has written what the one before changed: nobody is measured beside its work.
 */
#include "bench/bench.h"
#include "bench/idea/idea.h"
#include "bench/persist/output.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS_MAX = 100000000, SIZES_MAX = 8, SAMPLES_MAX = 100000, KEYS = 1 << 16 };

static const struct contender *const contenders[] = { &sesstab_contender,  &json_contender,
                                                      &hash_contender,     &field_contender,
                                                      &pipeline_contender, &lua_contender };
enum { CONTENDERS = sizeof contenders / sizeof *contenders };

static const struct row {
    const char *name, *legend;
    size_t sessions; /* in one operation */
} rows[] = {
#define X(name, row, sessions, text) { row, text, sessions },
    OPERATIONS(X)
#undef X
};

struct settings {
    size_t sizes[SIZES_MAX], size_count, rounds, samples;
    const char *json;
    bool tcp, smoke;
};

/* ---------------------------------------------------------------- options --------------- */

enum { OPTION_SMOKE = 256, OPTION_ROUNDS, OPTION_SAMPLES, OPTION_TCP, OPTION_JSON };

static const struct argp_option options[] = {
    { "sessions", 'n', "N", 0, "Measure a table of N sessions; repeatable (100, 100000)", 0 },
    { "rounds", OPTION_ROUNDS, "N", 0, "Rounds that the median is taken of (9)", 0 },
    { "samples", OPTION_SAMPLES, "N", 0, "Samples of each row in a round (200)", 0 },
    { "tcp", OPTION_TCP, 0, 0, "Ask Redis through 127.0.0.1, not through a unix socket", 0 },
    { "json", OPTION_JSON, "FILE", 0, "Write the figures here as well", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "See that everything runs: small, short, nothing to judge", 0 },
    { 0 }
};

static void add_size(struct settings *s, size_t sessions, struct argp_state *state)
{
    if (s->size_count == SIZES_MAX)
        argp_error(state, "--sessions may be given %d times", SIZES_MAX);
    s->sizes[s->size_count++] = sessions;
}

static void use_defaults(struct settings *s, struct argp_state *state)
{
    if (s->size_count)
        return;
    add_size(s, PLAYERS, state);
    if (!s->smoke)
        add_size(s, 100000, state);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case 'n':
        add_size(s, bench_number(argument, SESSIONS_MAX, "sessions"), state);
        return 0;
    case OPTION_ROUNDS:
        s->rounds = bench_number(argument, ROUNDS_MAX, "rounds");
        return 0;
    case OPTION_SAMPLES:
        s->samples = bench_number(argument, SAMPLES_MAX, "samples");
        return 0;
    case OPTION_TCP:
        s->tcp = true;
        return 0;
    case OPTION_JSON:
        s->json = argument;
        return 0;
    case OPTION_SMOKE:
        s->smoke = true;
        s->rounds = 2;
        s->samples = 3;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to do with \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        use_defaults(s, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, NULL,
    "Measures the idea's own table: sesstab beside Redis alone.\v"
    "Takes the persister from the directory SESSTAB_BIN, or else from where this program was "
    "built; redis-server from PATH.  SESSTAB_SEED chooses other sessions than the usual.\n\n"
    "Exit status: 0 measured, 1 failed, 64 wrong usage.",
    NULL, NULL, NULL
};

/* ---------------------------------------------------------------- what they share ------- */

void deliver(struct idea *idea, uint64_t handle)
{
    static const char line[] = "The lighthouse keeper says, \"A storm is coming; be quick.\"\r\n";
    struct connection *c = &idea->connections[handle];
    memcpy(c->line, line, sizeof line);
    c->written += sizeof line - 1;
}

void found(struct idea *idea, const char *player)
{
    if (!player || player[0] != '#')
        bench_fail("a session was not found, or has no player");
    idea->sum += (unsigned char)player[1];
}

/* ---------------------------------------------------------------- one row --------------- */

/* A contender in a row; nanoseconds of an operation, by round. */
struct lane {
    const struct contender *contender;
    operation_fn *run; /* NULL: not in this row */
    size_t burst;
    double p50[ROUNDS_MAX], p99[ROUNDS_MAX];
};

static double sample(struct idea *idea, const struct lane *lane, const uint64_t *handles,
                     size_t sessions)
{
    uint64_t start = bench_clock();
    lane->run(idea, handles, lane->burst * sessions);
    return (double)(bench_clock() - start) / (double)lane->burst;
}

static void measure(struct idea *idea, struct lane *lane, const struct settings *settings,
                    const struct keys *keys, size_t sessions, size_t round)
{
    static double samples[SAMPLES_MAX];
    size_t step = lane->burst * sessions, at = round * 7919;
    for (size_t i = 0; i < settings->samples; i++, at += step)
        samples[i] = sample(idea, lane, keys->handles + at % (keys->count - step), sessions);
    lane->p50[round] = spread_of(samples, settings->samples).median;
    lane->p99[round] = quantile(samples, settings->samples, 0.99);
    stage_settle(&idea->stage, NULL);
}

static void put_row(const struct idea *idea, const struct row *row, const struct lane *lanes,
                    size_t rounds)
{
    char name[32];
    for (size_t i = 0; i < CONTENDERS; i++) {
        const struct lane *l = &lanes[i];
        struct figure f = { name, l->contender->name, "ns", idea->stage.sessions, rounds, l->p50,
                            i ? lanes[0].p50 : NULL };
        if (!l->run)
            continue;
        snprintf(name, sizeof name, "%s-p50", row->name);
        output_figure(f);
        snprintf(name, sizeof name, "%s-p99", row->name);
        f.rounds = l->p99, f.reference = i ? lanes[0].p99 : NULL;
        output_figure(f);
    }
}

/* Ours beside the best of Redis; a login, which somebody waits for, beside one HSET. */
static void put_goal(const struct idea *idea, const struct row *row, const struct lane *lanes,
                     size_t rounds)
{
    double worst = 0;
    const char *best = "";
    bool login = row == &rows[OPERATION_LOGIN];
    for (size_t i = 1; i < CONTENDERS; i++) {
        double ratio = lanes[i].run ? ratio_of(lanes[0].p50, lanes[i].p50, rounds) : 0;
        if (ratio > worst) {
            worst = ratio;
            best = lanes[i].contender->name;
        }
    }
    goal_at_most(worst, login ? 2.2 : 1, idea->stage.sessions, "%s p50: times the best (%s)",
                 row->name, best);
}

static void run_row(struct idea *idea, const struct settings *settings, const struct keys *keys,
                    enum operation operation)
{
    struct lane lanes[CONTENDERS];
    const struct row *row = &rows[operation];
    for (size_t i = 0; i < CONTENDERS; i++)
        lanes[i] = (struct lane){ contenders[i], contenders[i]->operations[operation].run,
                                  contenders[i]->operations[operation].burst, { 0 }, { 0 } };
    for (size_t round = 0; round < settings->rounds; round++)
        for (size_t i = 0; i < CONTENDERS; i++) {
            struct lane *lane = &lanes[round % 2 ? CONTENDERS - 1 - i : i];
            if (lane->run)
                measure(idea, lane, settings, keys, row->sessions, round);
        }
    put_row(idea, row, lanes, settings->rounds);
    put_goal(idea, row, lanes, settings->rounds);
}

/* ---------------------------------------------------------------- a size ---------------- */

static void open_idea(struct idea *idea, const struct settings *settings, size_t sessions)
{
    *idea = (struct idea){ .self = "1.1" };
    stage_open(&idea->stage, settings->tcp);
    stage_fill(&idea->stage, sessions);
    idea->redis = stage_connect(&idea->stage, settings->tcp);
    idea->connections = bench_memory(sessions + 1, sizeof *idea->connections);
    for (size_t i = 0; i < CONTENDERS; i++)
        if (contenders[i]->fill)
            contenders[i]->fill(idea);
}

static void close_idea(struct idea *idea)
{
    redisFree(idea->redis);
    stage_close(&idea->stage);
    free(idea->connections);
}

static void check_some(const struct idea *idea, const struct keys *keys)
{
    for (size_t i = 0; i < PLAYERS; i++)
        stage_check(&idea->stage, keys->handles[i]);
}

static void run_size(const struct settings *settings, size_t sessions)
{
    struct idea idea;
    struct keys keys = keys_uniform(KEYS, 1, sessions, bench_seed());
    open_idea(&idea, settings, sessions);
    for (size_t o = 0; o < OPERATION_COUNT; o++)
        if (o != OPERATION_BROADCAST || sessions == PLAYERS)
            run_row(&idea, settings, &keys, (enum operation)o);
    check_some(&idea, &keys);
    close_idea(&idea);
    keys_free(&keys);
}

/* ---------------------------------------------------------------- main ------------------ */

static void print_notes(const struct settings *settings)
{
    char text[128];
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        output_note("row", rows[i].name, rows[i].legend);
    for (size_t i = 0; i < CONTENDERS; i++)
        output_note("contender", contenders[i]->name, contenders[i]->legend);
    snprintf(text, sizeof text, "%zu of %zu samples; p50, p99: of a round's samples",
             settings->rounds, settings->samples);
    output_note("", "rounds", text);
    output_note("", "sample", "one operation; of sesstab's short rows the mean of 16, of "
                              "redis-pipe's of 100");
    output_note("", "ratio", "as many times sesstab's");
    output_note("", "Redis", settings->tcp ? "through 127.0.0.1, without persistence"
                                           : "on a unix socket, without persistence");
}

int main(int argc, char **argv)
{
    struct settings settings = { .rounds = 9, .samples = 200 };
    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    sandbox_start();
    output_begin("idea", !settings.smoke);
    print_notes(&settings);
    output_header();
    for (size_t i = 0; i < settings.size_count; i++)
        run_size(&settings, settings.sizes[i]);
    output_end(settings.json);
    return 0;
}
