/*
 * A table grows from nothing to N sessions while others read it.  How long is the longest pause
 * that the writer or a reader sees, what does a session cost along the way, and is all of it given
 * back when everyone has left?
 *
 *   N1  Everybody spends as much time on a table that does not grow (sessions come and go in it),
 *       and on reading the clock and nothing else, as on the table that grows; in turns, a few
 *       operations long: same process, same time, same method.  A pause between two readings of
 *       the clock is the machine's doing, and what the still table shows as well is not growth's.
 *   N2  Time in which a process was ready to run and had no processor (/proc/.../schedstat) is not
 *       the table's doing.  The `own` part of a pause is what remains: computing, in the program
 *       and in the kernel, and waiting for anything else.  On a virtual machine it includes what
 *       the hypervisor takes, and the own part of the clock's pauses shows how much that is.
 *   N3  A reader looks for sessions that are there, and must find each.
 *   N4  An operation in which the table has grown is known as such: it is a growth step.
 */
#include "bench/bench.h"
#include "bench/persist/output.h"
#include "bench/persist/stage.h"
#include "bench/results.h"
#include "lib/table.h"

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
    STILL = 100000,       /* sessions of the table that does not grow */
    STEPS = 50,           /* points of the curve */
    USUAL_BYTES = 430,    /* of a session, generously, to see whether there is room for all */
    RESERVE = 512 << 20,  /* bytes of memory that are left to others */
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

/* What somebody saw while he did one thing; nanoseconds. */
struct pauses {
    uint64_t total;
    uint64_t longest[STEPS], longest_own[STEPS]; /* by step; N2                                */
    uint64_t over, over_own;                     /* how many were long, and their own part was */
};

/* What he did: used the table that grows, the one that does not, looked at the clock; and the
 * writer's growth steps, which are among the first, once more. */
enum { GROWING, STILL_TABLE, CLOCK, GROWTH_STEP, DOINGS };
static const char *const doings[DOINGS] = { "", "-still", "-clock", "-growth-step" };

struct watcher {
    _Alignas(64) struct pauses seen[DOINGS];
    int schedstat;                  /* of the thread */
    uint64_t waited;                /* for a processor, so far */
};

/* The growing table; shared with the readers.  What one writes shares no cache line with what
 * another reads. */
struct growth {
    sesstab *table, *still;
    size_t sessions, readers;
    uint64_t seed;
    struct results *curve;     /* the writer's */
    double *steps;             /* own parts of the growth steps, ns; the writer's */
    size_t step_count;
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

static void raise_most(uint64_t *highest, uint64_t value)
{
    if (value > *highest)
        *highest = value;
}

static void add(struct pauses *p, size_t step, uint64_t ns, uint64_t own)
{
    p->total += ns;
    raise_most(&p->longest[step], ns);
    raise_most(&p->longest_own[step], own);
    p->over += ns > LONG_NS;
    p->over_own += own > LONG_NS;
}

/* Something has just ended; returns its own part. */
static uint64_t note(struct watcher *w, unsigned doing, size_t step, uint64_t ns)
{
    uint64_t own = own_part(w, ns);
    add(&w->seen[doing], step, ns, own);
    return own;
}

/* As much time for the clock as there was for the table (N1). */
static void look_at_clock(struct watcher *w, size_t step)
{
    uint64_t now, last = bench_clock();
    for (; w->seen[CLOCK].total < w->seen[GROWING].total; last = now) {
        now = bench_clock();
        note(w, CLOCK, step, now - last);
    }
}

/* ---------------------------------------------------------------- readers --------------- */

struct reader {
    struct growth *growth;
    size_t index;
};

static volatile uint64_t sink; /* what was read is used */

static uint64_t read_one(sesstab *table, uint64_t handle)
{
    sesstab_view view;
    must(sesstab_read_begin(table), "read_begin");
    must(sesstab_find(table, handle, &view), "find a session that is there"); /* N3 */
    uint64_t words = view.connected_at + (unsigned char)view.address[0];
    sesstab_read_end(table);
    return words;
}

static void read_noted(struct watcher *w, unsigned doing, size_t step, sesstab *table,
                       uint64_t handle)
{
    uint64_t start = bench_clock();
    sink += read_one(table, handle);
    note(w, doing, step, bench_clock() - start);
}

/* The writer's sessions come and go in the upper half of the still table. */
static void read_in_turns(struct growth *g, struct watcher *w, uint64_t there, uint64_t *random)
{
    size_t step = atomic_load(&g->step);
    read_noted(w, GROWING, step, g->table, 1 + bench_random(random) % there);
    while (w->seen[STILL_TABLE].total < w->seen[GROWING].total)
        read_noted(w, STILL_TABLE, step, g->still, 1 + bench_random(random) % (STILL / 2));
    look_at_clock(w, step);
}

static void read_until_over(void *context)
{
    const struct reader *r = context;
    struct growth *g = r->growth;
    struct watcher *w = &g->watchers[1 + r->index];
    uint64_t random = g->seed + r->index, there;
    must(sesstab_attach(g->table), "attach");
    must(sesstab_attach(g->still), "attach");
    while (!(there = atomic_load(&g->inserted)))
        bench_pause_us(10);
    sink += read_one(g->table, there);
    atomic_fetch_add(&g->reading, 1);
    for (watch(w); !atomic_load(&g->over); there = atomic_load(&g->inserted))
        read_in_turns(g, w, there, &random);
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

/* Chunks of memory that the table has by now. */
static uint64_t chunks_of(const sesstab *table)
{
    return load_relaxed(&table->shm.header->committed);
}

/* An operation on the growing table began at START, when that had CHUNKS (N4). */
static void note_growing(struct growth *g, size_t step, uint64_t start, uint64_t chunks)
{
    struct watcher *w = &g->watchers[0];
    uint64_t ns = bench_clock() - start, own = note(w, GROWING, step, ns);
    if (chunks_of(g->table) == chunks)
        return;
    add(&w->seen[GROWTH_STEP], step, ns, own);
    g->steps[g->step_count++] = (double)own;
}

/* A usual session comes, and its player logs in.  False: there is no room. */
static bool write_one(struct growth *g, size_t step, uint64_t handle)
{
    char player[PLAYER_BYTES];
    player_of(handle, player);
    uint64_t chunks = chunks_of(g->table), start = bench_clock();
    int result = sesstab_insert(g->table, &handle, &usual_info);
    note_growing(g, step, start, chunks);
    chunks = chunks_of(g->table);
    start = bench_clock();
    if (result == SESSTAB_OK)
        result = sesstab_bind(g->table, handle, player, 0);
    note_growing(g, step, start, chunks);
    if (result == SESSTAB_NOSPACE)
        return false;
    must(result, "insert and bind");
    atomic_store(&g->inserted, handle);
    return true;
}

/* The same in the table that does not grow, where another one leaves first. */
static void exchange_one(struct growth *g, size_t step, uint64_t *random)
{
    struct watcher *w = &g->watchers[0];
    uint64_t handle = STILL - bench_random(random) % (STILL / 2);
    char player[PLAYER_BYTES];
    player_of(handle, player);
    must(sesstab_remove(g->still, handle), "remove");
    uint64_t start = bench_clock();
    must(sesstab_insert(g->still, &handle, &usual_info), "insert");
    note(w, STILL_TABLE, step, bench_clock() - start);
    start = bench_clock();
    must(sesstab_bind(g->still, handle, player, 0), "bind");
    note(w, STILL_TABLE, step, bench_clock() - start);
}

static void write_in_turns(struct growth *g, size_t step, uint64_t *random)
{
    struct watcher *w = &g->watchers[0];
    while (w->seen[STILL_TABLE].total < w->seen[GROWING].total)
        exchange_one(g, step, random);
    look_at_clock(w, step);
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

/* The longest own pause that watchers FIRST .. END - 1 have seen in a step, DOING that. */
static void put_pause(const struct growth *g, const char *who, size_t first, size_t end,
                      unsigned doing, size_t step, size_t sessions)
{
    uint64_t longest = 0;
    char name[32];
    for (size_t i = first; i < end; i++)
        raise_most(&longest, g->watchers[i].seen[doing].longest_own[step]);
    snprintf(name, sizeof name, "%s%s", who, doings[doing]);
    put_point(g, "own-pause", name, sessions, "us", us(longest));
}

static void put_step(const struct growth *g, size_t step, size_t sessions, uint64_t bytes)
{
    put_point(g, "bytes", "sesstab", sessions, "bytes", (double)bytes / (double)sessions);
    for (unsigned doing = 0; doing < DOINGS; doing++)
        put_pause(g, "writer", 0, 1, doing, step, sessions);
    for (unsigned doing = 0; doing < GROWTH_STEP; doing++)
        put_pause(g, "readers", 1, 1 + g->readers, doing, step, sessions);
}

/* The sizes at which the whole table is weighed. */
static void weigh(const char *name, uint64_t sessions)
{
    double each = (double)segment_bytes(name) / (double)sessions;
    output_single("bytes-per-session", "sesstab", sessions, "bytes", each);
    goal_at_most(each, 400, sessions, "bytes per usual session");
}

static bool grow_to(struct growth *g, const char *name, size_t step, uint64_t end, uint64_t *random)
{
    for (uint64_t handle = g->inserted + 1; handle <= end; handle++) {
        if (!write_one(g, step, handle))
            return false;
        write_in_turns(g, step, random);
        if ((handle == 100000 || handle == 1000000) && handle < g->sessions)
            weigh(name, handle);
    }
    return true;
}

/* As far as there is room. */
static void grow(struct growth *g, const char *name, const pid_t *readers)
{
    struct progress progress = { .what = "sessions", .total = g->sessions };
    uint64_t random = g->seed;
    size_t all = g->sessions;
    watch(&g->watchers[0]);
    for (size_t step = 0; step < STEPS && g->inserted < g->sessions; step++) {
        size_t end = (size_t)((double)all * (double)(step + 1) / STEPS);
        atomic_store(&g->step, step);
        if (!grow_to(g, name, step, end, &random))
            g->sessions = g->inserted;
        must_read(g, readers);
        put_step(g, step, g->inserted, segment_bytes(name));
        progress_show(&progress, g->inserted);
    }
    if (g->sessions < all)
        output_note("", "room", "/dev/shm became full: the table could not grow further");
}

/* ---------------------------------------------------------------- all told -------------- */

/* Of several watchers' pauses together; the longest of all steps into the first. */
static void add_pauses(struct pauses *all, const struct pauses *p)
{
    for (size_t i = 0; i < STEPS; i++) {
        raise_most(&all->longest[0], p->longest[i]);
        raise_most(&all->longest_own[0], p->longest_own[i]);
    }
    all->total += p->total;
    all->over += p->over;
    all->over_own += p->over_own;
}

/* What watchers FIRST .. END - 1 have seen, DOING that. */
static struct pauses put_pauses(const struct growth *g, const char *who, size_t first, size_t end,
                                unsigned doing)
{
    struct pauses all = { 0 };
    char name[32];
    for (size_t i = first; i < end; i++)
        add_pauses(&all, &g->watchers[i].seen[doing]);
    snprintf(name, sizeof name, "%s%s", who, doings[doing]);
    output_single("longest-pause", name, g->sessions, "us", us(all.longest[0]));
    output_single("longest-own-pause", name, g->sessions, "us", us(all.longest_own[0]));
    output_single("pauses-over-1ms", name, g->sessions, "times", (double)all.over);
    output_single("own-pauses-over-1ms", name, g->sessions, "times", (double)all.over_own);
    output_single("watched", name, g->sessions, "s", (double)all.total / 1e9);
    return all;
}

/*
 * Two counts of things that happen by chance, in different times: how many standard deviations of
 * their difference is the first above what the second lets expect?
 */
static double beyond_chance(const struct pauses *p, const struct pauses *reference)
{
    double share = (double)p->total / (double)reference->total;
    double expected = share * (double)reference->over_own;
    double variance = (double)p->over_own + share * expected;
    return variance > 0 ? ((double)p->over_own - expected) / sqrt(variance) : 0;
}

/* Beside the still table, where the same is done. */
static void put_who(const struct growth *g, const char *who, size_t first, size_t end)
{
    struct pauses growing = put_pauses(g, who, first, end, GROWING);
    struct pauses still = put_pauses(g, who, first, end, STILL_TABLE);
    put_pauses(g, who, first, end, CLOCK);
    goal_at_most(beyond_chance(&growing, &still), 2, g->sessions,
                 "own pauses over 1 ms, %s: deviations beyond still", who);
}

/* Beside the clock: who waits for a growth step waits for nothing else. */
static void put_steps(struct growth *g)
{
    struct pauses steps = put_pauses(g, "writer", 0, 1, GROWTH_STEP);
    struct spread s = spread_of(g->steps, g->step_count);
    output_single("growth-step", "writer", g->sessions, "us", s.median / 1000);
    output_single("growth-step-p99", "writer", g->sessions, "us",
                  quantile(g->steps, g->step_count, 0.99) / 1000);
    goal_at_most(s.median / 1000, 1000, g->sessions, "a growth step, us");
    goal_at_most(beyond_chance(&steps, &g->watchers[0].seen[CLOCK]), 2, g->sessions,
                 "growth steps over 1 ms: deviations beyond the clock");
}

/* ---------------------------------------------------------------- memory ---------------- */

static double free_memory(void)
{
    struct statvfs shm;
    if (statvfs("/dev/shm", &shm) != 0)
        bench_fail("/dev/shm: %s", strerror(errno));
    return (double)shm.f_bfree * (double)shm.f_frsize;
}

static double available_memory(void)
{
    char line[128];
    double kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %lf", &kib) != 1)
        ;
    if (f)
        fclose(f);
    return kib * 1024;
}

/* How many of SESSIONS there is room for, in /dev/shm and in the memory that it is made of. */
static size_t that_fit(size_t sessions)
{
    char text[160];
    double shm = free_memory(), memory = available_memory() - RESERVE;
    double room = shm < memory ? shm : memory;
    double fit = room / USUAL_BYTES - STILL;
    if (fit >= (double)sessions)
        return sessions;
    if (fit < STEPS)
        bench_fail("/dev/shm has room for %.0f MiB only, and %zu sessions want %.0f: enlarge it "
                   "(mount -o remount,size=... /dev/shm)", room / (1 << 20), sessions,
                   (double)(sessions + STILL) * USUAL_BYTES / (1 << 20));
    snprintf(text, sizeof text, "for %.0f MiB only (%s): %.0f sessions instead of %zu",
             room / (1 << 20), shm < memory ? "/dev/shm" : "memory", fit, sessions);
    output_note("", "room", text);
    return (size_t)fit;
}

static double percent_of(double bytes, double before)
{
    return 100 * (free_memory() - before) / bytes;
}

/*
 * The readers have left; now the writer does.  The table stays, for whoever opens it next, until
 * its name is removed.  (Who else uses /dev/shm meanwhile shows.)
 */
static void leave(struct growth *g, const char *name)
{
    double taken = (double)segment_bytes(name), before = free_memory();
    weigh(name, g->sessions);
    sesstab_close(g->table);
    output_single("given-back-on-leaving", "sesstab", g->sessions, "percent",
                  percent_of(taken, before));
    must(sesstab_unlink(name), "unlink");
    double given_back = percent_of(taken, before);
    output_single("given-back-on-unlink", "sesstab", g->sessions, "percent", given_back);
    goal_at_least(given_back, 99, g->sessions, "memory given back, percent");
}

/* ---------------------------------------------------------------- main ------------------ */

static void print_notes(void)
{
    output_note("row", "longest-pause", "of an operation, or between two readings of the clock");
    output_note("row", "*own-pause*", "without the time of waiting for a processor");
    output_note("row", "growth-step", "own part of the operations in which the table grew, median");
    output_note("row", "given-back-on-leaving", "when everyone had left: the table stays");
    output_note("row", "given-back-on-unlink", "when its name was removed as well");
    output_note("contender", "writer", "inserts usual sessions and binds each, in mode MEMORY");
    output_note("contender", "readers", "look for random ones");
    output_note("contender", "*-still", "the same for as long, in a table that does not grow");
    output_note("contender", "*-clock", "the same for as long, only looking at the clock");
    output_note("contender", "writer-growth-step", "the writer's operations in which it grew");
}

static struct growth *share_growth(void)
{
    struct growth *g = mmap(NULL, sizeof *g, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                            0);
    if (g == MAP_FAILED)
        bench_fail("mmap: %s", strerror(errno));
    return g;
}

/* The table that does not grow: its sessions are there before anything is measured. */
static void fill_still(struct growth *g, const char *name)
{
    const sesstab_options memory = { .create = true, .mode = SESSTAB_MEMORY };
    must(sesstab_open(name, &memory, &g->still), "open");
    for (uint64_t handle = 1; handle <= STILL; handle++) {
        char player[PLAYER_BYTES];
        player_of(handle, player);
        must(sesstab_insert(g->still, &handle, &usual_info), "insert");
        must(sesstab_bind(g->still, handle, player, 0), "bind");
    }
}

static void run(const struct settings *settings)
{
    char name[SANDBOX_NAME_MAX], still[SANDBOX_NAME_MAX];
    pid_t readers[READERS_MAX];
    struct growth *g = share_growth();
    g->sessions = that_fit(settings->sessions);
    g->readers = settings->readers;
    g->seed = bench_seed();
    g->curve = results_new("growth-curve");
    g->steps = bench_memory(CHUNKS_MAX, sizeof *g->steps);
    sandbox_table(name, "growth");
    sandbox_table(still, "still");
    fill_still(g, still);
    must(sesstab_open(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY },
                      &g->table), "open");
    start_readers(g, readers);
    output_header();
    grow(g, name, readers);
    end_readers(g, readers);
    results_write(g->curve, settings->curve);
    put_who(g, "writer", 0, 1);
    put_steps(g);
    put_who(g, "readers", 1, 1 + g->readers);
    leave(g, name);
    sesstab_close(g->still);
    must(sesstab_unlink(still), "unlink");
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
