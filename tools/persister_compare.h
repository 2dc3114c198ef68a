/*
 * Redis against a table that survived, in slices, so that bindings are not delayed:
 *
 *   1  every session that claims to be durable: its hash has its generation, version and
 *      last-seen, its metadata are as many, it is in the active set.  Else it is pushed whole.
 *   2  every handle in the active set that the table does not know:
 *
 *      policy   it is
 *      table    removed from Redis, but for a hash that cannot be understood, which is for people
 *      redis    adopted: loaded, detached, if it cannot be a session that ended here; else left
 *
 * That is what follows each connect.  A thorough one, which is asked for, compares every field, and
 * in a third part does with keys that are not in the active set what 2 does with members.
 *
 * When that is done, the first part goes on for ever, slowly: a key that somebody deleted, or that
 * Redis evicted, is there again after a second where sessions are few, 13 minutes for a million.
 *
 * Nothing is written to Redis within a slice but what the slice itself decides, so a claim that was
 * read before Redis was asked stays comparable.
 *
 * Adopting must not bring back what was removed and whose removal was acknowledged (H12), and a
 * table forgets what that was, while Redis may have gone back to an older copy.  So:
 *
 *   A1  Before anything is adopted, the generations up to the highest in Redis are reserved
 *       (store_reserve()).  What is adopted has one of those that this table had never given to
 *       anybody or loaded: it never was here.  What is older is left, and said.
 *   A2  Redis is read after the table said that it does not know the handle, in one slice; a handle
 *       that is inserted meanwhile, or is a tombstone, wins.
 *   A3  No handle is adopted twice in one comparison: what was adopted may have ended since, and Redis
 *       have gone back, on this very connection.  (In the next one A1 excludes it.)  A fence around
 *       the reading would not do: where memory is short, it does not see that Redis went back.
 */
#ifndef TOOLS_PERSISTER_COMPARE_H
#define TOOLS_PERSISTER_COMPARE_H

#include "tools/persister.h"
#include "tools/persister_batch.h"
#include "tools/persister_scan.h"

enum {
    COMPARE_SLICE = 128,
    COMPARE_SLOWLY_MS = 100 /* from one slice to the next, when nothing hurries */
};

struct compare {
    struct batch *batch;
    enum { COMPARE_OFF, COMPARE_TABLE, COMPARE_RESERVE, COMPARE_REDIS, COMPARE_KEYS } phase;
    sesstab_cursor cursor;
    struct scan scan;
    bool claims_only, thorough, slowly;
    uint64_t due;                 /* slowly: when the next slice is; 0: never                  */
    bool complete;                /* it came to its end                                        */
    enum policy policy;           /* to be set once; what follows is of the one that runs       */
    uint64_t max_generation;      /* RESERVE: in Redis, of what the table does not know         */
    uint64_t first_new;           /* RESERVE: the first generation that was new to the table   */
    void *adoptees;               /* handles that this comparison adopted (A3): tsearch()'s    */
    unsigned said;                /* differences that were logged                              */
    /* What was found: `compared` claims, of which `repaired` were not so in Redis: */
    uint64_t started_at, compared, repaired, only_table, in_flight, owner_gone;
    uint64_t only_redis, removed, adopted, left, strange; /* what only Redis has, and its fate */
    uint64_t untold;              /* that Redis did not let us read                            */
    uint64_t scanned;             /* handles that Redis has named, for progress                */
    char denied[200];        /* by what permission Redis could not be asked; "" it could */
};

/* Begins; one that runs is begun anew.  CLAIMS_ONLY: without the second part. */
void compare_start(struct compare *compare, struct batch *batch, bool claims_only);

/* The same, thoroughly. */
void compare_thoroughly(struct compare *compare, struct batch *batch);
/* Begins the one that goes on for ever. */
void compare_slowly(struct compare *compare, struct batch *batch);

/* Drops one that runs: the connection is gone. */
void compare_stop(struct compare *compare);

/* One that hurries is under way. */
bool compare_running(const struct compare *compare);

/* A slice is to be run now. */
bool compare_due(const struct compare *compare);

/* One slice.  COMMITTED: fine, go on. */
enum verdict compare_slice(struct compare *compare);

#endif
