/*
 * A table, seen from outside, against Redis: every session, field by field, and everything in Redis
 * that the table does not have.  Both may be in use meanwhile.
 *
 *   1  every session of the table      against its record, metadata and membership
 *   2  every member of the active set  that the table does not have
 *   3  every key of a session          that neither the table has nor the active set
 *
 * The leader writes what changes, so a session that changes is not the same on both sides for a
 * while.  That is no difference.  A look is: read the session, ask Redis, read the session again.
 *
 *   before, after                      the answer in between
 *   durable, the very same version     must be that version (last-seen only if that is durable too)
 *   none in the table                  must be nothing
 *   anything else                      in flight: it says nothing
 *
 *   M1  What is not equal is looked at again, after pauses that grow; it is a difference when LOOKS
 *       in a row say so, and in flight when TRIES are used up before.
 *   M2  Memory is bounded: sessions and members are asked for in slices, and at most SUSPECTS wait
 *       to be looked at again.
 *   M3  Nothing is written, neither to the table nor to Redis.
 */
#ifndef TOOLS_SHMDUMP_COMPARE_H
#define TOOLS_SHMDUMP_COMPARE_H

#include "tools/persister_diff.h"
#include "tools/shmdump_image.h"

struct comparison {
    struct image *image;
    struct redis *redis;   /* connected */
    const char *prefix;
    difference_fn *report; /* called for each difference */
    void *context;
    /* How many sessions, when it is over; `strange` members and keys are no sessions at all. */
    uint64_t equal, only_table, only_redis, different, in_flight, owner_gone, damaged, strange;
    char why[300];         /* when it could not be done */
};

/* False: it could not be done, or not to its end. */
bool compare_with_redis(struct comparison *comparison);

/* True when there is nothing to do. */
bool comparison_equal(const struct comparison *comparison);

#endif
