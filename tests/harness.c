/*
 * The harness's tables, checks and processes; redis_harness.c has Redis and the persister.
 *
 * Everything that a test takes is in one list here and given back by test_end(), which cmocka calls
 * after a failure too.  What test_end() cannot do, because the process is gone, the janitor does.
 */
#include "tests/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/harness_private.h"

enum {
    NAMES_MAX = 64,
    TABLES_MAX = 32,
    CHILDREN_MAX = 256,
    AREAS_MAX = 16
};

static pid_t test_process;
static bool in_child, failed;
static uint64_t first_seed, random_state, forks;
static int janitor_pipe = -1;
static char directory[32];

static unsigned name_count;
static char names[NAMES_MAX][64];
static struct opened { sesstab *table; char name[SESSTAB_NAME_MAX + 1]; } tables[TABLES_MAX];
static pid_t children[CHILDREN_MAX];
static struct area { void *memory; size_t size; } areas[AREAS_MAX];

unsigned child_index;
const char *_Atomic test_waits_for;

/* ---------------------------------------------------------------- checks ---------------- */

void test_fail(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: %s%s  (SESSTAB_SEED=%llu)\n", file, line,
            in_child ? "in a child: " : "", text, (unsigned long long)first_seed);
    /* Only the test's own thread may jump back into cmocka. */
    if (in_child || gettid() != test_process)
        _exit(1);
    failed = true;
    redis_harness_explain();
    _fail(file, line);
    abort();
}

void check_result_at(const char *file, int line, const char *what, int result, int expected)
{
    if (result != expected)
        test_fail(file, line, "%s: \"%s\", expected \"%s\"", what, sesstab_strerror(result),
                  sesstab_strerror(expected));
}

void check_equal_at(const char *file, int line, const char *what, uint64_t value, uint64_t expected)
{
    if (value != expected)
        test_fail(file, line, "%s: %llu, expected %llu", what, (unsigned long long)value,
                  (unsigned long long)expected);
}

void check_string_at(const char *file, int line, const char *what, const char *value,
                     const char *expected)
{
    if (!value || strcmp(value, expected) != 0)
        test_fail(file, line, "%s: \"%s\", expected \"%s\"", what, value ? value : "(none)",
                  expected);
}

uint64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void pause_ms(unsigned ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };
    nanosleep(&t, NULL);
}

/* splitmix64: every state is a good one, also one derived from a child's number. */
uint64_t random_number(void)
{
    uint64_t z = (random_state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t random_below(uint64_t n)
{
    return random_number() % n;
}

/* ---------------------------------------------------------------- children -------------- */

static pid_t remember(pid_t pid)
{
    unsigned i = 0;
    check(pid > 0);
    while (i < CHILDREN_MAX && children[i])
        i++;
    check(i < CHILDREN_MAX);
    return children[i] = pid;
}

static void forget(pid_t pid)
{
    for (unsigned i = 0; i < CHILDREN_MAX; i++)
        if (children[i] == pid)
            children[i] = 0;
}

/* Its wait status, once it has ended. */
static int reap(pid_t pid)
{
    int status = 0;
    test_waits_for = "the end of a child";
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    test_waits_for = NULL;
    forget(pid);
    return status;
}

/* ---------------------------------------------------------------- start and end --------- */

/* A sanitizer that finds something ends the process: many of ours never come to their own end.  A child
 * of a process with threads may make one of its own. */
#if SANITIZED
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "halt_on_error=1:die_after_fork=0";
}
#endif

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

/* Removes the objects that this test process made in /dev/shm. */
static void remove_objects(pid_t of)
{
    char pattern[64];
    glob_t found;
    snprintf(pattern, sizeof pattern, "/dev/shm/sesstab-test-%d-*", (int)of);
    if (glob(pattern, 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++)
        remove(found.gl_pathv[i]);
    globfree(&found);
}

/* Waits for the end of the test process, which holds the pipe's other end, and tidies up. */
static void start_janitor(void)
{
    int ends[2];
    char byte;
    strcpy(directory, "/tmp/sesstab-test-XXXXXX");
    if (pipe2(ends, O_CLOEXEC) != 0 || mkdtemp(directory) == NULL)
        abort();
    janitor_pipe = ends[1];
    pid_t pid = fork();
    if (pid != 0) {
        close(ends[0]);
        return;
    }
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    close(ends[1]);
    if (freopen("/dev/null", "w", stdout) == NULL || freopen("/dev/null", "w", stderr) == NULL)
        _exit(1);
    while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
        ;
    remove_objects(test_process);
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    _exit(0);
}

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(2);
}

static void hung(int signal_number)
{
    const char *what = test_waits_for;
    (void)signal_number;
    say("the test hangs; it waits for ");
    say(what ? what : "something else than the harness knows");
    say("\n");
    _exit(1);
}

static bool table_is_fine(const char *name)
{
    char output[4096];
    const char *const argv[] = { program("shmdump"), "--check", name, NULL };
    int status = run_program(argv, output, sizeof output);
    if (status != 0)
        fprintf(stderr, "shmdump --check %s exited %d:\n%s\n", name, status, output);
    return status == 0;
}

void check_table(const char *name)
{
    check(table_is_fine(name));
}

/* Those that still have their names. */
static bool open_tables_are_fine(void)
{
    bool fine = true;
    for (unsigned i = 0; i < TABLES_MAX; i++) {
        bool seen = !tables[i].table || access(object_path(tables[i].name), F_OK) != 0;
        for (unsigned k = 0; k < i; k++)
            seen |= tables[k].table && strcmp(tables[k].name, tables[i].name) == 0;
        fine &= seen || table_is_fine(tables[i].name);
    }
    return fine;
}

int tests_start(void **state)
{
    (void)state;
    const char *given = getenv("SESSTAB_SEED");
    if (given)
        first_seed = strtoull(given, NULL, 0);
    else if (getrandom(&first_seed, sizeof first_seed, 0) != sizeof first_seed)
        return -1;
    test_process = getpid();
    setenv("TSAN_OPTIONS", "halt_on_error=1", 0); /* for the programs that we start */
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    start_janitor();
    return 0;
}

int tests_finish(void **state)
{
    (void)state;
    close(janitor_pipe);
    return 0;
}

int test_begin(void **state)
{
    (void)state;
    random_state = first_seed;
    forks = 0;
    failed = false;
    signal(SIGALRM, hung);
    alarm(HUNG_AFTER);
    return 0;
}

int test_end(void **state)
{
    (void)state;
    alarm(HUNG_AFTER); /* a child in the middle of a system call may take long to end */
    for (unsigned i = 0; i < CHILDREN_MAX; i++)
        if (children[i]) {
            kill(children[i], SIGKILL);
            reap(children[i]);
        }
    bool fine = failed || open_tables_are_fine();
    for (unsigned i = 0; i < TABLES_MAX; i++)
        if (tables[i].table)
            close_table(tables[i].table);
    for (unsigned i = 0; i < AREAS_MAX; i++)
        if (areas[i].memory)
            munmap(areas[i].memory, areas[i].size);
    memset(areas, 0, sizeof areas);
    remove_objects(test_process);
    alarm(0);
    return redis_harness_end() && fine ? 0 : -1;
}

/* ---------------------------------------------------------------- tables ---------------- */

const char *new_name(void)
{
    char *name = names[name_count % NAMES_MAX];
    snprintf(name, sizeof names[0], "/sesstab-test-%d-%u", (int)test_process, name_count++);
    return name;
}

const char *object_path(const char *name)
{
    static char path[SESSTAB_NAME_MAX + 16];
    snprintf(path, sizeof path, "/dev/shm%s", name);
    return path;
}

sesstab *open_table(const char *name, const sesstab_options *options)
{
    unsigned i = 0;
    while (i < TABLES_MAX && tables[i].table)
        i++;
    check(i < TABLES_MAX);
    sesstab *table = NULL;
    int result = sesstab_open(name, options, &table);
    if (result != SESSTAB_OK)
        test_fail(__FILE__, __LINE__, "opening %s: %s (%s)", name, sesstab_strerror(result),
                  sesstab_error_detail());
    snprintf(tables[i].name, sizeof tables[i].name, "%s", name);
    return tables[i].table = table;
}

void close_table(sesstab *table)
{
    for (unsigned i = 0; i < TABLES_MAX; i++)
        if (tables[i].table == table)
            tables[i].table = NULL;
    sesstab_close(table);
}

sesstab *memory_table(void)
{
    return open_table(new_name(), &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
}

sesstab *selective_table(const char **name)
{
    const char *chosen = new_name();
    if (name)
        *name = chosen;
    return open_table(chosen, &(sesstab_options){ .create = true });
}

void insert_plain(sesstab *table, uint64_t handle)
{
    check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .type = "test" }));
}

sesstab_view look(sesstab *table, uint64_t handle)
{
    static _Thread_local char buffer[SESSTAB_RECORD_MAX];
    size_t size = sizeof buffer;
    sesstab_view view;
    check_ok(sesstab_get(table, handle, &view, buffer, &size));
    return view;
}

const char *metadata_of(const sesstab_view *view, const char *key)
{
    const void *value;
    return sesstab_metadata(view, key, &value, NULL, NULL) == SESSTAB_OK ? value : NULL;
}

uint64_t count_sessions(sesstab *table)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    uint64_t count = 0;
    int result;
    while ((result = sesstab_next(table, &cursor, &view)) == SESSTAB_OK)
        count++;
    check_result(result, SESSTAB_NOTFOUND);
    return count;
}

/* ---------------------------------------------------------------- processes ------------- */

void become_child(pid_t parent)
{
    static const int caught_by_cmocka[] = { SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS, SIGALRM };
    in_child = true;
    memset(children, 0, sizeof children);
    for (size_t i = 0; i < sizeof caught_by_cmocka / sizeof *caught_by_cmocka; i++)
        signal(caught_by_cmocka[i], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

pid_t start_child(child_function *function, void *context)
{
    pid_t parent = getpid();
    fflush(NULL);
    random_state += ++forks << 32;
    pid_t pid = fork();
    if (pid == 0) {
        become_child(parent);
        function(context);
        _exit(0);
    }
    random_state -= forks << 32;
    return remember(pid);
}

void join_child(pid_t pid)
{
    int status = reap(pid);
    if (WIFSIGNALED(status))
        test_fail(__FILE__, __LINE__, "a child died by signal %d", WTERMSIG(status));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        test_fail(__FILE__, __LINE__, "a child exited %d", WEXITSTATUS(status));
}

void kill_child(pid_t pid)
{
    kill(pid, SIGKILL);
    int status = reap(pid);
    if (WIFEXITED(status))
        test_fail(__FILE__, __LINE__, "a child had exited %d before it was killed",
                  WEXITSTATUS(status));
}

void run_child(child_function *function, void *context)
{
    join_child(start_child(function, context));
}

void run_children(unsigned count, child_function *function, void *context)
{
    pid_t pids[CHILDREN_MAX];
    check(count <= CHILDREN_MAX);
    for (child_index = 0; child_index < count; child_index++)
        pids[child_index] = start_child(function, context);
    for (unsigned i = 0; i < count; i++)
        join_child(pids[i]);
}

/* In a new child: replaces it by the program. */
static _Noreturn void execute(const char *const argv[], int output)
{
    int input = open("/dev/null", O_RDONLY);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    close_range(3, ~0U, 0);
    signal(SIGPIPE, SIG_DFL);
    execvp(argv[0], (char *const *)argv);
    dprintf(STDERR_FILENO, "can't run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

pid_t start_program(const char *const argv[], const char *log)
{
    int output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    check(output >= 0);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        become_child(parent);
        execute(argv, output);
    }
    close(output);
    return remember(pid);
}

int run_program(const char *const argv[], char *output, size_t size)
{
    int ends[2];
    size_t used = 0;
    ssize_t got;
    char rest[512];
    check(pipe2(ends, O_CLOEXEC) == 0);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        become_child(parent);
        execute(argv, ends[1]);
    }
    remember(pid);
    close(ends[1]);
    test_waits_for = argv[0];
    do {
        bool room = used + 1 < size;
        got = read(ends[0], room ? output + used : rest, room ? size - 1 - used : sizeof rest);
        used += room && got > 0 ? (size_t)got : 0;
    } while (got > 0 || (got < 0 && errno == EINTR));
    output[used] = 0;
    close(ends[0]);
    int status = reap(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

const char *program(const char *name)
{
    static char path[512];
    const char *bin = getenv("SESSTAB_BIN");
    snprintf(path, sizeof path, "%s/%s", bin && *bin ? bin : "build", name);
    return path;
}

void *shared_memory(size_t size)
{
    unsigned i = 0;
    while (i < AREAS_MAX && areas[i].memory)
        i++;
    check(i < AREAS_MAX);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED);
    areas[i] = (struct area){ memory, size };
    return memory;
}

void meet(_Atomic unsigned *place, unsigned count)
{
    unsigned mine = atomic_fetch_add(place, 1), wanted = (mine / count + 1) * count;
    uint64_t limit = milliseconds() + WAIT_LIMIT;
    while (atomic_load(place) < wanted) {
        sched_yield();
        if (milliseconds() > limit)
            test_fail(__FILE__, __LINE__, "the others never came");
    }
}

const char *scratch_directory(void)
{
    return directory;
}

bool file_says(const char *path, const char *text)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, text) != NULL;
    if (file)
        fclose(file);
    return found;
}
