/*
 * Sessions that everybody changes at once.  None can know what they hold, but all know bounds:
 *
 *   steady   inserted and bound before the storm, by the process that is not killed; never removed.
 *            A counter for increments and one for compare-and-set: each is at least what was
 *            answered, at most what was started.  Every walk sees each of them once, and so does
 *            every look by player.
 *   churn    inserted, revived, changed and removed by everybody.  What is there is, for each
 *            handle, inserts less removals, within the same bounds; and each record is whole.
 */
#include "tests/storm/storm.h"

#include <stdio.h>
#include <string.h>

enum {
    SEEN = 16384,       /* places of a set; a table has at most half as many sessions            */
    LINGER_US = 5000    /* in a read section                                                     */
};

/* When nobody changes it any more. */
static uint64_t most(struct balance *b)
{
    return b->started - b->failed;
}

static void clear(struct balance *b)
{
    b->started = b->done = b->failed = 0;
}

/* Counts the answer: RESULT is OK, or WHEN, which means that nothing was done. */
static void account(struct balance *b, const char *what, uint64_t handle, int result, int when)
{
    if (result == when)
        b->failed++;
    else if (succeeded(what, handle, result))
        b->done++;
    else
        b->failed++;
}

/* ---------------------------------------------------------------- changing -------------- */

static void insert(struct thread *t, uint64_t handle, struct churn *c)
{
    c->inserts.started++;
    int result = content_insert(t, &handle, handle, 1 + (uint32_t)roll(&t->dice, 1000));
    account(&c->inserts, "insert", handle, result, SESSTAB_EXISTS);
}

static void remove_one(struct thread *t, uint64_t handle, struct churn *c)
{
    c->removes.started++;
    int result = TIMED(t, "remove", 0, sesstab_remove(t->table, handle));
    account(&c->removes, "remove", handle, result, SESSTAB_NOTFOUND);
}

static void bind_one(struct thread *t, uint64_t handle)
{
    char player[16];
    int timeout = roll(&t->dice, 4) ? 0 : (int)roll(&t->dice, 60);
    snprintf(player, sizeof player, "p%u", (unsigned)(handle % PLAYERS));
    int result = roll(&t->dice, 3)
        ? TIMED(t, "bind", timeout, sesstab_bind(t->table, handle, player, timeout))
        : TIMED(t, "unbind", timeout, sesstab_unbind(t->table, handle, timeout));
    if (result != SESSTAB_NOTFOUND && result != SESSTAB_UNKNOWN && result != SESSTAB_REFUSED)
        succeeded("bind", handle, result);
}

static int change(struct thread *t, uint64_t handle)
{
    char value[VALUE_MAX];
    size_t length;
    switch (roll(&t->dice, 4)) {
    case 0: return TIMED(t, "touch", 0, sesstab_touch(t->table, handle, 0));
    case 1:
        return TIMED(t, "state", 0, sesstab_set_state(t->table, handle, SESSTAB_DETACHED, NULL));
    case 2: return TIMED(t, "increment", 0, sesstab_increment(t->table, handle, "n", 1, NULL));
    default:
        length = content_value(value, handle, 1 + (uint32_t)roll(&t->dice, 1000));
        return TIMED(t, "set", 0, sesstab_set(t->table, handle, "v", value, length));
    }
}

void commons_change(struct thread *t)
{
    unsigned k = (unsigned)roll(&t->dice, CHURN);
    uint64_t handle = CHURN_HANDLE(k), choice = roll(&t->dice, 10);
    if (choice < 3) {
        insert(t, handle, &books->commons.churn[k]);
    } else if (choice < 5) {
        remove_one(t, handle, &books->commons.churn[k]);
    } else if (choice < 6) {
        bind_one(t, handle);
    } else {
        int result = change(t, handle);
        if (result != SESSTAB_NOTFOUND)
            succeeded("change", handle, result);
    }
}

static int swap(struct thread *t, uint64_t handle)
{
    char buffer[SESSTAB_RECORD_MAX];
    const void *value;
    uint64_t version = 0, number = 0;
    size_t size = sizeof buffer;
    sesstab_view view;
    int result = TIMED(t, "get", 0, sesstab_get(t->table, handle, &view, buffer, &size));
    if (result != SESSTAB_OK)
        return result;
    if (sesstab_metadata(&view, "c", &value, NULL, &version) == SESSTAB_OK)
        number = strtoull(value, NULL, 10);
    int length = snprintf(buffer, 24, "%llu", (unsigned long long)number + 1);
    return TIMED(t, "compare-and-set", 0, sesstab_compare_and_set(t->table, handle, "c", version,
                                                         buffer, (size_t)length, NULL));
}

void commons_count(struct thread *t)
{
    unsigned k = (unsigned)roll(&t->dice, STEADY);
    struct steady *s = &books->commons.steady[k];
    uint64_t handle = STEADY_HANDLE(k);
    if (roll(&t->dice, 2)) {
        s->increments.started++;
        account(&s->increments, "increment", handle,
                TIMED(t, "increment", 0, sesstab_increment(t->table, handle, "n", 1, NULL)),
                SESSTAB_CONFLICT);
    } else {
        s->swaps.started++;
        account(&s->swaps, "compare-and-set", handle, swap(t, handle), SESSTAB_CONFLICT);
    }
}

/* ---------------------------------------------------------------- reading --------------- */

static uint64_t number_under(const sesstab_view *view, const char *key)
{
    const char *text = metadata_of(view, key);
    return text ? strtoull(text, NULL, 10) : 0;
}

static void check_steady(const sesstab_view *view)
{
    if (view->state != SESSTAB_LOGGED_IN || strcmp(view->player, "steady") != 0)
        fault(LOST, "steady session %llx is %s, bound to \"%s\"", (unsigned long long)view->handle,
              sesstab_state_name(view->state), view->player);
}

static void check_view(const sesstab_view *view)
{
    content_check(view);
    if (view->handle >= STEADY_HANDLE(0) && view->handle < STEADY_HANDLE(STEADY))
        check_steady(view);
}

/* What was known of a counter before it was read. */
struct known { uint64_t done, failed; };

static struct known known(struct balance *b)
{
    return (struct known){ b->done, b->failed };
}

/* The counter stood at BASE when B was cleared. */
static void check_counter(const char *what, uint64_t n, uint64_t base, struct known before,
                          struct balance *b)
{
    uint64_t lowest = base + before.done, highest = base + b->started - before.failed;
    if (n < lowest)
        fault(LOST, "a steady session's %s: %llu, but %llu were answered", what,
              (unsigned long long)n, (unsigned long long)lowest);
    if (n > highest)
        fault(WRONG, "a steady session's %s: %llu, but only %llu were started", what,
              (unsigned long long)n, (unsigned long long)highest);
}

static void read_steady(struct thread *t, unsigned k)
{
    struct steady *s = &books->commons.steady[k];
    struct known increments = known(&s->increments), swaps = known(&s->swaps);
    sesstab_view view;
    int result = sesstab_read_begin(t->table);
    if (result == SESSTAB_OK) {
        result = TIMED(t, "find", 0, sesstab_find(t->table, STEADY_HANDLE(k), &view));
        if (result == SESSTAB_OK) {
            check_view(&view);
            check_counter("increments", number_under(&view, "n"), s->n, increments, &s->increments);
            check_counter("swaps", number_under(&view, "c"), s->c, swaps, &s->swaps);
        }
        sesstab_read_end(t->table);
    }
    if (result != SESSTAB_OK)
        fault(LOST, "steady session %u: %s", k, sesstab_strerror(result));
}

static void read_any(struct thread *t, uint64_t handle)
{
    sesstab_view view;
    int result = sesstab_read_begin(t->table);
    if (result == SESSTAB_OK) {
        result = TIMED(t, "find", 0, sesstab_find(t->table, handle, &view));
        if (result == SESSTAB_OK) {
            if (view.handle != handle)
                fault(WRONG, "session %llx found for %llx", (unsigned long long)view.handle,
                      (unsigned long long)handle);
            check_view(&view);
            if (roll(&t->dice, 32) == 0)
                pause_some(&t->dice, LINGER_US);
            check_view(&view); /* unchanging until the section ends */
        }
        sesstab_read_end(t->table);
    }
    if (result != SESSTAB_NOTFOUND)
        succeeded("find", handle, result);
}

void commons_read(struct thread *t)
{
    uint64_t choice = roll(&t->dice, 8);
    if (choice == 0)
        read_steady(t, (unsigned)roll(&t->dice, STEADY));
    else if (choice < 4)
        read_any(t, CHURN_HANDLE(roll(&t->dice, CHURN)));
    else /* another lane's */
        read_any(t, OWN_HANDLE(0, roll(&t->dice, (uint64_t)books->seats * LANES * SESSIONS)));
}

/* ---------------------------------------------------------------- walking --------------- */

/* The {handle, generation}s that a walk has seen. */
struct seen { uint64_t handle[SEEN], generation[SEEN]; };

static void see(struct seen *seen, const sesstab_view *view)
{
    size_t i = (size_t)(view->handle * UINT64_C(0x9e3779b97f4a7c15) >> 40) % SEEN;
    while (seen->handle[i] && (seen->handle[i] != view->handle ||
                               seen->generation[i] != view->generation))
        i = (i + 1) % SEEN;
    if (seen->handle[i])
        fault(DUPLICATED, "a walk saw session %llx twice", (unsigned long long)view->handle);
    seen->handle[i] = view->handle;
    seen->generation[i] = view->generation;
}

/* One walk in one part or in three, which come to the same. */
static unsigned walk(struct thread *t, struct seen *seen)
{
    unsigned parts = roll(&t->dice, 2) ? 1 : 3, steady = 0;
    sesstab_view view;
    for (unsigned part = 0; part < parts; part++) {
        sesstab_cursor cursor = sesstab_part(part, parts);
        int result;
        while (!(result = TIMED(t, "next", 0, sesstab_next(t->table, &cursor, &view)))) {
            check_view(&view);
            see(seen, &view);
            steady += view.handle >= STEADY_HANDLE(0) && view.handle < STEADY_HANDLE(STEADY);
            if (roll(&t->dice, 64) == 0)
                sesstab_pause(t->table, &cursor);
        }
        if (result != SESSTAB_NOTFOUND)
            succeeded("walk", 0, result);
    }
    return steady;
}

struct asked { const char *player; unsigned found; };

static int check_found(const sesstab_view *view, void *context)
{
    struct asked *asked = context;
    check_view(view);
    asked->found++;
    if (strcmp(view->player, asked->player) != 0)
        fault(DUPLICATED, "session %llx of \"%s\" found for player \"%s\"",
              (unsigned long long)view->handle, view->player, asked->player);
    return 0;
}

static unsigned look_by_player(struct thread *t, const char *player)
{
    struct asked asked = { player, 0 };
    int result = TIMED(t, "by_player", 0,
                       sesstab_by_player(t->table, player, check_found, &asked));
    succeeded("by_player", 0, result);
    return asked.found;
}

void commons_walk(struct thread *t)
{
    static _Thread_local struct seen seen;
    char player[16];
    snprintf(player, sizeof player, "p%u", (unsigned)roll(&t->dice, PLAYERS));
    look_by_player(t, player);
    unsigned found = look_by_player(t, "steady");
    if (found != STEADY)
        fault(found < STEADY ? LOST : DUPLICATED, "%u of %d steady sessions found by player", found,
              STEADY);
    memset(&seen, 0, sizeof seen);
    found = walk(t, &seen);
    if (found != STEADY)
        fault(found < STEADY ? LOST : DUPLICATED, "a walk saw %u of %d steady sessions", found,
              STEADY);
}

/* ---------------------------------------------------------------- calm ------------------ */

void commons_init(struct thread *t)
{
    for (unsigned k = 0; k < STEADY; k++) {
        uint64_t handle = STEADY_HANDLE(k);
        check_ok(content_insert(t, &handle, handle, 1));
        check_ok(sesstab_increment(t->table, handle, "n", 0, NULL));
        check_ok(sesstab_set(t->table, handle, "c", "0", 1));
        check_ok(sesstab_bind(t->table, handle, "steady", WAIT_LIMIT));
    }
}

static bool is_there(struct thread *t, uint64_t handle)
{
    sesstab_view view;
    check_ok(sesstab_read_begin(t->table));
    bool there = sesstab_find(t->table, handle, &view) == SESSTAB_OK;
    sesstab_read_end(t->table);
    return there;
}

static void settle_churn(struct churn *c, uint64_t handle, bool there)
{
    uint64_t before = c->there, inserted = c->inserts.done, removed = c->removes.done;
    if (there + removed > before + most(&c->inserts))
        fault(DUPLICATED, "session %llx is there: %llu inserts at most, %llu removals",
              (unsigned long long)handle, (unsigned long long)most(&c->inserts),
              (unsigned long long)removed);
    if (there + most(&c->removes) < before + inserted)
        fault(LOST, "session %llx is not there: %llu inserts, %llu removals at most",
              (unsigned long long)handle, (unsigned long long)inserted,
              (unsigned long long)most(&c->removes));
    c->there = there;
    clear(&c->inserts);
    clear(&c->removes);
}

void commons_settle(struct thread *t)
{
    for (unsigned k = 0; k < STEADY; k++) {
        struct steady *s = &books->commons.steady[k];
        read_steady(t, k);
        sesstab_view view = look(t->table, STEADY_HANDLE(k));
        s->n = number_under(&view, "n");
        s->c = number_under(&view, "c");
        clear(&s->increments);
        clear(&s->swaps);
    }
    for (unsigned k = 0; k < CHURN; k++)
        settle_churn(&books->commons.churn[k], CHURN_HANDLE(k), is_there(t, CHURN_HANDLE(k)));
}

unsigned commons_sessions(void)
{
    unsigned count = STEADY;
    for (unsigned k = 0; k < CHURN; k++)
        count += books->commons.churn[k].there;
    return count;
}
