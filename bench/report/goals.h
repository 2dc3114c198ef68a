/* The goals of a run, and what is to be said of those that were missed. */
#ifndef BENCH_REPORT_GOALS_H
#define BENCH_REPORT_GOALS_H

#include <stdio.h>

/* A benchmark's goals downwards, sizes across: what was reached, and the verdict. */
void print_goals(const char *bench);

/*
 * Those of all benchmarks that were missed, each with its explanation from the template, which is
 * read on up to a line "@end@":
 *
 *     ? how a goal begins
 *     text, any number of lines
 *
 * What stands there for a goal that was met is left out.
 */
void print_missed(FILE *template);

#endif
