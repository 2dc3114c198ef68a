/*
 * Counting: faults, and how long calls take.
 *
 * A call that may not wait hangs when it takes more than HANG_MS of its own.  "Of its own" is the
 * time that has passed, less what the kernel says that the thread was runnable and had no processor
 * (schedstat).  It may still have waited for another thread that had none (those of a process share
 * locks in the kernel): it is given as much time more as a process that does nothing but sleep for
 * a millisecond was woken too late in the last seconds.  A call in which its process was stopped is
 * judged by its time on the processor alone, and so is one that is looked at from outside while it
 * waits for a processor.  A call that may wait for a time is given that time besides.
 */
#include "tests/storm/storm.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SAID_MAX = 40,           /* faults that are put into words; all are counted                   */
    LOOK_NS = 2000000,       /* shorter calls are not looked at                                   */
    FOR_EVER_MS = 20000,     /* hangs even where no time is judged                                */
    TEXT = 256
};
#define MS UINT64_C(1000000)

struct books *books;

uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* splitmix64 */
uint64_t roll(struct dice *dice, uint64_t below)
{
    uint64_t z = (dice->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % below;
}

void pause_some(struct dice *dice, unsigned most_us)
{
    struct timespec t = { 0, (long)roll(dice, most_us) * 1000 };
    nanosleep(&t, NULL);
}

/* ---------------------------------------------------------------- faults ---------------- */

void fault(enum fault kind, const char *format, ...)
{
    static const char *const names[FAULTS] = { "LOST", "DUPLICATED", "WRONG", "LEAKED", "HANG" };
    char text[512];
    va_list arguments;
    books->count.faults[kind]++;
    if (books->said++ >= SAID_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "%s: %s  (%s, pid %d, SESSTAB_SEED=%s)\n", names[kind], text,
            books->variant->name, (int)getpid(), getenv("SESSTAB_SEED"));
}

bool succeeded(const char *what, uint64_t handle, int result)
{
    if (result == SESSTAB_NOMEMORY && books->variant->scarce)
        books->count.no_memory++;
    else if (result != SESSTAB_OK)
        fault(WRONG, "%s of session %llx: %s", what, (unsigned long long)handle,
              sesstab_strerror(result));
    return result == SESSTAB_OK;
}

/* ---------------------------------------------------------------- schedule -------------- */

static void parse_schedule(const char *text, struct schedule *s)
{
    char *end;
    s->cpu = strtoull(text, &end, 10);
    s->waited = strtoull(end, NULL, 10);
}

/* Of the thread that opened it. */
static void read_schedule(int fd, struct schedule *s)
{
    char text[TEXT];
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    text[got > 0 ? got : 0] = 0;
    parse_schedule(text, s);
}

static int open_schedule(void)
{
    return open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
}

void thread_init(struct thread *t, sesstab *table, struct lane *lane, struct seat *seat,
                 uint64_t seed)
{
    *t = (struct thread){ .table = table, .lane = lane, .seat = seat, .dice = { seed },
                          .schedstat = open_schedule() };
    t->call = lane ? &lane->call : &t->spare;
    atomic_store(&t->call->started, 0);
    t->call->tid = gettid();
}

void thread_done(struct thread *t)
{
    close(t->schedstat);
}

/* ---------------------------------------------------------------- calls ----------------- */

static bool stopped_meanwhile(const struct seat *seat, const struct call *call)
{
    return seat && ((call->stops & 1) || atomic_load(&seat->stops) != call->stops);
}

static void raise_to(_Atomic uint64_t *place, uint64_t value)
{
    uint64_t seen = atomic_load(place);
    while (seen < value && !atomic_compare_exchange_weak(place, &seen, value))
        ;
}

/* What the call has taken of its own until now. */
static uint64_t own_time(const struct seat *seat, const struct call *call, struct schedule now,
                         uint64_t wall)
{
    uint64_t cpu = now.cpu - call->before.cpu, waited = now.waited - call->before.waited;
    if (stopped_meanwhile(seat, call))
        return cpu;
    uint64_t rest = wall > waited ? wall - waited : 0;
    return rest > cpu ? rest : cpu;
}

/* What /proc says of a thread, at most TEXT / 2 bytes; "" when it is gone. */
static void read_about(pid_t pid, pid_t tid, const char *what, char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", (int)pid, (int)tid, what);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, text, TEXT / 2 - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
}

/* R runnable, S or D asleep, Z dead, ... */
static char state_of(pid_t pid, pid_t tid)
{
    char text[TEXT];
    read_about(pid, tid, "stat", text);
    const char *name_ends = strrchr(text, ')');
    return name_ends && name_ends[1] ? name_ends[2] : 'Z';
}

/* How late whoever sleeps is woken: of late, and right now. */
static uint64_t noise(void)
{
    uint64_t since = atomic_load(&books->asleep_since), now = nanoseconds();
    uint64_t seen = atomic_load(&books->noise), late = now > since + MS ? now - since - MS : 0;
    return since && late > seen ? late : seen;
}

static bool too_long(const struct call *call, uint64_t time, uint64_t wall)
{
    uint64_t limit = (call->allowed + HANG_MS) * MS + noise();
    if (wall > (call->allowed + FOR_EVER_MS) * MS && time > FOR_EVER_MS / 2 * MS)
        return true;
    return books->judge_hangs && time > limit;
}

static void say_hang(const struct call *call, uint64_t time, uint64_t wall, const char *how)
{
    fault(HANG, "%s %s: %llu ms, %llu of its own (%u allowed, noise %llu)", call->what, how,
          (unsigned long long)(wall / MS), (unsigned long long)(time / MS), call->allowed,
          (unsigned long long)(noise() / MS));
}

void call_begin(struct thread *t, const char *what, uint32_t allowed)
{
    struct call *c = t->call;
    c->what = what;
    c->allowed = allowed;
    c->stops = t->seat ? atomic_load(&t->seat->stops) : 0;
    read_schedule(t->schedstat, &c->before);
    atomic_store(&c->started, nanoseconds());
}

int call_end(struct thread *t, int result)
{
    struct call *c = t->call;
    uint64_t wall = nanoseconds() - atomic_load(&c->started);
    atomic_store(&c->started, 0);
    books->count.operations++;
    if (wall < LOOK_NS + c->allowed * MS)
        return result;
    struct schedule after;
    read_schedule(t->schedstat, &after);
    uint64_t time = own_time(t->seat, c, after, wall);
    uint64_t beyond = time > c->allowed * MS ? time - c->allowed * MS : 0;
    raise_to(&books->worst, beyond);
    if (beyond > HANG_MS * MS)
        books->count.slow++;
    if (too_long(c, time, wall))
        say_hang(c, time, wall, "returned");
    return result;
}

bool call_hangs(const struct seat *seat, const struct call *call, uint64_t at_least)
{
    uint64_t started = atomic_load(&call->started), now = nanoseconds();
    char how[TEXT] = "had not returned, in ", schedule[TEXT];
    struct schedule s;
    if (!started || now < started + (call->allowed + at_least) * MS)
        return false;
    read_about(seat->pid, call->tid, "schedstat", schedule);
    parse_schedule(schedule, &s);
    char state = state_of(seat->pid, call->tid);
    /* Runnable: what it is waiting for a processor right now is not counted yet. */
    uint64_t time = state == 'R' ? s.cpu - call->before.cpu
                                 : own_time(seat, call, s, now - started);
    read_about(seat->pid, call->tid, "wchan", how + strlen(how));
    bool lives = schedule[0] && state != 'Z' && state != 'X';
    if (!lives || atomic_load(&call->started) != started || !too_long(call, time, now - started))
        return false;
    say_hang(call, time, now - started, how);
    return true;
}

/* ---------------------------------------------------------------- noise ----------------- */

/* The worst of the last second or two is what is added to a limit. */
void measure_noise(void *unused)
{
    const struct timespec moment = { 0, MS };
    uint64_t worst[2] = { 0, 0 }, second = 0;
    (void)unused;
    for (;;) {
        uint64_t start = nanoseconds();
        atomic_store(&books->asleep_since, start);
        nanosleep(&moment, NULL);
        uint64_t now = nanoseconds(), late = now - start - MS;
        if (now / (1000 * MS) != second) {
            second = now / (1000 * MS);
            worst[second & 1] = 0;
        }
        if (late > worst[second & 1])
            worst[second & 1] = late;
        atomic_store(&books->noise, worst[0] > worst[1] ? worst[0] : worst[1]);
        raise_to(&books->noise_worst, late);
    }
}
