#include "bench/table/check.h"

enum { CHECKED = 250 }; /* keys; not a whole number of batches */

static void must(bool holds, const char *what)
{
    if (!holds)
        bench_fail("%s", what);
}

static uint64_t expected_words(const struct keys *keys)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < keys->count; i++)
        sum += read_words(USUAL_CONNECTED_AT, keys->players[i]);
    return sum;
}

/* The sums of all ways of reading are those of the sessions that were put in. */
static void check_sums(const struct open_table *o, const struct keys *some)
{
    static const enum operation ways[] = { OPERATION_VIEW, OPERATION_BATCH, OPERATION_BY_PLAYER };
    const struct contender *c = o->contender;
    for (size_t i = 0; i < sizeof ways / sizeof *ways && !c->clocked; i++) {
        operation_fn *read = c->operations[ways[i]];
        /* memcached may answer once for a session that a batch names twice */
        if (read && !(ways[i] == OPERATION_BATCH && c->scope == SCOPE_SERVER))
            must(read(o->table, some) == expected_words(some),
                 "what is read is not what is stored");
    }
}

/* Every operation fails by itself if it does not find what it should. */
static void check_all(const struct open_table *o, const struct keys *present,
                      const struct keys *absent)
{
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        operation_fn *operation = o->contender->operations[i];
        if (operation && i != OPERATION_SCAN)
            operation(o->table,
                      i == OPERATION_MISS || i == OPERATION_INSERT_REMOVE ? absent : present);
    }
}

static bool changed(const struct open_table *o, enum operation operation, const struct keys *one,
                    struct record *before, struct record *after)
{
    const struct contender *c = o->contender;
    bool there = c->read_back(o->table, one->handles[0], before);
    c->operations[operation](o->table, one);
    return there && c->read_back(o->table, one->handles[0], after);
}

/* What is changed is read back changed, and nothing else is. */
static void check_changes(const struct open_table *o, const struct keys *present)
{
    struct keys one = { present->handles, present->players, 1 };
    struct record before = { 0 }, after = { 0 };
    must(changed(o, OPERATION_TOUCH, &one, &before, &after), "a session can't be read back");
    must(after.last_seen > before.last_seen, "a touch did not raise last-seen");
    must(changed(o, OPERATION_SET, &one, &before, &after), "a session can't be read back");
    must(memcmp(after.metadata, before.metadata, SET_BYTES) != 0, "a set did not store");
    must(after.last_seen == before.last_seen && after.connected_at == USUAL_CONNECTED_AT &&
             strcmp(after.player, one.players[0]) == 0,
         "a set changed something else");
}

void check_contender(const struct open_table *o, const struct key_sets *keys)
{
    struct keys present = keys->of[KEYS_PRESENT], absent = keys->of[KEYS_ABSENT];
    present.count = absent.count = CHECKED;
    if (!o->contender->read_back)
        return;
    check_sums(o, &present);
    check_all(o, &present, &absent);
    check_changes(o, &present);
}
