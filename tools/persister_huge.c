/* The thread that asks for huge pages; see persister_huge.h. */
#include "tools/persister_huge.h"

#include "lib/store.h"
#include "tools/log.h"
#include "tools/persister.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    REST = 10,              /* times as long as it worked: H1                               */
    BETWEEN_MS = 10000,     /* from the end of a walk over the table to the next            */
    MISSING_MS = 60000,     /* the same, when the kernel had no huge page for all of it     */
    STRETCH_KIB = 2048
};

struct huge {
    sesstab *table;
    pthread_t thread;
    int end;                /* an eventfd: the wish to end */
    uint64_t asked_kib;     /* the table's size when the last walk began */
    uint64_t got, whole;    /* stretches of the last walk */
};

/* True when it is to end. */
static bool rest(const struct huge *h, uint64_t ms)
{
    struct pollfd end = { .fd = h->end, .events = POLLIN };
    return poll(&end, 1, (int)ms) > 0;
}

/* What the table takes; 0: nobody knows, its name was removed. */
static uint64_t size_kib(const struct huge *h)
{
    struct stat s;
    return stat(store_path(h->table), &s) == 0 ? (uint64_t)s.st_blocks / 2 : 0;
}

/* *RESULT is the last one.  False: it is to end. */
static bool walk(struct huge *h, int *result)
{
    uint64_t position = 0;
    h->got = h->whole = 0;
    for (;;) {
        uint64_t start = monotonic_ms();
        *result = sesstab_huge_page(h->table, &position);
        if (*result != SESSTAB_OK && *result != SESSTAB_NOMEMORY)
            return true;
        h->whole++;
        h->got += *result == SESSTAB_OK;
        if (rest(h, REST * (monotonic_ms() - start)))
            return false;
    }
}

/* False: there is nothing more to do. */
static bool ask(struct huge *h)
{
    int result;
    uint64_t start = monotonic_ms();
    h->asked_kib = size_kib(h);
    if (!walk(h, &result))
        return false;
    if (result == SESSTAB_UNSUPPORTED)
        log_event(LEVEL_WARN, "no-huge-pages", TEXT("reason", sesstab_error_detail()));
    else
        log_event(LEVEL_INFO, "huge-pages", NUMBER("mib", h->got * 2),
                  NUMBER("of_mib", h->whole * 2), NUMBER("ms", monotonic_ms() - start));
    return result != SESSTAB_UNSUPPORTED;
}

static bool is_due(const struct huge *h, uint64_t since_ms)
{
    if (since_ms < BETWEEN_MS)
        return false;
    return size_kib(h) >= h->asked_kib + STRETCH_KIB ||
           (h->got < h->whole && since_ms >= MISSING_MS);
}

static void *run(void *argument)
{
    struct huge *h = argument;
    while (!sesstab_ready(h->table))
        if (rest(h, TICK_MS))
            return NULL;
    while (ask(h)) {
        uint64_t asked_at = monotonic_ms();
        while (!is_due(h, monotonic_ms() - asked_at))
            if (rest(h, CHECK_MS))
                return NULL;
    }
    return NULL;
}

struct huge *huge_start(sesstab *table)
{
    sigset_t all, before;
    struct huge *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->table = table;
    h->end = eventfd(0, EFD_CLOEXEC);
    /* Signals are for the main thread, whose waits they cut short. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = h->end >= 0 && pthread_create(&h->thread, NULL, run, h) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        return h;
    log_event(LEVEL_WARN, "no-huge-pages", TEXT("reason", "the thread could not be started"));
    if (h->end >= 0)
        close(h->end);
    free(h);
    return NULL;
}

void huge_stop(struct huge *h)
{
    if (!h)
        return;
    eventfd_write(h->end, 1);
    pthread_join(h->thread, NULL);
    close(h->end);
    free(h);
}
