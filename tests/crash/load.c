/*
 * What the survivor does to the victim's session and to others, each call timed.  It expects of
 * every call what an undisturbed table would answer.
 */
#include "tests/crash/crash.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---------------------------------------------------------------- timed calls --------------- */

static uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* How long this thread has waited for a processor, all in all. */
static uint64_t waited(const struct load *l)
{
    char text[80] = "";
    unsigned long long run, wait = 0;
    if (l->schedstat < 0 || pread(l->schedstat, text, sizeof text - 1, 0) <= 0 ||
        sscanf(text, "%llu %llu", &run, &wait) != 2)
        return 0;
    return wait;
}

static void begin_call(struct load *l)
{
    l->waited = waited(l);
    l->began_at = nanoseconds();
}

static int end_call(struct load *l, int result)
{
    uint64_t took = nanoseconds() - l->began_at, wait = waited(l) - l->waited;
    uint64_t own = took > wait ? took - wait : 0;
    l->worst = took > l->worst ? took : l->worst;
    l->worst_own = own > l->worst_own ? own : l->worst_own;
    return result;
}
#define TIMED(call) (begin_call(l), end_call(l, (call)))

/* ---------------------------------------------------------------- the load ------------------ */

static int note_handle(const sesstab_view *view, void *context)
{
    uint64_t *wanted = context;
    if (*wanted == view->handle)
        *wanted = 0;
    return 0;
}

/* Is HANDLE among PLAYER's sessions? */
static bool found_by(struct load *l, const char *player, uint64_t handle)
{
    check_ok(TIMED(sesstab_by_player(l->w->table, player, note_handle, &handle)));
    return handle == 0;
}

static void expect_found(struct load *l, const sesstab_view *v, uint64_t handle)
{
    static const char *const players[] = { OLD_PLAYER, NEW_PLAYER, SURVIVOR_PLAYER };
    for (unsigned i = 0; i < 3; i++)
        check_equal(found_by(l, players[i], handle), v && strcmp(v->player, players[i]) == 0);
}

static void get(struct load *l, uint64_t handle, int expected)
{
    static char buffer[SESSTAB_RECORD_MAX];
    size_t size = sizeof buffer;
    sesstab_view v;
    check_result(TIMED(sesstab_get(l->w->table, handle, &v, buffer, &size)), expected);
}

/* Posts a binding and does not wait. */
static void bind_at_once(struct load *l, uint64_t handle, const char *player)
{
    bool final = shm_mode(&l->w->table->shm) == MODE_MEMORY;
    int result = TIMED(sesstab_bind(l->w->table, handle, player, 0));
    check_either(result, SESSTAB_OK, final ? SESSTAB_OK : SESSTAB_UNKNOWN);
}

void expect_kept(const sesstab_view *before, const sesstab_view *after)
{
    size_t at = 0;
    sesstab_pair pair;
    check_equal(after->generation, before->generation);
    check_equal(after->connected_at, before->connected_at);
    check_string(after->address, before->address);
    check_string(after->host, before->host);
    check_string(after->type, before->type);
    while (sesstab_metadata_next(before, &at, &pair, NULL) == SESSTAB_OK) {
        const void *value;
        size_t length;
        check_ok(sesstab_metadata(after, pair.key, &value, &length, NULL));
        check(strcmp(pair.key, "survivor") == 0 ||
              (length == pair.length && memcmp(value, pair.value, length) == 0));
    }
}

/* The session is there, as SEEN: it can be changed, and every change is there afterwards. */
static void use_session(struct load *l, const struct image *seen)
{
    sesstab *t = l->w->table;
    uint64_t handle = l->w->handle, same = handle, now = START_TIME + 1000 + l->round;
    sesstab_view before, after;
    struct image changed;
    image_view(seen, handle, &before);
    get(l, handle, SESSTAB_OK);
    expect_found(l, &before, handle);
    check_ok(TIMED(sesstab_touch(t, handle, now)));
    check_ok(TIMED(sesstab_set(t, handle, "survivor", &now, sizeof now)));
    bind_at_once(l, handle, SURVIVOR_PLAYER);
    check_result(TIMED(sesstab_insert(t, &same, NULL)), SESSTAB_EXISTS);
    image_take(&changed, t, handle);
    check(changed.present);
    image_view(&changed, handle, &after);
    expect_kept(&before, &after);
    expect_found(l, &after, handle);
    check_string(after.player, SURVIVOR_PLAYER);
    check_equal(after.state, SESSTAB_LOGGED_IN);
    check_equal(after.owner, sesstab_self(t));
    check_equal(changed.last_seen, now);
    check(memcmp(metadata_of(&after, "survivor"), &now, sizeof now) == 0);
}

/* It is not there: it can be inserted, used and removed. */
static void use_handle(struct load *l, uint64_t handle)
{
    sesstab *t = l->w->table;
    uint64_t mine = handle;
    get(l, handle, SESSTAB_NOTFOUND);
    check_result(TIMED(sesstab_touch(t, handle, 0)), SESSTAB_NOTFOUND);
    check_result(TIMED(sesstab_set(t, handle, "k", "v", 1)), SESSTAB_NOTFOUND);
    check_ok(TIMED(sesstab_insert(t, &mine, &(sesstab_info){ .connected_at = START_TIME })));
    check_ok(TIMED(sesstab_set(t, handle, "k", "v", 1)));
    bind_at_once(l, handle, SURVIVOR_PLAYER);
    check(found_by(l, SURVIVOR_PLAYER, handle));
    check_ok(TIMED(sesstab_remove(t, handle)));
    check(!found_by(l, SURVIVOR_PLAYER, handle));
    check_result(TIMED(sesstab_remove(t, handle)), SESSTAB_NOTFOUND);
}

/* Asking the clocks is dearer than a step: of a long walk only the beginning is timed. */
static int next(struct load *l, sesstab_cursor *cursor, sesstab_view *v, uint64_t count)
{
    enum { TIMED_STEPS = 50 };
    return count < TIMED_STEPS ? TIMED(sesstab_next(l->w->table, cursor, v))
                               : sesstab_next(l->w->table, cursor, v);
}

static void walk_all(struct load *l, bool present)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view v;
    uint64_t seen = 0, count = 0;
    int result;
    while ((result = next(l, &cursor, &v, count)) == SESSTAB_OK) {
        count++;
        if (v.handle <= OTHERS)
            seen ^= UINT64_C(1) << v.handle;
    }
    check_result(result, SESSTAB_NOTFOUND);
    check_equal(count, l->w->sessions + present);
    check_equal(seen, (UINT64_C(1) << (OTHERS + 1)) - 2);
}

/* A block of a class that nobody has used: the heap grows by a chunk. */
static void grow_heap(struct load *l)
{
    static char value[6000];
    uint64_t before = l->w->table->shm.header->committed;
    check_ok(TIMED(sesstab_set(l->w->table, NEIGHBOUR, "large", value, 3000 << l->round)));
    check_ok(TIMED(sesstab_delete(l->w->table, NEIGHBOUR, "large")));
    check(l->w->table->shm.header->committed > before);
}

void load_open(struct load *l, struct world *w)
{
    *l = (struct load){ .w = w };
    l->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
}

void load_run(struct load *l, struct image *seen)
{
    struct world *w = l->w;
    l->worst = l->worst_own = 0;
    image_take(seen, w->table, w->handle);
    if (seen->present) {
        use_session(l, seen);
    } else {
        expect_found(l, NULL, w->handle);
        use_handle(l, w->handle);
    }
    use_handle(l, NEWCOMER);
    check_ok(TIMED(sesstab_touch(w->table, NEIGHBOUR, 0)));
    check_ok(TIMED(sesstab_set(w->table, NEIGHBOUR, "survivor", "1", 1)));
    if (w->stops)
        grow_heap(l);
    walk_all(l, seen->present);
    l->round++;
}
