/*
 * The rows of persist_bench, one file for each group.
 *
 *   bind.c    how long a bind takes, persister asleep and busy; how many a second, by many callers
 *   tickets.c how many a second by one event loop that does not wait
 *   drain.c   how fast a backlog goes out; a million touches a second; what the persister costs
 *   load.c    a fresh table is filled from Redis; a Redis that lost everything is filled again
 */
#ifndef BENCH_PERSIST_ROWS_H
#define BENCH_PERSIST_ROWS_H

#include "bench/persist/output.h"
#include "bench/persist/stage.h"

enum { SIZES_MAX = 8, SAMPLES_MAX = 10000, CALLERS_MAX = 64, OUTSTANDING_GOAL = 1000 };

struct plan {
    size_t sizes[SIZES_MAX], size_count;
    size_t rounds;
    size_t samples;    /* of a latency in a round                            */
    unsigned ms;       /* of a round in which something is counted           */
    unsigned idle_ms;  /* of watching a persister that has nothing to do     */
    size_t fill;       /* sessions that are loaded and written again; 0: not */
    uint64_t seed;
};

void row_bind(struct stage *stage, const struct plan *plan);
void row_callers(struct stage *stage, const struct plan *plan);
void row_tickets(struct stage *stage, const struct plan *plan);
void row_drain(struct stage *stage, const struct plan *plan);
void row_idle(struct stage *stage, const struct plan *plan);
void row_touches(struct stage *stage, const struct plan *plan);

/* Every player is a new one: a bind that changes nothing is no bind. */
enum { NAME_BYTES = 32 };
void new_player(char player[NAME_BYTES]);

/* Calls a second by COUNT threads that wait for each: HSETs on a connection each, or, without any
 * CONNECTIONS, binds. */
double rate_of_callers(struct stage *stage, redisContext **connections, size_t count, unsigned ms);

/* On a stage of its own. */
void row_load(const struct plan *plan);

#endif
