/*
 * Forks, execs, threads, and two tables in one process.
 */
#include "tests/harness.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOBODY = 65534 };

static int64_t number_of(sesstab *table, uint64_t handle, const char *key)
{
    sesstab_view view = look(table, handle);
    const char *value = metadata_of(&view, key);
    return value ? atoll(value) : 0;
}

/* ---------------------------------------------------------------- fork ------------------- */

struct family {
    _Atomic unsigned start;
    _Atomic bool stop;
    sesstab *table;
    uint32_t owner;
};

static void write_thousands(struct family *family, uint64_t base)
{
    meet(&family->start, 2);
    for (uint64_t i = 0; i < 3000; i++) {
        insert_plain(family->table, base + i);
        check_ok(sesstab_increment(family->table, 1, "n", 1, NULL));
        check_equal(look(family->table, base + i).owner, sesstab_self(family->table));
    }
}

static void write_as_child(void *family)
{
    write_thousands(family, 100000);
}

static void a_child_uses_its_parent_s_table_at_once_and_both_write(void **state)
{
    struct family *family = shared_memory(sizeof *family);
    (void)state;
    family->table = memory_table();
    insert_plain(family->table, 1);
    pid_t pid = start_child(write_as_child, family);
    write_thousands(family, 200000);
    join_child(pid);
    check_equal(number_of(family->table, 1, "n"), 6000);
    check_equal(count_sessions(family->table), 6001);
    check(look(family->table, 100000).owner != look(family->table, 200000).owner);
}

static void have_child_that_stays(void *context)
{
    struct family *family = context;
    insert_plain(family->table, 1);
    family->owner = sesstab_self(family->table);
    if (fork() == 0) {
        alarm(2 * WAIT_LIMIT / 1000); /* it outlives its parent, but not for ever */
        meet(&family->start, 3);
        while (!family->stop)
            pause_ms(1);
        _exit(0);
    }
    meet(&family->start, 3);
    for (;;)
        pause();
}

static void a_killed_worker_is_dead_although_its_child_lives(void **state)
{
    struct family *family = shared_memory(sizeof *family);
    (void)state;
    family->table = memory_table();
    pid_t pid = start_child(have_child_that_stays, family);
    meet(&family->start, 3);
    check(sesstab_owner_alive(family->table, family->owner));
    kill_child(pid);
    wait_until(!sesstab_owner_alive(family->table, family->owner));
    family->stop = true;
}

static void do_nothing(void *context)
{
    (void)context;
}

static void a_child_that_only_forks_and_exits_disturbs_nothing(void **state)
{
    sesstab *table = memory_table();
    sesstab_view view;
    (void)state;
    insert_plain(table, 1);
    uint32_t self = sesstab_self(table);
    check_ok(sesstab_read_begin(table));
    check_ok(sesstab_find(table, 1, &view));
    for (int i = 0; i < 20; i++)
        run_child(do_nothing, NULL);
    check_string(view.type, "test");
    sesstab_read_end(table);
    check(sesstab_owner_alive(table, self));
    check_equal(sesstab_self(table), self);
    check_equal(look(table, 1).state, SESSTAB_CONNECTED);
    insert_plain(table, 2);
    check_equal(count_sessions(table), 2);
}

/* Replaces session 1 and everything around it, so that unprotected memory would be used again. */
static void churn_in_child(void *table)
{
    for (int round = 0; round < 5; round++)
        for (uint64_t i = 0; i < 2000; i++) {
            uint64_t handle = 1 + i % 20;
            sesstab_remove(table, handle);
            check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .type = "child" }));
        }
    check_ok(sesstab_read_begin(table));
    sesstab_read_end(table);
}

static void a_fork_inside_a_read_section_leaves_the_parent_s_section_alone(void **state)
{
    sesstab *table = memory_table();
    sesstab_view view;
    (void)state;
    uint64_t handle = 1;
    check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .host = "parent.example" }));
    check_ok(sesstab_read_begin(table));
    check_ok(sesstab_find(table, 1, &view));
    for (int i = 0; i < 3; i++) {
        run_child(churn_in_child, table);
        check_string(view.host, "parent.example");
        check_string(view.type, "");
    }
    sesstab_read_end(table);
    check_string(look(table, 1).type, "child");
}

static void close_in_child(void *table)
{
    sesstab_close(table);
}

static void use_and_close_in_child(void *table)
{
    insert_plain(table, 77);
    sesstab_close(table);
}

static void closing_in_a_child_leaves_the_parent_attached(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    uint32_t self = sesstab_self(table);
    insert_plain(table, 1);
    run_child(close_in_child, table);
    run_child(use_and_close_in_child, table);
    check(sesstab_owner_alive(table, self));
    check(!sesstab_owner_alive(table, look(table, 77).owner));
    insert_plain(table, 2);
    check_equal(sesstab_self(table), self);
    check_equal(count_sessions(table), 3);
}

static void have_grandchild(void *table)
{
    insert_plain(table, 10);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        become_child(parent);
        insert_plain(table, 11);
        _exit(0);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0);
    insert_plain(table, 12);
}

static void grandchildren_are_workers_too(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    run_child(have_grandchild, table);
    check(look(table, 10).owner != look(table, 11).owner);
    check_equal(look(table, 10).owner, look(table, 12).owner);
}

/* fork handlers of libraries do not run in this kind of child. */
static void a_child_made_without_fork_handlers_is_a_worker_too(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    pid_t parent = getpid(), pid = _Fork();
    if (pid == 0) {
        become_child(parent);
        for (uint64_t handle = 100; handle < 2000; handle++)
            insert_plain(table, handle);
        _exit(0);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0);
    insert_plain(table, 2);
    check(look(table, 100).owner != sesstab_self(table));
    check_equal(count_sessions(table), 1902);
}

static void change_once(void *table)
{
    check_ok(sesstab_increment(table, 1, "n", 1, NULL));
}

/* More of them than there are places: the dead ones' places must be found again. */
static void a_thousand_children_one_after_the_other_find_a_place(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    for (int i = 0; i < SESSTAB_WORKERS_MAX + 76; i++)
        run_child(change_once, table);
    check_equal(number_of(table, 1, "n"), SESSTAB_WORKERS_MAX + 76);
}

static void sleep_in_section(void *context)
{
    struct family *family = context;
    check_ok(sesstab_read_begin(family->table));
    meet(&family->start, 2);
    for (;;)
        pause();
}

/* A stopped reader pins what was alive when it stopped, and no more. */
static void a_stopped_reader_does_not_make_the_table_grow(void **state)
{
    const char *name = new_name();
    struct family *family = shared_memory(sizeof *family);
    (void)state;
    family->table = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY,
                                                         .max_bytes = 64 << 20 });
    for (uint64_t handle = 1; handle <= 100; handle++)
        insert_plain(family->table, handle);
    pid_t pid = start_child(sleep_in_section, family);
    meet(&family->start, 2);
    kill(pid, SIGSTOP);
    for (int i = 0; i < rounds(1000000); i++)
        check_ok(sesstab_increment(family->table, 1 + (uint64_t)i % 100, "n", 1, NULL));
    for (int i = 0; i < rounds(400000); i++) {
        insert_plain(family->table, 1000);
        check_ok(sesstab_remove(family->table, 1000));
    }
    kill_child(pid);
    check_table(name);
}

/* ---------------------------------------------------------------- exec, privileges ------- */

static void insert_and_exec(void *context)
{
    struct family *family = context;
    insert_plain(family->table, 1);
    family->owner = sesstab_self(family->table);
    meet(&family->start, 2);
    execl("/bin/sleep", "sleep", "1000", (char *)NULL);
}

static void exec_ends_a_worker(void **state)
{
    struct family *family = shared_memory(sizeof *family);
    (void)state;
    family->table = memory_table();
    pid_t pid = start_child(insert_and_exec, family);
    meet(&family->start, 2);
    wait_until(!sesstab_owner_alive(family->table, family->owner));
    check(kill(pid, 0) == 0);
    kill_child(pid);
}

static void lose_sight(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/root", scratch_directory());
    mkdir(path, 0755);
    check(chroot(path) == 0 && chdir("/") == 0);
    check(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

static void attach_then_lose_sight(void *table)
{
    check_ok(sesstab_attach(table));
    check_ok(sesstab_attach(table));
    lose_sight();
    for (uint64_t handle = 100; handle < 200; handle++)
        insert_plain(table, handle);
    check(look(table, 100).owner == sesstab_self(table));
}

static void lose_sight_then_attach(void *table)
{
    uint64_t handle = 300;
    lose_sight();
    check_result(sesstab_attach(table), SESSTAB_STALE);
    check(strlen(sesstab_error_detail()) >= 20);
    check_result(sesstab_insert(table, &handle, NULL), SESSTAB_STALE);
    check_result(sesstab_read_begin(table), SESSTAB_STALE);
    check_result(sesstab_touch(table, 1, 0), SESSTAB_STALE);
}

static void a_child_attaches_before_it_drops_its_privileges(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    need_root("change the root directory and the user");
    insert_plain(table, 1);
    run_child(attach_then_lose_sight, table);
    run_child(lose_sight_then_attach, table);
    check_equal(count_sessions(table), 101);
}

/* ---------------------------------------------------------------- threads ---------------- */

enum { THREADS_AT_ONCE = 8 };

static void *increment_as_thread(void *table)
{
    for (int i = 0; i < rounds(4000); i++) {
        check_ok(sesstab_increment(table, 1, "n", 1, NULL));
        sesstab_view view = look(table, 1);
        check(metadata_of(&view, "n") != NULL);
    }
    return NULL;
}

static void run_threads(unsigned count, void *(*function)(void *), void *context)
{
    pthread_t threads[THREADS_AT_ONCE];
    for (unsigned i = 0; i < count; i++)
        check(pthread_create(&threads[i], NULL, function, context) == 0);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void threads_need_no_set_up(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    run_threads(THREADS_AT_ONCE, increment_as_thread, table);
    check_equal(number_of(table, 1, "n"), THREADS_AT_ONCE * rounds(4000));
}

static void threads_in_child(void *table)
{
    run_threads(THREADS_AT_ONCE, increment_as_thread, table);
}

static void threads_of_several_processes_work_side_by_side(void **state)
{
    const char *name = new_name();
    sesstab *table = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
    (void)state;
    insert_plain(table, 1);
    run_children(3, threads_in_child, table);
    check_equal(number_of(table, 1, "n"), 3 * THREADS_AT_ONCE * rounds(4000));
    check_table(name);
}

/* The other thread comes first, then the thread that forked; each in a section of its own. */
static void *section_as_thread(void *context)
{
    struct family *family = context;
    check_ok(sesstab_read_begin(family->table));
    meet(&family->start, 2);
    meet(&family->start, 2); /* the forking thread's section has begun and ended */
    check_ok(sesstab_find(family->table, 1, &(sesstab_view){ 0 }));
    sesstab_read_end(family->table);
    return NULL;
}

static void use_beside_another_thread(void *context)
{
    struct family *family = context;
    pthread_t thread;
    check(pthread_create(&thread, NULL, section_as_thread, family) == 0);
    meet(&family->start, 2);
    check_result(sesstab_find(family->table, 1, &(sesstab_view){ 0 }), SESSTAB_INVALID);
    check_ok(sesstab_read_begin(family->table));
    sesstab_read_end(family->table);
    meet(&family->start, 2);
    pthread_join(thread, NULL);
    insert_plain(family->table, 2);
}

static void in_a_child_the_forking_thread_and_another_are_two(void **state)
{
    struct family *family = shared_memory(sizeof *family);
    (void)state;
    family->table = memory_table();
    insert_plain(family->table, 1);
    run_child(use_beside_another_thread, family);
    check_equal(count_sessions(family->table), 2);
}

static void *touch_as_thread(void *table)
{
    check_ok(sesstab_read_begin(table));
    sesstab_read_end(table);
    check_ok(sesstab_set(table, 1, "n", "1", 1));
    return NULL;
}

/* More threads than there are places, one after the other. */
static void a_thread_that_ends_gives_its_place_back(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_plain(table, 1);
    for (int i = 0; i < SESSTAB_THREADS_MAX + 100; i++)
        run_threads(1, touch_as_thread, table);
}

static void *end_in_section(void *table)
{
    check_ok(sesstab_read_begin(table));
    return NULL;
}

static void a_thread_that_ends_inside_a_section_leaves_it(void **state)
{
    sesstab *table = open_table(new_name(), &(sesstab_options){
        .create = true, .mode = SESSTAB_MEMORY, .max_bytes = 64 << 20 });
    (void)state;
    run_threads(4, end_in_section, table);
    for (uint64_t i = 0; i < 200000; i++) {
        insert_plain(table, 1);
        check_ok(sesstab_remove(table, 1));
    }
}

/* ---------------------------------------------------------------- two tables ------------- */

static void use_both(void *context)
{
    sesstab **tables = context;
    for (uint64_t i = 0; i < 500; i++) {
        check_ok(sesstab_increment(tables[0], 1, "n", 1, NULL));
        check_ok(sesstab_increment(tables[1], 1, "n", 2, NULL));
    }
}

static void two_tables_in_one_process_are_independent(void **state)
{
    sesstab *tables[2] = { memory_table(), memory_table() };
    sesstab_view one, two;
    (void)state;
    insert_plain(tables[0], 1);
    insert_plain(tables[1], 1);
    insert_plain(tables[1], 2);
    run_children(3, use_both, tables);
    use_both(tables);
    check_equal(number_of(tables[0], 1, "n"), 2000);
    check_equal(number_of(tables[1], 1, "n"), 4000);
    check_ok(sesstab_read_begin(tables[0]));
    check_ok(sesstab_read_begin(tables[1]));
    check_ok(sesstab_find(tables[0], 1, &one));
    check_ok(sesstab_find(tables[1], 1, &two));
    check_string(metadata_of(&one, "n"), "2000");
    check_string(metadata_of(&two, "n"), "4000");
    sesstab_read_end(tables[0]);
    check_string(metadata_of(&two, "n"), "4000");
    sesstab_read_end(tables[1]);
    check_equal(count_sessions(tables[0]), 1);
    check_equal(count_sessions(tables[1]), 2);
    close_table(tables[0]);
    check_equal(number_of(tables[1], 1, "n"), 4000);
}

static void one_table_opened_twice_gives_two_workers(void **state)
{
    const char *name = new_name();
    sesstab *first = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
    sesstab *second = open_table(name, NULL);
    (void)state;
    insert_plain(first, 1);
    insert_plain(second, 2);
    check(sesstab_self(first) != sesstab_self(second));
    check_equal(count_sessions(first), 2);
    close_table(first);
    check(!sesstab_owner_alive(second, look(second, 1).owner));
    check(sesstab_owner_alive(second, look(second, 2).owner));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_child_uses_its_parent_s_table_at_once_and_both_write),
        TEST(a_killed_worker_is_dead_although_its_child_lives),
        TEST(a_child_that_only_forks_and_exits_disturbs_nothing),
        TEST(a_fork_inside_a_read_section_leaves_the_parent_s_section_alone),
        TEST(closing_in_a_child_leaves_the_parent_attached),
        TEST(grandchildren_are_workers_too),
        TEST(a_child_made_without_fork_handlers_is_a_worker_too),
        TEST(a_thousand_children_one_after_the_other_find_a_place),
        TEST(a_stopped_reader_does_not_make_the_table_grow),
        TEST(exec_ends_a_worker),
        TEST(a_child_attaches_before_it_drops_its_privileges),
        TEST(two_tables_in_one_process_are_independent),
        TEST(one_table_opened_twice_gives_two_workers),
        TEST(threads_need_no_set_up),
        TEST(in_a_child_the_forking_thread_and_another_are_two),
        TEST(threads_of_several_processes_work_side_by_side),
        TEST(a_thread_that_ends_gives_its_place_back),
        TEST(a_thread_that_ends_inside_a_section_leaves_it),
    };
    return run_all(tests);
}
