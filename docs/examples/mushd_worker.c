/*
 * One worker of mushd: its sockets and its event loop.
 *
 *   clients     --> take_input() --> take_byte() --> run_line()     mushd_commands.c
 *   start_login --> sesstab_start_bind() ... persister ... --> take_answers() --> login_answered()
 *   post()      --> a mailbox, here or in another worker --> open_mail() --> deliver()
 *
 * Nothing here ever waits.  A login is started; its answer comes through a descriptor of the table's,
 * which the loop polls beside its sockets, and names its connection by handle, which may be gone by
 * then.  How long a login may take is the loop's business: a timer, and sesstab_cancel().
 */
#include "mushd.h"

#include <arpa/telnet.h>
#include <err.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    TEXT_BYTES = 2 * LINE_BYTES,
    OUTPUT_BYTES = 64 * 1024,  /* unsent output of one client; beyond it, lines are dropped       */
    INPUT_BYTES = 8 * 1024,    /* unread input of one client; beyond it, TCP makes it wait        */
    BUCKETS = 1024,            /* of the hash from handle to connection                           */
    LINGER_S = 5               /* how long a closing client may take to read its last line        */
};

static const struct timeval settle_every = { .tv_usec = 250000 }, last_words = { .tv_sec = 1 };

int worker_number;
static struct board *mine;      /* this worker's line on the board */
static struct event_base *base;
static struct evconnlistener *listener;
static struct event *rested;    /* the listener has paused long enough */
static bool stopping;
static LIST_HEAD(, connection) connections[BUCKETS];

#define FOR_EACH_CONNECTION(c)                                                                     \
    for (int bucket_ = 0; bucket_ < BUCKETS; bucket_++)                                            \
        LIST_FOREACH(c, &connections[bucket_], link)

static struct connection *connection_of(uint64_t handle)
{
    struct connection *c;
    LIST_FOREACH(c, &connections[handle % BUCKETS], link)
        if (c->handle == handle)
            return c;
    return NULL;
}

/* ---------------------------------------------------------------- output ----------------- */

/* Text may come from anywhere: control characters, and telnet's 255, become '?'. */
void say_to(struct connection *c, const char *format, ...)
{
    struct evbuffer *output = bufferevent_get_output(c->stream);
    char text[TEXT_BYTES];
    va_list arguments;

    if (evbuffer_get_length(output) > OUTPUT_BYTES) {
        c->dropped++;
        return;
    }
    if (c->dropped)
        evbuffer_add_printf(output, "*** %u lines were dropped: you read too slowly.\r\n",
                            c->dropped);
    c->dropped = 0;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127 || (unsigned char)*p == IAC)
            *p = '?';
    evbuffer_add_printf(output, "%s\r\n", text);
}

/* The session ends, here and everywhere: no worker finds it any more, and Redis will forget it. */
static void leave(struct connection *c)
{
    if (c->binding)
        sesstab_cancel(table, c->ticket);
    event_del(c->patience);
    sesstab_remove(table, c->handle);
    LIST_REMOVE(c, link);
    c->closing = true;
}

static void discard(struct connection *c)
{
    if (--mine->connections == 0 && stopping)
        event_base_loopbreak(base);
    bufferevent_free(c->stream);
    event_free(c->patience);
    free(c);
}

/* The client has gone, or did not take its last line in time. */
static void ended(struct bufferevent *stream, short what, void *context)
{
    struct connection *c = context;
    (void)stream, (void)what;
    if (!c->closing)
        leave(c);
    discard(c);
}

static void drained(struct bufferevent *stream, void *context)
{
    (void)stream;
    discard(context);
}

void hang_up(struct connection *c, const char *farewell)
{
    leave(c);
    say_to(c, "%s", farewell);
    bufferevent_disable(c->stream, EV_READ);
    bufferevent_set_timeouts(c->stream, NULL, &(struct timeval){ .tv_sec = LINGER_S });
    bufferevent_setcb(c->stream, NULL, drained, ended, c);
}

/* ---------------------------------------------------------------- mail ------------------- */

/* Everybody in the room, for every line that is spoken: lookups must be cheap, and they are. */
static void deliver_to_all(const struct message *m)
{
    struct connection *c;
    sesstab_view s;
    if (sesstab_read_begin(table))
        return;
    FOR_EACH_CONNECTION(c)
        if (c->handle != m->handle && !c->binding
            && sesstab_find(table, c->handle, &s) == SESSTAB_OK && s.state == SESSTAB_LOGGED_IN)
            say_to(c, "%s", m->text);
    sesstab_read_end(table);
}

/* Who has left meanwhile is not found; the table never assigns a handle twice. */
static void deliver(const struct message *m)
{
    struct connection *c = connection_of(m->handle);
    if (m->kind == SAY)
        deliver_to_all(m);
    else if (c && m->kind == PAGE)
        say_to(c, "%s", m->text);
    else if (c)
        hang_up(c, m->text);
}

static void open_mail(int fd, short what, void *context)
{
    struct message m;
    (void)what, (void)context;
    while (recv(fd, &m, sizeof m, MSG_DONTWAIT) > 0)
        deliver(&m);
}

bool post(int number, const struct message *m)
{
    size_t size = offsetof(struct message, text) + strlen(m->text) + 1;
    if (number == worker_number) {
        deliver(m);
        return true;
    }
    return board[number - 1].owner
           && send(seats[number - 1].post, m, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

/* ---------------------------------------------------------------- logins ----------------- */

static void take_input(struct bufferevent *stream, void *context);

static void end_login(struct connection *c, int answer)
{
    c->binding = false;
    event_del(c->patience);
    login_answered(c, c->player, answer);
    take_input(c->stream, c); /* what came meanwhile */
}

/* Who has left meanwhile is not found; the table never assigns a handle twice. */
static void take_answers(int fd, short what, void *context)
{
    sesstab_answer a;
    (void)fd, (void)what, (void)context;
    while (sesstab_next_answer(table, &a) == SESSTAB_OK) {
        struct connection *c = connection_of(a.handle);
        if (c && c->binding && c->ticket == a.ticket)
            end_login(c, a.result);
    }
}

/* A ticket that can't be cancelled is answered: take_answers() is about to get it. */
static void lose_patience(int fd, short what, void *context)
{
    struct connection *c = context;
    (void)fd, (void)what;
    if (sesstab_cancel(table, c->ticket) == SESSTAB_OK)
        end_login(c, SESSTAB_UNKNOWN);
}

void start_login(struct connection *c, const char *player)
{
    const int ms = options.bind_timeout;
    int error = sesstab_start_bind(table, c->handle, player, NULL, &c->ticket);
    if (error == SESSTAB_LIMIT) {
        say_to(c, "Too many people are logging in just now.  Please try again.");
    } else if (error) {
        login_answered(c, player, error);
    } else {
        c->binding = true;
        snprintf(c->player, sizeof c->player, "%s", player);
        event_add(c->patience, &(struct timeval){ ms / 1000, ms % 1000 * 1000 });
    }
}

static void look_at_pending(int fd, short what, void *context)
{
    struct connection *c;
    (void)fd, (void)what, (void)context;
    FOR_EACH_CONNECTION(c)
        if (c->pending)
            settle_login(c);
}

/* ---------------------------------------------------------------- input ------------------ */

/* Takes telnet's commands out: IAC x, IAC WILL|WONT|DO|DONT x, IAC SB ... IAC SE.  True: text. */
static bool is_text(struct connection *c, unsigned char byte)
{
    switch (c->telnet) {
    case TEXT:
        if (byte != IAC)
            return true;
        c->telnet = COMMAND;
        break;
    case COMMAND:
        c->telnet = byte == SB ? SUBOPTION : byte >= WILL && byte <= DONT ? OPTION : TEXT;
        break;
    case OPTION:
        c->telnet = TEXT;
        break;
    case SUBOPTION:
        c->telnet = byte == IAC ? SUBCOMMAND : SUBOPTION;
        break;
    case SUBCOMMAND:
        c->telnet = byte == SE ? TEXT : SUBOPTION;
        break;
    }
    return false;
}

static void end_line(struct connection *c)
{
    c->line[c->length] = '\0';
    c->length = 0;
    if (c->overlong)
        say_to(c, "That line has more than %d bytes.  It was dropped.", LINE_BYTES);
    else
        run_line(c, c->line);
    c->overlong = false;
}

static void take_byte(struct connection *c, unsigned char byte)
{
    if (!is_text(c, byte))
        return;
    if (byte == '\n')
        end_line(c);
    else if (byte < ' ' || byte == 127)
        return;
    else if (c->length < LINE_BYTES)
        c->line[c->length++] = (char)byte;
    else
        c->overlong = true;
}

/* Takes what has come, up to a line that starts a login: the rest waits for Redis's answer. */
static void take_input(struct bufferevent *stream, void *context)
{
    struct evbuffer *input = bufferevent_get_input(stream);
    struct connection *c = context;
    unsigned char bytes[LINE_BYTES];
    ssize_t n;

    if (sesstab_touch(table, c->handle, 0) == SESSTAB_NOTFOUND && !c->closing)
        hang_up(c, "Your session was removed.");
    while (!c->binding && !c->closing && (n = evbuffer_copyout(input, bytes, sizeof bytes)) > 0) {
        ssize_t used = 0;
        while (used < n && !c->binding && !c->closing)
            take_byte(c, bytes[used++]);
        evbuffer_drain(input, (size_t)used);
    }
}

/* ---------------------------------------------------------------- connections ------------ */

static void pause_accepting(int ms)
{
    evconnlistener_disable(listener);
    event_add(rested, &(struct timeval){ ms / 1000, ms % 1000 * 1000 });
}

static void accept_again(int fd, short what, void *unused)
{
    (void)fd, (void)what, (void)unused;
    evconnlistener_enable(listener);
}

/* Out of file descriptors, most likely: trying again at once would only burn time. */
static void accept_failed(struct evconnlistener *unused, void *context)
{
    (void)unused, (void)context;
    warn("worker %d: accept", worker_number);
    pause_accepting(1000);
}

/* The kernel wakes all workers for a connection, and mostly the same one is first. */
static void pause_if_crowded(void)
{
    uint32_t live = 0, all = 0;
    for (int i = 0; i < options.workers; i++) {
        live += board[i].owner != 0;
        all += board[i].connections;
    }
    if (mine->connections * live > all + live)
        pause_accepting(5);
}

static int insert_session(struct connection *c, struct sockaddr *address, int length)
{
    char ip[NI_MAXHOST] = "?";
    /* Numeric also as the host's name: to ask a name server would stop the event loop. */
    getnameinfo(address, (socklen_t)length, ip, sizeof ip, NULL, 0, NI_NUMERICHOST);
    return sesstab_insert(table, &c->handle,
                          &(sesstab_info){ .address = ip, .host = ip, .type = "telnet" });
}

static void accept_connection(struct evconnlistener *unused, evutil_socket_t fd,
                              struct sockaddr *address, int length, void *context)
{
    struct bufferevent *stream = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    struct connection *c = calloc(1, sizeof *c);
    struct event *patience = event_new(base, -1, 0, lose_patience, c);
    int error = c && stream && patience ? insert_session(c, address, length) : SESSTAB_NOMEMORY;
    (void)unused, (void)context;
    if (error) {
        warnx("worker %d: a connection was refused: %s", worker_number, sesstab_strerror(error));
        stream ? bufferevent_free(stream) : (void)close(fd);
        if (patience)
            event_free(patience);
        free(c);
        return;
    }
    mine->connections++;
    pause_if_crowded();
    c->stream = stream;
    c->patience = patience;
    LIST_INSERT_HEAD(&connections[c->handle % BUCKETS], c, link);
    bufferevent_setcb(stream, take_input, NULL, ended, c);
    bufferevent_setwatermark(stream, EV_READ, 0, INPUT_BYTES);
    bufferevent_enable(stream, EV_READ | EV_WRITE);
    say_to(c, "Welcome to mushd.  You are connection %" PRIu64 " on worker %d.", c->handle,
           worker_number);
    say_to(c, "Type \"connect <player>\" to log in, \"help\" for help.");
}

/* ---------------------------------------------------------------- the worker ------------- */

static void terminate(int signal, short what, void *context)
{
    struct connection *c;
    (void)signal, (void)what, (void)context;
    stopping = true;
    event_del(rested);
    evconnlistener_disable(listener);
    for (int i = 0; i < BUCKETS; i++)
        while ((c = LIST_FIRST(&connections[i])))
            hang_up(c, "The server is going down.  Goodbye.");
    if (mine->connections == 0)
        event_base_loopbreak(base);
    event_base_loopexit(base, &last_words);
}

/* The parent's signals and death are the worker's business; Ctrl-C is the parent's. */
static void be_a_child(pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGINT, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        exit(0);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void attach(void)
{
    int error = sesstab_attach(table);
    if (error)
        errx(1, "worker %d: cannot use the table: %s: %s", worker_number, sesstab_strerror(error),
             sesstab_error_detail());
    mine->owner = sesstab_self(table);
}

/* Where the table says that answers wait. */
static int answers(void)
{
    int descriptor, error = sesstab_descriptor(table, &descriptor);
    if (error)
        errx(1, "worker %d: cannot wait for answers: %s", worker_number, sesstab_strerror(error));
    return descriptor;
}

void worker_run(int number, int listening, pid_t parent)
{
    static struct message stale;
    int mailbox = seats[number - 1].mailbox;

    worker_number = number;
    mine = &board[number - 1];
    be_a_child(parent);
    while (recv(mailbox, &stale, sizeof stale, MSG_DONTWAIT) > 0)
        ;
    attach();
    base = event_base_new();
    rested = event_new(base, -1, 0, accept_again, NULL);
    listener = evconnlistener_new(base, accept_connection, NULL, LEV_OPT_CLOSE_ON_EXEC, 0,
                                  listening);
    event_add(event_new(base, mailbox, EV_READ | EV_PERSIST, open_mail, NULL), NULL);
    event_add(event_new(base, answers(), EV_READ | EV_PERSIST, take_answers, NULL), NULL);
    event_add(event_new(base, -1, EV_PERSIST, look_at_pending, NULL), &settle_every);
    event_add(evsignal_new(base, SIGTERM, terminate, NULL), NULL);
    evconnlistener_set_error_cb(listener, accept_failed);
    event_base_dispatch(base);

    sesstab_close(table);
    exit(0);
}
