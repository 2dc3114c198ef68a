/*
 * Outstanding binds: one thread with an event loop starts binds without waiting and takes the
 * answers from the descriptor, so many outstanding at any time; beside as many blocking callers of
 * HSET as there ever are, with a connection each.  What Redis executes at most is a pipeline of the same
 * fields with nothing to wait for (raw-1024).
 */
#include "bench/persist/direct.h"
#include "bench/persist/rows.h"

#include <poll.h>
#include <stdio.h>

struct loop {
    struct stage *stage;
    int descriptor;
    size_t outstanding;
    uint64_t started, answers;
};

static void start_one(struct loop *l)
{
    char player[NAME_BYTES];
    uint64_t handle = 1 + l->started++ % l->stage->sessions;
    new_player(player);
    must(sesstab_start_bind(l->stage->table, handle, player, NULL, NULL), "start of a bind");
    l->outstanding++;
}

/* Takes what is answered, and starts as many. */
static void turn(struct loop *l, bool over)
{
    sesstab_answer answer;
    struct pollfd p = { .fd = l->descriptor, .events = POLLIN };
    if (poll(&p, 1, DEADLINE_MS) != 1)
        bench_fail("no answer within %d ms", DEADLINE_MS);
    while (sesstab_next_answer(l->stage->table, &answer) == SESSTAB_OK) {
        must(answer.result, "bind");
        l->answers++;
        l->outstanding--;
        if (!over)
            start_one(l);
    }
}

/* Binds a second. */
static double rate_outstanding(struct stage *s, size_t most, unsigned ms)
{
    struct loop l = { .stage = s };
    must(sesstab_descriptor(s->table, &l.descriptor), "descriptor");
    uint64_t start = bench_clock(), end = start + (uint64_t)ms * 1000000;
    while (l.outstanding < most)
        start_one(&l);
    while (bench_clock() < end)
        turn(&l, false);
    double rate = (double)l.answers / ((double)(bench_clock() - start) / 1e9);
    while (l.outstanding)
        turn(&l, true);
    return rate;
}

static unsigned log_in(redisContext *connection, uint64_t handle, uint64_t serial)
{
    char player[NAME_BYTES];
    (void)serial;
    new_player(player);
    return direct_login(connection, handle, player);
}

static void run_raw(struct stage *s, const struct plan *plan)
{
    double raw[ROUNDS_MAX];
    for (size_t round = 0; round < plan->rounds; round++)
        raw[round] = (double)s->sessions / direct_drain(s->connection, log_in, s->sessions, 1024);
    output_figure((struct figure){ "tickets-any", "raw-1024", "per-s", s->sessions, plan->rounds, raw,
                                   NULL });
}

static void run_outstanding(struct stage *s, const struct plan *plan, redisContext **connections,
                            size_t most)
{
    double bind[ROUNDS_MAX], hset[ROUNDS_MAX];
    char row[32];
    for (size_t round = 0; round < plan->rounds; round++) {
        bind[round] = rate_outstanding(s, most, plan->ms);
        hset[round] = rate_of_callers(s, connections, CALLERS_MAX, plan->ms);
    }
    snprintf(row, sizeof row, "tickets-%zu", most);
    struct figure f = { row, "sesstab", "per-s", s->sessions, plan->rounds, bind, hset };
    output_figure(f);
    f.contender = "hset", f.rounds = hset, f.reference = NULL;
    output_figure(f);
    if (most == OUTSTANDING_GOAL)
        goal_at_least(ratio_of(bind, hset, plan->rounds), 8, s->sessions,
                      "binds a second, %zu outstanding: times direct HSET by %d callers", most,
                      CALLERS_MAX);
}

void row_tickets(struct stage *s, const struct plan *plan)
{
    const size_t counts[] = { 100, OUTSTANDING_GOAL, 5000 };
    redisContext *connections[CALLERS_MAX];
    for (size_t i = 0; i < CALLERS_MAX; i++)
        connections[i] = stage_connect(s, false);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i] <= s->sessions)
            run_outstanding(s, plan, connections, counts[i]);
    run_raw(s, plan);
    for (size_t i = 0; i < CALLERS_MAX; i++)
        redisFree(connections[i]);
    stage_settle(s, NULL);
}
