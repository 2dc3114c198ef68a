/*
 * What is at the other end: a server that can serve as the store at all, which one, and what its
 * acknowledgement is worth.
 */
#ifndef TOOLS_PERSISTER_SERVER_H
#define TOOLS_PERSISTER_SERVER_H

#include "tools/persister_redis.h"

struct server {
    char version[32];
    char run_id[48];        /* differs after every restart; "" unknown                          */
    char replid[48];        /* differs after it was another's replica; "" unknown               */
    char appendonly[8], appendfsync[16], on_rewrite[8]; /* as CONFIG GET says; "" unknown       */
    char policy[32];        /* maxmemory-policy                                                 */
    char info_refused[128], config_refused[128]; /* why it does not tell; "" it does            */
};

/* Asks it.  False, and dropped with a reason, when it cannot be written to. */
bool server_ask(struct redis *redis, struct server *server);

/* Reads its configuration once more. */
void server_look(struct redis *redis, struct server *server);

/*
 * Asks again which server it is: false when it has become another one, or another one's copy, since
 * SERVER was filled; that is filled anew.  What Redis does not tell is no difference.  Dropped when it
 * is a replica by now.
 */
bool server_is_same(struct redis *redis, struct server *server);

/*
 * Where an acknowledged change is: "memory" (lost with the server), "kernel" (lost with the
 * machine, up to two seconds), "disk", "unknown" (Redis does not tell).
 */
const char *server_worth(const struct server *server);

/* True when Redis may throw sessions away by itself. */
bool server_evicts(const struct server *server);

#endif
