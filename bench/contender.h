/*
 * The tables that table_bench compares: each is a list of operations on sessions 1 .. N.
 *
 * An operation does the same work in every table, keys->count times, and returns a sum of what it
 * read, so that no compiler can leave the reading out.  What a table does not have is NULL.
 *
 *   sesstab   a record of 104 bytes and its strings and metadata, found by all processes
 *   lfht      liburcu's cds_lfht, memb flavour: 192-byte records, in one process's private memory
 *   seqlock   open addressing in shared memory, 192-byte records, a sequence lock per slot: the
 *             floor of what sharing costs.  A writer that dies in it stops everybody
 */
#ifndef BENCH_CONTENDER_H
#define BENCH_CONTENDER_H

#include "bench/bench.h"

/* X(function, row, what one operation is) */
#define OPERATIONS(X)                                                                              \
    X(GET_VIEW, "get-view", "find a session, read two words of its record in place")               \
    X(GET_COPY, "get-copy", "find a session, copy its record out")                                 \
    X(GET_MISS, "get-miss", "look for a session that is not there")                                \
    X(GET_DEPENDENT, "get-dependent", "as get-view, each handle depending on the record before")   \
    X(TOUCH, "touch", "raise last-seen (8 bytes)")                                                 \
    X(TOUCH_DIRTY, "touch-dirty", "the same where Redis is to learn of it and has not yet")        \
    X(METADATA_SET, "metadata-set", "replace a 16-byte value; readers see the old or the new")     \
    X(INSERT_REMOVE, "insert+remove", "a new session comes and goes, reclaiming included")         \
    X(SCAN, "scan", "walk over all sessions, reading two words of each; per session")              \
    X(BY_PLAYER, "by-player", "find the sessions of a player by name; each has one")

enum operation {
#define X(name, row, text) OPERATION_##name,
    OPERATIONS(X)
#undef X
    OPERATION_COUNT
};

typedef uint64_t operation_fn(void *table, const struct keys *keys);

struct contender {
    const char *name;
    void *(*open)(size_t sessions); /* filled with sessions 1 .. SESSIONS */
    void (*close)(void *table);
    operation_fn *operations[OPERATION_COUNT];
};

extern const struct contender sesstab_contender, lfht_contender, seqlock_contender;

/* ---------------------------------------------------------------- the sessions ---------- */

/* What a usual session holds, besides its player: about 200 bytes of fields. */
#define USUAL_ADDRESS "203.0.113.7"
#define USUAL_HOST "dsl-7.example.net"
#define USUAL_TYPE "telnet"
#define USUAL_METADATA(X) X("width", "132x43") X("term", "xterm-256color") X("client", USUAL_CLIENT)
#define USUAL_CLIENT "Mudlet 4.17.2 ok" /* 16 bytes: what METADATA_SET replaces */
enum { METADATA_SET_BYTES = 16 };
_Static_assert(sizeof USUAL_CLIENT - 1 == METADATA_SET_BYTES, "the record keeps its size");

/* The peers' record; the words that every contender's readers read come first. */
struct record {
    uint64_t connected_at, last_seen, generation, version;
    char player[PLAYER_BYTES], address[16], host[32], type[16];
    char metadata[80];
};
_Static_assert(sizeof(struct record) == 192, "peers are compared with 192-byte records");

/* A time of the past, even: GET_DEPENDENT adds its lowest bit, 0, to the next handle. */
#define USUAL_CONNECTED_AT UINT64_C(1700000000000)

struct record usual_record(uint64_t handle);

/* What readers make of a session. */
static inline uint64_t read_words(uint64_t connected_at, const char *player)
{
    return connected_at + (unsigned char)player[1];
}

/* The peers' hash of a handle (MurmurHash3's finaliser, Austin Appleby, public domain). */
static inline uint64_t hash_of(uint64_t handle)
{
    uint64_t h = (handle ^ handle >> 33) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

/* ---------------------------------------------------------------- sizes ----------------- */

/* Bytes of the sesstab contender's table. */
struct sizes {
    size_t slot, block, record; /* record: used of the block                                */
    uint64_t heap, segment;     /* committed to the heap; everything that the segment takes */
};
struct sizes sesstab_sizes(void *table);

#endif
