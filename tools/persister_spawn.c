/* A private redis-server; see persister_spawn.h. */
#include "tools/persister_spawn.h"

#include "tools/log.h"
#include "tools/persister.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    HEALTHY_MS = 10000,   /* who lived that long is restarted at once     */
    SAVE_MS = 10000,      /* for the server to leave after SIGTERM        */
    EXIT_NOT_FOUND = 127
};

const char *spawn_prepare(struct spawn *spawn, const char *directory)
{
    memset(spawn, 0, sizeof *spawn);
    spawn->backoff_ms = BACKOFF_MIN_MS;
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return strerror(errno);
    if (!realpath(directory, spawn->directory))
        return strerror(errno);
    struct stat s;
    if (stat(spawn->directory, &s) != 0 || !S_ISDIR(s.st_mode))
        return "it is not a directory";
    if (access(spawn->directory, W_OK | X_OK) != 0)
        return strerror(errno);
    int length = snprintf(spawn->socket, sizeof spawn->socket, "%s/redis.sock", spawn->directory);
    if (length < 0 || (size_t)length >= sizeof spawn->socket)
        return "the path is too long for a unix socket (at most 96 bytes)";
    return NULL;
}

static void back_off(struct spawn *spawn)
{
    spawn->retry_at = monotonic_ms() + spawn->backoff_ms;
    spawn->backoff_ms *= 2;
    if (spawn->backoff_ms > BACKOFF_MAX_MS)
        spawn->backoff_ms = BACKOFF_MAX_MS;
}

/* True when some server, perhaps one that no persister started, listens there. */
static bool answers(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool connected = fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ||
                                 errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return connected;
}

/* The lock's descriptor, to be inherited; -1 when another server has it. */
static int lock_directory(struct spawn *spawn)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/redis.lock", spawn->directory);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0) {
        log_event(LEVEL_ERROR, "redis-lock-failed", TEXT("path", path),
                  TEXT("reason", strerror(errno)));
        return -1;
    }
    bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    spawn->shared = !locked;
    if (locked && !answers(spawn->socket)) {
        spawn->blocked = false;
        return fd;
    }
    if (!spawn->blocked)
        log_event(LEVEL_WARN, "redis-waiting", TEXT("directory", spawn->directory),
                  TEXT("reason", "another redis-server still uses it"));
    spawn->blocked = true;
    close(fd);
    return -1;
}

/* In the child, where only async-signal-safe functions may be called. */
static void become_redis(const struct spawn *spawn, const char *config, pid_t parent)
{
    sigset_t none;
    const char *arguments[24];
    size_t n = 0;
    arguments[n++] = "redis-server";
    if (config)
        arguments[n++] = config;
    const char *const fixed[] = { "--port", "0", "--unixsocket", spawn->socket,
                                  "--unixsocketperm", "700", "--dir", spawn->directory,
                                  "--daemonize", "no", "--appendonly", "yes" };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        arguments[n++] = fixed[i];
    const char *const usual[] = { "--save", "", "--logfile", "redis.log" };
    for (size_t i = 0; !config && i < sizeof usual / sizeof *usual; i++)
        arguments[n++] = usual[i];
    arguments[n] = NULL;

    setsid(); /* a terminal's Ctrl-C is for the persister, which has something to flush first */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(0);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(arguments[0], (char *const *)arguments);
    _exit(EXIT_NOT_FOUND);
}

static void start(struct spawn *spawn)
{
    char config[PATH_MAX + 16];
    snprintf(config, sizeof config, "%s/redis.conf", spawn->directory);
    bool configured = access(config, R_OK) == 0;
    int lock = lock_directory(spawn);
    if (lock < 0) {
        spawn->retry_at = monotonic_ms() + BACKOFF_MIN_MS;
        return;
    }
    unlink(spawn->socket); /* of a server that was killed */
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become_redis(spawn, configured ? config : NULL, parent);
    if (pid < 0) {
        log_event(LEVEL_ERROR, "redis-start-failed", TEXT("reason", strerror(errno)));
        back_off(spawn);
    } else {
        spawn->pid = pid;
        spawn->started_at = monotonic_ms();
        log_event(LEVEL_INFO, "redis-started", NUMBER("pid", (uint64_t)pid),
                  TEXT("directory", spawn->directory));
    }
    close(lock);
}

static void say_ended(const struct spawn *spawn, int status, bool expected)
{
    char how[160];
    bool missing = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_FOUND;
    if (missing)
        snprintf(how, sizeof how, "redis-server was not found in PATH: install it");
    else if (WIFEXITED(status))
        snprintf(how, sizeof how, "exit status %d", WEXITSTATUS(status));
    else
        snprintf(how, sizeof how, "signal %d", WTERMSIG(status));
    log_event(expected ? LEVEL_INFO : LEVEL_ERROR, "redis-ended",
              NUMBER("pid", (uint64_t)spawn->pid), TEXT("how", how),
              TEXT("see", expected || missing ? NULL : "redis.log in its directory"));
}

/* True when there is no running child (any more). */
static bool reap(struct spawn *spawn, bool expected)
{
    int status;
    if (spawn->pid == 0)
        return true;
    if (waitpid(spawn->pid, &status, WNOHANG) == 0)
        return false;
    say_ended(spawn, status, expected);
    if (monotonic_ms() - spawn->started_at >= HEALTHY_MS)
        spawn->backoff_ms = BACKOFF_MIN_MS;
    spawn->pid = 0;
    back_off(spawn);
    return true;
}

void spawn_tend(struct spawn *spawn)
{
    if (reap(spawn, false) && monotonic_ms() >= spawn->retry_at)
        start(spawn);
}

bool spawn_is_up(const struct spawn *spawn)
{
    return (spawn->pid != 0 || spawn->shared) && access(spawn->socket, F_OK) == 0;
}

void spawn_stop(struct spawn *spawn)
{
    if (spawn->pid == 0)
        return;
    uint64_t deadline = monotonic_ms() + SAVE_MS;
    kill(spawn->pid, SIGTERM);
    while (!reap(spawn, true)) {
        if (monotonic_ms() >= deadline) {
            log_event(LEVEL_WARN, "redis-killed", NUMBER("pid", (uint64_t)spawn->pid),
                      TEXT("reason", "it did not end after SIGTERM"));
            kill(spawn->pid, SIGKILL);
            deadline = UINT64_MAX;
        }
        usleep(10000);
    }
}
