/*
 * What every test stands on: tables with names of their own, real processes, a real Redis, and
 * a clean-up that happens whatever becomes of the test.
 *
 *   T1  Every table's name begins with /sesstab-test-<pid>-.  A janitor process removes all of
 *       them, and the scratch directory, once the test process is gone, however it went.
 *   T2  Every process that is started here dies with the one that started it, at the latest when
 *       its test ends.
 *   T3  check() and its kin work in children and threads too: they say where; the child exits 1.
 *   T4  Nothing asserts a time.  wait_until() gives up only after a limit that means "never", and so
 *       does who asks Redis; a test that hangs elsewhere, its end too, is ended and says in what.
 *   T5  At the end of each test shmdump finds nothing wrong with the tables that are open.
 *   T6  What is random comes from one seed, printed on failure; SESSTAB_SEED repeats it.
 *
 * Programs are taken from the directory SESSTAB_BIN ("build" when unset).  SESSTAB_TEST, a name with
 * wildcards, chooses the tests that run.
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "lib/sesstab.h"

#define TEST(function) cmocka_unit_test_setup_teardown(function, test_begin, test_end)
#define run_all(tests)                                                                             \
    (cmocka_set_test_filter(getenv("SESSTAB_TEST")),                                               \
     cmocka_run_group_tests(tests, tests_start, tests_finish))

int tests_start(void **state);
int tests_finish(void **state);
int test_begin(void **state);
int test_end(void **state);

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* How often to do something: N, or a quarter of it where a sanitizer makes everything slow. */
#define rounds(n) (SANITIZED ? (n) / 4 : (n))

/* Skips the test unless it runs as root, and says WHY. */
#define need_root(why)                                                                             \
    do {                                                                                           \
        if (geteuid() != 0) {                                                                      \
            print_message("needs root to " why "\n");                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* ---------------------------------------------------------------- checks ---------------- */

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define check(condition)                                                                           \
    ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, "not true: %s", #condition))
#define check_result(call, expected)                                                               \
    check_result_at(__FILE__, __LINE__, #call, (int)(call), (int)(expected))
#define check_ok(call) check_result(call, SESSTAB_OK)
#define check_either(result, one, other)                                                           \
    ((result) == (int)(one) ? (void)0 : check_result(result, other))
#define check_equal(value, expected)                                                               \
    check_equal_at(__FILE__, __LINE__, #value, (uint64_t)(value), (uint64_t)(expected))
#define check_string(value, expected)                                                              \
    check_string_at(__FILE__, __LINE__, #value, (value), (expected))

void check_result_at(const char *file, int line, const char *what, int result, int expected);
void check_equal_at(const char *file, int line, const char *what, uint64_t value,
                    uint64_t expected);
void check_string_at(const char *file, int line, const char *what, const char *value,
                     const char *expected);

/* What this process waits for just now, in words that last as long; NULL: for nothing that is known.
 * The test that hangs says it. */
extern const char *_Atomic test_waits_for;

static inline bool test_says_what_for(const char *what)
{
    test_waits_for = what;
    return true;
}

#define TEST_LINE_(line) #line
#define TEST_LINE(line) TEST_LINE_(line)

/* Evaluates CONDITION again and again until it is true; after a minute the test has failed. */
#define wait_until(condition)                                                                      \
    do {                                                                                           \
        uint64_t wait_limit_ = milliseconds() + WAIT_LIMIT;                                        \
        while (test_says_what_for(__FILE__ ":" TEST_LINE(__LINE__) ": " #condition) &&             \
               !(condition)) {                                                                     \
            if (milliseconds() > wait_limit_)                                                      \
                test_fail(__FILE__, __LINE__, "never became true: %s", #condition);                \
            pause_ms(2);                                                                           \
        }                                                                                          \
        test_waits_for = NULL;                                                                     \
    } while (0)

enum {
    WAIT_LIMIT = 60000,
    HUNG_AFTER = 400 /* seconds, by alarm(2): longer than any test takes on the slowest machine */
};

uint64_t milliseconds(void); /* of a clock that never goes back */
void pause_ms(unsigned ms);

uint64_t random_number(void);
uint64_t random_below(uint64_t n);

/* ---------------------------------------------------------------- tables ---------------- */

/* A table name that nobody else uses; the last 64 of them stay valid. */
const char *new_name(void);

/* The object's path under /dev/shm; valid until the next call. */
const char *object_path(const char *name);

/* Opens a table, which must work.  The end of the test checks it as check_table() does, and closes
 * it. */
sesstab *open_table(const char *name, const sesstab_options *options);
void close_table(sesstab *table);

/* Creates one in mode MEMORY, or SELECTIVE, under a new name. */
sesstab *memory_table(void);
sesstab *selective_table(const char **name);

/* `shmdump --check` finds nothing wrong with the table. */
void check_table(const char *name);

/* A session with nothing but its number. */
void insert_plain(sesstab *table, uint64_t handle);

/* The session's view without a read section, its memory lent until the next call by this thread. */
sesstab_view look(sesstab *table, uint64_t handle);

/* The value of KEY in the view as a string; NULL when there is none. */
const char *metadata_of(const sesstab_view *view, const char *key);

/* How many sessions a whole walk sees. */
uint64_t count_sessions(sesstab *table);

/* ---------------------------------------------------------------- processes ------------- */

typedef void child_function(void *context);

/* Forks; the child calls FUNCTION and exits 0. */
pid_t start_child(child_function *function, void *context);

/* Waits for the child and checks that it exited 0. */
void join_child(pid_t pid);

/* Kills the process, which must not have ended by itself, and reaps it. */
void kill_child(pid_t pid);

/* One child, start to end; and COUNT of them at once, each with its own child_index from 0. */
void run_child(child_function *function, void *context);
void run_children(unsigned count, child_function *function, void *context);
extern unsigned child_index;

/* For a child that forked by itself: from here on it lives by T2 and T3. */
void become_child(pid_t parent);

/* Starts a program with its output in LOG (a file); ends with the test. */
pid_t start_program(const char *const argv[], const char *log);

/* Runs a program to its end; its exit status, and what it printed, cut to SIZE, in OUTPUT. */
int run_program(const char *const argv[], char *output, size_t size);

/* The path of one of our programs; valid until the next call. */
const char *program(const char *name);

/* Zeroed memory that parent and children share; given back when the test ends. */
void *shared_memory(size_t size);

/* Waits until COUNT processes have come here; *PLACE is in shared memory and used once more each
   time. */
void meet(_Atomic unsigned *place, unsigned count);

/* A directory of the test's own; and whether a file contains TEXT. */
const char *scratch_directory(void);
bool file_says(const char *path, const char *text);

/* ---------------------------------------------------------------- Redis ----------------- */

#define TEST_PREFIX "test"

struct redis {
    pid_t pid;
    char directory[96], socket[104], url[112];
    const char *const *options;
    redisContext *context;
};

/* A redis-server on a unix socket; OPTIONS: more of its options, NULL-terminated, or NULL. */
struct redis *start_redis(const char *const *options);
void kill_redis(struct redis *redis);    /* what it did not write is lost */
void restart_redis(struct redis *redis); /* after kill_redis(), with the files it has */

/* For a child that asks Redis beside its parent. */
void redis_own_connection(struct redis *redis);

/* One command; the reply is the caller's, and never an error. */
redisReply *redis_query(struct redis *redis, const char *format, ...);

/* One command whose reply must be an integer. */
long long redis_integer(struct redis *redis, const char *format, ...);

/* One command whose reply is a string, into BUFFER; false when it is nil. */
bool redis_text(struct redis *redis, char *buffer, size_t size, const char *format, ...);

/* Whether HGET KEY FIELD is VALUE. */
bool redis_field_is(struct redis *redis, const char *key, const char *field, const char *value);

/* How often Redis executed COMMAND (lower case). */
long long redis_calls(struct redis *redis, const char *command);

/* Waits until Redis holds exactly the table's sessions, field by field, and no binding waits. */
void wait_until_redis_equals(sesstab *table, struct redis *redis);

/* Whether it does now; if not, HOW it differs. */
bool redis_equals(sesstab *table, struct redis *redis, char *how, size_t size);

/* ---------------------------------------------------------------- persister ------------- */

/*
 * A persister for table NAME on the server at URL (NULL: EXTRA says where it is), which may create the
 * table; EXTRA: more options, NULL-terminated, or NULL.  What it says is in the file persister_log().
 */
pid_t start_persister(const char *name, const char *url, const char *const *extra);
const char *persister_log(void);

#endif
