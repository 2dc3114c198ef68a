/*
 * The storm: see storm.h.  One table after the other, each of another kind; on each it blows in
 * gusts, with a calm after each in which everything is checked.  At the end a table of what was
 * done and what was found; exit status 1 if there is any fault.
 */
#include "tests/storm/storm.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

/*
 * Without a persister, what the dead left is freed by workers that live for a grace period or two;
 * here they hardly do, and memory may run out.
 */
static const struct variant variants[] = {
    { "tiny rings", { .create = true, .ring_entries = 4, .first_version = (1ULL << 29) - 500,
                      .max_bytes = 64 << 20 }, .full = false, .scarce = false },
    { "full fences", { .create = true, .ring_entries = 4, .first_version = (1ULL << 32) - 500,
                       .full_fences = true, .max_bytes = 64 << 20 },
                     .full = false, .scarce = false },
    { "full table", { .create = true, .ring_entries = 8, .first_version = (1ULL << 47) - 500,
                      .max_bytes = 4 << 20 }, .full = true, .scarce = true },
    { "no Redis", { .create = true, .mode = SESSTAB_MEMORY, .ring_entries = 4,
                    .max_bytes = 64 << 20 }, .full = false, .scarce = true },
};
enum { VARIANTS = sizeof variants / sizeof *variants };

enum {
    GUST_MS = 10000,
    ROOM = 150,         /* free slots in a full table                                            */
    OVERTIME_S = 600    /* for calms, and on a slow machine                                      */
};

static struct settings { uint64_t seconds, kills, workers, rate; bool judge; const char *only; }
settings = { SANITIZED ? 12 : 24, 0, 8, SANITIZED ? 60 : 300, false, NULL };

/* ---------------------------------------------------------------- options --------------- */

enum { OPTION_RATE = 256, OPTION_JUDGE, OPTION_ONLY };

static const struct argp_option options[] = {
    { "seconds", 's', "N", 0, "How long it blows, over all tables (24; sanitized: 12)", 0 },
    { "kills", 'k', "N", 0, "Ends earlier when so many workers were killed", 0 },
    { "workers", 'w', "N", 0, "Worker processes (8)", 0 },
    { "rate", OPTION_RATE, "N", 0, "Workers killed per second (300; sanitized: 60)", 0 },
    { "judge-hangs", OPTION_JUDGE, 0, 0, "A call over 100 ms of its own is a fault", 0 },
    { "only", OPTION_ONLY, "KIND", 0, "Only the kind of table of this name", 0 },
    { 0 }
};

static uint64_t number(struct argp_state *state, const char *text, uint64_t least, uint64_t most)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    if (*end || end == text || n < least || n > most)
        argp_error(state, "'%s' is not a number from %llu to %llu", text,
                   (unsigned long long)least, (unsigned long long)most);
    return n;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case 's': s->seconds = number(state, text, VARIANTS, 86400); return 0;
    case 'k': s->kills = number(state, text, 0, UINT32_MAX); return 0;
    case 'w': s->workers = number(state, text, 1, SEATS_MAX); return 0;
    case OPTION_RATE: s->rate = number(state, text, 1, 100000); return 0;
    case OPTION_JUDGE: s->judge = true; return 0;
    case OPTION_ONLY: s->only = text; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---------------------------------------------------------------- one table ------------- */

/* What is left of a storm when it is over. */
struct result {
    struct toll toll;
    struct counts count;
    uint64_t milliseconds, worst, noise_worst;
    double first_mib, last_mib;
};

static void start_table(struct storm *s, const struct variant *v)
{
    books = shared_memory(sizeof *books);
    books->variant = v;
    books->judge_hangs = settings.judge;
    books->seats = (unsigned)settings.workers;
    books->name = new_name();
    for (unsigned i = 0; i < SEATS_MAX * LANES; i++)
        lane_init(&books->seat[i / LANES].lanes[i % LANES], i);
    s->table = open_table(books->name, &v->options);
    s->rate = settings.rate;
}

/* Redis's files are this table's own. */
static void prepare_redis(struct storm *s)
{
    static unsigned tables;
    snprintf(s->redis.directory, sizeof s->redis.directory, "%s/redis-%u",
             scratch_directory(), tables++);
    check(mkdir(s->redis.directory, 0700) == 0);
    snprintf(s->redis.socket, sizeof s->redis.socket, "%s/s", s->redis.directory);
    snprintf(s->redis.url, sizeof s->redis.url, "unix:%s", s->redis.socket);
}

static void fill_table(struct storm *s)
{
    struct thread t;
    static const size_t sizes[] = { 300, VALUE_MAX };
    char value[VALUE_MAX] = "";
    thread_init(&t, s->table, NULL, NULL, 0);
    check_ok(sesstab_wait_ready(s->table, WAIT_LIMIT));
    for (unsigned i = 0; books->variant->full && i < 2; i++) { /* some memory for large records */
        uint64_t large = BALLAST_HANDLE(books->ballast_end++);
        check_ok(content_insert(&t, &large, large, 0));
        check_ok(sesstab_set(s->table, large, "large", value, sizes[i]));
    }
    commons_init(&t);
    thread_done(&t);
    if (books->variant->full)
        calm_fill(ROOM);
}

static void blow(struct storm *s, uint64_t length, uint64_t kills)
{
    uint64_t left = length;
    while (left && s->toll.workers < kills) {
        uint64_t gust = left < 2 * GUST_MS ? left : GUST_MS;
        killer_blow(s, milliseconds() + gust, kills);
        killer_calm(s);
        calm_check(s);
        left -= gust;
    }
    if (books->variant->full)
        calm_check_capacity();
}

static bool run(const struct variant *v, uint64_t length, uint64_t kills, struct result *result)
{
    struct storm s = { .toll = { 0 } };
    uint64_t start = milliseconds();
    test_begin(NULL);
    alarm((unsigned)(length / 1000) * 3 + OVERTIME_S);
    start_table(&s, v);
    prepare_redis(&s);
    start_child(measure_noise, NULL);
    killer_start(&s);
    fill_table(&s);
    blow(&s, length, kills);
    *result = (struct result){ s.toll, books->count, milliseconds() - start, books->worst,
                               books->noise_worst, books->first_mib, books->last_mib };
    redis_own_connection(&s.redis);
    return test_end(NULL) == 0;
}

/* ---------------------------------------------------------------- results --------------- */

static void add_words(void *sum, const void *words, size_t bytes)
{
    for (size_t i = 0; i < bytes / 8; i++)
        ((uint64_t *)sum)[i] += ((const uint64_t *)words)[i];
}

static void add_up(struct result *sum, const struct result *r)
{
    add_words(&sum->toll, &r->toll, sizeof r->toll);
    add_words(&sum->count, &r->count, sizeof r->count);
    sum->milliseconds += r->milliseconds;
    sum->first_mib += r->first_mib;
    sum->last_mib += r->last_mib;
    sum->worst = r->worst > sum->worst ? r->worst : sum->worst;
    sum->noise_worst = r->noise_worst > sum->noise_worst ? r->noise_worst : sum->noise_worst;
}

static void print_row(const char *name, const struct result *r)
{
    const struct toll *t = &r->toll;
    const struct counts *c = &r->count;
#define N(n) (unsigned long long)(n)
    printf("%-12s %7.1f %8llu %10llu %6llu %7llu %7llu %7llu %8llu %10llu %9llu %9llu %8llu %8llu "
           "%7llu %4llu %4llu %5llu %6llu %5llu %9.1f %8.1f %9.1f %8.1f\n",
           name, (double)r->milliseconds / 1000, N(t->workers + t->children), N(t->persisters),
           N(t->redis), N(t->stops), N(c->forks), N(c->attaches), N(c->threads), N(c->operations),
           N(c->durable), N(c->checked), N(c->refused), N(c->unknown), N(c->no_memory),
           N(c->faults[LOST]), N(c->faults[DUPLICATED]), N(c->faults[WRONG]),
           N(c->faults[LEAKED]), N(c->faults[HANG]),
           (double)r->worst / 1e6, (double)r->noise_worst / 1e6, r->first_mib, r->last_mib);
#undef N
}

static void print_header(void)
{
    printf("\n%-12s %7s %8s %10s %6s %7s %7s %7s %8s %10s %9s %9s %8s %8s %7s %4s %4s %5s %6s "
           "%5s %9s %8s %9s %8s\n",
           "table", "seconds", "kills", "persisters", "Redis", "stops", "forks", "attach",
           "threads", "operations", "durable", "checked", "refused", "unknown", "no-mem", "lost",
           "dup", "wrong", "leaked", "hangs", "worst-ms", "noise-ms", "first-MiB",
           "last-MiB");
}

/* What it takes for the figures above to mean something. */
static void print_more(const struct result *sum)
{
    printf("\nRecords checked by readers: %llu; sessions found detached: %llu; Redis's "
           "connections cut: %llu times; Redis made to refuse everything: %llu times; calls over "
           "%d ms: %llu.\n",
           (unsigned long long)sum->count.views, (unsigned long long)sum->count.detached,
           (unsigned long long)sum->toll.cuts, (unsigned long long)sum->toll.refusals, HANG_MS,
           (unsigned long long)sum->count.slow);
}

static bool is_wanted(const struct variant *v)
{
    return !settings.only || strcmp(settings.only, v->name) == 0;
}

static bool run_all_tables(void)
{
    static struct result results[VARIANTS], sum;
    bool fine = true;
    unsigned count = 0;
    for (int i = 0; i < VARIANTS; i++)
        count += is_wanted(&variants[i]);
    for (int i = 0; i < VARIANTS && count; i++)
        if (is_wanted(&variants[i]))
            fine &= run(&variants[i], settings.seconds * 1000 / count,
                        settings.kills ? settings.kills / count : UINT64_MAX, &results[i]);
    print_header();
    for (int i = 0; i < VARIANTS; i++) {
        if (is_wanted(&variants[i]))
            print_row(variants[i].name, &results[i]);
        add_up(&sum, &results[i]);
    }
    print_row("all", &sum);
    print_more(&sum);
    for (int i = 0; i < FAULTS; i++)
        fine &= sum.count.faults[i] == 0;
    return fine && count;
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

int main(int argc, char **argv)
{
    static const struct argp parser = { options, parse, NULL,
        "Kills workers, persisters and Redis at random while they work, and checks what is left.",
        NULL, NULL, NULL };
    argp_parse(&parser, argc, argv, 0, NULL, &settings);
    choose_seed();
    if (tests_start(NULL) != 0)
        return 1;
    printf("SESSTAB_SEED=%s\n", getenv("SESSTAB_SEED"));
    bool fine = run_all_tables();
    tests_finish(NULL);
    printf("\n%s\n", fine ? "No fault." : "There were faults.");
    return !fine;
}
