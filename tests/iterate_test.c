/*
 * Walks over the whole table and over parts of it, in one go and in pieces, while others write.
 */
#include "tests/harness.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEADY = 5000,          /* handles 1 to STEADY are there all the time  */
    FLEETING = 1000000      /* handles from here on come and go            */
};

static sesstab *table_of_steady_sessions(void)
{
    sesstab *table = memory_table();
    for (uint64_t handle = 1; handle <= STEADY; handle++)
        insert_plain(table, handle);
    return table;
}

/* How often each steady session was seen. */
struct tally { uint8_t seen[STEADY + 1]; };

static void count_view(struct tally *tally, const sesstab_view *view)
{
    check_string(view->type, "test");
    if (view->handle < FLEETING) {
        check(view->handle >= 1 && view->handle <= STEADY);
        tally->seen[view->handle]++;
    }
}

static void check_each_once(const struct tally *tally)
{
    for (int i = 1; i <= STEADY; i++)
        if (tally->seen[i] != 1)
            test_fail(__FILE__, __LINE__, "session %d was seen %d times", i, tally->seen[i]);
}

/* Walks to the end of the cursor, pausing now and then if PAUSES; how many were seen. */
static uint64_t walk(sesstab *table, sesstab_cursor cursor, struct tally *tally, bool pauses)
{
    sesstab_view view;
    uint64_t count = 0;
    int result;
    while ((result = sesstab_next(table, &cursor, &view)) == SESSTAB_OK) {
        count_view(tally, &view);
        count++;
        if (pauses && random_below(5) == 0)
            sesstab_pause(table, &cursor);
    }
    check_result(result, SESSTAB_NOTFOUND);
    return count;
}

/* ---------------------------------------------------------------- quiet table ------------ */

static void an_empty_table_has_nothing_to_show(void **state)
{
    sesstab *table = memory_table();
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    (void)state;
    check_result(sesstab_next(table, &cursor, &view), SESSTAB_NOTFOUND);
    check_result(sesstab_next(table, &cursor, &view), SESSTAB_NOTFOUND);
    insert_plain(table, 1);
    check_equal(count_sessions(table), 1);
}

static void a_walk_sees_every_session_once(void **state)
{
    sesstab *table = table_of_steady_sessions();
    struct tally tally = { { 0 } };
    (void)state;
    check_equal(walk(table, (sesstab_cursor){ 0 }, &tally, false), STEADY);
    check_each_once(&tally);
}

static void a_walk_goes_on_where_it_paused(void **state)
{
    sesstab *table = table_of_steady_sessions();
    struct tally tally = { { 0 } };
    (void)state;
    check_equal(walk(table, (sesstab_cursor){ 0 }, &tally, true), STEADY);
    check_each_once(&tally);
}

static void a_pause_leaves_the_read_section(void **state)
{
    sesstab *table = table_of_steady_sessions();
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    (void)state;
    sesstab_pause(table, &cursor);
    check_ok(sesstab_next(table, &cursor, &view));
    sesstab_pause(table, &cursor);
    sesstab_pause(table, &cursor);
    check(!cursor.open_);
    check_ok(sesstab_next(table, &cursor, &view));
    sesstab_pause(table, &cursor);
}

static void parts_together_are_the_whole(void **state)
{
    static const unsigned parts[] = { 1, 2, 3, 7, 64, 1000, 100000 };
    sesstab *table = table_of_steady_sessions();
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct tally tally = { { 0 } };
        uint64_t count = 0;
        for (unsigned part = 0; part < parts[i]; part++)
            count += walk(table, sesstab_part(part, parts[i]), &tally, false);
        check_equal(count, STEADY);
        check_each_once(&tally);
    }
}

static void one_thread_can_walk_twice_at_once(void **state)
{
    sesstab *table = table_of_steady_sessions();
    sesstab_cursor outer = { 0 };
    sesstab_view view;
    struct tally tally = { { 0 } };
    uint64_t count = 0;
    (void)state;
    while (sesstab_next(table, &outer, &view) == SESSTAB_OK) {
        count_view(&tally, &view);
        if (count++ % 1000 == 0)
            check_equal(count_sessions(table), STEADY);
        check_string(view.type, "test");
    }
    check_each_once(&tally);
}

struct handed_over { sesstab *table; sesstab_cursor cursor; struct tally tally; };

static void walk_the_rest(void *context)
{
    struct handed_over *shared = context;
    walk(shared->table, shared->cursor, &shared->tally, false);
}

static void another_process_can_finish_a_paused_walk(void **state)
{
    struct handed_over *shared = shared_memory(sizeof *shared);
    sesstab_view view;
    (void)state;
    shared->table = table_of_steady_sessions();
    for (int i = 0; i < STEADY / 3; i++) {
        check_ok(sesstab_next(shared->table, &shared->cursor, &view));
        count_view(&shared->tally, &view);
    }
    sesstab_pause(shared->table, &shared->cursor);
    run_child(walk_the_rest, shared);
    check_each_once(&shared->tally);
}

/* ---------------------------------------------------------------- while others write ----- */

/* Inserts and removes around the steady sessions, grows the table, and changes the steady ones. */
static void write_until_killed(void *context)
{
    sesstab *table = context;
    uint64_t base = FLEETING + child_index * 1000000ULL;
    for (uint64_t i = 0;; i++) {
        uint64_t handle = base + random_below(i < 30000 ? i + 1 : 30000);
        int result = sesstab_insert(table, &handle, &(sesstab_info){ .type = "test" });
        if (result == SESSTAB_EXISTS)
            check_ok(sesstab_remove(table, handle));
        else
            check_ok(result);
        check_ok(sesstab_set(table, 1 + random_below(STEADY), "i", &i, sizeof i));
    }
}

static void a_steady_session_is_seen_once_while_others_come_and_go(void **state)
{
    sesstab *table = table_of_steady_sessions();
    pid_t pids[2];
    (void)state;
    for (child_index = 0; child_index < 2; child_index++)
        pids[child_index] = start_child(write_until_killed, table);
    wait_until(count_sessions(table) > STEADY + 1000);
    for (int i = 0; i < rounds(80); i++) {
        struct tally tally = { { 0 } };
        walk(table, (sesstab_cursor){ 0 }, &tally, i % 2);
        check_each_once(&tally);
        struct tally parts = { { 0 } };
        for (unsigned part = 0; part < 5; part++)
            walk(table, sesstab_part(part, 5), &parts, i % 2);
        check_each_once(&parts);
    }
    kill_child(pids[0]);
    kill_child(pids[1]);
    struct tally tally = { { 0 } };
    walk(table, (sesstab_cursor){ 0 }, &tally, false);
    check_each_once(&tally);
}

static void a_walk_survives_the_removal_of_everything_it_stands_on(void **state)
{
    sesstab *table = table_of_steady_sessions();
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    uint64_t count = 0;
    (void)state;
    while (sesstab_next(table, &cursor, &view) == SESSTAB_OK) {
        uint64_t handle = view.handle;
        count++;
        if (count % 2)
            sesstab_pause(table, &cursor);
        check_ok(sesstab_remove(table, handle));
    }
    check_equal(count, STEADY);
    check_equal(count_sessions(table), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_table_has_nothing_to_show),
        TEST(a_walk_sees_every_session_once),
        TEST(a_walk_goes_on_where_it_paused),
        TEST(a_pause_leaves_the_read_section),
        TEST(parts_together_are_the_whole),
        TEST(one_thread_can_walk_twice_at_once),
        TEST(another_process_can_finish_a_paused_walk),
        TEST(a_steady_session_is_seen_once_while_others_come_and_go),
        TEST(a_walk_survives_the_removal_of_everything_it_stands_on),
    };
    return run_all(tests);
}
