/*
 * A table grows from nothing to N sessions while others read it.  How long is the longest pause
 * that the writer or a reader sees, what does a session cost along the way, and is all of it given
 * back when everyone has left?
 *
 *   N1  Everybody spends as much time on the table as on reading the clock and nothing else, in
 *       turns, a few operations long.  A pause between two readings of the clock is the machine's
 *       doing; so one longest pause stands beside the other: same process, same time, same method.
 *   N2  Time in which a process was ready to run and had no processor (/proc/.../schedstat) is not
 *       the table's doing.  The `own` part of a pause is what remains: computing, in the program
 *       and in the kernel, and waiting for anything else.  On a virtual machine it includes what
 *       the hypervisor takes, and the own part of the clock's pauses shows how much that is.
 *   N3  A reader looks for sessions that are there, and must find each.
 */
#include "bench/bench.h"
#include "bench/persist/output.h"
#include "bench/persist/stage.h"
#include "bench/results.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SESSIONS_MAX = 100000000,
    READERS_MAX = 16,
    STEPS = 50,           /* points of the curve */
    LONG_NS = 1000000,    /* a pause that growth must not make */
    LOOK_NS = 20000       /* a pause in which the process may have waited for a processor */
};

struct settings {
    size_t sessions, readers;
    const char *json, *curve;
    bool smoke;
};

/* ---------------------------------------------------------------- options --------------- */

enum { OPTION_SMOKE = 256, OPTION_READERS, OPTION_CURVE, OPTION_JSON };

static const struct argp_option options[] = {
    { "sessions", 'n', "N", 0, "Grow to N sessions (10000000)", 0 },
    { "readers", OPTION_READERS, "N", 0, "Processes that read meanwhile (1)", 0 },
    { "curve", OPTION_CURVE, "FILE", 0, "Write how it was along the way here", 0 },
    { "json", OPTION_JSON, "FILE", 0, "Write the figures here as well", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "See that everything runs: small, short, nothing to judge", 0 },
    { 0 }
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case 'n':
        s->sessions = bench_number(argument, SESSIONS_MAX, "sessions");
        if (s->sessions < STEPS)
            argp_error(state, "--sessions: at least %d", STEPS);
        return 0;
    case OPTION_READERS:
        s->readers = bench_number(argument, READERS_MAX, "readers");
        return 0;
    case OPTION_CURVE:
        s->curve = argument;
        return 0;
    case OPTION_JSON:
        s->json = argument;
        return 0;
    case OPTION_SMOKE:
        s->smoke = true;
        s->sessions = 50000;
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
    "Lets a table grow while others read it.\v"
    "SESSTAB_SEED chooses other sessions to be read than the usual.\n\n"
    "Exit status: 0 measured, 1 failed, 64 wrong usage.",
    NULL, NULL, NULL
};

/* ---------------------------------------------------------------- pauses ---------------- */

/* What somebody saw while he used the table, or while he only looked at the clock; nanoseconds. */
struct pauses {
    uint64_t total;
    uint64_t longest[STEPS], longest_own[STEPS]; /* by step; N2                                */
    uint64_t over, over_own;                     /* how many were long, and their own part was */
};

struct watcher {
    _Alignas(64) struct pauses table;
    struct pauses clock;
    int schedstat;                  /* of the thread */
    uint64_t waited;                /* for a processor, so far */
};

/* The growing table; shared with the readers.  What one writes shares no cache line with what
 * another reads. */
struct growth {
    sesstab *table;
    size_t sessions, readers;
    uint64_t seed;
    struct results *curve;     /* the writer's */
    _Alignas(64) _Atomic uint64_t inserted; /* sessions 1 .. inserted are there */
    _Atomic size_t step, reading; /* reading: readers that have found one */
    _Atomic bool over;
    struct watcher watchers[1 + READERS_MAX]; /* the writer's, the readers'; each by itself */
};

/* Nanoseconds that the thread has waited for a processor. */
static uint64_t waited(const struct watcher *w)
{
    char text[96] = "";
    unsigned long long delay;
    if (pread(w->schedstat, text, sizeof text - 1, 0) < 0 || sscanf(text, "%*u %llu", &delay) != 1)
        bench_fail("/proc/thread-self/schedstat: %s", strerror(errno));
    return delay;
}

static void watch(struct watcher *w)
{
    w->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    w->waited = waited(w);
}

/* Of a pause that has just ended. */
static uint64_t own_part(struct watcher *w, uint64_t ns)
{
    uint64_t before = w->waited;
    if (ns < LOOK_NS)
        return ns;
    w->waited = waited(w);
    return ns > w->waited - before ? ns - (w->waited - before) : 0;
}

static void raise_to(uint64_t *highest, uint64_t value)
{
    if (value > *highest)
        *highest = value;
}

static void note(struct watcher *w, struct pauses *p, size_t step, uint64_t ns)
{
    uint64_t own = own_part(w, ns);
    p->total += ns;
    raise_to(&p->longest[step], ns);
    raise_to(&p->longest_own[step], own);
    p->over += ns > LONG_NS;
    p->over_own += own > LONG_NS;
}

/* An operation that began at START has ended; then as much time for the clock (N1). */
static void note_operation(struct watcher *w, size_t step, uint64_t start)
{
    uint64_t now, last = bench_clock();
    note(w, &w->table, step, last - start);
    for (; w->clock.total < w->table.total; last = now) {
        now = bench_clock();
        note(w, &w->clock, step, now - last);
    }
}

/* ---------------------------------------------------------------- readers --------------- */

struct reader {
    struct growth *growth;
    size_t index;
};

static volatile uint64_t sink; /* what was read is used */

static uint64_t read_one(struct growth *g, uint64_t handle)
{
    sesstab_view view;
    must(sesstab_read_begin(g->table), "read_begin");
    must(sesstab_find(g->table, handle, &view), "find a session that is there"); /* N3 */
    uint64_t words = view.connected_at + (unsigned char)view.address[0];
    sesstab_read_end(g->table);
    return words;
}

static void read_until_over(void *context)
{
    const struct reader *r = context;
    struct growth *g = r->growth;
    struct watcher *w = &g->watchers[1 + r->index];
    uint64_t random = g->seed + r->index, there;
    must(sesstab_attach(g->table), "attach");
    while (!(there = atomic_load(&g->inserted)))
        bench_pause_us(10);
    sink += read_one(g, there);
    atomic_fetch_add(&g->reading, 1);
    for (watch(w); !atomic_load(&g->over); there = atomic_load(&g->inserted)) {
        size_t step = atomic_load(&g->step);
        uint64_t handle = 1 + bench_random(&random) % there, start = bench_clock();
        sink += read_one(g, handle);
        note_operation(w, step, start);
    }
}

static void start_readers(struct growth *g, pid_t *pids)
{
    for (size_t i = 0; i < g->readers; i++)
        pids[i] = sandbox_child(read_until_over, &(struct reader){ g, i });
}

static void must_read(const struct growth *g, const pid_t *pids)
{
    for (size_t i = 0; i < g->readers; i++)
        sandbox_must_live(pids[i], "reader.log");
}

/* They leave by themselves, and say by their exit whether they found everything. */
static void end_readers(struct growth *g, const pid_t *pids)
{
    for (; atomic_load(&g->reading) < g->readers; bench_pause_us(1000))
        must_read(g, pids);
    atomic_store(&g->over, true);
    for (size_t i = 0; i < g->readers; i++) {
        siginfo_t how;
        waitid(P_PID, (id_t)pids[i], &how, WEXITED | WNOWAIT);
        if (how.si_code != CLD_EXITED || how.si_status != 0)
            bench_fail("a reader failed");
        sandbox_kill(pids[i]); /* which reaps it */
    }
}

/* ---------------------------------------------------------------- the writer ------------ */

/* A usual session comes, and its player logs in. */
static void write_one(struct growth *g, uint64_t handle)
{
    struct watcher *w = &g->watchers[0];
    size_t step = atomic_load(&g->step);
    char player[PLAYER_BYTES];
    player_of(handle, player);
    uint64_t start = bench_clock();
    must(sesstab_insert(g->table, &handle, &usual_info), "insert");
    note_operation(w, step, start);
    start = bench_clock();
    must(sesstab_bind(g->table, handle, player, 0), "bind");
    note_operation(w, step, start);
    atomic_store(&g->inserted, handle);
}

/* Bytes that the whole segment takes. */
static uint64_t segment_bytes(const char *name)
{
    char path[SANDBOX_PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "/dev/shm%s", name);
    if (stat(path, &status) != 0)
        bench_fail("%s: %s", path, strerror(errno));
    return (uint64_t)status.st_blocks * 512;
}

/* ---------------------------------------------------------------- the curves ------------ */

static double us(uint64_t ns)
{
    return (double)ns / 1000;
}

static void put_point(const struct growth *g, const char *row, const char *who, size_t sessions,
                      const char *unit, double value)
{
    results_figure(g->curve, row, who, sessions, unit, (struct spread){ value, value, value });
}

/* What watchers FIRST .. END - 1 have seen in a step. */
static void put_who_step(const struct growth *g, const char *who, size_t first, size_t end,
                         size_t step, size_t sessions)
{
    uint64_t table = 0, clock = 0;
    char clock_name[24];
    for (size_t i = first; i < end; i++) {
        raise_to(&table, g->watchers[i].table.longest_own[step]);
        raise_to(&clock, g->watchers[i].clock.longest_own[step]);
    }
    snprintf(clock_name, sizeof clock_name, "%s-clock", who);
    put_point(g, "own-pause", who, sessions, "us", us(table));
    put_point(g, "own-pause", clock_name, sessions, "us", us(clock));
}

static void put_step(const struct growth *g, size_t step, size_t sessions, uint64_t bytes)
{
    put_point(g, "bytes", "sesstab", sessions, "bytes", (double)bytes / (double)sessions);
    put_who_step(g, "writer", 0, 1, step, sessions);
    put_who_step(g, "readers", 1, 1 + g->readers, step, sessions);
}

static void grow(struct growth *g, const char *name, const pid_t *readers)
{
    struct progress progress = { .what = "sessions", .total = g->sessions };
    watch(&g->watchers[0]);
    for (size_t step = 0; step < STEPS; step++) {
        size_t end = (size_t)((double)g->sessions * (double)(step + 1) / STEPS);
        atomic_store(&g->step, step);
        for (uint64_t handle = g->inserted + 1; handle <= end; handle++)
            write_one(g, handle);
        must_read(g, readers);
        put_step(g, step, end, segment_bytes(name));
        progress_show(&progress, end);
    }
}

/* ---------------------------------------------------------------- all told -------------- */

/* Of several watchers' pauses together; the longest of all steps into the first. */
static void add_pauses(struct pauses *all, const struct pauses *p)
{
    for (size_t i = 0; i < STEPS; i++) {
        raise_to(&all->longest[0], p->longest[i]);
        raise_to(&all->longest_own[0], p->longest_own[i]);
    }
    all->total += p->total;
    all->over += p->over;
    all->over_own += p->over_own;
}

static void put_pauses(size_t sessions, const char *who, const struct pauses *p)
{
    output_single("longest-pause", who, sessions, "us", us(p->longest[0]));
    output_single("longest-own-pause", who, sessions, "us", us(p->longest_own[0]));
    output_single("pauses-over-1ms", who, sessions, "times", (double)p->over);
    output_single("own-pauses-over-1ms", who, sessions, "times", (double)p->over_own);
    output_single("watched", who, sessions, "s", (double)p->total / 1e9);
}

/*
 * Two counts over equal times, of things that happen by chance: their difference has a standard
 * deviation of about the root of their sum.
 */
static double beyond_chance(const struct pauses *table, const struct pauses *clock)
{
    double sum = (double)(table->over_own + clock->over_own);
    return sum > 0 ? ((double)table->over_own - (double)clock->over_own) / sqrt(sum) : 0;
}

static void put_who(const struct growth *g, const char *who, size_t first, size_t end)
{
    struct pauses table = { 0 }, clock = { 0 };
    char clock_name[24];
    for (size_t i = first; i < end; i++) {
        add_pauses(&table, &g->watchers[i].table);
        add_pauses(&clock, &g->watchers[i].clock);
    }
    snprintf(clock_name, sizeof clock_name, "%s-clock", who);
    put_pauses(g->sessions, who, &table);
    put_pauses(g->sessions, clock_name, &clock);
    goal_at_most(beyond_chance(&table, &clock), 2, g->sessions,
                 "own pauses over 1 ms, %s: deviations beyond the clock's", who);
}

/* ---------------------------------------------------------------- memory ---------------- */

static double free_memory(void)
{
    struct statvfs shm;
    if (statvfs("/dev/shm", &shm) != 0)
        bench_fail("/dev/shm: %s", strerror(errno));
    return (double)shm.f_bfree * (double)shm.f_frsize;
}

/* The readers have left; now the writer does.  (Who else uses /dev/shm meanwhile shows.) */
static void leave(struct growth *g, const char *name)
{
    double taken = (double)segment_bytes(name), before = free_memory();
    sesstab_close(g->table);
    must(sesstab_unlink(name), "unlink");
    double given_back = 100 * (free_memory() - before) / taken;
    output_single("bytes-per-session", "sesstab", g->sessions, "bytes",
                  taken / (double)g->sessions);
    output_single("memory-given-back", "sesstab", g->sessions, "percent", given_back);
    goal_at_most(taken / (double)g->sessions, 400, g->sessions, "bytes per usual session");
    goal_at_least(given_back, 99, g->sessions, "memory given back, percent");
}

/* ---------------------------------------------------------------- main ------------------ */

static void print_notes(void)
{
    output_note("row", "longest-pause", "of an operation, or between two readings of the clock");
    output_note("row", "*own-pause*", "without the time of waiting for a processor");
    output_note("row", "memory-given-back", "when everyone had left and the name was removed");
    output_note("contender", "writer", "inserts usual sessions and binds each, in mode MEMORY");
    output_note("contender", "readers", "look for random ones");
    output_note("contender", "*-clock", "the same process for as long, only looking at the clock");
}

static struct growth *share_growth(void)
{
    struct growth *g = mmap(NULL, sizeof *g, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                            0);
    if (g == MAP_FAILED)
        bench_fail("mmap: %s", strerror(errno));
    return g;
}

static void run(const struct settings *settings)
{
    char name[SANDBOX_NAME_MAX];
    pid_t readers[READERS_MAX];
    struct growth *g = share_growth();
    g->sessions = settings->sessions;
    g->readers = settings->readers;
    g->seed = bench_seed();
    g->curve = results_new("growth-curve");
    sandbox_table(name, "growth");
    must(sesstab_open(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY },
                      &g->table), "open");
    start_readers(g, readers);
    grow(g, name, readers);
    end_readers(g, readers);
    results_write(g->curve, settings->curve);
    output_header();
    put_who(g, "writer", 0, 1);
    put_who(g, "readers", 1, 1 + g->readers);
    leave(g, name);
}

int main(int argc, char **argv)
{
    struct settings settings = { .sessions = 10000000, .readers = 1 };
    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    sandbox_start();
    output_begin("growth", !settings.smoke);
    print_notes();
    run(&settings);
    output_end(settings.json);
    return 0;
}
