/*
 * The index by player: it shows all sessions of one player and nobody else's, also while bindings
 * change hands.
 */
#include "tests/harness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What sesstab_by_player() showed: at most so many handles. */
struct found {
    const char *player;
    unsigned count;
    uint64_t handles[2048];
};

static int collect(const sesstab_view *view, void *context)
{
    struct found *found = context;
    check_string(view->player, found->player);
    check_equal(view->player_length, strlen(found->player));
    check(found->count < sizeof found->handles / sizeof *found->handles);
    found->handles[found->count++] = view->handle;
    return 0;
}

static struct found sessions_of(sesstab *table, const char *player)
{
    struct found found = { .player = player };
    check_ok(sesstab_by_player(table, player, collect, &found));
    return found;
}

static unsigned times_in(const struct found *found, uint64_t handle)
{
    unsigned times = 0;
    for (unsigned i = 0; i < found->count; i++)
        times += found->handles[i] == handle;
    return times;
}

static void bind_now(sesstab *table, uint64_t handle, const char *player)
{
    check_ok(sesstab_bind(table, handle, player, 0));
}

/* ---------------------------------------------------------------- one process ------------ */

static void a_player_s_sessions_are_found_and_no_others(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    for (uint64_t handle = 1; handle <= 30; handle++)
        insert_plain(table, handle);
    for (uint64_t handle = 1; handle <= 20; handle++)
        bind_now(table, handle, handle % 2 ? "odd" : "even");
    struct found odd = sessions_of(table, "odd"), even = sessions_of(table, "even");
    check_equal(odd.count, 10);
    check_equal(even.count, 10);
    for (uint64_t handle = 1; handle <= 20; handle++) {
        check_equal(times_in(&odd, handle), handle % 2);
        check_equal(times_in(&even, handle), 1 - handle % 2);
    }
    check_equal(sessions_of(table, "nobody").count, 0);
    check_equal(sessions_of(table, "od").count, 0);
}

static void a_binding_that_ends_is_found_no_more(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    for (uint64_t handle = 1; handle <= 3; handle++) {
        insert_plain(table, handle);
        bind_now(table, handle, "player");
    }
    check_ok(sesstab_unbind(table, 1, 0));
    check_ok(sesstab_remove(table, 2));
    bind_now(table, 3, "another");
    check_equal(sessions_of(table, "player").count, 0);
    check_equal(sessions_of(table, "another").count, 1);
    insert_plain(table, 2);
    check_equal(sessions_of(table, "player").count, 0);
    bind_now(table, 3, "player");
    check_equal(sessions_of(table, "player").count, 1);
}

static void a_session_bound_a_hundred_times_is_found_once(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    for (int i = 0; i < 100; i++) {
        bind_now(table, 1, "to");
        bind_now(table, 1, "fro");
        if (i % 3 == 0)
            check_ok(sesstab_unbind(table, 1, 0));
        bind_now(table, 1, "to");
        bind_now(table, 1, "to");
    }
    check_equal(sessions_of(table, "to").count, 1);
    check_equal(sessions_of(table, "fro").count, 0);
}

static void one_player_can_have_a_thousand_sessions(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    for (uint64_t handle = 1; handle <= 1000; handle++) {
        insert_plain(table, handle);
        bind_now(table, handle, "guest");
    }
    struct found guests = sessions_of(table, "guest");
    check_equal(guests.count, 1000);
    for (uint64_t handle = 1; handle <= 1000; handle++)
        check_equal(times_in(&guests, handle), 1);
    for (uint64_t handle = 1; handle <= 1000; handle += 2)
        check_ok(sesstab_remove(table, handle));
    check_equal(sessions_of(table, "guest").count, 500);
}

static int stop_at_third(const sesstab_view *view, void *context)
{
    (void)view;
    return ++*(int *)context == 3 ? 77 : 0;
}

static void the_function_can_end_the_walk(void **state)
{
    sesstab *table = memory_table();
    int calls = 0;
    (void)state;
    for (uint64_t handle = 1; handle <= 10; handle++) {
        insert_plain(table, handle);
        bind_now(table, handle, "player");
    }
    check_equal(sesstab_by_player(table, "player", stop_at_third, &calls), 77);
    check_equal(calls, 3);
}

static void the_player_must_have_a_name(void **state)
{
    sesstab *table = memory_table();
    struct found found = { .player = "" };
    (void)state;
    insert_plain(table, 1);
    check_result(sesstab_by_player(table, "", collect, &found), SESSTAB_INVALID);
    check_result(sesstab_by_player(table, NULL, collect, &found), SESSTAB_INVALID);
    check_equal(found.count, 0);
}

/* Tens of thousands of players: the index grows on the way. */
static void everybody_is_found_in_a_crowd(void **state)
{
    sesstab *table = memory_table();
    char player[32];
    (void)state;
    for (uint64_t handle = 1; handle <= 40000; handle++) {
        insert_plain(table, handle);
        snprintf(player, sizeof player, "#%llu:1", (unsigned long long)handle);
        bind_now(table, handle, player);
    }
    for (uint64_t handle = 1; handle <= 40000; handle++) {
        snprintf(player, sizeof player, "#%llu:1", (unsigned long long)handle);
        struct found found = { .player = player };
        check_ok(sesstab_by_player(table, player, collect, &found));
        check_equal(found.count, 1);
        check_equal(found.handles[0], handle);
    }
}

/* ---------------------------------------------------------------- many processes --------- */

enum { STEADY = 20, RESTLESS = 12, REBINDERS = 3 };
static const char *const players[] = { "steady", "a", "b", "c" };

/* Rebinds, unbinds, removes and inserts the sessions above STEADY, all rebinders the same ones. */
static void rebind_until_killed(void *context)
{
    sesstab *table = context;
    for (;;) {
        uint64_t handle = STEADY + 1 + random_below(RESTLESS);
        int result = SESSTAB_OK;
        switch (random_below(8)) {
        case 0:
            result = sesstab_remove(table, handle);
            break;
        case 1:
            result = sesstab_unbind(table, handle, 0);
            break;
        default:
            result = sesstab_bind(table, handle, players[random_below(4)], 0);
        }
        if (result == SESSTAB_NOTFOUND)
            result = sesstab_insert(table, &handle, NULL);
        check_either(result, SESSTAB_OK, SESSTAB_EXISTS);
    }
}

static sesstab *table_with_a_steady_player(void)
{
    sesstab *table = memory_table();
    for (uint64_t handle = 1; handle <= STEADY; handle++) {
        insert_plain(table, handle);
        bind_now(table, handle, "steady");
    }
    return table;
}

static void a_steady_binding_is_never_missed_while_others_change(void **state)
{
    sesstab *table = table_with_a_steady_player();
    pid_t pids[REBINDERS];
    (void)state;
    for (int i = 0; i < REBINDERS; i++)
        pids[i] = start_child(rebind_until_killed, table);
    for (int i = 0; i < rounds(40000); i++) {
        struct found found = sessions_of(table, "steady");
        for (uint64_t handle = 1; handle <= STEADY; handle++)
            check_equal(times_in(&found, handle), 1);
        sessions_of(table, players[1 + i % 3]);
    }
    for (int i = 0; i < REBINDERS; i++)
        kill_child(pids[i]);
}

/* The rebinders are killed wherever they are; what each session says is what the index says. */
static void after_kills_the_index_and_the_sessions_agree(void **state)
{
    sesstab *table = table_with_a_steady_player();
    const unsigned times = rounds(80);
    (void)state;
    for (unsigned i = 0; i < times; i++) {
        pid_t pids[2] = { start_child(rebind_until_killed, table),
                          start_child(rebind_until_killed, table) };
        pause_ms((unsigned)random_below(12));
        kill_child(pids[0]);
        kill_child(pids[1]);
        for (unsigned p = 0; p < 4; p++) {
            struct found found = sessions_of(table, players[p]);
            unsigned expected = 0;
            sesstab_cursor cursor = { 0 };
            sesstab_view view;
            while (sesstab_next(table, &cursor, &view) == SESSTAB_OK) {
                bool bound = strcmp(view.player, players[p]) == 0;
                expected += bound;
                check_equal(times_in(&found, view.handle), bound);
            }
            check_equal(found.count, expected);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_player_s_sessions_are_found_and_no_others),
        TEST(a_binding_that_ends_is_found_no_more),
        TEST(a_session_bound_a_hundred_times_is_found_once),
        TEST(one_player_can_have_a_thousand_sessions),
        TEST(the_function_can_end_the_walk),
        TEST(the_player_must_have_a_name),
        TEST(everybody_is_found_in_a_crowd),
        TEST(a_steady_binding_is_never_missed_while_others_change),
        TEST(after_kills_the_index_and_the_sessions_agree),
    };
    return run_all(tests);
}
