/*
 * Redis through a unix socket: a hash per session, as its users keep sessions, and a set of handles
 * per player.  One command at a time, each a round trip to another process; a batch is pipelined.
 * The server is not pinned, keeps nothing on disk, and serves nobody else.
 */
#include "bench/sandbox.h"
#include "bench/table/loops.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdlib.h>

enum { FILL_BATCH = 1000, SCAN_COUNT = 1000, PATIENCE_S = 20 };

struct table {
    char socket[SANDBOX_PATH_MAX];
    pid_t server; /* 0: somebody else's */
    redisContext *connection;
};

/* ---------------------------------------------------------------- talking --------------- */

static redisReply *checked(struct table *t, redisReply *reply)
{
    if (!reply || reply->type == REDIS_REPLY_ERROR)
        bench_fail("redis: %s", reply ? reply->str : t->connection->errstr);
    return reply;
}

static redisReply *next_reply(struct table *t)
{
    void *reply = NULL;
    redisGetReply(t->connection, &reply);
    return checked(t, reply);
}

/* The integer that the command answers with. */
static long long number(struct table *t, redisReply *reply)
{
    long long n = checked(t, reply)->integer;
    freeReplyObject(reply);
    return n;
}

static uint64_t text_number(const redisReply *reply)
{
    return reply->str ? strtoull(reply->str, NULL, 10) : 0;
}

/* The reply to an HMGET of connected and player, which it frees. */
static uint64_t words_in(redisReply *reply)
{
    const redisReply *player = reply->elements == 2 ? reply->element[1] : NULL;
    uint64_t words = player && player->str && player->len > 1
                         ? read_words(text_number(reply->element[0]), player->str)
                         : 0;
    freeReplyObject(reply);
    return words;
}

#define VIEW "HMGET s:%" PRIu64 " connected player"

/* ---------------------------------------------------------------- reading --------------- */

static uint64_t view(void *table, uint64_t handle)
{
    struct table *t = table;
    return words_in(checked(t, redisCommand(t->connection, VIEW, handle)));
}

/* In the order of add_session(). */
enum { FIELDS = 10, AT_CONNECTED = 1, AT_SEEN = 3, AT_PLAYER = 5, AT_CLIENT = 19 };

static bool copy(void *table, uint64_t handle, struct record *record)
{
    struct table *t = table;
    redisReply *reply = checked(t, redisCommand(t->connection, "HGETALL s:%" PRIu64, handle));
    bool found = reply->elements == 2 * FIELDS;
    if (found) {
        record->connected_at = text_number(reply->element[AT_CONNECTED]);
        record->last_seen = text_number(reply->element[AT_SEEN]);
        snprintf(record->player, sizeof record->player, "%s", reply->element[AT_PLAYER]->str);
        if (reply->element[AT_CLIENT]->len == SET_BYTES)
            memcpy(record->metadata, reply->element[AT_CLIENT]->str, SET_BYTES);
    }
    freeReplyObject(reply);
    return found;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    struct table *t = table;
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        redisAppendCommand(t->connection, VIEW, handles[i]);
    for (size_t i = 0; i < count; i++) {
        uint64_t words = words_in(next_reply(t));
        found += words != 0;
        *sum += words;
    }
    return found;
}

/* The sessions among the keys of one SCAN step. */
static size_t scan_step(struct table *t, const redisReply *keys, uint64_t *sum)
{
    size_t seen = 0;
    for (size_t i = 0; i < keys->elements; i++)
        redisAppendCommand(t->connection, "HMGET %s connected player", keys->element[i]->str);
    for (size_t i = 0; i < keys->elements; i++) {
        uint64_t words = words_in(next_reply(t));
        seen += words != 0;
        *sum += words;
    }
    return seen;
}

static size_t scan(void *table, uint64_t *sum)
{
    struct table *t = table;
    unsigned long long cursor = 0;
    size_t seen = 0;
    do {
        redisReply *reply = checked(t, redisCommand(t->connection, "SCAN %llu MATCH s:* COUNT %d",
                                                    cursor, SCAN_COUNT));
        cursor = text_number(reply->element[0]);
        seen += scan_step(t, reply->element[1], sum);
        freeReplyObject(reply);
    } while (cursor);
    return seen;
}

static uint64_t by_player(void *table, const char *player)
{
    struct table *t = table;
    uint64_t sum = 0;
    redisReply *handles = checked(t, redisCommand(t->connection, "SMEMBERS p:%s", player));
    for (size_t i = 0; i < handles->elements; i++)
        sum += view(t, text_number(handles->element[i]));
    freeReplyObject(handles);
    return sum;
}

/* ---------------------------------------------------------------- changing -------------- */

/* 0: the field was there, and was changed. */
static bool touch(void *table, uint64_t handle, uint64_t now)
{
    struct table *t = table;
    return number(t, redisCommand(t->connection, "HSET s:%" PRIu64 " seen %" PRIu64, handle,
                                  now)) == 0;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    struct table *t = table;
    return number(t, redisCommand(t->connection, "HSET s:%" PRIu64 " client %b", handle, value,
                                  (size_t)SET_BYTES)) == 0;
}

static void add_session(struct table *t, uint64_t handle, const struct record *r)
{
    redisAppendCommand(t->connection,
                       "HSET s:%" PRIu64 " connected %" PRIu64 " seen %" PRIu64 " player %s "
                       "generation %" PRIu64 " address %s host %s type %s width 132x43 "
                       "term xterm-256color client %b",
                       handle, r->connected_at, r->last_seen, r->player, r->generation, r->address,
                       r->host, r->type, r->metadata, (size_t)SET_BYTES);
}

static bool insert(void *table, uint64_t handle, const struct record *record)
{
    add_session(table, handle, record);
    return number(table, next_reply(table)) == FIELDS;
}

static bool erase(void *table, uint64_t handle)
{
    struct table *t = table;
    return number(t, redisCommand(t->connection, "DEL s:%" PRIu64, handle)) == 1;
}

/* ---------------------------------------------------------------- open, close ----------- */

static redisContext *connect_to(const char *socket)
{
    redisContext *c = redisConnectUnix(socket);
    redisReply *reply = c && !c->err ? redisCommand(c, "PING") : NULL;
    if (reply && reply->type == REDIS_REPLY_STATUS) {
        freeReplyObject(reply);
        return c;
    }
    freeReplyObject(reply);
    if (c)
        redisFree(c);
    return NULL;
}

static void start_server(struct table *t)
{
    char directory[SANDBOX_PATH_MAX];
    sandbox_path(t->socket, "redis");
    sandbox_path(directory, "");
    const char *const argv[] = { "redis-server", "--port", "0", "--unixsocket", t->socket, "--dir",
                                 directory, "--save", "", "--appendonly", "no", NULL };
    t->server = sandbox_program(argv, "redis.log");
    bench_unpin(t->server);
    uint64_t deadline = bench_clock() + PATIENCE_S * UINT64_C(1000000000);
    while (!(t->connection = connect_to(t->socket))) {
        sandbox_must_live(t->server, "redis.log");
        if (bench_clock() > deadline)
            bench_fail("redis-server does not answer");
        bench_pause_us(10000);
    }
}

static void fill(struct table *t, size_t sessions)
{
    for (uint64_t handle = 1, first; (first = handle) <= sessions;) {
        for (; handle < first + FILL_BATCH && handle <= sessions; handle++) {
            struct record r = usual_record(handle);
            add_session(t, handle, &r);
            redisAppendCommand(t->connection, "SADD p:%s %" PRIu64, r.player, handle);
        }
        for (uint64_t i = first; i < 2 * handle - first; i++)
            freeReplyObject(next_reply(t));
    }
}

static void *open_table(size_t sessions)
{
    if (!sandbox_can_run("redis-server"))
        return left_out("redis", "there is no redis-server (package redis-server)");
    struct table *t = bench_memory(1, sizeof *t);
    start_server(t);
    fill(t, sessions);
    return t;
}

static void *join(void *table)
{
    struct table *t = bench_memory(1, sizeof *t);
    *t = *(const struct table *)table;
    t->server = 0;
    if (!(t->connection = connect_to(t->socket)))
        bench_fail("redis-server does not take a second connection");
    return t;
}

static void close_table(void *table)
{
    struct table *t = table;
    redisFree(t->connection);
    if (t->server)
        sandbox_kill(t->server);
    free(t);
}

static uint64_t bytes(void *table)
{
    struct table *t = table;
    redisReply *reply = checked(t, redisCommand(t->connection, "INFO memory"));
    const char *used = strstr(reply->str, "used_memory:");
    uint64_t n = used ? strtoull(used + strlen("used_memory:"), NULL, 10) : 0;
    freeReplyObject(reply);
    return n;
}

LOOP(get_view, each_view, view)
LOOP(get_copy, each_copy, copy)
LOOP(get_miss, each_miss, view)
LOOP(get_dependent, each_dependent, view)
LOOP(get_batch, each_batch, batch)
LOOP(touches, each_touch, touch)
LOOP(sets, each_set, set)
LOOP(inserts, each_insert_remove, insert, erase)
LOOP(scans, each_scan, scan)
LOOP(players, each_player, by_player)
LOOP(mix, each_mix, view, touch)

const struct contender redis_contender = {
    .name = "redis",
    .scope = SCOPE_SERVER,
    .lacks = "every operation is a round trip to another process; view: HMGET of two fields, copy: "
             "HGETALL, batch: pipelined; a change is done, not durable",
    .sessions_max = 1000000,
    .walk_max = 100000,
    .bytes_per_session = 1000,
    .open = open_table,
    .close = close_table,
    .join = join,
    .leave = close_table,
    .read_back = copy,
    .bytes = bytes,
    .operations = {
        [OPERATION_VIEW] = get_view,
        [OPERATION_COPY] = get_copy,
        [OPERATION_MISS] = get_miss,
        [OPERATION_DEPENDENT] = get_dependent,
        [OPERATION_BATCH] = get_batch,
        [OPERATION_TOUCH] = touches,
        [OPERATION_SET] = sets,
        [OPERATION_INSERT_REMOVE] = inserts,
        [OPERATION_SCAN] = scans,
        [OPERATION_BY_PLAYER] = players,
        [OPERATION_MIX] = mix,
    },
};
