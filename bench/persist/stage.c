#include "bench/persist/stage.h"

#include "bench/persist/output.h"
#include "bench/table/contender.h"
#include "lib/store.h"
#include "lib/table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

void must(int result, const char *what)
{
    if (result)
        bench_fail("%s: %s. %s", what, sesstab_strerror(result), sesstab_error_detail());
}

/* ---------------------------------------------------------------- asking Redis ---------- */

static redisReply *checked(redisContext *connection, redisReply *reply)
{
    if (!reply || reply->type == REDIS_REPLY_ERROR)
        bench_fail("Redis: %s", reply ? reply->str : connection->errstr);
    return reply;
}

redisReply *next_reply(redisContext *connection)
{
    void *reply = NULL;
    redisGetReply(connection, &reply);
    return checked(connection, reply);
}

void drop_replies(redisContext *connection, size_t *count)
{
    for (; *count; --*count)
        freeReplyObject(next_reply(connection));
}

redisReply *ask_redis(redisContext *connection, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(connection, format, arguments);
    va_end(arguments);
    return checked(connection, reply);
}

uint64_t ask_redis_number(redisContext *connection, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = checked(connection, redisvCommand(connection, format, arguments));
    va_end(arguments);
    if (reply->type != REDIS_REPLY_INTEGER)
        bench_fail("Redis answered \"%s\" with something else than a number", format);
    uint64_t number = (uint64_t)reply->integer;
    freeReplyObject(reply);
    return number;
}

uint64_t redis_executed(redisContext *connection, const char *command)
{
    char start[48];
    snprintf(start, sizeof start, "cmdstat_%s:calls=", command);
    redisReply *reply = ask_redis(connection, "INFO commandstats");
    const char *line = strstr(reply->str, start);
    uint64_t count = line ? strtoull(line + strlen(start), NULL, 10) : 0;
    freeReplyObject(reply);
    return count;
}

/* ---------------------------------------------------------------- Redis ----------------- */

/* A port that is free now. */
static int free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        bench_fail("a port of 127.0.0.1: %s", strerror(errno));
    close(fd);
    return ntohs(address.sin_port);
}

static redisContext *try_connect(const struct stage *s, bool tcp)
{
    char socket[SANDBOX_PATH_MAX];
    sandbox_path(socket, "redis");
    redisContext *connection = tcp ? redisConnect("127.0.0.1", s->port) : redisConnectUnix(socket);
    if (!connection)
        bench_fail("out of memory");
    redisReply *reply = connection->err ? NULL : redisCommand(connection, "PING");
    bool answers = reply && reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    if (answers)
        return connection;
    redisFree(connection);
    return NULL;
}

redisContext *stage_connect(const struct stage *s, bool tcp)
{
    uint64_t deadline = bench_clock() + UINT64_C(1000000) * DEADLINE_MS;
    for (;;) {
        redisContext *connection = try_connect(s, tcp);
        if (connection)
            return connection;
        sandbox_must_live(s->redis, "redis.log");
        if (bench_clock() > deadline)
            bench_fail("redis-server does not answer within %d s", DEADLINE_MS / 1000);
        bench_pause_us(10000);
    }
}

static void start_redis(struct stage *s, bool tcp)
{
    char socket[SANDBOX_PATH_MAX], directory[SANDBOX_PATH_MAX], port[8];
    sandbox_path(socket, "redis");
    sandbox_path(directory, "");
    s->port = tcp ? free_port() : 0;
    snprintf(port, sizeof port, "%d", s->port);
    const char *const argv[] = { "redis-server", "--bind", "127.0.0.1", "--port", port,
                                 "--unixsocket", socket, "--dir", directory, "--save", "",
                                 "--appendonly", "no", NULL };
    s->redis = sandbox_program(argv, "redis.log");
    s->connection = stage_connect(s, false);
}

/* ---------------------------------------------------------------- the persister --------- */

/* It lies beside the directory of this program, unless SESSTAB_BIN says where. */
static void persister_path(char path[PATH_MAX])
{
    const char *directory = getenv("SESSTAB_BIN");
    char self[PATH_MAX / 2] = "";
    if (!directory && readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        bench_fail("/proc/self/exe: %s", strerror(errno));
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    snprintf(path, PATH_MAX, "%s/%s", directory ? directory : self,
             directory ? "persister" : "../persister");
    if (access(path, X_OK) != 0)
        bench_fail("%s: %s: build it with `make`, or say in SESSTAB_BIN where it is", path,
                   strerror(errno));
}

void stage_start_persister(struct stage *s)
{
    char path[PATH_MAX], socket[SANDBOX_PATH_MAX], url[SANDBOX_PATH_MAX + 8];
    persister_path(path);
    sandbox_path(socket, "redis");
    snprintf(url, sizeof url, "unix:%s", socket);
    const char *const argv[] = { path, "--table", s->name, "--redis", url, "--prefix",
                                 STAGE_PREFIX, NULL };
    s->persister = sandbox_program(argv, "persister.log");
}

void stage_stop_persister(struct stage *s)
{
    siginfo_t how;
    kill(s->persister, SIGTERM);
    waitid(P_PID, (id_t)s->persister, &how, WEXITED | WNOWAIT);
    sandbox_kill(s->persister); /* which reaps it */
    s->persister = 0;
}

void stage_await_ready(struct stage *s)
{
    while (sesstab_wait_ready(s->table, 1000) != SESSTAB_OK)
        sandbox_must_live(s->persister, "persister.log");
}

/* ---------------------------------------------------------------- the table ------------- */

static void open_table(struct stage *s)
{
    must(sesstab_open(s->name, &(sesstab_options){ .create = true }, &s->table), "open");
    s->store = store_open(s->table);
    if (!s->store)
        bench_fail("out of memory");
    s->sessions = 0;
}

static void close_table(struct stage *s)
{
    store_close(s->store);
    sesstab_close(s->table);
    must(sesstab_unlink(s->name), "unlink");
}

void stage_open(struct stage *s, bool tcp)
{
    *s = (struct stage){ 0 };
    sandbox_table(s->name, "stage");
    start_redis(s, tcp);
    open_table(s);
    stage_start_persister(s);
    stage_await_ready(s);
}

void stage_close(struct stage *s)
{
    sandbox_kill(s->persister);
    redisFree(s->connection);
    sandbox_kill(s->redis);
    close_table(s);
}

void stage_renew_table(struct stage *s)
{
    close_table(s);
    open_table(s);
}

/* ---------------------------------------------------------------- filling --------------- */

#define PAIR(key, value) { key, value, sizeof value - 1 },
static const sesstab_pair usual_pairs[] = { USUAL_METADATA(PAIR) };

const sesstab_info usual_info = {
    .address = USUAL_ADDRESS,
    .host = USUAL_HOST,
    .type = USUAL_TYPE,
    .connected_at = USUAL_CONNECTED_AT,
    .metadata = usual_pairs,
    .metadata_count = sizeof usual_pairs / sizeof *usual_pairs,
};

double stage_insert(struct stage *s, size_t sessions)
{
    char player[PLAYER_BYTES];
    uint64_t start = bench_clock();
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        must(sesstab_insert(s->table, &handle, &usual_info), "insert");
        player_of(handle, player);
        int result = sesstab_bind(s->table, handle, player, 0); /* and wait for all at the end */
        if (result != SESSTAB_UNKNOWN)
            must(result, "bind");
    }
    s->sessions = sessions;
    return (double)(bench_clock() - start) / 1e9;
}

void stage_settle(struct stage *s, const char *what)
{
    struct progress progress = { .what = what, .total = s->sessions };
    for (uint64_t lag; (lag = store_lag(s->store)); bench_pause_us(2000)) {
        sandbox_must_live(s->persister, "persister.log");
        if (what)
            progress_show(&progress, lag < s->sessions ? s->sessions - lag : 0);
        if (lag > 10000)
            bench_pause_us(100000); /* looking costs the persister memory bandwidth */
    }
    if (what)
        progress_show(&progress, s->sessions);
}

void stage_fill(struct stage *s, size_t sessions)
{
    stage_insert(s, sessions);
    stage_settle(s, "sessions in Redis");
    uint64_t members = ask_redis_number(s->connection, "SCARD " STAGE_PREFIX ":conn:active");
    if (members != sessions)
        bench_fail("Redis holds %llu sessions instead of %zu", (unsigned long long)members,
                   sessions);
}

/* Whether HGET KEY FIELD is LENGTH bytes at VALUE. */
static bool holds(const struct stage *s, const char *key, const char *field, const void *value,
                  size_t length)
{
    redisReply *reply = ask_redis(s->connection, "HGET %s %s", key, field);
    bool same = reply->type == REDIS_REPLY_STRING && reply->len == length &&
                memcmp(reply->str, value, length) == 0;
    freeReplyObject(reply);
    return same;
}

void stage_check(const struct stage *s, uint64_t handle)
{
    char key[96], buffer[512];
    size_t size = sizeof buffer, position = 0;
    sesstab_view view;
    sesstab_pair pair;
    must(sesstab_get(s->table, handle, &view, buffer, &size), "get");
    snprintf(key, sizeof key, STAGE_PREFIX ":conn:%" PRIu64, handle);
    bool same = holds(s, key, "PlayerRef", view.player, strlen(view.player));
    strcat(key, ":metadata");
    while (sesstab_metadata_next(&view, &position, &pair, NULL) == SESSTAB_OK)
        same = same && holds(s, key, pair.key, pair.value, pair.length);
    if (!same)
        bench_fail("Redis does not hold session %" PRIu64 " as the table does", handle);
}

uint64_t stage_written(const struct stage *s)
{
    return load_relaxed(&s->table->shm.header->durable_writes);
}
