/*
 * The heap: slots, hints and blocks in chunks of 64 KiB that keep their class for ever.
 *
 * A place is free when its ownership word says so; nothing else does.  Who wants one claims it by a
 * CAS of that word (layout.h draws the states).  To find free ones quickly there are hints, and
 * losing or duplicating a hint costs time only:
 *   - each thread's magazines: places that were free when it last saw them;
 *   - a bit per page in struct chunk: the page may have free places.
 *
 *   P1  chunk class: UNUSED -> its class, by CAS, after the memory is committed; then for ever.
 *   P2  committed rises from n to n + 1 only when chunk n has its class, and the bits of its pages are
 *       set: who finds a class in chunk `committed` helps.
 *   P3  header.hinted is raised after a bit was set: who has found all chunks empty need not look into
 *       them again while it stands still.  (The setter killed in between, the sweep's heap_rehint()
 *       counts; and a claim for which there is no memory looks everywhere.)
 *
 * A growing thread may be killed between any two steps: memory committed but not used is committed
 * again by the next (it costs nothing), a class without `committed` is helped.
 */
#ifndef SHM_HEAP_H
#define SHM_HEAP_H

#include "rcu.h"

/* ---------------------------------------------------------------- the doors ----------------- */

/* Chunks in use, never more than there can be.  What was said once stays true for this process,
 * whatever becomes of the header: places in these chunks always have an address. */
uint64_t heap_chunks(struct shm *shm);

/* Bucket heads that are committed, of each index. */
struct heap_heads {
    uint64_t handles, players;
};
struct heap_heads heap_heads(struct shm *shm);

/* Heap bytes that are committed, at least OFFSET's when they are. */
static inline bool heap_holds(struct shm *shm, uint64_t offset, uint64_t bytes)
{
    if (likely(offset + bytes <= load_relaxed(&shm->limit)))
        return true;
    return offset + bytes <= heap_chunks(shm) * CHUNK_BYTES;
}

/*
 * The checked doors from a reference to an address: NULL when it leads outside the memory in use.
 * What lies there still has to say whose it is.
 */
static inline struct slot *slot_at(struct shm *shm, slot_ref r)
{
    uint64_t offset = (uint64_t)r.at * SLOT_BYTES;
    return likely(heap_holds(shm, offset, SLOT_BYTES)) ? (struct slot *)(shm->heap + offset) : NULL;
}

/* The same, but false too when this process has not met its chunk yet.  (Places don't straddle.) */
INLINE bool slot_known(struct shm *shm, slot_ref r, struct slot **s)
{
    uint64_t offset = (uint64_t)r.at * SLOT_BYTES;
    *s = (struct slot *)(shm->heap + offset);
    return likely(offset < load_relaxed(&shm->limit));
}

INLINE bool block_known(struct shm *shm, block_ref r, struct block **b)
{
    uint64_t offset = (uint64_t)r.at * BLOCK_UNIT;
    *b = (struct block *)(shm->heap + offset);
    return likely(offset < load_relaxed(&shm->limit));
}

static inline struct node *hint_at(struct shm *shm, hint_ref r)
{
    uint64_t offset = (uint64_t)r.at * HINT_BYTES;
    return likely(heap_holds(shm, offset, HINT_BYTES)) ? (struct node *)(shm->heap + offset) : NULL;
}

static inline struct block *block_at(struct shm *shm, block_ref r)
{
    uint64_t offset = (uint64_t)r.at * BLOCK_UNIT;
    return likely(heap_holds(shm, offset, BLOCK_UNIT)) ? (struct block *)(shm->heap + offset) : NULL;
}

static inline slot_ref slot_ref_of(const struct shm *shm, const struct slot *s)
{
    return (slot_ref){ (uint32_t)(((const uint8_t *)s - shm->heap) / SLOT_BYTES) };
}

static inline struct chunk *chunk_of(struct shm *shm, uint64_t offset)
{
    return &shm->chunks[offset / CHUNK_BYTES];
}

/* True when R names the place of a slot: for references that were stored, not just followed. */
bool slot_ref_valid(struct shm *shm, slot_ref r);
bool hint_ref_valid(struct shm *shm, hint_ref r);
bool block_ref_valid(struct shm *shm, block_ref r);

/* The dirty bit of a slot. */
static inline atomic_u64 *dirty_word(struct shm *shm, slot_ref r, uint64_t *bit)
{
    uint64_t offset = (uint64_t)r.at * SLOT_BYTES;
    unsigned page = (unsigned)(offset % CHUNK_BYTES / PAGE_BYTES), k = r.at % (PAGE_BYTES / SLOT_BYTES);
    *bit = UINT64_C(1) << (page % 4 * 16 + k % 16);
    return &chunk_of(shm, offset)->dirty[page / 4];
}

/* ---------------------------------------------------------------- classes ------------------- */

/* Bytes of a block of this class. */
static inline uint32_t class_bytes(unsigned class)
{
    return class == CHUNK_SESSIONS ? BLOCK_UNIT : 512u << (class - CHUNK_512);
}

/* Bytes of the block R, by its chunk's class; 0 when R is no block.  Its chunk is one that this process
 * has met. */
INLINE uint32_t block_bytes_known(struct shm *shm, block_ref r)
{
    uint64_t class = load_acquire(&chunk_of(shm, (uint64_t)r.at * BLOCK_UNIT)->class);
    if (class == CHUNK_SESSIONS)
        return r.at % (PAGE_BYTES / BLOCK_UNIT) >= 3 ? BLOCK_UNIT : 0;
    if (class < CHUNK_512 || class >= CHUNK_CLASSES)
        return 0;
    uint32_t bytes = class_bytes((unsigned)class);
    return (r.at & (bytes / BLOCK_UNIT - 1)) == 0 ? bytes : 0;
}

/* The same for any chunk. */
uint32_t block_bytes(struct shm *shm, block_ref r);

/* ---------------------------------------------------------------- claiming ------------------ */

/*
 * Each claims a free place for this worker: OWNED, its birth stamped, the rest as its last life left
 * it.  0, or ENOMEM (max_bytes is reached), ENOSPC (/dev/shm is full), ... ; grows the heap if need
 * be.  Inside a read section, which holds the place from now on, whoever replaces and retires it.
 */
int heap_claim_slot(struct context *c, slot_ref *slot);
int heap_claim_hint(struct context *c, hint_ref *hint);
int heap_claim_block(struct context *c, uint32_t bytes, block_ref *block);

/*
 * A claim has failed: finds everything that is free, or that the dead hold, and lets a grace period
 * pass.  Outside of read sections only, or else one's own section keeps the garbage; and a full
 * table's callers don't sweep without end.  True: it did, try the claim again.
 */
bool heap_relieve(struct context *c);

/* OWNED -> LIVE: what was claimed is published.  Anybody may help. */
static inline void own_publish(atomic_u64 *word)
{
    uint64_t w = load_relaxed(word);
    if (OWN_STATE(w) == OWN_OWNED)
        cas_exact(word, w, OWN_WORD(OWN_LIVE, 0, OWN_SEQ(w)));
}

/* Moves a place that is unreachable to RETIRED, from the exact word SEEN; the winner frees it. */
bool heap_retire(struct context *c, enum retired_kind kind, uint32_t ref, atomic_u64 *word,
                 uint64_t seen);

/* Gives a claimed place back that nobody else has ever seen: no grace period. */
void heap_unclaim(struct context *c, enum retired_kind kind, uint32_t ref);

/* A place became FREE: remembers it for the next claim. */
void heap_freed(struct context *c, enum retired_kind kind, uint32_t ref);

/* The thread ends: what its magazines know becomes everybody's. */
void heap_flush(struct context *c);

/* Sets and counts the bits of pages of chunk INDEX that have free places. */
void heap_rehint(struct shm *shm, unsigned chunk);

#endif
