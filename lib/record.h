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
    size_t value_length;
    const sesstab_pair *pairs;  /* entries of a new session                                        */
    size_t pair_count;
};

/* Bytes that the draft's record takes; may exceed SESSTAB_RECORD_MAX. */
size_t record_size(const struct draft *d);

/* Writes the record; BLOCK is claimed and large enough.  All but its own and birth. */
void record_write(const struct draft *d, struct block *block);

/* A draft of the very record B, to be edited.  False: B is damaged, or not the record of HANDLE. */
bool record_draft(struct shm *shm, const struct block *b, uint64_t handle, struct draft *d);

/*
 * Fills the parts of VIEW that B holds.  False: B is damaged, or not the record of HANDLE.  Reads the
 * fixed part only: two cache lines that lie side by side.
 */
bool record_view(struct shm *shm, const struct block *b, uint64_t handle, sesstab_view *view);

/* CURRENT names VERSION: its low bits. */
static inline bool current_is_of(uint64_t current, uint64_t version)
{
    const unsigned flags = 32 - CURRENT_VERSION_BITS;
    return ((uint32_t)current ^ (uint32_t)version << flags) < 1u << flags;
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
bool record_find(const uint8_t *metadata, size_t length, const char *key, size_t *at,
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

/* Does the binding in B still wait for Redis, seen the slot's durable word? */
static inline bool record_pending(struct shm *shm, uint64_t durable, const struct block *b)
{
    return shm->mode != MODE_MEMORY && b->bound_version != 0 &&
           (DURABLE_VERSION(durable) < b->bound_version ||
            DURABLE_INCARNATION(durable) != load_relaxed(&shm->header->incarnation));
}

/* The hash under which a player's sessions are found; never 0. */
uint32_t record_player_hash(const struct shm *shm, const char *player, size_t length);

#endif
