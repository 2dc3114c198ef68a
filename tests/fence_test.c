/*
 * Bytes of an old connection that reach Redis late: after a new leader, or the same one on a new
 * connection, has written and was acknowledged.  A proxy between persister and Redis holds them
 * back, so that it happens every time and not once in a thousand runs.
 */
#include "tests/harness.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAIRS = 32, HELD_MAX = 1 << 20 };

/* What the test and the proxy tell each other. */
struct control {
    char listen_on[104], connect_to[104];
    char awaited[32];     /* when these bytes are held back, `caught` becomes true           */
    _Atomic bool hold;    /* by the test: what the present connections send stays here       */
    _Atomic bool release; /* by the test: and now goes to Redis                              */
    _Atomic bool holding, caught, answered; /* by the proxy                                  */
};

/* One connection through the proxy; its server side stays open when the client has gone. */
struct pair {
    int client, server;
    bool old;
    size_t held;
    char *bytes;
};

struct proxy {
    struct control *control;
    int listener;
    unsigned count;
    struct pair pairs[PAIRS];
};

/* ---------------------------------------------------------------- proxy ------------------ */

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return address;
}

static void write_all(int descriptor, const char *bytes, size_t length)
{
    while (length) {
        ssize_t written = write(descriptor, bytes, length);
        if (written <= 0)
            return; /* the other side has gone: the bytes are nobody's */
        bytes += written;
        length -= (size_t)written;
    }
}

static void accept_one(struct proxy *proxy)
{
    struct sockaddr_un address = address_of(proxy->control->connect_to);
    int client = accept(proxy->listener, NULL, NULL), server = socket(AF_UNIX, SOCK_STREAM, 0);
    check(client >= 0 && proxy->count < PAIRS);
    check(connect(server, (struct sockaddr *)&address, sizeof address) == 0);
    proxy->pairs[proxy->count++] = (struct pair){ .client = client, .server = server };
}

static void hold_back(struct proxy *proxy, struct pair *pair, const char *bytes, size_t length)
{
    const char *awaited = proxy->control->awaited;
    if (!pair->bytes)
        pair->bytes = malloc(HELD_MAX);
    check(pair->bytes && pair->held + length <= HELD_MAX);
    memcpy(pair->bytes + pair->held, bytes, length);
    pair->held += length;
    if (memmem(pair->bytes, pair->held, awaited, strlen(awaited)))
        proxy->control->caught = true;
}

static void from_client(struct proxy *proxy, struct pair *pair)
{
    char bytes[65536];
    ssize_t got = read(pair->client, bytes, sizeof bytes);
    if (got > 0 && pair->old)
        hold_back(proxy, pair, bytes, (size_t)got);
    else if (got > 0)
        write_all(pair->server, bytes, (size_t)got);
    if (got > 0)
        return;
    close(pair->client);
    pair->client = -1;
    if (!pair->old)
        shutdown(pair->server, SHUT_WR);
}

static void from_server(struct proxy *proxy, struct pair *pair)
{
    char bytes[65536];
    ssize_t got = read(pair->server, bytes, sizeof bytes);
    if (got > 0 && pair->client >= 0)
        write_all(pair->client, bytes, (size_t)got);
    if (got > 0 && pair->held && proxy->control->release)
        proxy->control->answered = true;
    if (got > 0)
        return;
    close(pair->server);
    pair->server = -1;
    if (pair->client >= 0)
        shutdown(pair->client, SHUT_RDWR);
}

static void follow_control(struct proxy *proxy, bool *released)
{
    if (proxy->control->hold && !proxy->control->holding) {
        for (unsigned i = 0; i < proxy->count; i++)
            proxy->pairs[i].old = true;
        proxy->control->holding = true;
    }
    if (proxy->control->release && !*released) {
        for (unsigned i = 0; i < proxy->count; i++)
            write_all(proxy->pairs[i].server, proxy->pairs[i].bytes, proxy->pairs[i].held);
        *released = true;
    }
}

static void serve_ready(struct proxy *proxy)
{
    struct pollfd fds[1 + 2 * PAIRS] = { { .fd = proxy->listener, .events = POLLIN } };
    unsigned count = proxy->count;
    for (unsigned i = 0; i < count; i++) {
        fds[1 + 2 * i] = (struct pollfd){ .fd = proxy->pairs[i].client, .events = POLLIN };
        fds[2 + 2 * i] = (struct pollfd){ .fd = proxy->pairs[i].server, .events = POLLIN };
    }
    if (poll(fds, 1 + 2 * count, 5) <= 0)
        return;
    for (unsigned i = 0; i < count; i++) {
        if (fds[1 + 2 * i].revents)
            from_client(proxy, &proxy->pairs[i]);
        if (fds[2 + 2 * i].revents)
            from_server(proxy, &proxy->pairs[i]);
    }
    if (fds[0].revents)
        accept_one(proxy);
}

static void run_proxy(void *context)
{
    struct proxy proxy = { .control = context };
    struct sockaddr_un address = address_of(proxy.control->listen_on);
    bool released = false;
    proxy.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    check(bind(proxy.listener, (struct sockaddr *)&address, sizeof address) == 0);
    check(listen(proxy.listener, 8) == 0);
    for (;;) {
        follow_control(&proxy, &released);
        serve_ready(&proxy);
    }
}

/* ---------------------------------------------------------------- tests ------------------ */

struct fenced {
    const char *name;
    sesstab *table;
    struct redis *redis;
    struct control *control;
    char url[112];
    pid_t persister;
    const char *const *options;
};

static void start_fenced_persister(struct fenced *f)
{
    f->persister = start_persister(f->name, f->url, f->options);
}

static struct fenced start_fenced(const char *const *options)
{
    struct fenced f = { .name = new_name(), .options = options };
    f.redis = start_redis(NULL);
    f.control = shared_memory(sizeof *f.control);
    snprintf(f.control->listen_on, sizeof f.control->listen_on, "%s/p", f.redis->directory);
    snprintf(f.control->connect_to, sizeof f.control->connect_to, "%s", f.redis->socket);
    snprintf(f.control->awaited, sizeof f.control->awaited, "stale player");
    snprintf(f.url, sizeof f.url, "unix:%s", f.control->listen_on);
    start_child(run_proxy, f.control);
    wait_until(access(f.control->listen_on, F_OK) == 0);
    start_fenced_persister(&f);
    f.table = open_table(f.name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(f.table, WAIT_LIMIT));
    for (uint64_t handle = 1; handle <= 3; handle++)
        insert_plain(f.table, handle);
    check_ok(sesstab_bind(f.table, 1, "first player", WAIT_LIMIT));
    wait_until_redis_equals(f.table, f.redis);
    return f;
}

/* A batch that binds session 1, changes session 2 and removes session 3 stays in the proxy. */
static void catch_a_batch(struct fenced *f)
{
    f->control->hold = true;
    wait_until(f->control->holding);
    check_ok(sesstab_set(f->table, 2, "key", "stale player", 12));
    check_ok(sesstab_remove(f->table, 3));
    check_result(sesstab_bind(f->table, 1, "stale player", 20), SESSTAB_UNKNOWN);
    wait_until(f->control->caught);
}

/* On a new connection everything is changed again, and acknowledged; then the old bytes come. */
static void overtake(struct fenced *f)
{
    insert_plain(f->table, 3);
    check_ok(sesstab_set(f->table, 2, "key", "new", 3));
    check_ok(sesstab_bind(f->table, 3, "new player", WAIT_LIMIT));
    check_ok(sesstab_bind(f->table, 1, "new player", WAIT_LIMIT));
    wait_until_redis_equals(f->table, f->redis);
    f->control->release = true;
    wait_until(f->control->answered);
    check(redis_field_is(f->redis, TEST_PREFIX ":conn:1", "PlayerRef", "new player"));
    check(redis_field_is(f->redis, TEST_PREFIX ":conn:2:metadata", "key", "new"));
    check(redis_field_is(f->redis, TEST_PREFIX ":conn:3", "PlayerRef", "new player"));
    check_equal(redis_integer(f->redis, "SISMEMBER " TEST_PREFIX ":conn:active 3"), 1);
    wait_until_redis_equals(f->table, f->redis);
    check_ok(sesstab_bind(f->table, 2, "last player", WAIT_LIMIT));
    wait_until_redis_equals(f->table, f->redis);
    check_table(f->name);
}

static void late_bytes_of_a_dead_leader_change_nothing(void **state)
{
    struct fenced f = start_fenced(NULL);
    (void)state;
    catch_a_batch(&f);
    kill_child(f.persister);
    start_fenced_persister(&f);
    overtake(&f);
}

/* It never learns that they were held back, and reads Redis's late answers when it goes on. */
static void late_bytes_of_a_stopped_leader_change_nothing(void **state)
{
    const char *const quick[] = { "--supersede-after", "250", "--timeout", "60000", NULL };
    struct fenced f = start_fenced(quick);
    char log[96];
    (void)state;
    snprintf(log, sizeof log, "%s", persister_log());
    pid_t first = f.persister;
    catch_a_batch(&f);
    kill(first, SIGSTOP);
    start_fenced_persister(&f);
    overtake(&f);
    kill(first, SIGCONT);
    wait_until(file_says(log, "event=superseded"));
    wait_until(file_says(log, "event=standby"));
    check(redis_field_is(f.redis, TEST_PREFIX ":conn:1", "PlayerRef", "new player"));
    check_ok(sesstab_bind(f.table, 1, "newest player", WAIT_LIMIT));
    wait_until_redis_equals(f.table, f.redis);
    kill_child(f.persister);
    check_ok(sesstab_bind(f.table, 1, "by the first again", WAIT_LIMIT));
    wait_until_redis_equals(f.table, f.redis);
}

static void late_bytes_of_a_connection_that_timed_out_change_nothing(void **state)
{
    struct fenced f = start_fenced((const char *[]){ "--timeout", "150", NULL });
    (void)state;
    catch_a_batch(&f);
    overtake(&f);
}

enum { CROWD = 128 }; /* connections that make the answer to CLIENT LIST longer than 16 KiB */

static void tell(struct redis *redis, const char *command)
{
    freeReplyObject(redis_query(redis, command));
}

/* From now on Redis closes a connection whose answer is longer than what it keeps for short ones. */
static void let_long_answers_break(struct redis *redis, redisContext *crowd[CROWD])
{
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = redisConnectUnix(redis->url + strlen("unix:"));
        freeReplyObject(redisCommand(crowd[i], "PING"));
        check(!crowd[i]->err);
    }
    freeReplyObject(redis_query(redis, "CONFIG SET client-output-buffer-limit %s", "normal 1 0 0"));
}

/* Redis gives a connection that was idle less room for short answers: this is asked by a new one. */
static long long lists_of_clients(struct redis *redis)
{
    redis_own_connection(redis);
    return redis_calls(redis, "client|list");
}

/* Asked whether the one lives that has written its token, Redis closes the connection. */
static void a_connection_that_breaks_proves_no_rival_alive(void **state)
{
    struct redis *redis = start_redis(NULL);
    const char *name = new_name();
    redisContext *crowd[CROWD];
    (void)state;
    start_persister(name, redis->url, NULL);
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    insert_plain(table, 1);
    let_long_answers_break(redis, crowd);
    tell(redis, "SET " TEST_PREFIX ":leader 00000000000000ff.7.0000000000000001.1");
    wait_until(file_says(persister_log(), "event=disconnected"));
    wait_until(lists_of_clients(redis) >= 3);
    freeReplyObject(redis_query(redis, "CONFIG SET client-output-buffer-limit %s", "normal 0 0 0"));
    check_ok(sesstab_bind(table, 1, "player", WAIT_LIMIT));
    wait_until_redis_equals(table, redis);
    for (int i = 0; i < CROWD; i++)
        redisFree(crowd[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(late_bytes_of_a_dead_leader_change_nothing),
        TEST(late_bytes_of_a_stopped_leader_change_nothing),
        TEST(late_bytes_of_a_connection_that_timed_out_change_nothing),
        TEST(a_connection_that_breaks_proves_no_rival_alive),
    };
    return run_all(tests);
}
