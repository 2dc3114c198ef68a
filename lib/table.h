/*
 * What the parts of libsesstab share: the table handle, the way from a public call to a change, and
 * the way from a change to the persister.  Private.
 *
 * EVERY CHANGE OF A LIVE SESSION is one function here, session_change():
 *
 *     find the slot -> read the record -> draft -> edit -> claim a block, write it
 *       -> CAS slot.current            COMMIT: everybody sees it
 *       -> new block LIVE, old block RETIRED
 *       -> announce                    the persister learns of it
 *
 *   killed before the CAS    the block is OWNED by a dead worker and unreachable: swept
 *   killed after it          the change is made; what is not announced, and the old block, are swept
 *
 * The old block is helped to LIVE before the CAS, so that LIVE and unreachable always means replaced.
 */
#ifndef LIB_TABLE_H
#define LIB_TABLE_H

#include "lib/record.h"
#include "lib/sesstab.h"
#include "shm/index.h"

struct sesstab {
    struct shm shm;
    struct tickets *tickets; /* the process's side of them: lib/ticket.c */
    int wait_ms;             /* as in sesstab_options */
};

/* errno value of shm/ -> sesstab_error */
int error_of(int error);

/* This thread's state, or an error to return. */
static inline struct context *context_for(sesstab *t, int *result)
{
    int error = 0;
    struct context *c = context_of(&t->shm, &error);
    if (unlikely(!c))
        *result = error_of(error);
    return c;
}

/* A change failed for want of memory, and after a look for what is free it may be tried again.  The
 * caller has left its section. */
static inline bool relieved(struct context *c, int result)
{
    if (unlikely(result == SESSTAB_NOMEMORY || result == SESSTAB_NOSPACE))
        return heap_relieve(c);
    c->relief_tries = 0;
    return false;
}

/* ---------------------------------------------------------------- reading ------------------- */

/*
 * The record in S, safe to read until the section ends; *CURRENT is the word it stands in.  NULL
 * when the slot is dead (or its block's reference or birth is damaged).
 */
static inline struct block *record_in(struct context *c, struct slot *s, uint64_t *current)
{
    for (;;) {
        *current = load_acquire(&s->current);
        block_ref r = CURRENT_BLOCK(*current);
        struct block *b = r.at ? block_at(c->shm, r) : NULL;
        uint64_t birth;
        /* E5: it was current just now, and its place keeps its kind, so that a birth that we have
         * announced is the true one. */
        if (!b || likely((birth = load_acquire(&b->birth)) <= c->hi))
            return b;
        rcu_extend(c);
        if (unlikely(birth > c->hi)) /* the era was read after it: damaged */
            return NULL;
    }
}

/*
 * For who comes by a stored reference and not by a link: makes the slot safe to read until the
 * section ends.  False: it holds no linked session.  A slot that its inserter has linked and not yet
 * called LIVE is helped.
 */
bool slot_hold(struct context *c, slot_ref r);

/* The view of a live session; NOTFOUND for a tombstone or a dead one. */
int session_view(struct context *c, struct slot *s, uint64_t handle, sesstab_view *view);

/*
 * The usual session_view(), without a call: a live session whose record the section holds already.
 * False: ask session_view().  (Without a record `current` leads to where no block is, and which is of
 * no handle.  A tombstone's flag makes it another version.)
 */
INLINE bool session_view_usual(struct context *c, struct shm *shm, struct slot *s, uint64_t handle,
                               sesstab_view *v)
{
    struct block *b;
    uint64_t durable = load_acquire(&s->durable), current = load_acquire(&s->current);
    if (unlikely(!block_known(shm, CURRENT_BLOCK(current), &b) || load_acquire(&b->birth) > c->hi))
        return false; /* E5 */
    v->pending = record_pending(shm, durable, b);
    v->last_seen = record_last_seen(s, b);
    return record_view(shm, b, handle, v) &&
           (current_differs(current, v->version) & ~(CURRENT_STORED | CURRENT_ACKED)) == 0;
}

/* ---------------------------------------------------------------- changing ------------------ */

struct change {
    struct slot *slot;
    const struct block *old;    /* the record that is being replaced                               */
    uint64_t durable;           /* the slot's durable word, read before the record                 */
    uint64_t version;           /* that the change will have, or has                               */
    uint64_t generation;        /* of the session                                                  */
    bool pending;               /* the old record's binding waits for Redis                        */
    bool acked;                 /* it was acknowledged once, or its caller was told OK at once;
                                   pending all the same if Redis lacks it, but nothing to be
                                   rolled back any more                                            */
};

/*
 * Edits a draft of the current record.  SESSTAB_OK publishes it; CHANGE_NONE returns OK without a
 * change; anything else is returned.  Called again when another writer was first.
 */
typedef int change_fn(struct context *c, const struct change *change, struct draft *draft,
                      void *arguments);
enum { CHANGE_NONE = -1 };

/* Changes a live session.  CHANGE unless NULL tells what was published, valid inside the caller's
 * own section. */
int session_change(sesstab *t, uint64_t handle, change_fn *edit, void *arguments,
                   struct change *change);

/* The same within a section, for a slot that is known; does not announce. */
int session_change_slot(struct context *c, struct slot *s, uint64_t handle, change_fn *edit,
                        void *arguments, struct change *change);

/* The next version's draft gets what every change must set. */
void draft_next(struct context *c, const struct change *change, struct draft *d);

/* Binds the draft to PLAYER (state LOGGED_IN) or, "", to nobody (CONNECTED).  FINAL: for good; else
 * it keeps what to roll back to. */
void draft_bind(struct context *c, const struct change *change, struct draft *d, const char *player,
                sesstab_state state, bool final);

/* Copies TEXT's length to *LENGTH if it is at most MAX; NULL counts as "". */
bool text_fits(const char **text, size_t max, uint8_t *length);

/* Inserts a session from DRAFT (handle, strings, metadata; version: the first, 0: the table's);
 * DURABLE: it is what Redis holds. */
int session_insert(struct context *c, struct draft *draft, uint64_t last_seen, bool from_store);

/* ---------------------------------------------------------------- announcing ---------------- */

/* Tells the persister that the slot changed: dirty bit, ring, wake. */
void announce(struct context *c, struct slot *s);

/* Wakes the persister; URGENT: also from its short sleep. */
void announce_wake(struct context *c, bool urgent);

/* ---------------------------------------------------------------- waiting ------------------- */

/* Whether a change of the calling thread is to wait now. */
static inline bool change_waits(const struct context *c, bool binding)
{
    enum header_mode mode = shm_mode(c->shm);
    if (mode == MODE_MEMORY || unlikely(c->class != SESSTAB_BY_MODE))
        return mode != MODE_MEMORY && c->class == SESSTAB_SYNCHRONOUS;
    return mode == MODE_WRITE_THROUGH || (binding && mode == MODE_SELECTIVE);
}

/* Posts a ticket and waits, as long as the thread's class, or else the table's options, say; as
 * ticket_await(). */
struct wanted;
int change_await(sesstab *t, const struct wanted *wanted);

/*
 * Waits for a change that was just published.  If Redis refuses it UNDO takes it back: an edit that
 * returns CHANGE_NONE where nothing of the change stands any more, nor can come back, and CONFLICT where
 * nobody can tell.  As ticket_await(); REFUSED only when nothing of it stands, nor ever will.
 */
int change_settle(sesstab *t, uint64_t handle, const struct change *change, change_fn *undo,
                  void *arguments);

/* ---------------------------------------------------------------- players ------------------- */

/*
 * The index by player.  Its entries are hints: key {player hash, slot}, checked against the record.
 *
 *   hint_arm       before a binding is published: makes sure that the hint exists and that no
 *                  collector takes it: life = {LIVE, this worker}
 *   hint_settle    afterwards: life = {LIVE, nobody}
 *   hint_collect   takes the hint out if it is settled (or its worker is dead) and stale
 *
 * Two binders of one player to one slot at once have a hint each: a collector can't mistake one's
 * settling for the other's.
 */
int hint_arm(struct context *c, uint32_t player_hash, slot_ref slot, hint_ref *hint);
void hint_settle(struct context *c, hint_ref hint);
void hint_collect(struct context *c, uint32_t player_hash, slot_ref slot);

/* Makes sure that the record's player has a hint: for what a death between a load and its hint left.
 * False: no memory. */
bool hint_restore(struct context *c, const struct block *b, slot_ref slot);

#endif
