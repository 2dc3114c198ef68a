/*
 * Redis with hashes, one by one: `redis-hash` reads the whole hash, as most session stores do;
 * `redis-hget` asks for the one field that it needs.
 */
#include "bench/idea/hash.h"

#include "bench/bench.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

static void append(struct idea *idea, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (redisvAppendCommand(idea->redis, format, arguments) != REDIS_OK)
        bench_fail("out of memory");
    va_end(arguments);
}

void append_get(struct idea *idea, uint64_t handle)
{
    append(idea, "HGETALL hash:conn:%llu", (ull)handle);
}

void append_owner(struct idea *idea, uint64_t handle)
{
    append(idea, "HGET hash:conn:%llu Owner", (ull)handle);
}

void append_touch(struct idea *idea, uint64_t handle)
{
    append(idea, "HSET hash:conn:%llu LastSeen 2023-11-14T22:13:20.%03uZ", (ull)handle,
           (unsigned)(++idea->serial % 1000));
}

void append_update(struct idea *idea, uint64_t handle)
{
    append(idea, "HSET hash:conn:%llu:metadata client %016llx", (ull)handle,
           (ull)++idea->serial);
}

static void append_login(struct idea *idea, uint64_t handle)
{
    append(idea, "HSET hash:conn:%llu PlayerRef #%llu State logged-in Owner %s", (ull)handle,
           (ull)++idea->serial, idea->self);
}

/* Returns how many commands it took. */
static size_t append_session(struct idea *idea, uint64_t handle)
{
    char player[PLAYER_BYTES];
    player_of(handle, player);
    append(idea,
           "HSET hash:conn:%llu Handle %llu Generation 1700000000001 PlayerRef %s State logged-in "
           "IpAddress %s Hostname %s ConnectionType %s ConnectedAt 2023-11-14T22:13:20.000Z "
           "LastSeen 2023-11-14T22:13:20.000Z Owner %s Version 1",
           (ull)handle, (ull)handle, player, usual_info.address, usual_info.host, usual_info.type,
           idea->self);
    for (size_t i = 0; i < usual_info.metadata_count; i++) {
        const sesstab_pair *pair = &usual_info.metadata[i];
        append(idea, "HSET hash:conn:%llu:metadata %s %b", (ull)handle, pair->key, pair->value,
               pair->length);
    }
    append(idea, "SADD hash:active %llu", (ull)handle);
    return 2 + usual_info.metadata_count;
}

static void fill(struct idea *idea)
{
    size_t waiting = 0;
    for (uint64_t handle = 1; handle <= idea->stage.sessions; handle++) {
        waiting += append_session(idea, handle);
        if (handle % PLAYERS == 0)
            drop_replies(idea->redis, &waiting);
    }
    drop_replies(idea->redis, &waiting);
}

/* ---------------------------------------------------------------- replies --------------- */

const char *field_of(const redisReply *hash, const char *field)
{
    for (size_t i = 0; i + 1 < hash->elements; i += 2)
        if (strcmp(hash->element[i]->str, field) == 0)
            return hash->element[i + 1]->str;
    return "";
}

void check_session(struct idea *idea, const redisReply *hash)
{
    found(idea, field_of(hash, "PlayerRef"));
}

static void deliver_for(struct idea *idea, uint64_t handle, const char *owner)
{
    if (!owner || strcmp(owner, idea->self) != 0)
        bench_fail("hash:conn:%" PRIu64 " is not ours", handle);
    deliver(idea, handle);
}

void deliver_session(struct idea *idea, uint64_t handle, const redisReply *hash)
{
    deliver_for(idea, handle, field_of(hash, "Owner"));
}

void deliver_owned(struct idea *idea, uint64_t handle, const redisReply *owner)
{
    deliver_for(idea, handle, owner->str);
}

void take_written(struct idea *idea)
{
    redisReply *reply = next_reply(idea->redis);
    if (reply->type != REDIS_REPLY_INTEGER)
        bench_fail("a write was answered by something else than a number");
    freeReplyObject(reply);
}

uint64_t member(const redisReply *members, size_t i)
{
    return strtoull(members->element[i]->str, NULL, 10);
}

redisReply *ask_members(struct idea *idea, size_t count)
{
    redisReply *members = ask_redis(idea->redis, "SMEMBERS hash:active");
    if (members->elements != count)
        bench_fail("hash:active has %zu members instead of %zu", members->elements, count);
    return members;
}

/* ---------------------------------------------------------------- redis-hash ------------ */

static void get_one(struct idea *idea, uint64_t handle)
{
    append_get(idea, handle);
    redisReply *hash = next_reply(idea->redis);
    check_session(idea, hash);
    freeReplyObject(hash);
}

static void output_one(struct idea *idea, uint64_t handle)
{
    append_get(idea, handle);
    redisReply *hash = next_reply(idea->redis);
    deliver_session(idea, handle, hash);
    freeReplyObject(hash);
}

static void touch_one(struct idea *idea, uint64_t handle)
{
    append_touch(idea, handle);
    take_written(idea);
}

static void get(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        get_one(idea, handles[i]);
}

static void output(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        output_one(idea, handles[i]);
}

static void touch(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        touch_one(idea, handles[i]);
}

static void update(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        append_update(idea, handles[i]);
        take_written(idea);
    }
}

static void login(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        append_login(idea, handles[i]);
        take_written(idea);
    }
}

static void serve(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        get_one(idea, handles[i]);
        touch_one(idea, handles[i]);
        output_one(idea, handles[i]);
    }
}

static void broadcast(struct idea *idea, const uint64_t *handles, size_t count)
{
    redisReply *members = ask_members(idea, count);
    (void)handles;
    for (size_t i = 0; i < count; i++)
        output_one(idea, member(members, i));
    freeReplyObject(members);
}

const struct contender hash_contender = {
    .name = "redis-hash",
    .legend = "a hash each: HGETALL, HSET of the fields that change; one by one",
    .fill = fill,
    .operations = {
        [OPERATION_GET] = { get, 1 },
        [OPERATION_OUTPUT] = { output, 1 },
        [OPERATION_UPDATE] = { update, 1 },
        [OPERATION_TOUCH] = { touch, 1 },
        [OPERATION_LOGIN] = { login, 1 },
        [OPERATION_ROUND] = { serve, 1 },
        [OPERATION_BROADCAST] = { broadcast, 1 },
    },
};

/* ---------------------------------------------------------------- redis-hget ------------ */

static void get_field_one(struct idea *idea, uint64_t handle)
{
    redisReply *player = ask_redis(idea->redis, "HGET hash:conn:%llu PlayerRef", (ull)handle);
    found(idea, player->str);
    freeReplyObject(player);
}

static void output_field_one(struct idea *idea, uint64_t handle)
{
    append_owner(idea, handle);
    redisReply *owner = next_reply(idea->redis);
    deliver_owned(idea, handle, owner);
    freeReplyObject(owner);
}

static void get_field(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        get_field_one(idea, handles[i]);
}

static void output_field(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        output_field_one(idea, handles[i]);
}

static void serve_by_fields(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        get_field_one(idea, handles[i]);
        touch_one(idea, handles[i]);
        output_field_one(idea, handles[i]);
    }
}

static void broadcast_by_fields(struct idea *idea, const uint64_t *handles, size_t count)
{
    redisReply *members = ask_members(idea, count);
    (void)handles;
    for (size_t i = 0; i < count; i++)
        output_field_one(idea, member(members, i));
    freeReplyObject(members);
}

const struct contender field_contender = {
    .name = "redis-hget",
    .legend = "the same hashes: HGET of the one field that is needed; one by one",
    .operations = {
        [OPERATION_GET] = { get_field, 1 },
        [OPERATION_OUTPUT] = { output_field, 1 },
        [OPERATION_ROUND] = { serve_by_fields, 1 },
        [OPERATION_BROADCAST] = { broadcast_by_fields, 1 },
    },
};
