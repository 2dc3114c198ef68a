/*
 * The two indexes, walked from outside.
 *
 * Each is one list in split order: two hashes are compared at their lowest differing bit, ties by
 * key.  Bucket b's head is part of the list with hash b; nodes have bit 63 set, so a head comes
 * before every node of its bucket.  A *run* is what lies between one head and the next.
 *
 *      head 0 -> node -> node -> head 2 -> node -> head 1 -> head 3 -> node -> end      (4 buckets)
 *
 * The order rises strictly but for equal keys, so a walk that checks it cannot go round for ever;
 * among equal keys it compares with where it was before.  In a live segment a walk may stray
 * through a node that is reused while we stand on it: what it then says is wrong has to be looked
 * at again.
 */
#ifndef TOOLS_SHMDUMP_INDEX_H
#define TOOLS_SHMDUMP_INDEX_H

#include "tools/shmdump_image.h"

struct index {
    const char *name;
    bool of_players;
    uint64_t heads;        /* offset of the bucket heads in the file                              */
    uint64_t buckets, max; /* in use; that there is room for                                      */
    uint64_t seed;
};

struct index index_of_handles(const struct image *image);
struct index index_of_players(const struct image *image);

uint64_t index_hash(const struct index *index, uint64_t key);
uint64_t player_key(uint32_t player_hash, slot_ref slot);

/* A position: a head or a node, and the link that leaves it. */
struct walk {
    const struct image *image;
    const struct index *index;
    bool at_head;
    uint32_t at;           /* the bucket or the reference                                         */
    struct node node;      /* when at a node                                                      */
    uint64_t hash, link;
    uint64_t equal_steps;  /* with one key; `met` was passed at their latest power of two         */
    uint32_t met;
    char wrong[160];       /* set when walk_next() could not go on, else ""                       */
};

/* Stands on the head of BUCKET.  False when that is not linked. */
bool walk_from(struct walk *walk, const struct image *image, const struct index *index,
               uint64_t bucket);

/* Goes one step; false at the end of the list, or when something is wrong. */
bool walk_next(struct walk *walk);

/* Negative, 0, positive: hash A stands before, at, behind hash B. */
int split_order(uint64_t a, uint64_t b);

/* A head that others may start from. */
#define HEAD_LINKED(word) ((word) != 0 && !((word) & LINK_CLAIMED))

/* The reference of the unmarked node with KEY (at AT unless 0), as a reader finds it; 0: none. */
uint32_t index_find(const struct image *image, const struct index *index, uint64_t key,
                    uint32_t at);

#endif
