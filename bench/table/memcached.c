/*
 * memcached through a unix socket, by libmemcached: the whole record under one key, and last-seen
 * under a key of its own, so that a touch is one store.  Replacing a value inside a record is a
 * gets and a cas, since others may be doing it too.  The server is not pinned, and has one thread.
 */
#include "bench/table/loops.h"

#if __has_include(<libmemcached/memcached.h>)

#include "bench/sandbox.h"

#include <errno.h>
#include <inttypes.h>
#include <libmemcached/memcached.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { KEY_BYTES = 24, PATIENCE_S = 20, BYTES_PER_SESSION = 700, MEGABYTES_MORE = 64 };

struct table {
    char socket[SANDBOX_PATH_MAX];
    pid_t server; /* 0: somebody else's */
    memcached_st *connection;
};

struct key {
    char text[KEY_BYTES];
    size_t length;
};

static struct key key_of(char kind, uint64_t handle)
{
    struct key k;
    k.length = (size_t)snprintf(k.text, sizeof k.text, "%c:%" PRIu64, kind, handle);
    return k;
}

static bool store(struct table *t, char kind, uint64_t handle, const void *value, size_t size)
{
    struct key k = key_of(kind, handle);
    return memcached_set(t->connection, k.text, k.length, value, size, 0, 0) == MEMCACHED_SUCCESS;
}

/* ---------------------------------------------------------------- reading --------------- */

/* Copies SIZE bytes of what is stored; false: nothing is, or not as much. */
static bool fetch(struct table *t, char kind, uint64_t handle, void *to, size_t size)
{
    struct key k = key_of(kind, handle);
    size_t length;
    uint32_t flags;
    memcached_return_t result;
    char *value = memcached_get(t->connection, k.text, k.length, &length, &flags, &result);
    bool found = value && length == size;
    if (found)
        memcpy(to, value, size);
    free(value);
    return found;
}

static bool copy(void *table, uint64_t handle, struct record *record)
{
    return fetch(table, 's', handle, record, sizeof *record);
}

/* There is no looking at a part. */
static uint64_t view(void *table, uint64_t handle)
{
    struct record record;
    return copy(table, handle, &record) ? words_of(&record) : 0;
}

static bool read_back(void *table, uint64_t handle, struct record *record)
{
    return copy(table, handle, record) &&
           fetch(table, 't', handle, &record->last_seen, sizeof record->last_seen);
}

/* Asks for COUNT sessions at once. */
static void ask(struct table *t, const uint64_t *handles, size_t count)
{
    struct key keys[BATCH];
    const char *texts[BATCH];
    size_t lengths[BATCH];
    for (size_t i = 0; i < count; i++) {
        keys[i] = key_of('s', handles[i]);
        texts[i] = keys[i].text;
        lengths[i] = keys[i].length;
    }
    if (memcached_mget(t->connection, texts, lengths, count) != MEMCACHED_SUCCESS)
        bench_fail("memcached_mget: %s", memcached_last_error_message(t->connection));
}

/* A handle that is asked for twice may be answered once. */
static size_t repeated(const uint64_t *handles, size_t count)
{
    size_t n = 0;
    for (size_t i = 1; i < count; i++)
        for (size_t k = 0; k < i; k++)
            if (handles[k] == handles[i]) {
                n++;
                break;
            }
    return n;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    struct table *t = table;
    memcached_result_st result;
    memcached_return_t status;
    size_t found = 0;
    ask(t, handles, count);
    memcached_result_create(t->connection, &result);
    while (memcached_fetch_result(t->connection, &result, &status)) {
        struct record r;
        if (memcached_result_length(&result) != sizeof r)
            continue;
        memcpy(&r, memcached_result_value(&result), sizeof r);
        *sum += words_of(&r);
        found++;
    }
    memcached_result_free(&result);
    return found == count || found + repeated(handles, count) == count ? count : found;
}

/* ---------------------------------------------------------------- changing -------------- */

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    return store(table, 't', handle, &now, sizeof now);
}

/* The session with the number that its cas asks for. */
static bool fetch_for_change(struct table *t, uint64_t handle, struct record *record, uint64_t *cas)
{
    memcached_result_st result;
    memcached_return_t status;
    bool found = false;
    ask(t, &handle, 1);
    memcached_result_create(t->connection, &result);
    while (memcached_fetch_result(t->connection, &result, &status)) {
        found = memcached_result_length(&result) == sizeof *record;
        if (found)
            memcpy(record, memcached_result_value(&result), sizeof *record);
        *cas = memcached_result_cas(&result);
    }
    memcached_result_free(&result);
    return found;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    struct table *t = table;
    struct key k = key_of('s', handle);
    struct record r;
    uint64_t cas;
    memcached_return_t result;
    do { /* another writer may be first */
        if (!fetch_for_change(t, handle, &r, &cas))
            return false;
        memcpy(r.metadata, value, SET_BYTES);
        result =
            memcached_cas(t->connection, k.text, k.length, (const char *)&r, sizeof r, 0, 0, cas);
    } while (result == MEMCACHED_DATA_EXISTS);
    return result == MEMCACHED_SUCCESS;
}

static bool insert(void *table, uint64_t handle, const struct record *record)
{
    return store(table, 's', handle, record, sizeof *record);
}

static bool erase(void *table, uint64_t handle)
{
    struct table *t = table;
    struct key k = key_of('s', handle);
    return memcached_delete(t->connection, k.text, k.length, 0) == MEMCACHED_SUCCESS;
}

/* ---------------------------------------------------------------- open, close ----------- */

static memcached_st *connect_to(const char *socket)
{
    memcached_st *c = memcached_create(NULL);
    if (!c || memcached_server_add_unix_socket(c, socket) != MEMCACHED_SUCCESS)
        bench_fail("libmemcached refuses %s", socket);
    memcached_behavior_set(c, MEMCACHED_BEHAVIOR_SUPPORT_CAS, 1);
    return c;
}

/* NULL: nobody listens. */
static FILE *dial(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        bench_fail("socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fdopen(fd, "r+");
    close(fd);
    return NULL;
}

/* A connection to it, as soon as it listens. */
static FILE *start_server(struct table *t, size_t sessions)
{
    char megabytes[24];
    snprintf(megabytes, sizeof megabytes, "%zu",
             sessions * BYTES_PER_SESSION / 1000000 + MEGABYTES_MORE);
    sandbox_path(t->socket, "memcached");
    const char *user = geteuid() == 0 ? "root" : NULL;
    const char *const argv[] = { "memcached", "-s", t->socket, "-t", "1", "-m", megabytes,
                                 user ? "-u" : NULL, user, NULL };
    t->server = sandbox_program(argv, "memcached.log");
    bench_unpin(t->server);
    uint64_t deadline = bench_clock() + PATIENCE_S * UINT64_C(1000000000);
    FILE *f;
    while (!(f = dial(t->socket))) {
        sandbox_must_live(t->server, "memcached.log");
        if (bench_clock() > deadline)
            bench_fail("memcached does not listen");
        bench_pause_us(10000);
    }
    return f;
}

static void write_store(FILE *f, struct key k, const void *value, size_t size)
{
    fprintf(f, "set %s 0 0 %zu noreply\r\n", k.text, size);
    fwrite(value, size, 1, f);
    fputs("\r\n", f);
}

/* In its own protocol, without an answer to each; the one at the end comes when all is done. */
static void fill(FILE *f, size_t sessions)
{
    char answer[64] = "";
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        struct record r = usual_record(handle);
        write_store(f, key_of('s', handle), &r, sizeof r);
        write_store(f, key_of('t', handle), &r.last_seen, sizeof r.last_seen);
    }
    fputs("version\r\n", f);
    fflush(f);
    if (!fgets(answer, sizeof answer, f) || strncmp(answer, "VERSION", 7) != 0)
        bench_fail("memcached did not take %zu sessions: %s", sessions, answer);
}

static void *open_table(size_t sessions)
{
    if (!sandbox_can_run("memcached"))
        return left_out("memcached", "there is no memcached (package memcached)");
    struct table *t = bench_memory(1, sizeof *t);
    FILE *f = start_server(t, sessions);
    fill(f, sessions);
    fclose(f);
    t->connection = connect_to(t->socket);
    return t;
}

static void *join(void *table)
{
    struct table *t = bench_memory(1, sizeof *t);
    *t = *(const struct table *)table;
    t->server = 0;
    t->connection = connect_to(t->socket);
    return t;
}

static void close_table(void *table)
{
    struct table *t = table;
    memcached_free(t->connection);
    if (t->server)
        sandbox_kill(t->server);
    free(t);
}

static uint64_t bytes(void *table)
{
    return sandbox_memory_of(((struct table *)table)->server);
}

LOOP(get_copy, each_copy, copy)
LOOP(get_miss, each_miss, view)
LOOP(get_dependent, each_dependent, view)
LOOP(get_batch, each_batch, batch)
LOOP(touches, each_touch, touch)
LOOP(sets, each_set, set)
LOOP(inserts, each_insert_remove, insert, erase)
LOOP(mix, each_mix, view, touch)

#define MEMCACHED_BUILT                                                                            \
    .open = open_table, .close = close_table, .join = join, .leave = close_table,                  \
    .read_back = read_back, .bytes = bytes,                                                        \
    .operations = {                                                                                \
        [OPERATION_COPY] = get_copy,                                                               \
        [OPERATION_MISS] = get_miss,                                                               \
        [OPERATION_DEPENDENT] = get_dependent,                                                     \
        [OPERATION_BATCH] = get_batch,                                                             \
        [OPERATION_TOUCH] = touches,                                                               \
        [OPERATION_SET] = sets,                                                                    \
        [OPERATION_INSERT_REMOVE] = inserts,                                                       \
        [OPERATION_MIX] = mix,                                                                     \
    }
#else
#define MEMCACHED_BUILT .missing = "libmemcached-dev"
#endif

const struct contender memcached_contender = {
    .name = "memcached",
    .scope = SCOPE_SERVER,
    .lacks = "every operation is a round trip to another process; whole values only: a change of one "
             "field is two round trips; evicts; can't be walked over; nothing is found by player; no "
             "persistence",
    .sessions_max = 1000000,
    .bytes_per_session = 700,
    MEMCACHED_BUILT,
};
