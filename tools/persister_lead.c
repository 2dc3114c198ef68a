/* Leading; see persister_lead.h. */
#include "tools/persister_leader.h"

#include "tools/log.h"
#include "tools/persister_health.h"
#include "tools/persister_metrics.h"
#include "tools/persister_reconcile.h"
#include "tools/persister_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum {
    TICKETS_MIN = 32,  /* in a batch, if so many wait: see tickets_at_once()                 */
    TICKETS_MAX = 256,
    SWEEP_MS = 5,      /* between two steps of the store's sweep                             */
    STUCK_MS = 10,     /* between two attempts that say nothing to those who wait            */
    REPEATS = 64,      /* takes in a row of nothing but what this round has written          */
    PROGRESS_MS = 1000
};

void leader_end(struct leader *l, enum ending ending, const char *reason)
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
bool leader_still_leads(struct leader *l)
{
    if (store_leads(l->store))
        return true;
    if (!l->over)
        metric_add(METRIC_SUPERSEDED, 1);
    leader_end(l, ENDING_SUPERSEDED, "another persister of this table has taken the lead");
    return false;
}

static struct store *progressing; /* by the leading thread, the only one that may ask Redis */

static void beat(void)
{
    health_step();
    store_beat(progressing);
}

void leader_compare_again(struct leader *l, const char *reason)
{
    log_event(LEVEL_WARN, "comparing", TEXT("reason", reason));
    compare_start(&l->compare, &l->batch, false);
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
        leader_compare_again(l, "Redis has become another server's copy, or another server");
    if (store_compare_wanted(l->store))
        leader_compare_again(l, "a persister that led before has stepped back");
    store_connected(l->store, true);
    if (fence_epoch(&l->fence, store_incarnation(l->store)) == EPOCH_OURS)
        return COMMITTED;
    return leader_push_everything(l) ? COMMITTED : FENCED;
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
            leader_end(l, ENDING_STOPPED, "reconciled");
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
    if (!leader_may_write(l))
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
        leader_end(l, ENDING_FAILED,
                   "the table's name now means another segment, with a persister of its own; this "
                   "one's sessions are flushed and left");
        break;
    case NAME_REMOVED:
        if (!l->name_removed)
            log_event(LEVEL_WARN, "name-removed", TEXT("table", l->settings->table),
                      TEXT("note", "served until its last worker leaves"));
        else if (watch_others(l->watch) == 0)
            leader_end(l, ENDING_STOPPED, "the table was removed and no worker is left");
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
    leader_follow_master(l);
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
    if (!l->up || verdict != COMMITTED || l->batch.quarantine.probe_at || !leader_may_write(l))
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
    if (l->ending == ENDING_STOPPED && !l->up && !memory && leader_may_connect(l))
        leader_try_to_connect(l);
    if (l->ending != ENDING_SUPERSEDED && !memory && leader_still_leads(l))
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
        leader_end(&l, ENDING_FAILED, "out of memory");
    while (!l.over && !stop_requested() && leader_still_leads(&l)) {
        note_progress();
        tick(&l);
        if (l.over)
            break;
        if (!wanted(&l)) {
            if (settings->reconcile)
                leader_end(&l, ENDING_FAILED,
                           "the table is in mode memory: nothing of it is in Redis");
            continue;
        }
        if (!l.up) {
            leader_connect_in_time(&l);
            continue;
        }
        enum verdict verdict = serve(&l);
        if (redis_connected(&l.redis) && (verdict == FENCED || !fence_held(&l.fence)))
            leader_fenced(&l);
        if (!redis_connected(&l.redis))
            leader_went_down(&l);
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
