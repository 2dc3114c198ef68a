/* /metrics and /healthz; see persister_http.h. */
#include "tools/persister_http.h"

#include "lib/figures.h"
#include "tools/log.h"
#include "tools/persister_health.h"
#include "tools/persister_metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    CONNECTIONS = 64,
    LIFE_MS = 5000,
    BACKLOG = 64,
    REQUEST_BYTES = 16384,
    REST = 10 /* times as long as a walk took, until the next */
};

struct client {
    int fd; /* -1: nobody */
    uint64_t since;
};

struct http {
    sesstab *table;
    const struct settings *settings;
    int listener;
    struct stat file;         /* the socket's, if it is a unix socket */
    struct MHD_Daemon *daemon;
    pthread_t thread;
    int end;                  /* an eventfd: the wish to end */
    struct client clients[CONNECTIONS];
    struct figures figures;
    uint64_t figures_until;   /* monotonic ms; 0: there are none yet */
};

/* ---------------------------------------------------------------- addresses -------------- */

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
}

/* Of a numeric address; the caller's to free, NULL when it is none. */
static struct addrinfo *look_up(const struct redis_address *address)
{
    const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    char port[8];
    snprintf(port, sizeof port, "%d", address->port);
    return getaddrinfo(address->host, port, &hints, &found) == 0 ? found : NULL;
}

const char *http_parse_address(const char *text, struct redis_address *address)
{
    const char *wrong = redis_parse_address(text, address);
    if (wrong || !address->port)
        return wrong;
    struct addrinfo *found = look_up(address);
    if (!found)
        wrong = "the host is an address in numbers: 127.0.0.1 or [::1]";
    else if (!is_loopback(found->ai_addr))
        wrong = "not a loopback address: these pages ask for no password, so that other machines may "
                "not see them.  Use 127.0.0.1, [::1] or unix:PATH, and a web server with "
                "authentication in front for others";
    if (found)
        freeaddrinfo(found);
    return wrong;
}

/* ---------------------------------------------------------------- listening -------------- */

static int open_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int listen_tcp(const struct redis_address *address)
{
    struct addrinfo *found = look_up(address);
    int fd = found ? open_socket(found->ai_family) : -1;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
        if (bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, BACKLOG)) {
            int error = errno;
            close(fd);
            errno = error;
            fd = -1;
        }
    }
    if (found)
        freeaddrinfo(found);
    return fd;
}

/* E3: removes what a dead process left; false, and errno, when the name cannot be had. */
static bool make_way(const struct sockaddr_un *address)
{
    struct stat s;
    if (lstat(address->sun_path, &s))
        return errno == ENOENT;
    if (!S_ISSOCK(s.st_mode)) {
        errno = EEXIST;
        return false;
    }
    int fd = open_socket(AF_UNIX);
    bool stale = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 &&
                 errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    errno = EADDRINUSE;
    return stale && unlink(address->sun_path) == 0;
}

/*
 * Locks the directory, so that of two that find a dead one's file none removes the other's; only
 * for a moment, and whoever keeps it locked is not waited for.  -1: it cannot be opened.
 */
static int lock_directory(const char *path)
{
    char copy[sizeof ((struct sockaddr_un *)NULL)->sun_path];
    snprintf(copy, sizeof copy, "%.*s", (int)sizeof copy - 1, path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int tries = 0; fd >= 0 && tries < 100 && flock(fd, LOCK_EX | LOCK_NB); tries++)
        pause_ms(10);
    return fd;
}

static int listen_unix(const char *path, struct stat *file)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%.*s", (int)sizeof address.sun_path - 1,
             path);
    int lock = lock_directory(path), fd = -1, error = errno;
    if (lock >= 0 && make_way(&address) && (fd = open_socket(AF_UNIX)) >= 0) {
        fchmod(fd, 0600); /* which the file gets, from its first moment on */
        if (bind(fd, (const struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG) ||
            lstat(path, file)) {
            error = errno;
            close(fd);
            fd = -1;
        }
    } else if (lock >= 0) {
        error = errno;
    }
    if (lock >= 0)
        close(lock);
    errno = error;
    return fd;
}

static bool listen_anywhere(struct http *http)
{
    const struct redis_address *address = &http->settings->metrics;
    http->listener = address->port ? listen_tcp(address) : listen_unix(address->host, &http->file);
    if (http->listener >= 0)
        return true;
    const char *reason = errno == EADDRINUSE ? "another process listens there"
                         : errno == EEXIST   ? "there is something that is no socket"
                                             : strerror(errno);
    log_event(LEVEL_ERROR, "failed", TEXT("metrics", address->text), TEXT("reason", reason));
    return false;
}

/* The file goes with its listener, unless it is another's by now. */
static void stop_listening(struct http *http)
{
    struct stat s;
    const char *path = http->settings->metrics.host;
    if (http->listener < 0)
        return;
    if (!http->settings->metrics.port && lstat(path, &s) == 0 && s.st_ino == http->file.st_ino &&
        s.st_dev == http->file.st_dev)
        unlink(path);
    close(http->listener);
}

/* ---------------------------------------------------------------- answering -------------- */

/* E1.  False: the table cannot be read. */
static bool refresh(struct http *http)
{
    uint64_t now = monotonic_ms();
    if (now < http->figures_until)
        return true;
    int error = figures_read(http->table, &http->figures);
    if (error) {
        log_event(LEVEL_WARN, "no-figures", TEXT("reason", sesstab_strerror(error)));
        return false;
    }
    uint64_t rest = REST * http->figures.walk_ms;
    http->figures_until = monotonic_ms() + (rest > TICK_MS ? rest : TICK_MS);
    return true;
}

static enum MHD_Result reply(struct MHD_Connection *connection, int status, const char *type,
                             char *body, size_t length)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(length, body,
                                                                    MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(body);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result reply_text(struct MHD_Connection *connection, int status, const char *text)
{
    char *body = strdup(text);
    return body ? reply(connection, status, "text/plain; charset=utf-8", body, strlen(body))
                : MHD_NO;
}

static enum MHD_Result reply_metrics(struct http *http, struct MHD_Connection *connection)
{
    char *body = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&body, &length);
    if (!out)
        return MHD_NO;
    metrics_print(out, &http->figures, sesstab_now());
    if (fclose(out)) {
        free(body);
        return MHD_NO;
    }
    return reply(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", body, length);
}

static enum MHD_Result reply_health(struct http *http, struct MHD_Connection *connection)
{
    int status;
    char *body = health_json(&http->figures, http->settings, &status);
    return body ? reply(connection, status, "application/json", body, strlen(body)) : MHD_NO;
}

static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **request)
{
    struct http *http = context;
    bool metrics = strcmp(path, "/metrics") == 0, health = strcmp(path, "/healthz") == 0;
    (void)version, (void)upload, (void)upload_size, (void)request;
    if (!metrics && !health)
        return reply_text(connection, MHD_HTTP_NOT_FOUND, "There are /metrics and /healthz.\n");
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return reply_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
    if (!refresh(http))
        return reply_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "The table cannot be read.\n");
    return metrics ? reply_metrics(http, connection) : reply_health(http, connection);
}

/* ---------------------------------------------------------------- clients ---------------- */

static void note_client(void *context, struct MHD_Connection *connection, void **place,
                        enum MHD_ConnectionNotificationCode what)
{
    struct http *http = context;
    struct client *client = *place;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (client)
            client->fd = -1;
        return;
    }
    for (client = http->clients; client->fd >= 0; client++)
        if (client == &http->clients[CONNECTIONS - 1])
            return;
    client->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    client->since = monotonic_ms();
    *place = client;
}

/* E2.  Returns whether any is left. */
static bool cut_clients(struct http *http)
{
    uint64_t now = monotonic_ms();
    bool any = false;
    for (struct client *client = http->clients; client < http->clients + CONNECTIONS; client++) {
        if (client->fd >= 0 && now - client->since >= LIFE_MS)
            shutdown(client->fd, SHUT_RDWR);
        any |= client->fd >= 0;
    }
    return any;
}

/* ---------------------------------------------------------------- the thread ------------- */

static void *run(void *argument)
{
    struct http *http = argument;
    struct pollfd polled[] = {
        { .fd = http->end, .events = POLLIN },
        { .fd = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd,
          .events = POLLIN }
    };
    /* Never for long: when there were too many clients, it listens again only in its next run. */
    while (!polled[0].revents) {
        int wait = cut_clients(http) ? TICK_MS : CHECK_MS;
        MHD_UNSIGNED_LONG_LONG due;
        if (MHD_get_timeout(http->daemon, &due) == MHD_YES && due < (unsigned)wait)
            wait = (int)due;
        poll(polled, 2, wait);
        MHD_run(http->daemon);
    }
    return NULL;
}

static struct MHD_Daemon *start_daemon(struct http *http)
{
    return MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, answer, http,
                            MHD_OPTION_LISTEN_SOCKET, http->listener,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
                            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)LIFE_MS / 1000,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES,
                            MHD_OPTION_NOTIFY_CONNECTION, note_client, http, MHD_OPTION_END);
}

static bool start_thread(struct http *http)
{
    sigset_t all, before;
    http->end = eventfd(0, EFD_CLOEXEC);
    http->daemon = http->end >= 0 ? start_daemon(http) : NULL;
    /* Signals are for the main thread, whose waits they cut short. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = http->daemon && pthread_create(&http->thread, NULL, run, http) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!started)
        log_event(LEVEL_ERROR, "failed", TEXT("metrics", http->settings->metrics.text),
                  TEXT("reason", "the thread that serves it could not be started"));
    return started;
}

static void end(struct http *http)
{
    if (http->daemon)
        http->listener = MHD_quiesce_daemon(http->daemon);
    stop_listening(http);
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    if (http->end >= 0)
        close(http->end);
    free(http);
}

struct http *http_start(sesstab *table, const struct settings *settings)
{
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return NULL;
    http->table = table;
    http->settings = settings;
    http->listener = http->end = -1;
    for (int i = 0; i < CONNECTIONS; i++)
        http->clients[i].fd = -1;
    health_step(); /* the caller's first */
    if (listen_anywhere(http) && start_thread(http)) {
        log_event(LEVEL_INFO, "serving", TEXT("metrics", settings->metrics.text));
        return http;
    }
    end(http);
    return NULL;
}

void http_stop(struct http *http)
{
    if (!http)
        return;
    eventfd_write(http->end, 1);
    pthread_join(http->thread, NULL);
    end(http);
}
