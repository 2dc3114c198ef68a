/*
 * Store faults: see faults.h.  One after the other, each with a table, a Redis and a persister of
 * its own:
 *
 *   calm before | the fault | recovery: everything durable? | calm after
 *
 * The calm before and after are what the fault's times are compared with, and each other: that is
 * the noise.  Exit status 1 if anything was lost, wrong, or hung, or if the persister did not say
 * what happened.
 */
#include "tests/faults/faults.h"

#include <argp.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    SETTLE_MS = 100,       /* the first of a phase, in which nothing is measured                  */
    PATIENCE_MS = 20000,   /* for a fault to do something, and for callers to be told             */
    WELL_MS = 60000,       /* for everything to become durable; it means "never"                  */
    MEMORY_MIB = 256,      /* that a persister never needs here                                   */
    ALLOWED_PERCENT = 5    /* that a p99 may rise                                                 */
};

static struct settings { const char *fault; unsigned long ms, calm_ms, stride; bool brief, list; }
settings = { "*", 3000, 3000, 1, false, false };

/* ---------------------------------------------------------------- options ---------------- */

enum { OPTION_STRIDE = 256, OPTION_SEED, OPTION_LIST, OPTION_BRIEF };

static const struct argp_option options[] = {
    { "fault", 'f', "NAME", 0, "Only the faults of this name, with wildcards; 'every byte' is one",
      0 },
    { "seconds", 's', "N", 0, "How long each lasts (3)", 0 },
    { "seed", OPTION_SEED, "N", 0, "Repeats what was chosen at random", 0 },
    { "stride", OPTION_STRIDE, "N", 0, "every byte: every Nth byte (1)", 0 },
    { "brief", OPTION_BRIEF, 0, 0, "Some of them, shortly, as make check does", 0 },
    { "list", OPTION_LIST, 0, 0, "What there is and what a bind's caller is told, as a table", 0 },
    { 0 }
};

static unsigned long number(struct argp_state *state, const char *text, unsigned long most)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end || end == text || *text == '-' || n < 1 || n > most)
        argp_error(state, "'%s' is not a number from 1 to %lu", text, most);
    return n;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case 'f': s->fault = text; return 0;
    case 's': s->ms = s->calm_ms = number(state, text, 3600) * 1000; return 0;
    case OPTION_SEED: setenv("SESSTAB_SEED", text, 1); number(state, text, -1UL); return 0;
    case OPTION_STRIDE: s->stride = number(state, text, 100000); return 0;
    case OPTION_BRIEF: s->brief = true; return 0;
    case OPTION_LIST: s->list = true; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---------------------------------------------------------------- one fault -------------- */

/* What is left of it when it is over. */
struct result {
    const struct fault *fault;
    uint64_t injected, told[TOLDS], checked, lost, changes, wrong, hung, well_ms, memory_mib;
    double ns[PHASES][PROBED];              /* p99                                               */
    struct spread ratio[PHASES + 1][PROBED]; /* [PHASES]: of both calms together                 */
    char events[160], counted[192];
    bool silent, untrue, uncounted;
};

static void hold(struct scene *s, const struct fault *f, uint64_t ms)
{
    uint64_t end = milliseconds() + ms;
    while (milliseconds() < end) {
        if (f && f->step)
            f->step(s);
        pause_ms(STEP_MS);
        workload_watch(s->stage);
    }
}

void scene_set_up(struct scene *s)
{
    struct stage *stage = s->stage = shared_memory(sizeof *stage);
    stage->redis = s->redis = start_redis(fault_redis_options);
    snprintf(stage->proxy.listen_on, sizeof stage->proxy.listen_on, "%s/proxy-%s",
             scratch_directory(), strrchr(s->redis->directory, '-') + 1);
    snprintf(stage->metrics, sizeof stage->metrics, "unix:%s/metrics", s->redis->directory);
    snprintf(stage->proxy.connect_to, sizeof stage->proxy.connect_to, "%s", s->redis->socket);
    start_child(proxy_serve, &stage->proxy);
    wait_until(access(stage->proxy.listen_on, F_OK) == 0);
    s->name = new_name();
    scene_start_persister(s);
    stage->table = open_table(s->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(stage->table, WAIT_LIMIT));
    stage->strict = true;
}

/* The high-water mark of the persister's memory. */
static uint64_t memory_mib(pid_t pid)
{
    char path[64], line[256];
    unsigned long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib / 1024;
}

/* Adds the name of the event in LINE to those that were seen, if it is a warning or an error. */
static void note_event(char *events, size_t size, const char *line)
{
    char name[48];
    const char *event = strstr(line, " event=");
    bool loud = strstr(line, "level=warn") || strstr(line, "level=error");
    if (!event || !loud || sscanf(event, " event=%47[^ \n]", name) != 1 || strstr(events, name))
        return;
    size_t used = strlen(events);
    snprintf(events + used, size - used, "%s%s", used ? " " : "", name);
}

/* A connection that was slow to come back from something else breaks as "unreachable". */
static bool says(const char *line, const char *text)
{
    return strstr(line, text) ||
           (strcmp(text, "event=disconnected") == 0 && strstr(line, "event=unreachable"));
}

/* What the log says from OFFSET on; whether it says TEXT. */
static bool read_events(const char *log, long offset, const char *text, char *events, size_t size)
{
    char line[2048];
    bool said = !*text;
    FILE *file = fopen(log, "r");
    check(file && fseek(file, offset, SEEK_SET) == 0);
    events[0] = '\0';
    while (fgets(line, sizeof line, file)) {
        note_event(events, size, line);
        said |= says(line, text);
    }
    fclose(file);
    return said;
}

static long length_of(const char *path)
{
    FILE *file = fopen(path, "r");
    check(file && fseek(file, 0, SEEK_END) == 0);
    long length = ftell(file);
    fclose(file);
    return length;
}

static void calm(struct scene *s, enum phase phase, unsigned long ms)
{
    workload_go(s->stage, RECOVERY);
    pause_ms(SETTLE_MS);
    workload_go(s->stage, phase);
    hold(s, NULL, ms);
}

/* What callers are told, and that something was done; some of it comes by chance, and late. */
static bool is_as_documented(const struct scene *s, const struct fault *f)
{
    _Atomic uint64_t *told = s->stage->told[DURING];
    return (s->injected || s->stage->proxy.injected) &&
           (strncmp(f->told, "durable", 7) != 0 || told[TOLD_OK]) &&
           (strncmp(f->told, "refused", 7) != 0 || told[TOLD_REFUSED]) &&
           (strncmp(f->told, "unknown", 7) != 0 || told[TOLD_UNKNOWN]) &&
           (f->flags & MAY_REFUSE || !told[TOLD_REFUSED]);
}

/* L6 */
static bool is_counted(const struct scene *s, const struct fault *f, char *text, size_t size)
{
    static char now[PAGE_BYTES];
    snprintf(text, size, "none");
    if (!*f->counter)
        return true;
    counters_read(s, now);
    return counters_rose(f->counter, s->before, now, text, size);
}

static bool has_happened(const struct scene *s, const struct fault *f)
{
    char text[192];
    return is_as_documented(s, f) &&
           (!(f->flags & BY_CHANCE) || is_counted(s, f, text, sizeof text));
}

/* The fault, until Redis is well again. */
static void suffer(struct scene *s, const struct fault *f)
{
    struct stage *stage = s->stage;
    uint64_t begin = milliseconds();
    stage->strict = stage->strict && !(f->flags & LOSES);
    workload_go(stage, DURING);
    f->begin(s);
    uint64_t begun = milliseconds() - begin;
    hold(s, f, begun < settings.ms ? settings.ms - begun : 1);
    while (!has_happened(s, f) && milliseconds() < begin + PATIENCE_MS)
        hold(s, f, STEP_MS);
    f->end(s);
    workload_go(stage, RECOVERY);
    redis_own_connection(s->redis); /* which may have been cut as well */
}

/* From Redis's being well to everything's being durable. */
static uint64_t recover(struct scene *s, bool *equal)
{
    uint64_t start = milliseconds();
    workload_rest(s->stage);
    *equal = judge_wait_equal(s->stage, WELL_MS);
    uint64_t ms = milliseconds() - start;
    *equal = *equal && judge_asks_shmdump(s->stage, s->name);
    return ms;
}

static void sum_up(struct scene *s, const struct fault *f, struct result *r)
{
    struct stage *stage = s->stage;
    for (unsigned t = 0; t < TOLDS; t++)
        r->told[t] = stage->told[DURING][t];
    for (unsigned what = 0; what < PROBED; what++) {
        for (unsigned phase = 0; phase < PHASES; phase++)
            r->ratio[phase][what] = probe_ratio(stage, 1u << phase, what);
        for (unsigned phase = 0; phase < PHASES; phase++)
            r->ns[phase][what] = probe_ns(stage, 1u << phase, what).median;
        r->ratio[PHASES][what] = probe_ratio(stage, 1u << CALM_BEFORE | 1u << CALM_AFTER, what);
    }
    r->injected = s->injected;
    r->checked = stage->checked;
    r->lost = stage->lost;
    r->wrong = stage->wrong;
    r->hung = stage->hung;
    r->untrue = !is_as_documented(s, f);
}

static void run_one(const struct fault *f, struct result *r)
{
    struct scene s = { 0 };
    bool equal, again;
    test_begin(NULL);
    alarm(HUNG_AFTER + (unsigned)(2 * settings.calm_ms + settings.ms) / 1000);
    scene_set_up(&s);
    workload_start(s.stage);
    calm(&s, CALM_BEFORE, settings.calm_ms);
    long offset = length_of(s.log);
    char log[96];
    memcpy(log, s.log, sizeof log);
    counters_read(&s, s.before);
    suffer(&s, f);
    r->fault = f;
    r->well_ms = recover(&s, &equal);
    judge_histories(s.stage);
    r->memory_mib = memory_mib(s.persister);
    bool anew = strcmp(log, s.log) != 0; /* the fault needed a persister of another kind */
    r->silent = !read_events(s.log, anew ? 0 : offset, f->says, r->events, sizeof r->events);
    r->uncounted = !is_counted(&s, f, r->counted, sizeof r->counted);
    if (r->uncounted)
        counters_say(&s);
    s.stage->strict = equal;
    calm(&s, CALM_AFTER, settings.calm_ms);
    for (uint64_t end = milliseconds() + WELL_MS;
         !s.stage->told[CALM_AFTER][TOLD_OK] && milliseconds() < end;)
        hold(&s, NULL, STEP_MS);
    recover(&s, &again);
    judge_histories(s.stage);
    r->changes = !equal + !again;
    if (!s.stage->told[CALM_AFTER][TOLD_OK])
        wrong(s.stage, "no binding is durable afterwards");
    sum_up(&s, f, r);
    if (test_end(NULL) != 0)
        r->wrong++;
}

static bool is_fine(const struct result *r)
{
    bool small = SANITIZED || r->memory_mib < MEMORY_MIB;
    return !r->lost && !r->changes && !r->wrong && !r->hung && !r->silent && !r->untrue &&
           !r->uncounted && small;
}

/* ---------------------------------------------------------------- results ---------------- */

static void print_header(void)
{
    printf("\n%-19s %8s %7s %7s %7s %7s %5s %7s %5s %8s %8s %8s %6s  %s\n", "fault", "injected",
           "durable", "refused", "unknown", "checked", "lost", "changes", "hung", "ms-well",
           "p99-get", "p99-touch", "MiB", "counter; the log says");
}

static double percent(double part, double of)
{
    return of > 0 ? 100 * part / of : 0;
}

/* By how much the p99 rose during the fault; 0 where a busy machine left no time to measure. */
static double rise(const struct result *r, enum probed what)
{
    double before = r->ratio[PHASES][what].median, during = r->ratio[DURING][what].median;
    return during > 0 ? percent(during - before, before) : 0;
}

/* By how much it differs without any: between the calms, and between the windows of both. */
static double noise(const struct result *r, enum probed what)
{
    double a = r->ratio[CALM_BEFORE][what].median, b = r->ratio[CALM_AFTER][what].median;
    const struct spread *both = &r->ratio[PHASES][what];
    double calms = percent(a > b ? a - b : b - a, a < b ? a : b);
    double windows = percent(both->high - both->low, both->median) / 2;
    return calms > windows ? calms : windows;
}

static void print_row(const struct result *r)
{
#define N(n) (unsigned long long)(n)
    printf("%-19s %8llu %7llu %7llu %7llu %7llu %5llu %7llu %5llu %8llu %+7.1f%% %+8.1f%% %6llu  "
           "%s; %s%s%s%s%s\n",
           r->fault->name, N(r->injected), N(r->told[TOLD_OK]), N(r->told[TOLD_REFUSED]),
           N(r->told[TOLD_UNKNOWN]), N(r->checked), N(r->lost), N(r->changes), N(r->hung),
           N(r->well_ms), rise(r, GET), rise(r, TOUCH), N(r->memory_mib),
           r->counted, r->events[0] ? r->events : "nothing", r->silent ? "  SILENT" : "",
           r->uncounted ? "  NOT COUNTED" : "",
           r->untrue ? "  NOT AS DOCUMENTED" : "", r->wrong ? "  WRONG" : "");
#undef N
    fflush(stdout);
}

static void print_times(const struct result *results, unsigned count)
{
    unsigned over = 0;
    printf("\np99 of the workers' calls in ns (median of windows of %d ms): calm before, during the "
           "fault, calm after;\nby how much it rose, measured against the same calls on a table "
           "without Redis, and by how much that differs without a fault\n\n"
           "%-19s   %26s %8s %8s   %26s %8s %8s\n", WINDOW_MS, "fault", "get", "rose", "noise",
           "touch", "rose", "noise");
    for (unsigned i = 0; i < count; i++) {
        const struct result *r = &results[i];
        printf("%-19s", r->fault->name);
        for (unsigned w = 0; w < PROBED; w++)
            printf("   %8.0f %8.0f %8.0f %+7.1f%% %7.1f%%", r->ns[CALM_BEFORE][w],
                   r->ns[DURING][w], r->ns[CALM_AFTER][w], rise(r, w), noise(r, w));
        bool beyond = false;
        for (unsigned w = 0; w < PROBED; w++)
            beyond |= rise(r, w) > ALLOWED_PERCENT && rise(r, w) > noise(r, w);
        over += beyond;
        printf("%s\n", beyond ? "   over 5 %, and over the noise" : "");
    }
    printf("\n%u of %u faults: no p99 rose by more than %d %% and more than the noise.\n",
           count - over, count, ALLOWED_PERCENT);
}

/* As it stands in docs/faults.md. */
static void print_list(void)
{
    printf("| fault | what is done | the caller of a bind is told | the persister's log says | "
           "counter |\n| --- | --- | --- | --- | --- |\n");
    for (unsigned i = 0; i < fault_count; i++) {
        const struct fault *f = &faults[i];
        bool counts = f->counter[0] != '\0';
        printf("| %s | %s | %s | %s | %s%s%s |\n", f->name, f->what, f->told,
               f->says[0] ? f->says : "nothing need be", counts ? "`" : "",
               counts ? f->counter : "nothing of ours is a script", counts ? "`" : "");
    }
}

static bool is_wanted(const struct fault *f)
{
    return fnmatch(settings.fault, f->name, 0) == 0 && (!settings.brief || f->flags & SHORT);
}

static unsigned run_wanted(struct result *results, bool *fine)
{
    unsigned count = 0, wanted = 0, n = 0;
    for (unsigned i = 0; i < fault_count; i++)
        wanted += is_wanted(&faults[i]);
    for (unsigned i = 0; i < fault_count; i++) {
        if (!is_wanted(&faults[i]))
            continue;
        fprintf(stderr, "  %2u of %u  %s\n", ++n, wanted, faults[i].name);
        run_one(&faults[i], &results[count]);
        *fine &= is_fine(&results[count]);
        count++;
    }
    return count;
}

/* The seed that everything random comes from, as the harness reads it. */
static void choose_seed(void)
{
    char text[24];
    uint64_t seed;
    if (!getenv("SESSTAB_SEED") && getrandom(&seed, sizeof seed, 0) == sizeof seed) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
        setenv("SESSTAB_SEED", text, 1);
    }
}

static bool run_all_faults(void)
{
    static struct result results[64];
    bool fine = true, bytes = fnmatch(settings.fault, "every byte", 0) == 0;
    unsigned count = run_wanted(results, &fine);
    if (count)
        print_header();
    for (unsigned i = 0; i < count; i++)
        print_row(&results[i]);
    if (count && !settings.brief) /* too short to measure */
        print_times(results, count);
    if (bytes)
        fine &= cuts_run((unsigned)settings.stride);
    return fine && (count || bytes);
}

static void leave(int signal_number)
{
    _exit(128 + signal_number); /* the janitor tidies up, and nobody outlives us */
}

int main(int argc, char **argv)
{
    static const struct argp parser = { options, parse, NULL,
        "Does to Redis whatever can happen to it while workers go on, and looks for what is lost.",
        NULL, NULL, NULL };
    argp_err_exit_status = 64;
    argp_parse(&parser, argc, argv, 0, NULL, &settings);
    if (settings.list) {
        print_list();
        return 0;
    }
    if (settings.brief) {
        settings.ms = 500; /* longer than the persister waits for an answer */
        settings.calm_ms = 100;
        settings.stride = 151;
    }
    else
        leave_the_probe_a_processor();
    choose_seed();
    if (tests_start(NULL) != 0)
        return 1;
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    printf("SESSTAB_SEED=%s\n", getenv("SESSTAB_SEED"));
    bool fine = run_all_faults();
    tests_finish(NULL);
    printf("\n%s\n", fine ? "Nothing was lost." : "There were faults.");
    return !fine;
}
