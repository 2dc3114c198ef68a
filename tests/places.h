/*
 * Counts the heap's places (slots, hints, blocks) by what their ownership words say: what is pinned
 * is RETIRED and not yet FREE.
 */
#ifndef TESTS_PLACES_H
#define TESTS_PLACES_H

#include "shm/heap.h"

struct places {
    uint64_t count[4]; /* by enum own_state                                     */
    uint64_t bytes;    /* of those that are not FREE                            */
};

/* While others work it is a little blurred, each word being read for itself. */
struct places places_count(struct shm *shm);

#endif
