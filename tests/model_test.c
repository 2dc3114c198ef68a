/*
 * Random operations of the public API, each compared with what a trivial model says: plain arrays,
 * no sharing.  Also with several processes on one table, each with handles of its own.
 */
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HANDLES = 24,
    KEYS = 6,
    PLAYERS = 5,
    VALUE_MAX = 600,
    PROCESSES = 3
};

static const char *const players[PLAYERS] = { "", "#1", "#2", "#12:1700000000", "Zaphod \xc3\xa4" };
static const char *const keys[KEYS] = { "a", "b", "width", "n", "a longer key than others", "z" };

struct model_value { bool there; uint64_t version; size_t length; char bytes[VALUE_MAX]; };

struct model_session {
    bool live, pending;
    uint64_t generation, version, last_seen, connected_at;
    unsigned player; /* index into players */
    sesstab_state state;
    char address[16], type[16];
    struct model_value values[KEYS];
};

/* The model, and the table it is a model of: handles FIRST to FIRST + HANDLES - 1. */
struct model {
    sesstab *table;
    bool memory_mode;
    uint64_t first;
    struct model_session sessions[HANDLES];
};

/* ---------------------------------------------------------------- comparison ------------- */

static void compare_values(const struct model_session *s, const sesstab_view *view)
{
    unsigned count = 0;
    for (int k = 0; k < KEYS; k++) {
        const struct model_value *v = &s->values[k];
        const void *value;
        size_t length;
        uint64_t version;
        int result = sesstab_metadata(view, keys[k], &value, &length, &version);
        check_result(result, v->there ? SESSTAB_OK : SESSTAB_NOTFOUND);
        if (!v->there)
            continue;
        count++;
        check_equal(version, v->version);
        check_equal(length, v->length);
        check(memcmp(value, v->bytes, length) == 0);
    }
    check_equal(view->metadata_count, count);
}

static void compare_view(const struct model_session *s, uint64_t handle, const sesstab_view *view)
{
    check_equal(view->handle, handle);
    check_equal(view->generation, s->generation);
    check_equal(view->version, s->version);
    check_equal(view->connected_at, s->connected_at);
    check_equal(view->last_seen, s->last_seen);
    check_string(view->player, players[s->player]);
    check_equal(view->state, s->state);
    check_equal(view->pending, s->pending);
    check_string(view->address, s->address);
    check_string(view->type, s->type);
    check_string(view->host, "");
    compare_values(s, view);
}

/* A change raises the version by one. */
static void raise_version(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    s->version++;
    check_equal(look(model->table, model->first + i).version, s->version);
}

static void compare_one(struct model *model, unsigned i)
{
    sesstab_view view;
    const struct model_session *s = &model->sessions[i];
    check_ok(sesstab_read_begin(model->table));
    int result = sesstab_find(model->table, model->first + i, &view);
    check_result(result, s->live ? SESSTAB_OK : SESSTAB_NOTFOUND);
    if (s->live)
        compare_view(s, model->first + i, &view);
    sesstab_read_end(model->table);
}

static void compare_walk(struct model *model)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    unsigned seen[HANDLES] = { 0 };
    while (sesstab_next(model->table, &cursor, &view) == SESSTAB_OK) {
        uint64_t i = view.handle - model->first;
        if (i >= HANDLES)
            continue;
        compare_view(&model->sessions[i], view.handle, &view);
        seen[i]++;
        if (random_below(4) == 0)
            sesstab_pause(model->table, &cursor);
    }
    for (unsigned i = 0; i < HANDLES; i++)
        check_equal(seen[i], model->sessions[i].live);
}

struct by_player { struct model *model; unsigned player, seen[HANDLES]; };

static int compare_found(const sesstab_view *view, void *context)
{
    struct by_player *by = context;
    uint64_t i = view->handle - by->model->first;
    check_string(view->player, players[by->player]);
    if (i < HANDLES) {
        compare_view(&by->model->sessions[i], view->handle, view);
        by->seen[i]++;
    }
    return 0;
}

static void compare_players(struct model *model)
{
    for (unsigned player = 1; player < PLAYERS; player++) {
        struct by_player by = { .model = model, .player = player };
        check_ok(sesstab_by_player(model->table, players[player], compare_found, &by));
        for (unsigned i = 0; i < HANDLES; i++)
            check_equal(by.seen[i], model->sessions[i].live && model->sessions[i].player == player);
    }
}

/* ---------------------------------------------------------------- operations ------------- */

typedef void operation(struct model *model, unsigned i);

static struct model_value random_value(void)
{
    struct model_value v = { .there = true };
    if (random_below(2)) {
        v.length = (size_t)snprintf(v.bytes, sizeof v.bytes, "%d", (int)random_below(2000) - 1000);
        return v;
    }
    v.length = random_below(random_below(4) ? 20 : VALUE_MAX + 1);
    for (size_t b = 0; b < v.length; b++)
        v.bytes[b] = (char)random_number();
    return v;
}

static void insert(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i], new = { .live = true };
    uint64_t handle = model->first + i, last = s->generation;
    sesstab_pair pairs[KEYS];
    sesstab_info info = { .address = new.address, .type = new.type, .metadata = pairs };
    snprintf(new.address, sizeof new.address, "10.0.0.%u", (unsigned)random_below(256));
    snprintf(new.type, sizeof new.type, "%s", random_below(2) ? "telnet" : "");
    new.connected_at = new.last_seen = info.connected_at = 1 + random_below(1000000);
    for (int k = 0; k < KEYS; k++)
        if (random_below(3) == 0) {
            new.values[k] = random_value();
            pairs[info.metadata_count++] =
                (sesstab_pair){ keys[k], new.values[k].bytes, new.values[k].length };
        }
    int result = sesstab_insert(model->table, &handle, &info);
    check_result(result, s->live ? SESSTAB_EXISTS : SESSTAB_OK);
    check_equal(handle, model->first + i);
    if (s->live)
        return;
    sesstab_view view = look(model->table, handle);
    check(view.generation > last);
    new.generation = view.generation;
    new.version = view.version;
    for (int k = 0; k < KEYS; k++)
        new.values[k].version = new.version;
    *s = new;
}

static void remove_session(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    check_result(sesstab_remove(model->table, model->first + i),
                 s->live ? SESSTAB_OK : SESSTAB_NOTFOUND);
    s->live = false;
}

static void touch(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    uint64_t now = 1 + random_below(2000000);
    check_result(sesstab_touch(model->table, model->first + i, now),
                 s->live ? SESSTAB_OK : SESSTAB_NOTFOUND);
    if (now > s->last_seen)
        s->last_seen = now;
}

static void set(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    unsigned k = (unsigned)random_below(KEYS);
    struct model_value new = random_value();
    int result = sesstab_set(model->table, model->first + i, keys[k], new.bytes, new.length);
    check_result(result, s->live ? SESSTAB_OK : SESSTAB_NOTFOUND);
    if (!s->live)
        return;
    raise_version(model, i);
    new.version = s->version;
    s->values[k] = new;
}

static void delete(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    unsigned k = (unsigned)random_below(KEYS);
    bool there = s->live && s->values[k].there;
    check_result(sesstab_delete(model->table, model->first + i, keys[k]),
                 there ? SESSTAB_OK : SESSTAB_NOTFOUND);
    if (!there)
        return;
    raise_version(model, i);
    s->values[k].there = false;
}

static void compare_and_set(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    unsigned k = (unsigned)random_below(KEYS);
    struct model_value new = random_value();
    uint64_t now = s->values[k].there ? s->values[k].version : 0, version = 0;
    uint64_t expected = random_below(2) ? now : random_below(2) ? 0 : s->version;
    int result = sesstab_compare_and_set(model->table, model->first + i, keys[k], expected,
                                         new.bytes, new.length, &version);
    if (!s->live) {
        check_result(result, SESSTAB_NOTFOUND);
        return;
    }
    check_result(result, expected == now ? SESSTAB_OK : SESSTAB_CONFLICT);
    if (result == SESSTAB_CONFLICT) {
        check_equal(version, now);
        return;
    }
    raise_version(model, i);
    check_equal(version, s->version);
    new.version = version;
    s->values[k] = new;
}

/* The integer that VALUE is; false when it is none. */
static bool integer_in(const struct model_value *value, long long *number)
{
    char text[VALUE_MAX + 1], canonical[32], *end;
    memcpy(text, value->bytes, value->length);
    text[value->length] = 0;
    *number = strtoll(text, &end, 10);
    snprintf(canonical, sizeof canonical, "%lld", *number);
    return strlen(text) == value->length && strcmp(text, canonical) == 0;
}

static void increment(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    unsigned k = (unsigned)random_below(KEYS);
    struct model_value *v = &s->values[k];
    int64_t delta = (int64_t)random_below(100) - 50, sum = 0;
    long long before = 0;
    bool numeric = !v->there || integer_in(v, &before);
    int result = sesstab_increment(model->table, model->first + i, keys[k], delta, &sum);
    check_result(result, !s->live ? SESSTAB_NOTFOUND : numeric ? SESSTAB_OK : SESSTAB_NOTNUMBER);
    if (result != SESSTAB_OK)
        return;
    check_equal(sum, before + delta);
    raise_version(model, i);
    v->there = true;
    v->version = s->version;
    v->length = (size_t)snprintf(v->bytes, sizeof v->bytes, "%lld", before + (long long)delta);
}

static void set_state(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    sesstab_state new = (sesstab_state)random_below(SESSTAB_STATE_COUNT), old;
    bool bound = s->player != 0;
    bool possible = new == SESSTAB_DETACHED || (new == SESSTAB_LOGGED_IN) == bound;
    int result = sesstab_set_state(model->table, model->first + i, new, &old);
    check_result(result, !s->live ? SESSTAB_NOTFOUND : possible ? SESSTAB_OK : SESSTAB_INVALID);
    if (result != SESSTAB_OK)
        return;
    check_equal(old, s->state);
    if (new != old)
        raise_version(model, i);
    s->state = new;
}

static void bind(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    unsigned player = 1 + (unsigned)random_below(PLAYERS - 1);
    int result = sesstab_bind(model->table, model->first + i, players[player], 0);
    check_result(result, !s->live           ? SESSTAB_NOTFOUND
                         : model->memory_mode ? SESSTAB_OK
                                              : SESSTAB_UNKNOWN);
    if (!s->live || (s->player == player && s->state == SESSTAB_LOGGED_IN))
        return;
    raise_version(model, i);
    s->player = player;
    s->state = SESSTAB_LOGGED_IN;
    s->pending = !model->memory_mode;
}

static void unbind(struct model *model, unsigned i)
{
    struct model_session *s = &model->sessions[i];
    bool nothing = s->player == 0 && !s->pending;
    int result = sesstab_unbind(model->table, model->first + i, 0);
    check_result(result, !s->live                        ? SESSTAB_NOTFOUND
                         : model->memory_mode || nothing ? SESSTAB_OK
                                                         : SESSTAB_UNKNOWN);
    if (!s->live || s->player == 0)
        return;
    raise_version(model, i);
    s->player = 0;
    s->state = SESSTAB_CONNECTED;
    s->pending = !model->memory_mode;
}

static void run_model(struct model *model, int times)
{
    static operation *const operations[] = {
        insert, insert, insert, remove_session, touch, set, set, delete,
        compare_and_set, increment, set_state, bind, unbind,
    };
    for (int n = 0; n < times; n++) {
        unsigned i = (unsigned)random_below(HANDLES);
        operations[random_below(sizeof operations / sizeof *operations)](model, i);
        compare_one(model, i);
        if (n % 500 == 0) {
            compare_walk(model);
            compare_players(model);
        }
    }
    compare_walk(model);
    compare_players(model);
}

/* ---------------------------------------------------------------- tests ------------------ */

static struct model *new_model(sesstab_mode mode, const char **name)
{
    struct model *model = shared_memory(sizeof *model);
    *name = new_name();
    model->table = open_table(*name, &(sesstab_options){ .create = true, .mode = mode,
                                                         .ring_entries = 8 });
    model->memory_mode = mode == SESSTAB_MEMORY;
    model->first = 1;
    return model;
}

static void a_memory_table_does_what_the_model_does(void **state)
{
    const char *name;
    struct model *model = new_model(SESSTAB_MEMORY, &name);
    (void)state;
    run_model(model, rounds(400000));
    check_table(name);
}

static void a_selective_table_without_redis_does_what_the_model_does(void **state)
{
    const char *name;
    struct model *model = new_model(SESSTAB_SELECTIVE, &name);
    (void)state;
    run_model(model, rounds(400000));
    check_table(name);
}

/* The children's copies of the model are their own; the table is everybody's. */
static void run_own_range(void *context)
{
    struct model mine = *(struct model *)context;
    mine.first = 1 + child_index * HANDLES;
    run_model(&mine, rounds(120000));
}

static void workers_with_handles_of_their_own_do_what_the_model_does(void **state)
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        const char *name;
        struct model *model = new_model(mode ? SESSTAB_MEMORY : SESSTAB_SELECTIVE, &name);
        run_children(PROCESSES, run_own_range, model);
        check_table(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_memory_table_does_what_the_model_does),
        TEST(a_selective_table_without_redis_does_what_the_model_does),
        TEST(workers_with_handles_of_their_own_do_what_the_model_does),
    };
    return run_all(tests);
}
