/*
 * The tables that table_bench compares.  Each is a file of its own here: a list of operations on
 * sessions 1 .. N, which do the same work in every table (loops.h), and how to open it, join it
 * from a second worker, and close it.
 *
 *   C1  A session has 200 bytes of fields (struct record, 192, and its handle); a table stores and
 *       returns all of them.  read_back() shows that it does: see check.c.
 *   C2  What a table has no natural way to do is NULL, and a dash in the table of results.
 *   C3  A table that was not built, or can't be opened here, is left out with a line that says why.
 */
#ifndef BENCH_TABLE_CONTENDER_H
#define BENCH_TABLE_CONTENDER_H

#include "bench/bench.h"

#include <stdbool.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum operation {
    OPERATION_VIEW,
    OPERATION_COPY,
    OPERATION_MISS,
    OPERATION_DEPENDENT,
    OPERATION_BATCH,
    OPERATION_TOUCH,
    OPERATION_SET,
    OPERATION_INSERT_REMOVE,
    OPERATION_SCAN,
    OPERATION_BY_PLAYER,
    OPERATION_MIX,
    OPERATION_COUNT
};

enum { BATCH = 100 };    /* sessions in a batch get                   */
enum { MIX_TOUCH = 20 }; /* every so many operations of a mix is a touch: 95 % get, 5 % update */

/* Does keys->count operations; fails if one of them did not find what it should. */
typedef uint64_t operation_fn(void *table, const struct keys *keys);

struct record;

enum scope {
    SCOPE_PROCESSES, /* unrelated processes share it                                  */
    SCOPE_THREADS,   /* threads of one process                                        */
    SCOPE_SERVER     /* a server process is asked through a socket (or, APCu: PHP is) */
};

struct contender {
    const char *name;
    enum scope scope;
    const char *lacks;        /* what it does not do that sesstab does, and how it was used           */
    const char *missing;      /* NULL, or the package without which it was not built                  */
    bool reference;           /* goals compare with it: in the first group, and with huge pages too   */
    bool in_dev_shm;          /* takes its memory from that file system                               */
    size_t sessions_max;      /* more are left out; 0: no limit                                       */
    size_t walk_max;          /* a walk over more takes many seconds: not measured; 0: no limit       */
    size_t bytes_per_session; /* about, to know how many tables fit into memory at once               */

    /* Filled with sessions 1 .. SESSIONS; NULL: it can't be had here, left_out() was told why. */
    void *(*open)(size_t sessions);
    void (*close)(void *table);

    /* A second worker's own access; NULL: the table itself serves. */
    void *(*join)(void *table);
    void (*leave)(void *mine);

    /* Around times in which a worker does nothing; NULL: nothing to be done. */
    void (*pause)(void *table);
    void (*resume)(void *table);

    /* One session as stored; false: not there.  NULL: nothing is stored. */
    bool (*read_back)(void *table, uint64_t handle, struct record *record);

    /* Bytes that all of it takes; NULL: what this process grew by. */
    uint64_t (*bytes)(void *table);

    /* Another clock than ours: nanoseconds of an operation, or operations per microsecond of a mix of
     * so many workers for NS; NULL: ours. */
    uint64_t (*clocked)(void *table, enum operation operation, const struct keys *keys);
    double (*mixed)(void *table, const struct keys *keys, unsigned workers, uint64_t ns);

    operation_fn *operations[OPERATION_COUNT];
};

/* All of them: ours, then those that a second process joins: it is forked, and private memory that
 * exists by then would be copied page by page when it is next written. */
extern const struct contender *const contenders[];
extern const size_t contender_count;
extern const struct contender empty_contender, floor_contender, sesstab_contender, dirty_contender,
    seqlock_contender, rwlock_contender, boost_contender, lmdb_contender, apcu_contender,
    memcached_contender, redis_contender, memb_contender, qsbr_contender, ck_contender;

/* Prints and keeps the reason; NULL. */
void *left_out(const char *contender, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
typedef void left_out_fn(const char *contender, const char *why);
extern left_out_fn *left_out_too; /* who else wants to know */

/* ---------------------------------------------------------------- the sessions ---------- */

/* What a usual session holds, besides its player. */
#define USUAL_ADDRESS "203.0.113.7"
#define USUAL_HOST "dsl-7.example.net"
#define USUAL_TYPE "telnet"
#define USUAL_METADATA(X) X("width", "132x43") X("term", "xterm-256color") X("client", USUAL_CLIENT)
#define USUAL_CLIENT "Mudlet 4.17.2 ok" /* 16 bytes: what SET replaces */
enum { SET_BYTES = 16 };

/* The peers' record; the words that every contender's readers read come first. */
struct record {
    uint64_t connected_at, last_seen, generation, version;
    char player[PLAYER_BYTES], address[16], host[32], type[16];
    char metadata[80];
};

/* A time of the past. */
#define USUAL_CONNECTED_AT UINT64_C(1700000000000)

struct record usual_record(uint64_t handle);

/* What readers make of a session; never 0, its top bit always clear. */
static inline uint64_t read_words(uint64_t connected_at, const char *player)
{
    return connected_at + (unsigned char)player[1];
}

static inline uint64_t words_of(const struct record *r)
{
    return read_words(r->connected_at, r->player);
}

/* The peers' hash of a handle (MurmurHash3's finaliser, Austin Appleby, public domain). */
static inline uint64_t hash_of(uint64_t handle)
{
    uint64_t h = (handle ^ handle >> 33) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

/* Zeroed memory for a table: shared with forked children, or private and not copied into them. */
void *table_memory(size_t bytes, bool shared);
void table_memory_free(void *memory, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
