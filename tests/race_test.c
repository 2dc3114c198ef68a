/*
 * Many processes on the same few sessions.  What must hold at every moment is part of the data: a
 * session's strings and its blob follow from its handle, so that a reader recognises a record that
 * is torn, stale or somebody else's.  Every table here has tiny rings, and versions that are about
 * to overflow the fields that hold their low bits.
 */
#include "tests/harness.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HANDLES = 40,       /* 1 to HANDLES come and go                                          */
    COUNTER = 1000,     /* this session stays, its "n" counts increments                     */
    WRITERS = 4,
    READERS = 2,
    BLOB_MAX = 3000     /* so that records move between size classes                         */
};

static const struct variant {
    const char *what;
    sesstab_options options;
} variants[] = {
    { "30 bits", { .create = true, .mode = SESSTAB_MEMORY, .ring_entries = 4,
                   .first_version = (1ULL << 30) - 100, .max_bytes = 64 << 20 } },
    { "32 bits", { .create = true, .mode = SESSTAB_SELECTIVE, .ring_entries = 4,
                   .first_version = (1ULL << 32) - 100, .max_bytes = 64 << 20 } },
    { "47 bits", { .create = true, .mode = SESSTAB_SELECTIVE, .ring_entries = 8,
                   .first_version = (1ULL << 47) - 100, .max_bytes = 64 << 20 } },
    { "full fences", { .create = true, .mode = SESSTAB_SELECTIVE, .ring_entries = 4,
                       .full_fences = true, .max_bytes = 64 << 20 } },
    { "as usual", { .create = true } },
};
enum { VARIANTS = sizeof variants / sizeof *variants };

struct arena {
    sesstab *table;
    const char *name;
    int rounds;
    _Atomic unsigned place;
    _Atomic bool stop;
    _Atomic uint64_t increments, views;
    _Atomic int64_t alive[HANDLES + 1]; /* inserts less removals */
    _Atomic unsigned winners[4096];
};

static struct arena *arena(const struct variant *variant, int times)
{
    struct arena *shared = shared_memory(sizeof *shared);
    shared->name = new_name();
    shared->table = open_table(shared->name, &variant->options);
    shared->rounds = times;
    insert_plain(shared->table, COUNTER);
    return shared;
}

/* ---------------------------------------------------------------- one handle ------------- */

static void insert_same_handles(void *context)
{
    struct arena *shared = context;
    for (int i = 0; i < shared->rounds; i++) {
        uint64_t handle = 5000 + (uint64_t)i;
        meet(&shared->place, 2);
        int result = sesstab_insert(shared->table, &handle, NULL);
        check_either(result, SESSTAB_OK, SESSTAB_EXISTS);
        shared->winners[i] += result == SESSTAB_OK;
        check_equal(look(shared->table, handle).handle, handle);
    }
}

static void of_two_that_insert_a_new_handle_at_once_exactly_one_wins(void **state)
{
    const int times = rounds(4000);
    (void)state;
    struct arena *shared = arena(&variants[0], times);
    run_children(2, insert_same_handles, shared);
    for (int i = 0; i < times; i++)
        check_equal(shared->winners[i], 1);
    check_equal(count_sessions(shared->table), times + 1);
    check_table(shared->name);
}

static void remove_same_handles(void *context)
{
    struct arena *shared = context;
    for (int i = 0; i < shared->rounds; i++) {
        meet(&shared->place, 2);
        int result = sesstab_remove(shared->table, 5000 + (uint64_t)i);
        check_either(result, SESSTAB_OK, SESSTAB_NOTFOUND);
        shared->winners[i] += result == SESSTAB_OK;
    }
}

static void of_two_that_remove_a_session_at_once_exactly_one_wins(void **state)
{
    const int times = rounds(4000);
    (void)state;
    struct arena *shared = arena(&variants[1], times);
    for (int i = 0; i < times; i++)
        insert_plain(shared->table, 5000 + (uint64_t)i);
    run_children(2, remove_same_handles, shared);
    for (int i = 0; i < times; i++)
        check_equal(shared->winners[i], 1);
    check_equal(count_sessions(shared->table), 1);
}

static void take_assigned_handles(void *context)
{
    struct arena *shared = context;
    for (int i = 0; i < shared->rounds; i++) {
        uint64_t handle = 0;
        check_ok(sesstab_insert(shared->table, &handle, NULL));
        check_equal(look(shared->table, handle).owner, sesstab_self(shared->table));
    }
}

static void assigned_handles_are_never_given_twice(void **state)
{
    const int times = rounds(8000);
    (void)state;
    struct arena *shared = arena(&variants[4], times);
    run_children(4, take_assigned_handles, shared);
    check_equal(count_sessions(shared->table), 4 * times + 1);
}

/* ---------------------------------------------------------------- hammer ----------------- */

/* Bytes that follow from the handle and N, N being in them. */
static size_t make_blob(unsigned char *blob, uint64_t handle, uint32_t n)
{
    size_t length = 16 + (handle * 7919 + n * 31) % (BLOB_MAX - 16);
    memcpy(blob, &handle, 8);
    memcpy(blob + 8, &n, 4);
    for (size_t i = 12; i < length; i++)
        blob[i] = (unsigned char)(handle + n + i);
    return length;
}

static void check_blob(const sesstab_view *view)
{
    unsigned char expected[BLOB_MAX];
    const void *blob;
    size_t length;
    uint32_t n;
    check_ok(sesstab_metadata(view, "blob", &blob, &length, NULL));
    check(length >= 16);
    memcpy(&n, (const char *)blob + 8, 4);
    check_equal(length, make_blob(expected, view->handle, n));
    check(memcmp(blob, expected, length) == 0);
}

static void check_text(const char *value, char letter, uint64_t number)
{
    char expected[32];
    snprintf(expected, sizeof expected, "%c%llu", letter, (unsigned long long)number);
    check_string(value, expected);
}

static void check_view(const sesstab_view *view)
{
    check_text(view->address, 'a', view->handle);
    check_text(view->host, 'h', view->handle);
    check_text(view->type, 't', view->handle);
    check_text(metadata_of(view, "id"), 'i', view->handle);
    check_blob(view);
    check((*view->player != 0) || view->state != SESSTAB_LOGGED_IN);
    if (*view->player)
        check_text(view->player, 'p', view->handle % 5);
    check(view->last_seen >= view->connected_at);
}

static int insert_session(struct arena *shared, uint64_t handle)
{
    char address[24], host[24], type[24], id[24];
    unsigned char blob[BLOB_MAX];
    unsigned long long number = handle;
    snprintf(address, sizeof address, "a%llu", number);
    snprintf(host, sizeof host, "h%llu", number);
    snprintf(type, sizeof type, "t%llu", number);
    snprintf(id, sizeof id, "i%llu", number);
    size_t length = make_blob(blob, handle, (uint32_t)random_number());
    const sesstab_pair pairs[] = { { "id", id, strlen(id) }, { "blob", blob, length } };
    return sesstab_insert(shared->table, &handle, &(sesstab_info){ .address = address,
        .host = host, .type = type, .metadata = pairs, .metadata_count = 2 });
}

static int change_session(struct arena *shared, uint64_t handle)
{
    unsigned char blob[BLOB_MAX];
    char player[24];
    snprintf(player, sizeof player, "p%u", (unsigned)(handle % 5));
    switch (random_below(6)) {
    case 0: return sesstab_touch(shared->table, handle, 0);
    case 1: return sesstab_bind(shared->table, handle, player, 0);
    case 2: return sesstab_unbind(shared->table, handle, 0);
    case 3: return sesstab_set_state(shared->table, handle, SESSTAB_DETACHED, NULL);
    case 4: return sesstab_increment(shared->table, handle, "n", 1, NULL);
    default: return sesstab_set(shared->table, handle, "blob", blob,
                                make_blob(blob, handle, (uint32_t)random_number()));
    }
}

/* One random operation. */
static void write_once(struct arena *shared)
{
    uint64_t handle = 1 + random_below(HANDLES), choice = random_below(10);
    int result;
    if (choice == 0) {
        result = sesstab_remove(shared->table, handle);
        shared->alive[handle] -= result == SESSTAB_OK;
        check_either(result, SESSTAB_OK, SESSTAB_NOTFOUND);
    } else if (choice == 1) {
        check_ok(sesstab_increment(shared->table, COUNTER, "n", 1, NULL));
        shared->increments++;
    } else if (choice < 5) {
        result = insert_session(shared, handle);
        shared->alive[handle] += result == SESSTAB_OK;
        check_either(result, SESSTAB_OK, SESSTAB_EXISTS);
    } else {
        result = change_session(shared, handle);
        if (result != SESSTAB_UNKNOWN)
            check_either(result, SESSTAB_OK, SESSTAB_NOTFOUND);
    }
}

static void write_often(void *context)
{
    struct arena *shared = context;
    for (int i = 0; i < shared->rounds; i++)
        write_once(shared);
}

static void write_until_killed(void *context)
{
    for (;;)
        write_once(context);
}

/* What a reader saw last of each handle: versions of one generation rise. */
struct memory { uint64_t generation[HANDLES + 1], version[HANDLES + 1]; };

static void check_order(struct memory *last, const sesstab_view *view)
{
    uint64_t h = view->handle;
    check(view->generation != last->generation[h] || view->version >= last->version[h]);
    last->generation[h] = view->generation;
    last->version[h] = view->version;
}

static int check_player(const sesstab_view *view, void *context)
{
    check_view(view);
    check_string(view->player, context);
    return 0;
}

static void read_once(struct arena *shared, struct memory *last)
{
    sesstab_view view;
    uint64_t handle = 1 + random_below(HANDLES);
    check_ok(sesstab_read_begin(shared->table));
    int result = sesstab_find(shared->table, handle, &view);
    if (result == SESSTAB_OK) {
        check_equal(view.handle, handle);
        check_order(last, &view);
        check_view(&view);
        check_view(&view);
        shared->views++;
    }
    sesstab_read_end(shared->table);
    check_either(result, SESSTAB_OK, SESSTAB_NOTFOUND);
}

static void walk_once(struct arena *shared, struct memory *last)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    char player[24];
    snprintf(player, sizeof player, "p%u", (unsigned)random_below(5));
    check_ok(sesstab_by_player(shared->table, player, check_player, player));
    while (sesstab_next(shared->table, &cursor, &view) == SESSTAB_OK)
        if (view.handle <= HANDLES) {
            check_order(last, &view);
            check_view(&view);
        }
}

static void read_until_stopped(void *context)
{
    struct arena *shared = context;
    struct memory last = { { 0 }, { 0 } };
    for (unsigned i = 0; !shared->stop; i++) {
        read_once(shared, &last);
        if (i % 64 == 0)
            walk_once(shared, &last);
    }
}

static void start_readers(struct arena *shared, pid_t pids[READERS])
{
    for (int i = 0; i < READERS; i++)
        pids[i] = start_child(read_until_stopped, shared);
}

static void join_readers(struct arena *shared, const pid_t pids[READERS])
{
    shared->stop = true;
    for (int i = 0; i < READERS; i++)
        join_child(pids[i]);
    check(shared->views > 0);
}

static void check_books(struct arena *shared)
{
    uint64_t expected = 1;
    for (uint64_t handle = 1; handle <= HANDLES; handle++) {
        int64_t alive = shared->alive[handle];
        check(alive == 0 || alive == 1);
        check_equal(sesstab_touch(shared->table, handle, 0) == SESSTAB_OK, alive);
        expected += (uint64_t)alive;
    }
    check_equal(count_sessions(shared->table), expected);
    sesstab_view view = look(shared->table, COUNTER);
    check_equal(atoll(metadata_of(&view, "n")), shared->increments);
}

static void readers_never_see_a_wrong_record_whatever_writers_do(void **state)
{
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        struct arena *shared = arena(&variants[i], rounds(60000));
        pid_t readers[READERS];
        start_readers(shared, readers);
        run_children(WRITERS, write_often, shared);
        join_readers(shared, readers);
        check_books(shared);
        check_table(shared->name);
    }
}

static void readers_never_see_a_wrong_record_when_writers_are_killed(void **state)
{
    const int kills = rounds(100);
    (void)state;
    for (int i = 0; i < VARIANTS; i += 2) {
        struct arena *shared = arena(&variants[i], 0);
        pid_t readers[READERS], writers[2];
        start_readers(shared, readers);
        for (int w = 0; w < 2; w++)
            writers[w] = start_child(write_until_killed, shared);
        for (int k = 0; k < kills; k++) {
            pause_ms((unsigned)random_below(8));
            kill_child(writers[k % 2]);
            writers[k % 2] = start_child(write_until_killed, shared);
        }
        for (int w = 0; w < 2; w++)
            kill_child(writers[w]);
        join_readers(shared, readers);
        check_table(shared->name);
        for (uint64_t handle = 1; handle <= HANDLES; handle++)
            sesstab_remove(shared->table, handle);
        check_equal(count_sessions(shared->table), 1);
    }
}

/* Stops a writer at a random instruction; the others must come to their end all the same. */
static void a_stopped_writer_stops_nobody(void **state)
{
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        struct arena *shared = arena(&variants[i], rounds(800));
        pid_t writer = start_child(write_until_killed, shared);
        for (int k = 0; k < 8; k++) {
            pause_ms(1 + (unsigned)random_below(5));
            kill(writer, SIGSTOP);
            run_children(2, write_often, shared);
            kill(writer, SIGCONT);
        }
        kill_child(writer);
        check_table(shared->name);
    }
}

static void versions_pass_the_limits_of_their_low_bits(void **state)
{
    static const uint64_t starts[] = { (1ULL << 30) - 5, (1ULL << 32) - 5, (1ULL << 47) - 5 };
    (void)state;
    for (int i = 0; i < 3; i++) {
        sesstab *table = open_table(new_name(), &(sesstab_options){
            .create = true, .mode = SESSTAB_MEMORY, .first_version = starts[i] });
        uint64_t last = 0, version;
        const void *value;
        insert_plain(table, 1);
        check(look(table, 1).version >= starts[i] && look(table, 1).version < starts[i] + 5);
        for (int k = 0; k < 20; k++) {
            check_ok(sesstab_set(table, 1, "key", "value", 5));
            sesstab_view view = look(table, 1);
            check_ok(sesstab_metadata(&view, "key", &value, NULL, &version));
            check(view.version > last);
            check_equal(version, view.version);
            check_ok(sesstab_compare_and_set(table, 1, "key", version, "v", 1, &last));
        }
        check(last > starts[i] + 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(of_two_that_insert_a_new_handle_at_once_exactly_one_wins),
        TEST(of_two_that_remove_a_session_at_once_exactly_one_wins),
        TEST(assigned_handles_are_never_given_twice),
        TEST(readers_never_see_a_wrong_record_whatever_writers_do),
        TEST(readers_never_see_a_wrong_record_when_writers_are_killed),
        TEST(a_stopped_writer_stops_nobody),
        TEST(versions_pass_the_limits_of_their_low_bits),
    };
    return run_all(tests);
}
