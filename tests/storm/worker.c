/*
 * A worker process.  Its threads do everything, in random order, until the process is killed:
 * their own sessions, everybody's, walks; and now and then they fork, attach a second time, or
 * start another thread that soon ends.
 *
 * A forked child uses its parent's table at once, as a worker of its own, and outlives its parent
 * if that is killed.  It lives for a moment only, unless it is killed before.
 */
#include "tests/storm/storm.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
    CHILD_STEPS = 60,
    GUEST_STEPS = 10,
    PAUSE_EVERY = 16,    /* steps */
    PAUSE_US = 1500,
    OPEN_MS = 1000,      /* that attaching may take                                               */
    LIFE_US = 12000      /* of work, at most, for who dies while it works                         */
};

static void common_step(struct thread *t)
{
    uint64_t choice = roll(&t->dice, 100);
    if (choice < 40)
        commons_change(t);
    else if (choice < 55)
        commons_count(t);
    else if (choice < 98)
        commons_read(t);
    else
        commons_walk(t);
}

static void common_steps(struct thread *t, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        common_step(t);
        if (i % PAUSE_EVERY == 0)
            pause_some(&t->dice, PAUSE_US);
    }
}

/* ---------------------------------------------------------------- fork ------------------ */

/* A place where the killer finds the child. */
static bool take_place(void)
{
    for (unsigned i = 0; i < CHILDREN; i++) {
        pid_t nobody = 0;
        if (atomic_compare_exchange_strong(&books->children[i], &nobody, getpid()))
            return true;
    }
    return false;
}

/* The sanitizers' allocators don't survive a fork while another thread is inside them. */
static bool may_fork(const struct thread *t)
{
    return !SANITIZED || (t->seat - books->seat) % LANES == 0;
}

static void fork_child(struct thread *t)
{
    uint64_t seed = roll(&t->dice, UINT64_MAX);
    struct thread child;
    if (!may_fork(t) || fork() != 0)
        return;
    books->count.forks++;
    thread_init(&child, t->table, NULL, NULL, seed);
    if (take_place() && books->blows)
        common_steps(&child, CHILD_STEPS);
    _exit(0);
}

/* ---------------------------------------------------------------- attach, threads ------- */

/* The same table once more: a worker of its own, which soon leaves. */
static void attach_twice(struct thread *t)
{
    struct thread guest = *t;
    int result = TIMED(t, "open", OPEN_MS, sesstab_open(books->name, NULL, &guest.table));
    if (result != SESSTAB_OK) {
        fault(WRONG, "attaching: %s, %s", sesstab_strerror(result), sesstab_error_detail());
        return;
    }
    books->count.attaches++;
    common_steps(&guest, (unsigned)roll(&t->dice, GUEST_STEPS));
    t->dice = guest.dice;
    TIMED(t, "close", 0, (sesstab_close(guest.table), 0));
}

struct guest { sesstab *table; struct seat *seat; uint64_t seed; };

static void *guest_run(void *argument)
{
    struct guest *guest = argument;
    struct thread t;
    thread_init(&t, guest->table, NULL, guest->seat, guest->seed);
    common_steps(&t, GUEST_STEPS);
    thread_done(&t);
    return NULL;
}

static void run_guest_thread(struct thread *t)
{
    struct guest guest = { t->table, t->seat, roll(&t->dice, UINT64_MAX) };
    pthread_t thread;
    check(pthread_create(&thread, NULL, guest_run, &guest) == 0);
    pthread_join(thread, NULL);
    books->count.threads++;
}

static void rare_step(struct thread *t)
{
    switch (roll(&t->dice, 3)) {
    case 0: fork_child(t); break;
    case 1: attach_twice(t); break;
    default: run_guest_thread(t); break;
    }
}

/* ---------------------------------------------------------------- threads --------------- */

struct start { struct seat *seat; sesstab *table; struct lane *lane; uint64_t seed; };

static void *lane_run(void *argument)
{
    struct start *start = argument;
    struct thread t;
    thread_init(&t, start->table, start->lane, start->seat, start->seed);
    lane_take_over(&t);
    for (unsigned i = 1;; i++) {
        uint64_t choice = roll(&t.dice, 1000);
        if (choice < 5)
            rare_step(&t);
        else if (choice < 500)
            lane_step(&t);
        else
            common_step(&t);
        if (i % PAUSE_EVERY == 0)
            pause_some(&t.dice, PAUSE_US);
    }
    return NULL;
}

/*
 * A signal from another process mostly finds us asleep, or waiting for a processor.  This one comes
 * when the process has used up a time on the processor: while it executes something.
 */
static void die_at_work(struct dice *dice)
{
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };
    struct itimerspec life = { .it_value.tv_nsec = 1 + (long)roll(dice, LIFE_US) * 1000 };
    timer_t timer;
    check(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) == 0);
    check(timer_settime(timer, 0, &life, NULL) == 0);
}

void worker_run(struct seat *seat, sesstab *table, uint64_t seed, bool short_lived)
{
    struct dice dice = { seed };
    unsigned threads = 1 + (unsigned)(seat - books->seat) % LANES;
    struct start starts[LANES];
    pthread_t thread;
    if (short_lived)
        die_at_work(&dice);
    for (unsigned i = 0; i < threads; i++)
        starts[i] = (struct start){ seat, table, &seat->lanes[i], roll(&dice, UINT64_MAX) };
    for (unsigned i = 1; i < threads; i++)
        check(pthread_create(&thread, NULL, lane_run, &starts[i]) == 0);
    lane_run(&starts[0]);
    _exit(1);
}
