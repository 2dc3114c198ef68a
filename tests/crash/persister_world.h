/*
 * A table with a few sessions, a Redis, some workers that ask for changes, a persister that leads
 * and one that stands by; and one kill point in it:
 *
 *   callers     post, and wait          ..........................  the answer; at once they look
 *                 |                                                 into the table and into Redis
 *   leader  idle -+-> takes it, K instructions, SIGKILL
 *   stand-by    waits ................................ leads, settles ->
 *   the test                                                        judges, settles, looks at all
 *
 *   V1  OK: at that moment the binding is in Redis with every field, and in the table, not pending.
 *   V2  REFUSED: at that moment it is neither in Redis nor in the table, which has the one before.
 *   V3  UNKNOWN: only where the caller's time was up; the binding becomes durable all the same.
 *   V4  After all of it: Redis equals the table, shmdump finds nothing wrong and nothing left by
 *       the dead, the dead persister's worker slot and thread slots are free.
 *   V5  A leader that was stopped, superseded, and continued undoes nothing newer, steps back, and
 *       takes no ticket with it.
 */
#ifndef TESTS_CRASH_PERSISTER_WORLD_H
#define TESTS_CRASH_PERSISTER_WORLD_H

#include "tests/crash/persister_leader.h"

enum { CALLERS = 5, SESSIONS = 8 };

enum request { BIND, UNBIND, SET, DELETE, TOUCH, INSERT, REMOVE };

/* A worker process, and what it is asked and answers. */
struct caller {
    atomic_u32 asked, answered;   /* counts; the first is a futex                               */
    uint32_t judged;              /* the same                                                   */
    enum request request;
    uint64_t handle, when;
    char text[32];                /* a player, or a value                                       */
    int timeout_ms;
    int result;
    uint64_t answered_at;         /* microseconds                                               */
    /* Seen just after the answer: */
    char in_table[32], in_redis[32]; /* players                                                 */
    bool pending;
    size_t redis_fields;
    struct world *world;
};

struct world {
    const char *name;
    struct redis *redis;
    sesstab *table;
    struct shm *shm;
    struct caller *callers;       /* CALLERS of them, in shared memory                          */
    pid_t probing;                /* the last caller's process                                  */
    struct persister leader, standby;
    unsigned persisters;          /* that were ever started                                     */
    uint64_t deaths;              /* of persisters                                              */
    uint64_t texts, last_touch;
    char bound[SESSIONS + 1][32]; /* by handle: the player that was acknowledged last           */
    uint64_t refusing;            /* Redis refuses this session, or EVERYTHING                  */
};

/* What became of one kill point. */
struct finding {
    enum way way;
    unsigned durable, refused, unknown; /* answers to the callers                               */
    uint64_t took_over_us;  /* from the signal to the first answer by the one that stood by     */
    uint64_t own_us;        /* of that, without what the processes waited for a processor       */
};

struct operation {
    const char *name;
    bool stop;                            /* the leader is stopped and superseded, not killed   */
    bool tickets;                         /* what is looked at is what somebody waits for       */
    void (*prepare)(struct world *world); /* NULL, or: what must be there before                */
    void (*post)(struct world *world);    /* asks the callers                                   */
    void (*strike)(struct world *world);  /* NULL, or: what happens when it is stopped          */
    void (*judge)(struct world *world);   /* NULL, or: of the table, beyond V1 to V4            */
    void (*lift)(struct world *world);    /* NULL, or: Redis takes writes again                 */
    const char *newer;                    /* what is done while it is stopped; NULL: the same   */
};
extern const struct operation operations[];
extern const size_t operation_count;

const struct operation *operation_named(const char *name);

/* A world on a new table NAME and an empty REDIS. */
struct world *world_start(const char *name, struct redis *redis);

/* The instructions of OPERATION from its taking to its acknowledgement. */
void world_record(struct world *world, const struct operation *operation, struct trace *trace);

/* The leader stopped, for good or for a while, after K instructions of TRACE (if 0: of any). */
struct finding world_point(struct world *world, const struct operation *operation,
                           const struct trace *trace, size_t k);

#endif
