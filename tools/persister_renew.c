/* Time to live; see persister_renew.h. */
#include "tools/persister_renew.h"

#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_metrics.h"

#include <stdio.h>
#include <string.h>

enum {
    PARTS = 1021,      /* a prime: the table's pages repeat in powers of two */
    RENEW_SLICE = 128, /* sessions                                           */
    PART_COST = 4      /* sessions that looking for them costs as much as    */
};

/* A session whose keys are to be renewed. */
struct lease {
    struct store_image image;
    struct session_key key;
    bool metadata; /* it has such a key */
    bool durable;  /* Redis holds it    */
};

/* The active set, and each session's record and metadata. */
enum { KEYS = 1 + 2 * RENEW_SLICE };
struct slice {
    struct lease leases[RENEW_SLICE];
    size_t count;
    bool with_set, walk_over;
    char active[KEY_BYTES];
    const char *keys[KEYS];
    unsigned ttl[KEYS];
    bool there[KEYS]; /* Redis has it */
    size_t key_count;
};

void renew_start(struct renew *r, struct batch *batch, struct compare *compare)
{
    *r = (struct renew){ .batch = batch, .compare = compare, .running = true, .first = true,
                         .since = monotonic_ms() };
    batch->renewed_until = 0;
}

void renew_stop(struct renew *r)
{
    r->running = false;
}

/* ---------------------------------------------------------------- whose turn it is ------- */

/* Parts whose moment has come since r->since. */
static uint64_t parts_due(const struct renew *r)
{
    uint64_t third = (uint64_t)r->batch->ttl * 1000 / 3;
    return r->first ? PARTS : (monotonic_ms() - r->since) * PARTS / third;
}

bool renew_due(const struct renew *r)
{
    return r->running && r->parts_done < parts_due(r);
}

static void finish_walk(struct renew *r)
{
    log_event(r->first ? LEVEL_INFO : LEVEL_DEBUG, "renewed", NUMBER("sessions", r->renewed),
              NUMBER("lost", r->lost), NUMBER("ttl", r->batch->ttl),
              NUMBER("ms", monotonic_ms() - r->since));
    if (r->set_missing && r->renewed && !compare_running(r->compare)) {
        log_event(LEVEL_WARN, "active-set-lost", TEXT("note", "it is written again"));
        compare_start(r->compare, r->batch, false);
    }
    uint64_t sure = (uint64_t)r->batch->ttl * 1000 / 6 * 5; /* N5 */
    r->batch->renewed_until = r->refused ? 0 : r->walk_began + sure;
    if (r->first) {
        r->since = monotonic_ms();
        r->parts_done = 0;
        r->running = r->batch->ttl != 0;
    }
    r->first = r->refused = r->set_missing = false;
    r->renewed = r->lost = 0;
}

static void finish_part(struct renew *r)
{
    uint64_t due = parts_due(r);
    r->part_open = false;
    r->parts_done++;
    if (r->parts_done % PARTS == 0)
        finish_walk(r);
    else if (due > r->parts_done + PARTS)
        r->parts_done += (due - r->parts_done) / PARTS * PARTS; /* this process was stopped */
}

/* ---------------------------------------------------------------- what is renewed -------- */

/* Whether Redis holds VIEW's session, or is being sent a change of it. */
static bool leases(struct renew *r, const sesstab_view *view, struct lease *lease)
{
    if (!store_knows(r->batch->store, view->handle, &lease->image) ||
        lease->image.generation != view->generation || lease->image.kind == STORE_DELETE ||
        (lease->image.kind == STORE_PUT && lease->image.member))
        return false;
    lease->durable = lease->image.kind != STORE_PUT && lease->image.version == view->version;
    lease->metadata = view->metadata_count;
    session_key(&lease->key, r->batch->prefix, view->handle);
    return true;
}

/* The next session of the part that is open; false at its end. */
static bool next_lease(struct renew *r, struct slice *slice)
{
    sesstab_view view;
    int error = sesstab_next(r->batch->table, &r->cursor, &view);
    slice->count += error == SESSTAB_OK && leases(r, &view, &slice->leases[slice->count]);
    return error == SESSTAB_OK || error == SESSTAB_CORRUPT;
}

/* Ends with the walk, which is over when what was found is renewed. */
static void collect(struct renew *r, struct slice *slice)
{
    for (size_t work = 0; work < RENEW_SLICE && renew_due(r) && !slice->walk_over;) {
        uint64_t part = r->parts_done % PARTS;
        if (!r->part_open) {
            slice->with_set |= part == 0;
            if (part == 0)
                r->walk_began = monotonic_ms();
            r->cursor = sesstab_part((unsigned)part, PARTS);
            r->part_open = true;
        }
        if (next_lease(r, slice)) {
            work++;
            continue;
        }
        work += PART_COST;
        slice->walk_over = part == PARTS - 1;
        if (!slice->walk_over)
            finish_part(r);
    }
    sesstab_pause(r->batch->table, &r->cursor);
}

static void add_key(struct slice *slice, const char *key, unsigned ttl)
{
    slice->keys[slice->key_count] = key;
    slice->ttl[slice->key_count++] = ttl;
}

static void list_keys(struct renew *r, struct slice *slice)
{
    active_key(slice->active, r->batch->prefix);
    if (slice->with_set)
        add_key(slice, slice->active, 2 * r->batch->ttl);
    for (size_t i = 0; i < slice->count; i++) {
        add_key(slice, slice->leases[i].key.record, r->batch->ttl);
        if (slice->leases[i].metadata)
            add_key(slice, slice->leases[i].key.metadata, r->batch->ttl);
    }
}

/* ---------------------------------------------------------------- Redis ------------------ */

static void append_key(struct redis *redis, const char *key, unsigned ttl)
{
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%u", ttl);
    if (ttl) {
        redis_put(redis, "EXPIRE", key, seconds, NULL);
        return;
    }
    redis_put(redis, "PERSIST", key, NULL);
    redis_put(redis, "EXISTS", key, NULL); /* which PERSIST does not say */
}

/* Once in a walk: it is tried again with the next part. */
static void say_refused(struct renew *r, const char *error)
{
    metric_add(METRIC_RENEWALS_REFUSED, 1);
    if (!r->refused)
        log_event(LEVEL_WARN, "renewal-refused", TEXT("reason", error),
                  TEXT("note", "the time to live of sessions in Redis runs on"));
    r->refused = true;
}

/* COUNT answers, each the last of EACH, in the order of the keys; false when one is an error. */
static bool read_answers(struct renew *r, struct slice *slice, redisReply *const *answers,
                         size_t each)
{
    for (size_t k = 0; k < slice->key_count; k++) {
        const redisReply *answer = answers[(k + 1) * each - 1];
        if (answer->type != REDIS_REPLY_INTEGER) {
            say_refused(r, answer->type == REDIS_REPLY_ERROR ? answer->str : "no number");
            return false;
        }
        slice->there[k] = answer->integer != 0;
    }
    return true;
}

/*
 * Where memory is short Redis refuses whatever stands in MULTI, but not this: and who could not
 * renew would lose everything for want of a few bytes.
 */
static enum verdict renew_by_script(struct renew *r, struct slice *slice, bool *answered)
{
    static const char script[] =
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end local there = {} "
        "for i = 2, #KEYS do if ARGV[i] == '0' then redis.call('PERSIST', KEYS[i]) "
        "there[i - 1] = redis.call('EXISTS', KEYS[i]) "
        "else there[i - 1] = redis.call('EXPIRE', KEYS[i], ARGV[i]) end end return there";
    struct redis *redis = r->batch->fence->redis;
    char numbers[KEYS][16], count[16];
    snprintf(count, sizeof count, "%zu", slice->key_count + 1);
    redis_start(redis, "EVAL");
    redis_text(redis, script);
    redis_text(redis, count);
    redis_text(redis, r->batch->fence->leader_key);
    for (size_t k = 0; k < slice->key_count; k++)
        redis_text(redis, slice->keys[k]);
    redis_text(redis, r->batch->fence->token);
    for (size_t k = 0; k < slice->key_count; k++) {
        snprintf(numbers[k], sizeof numbers[k], "%u", slice->ttl[k]);
        redis_text(redis, numbers[k]);
    }
    redis_append(redis);
    redisReply *reply = redis_receive(redis);
    bool fenced = reply && reply->type == REDIS_REPLY_INTEGER;
    bool of_each = reply && reply->type == REDIS_REPLY_ARRAY &&
                   reply->elements == slice->key_count;
    if (reply && reply->type == REDIS_REPLY_ERROR)
        say_refused(r, reply->str);
    else if (reply && !fenced && !of_each)
        redis_drop(redis, "EVAL did not answer for each key");
    *answered = of_each && read_answers(r, slice, reply->element, 1);
    freeReplyObject(reply);
    return fenced ? FENCED : redis_connected(redis) ? COMMITTED : BROKEN;
}

static enum verdict renew_keys(struct renew *r, struct slice *slice, bool *answered)
{
    struct fence *fence = r->batch->fence;
    struct transaction t = { 0 };
    fence_begin(fence, &t);
    for (size_t k = 0; k < slice->key_count; k++)
        append_key(fence->redis, slice->keys[k], slice->ttl[k]);
    enum verdict verdict = fence_commit(fence, &t);
    if (verdict == COMMITTED)
        *answered = read_answers(r, slice, t.exec->element, r->batch->ttl ? 1 : 2);
    if (verdict == ABORTED && t.refusal == REFUSAL_LATER) {
        redis_drop(fence->redis, t.error);
        verdict = BROKEN;
    } else if (verdict == ABORTED && t.refusal == REFUSAL_FULL) {
        verdict = renew_by_script(r, slice, answered);
    } else if (verdict == ABORTED) {
        say_refused(r, t.error);
        verdict = COMMITTED;
    }
    transaction_free(&t);
    return verdict;
}

/* ---------------------------------------------------------------- what was lost ---------- */

static void settle(struct renew *r, const struct slice *slice)
{
    const bool *there = slice->there;
    if (slice->with_set)
        r->set_missing = !*there++;
    for (size_t i = 0; i < slice->count; i++) {
        const struct lease *lease = &slice->leases[i];
        bool whole = *there++;
        if (lease->metadata)
            whole &= *there++;
        r->renewed++;
        if (whole || !lease->durable)
            continue;
        r->lost++;
        log_event(LEVEL_DEBUG, "expired", NUMBER("handle", lease->image.handle));
        store_forget(r->batch->store, &lease->image);
    }
}

enum verdict renew_slice(struct renew *r)
{
    static struct slice slice; /* too much for a stack frame */
    enum verdict verdict = COMMITTED;
    bool answered = false;
    uint64_t renewed = r->renewed, lost = r->lost;
    if (!fence_held(r->batch->fence))
        return redis_connected(r->batch->fence->redis) ? FENCED : BROKEN;
    slice.count = slice.key_count = 0;
    slice.with_set = slice.walk_over = false;
    collect(r, &slice);
    list_keys(r, &slice);
    if (slice.key_count)
        verdict = renew_keys(r, &slice, &answered);
    if (answered)
        settle(r, &slice);
    metric_add(METRIC_RENEWALS, r->renewed - renewed);
    metric_add(METRIC_EXPIRED, r->lost - lost);
    if (verdict == COMMITTED && slice.walk_over)
        finish_part(r);
    return verdict;
}
