/*
 * The storm has paused: workers are dead and reaped, Redis and the persisters run, and nobody
 * changes anything.  Soon Redis must equal the table, what the dead held must be found, and all
 * must be what the books expect: every session once, every binding, every place in memory.
 */
#include "tests/storm/storm.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SESSIONS_MOST = 16384, PATIENCE_MS = 60000, STARVED_MS = 3000, OUTPUT = 1 << 16, LIMBO = 1024 };

static bool has_redis(void)
{
    return books->variant->options.mode == SESSTAB_SELECTIVE;
}

/* ---------------------------------------------------------------- sessions -------------- */

/* All sessions, as one walk found them. */
struct census {
    uint64_t handles[SESSIONS_MOST];
    unsigned count;
};

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void take_census(struct storm *s, struct census *census)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    int result;
    census->count = 0;
    while ((result = sesstab_next(s->table, &cursor, &view)) == SESSTAB_OK) {
        content_check(&view);
        check(census->count < SESSIONS_MOST);
        census->handles[census->count++] = view.handle;
        if (has_redis() && view.pending)
            fault(LOST, "session %llx is pending for ever", (unsigned long long)view.handle);
    }
    check_result(result, SESSTAB_NOTFOUND);
    qsort(census->handles, census->count, sizeof census->handles[0], by_number);
    for (unsigned i = 1; i < census->count; i++)
        if (census->handles[i] == census->handles[i - 1])
            fault(DUPLICATED, "session %llx stands in the table twice",
                  (unsigned long long)census->handles[i]);
}

struct search { const sesstab_view *wanted; unsigned found; };

static int find_wanted(const sesstab_view *view, void *context)
{
    struct search *search = context;
    search->found += view->handle == search->wanted->handle;
    if (strcmp(view->player, search->wanted->player) != 0)
        fault(DUPLICATED, "session %llx of \"%s\" found for player \"%s\"",
              (unsigned long long)view->handle, view->player, search->wanted->player);
    return 0;
}

/* Whoever is bound is found by player, once. */
static void check_players(struct storm *s, const struct census *census)
{
    for (unsigned i = 0; i < census->count; i++) {
        sesstab_view view = look(s->table, census->handles[i]);
        struct search search = { &view, 0 };
        if (!*view.player)
            continue;
        check_ok(sesstab_by_player(s->table, view.player, find_wanted, &search));
        if (search.found != 1)
            fault(search.found ? DUPLICATED : LOST, "session %llx is found %u times by \"%s\"",
                  (unsigned long long)view.handle, search.found, view.player);
    }
}

static unsigned settle_lanes(struct storm *s)
{
    unsigned count = 0;
    for (unsigned i = 0; i < books->seats * LANES; i++) {
        struct lane *lane = &books->seat[i / LANES].lanes[i % LANES];
        struct thread t;
        thread_init(&t, s->table, lane, NULL, 0);
        lane_take_over(&t);
        thread_done(&t);
        count += lane_sessions(lane);
    }
    return count;
}

/* Before a persister can have mended anything: that is what durable means. */
static void check_redis(struct storm *s)
{
    for (unsigned i = 0; i < books->seats * LANES; i++)
        lane_check_redis(&books->seat[i / LANES].lanes[i % LANES], &s->redis);
}

static unsigned settle_commons(struct storm *s)
{
    struct thread t;
    thread_init(&t, s->table, NULL, NULL, 1);
    commons_settle(&t);
    commons_walk(&t);
    thread_done(&t);
    return commons_sessions();
}

/* ---------------------------------------------------------------- memory ---------------- */

static int dump(const char *what, const char *more, char output[OUTPUT])
{
    const char *const argv[] = { program("shmdump"), what, books->name, more, NULL };
    return run_program(argv, output, OUTPUT);
}

/* Sessions of dead workers that can't be detached, because in a full table there is no block for them. */
static unsigned starved_sessions(void)
{
    sesstab *table;
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    unsigned starved = 0;
    check_ok(sesstab_open(books->name, NULL, &table));
    while (sesstab_next(table, &cursor, &view) == SESSTAB_OK)
        if (view.state != SESSTAB_DETACHED && !sesstab_owner_alive(table, view.owner))
            starved += sesstab_set_state(table, view.handle, SESSTAB_DETACHED, NULL) ==
                       SESSTAB_NOMEMORY;
    sesstab_pause(table, &cursor);
    sesstab_close(table);
    return starved;
}

/* The check complains of nothing but those. */
static bool is_starved(const char *output)
{
    const char *last = strrchr(output, ';');
    unsigned problems, starved = starved_sessions();
    return starved && last && sscanf(last, "; %u problems", &problems) == 1 && problems == starved;
}

/* Without a persister nobody looks for what the dead left before memory is short. */
static void check_table_strictly(void)
{
    static char output[OUTPUT];
    uint64_t limit = milliseconds() + PATIENCE_MS, starved_at = milliseconds() + STARVED_MS;
    int status;
    while ((status = dump("--check", has_redis() ? "--strict" : NULL, output)) != 0 &&
           milliseconds() < limit) {
        if (books->ballast != books->ballast_end && milliseconds() > starved_at && is_starved(output))
            return;
        pause_ms(20);
    }
    if (status != 0)
        fault(LEAKED, "shmdump --check exits %d:\n%s", status, output);
}

struct places { unsigned all, free, owned, live, retired; };

/* Sums the places of all lines of `shmdump --memory` that begin with KIND. */
static struct places places_of(const char *kind)
{
    static char output[OUTPUT];
    struct places sum = { 0, 0, 0, 0, 0 };
    check(dump("--memory", NULL, output) == 0);
    for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n")) {
        struct places p;
        char name[32], chunks[32]; /* of which some are counted elsewhere */
        if (strncmp(line, kind, strlen(kind)) != 0 ||
            sscanf(line, "%31s %31s %u %u %u %u %u", name, chunks, &p.all, &p.free, &p.owned,
                   &p.live, &p.retired) != 7)
            continue;
        sum = (struct places){ sum.all + p.all, sum.free + p.free, sum.owned + p.owned,
                               sum.live + p.live, sum.retired + p.retired };
    }
    return sum;
}

/* Each session has one slot and one block; besides that only what the living are about to free. */
static void check_places(const char *kind, unsigned sessions)
{
    struct places p = { 0, 0, 0, 0, 0 };
    uint64_t limit = milliseconds() + PATIENCE_MS;
    do {
        p = places_of(kind);
        if (p.owned == 0 && p.live == sessions && p.retired <= LIMBO)
            return;
        pause_ms(20);
    } while (milliseconds() < limit);
    fault(LEAKED, "%u sessions, but of %u %s %u are free, %u owned, %u live, %u retired", sessions,
          p.all, kind, p.free, p.owned, p.live, p.retired);
}

static void note_size(void)
{
    struct stat status;
    check(stat(object_path(books->name), &status) == 0);
    books->last_mib = (double)status.st_blocks / 2048;
    if (books->first_mib == 0)
        books->first_mib = books->last_mib;
}

/* ---------------------------------------------------------------- all of it ------------- */

void calm_check(struct storm *s)
{
    static struct census census;
    unsigned expected = books->ballast_end - books->ballast;
    expected += settle_lanes(s);
    if (has_redis()) {
        check_redis(s);
        killer_resume(s);
        wait_until_redis_equals(s->table, &s->redis);
        settle_lanes(s);
        check_redis(s);
    }
    expected += settle_commons(s);
    take_census(s, &census);
    if (census.count != expected)
        fault(census.count < expected ? LOST : DUPLICATED, "%u sessions are there, %u are expected",
              census.count, expected);
    check_players(s, &census);
    note_size();
    check_table_strictly();
    if (has_redis()) {
        check_places("slots", census.count);
        check_places("blocks", census.count);
    }
}

/* Takes all slots, for sessions that need no change when their owner has left. */
static void fill_slots(struct thread *t)
{
    int result = SESSTAB_OK;
    while (result == SESSTAB_OK) {
        uint64_t handle = BALLAST_HANDLE(books->ballast_end);
        result = content_insert(t, &handle, handle, 0);
        if (result == SESSTAB_OK)
            check_ok(sesstab_set_state(t->table, handle, SESSTAB_DETACHED, NULL));
        books->ballast_end += result == SESSTAB_OK;
    }
    check_result(result, SESSTAB_NOMEMORY);
}

/* Takes all blocks for larger records; what is still to be had is for small ones. */
static void fill_blocks(struct thread *t)
{
    static const char value[300];
    int result = SESSTAB_OK;
    for (unsigned k = books->ballast; k < books->ballast_end && result == SESSTAB_OK; k++)
        result = sesstab_set(t->table, BALLAST_HANDLE(k), "large", value, sizeof value);
    if (result != SESSTAB_NOMEMORY)
        check_ok(result);
}

/* By an attachment of its own, which frees all that it removed when it leaves. */
void calm_fill(unsigned room)
{
    struct thread t;
    sesstab *table;
    check_ok(sesstab_open(books->name, NULL, &table));
    thread_init(&t, table, NULL, NULL, 2);
    fill_slots(&t);
    fill_blocks(&t);
    for (; room; room--)
        check_ok(sesstab_remove(table, BALLAST_HANDLE(books->ballast++)));
    thread_done(&t);
    sesstab_close(table);
}

void calm_check_capacity(void)
{
    uint64_t limit = milliseconds() + PATIENCE_MS;
    struct places slots;
    do {
        calm_fill(0);
        slots = places_of("slots");
    } while (slots.free && milliseconds() < limit);
    if (slots.free)
        fault(LEAKED, "%u of %u slots are free, and nobody finds them", slots.free, slots.all);
}
