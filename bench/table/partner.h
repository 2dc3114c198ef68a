/*
 * The second worker: a forked process, or for tables that threads share a thread, on a processor of
 * its own.  It sleeps but between begin and end.
 *
 *   main                        partner
 *   partner_begin: a job  --->  wakes, resumes, warms up, says running
 *   measures              ...   does the job, piece by piece
 *   partner_end: stop     --->  pauses, says what it did, sleeps
 */
#ifndef BENCH_TABLE_PARTNER_H
#define BENCH_TABLE_PARTNER_H

#include "bench/table/contender.h"

enum job {
    JOB_QUIT,
    JOB_MIX,   /* what mix-1 measures                           */
    JOB_HAMMER /* touches and sets on the sessions that are read */
};

struct partner;

/* NULL when there is no second processor, or nothing for a partner to do.  KEYS stay as they are;
 * so many of them are looked at to be warm. */
struct partner *partner_start(const struct contender *contender, void *table,
                              const struct keys *keys, size_t warm);

/* Returns when the partner is at work, on KEYS that were there when it started, after so many
 * operations to be WARM. */
void partner_begin(struct partner *p, enum job job, const struct keys *keys, size_t warm);

/* Returns when it sleeps: operations per microsecond that it did. */
double partner_end(struct partner *p);

/* Before the table is closed. */
void partner_stop(struct partner *p);

#endif
