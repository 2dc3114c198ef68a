/*
 * What the store's parts share.  Private to them:
 *
 *   store.c          open, close, who leads, the mode, losses, deaths
 *   store_ticket.c   who waits: bits, chains, answers
 *   store_take.c     sleeping, taking what changed, reading it
 *   store_verdict.c  what Redis acknowledged or refused
 *   store_sweep.c    what nobody announced; sessions whose owner died
 *   store_load.c     what Redis holds, into the table
 */
#ifndef LIB_STORE_INSIDE_H
#define LIB_STORE_INSIDE_H

#include "lib/store.h"
#include "lib/table.h"

struct sweep {
    bool running, thorough;  /* thorough: somebody died; as fast as it goes, and hints are set anew */
    bool again;              /* somebody died while it ran: a whole round more, after this one      */
    bool starved;            /* a session could not be detached for want of memory: soon again      */
    uint64_t chunk;
    int64_t started, next;   /* monotonic ms */
};

struct scan {
    bool running, again;     /* again: a whole round more, after this one */
    uint64_t chunk;
    unsigned word, bit;
};

/*
 * A ticket that was taken hangs on its image, in a chain, and is nobody else's until that image's end:
 * what becomes of an image costs as much as tickets wait for it, however many others wait.
 *
 *   waiting --store_take--> in the chain of an image --store_ack, _refuse, _retry, _forget or
 *      ^                                                _let_go--> answered, or
 *      +------------------------------------------------------------- waiting again
 *
 * A chain's number is never used again: that of an image which was let go leads nowhere.
 */
struct link {
    uint32_t next;                    /* index + 1 of the chain's next ticket; 0: none */
    uint32_t chain;                   /* 0: in none */
};

/* Where a take has put a session with tickets: by a hash of its slot. */
enum { PLACES = 2 * STORE_TAKE_MAX };
struct place {
    uint32_t take, image;
};

/* A stand-by's watch over the leader. */
struct vigil {
    uint64_t leader, beat;            /* as seen last */
    int64_t looked_at, silence_ms;
};

struct store {
    sesstab *table;
    uint64_t leading;                 /* header.leader as this store made it; 0: it never led */
    enum store_former former;
    worker_id superseded;             /* by this store, and not known to be dead; 0: nobody */
    struct vigil vigil;
    int64_t tickets_at;               /* when all tickets are looked at again; monotonic ms */
    uint64_t waiting[TICKETS / 64];   /* tickets that this leader knows to wait */
    struct link links[TICKETS];
    uint32_t chains, takes;           /* numbers of the latest ones */
    struct place places[PLACES];
    uint64_t answered[WORKERS / 64];  /* workers with answers of which they were not told yet */
    unsigned next_ticket;             /* where the next take begins: everybody gets a turn */
    unsigned next_ring;               /* the same for rings */
    bool tickets_left;                /* the last take had no room for all */
    struct scan scan;                 /* of the dirty bits */
    struct sweep sweep;
    uint32_t mode;                    /* header.mode as this leader knows it */
    uint64_t damaged;
};

/* The calling thread's context; NULL: none is left. */
struct context *store_context(struct store *s);

/* Somebody else has led since; a store that never led (a test's) is nobody's former leader. */
bool store_is_late(const struct store *s);

/* ---------------------------------------------------------------- tickets ------------------- */

/* The words of a bitmap by ticket in which there ever was one: threads' first, then groups'.  They only
 * become more. */
struct tickets_words {
    unsigned threads, all;
};
struct tickets_words tickets_words(const struct store *s);

/* The former leader may have died between a verdict and its bit, or before it woke anybody (H11). */
void tickets_wake_everybody(struct store *s);

/* Any bit may have been taken note of by who led before, or leads no more and does not know it yet. */
void tickets_look_at_all(struct store *s);

/* Takes note of those that were posted. */
void tickets_collect(struct store *s);

/* False: no more of them. */
typedef bool ticket_fn(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context);

/*
 * Calls FUNCTION for the tickets that wait and are in no chain, in turn from s->next_ticket, which
 * becomes the one that it stops at; forgets those that do not wait.
 */
void tickets_each_waiting(struct store *s, ticket_fn *function, void *context);

/* Calls FUNCTION for the tickets of IMAGE that still wait. */
void tickets_each_chained(struct store *s, const struct store_image *image, ticket_fn *function,
                          void *context);

/* Puts a ticket that waits into IMAGE's chain. */
void ticket_hang(struct store *s, struct store_image *image, unsigned index);

/* Answers it with VERDICT, if its word is still WORD. */
void ticket_say(struct store *s, unsigned index, uint64_t word, enum ticket_state verdict);

/* The answer that can be given already; WAITING if none can.  Inside a section. */
enum ticket_state ticket_judge(struct store *s, struct context *c, const struct ticket *k,
                               slot_ref r);

/*
 * What can be said about a binding's version, with the record B on top and DURABLE in Redis.  A ticket
 * may be posted long after its binding was published (its worker was stopped), so that versions alone
 * don't tell: the binding may have been rolled back, and another be durable by now.
 */
enum ticket_state ticket_judge_binding(uint64_t version, const struct block *b, uint64_t durable);

static inline enum ticket_kind ticket_kind_of(const struct ticket *k)
{
    return (enum ticket_kind)load_relaxed(&k->kind);
}

/* ---------------------------------------------------------------- changes ------------------- */

struct taking {
    struct context *c;
    struct store_image *images;
    size_t count, max;
};

/* Tickets wait, or the mode is another. */
bool store_urgent_work(const struct store *s);

void store_set_dirty(struct shm *shm, slot_ref r);

/* All dirty bits are looked at.  One that runs comes to its end first, or who begins anew all the time
 * would never come to what lies behind. */
void store_scan_everything(struct store *s);

/* Fills IMAGE from the slot's record; NULL when there is none that the store should hear of. */
const struct block *store_examine(struct store *s, struct context *c, struct slot *slot,
                                  struct store_image *image, uint64_t *current);

/* All sessions are looked at, as fast as it goes. */
void store_sweep_everything(struct store *s);

/* How many chunks of this round may have been swept by now; 0: no round is due. */
uint64_t store_sweep_allowed(const struct store *s);

/* A step of the sweep, a short one when somebody waits.  K: what is being taken; NULL: nobody can be
 * served. */
void store_sweep_some(struct store *s, const struct taking *k);

#endif
