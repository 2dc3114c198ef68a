/*
 * Memory while readers are stopped.
 *
 * Two processes update a table, with sizes that vary and with sessions that come and go.  Readers
 * enter a read section and are stopped in it, one after the other during the first half.  A stopped
 * reader may pin what was alive when it stopped, and in each writer's hands the last RCU_BATCH
 * retirements, which have no retire era yet:
 *
 *     pinned <= readers * (live + writers * RCU_BATCH)
 *
 * The writers count as readers too: each may be waiting for a processor in a section of its own.
 * What is RETIRED may be half as much again: writers look at all that is pinned only when enough
 * has gathered to be worth it (rcu_pass()).  That is the column `most`; a row above it has failed.
 * In the second half nothing may grow: the curve is flat.
 */
#include "bench/bench.h"
#include "bench/sandbox.h"
#include "lib/table.h"
#include "tests/places.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    READERS_MAX = 16, COUNTS_MAX = 8,
    WRITERS = 2,
    SESSIONS = 1000,        /* that stay, and are changed                                      */
    COMERS = 200,           /* of each writer: handles that come and go                        */
    VALUE_MAX = 1500,       /* bytes of the value that is set                                  */
    ROWS = 10,              /* of a table                                                      */
    MOMENT_US = 1000,
    UPDATES_MAX = 1000000000
};

struct settings {
    unsigned counts[COUNTS_MAX], count_count;
    uint64_t updates, seed;
};

/* In shared memory. */
struct stage {
    sesstab *table;
    char name[SANDBOX_NAME_MAX];
    uint64_t share, seed;             /* of each writer                                         */
    _Atomic uint64_t done[WRITERS];   /* updates                                                */
    _Atomic unsigned writers;         /* that have begun                                        */
};

/* ---------------------------------------------------------------- options --------------- */

enum { OPTION_UPDATES = 256, OPTION_SEED, OPTION_SMOKE };

static const struct argp_option options[] = {
    { "readers", 'r', "N", 0, "Stop N readers, at most 16; repeatable (0, 1, 4, 16)", 0 },
    { "updates", OPTION_UPDATES, "N", 0, "Updates for each number of readers (10000000)", 0 },
    { "seed", OPTION_SEED, "N", 0, "Of all that is random (SESSTAB_SEED, or else 1)", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "A hundredth of the updates", 0 },
    { 0 }
};

static void add_count(struct settings *s, const char *text, struct argp_state *state)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end || end == text || n > READERS_MAX || s->count_count == COUNTS_MAX)
        argp_error(state, "--readers: \"%s\" is not a number from 0 to %d, or there are too many",
                   text, READERS_MAX);
    s->counts[s->count_count++] = (unsigned)n;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case 'r':
        add_count(s, argument, state);
        return 0;
    case OPTION_UPDATES:
        s->updates = bench_number(argument, UPDATES_MAX, "updates");
        return 0;
    case OPTION_SEED:
        s->seed = strtoull(argument, NULL, 0);
        return 0;
    case OPTION_SMOKE:
        s->updates /= 100;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to do with \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        if (!s->count_count)
            *s = (struct settings){ { 0, 1, 4, 16 }, 4, s->updates, s->seed };
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, NULL,
    "Shows how much memory stopped readers pin.\v"
    "Exit status: 0 never more than there may be, 1 more, or it failed, 64 wrong usage.",
    NULL, NULL, NULL
};

/* ---------------------------------------------------------------- processes ------------- */

static void must(int result, const char *what)
{
    if (result)
        bench_fail("%s: %s. %s", what, sesstab_strerror(result), sesstab_error_detail());
}

static void update(struct stage *s, uint64_t *random, uint64_t comers)
{
    static const char value[VALUE_MAX];
    uint64_t r = bench_random(random), handle = 1 + (r >> 32) % SESSIONS;
    if (r % 4) {
        must(sesstab_set(s->table, handle, "value", value, r % VALUE_MAX), "set");
        return;
    }
    handle = comers + (r >> 32) % COMERS;
    if (sesstab_remove(s->table, handle) == SESSTAB_NOTFOUND)
        must(sesstab_insert(s->table, &handle, NULL), "insert");
}

static void write_share(void *stage)
{
    struct stage *s = stage;
    unsigned mine = atomic_fetch_add(&s->writers, 1);
    uint64_t random = s->seed + mine, comers = 1000000 * (1 + (uint64_t)mine);
    while (s->done[mine] < s->share) {
        update(s, &random, comers);
        atomic_store_explicit(&s->done[mine], s->done[mine] + 1, memory_order_relaxed);
    }
    for (;;) /* what it holds in its hands is to be seen */
        pause();
}

/* Stopped from within, so that it is in its section for certain. */
static void stop_reading(void *stage)
{
    struct stage *s = stage;
    sesstab_view view;
    must(sesstab_read_begin(s->table), "read_begin");
    must(sesstab_find(s->table, 1, &view), "find");
    kill(getpid(), SIGSTOP);
    bench_fail("a stopped reader went on");
}

static pid_t stop_a_reader(struct stage *s)
{
    int status;
    pid_t pid = sandbox_child(stop_reading, s);
    if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
        bench_fail("a reader could not be stopped");
    return pid;
}

/* ---------------------------------------------------------------- one table ------------- */

static uint64_t updates_done(struct stage *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < WRITERS; i++)
        sum += s->done[i];
    return sum;
}

/* Places that RETIRED may be with so many stopped readers: see the top of the file. */
static uint64_t most_retired(unsigned readers)
{
    /* Records of the sessions that stay; slots and records of those that come and go. */
    const uint64_t live = SESSIONS + 2 * WRITERS * COMERS, fresh = WRITERS * RCU_BATCH;
    uint64_t pinned = (readers + WRITERS) * (live + fresh);
    return pinned + pinned / 2 + 2 * fresh;
}

static bool print_row(struct stage *s, unsigned readers, uint64_t updates)
{
    struct places p = places_count(&s->table->shm);
    uint64_t most = most_retired(readers);
    printf("%7u %10llu %9llu %8llu %8llu %8llu %8.2f\n", readers, (unsigned long long)updates,
           (unsigned long long)load_acquire(&s->table->shm.header->committed),
           (unsigned long long)(p.count[OWN_OWNED] + p.count[OWN_LIVE]),
           (unsigned long long)p.count[OWN_RETIRED], (unsigned long long)most,
           (double)p.bytes / (1 << 20));
    fflush(stdout);
    if (p.count[OWN_RETIRED] > most)
        fprintf(stderr, "stopped: %llu places are pinned, which is more than %llu\n",
                (unsigned long long)p.count[OWN_RETIRED], (unsigned long long)most);
    return p.count[OWN_RETIRED] <= most;
}

static void open_stage(struct stage *s, const struct settings *settings, unsigned count)
{
    char what[16];
    snprintf(what, sizeof what, "stopped-%u", count);
    sandbox_table(s->name, what);
    *s = (struct stage){ .share = settings->updates / WRITERS, .seed = settings->seed };
    sandbox_table(s->name, what);
    must(sesstab_open(s->name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY },
                      &s->table), "open");
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        must(sesstab_insert(s->table, &handle, NULL), "insert");
}

/* Stops COUNT readers, evenly over the first half, and prints a row for each tenth. */
static bool follow(struct stage *s, unsigned count, pid_t *readers)
{
    uint64_t all = s->share * WRITERS, done;
    unsigned stopped = 0, row = 1;
    bool fine = true;
    do {
        bench_pause_us(MOMENT_US);
        done = updates_done(s);
        while (stopped < count && done >= all / 2 * stopped / count)
            readers[stopped++] = stop_a_reader(s);
        for (; row <= ROWS && done >= all / ROWS * row; row++)
            fine &= print_row(s, stopped, done);
    } while (done < all);
    return fine;
}

static bool run_table(struct stage *s, const struct settings *settings, unsigned count)
{
    pid_t writers[WRITERS], readers[READERS_MAX];
    open_stage(s, settings, count);
    for (int i = 0; i < WRITERS; i++)
        writers[i] = sandbox_child(write_share, s);
    bool fine = follow(s, count, readers);
    for (unsigned i = 0; i < count; i++)
        sandbox_kill(readers[i]);
    for (int i = 0; i < WRITERS; i++)
        sandbox_kill(writers[i]);
    sesstab_close(s->table);
    sesstab_unlink(s->name);
    return fine;
}

/* ---------------------------------------------------------------- main ------------------ */

int main(int argc, char **argv)
{
    const char *seed = getenv("SESSTAB_SEED");
    struct settings settings = { .updates = 10000000, .seed = seed ? strtoull(seed, NULL, 0) : 1 };
    bool fine = true;
    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    sandbox_start();
    struct stage *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                           -1, 0);
    if (s == MAP_FAILED)
        bench_fail("shared memory: %s", strerror(errno));
    printf("# stopped: memory while %d processes update %d sessions and others come and go "
           "(SESSTAB_SEED=%llu)\n"
           "# readers: stopped in a read section so far; live, retired: places (slots "
           "and records); most: that may be retired\n"
           "# committed, in_use: MiB of the heap\n", WRITERS, SESSIONS,
           (unsigned long long)settings.seed);
    bench_describe_machine(-1);
    printf("%7s %10s %9s %8s %8s %8s %8s\n", "readers", "updates", "committed", "live", "retired",
           "most", "in_use");
    for (unsigned i = 0; i < settings.count_count; i++)
        fine &= run_table(s, &settings, settings.counts[i]);
    return fine ? 0 : 1;
}
