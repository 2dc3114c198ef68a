/*
 * The connection is cut at every byte of an exchange, in either direction: of a batch with one
 * binding, and of a connect.  Whatever arrived, the binding becomes durable, and is in Redis when
 * that is said.
 */
#include "tests/faults/faults.h"

#include <stdio.h>

enum { HANDLE = 1, PATIENCE_MS = 20000, HEARTBEAT = 100 };

struct cuts { struct scene *scene; unsigned long done, never, lost; uint32_t bound; };

static void bind_and_look(struct cuts *c, const char *where, unsigned direction, uint64_t at)
{
    struct scene *s = c->scene;
    char player[32];
    player_text(player, HANDLE, ++c->bound);
    int result = sesstab_bind(s->stage->table, HANDLE, player, PATIENCE_MS);
    if (result == SESSTAB_OK &&
        redis_field_is(s->redis, TEST_PREFIX ":conn:1", "PlayerRef", player))
        return;
    c->lost++;
    fprintf(stderr, "    LOST: %s cut at byte %llu of the %s: \"%s\", and %s in Redis\n", where,
            (unsigned long long)at, direction == REQUESTS ? "requests" : "replies",
            sesstab_strerror(result),
            redis_field_is(s->redis, TEST_PREFIX ":conn:1", "PlayerRef", player) ? "is" : "is not");
}

/* A persister that connects at once, whatever happened to the one before. */
static void start_anew(struct cuts *c)
{
    kill_child(c->scene->persister);
    scene_start_persister(c->scene);
}

static bool was_cut(struct cuts *c, uint64_t before)
{
    return c->scene->stage->proxy.injected > before;
}

/* How many bytes went by in both directions without a cut, until the binding was durable. */
static void measure(struct cuts *c, bool connect, uint64_t bytes[2])
{
    struct proxy *proxy = &c->scene->stage->proxy;
    if (!connect)
        bind_and_look(c, "nothing", REQUESTS, 0);
    proxy_order(proxy, (struct proxy_wish){ .mode = PASS });
    if (connect)
        start_anew(c);
    bind_and_look(c, "nothing", REQUESTS, 0);
    bytes[0] = proxy->passed[0];
    bytes[1] = proxy->passed[1];
}

static void cut_everywhere(struct cuts *c, bool connect, unsigned stride)
{
    const char *where = connect ? "a connect" : "a batch";
    struct proxy *proxy = &c->scene->stage->proxy;
    uint64_t bytes[2];
    measure(c, connect, bytes);
    for (unsigned d = 0; d < 2; d++)
        for (uint64_t at = 1; at <= bytes[d]; at += stride) {
            uint64_t before = proxy->injected;
            if (!connect) {
                start_anew(c);
                bind_and_look(c, "nothing", REQUESTS, 0);
            }
            proxy_order(proxy, (struct proxy_wish){ .mode = CUT, .directions = 1u << d, .at = at });
            if (connect)
                start_anew(c);
            bind_and_look(c, where, 1u << d, at);
            c->done++;
            c->never += !was_cut(c, before);
            if (c->done % HEARTBEAT == 0)
                fprintf(stderr, "  %s: byte %llu of %llu of the %s\n", where,
                        (unsigned long long)at, (unsigned long long)bytes[d],
                        d ? "replies" : "requests");
            alarm(HUNG_AFTER);
        }
}

bool cuts_run(unsigned stride)
{
    struct scene scene = { 0 };
    struct cuts c = { .scene = &scene };
    test_begin(NULL);
    scene_set_up(&scene);
    insert_plain(scene.stage->table, HANDLE);
    cut_everywhere(&c, false, stride);
    cut_everywhere(&c, true, stride);
    proxy_order(&scene.stage->proxy, (struct proxy_wish){ .mode = PASS });
    bool equal = judge_wait_equal(scene.stage, WAIT_LIMIT) &&
                 judge_asks_shmdump(scene.stage, scene.name);
    printf("\nevery byte: %lu cuts, %lu bindings lost, changes lost: %s; %lu times the exchange was "
           "over before the byte came.\n", c.done, c.lost, equal ? "0" : "some", c.never);
    return test_end(NULL) == 0 && equal && !c.lost && c.done > c.never;
}
