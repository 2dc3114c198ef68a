/*
 * Growth: what a session costs, all of the segment counted, and where the memory goes when
 * everybody has left.
 */
#include "tests/harness.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { SESSIONS = 30000 };

/* About what the benchmarks call usual: 200 bytes of fields, the handle counted. */
static void insert_usual(sesstab *table, uint64_t handle)
{
    static const sesstab_pair metadata[] = {
        { "width", "200", 3 }, { "height", "50", 2 }, { "charset", "UTF-8", 5 },
    };
    const sesstab_info info = { .address = "203.0.113.77", .host = "dsl-203-0-113-77.example.net",
                                .type = "telnet", .metadata = metadata, .metadata_count = 3 };
    char player[16];
    snprintf(player, sizeof player, "#%llu:17", (unsigned long long)handle);
    check_ok(sesstab_insert(table, &handle, &info));
    check_ok(sesstab_bind(table, handle, player, 0));
}

static void insert_many(sesstab *table, uint64_t count)
{
    for (uint64_t handle = 1; handle <= count; handle++)
        insert_usual(table, handle);
}

static uint64_t bytes_of(const char *name)
{
    struct stat s;
    check(stat(object_path(name), &s) == 0);
    return (uint64_t)s.st_blocks * 512;
}

/* Counted, not measured: from 100,000 sessions on. */
static void a_usual_session_takes_at_most_400_bytes(void **state)
{
    (void)state;
    const char *name = new_name();
    sesstab *table = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
    insert_many(table, 100000);
    check(bytes_of(name) <= 400 * 100000);
}

static void an_empty_table_takes_less_than_64_kib(void **state)
{
    (void)state;
    const char *name = new_name();
    open_table(name, &(sesstab_options){ .create = true });
    check(bytes_of(name) <= 64 << 10);
}

/* ---------------------------------------------------------------- threads --------------- */

enum { THREADS_AT_ONCE = 100 };

struct crowd {
    sesstab *table;
    pthread_barrier_t all_in, all_out;
};

static void *attend(void *context)
{
    struct crowd *crowd = context;
    check_ok(sesstab_attach(crowd->table));
    pthread_barrier_wait(&crowd->all_in);
    pthread_barrier_wait(&crowd->all_out);
    return NULL;
}

/* A ring each; and a page of lines and one of tickets more, from the 65th on. */
static void a_thread_takes_its_memory_when_it_comes(void **state)
{
    (void)state;
    const char *name = new_name();
    struct crowd crowd = { .table = open_table(name, &(sesstab_options){ .create = true }) };
    pthread_t threads[THREADS_AT_ONCE];
    uint64_t before = bytes_of(name);
    pthread_barrier_init(&crowd.all_in, NULL, THREADS_AT_ONCE + 1);
    pthread_barrier_init(&crowd.all_out, NULL, THREADS_AT_ONCE + 1);
    for (unsigned i = 0; i < THREADS_AT_ONCE; i++)
        check(pthread_create(&threads[i], NULL, attend, &crowd) == 0);
    pthread_barrier_wait(&crowd.all_in);
    check_equal(bytes_of(name), before + (THREADS_AT_ONCE + 2) * 4096);
    pthread_barrier_wait(&crowd.all_out);
    for (unsigned i = 0; i < THREADS_AT_ONCE; i++)
        check(pthread_join(threads[i], NULL) == 0);
}

/* ---------------------------------------------------------------- leaving --------------- */

/* A /dev/shm of this process's own, so that nobody else's memory is counted. */
static void own_shm(void)
{
    check(unshare(CLONE_NEWNS) == 0);
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    check(mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=64m") == 0);
}

static uint64_t free_blocks(void)
{
    struct statvfs s;
    check(statvfs("/dev/shm", &s) == 0);
    return s.f_bfree;
}

static void leave_and_come_back(void *context)
{
    const char *name = context;
    const sesstab_options options = { .create = true, .mode = SESSTAB_MEMORY };
    sesstab *one, *two;
    own_shm();
    uint64_t all = free_blocks();
    check_ok(sesstab_open(name, &options, &one));
    insert_many(one, SESSIONS);
    uint64_t left = free_blocks();
    check(left < all);
    sesstab_close(one); /* the last one leaves: the table stays */
    check_equal(free_blocks(), left);
    check_ok(sesstab_open(name, NULL, &one));
    check_equal(count_sessions(one), SESSIONS);
    check_ok(sesstab_open(name, NULL, &two));
    check_ok(sesstab_unlink(name)); /* for those who have it open it stays */
    sesstab_close(one);
    check(free_blocks() <= left);
    check_equal(count_sessions(two), SESSIONS);
    sesstab_close(two);
    check_equal(free_blocks(), all);
}

static void memory_goes_back_when_the_name_is_removed_and_the_last_has_left(void **state)
{
    (void)state;
    need_root("mount a /dev/shm of its own");
    run_child(leave_and_come_back, (void *)new_name());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_usual_session_takes_at_most_400_bytes),
        TEST(an_empty_table_takes_less_than_64_kib),
        TEST(a_thread_takes_its_memory_when_it_comes),
        TEST(memory_goes_back_when_the_name_is_removed_and_the_last_has_left),
    };
    return run_all(tests);
}
