#include "bench/persist/direct.h"

#include "bench/bench.h"

#include <inttypes.h>

enum { NUMBER_BYTES = 24, KEY_BYTES = 64 };

static void append(redisContext *connection, const char **words, size_t count)
{
    if (redisAppendCommandArgv(connection, (int)count, words, NULL) != REDIS_OK)
        bench_fail("out of memory");
}

#define APPEND(connection, ...)                                                                    \
    append((connection), (const char *[]){ __VA_ARGS__ },                                          \
           sizeof(const char *[]){ __VA_ARGS__ } / sizeof(const char *))

static void record_key(char key[KEY_BYTES], uint64_t handle)
{
    snprintf(key, KEY_BYTES, "direct:conn:%" PRIu64, handle);
}

static void metadata_key(char key[KEY_BYTES], uint64_t handle)
{
    snprintf(key, KEY_BYTES, "direct:conn:%" PRIu64 ":metadata", handle);
}

unsigned direct_login(redisContext *connection, uint64_t handle, const char *player)
{
    char key[KEY_BYTES], name[NUMBER_BYTES];
    record_key(key, handle);
    snprintf(name, sizeof name, "%" PRIu64, handle);
    APPEND(connection, "HSET", key, "Handle", name, "Generation", "1700000000001", "PlayerRef",
           player, "State", "logged-in", "IpAddress", usual_info.address, "Hostname",
           usual_info.host, "ConnectionType", usual_info.type, "ConnectedAt",
           "2023-11-14T22:13:20.000Z", "LastSeen", "2023-11-14T22:13:20.000Z", "Owner", "1.1",
           "Version", "17");
    return 1;
}

unsigned direct_record(redisContext *connection, uint64_t handle, uint64_t serial)
{
    char key[KEY_BYTES], player[PLAYER_BYTES], client[NUMBER_BYTES];
    player_of(handle, player);
    direct_login(connection, handle, player);
    metadata_key(key, handle);
    snprintf(client, sizeof client, "%016" PRIx64, serial);
    APPEND(connection, "HSET", key, "width", "132x43", "term", "xterm-256color", "client", client);
    return 2;
}

/* Times differ by the millisecond, as they do in use. */
unsigned direct_touch(redisContext *connection, uint64_t handle, uint64_t serial)
{
    char key[KEY_BYTES], seen[32];
    record_key(key, handle);
    snprintf(seen, sizeof seen, "2023-11-14T22:13:20.%03uZ", (unsigned)(serial % 1000));
    APPEND(connection, "HSET", key, "LastSeen", seen);
    return 1;
}

unsigned direct_load(redisContext *connection, uint64_t handle, uint64_t unused)
{
    char key[KEY_BYTES];
    (void)unused;
    record_key(key, handle);
    APPEND(connection, "HGETALL", key);
    metadata_key(key, handle);
    APPEND(connection, "HGETALL", key);
    return 2;
}

double direct_drain(redisContext *connection, direct_fn *change, size_t sessions, unsigned depth)
{
    static uint64_t serial;
    uint64_t start = bench_clock();
    size_t waiting = 0;
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        waiting += change(connection, handle, ++serial);
        if (handle % depth == 0 || handle == sessions)
            drop_replies(connection, &waiting);
    }
    return (double)(bench_clock() - start) / 1e9;
}
