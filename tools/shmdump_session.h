/*
 * Consistent copies of sessions, taken from outside while others change them.
 *
 * A record never changes while its slot's `current` names it, and `current` never has the same
 * value twice within 2^30 changes.  So: read the slot, read the record, read the slot again; the
 * same `current` on both sides proves that the record was whole in between.
 */
#ifndef TOOLS_SHMDUMP_SESSION_H
#define TOOLS_SHMDUMP_SESSION_H

#include "tools/shmdump_image.h"

enum session_kind {
    SESSION_NONE,     /* a free place, or a session that is just ending or beginning             */
    SESSION_LIVE,
    SESSION_CLAIMED,  /* as LIVE, but its slot is only OWNED: it counts if the index has it       */
    SESSION_TOMB,     /* removed, Redis must still learn                                          */
    SESSION_DAMAGED,  /* `why` says how                                                           */
    SESSION_MOVING    /* it changed each time that we looked                                      */
};

struct bytes {
    const char *at;
    size_t length;
};

struct session {
    enum session_kind kind;
    slot_ref ref;
    uint64_t place;            /* of the slot in the file                                         */
    struct slot slot;          /* as it was after the record was read                             */
    struct block block;        /* valid for LIVE, CLAIMED and TOMB                                */
    struct bytes player, address, host, type, acked;
    uint64_t version;          /* the tombstone's own, for a tombstone                            */
    uint64_t last_seen;
    bool durable, pending, dirty, touched; /* touched: Redis has an older last_seen               */
    char why[160];
    uint8_t record[SESSTAB_RECORD_MAX];
};

/* Reads the session in slot REF into *SESSION; returns its kind. */
enum session_kind session_read(const struct image *image, slot_ref ref, struct session *session);

/*
 * The N-th metadata entry: *OFFSET starts at 0.  False at the end.
 */
struct entry {
    struct bytes key, value;
    uint64_t version;
};
bool session_metadata(const struct session *session, size_t *offset, struct entry *entry);

/* The slot's dirty bit is set: some ring or scan will lead the persister to it. */
bool slot_dirty(const struct image *image, slot_ref ref);

const char *state_name(unsigned state);

#endif
