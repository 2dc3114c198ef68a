/*
 * Whatever answers where Redis should: the input is what comes back, and the persister's own code asks,
 * on the sound segment of image.h.  Each call ends, reads nothing that is not there, and no reply takes
 * more memory than R4 (persister_redis.h) allows.
 *
 *   | what is asked | how | what comes back |
 *
 * What comes back is sent when a connection is made, and then its other end is closed for writing.
 * Most of it is taken as it is; so that inputs get far, some bytes stand for what they could not know:
 *
 *   1 n     the n-th token of this process, as a string     2      the segment's epoch, as a string
 *   3 n ... a string of n bytes                             4 n v  a transaction of n commands, each
 *   5       the end of this connection; the rest is for            answered by :v, without what ECHO
 *           the next one                                           brings back, and what follows
 *
 * tests/fuzz/reply_seeds has what a Redis 7.0 answers to each question, written like that, so that there
 * is something to change: sessions, pages, transactions, refusals of every kind, one end each.
 */
#include "tests/fuzz/image.h"

#include "lib/store.h"
#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_batch.h"
#include "tools/persister_compare.h"
#include "tools/persister_health.h"
#include "tools/persister_import.h"
#include "tools/persister_lead.h"
#include "tools/persister_load.h"
#include "tools/persister_renew.h"
#include "tools/persister_server.h"

#include <inttypes.h>
#include <sanitizer/allocator_interface.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    STREAM_BYTES = 1 << 16,
    REPLY_BYTES = 16 << 20, /* as in persister_redis.c */
    ROOM = 8,               /* sessions in a batch     */
    TIMEOUT_MS = 50,
    CONNECTIONS = 3         /* that one input makes: there is a pause before each */
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
redisContext *__real_redisConnectUnixWithTimeout(const char *path, struct timeval limit);
redisContext *__wrap_redisConnectUnixWithTimeout(const char *path, struct timeval limit);
ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags);

static struct input input;
static atomic_uint connections;
static int other_end = -1;
static bool asking;
static struct redis_address address;
static struct settings settings;

/* Tokens are the same in each run. */
ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags)
{
    (void)flags;
    memset(to, 7, size);
    return (ssize_t)size;
}

/* R4 */
static void judge_size(const volatile void *at, size_t size)
{
    if (asking && at && size > REPLY_BYTES)
        abort();
}

static void nothing(const volatile void *at)
{
    (void)at;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    image_build();
    redis_parse_address("unix:/there/is/none", &address);
    log_set_level(LEVEL_DEBUG);
    health_step();
    settings = (struct settings){
        .table = image_name(), .address = address, .prefix = "p", .flush_interval_ms = 1,
        .batch = ROOM, .timeout_ms = TIMEOUT_MS, .ttl = 60,
        .login = { .user = "user", .password = "password", .database = 1 },
    };
    __sanitizer_install_malloc_and_free_hooks(judge_size, nothing);
    return 0;
}

/* ---------------------------------------------------------------- the other end ------------- */

struct stream {
    uint8_t bytes[STREAM_BYTES];
    size_t length;
};

static void put(struct stream *stream, const void *bytes, size_t length)
{
    if (length > STREAM_BYTES - stream->length)
        return;
    memcpy(stream->bytes + stream->length, bytes, length);
    stream->length += length;
}

static void put_string(struct stream *stream, const void *bytes, size_t length)
{
    char head[24];
    put(stream, head, (size_t)snprintf(head, sizeof head, "$%zu\r\n", length));
    put(stream, bytes, length);
    put(stream, "\r\n", 2);
}

static void put_token(struct stream *stream, unsigned number)
{
    struct fence fence;
    char text[TOKEN_BYTES + 16];
    fence_init(&fence, NULL, settings.prefix, image_table()->shm.header->creation_id);
    snprintf(text, sizeof text, "%s%u", fence.process, number);
    put_string(stream, text, strlen(text));
}

static void put_epoch(struct stream *stream)
{
    const struct header *h = image_table()->shm.header;
    char text[TOKEN_BYTES];
    snprintf(text, sizeof text, "%016" PRIx64 ".%" PRIu32, h->creation_id,
             (uint32_t)load_relaxed(&h->incarnation));
    put_string(stream, text, strlen(text));
}

static void put_transaction(struct stream *stream, size_t commands, char value)
{
    char head[24], number[] = { ':', value, '\r', '\n' };
    put(stream, "+OK\r\n", 5);
    for (size_t i = 0; i <= commands; i++)
        put(stream, "+QUEUED\r\n", 9);
    put(stream, head, (size_t)snprintf(head, sizeof head, "*%zu\r\n", commands + 1));
    for (size_t i = 0; i < commands; i++)
        put(stream, number, sizeof number);
}

static void put_piece(struct stream *stream, uint8_t byte)
{
    size_t n = byte == 1 || byte == 3 || byte == 4 ? input_byte(&input) : 0;
    char value = byte == 4 ? (char)input_byte(&input) : 0;
    switch (byte) {
    case 1: put_token(stream, (unsigned)n); break;
    case 2: put_epoch(stream); break;
    case 3:
        n = n < input.left ? n : input.left;
        put_string(stream, input.at, n);
        input.at += n;
        input.left -= n;
        break;
    case 4: put_transaction(stream, n, value); break;
    default: put(stream, &byte, 1); break;
    }
}

/* Until the end of this connection's part. */
static void fill(struct stream *stream)
{
    stream->length = 0;
    while (input.left) {
        uint8_t byte = input_byte(&input);
        if (byte == 5)
            return;
        put_piece(stream, byte);
    }
}

static void hang_up(void)
{
    if (other_end >= 0)
        close(other_end);
    other_end = -1;
}

redisContext *__wrap_redisConnectUnixWithTimeout(const char *path, struct timeval limit)
{
    static struct stream stream;
    int ends[2], room = 1 << 20;
    hang_up();
    if (!input.left || connections >= CONNECTIONS ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
        stop_by(monotonic_ms()); /* for lead(), which would try for ever */
        connections++;
        return __real_redisConnectUnixWithTimeout(path, limit);
    }
    fill(&stream);
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (write(ends[1], stream.bytes, stream.length) != (ssize_t)stream.length)
        abort();
    shutdown(ends[1], SHUT_WR);
    other_end = ends[1];
    connections++;
    return redisConnectFd(ends[0]);
}

/* ---------------------------------------------------------------- what is asked ------------- */

struct asker {
    struct store *store;
    struct redis redis;
    struct fence fence;
    struct batch batch;
    struct compare compare;
    struct renew renew;
};

/* As if the lead had been taken, with the first token. */
static void pretend_lead(struct fence *fence)
{
    snprintf(fence->token, sizeof fence->token, "%s%u", fence->process, ++fence->takes);
    memcpy(fence->holder, fence->token, sizeof fence->holder);
    fence->confirmed = true;
}

static void ask_server(struct asker *a)
{
    struct server server;
    if (!redis_connect(&a->redis, &address, &settings.login) || !server_ask(&a->redis, &server))
        return;
    server_worth(&server);
    server_evicts(&server);
    server_is_same(&a->redis, &server);
    server_look(&a->redis, &server);
}

/* R1: also when the connection was dropped, each is still asked. */
static void ask_fence(struct asker *a, uint8_t how)
{
    uint64_t creation;
    uint32_t incarnation = 0;
    a->fence.replicas = how & 1;
    fence_look(&a->fence);
    fence_holder(&a->fence);
    fence_holder_reads(&a->fence);
    fence_holder_alive(&a->fence);
    fence_epoch_names(&a->fence, &creation, &incarnation);
    fence_take(&a->fence);
    fence_set_epoch(&a->fence, incarnation);
    fence_check(&a->fence);
    fence_epoch(&a->fence, incarnation);
    fence_confirm(&a->fence);
    fence_leave(&a->fence);
}

static void ask_load(struct asker *a)
{
    struct load load = { .store = a->store, .redis = &a->redis, .prefix = settings.prefix };
    load_run(&load);
    store_set_ready(a->store, load.max_generation, load.max_handle);
}

static void ask_compare(struct asker *a, uint8_t how)
{
    a->compare.policy = how & 1 ? POLICY_REDIS : POLICY_TABLE;
    if (how & 2)
        compare_thoroughly(&a->compare, &a->batch);
    else
        compare_start(&a->compare, &a->batch, false);
    if (how & 4)
        a->compare.cursor = sesstab_part(127, 128); /* nothing of the table */
    while (compare_running(&a->compare) && compare_slice(&a->compare) == COMMITTED)
        ;
    compare_stop(&a->compare);
}

static void ask_renew(struct asker *a)
{
    renew_start(&a->renew, &a->batch, &a->compare);
    while (renew_due(&a->renew) && a->renew.first && renew_slice(&a->renew) == COMMITTED)
        ;
    renew_stop(&a->renew);
    compare_stop(&a->compare);
}

static void ask_batch(struct asker *a, uint8_t how)
{
    uint64_t handles[] = { 1, UINT64_MAX };
    size_t taken, kept;
    a->fence.replicas = how & 1;
    a->batch.ttl = how & 2 ? 60 : 0;
    if (how & 4)
        store_lost(a->store);
    if (how & 8)
        batch_remove(&a->batch, handles, 2);
    for (int i = 0; i < 4 && redis_connected(&a->redis); i++) {
        if (!(how & 16) || i % 2)
            batch_write_tickets(&a->batch, 1 + how % 3);
        if (how & 16)
            batch_write(&a->batch, ROOM, &taken, &kept);
        quarantine_release(&a->batch.quarantine);
        round_begin(&a->batch.round);
    }
}

static void ask_sentinel(void)
{
    struct sentinels sentinels = { .addresses = { address }, .count = 1, .master = "master" };
    struct redis_address master;
    struct sentinel *sentinel = sentinel_start(&sentinels);
    while (sentinel && !atomic_load(&connections))
        usleep(50);
    if (sentinel)
        sentinel_master(sentinel, &master);
    sentinel_stop(sentinel);
}

static void ask_import(uint8_t how)
{
    struct settings import = settings;
    import.table = "/sesstab-fuzz-none";
    import.import_from = "old";
    import.dry_run = how & 1;
    if (how & 2)
        import.login = (struct redis_login){ 0 };
    import_run(&import);
}

static void ask_all(struct asker *a, uint8_t how)
{
    struct settings leading = settings;
    leading.login = (struct redis_login){ 0 };
    leading.policy = how & 1 ? POLICY_REDIS : POLICY_TABLE;
    leading.reconcile = how & 2;
    leading.ack = (struct ack_wish){ .kind = how >> 2 & 3, .replicas = (how >> 2 & 3) == ACK_REPLICAS };
    if (leading.ack.kind > ACK_REPLICAS)
        leading.ack.kind = ACK_MEMORY;
    if (how & 16)
        store_set_ready(a->store, 20, 20);
    lead(&leading, image_table(), a->store, NULL, NULL);
}

/* ---------------------------------------------------------------- one input ----------------- */

/* Redis has these, and they are durable. */
static void load(struct store *store, uint64_t handle)
{
    const sesstab_pair pair = { "width", "132x43", 6 };
    store_load(store, &(struct store_record){
        .handle = handle, .generation = 9, .version = 3, .connected_at = 1700000000000,
        .last_seen = 1700000000000, .state = SESSTAB_DETACHED, .player = "wizard",
        .address = "192.0.2.7", .host = "host", .type = "telnet", .metadata = &pair,
        .metadata_count = 1 });
}

static bool prepare(struct asker *a)
{
    *a = (struct asker){ .store = store_open(image_table()), .redis = { .timeout_ms = TIMEOUT_MS } };
    fence_init(&a->fence, &a->redis, settings.prefix, image_table()->shm.header->creation_id);
    if (!a->store || !store_lead(a->store))
        return false;
    for (uint64_t handle = 16; handle < 19; handle++)
        load(a->store, handle);
    return batch_init(&a->batch, image_table(), a->store, &a->fence, settings.prefix, ROOM, 60);
}

static void connect_as_leader(struct asker *a)
{
    const struct redis_login nobody = { 0 };
    redis_connect(&a->redis, &address, &nobody);
    pretend_lead(&a->fence);
}

static void ask(struct asker *a, uint8_t what, uint8_t how)
{
    const struct redis_login nobody = { 0 };
    if (what >= '3' && what <= '6')
        connect_as_leader(a);
    switch (what) {
    case '0': ask_server(a); break;
    case '1': redis_connect(&a->redis, &address, &nobody); ask_fence(a, how); break;
    case '2': redis_connect(&a->redis, &address, &nobody); ask_load(a); break;
    case '3': ask_compare(a, how); break;
    case '4': ask_renew(a); break;
    case '5': case '6': ask_batch(a, how); break;
    case '7': ask_sentinel(); break;
    case '8': ask_import(how); break;
    case '9': ask_all(a, how); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct asker asker;
    if (size < 2 || data[0] < '0' || data[0] > '9')
        return -1;
    input = (struct input){ data + 2, size - 2 };
    connections = 0;
    if (!prepare(&asker))
        abort();
    asking = true;
    ask(&asker, data[0], data[1]);
    asking = false;
    stop_by(0);
    hang_up();
    redis_free(&asker.redis);
    batch_free(&asker.batch);
    store_close(asker.store);
    image_reset();
    return 0;
}
