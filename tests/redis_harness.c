/*
 * The harness's Redis and persister, and the comparison of a table with what Redis holds.
 */
#include "tests/harness.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "shm/layout.h"
#include "tests/harness_private.h"

enum { SERVERS_MAX = 4, BATCH = 128, EXPLAIN_LINES = 15 };

static struct redis servers[SERVERS_MAX];
static unsigned server_count, servers_ever, log_number, first_log;
static char log_path[96];

/* ---------------------------------------------------------------- server ---------------- */

static void disconnect(struct redis *redis)
{
    if (redis->context)
        redisFree(redis->context);
    redis->context = NULL;
}

void redis_own_connection(struct redis *redis)
{
    disconnect(redis);
}

static bool connected(struct redis *redis)
{
    if (redis->context && redis->context->err)
        disconnect(redis);
    if (!redis->context) {
        redis->context = redisConnectUnix(redis->socket);
        if (redis->context && !redis->context->err)
            redisSetTimeout(redis->context, (struct timeval){ WAIT_LIMIT / 1000, 0 });
    }
    return redis->context && !redis->context->err;
}

static bool answers(struct redis *redis)
{
    redisReply *reply = connected(redis) ? redisCommand(redis->context, "PING") : NULL;
    /* A password, when it wants one, is the test's business; loading is not an answer. */
    bool loading = reply && reply->type == REDIS_REPLY_ERROR && !strncmp(reply->str, "LOADING", 7);
    bool yes = reply && !loading;
    if (reply)
        freeReplyObject(reply);
    return yes;
}

void restart_redis(struct redis *redis)
{
    const char *argv[32] = {
        "redis-server", "--port", "0", "--unixsocket", redis->socket, "--dir", redis->directory,
        "--save", "", "--auto-aof-rewrite-percentage", "0", "--enable-debug-command", "yes",
    };
    size_t count = 13;
    char log[128];
    for (const char *const *option = redis->options; option && *option; option++) {
        check(count + 1 < sizeof argv / sizeof *argv);
        argv[count++] = *option;
    }
    snprintf(log, sizeof log, "%s/log", redis->directory);
    redis->pid = start_program(argv, log);
    wait_until(answers(redis));
}

struct redis *start_redis(const char *const *options)
{
    check(server_count < SERVERS_MAX);
    struct redis *redis = &servers[server_count++];
    unsigned number = servers_ever++;
    *redis = (struct redis){ .options = options };
    snprintf(redis->directory, sizeof redis->directory, "%s/redis-%u", scratch_directory(), number);
    check(mkdir(redis->directory, 0700) == 0);
    snprintf(redis->socket, sizeof redis->socket, "%s/redis-%u/s", scratch_directory(), number);
    snprintf(redis->url, sizeof redis->url, "unix:%s/redis-%u/s", scratch_directory(), number);
    restart_redis(redis);
    return redis;
}

void kill_redis(struct redis *redis)
{
    kill_child(redis->pid);
    disconnect(redis);
}

/* ---------------------------------------------------------------- commands -------------- */

static redisReply *query(struct redis *redis, const char *format, va_list arguments)
{
    wait_until(connected(redis));
    test_waits_for = format;
    redisReply *reply = redisvCommand(redis->context, format, arguments);
    test_waits_for = NULL;
    if (!reply)
        test_fail(__FILE__, __LINE__, "Redis, asked \"%s\": %s", format, redis->context->errstr);
    if (reply->type == REDIS_REPLY_ERROR)
        test_fail(__FILE__, __LINE__, "Redis, asked \"%s\": %s", format, reply->str);
    return reply;
}

redisReply *redis_query(struct redis *redis, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = query(redis, format, arguments);
    va_end(arguments);
    return reply;
}

long long redis_integer(struct redis *redis, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = query(redis, format, arguments);
    va_end(arguments);
    check(reply->type == REDIS_REPLY_INTEGER);
    long long number = reply->integer;
    freeReplyObject(reply);
    return number;
}

bool redis_text(struct redis *redis, char *buffer, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = query(redis, format, arguments);
    va_end(arguments);
    bool there = reply->type != REDIS_REPLY_NIL;
    check(!there || reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS);
    snprintf(buffer, size, "%s", there ? reply->str : "");
    freeReplyObject(reply);
    return there;
}

bool redis_field_is(struct redis *redis, const char *key, const char *field, const char *value)
{
    char text[1024];
    bool there = redis_text(redis, text, sizeof text, "HGET %s %s", key, field);
    return there && strcmp(text, value) == 0;
}

long long redis_calls(struct redis *redis, const char *command)
{
    char entry[64];
    snprintf(entry, sizeof entry, "cmdstat_%s:calls=", command);
    redisReply *reply = redis_query(redis, "INFO commandstats");
    const char *found = strstr(reply->str, entry);
    long long calls = found ? atoll(found + strlen(entry)) : 0;
    freeReplyObject(reply);
    return calls;
}

/* ---------------------------------------------------------------- comparison ------------ */

/* A difference, in words. */
struct difference { char text[512]; };

static bool differ(struct difference *difference, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool differ(struct difference *difference, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(difference->text, sizeof difference->text, format, arguments);
    va_end(arguments);
    return true;
}

/* The value of FIELD in a HGETALL reply. */
static const redisReply *field_of(const redisReply *hash, const char *field)
{
    for (size_t i = 0; i + 1 < hash->elements; i += 2)
        if (strcmp(hash->element[i]->str, field) == 0)
            return hash->element[i + 1];
    return NULL;
}

static void iso_time(char text[40], uint64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    size_t length = strftime(text, 40, "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &parts));
    snprintf(text + length, 40 - length, ".%03uZ", (unsigned)(ms % 1000));
}

/* A worker as people read it: its place, and how often the place had been taken. */
static void owner_text(char text[24], uint32_t owner)
{
    unsigned place = (owner & ((1u << WORKER_INDEX_BITS) - 1)) - 1;
    text[0] = 0;
    if (owner)
        snprintf(text, 24, "%u.%u", place, owner >> WORKER_INDEX_BITS);
}

/* True when the session's hash is not what the view says. */
static bool record_differs(const sesstab_view *view, const redisReply *hash, struct difference *d)
{
    char handle[24], generation[24], version[24], owner[24], connected_at[40], last_seen[40];
    snprintf(handle, sizeof handle, "%llu", (unsigned long long)view->handle);
    snprintf(generation, sizeof generation, "%llu", (unsigned long long)view->generation);
    snprintf(version, sizeof version, "%llu", (unsigned long long)view->version);
    owner_text(owner, view->owner);
    iso_time(connected_at, view->connected_at);
    iso_time(last_seen, view->last_seen);
    const char *const fields[][2] = {
        { "Handle", handle }, { "Generation", generation }, { "PlayerRef", view->player },
        { "State", sesstab_state_name(view->state) }, { "IpAddress", view->address },
        { "Hostname", view->host }, { "ConnectionType", view->type },
        { "ConnectedAt", connected_at }, { "LastSeen", last_seen }, { "Owner", owner },
        { "Version", version },
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const redisReply *value = field_of(hash, fields[i][0]);
        if (!value || strcmp(value->str, fields[i][1]) != 0)
            return differ(d, "session %s, %s: \"%s\" in the table, \"%s\" in Redis", handle,
                          fields[i][0], fields[i][1], value ? value->str : "(none)");
    }
    return hash->elements != 2 * (sizeof fields / sizeof *fields)
           && differ(d, "session %s has %zu fields in Redis", handle, hash->elements / 2);
}

static bool metadata_differs(const sesstab_view *view, const redisReply *hash, struct difference *d)
{
    sesstab_pair pair;
    size_t position = 0;
    while (sesstab_metadata_next(view, &position, &pair, NULL) == SESSTAB_OK) {
        const redisReply *value = field_of(hash, pair.key);
        if (!value || value->len != pair.length || memcmp(value->str, pair.value, value->len) != 0)
            return differ(d, "session %llu, metadata %s: %s", (unsigned long long)view->handle,
                          pair.key, value ? "another in Redis" : "missing in Redis");
    }
    return hash->elements != 2 * (size_t)view->metadata_count
           && differ(d, "session %llu has %u metadata keys in the table, %zu in Redis",
                     (unsigned long long)view->handle, view->metadata_count, hash->elements / 2);
}

static redisReply *next_reply(struct redis *redis)
{
    void *reply = NULL;
    if (redisGetReply(redis->context, &reply) != REDIS_OK)
        test_fail(__FILE__, __LINE__, "Redis: %s", redis->context->errstr);
    return reply;
}

/* Takes the three replies that belong to HANDLE; true when they are not what the table says. */
static bool session_differs(sesstab *table, struct redis *redis, uint64_t handle,
                            struct difference *d)
{
    static char buffer[SESSTAB_RECORD_MAX];
    size_t size = sizeof buffer;
    sesstab_view view;
    redisReply *record = next_reply(redis), *metadata = next_reply(redis),
               *member = next_reply(redis);
    bool different = true;
    if (sesstab_get(table, handle, &view, buffer, &size) != SESSTAB_OK)
        differ(d, "session %llu was removed meanwhile", (unsigned long long)handle);
    else if (view.pending)
        differ(d, "session %llu is still pending", (unsigned long long)handle);
    else if (record->type != REDIS_REPLY_ARRAY || metadata->type != REDIS_REPLY_ARRAY)
        differ(d, "session %llu: Redis has no hash", (unsigned long long)handle);
    else if (member->integer != 1)
        differ(d, "session %llu is not in the active set", (unsigned long long)handle);
    else
        different = record_differs(&view, record, d) || metadata_differs(&view, metadata, d);
    freeReplyObject(record);
    freeReplyObject(metadata);
    freeReplyObject(member);
    return different;
}

/* Asks for a batch of sessions at once and compares them; drains all replies in any case. */
static bool batch_differs(sesstab *table, struct redis *redis, const uint64_t *handles,
                          size_t count, struct difference *d)
{
    bool different = false;
    for (size_t i = 0; i < count; i++) {
        unsigned long long handle = handles[i];
        redisAppendCommand(redis->context, "HGETALL " TEST_PREFIX ":conn:%llu", handle);
        redisAppendCommand(redis->context, "HGETALL " TEST_PREFIX ":conn:%llu:metadata", handle);
        redisAppendCommand(redis->context, "SISMEMBER " TEST_PREFIX ":conn:active %llu", handle);
    }
    for (size_t i = 0; i < count; i++) {
        struct difference here;
        if (session_differs(table, redis, handles[i], different ? &here : d))
            different = true;
    }
    return different;
}

/* True when Redis holds a session key or an active handle that the table knows nothing of. */
static bool redis_has_more(struct redis *redis, uint64_t sessions, uint64_t with_metadata,
                           struct difference *d)
{
    long long active = redis_integer(redis, "SCARD " TEST_PREFIX ":conn:active");
    if ((uint64_t)active != sessions)
        return differ(d, "%llu sessions in the table, %lld in the active set",
                      (unsigned long long)sessions, active);
    redisReply *keys = redis_query(redis, "KEYS " TEST_PREFIX ":conn:*");
    uint64_t expected = sessions + with_metadata + (sessions > 0), found = keys->elements;
    freeReplyObject(keys);
    return found != expected
           && differ(d, "%llu session keys in Redis, expected %llu", (unsigned long long)found,
                     (unsigned long long)expected);
}

static bool differs_from_redis(sesstab *table, struct redis *redis, struct difference *d)
{
    uint64_t handles[BATCH], sessions = 0, with_metadata = 0;
    size_t count = 0;
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    wait_until(connected(redis));
    while (sesstab_next(table, &cursor, &view) == SESSTAB_OK) {
        sessions++;
        with_metadata += view.metadata_count > 0;
        handles[count++] = view.handle;
        if (count < BATCH)
            continue;
        sesstab_pause(table, &cursor);
        if (batch_differs(table, redis, handles, count, d))
            return true;
        count = 0;
    }
    return batch_differs(table, redis, handles, count, d)
           || redis_has_more(redis, sessions, with_metadata, d);
}

bool redis_equals(sesstab *table, struct redis *redis, char *how, size_t size)
{
    struct difference difference = { "" };
    bool equal = !differs_from_redis(table, redis, &difference);
    snprintf(how, size, "%s", difference.text);
    return equal;
}

void wait_until_redis_equals(sesstab *table, struct redis *redis)
{
    struct difference difference = { "" };
    uint64_t limit = milliseconds() + 2 * WAIT_LIMIT;
    while (differs_from_redis(table, redis, &difference)) {
        if (milliseconds() > limit)
            test_fail(__FILE__, __LINE__, "Redis never became equal: %s", difference.text);
        pause_ms(20);
    }
}

/* ---------------------------------------------------------------- persister ------------- */

static void name_log(unsigned number)
{
    snprintf(log_path, sizeof log_path, "%s/persister-%u.log", scratch_directory(), number);
}

pid_t start_persister(const char *name, const char *url, const char *const *extra)
{
    const char *argv[32] = {
        program("persister"), "--table", name, "--create", "--prefix", TEST_PREFIX,
        "--flush-interval", "5", "--timeout", "2000",
    };
    size_t count = 10;
    if (url) {
        argv[count++] = "--redis";
        argv[count++] = url;
    }
    for (; extra && *extra; extra++) {
        check(count + 1 < sizeof argv / sizeof *argv);
        argv[count++] = *extra;
    }
    name_log(log_number++);
    return start_program(argv, log_path);
}

const char *persister_log(void)
{
    return log_path;
}

void redis_harness_explain(void)
{
    char lines[EXPLAIN_LINES][512];
    unsigned count = 0;
    FILE *log = log_path[0] ? fopen(log_path, "r") : NULL;
    if (!log)
        return;
    while (fgets(lines[count % EXPLAIN_LINES], sizeof lines[0], log))
        count++;
    fclose(log);
    fprintf(stderr, "the last persister's last words:\n");
    for (unsigned i = count < EXPLAIN_LINES ? 0 : count - EXPLAIN_LINES; i < count; i++)
        fprintf(stderr, "  %s", lines[i % EXPLAIN_LINES]);
}

bool redis_harness_end(void)
{
    bool clean = true;
    for (; first_log < log_number; first_log++) {
        name_log(first_log);
        if (file_says(log_path, "Sanitizer"))
            clean = false;
    }
    if (!clean)
        redis_harness_explain();
    for (unsigned i = 0; i < server_count; i++)
        disconnect(&servers[i]);
    server_count = 0;
    log_path[0] = 0;
    return clean;
}
