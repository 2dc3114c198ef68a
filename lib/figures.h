/*
 * What a table holds and has counted, at a glance: for /metrics, /healthz and whoever else watches.
 *
 * Any thread of any process that has the table open may ask; a persister's lead is not needed.  The
 * table is walked, page by page, in a section each, so that nobody waits for it and it pins next to
 * nothing; a million sessions take some tenths of a second.  Each number is true of some moment of the
 * walk, not all of them of one.
 *
 *   DURABLE UNTIL.  The leader says of a moment: everything that was published before it has been
 *   taken and acknowledged (store_settle() in store.h).  A walk that finds nothing that lacks an
 *   acknowledgement says the same of the moment when it began.  The later of both is
 *   `durable_until`, and now - durable_until is never less than the age of the oldest change that is
 *   not durable, but for one whose worker is stopped between publishing and announcing it: that one is
 *   found by the store's sweep, within some ten seconds.
 */
#ifndef LIB_FIGURES_H
#define LIB_FIGURES_H

#include "lib/sesstab.h"

struct figures {
    uint64_t walked_at, walk_ms;           /* ms since the epoch, when it began; and how long it took */
    uint64_t sessions[SESSTAB_STATE_COUNT];
    uint64_t pending;                      /* bindings that wait for Redis                         */
    uint64_t not_durable;                  /* sessions and deletions that Redis has not acknowledged */
    uint64_t deletions;                    /* of these                                             */
    uint64_t damaged;                      /* records that cannot be read                          */
    uint64_t dirty, ring_entries;          /* announced and not yet taken: sessions; ring entries  */
    uint64_t tickets, oldest_ticket;       /* that wait; when it was posted, 0: there is none      */
    uint64_t workers;                      /* attached processes, the persisters among them        */
    uint64_t committed_bytes, limit_bytes; /* of the sessions' memory                              */
    uint64_t deaths, recovered, acknowledged, refused, detached, swept; /* since the table was made */
    uint64_t down_since;                   /* Redis is away since then; 0: it is not               */
    uint64_t durable_until;                /* ms since the epoch                                   */
    sesstab_mode mode;
    bool ready, led;                       /* led: some living persister is the leader             */
};

/* OK, or what sesstab_attach() returns. */
int figures_read(sesstab *table, struct figures *figures);

/* How long the oldest change that is not durable has waited at most at NOW, in ms; 0 in mode MEMORY, in
 * which none is to become durable. */
uint64_t figures_lag(const struct figures *figures, uint64_t now);

#endif
