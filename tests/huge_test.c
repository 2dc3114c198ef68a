/*
 * Huge pages: nothing but pages changes, no memory is taken for them, every process gets them, and
 * where the kernel has none this is said.
 */
#include "tests/harness.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { SESSIONS = 20000, STRETCH = 2 << 20 };

struct fixture {
    const char *name;
    sesstab *table;
    _Atomic bool stop;
    _Atomic unsigned met;
    uint64_t huge;        /* what a child has seen, bytes */
};

/* ---------------------------------------------------------------- set-up ---------------- */

static struct fixture *filled(uint64_t sessions)
{
    struct fixture *f = shared_memory(sizeof *f);
    f->name = new_name();
    f->table = open_table(f->name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
    for (uint64_t handle = 1; handle <= sessions; handle++)
        insert_plain(f->table, handle);
    return f;
}

static uint64_t bytes_of(const char *name)
{
    struct stat s;
    check(stat(object_path(name), &s) == 0);
    return (uint64_t)s.st_blocks * 512;
}

/* Asks for everything; how many stretches are huge pages, of how many. */
static uint64_t ask(sesstab *table, uint64_t *whole)
{
    uint64_t position = 0, huge = 0;
    int result;
    for (*whole = 0;; ++*whole) {
        result = sesstab_huge_page(table, &position);
        if (result != SESSTAB_OK && result != SESSTAB_NOMEMORY)
            break;
        huge += result == SESSTAB_OK;
    }
    check_either(result, SESSTAB_NOTFOUND, SESSTAB_UNSUPPORTED);
    return huge;
}

/* Skips the test where the kernel has none to give. */
static uint64_t must_get(sesstab *table)
{
    uint64_t whole, huge = ask(table, &whole);
    if (huge == 0) {
        print_message("the kernel gives no huge pages here: %s\n", sesstab_error_detail());
        skip();
    }
    check(huge <= whole);
    return huge;
}

/* Bytes of the table that this process has mapped as huge pages. */
static uint64_t mapped_huge(const char *name)
{
    char line[512];
    bool ours = false;
    uint64_t from, to, kib, sum = 0;
    FILE *f = fopen("/proc/self/smaps", "r");
    check(f != NULL);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2)
            ours = strstr(line, name) != NULL;
        if (ours && sscanf(line, "ShmemPmdMapped: %" SCNu64, &kib) == 1)
            sum += kib * 1024;
    }
    fclose(f);
    return sum;
}

/* ---------------------------------------------------------------- tests ----------------- */

static void they_take_no_memory_and_change_no_session(void **state)
{
    (void)state;
    struct fixture *f = filled(SESSIONS);
    uint64_t before = bytes_of(f->name);
    check(must_get(f->table) * STRETCH <= before);
    check_equal(bytes_of(f->name), before);
    check_equal(count_sessions(f->table), SESSIONS);
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        check_equal(look(f->table, handle).handle, handle);
}

static void a_table_that_is_smaller_than_one_gets_none(void **state)
{
    (void)state;
    uint64_t whole;
    struct fixture *f = filled(0);
    uint64_t before = bytes_of(f->name);
    check_equal(ask(f->table, &whole), 0);
    check_equal(whole, 0);
    check_equal(bytes_of(f->name), before);
}

static void what_grew_since_is_found_by_the_next_walk(void **state)
{
    (void)state;
    struct fixture *f = filled(SESSIONS);
    uint64_t before, after;
    must_get(f->table);
    ask(f->table, &before);
    for (uint64_t handle = SESSIONS + 1; handle <= 2 * SESSIONS; handle++)
        insert_plain(f->table, handle);
    ask(f->table, &after);
    check(after > before);
}

static void read_all(struct fixture *f, sesstab *table)
{
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        check_equal(look(table, handle).handle, handle);
    f->huge = mapped_huge(f->name);
}

static void read_in_another_process(void *context)
{
    struct fixture *f = context;
    sesstab *table;
    check_ok(sesstab_open(f->name, NULL, &table));
    read_all(f, table);
    check_equal(f->huge, 0);
    meet(&f->met, 2);
    meet(&f->met, 2);
    read_all(f, table);
    sesstab_close(table);
}

static void every_process_gets_them_without_asking(void **state)
{
    (void)state;
    struct fixture *f = filled(SESSIONS);
    pid_t other = start_child(read_in_another_process, f);
    meet(&f->met, 2);
    must_get(f->table);
    meet(&f->met, 2);
    join_child(other);
    check(f->huge >= STRETCH);
}

static void shmdump_tells_how_much_of_the_table(void **state)
{
    (void)state;
    struct fixture *f = filled(SESSIONS);
    char said[4096], wanted[96];
    must_get(f->table);
    check_equal(count_sessions(f->table), SESSIONS);
    snprintf(wanted, sizeof wanted, "\"huge_pages\":{\"bytes\":%" PRIu64, mapped_huge(f->name));
    const char *const argv[] = { program("shmdump"), "--json", f->name, NULL };
    check_equal(run_program(argv, said, sizeof said), 0);
    check(strstr(said, wanted) != NULL);
}

static void ask_in_a_child(void *context)
{
    struct fixture *f = context;
    uint64_t whole;
    f->huge = ask(f->table, &whole);
}

static void a_forked_child_may_ask_before_it_does_anything_else(void **state)
{
    (void)state;
    struct fixture *f = filled(SESSIONS);
    run_child(ask_in_a_child, f);
    uint64_t huge = must_get(f->table);
    check(f->huge > 0 && huge > 0);
}

/* Counts on its own sessions until it is told to stop; each must then be where it was left. */
static void count_until_told(void *context)
{
    struct fixture *f = context;
    uint64_t first = 1 + child_index * (SESSIONS / 2), turns = 0;
    int64_t sum;
    meet(&f->met, 3);
    while (!f->stop) {
        turns++;
        for (uint64_t i = 0; i < SESSIONS / 2; i += 97)
            check_ok(sesstab_increment(f->table, first + i, "n", 1, &sum));
        check_equal(sum, turns);
    }
    for (uint64_t i = 0; i < SESSIONS / 2; i += 97) {
        check_ok(sesstab_increment(f->table, first + i, "n", 0, &sum));
        check_equal(sum, turns);
    }
}

static void ask_again_and_again(void *context)
{
    struct fixture *f = context;
    uint64_t whole;
    meet(&f->met, 3);
    while (!f->stop)
        ask(f->table, &whole);
}

static void no_change_is_lost_meanwhile(void **state)
{
    (void)state;
    struct fixture *f = filled(SESSIONS);
    child_index = 0;
    pid_t one = start_child(count_until_told, f);
    child_index = 1;
    pid_t two = start_child(count_until_told, f);
    meet(&f->met, 3);
    must_get(f->table);
    f->stop = true;
    join_child(one);
    join_child(two);
}

static void who_is_killed_while_asking_leaves_nothing_behind(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 8; round++) {
        struct fixture *f = filled(SESSIONS);
        uint64_t before = bytes_of(f->name);
        atomic_store(&f->met, 1);
        pid_t asker = start_child(ask_again_and_again, f);
        meet(&f->met, 3);
        pause_ms((unsigned)random_below(10));
        kill_child(asker);
        check_equal(bytes_of(f->name), before);
        check_equal(count_sessions(f->table), SESSIONS);
        close_table(f->table);
    }
}

static void ask_without_any(void *context)
{
    struct fixture *f = context;
    uint64_t position = 0;
    check(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    check_result(sesstab_huge_page(f->table, &position), SESSTAB_UNSUPPORTED);
    check(strstr(sesstab_error_detail(), "MADV_COLLAPSE") != NULL);
}

static void where_the_kernel_has_none_it_is_said(void **state)
{
    (void)state;
    run_child(ask_without_any, filled(SESSIONS));
}

static void the_persister_asks_when_it_is_told_to(void **state)
{
    (void)state;
    static const char *const options[] = { "--huge-pages", NULL };
    const char *name = new_name();
    struct redis *redis = start_redis(NULL);
    start_persister(name, redis->url, options);
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    wait_until(file_says(persister_log(), "huge-pages"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(they_take_no_memory_and_change_no_session),
        TEST(a_table_that_is_smaller_than_one_gets_none),
        TEST(what_grew_since_is_found_by_the_next_walk),
        TEST(every_process_gets_them_without_asking),
        TEST(shmdump_tells_how_much_of_the_table),
        TEST(a_forked_child_may_ask_before_it_does_anything_else),
        TEST(no_change_is_lost_meanwhile),
        TEST(who_is_killed_while_asking_leaves_nothing_behind),
        TEST(where_the_kernel_has_none_it_is_said),
        TEST(the_persister_asks_when_it_is_told_to),
    };
    return run_all(tests);
}
