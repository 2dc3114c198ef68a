/*
 * What a benchmark found out, kept for a file that programs read.
 *
 *     [ {"bench": "table", "row": "get-view", "contender": "sesstab", "size": 1000, "unit": "ns",
 *        "median": 9.1, "low": 8.9, "high": 9.6, ...}, {"bench": "table", "fact": "CPU", ...} ]
 *
 * An array of objects without nesting; who reads it takes the keys that he knows.
 */
#ifndef BENCH_RESULTS_H
#define BENCH_RESULTS_H

#include "bench/bench.h"

#include <stdbool.h>

struct results;

/* Of the benchmark of this name. */
struct results *results_new(const char *bench);

/* One figure: what the row measured for a contender at a size. */
void results_figure(struct results *results, const char *row, const char *contender, uint64_t size,
                    const char *unit, struct spread figure);

/* One more number or text for what was added last. */
void results_number(struct results *results, const char *key, double number);
void results_text(struct results *results, const char *key, const char *text);

/* A goal, and whether it was reached: "met", "missed", "not measured". */
void results_goal(struct results *results, const char *goal, uint64_t size, double limit,
                  double reached, const char *verdict);

/* A fact about the run: the machine, who was left out and why. */
void results_fact(struct results *results, const char *name, const char *text);

/* All facts of bench_machine(). */
void results_machine(struct results *results);

/* Writes the file at PATH (nothing if it is NULL) and ends the results. */
void results_write(struct results *results, const char *path);

#endif
