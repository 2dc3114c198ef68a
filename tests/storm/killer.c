/*
 * The process that is never killed: starts all others, and kills or stops them at random.
 *
 *   workers      several hundred deaths a second, sometimes several at once; half of them while
 *                they execute something.  Two live longer, so that a call that hangs has the time
 *                to show it
 *   persisters   three; one leads.  Killed and stopped, and started anew after a moment
 *   Redis        killed (every write is on disk when it is answered), stopped; its connections are
 *                cut; its memory limit makes it refuse everything for a moment
 *
 * It never waits for any of them: what is to be started or continued later has its time in
 * `servers` or in its seat.
 */
#include "tests/storm/storm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum {
    EAGER = -10,         /* is added to our nice value                                            */
    TICK_US = 1000,
    GANG = 3,            /* workers that die at once, at most                                     */
    OLD = 2,             /* workers that live longer                                              */
    OLD_ONE_IN = 40,
    STOPS_ONE_IN = 4,    /* kills                                                                 */
    STOP_MS = 200,
    WATCH_MS = 100,
    SETTLE_MS = 50,
    STUCK_MS = 3000      /* a worker that is in one call for so long is looked at                 */
};

/* [0] is Redis, the others are persisters. */
static struct server {
    pid_t pid;
    uint64_t start_at, resume_at; /* ms; 0: it runs, it is not stopped */
} servers[1 + PERSISTERS];

/* If we may: we have little to do, and that at once.  Not so what we start. */
static void be_eager(bool eager)
{
    static bool known;
    static int usual;
    if (!known)
        usual = getpriority(PRIO_PROCESS, 0);
    known = true;
    setpriority(PRIO_PROCESS, 0, usual + (eager ? EAGER : 0));
}

/* ---------------------------------------------------------------- workers --------------- */

static void start_worker(struct storm *s, struct seat *seat)
{
    uint64_t seed = random_number();
    bool short_lived = seat >= books->seat + OLD && random_below(2);
    pid_t parent = getpid();
    seat->resume_at = 0;
    atomic_store(&seat->stops, (atomic_load(&seat->stops) | 1) + 1);
    be_eager(false);
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        become_child(parent);
        worker_run(seat, s->table, seed, short_lived);
    }
    be_eager(true);
    seat->pid = pid;
}

/* Calls that its threads have not come back from. */
static bool look_at_calls(const struct seat *seat, uint64_t at_least)
{
    bool hangs = false;
    for (unsigned i = 0; i < LANES; i++)
        hangs |= call_hangs(seat, &seat->lanes[i].call, at_least);
    return hangs;
}

/* False: it is not gone yet, and OPTIONS say not to wait. */
static bool reap_worker(struct seat *seat, int options)
{
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(seat->pid, &status, options)) < 0)
        check(errno == EINTR);
    if (pid == 0)
        return false;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fault(WRONG, "a worker ended by itself: %s %d", WIFSIGNALED(status) ? "signal" : "status",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    for (unsigned i = 0; i < LANES; i++)
        atomic_store(&seat->lanes[i].call.started, 0);
    seat->pid = 0;
    seat->dying = false;
    return true;
}

static unsigned any_seat(void)
{
    unsigned old = books->seats > OLD ? OLD : 0;
    if (old && random_below(OLD_ONE_IN) == 0)
        return (unsigned)random_below(old);
    return old + (unsigned)random_below(books->seats - old);
}

static void kill_worker(struct storm *s, struct seat *seat)
{
    if (!seat->pid || seat->dying)
        return;
    look_at_calls(seat, HANG_MS);
    kill(seat->pid, SIGKILL);
    seat->dying = true;
    s->toll.workers++;
}

static void kill_gang(struct storm *s)
{
    for (unsigned count = 1 + (unsigned)random_below(GANG); count; count--)
        kill_worker(s, &books->seat[any_seat()]);
}

/* A successor for everyone who is gone. */
static void replace_workers(struct storm *s)
{
    for (unsigned i = 0; i < books->seats; i++) {
        bool killed = books->seat[i].dying;
        if (!reap_worker(&books->seat[i], WNOHANG))
            continue;
        s->toll.workers += !killed; /* by the time that it had */
        start_worker(s, &books->seat[i]);
    }
}

static void stop_worker(struct storm *s)
{
    struct seat *seat = &books->seat[random_below(books->seats)];
    if (seat->dying || seat->resume_at)
        return;
    atomic_fetch_add(&seat->stops, 1);
    kill(seat->pid, SIGSTOP);
    seat->resume_at = milliseconds() + 1 + random_below(STOP_MS);
    s->toll.stops++;
}

static void resume_workers(uint64_t now)
{
    for (unsigned i = 0; i < books->seats; i++) {
        struct seat *seat = &books->seat[i];
        if (!seat->resume_at || now < seat->resume_at)
            continue;
        if (!seat->dying)
            kill(seat->pid, SIGCONT);
        seat->resume_at = 0;
        atomic_fetch_add(&seat->stops, 1);
    }
}

/* One that is stuck is reported, and killed so that the storm goes on. */
static void watch_workers(struct storm *s)
{
    for (unsigned i = 0; i < books->seats; i++) {
        struct seat *seat = &books->seat[i];
        if (!seat->dying && look_at_calls(seat, STUCK_MS))
            kill_worker(s, seat);
    }
}

/* ---------------------------------------------------------------- children of workers --- */

/* Its parent never reaps it: until we do, who inherit what is left behind, its pid is its own. */
static bool reap_child(_Atomic pid_t *place)
{
    int status = 0;
    pid_t pid = atomic_load(place);
    if (!pid || waitpid(pid, &status, WNOHANG) != pid)
        return false;
    if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGKILL : WEXITSTATUS(status) != 0)
        fault(WRONG, "a worker's child ended with status %x", status);
    atomic_store(place, 0);
    return true;
}

static void kill_child_of_worker(struct storm *s)
{
    pid_t pid = atomic_load(&books->children[random_below(CHILDREN)]);
    if (pid && kill(pid, SIGKILL) == 0)
        s->toll.children++;
}

static void reap_children(void)
{
    for (unsigned i = 0; i < CHILDREN; i++)
        reap_child(&books->children[i]);
}

/* ---------------------------------------------------------------- servers --------------- */

static void start_server(struct storm *s, struct server *server)
{
    const char *const argv[] = {
        "redis-server", "--port", "0", "--unixsocket", s->redis.socket, "--dir", s->redis.directory,
        "--save", "", "--appendonly", "yes", "--appendfsync", "always",
        "--auto-aof-rewrite-percentage", "100", "--auto-aof-rewrite-min-size", "8mb", NULL
    };
    char log[128];
    snprintf(log, sizeof log, "%s/log", s->redis.directory);
    const char *const quick[] = { "--supersede-after", "200", NULL };
    be_eager(false);
    server->pid = server == servers ? start_program(argv, log)
                                    : start_persister(books->name, s->redis.url, quick);
    server->start_at = server->resume_at = 0;
    be_eager(true);
}

static void check_runs(const struct server *server)
{
    siginfo_t info = { .si_pid = 0 };
    int options = WEXITED | WNOHANG | WNOWAIT;
    if (waitid(P_PID, (id_t)server->pid, &info, options) == 0 && info.si_pid)
        fault(WRONG, "%s ended by itself: %d", server == servers ? "Redis" : "a persister",
              info.si_status);
}

static bool runs(const struct server *server)
{
    return !server->start_at && !server->resume_at;
}

static void end_server(struct server *server, uint64_t after)
{
    check_runs(server);
    kill_child(server->pid);
    server->start_at = milliseconds() + 1 + random_below(after);
    server->resume_at = 0;
}

static void stop_server(struct storm *s, struct server *server, uint64_t longest)
{
    if (!runs(server))
        return;
    kill(server->pid, SIGSTOP);
    server->resume_at = milliseconds() + 1 + random_below(longest);
    s->toll.stops++;
}

/* Sends a command and does not wait for what becomes of it. */
static void tell_redis(struct storm *s, const char *command)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    snprintf(to.sun_path, sizeof to.sun_path, "%s", s->redis.socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        dprintf(fd, "%s\r\n", command);
    close(fd);
}

/* ---------------------------------------------------------------- mischief -------------- */

static void kill_persister(struct storm *s)
{
    struct server *server = &servers[1 + random_below(PERSISTERS)];
    if (server->start_at)
        return;
    end_server(server, 60);
    s->toll.persisters++;
}

static void stop_persister(struct storm *s)
{
    stop_server(s, &servers[1 + random_below(PERSISTERS)], 3 * STOP_MS); /* often superseded */
}

static void kill_redis_server(struct storm *s)
{
    if (servers[0].start_at)
        return;
    end_server(&servers[0], 60);
    s->toll.redis++;
}

static void stop_redis_server(struct storm *s)
{
    stop_server(s, &servers[0], STOP_MS);
}

static void cut_connections(struct storm *s)
{
    tell_redis(s, "CLIENT KILL TYPE normal");
    s->toll.cuts++;
}

static void refuse_everything(struct storm *s)
{
    tell_redis(s, "CONFIG SET maxmemory 1");
    s->toll.refusals++;
}

static void accept_again(struct storm *s)
{
    tell_redis(s, "CONFIG SET maxmemory 0");
}

static struct mischief {
    void (*function)(struct storm *s);
    unsigned every;     /* ms on average */
    bool needs_redis;
    uint64_t next;
} mischief[] = {
    { kill_persister, 120, true, 0 },
    { stop_persister, 400, true, 0 },
    { kill_redis_server, 900, true, 0 },
    { stop_redis_server, 700, true, 0 },
    { cut_connections, 500, true, 0 },
    { refuse_everything, 500, true, 0 },
    { accept_again, 100, true, 0 },
    { kill_child_of_worker, 10, false, 0 },
};
enum { MISCHIEF = sizeof mischief / sizeof *mischief };

static bool has_redis(void)
{
    return books->variant->options.mode == SESSTAB_SELECTIVE;
}

static void make_mischief(struct storm *s, uint64_t now)
{
    for (unsigned i = 0; i < MISCHIEF; i++) {
        struct mischief *m = &mischief[i];
        if (now < m->next || (m->needs_redis && !has_redis()))
            continue;
        m->function(s);
        m->next = now + 1 + random_below(2 * m->every);
    }
}

static void tend_servers(struct storm *s, uint64_t now)
{
    for (unsigned i = 0; has_redis() && i <= PERSISTERS; i++) {
        struct server *server = &servers[i];
        if (server->start_at && now >= server->start_at)
            start_server(s, server);
        if (server->resume_at && now >= server->resume_at) {
            kill(server->pid, SIGCONT);
            server->resume_at = 0;
        }
    }
}

/* ---------------------------------------------------------------- the storm ------------- */

static void say_progress(struct storm *s, uint64_t start, uint64_t now)
{
    static uint64_t said, workers;
    uint64_t faults = 0;
    if (now < said + 1000)
        return;
    for (unsigned i = 0; i < FAULTS; i++)
        faults += books->count.faults[i];
    if (s->toll.workers < workers)
        workers = 0;
    printf("  %-12s %4llu s  kills %llu (+%llu), %llu persisters, %llu Redis; operations %llu, "
           "durable %llu, refused %llu, unknown %llu; worst %.1f ms, noise %.1f; faults %llu\n",
           books->variant->name, (unsigned long long)(now - start) / 1000,
           (unsigned long long)s->toll.workers, (unsigned long long)(s->toll.workers - workers),
           (unsigned long long)s->toll.persisters, (unsigned long long)s->toll.redis,
           (unsigned long long)books->count.operations, (unsigned long long)books->count.durable,
           (unsigned long long)books->count.refused, (unsigned long long)books->count.unknown,
           (double)books->worst / 1e6, (double)books->noise_worst / 1e6,
           (unsigned long long)faults);
    said = now;
    workers = s->toll.workers;
}

void killer_start(struct storm *s)
{
    /* What a dead worker leaves behind becomes ours. */
    check(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    be_eager(true);
    memset(servers, 0, sizeof servers);
    for (unsigned i = 0; has_redis() && i <= PERSISTERS; i++)
        start_server(s, &servers[i]);
}

void killer_blow(struct storm *s, uint64_t end, uint64_t kills)
{
    static uint64_t watch_at;
    uint64_t start = milliseconds(), now = start, killed = s->toll.workers;
    books->blows = true;
    for (unsigned i = 0; i < books->seats; i++)
        start_worker(s, &books->seat[i]);
    for (unsigned i = 0; i < MISCHIEF; i++)
        mischief[i].next = now + random_below(2 * mischief[i].every);
    while ((now = milliseconds()) < end && s->toll.workers < kills) {
        resume_workers(now);
        tend_servers(s, now);
        make_mischief(s, now);
        if ((s->toll.workers - killed) * 1000 < s->rate * (now - start)) {
            kill_gang(s);
            if (random_below(STOPS_ONE_IN) == 0)
                stop_worker(s);
        }
        replace_workers(s);
        reap_children();
        if (now >= watch_at) {
            watch_workers(s);
            watch_at = now + WATCH_MS;
        }
        say_progress(s, start, now);
        usleep(TICK_US);
    }
}

static void end_children(void)
{
    for (unsigned i = 0; i < CHILDREN; i++) {
        pid_t pid = atomic_load(&books->children[i]);
        if (pid)
            kill(pid, SIGKILL);
        wait_until(!atomic_load(&books->children[i]) || reap_child(&books->children[i]));
    }
}

static bool accepts(struct storm *s, const char *command)
{
    redisReply *reply = redisCommand(s->redis.context, command);
    bool yes = reply && reply->type == REDIS_REPLY_STATUS;
    if (reply)
        freeReplyObject(reply);
    return yes;
}

/* On a new connection: it has loaded its files, and accepts everything. */
static bool redis_is_up(struct storm *s)
{
    redis_own_connection(&s->redis);
    s->redis.context = redisConnectUnix(s->redis.socket);
    return s->redis.context && !s->redis.context->err && accepts(s, "CONFIG SET maxmemory 0") &&
           accepts(s, "PING");
}

void killer_calm(struct storm *s)
{
    books->blows = false;
    for (unsigned i = 0; i < books->seats; i++) {
        kill_worker(s, &books->seat[i]);
        reap_worker(&books->seat[i], 0);
    }
    end_children();
    if (!has_redis())
        return;
    for (unsigned i = 1; i <= PERSISTERS; i++) /* nobody mends Redis before it has been looked at */
        if (!servers[i].start_at)
            end_server(&servers[i], 1);
    if (!servers[0].start_at)
        end_server(&servers[0], 1);
    servers[0].start_at = 1;
    for (unsigned i = 1; i <= PERSISTERS; i++)
        servers[i].start_at = UINT64_MAX;
    tend_servers(s, UINT64_MAX - 1);
    wait_until(redis_is_up(s));
    pause_ms(SETTLE_MS);
    wait_until(redis_is_up(s));
}

void killer_resume(struct storm *s)
{
    tend_servers(s, UINT64_MAX);
    for (unsigned i = 0; i <= PERSISTERS; i++)
        check_runs(&servers[i]);
}
