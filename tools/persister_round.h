/*
 * Rounds: within one flush interval a session is written once, however often it changes.  What is
 * taken again meanwhile is kept here and given back when the next round begins.
 *
 *   taken       written in this round?  no: it is written   yes: kept, unless a ticket waits
 *   given back  in round_begin(): every interval, when the connection is gone, on leaving
 *
 *   O1  A slot that is kept is in the leader's hands (S1 in lib/store.h) until it is given back.
 */
#ifndef TOOLS_PERSISTER_ROUND_H
#define TOOLS_PERSISTER_ROUND_H

#include "lib/store.h"

#include <stddef.h>

struct round {
    struct store *store;
    uint64_t *written, *kept; /* a bit per slot */
    size_t words, kept_count;
};

void round_init(struct round *round, struct store *store);
void round_free(struct round *round);

/* Gives everything back: every session may be written once more. */
void round_begin(struct round *round);

/* Notes that IMAGE was written.  Without memory for that it may be written again: no harm. */
void round_written(struct round *round, const struct store_image *image);

/* True when IMAGE was written in this round and nobody waits for it: taken over. */
bool round_keep(struct round *round, const struct store_image *image);

#endif
