/*
 * Batches: sessions are taken from the store, written to Redis as one fenced transaction, and the
 * store is told what became of each.
 *
 *   kind     commands
 *   PUT      [DEL record metadata]  HSET record ...  [HSET metadata ...]  [SADD active handle]
 *            and EXPIRE for each key that may be new by it (persister_renew.h)
 *   TOUCH    HSET record LastSeen ... and EXPIRE, as above
 *   DELETE   DEL record metadata    SREM active handle
 *
 *   outcome of an image        and then
 *   written                    store_ack
 *   Redis had lost its key     store_forget: it is pushed whole (a HSET that adds fields says so)
 *   refused, tickets wait      Redis is read back: an earlier attempt may have been applied.
 *                              A binding that is there: store_ack_binding; else store_refuse, unless
 *                              what is there would be refused with it.
 *                              Other changes: store_deny.  Who can't tell leaves it pending
 *   refused, nobody waits      quarantine (also what is not tried because Redis is full)
 *   unknown (dropped, fenced)  store_retry
 *   written in this round      kept until the next one
 *
 *   B1  Redis has one batch at a time; every image that was taken has one outcome when the call
 *       returns, or is in the quarantine.
 *   B2  A batch that Redis refuses as a whole is taken apart: deletions first (they free memory),
 *       then what was not itself refused, then each session with tickets alone.
 *   B3  While Redis executes a full batch of tickets, the next one is read and encoded (`ahead`).
 *       It goes out as soon as GET has shown the token after the first, before those who wait for
 *       the first are told.  Unless Redis took all of the first, the next is taken back: what it
 *       was read from may be rolled back, or what Redis had may be lost.
 */
#ifndef TOOLS_PERSISTER_BATCH_H
#define TOOLS_PERSISTER_BATCH_H

#include "tools/persister_fence.h"
#include "tools/persister_limit.h"
#include "tools/persister_quarantine.h"
#include "tools/persister_round.h"

enum { BATCH_MAX = 4096 };

/* What is written at once. */
struct hand {
    size_t count;
    struct store_image *images;
    struct outcome *outcomes;      /* of the images                       */
    bool set_renewed;              /* the active set's, in this one       */
    bool keys_are_there;           /* none has run out (N5)               */
    struct operation *operations;  /* the transaction's commands          */
    size_t operation_count;
    struct transaction transaction;
};

struct batch {
    sesstab *table;
    struct store *store;
    struct fence *fence;
    const char *prefix;
    unsigned ttl;                  /* seconds that a session's keys live; 0: for ever */
    uint64_t renewed_until;        /* no key runs out before (N5); 0: nobody knows    */
    size_t room;                   /* images in a hand, at most           */
    struct hand hand, ahead;       /* being written; B3                   */
    size_t allowance;              /* see quarantine_allowance()          */
    bool stuck;                    /* the last tickets were refused, and nothing could be said */
    struct quarantine quarantine;
    struct round round;
    uint64_t written, refused, lost; /* since batch_init() */
    struct limit limit;              /* of refused bindings that are logged */
    bool said_no_script;
};

/* ROOM images at a time; keys live for TTL seconds (0: for ever).  False: out of memory. */
bool batch_init(struct batch *batch, sesstab *table, struct store *store, struct fence *fence,
                const char *prefix, size_t room, unsigned ttl);
void batch_free(struct batch *batch);

/*
 * Takes up to MAX sessions and writes them, those that wait or were not written in this round yet;
 * *TAKEN is how many were taken, *KEPT how many of these were not tried.  COMMITTED also when there
 * was nothing to write.  Never ABORTED.
 */
enum verdict batch_write(struct batch *batch, size_t max, size_t *taken, size_t *kept);

/* Takes those with tickets, MAX in a batch, and writes them; as batch_write(). */
enum verdict batch_write_tickets(struct batch *batch, size_t max);

/* What is due with time: refused sessions go back, and refusals that were not logged are said.  To be
 * called every TICK_MS or so. */
void batch_tick(struct batch *batch);

/* Deletes HANDLES, which the table does not know, from Redis. */
enum verdict batch_remove(struct batch *batch, const uint64_t *handles, size_t count);

#endif
