/* From no connection to one that holds the fence, and back; see persister_leader.h. */
#include "tools/persister_leader.h"

#include "tools/log.h"
#include "tools/persister_health.h"
#include "tools/persister_metrics.h"

#include <stdlib.h>
#include <string.h>

enum {
    STABLE_MS = 1000, /* a connection that lasted so long starts the back-off anew          */
    RIVAL_MS = 5000   /* for the leader of a table that was replaced to notice and leave    */
};

/* ---------------------------------------------------------------- up and down ------------ */

static void back_off(struct leader *l)
{
    unsigned jitter = (unsigned)random() % (l->backoff_ms / 2 + 1);
    l->retry_at = monotonic_ms() + l->backoff_ms - l->backoff_ms / 4 + jitter;
    l->backoff_ms = l->backoff_ms * 2 < BACKOFF_MAX_MS ? l->backoff_ms * 2 : BACKOFF_MAX_MS;
}

/* Once per reason, not once per attempt. */
static void say_down(struct leader *l, const char *event)
{
    if (strcmp(l->said, l->redis.reason) == 0)
        return;
    memcpy(l->said, l->redis.reason, sizeof l->said);
    l->said_up = false;
    log_event(LEVEL_WARN, event, TEXT("redis", l->address.text),
              TEXT("reason", l->redis.reason),
              TEXT("note", l->over || l->settings->reconcile
                           ? NULL : "trying again; the table works, logins are answered unknown"));
}

void leader_went_down(struct leader *l)
{
    compare_stop(&l->compare);
    renew_stop(&l->renew);
    quarantine_release(&l->batch.quarantine);
    round_begin(&l->batch.round);
    if (l->up && monotonic_ms() - l->up_since >= STABLE_MS)
        l->backoff_ms = BACKOFF_MIN_MS;
    say_down(l, l->up ? "disconnected" : "unreachable");
    health_away(l->redis.reason);
    metric_set(METRIC_CONNECTED, 0);
    if (l->up) {
        store_connected(l->store, false);
        metric_add(METRIC_DISCONNECTS, 1);
    }
    l->up = false;
    if (l->settings->reconcile)
        leader_end(l, ENDING_FAILED, l->redis.reason);
    back_off(l);
    if (l->rival_unknown && l->retry_at < l->rival_until)
        l->retry_at = l->rival_until;
}

/* Once, also when what follows fails again and again for one reason. */
static void say_up(struct leader *l)
{
    const struct server *s = &l->server;
    if (l->said_up)
        return;
    l->said_up = true;
    log_event(LEVEL_INFO, "connected", TEXT("redis", l->address.text),
              TEXT("version", s->version), TEXT("run_id", s->run_id),
              TEXT("appendonly", s->appendonly), TEXT("appendfsync", s->appendfsync),
              TEXT("acknowledged_in", server_worth(s)), TEXT("policy", s->policy));
    if (s->info_refused[0])
        log_event(LEVEL_WARN, "redis-forbids", TEXT("reason", s->info_refused),
                  TEXT("note", "its version, role and eviction policy are not known"));
    if (s->config_refused[0])
        log_event(LEVEL_WARN, "redis-forbids", TEXT("reason", s->config_refused),
                  TEXT("note", "where what it acknowledges is kept is not known"));
    if (server_evicts(s))
        log_event(LEVEL_WARN, "redis-evicts", TEXT("policy", s->policy),
                  TEXT("note", "Redis may throw sessions away: set maxmemory-policy noeviction"));
}

/* ---------------------------------------------------------------- the lead --------------- */

static void refuse_rival(struct leader *l, enum alive alive)
{
    if (alive == ALIVE_UNKNOWN)
        leader_end(l, ENDING_FAILED,
                   "another table's persister led under this prefix, and this user may not see "
                   "whether it still does: allow it CLIENT LIST and CLIENT SETNAME, or OBJECT "
                   "IDLETIME; or stop the other one and DEL its <prefix>:leader; or use another "
                   "--prefix");
    else
        leader_end(l, ENDING_FAILED,
                   "another table's live persister writes to this Redis under the same prefix: stop "
                   "it, or give each table a --prefix of its own");
}

/*
 * True when the leader of another segment is at work; drops the connection then.  READS is what
 * fence_holder_reads() said before the look: it counts when nobody here has read the key meanwhile.
 */
static bool has_rival(struct leader *l, enum alive reads)
{
    uint64_t now = monotonic_ms();
    enum alive alive = ALIVE_NO;
    bool waited = l->rival_until && now >= l->rival_until;
    if (fence_holder(&l->fence) == HOLDER_FOREIGN)
        alive = fence_holder_alive(&l->fence);
    if (!redis_connected(&l->redis))
        return true; /* who leads there is looked at again */
    bool unknown = alive == ALIVE_UNKNOWN;
    if (unknown && waited && l->rival_unknown)
        alive = reads;
    l->rival_unknown = unknown && !waited;
    if (alive == ALIVE_NO) {
        l->rival_until = 0;
        return false;
    }
    if (!l->rival_until)
        l->rival_until = now + RIVAL_MS;
    if (waited)
        refuse_rival(l, alive);
    redis_drop(&l->redis, unknown ? "another table's persister may be at work under this prefix"
                                  : "another table's persister is at work under this prefix");
    return true;
}

/* From a connection to a filled one. */
static bool establish(struct leader *l)
{
    enum alive reads = l->rival_unknown ? fence_holder_reads(&l->fence) : ALIVE_UNKNOWN;
    if (!fence_look(&l->fence) || has_rival(l, reads) || leader_belongs_to_another(l) ||
        !leader_still_leads(l) || !fence_take(&l->fence))
        return false;
    /* Once more, now that nobody else can change it. */
    if (!fence_look(&l->fence) || !fence_held(&l->fence))
        return false;
    say_up(l);
    return leader_fill(l) && redis_connected(&l->redis);
}

/* What the first server can't promise is not begun with. */
static bool promise(struct leader *l)
{
    if (ack_possible(&l->ack))
        return true;
    leader_end(l, ENDING_FAILED, l->ack.why);
    redis_drop(&l->redis, l->ack.why);
    return false;
}

/* Whether anything may be written (A1); tells people what "durable" means by now. */
bool leader_may_write(struct leader *l)
{
    bool kept = ack_kept(&l->ack);
    enum acknowledged where = ack_where(&l->ack);
    metric_set(METRIC_IN_MEMORY, where == ACKNOWLEDGED_MEMORY);
    metric_set(METRIC_IN_KERNEL, where == ACKNOWLEDGED_KERNEL);
    metric_set(METRIC_IN_DISK, where == ACKNOWLEDGED_DISK);
    metric_set(METRIC_IN_REPLICAS, where == ACKNOWLEDGED_REPLICAS);
    store_acknowledged(l->store, where, l->settings->ack.replicas);
    return kept;
}

void leader_try_to_connect(struct leader *l)
{
    if (!redis_connect(&l->redis, &l->address, &l->settings->login) ||
        !server_ask(&l->redis, &l->server) || !promise(l) || !establish(l)) {
        redis_drop(&l->redis, "the lead was lost");
        leader_went_down(l);
        return;
    }
    l->up = true;
    l->up_since = monotonic_ms();
    l->check_at = l->up_since + CHECK_MS;
    l->said[0] = '\0';
    renew_start(&l->renew, &l->batch, &l->compare);
    store_connected(l->store, true);
    metric_set(METRIC_CONNECTED, 1);
    metric_add(METRIC_CONNECTS, 1);
}

/* The sentinels name another master than the one that is written to: there, and at once. */
void leader_follow_master(struct leader *l)
{
    struct redis_address now;
    if (!l->sentinel || !sentinel_master(l->sentinel, &now) ||
        strcmp(now.text, l->address.text) == 0)
        return;
    if (l->address.text[0]) {
        log_event(LEVEL_WARN, "master-changed", TEXT("from", l->address.text),
                  TEXT("to", now.text));
        metric_add(METRIC_MASTER_CHANGES, 1);
    }
    l->address = now;
    l->backoff_ms = BACKOFF_MIN_MS;
    l->retry_at = 0;
    redis_drop(&l->redis, "the sentinels name another master");
}

/* Not while another server may listen at the private one's socket, or no sentinel has answered. */
bool leader_may_connect(const struct leader *l)
{
    return l->address.text[0] && (!l->spawn || spawn_is_up(l->spawn));
}

void leader_connect_in_time(struct leader *l)
{
    uint64_t now = monotonic_ms();
    if (leader_may_connect(l) && now >= l->retry_at) {
        leader_try_to_connect(l);
        return;
    }
    /* Taking none, for the sweep's sake: a dead worker's sessions become detached all the same. */
    store_take(l->store, NULL, 0, false);
    pause_ms(!leader_may_connect(l) ? BACKOFF_MIN_MS
             : l->retry_at - now < TICK_MS ? (unsigned)(l->retry_at - now) : TICK_MS);
}

/* The leader key is no longer what this connection wrote. */
void leader_fenced(struct leader *l)
{
    enum holder holder = fence_holder(&l->fence);
    if (fence_held(&l->fence)) {
        leader_compare_again(l, "the leader key was touched, or Redis has read another copy of its "
                                "data");
        return;
    }
    log_event(LEVEL_WARN, "fenced",
              TEXT("holder", l->fence.holder[0] ? l->fence.holder : "nobody"));
    metric_add(METRIC_FENCED, 1);
    if (!leader_still_leads(l)) /* a sibling's token without that is one that it wrote late */
        return;
    if (holder == HOLDER_FOREIGN && !leader_says_it_again(l, l->fence.holder))
        return;
    enum alive alive = holder == HOLDER_FOREIGN ? fence_holder_alive(&l->fence) : ALIVE_NO;
    if (!redis_connected(&l->redis))
        return;
    if (alive != ALIVE_NO)
        leader_end(l, ENDING_FAILED,
                   "another table's persister has taken over this Redis and prefix");
    else if (!establish(l))
        redis_drop(&l->redis, "the lead was lost");
}
