#include "bench/table/goals.h"

#include <math.h>
#include <string.h>

enum { HUNDRED_THOUSAND = 100000, MILLION = 1000000 };
#define ALL_SIZES 0, SIZE_MAX

/*
 * A goal:  what we measured  <=  limit * what is compared with, in the median of rounds; or >= .
 */
enum kind {
    AT_MOST,    /* ratio of two figures                                                       */
    AT_LEAST,
    DIFFERENCE, /* our figure is at most the other plus the limit                             */
    ABSOLUTE,   /* our figure is at most the limit                                            */
    SCALES      /* our figure / the same with one worker is at least limit * what the floor's is */
};

struct goal {
    const char *text, *contender, *row, *peer, *peer_row;
    enum kind kind;
    double limit;
    size_t from, to; /* sessions */
    bool huge_too;   /* also with huge pages */
};

static const struct goal goals[] = {
    { "get view <= 0.5 x lfht-memb", "sesstab", "get-view", "lfht-memb", "get-view", AT_MOST, 0.5,
      0, 1000, false },
    { "get view <= 1.0 x seqlock", "sesstab", "get-view", "seqlock", "get-view", AT_MOST, 1.0, 0,
      1000, false },
    { "get view <= 0.6 x lfht-memb", "sesstab", "get-view", "lfht-memb", "get-view", AT_MOST, 0.6,
      HUNDRED_THOUSAND, SIZE_MAX, false },
    { "get view <= 1.2 x seqlock, same pages", "sesstab", "get-view", "seqlock", "get-view",
      AT_MOST, 1.2, HUNDRED_THOUSAND, SIZE_MAX, true },
    { "get copy <= 1.2 x seqlock", "sesstab", "get-copy", "seqlock", "get-copy", AT_MOST, 1.2,
      ALL_SIZES, true },
    { "dependent get <= 2 x floor", "sesstab", "get-dependent", "floor", "get-dependent", AT_MOST,
      2, MILLION, SIZE_MAX, true },
    { "batch get <= 0.5 x one by one", "sesstab", "get-batch", "sesstab", "get-view", AT_MOST, 0.5,
      MILLION, SIZE_MAX, true },
    { "touch, dirty <= get view + 3 ns", "dirty", "touch", "dirty", "get-view", DIFFERENCE, 3, 0,
      1000, false },
    { "metadata set <= 150 ns", "sesstab", "metadata-set", "sesstab", "metadata-set", ABSOLUTE, 150,
      0, 1000, false },
    { "metadata set <= 0.2 x lmdb", "sesstab", "metadata-set", "lmdb", "metadata-set", AT_MOST, 0.2,
      0, 1000, false },
    { "insert+remove <= 1.0 x lfht-memb", "sesstab", "insert+remove", "lfht-memb", "insert+remove",
      AT_MOST, 1.0, ALL_SIZES, false },
    { "scan <= 2 x seqlock", "sesstab", "scan", "seqlock", "scan", AT_MOST, 2, ALL_SIZES, false },
    { "two processes >= 0.95 x floor's gain", "sesstab", "mix-2", "floor", "mix-2", SCALES, 0.95,
      ALL_SIZES, false },
    { "two processes >= 1.3 x lfht's threads", "sesstab", "mix-2", "lfht-memb", "mix-2", AT_LEAST,
      1.3, ALL_SIZES, false },
    { "p99.9 hammered <= 1.2 x idle", "sesstab", "hammered-p99.9", "sesstab", "idle-p99.9", AT_MOST,
      1.2, ALL_SIZES, false },
    { "bytes per session <= 400", "sesstab", "bytes", "sesstab", "bytes", ABSOLUTE, 400,
      HUNDRED_THOUSAND, SIZE_MAX, false },
};

/* ---------------------------------------------------------------- judging --------------- */

static double median_ratio(const struct figure *a, const struct figure *b)
{
    return ratio_of(a->values, b->values, a->rounds);
}

/* What the second worker brought, beside what it brought to the floor. */
static double scaling(const struct figure *ours, const struct figure *floor)
{
    const struct figure *one =
        figures_find("mix-1", ours->contender, ours->sessions, ours->huge, (int)ours->group);
    const struct figure *floor_one =
        figures_find("mix-1", floor->contender, floor->sessions, floor->huge, (int)floor->group);
    if (!one || !floor_one)
        return -1;
    return median_ratio(ours, one) / median_ratio(floor, floor_one);
}

/* Negative: not measured. */
static double reached(const struct goal *g, const struct figure *ours, const struct figure *peer)
{
    switch (g->kind) {
    case DIFFERENCE:
        return fmax(0, figure_median(ours) - figure_median(peer));
    case ABSOLUTE:
        return figure_median(ours);
    case SCALES:
        return scaling(ours, peer);
    default:
        return median_ratio(ours, peer);
    }
}

/*
 * What the floor reaches where a table is compared with itself: how much of it is the machine's.
 * Negative: the floor was not measured, or the goal compares with another table.
 */
static double floor_reaches(const struct goal *g, const struct figure *ours)
{
    if (g->kind != AT_MOST || strcmp(g->contender, g->peer) != 0)
        return -1;
    const struct figure *a =
        figures_find(g->row, "floor", ours->sessions, ours->huge, (int)ours->group);
    const struct figure *b =
        figures_find(g->peer_row, "floor", ours->sessions, ours->huge, (int)ours->group);
    return a && b ? median_ratio(a, b) : -1;
}

static bool met(const struct goal *g, double value)
{
    return g->kind == AT_LEAST || g->kind == SCALES ? value >= g->limit : value <= g->limit;
}

static void judge(const struct goal *g, size_t sessions, bool huge, struct results *results)
{
    const struct figure *peer = figures_find(g->peer_row, g->peer, sessions, huge, ANY_GROUP);
    const struct figure *ours =
        peer ? figures_find(g->row, g->contender, sessions, huge, (int)peer->group) : NULL;
    double value = ours ? reached(g, ours, peer) : -1;
    if (huge && value < 0)
        return;
    const char *verdict = value < 0 ? "not measured" : met(g, value) ? "met" : "missed";
    char number[16] = "-";
    if (value >= 0)
        snprintf(number, sizeof number, "%.2f", value);
    printf("%-9zu %-40s %-5s %10.2f %10s  %s\n", sessions, g->text, huge ? "huge" : "4k", g->limit,
           number, verdict);
    results_goal(results, g->text, sessions, g->limit, value, verdict);
    results_text(results, "pages", huge ? "huge" : "4k");
    if (ours && floor_reaches(g, ours) >= 0)
        results_number(results, "floor", floor_reaches(g, ours));
}

void goals_judge(const size_t *sizes, size_t count, struct results *results)
{
    printf("\n%-9s %-40s %-5s %10s %10s  %s\n", "sessions", "goal", "pages", "limit", "reached",
           "verdict");
    for (size_t i = 0; i < sizeof goals / sizeof *goals; i++)
        for (size_t k = 0; k < count; k++) {
            if (sizes[k] < goals[i].from || sizes[k] > goals[i].to)
                continue;
            judge(&goals[i], sizes[k], false, results);
            if (goals[i].huge_too)
                judge(&goals[i], sizes[k], true, results);
        }
}
