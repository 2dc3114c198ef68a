/*
 * One session's life: insert, find, get, touch, state, bind, remove, and what each refuses.
 */
#include "tests/harness.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char longest[SESSTAB_RECORD_MAX + 1];

/* LENGTH times the letter x; valid until the next call. */
static const char *xs(size_t length)
{
    memset(longest, 'x', length);
    longest[length] = 0;
    return longest;
}

static const sesstab_info typical = {
    .address = "203.0.113.7", .host = "dsl-7.example.net", .type = "telnet",
};

/* ---------------------------------------------------------------- inserting -------------- */

static void a_new_session_shows_what_it_was_given(void **state)
{
    sesstab *table = memory_table();
    const sesstab_pair pairs[] = { { "width", "80", 2 }, { "height", "24", 2 } };
    uint64_t handle = 42;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .address = "203.0.113.7",
        .host = "dsl-7.example.net", .type = "telnet", .connected_at = 1700000000123,
        .metadata = pairs, .metadata_count = 2 }));
    check_equal(handle, 42);
    sesstab_view view = look(table, 42);
    check_equal(view.handle, 42);
    check(view.generation != 0 && view.version != 0);
    check_equal(view.connected_at, 1700000000123);
    check_equal(view.last_seen, 1700000000123);
    check_string(view.player, "");
    check_equal(view.player_length, 0);
    check_string(view.address, "203.0.113.7");
    check_string(view.host, "dsl-7.example.net");
    check_string(view.type, "telnet");
    check_equal(view.owner, sesstab_self(table));
    check_equal(view.state, SESSTAB_CONNECTED);
    check(!view.pending);
    check_equal(view.metadata_count, 2);
    check_string(metadata_of(&view, "width"), "80");
    check_string(metadata_of(&view, "height"), "24");
}

static void a_session_without_particulars_has_empty_strings_and_begins_now(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 1, before = sesstab_now();
    (void)state;
    check_ok(sesstab_insert(table, &handle, NULL));
    sesstab_view view = look(table, 1);
    check_string(view.address, "");
    check_string(view.host, "");
    check_string(view.type, "");
    check(view.connected_at >= before && view.connected_at <= sesstab_now());
    check_equal(view.metadata_count, 0);
}

static void inserting_a_live_handle_again_is_told_so_and_changes_nothing(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 5;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &typical));
    check_ok(sesstab_bind(table, 5, "#5:1234", 0));
    sesstab_view before = look(table, 5);
    check_result(sesstab_insert(table, &handle, &(sesstab_info){ .address = "other" }),
                 SESSTAB_EXISTS);
    check_equal(handle, 5);
    sesstab_view after = look(table, 5);
    check_equal(after.generation, before.generation);
    check_equal(after.version, before.version);
    check_string(after.address, "203.0.113.7");
    check_string(after.player, "#5:1234");
    check_equal(count_sessions(table), 1);
}

static void assigned_handles_are_new_and_never_zero(void **state)
{
    sesstab *table = memory_table();
    enum { COUNT = 3000 };
    uint64_t handles[COUNT];
    (void)state;
    for (uint64_t handle = 1; handle <= 50; handle++)
        insert_plain(table, handle);
    for (int i = 0; i < COUNT; i++) {
        handles[i] = 0;
        check_ok(sesstab_insert(table, &handles[i], &typical));
        check(handles[i] != 0);
        check_equal(look(table, handles[i]).handle, handles[i]);
    }
    check_equal(count_sessions(table), 50 + COUNT);
}

static void every_64_bit_number_is_a_handle(void **state)
{
    static const uint64_t handles[] = { 1, UINT32_MAX, 1ULL << 32, INT64_MAX, 1ULL << 63,
                                        UINT64_MAX - 1, UINT64_MAX };
    sesstab *table = memory_table();
    (void)state;
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
        insert_plain(table, handles[i]);
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
        check_equal(look(table, handles[i]).handle, handles[i]);
    uint64_t assigned = 0;
    check_ok(sesstab_insert(table, &assigned, NULL));
    check_equal(count_sessions(table), sizeof handles / sizeof *handles + 1);
}

static void strings_are_taken_up_to_their_limits_and_not_beyond(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 1;
    (void)state;
    char address[SESSTAB_ADDRESS_MAX + 2], host[SESSTAB_HOST_MAX + 2], type[SESSTAB_TYPE_MAX + 2];
    strcpy(address, xs(SESSTAB_ADDRESS_MAX));
    strcpy(host, xs(SESSTAB_HOST_MAX));
    strcpy(type, xs(SESSTAB_TYPE_MAX));
    check_ok(sesstab_insert(table, &handle,
                            &(sesstab_info){ .address = address, .host = host, .type = type }));
    check_ok(sesstab_bind(table, 1, xs(SESSTAB_PLAYER_MAX), 0));
    sesstab_view view = look(table, 1);
    check_string(view.address, address);
    check_string(view.host, host);
    check_string(view.type, type);
    check_string(view.player, xs(SESSTAB_PLAYER_MAX));
    check_equal(view.player_length, SESSTAB_PLAYER_MAX);

    handle = 2;
    const sesstab_info too_big[] = {
        { .address = strcat(address, "x") }, { .host = strcat(host, "x") },
        { .type = strcat(type, "x") },
    };
    for (size_t i = 0; i < sizeof too_big / sizeof *too_big; i++)
        check_result(sesstab_insert(table, &handle, &too_big[i]), SESSTAB_TOOBIG);
    check_result(sesstab_touch(table, 2, 0), SESSTAB_NOTFOUND);
    check_result(sesstab_bind(table, 1, xs(SESSTAB_PLAYER_MAX + 1), 0), SESSTAB_TOOBIG);
    check_equal(look(table, 1).version, view.version);
}

static void bad_initial_metadata_inserts_nothing(void **state)
{
    sesstab *table = memory_table();
    static char big[SESSTAB_RECORD_MAX];
    char key[SESSTAB_KEY_MAX + 2];
    (void)state;
    strcpy(key, xs(SESSTAB_KEY_MAX + 1));
    const struct { sesstab_pair pairs[2]; int error; } cases[] = {
        { { { "same", "1", 1 }, { "same", "2", 1 } }, SESSTAB_INVALID },
        { { { "fine", "1", 1 }, { "", "2", 1 } }, SESSTAB_INVALID },
        { { { "fine", "1", 1 }, { NULL, "2", 1 } }, SESSTAB_INVALID },
        { { { "fine", "1", 1 }, { key, "2", 1 } }, SESSTAB_TOOBIG },
        { { { "fine", "1", 1 }, { "big", big, sizeof big } }, SESSTAB_TOOBIG },
        { { { "half", big, sizeof big / 2 }, { "other half", big, sizeof big / 2 } },
          SESSTAB_TOOBIG },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t handle = i + 1;
        const sesstab_info info = { .metadata = cases[i].pairs, .metadata_count = 2 };
        check_result(sesstab_insert(table, &handle, &info), cases[i].error);
        check_result(sesstab_touch(table, handle, 0), SESSTAB_NOTFOUND);
    }
    check_equal(count_sessions(table), 0);
}

/* ---------------------------------------------------------------- nobody there ----------- */

static void an_unknown_handle_is_not_found_by_anything(void **state)
{
    sesstab *table = memory_table();
    sesstab_view view;
    char buffer[512];
    size_t size = sizeof buffer;
    (void)state;
    insert_plain(table, 1);
    static const uint64_t unknown[] = { 0, 2, UINT64_MAX };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        uint64_t handle = unknown[i];
        check_ok(sesstab_read_begin(table));
        check_result(sesstab_find(table, handle, &view), SESSTAB_NOTFOUND);
        sesstab_read_end(table);
        check_result(sesstab_get(table, handle, &view, buffer, &size), SESSTAB_NOTFOUND);
        check_result(sesstab_touch(table, handle, 0), SESSTAB_NOTFOUND);
        check_result(sesstab_set_state(table, handle, SESSTAB_ACCOUNT, NULL), SESSTAB_NOTFOUND);
        check_result(sesstab_remove(table, handle), SESSTAB_NOTFOUND);
        check_result(sesstab_set(table, handle, "key", "value", 5), SESSTAB_NOTFOUND);
        check_result(sesstab_delete(table, handle, "key"), SESSTAB_NOTFOUND);
        check_result(sesstab_compare_and_set(table, handle, "key", 0, "v", 1, NULL),
                     SESSTAB_NOTFOUND);
        check_result(sesstab_increment(table, handle, "key", 1, NULL), SESSTAB_NOTFOUND);
        check_result(sesstab_bind(table, handle, "player", 0), SESSTAB_NOTFOUND);
        check_result(sesstab_unbind(table, handle, 0), SESSTAB_NOTFOUND);
    }
    check_equal(count_sessions(table), 1);
}

static void a_removed_session_is_gone_and_its_handle_is_free_for_another(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 7;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &typical));
    check_ok(sesstab_set(table, 7, "key", "old", 3));
    check_ok(sesstab_bind(table, 7, "old player", 0));
    uint64_t generation = look(table, 7).generation;
    check_ok(sesstab_remove(table, 7));
    check_result(sesstab_touch(table, 7, 0), SESSTAB_NOTFOUND);
    check_result(sesstab_remove(table, 7), SESSTAB_NOTFOUND);
    check_equal(count_sessions(table), 0);

    insert_plain(table, 7);
    sesstab_view view = look(table, 7);
    check(view.generation > generation);
    check_string(view.player, "");
    check_string(view.address, "");
    check_equal(view.metadata_count, 0);
    check_equal(view.state, SESSTAB_CONNECTED);
}

/* ---------------------------------------------------------------- reading ---------------- */

static void a_copy_outlives_the_session(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 3;
    char buffer[1024];
    size_t size = sizeof buffer;
    sesstab_view view;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &typical));
    check_ok(sesstab_set(table, 3, "key", "value", 5));
    check_ok(sesstab_get(table, 3, &view, buffer, &size));
    check(size > 0 && size <= sizeof buffer);
    check(view.host >= buffer && view.host < buffer + size);
    check_ok(sesstab_remove(table, 3));
    for (uint64_t other = 100; other < 1000; other++)
        insert_plain(table, other);
    check_string(view.host, "dsl-7.example.net");
    check_string(metadata_of(&view, "key"), "value");
}

static void a_buffer_that_is_too_small_is_told_the_size_it_needs(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 3;
    char buffer[2048];
    size_t needed = 0;
    sesstab_view view;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &typical));
    check_ok(sesstab_set(table, 3, "key", xs(700), 700));
    check_result(sesstab_get(table, 3, &view, NULL, &needed), SESSTAB_TOOBIG);
    check(needed > 700 && needed < sizeof buffer);
    memset(buffer, '#', sizeof buffer);
    size_t size = needed - 1;
    check_result(sesstab_get(table, 3, &view, buffer, &size), SESSTAB_TOOBIG);
    check_equal(size, needed);
    check(buffer[needed - 1] == '#');
    check_ok(sesstab_get(table, 3, &view, buffer, &size));
    check_equal(size, needed);
    check(buffer[needed] == '#');
    check_string(metadata_of(&view, "key"), xs(700));
}

static void looking_is_not_touching(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 1;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .connected_at = 1000 }));
    uint64_t version = look(table, 1).version;
    check_equal(count_sessions(table), 1);
    check_equal(look(table, 1).last_seen, 1000);
    check_equal(look(table, 1).version, version);
}

static void read_sections_nest(void **state)
{
    sesstab *table = memory_table();
    sesstab_view view;
    (void)state;
    insert_plain(table, 1);
    check_ok(sesstab_read_begin(table));
    check_ok(sesstab_find(table, 1, &view));
    check_ok(sesstab_read_begin(table));
    check_ok(sesstab_remove(table, 1));
    sesstab_read_end(table);
    for (uint64_t other = 100; other < 3000; other++) {
        insert_plain(table, other);
        check_ok(sesstab_remove(table, other));
    }
    check_equal(view.handle, 1);
    check_string(view.type, "test");
    sesstab_read_end(table);
}

static void finding_outside_a_read_section_is_refused(void **state)
{
    sesstab *table = memory_table();
    sesstab_view view;
    (void)state;
    insert_plain(table, 1);
    check_result(sesstab_find(table, 1, &view), SESSTAB_INVALID);
}

static void change_until_killed(void *table)
{
    for (uint64_t i = 0;; i++) {
        uint64_t handle = 1;
        sesstab_increment(table, 1, "n", 1, NULL);
        if (i % 3 == 0)
            sesstab_remove(table, 1);
        if (i % 3 == 1)
            sesstab_insert(table, &handle, &(sesstab_info){ .address = "changed" });
    }
}

/* Every way in which two views can differ. */
static void check_same_view(const sesstab_view *a, const sesstab_view *b)
{
    check_equal(a->handle, b->handle);
    check_equal(a->generation, b->generation);
    check_equal(a->version, b->version);
    check_equal(a->connected_at, b->connected_at);
    check_equal(a->last_seen, b->last_seen);
    check_equal(a->owner, b->owner);
    check_equal(a->state, b->state);
    check_equal(a->pending, b->pending);
    check(a->player == b->player && a->address == b->address && a->host == b->host);
    check(a->type == b->type && a->metadata_ == b->metadata_);
    check_equal(a->metadata_length_, b->metadata_length_);
    check_equal(a->metadata_count, b->metadata_count);
}

/* Handles 1 to COUNT, every third bound, every fifth with a large record, every seventh removed; in a
 * table that waits for Redis, so that the removed ones leave tombstones. */
static void insert_variously(sesstab *table, uint64_t count)
{
    for (uint64_t handle = 1; handle <= count; handle++) {
        check_ok(sesstab_insert(table, &handle, &typical));
        if (handle % 3 == 0)
            check_result(sesstab_bind(table, handle, "#3:1", 0), SESSTAB_UNKNOWN);
        if (handle % 5 == 0)
            check_ok(sesstab_set(table, handle, "large", xs(1000), 1000));
        if (handle % 7 == 0)
            check_ok(sesstab_remove(table, handle));
    }
}

static void finding_many_gives_what_finding_each_gives(void **state)
{
    enum { COUNT = 1000, ASKED = 333 };
    static sesstab_view views[ASKED];
    static int results[ASKED];
    uint64_t handles[ASKED];
    const char *name;
    sesstab *table = selective_table(&name);
    (void)state;
    insert_variously(table, COUNT);
    for (uint64_t i = 0; i < ASKED; i++)
        handles[i] = 1 + i * 7919 % (COUNT + COUNT / 10); /* some twice, some not there */
    check_ok(sesstab_read_begin(table));
    size_t found = 0, given = sesstab_find_many(table, handles, ASKED, views, results);
    for (size_t i = 0; i < ASKED; i++) {
        sesstab_view view;
        check_result(results[i], sesstab_find(table, handles[i], &view));
        found += results[i] == SESSTAB_OK;
        if (results[i] == SESSTAB_OK)
            check_same_view(&views[i], &view);
    }
    check_equal(given, found);
    check(found > ASKED / 2 && found < ASKED);
    check_equal(sesstab_find_many(table, handles, 0, views, results), 0);
    sesstab_read_end(table);
    check_equal(sesstab_find_many(table, handles, ASKED, views, results), 0);
    for (size_t i = 0; i < ASKED; i++)
        check_result(results[i], SESSTAB_INVALID);
}

static void a_view_stays_as_it_was_while_others_change_and_remove_it(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 1;
    sesstab_view view;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &typical));
    check_ok(sesstab_set(table, 1, "key", "value", 5));
    check_ok(sesstab_read_begin(table));
    check_ok(sesstab_find(table, 1, &view));
    sesstab_view first = view;
    pid_t pids[2] = { start_child(change_until_killed, table),
                      start_child(change_until_killed, table) };
    wait_until(sesstab_find(table, 1, &view) == SESSTAB_OK
               && view.generation > first.generation + 1000);
    check_string(first.address, "203.0.113.7");
    check_string(first.host, "dsl-7.example.net");
    check_string(metadata_of(&first, "key"), "value");
    check_equal(first.metadata_count, 1);
    sesstab_read_end(table);
    kill_child(pids[0]);
    kill_child(pids[1]);
}

/* ---------------------------------------------------------------- touching --------------- */

static void last_seen_rises_and_never_falls(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 1;
    (void)state;
    check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .connected_at = 5000 }));
    check_ok(sesstab_touch(table, 1, 4000));
    check_equal(look(table, 1).last_seen, 5000);
    check_ok(sesstab_touch(table, 1, 6000));
    check_ok(sesstab_touch(table, 1, 5500));
    check_equal(look(table, 1).last_seen, 6000);
    check_ok(sesstab_set(table, 1, "key", "value", 5));
    check_equal(look(table, 1).last_seen, 6000);
    uint64_t now = sesstab_now();
    check_ok(sesstab_touch(table, 1, 0));
    check(look(table, 1).last_seen >= now);
}

static void a_new_session_does_not_inherit_the_old_one_s_last_seen(void **state)
{
    sesstab *table = memory_table();
    uint64_t handle = 1;
    (void)state;
    insert_plain(table, 1);
    check_ok(sesstab_touch(table, 1, sesstab_now() + 1000000));
    check_ok(sesstab_remove(table, 1));
    check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .connected_at = 7000 }));
    check_equal(look(table, 1).last_seen, 7000);
}

static void touching_allocates_nothing(void **state)
{
    const char *name;
    struct stat before, after;
    sesstab *table = selective_table(&name);
    (void)state;
    for (uint64_t handle = 1; handle <= 100; handle++)
        insert_plain(table, handle);
    check_ok(sesstab_touch(table, 1, 0));
    check(stat(object_path(name), &before) == 0);
    uint64_t now = sesstab_now(), version = look(table, 1).version;
    for (uint64_t i = 0; i < 100000; i++)
        check_ok(sesstab_touch(table, 1 + i % 100, now + i));
    check(stat(object_path(name), &after) == 0);
    check_equal(after.st_blocks, before.st_blocks);
    check_equal(look(table, 1).version, version);
    check_equal(look(table, 100).last_seen, now + 99999);
}

/* ---------------------------------------------------------------- state ------------------ */

static void the_state_moves_and_tells_the_one_before(void **state)
{
    sesstab *table = memory_table();
    sesstab_state old;
    (void)state;
    insert_plain(table, 1);
    check_ok(sesstab_set_state(table, 1, SESSTAB_ACCOUNT, &old));
    check_equal(old, SESSTAB_CONNECTED);
    check_ok(sesstab_set_state(table, 1, SESSTAB_DETACHED, &old));
    check_equal(old, SESSTAB_ACCOUNT);
    check_ok(sesstab_set_state(table, 1, SESSTAB_CONNECTED, NULL));
    check_equal(look(table, 1).state, SESSTAB_CONNECTED);
}

static void impossible_states_are_refused(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    uint64_t version = look(table, 1).version;
    check_result(sesstab_set_state(table, 1, SESSTAB_LOGGED_IN, NULL), SESSTAB_INVALID);
    check_result(sesstab_set_state(table, 1, SESSTAB_STATE_COUNT, NULL), SESSTAB_INVALID);
    check_result(sesstab_set_state(table, 1, (sesstab_state)-1, NULL), SESSTAB_INVALID);
    check_equal(look(table, 1).version, version);
    check_ok(sesstab_bind(table, 1, "#1", 0));
    check_result(sesstab_set_state(table, 1, SESSTAB_ACCOUNT, NULL), SESSTAB_INVALID);
    check_result(sesstab_set_state(table, 1, SESSTAB_CONNECTED, NULL), SESSTAB_INVALID);
    check_ok(sesstab_set_state(table, 1, SESSTAB_DETACHED, NULL));
    check_ok(sesstab_set_state(table, 1, SESSTAB_LOGGED_IN, NULL));
    check_string(look(table, 1).player, "#1");
}

static void take_over(void *table)
{
    sesstab_state old;
    check_ok(sesstab_set_state(table, 1, SESSTAB_ACCOUNT, &old));
    check_equal(old, SESSTAB_DETACHED);
    check_equal(look(table, 1).owner, sesstab_self(table));
    check_ok(sesstab_set_state(table, 2, SESSTAB_ACCOUNT, NULL));
    check(look(table, 2).owner != sesstab_self(table));
}

static void who_moves_a_detached_session_owns_it(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    insert_plain(table, 2);
    check_ok(sesstab_set_state(table, 1, SESSTAB_DETACHED, NULL));
    run_child(take_over, table);
    check(look(table, 1).owner != sesstab_self(table));
    check_equal(look(table, 2).owner, sesstab_self(table));
}

/* ---------------------------------------------------------------- binding ---------------- */

static void in_memory_mode_a_binding_is_final_at_once(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    check(sesstab_ready(table));
    check_ok(sesstab_wait_ready(table, 0));
    insert_plain(table, 1);
    check_ok(sesstab_bind(table, 1, "#5:1234", 0));
    sesstab_view view = look(table, 1);
    check_string(view.player, "#5:1234");
    check_equal(view.state, SESSTAB_LOGGED_IN);
    check(!view.pending);
    check_ok(sesstab_bind(table, 1, "#6:99", 1000));
    check_string(look(table, 1).player, "#6:99");
    check_ok(sesstab_unbind(table, 1, 0));
    view = look(table, 1);
    check_string(view.player, "");
    check_equal(view.state, SESSTAB_CONNECTED);
    check_ok(sesstab_unbind(table, 1, 0));
}

static void a_player_must_have_a_name(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    uint64_t version = look(table, 1).version;
    check_result(sesstab_bind(table, 1, "", 0), SESSTAB_INVALID);
    check_result(sesstab_bind(table, 1, NULL, 0), SESSTAB_INVALID);
    check_result(sesstab_bind(table, 1, "#1", -1), SESSTAB_INVALID);
    check_result(sesstab_unbind(table, 1, -1), SESSTAB_INVALID);
    check_equal(look(table, 1).version, version);
}

static void without_a_persister_a_binding_stays_pending(void **state)
{
    const char *name;
    sesstab *table = selective_table(&name);
    (void)state;
    check(!sesstab_ready(table));
    check_result(sesstab_wait_ready(table, 20), SESSTAB_TIMEOUT);
    insert_plain(table, 1);
    check_ok(sesstab_unbind(table, 1, 0));
    check(!look(table, 1).pending);
    check_result(sesstab_bind(table, 1, "#1", 0), SESSTAB_UNKNOWN);
    check_result(sesstab_bind(table, 1, "#2", 30), SESSTAB_UNKNOWN);
    sesstab_view view = look(table, 1);
    check_string(view.player, "#2");
    check_equal(view.state, SESSTAB_LOGGED_IN);
    check(view.pending);
    check_ok(sesstab_set(table, 1, "key", "value", 5));
    check(look(table, 1).pending);
    check_result(sesstab_unbind(table, 1, 10), SESSTAB_UNKNOWN);
    check_string(look(table, 1).player, "");
    check_result(sesstab_unbind(table, 1, 10), SESSTAB_UNKNOWN);
    check_ok(sesstab_remove(table, 1));
    check_table(name);
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

static void a_wait_goes_on_when_signals_interrupt_it(void **state)
{
    struct sigaction action = { .sa_handler = do_nothing }, before;
    sesstab *table = selective_table(NULL);
    (void)state;
    insert_plain(table, 1);
    check(sigaction(SIGUSR1, &action, &before) == 0);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        become_child(parent);
        for (;;) {
            kill(parent, SIGUSR1);
            pause_ms(1);
        }
    }
    uint64_t start = milliseconds();
    check_result(sesstab_bind(table, 1, "#1", 200), SESSTAB_UNKNOWN);
    check(milliseconds() - start >= 190);
    start = milliseconds();
    check_result(sesstab_wait_ready(table, 200), SESSTAB_TIMEOUT);
    check(milliseconds() - start >= 190);
    kill_child(pid);
    sigaction(SIGUSR1, &before, NULL);
}

/* ---------------------------------------------------------------- owners ----------------- */

static void insert_and_tell(void *context)
{
    struct { sesstab *table; uint32_t owner; } *shared = context;
    insert_plain(shared->table, 1);
    shared->owner = sesstab_self(shared->table);
    check(sesstab_owner_alive(shared->table, shared->owner));
}

static void an_owner_that_ended_is_proved_dead(void **state)
{
    struct { sesstab *table; uint32_t owner; } *shared = shared_memory(sizeof *shared);
    (void)state;
    shared->table = memory_table();
    uint32_t own = sesstab_self(shared->table);
    check(own != 0);
    run_child(insert_and_tell, shared);
    check(shared->owner != 0 && shared->owner != own);
    check_equal(look(shared->table, 1).owner, shared->owner);
    check(!sesstab_owner_alive(shared->table, shared->owner));
    check(sesstab_owner_alive(shared->table, own));
    check(!sesstab_owner_alive(shared->table, 0));
    check(!sesstab_owner_alive(shared->table, UINT32_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_session_shows_what_it_was_given),
        TEST(a_session_without_particulars_has_empty_strings_and_begins_now),
        TEST(inserting_a_live_handle_again_is_told_so_and_changes_nothing),
        TEST(assigned_handles_are_new_and_never_zero),
        TEST(every_64_bit_number_is_a_handle),
        TEST(strings_are_taken_up_to_their_limits_and_not_beyond),
        TEST(bad_initial_metadata_inserts_nothing),
        TEST(an_unknown_handle_is_not_found_by_anything),
        TEST(a_removed_session_is_gone_and_its_handle_is_free_for_another),
        TEST(a_copy_outlives_the_session),
        TEST(a_buffer_that_is_too_small_is_told_the_size_it_needs),
        TEST(looking_is_not_touching),
        TEST(read_sections_nest),
        TEST(finding_outside_a_read_section_is_refused),
        TEST(finding_many_gives_what_finding_each_gives),
        TEST(a_view_stays_as_it_was_while_others_change_and_remove_it),
        TEST(last_seen_rises_and_never_falls),
        TEST(a_new_session_does_not_inherit_the_old_one_s_last_seen),
        TEST(touching_allocates_nothing),
        TEST(the_state_moves_and_tells_the_one_before),
        TEST(impossible_states_are_refused),
        TEST(who_moves_a_detached_session_owns_it),
        TEST(in_memory_mode_a_binding_is_final_at_once),
        TEST(a_player_must_have_a_name),
        TEST(without_a_persister_a_binding_stays_pending),
        TEST(a_wait_goes_on_when_signals_interrupt_it),
        TEST(an_owner_that_ended_is_proved_dead),
    };
    return run_all(tests);
}
