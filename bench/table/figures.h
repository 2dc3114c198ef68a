/*
 * The figures of a run: one for each row, contender, size and kind of pages, with all its rounds.
 *
 * Contenders that don't fit into memory together are measured in groups, one group after the other,
 * sesstab in each: figures are compared with those of their own group only, and of sesstab's several
 * figures the first is the one that is shown.
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

/* Keeps a figure. */
void figures_add(const struct figure *f);

/* Prints those that came since the last call, beside those that they are compared with, and adds
 * them to RESULTS; but only the first of several of the same. */
void figures_show(struct results *results);

/* The first that fits; of GROUP unless that is ANY_GROUP.  NULL: none was measured. */
enum { ANY_GROUP = -1 };
const struct figure *figures_find(const char *row, const char *contender, size_t sessions,
                                  bool huge, int group);

double figure_median(const struct figure *f);

#endif
