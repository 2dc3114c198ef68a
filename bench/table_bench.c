/*
 * Operations on the table, ours beside the peers', in one process on one processor.
 *
 * For each size all contenders are opened and filled; then come the rounds (bench.h, M1 to M4).  A
 * measurement is as many operations as fill its time, calibrated once for each row and contender,
 * on keys uniform over all sessions.
 */
#include "bench/contender.h"
#include "bench/sandbox.h"

#include <argp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    SESSIONS_MAX = 100000000,
    SIZES_MAX = 8,
    KEYS_MIN = 1 << 14,
    KEYS_MAX = 1 << 20,
    CALIBRATION = 8, /* a calibrating run takes this part of a measurement, at least */
    SEED = 1
};

static const struct contender *const contenders[] = { &sesstab_contender, &lfht_contender,
                                                      &seqlock_contender };
enum { CONTENDERS = sizeof contenders / sizeof *contenders };
enum { OURS, LFHT, SEQLOCK };

static const char *const rows[] = {
#define X(name, row, text) row,
    OPERATIONS(X)
#undef X
};

static const char *const legends[] = {
#define X(name, row, text) text,
    OPERATIONS(X)
#undef X
};

struct settings {
    size_t sizes[SIZES_MAX], size_count;
    size_t rounds;
    uint64_t ms;
    const char *row, *only;
};

/* ---------------------------------------------------------------- options --------------- */

enum { OPTION_SMOKE = 256, OPTION_ROUNDS, OPTION_MS, OPTION_ROW, OPTION_ONLY };

static const struct argp_option options[] = {
    { "sessions", 'n', "N", 0, "Measure a table of N sessions; repeatable (1000, 1000000)", 0 },
    { "rounds", OPTION_ROUNDS, "N", 0, "Rounds that the median is taken of (15)", 0 },
    { "ms", OPTION_MS, "MS", 0, "Time of one measurement (8)", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "See that everything runs: small, short, nothing to judge", 0 },
    { "row", OPTION_ROW, "NAME", 0, "This row only, for a profiler", 1 },
    { "only", OPTION_ONLY, "TABLE", 0, "This contender only: sesstab, lfht or seqlock", 1 },
    { 0 }
};

static bool is_row(const char *name)
{
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        if (strcmp(rows[i], name) == 0)
            return true;
    return false;
}

static bool is_contender(const char *name)
{
    for (size_t i = 0; i < CONTENDERS; i++)
        if (strcmp(contenders[i]->name, name) == 0)
            return true;
    return false;
}

static void add_size(struct settings *s, size_t sessions, struct argp_state *state)
{
    if (s->size_count == SIZES_MAX)
        argp_error(state, "--sessions may be given %d times", SIZES_MAX);
    s->sizes[s->size_count++] = sessions;
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
    case OPTION_MS:
        s->ms = bench_number(argument, 3600000, "ms");
        return 0;
    case OPTION_SMOKE:
        s->rounds = 3;
        s->ms = 1;
        add_size(s, 1000, state);
        return 0;
    case OPTION_ROW:
        s->row = argument;
        if (!is_row(argument))
            argp_error(state, "--row: there is no row \"%s\"", argument);
        return 0;
    case OPTION_ONLY:
        s->only = argument;
        if (!is_contender(argument))
            argp_error(state, "--only: there is no table \"%s\"", argument);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to do with \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        if (!s->size_count) {
            add_size(s, 1000, state);
            add_size(s, 1000000, state);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, NULL,
    "Measures a sesstab table beside its peers.\v"
    "Exit status: 0 measured, 1 failed, 64 wrong usage.",
    NULL, NULL, NULL
};

/* ---------------------------------------------------------------- one measurement ------- */

/* One contender's row: its operation, its keys, and how many of them a measurement takes. */
struct lane {
    const struct contender *contender;
    void *table;
    operation_fn *operation; /* NULL: not in this row */
    const struct keys *keys;
    size_t at, count;        /* at: the next key, so that rounds go on where the last one ended */
    double ns[ROUNDS_MAX];   /* per operation, by round */
};

static volatile uint64_t sink; /* what was read is used */

/* Nanoseconds that COUNT operations take. */
static uint64_t run(struct lane *lane, size_t count)
{
    const struct keys *all = lane->keys;
    uint64_t start = bench_clock();
    for (size_t n; count; count -= n) {
        n = all->count - lane->at < count ? all->count - lane->at : count;
        struct keys part = { all->handles + lane->at, all->players + lane->at, n };
        sink += lane->operation(lane->table, &part);
        lane->at = (lane->at + n) % all->count;
    }
    return bench_clock() - start;
}

/* As many operations as take NS, in whole walks over the table for a scan. */
static void calibrate(struct lane *lane, uint64_t ns, size_t step)
{
    uint64_t took = 0;
    for (lane->count = step; (took = run(lane, lane->count)) < ns / CALIBRATION;)
        lane->count *= 2;
    double count = (double)lane->count * (double)ns / (double)took;
    lane->count = count < (double)step ? step : (size_t)(count / (double)step) * step;
}

static void measure(struct lane *lane, size_t round)
{
    lane->ns[round] = (double)run(lane, lane->count) / (double)lane->count;
}

/* ---------------------------------------------------------------- a row ----------------- */

static void print_ratio(const struct lane *lane, const struct lane *peer, size_t rounds)
{
    if (peer->operation)
        printf(" %10.2f", ratio_of(lane->ns, peer->ns, rounds));
    else
        printf(" %10s", "-");
}

static void print_lane(const struct lane *lane, const struct lane *lanes, size_t sessions,
                       const char *row, size_t rounds)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, lane->ns, sizeof sorted);
    struct spread s = spread_of(sorted, rounds);
    printf("%-9zu %-14s %-8s %9.1f %9.1f %9.1f", sessions, row, lane->contender->name, s.median,
           s.min, s.max);
    print_ratio(lane, &lanes[LFHT], rounds);
    print_ratio(lane, &lanes[SEQLOCK], rounds);
    putchar('\n');
}

static void run_row(const struct settings *settings, struct lane *lanes, enum operation operation,
                    size_t sessions)
{
    const size_t step = operation == OPERATION_SCAN ? sessions : 1;
    for (size_t i = 0; i < CONTENDERS; i++)
        if (lanes[i].operation)
            calibrate(&lanes[i], settings->ms * 1000000, step);
    for (size_t round = 0; round < settings->rounds; round++)
        for (size_t i = 0; i < CONTENDERS; i++) {
            struct lane *lane = &lanes[round % 2 ? CONTENDERS - 1 - i : i];
            if (lane->operation)
                measure(lane, round);
        }
    for (size_t i = 0; i < CONTENDERS; i++)
        if (lanes[i].operation)
            print_lane(&lanes[i], lanes, sessions, rows[operation], settings->rounds);
}

/* ---------------------------------------------------------------- a size ---------------- */

struct key_sets {
    struct keys present, absent, whole; /* whole: as many as there are sessions, for a scan */
};

static struct key_sets make_keys(size_t sessions)
{
    size_t count = sessions < KEYS_MIN ? KEYS_MIN : sessions > KEYS_MAX ? KEYS_MAX : sessions;
    return (struct key_sets){ keys_uniform(count, 1, sessions, SEED),
                              keys_uniform(count, sessions + 1, sessions, SEED + 1),
                              { .count = sessions } };
}

static const struct keys *keys_for(const struct key_sets *sets, enum operation operation)
{
    switch (operation) {
    case OPERATION_GET_MISS:
    case OPERATION_INSERT_REMOVE:
        return &sets->absent;
    case OPERATION_SCAN:
        return &sets->whole;
    default:
        return &sets->present;
    }
}

static bool wanted(const char *choice, const char *name)
{
    return !choice || strcmp(choice, name) == 0;
}

/*
 * A table as it is after it has been in use for a while: one that grows leaves work to the first
 * who looks into a new bucket, and pages are mapped on first use.
 */
static void *open_warm(const struct contender *contender, size_t sessions,
                       const struct key_sets *sets)
{
    void *table = contender->open(sessions);
    sink += contender->operations[OPERATION_GET_VIEW](table, &sets->present);
    sink += contender->operations[OPERATION_GET_MISS](table, &sets->absent);
    return table;
}


static void print_sizes(void *table, size_t sessions)
{
    struct sizes s = sesstab_sizes(table);
    printf("# %zu sessions: a slot is %zu bytes, the usual record %zu in a block of %zu; per "
           "session %.0f bytes of heap, %.0f of the whole segment\n",
           sessions, s.slot, s.record, s.block, (double)s.heap / (double)sessions,
           (double)s.segment / (double)sessions);
}

static void run_size(const struct settings *settings, size_t sessions)
{
    void *tables[CONTENDERS] = { 0 };
    struct key_sets sets = make_keys(sessions);
    fprintf(stderr, "filling tables of %zu sessions ...\n", sessions);
    for (size_t i = 0; i < CONTENDERS; i++)
        if (wanted(settings->only, contenders[i]->name))
            tables[i] = open_warm(contenders[i], sessions, &sets);
    if (tables[OURS])
        print_sizes(tables[OURS], sessions);
    for (size_t o = 0; o < OPERATION_COUNT; o++) {
        struct lane lanes[CONTENDERS] = { 0 };
        for (size_t i = 0; i < CONTENDERS; i++)
            lanes[i] = (struct lane){ .contender = contenders[i], .table = tables[i],
                                      .operation = tables[i] ? contenders[i]->operations[o] : NULL,
                                      .keys = keys_for(&sets, (enum operation)o) };
        if (wanted(settings->row, rows[o]))
            run_row(settings, lanes, (enum operation)o, sessions);
    }
    for (size_t i = 0; i < CONTENDERS; i++)
        if (tables[i])
            contenders[i]->close(tables[i]);
    keys_free(&sets.present);
    keys_free(&sets.absent);
}

/* ---------------------------------------------------------------- main ------------------ */

static void print_header(const struct settings *settings)
{
    printf("# table_bench: nanoseconds per operation; median, least and most of %zu rounds of "
           "%llu ms\n",
           settings->rounds, (unsigned long long)settings->ms);
    bench_describe_machine(bench_pin());
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        printf("# %-14s %s\n", rows[i], legends[i]);
    printf("# sesstab is shared by processes, and may be killed anywhere; lfht (liburcu, memb) "
           "serves one process;\n# seqlock is shared, and a killed writer stops its readers\n");
    printf("%-9s %-14s %-8s %9s %9s %9s %10s %10s\n", "sessions", "row", "table", "median", "min",
           "max", "vs_lfht", "vs_seqlock");
}

int main(int argc, char **argv)
{
    struct settings settings = { .rounds = 15, .ms = 8 };
    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    sandbox_start();
    print_header(&settings);
    for (size_t i = 0; i < settings.size_count; i++)
        run_size(&settings, settings.sizes[i]);
    return 0;
}
