/*
 * Kills (or stops) every operation after each of its instructions, and prints a table of what was
 * found.  crash.h tells what happens at one point; this file chooses the points, spreads them over
 * jobs, and counts.
 *
 *   instructions  of the operation, in an undisturbed run
 *   points        after how many of them the victim was killed or stopped
 *   other way     points at which it did not go the recorded way (a clock), and that don't count
 *   states        different contents of the segment that it left
 *   stall, noise  the survivor's longest call before any recovery, us, and the longest of the same
 *                 calls when there was no victim any more; beside each: without what the thread
 *                 waited for a processor (own)
 *
 * Every instruction is a point, but for the two long sweeps over mostly empty pages: see rare().
 */
#include "tests/crash/crash.h"

#include <argp.h>
#include <dlfcn.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "shm/wait.h"
#include "tests/stepper.h"

enum { JOBS_MAX = 64, ROWS_MAX = 128, STATES_MAX = 1 << 21, SAID_MAX = 5, TRIES = 3 };

/* ---------------------------------------------------------------- options ------------------- */

static struct {
    const char *pattern;
    unsigned stride, jobs, inspect;
    long at;
    bool stops, early, brief;
} options = { .pattern = "*", .stride = 1, .inspect = 1, .at = -1 };

enum { KEY_AT = 256, KEY_INSPECT, KEY_EARLY, KEY_BRIEF };

static const struct argp_option option_list[] = {
    { "operation", 'o', "PATTERN", 0, "Only rows whose names match, as file names do", 0 },
    { "stride", 's', "N", 0, "Every Nth instruction, from a random one on; 1: all", 0 },
    { "jobs", 'j', "N", 0, "At the same time; 0: as many as there are processors", 0 },
    { "at", KEY_AT, "K", 0, "After instruction K alone", 0 },
    { "how", 'h', "kill|stop", 0, "SIGKILL, or stopped, and continued when all is over", 0 },
    { "inspect", KEY_INSPECT, "N", 0, "shmdump --check --strict at every Nth point; 0: never", 0 },
    { "early", KEY_EARLY, NULL, 0, "Recovery before any load, which could hide what is lost", 0 },
    { "brief", KEY_BRIEF, NULL, 0, "For a large stride: no rows that take long to record", 0 },
    { 0 }
};

static long number(struct argp_state *state, const char *text, long least)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (*end || end == text || n < least || n > INT_MAX)
        argp_error(state, "'%s' is not a number from %ld to %d", text, least, INT_MAX);
    return n;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    switch (key) {
    case 'o': options.pattern = argument; return 0;
    case 's': options.stride = (unsigned)number(state, argument, 1); return 0;
    case 'j': options.jobs = (unsigned)number(state, argument, 0); return 0;
    case KEY_AT: options.at = number(state, argument, 0); return 0;
    case KEY_INSPECT: options.inspect = (unsigned)number(state, argument, 0); return 0;
    case KEY_EARLY: options.early = true; return 0;
    case KEY_BRIEF: options.brief = true; return 0;
    case 'h':
        options.stops = strcmp(argument, "stop") == 0;
        if (!options.stops && strcmp(argument, "kill") != 0)
            argp_error(state, "--how is kill or stop");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void parse_options(int argc, char **argv)
{
    const struct argp argp = { option_list, parse, NULL,
                               "Kills every operation at every instruction.", NULL, NULL, NULL };
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (!options.jobs)
        options.jobs = processors > 0 ? (unsigned)processors : 1;
    if (options.jobs > JOBS_MAX)
        options.jobs = JOBS_MAX;
    if (!options.stride)
        options.stride = 1;
}

static bool chosen(const struct operation *o)
{
    bool left_out = (options.brief && (o->flags & LENGTHY)) ||
                    (options.stops && (o->flags & LEADS));
    return !left_out && fnmatch(options.pattern, o->name, 0) == 0;
}

/* ---------------------------------------------------------------- what is counted ----------- */

struct tally {
    size_t instructions, points, other_way, failures, states_at, states;
    struct times times;
    _Atomic bool done;
};

static struct shared {
    uint64_t seed;
    struct tally tallies[JOBS_MAX][ROWS_MAX];
    struct stage stages[JOBS_MAX];
} *shared;
static uint64_t *states[JOBS_MAX]; /* fingerprints, row after row */

struct job {
    unsigned number;
    struct world world;
    struct trace trace;
    uint8_t *wanted;       /* by instruction; NULL: all */
    struct tally *tally;
    size_t next_state;
    pid_t survivor, rival;
};

static void keep_worst(struct times *worst, const struct times *t)
{
    worst->stall = t->stall > worst->stall ? t->stall : worst->stall;
    worst->stall_own = t->stall_own > worst->stall_own ? t->stall_own : worst->stall_own;
    worst->noise = t->noise > worst->noise ? t->noise : worst->noise;
    worst->noise_own = t->noise_own > worst->noise_own ? t->noise_own : worst->noise_own;
}

static void *shared_pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(p != MAP_FAILED);
    return p;
}

/* ---------------------------------------------------------------- the cast ------------------ */

static pid_t spawn(child_function *function, void *context)
{
    pid_t parent = getpid(), pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        become_child(parent);
        function(context);
        _exit(0);
    }
    return pid;
}

/* True when it exited 0. */
static bool reap(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void dismiss(pid_t *pid)
{
    if (*pid) {
        kill(*pid, SIGKILL);
        reap(*pid);
    }
    *pid = 0;
}

static void unpinned(child_function *function, struct world *w)
{
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
    function(w);
}

static void start_survivor(void *context) { unpinned(be_survivor, context); }
static void start_rival(void *context) { unpinned(be_rival, context); }

static bool has_ended(pid_t pid)
{
    siginfo_t info = { 0 };
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/* Waits until *WORD is at least COUNT; false when the survivor ended before. */
static bool wait_for(struct job *j, atomic_u32 *word, uint32_t count)
{
    uint32_t now;
    while ((now = atomic_load(word)) < count) {
        if (has_ended(j->survivor))
            return false;
        futex_wait(word, now, WAIT_SLICE_MS);
    }
    return true;
}

static void assemble(struct job *j)
{
    struct world *w = &j->world;
    bool race = w->operation->flags & RACE;
    world_restore(w);
    j->survivor = spawn(start_survivor, w);
    check(wait_for(j, &w->stage->ready, 1));
    j->rival = race ? spawn(start_rival, w) : 0;
    check(wait_for(j, &w->stage->ready, 1 + race));
}

static void disband(struct job *j)
{
    dismiss(&j->survivor);
    dismiss(&j->rival);
}

static void tell(struct job *j, uint32_t number)
{
    atomic_store(&j->world.stage->go, number);
    futex_wake_all(&j->world.stage->go);
}

/* ---------------------------------------------------------------- the undisturbed run ------- */

/* What the session is before, while the store is asked, and after. */
static void refer(struct job *j)
{
    struct world *w = &j->world;
    const struct operation *o = w->operation;
    sesstab_view v;
    assemble(j);
    pid_t victim = stepper_start(be_victim, w);
    image_take(&w->before, w->table, w->handle);
    check(stepper_run(victim) == STEPPED_MARK && w->stage->finished);
    check_result_at(o->name, 0, "undisturbed", w->stage->result, o->result);
    image_take(&w->after, w->table, w->handle);
    w->published = w->stage->published;
    if (w->after.present)
        image_view(&w->after, w->handle, &v);
    check(!o->effect || o->effect(w->after.present ? &v : NULL));
    stepper_kill(victim);
    disband(j);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool is_rare(const uint64_t *sorted, size_t n, uint64_t at)
{
    enum { OFTEN = 200 }; /* a chunk has 256 pages: this is not what is done for each of them */
    const uint64_t *found = bsearch(&at, sorted, n, sizeof at, by_value);
    size_t first = (size_t)(found - sorted), last = first;
    while (first && sorted[first - 1] == at && last - first < OFTEN)
        first--;
    while (last + 1 < n && sorted[last + 1] == at && last - first < OFTEN)
        last++;
    return last - first + 1 < OFTEN;
}

/*
 * In a trace of more than LONG instructions nearly all is the same loop over places with nothing to
 * do.  Every instruction that is rare there is a point, and all within NEAR of one, which is where
 * something is found and mended; of the others some SAMPLES, evenly spread.
 */
static void choose_rare(struct job *j)
{
    enum { LONG = 50000, NEAR = 50, SAMPLES = 1000 };
    const struct trace *t = &j->trace;
    free(j->wanted);
    j->wanted = NULL;
    if (t->length <= LONG)
        return;
    uint64_t *sorted = malloc(t->length * sizeof *sorted);
    check(sorted && (j->wanted = calloc(t->length + 1, 1)));
    memcpy(sorted, t->at, t->length * sizeof *sorted);
    qsort(sorted, t->length, sizeof *sorted, by_value);
    for (size_t k = 0; k < t->length; k++) {
        j->wanted[k] |= k % (t->length / SAMPLES) == 0;
        if (is_rare(sorted, t->length, t->at[k]))
            for (size_t i = k > NEAR ? k - NEAR : 0; i < k + NEAR && i < t->length; i++)
                j->wanted[i] = 1;
    }
    j->wanted[t->length] = 1;
    free(sorted);
}

/* ---------------------------------------------------------------- one point ----------------- */

/* The victim stays stopped while the survivor goes on; then it goes on itself, to its end. */
static bool let_finish(struct job *j, pid_t victim, bool at_end)
{
    tell(j, 1);
    bool lives = wait_for(j, &j->world.stage->done, 1 + (j->rival != 0));
    return lives && (at_end || stepper_run(victim) == STEPPED_MARK);
}

static bool judge(struct job *j, pid_t victim, size_t k)
{
    struct world *w = &j->world;
    bool fine = true;
    if (w->stops)
        fine = let_finish(j, victim, k == j->trace.length);
    stepper_kill(victim);
    if (!w->stops)
        states[j->number][j->next_state++] = world_fingerprint(w);
    check(j->next_state < STATES_MAX);
    tell(j, w->stops ? 2 : 1);
    if (!fine)
        kill(j->survivor, SIGKILL);
    fine = reap(j->survivor) && fine;
    j->survivor = 0;
    disband(j);
    keep_worst(&j->tally->times, &w->stage->times);
    return fine;
}

enum outcome { FINE, FAILED, OTHER_WAY };

static enum outcome play(struct job *j, size_t k)
{
    struct world *w = &j->world;
    w->inspect = options.inspect && k % options.inspect == 0;
    w->silent = j->tally->failures >= SAID_MAX;
    assemble(j);
    pid_t victim = stepper_start(be_victim, w);
    enum stepped where = stepper_advance(victim, &j->trace, k);
    if (where == (k < j->trace.length ? STEPPED : STEPPED_MARK))
        return judge(j, victim, k) ? FINE : FAILED;
    disband(j);
    if (where == STEPPED_GONE) { /* nobody killed it */
        fprintf(stderr, "the victim ended by itself\n");
        return FAILED;
    }
    stepper_kill(victim);
    return OTHER_WAY;
}

/* ---------------------------------------------------------------- a row --------------------- */

extern const char __executable_start;

/* Where in the source an address is, as far as it is known. */
static void describe(uint64_t at, char *text, size_t size)
{
    char self[64], offset[32];
    Dl_info info = { 0 };
    snprintf(self, sizeof self, "/proc/%d/exe", (int)getpid());
    snprintf(offset, sizeof offset, "%#llx",
             (unsigned long long)(at - (uint64_t)(uintptr_t)&__executable_start));
    const char *const argv[] = { "addr2line", "-sfe", self, offset, NULL };
    dladdr((void *)(uintptr_t)at, &info);
    if (info.dli_fname && info.dli_fbase != &__executable_start)
        snprintf(text, size, "%s in %s", info.dli_sname ? info.dli_sname : "?", info.dli_fname);
    else if (run_program(argv, text, size) != 0)
        snprintf(text, size, "%s", offset);
    text[strcspn(text, "\n")] = ' ';
    text[strcspn(text, "\n")] = 0;
}

static void report_failure(const struct job *j, size_t k)
{
    char where[200] = "the end";
    const char *how = j->world.stops ? "stop" : "kill", *name = j->world.operation->name;
    if (j->tally->failures++ >= SAID_MAX)
        return;
    if (k < j->trace.length)
        describe(j->trace.at[k], where, sizeof where);
    fprintf(stderr, "FAILED: %s, %s after instruction %zu of %zu, before %s\n"
            "  again: make crash CRASH_HOW=%s%s CRASH_OPERATION='%s' CRASH_AT=%zu "
            "SESSTAB_SEED=%llu\n",
            name, how, k, j->trace.length, where, how,
            options.early ? " CRASH_EARLY=1" : "", name, k, (unsigned long long)shared->seed);
}

static void play_and_count(struct job *j, size_t k)
{
    enum outcome outcome = OTHER_WAY;
    for (int i = 0; i < TRIES && outcome == OTHER_WAY; i++)
        outcome = play(j, k);
    j->tally->points += outcome != OTHER_WAY;
    j->tally->other_way += outcome == OTHER_WAY;
    if (outcome == FAILED)
        report_failure(j, k);
}

static void play_all(struct job *j, size_t offset)
{
    size_t first = offset + (options.brief ? 0 : (size_t)options.stride * j->number);
    size_t step = (size_t)options.stride * (options.brief ? 1 : options.jobs);
    for (size_t k = first; k <= j->trace.length; k += step)
        if (!j->wanted || j->wanted[k])
            play_and_count(j, k);
}

static void run_row(struct job *j, unsigned row)
{
    uint64_t seed = (shared->seed + row) * UINT64_C(0x9e3779b97f4a7c15);
    struct world *w = &j->world;
    j->tally = &shared->tallies[j->number][row];
    j->tally->states_at = j->next_state;
    world_open(w, &operations[row], &shared->stages[j->number], seed);
    w->stops = options.stops;
    w->early = options.early || (w->operation->flags & RACE);
    refer(j);
    assemble(j);
    stepper_record(&j->trace, be_victim, w);
    disband(j);
    choose_rare(j);
    j->tally->instructions = j->trace.length;
    if (options.at < 0)
        play_all(j, seed % (options.stride <= j->trace.length ? options.stride : j->trace.length + 1));
    else if ((size_t)options.at <= j->trace.length)
        play_and_count(j, (size_t)options.at);
    trace_free(&j->trace);
    world_close(w);
    j->tally->states = j->next_state - j->tally->states_at;
    j->tally->done = true;
}

/* All jobs share a row's points; or, where recording costs more than playing, the rows. */
static bool is_mine(const struct job *j, unsigned row)
{
    return options.at >= 0 ? j->number == 0 : !options.brief || row % options.jobs == j->number;
}

static void be_job(void *context)
{
    static struct job job;
    job.number = child_index = *(unsigned *)context;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(job.number % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &one);
    sched_setaffinity(0, sizeof one, &one);
    mallopt(M_MMAP_THRESHOLD, PAGE_BYTES); /* or our own memory would change the victim's way */
    victims_begin();
    for (unsigned row = 0; row < operation_count; row++)
        if (chosen(&operations[row]) && is_mine(&job, row))
            run_row(&job, row);
        else
            shared->tallies[job.number][row].done = true;
}

/* ---------------------------------------------------------------- the table ----------------- */

/* Different fingerprints among all jobs' of ROW. */
static size_t distinct_states(unsigned row)
{
    size_t n = 0, distinct = 0;
    for (unsigned j = 0; j < options.jobs; j++)
        n += shared->tallies[j][row].states;
    uint64_t *all = malloc((n + 1) * sizeof *all);
    check(all != NULL);
    n = 0;
    for (unsigned j = 0; j < options.jobs; j++) {
        const struct tally *t = &shared->tallies[j][row];
        memcpy(all + n, states[j] + t->states_at, t->states * sizeof *all);
        n += t->states;
    }
    qsort(all, n, sizeof *all, by_value);
    for (size_t i = 0; i < n; i++)
        distinct += i == 0 || all[i] != all[i - 1];
    free(all);
    return distinct;
}

static void add_up(struct tally *sum, const struct tally *t)
{
    if (t->instructions > sum->instructions)
        sum->instructions = t->instructions;
    sum->points += t->points;
    sum->other_way += t->other_way;
    sum->failures += t->failures;
    keep_worst(&sum->times, &t->times);
}

static struct tally row_sum(unsigned row)
{
    struct tally sum = { 0 };
    for (unsigned j = 0; j < options.jobs; j++)
        add_up(&sum, &shared->tallies[j][row]);
    return sum;
}

static void print_head(void)
{
    printf("# how=%s%s stride=%u jobs=%u SESSTAB_SEED=%llu\n", options.stops ? "stop" : "kill",
           options.early ? " early" : "", options.stride, options.jobs,
           (unsigned long long)shared->seed);
    printf("%-34s %12s %8s %9s %8s %8s %8s %8s %8s %8s\n", "operation", "instructions",
           "points", "other way", "states", "failures", "stall us", "(own)", "noise us", "(own)");
    fflush(stdout);
}

static void print_line(const char *name, const struct tally *t, size_t distinct)
{
    printf("%-34s %12zu %8zu %9zu %8zu %8zu %8.0f %8.0f %8.0f %8.0f\n", name, t->instructions,
           t->points, t->other_way, distinct, t->failures, (double)t->times.stall / 1e3,
           (double)t->times.stall_own / 1e3, (double)t->times.noise / 1e3,
           (double)t->times.noise_own / 1e3);
    fflush(stdout);
}

static void print_row(unsigned row, struct tally *total)
{
    struct tally sum = row_sum(row);
    size_t distinct = distinct_states(row);
    if (sum.points == 0 && !options.brief) {
        fprintf(stderr, "FAILED: %s was killed at no instruction\n", operations[row].name);
        sum.failures++;
    }
    print_line(operations[row].name, &sum, distinct);
    size_t instructions = total->instructions + sum.instructions;
    add_up(total, &sum);
    total->instructions = instructions;
    total->states += distinct;
}

static bool row_is_done(unsigned row)
{
    for (unsigned j = 0; j < options.jobs; j++)
        if (!shared->tallies[j][row].done)
            return false;
    return true;
}

static void show_progress(unsigned row)
{
    struct tally sum = row_sum(row);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%-34s %zu points, %zu failures \r", operations[row].name, sum.points,
                sum.failures);
}

/* A job has ended, and not done ROW. */
static bool is_given_up(const pid_t *jobs, unsigned row)
{
    for (unsigned j = 0; j < options.jobs; j++)
        if (!shared->tallies[j][row].done && has_ended(jobs[j]))
            return !shared->tallies[j][row].done;
    return false;
}

/* Follows the jobs row by row; that one did not come to its end is a failure as well. */
static void follow(const pid_t *jobs, struct tally *total)
{
    for (unsigned row = 0; row < operation_count; row++) {
        if (!chosen(&operations[row]))
            continue;
        for (; !row_is_done(row) && !is_given_up(jobs, row); pause_ms(100))
            show_progress(row);
        print_row(row, total);
    }
    for (unsigned j = 0; j < options.jobs; j++)
        if (!reap(jobs[j])) {
            fprintf(stderr, "FAILED: job %u did not come to its end\n", j);
            total->failures++;
        }
}

/* ---------------------------------------------------------------- start and end ------------- */

static void choose_seed(void)
{
    const char *given = getenv("SESSTAB_SEED");
    char text[24];
    if (given)
        shared->seed = strtoull(given, NULL, 0);
    else
        check(getrandom(&shared->seed, 4, 0) == 4);
    snprintf(text, sizeof text, "%llu", (unsigned long long)shared->seed);
    setenv("SESSTAB_SEED", text, 1);
}

int main(int argc, char **argv)
{
    struct tally total = { 0 };
    pid_t jobs[JOBS_MAX];
    void *state = NULL;
    parse_options(argc, argv);
    shared = shared_pages(sizeof *shared);
    check(operation_count <= ROWS_MAX);
    choose_seed();
    check(tests_start(&state) == 0);
    print_head();
    for (unsigned j = 0; j < options.jobs; j++) {
        states[j] = shared_pages(STATES_MAX * sizeof *states[j]);
        jobs[j] = spawn(be_job, &j);
    }
    follow(jobs, &total);
    if (total.points == 0) {
        fprintf(stderr, "FAILED: nothing was looked at%s%s\n",
                options.pattern ? "; is there an operation " : "", options.pattern ? options.pattern : "");
        total.failures++;
    }
    print_line("total", &total, total.states);
    tests_finish(&state);
    return total.failures ? 1 : 0;
}
