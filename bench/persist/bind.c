/*
 * Binds, beside a blocking HSET of the fields that a login changes, which are those that the
 * persister writes, over the same kind of socket.
 *
 *     bind   this process -> persister -> Redis -> persister -> this process
 *     hset   this process -> Redis -> this process
 *
 * For a latency both are measured in turn, with a pause after each: `asleep`, both servers sleep
 * when they are needed; `busy`, a neighbour touches a million sessions a second.  For a rate, as
 * many threads as there are callers do nothing else; each direct caller has its own connection.
 * Nothing is pinned: the scheduler places the processes as it would in use.
 */
#include "bench/persist/direct.h"
#include "bench/persist/neighbour.h"
#include "bench/persist/rows.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { PAUSE_US = 2000 /* on average */, DIRECT_KEYS = 1000 };

/* ---------------------------------------------------------------- one call -------------- */

void new_player(char player[NAME_BYTES])
{
    static _Atomic uint64_t serial = UINT32_MAX; /* above those of the sessions that are there */
    snprintf(player, NAME_BYTES, "#%" PRIu64 ":1234", atomic_fetch_add(&serial, 1) + 1);
}

static void bind_once(sesstab *table, uint64_t handle)
{
    char player[NAME_BYTES];
    new_player(player);
    must(sesstab_bind(table, handle, player, DEADLINE_MS), "bind");
}

static void hset_once(redisContext *connection, uint64_t handle)
{
    char player[NAME_BYTES];
    new_player(player);
    direct_login(connection, 1 + handle % DIRECT_KEYS, player);
    freeReplyObject(next_reply(connection));
}

/* ---------------------------------------------------------------- latency --------------- */

/* Microseconds, by round. */
struct latency {
    const char *contender;
    double *samples, p50[ROUNDS_MAX], p99[ROUNDS_MAX];
};

static struct latency new_latency(const char *contender, const struct plan *plan)
{
    return (struct latency){ .contender = contender,
                             .samples = bench_memory(plan->samples, sizeof(double)) };
}

static void end_round(struct latency *l, size_t round, size_t samples)
{
    l->p50[round] = spread_of(l->samples, samples).median;
    l->p99[round] = quantile(l->samples, samples, 0.99);
}

/* The state of both servers at the next call shall not depend on a rhythm. */
static double since_then_pause(uint64_t start, uint64_t *random)
{
    double took = (double)(bench_clock() - start) / 1000;
    bench_pause_us(PAUSE_US / 2 + (unsigned)(bench_random(random) % PAUSE_US));
    return took;
}

static void measure(struct stage *s, const struct plan *plan, struct latency *bind,
                    struct latency *hset)
{
    uint64_t random = plan->seed;
    for (size_t round = 0; round < plan->rounds; round++) {
        uint64_t handle = 0, start;
        for (size_t i = 0; i < plan->samples; i++) {
            handle = 1 + bench_random(&random) % s->sessions;
            start = bench_clock();
            bind_once(s->table, handle);
            bind->samples[i] = since_then_pause(start, &random);
            start = bench_clock();
            hset_once(s->connection, handle);
            hset->samples[i] = since_then_pause(start, &random);
        }
        stage_check(s, handle); /* OK meant that Redis has it */
        end_round(bind, round, plan->samples);
        end_round(hset, round, plan->samples);
    }
}

static void put_latency(const struct stage *s, const struct plan *plan, const char *state,
                        const struct latency *l, const struct latency *direct)
{
    char row[32];
    bool is_direct = l == direct;
    snprintf(row, sizeof row, "bind-%s-p50", state);
    output_figure((struct figure){ row, l->contender, "us", s->sessions, plan->rounds, l->p50,
                                   is_direct ? NULL : direct->p50 });
    snprintf(row, sizeof row, "bind-%s-p99", state);
    output_figure((struct figure){ row, l->contender, "us", s->sessions, plan->rounds, l->p99,
                                   is_direct ? NULL : direct->p99 });
}

static void run_state(struct stage *s, const struct plan *plan, const char *state, double limit)
{
    struct latency bind = new_latency("sesstab", plan), hset = new_latency("hset", plan);
    measure(s, plan, &bind, &hset);
    put_latency(s, plan, state, &bind, &hset);
    put_latency(s, plan, state, &hset, &hset);
    goal_at_most(ratio_of(bind.p50, hset.p50, plan->rounds), limit, s->sessions,
                 "bind p50, persister %s: times direct HSET", state);
    free(bind.samples);
    free(hset.samples);
}

void row_bind(struct stage *s, const struct plan *plan)
{
    /* Both calls change hashes that are there. */
    direct_drain(s->connection, direct_record, DIRECT_KEYS, DIRECT_KEYS);
    run_state(s, plan, "asleep", 2.2);
    struct neighbour *busy = neighbour_start(s, plan->seed);
    run_state(s, plan, "busy", 1.5);
    neighbour_stop(busy);
    stage_settle(s, NULL);
}

/* ---------------------------------------------------------------- many callers ---------- */

struct crowd {
    struct stage *stage;
    redisContext **connections; /* NULL: they bind */
    pthread_barrier_t start;
    _Atomic bool over;
    _Atomic uint64_t calls;
};

struct caller {
    struct crowd *crowd;
    size_t index, count;
    pthread_t thread;
};

/* Callers have sessions of their own: each is one player who logs in. */
static void *call(void *context)
{
    struct caller *c = context;
    struct crowd *crowd = c->crowd;
    uint64_t calls = 0, own = crowd->stage->sessions / c->count;
    must(sesstab_attach(crowd->stage->table), "attach");
    pthread_barrier_wait(&crowd->start);
    for (; !atomic_load(&crowd->over); calls++) {
        uint64_t handle = 1 + c->index * own + calls % own;
        if (crowd->connections)
            hset_once(crowd->connections[c->index], handle);
        else
            bind_once(crowd->stage->table, handle);
    }
    atomic_fetch_add(&crowd->calls, calls);
    return NULL;
}

double rate_of_callers(struct stage *s, redisContext **connections, size_t count, unsigned ms)
{
    struct crowd crowd = { .stage = s, .connections = connections };
    struct caller callers[CALLERS_MAX];
    pthread_barrier_init(&crowd.start, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        callers[i] = (struct caller){ &crowd, i, count, 0 };
        if (pthread_create(&callers[i].thread, NULL, call, &callers[i]) != 0)
            bench_fail("no more threads after %zu", i);
    }
    pthread_barrier_wait(&crowd.start);
    uint64_t start = bench_clock();
    bench_pause_us(ms * 1000);
    atomic_store(&crowd.over, true);
    for (size_t i = 0; i < count; i++)
        pthread_join(callers[i].thread, NULL);
    double seconds = (double)(bench_clock() - start) / 1e9;
    pthread_barrier_destroy(&crowd.start);
    return (double)crowd.calls / seconds;
}

static void run_callers(struct stage *s, const struct plan *plan, redisContext **connections,
                        size_t count)
{
    double bind[ROUNDS_MAX], hset[ROUNDS_MAX];
    char row[32];
    for (size_t round = 0; round < plan->rounds; round++) {
        bind[round] = rate_of_callers(s, NULL, count, plan->ms);
        hset[round] = rate_of_callers(s, connections, count, plan->ms);
    }
    snprintf(row, sizeof row, "binds-by-%zu", count);
    struct figure f = { row, "sesstab", "per-s", s->sessions, plan->rounds, bind, hset };
    output_figure(f);
    f.contender = "hset", f.rounds = hset, f.reference = NULL;
    output_figure(f);
    if (count == CALLERS_MAX)
        goal_at_least(ratio_of(bind, hset, plan->rounds), 2, s->sessions,
                      "binds a second, %zu callers: times direct HSET", count);
}

void row_callers(struct stage *s, const struct plan *plan)
{
    const size_t counts[] = { 1, 8, CALLERS_MAX };
    redisContext *connections[CALLERS_MAX];
    for (size_t i = 0; i < CALLERS_MAX; i++)
        connections[i] = stage_connect(s, false);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        run_callers(s, plan, connections, counts[i]);
    for (size_t i = 0; i < CALLERS_MAX; i++)
        redisFree(connections[i]);
    stage_settle(s, NULL);
}
