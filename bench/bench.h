/*
 * What every benchmark shares: the clock, pinning, keys, and the statistics of rounds.
 *
 *   M1  A figure is the median of rounds; beside it stand the smallest and the largest round.
 *   M2  In each round every contender is measured once, one after the other, in alternating order,
 *       so that what disturbs the machine meets all of them.
 *   M3  A ratio is the median of the rounds' ratios, not the ratio of two medians.
 *   M4  Keys are made before the clock starts.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ROUNDS_MAX = 101, PLAYER_BYTES = 16 };

/* ---------------------------------------------------------------- errors ---------------- */

/* Says what went wrong and exits 1; what the sandbox holds is tidied up. */
void bench_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Who is at work, named by bench_fail(); NULL: nobody in particular. */
void bench_subject(const char *name);

/* What is being done: on a terminal a line that the next line of output covers; else nothing. */
void bench_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* calloc() that does not fail. */
void *bench_memory(size_t count, size_t size);

/* A positive number at most MAX, from the command line; WHAT names it when it is none. */
uint64_t bench_number(const char *text, uint64_t max, const char *what);

/* SESSTAB_SEED from the environment, or else 1: the same keys in every run. */
uint64_t bench_seed(void);

/* ---------------------------------------------------------------- the machine ----------- */

/* Nanoseconds of a clock that never goes back. */
uint64_t bench_clock(void);
void bench_pause_us(unsigned us);

/* Binds the calling thread, and what it starts, to the last processor that it may use; returns its
 * number. */
int bench_pin(void);

/* The processor for a second worker: the first that the program was given, unless that is the one
 * of bench_pin(); -1: there is only one. */
int bench_second_cpu(void);
void bench_pin_to(int cpu);

/* Lets another process, a server that a pinned program started, run on every processor again. */
void bench_unpin(pid_t pid);

/* Tells what the figures are measured on, fact by fact: "CPU" and its name, ... */
typedef void bench_fact_fn(const char *name, const char *text, void *context);
void bench_machine(bench_fact_fn *fact, void *context);

/* The same as comment lines; CPU < 0: nothing is pinned. */
void bench_describe_machine(int cpu);

/* ---------------------------------------------------------------- keys ------------------ */

/* splitmix64; every state is a good one. */
uint64_t bench_random(uint64_t *state);

/* Handles in the order in which they are used, and the player that each is bound to. */
struct keys {
    const uint64_t *handles;
    const char (*players)[PLAYER_BYTES];
    size_t count;
};

/* COUNT handles, uniform over FIRST .. FIRST + RANGE - 1. */
struct keys keys_uniform(size_t count, uint64_t first, uint64_t range, uint64_t seed);

/* COUNT handles of 1 .. RANGE by Zipf's law with exponent 0.99: a few are wanted very often.  Which
 * ones has nothing to do with their numbers. */
struct keys keys_zipf(size_t count, uint64_t range, uint64_t seed);
void keys_free(struct keys *keys);

/* The player of a handle's session. */
void player_of(uint64_t handle, char player[PLAYER_BYTES]);

/* ---------------------------------------------------------------- statistics ------------ */

struct spread {
    double median, min, max;
};

/* Of COUNT values (at least one), which are sorted by the call. */
struct spread spread_of(double *values, size_t count);

/* The value that a share of QUANTILE (0 to 1) of COUNT sorted values does not exceed. */
double quantile(const double *sorted, size_t count, double quantile);

/* M3: the median of A[i] / B[i]. */
double ratio_of(const double *a, const double *b, size_t count);

#ifdef __cplusplus
}
#endif
#endif
