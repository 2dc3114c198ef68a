/*
 * The idea's own table: what a server asks of its sessions, of us and of Redis alone.
 *
 *   I1  A contender does the same work by its own best means, in its natural form; what it has no
 *       form for is NULL, and a dash in the table.
 *   I2  Every answer is looked at: a session without a player, or one that is not there, ends the
 *       benchmark.
 *   I3  Output goes to a buffer of this process in every contender (deliver()): the system call
 *       that sends it is the same for all, and left out.
 */
#ifndef BENCH_IDEA_IDEA_H
#define BENCH_IDEA_IDEA_H

#include "bench/persist/stage.h"

enum { PLAYERS = 100 }; /* in a round, in a broadcast, in a pipeline */

/* X(name, row, sessions in one operation, what it is) */
#define OPERATIONS(X)                                                                              \
    X(GET, "get", 1, "who is this connection?")                                                    \
    X(OUTPUT, "send-output", 1, "look up where it goes, and put a line there")                     \
    X(UPDATE, "update-metadata", 1, "replace one value of 16 bytes")                               \
    X(TOUCH, "touch", 1, "set last-seen")                                                          \
    X(LOGIN, "login", 1, "bind a player, acknowledged by Redis")                                   \
    X(ROUND, "round-100", PLAYERS, "100 players type: get, touch and output for each")             \
    X(BROADCAST, "broadcast-100", PLAYERS, "a line to everybody; with 100 sessions only")

enum operation {
#define X(name, row, sessions, text) OPERATION_##name,
    OPERATIONS(X)
#undef X
    OPERATION_COUNT
};

/* What this process has for each session: where its output goes. */
struct connection {
    uint64_t written;
    char line[256];
};

struct idea {
    struct stage stage;
    redisContext *redis;           /* for the contenders that are Redis: unix socket, or TCP */
    struct connection *connections; /* by handle */
    char self[16];                 /* this server, as Redis's Owner names it                 */
    uint64_t serial, sum;          /* serial: makes every value a new one                    */
};

/* Does COUNT operations of one session each, or one operation on COUNT sessions. */
typedef void operation_fn(struct idea *idea, const uint64_t *handles, size_t count);

struct contender {
    const char *name, *legend;
    void (*fill)(struct idea *idea);  /* NULL: the stage has filled it  */
    struct {
        operation_fn *run;
        size_t burst;                 /* operations that are timed together, for their mean */
    } operations[OPERATION_COUNT];
};

extern const struct contender sesstab_contender, json_contender, hash_contender, field_contender,
    pipeline_contender, lua_contender;

/* A line for the session's connection. */
void deliver(struct idea *idea, uint64_t handle);

/* Says that a session was found, with the player that it must have. */
void found(struct idea *idea, const char *player);

#endif
