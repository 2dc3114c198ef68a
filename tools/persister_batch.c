/* Batches; see persister_batch.h. */
#include "tools/persister_batch.h"

#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_diff.h"
#include "tools/persister_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum operation_kind { CLEAR, RECORD, METADATA, JOIN, EXPIRE, TOUCH, REMOVE, LEAVE };
enum {
    OPERATIONS_PER_IMAGE = 7,
    CHAIN = 64 /* batches of tickets in a row */
};

struct operation {
    size_t image;
    enum operation_kind kind;
};

enum outcome_kind {
    WAITING, /* not written, or nobody knows          */
    CLEAN,   /* there was nothing to write            */
    WRITTEN,
    LOST,    /* Redis did not have what it should     */
    PARKED,  /* Redis is full: not even tried         */
    KEPT,    /* written in this round: not even tried */
    REFUSED
};

struct outcome {
    enum outcome_kind kind;
    enum refusal refusal;
    bool record_written; /* though another of its commands was refused */
    char error[200];
};

static const size_t everything = SIZE_MAX;

static bool hand_init(struct hand *hand, size_t room)
{
    hand->images = calloc(room, sizeof *hand->images);
    hand->outcomes = calloc(room, sizeof *hand->outcomes);
    hand->operations = calloc(room * OPERATIONS_PER_IMAGE, sizeof *hand->operations);
    return hand->images && hand->outcomes && hand->operations;
}

static void hand_free(struct hand *hand)
{
    transaction_free(&hand->transaction);
    free(hand->images);
    free(hand->outcomes);
    free(hand->operations);
}

bool batch_init(struct batch *batch, sesstab *table, struct store *store, struct fence *fence,
                const char *prefix, size_t room, unsigned ttl)
{
    memset(batch, 0, sizeof *batch);
    batch->table = table;
    batch->store = store;
    batch->fence = fence;
    batch->prefix = prefix;
    batch->room = room;
    batch->ttl = ttl;
    quarantine_init(&batch->quarantine, store);
    round_init(&batch->round, store);
    return hand_init(&batch->hand, room) && hand_init(&batch->ahead, room);
}

void batch_free(struct batch *batch)
{
    quarantine_free(&batch->quarantine);
    round_free(&batch->round);
    hand_free(&batch->hand);
    hand_free(&batch->ahead);
}

/* ---------------------------------------------------------------- commands --------------- */

/* Says what the next appended command is for; the first one opens the transaction. */
static void operate(struct batch *batch, size_t image, enum operation_kind kind)
{
    if (batch->hand.operation_count == 0)
        fence_begin(batch->fence, &batch->hand.transaction);
    batch->hand.operations[batch->hand.operation_count++] = (struct operation){ image, kind };
}

static void append_expire(struct batch *batch, size_t i, const char *key, unsigned ttl)
{
    char seconds[16];
    if (ttl == 0)
        return;
    snprintf(seconds, sizeof seconds, "%u", ttl);
    operate(batch, i, EXPIRE);
    redis_put(batch->fence->redis, "EXPIRE", key, seconds, NULL);
}

/* The record is one that was there before; see N5 in persister_renew.h. */
static void append_expire_known(struct batch *batch, size_t i, const char *record)
{
    if (!batch->hand.keys_are_there)
        append_expire(batch, i, record, batch->ttl);
}

/* Once in a transaction: the set may be new by it. */
static void append_expire_set(struct batch *batch, size_t i, const char *active)
{
    if (!batch->hand.set_renewed)
        append_expire(batch, i, active, 2 * batch->ttl);
    batch->hand.set_renewed = true;
}

static void append_put(struct batch *batch, size_t i, const struct session_key *key,
                       const sesstab_view *view)
{
    const struct store_image *image = &batch->hand.images[i];
    struct redis *redis = batch->fence->redis;
    char active[KEY_BYTES];
    if (image->replace) {
        operate(batch, i, CLEAR);
        redis_put(redis, "DEL", key->record, key->metadata, NULL);
    }
    operate(batch, i, RECORD);
    append_record(redis, key, view);
    if (image->replace)
        append_expire(batch, i, key->record, batch->ttl);
    else
        append_expire_known(batch, i, key->record);
    if (view->metadata_count) {
        operate(batch, i, METADATA);
        append_metadata(redis, key, view);
        append_expire(batch, i, key->metadata, batch->ttl);
    }
    if (image->member) {
        active_key(active, batch->prefix);
        operate(batch, i, JOIN);
        redis_put(redis, "SADD", active, key->handle, NULL);
        append_expire_set(batch, i, active);
    }
}

static void append_delete(struct batch *batch, size_t i, const struct session_key *key)
{
    char active[KEY_BYTES];
    active_key(active, batch->prefix);
    operate(batch, i, REMOVE);
    redis_put(batch->fence->redis, "DEL", key->record, key->metadata, NULL);
    operate(batch, i, LEAVE);
    redis_put(batch->fence->redis, "SREM", active, key->handle, NULL);
}

/* A write that nobody waits for is one of those that the quarantine allows, or is not tried. */
static bool is_parked(struct batch *batch, size_t i)
{
    const struct store_image *image = &batch->hand.images[i];
    bool counts = !image->urgent && (image->kind == STORE_PUT || image->kind == STORE_TOUCH);
    if (!counts || batch->allowance == SIZE_MAX)
        return false;
    if (batch->allowance) {
        batch->allowance--;
        return false;
    }
    batch->hand.outcomes[i].kind = PARKED;
    return true;
}

static void append_image(struct batch *batch, size_t i)
{
    struct store_image *image = &batch->hand.images[i];
    struct session_key key;
    sesstab_view view;
    store_read(batch->store, image, &view);
    if (is_parked(batch, i))
        return;
    session_key(&key, batch->prefix, image->handle);
    switch (image->kind) {
    case STORE_NOTHING:
        batch->hand.outcomes[i].kind = CLEAN;
        break;
    case STORE_TOUCH:
        operate(batch, i, TOUCH);
        append_touch(batch->fence->redis, &key, image->last_seen);
        append_expire_known(batch, i, key.record);
        break;
    case STORE_PUT:
        append_put(batch, i, &key, &view);
        break;
    case STORE_DELETE:
        append_delete(batch, i, &key);
        break;
    }
}

/* ---------------------------------------------------------------- replies ---------------- */

static void refuse(struct outcome *outcome, enum refusal refusal, const char *error)
{
    outcome->kind = REFUSED;
    outcome->refusal = refusal;
    snprintf(outcome->error, sizeof outcome->error, "%s", error);
}

/* A HSET that adds a field to a hash that was complete has found it gone. */
static bool shows_loss(const struct store_image *image, enum operation_kind kind,
                       const redisReply *reply)
{
    if (reply->integer == 0)
        return false;
    return kind == TOUCH || (kind == RECORD && !image->replace && !image->member);
}

static void judge_operation(struct batch *batch, const struct operation *operation,
                            const redisReply *reply)
{
    struct outcome *outcome = &batch->hand.outcomes[operation->image];
    if (reply->type == REDIS_REPLY_ERROR && redis_refusal(reply) == REFUSAL_LATER) {
        outcome->kind = WAITING;
        redis_drop(batch->fence->redis, reply->str);
    } else if (reply->type == REDIS_REPLY_ERROR) {
        /* What is lost is written again, whole: what lies in its way is deleted first. */
        if (outcome->kind != LOST)
            refuse(outcome, redis_refusal(reply), reply->str);
    } else if (reply->type != REDIS_REPLY_INTEGER) {
        outcome->kind = WAITING;
        redis_drop(batch->fence->redis, "a write was answered by something else than a number");
    } else {
        outcome->record_written |= operation->kind == RECORD;
        if (outcome->kind == WRITTEN &&
            shows_loss(&batch->hand.images[operation->image], operation->kind, reply))
            outcome->kind = LOST;
    }
}

/* Written, but not by enough servers (F5): not to be acknowledged. */
static void withhold(struct batch *batch)
{
    for (size_t i = 0; i < batch->hand.count; i++)
        if (batch->hand.outcomes[i].kind == WRITTEN) {
            batch->hand.outcomes[i].kind = WAITING;
            metric_add(METRIC_UNCONFIRMED, 1);
        }
}

static void judge_executed(struct batch *batch)
{
    for (size_t k = 0; k < batch->hand.operation_count; k++) {
        struct outcome *outcome = &batch->hand.outcomes[batch->hand.operations[k].image];
        if (k == 0 || batch->hand.operations[k - 1].image != batch->hand.operations[k].image)
            outcome->kind = WRITTEN;
        judge_operation(batch, &batch->hand.operations[k],
                        batch->hand.transaction.exec->element[k]);
    }
    if (!batch->fence->confirmed)
        withhold(batch);
}

/* Redis refused the transaction: for the commands with an error, or, if none has, for all. */
static void judge_aborted(struct batch *batch)
{
    const struct transaction *t = &batch->hand.transaction;
    bool found = false;
    for (size_t k = 0; k < batch->hand.operation_count; k++)
        found |= t->refusals[k] != REFUSAL_NONE;
    for (size_t k = 0; k < batch->hand.operation_count; k++)
        if (!found)
            refuse(&batch->hand.outcomes[batch->hand.operations[k].image], t->refusal, t->error);
        else if (t->refusals[k] != REFUSAL_NONE)
            refuse(&batch->hand.outcomes[batch->hand.operations[k].image], t->refusals[k],
                   t->error);
}

/* ---------------------------------------------------------------- attempts --------------- */

/* Appends the images that wait (ONLY: just that one) as one transaction, if there is anything. */
static enum verdict compose(struct batch *batch, size_t only)
{
    struct redis *redis = batch->fence->redis;
    if (!fence_held(batch->fence))
        return redis_connected(redis) ? FENCED : BROKEN;
    int error = sesstab_read_begin(batch->table);
    if (error) {
        redis_drop(redis, sesstab_strerror(error));
        return BROKEN;
    }
    batch->hand.operation_count = 0;
    batch->hand.set_renewed = false;
    batch->hand.keys_are_there = monotonic_ms() < batch->renewed_until;
    for (size_t i = 0; i < batch->hand.count; i++)
        if (batch->hand.outcomes[i].kind == WAITING && (only == everything || only == i))
            append_image(batch, i);
    sesstab_read_end(batch->table);
    if (batch->hand.operation_count)
        fence_end(batch->fence, &batch->hand.transaction);
    return COMMITTED;
}

/* What became of what was composed. */
static enum verdict conclude(struct batch *batch)
{
    if (batch->hand.operation_count == 0)
        return COMMITTED;
    static const enum metric metrics[] = {
        [COMMITTED] = METRIC_BATCHES_COMMITTED, [ABORTED] = METRIC_BATCHES_ABORTED,
        [FENCED] = METRIC_BATCHES_FENCED, [BROKEN] = METRIC_BATCHES_BROKEN
    };
    enum verdict verdict = fence_verdict(batch->fence, &batch->hand.transaction);
    metric_add(metrics[verdict], 1);
    if (verdict == ABORTED && batch->hand.transaction.refusal == REFUSAL_LATER) {
        redis_drop(batch->fence->redis, batch->hand.transaction.error);
        return BROKEN;
    }
    if (verdict == COMMITTED)
        judge_executed(batch);
    if (verdict == ABORTED)
        judge_aborted(batch);
    return verdict;
}

static enum verdict attempt(struct batch *batch, size_t only)
{
    enum verdict verdict = compose(batch, only);
    return verdict == COMMITTED ? conclude(batch) : verdict;
}

/*
 * Deletes without MULTI, whose commands Redis refuses one and all when memory is short.  A script
 * is one command: it compares the token itself.
 */
static enum verdict remove_by_script(struct batch *batch, const uint64_t *handles, size_t count)
{
    static const char script[] =
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end "
        "for i = 3, #KEYS do redis.call('DEL', KEYS[i]) end "
        "for i = 2, #ARGV do redis.call('SREM', KEYS[2], ARGV[i]) end return 0";
    struct redis *redis = batch->fence->redis;
    struct session_key *keys = calloc(count, sizeof *keys);
    char active[KEY_BYTES], number[24];
    if (!keys)
        return ABORTED;
    active_key(active, batch->prefix);
    snprintf(number, sizeof number, "%zu", 2 + 2 * count);
    redis_start(redis, "EVAL");
    redis_text(redis, script);
    redis_text(redis, number);
    redis_text(redis, batch->fence->leader_key);
    redis_text(redis, active);
    for (size_t i = 0; i < count; i++) {
        session_key(&keys[i], batch->prefix, handles[i]);
        redis_text(redis, keys[i].record);
        redis_text(redis, keys[i].metadata);
    }
    redis_text(redis, batch->fence->token);
    for (size_t i = 0; i < count; i++)
        redis_text(redis, keys[i].handle);
    redis_append(redis);
    free(keys);

    redisReply *reply = redis_receive(redis);
    if (reply && reply->type != REDIS_REPLY_INTEGER && reply->type != REDIS_REPLY_ERROR)
        redis_drop(redis, "EVAL did not answer with a number");
    enum verdict verdict = !redis_connected(redis)                                      ? BROKEN
                           : reply->type == REDIS_REPLY_INTEGER && reply->integer == 0  ? COMMITTED
                           : reply->type == REDIS_REPLY_INTEGER && reply->integer == -1 ? FENCED
                                                                                        : ABORTED;
    if (reply && reply->type == REDIS_REPLY_ERROR && !batch->said_no_script) {
        batch->said_no_script = true;
        log_event(LEVEL_WARN, "remove-refused", NUMBER("sessions", count),
                  TEXT("reason", reply->str),
                  TEXT("note", "while Redis has no memory only a script can delete"));
    }
    freeReplyObject(reply);
    return verdict;
}

/* The deletions that were refused for want of memory. */
static enum verdict delete_first(struct batch *batch)
{
    uint64_t *handles = calloc(batch->hand.count, sizeof *handles);
    size_t n = 0;
    if (!handles)
        return COMMITTED;
    for (size_t i = 0; i < batch->hand.count; i++)
        if (batch->hand.outcomes[i].kind == REFUSED && batch->hand.images[i].kind == STORE_DELETE)
            handles[n++] = batch->hand.images[i].handle;
    enum verdict verdict = n ? remove_by_script(batch, handles, n) : COMMITTED;
    bool confirmed = n && verdict == COMMITTED && fence_confirm(batch->fence);
    for (size_t i = 0; n && verdict == COMMITTED && i < batch->hand.count; i++)
        if (batch->hand.outcomes[i].kind == REFUSED && batch->hand.images[i].kind == STORE_DELETE)
            batch->hand.outcomes[i].kind = confirmed ? WRITTEN : WAITING;
    free(handles);
    return verdict == ABORTED ? COMMITTED : verdict;
}

static bool waits(const struct batch *batch, enum outcome_kind kind)
{
    for (size_t i = 0; i < batch->hand.count; i++)
        if (batch->hand.outcomes[i].kind == kind)
            return true;
    return false;
}

/* Sessions with tickets that were refused in company. */
static enum verdict write_alone(struct batch *batch)
{
    enum verdict verdict = COMMITTED;
    for (size_t i = 0; i < batch->hand.count && verdict == COMMITTED; i++) {
        struct outcome *outcome = &batch->hand.outcomes[i];
        if (outcome->kind != REFUSED || !batch->hand.images[i].urgent || outcome->record_written)
            continue;
        outcome->kind = WAITING;
        verdict = attempt(batch, i);
        if (verdict == ABORTED)
            verdict = COMMITTED;
    }
    return verdict;
}

/* B2; FENCED or BROKEN end it at once, with what was not written WAITING. */
static enum verdict take_apart(struct batch *batch)
{
    bool full = batch->hand.transaction.refusal == REFUSAL_FULL;
    enum verdict verdict = full ? delete_first(batch) : COMMITTED;
    if (verdict == COMMITTED && waits(batch, WAITING))
        verdict = attempt(batch, everything);
    if (verdict == FENCED || verdict == BROKEN)
        return verdict;
    return batch->hand.count > 1 ? write_alone(batch) : COMMITTED;
}

/* ---------------------------------------------------------------- settling --------------- */

enum truth { IN_REDIS, NOT_IN_REDIS, CANNOT_TELL };

/* HMGET's answer to STORED_FIELDS, whatever is in them. */
static bool is_stored(const redisReply *reply)
{
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
        return false;
    for (size_t i = 0; i < 3; i++) {
        int type = reply->element[i]->type;
        if (type != REDIS_REPLY_STRING && type != REDIS_REPLY_NIL)
            return false;
    }
    return true;
}

/*
 * Whether Redis holds the binding of IMAGE, which it has just refused, from an earlier attempt
 * whose answer was lost (ours, or a dead leader's), or was refused in part.  *HELD is what is there of
 * the session's record; version 0: nothing.
 */
static enum truth read_back(struct batch *batch, const struct store_image *image,
                            struct stored *held)
{
    struct session_key key;
    struct stored stored;
    session_key(&key, batch->prefix, image->handle);
    redisReply *reply = redis_ask(batch->fence->redis, "HMGET", key.record, STORED_FIELDS, NULL);
    enum truth truth = is_stored(reply) || redis_refusal(reply) == REFUSAL_TYPE ? NOT_IN_REDIS
                                                                                : CANNOT_TELL;
    if (reply && reply->type != REDIS_REPLY_ERROR && !is_stored(reply))
        redis_drop(batch->fence->redis, "HMGET did not answer for each field");
    *held = (struct stored){ 0 };
    if (reply && parse_stored(reply, &stored) && stored.generation == image->generation)
        *held = stored;
    if (held->version && held->version >= image->bound_version)
        truth = IN_REDIS;
    freeReplyObject(reply);
    return truth;
}

/* Whether all of IMAGE is there, field by field: it had been written, and only the answer was lost. */
static bool is_whole(struct batch *batch, const struct store_image *image)
{
    static char buffer[SESSTAB_RECORD_MAX];
    size_t size = sizeof buffer;
    char active[KEY_BYTES];
    struct session_key key;
    struct answers answers = { 0 };
    sesstab_view view;
    active_key(active, batch->prefix);
    session_key(&key, batch->prefix, image->handle);
    ask_session(batch->fence->redis, active, &key);
    bool whole = receive_answers(batch->fence->redis, &answers) && !answers_refused(&answers) &&
                 sesstab_get(batch->table, image->handle, &view, buffer, &size) == SESSTAB_OK &&
                 view.generation == image->generation && view.version == image->version &&
                 diff_session(&view, false, &answers, NULL, NULL) == 0;
    free_answers(&answers);
    return whole;
}

static void ack_as_stored(struct batch *batch, const struct store_image *image,
                          const struct stored *held)
{
    struct store_image as_stored = *image;
    as_stored.last_seen = held->last_seen;
    store_ack(batch->store, &as_stored);
}

static void say_refused(struct batch *batch, const struct store_image *image,
                        const struct outcome *outcome)
{
    bool whole = quarantine_whole(&batch->quarantine, outcome->refusal, outcome->error);
    batch->refused++;
    bool loud = !whole && limit_allows(&batch->limit, outcome->error, monotonic_ms());
    log_event(loud ? LEVEL_WARN : LEVEL_DEBUG, "binding-refused", NUMBER("handle", image->handle),
              TEXT("kind", refusal_name(outcome->refusal)), TEXT("reason", outcome->error));
}

/*
 * True when image I is out of hands, because its binding was rolled back, or because all of it is in
 * Redis.  A binding that is there without the rest is told so, and the image is tried again.
 */
static bool answer_refused(struct batch *batch, size_t i)
{
    const struct store_image *image = &batch->hand.images[i];
    struct stored held = { 0 }; /* with the record written, and not the rest, nothing is whole */
    if (!batch->fence->confirmed) /* what is in Redis now may be lost with it */
        return false;
    if (!image->urgent || image->kind == STORE_DELETE || !store_waited_for(batch->store, image))
        return false;
    enum truth truth = batch->hand.outcomes[i].record_written ? IN_REDIS
                                                              : read_back(batch, image, &held);
    if (truth == CANNOT_TELL)
        return false;
    if (truth == IN_REDIS && held.version == image->version && is_whole(batch, image)) {
        ack_as_stored(batch, image, &held);
        return true;
    }
    if (truth == IN_REDIS)
        store_ack_binding(batch->store, image);
    metric_add(METRIC_CHANGES_REFUSED, store_deny(batch->store, image, held.version));
    if (truth == IN_REDIS || !store_binding_waited_for(batch->store, image) ||
        !store_refuse(batch->store, image, held.version))
        return false;
    say_refused(batch, image, &batch->hand.outcomes[i]);
    return true;
}

static void settle_refused(struct batch *batch, size_t i)
{
    const struct outcome *outcome = &batch->hand.outcomes[i];
    metric_add(METRIC_REFUSED_WRITES, 1);
    if (!answer_refused(batch, i))
        quarantine_refused(&batch->quarantine, &batch->hand.images[i], outcome->refusal,
                           outcome->error);
}

/* Those that are written first, because their callers wait; the refused cost a round trip each. */
static void settle_outcomes(struct batch *batch)
{
    for (size_t i = 0; i < batch->hand.count; i++)
        switch (batch->hand.outcomes[i].kind) {
        case WRITTEN:
            store_ack(batch->store, &batch->hand.images[i]);
            quarantine_accepted(&batch->quarantine, &batch->hand.images[i]);
            round_written(&batch->round, &batch->hand.images[i]);
            batch->written++;
            metric_add(METRIC_WRITES, 1);
            break;
        case LOST:
            store_forget(batch->store, &batch->hand.images[i]);
            batch->lost++;
            metric_add(METRIC_LOST_KEYS, 1);
            break;
        case WAITING:
            store_retry(batch->store, &batch->hand.images[i]);
            metric_add(METRIC_RETRIES, 1);
            break;
        case PARKED:
            quarantine_park(&batch->quarantine, &batch->hand.images[i]);
            break;
        case CLEAN:
        case KEPT:
        case REFUSED:
            break;
        }
    store_wake(batch->store);
    for (size_t i = 0; i < batch->hand.count; i++)
        if (batch->hand.outcomes[i].kind == REFUSED)
            settle_refused(batch, i);
}

/* All of the hand was refused, and those who wait for it could be told nothing. */
static bool is_stuck(const struct batch *batch)
{
    for (size_t i = 0; i < batch->hand.count; i++)
        if (batch->hand.outcomes[i].kind != REFUSED ||
            !store_waited_for(batch->store, &batch->hand.images[i]))
            return false;
    return batch->hand.count > 0;
}

/* The end of the hand: also those of which the store was not told are let go (S4). */
static void settle(struct batch *batch)
{
    settle_outcomes(batch);
    batch->stuck = is_stuck(batch);
    for (size_t i = 0; i < batch->hand.count; i++)
        store_let_go(batch->store, &batch->hand.images[i]);
    batch->hand.count = 0;
    store_wake(batch->store);
}

/* Keeps what was written in this round already; how many. */
static size_t keep_repeated(struct batch *batch)
{
    size_t kept = 0;
    for (size_t i = 0; i < batch->hand.count; i++)
        if (round_keep(&batch->round, &batch->hand.images[i])) {
            batch->hand.outcomes[i].kind = KEPT;
            kept++;
        }
    return kept;
}

static void take(struct batch *batch, size_t max, bool urgent_only)
{
    struct hand *hand = &batch->hand;
    if (max > batch->room)
        max = batch->room;
    hand->count = store_take(batch->store, hand->images, max, urgent_only);
    hand->operation_count = 0;
    memset(hand->outcomes, 0, hand->count * sizeof *hand->outcomes);
}

static enum verdict finish(struct batch *batch, enum verdict verdict)
{
    if (verdict == ABORTED)
        verdict = take_apart(batch);
    settle(batch);
    return redis_connected(batch->fence->redis) ? verdict : BROKEN;
}

enum verdict batch_write(struct batch *batch, size_t max, size_t *taken, size_t *kept)
{
    take(batch, max, false);
    *taken = batch->hand.count;
    *kept = keep_repeated(batch);
    if (*kept == batch->hand.count)
        return COMMITTED;
    batch->allowance = quarantine_allowance(&batch->quarantine);
    return finish(batch, attempt(batch, everything));
}

static void change_hands(struct batch *batch)
{
    struct hand hand = batch->hand;
    batch->hand = batch->ahead;
    batch->ahead = hand;
}

/* Reads and encodes the next batch of tickets. */
static enum verdict prepare(struct batch *batch, size_t max)
{
    take(batch, max, true);
    return batch->hand.count ? compose(batch, everything) : COMMITTED;
}

/* Whether Redis has all of it. */
static bool all_written(const struct hand *hand)
{
    for (size_t i = 0; i < hand->count; i++)
        if (hand->outcomes[i].kind != WRITTEN && hand->outcomes[i].kind != CLEAN)
            return false;
    return true;
}

/* What was prepared is given back to the store. */
static void take_back(struct batch *batch)
{
    redis_take_back(batch->fence->redis);
    change_hands(batch);
    for (size_t i = 0; i < batch->hand.count; i++)
        store_retry(batch->store, &batch->hand.images[i]);
    batch->hand.count = 0;
    change_hands(batch);
}

/* Sends the hand's transaction, prepares the next one (B3; MAX 0: none), and ends the first. */
static enum verdict follow(struct batch *batch, size_t max)
{
    struct redis *redis = batch->fence->redis;
    redis_send(redis);
    redis_hold(redis);
    change_hands(batch);
    enum verdict next = prepare(batch, max);
    change_hands(batch);
    enum verdict verdict = conclude(batch);
    if (verdict == COMMITTED && next == COMMITTED && all_written(&batch->hand) &&
        fence_held(batch->fence)) {
        redis_release(redis);
        redis_send(redis);
    } else {
        take_back(batch);
    }
    return finish(batch, verdict);
}

enum verdict batch_write_tickets(struct batch *batch, size_t max)
{
    enum verdict verdict = prepare(batch, max);
    batch->stuck = false;
    if (verdict != COMMITTED)
        return finish(batch, verdict);
    for (size_t n = CHAIN; batch->hand.count; n--) {
        verdict = follow(batch, n && batch->hand.count == max ? max : 0);
        change_hands(batch);
        if (verdict != COMMITTED) {
            settle(batch); /* what was prepared and got no outcome is given back (B1) */
            break;
        }
    }
    return verdict;
}

enum verdict batch_remove(struct batch *batch, const uint64_t *handles, size_t count)
{
    struct session_key key;
    char active[KEY_BYTES];
    if (!fence_held(batch->fence))
        return redis_connected(batch->fence->redis) ? FENCED : BROKEN;
    active_key(active, batch->prefix);
    fence_begin(batch->fence, &batch->hand.transaction);
    for (size_t i = 0; i < count; i++) {
        session_key(&key, batch->prefix, handles[i]);
        redis_put(batch->fence->redis, "DEL", key.record, key.metadata, NULL);
        redis_put(batch->fence->redis, "SREM", active, key.handle, NULL);
    }
    enum verdict verdict = fence_commit(batch->fence, &batch->hand.transaction);
    if (verdict == ABORTED && batch->hand.transaction.refusal == REFUSAL_FULL)
        verdict = remove_by_script(batch, handles, count);
    return verdict;
}

void batch_tick(struct batch *batch)
{
    uint64_t ms, more = limit_unsaid(&batch->limit, monotonic_ms(), &ms);
    if (more)
        log_event(LEVEL_WARN, "bindings-refused", NUMBER("more", more), NUMBER("ms", ms));
    quarantine_tick(&batch->quarantine);
}
