/* The fence; see persister_fence.h. */
#include "tools/persister_fence.h"

#include "tools/persister.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { ALIVE_SECONDS = 3 }; /* a leader looks at Redis every second */

/* What is no text is nothing that a persister wrote. */
static void remember(char to[TOKEN_BYTES], const redisReply *reply)
{
    to[0] = '\0';
    if (redis_is_text(reply))
        snprintf(to, TOKEN_BYTES, "%s", reply->str);
}

/* False, and dropped, when REPLY is an error (or NULL: dropped already). */
static bool accepted(struct redis *redis, const redisReply *reply, const char *what)
{
    char text[256];
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        snprintf(text, sizeof text, "%s: %s", what, reply->str);
        redis_drop(redis, text);
    }
    return reply && reply->type != REDIS_REPLY_ERROR;
}

static bool ask_accepted(struct redis *redis, redisReply *reply, const char *what)
{
    bool yes = accepted(redis, reply, what);
    freeReplyObject(reply);
    return yes;
}

/* What is no string is not ours, and SET replaces it. */
static bool readable(struct redis *redis, const redisReply *reply, const char *what)
{
    return redis_refusal(reply) == REFUSAL_TYPE || accepted(redis, reply, what);
}

/* ---------------------------------------------------------------- who leads -------------- */

void fence_init(struct fence *fence, struct redis *redis, const char *prefix,
                uint64_t creation_id)
{
    uint64_t random = 0;
    memset(fence, 0, sizeof *fence);
    fence->redis = redis;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = monotonic_ms();
    snprintf(fence->leader_key, KEY_BYTES, "%.*s:leader", PREFIX_MAX, prefix);
    snprintf(fence->epoch_key, KEY_BYTES, "%.*s:epoch", PREFIX_MAX, prefix);
    snprintf(fence->creation, sizeof fence->creation, "%016" PRIx64 ".", creation_id);
    snprintf(fence->process, sizeof fence->process, "%s%ld.%016" PRIx64 ".", fence->creation,
             (long)getpid(), random);
}

static void next_serial(struct fence *fence, char serial[24])
{
    snprintf(serial, 24, "%" PRIu64, ++fence->serial);
}

static bool is_serial(const redisReply *reply, const char *serial)
{
    return reply->type == REDIS_REPLY_STRING && redis_says(reply, serial);
}

/* An answer too many, somewhere before, would have shifted those to everything that follows. */
static bool echoed(struct redis *redis, const redisReply *reply, const char *serial)
{
    bool ours = accepted(redis, reply, "ECHO") && is_serial(reply, serial);
    if (!ours)
        redis_drop(redis, "the answers are not those to what was asked");
    return ours;
}

bool fence_look(struct fence *fence)
{
    char serial[24];
    next_serial(fence, serial);
    redis_put(fence->redis, "GET", fence->leader_key, NULL);
    redis_put(fence->redis, "GET", fence->epoch_key, NULL);
    redis_put(fence->redis, "ECHO", serial, NULL);
    redisReply *leader = redis_receive(fence->redis), *epoch = redis_receive(fence->redis),
               *echo = redis_receive(fence->redis);
    bool seen = readable(fence->redis, leader, "GET leader") &&
                readable(fence->redis, epoch, "GET epoch") &&
                echoed(fence->redis, echo, serial);
    if (seen) {
        remember(fence->holder, leader);
        remember(fence->epoch, epoch);
    }
    freeReplyObject(leader);
    freeReplyObject(epoch);
    freeReplyObject(echo);
    return seen;
}

bool fence_held(const struct fence *fence)
{
    return redis_connected(fence->redis) && fence->token[0] &&
           strcmp(fence->holder, fence->token) == 0;
}

enum holder fence_holder(const struct fence *fence)
{
    if (!fence->holder[0])
        return HOLDER_NOBODY;
    if (strncmp(fence->holder, fence->process, strlen(fence->process)) == 0)
        return HOLDER_US;
    if (strncmp(fence->holder, fence->creation, strlen(fence->creation)) == 0)
        return HOLDER_SIBLING;
    return HOLDER_FOREIGN;
}

/* CLIENT LIST: a line per connection, " name=<token> ... idle=<seconds> ...". */
static enum alive alive_in(const char *list, const char *token)
{
    char name[TOKEN_BYTES + 8];
    snprintf(name, sizeof name, " name=%s ", token);
    const char *found = strstr(list, name);
    if (!found)
        return ALIVE_NO;
    const char *idle = strstr(found, " idle=");
    return idle && strtol(idle + 6, NULL, 10) < ALIVE_SECONDS ? ALIVE_YES : ALIVE_NO;
}

enum alive fence_holder_alive(struct fence *fence)
{
    enum alive alive = ALIVE_UNKNOWN;
    /* Where names are forbidden, the holder has none either. */
    redisReply *named = redis_ask(fence->redis, "CLIENT", "SETNAME", fence->process, NULL);
    redisReply *reply = redis_ask(fence->redis, "CLIENT", "LIST", NULL);
    if (redis_says(named, "OK") && reply && reply->type == REDIS_REPLY_STRING)
        alive = alive_in(reply->str, fence->holder);
    else if (reply && reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_ERROR)
        redis_drop(fence->redis, "CLIENT LIST did not answer with a list");
    freeReplyObject(named);
    freeReplyObject(reply);
    return alive;
}

enum alive fence_holder_reads(struct fence *fence)
{
    enum alive alive = ALIVE_UNKNOWN;
    redisReply *idle = redis_ask(fence->redis, "OBJECT", "IDLETIME", fence->leader_key, NULL);
    if (idle && idle->type == REDIS_REPLY_NIL)
        alive = ALIVE_NO;
    else if (idle && idle->type == REDIS_REPLY_INTEGER)
        alive = idle->integer < ALIVE_SECONDS ? ALIVE_YES : ALIVE_NO;
    freeReplyObject(idle);
    return alive;
}

/* ---------------------------------------------------------------- taking ----------------- */

/*
 * The token, written where SET is refused for want of memory: without the lead no session that
 * ended could be deleted, and the memory would never come back.
 */
static bool set_token_when_full(struct fence *fence)
{
    static const char script[] = "redis.call('DEL', KEYS[1]) "
                                 "return redis.call('SET', KEYS[1], ARGV[1])";
    return ask_accepted(fence->redis,
                        redis_ask(fence->redis, "EVAL", script, "1", fence->leader_key,
                                  fence->token, NULL),
                        "taking the lead");
}

static bool set_token(struct fence *fence)
{
    /* This connection's own SET would spoil a WATCH of its own that stands. */
    if (!ask_accepted(fence->redis, redis_ask(fence->redis, "UNWATCH", NULL), "UNWATCH"))
        return false;
    redisReply *reply = redis_ask(fence->redis, "SET", fence->leader_key, fence->token, NULL);
    if (redis_refusal(reply) == REFUSAL_FULL) {
        freeReplyObject(reply);
        return set_token_when_full(fence);
    }
    return ask_accepted(fence->redis, reply, "taking the lead");
}

static bool watch_token(struct fence *fence)
{
    redis_put(fence->redis, "WATCH", fence->leader_key, NULL);
    redis_put(fence->redis, "GET", fence->leader_key, NULL);
    bool watched = ask_accepted(fence->redis, redis_receive(fence->redis), "WATCH leader");
    redisReply *leader = redis_receive(fence->redis);
    if (watched && leader)
        remember(fence->holder, leader);
    freeReplyObject(leader);
    return watched && redis_connected(fence->redis);
}

bool fence_take(struct fence *fence)
{
    struct transaction empty = { 0 };
    snprintf(fence->token, sizeof fence->token, "%s%u", fence->process, ++fence->takes);
    /* For people, and for fence_holder_alive(); a Redis that forbids it is as good. */
    freeReplyObject(redis_ask(fence->redis, "CLIENT", "SETNAME", fence->token, NULL));
    if (!set_token(fence) || !watch_token(fence))
        return false;
    if (!fence_held(fence)) {
        redis_drop(fence->redis, "another one took the lead meanwhile");
        return false;
    }
    fence->confirmed = true; /* until this one's WAIT says otherwise */
    /* Where MULTI is forbidden, the commands after it would be executed one by one.  (One that was
     * refused for want of memory only, shows that it is not.) */
    fence_begin(fence, &empty);
    enum verdict verdict = fence_commit(fence, &empty);
    bool full = verdict == ABORTED && empty.refusal == REFUSAL_FULL;
    if (verdict == ABORTED && !full)
        redis_drop(fence->redis, empty.error);
    transaction_free(&empty);
    bool taken = (verdict == COMMITTED || full) && fence_held(fence);
    if (redis_connected(fence->redis) && !taken)
        redis_drop(fence->redis, "another one took the lead meanwhile");
    return redis_connected(fence->redis);
}

void fence_leave(struct fence *fence)
{
    struct transaction leaving = { 0 };
    if (!fence_held(fence))
        return;
    fence->replicas = 0; /* nobody waits for it */
    fence_begin(fence, &leaving);
    redis_put(fence->redis, "DEL", fence->leader_key, NULL);
    fence_commit(fence, &leaving);
    transaction_free(&leaving);
}

/* ---------------------------------------------------------------- the epoch -------------- */

static void epoch_text(const struct fence *fence, uint32_t incarnation, char text[TOKEN_BYTES])
{
    snprintf(text, TOKEN_BYTES, "%s%" PRIu32, fence->creation, incarnation);
}

enum epoch fence_epoch(const struct fence *fence, uint32_t incarnation)
{
    char ours[TOKEN_BYTES];
    epoch_text(fence, incarnation, ours);
    if (!fence->epoch[0])
        return EPOCH_MISSING;
    if (strncmp(fence->epoch, fence->creation, strlen(fence->creation)) != 0)
        return EPOCH_FOREIGN;
    return strcmp(fence->epoch, ours) == 0 ? EPOCH_OURS : EPOCH_OTHER;
}

bool fence_epoch_names(const struct fence *fence, uint64_t *creation_id, uint32_t *incarnation)
{
    int end = 0;
    return sscanf(fence->epoch, "%16" SCNx64 ".%9" SCNu32 "%n", creation_id, incarnation, &end) == 2 &&
           !fence->epoch[end];
}

static bool set_epoch_when_full(struct fence *fence, const char *epoch)
{
    static const char script[] = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end "
                                 "redis.call('DEL', KEYS[2]) "
                                 "redis.call('SET', KEYS[2], ARGV[2]) return 1";
    redisReply *reply = redis_ask(fence->redis, "EVAL", script, "2", fence->leader_key,
                                  fence->epoch_key, fence->token, epoch, NULL);
    bool set = accepted(fence->redis, reply, "setting the epoch") &&
               reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
    freeReplyObject(reply);
    return set;
}

bool fence_set_epoch(struct fence *fence, uint32_t incarnation)
{
    struct transaction setting = { 0 };
    char epoch[TOKEN_BYTES];
    epoch_text(fence, incarnation, epoch);
    fence_begin(fence, &setting);
    redis_put(fence->redis, "SET", fence->epoch_key, epoch, NULL);
    enum verdict verdict = fence_commit(fence, &setting);
    bool set = verdict == COMMITTED;
    if (verdict == ABORTED && setting.refusal == REFUSAL_FULL)
        set = set_epoch_when_full(fence, epoch);
    else if (verdict == ABORTED)
        redis_drop(fence->redis, setting.error);
    transaction_free(&setting);
    if (set)
        memcpy(fence->epoch, epoch, sizeof epoch);
    return set;
}

enum verdict fence_check(struct fence *fence)
{
    struct transaction looking = { 0 };
    fence_begin(fence, &looking);
    redis_put(fence->redis, "GET", fence->epoch_key, NULL);
    enum verdict verdict = fence_commit(fence, &looking);
    if (verdict == COMMITTED && readable(fence->redis, looking.exec->element[0], "GET epoch"))
        remember(fence->epoch, looking.exec->element[0]);
    transaction_free(&looking);
    if (verdict == ABORTED && fence_look(fence)) /* F4 */
        verdict = fence_held(fence) ? COMMITTED : FENCED;
    return redis_connected(fence->redis) ? verdict : BROKEN;
}

/* ---------------------------------------------------------------- replicas --------------- */

static void put_wait(struct fence *fence)
{
    char replicas[16], ms[16];
    snprintf(replicas, sizeof replicas, "%u", fence->replicas);
    snprintf(ms, sizeof ms, "%d", fence->wait_ms);
    redis_put(fence->redis, "WAIT", replicas, ms, NULL);
}

static bool read_wait(struct fence *fence)
{
    redisReply *reply = redis_receive(fence->redis);
    bool counted = accepted(fence->redis, reply, "WAIT") && reply->type == REDIS_REPLY_INTEGER;
    if (counted)
        fence->confirmed = reply->integer >= (long long)fence->replicas;
    else
        redis_drop(fence->redis, "WAIT did not answer with a number");
    freeReplyObject(reply);
    return counted;
}

bool fence_confirm(struct fence *fence)
{
    if (!fence->replicas)
        return true;
    put_wait(fence);
    return read_wait(fence) && fence->confirmed;
}

/* ---------------------------------------------------------------- batches ---------------- */

void transaction_free(struct transaction *t)
{
    freeReplyObject(t->exec);
    free(t->refusals);
    memset(t, 0, sizeof *t);
}

void fence_begin(struct fence *fence, struct transaction *t)
{
    /* Watched and read too late, a changed leader key would let EXEC pass. */
    if (!fence_held(fence))
        redis_drop(fence->redis, "the lead was lost");
    freeReplyObject(t->exec);
    t->exec = NULL;
    t->refusal = REFUSAL_NONE;
    t->error[0] = '\0';
    redis_put(fence->redis, "MULTI", NULL);
    t->first = fence->redis->appended;
}

static bool make_room(struct fence *fence, struct transaction *t)
{
    if (t->commands <= t->room)
        return true;
    enum refusal *refusals = realloc(t->refusals, t->commands * sizeof *refusals);
    if (!refusals) {
        redis_drop(fence->redis, "out of memory");
        return false;
    }
    t->refusals = refusals;
    t->room = t->commands;
    return true;
}

static void note_error(struct transaction *t, const redisReply *error)
{
    if (t->refusal != REFUSAL_NONE)
        return;
    t->refusal = redis_refusal(error);
    snprintf(t->error, sizeof t->error, "%s", error->str);
}

/* MULTI's own reply and one for each command. */
static bool read_queueing(struct fence *fence, struct transaction *t)
{
    if (!ask_accepted(fence->redis, redis_receive(fence->redis), "MULTI"))
        return false;
    for (size_t i = 0; i < t->commands; i++) {
        redisReply *reply = redis_receive(fence->redis);
        if (!reply)
            return false;
        t->refusals[i] = redis_refusal(reply);
        if (t->refusals[i] != REFUSAL_NONE)
            note_error(t, reply);
        else if (!redis_says(reply, "QUEUED"))
            redis_drop(fence->redis, "a command inside MULTI was not queued");
        freeReplyObject(reply);
    }
    return redis_connected(fence->redis);
}

static enum verdict judge(struct fence *fence, struct transaction *t)
{
    switch (t->exec->type) {
    case REDIS_REPLY_NIL:
        return FENCED;
    case REDIS_REPLY_ARRAY:
        if (t->exec->elements == t->commands &&
            (!t->commands || is_serial(t->exec->element[t->commands - 1], t->serial)))
            return COMMITTED;
        break;
    case REDIS_REPLY_ERROR:
        if (strncmp(t->exec->str, "EXECABORT", 9) == 0) {
            note_error(t, t->exec);
            return ABORTED;
        }
        redis_drop(fence->redis, t->exec->str);
        return BROKEN;
    }
    redis_drop(fence->redis, "EXEC did not answer for each command of this batch");
    return BROKEN;
}

void fence_end(struct fence *fence, struct transaction *t)
{
    struct redis *redis = fence->redis;
    t->commands = redis->appended - t->first;
    if (t->commands) { /* where memory is short, EXEC of nothing is all that Redis takes */
        next_serial(fence, t->serial);
        redis_put(redis, "ECHO", t->serial, NULL);
        t->commands++;
    }
    redis_put(redis, "EXEC", NULL);
    t->wait = fence->replicas && fence->confirmed;
    if (t->wait)
        put_wait(fence);
    redis_put(redis, "WATCH", fence->leader_key, NULL);
    redis_put(redis, "GET", fence->leader_key, NULL);
}

enum verdict fence_verdict(struct fence *fence, struct transaction *t)
{
    struct redis *redis = fence->redis;
    if (!make_room(fence, t) || !read_queueing(fence, t))
        return BROKEN;
    t->exec = redis_receive(redis);
    if (!t->exec)
        return BROKEN;
    enum verdict verdict = judge(fence, t);
    if (verdict == BROKEN || (t->wait && !read_wait(fence)))
        return BROKEN;
    bool watched = ask_accepted(redis, redis_receive(redis), "WATCH leader");
    redisReply *leader = redis_receive(redis);
    if (watched && leader)
        remember(fence->holder, leader);
    else if (verdict != COMMITTED)
        verdict = BROKEN;
    freeReplyObject(leader);
    return verdict;
}

enum verdict fence_commit(struct fence *fence, struct transaction *t)
{
    fence_end(fence, t);
    return fence_verdict(fence, t);
}
