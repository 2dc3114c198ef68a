/*
 * The way out: how fast the persister writes a backlog, beside a program that pipelines the same
 * commands and does nothing else; what a million touches a second become; what all that costs.
 *
 * The backlog arises while the persister is stopped.  The clock runs from its going on until Redis
 * has acknowledged every session; then a few are compared.
 */
#include "bench/persist/direct.h"
#include "bench/persist/neighbour.h"
#include "bench/persist/rows.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

enum { SHALLOW = 128 /* the persister's own depth */, DEEP = 1024, COMPARED = 100,
       CLOCK_TICK_US = 20000 };

/* ---------------------------------------------------------------- a backlog ------------- */

typedef void change_fn(sesstab *table, uint64_t handle, uint64_t serial);

static void change_record(sesstab *table, uint64_t handle, uint64_t serial)
{
    char client[24];
    int length = snprintf(client, sizeof client, "%016" PRIx64, serial);
    must(sesstab_set(table, handle, "client", client, (size_t)length), "set");
}

static void change_last_seen(sesstab *table, uint64_t handle, uint64_t serial)
{
    (void)serial;
    must(sesstab_touch(table, handle, 0), "touch");
}

static void stop_persister(const struct stage *s)
{
    kill(s->persister, SIGSTOP);
    siginfo_t how;
    waitid(P_PID, (id_t)s->persister, &how, WSTOPPED);
}

/* Seconds. */
static double drain(struct stage *s, change_fn *change, uint64_t *random)
{
    static uint64_t serial;
    bench_pause_us(CLOCK_TICK_US); /* a touch at the same time as the last is none */
    stop_persister(s);
    uint64_t written = stage_written(s) + s->sessions;
    for (uint64_t handle = 1; handle <= s->sessions; handle++)
        change(s->table, handle, ++serial);
    uint64_t start = bench_clock();
    kill(s->persister, SIGCONT);
    while (stage_written(s) < written) {
        sandbox_must_live(s->persister, "persister.log");
        bench_pause_us(200);
    }
    double seconds = (double)(bench_clock() - start) / 1e9;
    stage_settle(s, NULL);
    for (int i = 0; i < COMPARED; i++)
        stage_check(s, 1 + bench_random(random) % s->sessions);
    return seconds;
}

struct backlog {
    const char *row;
    change_fn *change;    /* in the table           */
    direct_fn *direct;    /* the same, without one  */
};

static void run_backlog(struct stage *s, const struct plan *plan, const struct backlog *b)
{
    double ours[ROUNDS_MAX], shallow[ROUNDS_MAX], deep[ROUNDS_MAX], n = (double)s->sessions;
    uint64_t random = plan->seed;
    for (size_t round = 0; round < plan->rounds; round++) {
        ours[round] = n / drain(s, b->change, &random);
        shallow[round] = n / direct_drain(s->connection, b->direct, s->sessions, SHALLOW);
        deep[round] = n / direct_drain(s->connection, b->direct, s->sessions, DEEP);
    }
    struct figure f = { b->row, "sesstab", "per-s", s->sessions, plan->rounds, ours, deep };
    output_figure(f);
    f.contender = "raw-128", f.rounds = shallow;
    output_figure(f);
    f.contender = "raw-1024", f.rounds = deep, f.reference = NULL;
    output_figure(f);
    goal_at_least(ratio_of(ours, deep, plan->rounds), 0.7, s->sessions,
                  "%s: times raw pipelined HSET", b->row);
}

void row_drain(struct stage *s, const struct plan *plan)
{
    const struct backlog backlogs[] = { { "drain-records", change_record, direct_record },
                                        { "drain-touches", change_last_seen, direct_touch } };
    direct_drain(s->connection, direct_record, s->sessions, DEEP); /* the hashes that will change */
    for (size_t i = 0; i < sizeof backlogs / sizeof *backlogs; i++)
        run_backlog(s, plan, &backlogs[i]);
}

/* ---------------------------------------------------------------- what it costs --------- */

/* Nanoseconds of processor time that the process has used. */
static uint64_t cpu_time(pid_t pid)
{
    struct timespec t;
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        bench_fail("the processor time of process %d: %s", (int)pid, strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A moment, as counters: of two moments the difference is a rate. */
struct moment {
    uint64_t time, persister, redis, hsets, touches;
};

static struct moment look(const struct stage *s, const struct neighbour *n)
{
    return (struct moment){ .persister = cpu_time(s->persister), .redis = cpu_time(s->redis),
                            .hsets = redis_executed(s->connection, "hset"),
                            .touches = n ? atomic_load(&n->touches) : 0, .time = bench_clock() };
}

static double percent(uint64_t cpu, uint64_t time)
{
    return 100.0 * (double)cpu / (double)time;
}

static void put_cpu(const struct stage *s, const char *row, size_t rounds, const double *persister,
                    const double *redis)
{
    struct figure f = { row, "persister", "percent", s->sessions, rounds, persister, NULL };
    output_figure(f);
    f.contender = "redis-server", f.rounds = redis;
    output_figure(f);
}

void row_idle(struct stage *s, const struct plan *plan)
{
    struct moment before = look(s, NULL);
    bench_pause_us(plan->idle_ms * 1000);
    struct moment after = look(s, NULL);
    uint64_t time = after.time - before.time;
    double persister = percent(after.persister - before.persister, time);
    double redis = percent(after.redis - before.redis, time);
    put_cpu(s, "cpu-idle", 1, &persister, &redis);
    goal_at_most(persister, 1, s->sessions, "idle persister: percent of a processor");
}

/* ---------------------------------------------------------------- a million touches ----- */

struct touches {
    double touches[ROUNDS_MAX], hsets[ROUNDS_MAX], factor[ROUNDS_MAX], persister[ROUNDS_MAX],
        redis[ROUNDS_MAX];
};

static void touch_round(const struct stage *s, const struct neighbour *n, unsigned ms,
                        struct touches *t, size_t round)
{
    struct moment a = look(s, n);
    bench_pause_us(ms * 1000);
    struct moment b = look(s, n);
    double seconds = (double)(b.time - a.time) / 1e9;
    t->touches[round] = (double)(b.touches - a.touches) / seconds;
    t->hsets[round] = (double)(b.hsets - a.hsets) / seconds;
    t->factor[round] = t->touches[round] / t->hsets[round];
    t->persister[round] = percent(b.persister - a.persister, b.time - a.time);
    t->redis[round] = percent(b.redis - a.redis, b.time - a.time);
}

void row_touches(struct stage *s, const struct plan *plan)
{
    struct touches t;
    double sorted[ROUNDS_MAX];
    struct neighbour *busy = neighbour_start(s, plan->seed);
    for (size_t round = 0; round < plan->rounds; round++)
        touch_round(s, busy, plan->ms, &t, round);
    neighbour_stop(busy);
    if (spread_of(memcpy(sorted, t.hsets, sizeof sorted), plan->rounds).max == 0)
        bench_fail("a million touches a second, and Redis heard of none");
    struct figure f = { "touches", "sesstab", "per-s", s->sessions, plan->rounds, t.touches, NULL };
    output_figure(f);
    f.row = "touches-hsets", f.rounds = t.hsets;
    output_figure(f);
    f.row = "touches-per-hset", f.unit = "times", f.rounds = t.factor;
    output_figure(f);
    put_cpu(s, "cpu-touches", plan->rounds, t.persister, t.redis);
    stage_settle(s, NULL);
}
