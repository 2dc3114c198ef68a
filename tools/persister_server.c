/* What is at the other end; see persister_server.h. */
#include "tools/persister_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of NAME in INFO's text ("name:value\r\n"); "" when it is not there. */
static void info_field(const char *info, const char *name, char *value, size_t size)
{
    size_t length = strlen(name);
    *value = '\0';
    for (const char *line = info; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            snprintf(value, size, "%.*s", (int)strcspn(line, "\r\n"), line);
            return;
        }
    }
}

static void drop_replica(struct redis *redis, const char *info)
{
    char role[16];
    info_field(info, "role", role, sizeof role);
    if (strcmp(role, "slave") == 0)
        redis_drop(redis, "it is a replica; the master must be written to");
}

static void read_info(struct redis *redis, struct server *server, const char *info)
{
    char mode[16], cluster[8];
    info_field(info, "redis_version", server->version, sizeof server->version);
    info_field(info, "run_id", server->run_id, sizeof server->run_id);
    info_field(info, "master_replid", server->replid, sizeof server->replid);
    info_field(info, "maxmemory_policy", server->policy, sizeof server->policy);
    info_field(info, "redis_mode", mode, sizeof mode);
    info_field(info, "cluster_enabled", cluster, sizeof cluster);
    if (strcmp(mode, "sentinel") == 0)
        redis_drop(redis, "it is a sentinel, not a Redis that stores data");
    else if (strcmp(cluster, "1") == 0)
        redis_drop(redis, "it runs in cluster mode, where one transaction cannot hold all keys");
    drop_replica(redis, info);
}

static void read_config(struct redis *redis, struct server *server, const redisReply *reply)
{
    const struct {
        const char *name;
        char *value;
        size_t size;
    } wanted[] = {
        { "appendonly", server->appendonly, sizeof server->appendonly },
        { "appendfsync", server->appendfsync, sizeof server->appendfsync },
        { "no-appendfsync-on-rewrite", server->on_rewrite, sizeof server->on_rewrite },
    };
    server->config_refused[0] = '\0';
    if (reply->type == REDIS_REPLY_ERROR)
        snprintf(server->config_refused, sizeof server->config_refused, "%s", reply->str);
    else if (reply->type != REDIS_REPLY_ARRAY)
        redis_drop(redis, "CONFIG GET did not answer with settings");
    for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++)
        wanted[w].value[0] = '\0';
    if (reply->type != REDIS_REPLY_ARRAY)
        return;
    for (size_t i = 0; i + 1 < reply->elements; i += 2)
        for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++)
            if (redis_says(reply->element[i], wanted[w].name) &&
                reply->element[i + 1]->type == REDIS_REPLY_STRING)
                snprintf(wanted[w].value, wanted[w].size, "%s", reply->element[i + 1]->str);
}

static void drop_unless_info(struct redis *redis, const redisReply *reply)
{
    if (reply && reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_ERROR)
        redis_drop(redis, "INFO did not answer with a text");
}

bool server_ask(struct redis *redis, struct server *server)
{
    memset(server, 0, sizeof *server);
    redisReply *info = redis_ask(redis, "INFO", NULL);
    if (info && info->type == REDIS_REPLY_STRING)
        read_info(redis, server, info->str);
    else if (redis_refusal(info) == REFUSAL_LATER)
        redis_drop(redis, info->str);
    else if (info && info->type == REDIS_REPLY_ERROR)
        snprintf(server->info_refused, sizeof server->info_refused, "%s", info->str);
    drop_unless_info(redis, info);
    freeReplyObject(info);
    server_look(redis, server);
    return redis_connected(redis);
}

void server_look(struct redis *redis, struct server *server)
{
    redisReply *config = redis_ask(redis, "CONFIG", "GET", "*append*", NULL);
    if (config)
        read_config(redis, server, config);
    freeReplyObject(config);
}

/* True unless REPLY tells another NAME than KNOWN, which becomes that. */
static bool same_field(const redisReply *reply, const char *name, char known[48])
{
    char now[48] = "";
    if (reply && reply->type == REDIS_REPLY_STRING)
        info_field(reply->str, name, now, sizeof now);
    bool same = !now[0] || !known[0] || strcmp(now, known) == 0;
    if (now[0])
        memcpy(known, now, sizeof now);
    return same;
}

bool server_is_same(struct redis *redis, struct server *server)
{
    redis_put(redis, "INFO", "server", NULL);
    redis_put(redis, "INFO", "replication", NULL);
    redisReply *run = redis_receive(redis), *replication = redis_receive(redis);
    bool same_run = same_field(run, "run_id", server->run_id);
    bool same_copy = same_field(replication, "master_replid", server->replid);
    if (replication && replication->type == REDIS_REPLY_STRING)
        drop_replica(redis, replication->str);
    drop_unless_info(redis, run);
    drop_unless_info(redis, replication);
    freeReplyObject(run);
    freeReplyObject(replication);
    return same_run && same_copy;
}

const char *server_worth(const struct server *server)
{
    if (!server->appendonly[0])
        return "unknown";
    if (strcmp(server->appendonly, "yes") != 0)
        return "memory";
    if (strcmp(server->appendfsync, "always") == 0 && strcmp(server->on_rewrite, "yes") != 0)
        return "disk";
    return "kernel";
}

bool server_evicts(const struct server *server)
{
    return server->policy[0] && strcmp(server->policy, "noeviction") != 0;
}
