/*
 * What a server would write without us: the hashes and fields that the persister writes, on a
 * connection of its own, under keys of its own (direct:conn:<handle>).
 *
 * Each call appends one session's commands to the pipeline and returns how many; next_reply() sends
 * what was appended and waits.  Called once and waited for, it is the blocking write that most
 * servers do today.
 */
#ifndef BENCH_PERSIST_DIRECT_H
#define BENCH_PERSIST_DIRECT_H

#include "bench/persist/stage.h"

/* HSET of the record's eleven fields, as a login does it. */
unsigned direct_login(redisContext *connection, uint64_t handle, const char *player);

/* The same and HSET of the metadata: what the persister writes of a session that changed. */
unsigned direct_record(redisContext *connection, uint64_t handle, uint64_t serial);

/* HSET of LastSeen: what it writes of a session that was touched. */
unsigned direct_touch(redisContext *connection, uint64_t handle, uint64_t serial);

/* Both commands that read a session back, as the persister does to load it. */
unsigned direct_load(redisContext *connection, uint64_t handle, uint64_t unused);

typedef unsigned direct_fn(redisContext *connection, uint64_t handle, uint64_t serial);

/* CHANGE of sessions 1 .. SESSIONS, DEPTH of them in the pipeline at a time; seconds. */
double direct_drain(redisContext *connection, direct_fn *change, size_t sessions, unsigned depth);

#endif
