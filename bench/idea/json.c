/*
 * Redis with a JSON string for each session: GET and parse; to change a field, GET, parse, print
 * and SET all of it.  (Two servers that change one session at once lose a change; nothing here
 * pays for avoiding it.)
 */
#include "bench/idea/idea.h"

#include "bench/bench.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static cJSON *usual_session(const struct idea *idea, uint64_t handle)
{
    char player[PLAYER_BYTES], name[24];
    cJSON *o = cJSON_CreateObject(), *metadata;
    player_of(handle, player);
    snprintf(name, sizeof name, "%" PRIu64, handle);
    cJSON_AddStringToObject(o, "Handle", name);
    cJSON_AddStringToObject(o, "Generation", "1700000000001");
    cJSON_AddStringToObject(o, "PlayerRef", player);
    cJSON_AddStringToObject(o, "State", "logged-in");
    cJSON_AddStringToObject(o, "IpAddress", usual_info.address);
    cJSON_AddStringToObject(o, "Hostname", usual_info.host);
    cJSON_AddStringToObject(o, "ConnectionType", usual_info.type);
    cJSON_AddStringToObject(o, "ConnectedAt", "2023-11-14T22:13:20.000Z");
    cJSON_AddStringToObject(o, "LastSeen", "2023-11-14T22:13:20.000Z");
    cJSON_AddStringToObject(o, "Owner", idea->self);
    metadata = cJSON_AddObjectToObject(o, "Metadata");
    for (size_t i = 0; i < usual_info.metadata_count; i++)
        cJSON_AddStringToObject(metadata, usual_info.metadata[i].key, usual_info.metadata[i].value);
    return o;
}

static void fill(struct idea *idea)
{
    size_t waiting = 0;
    for (uint64_t handle = 1; handle <= idea->stage.sessions; handle++) {
        cJSON *o = usual_session(idea, handle);
        char *text = cJSON_PrintUnformatted(o);
        redisAppendCommand(idea->redis, "SET json:conn:%llu %s", (unsigned long long)handle, text);
        redisAppendCommand(idea->redis, "SADD json:active %llu", (unsigned long long)handle);
        free(text);
        cJSON_Delete(o);
        waiting += 2;
        if (handle % PLAYERS == 0)
            drop_replies(idea->redis, &waiting);
    }
    drop_replies(idea->redis, &waiting);
}

/* ---------------------------------------------------------------- one session ----------- */

static const char *text_of(const cJSON *session, const char *field)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(session, field));
    return text ? text : "";
}

static cJSON *get_session(struct idea *idea, uint64_t handle)
{
    redisReply *reply = ask_redis(idea->redis, "GET json:conn:%llu", (unsigned long long)handle);
    cJSON *session = reply->type == REDIS_REPLY_STRING ? cJSON_Parse(reply->str) : NULL;
    freeReplyObject(reply);
    if (!session)
        bench_fail("json:conn:%" PRIu64 " is not there", handle);
    found(idea, text_of(session, "PlayerRef"));
    return session;
}

static void set_session(struct idea *idea, uint64_t handle, const cJSON *session)
{
    char *text = cJSON_PrintUnformatted(session);
    freeReplyObject(ask_redis(idea->redis, "SET json:conn:%llu %s", (unsigned long long)handle,
                              text));
    free(text);
}

static void replace(cJSON *object, const char *field, const char *value)
{
    if (!cJSON_ReplaceItemInObjectCaseSensitive(object, field, cJSON_CreateString(value)))
        bench_fail("a session has no %s", field);
}

static void get_one(struct idea *idea, uint64_t handle)
{
    cJSON_Delete(get_session(idea, handle));
}

static void output_one(struct idea *idea, uint64_t handle)
{
    cJSON *session = get_session(idea, handle);
    if (strcmp(text_of(session, "Owner"), idea->self) != 0)
        bench_fail("json:conn:%" PRIu64 " is not ours", handle);
    deliver(idea, handle);
    cJSON_Delete(session);
}

static void touch_one(struct idea *idea, uint64_t handle)
{
    char seen[32];
    cJSON *session = get_session(idea, handle);
    snprintf(seen, sizeof seen, "2023-11-14T22:13:20.%03uZ", (unsigned)(++idea->serial % 1000));
    replace(session, "LastSeen", seen);
    set_session(idea, handle, session);
    cJSON_Delete(session);
}

/* ---------------------------------------------------------------- operations ------------ */

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
    char client[24];
    for (size_t i = 0; i < count; i++) {
        cJSON *session = get_session(idea, handles[i]);
        snprintf(client, sizeof client, "%016" PRIx64, ++idea->serial);
        replace(cJSON_GetObjectItemCaseSensitive(session, "Metadata"), "client", client);
        set_session(idea, handles[i], session);
        cJSON_Delete(session);
    }
}

static void login(struct idea *idea, const uint64_t *handles, size_t count)
{
    char player[24];
    for (size_t i = 0; i < count; i++) {
        cJSON *session = get_session(idea, handles[i]);
        snprintf(player, sizeof player, "#%" PRIu64, ++idea->serial);
        replace(session, "PlayerRef", player);
        replace(session, "State", "logged-in");
        set_session(idea, handles[i], session);
        cJSON_Delete(session);
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
    redisReply *members = ask_redis(idea->redis, "SMEMBERS json:active");
    (void)handles;
    if (members->elements != count)
        bench_fail("json:active has %zu members instead of %zu", members->elements, count);
    for (size_t i = 0; i < count; i++)
        output_one(idea, strtoull(members->element[i]->str, NULL, 10));
    freeReplyObject(members);
}

const struct contender json_contender = {
    .name = "redis-json",
    .legend = "a JSON string each: GET, parse; to change it print, SET; one by one",
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
