/*
 * Redis with scripts (EVALSHA): what takes several commands is one round trip, and nothing comes
 * between them.  The update is of the JSON string of redis-json, everything else of the hashes.
 */
#include "bench/idea/hash.h"

#include "bench/bench.h"

#include <inttypes.h>
#include <stdlib.h>

enum script { READ_AND_TOUCH, UPDATE_JSON, LOGIN, OWNERS, SCRIPTS };

static const char *const sources[SCRIPTS] = {
    [READ_AND_TOUCH] = "local all = {} "
                       "for i, key in ipairs(KEYS) do "
                       "  redis.call('HSET', key, 'LastSeen', ARGV[1]) "
                       "  all[i] = redis.call('HGETALL', key) "
                       "end "
                       "return all",
    [UPDATE_JSON] = "local s = cjson.decode(redis.call('GET', KEYS[1])) "
                    "s.Metadata[ARGV[1]] = ARGV[2] "
                    "return redis.call('SET', KEYS[1], cjson.encode(s))",
    [LOGIN] = "redis.call('HSET', KEYS[1], 'PlayerRef', ARGV[1], 'State', 'logged-in', 'Owner', "
              "ARGV[2]) "
              "return redis.call('HGETALL', KEYS[1])",
    [OWNERS] = "local all = {} "
               "for i, handle in ipairs(redis.call('SMEMBERS', KEYS[1])) do "
               "  all[2 * i - 1] = handle "
               "  all[2 * i] = redis.call('HGET', 'hash:conn:' .. handle, 'Owner') "
               "end "
               "return all",
};

static char shas[SCRIPTS][48];

static void load_scripts(struct idea *idea)
{
    for (size_t i = 0; i < SCRIPTS; i++) {
        redisReply *reply = ask_redis(idea->redis, "SCRIPT LOAD %s", sources[i]);
        snprintf(shas[i], sizeof shas[i], "%s", reply->str);
        freeReplyObject(reply);
    }
}

/* Read and touch, for all of HANDLES in one call; the caller's to free. */
static redisReply *read_and_touch(struct idea *idea, const uint64_t *handles, size_t count)
{
    char keys[PLAYERS][48], number[8], seen[32];
    const char *words[PLAYERS + 4] = { "EVALSHA", shas[READ_AND_TOUCH], number };
    snprintf(number, sizeof number, "%zu", count);
    snprintf(seen, sizeof seen, "2023-11-14T22:13:20.%03uZ", (unsigned)(++idea->serial % 1000));
    for (size_t i = 0; i < count; i++) {
        snprintf(keys[i], sizeof keys[i], "hash:conn:%" PRIu64, handles[i]);
        words[3 + i] = keys[i];
    }
    words[3 + count] = seen;
    redisAppendCommandArgv(idea->redis, (int)count + 4, words, NULL);
    redisReply *all = next_reply(idea->redis);
    if (all->elements != count)
        bench_fail("a script returned %zu sessions instead of %zu", all->elements, count);
    return all;
}

static void get(struct idea *idea, const uint64_t *handles, size_t count)
{
    redisReply *all = read_and_touch(idea, handles, count);
    for (size_t i = 0; i < count; i++)
        check_session(idea, all->element[i]);
    freeReplyObject(all);
}

static void serve(struct idea *idea, const uint64_t *handles, size_t count)
{
    redisReply *all = read_and_touch(idea, handles, count);
    for (size_t i = 0; i < count; i++) {
        check_session(idea, all->element[i]);
        deliver_session(idea, handles[i], all->element[i]);
    }
    freeReplyObject(all);
}

static void update(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        freeReplyObject(ask_redis(idea->redis, "EVALSHA %s 1 json:conn:%llu client %016llx",
                                  shas[UPDATE_JSON], (unsigned long long)handles[i],
                                  (unsigned long long)++idea->serial));
}

static void login(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        redisReply *hash = ask_redis(idea->redis, "EVALSHA %s 1 hash:conn:%llu #%llu %s",
                                     shas[LOGIN], (unsigned long long)handles[i],
                                     (unsigned long long)++idea->serial, idea->self);
        check_session(idea, hash);
        freeReplyObject(hash);
    }
}

static void broadcast(struct idea *idea, const uint64_t *handles, size_t count)
{
    redisReply *all = ask_redis(idea->redis, "EVALSHA %s 1 hash:active", shas[OWNERS]);
    (void)handles;
    if (all->elements != 2 * count)
        bench_fail("a script returned %zu owners instead of %zu", all->elements / 2, count);
    for (size_t i = 0; i < count; i++)
        deliver_owned(idea, member(all, 2 * i), all->element[2 * i + 1]);
    freeReplyObject(all);
}

const struct contender lua_contender = {
    .name = "redis-lua",
    .legend = "scripts: get touches too; the round is one call for all 100; update is of the JSON",
    .fill = load_scripts,
    .operations = {
        [OPERATION_GET] = { get, 1 },
        [OPERATION_UPDATE] = { update, 1 },
        [OPERATION_LOGIN] = { login, 1 },
        [OPERATION_ROUND] = { serve, 1 },
        [OPERATION_BROADCAST] = { broadcast, 1 },
    },
};
