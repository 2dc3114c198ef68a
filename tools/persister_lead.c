/* Leading; see persister_lead.h. */
#include "tools/persister_lead.h"

#include "tools/log.h"
#include "tools/persister_batch.h"
#include "tools/persister_compare.h"
#include "tools/persister_fence.h"
#include "tools/persister_health.h"
#include "tools/persister_load.h"
#include "tools/persister_metrics.h"
#include "tools/persister_reconcile.h"
#include "tools/persister_renew.h"
#include "tools/persister_server.h"
#include "tools/persister_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BACKOFF_MIN_MS = 10,
    BACKOFF_MAX_MS = 500,
    STABLE_MS = 1000,  /* a connection that lasted so long starts the back-off anew          */
    TICKETS_MIN = 32,  /* in a batch, if so many wait: see tickets_at_once()                 */
    TICKETS_MAX = 256,
    SWEEP_MS = 5,      /* between two steps of the store's sweep                             */
    STUCK_MS = 10,     /* between two attempts that say nothing to those who wait            */
    REPEATS = 64,      /* takes in a row of nothing but what this round has written          */
    PROGRESS_MS = 1000,
    RIVAL_MS = 5000    /* for the leader of a table that was replaced to notice and leave    */
};

/* Everything is being written again. */
struct resync {
    bool running;
    uint64_t started_at, written; /* of batch.written: when it began; as counted so far */
    uint64_t counted;
    unsigned percent;
};

struct leader {
    const struct settings *settings;
    sesstab *table;
    struct store *store;
    struct spawn *spawn;
    const struct watch *watch;
    struct sentinel *sentinel;   /* NULL without                                         */
    struct redis_address address; /* of the server, or the master; "" while it is unknown */
    struct redis redis;
    struct server server;
    struct fence fence;
    struct ack ack;
    struct batch batch;
    struct compare compare;
    struct resync resync;
    uint64_t progress_at;        /* the next line about how far compare and resync are   */
    uint64_t progress_said;      /* how far they were then                               */
    struct renew renew;
    bool reconciling;            /* a thorough comparison is to come to its end          */
    bool once_more;              /* none has begun since one was asked for               */
    bool over;
    enum ending ending;          /* once over                                            */
    bool up;                     /* connected and filled                                 */
    uint64_t up_since, retry_at, rival_until;
    bool rival_unknown;          /* whether it is alive; its key is not to be read till then */
    bool load_tried;             /* what is bad in Redis was logged                      */
    unsigned backoff_ms;
    char said[256];              /* the last reason that was logged for not being up     */
    bool said_up;
    uint64_t gather_until;       /* write-behind changes go out then; 0: none is known   */
    uint64_t round_until;        /* a session that was written before is not, till then  */
    uint64_t round_began;        /* ms since the epoch                                   */
    unsigned repeats;
    uint64_t tick_at, check_at, look_at;
    bool name_removed;
};

static void end(struct leader *l, enum ending ending, const char *reason)
{
    static const char *const events[] = { [ENDING_STOPPED] = "leaving",
                                          [ENDING_SUPERSEDED] = "superseded",
                                          [ENDING_FAILED] = "failed" };
    if (l->over)
        return;
    l->over = true;
    l->ending = ending;
    log_event(ending == ENDING_FAILED ? LEVEL_ERROR : LEVEL_WARN, events[ending],
              TEXT("reason", reason));
}

/* Between this and what is done next another one may take the lead all the same: then Redis executes
 * nothing of it, and in the table it does no harm (lib/store.h). */
static bool still_leads(struct leader *l)
{
    if (store_leads(l->store))
        return true;
    if (!l->over)
        metric_add(METRIC_SUPERSEDED, 1);
    end(l, ENDING_SUPERSEDED, "another persister of this table has taken the lead");
    return false;
}

static struct store *progressing; /* by the leading thread, the only one that may ask Redis */

static void beat(void)
{
    health_step();
    store_beat(progressing);
}

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

static void went_down(struct leader *l)
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
        end(l, ENDING_FAILED, l->redis.reason);
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

/* ---------------------------------------------------------------- what Redis holds ------- */

static bool table_is_empty(struct leader *l)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    bool empty = sesstab_next(l->table, &cursor, &view) == SESSTAB_NOTFOUND;
    if (!empty)
        sesstab_pause(l->table, &cursor);
    return empty;
}

/* The epoch is looked at once more: what was loaded before a loss is not durable. */
static bool still_there(struct leader *l)
{
    if (!fence_look(&l->fence))
        return false;
    if (!fence_held(&l->fence)) {
        redis_drop(&l->redis, "the lead was lost while loading");
        return false;
    }
    if (fence_epoch(&l->fence, store_incarnation(l->store)) == EPOCH_OURS)
        return true;
    store_lost(l->store);
    metric_add(METRIC_LOSSES_ALL, 1);
    redis_drop(&l->redis, "Redis lost its data while it was being loaded");
    return false;
}

/* Whose sessions are going to be loaded. */
static void note_predecessor(struct leader *l)
{
    uint64_t creation;
    uint32_t incarnation;
    if (fence_epoch_names(&l->fence, &creation, &incarnation))
        store_load_from(l->store, creation, incarnation);
}

static bool is_predecessor(struct leader *l)
{
    uint64_t creation;
    uint32_t incarnation;
    return fence_epoch_names(&l->fence, &creation, &incarnation) &&
           store_loaded_from(l->store, creation, incarnation);
}

static bool load(struct leader *l)
{
    struct load loading = { .store = l->store, .redis = &l->redis,
                            .prefix = l->settings->prefix, .quiet = l->load_tried };
    uint64_t start = monotonic_ms();
    bool was_empty = table_is_empty(l);
    if (fence_epoch(&l->fence, store_incarnation(l->store)) != EPOCH_OURS) {
        note_predecessor(l);
        if (!fence_set_epoch(&l->fence, store_incarnation(l->store)))
            return false;
    }
    l->load_tried = true;
    if (!load_run(&loading))
        redis_drop(&l->redis, "asked to stop while loading");
    if (!redis_connected(&l->redis) || !still_there(l))
        return false;
    log_event(LEVEL_INFO, "loaded", NUMBER("sessions", loading.loaded),
              NUMBER("present", loading.present), NUMBER("bad", loading.bad),
              NUMBER("empty", loading.empty), NUMBER("ms", monotonic_ms() - start));
    store_set_ready(l->store, loading.max_generation, loading.max_handle);
    log_event(LEVEL_INFO, "ready", NUMBER("max_generation", loading.max_generation),
              NUMBER("max_handle", loading.max_handle));
    /* What an earlier attempt had loaded may have been lost before this one. */
    if (!was_empty || loading.empty)
        compare_start(&l->compare, &l->batch, !loading.empty);
    else
        compare_slowly(&l->compare, &l->batch);
    return true;
}

/* Before the lead is given up for good: whether a second look shows the same SEEN, of the fence. */
static bool says_it_again(struct leader *l, const char seen[TOKEN_BYTES])
{
    char before[TOKEN_BYTES];
    memcpy(before, seen, sizeof before);
    if (fence_look(&l->fence) && strcmp(before, seen) != 0)
        redis_drop(&l->redis, "Redis said two different things about whose it is");
    return redis_connected(&l->redis);
}

/*
 * Redis holds another table's sessions: what this table does not know is not to be deleted.  (Not
 * so if this table was loaded from them, and Redis has gone back to a copy from before.)
 */
static bool belongs_to_another(struct leader *l)
{
    if (!store_is_ready(l->store) ||
        fence_epoch(&l->fence, store_incarnation(l->store)) != EPOCH_FOREIGN || is_predecessor(l))
        return false;
    if (!says_it_again(l, l->fence.epoch))
        return true;
    char reason[640];
    snprintf(reason, sizeof reason,
             "Redis holds another table's sessions under this prefix (%s is %s): give this table "
             "a --prefix of its own, or, if the other one is gone for good, DEL %s",
             l->fence.epoch_key, l->fence.epoch, l->fence.epoch_key);
    end(l, ENDING_FAILED, reason);
    redis_drop(&l->redis, "Redis holds another table's sessions under this prefix");
    return true;
}

static bool push_everything(struct leader *l)
{
    if (belongs_to_another(l))
        return false;
    log_event(LEVEL_WARN, "lost", TEXT("epoch", l->fence.epoch[0] ? l->fence.epoch : "missing"),
              TEXT("note", "Redis does not hold this table's data; everything is written again"));
    store_lost(l->store);
    metric_add(METRIC_LOSSES_ALL, 1);
    l->resync = (struct resync){ .running = true, .started_at = monotonic_ms(),
                                 .written = l->batch.written, .counted = l->batch.written };
    if (!fence_set_epoch(&l->fence, store_incarnation(l->store)))
        return false;
    compare_start(&l->compare, &l->batch, false);
    return true;
}

static bool fill(struct leader *l)
{
    if (!store_is_ready(l->store))
        return load(l);
    if (fence_epoch(&l->fence, store_incarnation(l->store)) != EPOCH_OURS)
        return push_everything(l);
    /* It says that it holds our data: since we last saw it, it may have gone back to an older copy of
     * them (a restart, a fail-over and back), token and epoch included. */
    compare_start(&l->compare, &l->batch, false);
    return true;
}

/* ---------------------------------------------------------------- the lead --------------- */

static void refuse_rival(struct leader *l, enum alive alive)
{
    if (alive == ALIVE_UNKNOWN)
        end(l, ENDING_FAILED, "another table's persister led under this prefix, and this user may "
                              "not see whether it still does: allow it CLIENT LIST and CLIENT "
                              "SETNAME, or OBJECT IDLETIME; or stop the other one and DEL its "
                              "<prefix>:leader; or use another --prefix");
    else
        end(l, ENDING_FAILED, "another table's live persister writes to this Redis under the same "
                              "prefix: stop it, or give each table a --prefix of its own");
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
    if (!fence_look(&l->fence) || has_rival(l, reads) || belongs_to_another(l) ||
        !still_leads(l) || !fence_take(&l->fence))
        return false;
    /* Once more, now that nobody else can change it. */
    if (!fence_look(&l->fence) || !fence_held(&l->fence))
        return false;
    say_up(l);
    return fill(l) && redis_connected(&l->redis);
}

/* What the first server can't promise is not begun with. */
static bool promise(struct leader *l)
{
    if (ack_possible(&l->ack))
        return true;
    end(l, ENDING_FAILED, l->ack.why);
    redis_drop(&l->redis, l->ack.why);
    return false;
}

/* Whether anything may be written (A1); tells people what "durable" means by now. */
static bool may_write(struct leader *l)
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

static void try_to_connect(struct leader *l)
{
    if (!redis_connect(&l->redis, &l->address, &l->settings->login) ||
        !server_ask(&l->redis, &l->server) || !promise(l) || !establish(l)) {
        redis_drop(&l->redis, "the lead was lost");
        went_down(l);
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
static void follow_master(struct leader *l)
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
static bool may_connect(const struct leader *l)
{
    return l->address.text[0] && (!l->spawn || spawn_is_up(l->spawn));
}

static void connect_in_time(struct leader *l)
{
    uint64_t now = monotonic_ms();
    if (may_connect(l) && now >= l->retry_at) {
        try_to_connect(l);
        return;
    }
    /* Taking none, for the sweep's sake: a dead worker's sessions become detached all the same. */
    store_take(l->store, NULL, 0, false);
    pause_ms(!may_connect(l) ? BACKOFF_MIN_MS
             : l->retry_at - now < TICK_MS ? (unsigned)(l->retry_at - now) : TICK_MS);
}

static void compare_again(struct leader *l, const char *reason)
{
    log_event(LEVEL_WARN, "comparing", TEXT("reason", reason));
    compare_start(&l->compare, &l->batch, false);
}

/* The leader key is no longer what this connection wrote. */
static void fenced(struct leader *l)
{
    enum holder holder = fence_holder(&l->fence);
    if (fence_held(&l->fence)) {
        compare_again(l, "the leader key was touched, or Redis has read another copy of its data");
        return;
    }
    log_event(LEVEL_WARN, "fenced",
              TEXT("holder", l->fence.holder[0] ? l->fence.holder : "nobody"));
    metric_add(METRIC_FENCED, 1);
    if (!still_leads(l)) /* a sibling's token without that is one that it wrote late */
        return;
    if (holder == HOLDER_FOREIGN && !says_it_again(l, l->fence.holder))
        return;
    enum alive alive = holder == HOLDER_FOREIGN ? fence_holder_alive(&l->fence) : ALIVE_NO;
    if (!redis_connected(&l->redis))
        return;
    if (alive != ALIVE_NO)
        end(l, ENDING_FAILED, "another table's persister has taken over this Redis and prefix");
    else if (!establish(l))
        redis_drop(&l->redis, "the lead was lost");
}

/* ---------------------------------------------------------------- mode ------------------- */

/* Nobody wants Redis any more: gone, without its being a failure. */
static void rest(struct leader *l)
{
    if (redis_connected(&l->redis)) {
        fence_leave(&l->fence);
        redis_drop(&l->redis, "mode memory");
    }
    compare_stop(&l->compare);
    quarantine_release(&l->batch.quarantine);
    round_begin(&l->batch.round);
    l->up = false;
    metric_set(METRIC_CONNECTED, 0);
    l->said[0] = '\0';
    l->said_up = false;
    l->retry_at = 0;
    l->backoff_ms = BACKOFF_MIN_MS;
}

/* False: in mode MEMORY, in which this mends what the dead leave and waits for another mode. */
static bool wanted(struct leader *l)
{
    bool switched;
    sesstab_mode mode = store_mode(l->store, &switched);
    if (switched) {
        metric_add(METRIC_MODE_SWITCHES, 1);
        log_event(LEVEL_INFO, "mode", TEXT("mode", sesstab_mode_name(mode)),
                  TEXT("note", mode == SESSTAB_MEMORY ? "Redis is left as it is until the mode is "
                                                        "another" : NULL));
        if (mode == SESSTAB_MEMORY)
            rest(l);
    }
    if (mode != SESSTAB_MEMORY)
        return true;
    store_take(l->store, NULL, 0, false);
    store_rest(l->store, TICK_MS);
    return false;
}

/* ---------------------------------------------------------------- serving ---------------- */

static enum verdict check(struct leader *l)
{
    ack_look(&l->ack); /* which may wait for replicas: then comes something else */
    l->check_at = monotonic_ms() + CHECK_MS;
    enum verdict verdict = fence_check(&l->fence);
    if (verdict != COMMITTED)
        return verdict;
    bool same = server_is_same(&l->redis, &l->server);
    if (!redis_connected(&l->redis))
        return BROKEN;
    if (!same)
        compare_again(l, "Redis has become another server's copy, or another server");
    if (store_compare_wanted(l->store))
        compare_again(l, "a persister that led before has stepped back");
    store_connected(l->store, true);
    if (fence_epoch(&l->fence, store_incarnation(l->store)) == EPOCH_OURS)
        return COMMITTED;
    return push_everything(l) ? COMMITTED : FENCED;
}

/*
 * Sleeps until something is to be written: a ticket, or the end of the interval in which other
 * changes gather (at once, when they are a backlog already).  A comparison that runs shortens every
 * sleep to nothing.
 */
static void gather(struct leader *l)
{
    uint64_t now = monotonic_ms();
    uint64_t limit = compare_running(&l->compare) || renew_due(&l->renew) ? 0 : TICK_MS;
    bool deep = l->gather_until == 0;
    if (!deep && l->gather_until < now + limit)
        limit = l->gather_until > now ? l->gather_until - now : 0;
    bool work = store_sleep(l->store, deep, (int)limit);
    now = monotonic_ms();
    if (deep && work)
        l->gather_until = now + (store_overflowed(l->store) ? 0 : l->settings->flush_interval_ms);
    /* Also without any news: the store looks for what nobody announced. */
    if (deep && now >= l->look_at)
        l->gather_until = now;
}

/* So few that Redis, we and those who wait work at once; so many that a batch's own commands cost
 * little. */
static size_t tickets_at_once(struct leader *l)
{
    size_t count = store_waiting(l->store) / 4, most = l->settings->batch;
    count = count < TICKETS_MIN ? TICKETS_MIN : count > TICKETS_MAX ? TICKETS_MAX : count;
    return count < most ? count : most;
}

static enum verdict write_tickets(struct leader *l)
{
    enum verdict verdict = batch_write_tickets(&l->batch, tickets_at_once(l));
    if (l->batch.stuck) /* they are taken again, but not at once */
        pause_ms(STUCK_MS);
    return verdict;
}

/*
 * When the next write-behind batch is due, after one of TAKEN that had room for MAX.  A backlog is
 * written without a pause; who changes the same sessions all the time must wait for the next round.
 */
static uint64_t next_batch(struct leader *l, uint64_t now, size_t taken, size_t max)
{
    if (taken == max)
        return l->repeats < REPEATS ? l->gather_until : l->round_until;
    uint64_t sweep = now + SWEEP_MS; /* which is in no hurry */
    if (l->batch.round.kept_count)
        return store_busy(l->store) && sweep < l->round_until ? sweep : l->round_until;
    return store_busy(l->store) ? sweep : 0;
}

/*
 * What was announced before the round began is durable, if this take emptied the store and nothing is
 * kept back; of what was written in this round and changed since, Redis has what it was then.
 */
static void settle(struct leader *l, enum verdict verdict, bool emptied)
{
    const struct quarantine *q = &l->batch.quarantine;
    if (verdict == COMMITTED && emptied && !q->parked_count && !quarantine_held(q) &&
        !compare_running(&l->compare))
        store_settle(l->store, l->round_began);
}

static enum verdict write_gathered(struct leader *l)
{
    size_t taken, kept, max = l->settings->batch;
    uint64_t now = monotonic_ms(), closed_until = quarantine_closed_until(&l->batch.quarantine);
    /* A probe must be tried, whatever it is. */
    if (now >= l->round_until || closed_until) {
        l->round_began = sesstab_now();
        round_begin(&l->batch.round);
        l->round_until = now + l->settings->flush_interval_ms;
        l->repeats = 0;
    }
    /* One as a probe, where Redis took nothing at all. */
    enum verdict verdict = batch_write(&l->batch, closed_until ? 1 : max, &taken, &kept);
    l->repeats = kept == taken ? l->repeats + 1 : 0;
    settle(l, verdict, !closed_until && taken < max);
    closed_until = quarantine_closed_until(&l->batch.quarantine);
    l->look_at = now + CHECK_MS;
    l->gather_until = closed_until ? closed_until : next_batch(l, now, taken, max);
    return verdict;
}

/*
 * What was asked for begins at once, and anew after a disconnect.  One that runs comes to its end, or
 * who asks more often than it takes would never see one; what it has gone past is for the next.
 */
static void reconcile(struct leader *l)
{
    struct compare *c = &l->compare;
    if (reconcile_requested())
        l->reconciling = l->once_more = true;
    if (!l->reconciling)
        return;
    bool runs = c->thorough && compare_running(c);
    if (!runs && (l->once_more || !c->thorough || !c->complete)) {
        l->once_more = false;
        compare_thoroughly(c, &l->batch);
    } else if (c->complete) {
        l->reconciling = false;
        if (l->settings->reconcile)
            end(l, ENDING_STOPPED, "reconciled");
        else
            compare_slowly(c, &l->batch);
    }
}

/* A1; what is there is renewed all the same. */
static enum verdict wait_for_promise(struct leader *l)
{
    store_take(l->store, NULL, 0, false); /* as in connect_in_time() */
    if (renew_due(&l->renew))
        return renew_slice(&l->renew);
    pause_ms(TICK_MS);
    return COMMITTED;
}

static enum verdict serve(struct leader *l)
{
    reconcile(l);
    if (monotonic_ms() >= l->check_at) {
        enum verdict verdict = check(l);
        if (verdict != COMMITTED)
            return verdict;
    }
    if (!may_write(l))
        return wait_for_promise(l);
    if (!l->gather_until || monotonic_ms() < l->gather_until)
        gather(l);
    /* Tickets alone: who waits does not wait for the others' writes as well. */
    enum verdict verdict = write_tickets(l);
    if (verdict == COMMITTED && l->gather_until && monotonic_ms() >= l->gather_until)
        verdict = write_gathered(l);
    if (verdict == COMMITTED && compare_due(&l->compare))
        verdict = compare_slice(&l->compare);
    if (verdict == COMMITTED && renew_due(&l->renew))
        verdict = renew_slice(&l->renew);
    return verdict;
}

/* ---------------------------------------------------------------- every 100 ms ----------- */

static void look_at_name(struct leader *l)
{
    switch (table_look(l->settings->table, store_creation_id(l->store))) {
    case NAME_REPLACED:
        end(l, ENDING_FAILED, "the table's name now means another segment, with a persister of "
                              "its own; this one's sessions are flushed and left");
        break;
    case NAME_REMOVED:
        if (!l->name_removed)
            log_event(LEVEL_WARN, "name-removed", TEXT("table", l->settings->table),
                      TEXT("note", "served until its last worker leaves"));
        else if (watch_others(l->watch) == 0)
            end(l, ENDING_STOPPED, "the table was removed and no worker is left");
        l->name_removed = true;
        break;
    case NAME_SAME:
    case NAME_UNKNOWN:
        break;
    }
}

/* Only if there was some: while Redis is away, or full, or lacks replicas, there is none for hours. */
static void say_progress(struct leader *l, uint64_t now)
{
    const struct compare *c = &l->compare;
    uint64_t written = l->batch.written - l->resync.written;
    uint64_t progress = l->resync.running ? written + l->resync.percent : c->compared + c->scanned;
    l->progress_at = now + PROGRESS_MS;
    if (progress == l->progress_said)
        return;
    l->progress_said = progress;
    if (l->resync.running)
        log_event(LEVEL_INFO, "resyncing", NUMBER("written", written),
                  NUMBER("percent", l->resync.percent));
    else if (compare_running(c))
        log_event(LEVEL_INFO, "comparing", NUMBER("sessions", c->compared),
                  NUMBER("members", c->scanned));
}

/* What is parked, because Redis is full, is not written again yet. */
static void follow_resync(struct leader *l, uint64_t now)
{
    struct resync *r = &l->resync;
    unsigned percent = store_progress(l->store);
    metric_add(METRIC_RESYNCED, l->batch.written - r->counted);
    r->counted = l->batch.written;
    r->percent = percent > r->percent ? percent : r->percent;
    if (percent < 100 || !l->up || l->batch.quarantine.probe_at)
        return;
    log_event(LEVEL_INFO, "resynced", NUMBER("sessions", l->batch.written - r->written),
              NUMBER("ms", now - r->started_at));
    r->running = false;
}

static void tick(struct leader *l)
{
    uint64_t now = monotonic_ms();
    if (now < l->tick_at)
        return;
    l->tick_at = now + TICK_MS;
    if (l->spawn)
        spawn_tend(l->spawn);
    batch_tick(&l->batch);
    follow_master(l);
    if (l->resync.running)
        follow_resync(l, now);
    if (now >= l->progress_at)
        say_progress(l, now);
    metric_set(METRIC_COMPARING, compare_running(&l->compare));
    look_at_name(l);
}

/* ---------------------------------------------------------------- leaving ---------------- */

static uint64_t leave_deadline(uint64_t start)
{
    uint64_t stop = stop_deadline();
    return stop ? stop : start + STOP_MS;
}

/* Nothing is left, or nothing more can be done about it. */
static bool flushed(struct leader *l, enum verdict verdict, size_t taken)
{
    if (!l->up || verdict != COMMITTED || l->batch.quarantine.probe_at || !may_write(l))
        return true;
    if (taken == l->settings->batch)
        return false;
    return !store_busy(l->store) || store_lag(l->store) == 0;
}

static const char *why_left(const struct leader *l)
{
    return !l->up ? l->redis.reason : !l->ack.kept ? l->ack.why : NULL;
}

static void flush(struct leader *l)
{
    uint64_t start = monotonic_ms(), written = l->batch.written;
    enum verdict verdict = COMMITTED;
    size_t taken = l->settings->batch, kept;
    quarantine_release(&l->batch.quarantine);
    while (!flushed(l, verdict, taken) && monotonic_ms() < leave_deadline(start)) {
        round_begin(&l->batch.round);
        verdict = batch_write(&l->batch, l->settings->batch, &taken, &kept);
        if (taken == 0)
            usleep(SWEEP_MS * 1000);
    }
    quarantine_release(&l->batch.quarantine);
    uint64_t left = store_lag(l->store);
    log_event(left ? LEVEL_WARN : LEVEL_INFO, "flushed",
              NUMBER("written", l->batch.written - written), NUMBER("left", left),
              TEXT("reason", left ? why_left(l) : NULL),
              NUMBER("ms", monotonic_ms() - start));
}

static void leave(struct leader *l)
{
    bool memory = sesstab_table_mode(l->table) == SESSTAB_MEMORY;
    if (l->ending == ENDING_STOPPED && !l->up && !memory && may_connect(l))
        try_to_connect(l);
    if (l->ending != ENDING_SUPERSEDED && !memory && still_leads(l))
        flush(l);
    round_begin(&l->batch.round); /* gives back what it kept */
    quarantine_release(&l->batch.quarantine);
    fence_leave(&l->fence);
    compare_stop(&l->compare);
    if (l->up)
        store_connected(l->store, false);
}

static bool prepare(struct leader *l)
{
    const struct settings *settings = l->settings;
    l->redis.timeout_ms = settings->timeout_ms;
    l->backoff_ms = BACKOFF_MIN_MS;
    l->compare.policy = settings->policy;
    fence_init(&l->fence, &l->redis, settings->prefix, store_creation_id(l->store));
    ack_init(&l->ack, &settings->ack, &l->fence, &l->server);
    if (settings->sentinels.count && !(l->sentinel = sentinel_start(&settings->sentinels)))
        return false;
    if (!l->sentinel)
        l->address = settings->address;
    return batch_init(&l->batch, l->table, l->store, &l->fence, settings->prefix,
                      settings->batch, settings->ttl);
}

static void say_leading(struct leader *l)
{
    static const char *const formers[] = { [FORMER_NOBODY] = "nobody", [FORMER_DEAD] = "dead",
                                           [FORMER_STALLED] = "stalled" };
    enum store_former former = store_former(l->store);
    char creation[24];
    snprintf(creation, sizeof creation, "%016" PRIx64, store_creation_id(l->store));
    log_event(LEVEL_INFO, "leader", TEXT("table", l->settings->table), TEXT("creation", creation),
              NUMBER("incarnation", store_incarnation(l->store)),
              TEXT("mode", sesstab_mode_name(sesstab_table_mode(l->table))),
              TEXT("ready", store_is_ready(l->store) ? "yes" : "no"),
              TEXT("former", formers[former]));
    metric_set(METRIC_LEADER, 1);
    metric_add(METRIC_LEADS, 1);
    metric_add(METRIC_TAKEOVERS_DEAD, former == FORMER_DEAD);
    metric_add(METRIC_TAKEOVERS_STALLED, former == FORMER_STALLED);
}

enum ending lead(const struct settings *settings, sesstab *table, struct store *store,
                 struct spawn *spawn, const struct watch *watch)
{
    struct leader l = { .settings = settings, .table = table, .store = store, .spawn = spawn,
                        .watch = watch, .ending = ENDING_STOPPED,
                        .reconciling = settings->reconcile };
    say_leading(&l);
    progressing = store;
    store_connected(store, false); /* until it is; a leader that was killed may not have said so */
    on_progress(beat);
    if (!prepare(&l))
        end(&l, ENDING_FAILED, "out of memory");
    while (!l.over && !stop_requested() && still_leads(&l)) {
        note_progress();
        tick(&l);
        if (l.over)
            break;
        if (!wanted(&l)) {
            if (settings->reconcile)
                end(&l, ENDING_FAILED, "the table is in mode memory: nothing of it is in Redis");
            continue;
        }
        if (!l.up) {
            connect_in_time(&l);
            continue;
        }
        enum verdict verdict = serve(&l);
        if (redis_connected(&l.redis) && (verdict == FENCED || !fence_held(&l.fence)))
            fenced(&l);
        if (!redis_connected(&l.redis))
            went_down(&l);
    }
    bool reconciled = settings->reconcile && l.over && l.ending == ENDING_STOPPED &&
                      l.compare.complete;
    leave(&l);
    if (reconciled)
        reconcile_report(&l.compare, store_lag(store));
    on_progress(NULL);
    metric_set(METRIC_LEADER, 0);
    metric_set(METRIC_CONNECTED, 0);
    sentinel_stop(l.sentinel);
    batch_free(&l.batch);
    redis_free(&l.redis);
    return l.ending;
}
