/*
 * How long a killed worker keeps its slot.
 *
 *     SIGKILL -- its memory is torn down --> its lock is free -- who notices? --> its slot is free
 *                       `lock`                                     `slot`
 *
 * `lock` is the kernel's own time, and grows with the memory that the worker has touched.  `slot`
 * is ours: with a persister it is what the watcher of deaths takes (tools/persister_watch.h),
 * without one it is what a process takes that opens the table at that moment.  The persister finds
 * no Redis here: deaths are noticed all the same.
 *
 * This process asks for the lock and looks at the slot in turn, without a pause.  Each victim lives
 * a random while, so that deaths meet the watcher in all its moments.
 */
#include "bench/bench.h"
#include "bench/sandbox.h"
#include "lib/table.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    KILLS_MAX = 100000,
    SEED = 1,
    CROWD_PROCESSES = 20, CROWD_HANDLES = 15, /* a worker for each handle */
    MOMENT_US = 100,
    SETTLED_US = 20000,    /* at random, at most: what a victim lives */
    LIMIT_NS = 2000000000  /* that a slot takes */
};

struct settings {
    size_t kills;
};

struct row {
    const char *where;   /* the victims live */
    const char *notices; /* their deaths */
    size_t megabytes;    /* that they touch */
    bool crowd;          /* many others are attached */
};

static const struct row rows[] = {
    { "here", "persister", 0, false },
    { "here", "persister", 256, false },
    { "elsewhere", "persister", 0, false },
    { "here", "persister", 0, true },
    { "here", "opener", 0, false },
    { "here", "opener", 256, false },
};
enum { ROWS = sizeof rows / sizeof *rows };

/* In shared memory. */
struct victim {
    sesstab *table;
    const struct row *row;
    _Atomic uint32_t self;
    _Atomic int pid; /* as we see it */
};

struct times {
    double lock, slot; /* ms */
};

static struct {
    sesstab *table;
    char name[SANDBOX_NAME_MAX];
    int probe;           /* a descriptor of the segment, to ask for locks */
    uint64_t random;
    struct victim *victim;
    pid_t crowd[CROWD_PROCESSES];
} stage = { .random = SEED };

/* ---------------------------------------------------------------- options --------------- */

enum { OPTION_KILLS = 256, OPTION_SMOKE };

static const struct argp_option options[] = {
    { "kills", OPTION_KILLS, "N", 0, "Workers killed for each row (200)", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "See that it runs: nothing to judge", 0 },
    { 0 }
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case OPTION_KILLS:
        s->kills = bench_number(argument, KILLS_MAX, "kills");
        return 0;
    case OPTION_SMOKE:
        s->kills = 3;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to do with \"%s\"", argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, NULL,
    "Measures how long a killed worker keeps its lock and its slot.\v"
    "Takes the persister from the directory SESSTAB_BIN (\"build\" when unset).\n\n"
    "Exit status: 0 measured, 1 failed, 64 wrong usage.",
    NULL, NULL, NULL
};

/* ---------------------------------------------------------------- victims --------------- */

static void must(int result, const char *what)
{
    if (result)
        bench_fail("%s: %s. %s", what, sesstab_strerror(result), sesstab_error_detail());
}

static void touch_memory(size_t bytes)
{
    if (!bytes)
        return;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, bytes, MADV_NOHUGEPAGE))
        bench_fail("%zu bytes of memory: %s", bytes, strerror(errno));
    memset(memory, 1, bytes);
}

static _Noreturn void be_victim(struct victim *v)
{
    uint64_t handle = 0;
    touch_memory(v->row->megabytes << 20);
    must(sesstab_insert(v->table, &handle, NULL), "insert");
    v->self = sesstab_self(v->table);
    for (;;)
        pause();
}

/* In a PID namespace the pid that the table shows is nobody's, or somebody else's, here. */
static void start_victim(void *victim)
{
    struct victim *v = victim;
    bool elsewhere = strcmp(v->row->where, "elsewhere") == 0;
    if (elsewhere && unshare(CLONE_NEWPID) != 0)
        bench_fail("unshare: %s", strerror(errno));
    pid_t pid = elsewhere ? fork() : 0;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        be_victim(v);
    }
    v->pid = pid;
    waitpid(pid, NULL, 0);
}

static void be_crowd(void *context)
{
    (void)context;
    for (int i = 0; i < CROWD_HANDLES; i++) {
        sesstab *table;
        must(sesstab_open(stage.name, NULL, &table), "open");
    }
    stage.victim->self = 1;
    for (;;)
        pause();
}

/* ---------------------------------------------------------------- one death ------------- */

static bool lock_is_free(uint32_t worker)
{
    struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1,
                       .l_start = (off_t)(stage.table->shm.at.workers +
                                          worker_index(worker) * sizeof(struct worker)) };
    if (fcntl(stage.probe, F_OFD_GETLK, &l))
        bench_fail("F_OFD_GETLK: %s", strerror(errno));
    return l.l_type == F_UNLCK;
}

/* The moment of an opener's death-notice is its own: it begins when the lock is free. */
static void notice(const struct row *row)
{
    sesstab *second;
    if (strcmp(row->notices, "opener"))
        return;
    must(sesstab_open(stage.name, NULL, &second), "open");
    sesstab_close(second);
}

static struct times watch_die(const struct row *row, pid_t pid, uint32_t self)
{
    uint64_t start = bench_clock(), now = start, lock = 0;
    if (kill(pid, SIGKILL))
        bench_fail("kill: %s", strerror(errno));
    while (!worker_gone(&stage.table->shm, self)) {
        now = bench_clock();
        if (now - start > LIMIT_NS)
            bench_fail("a dead worker's slot is not free after %d s", LIMIT_NS / 1000000000);
        if (!lock && lock_is_free(self)) {
            lock = now;
            notice(row);
        }
    }
    now = bench_clock();
    if (!lock) /* both at once */
        lock = now;
    return (struct times){ (double)(lock - start) / 1e6, (double)(now - lock) / 1e6 };
}

static struct times kill_one(const struct row *row)
{
    struct victim *v = stage.victim;
    *v = (struct victim){ .table = stage.table, .row = row };
    pid_t child = sandbox_child(start_victim, v);
    while (!v->self) {
        if (waitpid(child, NULL, WNOHANG) == child)
            bench_fail("the worker that was to be killed ended by itself");
        bench_pause_us(MOMENT_US);
    }
    bench_pause_us((unsigned)(bench_random(&stage.random) % SETTLED_US));
    struct times t = watch_die(row, v->pid ? v->pid : child, v->self);
    sandbox_kill(child);
    return t;
}

/* ---------------------------------------------------------------- rows ------------------ */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_quantiles(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    printf(" %8.3f %8.3f %8.3f", quantile(values, n, 0.5), quantile(values, n, 0.99),
           values[n - 1]);
}

static void run_row(const struct row *row, size_t kills)
{
    double *lock = bench_memory(kills, sizeof *lock), *slot = bench_memory(kills, sizeof *slot);
    for (size_t i = 0; i < kills; i++) {
        struct times t = kill_one(row);
        lock[i] = t.lock;
        slot[i] = t.slot;
    }
    printf("%-10s %-9s %5zu %7d %6zu", row->where, row->notices, row->megabytes,
           row->crowd ? CROWD_PROCESSES * CROWD_HANDLES + 3 : 3, kills);
    print_quantiles(lock, kills);
    print_quantiles(slot, kills);
    putchar('\n');
    fflush(stdout);
    free(lock);
    free(slot);
}

static void gather_crowd(void)
{
    for (int i = 0; i < CROWD_PROCESSES; i++) {
        stage.victim->self = 0;
        stage.crowd[i] = sandbox_child(be_crowd, NULL);
        while (!stage.victim->self)
            bench_pause_us(MOMENT_US);
    }
}

static void run_rows(size_t kills, const char *notices)
{
    for (int i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].notices, notices))
            continue;
        if (rows[i].crowd)
            gather_crowd();
        if (strcmp(rows[i].where, "elsewhere") || geteuid() == 0)
            run_row(&rows[i], kills);
        for (int k = 0; k < CROWD_PROCESSES && rows[i].crowd; k++)
            sandbox_kill(stage.crowd[k]);
    }
}

/* ---------------------------------------------------------------- main ------------------ */

static void open_stage(void)
{
    sandbox_table(stage.name, "deaths");
    must(sesstab_open(stage.name, &(sesstab_options){ .create = true }, &stage.table), "open");
    stage.probe = open(stage.table->shm.path, O_RDONLY | O_CLOEXEC);
    stage.victim = mmap(NULL, sizeof *stage.victim, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stage.probe < 0 || stage.victim == MAP_FAILED)
        bench_fail("%s: %s", stage.name, strerror(errno));
}

static pid_t start_persister(void)
{
    char path[256], nowhere[SANDBOX_PATH_MAX], url[SANDBOX_PATH_MAX + 8];
    const char *directory = getenv("SESSTAB_BIN");
    snprintf(path, sizeof path, "%s/persister", directory ? directory : "build");
    sandbox_path(nowhere, "no-redis");
    snprintf(url, sizeof url, "unix:%s", nowhere);
    const char *const argv[] = { path, "--table", stage.name, "--redis", url, NULL };
    pid_t pid = sandbox_program(argv, "persister.log");
    while (load_acquire(&stage.table->shm.header->worker_high) < 2) {
        sandbox_must_live(pid, "persister.log");
        bench_pause_us(MOMENT_US);
    }
    return pid;
}

int main(int argc, char **argv)
{
    struct settings settings = { .kills = 200 };
    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    sandbox_start();
    printf("# deaths: milliseconds from SIGKILL until the worker's lock is free, and from then "
           "until its slot is free\n"
           "# elsewhere: in a PID namespace of its own; opener: no persister, somebody opens the "
           "table then\n");
    bench_describe_machine(-1);
    printf("%-10s %-9s %5s %7s %6s %8s %8s %8s %8s %8s %8s\n", "victim", "noticed", "MB", "workers",
           "kills", "lock_p50", "lock_p99", "lock_max", "slot_p50", "slot_p99", "slot_max");
    open_stage();
    pid_t persister = start_persister();
    run_rows(settings.kills, "persister");
    sandbox_kill(persister);
    run_rows(settings.kills, "opener");
    return 0;
}
