/*
 * How a benchmark with Redis behind it speaks: a table of plain columns on standard output, the
 * same figures as JSON in a file, progress on standard error, and the goals at the end.
 *
 *   U1  Every line of the table is a figure in the file (bench/results.h), with its ratio.
 *   U2  Low and high are the least and the most of the rounds (bench.h, M1); the ratio is M3.
 *   U3  A run that is too small to judge (--smoke) states its goals and judges none.
 */
#ifndef BENCH_PERSIST_OUTPUT_H
#define BENCH_PERSIST_OUTPUT_H

#include "bench/bench.h"

#include <stdbool.h>
#include <stddef.h>

/* Of the benchmark of this name; tells what the machine is.  Nothing is pinned. */
void output_begin(const char *bench, bool judge);

/* What NAME means: KIND is "row" or "contender", or "" for a remark on the whole. */
void output_note(const char *kind, const char *name, const char *text);

/* The table's header. */
void output_header(void);

/* The goals; writes the file JSON (NULL: none). */
void output_end(const char *json);

/* What was measured: COUNT rounds, and the same rounds of what it is compared with, or NULL. */
struct figure {
    const char *row, *contender, *unit;
    size_t size, count;
    const double *rounds, *reference;
};
void output_figure(struct figure figure);

/* One measurement, without rounds. */
void output_single(const char *row, const char *contender, size_t size, const char *unit,
                   double value);

/* A goal for tables of SIZE sessions, that a VALUE is at most or at least LIMIT; kept until
 * output_end().  FORMAT says which. */
void goal_at_most(double value, double limit, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void goal_at_least(double value, double limit, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A bar on a terminal, else a line for each tenth; DONE == TOTAL ends it. */
struct progress {
    const char *what;
    size_t total;
    unsigned shown; /* tenths, once there is a line for them */
};
void progress_show(struct progress *progress, size_t done);

#endif
