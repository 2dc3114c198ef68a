/*
 * The hashes of those contenders that keep a session as the persister writes it:
 * hash:conn:<handle>, hash:conn:<handle>:metadata and the set hash:active.
 */
#ifndef BENCH_IDEA_HASH_H
#define BENCH_IDEA_HASH_H

#include "bench/idea/idea.h"

/* Appends to the pipeline. */
void append_get(struct idea *idea, uint64_t handle);      /* HGETALL */
void append_owner(struct idea *idea, uint64_t handle);    /* HGET Owner */
void append_touch(struct idea *idea, uint64_t handle);    /* HSET LastSeen */
void append_update(struct idea *idea, uint64_t handle);   /* HSET of one metadata value */

/* A field of the reply to HGETALL; "" when there is none. */
const char *field_of(const redisReply *hash, const char *field);

/* Looks at a session (the reply to HGETALL), or at its owner, and delivers a line. */
void check_session(struct idea *idea, const redisReply *hash);
void deliver_session(struct idea *idea, uint64_t handle, const redisReply *hash);
void deliver_owned(struct idea *idea, uint64_t handle, const redisReply *owner);

/* Takes the reply to a write. */
void take_written(struct idea *idea);

/* The handle in the reply that lists hash:active. */
uint64_t member(const redisReply *members, size_t i);

/* SMEMBERS hash:active, of COUNT members. */
redisReply *ask_members(struct idea *idea, size_t count);

#endif
