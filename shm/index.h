/*
 * The index: a lock-free hash from a key to a node, which doubles while everybody reads.
 *
 * A split-ordered list (Shalev, Shavit: "Split-Ordered Lists: Lock-Free Extensible Hash Tables",
 * J. ACM 53(3), 2006; liburcu's rculfhash is built on the same idea): one list, sorted so that
 * doubling the number of buckets only adds entry points to it; insertion and removal after Harris
 * (DISC 2001) and Michael (SPAA 2002).  References are 32-bit offsets instead of pointers, and the
 * bucket heads are in place: the array's word is the link.
 *
 *   order   by hash, compared from the lowest bit upwards; then by key.  A bucket's head sorts as
 *           its number, and below every node (whose hash has bit 63 set).
 *
 *      head 0 -> (..00) -> (..00) -> head 2 -> (..10) -> head 1 -> (..01) -> head 3 -> (..11) -> END
 *
 *   I1  A linked, unmarked node is reachable from head 0.
 *   I2  Among unmarked nodes of the index by handle no key stands twice.
 *   I3  A marked link never changes again.
 *   I4  Only a marked node is unlinked, and by a CAS of its unmarked predecessor.
 *
 * A node's end:  published (LIVE) -> marked -> unlinked -> RETIRED -> free.  Who marks it first makes
 * sure that it is LIVE; who unlinks it, or finds it unlinked after marking, retires it.
 *
 * A BUCKET HEAD is linked by the one who claimed it (two writers of one head.next could lose a node
 * between them):
 *
 *      0 --CAS--> CLAIMED, owner --store succ, CAS pred--> CLAIMED and linked --CAS--> linked
 *
 *   Everybody else goes by the nearest linked head above (bucket number without its top bit) and
 *   never waits.  A claim whose owner is gone is finished or taken back by index_recover_heads().
 *
 * A DAMAGED LIST ends a walk where the damage is: a link to what is no place, an order that does not
 * rise (so that nobody goes round in a circle), a tag that is not its target's, a birth in the future, a
 * mark on a session that lives.  Then nothing is linked, unlinked or freed by what was seen, and
 * index_lookup() answers INDEX_DAMAGED where the handle may stand behind it.
 *
 * All functions are called inside a read section.
 */
#ifndef SHM_INDEX_H
#define SHM_INDEX_H

#include "heap.h"

enum index_kind { INDEX_HANDLES, INDEX_PLAYERS };

/* ---------------------------------------------------------------- hashes -------------------- */

#define HASH_NODE (UINT64_C(1) << 63)
#define HASH_TAG(h) ((uint32_t)(h) & ((1u << LINK_TAG_BITS) - 1))

static inline uint64_t hash_of_handle(const struct shm *shm, uint64_t handle)
{
    return layout_hash(shm->hash_seed, handle) | HASH_NODE;
}

/* A hint's key starts with its player's hash. */
static inline uint64_t index_hash(const struct shm *shm, enum index_kind kind, uint64_t key)
{
    return kind == INDEX_HANDLES ? hash_of_handle(shm, key) : key | HASH_NODE;
}

/* Is A before B in the list's order, given that they differ? */
static inline bool hash_before(uint64_t a, uint64_t b)
{
    uint64_t differ = a ^ b;
    return !(a & differ & -differ);
}

/* ---------------------------------------------------------------- access -------------------- */

static inline atomic_u64 *index_buckets(struct shm *shm, enum index_kind kind)
{
    return kind == INDEX_HANDLES ? shm->handles : shm->players;
}

static inline struct index_head *index_head(struct shm *shm, enum index_kind kind)
{
    return kind == INDEX_HANDLES ? &shm->header->handles : &shm->header->players;
}

/* Buckets that there is room for. */
static inline uint64_t index_room(const struct shm *shm, enum index_kind kind)
{
    return kind == INDEX_HANDLES ? shm->at.handles_max : shm->at.players_max;
}

/* Of a hash, what names its bucket; never a bucket that there is no room for, whatever the header
 * says: room is a power of two. */
INLINE uint64_t index_mask(struct shm *shm, enum index_kind kind)
{
    return (load_relaxed(&index_head(shm, kind)->buckets) - 1) & (index_room(shm, kind) - 1);
}

static inline uint64_t index_size(struct shm *shm, enum index_kind kind)
{
    return index_mask(shm, kind) + 1;
}

static inline struct node *index_node(struct shm *shm, enum index_kind kind, uint32_t ref)
{
    return kind == INDEX_HANDLES ? (struct node *)slot_at(shm, (slot_ref){ ref })
                                 : hint_at(shm, (hint_ref){ ref });
}

/* The bucket's own head, or the nearest linked one above it. */
static inline atomic_u64 *index_start(struct shm *shm, enum index_kind kind, uint64_t bucket)
{
    atomic_u64 *heads = index_buckets(shm, kind);
    for (;;) {
        uint64_t w = load_acquire(&heads[bucket]);
        if (likely(w != 0 && !(w & LINK_CLAIMED)))
            return &heads[bucket];
        if (bucket == 0)
            return &heads[0];
        bucket &= ~(UINT64_C(1) << (63 - __builtin_clzll(bucket)));
    }
}

/* ---------------------------------------------------------------- reading ------------------- */

/* A walk along the list.  Set the wish, index_start_walk(), then index_advance() till it is true. */
struct walk {
    uint64_t hash, key; /* wish: the first node not before these; a hash without bit 63 comes before
                           every node that shares its lower bits                                   */
    bool past;          /* wish: nodes equal to (hash, key) count as before                        */
    bool unlink;        /* wish: unlink marked nodes on the way (writers)                          */
    bool to_head;       /* wish: stop at the head whose number is `hash`                           */
    bool at_head;       /* it is there                                                             */
    bool damaged;       /* the list is, before the place: there is no node, and nothing may be
                           concluded                                                               */
    uint64_t passed;    /* hash of the last place on the way                                       */
    uint32_t equals;    /* how often it came in a row                                              */
    atomic_u64 *from;   /* the link that leads to the place                                        */
    uint64_t word;      /* what it held                                                            */
    struct node *node;  /* the node there, protected; NULL: none, or by its tag a later one        */
    uint32_t ref;       /* of node                                                                 */
};

static inline void index_start_walk(struct context *c, enum index_kind kind, struct walk *w)
{
    w->from = index_start(c->shm, kind, w->hash & index_mask(c->shm, kind));
    w->word = load_acquire(w->from);
    w->passed = (uint64_t)(w->from - index_buckets(c->shm, kind));
    w->equals = 0;
    w->damaged = false;
}

/* Goes on from w->from.  False: disturbed (E4): start the walk again. */
bool index_advance(struct context *c, enum index_kind kind, struct walk *w);

/* To the node behind w->node; then index_advance() as above. */
static inline void index_step(struct walk *w)
{
    w->from = &w->node->next;
    w->word = load_acquire(w->from);
}

/* What index_lookup() answers when damage lies before the place: dead, and nobody's.  Who asks no
 * further takes it for a session that has ended. */
extern struct slot index_damaged;
#define INDEX_DAMAGED (&index_damaged)

/* The slot that WORD leads to, safe to read; false: not met by this process yet, or younger. */
INLINE bool index_slot_held(struct context *c, struct shm *shm, uint64_t word, struct slot **s)
{
    return slot_known(shm, (slot_ref){ LINK_REF(word) }, s) &&
           likely(load_acquire(&(*s)->node.birth) <= c->hi);
}

/*
 * The slot of a handle if it is the first or the second of its bucket, as nearly all are; false:
 * look for it.  (The first may be marked: see index_lookup_further().)
 */
INLINE bool index_lookup_near(struct context *c, struct shm *shm, uint64_t handle, struct slot **s)
{
    uint64_t hash = layout_hash(shm->hash_seed, handle);
    uint32_t usual = (uint32_t)LINK_WORD(0, HASH_TAG(hash), 0);
    uint64_t word = load_acquire(&shm->handles[hash & index_mask(shm, INDEX_HANDLES)]);
    if ((uint32_t)word != usual) {
        /* A flag is never before the lack of it. */
        if (word == 0 || !hash_before((uint32_t)word, usual) || !index_slot_held(c, shm, word, s))
            return false;
        word = load_acquire(&(*s)->node.next);
        if ((uint32_t)word != usual)
            return false;
    }
    return index_slot_held(c, shm, word, s) && likely(load_relaxed(&(*s)->node.key) == handle);
}

/* Wherever it is; NULL if there is none. */
struct slot *index_lookup_further(struct context *c, uint64_t handle);

/* The slot of a handle, NULL if there is none.  Its `current` says whether it lives. */
static inline struct slot *index_lookup(struct context *c, uint64_t handle)
{
    struct slot *s;
    return likely(index_lookup_near(c, c->shm, handle, &s)) ? s : index_lookup_further(c, handle);
}

/* ---------------------------------------------------------------- changing ------------------ */

/* Links NODE (owned, its key set).  False, and nothing was linked: a node of the same key is there
 * already, and is returned in *TWIN, unless DUPLICATES; or the list is damaged, and *TWIN is NULL. */
bool index_insert(struct context *c, enum index_kind kind, uint32_t ref, bool duplicates,
                  struct node **twin);

/*
 * Marks and unlinks the node and gives it to the reclaimer.  MINE: its life already says RETIRED by
 * this worker (hints); else it is LIVE (slots) and whoever moves it to RETIRED frees it.  In a damaged
 * list it stays as it is, marked: it might still be reached.
 */
void index_remove(struct context *c, enum index_kind kind, uint32_t ref, bool mine);

/* True when this very node can be reached; in a damaged list too, where nobody can tell. */
bool index_reaches(struct context *c, enum index_kind kind, uint32_t ref);

/* Finishes or takes back the claims of dead workers on the heads [from, to). */
void index_recover_heads(struct context *c, enum index_kind kind, uint64_t from, uint64_t to);

#endif
