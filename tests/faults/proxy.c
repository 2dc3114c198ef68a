/* The proxy; see proxy.h. */
#include "tests/faults/proxy.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/harness.h"

enum {
    CHUNK = 4096,
    ONE_IN = 4,           /* chunks that are duplicated, truncated, ...                          */
    CUT_WITHIN = 3000,    /* bytes until the next cut at random, at most                         */
    FLOOD_BYTES = 1 << 20 /* that the client has not taken                                       */
};

/* Where in the requests of a connection the next byte stands. */
struct frame {
    uint64_t payload, number; /* bytes left of a value; the number that is being read             */
    char kind;                /* of the line: '*', '$'; 0: at its beginning                       */
    bool name_next, is_name;  /* the (next) value is a command's name                             */
};

/* One connection: side 0 is the client, 1 the server.  Direction d comes from side d. */
struct link {
    struct link *next, **place;
    struct bufferevent *side[2];
    bool ended[2];            /* the side has closed: what is held for the other comes first       */
    struct evbuffer *held[2];
    struct event *timer;
    bool silent[2], flooding;
    struct frame frame;
};

static struct state {
    struct proxy *proxy;
    struct event_base *base;
    struct link *links;
    struct proxy_wish wish;
    uint64_t cut_at;
} state;

/* ---------------------------------------------------------------- links ------------------ */

static void end_link(struct link *l)
{
    *l->place = l->next;
    if (l->next)
        l->next->place = l->place;
    for (int d = 0; d < 2; d++) {
        bufferevent_free(l->side[d]);
        evbuffer_free(l->held[d]);
    }
    event_free(l->timer);
    free(l);
}

static size_t waiting(const struct link *l, int d)
{
    return evbuffer_get_length(l->held[d]) +
           evbuffer_get_length(bufferevent_get_output(l->side[!d]));
}

/* A side that has closed ends the link when the other has what it sent. */
static bool end_if_over(struct link *l)
{
    for (int d = 0; d < 2; d++)
        if (l->ended[d] && !waiting(l, d)) {
            end_link(l);
            return true;
        }
    return false;
}

static bool spoils(int d)
{
    return state.wish.directions & (1u << d);
}

static void did_something(void)
{
    state.proxy->injected++;
}

static void pass(struct link *l, int d, const void *bytes, size_t n)
{
    evbuffer_add(bufferevent_get_output(l->side[!d]), bytes, n);
}

/* ---------------------------------------------------------------- frames ----------------- */

/* Goes over one byte of a request; true when it may be changed (Y3). */
static bool frames(struct frame *f, char byte)
{
    if (f->payload) {
        f->payload--;
        return f->is_name;
    }
    if (!f->kind) {
        f->kind = byte;
        f->number = 0;
    } else if (byte >= '0' && byte <= '9') {
        f->number = f->number * 10 + (uint64_t)(byte - '0');
    } else if (byte == '\n') {
        f->payload = f->kind == '$' ? f->number + 2 : 0;
        f->is_name = f->name_next;
        f->name_next = f->kind == '*';
        f->kind = 0;
    }
    return true;
}

/* ---------------------------------------------------------------- what is done ----------- */

static void corrupt(struct link *l, int d, char *bytes, size_t n)
{
    size_t chosen = random_below(n);
    bool wanted = random_below(ONE_IN) == 0, done = false;
    for (size_t i = 0; i < n; i++) {
        bool may = d == 1 || frames(&l->frame, bytes[i]);
        if (wanted && !done && i >= chosen && may) {
            bytes[i] = (char)(bytes[i] + 1 + (char)random_below(255));
            done = true;
            did_something();
        }
    }
    pass(l, d, bytes, n);
}

/* True when it was cut. */
static bool cut(struct link *l, int d, const char *bytes, size_t n)
{
    if (n < state.cut_at) {
        state.cut_at -= n;
        pass(l, d, bytes, n);
        return false;
    }
    /* At once and for good: what the buffers hold is written first. */
    struct evbuffer *output = bufferevent_get_output(l->side[!d]);
    pass(l, d, bytes, state.cut_at);
    evbuffer_unfreeze(output, 1); /* libevent keeps it for itself */
    evbuffer_write(output, bufferevent_getfd(l->side[!d]));
    did_something();
    if (state.wish.at)
        state.wish.directions = 0;
    else
        state.cut_at = 1 + random_below(CUT_WITHIN);
    end_link(l);
    return true;
}

static void truncate_here(struct link *l, int d, const char *bytes, size_t n)
{
    if (!l->silent[d] && random_below(ONE_IN) == 0) {
        l->silent[d] = true;
        n = random_below(n);
        pass(l, d, bytes, n);
        did_something();
    } else if (!l->silent[d]) {
        pass(l, d, bytes, n);
    }
}

static void duplicate(struct link *l, int d, const char *bytes, size_t n)
{
    pass(l, d, bytes, n);
    if (random_below(ONE_IN))
        return;
    pass(l, d, bytes, n);
    did_something();
}

static void flood(struct link *l)
{
    static const char zeros[65536];
    while (evbuffer_get_length(bufferevent_get_output(l->side[0])) < FLOOD_BYTES)
        pass(l, 1, zeros, sizeof zeros);
}

static void inject(struct link *l, int d, const char *bytes, size_t n)
{
    unsigned count = 0;
    if (l->flooding)
        return;
    if (random_below(ONE_IN)) {
        pass(l, d, bytes, n);
        return;
    }
    while (state.wish.texts[count])
        count++;
    const char *text = state.wish.texts[random_below(count)];
    pass(l, d, text, strlen(text));
    if (!state.wish.instead)
        pass(l, d, bytes, n);
    did_something();
    l->flooding = state.wish.flood;
    if (l->flooding)
        flood(l);
}

static void hold(struct link *l, int d, const char *bytes, size_t n)
{
    struct timeval soon = { state.wish.delay_ms / 1000, state.wish.delay_ms % 1000 * 1000 };
    evbuffer_add(l->held[d], bytes, n);
    did_something();
    if (state.wish.mode != HOLE && !evtimer_pending(l->timer, NULL))
        evtimer_add(l->timer, &soon);
}

/* False when the link has ended by it. */
static bool treat(struct link *l, int d, char *bytes, size_t n)
{
    enum proxy_mode mode = spoils(d) ? state.wish.mode : PASS;
    state.proxy->passed[d] += n;
    for (size_t i = 0; d == 0 && mode != CORRUPT && i < n; i++)
        frames(&l->frame, bytes[i]);
    switch (mode) {
    case CUT: return !cut(l, d, bytes, n);
    case DELAY:
    case TRICKLE:
    case HOLE: hold(l, d, bytes, n); return true;
    case DUPLICATE: duplicate(l, d, bytes, n); return true;
    case CORRUPT: corrupt(l, d, bytes, n); return true;
    case TRUNCATE: truncate_here(l, d, bytes, n); return true;
    case INJECT: inject(l, d, bytes, n); return true;
    case PASS: pass(l, d, bytes, n); return true;
    }
    return true;
}

/* ---------------------------------------------------------------- events ----------------- */

static void on_timer(evutil_socket_t descriptor, short events, void *context)
{
    struct link *l = context;
    struct timeval second = { 1, 0 };
    bool one = state.wish.mode == TRICKLE;
    (void)descriptor, (void)events;
    for (int d = 0; d < 2; d++)
        evbuffer_remove_buffer(l->held[d], bufferevent_get_output(l->side[!d]),
                               one ? 1 : evbuffer_get_length(l->held[d]));
    if (one)
        evtimer_add(l->timer, &second);
    end_if_over(l);
}

static void on_read(struct bufferevent *from, void *context)
{
    struct link *l = context;
    int d = from == l->side[1];
    char bytes[CHUNK];
    size_t n;
    while ((n = bufferevent_read(from, bytes, sizeof bytes)) > 0)
        if (!treat(l, d, bytes, n))
            return;
}

static void on_write(struct bufferevent *to, void *context)
{
    struct link *l = context;
    if (to == l->side[0] && l->flooding)
        flood(l);
    end_if_over(l);
}

static void on_end(struct bufferevent *from, short events, void *context)
{
    struct link *l = context;
    int d = from == l->side[1];
    (void)events;
    bufferevent_disable(from, EV_READ | EV_WRITE);
    evbuffer_drain(bufferevent_get_output(from), evbuffer_get_length(bufferevent_get_output(from)));
    evbuffer_drain(l->held[!d], evbuffer_get_length(l->held[!d]));
    l->ended[d] = true;
    end_if_over(l);
}

static struct bufferevent *adopt(struct link *l, int socket)
{
    struct bufferevent *b = bufferevent_socket_new(state.base, socket, BEV_OPT_CLOSE_ON_FREE);
    check(b);
    evutil_make_socket_nonblocking(socket);
    bufferevent_setcb(b, on_read, on_write, on_end, l);
    bufferevent_enable(b, EV_READ | EV_WRITE);
    return b;
}

static void start_link(int client, int server)
{
    struct link *l = calloc(1, sizeof *l);
    check(l);
    l->held[0] = evbuffer_new();
    l->held[1] = evbuffer_new();
    l->timer = evtimer_new(state.base, on_timer, l);
    l->side[0] = adopt(l, client);
    l->side[1] = adopt(l, server);
    l->next = state.links;
    l->place = &state.links;
    if (l->next)
        l->next->place = &l->next;
    state.links = l;
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return address;
}

/* A server that is not there closes what connects, as a host without that service does. */
static void on_connect(evutil_socket_t listener, short events, void *context)
{
    struct sockaddr_un address = address_of(state.proxy->connect_to);
    int client = accept(listener, NULL, NULL);
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)events, (void)context;
    if (client >= 0 && server >= 0 &&
        connect(server, (struct sockaddr *)&address, sizeof address) == 0) {
        start_link(client, server);
        return;
    }
    close(client);
    close(server);
}

/* Y1 */
static void release(void)
{
    for (struct link *l = state.links, *next; l; l = next) {
        next = l->next;
        evtimer_del(l->timer);
        for (int d = 0; d < 2; d++)
            evbuffer_add_buffer(bufferevent_get_output(l->side[!d]), l->held[d]);
        end_if_over(l);
    }
}

static void on_tick(evutil_socket_t descriptor, short events, void *context)
{
    struct proxy *p = state.proxy;
    unsigned order = p->order;
    (void)descriptor, (void)events, (void)context;
    if (order == p->followed)
        return;
    state.wish = p->wish;
    state.cut_at = p->wish.at ? p->wish.at : 1 + random_below(CUT_WITHIN);
    release();
    p->passed[0] = p->passed[1] = 0;
    p->followed = order;
}

void proxy_serve(void *proxy)
{
    struct timeval often = { 0, 2000 };
    state.proxy = proxy;
    state.base = event_base_new();
    struct sockaddr_un address = address_of(state.proxy->listen_on);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(state.base && listener >= 0);
    check(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    check(listen(listener, 64) == 0);
    struct event *incoming =
        event_new(state.base, listener, EV_READ | EV_PERSIST, on_connect, NULL);
    struct event *tick = event_new(state.base, -1, EV_PERSIST, on_tick, NULL);
    check(incoming && tick);
    event_add(incoming, NULL);
    event_add(tick, &often);
    event_base_dispatch(state.base);
}

void proxy_order(struct proxy *proxy, struct proxy_wish wish)
{
    proxy->wish = wish;
    unsigned order = ++proxy->order;
    wait_until(proxy->followed == order);
}
