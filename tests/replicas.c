/* A deployment of Redis for tests; see replicas.h. */
#include "tests/replicas.h"

#include <stdio.h>
#include <string.h>

enum { FIRST_PORT = 20000 };

static unsigned next_port(void)
{
    static unsigned used;
    return FIRST_PORT + used++;
}

/* 127.a.b.c is all this machine's: with the pid in it, nobody else's test listens there. */
const char *deployment_host(void)
{
    static char host[24];
    unsigned pid = (unsigned)getpid();
    snprintf(host, sizeof host, "127.%u.%u.%u", 1 + (pid >> 16) % 254, pid >> 8 & 0xff,
             1 + pid % 254);
    return host;
}

void start_server(struct deployment *d, unsigned i, const struct server *master,
                  const char *const more[2])
{
    struct server *s = &d->servers[i];
    const char *host = deployment_host();
    const char *const fixed[] = { "--port", s->port, "--bind", host, "--replica-announce-ip", host,
                                  "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period",
                                  "1" };
    size_t n = sizeof fixed / sizeof *fixed;
    unsigned port = next_port();
    snprintf(s->port, sizeof s->port, "%u", port);
    snprintf(s->url, sizeof s->url, "tcp:%s:%u", host, port);
    memcpy(s->options, fixed, sizeof fixed);
    if (master) {
        s->options[n++] = "--replicaof";
        s->options[n++] = host;
        s->options[n++] = master->port;
    }
    for (size_t k = 0; more && k < 2; k++)
        s->options[n++] = more[k];
    s->redis = start_redis(s->options);
}

/* By a connection of its own: a sentinel that changes a server's role cuts off its clients. */
bool replication_says(struct redis *redis, const char *text)
{
    redisContext *context = redisConnectUnix(redis->socket);
    check(context != NULL);
    redisReply *reply = context->err ? NULL : redisCommand(context, "INFO replication");
    bool says = reply && reply->type == REDIS_REPLY_STRING && strstr(reply->str, text);
    if (reply)
        freeReplyObject(reply);
    redisFree(context);
    redis_own_connection(redis);
    return says;
}

void start_replicated(struct deployment *d, unsigned count)
{
    char online[32];
    snprintf(online, sizeof online, "connected_slaves:%u\r", count);
    start_server(d, 0, NULL, NULL);
    for (unsigned i = 1; i <= count; i++)
        start_server(d, i, &d->servers[0], NULL);
    for (unsigned i = 1; i <= count; i++)
        wait_until(replication_says(d->servers[i].redis, "master_link_status:up"));
    wait_until(replication_says(d->servers[0].redis, online));
}

static void start_sentinel(struct deployment *d, unsigned i)
{
    char path[128], log[128];
    unsigned port = next_port();
    snprintf(path, sizeof path, "%s/sentinel-%u.conf", scratch_directory(), port);
    snprintf(log, sizeof log, "%s/sentinel-%u.log", scratch_directory(), port);
    FILE *file = fopen(path, "w");
    check(file != NULL);
    fprintf(file, "port %u\nbind %s\ndir %s\nsentinel announce-ip %s\n", port, deployment_host(),
            scratch_directory(), deployment_host());
    fprintf(file, "sentinel monitor " MASTER_NAME " %s %s 2\n", deployment_host(), d->servers[0].port);
    fprintf(file, "sentinel down-after-milliseconds " MASTER_NAME " 800\n"
                  "sentinel failover-timeout " MASTER_NAME " 5000\n"
                  "sentinel parallel-syncs " MASTER_NAME " 2\n");
    check(fclose(file) == 0);
    size_t used = strlen(d->sentinels);
    snprintf(d->sentinels + used, sizeof d->sentinels - used, "%s%s:%u", used ? "," : "", deployment_host(),
             port);
    d->sentinel_pids[i] = start_program(
        (const char *[]){ "redis-server", path, "--sentinel", NULL }, log);
}

/* Whether the one at ADDRESS knows all others: what it elects, and promotes, it must know. */
static bool sentinel_knows_all(const char *address)
{
    char host[24];
    int port = 0;
    check(sscanf(address, "%23[^:]:%d", host, &port) == 2);
    redisContext *context = redisConnect(host, port);
    check(context != NULL);
    redisReply *reply = context->err ? NULL : redisCommand(context, "INFO sentinel");
    bool agree = reply && reply->type == REDIS_REPLY_STRING &&
                 strstr(reply->str, "status=ok") && strstr(reply->str, "slaves=2,sentinels=3");
    if (reply)
        freeReplyObject(reply);
    redisFree(context);
    return agree;
}

static bool sentinels_agree(const struct deployment *d)
{
    bool agree = true;
    for (const char *at = d->sentinels; at && agree; at = strchr(at, ',')) {
        at += *at == ',';
        agree = sentinel_knows_all(at);
    }
    return agree;
}

void start_sentinels(struct deployment *d)
{
    d->sentinels[0] = '\0';
    for (unsigned i = 0; i < SENTINELS; i++)
        start_sentinel(d, i);
    wait_until(sentinels_agree(d));
}

/* A sentinel that could not run for two seconds does nothing for 30 (TILT), and a fail-over that came to
 * nothing is tried again after 10: several of that must fit. */
struct redis *promoted(struct deployment *d)
{
    enum { NEVER_MS = 4 * WAIT_LIMIT };
    unsigned i = 1;
    uint64_t limit = milliseconds() + NEVER_MS;
    while (!replication_says(d->servers[i = 3 - i].redis, "role:master")) {
        check(milliseconds() < limit);
        pause_ms(5);
    }
    return d->servers[i].redis;
}
