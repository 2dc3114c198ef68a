/*
 * The busy neighbour: another process that touches random sessions, a thousand every millisecond,
 * until it is stopped.  What it missed it makes up for.
 */
#ifndef BENCH_PERSIST_NEIGHBOUR_H
#define BENCH_PERSIST_NEIGHBOUR_H

#include "bench/persist/stage.h"

struct neighbour {
    sesstab *table;
    size_t sessions;
    uint64_t seed;
    pid_t pid;
    _Atomic uint64_t touches;
};

/* Returns when it is at work. */
struct neighbour *neighbour_start(const struct stage *stage, uint64_t seed);
void neighbour_stop(struct neighbour *neighbour);

#endif
