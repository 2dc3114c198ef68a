/*
 * Redis against a table that survived, in slices, so that bindings are not delayed:
 *
 *   1  every session that claims to be durable: its hash has its generation, version and
 *      last-seen, its metadata are as many, it is in the active set.  Else it is pushed whole.
 *   2  every handle in the active set that the table does not know: it is removed from Redis, but
 *      for a hash that cannot be understood, which is for people to look at.
 *
 * Nothing is written to Redis within a slice but what the slice itself decides, so a claim that was
 * read before Redis was asked stays comparable.
 */
#ifndef TOOLS_PERSISTER_COMPARE_H
#define TOOLS_PERSISTER_COMPARE_H

#include "tools/persister_batch.h"
#include "tools/persister_scan.h"

enum { COMPARE_SLICE = 128 };

struct compare {
    struct batch *batch;
    enum { COMPARE_OFF, COMPARE_TABLE, COMPARE_REDIS } phase;
    sesstab_cursor cursor;
    struct scan scan;
    bool claims_only;
    uint64_t started_at, compared, repaired, removed, strange;
    char denied[200];        /* by what permission Redis could not be asked; "" it could */
};

/* Begins; one that runs is begun anew.  CLAIMS_ONLY: without the second part. */
void compare_start(struct compare *compare, struct batch *batch, bool claims_only);

/* Drops one that runs: the connection is gone. */
void compare_stop(struct compare *compare);

bool compare_running(const struct compare *compare);

/* One slice.  COMMITTED: fine, go on. */
enum verdict compare_slice(struct compare *compare);

#endif
