/*
 * How long a bind takes until Redis has acknowledged it, with a real persister and a real Redis,
 * beside a blocking HSET of the same fields from the same process over the same socket.
 *
 *     bind   this process -> persister -> Redis -> persister -> this process
 *     hset   this process -> Redis -> this process
 *
 * Both are measured in turn, with a pause after each.  `asleep`: nothing else happens, so that both
 * servers sleep when they are needed.  `busy`: another process touches random sessions, a thousand
 * every millisecond.  Nothing is pinned: the scheduler places four processes as it would in use.
 */
#include "bench/bench.h"
#include "bench/sandbox.h"
#include "lib/sesstab.h"

#include <argp.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    SESSIONS_MAX = 100000000,
    SIZES_MAX = 8,
    SAMPLES_MAX = 10000,      /* of a round */
    DEADLINE_MS = 20000,      /* of a bind, and of whatever should be there soon */
    PAUSE_US = 2000,          /* on average */
    DIRECT_KEYS = 1000,
    TOUCHES_PER_MS = 1000,
    SEED = 1
};

struct settings {
    size_t sizes[SIZES_MAX], size_count, rounds, samples;
};

/* ---------------------------------------------------------------- options --------------- */

enum { OPTION_SMOKE = 256, OPTION_ROUNDS, OPTION_SAMPLES };

static const struct argp_option options[] = {
    { "sessions", 'n', "N", 0, "Measure a table of N sessions; repeatable (1000, 1000000)", 0 },
    { "rounds", OPTION_ROUNDS, "N", 0, "Rounds that the median is taken of (9)", 0 },
    { "samples", OPTION_SAMPLES, "N", 0, "Binds in a round (100)", 0 },
    { "smoke", OPTION_SMOKE, 0, 0, "See that everything runs: small, short, nothing to judge", 0 },
    { 0 }
};

static void add_size(struct settings *s, size_t sessions, struct argp_state *state)
{
    if (s->size_count == SIZES_MAX)
        argp_error(state, "--sessions may be given %d times", SIZES_MAX);
    s->sizes[s->size_count++] = sessions;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct settings *s = state->input;
    switch (key) {
    case 'n':
        add_size(s, bench_number(argument, SESSIONS_MAX, "sessions"), state);
        return 0;
    case OPTION_ROUNDS:
        s->rounds = bench_number(argument, ROUNDS_MAX, "rounds");
        return 0;
    case OPTION_SAMPLES:
        s->samples = bench_number(argument, SAMPLES_MAX, "samples");
        return 0;
    case OPTION_SMOKE:
        s->rounds = 3;
        s->samples = 20;
        add_size(s, 1000, state);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to do with \"%s\"", argument);
        return 0;
    case ARGP_KEY_END:
        if (!s->size_count) {
            add_size(s, 1000, state);
            add_size(s, 1000000, state);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, NULL,
    "Measures how long a bind takes, beside a direct HSET.\v"
    "Takes the persister from the directory SESSTAB_BIN, or else from where this program was "
    "built; redis-server from PATH.\n\n"
    "Exit status: 0 measured, 1 failed, 64 wrong usage.",
    NULL, NULL, NULL
};

/* ---------------------------------------------------------------- the stage ------------- */

/* One table with everything that it takes to bind. */
struct stage {
    char name[SANDBOX_NAME_MAX];
    size_t sessions;
    pid_t redis, persister;
    redisContext *connection;
    sesstab *table;
    uint64_t random, serial; /* serial: makes every player a new one */
};

static void must(int result, const char *what)
{
    if (result)
        bench_fail("%s: %s. %s", what, sesstab_strerror(result), sesstab_error_detail());
}

static bool answers(redisContext *connection)
{
    redisReply *reply = connection->err ? NULL : redisCommand(connection, "PING");
    bool yes = reply && reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    return yes;
}

static redisContext *connect_redis(const char *socket, pid_t server)
{
    uint64_t deadline = bench_clock() + UINT64_C(1000000) * DEADLINE_MS;
    for (;;) {
        redisContext *connection = redisConnectUnix(socket);
        if (connection && answers(connection))
            return connection;
        sandbox_must_live(server, "redis.log");
        if (bench_clock() > deadline)
            bench_fail("redis-server does not answer: %s",
                       connection ? connection->errstr : "out of memory");
        if (connection)
            redisFree(connection);
        bench_pause_us(10000);
    }
}

static void start_redis(struct stage *s)
{
    char socket[SANDBOX_PATH_MAX], directory[SANDBOX_PATH_MAX];
    sandbox_path(socket, "redis");
    sandbox_path(directory, "");
    const char *const argv[] = { "redis-server", "--port", "0", "--unixsocket", socket, "--dir",
                                 directory, "--save", "", "--appendonly", "no", NULL };
    s->redis = sandbox_program(argv, "redis.log");
    s->connection = connect_redis(socket, s->redis);
}

/* The persister lies beside the directory of this program, unless SESSTAB_BIN says where. */
static void persister_path(char path[PATH_MAX])
{
    const char *directory = getenv("SESSTAB_BIN");
    char self[PATH_MAX / 2] = "";
    if (!directory && readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        bench_fail("/proc/self/exe: %s", strerror(errno));
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    snprintf(path, PATH_MAX, "%s/%s", directory ? directory : self,
             directory ? "persister" : "../persister");
    if (access(path, X_OK) != 0)
        bench_fail("%s: %s: build it with `make`, or say in SESSTAB_BIN where it is", path,
                   strerror(errno));
}

static void start_persister(struct stage *s)
{
    char path[PATH_MAX], socket[SANDBOX_PATH_MAX], url[SANDBOX_PATH_MAX + 8];
    persister_path(path);
    sandbox_path(socket, "redis");
    snprintf(url, sizeof url, "unix:%s", socket);
    const char *const argv[] = { path, "--table", s->name, "--create", "--redis", url, "--prefix",
                                 "bench", NULL };
    s->persister = sandbox_program(argv, "persister.log");
}

/* ---------------------------------------------------------------- filling --------------- */

static void fill(struct stage *s)
{
    const sesstab_pair metadata[] = { { "width", "132x43", 6 },
                                      { "term", "xterm-256color", 14 },
                                      { "client", "Mudlet 4.17.2 ok", 16 } };
    const sesstab_info info = { .address = "203.0.113.7", .host = "dsl-7.example.net",
                                .type = "telnet", .metadata = metadata, .metadata_count = 3 };
    for (uint64_t handle = 1; handle <= s->sessions; handle++)
        must(sesstab_insert(s->table, &handle, &info), "insert");
}

static size_t sessions_in_redis(struct stage *s)
{
    redisReply *reply = redisCommand(s->connection, "SCARD bench:conn:active");
    if (!reply || reply->type != REDIS_REPLY_INTEGER)
        bench_fail("Redis, asked SCARD: %s", reply ? reply->str : s->connection->errstr);
    size_t count = (size_t)reply->integer;
    freeReplyObject(reply);
    return count;
}

/* On a terminal one line that is written over; else a line for each tenth. */
static void show_progress(const struct stage *s, size_t written, unsigned *tenths)
{
    unsigned now = (unsigned)(written * 10 / s->sessions);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%zu of %zu sessions in Redis%s", written, s->sessions,
                now == 10 ? "\n" : " ");
    else if (now != *tenths)
        fprintf(stderr, "%zu of %zu sessions in Redis\n", written, s->sessions);
    *tenths = now;
}

static void await_redis(struct stage *s)
{
    unsigned tenths = 0;
    for (size_t written = 0; written < s->sessions; bench_pause_us(100000)) {
        written = sessions_in_redis(s);
        sandbox_must_live(s->persister, "persister.log");
        show_progress(s, written, &tenths);
    }
}

static void open_stage(struct stage *s, size_t sessions)
{
    *s = (struct stage){ .sessions = sessions, .random = SEED };
    sandbox_table(s->name, "bind");
    start_redis(s);
    must(sesstab_open(s->name, &(sesstab_options){ .create = true }, &s->table), "open");
    start_persister(s);
    if (sesstab_wait_ready(s->table, DEADLINE_MS) != SESSTAB_OK) {
        sandbox_must_live(s->persister, "persister.log");
        bench_fail("the persister did not load the table within %d s", DEADLINE_MS / 1000);
    }
    uint64_t start = bench_clock();
    fill(s);
    double inserted = (double)(bench_clock() - start) / 1e9;
    await_redis(s);
    double written = (double)(bench_clock() - start) / 1e9;
    printf("# %zu sessions: inserted in %.2f s, all in Redis after %.1f s (%.0f a second)\n",
           sessions, inserted, written, (double)sessions / written);
}

static void close_stage(struct stage *s)
{
    sandbox_kill(s->persister);
    redisFree(s->connection);
    sandbox_kill(s->redis);
    sesstab_close(s->table);
    must(sesstab_unlink(s->name), "unlink");
}

/* ---------------------------------------------------------------- the two calls --------- */

static void new_player(struct stage *s, char player[32])
{
    snprintf(player, 32, "#%llu:1234", (unsigned long long)++s->serial);
}

static double bind_once(struct stage *s)
{
    char player[32];
    uint64_t handle = 1 + bench_random(&s->random) % s->sessions;
    new_player(s, player);
    uint64_t start = bench_clock();
    int result = sesstab_bind(s->table, handle, player, DEADLINE_MS);
    uint64_t took = bench_clock() - start;
    if (result != SESSTAB_OK) {
        sandbox_must_live(s->persister, "persister.log");
        bench_fail("a bind was answered: %s", sesstab_strerror(result));
    }
    return (double)took / 1000;
}

/* The fields of a session as the persister writes them. */
static redisReply *write_fields(struct stage *s, uint64_t handle, const char *player)
{
    return redisCommand(s->connection,
                        "HSET direct:conn:%llu Handle %llu Generation 1700000000001 PlayerRef %s "
                        "State logged-in IpAddress 203.0.113.7 Hostname dsl-7.example.net "
                        "ConnectionType telnet ConnectedAt 2023-11-14T22:13:20.000Z LastSeen "
                        "2023-11-14T22:13:20.000Z Owner 1.1 Version %llu",
                        (unsigned long long)handle, (unsigned long long)handle, player,
                        (unsigned long long)s->serial);
}

static double hset_once(struct stage *s)
{
    char player[32];
    uint64_t handle = 1 + bench_random(&s->random) % DIRECT_KEYS;
    new_player(s, player);
    uint64_t start = bench_clock();
    redisReply *reply = write_fields(s, handle, player);
    uint64_t took = bench_clock() - start;
    if (!reply || reply->type != REDIS_REPLY_INTEGER)
        bench_fail("Redis, asked HSET: %s", reply ? reply->str : s->connection->errstr);
    freeReplyObject(reply);
    return (double)took / 1000;
}

/* Both calls change hashes that are there. */
static void prepare_direct(struct stage *s)
{
    for (uint64_t handle = 1; handle <= DIRECT_KEYS; handle++)
        freeReplyObject(write_fields(s, handle, "#0:0"));
}

/* How many HSETs Redis has executed. */
static uint64_t hsets(struct stage *s)
{
    redisReply *reply = redisCommand(s->connection, "INFO commandstats");
    if (!reply || reply->type != REDIS_REPLY_STRING)
        bench_fail("Redis, asked INFO: %s", reply ? reply->str : s->connection->errstr);
    const char *line = strstr(reply->str, "cmdstat_hset:calls=");
    uint64_t count = line ? strtoull(strchr(line, '=') + 1, NULL, 10) : 0;
    freeReplyObject(reply);
    return count;
}

/* ---------------------------------------------------------------- the busy neighbour ---- */

struct toucher {
    sesstab *table;
    size_t sessions;
    _Atomic uint64_t touches;
};

static uint64_t now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A millisecond's touches every millisecond, until it is killed; what it missed it makes up for. */
static void touch_for_ever(void *context)
{
    struct toucher *t = context;
    uint64_t random = SEED, due = now_ms(CLOCK_MONOTONIC);
    for (;; due++) {
        uint64_t now = now_ms(CLOCK_REALTIME);
        for (int i = 0; i < TOUCHES_PER_MS; i++)
            if (sesstab_touch(t->table, 1 + bench_random(&random) % t->sessions, now) != SESSTAB_OK)
                bench_fail("a touch failed");
        atomic_fetch_add(&t->touches, TOUCHES_PER_MS);
        struct timespec until = { (time_t)(due / 1000), (long)(due % 1000) * 1000000 };
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
}

static struct toucher *share_toucher(void)
{
    struct toucher *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                             -1, 0);
    if (t == MAP_FAILED)
        bench_fail("mmap: %s", strerror(errno));
    return t;
}

/* ---------------------------------------------------------------- measuring ------------- */

/* Microseconds of one call. */
struct series {
    const char *call;
    double *all;               /* every sample  */
    double p50[ROUNDS_MAX];    /* of each round */
    double p99, max;
};

/* The state of both servers at the next call shall not depend on a rhythm. */
static void pause_a_little(struct stage *s)
{
    bench_pause_us(PAUSE_US / 2 + (unsigned)(bench_random(&s->random) % PAUSE_US));
}

static void measure(struct stage *s, const struct settings *settings, struct series *bind,
                    struct series *hset)
{
    for (size_t r = 0; r < settings->rounds; r++) {
        double *b = bind->all + r * settings->samples, *h = hset->all + r * settings->samples;
        for (size_t i = 0; i < settings->samples; i++) {
            b[i] = bind_once(s);
            pause_a_little(s);
            h[i] = hset_once(s);
            pause_a_little(s);
        }
        bind->p50[r] = spread_of(b, settings->samples).median;
        hset->p50[r] = spread_of(h, settings->samples).median;
    }
}

/* What happened meanwhile, per second. */
struct load {
    double touches, hsets;
};

static void print_series(const struct stage *s, const char *state, const struct series *series,
                         const struct settings *settings, const struct series *direct,
                         struct load load)
{
    double p50[ROUNDS_MAX];
    memcpy(p50, series->p50, sizeof p50);
    struct spread rounds = spread_of(p50, settings->rounds);
    printf("%-9zu %-9s %-5s %8.1f %8.1f %8.1f %8.1f %9.1f %8.2f %8.2f %9.0f %8.0f\n", s->sessions,
           state, series->call, rounds.median, rounds.min, rounds.max, series->p99, series->max,
           ratio_of(series->p50, direct->p50, settings->rounds), series->p99 / direct->p99,
           load.touches, load.hsets);
}

static struct series new_series(const char *call, const struct settings *settings)
{
    size_t count = settings->rounds * settings->samples;
    return (struct series){ .call = call, .all = bench_memory(count, sizeof(double)) };
}

static void end_series(struct series *series, const struct settings *settings)
{
    size_t count = settings->rounds * settings->samples;
    series->max = spread_of(series->all, count).max;
    series->p99 = quantile(series->all, count, 0.99);
    free(series->all);
}

/* TOUCHER: who keeps the persister busy meanwhile; NULL: nobody. */
static void run_state(struct stage *s, const struct settings *settings, const char *state,
                      struct toucher *toucher)
{
    struct series bind = new_series("bind", settings), hset = new_series("hset", settings);
    uint64_t start = bench_clock(), written = hsets(s), touched = toucher ? toucher->touches : 0;
    measure(s, settings, &bind, &hset);
    double seconds = (double)(bench_clock() - start) / 1e9;
    struct load load = { toucher ? (double)(toucher->touches - touched) / seconds : 0,
                         (double)(hsets(s) - written) / seconds };
    end_series(&bind, settings);
    end_series(&hset, settings);
    print_series(s, state, &bind, settings, &hset, load);
    print_series(s, state, &hset, settings, &hset, load);
}

static void run_size(const struct settings *settings, size_t sessions)
{
    struct stage stage;
    open_stage(&stage, sessions);
    prepare_direct(&stage);
    run_state(&stage, settings, "asleep", NULL);

    struct toucher *toucher = share_toucher();
    toucher->table = stage.table;
    toucher->sessions = sessions;
    pid_t pid = sandbox_child(touch_for_ever, toucher);
    while (!toucher->touches)
        bench_pause_us(1000);
    bench_pause_us(200000); /* until the persister is in its stride */
    run_state(&stage, settings, "busy", toucher);
    sandbox_kill(pid);
    munmap(toucher, sizeof *toucher);
    close_stage(&stage);
}

/* ---------------------------------------------------------------- main ------------------ */

static void print_header(const struct settings *settings)
{
    printf("# bind_bench: microseconds until Redis has acknowledged; p50: median, least and most "
           "of %zu rounds of %zu; p99 and max: of all\n",
           settings->rounds, settings->samples);
    bench_describe_machine(-1);
    printf("# bind: sesstab_bind() through the persister; hset: a blocking HSET of the same fields "
           "over the same socket\n"
           "# asleep: nothing else happens; busy: another process touches random sessions\n"
           "# *_vs: as many times the hset's; touches/s, hsets/s: by all processes meanwhile\n"
           "# redis-server on a unix socket, without persistence\n"
           "%-9s %-9s %-5s %8s %8s %8s %8s %9s %8s %8s %9s %8s\n",
           "sessions", "persister", "call", "p50", "p50_min", "p50_max", "p99", "max", "p50_vs",
           "p99_vs", "touches/s", "hsets/s");
}

int main(int argc, char **argv)
{
    struct settings settings = { .rounds = 9, .samples = 100 };
    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    sandbox_start();
    print_header(&settings);
    for (size_t i = 0; i < settings.size_count; i++)
        run_size(&settings, settings.sizes[i]);
    return 0;
}
