/* Redis against a table that survived; see persister_compare.h. */
#include "tools/persister_compare.h"

#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_diff.h"
#include "tools/persister_metrics.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOUD = 64 }; /* differences that one comparison logs at level info */

/* What the table claims of one session. */
struct claim {
    struct store_image image;
    size_t metadata_count;
};

void compare_start(struct compare *c, struct batch *batch, bool claims_only)
{
    enum policy policy = c->policy;
    compare_stop(c);
    memset(c, 0, sizeof *c);
    c->policy = policy;
    c->batch = batch;
    c->claims_only = claims_only;
    c->phase = COMPARE_TABLE;
    c->started_at = monotonic_ms();
}

void compare_thoroughly(struct compare *c, struct batch *batch)
{
    compare_start(c, batch, false);
    c->thorough = true;
}

static void keep(void *handle)
{
    (void)handle; /* the tree's keys are the handles themselves */
}

void compare_stop(struct compare *c)
{
    tdestroy(c->adoptees, keep);
    c->adoptees = NULL;
    if (c->phase > COMPARE_TABLE)
        scan_free(&c->scan);
    c->phase = COMPARE_OFF;
    c->due = 0;
}

bool compare_running(const struct compare *c)
{
    return c->phase != COMPARE_OFF && !c->slowly;
}

bool compare_due(const struct compare *c)
{
    return compare_running(c) || (c->due && monotonic_ms() >= c->due);
}

void compare_slowly(struct compare *c, struct batch *batch)
{
    compare_start(c, batch, true);
    c->slowly = true;
    c->due = monotonic_ms() + COMPARE_SLOWLY_MS;
}

static void finish(struct compare *c)
{
    metric_add(METRIC_COMPARISONS, 1);
    metric_add(METRIC_REMOVED, c->removed);
    bool news = !c->slowly || c->repaired;
    log_event(c->slowly && news ? LEVEL_WARN : news ? LEVEL_INFO : LEVEL_DEBUG, "compared",
              NUMBER("sessions", c->compared), NUMBER("equal", c->compared - c->repaired),
              NUMBER("only_table", c->only_table), NUMBER("only_redis", c->only_redis),
              NUMBER("different", c->repaired - c->only_table),
              NUMBER("in_flight", c->in_flight), NUMBER("owner_gone", c->owner_gone),
              NUMBER("repaired", c->repaired), NUMBER("removed", c->removed),
              NUMBER("adopted", c->adopted), NUMBER("left", c->left),
              NUMBER("strange", c->strange), NUMBER("untold", c->untold),
              TEXT("thorough", c->thorough ? "yes" : "no"),
              NUMBER("ms", monotonic_ms() - c->started_at),
              TEXT("note", c->slowly && news
                               ? "somebody else changed, or evicted, what Redis held" : NULL));
    metric_add(METRIC_LOSSES_SOME, c->repaired > 0);
    metric_add(METRIC_RESYNCED, c->repaired);
    if (c->denied[0] && !c->slowly)
        log_event(LEVEL_WARN, "compare-refused", TEXT("reason", c->denied),
                  TEXT("note", "what could not be compared is left as it is"));
    if (c->thorough) {
        compare_stop(c);
        c->complete = true;
    } else {
        compare_slowly(c, c->batch);
    }
}

/* Of a thorough one: names the field, but no values, which are nobody's business in a log. */
static void say_difference(const struct difference *d, void *context)
{
    struct compare *c = context;
    log_event(c->said++ < LOUD ? LEVEL_INFO : LEVEL_DEBUG, "difference",
              NUMBER("handle", d->handle), TEXT("where", difference_names[d->kind]),
              TEXT("field", d->field));
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
        if (error != SESSTAB_OK)
            continue;
        c->owner_gone += view.state == SESSTAB_DETACHED;
        if (claims(c, &view, &taken[n]))
            n++;
        else
            c->in_flight++;
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
    if (c->thorough) {
        ask_session(redis, active, &key);
        return;
    }
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

/* Redis does not say (NOPERM): that is no difference, or everything would be written for ever. */
static bool untold(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ERROR && redis_refusal(reply) != REFUSAL_TYPE;
}

/* The same of every field; what changes just now is written anyway. */
static bool holds_all(struct compare *c, const struct claim *claim)
{
    static char buffer[SESSTAB_RECORD_MAX];
    size_t size = sizeof buffer, count = 0;
    struct answers answers = { 0 };
    sesstab_view view;
    bool answered = receive_answers(c->batch->fence->redis, &answers);
    const char *refused = answered ? answers_refused(&answers) : NULL;
    if (refused) {
        snprintf(c->denied, sizeof c->denied, "%s", refused);
        c->untold++;
        answered = false;
    }
    if (answered &&
        sesstab_get(c->batch->table, claim->image.handle, &view, buffer, &size) == SESSTAB_OK &&
        view.generation == claim->image.generation && view.version == claim->image.version) {
        bool seen = claim->image.kind == STORE_NOTHING && view.last_seen == claim->image.last_seen;
        count = diff_session(&view, seen, &answers, say_difference, c);
        c->only_table += count && answers.record->type == REDIS_REPLY_ARRAY &&
                         answers.record->elements == 0;
    }
    free_answers(&answers);
    return count == 0;
}

static bool is_missing(const redisReply *fields)
{
    return fields->type == REDIS_REPLY_ARRAY && fields->elements &&
           fields->element[0]->type == REDIS_REPLY_NIL;
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
        c->only_table += is_missing(fields);
        if (untold(fields) || untold(metadata) || untold(member)) {
            c->untold++;
            same = true;
        }
        if (redis_refusal(fields) == REFUSAL_LATER)
            redis_drop(redis, fields->str);
    }
    freeReplyObject(fields);
    freeReplyObject(metadata);
    freeReplyObject(member);
    return same;
}

/* What follows the phase that is over. */
static enum verdict next_phase(struct compare *c)
{
    struct redis *redis = c->batch->fence->redis;
    if (c->phase > COMPARE_TABLE)
        scan_free(&c->scan);
    c->strange += c->phase > COMPARE_RESERVE ? c->scan.strange : 0;
    if (c->phase == COMPARE_TABLE && c->policy == POLICY_REDIS) {
        c->phase = COMPARE_RESERVE;
        if (c->thorough)
            scan_begin_keys(&c->scan, redis, c->batch->prefix);
        else
            scan_begin(&c->scan, redis, c->batch->prefix);
    } else if (c->phase < COMPARE_REDIS) {
        c->phase = COMPARE_REDIS;
        scan_begin(&c->scan, redis, c->batch->prefix);
    } else if (c->phase == COMPARE_REDIS && c->thorough) {
        c->phase = COMPARE_KEYS;
        scan_begin_keys(&c->scan, redis, c->batch->prefix);
    } else {
        finish(c);
    }
    return redis_connected(redis) ? COMMITTED : BROKEN;
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
        bool same = c->thorough ? holds_all(c, &taken[i]) : holds(c, &taken[i]);
        if (!redis_connected(redis))
            return BROKEN;
        c->compared++;
        if (same)
            continue;
        c->repaired++;
        metric_add(METRIC_REPAIRED, 1);
        log_event(LEVEL_DEBUG, "repaired", NUMBER("handle", taken[i].image.handle));
        store_forget(c->batch->store, &taken[i].image);
    }
    if (done && c->claims_only)
        finish(c);
    if (!done || c->claims_only)
        return COMMITTED;
    return next_phase(c);
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

/* ---------------------------------------------------------------- adopting --------------- */

/* A1: the highest generation of what the table does not know. */
static bool note_generations(struct compare *c, const uint64_t *handles, size_t count)
{
    struct redis *redis = c->batch->fence->redis;
    struct session_key key;
    struct stored stored;
    for (size_t i = 0; i < count; i++) {
        session_key(&key, c->batch->prefix, handles[i]);
        redis_put(redis, "HMGET", key.record, STORED_FIELDS, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        redisReply *reply = redis_receive(redis);
        if (reply && parse_stored(reply, &stored) && stored.generation <= GENERATION_MAX &&
            stored.generation > c->max_generation)
            c->max_generation = stored.generation;
        freeReplyObject(reply);
    }
    return redis_connected(redis);
}

static int compare_handles(const void *a, const void *b)
{
    return ((uintptr_t)a > (uintptr_t)b) - ((uintptr_t)a < (uintptr_t)b);
}

static const char *adopt(struct compare *c, const struct store_record *record)
{
    void *handle = (void *)(uintptr_t)record->handle;
    if (record->generation < c->first_new || record->generation > c->max_generation)
        return "it is not newer than this table's sessions: it may be one that ended here";
    if (tfind(handle, &c->adoptees, compare_handles)) /* A3 */
        return "it was adopted in this comparison already, and has ended since";
    if (!tsearch(handle, &c->adoptees, compare_handles))
        return "out of memory";
    int error = store_load(c->batch->store, record);
    if (error == SESSTAB_OK) {
        store_set_ready(c->batch->store, 0, record->handle); /* none like it is chosen again */
        c->adopted++;
        metric_add(METRIC_ADOPTED, 1);
    } else {
        tdelete(handle, &c->adoptees, compare_handles);
    }
    return error == SESSTAB_OK || error == SESSTAB_EXISTS ? NULL : sesstab_strerror(error);
}

static void adopt_answered(struct compare *c, uint64_t handle, const struct answers *answers)
{
    struct store_record record;
    sesstab_pair *pairs = NULL;
    const char *why = parse_record(answers->record, handle, &record);
    if (!why)
        why = parse_metadata(answers->metadata, &record, &pairs);
    if (!why)
        why = adopt(c, &record);
    free(pairs);
    if (!why)
        return;
    c->left++;
    metric_add(METRIC_NOT_ADOPTED, 1);
    log_event(c->said++ < LOUD ? LEVEL_WARN : LEVEL_DEBUG, "not-adopted", NUMBER("handle", handle),
              TEXT("reason", why), TEXT("note", "left as it is in Redis"));
}

static bool has_record(const struct answers *answers)
{
    return answers->record->type != REDIS_REPLY_ARRAY || answers->record->elements;
}

/* What has no record is no session, and is removed. */
static enum verdict adopt_unknown(struct compare *c, const uint64_t *handles, size_t count)
{
    struct redis *redis = c->batch->fence->redis;
    struct session_key key;
    char active[KEY_BYTES];
    uint64_t empty[SCAN_PAGE];
    size_t n = 0;
    active_key(active, c->batch->prefix);
    for (size_t i = 0; i < count; i++) {
        session_key(&key, c->batch->prefix, handles[i]);
        ask_session(redis, active, &key);
    }
    for (size_t i = 0; i < count; i++) {
        struct answers answers = { 0 };
        bool received = receive_answers(redis, &answers);
        if (received && !answers_refused(&answers) && !has_record(&answers))
            empty[n++] = handles[i];
        else if (received)
            adopt_answered(c, handles[i], &answers);
        free_answers(&answers);
    }
    return redis_connected(redis) ? remove_unknown(c, empty, n) : BROKEN;
}

/* ---------------------------------------------------------------- what only Redis has ---- */

/* What is there of an unknown handle, to be read after the table was asked. */
static bool is_there(struct compare *c, bool metadata_key)
{
    struct redis *redis = c->batch->fence->redis;
    redisReply *member = redis_receive(redis), *record = redis_receive(redis),
               *metadata = redis_receive(redis);
    bool there = false;
    if (member && record && metadata && c->phase == COMPARE_REDIS)
        there = !integer_is(member, 0);
    else if (member && record && metadata && integer_is(member, 0)) /* members were looked at */
        there = metadata_key ? integer_is(record, 0) && integer_is(metadata, 1)
                             : integer_is(record, 1);
    freeReplyObject(member);
    freeReplyObject(record);
    freeReplyObject(metadata);
    return there;
}

/*
 * The page may be older than this slice, and what it names be removed by now: of COUNT handles, in
 * these PLACES of the page, those that still are in Redis.
 */
static size_t leave_gone(struct compare *c, uint64_t *handles, const size_t *places, size_t count)
{
    struct redis *redis = c->batch->fence->redis;
    struct session_key key;
    char active[KEY_BYTES];
    size_t kept = 0;
    active_key(active, c->batch->prefix);
    for (size_t i = 0; i < count; i++) {
        session_key(&key, c->batch->prefix, handles[i]);
        redis_put(redis, "SISMEMBER", active, key.handle, NULL);
        redis_put(redis, "EXISTS", key.record, NULL);
        redis_put(redis, "EXISTS", key.metadata, NULL);
    }
    for (size_t i = 0; i < count; i++)
        if (is_there(c, c->scan.metadata[places[i]]))
            handles[kept++] = handles[i];
    return kept;
}

static bool is_among(const uint64_t *handles, size_t count, uint64_t handle)
{
    for (size_t i = 0; i < count; i++)
        if (handles[i] == handle)
            return true;
    return false;
}

/* The page's handles that the table does not know, and Redis has. */
static size_t unknown_of(struct compare *c, uint64_t unknown[SCAN_PAGE])
{
    const uint64_t *handles = c->scan.handles;
    size_t places[SCAN_PAGE], n = 0;
    for (size_t i = 0; i < c->scan.count; i++)
        if (!store_knows(c->batch->store, handles[i], NULL) &&
            (c->phase != COMPARE_REDIS || !is_among(unknown, n, handles[i]))) {
            places[n] = i;
            unknown[n++] = handles[i];
        }
    return c->phase == COMPARE_RESERVE ? n : leave_gone(c, unknown, places, n);
}

static void say_unknown(struct compare *c, const uint64_t *handles, size_t count)
{
    struct difference d = { .kind = ONLY_IN_REDIS, .field = "record" };
    c->only_redis += count;
    for (size_t i = 0; i < count && c->thorough; i++) {
        d.handle = handles[i];
        say_difference(&d, c);
    }
}

static enum verdict redis_slice(struct compare *c)
{
    uint64_t unknown[SCAN_PAGE];
    if (!scan_next(&c->scan))
        return BROKEN;
    c->scanned += c->scan.count;
    size_t n = unknown_of(c, unknown);
    enum verdict verdict = COMMITTED;
    if (c->phase == COMPARE_RESERVE)
        verdict = note_generations(c, unknown, n) ? COMMITTED : BROKEN;
    else
        say_unknown(c, unknown, n);
    if (c->phase != COMPARE_RESERVE)
        verdict = c->policy == POLICY_REDIS ? adopt_unknown(c, unknown, n)
                                            : remove_unknown(c, unknown, n);
    if (verdict != COMMITTED || !c->scan.done)
        return verdict;
    if (c->phase == COMPARE_RESERVE)
        c->first_new = store_reserve(c->batch->store, c->max_generation);
    return next_phase(c);
}

enum verdict compare_slice(struct compare *c)
{
    if (c->slowly)
        c->due = monotonic_ms() + COMPARE_SLOWLY_MS;
    return c->phase == COMPARE_TABLE ? table_slice(c) : redis_slice(c);
}
