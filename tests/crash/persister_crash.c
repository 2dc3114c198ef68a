/*
 * Kills the leading persister (in the rows "...-stopped": stops it, until another has taken its
 * place and gone on) after each instruction between taking a session and having announced what
 * became of it.  persister_world.h tells what happens at one point; this file chooses the points,
 * spreads them over jobs, each with a Redis and a table of its own, and counts.
 *
 *   instructions  of the leader, from taking what was posted to the last word about it
 *   points        after how many of them it was killed or stopped
 *   other way     runs that did not go the recorded way (a clock, the pieces in which an answer
 *                 came); they were judged all the same, tried anew, and do not count as points
 *   durable, refused, unknown   what the callers were told, each time truthfully
 *   p50, worst    take-over, ms: from SIGKILL (or the stop) to the stand-by's first answer
 *   own           the worst of the same without what the processes that it takes waited for a
 *                 processor; what the dead one's other thread waited to end, and what a
 *                 hypervisor took, is still in it
 */
#include "tests/crash/persister_world.h"

#include <argp.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/wait.h>

enum { JOBS_MAX = 4, ROWS_MAX = 32, SAMPLES_MAX = 1 << 18, TRIES = 4, FAILURES_MAX = 10 };

/* ---------------------------------------------------------------- options ------------------ */

static struct {
    const char *pattern;
    unsigned stride, jobs;
    long at;
} options = { .pattern = "*", .stride = 1, .at = -1 };

enum { KEY_AT = 256 };

static const struct argp_option option_list[] = {
    { "operation", 'o', "PATTERN", 0, "Only rows whose names match, as file names do", 0 },
    { "stride", 's', "N", 0, "Every Nth instruction, from a random one on; 1: all", 0 },
    { "jobs", 'j', "N", 0, "At the same time; 0: as many as there are processors", 0 },
    { "at", KEY_AT, "K", 0, "After instruction K alone", 0 },
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
    case ARGP_KEY_ARG: argp_error(state, "'%s' is not expected", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void parse_options(int argc, char **argv)
{
    static const struct argp parser = {
        option_list, parse, NULL, "Kills the leading persister at every instruction.",
        NULL, NULL, NULL
    };
    argp_parse(&parser, argc, argv, 0, NULL, NULL);
    if (!options.jobs)
        options.jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    options.jobs = options.jobs < JOBS_MAX ? options.jobs : JOBS_MAX;
    options.stride = options.stride ? options.stride : 1;
}

static bool chosen(size_t row)
{
    return fnmatch(options.pattern, operations[row].name, 0) == 0;
}

/* ---------------------------------------------------------------- what is shared ----------- */

/* Added to by all jobs. */
struct row {
    _Atomic size_t next;            /* point that nobody has begun                             */
    _Atomic size_t instructions, begun, done, points, others, failures;
    _Atomic uint64_t durable, refused, unknown;
    size_t offset;                  /* instruction of the first point                           */
    _Atomic uint64_t own_us;        /* the worst                                                */
    _Atomic uint32_t samples;
    uint32_t took_over_us[SAMPLES_MAX];
};

static struct shared {
    struct row rows[ROWS_MAX];
    struct { size_t row, k; } at[JOBS_MAX]; /* what each job is at                              */
} *shared;

/* ---------------------------------------------------------------- a job -------------------- */

struct job {
    unsigned number;
    const char *table;
    struct redis *redis;
    pid_t pid;
};

static void count(struct row *row, const struct finding *f)
{
    row->durable += f->durable;
    row->refused += f->refused;
    row->unknown += f->unknown;
    uint64_t worst = row->own_us;
    while (worst < f->own_us && !atomic_compare_exchange_weak(&row->own_us, &worst, f->own_us))
        ;
    uint32_t sample = row->samples++;
    if (sample < SAMPLES_MAX)
        row->took_over_us[sample] = (uint32_t)f->took_over_us;
}

static void run_point(struct world *w, size_t row, const struct trace *trace, size_t k)
{
    struct row *r = &shared->rows[row];
    enum way way = WAY_OTHER;
    for (unsigned try = 0; try < TRIES && way != WAY_RECORDED; try++) {
        struct finding f = world_point(w, &operations[row], trace, k);
        count(r, &f);
        way = f.way;
        r->others += way != WAY_RECORDED;
    }
    r->points += way == WAY_RECORDED;
}

/* The shorter of two: into the other one a round of the background sweep may have come. */
static struct trace record(struct world *w, size_t row)
{
    struct trace one, other;
    world_record(w, &operations[row], &one);
    world_record(w, &operations[row], &other);
    bool first = one.length <= other.length;
    trace_free(first ? &other : &one);
    return first ? one : other;
}

/* Recorded anew by each job: by another's trace more runs would go another way. */
static void run_row(struct world *w, const struct job *job, size_t row)
{
    struct row *r = &shared->rows[row];
    struct trace trace = record(w, row);
    if (trace.length > r->instructions)
        r->instructions = trace.length;
    r->begun++;
    for (;;) {
        size_t k = options.at >= 0 ? (size_t)options.at : r->offset + r->next++ * options.stride;
        if (k >= trace.length)
            break;
        shared->at[job->number].row = row;
        shared->at[job->number].k = k;
        run_point(w, row, &trace, k);
        if (options.at >= 0)
            break;
    }
    r->done++;
    trace_free(&trace);
}

static bool is_done(size_t row)
{
    return shared->rows[row].done == options.jobs;
}

static void run_job(const struct job *job)
{
    sesstab_unlink(job->table);
    struct world *w = world_start(job->table, job->redis);
    for (size_t row = 0; row < operation_count; row++)
        if (chosen(row) && !is_done(row))
            run_row(w, job, row);
}

static void start_job(struct job *job)
{
    pid_t parent = getpid();
    fflush(NULL);
    job->pid = fork();
    check(job->pid >= 0);
    if (job->pid)
        return;
    become_child(parent);
    redis_own_connection(job->redis);
    run_job(job);
    _exit(0);
}

/* ---------------------------------------------------------------- the table ---------------- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_head(void)
{
    printf("%-18s %12s %8s %9s %8s %8s %8s %7s %7s %7s %8s\n", "operation", "instructions",
           "points", "other way", "durable", "refused", "unknown", "p50", "worst", "own",
           "failures");
}

static void print_row(size_t row)
{
    struct row *r = &shared->rows[row];
    size_t n = r->samples < SAMPLES_MAX ? r->samples : SAMPLES_MAX;
    qsort(r->took_over_us, n, sizeof *r->took_over_us, by_value);
    printf("%-18s %12zu %8zu %9zu %8llu %8llu %8llu %7.1f %7.1f %7.1f %8zu\n", operations[row].name,
           r->instructions, r->points, r->others, (unsigned long long)r->durable,
           (unsigned long long)r->refused, (unsigned long long)r->unknown,
           n ? r->took_over_us[n / 2] / 1e3 : 0, n ? r->took_over_us[n - 1] / 1e3 : 0,
           (double)r->own_us / 1e3, r->failures);
    fflush(stdout);
}

static void show_progress(size_t row)
{
    static uint64_t next;
    const struct row *r = &shared->rows[row];
    bool terminal = isatty(STDERR_FILENO);
    if (milliseconds() < next || r->instructions == 0)
        return;
    next = milliseconds() + (terminal ? 500 : 60000);
    fprintf(stderr, terminal ? "\r%s: %zu points of %zu, %zu failures   \r"
                             : "%s: %zu points of %zu, %zu failures\n",
            operations[row].name, r->points, r->instructions / options.stride, r->failures);
}

/* ---------------------------------------------------------------- the run ------------------ */

static size_t all_points(void)
{
    size_t sum = 0;
    for (size_t row = 0; row < operation_count; row++)
        sum += shared->rows[row].points;
    return sum;
}

static size_t failures(void)
{
    size_t sum = 0;
    for (size_t row = 0; row < operation_count; row++)
        sum += shared->rows[row].failures;
    return sum;
}

/* A job that failed has said why; another goes on behind its point.  True while it runs. */
static bool tend(struct job *job)
{
    int status;
    if (job->pid == 0 || waitpid(job->pid, &status, WNOHANG) == 0)
        return job->pid != 0;
    job->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return false;
    size_t row = shared->at[job->number].row, k = shared->at[job->number].k;
    fprintf(stderr, "FAILED: %s, instruction %zu\n", operations[row].name, k);
    shared->rows[row].failures++;
    if (failures() >= FAILURES_MAX)
        return false;
    start_job(job);
    return true;
}

/* Prints each row as soon as all jobs are through with it. */
static void follow(struct job *jobs)
{
    size_t row = 0;
    for (bool alive = true; alive; pause_ms(50)) {
        alive = false;
        for (unsigned j = 0; j < options.jobs; j++)
            alive |= tend(&jobs[j]);
        for (; row < operation_count && (!chosen(row) || is_done(row)); row++)
            if (chosen(row))
                print_row(row);
        if (row < operation_count)
            show_progress(row);
    }
    for (; row < operation_count; row++)
        if (shared->rows[row].begun)
            print_row(row);
}

/* The seed is known before the harness takes it, so that it can be printed. */
static void choose_seed(void)
{
    uint32_t seed;
    char text[24];
    check(getrandom(&seed, sizeof seed, 0) == sizeof seed);
    snprintf(text, sizeof text, "%u", seed);
    setenv("SESSTAB_SEED", text, 0);
}

int main(int argc, char **argv)
{
    struct job jobs[JOBS_MAX];
    void *state = NULL;
    parse_options(argc, argv);
    choose_seed();
    check(operation_count <= ROWS_MAX);
    /* What was recorded of one persister is to be true of all. */
    if (personality(ADDR_NO_RANDOMIZE) < 0) {
        fprintf(stderr, "personality(2) is not allowed here: the persister's addresses change from one "
                        "to the next\n");
        return 77;
    }
    if (tests_start(&state) != 0 || test_begin(&state) != 0)
        return 1;
    alarm(0); /* a long run does not hang */
    shared = shared_memory(sizeof *shared);
    for (size_t row = 0; row < operation_count; row++)
        shared->rows[row].offset = random_below(options.stride);
    printf("# stride=%u jobs=%u SESSTAB_SEED=%s\n", options.stride, options.jobs,
           getenv("SESSTAB_SEED"));
    print_head();
    for (unsigned j = 0; j < options.jobs; j++) {
        jobs[j] = (struct job){ .number = j, .table = new_name(), .redis = start_redis(NULL) };
        start_job(&jobs[j]);
    }
    follow(jobs);
    size_t failed = failures();
    if (all_points() == 0) {
        fprintf(stderr, "FAILED: nothing was looked at%s%s\n",
                options.pattern ? "; is there an operation " : "", options.pattern ? options.pattern : "");
        failed++;
    }
    test_end(&state);
    tests_finish(&state);
    return failed ? 1 : 0;
}
