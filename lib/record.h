/*
 * A session's record as bytes: reading a block, and writing the next one.
 *
 *   struct block | player NUL | address NUL | host NUL | type NUL | [acked NUL] | metadata ...
 *
 * A record is never changed in place.  A change fills a draft from the current record, edits the
 * draft, claims a block of the draft's size and writes it there; its strings may point into the old
 * record, which the read section keeps.
 */
#ifndef LIB_RECORD_H
#define LIB_RECORD_H

#include "lib/sesstab.h"
#include "shm/heap.h"

#include <string.h>

struct draft {
    struct block head;          /* but for own, birth and what record_write() computes            */
    const char *player, *address, *host, *type, *acked;
    uint64_t acked_version;     /* if ACKED: at which the last acknowledged binding was made       */
    const uint8_t *metadata;    /* what is kept of the old metadata ...                            */
    uint32_t metadata_length;
    uint32_t drop_at, drop_length; /* ... but for these bytes of it                                */
    const char *key;            /* one entry to add; NULL: none                                    */
    const void *value;
    size_t key_length, value_length;
    uint64_t key_version;       /* of that entry; 0: the change's                                  */
    size_t pair_count;
    const sesstab_pair *pairs;  /* entries of a new session                                        */
    size_t pairs_size;          /* record_pairs_size() of them                                      */
};

/* gcc 12 would clear it by `rep stos`, which is slow to start: so it shall not know its size. */
static inline void draft_clear(struct draft *d)
{
    size_t bytes = sizeof *d;
    __asm__("" : "+r"(bytes));
    memset(d, 0, bytes);
}

/* Bytes that so many entries take. */
size_t record_pairs_size(const sesstab_pair *pairs, size_t count);

/* Bytes that the draft's record takes; may exceed SESSTAB_RECORD_MAX. */
size_t record_size(const struct draft *d);

/* Writes the record; BLOCK is claimed and large enough.  All but its own and birth. */
void record_write(const struct draft *d, struct block *block);

/* A draft of the very record B, to be edited.  False: B is damaged, or not the record of HANDLE. */
bool record_draft(struct shm *shm, const struct block *b, uint64_t handle, struct draft *d);

/* Who copies all of B asks for the lines behind the fixed part while that is on its way: where in
 * them the parts lie is known too late.  (A record of the usual size has no more.) */
INLINE void record_prefetch_rest(const struct block *b)
{
    __builtin_prefetch((const char *)b + 128);
    __builtin_prefetch((const char *)b + 192);
}

/* Loaded once: who scribbles on the record can't come between a check and what relies on it. */
#define once(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/*
 * Points V at the parts of the record B, whose fixed part is H: itself, or a copy.  False: they are
 * not in order, or not within B's block.  (The smallest block needs no look at its chunk's class.)
 */
INLINE bool record_parts(struct shm *shm, const struct block *h, const struct block *b, sesstab_view *v)
{
    v->player = (const char *)(b + 1);
    v->address = v->player + v->player_length + 1;
    v->host = v->address + once(h->address_length) + 1;
    v->type = v->host + once(h->host_length) + 1;
    const char *end = v->type + once(h->type_length) + 1;
    if (unlikely(once(h->flags) & BLOCK_ACKED))
        end += once(h->acked_length) + 1 + ACKED_VERSION_BYTES;
    uint32_t size = once(h->size), at = once(h->metadata_at);
    v->metadata_ = end;
    v->metadata_length_ = size - at;
    if (unlikely(end != (const char *)b + at || size < at || v->state >= SESSTAB_STATE_COUNT))
        return false;
    if (likely(size <= BLOCK_UNIT))
        return true;
    block_ref r = { (uint32_t)((uint64_t)((const uint8_t *)b - shm->heap) / BLOCK_UNIT) };
    return size <= block_bytes_known(shm, r);
}

/* A record and a view have these in common, in the same order. */
enum { VIEW_FIXED = offsetof(sesstab_view, last_seen) };
_Static_assert(VIEW_FIXED == offsetof(struct block, address_length) - offsetof(struct block, handle) &&
               offsetof(sesstab_view, version) == offsetof(struct block, version) - 16 &&
               offsetof(sesstab_view, owner) == offsetof(struct block, owner) - 16 &&
               offsetof(sesstab_view, state) == offsetof(struct block, state) - 16,
               "what a view copies stands in a record as in a view");

/*
 * Fills the parts of V that B holds.  False: B is damaged, or not the record of HANDLE.  Reads the
 * fixed part only: two cache lines that lie side by side.
 */
INLINE bool record_view(struct shm *shm, const struct block *b, uint64_t handle, sesstab_view *v)
{
    memcpy(v, &b->handle, VIEW_FIXED);
    return likely(v->handle == handle) && record_parts(shm, b, b, v);
}

/* The flags of CURRENT, and in the bits above whatever makes it another's than VERSION's word. */
INLINE uint32_t current_differs(uint64_t current, uint64_t version)
{
    return (uint32_t)current ^ (uint32_t)CURRENT_WORD((block_ref){ 0 }, version, 0);
}

/* CURRENT names VERSION: its low bits. */
static inline bool current_is_of(uint64_t current, uint64_t version)
{
    return current_differs(current, version) < 1u << (32 - CURRENT_VERSION_BITS);
}

/* B is the very record that CURRENT, which led to it, means; a tombstone's version is one more. */
static inline bool record_is_current(uint64_t current, const struct block *b)
{
    return current_is_of(current, b->version + ((current & CURRENT_TOMB) != 0));
}

/* The strings end where their lengths say: for who reads them all anyway. */
bool record_terminated(const sesstab_view *view);

/* The metadata too is what it says: for who carries the record elsewhere. */
bool record_whole(const sesstab_view *view);

/* One metadata entry, unpacked. */
struct entry {
    const char *key;
    const uint8_t *value;
    size_t key_length, value_length, bytes; /* bytes: the whole entry                              */
    uint64_t version;
};

/* The entry at *AT of LENGTH bytes of metadata; moves *AT behind it.  False: no more, or, if *AT is not
 * LENGTH, damaged. */
bool record_entry(const uint8_t *metadata, size_t length, size_t *at, struct entry *entry);

/* Finds KEY; *AT is where its entry starts, or, without one, where the entries end: see above. */
bool record_find(const uint8_t *metadata, size_t length, const char *key, size_t key_length, size_t *at,
                 struct entry *entry);

/* The last_seen that counts: the slot's word is a hint that can lag, never lead. */
static inline uint64_t record_last_seen(const struct slot *s, const struct block *b)
{
    uint64_t seen = load_relaxed(&s->last_seen), durable = load_relaxed(&s->durable_seen);
    /* What Redis acknowledged of the handle's earlier session is not this one's. */
    if (seen < durable && DURABLE_VERSION(load_relaxed(&s->durable)) >= b->born_version)
        seen = durable;
    return seen < b->connected_at ? b->connected_at : seen;
}

/* Does Redis lack the binding in B, seen the slot's durable word? */
static inline bool record_unwritten(struct shm *shm, uint64_t durable, const struct block *b)
{
    return b->bound_version != 0 &&
           (DURABLE_VERSION(durable) < b->bound_version ||
            DURABLE_INCARNATION(durable) != load_relaxed(&shm->header->incarnation));
}

/* Does it wait for Redis?  In mode MEMORY nothing does. */
static inline bool record_pending(struct shm *shm, uint64_t durable, const struct block *b)
{
    return record_unwritten(shm, durable, b) && shm_mode(shm) != MODE_MEMORY;
}

/* The hash under which a player's sessions are found; never 0. */
uint32_t record_player_hash(const struct shm *shm, const char *player, size_t length);

#endif
