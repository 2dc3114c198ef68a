/*
 * The stage of every benchmark with Redis behind it: a redis-server of its own, a table, a
 * persister between them, and usual sessions in both.
 *
 *   G1  Redis listens on a unix socket (and, if asked, on a port of 127.0.0.1) and keeps nothing on
 *       disk: what is compared is the way to it, not its disk.
 *   G2  Sessions are what bench/table/contender.h calls usual, with handles 1 .. N.
 *   G3  stage_settle() returns when Redis has everything, which the table itself is asked for.
 */
#ifndef BENCH_PERSIST_STAGE_H
#define BENCH_PERSIST_STAGE_H

#include "bench/sandbox.h"
#include "lib/sesstab.h"

#include <hiredis/hiredis.h>
#include <stdbool.h>

#define STAGE_PREFIX "bench" /* of the persister's keys */

enum { DEADLINE_MS = 20000 }; /* of a bind, and of whatever should be there soon */

struct stage {
    char name[SANDBOX_NAME_MAX];
    int port;                 /* of Redis; 0: none */
    pid_t redis, persister;
    redisContext *connection; /* to the unix socket */
    sesstab *table;
    struct store *store;      /* to ask the table what Redis lacks; it never leads */
    size_t sessions;
};

/* What every session holds, besides its handle and its player. */
extern const sesstab_info usual_info;

/* An empty table with its persister, and Redis; TCP: it gets a port as well. */
void stage_open(struct stage *stage, bool tcp);
void stage_close(struct stage *stage);

/* Removes the table, and makes an empty one for the same Redis, without a persister yet. */
void stage_renew_table(struct stage *stage);

/* The persister; stopping it asks it to leave and waits for that. */
void stage_start_persister(struct stage *stage);
void stage_stop_persister(struct stage *stage);
void stage_await_ready(struct stage *stage);

/* Inserts sessions 1 .. SESSIONS; returns the seconds that it took. */
double stage_insert(struct stage *stage, size_t sessions);

/* Waits until nothing is left to be written, showing PROGRESS unless WHAT is NULL. */
void stage_settle(struct stage *stage, const char *what);

/* Both of these for every bench that does not measure them. */
void stage_fill(struct stage *stage, size_t sessions);

/* Fails unless Redis has the session's player and metadata as the table has them. */
void stage_check(const struct stage *stage, uint64_t handle);

/* Sessions written to Redis and acknowledged, since the table was made. */
uint64_t stage_written(const struct stage *stage);

/* A connection of the caller's own. */
redisContext *stage_connect(const struct stage *stage, bool tcp);

/* One command's reply, never NULL and never an error; the caller's to free. */
redisReply *ask_redis(redisContext *connection, const char *format, ...);

/* One command whose reply is a number. */
uint64_t ask_redis_number(redisContext *connection, const char *format, ...);

/* How many commands of that name (lower case) Redis has executed. */
uint64_t redis_executed(redisContext *connection, const char *command);

/* The reply to a command that was appended; as ask_redis(). */
redisReply *next_reply(redisContext *connection);

/* Takes *COUNT replies, which becomes 0. */
void drop_replies(redisContext *connection, size_t *count);

/* Fails unless RESULT is SESSTAB_OK. */
void must(int result, const char *what);

#endif
