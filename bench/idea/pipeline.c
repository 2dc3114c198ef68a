/* Redis with hashes and a pipeline: 100 commands go out in one write, 100 answers come back. */
#include "bench/idea/hash.h"

typedef void append_fn(struct idea *idea, uint64_t handle);

static void append_all(struct idea *idea, append_fn *append, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        append(idea, handles[i]);
}

static void write_all(struct idea *idea, append_fn *append, const uint64_t *handles, size_t count)
{
    append_all(idea, append, handles, count);
    for (size_t i = 0; i < count; i++)
        take_written(idea);
}

static void get(struct idea *idea, const uint64_t *handles, size_t count)
{
    append_all(idea, append_get, handles, count);
    for (size_t i = 0; i < count; i++) {
        redisReply *hash = next_reply(idea->redis);
        check_session(idea, hash);
        freeReplyObject(hash);
    }
}

static void output(struct idea *idea, const uint64_t *handles, size_t count)
{
    append_all(idea, append_owner, handles, count);
    for (size_t i = 0; i < count; i++) {
        redisReply *owner = next_reply(idea->redis);
        deliver_owned(idea, handles[i], owner);
        freeReplyObject(owner);
    }
}

static void update(struct idea *idea, const uint64_t *handles, size_t count)
{
    write_all(idea, append_update, handles, count);
}

static void touch(struct idea *idea, const uint64_t *handles, size_t count)
{
    write_all(idea, append_touch, handles, count);
}

/* All of it in one write; what get read tells where the output goes. */
static void serve(struct idea *idea, const uint64_t *handles, size_t count)
{
    append_all(idea, append_get, handles, count);
    append_all(idea, append_touch, handles, count);
    for (size_t i = 0; i < count; i++) {
        redisReply *hash = next_reply(idea->redis);
        check_session(idea, hash);
        deliver_session(idea, handles[i], hash);
        freeReplyObject(hash);
    }
    for (size_t i = 0; i < count; i++)
        take_written(idea);
}

static void broadcast(struct idea *idea, const uint64_t *handles, size_t count)
{
    uint64_t listed[PLAYERS];
    redisReply *members = ask_members(idea, count);
    (void)handles;
    for (size_t i = 0; i < count; i++)
        listed[i] = member(members, i);
    freeReplyObject(members);
    output(idea, listed, count);
}

const struct contender pipeline_contender = {
    .name = "redis-pipe",
    .legend = "the same hashes, 100 commands in flight: for a server that can gather so many",
    .operations = {
        [OPERATION_GET] = { get, PLAYERS },
        [OPERATION_OUTPUT] = { output, PLAYERS },
        [OPERATION_UPDATE] = { update, PLAYERS },
        [OPERATION_TOUCH] = { touch, PLAYERS },
        [OPERATION_ROUND] = { serve, 1 },
        [OPERATION_BROADCAST] = { broadcast, 1 },
    },
};
