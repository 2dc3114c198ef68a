/* The thread that notices deaths; see persister_watch.h. */
#include "tools/persister_watch.h"

#include "lib/store.h"
#include "tools/log.h"
#include "tools/persister.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    SOON_US = 1000,             /* after an event, and twice as long after each further look */
    LATEST_US = TICK_MS * 1000, /* V3 */
    IDLE_SHARE = 16             /* of what a look took, added to that */
};

/* The wish to end; inotify, -1 when it is not to be had; and where inotify is kept in flight (V5), which
 * is not polled. */
enum { END, EVENTS, POLLED, IN_FLIGHT = POLLED, DESCRIPTORS };

struct watch {
    sesstab *table;
    pthread_t thread;
    _Atomic(size_t) others;
    struct pollfd polled[DESCRIPTORS];
};

/* Of this thread's own work: waiting for a processor is not looking. */
static uint64_t work_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Returns how many microseconds it took. */
static uint64_t look(struct watch *watch)
{
    int pids[SESSTAB_WORKERS_MAX];
    size_t living = 0;
    uint64_t start = monotonic_ms(), work = work_us();
    unsigned deaths = store_recover(watch->table, pids, SESSTAB_WORKERS_MAX, &living);
    if (deaths)
        log_event(LEVEL_WARN, "recovered", NUMBER("deaths", deaths),
                  NUMBER("ms", monotonic_ms() - start));
    atomic_store(&watch->others, living ? living - 1 : 0); /* this process lives too */
    return work_us() - work;
}

/* Until one of the first COUNT of what is polled wants it to end. */
static void rest(struct watch *watch, nfds_t count, uint64_t us)
{
    struct timespec t = { (time_t)(us / 1000000), (long)(us % 1000000) * 1000 };
    ppoll(watch->polled, count, &t, NULL);
}

/* Taken away before the next look, so that one that comes meanwhile is not lost. */
static void take_events(struct watch *watch)
{
    char events[4096];
    while (read(watch->polled[EVENTS].fd, events, sizeof events) > 0)
        ;
}

static void *run(void *argument)
{
    struct watch *watch = argument;
    uint64_t pause = SOON_US;
    while (!watch->polled[END].revents) {
        uint64_t took = look(watch), latest = LATEST_US + IDLE_SHARE * took;
        rest(watch, END + 1, took);
        rest(watch, POLLED, pause);
        bool event = watch->polled[EVENTS].revents;
        if (event)
            take_events(watch);
        pause = event ? SOON_US : 2 * pause < latest ? 2 * pause : latest;
    }
    return NULL;
}

/* V5: a socket in whose buffer FD lies, received by nobody; -1: deaths of this process show later. */
static int keep_in_flight(int fd)
{
    int pair[2];
    char byte = 0;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec data = { &byte, 1 };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                              .msg_controllen = sizeof control };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    *rights = (struct cmsghdr){ CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS };
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    if (fd < 0 || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair))
        return -1;
    bool sent = sendmsg(pair[0], &message, MSG_NOSIGNAL) == 1;
    close(pair[0]);
    if (sent)
        return pair[1];
    close(pair[1]);
    return -1;
}

static int open_events(const sesstab *table)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd >= 0 && inotify_add_watch(fd, store_path(table), IN_CLOSE_WRITE) >= 0)
        return fd;
    log_event(LEVEL_WARN, "deaths-noticed-late", TEXT("reason", strerror(errno)),
              NUMBER("ms", TICK_MS), TEXT("note", "raise fs.inotify.max_user_instances"));
    if (fd >= 0)
        close(fd);
    return -1;
}

static void close_all(struct watch *watch)
{
    for (int i = 0; i < DESCRIPTORS; i++)
        if (watch->polled[i].fd >= 0)
            close(watch->polled[i].fd);
    free(watch);
}

struct watch *watch_start(sesstab *table)
{
    sigset_t all, before;
    struct watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return NULL;
    watch->table = table;
    atomic_init(&watch->others, 1); /* until the first look */
    watch->polled[END] = (struct pollfd){ .fd = eventfd(0, EFD_CLOEXEC), .events = POLLIN };
    watch->polled[EVENTS] = (struct pollfd){ .fd = open_events(table), .events = POLLIN };
    watch->polled[IN_FLIGHT].fd = keep_in_flight(watch->polled[EVENTS].fd);
    /* Signals are for the main thread, whose waits they cut short. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = watch->polled[END].fd >= 0 &&
                   pthread_create(&watch->thread, NULL, run, watch) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        return watch;
    close_all(watch);
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
    eventfd_write(watch->polled[END].fd, 1);
    pthread_join(watch->thread, NULL);
    close_all(watch);
}
