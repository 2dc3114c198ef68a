/*
 * The rows: what is measured, in which unit, on which keys; and how a row is measured for the
 * contenders that are open, in rounds (bench.h, M1 to M4).
 *
 *   W1  Other contenders' rounds have emptied the caches.  A table that fits into them (at most
 *       100,000 sessions) is therefore looked at once before each measurement, and found as it is
 *       while it is in use; a larger one is found in memory, as it always is.
 *   W2  Alone and beside a writer, latency is taken of as many gets (fewer, if who waits for a lock
 *       would take too long), after the same look, in the same round, in alternating order.
 */
#ifndef BENCH_TABLE_ROWS_H
#define BENCH_TABLE_ROWS_H

#include "bench/table/figures.h"
#include "bench/table/partner.h"

enum measure {
    MEASURE_LOOP,    /* nanoseconds per operation                                             */
    MEASURE_RATE,    /* operations per microsecond of so many workers together                */
    MEASURE_LATENCY, /* each get on the clock, alone and beside a writer: quantiles of both     */
    MEASURE_BYTES    /* bytes per session                                                     */
};

enum key_kind {
    KEYS_PRESENT, /* uniform over all sessions                      */
    KEYS_ZIPF,    /* a few of them very often                       */
    KEYS_ABSENT,  /* handles that are not there                     */
    KEYS_WHOLE,   /* none: as many as there are sessions, for walks */
    KEY_KINDS
};

struct row {
    const char *name, *text;
    enum measure measure;
    enum operation operation;
    enum key_kind keys;
    unsigned workers; /* of a rate                      */
    bool huge;        /* measured again with huge pages */
};

extern const struct row rows[];
extern const size_t row_count;

/* The handles of a size. */
struct key_sets {
    struct keys of[KEY_KINDS];
};
struct key_sets key_sets_new(size_t sessions);
void key_sets_free(struct key_sets *sets);

/* A contender that is open. */
struct open_table {
    const struct contender *contender;
    void *table;
    struct partner *partner; /* NULL: there is none */
    uint64_t bytes;
};

struct circumstances {
    const struct key_sets *keys;
    size_t sessions, rounds;
    uint64_t ns;             /* of one measurement                                             */
    size_t count;            /* of operations in one of a loop instead, for a profiler; 0: by time */
    bool huge;
    unsigned group;
    struct results *results;
};

/* Measures the row for all COUNT tables that have it. */
void row_measure(const struct row *row, const struct open_table *tables, size_t count,
                 const struct circumstances *c);

#endif
