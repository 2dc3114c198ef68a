/*
 * The figures of a run: one for each row, contender, size and kind of pages, with all its rounds.
 *
 * Contenders that don't fit into memory together are measured in groups, one group after the other,
 * the references in each: figures are compared with those of their own group only, and of a
 * reference's several figures the first is the one that is shown.
 */
#ifndef BENCH_TABLE_FIGURES_H
#define BENCH_TABLE_FIGURES_H

#include "bench/results.h"

enum { ROW_NAME_MAX = 24 };

struct figure {
    char row[ROW_NAME_MAX];
    const char *contender, *unit;
    size_t sessions;
    bool huge;               /* after huge pages were asked for */
    unsigned group;
    size_t rounds;
    double values[ROUNDS_MAX]; /* by round */
};

void figures_print_header(void);

/* Keeps the figure; prints it and adds it to RESULTS but for a reference's of a later group. */
void figures_add(const struct figure *f, struct results *results);

/* The first that fits; of GROUP unless that is ANY_GROUP.  NULL: none was measured. */
enum { ANY_GROUP = -1 };
const struct figure *figures_find(const char *row, const char *contender, size_t sessions,
                                  bool huge, int group);

double figure_median(const struct figure *f);

#endif
