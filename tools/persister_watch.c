/* The thread that notices deaths; see persister_watch.h. */
#include "tools/persister_watch.h"

#include "lib/store.h"
#include "tools/log.h"
#include "tools/persister.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    AGAIN = 60 /* times, a millisecond apart, until the kernel has dropped a dead worker's lock */
};

/*
 * polled[0] is the wish to end; polled[1 + i] is the pidfd of pids[i], or -1: it has fired, or
 * there is none to be had.
 */
struct watch {
    sesstab *table;
    pthread_t thread;
    _Atomic(size_t) others;
    size_t count;
    int pids[SESSTAB_WORKERS_MAX];
    struct pollfd polled[SESSTAB_WORKERS_MAX + 1];
};

static int open_pidfd(int pid)
{
    return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

/* The pidfd of PID that is already open; taken out of WATCH. */
static int take_known(struct watch *watch, int pid, bool *known)
{
    for (size_t i = 0; i < watch->count; i++)
        if (watch->pids[i] == pid) {
            int fd = watch->polled[1 + i].fd;
            watch->pids[i] = 0;
            *known = true;
            return fd;
        }
    *known = false;
    return -1;
}

/* Watches exactly PIDS from now on; descriptors that are open stay open. */
static void adopt(struct watch *watch, const int *pids, size_t count)
{
    int fds[SESSTAB_WORKERS_MAX];
    for (size_t i = 0; i < count; i++) {
        bool known;
        fds[i] = take_known(watch, pids[i], &known);
        if (!known)
            fds[i] = open_pidfd(pids[i]);
    }
    for (size_t i = 0; i < watch->count; i++)
        if (watch->pids[i] != 0 && watch->polled[1 + i].fd >= 0)
            close(watch->polled[1 + i].fd);
    for (size_t i = 0; i < count; i++) {
        watch->pids[i] = pids[i];
        watch->polled[1 + i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
    }
    watch->count = count;
}

/* This process is one of COUNT; a worker of another PID namespace may show the same number. */
static size_t count_others(const int *pids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (pids[i] == getpid())
            return count - 1;
    return count;
}

static unsigned recover(struct watch *watch)
{
    int pids[SESSTAB_WORKERS_MAX];
    size_t count = 0;
    uint64_t start = monotonic_ms();
    unsigned deaths = store_recover(watch->table, pids, SESSTAB_WORKERS_MAX, &count);
    if (deaths)
        log_event(LEVEL_WARN, "recovered", NUMBER("deaths", deaths),
                  NUMBER("ms", monotonic_ms() - start));
    atomic_store(&watch->others, count_others(pids, count));
    adopt(watch, pids, count);
    return deaths;
}

/* Closes the pidfds that fired; returns how many. */
static unsigned take_fired(struct watch *watch)
{
    unsigned fired = 0;
    for (size_t i = 0; i < watch->count; i++)
        if (watch->polled[1 + i].fd >= 0 && watch->polled[1 + i].revents) {
            close(watch->polled[1 + i].fd);
            watch->polled[1 + i].fd = -1;
            fired++;
        }
    return fired;
}

static void *run(void *argument)
{
    struct watch *watch = argument;
    while (!watch->polled[0].revents) {
        recover(watch);
        unsigned fired = poll(watch->polled, 1 + watch->count, TICK_MS) > 0 ? take_fired(watch) : 0;
        for (unsigned again = 0; fired && again < AGAIN; again++) {
            unsigned deaths = recover(watch);
            fired -= deaths < fired ? deaths : fired;
            if (fired)
                usleep(1000);
        }
    }
    return NULL;
}

struct watch *watch_start(sesstab *table)
{
    sigset_t all, before;
    struct watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return NULL;
    watch->table = table;
    atomic_init(&watch->others, 1); /* until the first look */
    watch->polled[0] = (struct pollfd){ .fd = eventfd(0, EFD_CLOEXEC), .events = POLLIN };
    /* Signals are for the main thread, whose waits they cut short. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = watch->polled[0].fd >= 0 &&
                   pthread_create(&watch->thread, NULL, run, watch) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        return watch;
    if (watch->polled[0].fd >= 0)
        close(watch->polled[0].fd);
    free(watch);
    return NULL;
}

size_t watch_others(const struct watch *watch)
{
    return atomic_load(&watch->others);
}

void watch_stop(struct watch *watch)
{
    if (!watch)
        return;
    eventfd_write(watch->polled[0].fd, 1);
    pthread_join(watch->thread, NULL);
    for (size_t i = 0; i <= watch->count; i++)
        if (watch->polled[i].fd >= 0)
            close(watch->polled[i].fd);
    free(watch);
}
