/*
 * Time to live: every key of a session carries one, which the leader renews, so that the sessions
 * of a host that is gone end by themselves while those of a live one stay, however idle they are.
 *
 *   key                       given                              renewed
 *   record                    with the PUT that makes it (N5)    every third of the TTL
 *   metadata                  with each PUT that carries some    with the record
 *   active set (twice TTL)    with the first SADD of a batch     every third of the TTL
 *
 * The table is cut into PARTS, of which each has its own moment in every period:
 *
 *   connected       all parts, one slice after the other, between other work (a key may have little
 *                   time left, and --ttl may be another than it was): then
 *   period n        part i at (i / PARTS) of the period: what is idle costs its share and no more
 *
 *   N1  A part is renewed once per third of the TTL, so a session may miss one renewal and live.
 *   N2  Renewing is fenced: a stale leader neither lengthens nor shortens what its successor set.
 *   N3  A key that is durable by the table and is not there to be renewed was lost: its session is
 *       pushed whole.  A lost active set starts a comparison.
 *   N4  A session whose first write is still under way is not renewed: that write sets its time.
 *
 *   N5  No write makes a key that never ends, also if the key had run out unnoticed and nobody lives
 *       to mend it: EXPIRE stands in the same transaction, unless a whole walk has renewed all keys
 *       and five sixths of the TTL since it began are not over.  (A walk ends within two thirds of
 *       the beginning of the one before it; the last sixth is for the way to Redis.)  What a walk can
 *       miss all the same stands among the known limits of docs/design.md.
 *
 * With --ttl 0 the walk after connecting takes the time to live off every key; there is no other.
 */
#ifndef TOOLS_PERSISTER_RENEW_H
#define TOOLS_PERSISTER_RENEW_H

#include "tools/persister_batch.h"
#include "tools/persister_compare.h"

enum { TTL_MIN = 3, TTL_MAX = 10 * 365 * 86400, TTL_DEFAULT = 86400 };

struct renew {
    struct batch *batch;
    struct compare *compare;
    bool running, first;      /* the walk after connecting: no pauses                     */
    uint64_t since;           /* the parts' moments are counted from here                 */
    uint64_t parts_done;      /* since then                                               */
    uint64_t walk_began;
    bool part_open;
    sesstab_cursor cursor;    /* in the part                                              */
    bool set_missing;         /* there was no active set when this walk began             */
    bool refused;             /* said in this walk                                        */
    uint64_t renewed, lost;   /* in this walk                                             */
};

/* Begins the walk that follows a connect. */
void renew_start(struct renew *renew, struct batch *batch, struct compare *compare);

/* The connection is gone. */
void renew_stop(struct renew *renew);

/* True when a slice is due. */
bool renew_due(const struct renew *renew);

/* Renews what is due, up to a slice.  COMMITTED: fine, go on.  Never ABORTED. */
enum verdict renew_slice(struct renew *renew);

#endif
