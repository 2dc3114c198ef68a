/*
 * One blocking connection to Redis, on hiredis; see persister_redis.h.
 *
 * hiredis's own redisGetReply() would wait for each read and write up to the socket's time-out,
 * without an end when a server trickles; here the socket does not block, and redis_receive() polls
 * against one deadline per reply, so that SIGTERM's deadline holds as well.
 */
#include "tools/persister_redis.h"

#include "tools/persister_clock.h"
#include "tools/persister_health.h"
#include "tools/persister_metrics.h"
#include "tools/persister_password.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    OUTPUT_BYTES = 65536,
    EARLY_BYTES = 16384, /* what Redis reads at a time */
    COUNT_BYTES = 20,    /* digits of a count          */
    REPLY_BYTES = 16 << 20,   /* R4; the longest that is asked for is some MiB: CLIENT LIST */
    REPLY_ELEMENTS = 1 << 20,
    CONNECT_MS = 2000    /* hiredis waits in one piece: longer would look like being stopped */
};

/* ---------------------------------------------------------------- addresses -------------- */

static const char *parse_unix(const char *path, struct redis_address *address)
{
    if (!*path)
        return "the path of the unix socket is missing";
    if (strlen(path) >= sizeof ((struct sockaddr_un *)NULL)->sun_path)
        return "the path of a unix socket has at most 107 bytes";
    snprintf(address->host, sizeof address->host, "%s", path);
    address->port = 0;
    return NULL;
}

static const char *parse_tcp(const char *text, struct redis_address *address)
{
    const char *colon = strrchr(text, ':');
    char *end;
    if (!colon || colon == text)
        return "tcp wants HOST:PORT";
    long port = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || port < 1 || port > 65535)
        return "the port is not a number from 1 to 65535";
    size_t length = (size_t)(colon - text);
    if (*text == '[' && colon[-1] == ']') {
        text++;
        length -= 2;
    }
    if (length == 0 || length >= sizeof address->host)
        return "the host is missing or too long";
    memcpy(address->host, text, length);
    address->host[length] = '\0';
    address->port = (int)port;
    return NULL;
}

const char *redis_parse_address(const char *text, struct redis_address *address)
{
    if (strlen(text) >= sizeof address->text)
        return "the address is too long";
    snprintf(address->text, sizeof address->text, "%s", text);
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, address);
    if (strncmp(text, "tcp:", 4) == 0)
        return parse_tcp(text + 4, address);
    if (strncmp(text, "tls:", 4) == 0)
        return "there is no TLS: that needs hiredis 1.0 or newer, and this is built for 0.14; use a "
               "unix socket, or a tunnel such as stunnel";
    return "an address is unix:PATH or tcp:HOST:PORT";
}

/* ---------------------------------------------------------------- connecting ------------- */

bool redis_connected(const struct redis *redis)
{
    return redis->context != NULL;
}

void redis_drop(struct redis *redis, const char *reason)
{
    if (!redis->context)
        return;
    redisFree(redis->context);
    redis->context = NULL;
    redis->queued = redis->sent = 0; /* R3 */
    redis->holding = false;
    snprintf(redis->reason, sizeof redis->reason, "%s", reason);
    /* What quotes an error reply was counted when that came. */
    enum metric error = metric_of_drop(reason);
    if (metric_is_of_connection(error) && health_is_watched())
        metric_add(error, 1);
}

void redis_free(struct redis *redis)
{
    redis_drop(redis, "closed");
    free(redis->arguments);
    free(redis->lengths);
    free(redis->output);
    redis->arguments = NULL;
    redis->lengths = NULL;
    redis->output = NULL;
    redis->room = redis->output_room = 0;
}

/* What a connect may take; when asked to stop, no longer than that may take. */
static struct timeval connect_limit(const struct redis *redis)
{
    int ms = redis->timeout_ms < CONNECT_MS ? redis->timeout_ms : CONNECT_MS;
    uint64_t stop = stop_deadline(), now = monotonic_ms();
    if (stop && stop < now + (uint64_t)ms)
        ms = stop > now ? (int)(stop - now) : 1;
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
}

/* In the words of somebody who has to mend it. */
static void drop_for_error(struct redis *redis)
{
    char text[256];
    const redisContext *c = redis->context;
    if (c->err == REDIS_ERR_OOM)
        snprintf(text, sizeof text, "the reply is too large: %s", c->errstr);
    else if (c->err == REDIS_ERR_PROTOCOL)
        snprintf(text, sizeof text, "what answers there is not Redis: %s", c->errstr);
    else
        snprintf(text, sizeof text, "%s", c->errstr);
    redis_drop(redis, text);
}

/*
 * hiredis allocates what a reply announces before any of it has come.  R4: an array that is too
 * large counts as one for which there is no memory.
 */
#if HIREDIS_MAJOR >= 1
static void bound_replies(redisReader *reader)
{
    reader->maxelements = REPLY_ELEMENTS;
}
#else
static redisReplyObjectFunctions bounded;
static void *(*create_array)(const redisReadTask *, int);

static void *create_bounded_array(const redisReadTask *task, int elements)
{
    return elements > REPLY_ELEMENTS ? NULL : create_array(task, elements);
}

static void bound_replies(redisReader *reader)
{
    if (!create_array) {
        bounded = *reader->fn;
        create_array = bounded.createArray;
        bounded.createArray = create_bounded_array;
    }
    reader->fn = &bounded;
}
#endif

static bool open_socket(struct redis *redis, const struct redis_address *address)
{
    struct timeval limit = connect_limit(redis);
    redis->context = address->port
                         ? redisConnectWithTimeout(address->host, address->port, limit)
                         : redisConnectUnixWithTimeout(address->host, limit);
    if (!redis->context) {
        snprintf(redis->reason, sizeof redis->reason, "out of memory");
        return false;
    }
    if (redis->context->err) {
        drop_for_error(redis);
        return false;
    }
    /* A private redis-server that is started later must not inherit it. */
    fcntl(redis->context->fd, F_SETFD, FD_CLOEXEC);
    if (address->port)
        redisEnableKeepAlive(redis->context);
    fcntl(redis->context->fd, F_SETFL, fcntl(redis->context->fd, F_GETFL) | O_NONBLOCK);
    redis->context->flags &= ~REDIS_BLOCK; /* reads and writes that would block come back later */
    bound_replies(redis->context->reader);
    return true;
}

/* Of a refusal of AUTH what may be logged: where AUTH is unknown, Redis repeats its arguments. */
static void drop_refused(struct redis *redis, const redisReply *reply)
{
    char text[256];
    bool is_error = reply->type == REDIS_REPLY_ERROR;
    snprintf(text, sizeof text, "Redis refused to log in: %s",
             is_error ? reply->str : "what it answered is not of the protocol");
    char *arguments = strstr(text, ", with args");
    if (arguments)
        *arguments = '\0';
    redis_drop(redis, text);
}

static void authenticate(struct redis *redis, const char *user, const char *password)
{
    redis_start(redis, "AUTH");
    if (user)
        redis_text(redis, user);
    redis_text(redis, password);
    redis_append(redis);
    redisReply *reply = redis_receive(redis);
    if (reply && !redis_says(reply, "OK"))
        drop_refused(redis, reply);
    freeReplyObject(reply);
    if (redis->output) /* a core shows no password */
        explicit_bzero(redis->output, redis->output_room);
}

static bool log_in(struct redis *redis, const struct redis_login *login)
{
    char password[PASSWORD_BYTES], text[256];
    if (!login->password_file) {
        if (login->password)
            authenticate(redis, login->user, login->password);
        return redis_connected(redis);
    }
    const char *wrong = password_read(login->password_file, password);
    if (wrong) {
        snprintf(text, sizeof text, "the password file %.100s: %s", login->password_file, wrong);
        redis_drop(redis, text);
    } else {
        authenticate(redis, login->user, password);
    }
    explicit_bzero(password, sizeof password);
    return redis_connected(redis);
}

static bool select_database(struct redis *redis, int database)
{
    char number[16], text[256];
    if (!database)
        return true;
    snprintf(number, sizeof number, "%d", database);
    redisReply *reply = redis_ask(redis, "SELECT", number, NULL);
    if (reply && !redis_says(reply, "OK")) {
        snprintf(text, sizeof text, "Redis refused database %d: %s", database,
                 reply->type == REDIS_REPLY_ERROR ? reply->str : "it did not answer OK");
        redis_drop(redis, text);
    }
    freeReplyObject(reply);
    return redis_connected(redis);
}

bool redis_connect(struct redis *redis, const struct redis_address *address,
                   const struct redis_login *login)
{
    redis_drop(redis, "reconnecting");
    note_progress(); /* there may be several addresses to try in a row */
    redis->appended = redis->answered = redis->received = 0;
    redis->asked_at = 0;
    redis->reason[0] = '\0';
    return open_socket(redis, address) && log_in(redis, login) &&
           select_database(redis, login->database);
}

/* ---------------------------------------------------------------- commands --------------- */

static bool make_room(struct redis *redis)
{
    if (redis->count < redis->room)
        return true;
    size_t room = redis->room ? redis->room * 2 : 64;
    const char **arguments = realloc(redis->arguments, room * sizeof *arguments);
    if (arguments)
        redis->arguments = arguments;
    size_t *lengths = realloc(redis->lengths, room * sizeof *lengths);
    if (lengths)
        redis->lengths = lengths;
    if (!arguments || !lengths) {
        redis_drop(redis, "out of memory");
        return false;
    }
    redis->room = room;
    return true;
}

void redis_bytes(struct redis *redis, const void *bytes, size_t length)
{
    if (!redis->context || !make_room(redis))
        return;
    redis->arguments[redis->count] = bytes;
    redis->lengths[redis->count] = length;
    redis->count++;
}

void redis_text(struct redis *redis, const char *text)
{
    redis_bytes(redis, text, strlen(text));
}

void redis_start(struct redis *redis, const char *command)
{
    redis->count = 0;
    redis_text(redis, command);
}

static bool make_output_room(struct redis *redis, size_t more)
{
    size_t room = redis->output_room ? redis->output_room : OUTPUT_BYTES;
    while (room < redis->queued + more)
        room *= 2;
    char *output = room == redis->output_room ? redis->output : realloc(redis->output, room);
    if (!output) {
        redis_drop(redis, "out of memory");
        return false;
    }
    redis->output = output;
    redis->output_room = room;
    return true;
}

/* "$17\r\n" */
static char *encode_count(char *to, char kind, size_t count)
{
    char digits[COUNT_BYTES];
    char *digit = digits + sizeof digits;
    do
        *--digit = (char)('0' + count % 10);
    while (count /= 10);
    *to++ = kind;
    while (digit < digits + sizeof digits)
        *to++ = *digit++;
    memcpy(to, "\r\n", 2);
    return to + 2;
}

/* A server that turns a client away (maxclients) says why and closes, and nothing can be sent. */
static void drop_for_send_error(struct redis *redis, const char *why)
{
    void *reply = NULL;
    bool said = redisBufferRead(redis->context) == REDIS_OK &&
                redisGetReplyFromReader(redis->context, &reply) == REDIS_OK && reply &&
                ((redisReply *)reply)->type == REDIS_REPLY_ERROR;
    if (said && health_is_watched()) /* nobody received it */
        metric_add(metric_of_reply(((redisReply *)reply)->str), 1);
    redis_drop(redis, said ? ((redisReply *)reply)->str : why);
    freeReplyObject(reply);
}

static uint64_t monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* What the socket takes now; *EVENTS is what to wait for next. */
static bool send_some(struct redis *redis, short *events)
{
    size_t end = redis->holding ? redis->held_from : redis->queued;
    while (redis->sent < end) {
        ssize_t n = send(redis->context->fd, redis->output + redis->sent, end - redis->sent,
                         MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            drop_for_send_error(redis, strerror(errno));
            return false;
        }
        if (n < 0 && errno == EAGAIN) {
            *events = POLLIN | POLLOUT;
            return true;
        }
        redis->sent += n > 0 ? (size_t)n : 0;
        if (!redis->asked_at)
            redis->asked_at = monotonic_us();
    }
    if (!redis->holding)
        redis->queued = redis->sent = 0;
    *events = POLLIN;
    return true;
}

void redis_send(struct redis *redis)
{
    short events;
    if (redis->context)
        send_some(redis, &events);
}

void redis_hold(struct redis *redis)
{
    redis->holding = redis->context;
    redis->held_from = redis->queued;
    redis->held_appended = redis->appended;
}

void redis_release(struct redis *redis)
{
    redis->holding = false;
}

void redis_take_back(struct redis *redis)
{
    if (!redis->holding)
        return;
    redis->queued = redis->held_from;
    redis->appended = redis->held_appended;
    redis->holding = false;
}

void redis_append(struct redis *redis)
{
    size_t most = (redis->count + 1) * (COUNT_BYTES + 5);
    for (size_t i = 0; i < redis->count; i++)
        most += redis->lengths[i];
    if (!redis->context || !make_output_room(redis, most))
        return;
    char *to = encode_count(redis->output + redis->queued, '*', redis->count);
    for (size_t i = 0; i < redis->count; i++) {
        to = encode_count(to, '$', redis->lengths[i]);
        memcpy(to, redis->arguments[i], redis->lengths[i]);
        memcpy(to + redis->lengths[i], "\r\n", 2);
        to += redis->lengths[i] + 2;
    }
    redis->queued = (size_t)(to - redis->output);
    redis->appended++;
    /* What the socket takes now, so that the server parses it while the rest is encoded. */
    if (redis->queued - redis->sent >= EARLY_BYTES)
        redis_send(redis);
}

static void put(struct redis *redis, const char *command, va_list list)
{
    redis_start(redis, command);
    for (const char *text = va_arg(list, const char *); text; text = va_arg(list, const char *))
        redis_text(redis, text);
    redis_append(redis);
}

void redis_put(struct redis *redis, const char *command, ...)
{
    va_list list;
    va_start(list, command);
    put(redis, command, list);
    va_end(list);
}

redisReply *redis_ask(struct redis *redis, const char *command, ...)
{
    va_list list;
    va_start(list, command);
    put(redis, command, list);
    va_end(list);
    return redis_receive(redis);
}

/* ---------------------------------------------------------------- replies ---------------- */

static bool wait_for(struct redis *redis, short events, uint64_t deadline)
{
    char text[128];
    for (;;) {
        uint64_t now = monotonic_ms(), stop = stop_deadline();
        if (stop && stop < deadline)
            deadline = stop;
        if (now >= deadline) {
            snprintf(text, sizeof text, "no answer within %d ms", redis->timeout_ms);
            redis_drop(redis, text);
            return false;
        }
        /* In slices, because a signal may bring the deadline forward. */
        uint64_t slice = deadline - now < TICK_MS ? deadline - now : TICK_MS;
        note_progress(); /* a Redis that does not answer is nothing that a stand-by could mend */
        struct pollfd wait = { .fd = redis->context->fd, .events = events };
        if (poll(&wait, 1, (int)slice) > 0)
            return true;
    }
}

/* R4 */
static void read_some(struct redis *redis)
{
    redisReader *reader = redis->context->reader;
    size_t before = reader->len;
    if (redisBufferRead(redis->context) != REDIS_OK) {
        drop_for_error(redis);
        return;
    }
    redis->received += reader->len - before;
    if (redis->received > REPLY_BYTES)
        redis_drop(redis, "the reply is too large");
}

/* An error, or one in the answer to EXEC. */
static void count_errors(const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR)
        metric_add(metric_of_reply(reply->str), 1);
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
        if (reply->element[i]->type == REDIS_REPLY_ERROR)
            metric_add(metric_of_reply(reply->element[i]->str), 1);
}

static void note_answer(struct redis *redis, const redisReply *reply)
{
    size_t asked = redis->holding ? redis->held_appended : redis->appended;
    if (!health_is_watched())
        return;
    health_answered();
    count_errors(reply);
    if (++redis->answered < asked || !redis->asked_at)
        return;
    metric_round_trip(monotonic_us() - redis->asked_at);
    redis->asked_at = 0;
}

redisReply *redis_receive(struct redis *redis)
{
    void *reply = NULL;
    uint64_t deadline = monotonic_ms() + (uint64_t)redis->timeout_ms;
    while (redis->context) {
        if (redisGetReplyFromReader(redis->context, &reply) != REDIS_OK) {
            drop_for_error(redis);
            break;
        }
        if (reply) {
            redis->received = 0;
            note_answer(redis, reply);
            return reply;
        }
        short events;
        if (!send_some(redis, &events) || !wait_for(redis, events, deadline))
            break;
        read_some(redis);
    }
    return NULL;
}

/* ---------------------------------------------------------------- meaning ---------------- */

/* "EXECABORT Transaction discarded because of: OOM ..." is about what follows. */
static const char *cause_of(const char *error)
{
    static const char because[] = "because of: ";
    const char *cause = strstr(error, because);
    return strncmp(error, "EXECABORT", 9) == 0 && cause ? cause + sizeof because - 1 : error;
}

enum refusal redis_classify(const char *error)
{
    static const struct {
        const char *code;
        enum refusal refusal;
    } codes[] = {
        { "LOADING", REFUSAL_LATER },     { "BUSY", REFUSAL_LATER },
        { "MASTERDOWN", REFUSAL_LATER },  { "CLUSTERDOWN", REFUSAL_LATER },
        { "TRYAGAIN", REFUSAL_LATER },    { "NOREPLICAS", REFUSAL_LATER },
        { "READONLY", REFUSAL_LATER },    { "UNBLOCKED", REFUSAL_LATER },
        { "NOAUTH", REFUSAL_LATER },      { "WRONGPASS", REFUSAL_LATER },
        { "OOM", REFUSAL_FULL },          { "MISCONF", REFUSAL_STORAGE },
        { "NOPERM", REFUSAL_DENIED },     { "WRONGTYPE", REFUSAL_TYPE },
    };
    error = cause_of(error);
    size_t length = strcspn(error, " ");
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strlen(codes[i].code) == length && strncmp(error, codes[i].code, length) == 0)
            return codes[i].refusal;
    /* It has no code of its own. */
    return strncmp(error, "ERR max number of clients", 25) == 0 ? REFUSAL_LATER : REFUSAL_OTHER;
}

const char *refusal_name(enum refusal refusal)
{
    switch (refusal) {
    case REFUSAL_NONE: return "none";
    case REFUSAL_LATER: return "not-now";
    case REFUSAL_FULL: return "out-of-memory";
    case REFUSAL_STORAGE: return "cannot-save";
    case REFUSAL_DENIED: return "no-permission";
    case REFUSAL_TYPE: return "wrong-type";
    case REFUSAL_OTHER: return "error";
    }
    return "?";
}

enum refusal redis_refusal(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_ERROR ? redis_classify(reply->str) : REFUSAL_NONE;
}

bool redis_says(const redisReply *reply, const char *text)
{
    return reply &&
           (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS ||
            reply->type == REDIS_REPLY_ERROR) &&
           reply->len == strlen(text) && memcmp(reply->str, text, reply->len) == 0;
}

bool redis_is_text(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_STRING && strlen(reply->str) == reply->len;
}

bool redis_is_strings(const redisReply *reply)
{
    if (!reply || reply->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i < reply->elements; i++)
        if (reply->element[i]->type != REDIS_REPLY_STRING)
            return false;
    return true;
}

/* A cursor, as SCAN takes it back: decimal digits. */
static bool is_cursor(const redisReply *reply)
{
    return redis_is_text(reply) && reply->len >= 1 && reply->len <= 20 &&
           strspn(reply->str, "0123456789") == reply->len;
}

bool redis_is_page(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
           is_cursor(reply->element[0]) && redis_is_strings(reply->element[1]);
}
