/* What "durable" means; see persister_ack.h. */
#include "tools/persister_ack.h"

#include "tools/log.h"
#include "tools/persister_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPLICAS_MAX = 100, WAIT_MS = 1000 };

const char *ack_parse(const char *text, struct ack_wish *wish)
{
    static const char replicas[] = "replicas=";
    char *end;
    *wish = (struct ack_wish){ .kind = ACK_MEMORY };
    if (strcmp(text, "memory") == 0)
        return NULL;
    if (strcmp(text, "fsync") == 0) {
        wish->kind = ACK_FSYNC;
        return NULL;
    }
    if (strncmp(text, replicas, sizeof replicas - 1) != 0)
        return "it is memory, fsync or replicas=N";
    const char *number = text + sizeof replicas - 1;
    long n = strtol(number, &end, 10);
    if (end == number || *end || n < 1 || n > REPLICAS_MAX)
        return "the number of replicas is 1 to 100";
    *wish = (struct ack_wish){ .kind = ACK_REPLICAS, .replicas = (unsigned)n };
    return NULL;
}

void ack_init(struct ack *ack, const struct ack_wish *wish, struct fence *fence,
              struct server *server)
{
    int limit = fence->redis->timeout_ms / 2; /* a reply that comes later drops the connection */
    *ack = (struct ack){ .wish = wish, .fence = fence, .server = server, .kept = true };
    fence->replicas = wish->replicas;
    fence->wait_ms = limit < WAIT_MS ? limit : WAIT_MS;
    fence->confirmed = true;
    metric_set(METRIC_PROMISE_KEPT, 1);
}

/* ---------------------------------------------------------------- judging ---------------- */

/* Which setting keeps SERVER from being on disk before it answers; false: none. */
static bool not_on_disk(const struct server *server, char *why, size_t size)
{
    const char *setting = strcmp(server->appendonly, "yes") != 0       ? "appendonly yes"
                          : strcmp(server->appendfsync, "always") != 0 ? "appendfsync always"
                                                                       : "no-appendfsync-on-rewrite no";
    if (strcmp(server_worth(server), "disk") == 0)
        return false;
    if (!server->appendonly[0])
        snprintf(why, size, "it can't be proved that Redis has written to disk what it "
                            "acknowledges: CONFIG GET: %s",
                 server->config_refused[0] ? server->config_refused : "no answer");
    else
        snprintf(why, size, "Redis acknowledges what is not on its disk yet: appendonly is %s, "
                            "appendfsync %s, no-appendfsync-on-rewrite %s: set %s",
                 server->appendonly, server->appendfsync, server->on_rewrite, setting);
    return true;
}

static bool judge(struct ack *ack)
{
    switch (ack->wish->kind) {
    case ACK_MEMORY:
        break;
    case ACK_FSYNC:
        return !not_on_disk(ack->server, ack->why, sizeof ack->why);
    case ACK_REPLICAS:
        if (ack->fence->confirmed)
            break;
        snprintf(ack->why, sizeof ack->why, "fewer than %u replicas have what was written",
                 ack->wish->replicas);
        return false;
    }
    return true;
}

bool ack_possible(struct ack *ack)
{
    ack->proved |= ack->wish->kind != ACK_FSYNC || judge(ack);
    return ack->proved;
}

static void say(const struct ack *ack, bool kept)
{
    bool replicas = ack->wish->kind == ACK_REPLICAS;
    if (kept)
        log_event(LEVEL_INFO, replicas ? "replicas-back" : "fsync-back");
    else
        log_event(LEVEL_ERROR, replicas ? "replicas-missing" : "fsync-missing",
                  TEXT("reason", ack->why),
                  TEXT("note", "nothing is written and acknowledged until they are back; "
                               "the table works, logins are answered unknown"));
}

bool ack_kept(struct ack *ack)
{
    bool kept = judge(ack);
    if (kept != ack->kept) {
        say(ack, kept);
        metric_set(METRIC_PROMISE_KEPT, kept);
    }
    ack->kept = kept;
    return kept;
}

void ack_look(struct ack *ack)
{
    char before[16];
    snprintf(before, sizeof before, "%s", server_worth(ack->server));
    server_look(ack->fence->redis, ack->server);
    if (strcmp(before, server_worth(ack->server)) != 0) {
        metric_add(METRIC_RECONFIGURED, 1);
        log_event(LEVEL_WARN, "redis-reconfigured", TEXT("acknowledged_in",
                                                         server_worth(ack->server)),
                  TEXT("before", before));
    }
    if (!ack->fence->confirmed)
        fence_confirm(ack->fence);
}

/* ---------------------------------------------------------------- telling ---------------- */

enum acknowledged ack_where(const struct ack *ack)
{
    static const struct {
        const char *name;
        enum acknowledged where;
    } places[] = { { "memory", ACKNOWLEDGED_MEMORY }, { "kernel", ACKNOWLEDGED_KERNEL },
                   { "disk", ACKNOWLEDGED_DISK } };
    if (!ack->kept)
        return ACKNOWLEDGED_NOTHING;
    if (ack->wish->kind == ACK_REPLICAS)
        return ACKNOWLEDGED_REPLICAS;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(server_worth(ack->server), places[i].name) == 0)
            return places[i].where;
    return ACKNOWLEDGED_UNKNOWN;
}
