#include "bench/persist/neighbour.h"

#include "bench/bench.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { TOUCHES_PER_MS = 1000, STRIDE_US = 200000 };

static uint64_t now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void touch_for_ever(void *context)
{
    struct neighbour *n = context;
    uint64_t random = n->seed, due = now_ms(CLOCK_MONOTONIC);
    for (;; due++) {
        uint64_t now = now_ms(CLOCK_REALTIME);
        for (int i = 0; i < TOUCHES_PER_MS; i++)
            must(sesstab_touch(n->table, 1 + bench_random(&random) % n->sessions, now), "touch");
        atomic_fetch_add(&n->touches, TOUCHES_PER_MS);
        struct timespec until = { (time_t)(due / 1000), (long)(due % 1000) * 1000000 };
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
}

struct neighbour *neighbour_start(const struct stage *stage, uint64_t seed)
{
    struct neighbour *n = mmap(NULL, sizeof *n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                               -1, 0);
    if (n == MAP_FAILED)
        bench_fail("mmap: %s", strerror(errno));
    n->table = stage->table;
    n->sessions = stage->sessions;
    n->seed = seed;
    n->pid = sandbox_child(touch_for_ever, n);
    while (!atomic_load(&n->touches)) {
        sandbox_must_live(n->pid, "neighbour.log");
        bench_pause_us(1000);
    }
    bench_pause_us(STRIDE_US); /* until the persister is in its stride */
    return n;
}

void neighbour_stop(struct neighbour *n)
{
    sandbox_must_live(n->pid, "neighbour.log"); /* all the time: else nobody was busy */
    sandbox_kill(n->pid);
    munmap(n, sizeof *n);
}
