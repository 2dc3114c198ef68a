/* The table, with the persister carrying every change to Redis meanwhile. */
#include "bench/idea/idea.h"

#include "bench/bench.h"

#include <inttypes.h>
#include <string.h>

static void find(struct idea *idea, uint64_t handle, sesstab_view *view)
{
    must(sesstab_read_begin(idea->stage.table), "read_begin");
    must(sesstab_find(idea->stage.table, handle, view), "find");
    found(idea, view->player);
}

static void get(struct idea *idea, const uint64_t *handles, size_t count)
{
    sesstab_view view;
    for (size_t i = 0; i < count; i++) {
        find(idea, handles[i], &view);
        sesstab_read_end(idea->stage.table);
    }
}

/* It goes where the owner has the socket, and we own all of them. */
static void deliver_view(struct idea *idea, const sesstab_view *view)
{
    if (view->owner != sesstab_self(idea->stage.table))
        bench_fail("session %" PRIu64 " is not ours", view->handle);
    deliver(idea, view->handle);
}

static void output(struct idea *idea, const uint64_t *handles, size_t count)
{
    sesstab_view view;
    for (size_t i = 0; i < count; i++) {
        find(idea, handles[i], &view);
        deliver_view(idea, &view);
        sesstab_read_end(idea->stage.table);
    }
}

static void update(struct idea *idea, const uint64_t *handles, size_t count)
{
    char client[24];
    for (size_t i = 0; i < count; i++) {
        int length = snprintf(client, sizeof client, "%016" PRIx64, ++idea->serial);
        must(sesstab_set(idea->stage.table, handles[i], "client", client, (size_t)length), "set");
    }
}

static void touch(struct idea *idea, const uint64_t *handles, size_t count)
{
    for (size_t i = 0; i < count; i++)
        must(sesstab_touch(idea->stage.table, handles[i], 0), "touch");
}

static void login(struct idea *idea, const uint64_t *handles, size_t count)
{
    char player[24];
    for (size_t i = 0; i < count; i++) {
        snprintf(player, sizeof player, "#%" PRIu64, ++idea->serial);
        must(sesstab_bind(idea->stage.table, handles[i], player, DEADLINE_MS), "bind");
    }
}

static void serve(struct idea *idea, const uint64_t *handles, size_t count)
{
    sesstab_view view;
    for (size_t i = 0; i < count; i++) {
        find(idea, handles[i], &view);
        must(sesstab_touch(idea->stage.table, handles[i], 0), "touch");
        deliver_view(idea, &view);
        sesstab_read_end(idea->stage.table);
    }
}

static void broadcast(struct idea *idea, const uint64_t *handles, size_t count)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    size_t seen = 0;
    (void)handles;
    for (; sesstab_next(idea->stage.table, &cursor, &view) == SESSTAB_OK; seen++)
        deliver_view(idea, &view);
    if (seen != count)
        bench_fail("a walk saw %zu sessions instead of %zu", seen, count);
}

const struct contender sesstab_contender = {
    .name = "sesstab",
    .legend = "this process and the table; a persister writes to the same Redis meanwhile",
    .operations = {
        [OPERATION_GET] = { get, 16 },
        [OPERATION_OUTPUT] = { output, 16 },
        [OPERATION_UPDATE] = { update, 16 },
        [OPERATION_TOUCH] = { touch, 16 },
        [OPERATION_LOGIN] = { login, 1 },
        [OPERATION_ROUND] = { serve, 1 },
        [OPERATION_BROADCAST] = { broadcast, 1 },
    },
};
