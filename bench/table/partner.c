#include "bench/table/partner.h"

#include "bench/sandbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIECE = 256, PIECE_OF_SERVER = 8, POLL_US = 20, PATIENCE_S = 120 };

/* Seen by both; in shared memory. */
struct desk {
    enum job job;             /* written by main before it wakes the partner  */
    const struct keys *keys;
    size_t warm;
    double rate;              /* written by the partner before `running` falls */
    _Atomic bool running, stop;
};

struct partner {
    const struct contender *contender;
    void *table, *mine;       /* mine: what join() made of the table */
    struct desk *desk;
    const struct keys *keys;
    size_t warm;
    int cpu, wake[2];         /* wake: a pipe; a byte means there is a job */
    bool forked;
    pid_t process;
    pthread_t thread;
};

/* ---------------------------------------------------------------- the partner's side ---- */

static size_t piece_of(const struct partner *p)
{
    return p->contender->scope == SCOPE_SERVER ? PIECE_OF_SERVER : PIECE;
}

/* One piece of the job, from key *AT on; how many operations it was. */
static size_t work(struct partner *p, enum job job, size_t *at)
{
    const struct keys *all = p->desk->keys;
    operation_fn *const *operations = p->contender->operations;
    size_t left = all->count - *at, n = left < piece_of(p) ? left : piece_of(p);
    struct keys piece = { all->handles + *at, all->players + *at, n };
    *at = (*at + n) % all->count;
    if (job == JOB_MIX) {
        operations[OPERATION_MIX](p->mine, &piece);
        return n;
    }
    operations[OPERATION_TOUCH](p->mine, &piece);
    operations[OPERATION_SET](p->mine, &piece);
    return 2 * n;
}

static void do_job(struct partner *p)
{
    struct desk *d = p->desk;
    size_t done = 0, at = d->keys->count / 2; /* not where main is */
    if (p->contender->resume)
        p->contender->resume(p->mine);
    for (size_t warm = 0; warm < d->warm;)
        warm += work(p, JOB_MIX, &at); /* which waits for nobody */
    atomic_store(&d->running, true);
    uint64_t start = bench_clock();
    while (!atomic_load(&d->stop))
        done += work(p, d->job, &at);
    d->rate = 1000.0 * (double)done / (double)(bench_clock() - start);
    if (p->contender->pause)
        p->contender->pause(p->mine);
    atomic_store(&d->running, false);
}

static void warm_up(struct partner *p)
{
    struct keys some = *p->keys;
    some.count = p->warm;
    p->contender->operations[OPERATION_MIX](p->mine, &some);
    if (p->contender->pause)
        p->contender->pause(p->mine);
}

static void be_partner(void *partner)
{
    struct partner *p = partner;
    char byte;
    bench_pin_to(p->cpu);
    p->mine = p->contender->join ? p->contender->join(p->table) : p->table;
    warm_up(p);
    while (read(p->wake[0], &byte, 1) == 1 && p->desk->job != JOB_QUIT)
        do_job(p);
    if (p->contender->leave)
        p->contender->leave(p->mine);
}

static void *be_thread(void *partner)
{
    be_partner(partner);
    return NULL;
}

/* ---------------------------------------------------------------- main's side ----------- */

struct partner *partner_start(const struct contender *contender, void *table,
                              const struct keys *keys, size_t warm)
{
    int cpu = bench_second_cpu();
    if (cpu < 0 || !contender->operations[OPERATION_MIX])
        return NULL;
    struct partner *p = bench_memory(1, sizeof *p);
    *p = (struct partner){ .contender = contender, .table = table, .keys = keys, .warm = warm,
                           .cpu = cpu, .forked = contender->scope != SCOPE_THREADS,
                           .desk = table_memory(sizeof *p->desk, true) };
    if (pipe(p->wake) != 0)
        bench_fail("pipe: %s", strerror(errno));
    if (p->forked)
        p->process = sandbox_child(be_partner, p);
    else if (pthread_create(&p->thread, NULL, be_thread, p) != 0)
        bench_fail("a second thread can't be had");
    return p;
}

static void wake(struct partner *p, enum job job)
{
    char byte = 0;
    p->desk->job = job;
    atomic_store(&p->desk->stop, false);
    if (write(p->wake[1], &byte, 1) != 1)
        bench_fail("the second worker of %s can't be woken: %s", p->contender->name,
                   strerror(errno));
}

static void wait_until(struct partner *p, bool running)
{
    uint64_t deadline = bench_clock() + PATIENCE_S * UINT64_C(1000000000);
    while (atomic_load(&p->desk->running) != running) {
        bench_pause_us(POLL_US);
        if (p->forked)
            sandbox_must_live(p->process, "");
        if (bench_clock() > deadline)
            bench_fail("the second worker of %s does not answer", p->contender->name);
    }
}

void partner_begin(struct partner *p, enum job job, const struct keys *keys, size_t warm)
{
    p->desk->keys = keys;
    p->desk->warm = warm;
    wake(p, job);
    wait_until(p, true);
}

double partner_end(struct partner *p)
{
    atomic_store(&p->desk->stop, true);
    if (p->contender->pause) /* the partner may be waiting for us to be in no section */
        p->contender->pause(p->table);
    wait_until(p, false);
    if (p->contender->resume)
        p->contender->resume(p->table);
    return p->desk->rate;
}

void partner_stop(struct partner *p)
{
    wake(p, JOB_QUIT);
    if (p->forked)
        sandbox_wait(p->process);
    else
        pthread_join(p->thread, NULL);
    close(p->wake[0]);
    close(p->wake[1]);
    table_memory_free(p->desk, sizeof *p->desk);
    free(p);
}
