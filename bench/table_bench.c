/*
 * Operations on the table, ours beside its peers', in one process on one processor.
 *
 * For each size the contenders are opened, filled and checked; then come the rows, each in rounds
 * (bench.h, M1 to M4), and at the end the goals.  Contenders that don't fit into memory at once are
 * taken in groups: in the first those that goals compare with, and sesstab in each.
 *
 *   bench/table/contender.h  what a contender is; each has a file beside it
 *   bench/table/rows.c       what is measured, and how
 *   bench/table/goals.c      what should come out
 */
#include "bench/sandbox.h"
#include "bench/table/check.h"
#include "bench/table/goals.h"
#include "bench/table/huge.h"
#include "bench/table/rows.h"

#include <argp.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    SESSIONS_MAX = 100000000,
    SIZES_MAX = 8,
    NAMES_MAX = 16,
    TABLES_MAX = 32,
    WARM_OF_SERVER = 1000, /* operations; others walk over all keys */
    SPARE = 8,             /* one part in so many of the memory is left free */
    LEAST_BYTES = 4 << 20, /* of an empty table                              */
    NS_TO_FILL = 3000,     /* to estimate by: a session,                     */
    NS_TO_WALK = 200,
    OVERHEAD = 2           /* and what is around a measurement               */
};

struct settings {
    size_t sizes[SIZES_MAX], size_count, rounds;
    uint64_t ms;
    size_t count;
    const char *only_rows[NAMES_MAX], *only_tables[NAMES_MAX];
    size_t only_row_count, only_table_count;
    bool huge, smoke;
    const char *json;
    struct results *results;
};

/* ---------------------------------------------------------------- options --------------- */

enum {
    OPTION_SMOKE = 256,
    OPTION_ROUNDS,
    OPTION_MS,
    OPTION_ROW,
    OPTION_ONLY,
    OPTION_HUGE,
    OPTION_JSON,
    OPTION_COUNT
};

static const struct argp_option options[] = {
    { "sessions", 'n', "N", 0,
      "Measure tables of N sessions; repeatable (1000, 100000, 1000000, 10000000)", 0 },
    { "rounds", OPTION_ROUNDS, "N", 0, "Rounds that the median is taken of (9)", 0 },
    { "ms", OPTION_MS, "MS", 0, "Time of one measurement (8)", 0 },
    { "huge", OPTION_HUGE, 0, 0, "Measure the reading rows again after asking for huge pages", 0 },
    { "json", OPTION_JSON, "FILE", 0, "Write all figures there too", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "See that everything runs: small, short, nothing to judge", 0 },
    { "count", OPTION_COUNT, "N", 0, "Operations in a measurement, instead of a time", 1 },
    { "row", OPTION_ROW, "NAME", 0, "This row only; repeatable, and for a profiler", 1 },
    { "only", OPTION_ONLY, "TABLE", 0, "This contender only; repeatable", 1 },
    { 0 }
};

static bool is_row(const char *name)
{
    for (size_t i = 0; i < row_count; i++)
        if (strcmp(rows[i].name, name) == 0)
            return true;
    return false;
}

static bool is_contender(const char *name)
{
    for (size_t i = 0; i < contender_count; i++)
        if (strcmp(contenders[i]->name, name) == 0)
            return true;
    return false;
}

static void add_name(const char **names, size_t *count, const char *name, bool known,
                     struct argp_state *state)
{
    if (!known)
        argp_error(state, "there is no \"%s\"", name);
    if (*count == NAMES_MAX)
        argp_error(state, "at most %d names", NAMES_MAX);
    names[(*count)++] = name;
}

static void add_size(struct settings *s, size_t sessions, struct argp_state *state)
{
    if (s->size_count == SIZES_MAX)
        argp_error(state, "--sessions may be given %d times", SIZES_MAX);
    s->sizes[s->size_count++] = sessions;
}

static void add_usual_sizes(struct settings *s, struct argp_state *state)
{
    static const size_t usual[] = { 1000, 100000, 1000000, 10000000 };
    for (size_t i = 0; i < sizeof usual / sizeof *usual && !s->size_count; i++)
        if (s->smoke)
            add_size(s, usual[0], state);
        else
            s->sizes[i] = usual[i];
    if (!s->size_count)
        s->size_count = sizeof usual / sizeof *usual;
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
    case OPTION_COUNT:
        s->count = bench_number(argument, SIZE_MAX, "count");
        return 0;
    case OPTION_HUGE:
        s->huge = true;
        return 0;
    case OPTION_JSON:
        s->json = argument;
        return 0;
    case OPTION_SMOKE:
        s->smoke = s->huge = true;
        s->rounds = 3;
        s->ms = 1;
        return 0;
    case OPTION_ROW:
        add_name(s->only_rows, &s->only_row_count, argument, is_row(argument), state);
        return 0;
    case OPTION_ONLY:
        add_name(s->only_tables, &s->only_table_count, argument, is_contender(argument), state);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to do with \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        add_usual_sizes(s, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, NULL,
    "Measures a sesstab table beside its peers.\v"
    "SESSTAB_SEED chooses the keys (1).\n\n"
    "Exit status: 0 measured, 1 failed, 64 wrong usage.",
    NULL, NULL, NULL
};

static bool wanted(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return count == 0;
}

/* ---------------------------------------------------------------- groups ---------------- */

/* What fits at once. */
struct room {
    uint64_t memory, shm;
};

static struct room room_now(void)
{
    struct room r = { 0 };
    struct statvfs shm;
    char line[128];
    unsigned long long kilobytes;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kilobytes) == 1)
            r.memory = kilobytes * 1024;
    if (f)
        fclose(f);
    if (statvfs("/dev/shm", &shm) == 0)
        r.shm = (uint64_t)shm.f_bavail * shm.f_frsize;
    return (struct room){ r.memory - r.memory / SPARE, r.shm - r.shm / SPARE };
}

static bool take(struct room *room, const struct contender *c, size_t sessions)
{
    uint64_t bytes = LEAST_BYTES + (uint64_t)c->bytes_per_session * sessions;
    if (bytes > room->memory || (c->in_dev_shm && bytes > room->shm))
        return false;
    room->memory -= bytes;
    room->shm -= c->in_dev_shm ? bytes : 0;
    return true;
}

/* AGAIN: measured, still open, and measured again beside others, who are compared with it. */
enum choice { LATER, NOW, AGAIN, DONE };

/* Says why a contender has no part in this size; NULL: it has. */
static const char *why_not(const struct contender *c, size_t sessions)
{
    static char text[128];
    if (c->missing) {
        snprintf(text, sizeof text, "it was built without package %s", c->missing);
        return text;
    }
    if (c->sessions_max && sessions > c->sessions_max) {
        snprintf(text, sizeof text, "more than %zu sessions take minutes to fill in",
                 c->sessions_max);
        return text;
    }
    return NULL;
}

static void first_choice(const struct settings *s, size_t sessions, enum choice *choices)
{
    for (size_t i = 0; i < contender_count; i++) {
        const struct contender *c = contenders[i];
        const char *why = why_not(c, sessions);
        bool asked_for = wanted(s->only_tables, s->only_table_count, c->name);
        choices[i] = asked_for && !why ? LATER : DONE;
        if (asked_for && why)
            left_out(c->name, "%zu sessions: %s", sessions, why);
    }
}

/*
 * Chooses as many as fit at once of those that are left: the references first, and sesstab beside
 * every group.  False: nobody new is among them.
 */
static bool choose(size_t sessions, enum choice *choices)
{
    struct room room = room_now();
    bool any = false;
    for (int reference = 1; reference >= 0; reference--)
        for (size_t i = 0; i < contender_count; i++) {
            const struct contender *c = contenders[i];
            if (c->reference != reference || choices[i] != LATER || !take(&room, c, sessions))
                continue;
            choices[i] = NOW;
            any = true;
        }
    return any;
}

static void no_room(const enum choice *choices, size_t sessions)
{
    for (size_t i = 0; i < contender_count; i++)
        if (choices[i] == LATER)
            left_out(contenders[i]->name, "%zu sessions of it don't fit into memory", sessions);
}

/* ---------------------------------------------------------------- open, close ----------- */

static size_t warm_count(const struct contender *c, const struct keys *keys)
{
    return c->scope == SCOPE_SERVER ? WARM_OF_SERVER : keys->count;
}

/*
 * A table as it is after it has been in use for a while: one that grows leaves work to the first
 * who looks into a new bucket, and pages are mapped on first use.
 */
static void warm_up(const struct open_table *o, const struct key_sets *keys)
{
    static const enum operation ways[] = { OPERATION_VIEW, OPERATION_COPY };
    struct keys present = keys->of[KEYS_PRESENT], absent = keys->of[KEYS_ABSENT];
    present.count = warm_count(o->contender, &present);
    absent.count = warm_count(o->contender, &absent);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (o->contender->operations[ways[i]])
            o->contender->operations[ways[i]](o->table, &present);
    if (o->contender->operations[OPERATION_MISS])
        o->contender->operations[OPERATION_MISS](o->table, &absent);
}

/* What the contender takes; 0: it stores nothing. */
static uint64_t bytes_of(const struct open_table *o, uint64_t before)
{
    if (!o->contender->read_back)
        return 0;
    return o->contender->bytes ? o->contender->bytes(o->table)
                               : sandbox_memory_of(getpid()) - before;
}

/* False: it can't be had. */
static bool open_one(struct open_table *o, const struct contender *c, size_t sessions,
                     const struct key_sets *keys)
{
    uint64_t before = sandbox_memory_of(getpid());
    bench_subject(c->name);
    *o = (struct open_table){ .contender = c, .table = c->open(sessions) };
    if (!o->table)
        return false;
    o->bytes = bytes_of(o, before);
    o->partner = partner_start(c, o->table, &keys->of[KEYS_PRESENT],
                               warm_count(c, &keys->of[KEYS_PRESENT]));
    warm_up(o, keys);
    check_contender(o, keys);
    return true;
}

static void close_one(struct open_table *o)
{
    if (o->partner)
        partner_stop(o->partner);
    o->contender->close(o->table);
}

/* Somebody else may have taken the memory meanwhile. */
static bool still_fits(const struct contender *c, size_t sessions)
{
    struct room room = room_now();
    return take(&room, c, sessions);
}

static size_t open_group(struct open_table *tables, size_t count, enum choice *choices,
                         size_t sessions, const struct key_sets *keys)
{
    for (size_t i = 0; i < contender_count; i++) {
        if (choices[i] != NOW)
            continue;
        bench_progress("filling %s with %zu sessions ...", contenders[i]->name, sessions);
        if (!still_fits(contenders[i], sessions))
            choices[i] = LATER;
        else if (open_one(&tables[count], contenders[i], sessions, keys))
            count++;
        else
            choices[i] = DONE;
    }
    return count;
}

/* ---------------------------------------------------------------- a size ---------------- */

static void run_rows(const struct settings *s, const struct open_table *tables, size_t count,
                     const struct circumstances *c)
{
    for (size_t i = 0; i < row_count; i++) {
        if (!wanted(s->only_rows, s->only_row_count, rows[i].name) || (c->huge && !rows[i].huge))
            continue;
        bench_progress("%zu sessions, group %u, row %zu of %zu%s: %s ...", c->sessions,
                       c->group + 1, i + 1, row_count, c->huge ? " with huge pages" : "",
                       rows[i].name);
        row_measure(&rows[i], tables, count, c);
    }
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

/* Who is measured now, and for how long about. */
static void announce(const struct settings *s, const struct circumstances *now,
                     const enum choice *choices)
{
    size_t count = 0;
    printf("# %zu sessions, group %u:", now->sessions, now->group + 1);
    for (size_t i = 0; i < contender_count; i++) {
        if (choices[i] != NOW && choices[i] != AGAIN)
            continue;
        printf(" %s", contenders[i]->name);
        count++;
    }
    double walks = (double)now->sessions * (NS_TO_FILL + (double)s->rounds * NS_TO_WALK),
           rows_ns = (double)(s->rounds * row_count * now->ns) * OVERHEAD;
    printf("; about %.0f s\n", (double)count * (walks + rows_ns) / 1e9);
    fflush(stdout);
}

/* Closes all but sesstab, if it is to be measured again; how many are open still. */
static size_t close_group(struct open_table *tables, size_t count, enum choice *choices)
{
    size_t kept = count && tables[0].contender == &sesstab_contender;
    while (count > kept)
        close_one(&tables[--count]);
    for (size_t i = 0; i < contender_count; i++)
        if (choices[i] == NOW)
            choices[i] = contenders[i] == &sesstab_contender ? AGAIN : DONE;
    return kept;
}

/* COUNT tables are open before, and as many as are returned after. */
static size_t run_group(const struct settings *s, struct circumstances *now,
                        struct open_table *tables, size_t count, enum choice *choices)
{
    uint64_t start = bench_clock();
    announce(s, now, choices);
    count = open_group(tables, count, choices, now->sessions, now->keys);
    uint64_t filled = bench_clock();
    run_rows(s, tables, count, now);
    if (s->huge && now->group == 0) {
        now->huge = true;
        huge_ask();
        run_rows(s, tables, count, now);
        now->huge = false;
    }
    uint64_t measured = bench_clock();
    count = close_group(tables, count, choices);
    printf("# %zu sessions, group %u: %.0f s to fill, %.0f s to measure, %.0f s to close\n",
           now->sessions, now->group + 1, seconds(filled - start), seconds(measured - filled),
           seconds(bench_clock() - measured));
    return count;
}

static void run_size(const struct settings *s, size_t sessions)
{
    enum choice choices[TABLES_MAX];
    struct open_table tables[TABLES_MAX];
    struct key_sets keys = key_sets_new(sessions); /* before a partner is forked */
    struct circumstances now = { .keys = &keys,
                                 .sessions = sessions,
                                 .rounds = s->rounds,
                                 .ns = s->ms * 1000000,
                                 .count = s->count,
                                 .results = s->results };
    size_t open = 0;
    first_choice(s, sessions, choices);
    for (; now.group < contender_count && choose(sessions, choices); now.group++)
        open = run_group(s, &now, tables, open, choices);
    if (open)
        close_one(&tables[0]);
    no_room(choices, sessions);
    key_sets_free(&keys);
}

/* ---------------------------------------------------------------- main ------------------ */

static struct results *all_results;

static void note_left_out(const char *contender, const char *why)
{
    char name[64];
    snprintf(name, sizeof name, "left out: %s", contender);
    results_fact(all_results, name, why);
}

static void print_header(const struct settings *s)
{
    printf("# table_bench: median, least and most of %zu rounds of %llu ms; seed %llu\n", s->rounds,
           (unsigned long long)s->ms, (unsigned long long)bench_seed());
    bench_describe_machine(bench_pin());
    printf("# a second worker: processor %d\n", bench_second_cpu());
    for (size_t i = 0; i < row_count; i++)
        printf("# %-18s %s\n", rows[i].name, rows[i].text);
    for (size_t i = 0; i < contender_count; i++)
        printf("# %-10s %s\n", contenders[i]->name, contenders[i]->lacks);
    figures_print_header();
}

static void keep_header(const struct settings *s)
{
    char text[64], name[64];
    results_machine(s->results);
    snprintf(text, sizeof text, "%zu of %llu ms", s->rounds, (unsigned long long)s->ms);
    results_fact(s->results, "rounds", text);
    for (size_t i = 0; i < row_count; i++) {
        snprintf(name, sizeof name, "row: %s", rows[i].name);
        results_fact(s->results, name, rows[i].text);
    }
    for (size_t i = 0; i < contender_count; i++) {
        snprintf(name, sizeof name, "contender: %s", contenders[i]->name);
        results_fact(s->results, name, contenders[i]->lacks);
    }
}

int main(int argc, char **argv)
{
    struct settings s = { .rounds = 9, .ms = 8 };
    argp_parse(&argp, argc, argv, 0, NULL, &s);
    sandbox_start();
    all_results = s.results = results_new("table");
    left_out_too = note_left_out;
    keep_header(&s);
    print_header(&s);
    for (size_t i = 0; i < s.size_count; i++)
        run_size(&s, s.sizes[i]);
    if (!s.smoke && !s.only_row_count && !s.only_table_count)
        goals_judge(s.sizes, s.size_count, s.results);
    results_write(s.results, s.json);
    return 0;
}
