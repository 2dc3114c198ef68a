/* Redis against a table that survived; see persister_compare.h. */
#include "tools/persister_compare.h"

#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_metrics.h"

#include <stdio.h>
#include <string.h>

/* What the table claims of one session. */
struct claim {
    struct store_image image;
    size_t metadata_count;
};

void compare_start(struct compare *c, struct batch *batch, bool claims_only)
{
    compare_stop(c);
    memset(c, 0, sizeof *c);
    c->batch = batch;
    c->claims_only = claims_only;
    c->phase = COMPARE_TABLE;
    c->started_at = monotonic_ms();
}

void compare_stop(struct compare *c)
{
    if (c->phase == COMPARE_REDIS)
        scan_free(&c->scan);
    c->phase = COMPARE_OFF;
}

bool compare_running(const struct compare *c)
{
    return c->phase != COMPARE_OFF;
}

static void finish(struct compare *c)
{
    log_event(LEVEL_INFO, "compared", NUMBER("sessions", c->compared),
              NUMBER("repaired", c->repaired), NUMBER("removed", c->removed),
              NUMBER("strange", c->strange),
              NUMBER("ms", monotonic_ms() - c->started_at));
    metric_add(METRIC_LOSSES_SOME, c->repaired > 0);
    metric_add(METRIC_RESYNCED, c->repaired);
    if (c->denied[0])
        log_event(LEVEL_WARN, "compare-refused", TEXT("reason", c->denied),
                  TEXT("note", "what could not be compared was written again, or is left as it is"));
    compare_stop(c);
}

/* ---------------------------------------------------------------- the table's claims ----- */

/* A session with a change on its way is not durable, and is written anyway. */
static bool claims(struct compare *c, const sesstab_view *view, struct claim *claim)
{
    claim->metadata_count = view->metadata_count;
    return store_knows(c->batch->store, view->handle, &claim->image) &&
           claim->image.version == view->version && claim->image.generation == view->generation &&
           (claim->image.kind == STORE_NOTHING || claim->image.kind == STORE_TOUCH);
}

/* Up to COMPARE_SLICE claims; *DONE when the walk is at its end. */
static size_t collect(struct compare *c, struct claim *taken, bool *done)
{
    sesstab_view view;
    size_t n = 0;
    *done = false;
    for (size_t seen = 0; seen < COMPARE_SLICE && !*done; seen++) {
        int error = sesstab_next(c->batch->table, &c->cursor, &view);
        *done = error != SESSTAB_OK && error != SESSTAB_CORRUPT;
        if (error == SESSTAB_OK && claims(c, &view, &taken[n]))
            n++;
    }
    if (!*done)
        sesstab_pause(c->batch->table, &c->cursor);
    return n;
}

static void ask(struct compare *c, const struct claim *claim)
{
    struct redis *redis = c->batch->fence->redis;
    struct session_key key;
    char active[KEY_BYTES];
    active_key(active, c->batch->prefix);
    session_key(&key, c->batch->prefix, claim->image.handle);
    redis_put(redis, "HMGET", key.record, STORED_FIELDS, NULL);
    redis_put(redis, "HLEN", key.metadata, NULL);
    redis_put(redis, "SISMEMBER", active, key.handle, NULL);
}

static bool integer_is(const redisReply *reply, size_t value)
{
    return reply->type == REDIS_REPLY_INTEGER && reply->integer == (long long)value;
}

/* A newer last-seen that is on its way anyway is no difference. */
static bool seen_enough(const struct claim *claim, uint64_t stored)
{
    char text[RECORD_TIME_BYTES];
    uint64_t storable;
    format_time(text, claim->image.last_seen);
    return claim->image.kind == STORE_TOUCH || !parse_time(text, &storable) || stored >= storable;
}

static void note_denied(struct compare *c, const redisReply *reply)
{
    if (redis_refusal(reply) == REFUSAL_DENIED)
        snprintf(c->denied, sizeof c->denied, "%s", reply->str);
}

/* Reads the three answers; drops the connection when Redis cannot be asked now. */
static bool holds(struct compare *c, const struct claim *claim)
{
    struct redis *redis = c->batch->fence->redis;
    struct stored stored;
    bool same = true;
    redisReply *fields = redis_receive(redis), *metadata = redis_receive(redis),
               *member = redis_receive(redis);
    if (fields && metadata && member) {
        same = parse_stored(fields, &stored) && stored.generation == claim->image.generation &&
               stored.version == claim->image.version && seen_enough(claim, stored.last_seen) &&
               integer_is(metadata, claim->metadata_count) && integer_is(member, 1);
        note_denied(c, fields);
        note_denied(c, metadata);
        note_denied(c, member);
        if (redis_refusal(fields) == REFUSAL_LATER)
            redis_drop(redis, fields->str);
    }
    freeReplyObject(fields);
    freeReplyObject(metadata);
    freeReplyObject(member);
    return same;
}

static enum verdict table_slice(struct compare *c)
{
    struct claim taken[COMPARE_SLICE];
    struct redis *redis = c->batch->fence->redis;
    bool done;
    size_t n = collect(c, taken, &done);
    for (size_t i = 0; i < n; i++)
        ask(c, &taken[i]);
    for (size_t i = 0; i < n; i++) {
        bool same = holds(c, &taken[i]);
        if (!redis_connected(redis))
            return BROKEN;
        c->compared++;
        if (same)
            continue;
        c->repaired++;
        log_event(LEVEL_DEBUG, "repaired", NUMBER("handle", taken[i].image.handle));
        store_forget(c->batch->store, &taken[i].image);
    }
    if (done && c->claims_only)
        finish(c);
    if (!done || c->claims_only)
        return COMMITTED;
    if (!scan_begin(&c->scan, redis, c->batch->prefix))
        return BROKEN;
    c->phase = COMPARE_REDIS;
    return COMMITTED;
}

/* ---------------------------------------------------------------- Redis's members -------- */

/* Takes out of HANDLES what is there and no record of ours; returns how many are left. */
static size_t leave_strange(struct compare *c, uint64_t *handles, size_t count)
{
    struct redis *redis = c->batch->fence->redis;
    struct session_key key;
    struct store_record record;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        session_key(&key, c->batch->prefix, handles[i]);
        redis_put(redis, "HGETALL", key.record, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        redisReply *reply = redis_receive(redis);
        bool empty = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 0;
        if (empty || (reply && !parse_record(reply, handles[i], &record)))
            handles[kept++] = handles[i];
        if (reply)
            note_denied(c, reply);
        freeReplyObject(reply);
    }
    c->strange += count - kept;
    return kept;
}

static enum verdict remove_unknown(struct compare *c, uint64_t *handles, size_t count)
{
    size_t n = count ? leave_strange(c, handles, count) : 0;
    if (n == 0)
        return redis_connected(c->batch->fence->redis) ? COMMITTED : BROKEN;
    enum verdict verdict = batch_remove(c->batch, handles, n);
    if (verdict == COMMITTED)
        c->removed += n;
    if (verdict != ABORTED)
        return verdict;
    /* They are found again by the next comparison. */
    log_event(LEVEL_WARN, "remove-refused", NUMBER("sessions", n),
              TEXT("reason", c->batch->hand.transaction.error));
    return COMMITTED;
}

static enum verdict redis_slice(struct compare *c)
{
    uint64_t unknown[SCAN_PAGE];
    size_t n = 0;
    if (!scan_next(&c->scan))
        return BROKEN;
    for (size_t i = 0; i < c->scan.count; i++)
        if (!store_knows(c->batch->store, c->scan.handles[i], NULL))
            unknown[n++] = c->scan.handles[i];
    enum verdict verdict = remove_unknown(c, unknown, n);
    if (verdict == COMMITTED && c->scan.done)
        finish(c);
    return verdict;
}

enum verdict compare_slice(struct compare *c)
{
    return c->phase == COMPARE_TABLE ? table_slice(c) : redis_slice(c);
}
