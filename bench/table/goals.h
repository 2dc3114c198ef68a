/*
 * What the table should reach, as ratios within one run: judged from the figures, at every size
 * that was measured, and printed as met or missed.  The reasons stand in docs/performance.md.
 */
#ifndef BENCH_TABLE_GOALS_H
#define BENCH_TABLE_GOALS_H

#include "bench/table/figures.h"

/* SIZES in rising order. */
void goals_judge(const size_t *sizes, size_t count, struct results *results);

#endif
