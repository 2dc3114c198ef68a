/*
 * A deployment of Redis for tests: servers that copy each other, and sentinels that watch them, on a
 * loopback address of the test's own.
 */
#ifndef TESTS_REPLICAS_H
#define TESTS_REPLICAS_H

#include "tests/harness.h"

#define MASTER_NAME "main"

enum { SERVERS = 3, SENTINELS = 3, OPTIONS_MAX = 24 };

/* A server that others reach by TCP as well. */
struct server {
    struct redis *redis;
    char port[12], url[64];
    const char *options[OPTIONS_MAX];
};

struct deployment {
    struct server servers[SERVERS];
    char sentinels[128]; /* as --sentinel wants them */
    pid_t sentinel_pids[SENTINELS];
};

/* Where all of them listen. */
const char *deployment_host(void);

/* Server number I; of the MASTER, unless NULL.  MORE: another option and its value, or NULL. */
void start_server(struct deployment *deployment, unsigned i, const struct server *master,
                  const char *const more[2]);

/* A master, server 0, and COUNT replicas, which are in step with it. */
void start_replicated(struct deployment *deployment, unsigned count);

/* Three sentinels that know each other, the master and both replicas. */
void start_sentinels(struct deployment *deployment);

/* Whether INFO replication of the server contains TEXT. */
bool replication_says(struct redis *redis, const char *text);

/* Waits until one of the two that were replicas has been promoted. */
struct redis *promoted(struct deployment *deployment);

#endif
