#include "bench/persist/output.h"

#include "bench/results.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GOALS_MAX = 64, BAR = 40 };

struct goal {
    char text[64];
    double value, limit;
    size_t size;
    bool at_least;
};

static struct {
    bool judge;
    struct results *results;
    size_t goal_count;
    struct goal goals[GOALS_MAX];
} output;

void output_note(const char *kind, const char *name, const char *text)
{
    char fact[64];
    printf("# %-17s %s\n", name, text);
    snprintf(fact, sizeof fact, "%s%s%s", kind, *kind ? ": " : "", name);
    results_fact(output.results, fact, text);
}

void output_begin(const char *bench, bool judge)
{
    char seed[32];
    output.judge = judge;
    output.results = results_new(bench);
    results_machine(output.results);
    bench_describe_machine(-1);
    snprintf(seed, sizeof seed, "%" PRIu64, bench_seed());
    output_note("", "SESSTAB_SEED", seed);
}

/* ---------------------------------------------------------------- figures --------------- */

void output_header(void)
{
    printf("%-9s %-20s %-12s %-10s %11s %11s %11s %9s\n", "sessions", "row", "contender", "unit",
           "median", "low", "high", "ratio");
}

/* Four digits of small numbers, all of large ones. */
static void print_value(double value)
{
    printf(" %11.*f", value < 1 ? 4 : value < 100 ? 2 : value < 10000 ? 1 : 0, value);
}

void output_figure(struct figure f)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, f.rounds, f.count * sizeof *sorted);
    struct spread s = spread_of(sorted, f.count);
    printf("%-9zu %-20s %-12s %-10s", f.size, f.row, f.contender, f.unit);
    print_value(s.median);
    print_value(s.min);
    print_value(s.max);
    results_figure(output.results, f.row, f.contender, f.size, f.unit, s);
    if (!f.reference) {
        printf(" %9s\n", "-");
        return;
    }
    double ratio = ratio_of(f.rounds, f.reference, f.count);
    printf(" %9.3g\n", ratio);
    results_number(output.results, "ratio", ratio);
}

void output_single(const char *row, const char *contender, size_t size, const char *unit,
                   double value)
{
    output_figure((struct figure){ row, contender, unit, size, 1, &value, NULL });
}

/* ---------------------------------------------------------------- goals ----------------- */

static struct goal *new_goal(double value, double limit, size_t size, bool at_least)
{
    if (output.goal_count == GOALS_MAX)
        bench_fail("more than %d goals", GOALS_MAX);
    struct goal *g = &output.goals[output.goal_count++];
    *g = (struct goal){ .value = value, .limit = limit, .size = size, .at_least = at_least };
    return g;
}

void goal_at_most(double value, double limit, size_t size, const char *format, ...)
{
    struct goal *g = new_goal(value, limit, size, false);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(g->text, sizeof g->text, format, arguments);
    va_end(arguments);
}

void goal_at_least(double value, double limit, size_t size, const char *format, ...)
{
    struct goal *g = new_goal(value, limit, size, true);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(g->text, sizeof g->text, format, arguments);
    va_end(arguments);
}

static const char *judged(const struct goal *g)
{
    if (!output.judge)
        return "not judged";
    return (g->at_least ? g->value >= g->limit : g->value <= g->limit) ? "met" : "missed";
}

static void put_goal(const struct goal *g)
{
    printf("%-9zu %-60s %s %8.4g %10.4g  %s\n", g->size, g->text, g->at_least ? ">=" : "<=",
           g->limit, g->value, judged(g));
    results_goal(output.results, g->text, g->size, g->limit, g->value, judged(g));
}

void output_end(const char *json)
{
    if (output.goal_count)
        printf("\n%-9s %-60s %11s %10s  %s\n", "sessions", "goal", "limit", "reached", "verdict");
    for (size_t i = 0; i < output.goal_count; i++)
        put_goal(&output.goals[i]);
    results_write(output.results, json);
}

/* ---------------------------------------------------------------- progress -------------- */

static void show_bar(const struct progress *p, size_t done)
{
    int full = (int)((double)done / (double)p->total * BAR);
    fprintf(stderr, "\r%s [%.*s%*s] %zu of %zu", p->what, full,
            "########################################", BAR - full, "", done, p->total);
    if (done == p->total)
        fputc('\n', stderr);
}

void progress_show(struct progress *p, size_t done)
{
    if (done > p->total)
        done = p->total;
    unsigned tenths = (unsigned)(done * 10 / p->total);
    if (isatty(STDERR_FILENO))
        show_bar(p, done);
    else if (tenths != p->shown)
        fprintf(stderr, "%s: %zu of %zu\n", p->what, done, p->total);
    p->shown = tenths;
}
