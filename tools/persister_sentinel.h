/*
 * Where the master is, as Redis Sentinel says.  A thread of its own asks, so that a sentinel that is
 * stopped or cut off delays no write; the leader only looks at the latest answer.
 *
 *   thread   several times a second: SENTINEL get-master-addr-by-name NAME, of the sentinel that
 *            answered last; when it does not, of the others in turn
 *   leader   every TICK_MS: another address than it is connected to?  It drops the connection and
 *            connects there.  That a replica is no master yet, server_ask() sees.
 *
 *   N1  While no sentinel answers, the last answer counts: a healthy master is not left because of
 *       dead sentinels.
 *   N2  A sentinel that is cut off together with an old master can't know of the new one.  What that
 *       master acknowledges meanwhile is in the table, which is compared with the new one later;
 *       who wants more takes --ack replicas=N (or min-replicas-to-write in Redis).
 */
#ifndef TOOLS_PERSISTER_SENTINEL_H
#define TOOLS_PERSISTER_SENTINEL_H

#include "tools/persister_redis.h"

enum { SENTINELS_MAX = 16 };

struct sentinels {
    struct redis_address addresses[SENTINELS_MAX];
    size_t count;             /* 0: no sentinels; Redis's address is given */
    const char *master;       /* its name                                  */
    struct redis_login login; /* the sentinels'                            */
};

/* "HOST:PORT,HOST:PORT,...".  NULL, or what is wrong with TEXT. */
const char *sentinels_parse(const char *text, struct sentinels *sentinels);

struct sentinel;

/* Starts to ask; NULL: out of memory or threads.  SENTINELS must live as long. */
struct sentinel *sentinel_start(const struct sentinels *sentinels);
void sentinel_stop(struct sentinel *sentinel);

/* The master's address; false: no sentinel has said it yet. */
bool sentinel_master(struct sentinel *sentinel, struct redis_address *address);

/* All of it, for who asks once: within TIMEOUT_MS; false: none said it. */
bool sentinel_find(const struct sentinels *sentinels, int timeout_ms, struct redis_address *address);

#endif
