/*
 * mushd's parent process: opens the table, binds the port, forks the workers, and restarts one that
 * dies, at once at first and more slowly when it keeps dying.  It serves nobody itself.  mushd.h
 * has the overview.
 */
#include "mushd.h"

#include <argp.h>
#include <err.h>
#include <fcntl.h>
#include <locale.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKOFF_MIN_MS = 100,      /* how soon a worker that died is replaced                         */
    BACKOFF_MAX_MS = 5000,     /* how late, when it keeps dying                                   */
    GRACE_MS = 3600 * 1000,    /* how long a detached session is kept for its player              */
    STOP_MS = 2000,            /* what workers have to say goodbye                                */
    MAIL_BYTES = 1 << 20       /* in a mailbox, if the system allows it                           */
};

struct options options = { "/sesstab", "127.0.0.1", "4201", 4, 2000 };
sesstab *table;
struct seat seats[WORKERS_MAX];
struct board *board;

/* What the parent knows of the worker in each seat. */
static struct {
    pid_t pid;                 /* 0: none; start one at start_at                                  */
    uint64_t started_at, start_at, backoff;
} workers[WORKERS_MAX];

static sigset_t handled;       /* the signals that the parent waits for, blocked                  */
static bool clean = true;       /* all workers stopped as they should                             */

/* ---------------------------------------------------------------- options ---------------- */

static const struct argp_option option_list[] = {
    { "table", 't', "NAME", 0, "the session table (default /sesstab)", 0 },
    { "listen", 'l', "ADDRESS", 0, "the address to listen on (default 127.0.0.1)", 0 },
    { "port", 'p', "PORT", 0, "the port (default 4201); 0 takes any and prints it", 0 },
    { "workers", 'w', "N", 0, "worker processes, 1 to 64 (default 4)", 0 },
    { "bind-timeout", 'b', "MS", 0, "how long a login waits for Redis (default 2000)", 0 },
    { 0 },
};

static int number(struct argp_state *state, const char *what, const char *text, long min, long max)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < min || n > max)
        argp_error(state, "%s must be a number from %ld to %ld, not '%s'", what, min, max, text);
    return (int)n;
}

/* The library wants the slash; people may leave it out. */
static const char *table_name(const char *name)
{
    static char with_slash[SESSTAB_NAME_MAX + 2];
    if (*name == '/')
        return name;
    snprintf(with_slash, sizeof with_slash, "/%s", name);
    return with_slash;
}

/* Resolved later, with the port; here it is only looked at. */
static const char *numeric_address(struct argp_state *state, const char *text)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST }, *where;
    if (getaddrinfo(text, NULL, &hints, &where))
        argp_error(state, "--listen: a numeric address is wanted, such as 127.0.0.1 or ::1, "
                   "not '%s'", text);
    else
        freeaddrinfo(where);
    return text;
}

static error_t take_option(int key, char *value, struct argp_state *state)
{
    switch (key) {
    case 't': options.table = table_name(value); break;
    case 'l': options.listen = numeric_address(state, value); break;
    case 'p': number(state, "--port", value, 0, 65535); options.port = value; break;
    case 'w': options.workers = number(state, "--workers", value, 1, WORKERS_MAX); break;
    case 'b': options.bind_timeout = number(state, "--bind-timeout", value, 1, 60000); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

SESSTAB_API const char *argp_program_version = "mushd (sesstab) " SESSTAB_VERSION;
static const struct argp argp = {
    .options = option_list,
    .parser = take_option,
    .doc = "A chat server whose workers share their sessions in a table, with Redis behind it.\v"
           "A persister must be running on the same table.  Exit status: 0 after SIGTERM or "
           "Ctrl-C, 1 when it could not start or a worker did not stop, 64 for wrong usage.",
};

/* ---------------------------------------------------------------- starting --------------- */

/* Workers use the handle that they inherit: nothing has to be opened again after the fork. */
static void open_table(void)
{
    int error = sesstab_open(options.table, &(sesstab_options){ .create = true }, &table);
    if (error)
        errx(1, "cannot open the table %s: %s: %s", options.table, sesstab_strerror(error),
             sesstab_error_detail());
}

/* A worker accepts whoever is next, so the socket must not block one that comes second. */
static int listen_on(const char *address, const char *port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_PASSIVE };
    struct addrinfo *where;
    int error = getaddrinfo(address, port, &hints, &where);
    if (error)
        errx(1, "--listen %s: %s", address, gai_strerror(error));
    int fd = socket(where->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int))
        || setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){ 1 }, sizeof(int))
        || bind(fd, where->ai_addr, where->ai_addrlen) || listen(fd, SOMAXCONN))
        err(1, "cannot listen on %s port %s", address, port);
    freeaddrinfo(where);
    return fd;
}

static void print_port(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char port[NI_MAXSERV] = "?";
    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        getnameinfo((struct sockaddr *)&address, length, NULL, 0, port, sizeof port,
                    NI_NUMERICSERV);
    printf("mushd: table %s, %d workers, ready on port %s\n", options.table, options.workers, port);
    fflush(stdout);
}

static void make_seats(void)
{
    board = mmap(NULL, WORKERS_MAX * sizeof *board, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        err(1, "mmap");
    for (int i = 0; i < options.workers; i++) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends))
            err(1, "socketpair");
        setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &(int){ MAIL_BYTES }, sizeof(int));
        seats[i] = (struct seat){ .mailbox = ends[0], .post = ends[1] };
    }
}

/* ---------------------------------------------------------------- workers ---------------- */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Waits for a handled signal, at most MS; 0 when none came. */
static int wait_signal(uint64_t ms)
{
    struct timespec t = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };
    int signal = sigtimedwait(&handled, NULL, &t);
    return signal == -1 ? 0 : signal;
}

static void start_worker(int i, int listening)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        worker_run(i + 1, listening, parent);
    workers[i].started_at = now_ms();
    if (pid == -1) {
        warn("fork");
        workers[i].start_at = now_ms() + BACKOFF_MAX_MS;
        return;
    }
    workers[i].pid = pid;
    warnx("worker %d is process %d", i + 1, pid);
}

/* The longer a worker lived, the sooner there is a new one. */
static void worker_died(int i, int status)
{
    bool lived = now_ms() - workers[i].started_at > BACKOFF_MAX_MS;
    uint64_t next = lived ? 0 : workers[i].backoff * 2;
    board[i] = (struct board){ 0 };
    workers[i].backoff = next < BACKOFF_MIN_MS ? BACKOFF_MIN_MS
                         : next > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : next;
    workers[i].start_at = now_ms() + workers[i].backoff;
    warnx("worker %d (pid %d) %s %d; a new one starts in %" PRIu64 " ms", i + 1, workers[i].pid,
          WIFSIGNALED(status) ? "was killed by signal" : "ended with status",
          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), workers[i].backoff);
    workers[i].pid = 0;
}

/* Collects dead workers; returns how many live. */
static int reap(void (*died)(int i, int status))
{
    int status, live = 0;
    for (int i = 0; i < options.workers; i++)
        if (workers[i].pid && waitpid(workers[i].pid, &status, WNOHANG) == workers[i].pid)
            died(i, status);
        else
            live += workers[i].pid != 0;
    return live;
}

/*
 * Sessions that nobody will come back for: detached before anybody logged in, or too long ago.
 * This is the parent's only look into the table, and it needs no worker's help.
 */
static void remove_abandoned(void)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view s;
    int error;
    while ((error = sesstab_next(table, &cursor, &s)) == SESSTAB_OK || error == SESSTAB_CORRUPT)
        if (!error && s.state == SESSTAB_DETACHED
            && (!*s.player || s.last_seen + GRACE_MS < sesstab_now()))
            sesstab_remove(table, s.handle);
}

static void keep_workers_running(int listening)
{
    for (;;) {
        uint64_t now = now_ms(), sleep = BACKOFF_MAX_MS;
        for (int i = 0; i < options.workers; i++) {
            if (workers[i].pid == 0 && workers[i].start_at <= now)
                start_worker(i, listening);
            if (workers[i].pid == 0 && workers[i].start_at - now < sleep)
                sleep = workers[i].start_at - now;
        }
        int signal = wait_signal(sleep);
        if (signal == SIGTERM || signal == SIGINT)
            return;
        reap(worker_died);
        remove_abandoned();
    }
}

/* One that had hardly begun is ended by SIGTERM itself. */
static void worker_stopped(int i, int status)
{
    bool well = status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    if (!well)
        warnx("worker %d (pid %d) did not stop as it should", i + 1, workers[i].pid);
    clean = clean && well;
    workers[i].pid = 0;
}

static void stop_workers(void)
{
    uint64_t deadline = now_ms() + STOP_MS;
    for (int i = 0; i < options.workers; i++)
        if (workers[i].pid)
            kill(workers[i].pid, SIGTERM);
    while (reap(worker_stopped) && now_ms() < deadline)
        wait_signal(100);
    for (int i = 0; i < options.workers; i++)
        if (workers[i].pid) {
            kill(workers[i].pid, SIGKILL);
            waitpid(workers[i].pid, NULL, 0);
            worker_stopped(i, SIGKILL);
        }
}

/* What is not in the table exists only after the persister has loaded Redis into it. */
static bool wait_until_ready(void)
{
    bool told = false;
    int error;
    while ((error = sesstab_wait_ready(table, 100)) == SESSTAB_TIMEOUT) {
        int signal = wait_signal(0);
        if (signal == SIGTERM || signal == SIGINT)
            return false;
        if (!told)
            warnx("waiting for a persister: persister --table %s --create ...", options.table);
        told = true;
    }
    if (error)
        errx(1, "cannot use the table %s: %s", options.table, sesstab_strerror(error));
    return true;
}

int main(int argc, char **argv)
{
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&handled);
    sigaddset(&handled, SIGTERM);
    sigaddset(&handled, SIGINT);
    sigaddset(&handled, SIGCHLD);
    sigprocmask(SIG_BLOCK, &handled, NULL);

    int listening = listen_on(options.listen, options.port);
    open_table();
    make_seats();
    if (wait_until_ready()) {
        print_port(listening);
        keep_workers_running(listening);
        stop_workers();
    }
    sesstab_close(table);
    return clean ? 0 : 1;
}
