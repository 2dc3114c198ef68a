/* Where the master is; see persister_sentinel.h. */
#include "tools/persister_sentinel.h"

#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_metrics.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    ASK_MS = 250,    /* between two questions                */
    ANSWER_MS = 300, /* for a sentinel to connect and answer */
    FIND_MS = 10     /* between two looks at whether one has */
};

struct sentinel {
    const struct sentinels *sentinels;
    pthread_t thread;
    int end;              /* an eventfd                                 */
    struct redis redis;   /* the thread's: to the one that answered last */
    size_t current;       /* which that is                              */
    bool silent;          /* none answers, and that was said            */

    pthread_mutex_t lock; /* over `master`, which the thread writes and the leader reads */
    struct redis_address master;
};

/* ---------------------------------------------------------------- the setting ------------ */

const char *sentinels_parse(const char *text, struct sentinels *sentinels)
{
    char address[sizeof sentinels->addresses[0].text];
    sentinels->count = 0;
    for (;;) {
        size_t length = strcspn(text, ",");
        if (sentinels->count == SENTINELS_MAX)
            return "there are at most 16";
        if (length + sizeof "tcp:" > sizeof address)
            return "the address is too long";
        snprintf(address, sizeof address, "tcp:%.*s", (int)length, text);
        const char *wrong = redis_parse_address(address, &sentinels->addresses[sentinels->count]);
        if (wrong)
            return wrong;
        sentinels->count++;
        if (!text[length])
            return NULL;
        text += length + 1;
    }
}

/* ---------------------------------------------------------------- asking ----------------- */

static bool is_address(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
           redis_is_text(reply->element[0]) && redis_is_text(reply->element[1]);
}

/* *MASTER by a sentinel's answer; else the connection is dropped, with the reason. */
static bool understand(struct redis *redis, const redisReply *reply, const char *name,
                       struct redis_address *master)
{
    char text[256];
    const char *wrong = NULL;
    if (is_address(reply)) {
        const char *host = reply->element[0]->str;
        int length = snprintf(text, sizeof text, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s",
                              host, reply->element[1]->str);
        wrong = (size_t)length < sizeof text ? redis_parse_address(text, master)
                                             : "the address that it answered is too long";
    } else if (reply->type == REDIS_REPLY_NIL) {
        snprintf(text, sizeof text, "it knows no master of the name %.100s", name);
        wrong = text;
    } else {
        wrong = reply->type == REDIS_REPLY_ERROR ? reply->str : "it did not answer with an address";
    }
    if (wrong)
        redis_drop(redis, wrong);
    return !wrong;
}

static bool ask(struct sentinel *s, size_t which, struct redis_address *master)
{
    const struct sentinels *all = s->sentinels;
    if (which != s->current)
        redis_drop(&s->redis, "another sentinel is asked");
    if (!redis_connected(&s->redis) &&
        !redis_connect(&s->redis, &all->addresses[which], &all->login))
        return false;
    redisReply *reply = redis_ask(&s->redis, "SENTINEL", "get-master-addr-by-name", all->master,
                                  NULL);
    bool understood = reply && understand(&s->redis, reply, all->master, master);
    freeReplyObject(reply);
    return understood;
}

static void publish(struct sentinel *s, const struct redis_address *master)
{
    const char *who = s->sentinels->addresses[s->current].text;
    bool news = s->silent || !s->master.text[0];
    if (news)
        log_event(LEVEL_INFO, "sentinel-answers", TEXT("sentinel", who),
                  TEXT("master", master->text));
    s->silent = false;
    pthread_mutex_lock(&s->lock);
    s->master = *master;
    pthread_mutex_unlock(&s->lock);
}

/* None answered: said once. */
static void publish_silence(struct sentinel *s)
{
    if (!s->silent)
        log_event(LEVEL_WARN, "sentinels-silent", TEXT("reason", s->redis.reason),
                  TEXT("master", s->master.text[0] ? s->master.text : "unknown"),
                  TEXT("note", s->master.text[0] ? "the last known master is kept to"
                                                 : "logins are answered unknown"));
    s->silent = true;
}

static bool ended(struct sentinel *s, int wait_ms)
{
    struct pollfd end = { .fd = s->end, .events = POLLIN };
    return poll(&end, 1, wait_ms) > 0;
}

/* The one that answered last, then the others. */
static void ask_in_turn(struct sentinel *s)
{
    struct redis_address master;
    size_t first = s->current;
    for (size_t n = 0; n < s->sentinels->count && !ended(s, 0); n++) {
        size_t which = (first + n) % s->sentinels->count;
        bool answered = ask(s, which, &master);
        s->current = which;
        if (answered) {
            publish(s, &master);
            return;
        }
        metric_add(METRIC_SENTINEL_ERRORS, 1);
        log_event(LEVEL_DEBUG, "sentinel-failed",
                  TEXT("sentinel", s->sentinels->addresses[which].text),
                  TEXT("reason", s->redis.reason));
    }
    publish_silence(s);
}

static void *run(void *argument)
{
    struct sentinel *s = argument;
    do
        ask_in_turn(s);
    while (!ended(s, ASK_MS));
    return NULL;
}

/* ---------------------------------------------------------------- the thread ------------- */

struct sentinel *sentinel_start(const struct sentinels *sentinels)
{
    sigset_t all, before;
    struct sentinel *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->sentinels = sentinels;
    s->redis.timeout_ms = ANSWER_MS;
    s->end = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&s->lock, NULL);
    /* Signals are for the main thread, whose waits they cut short. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = s->end >= 0 && pthread_create(&s->thread, NULL, run, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        return s;
    if (s->end >= 0)
        close(s->end);
    free(s);
    return NULL;
}

void sentinel_stop(struct sentinel *s)
{
    if (!s)
        return;
    eventfd_write(s->end, 1);
    pthread_join(s->thread, NULL);
    redis_free(&s->redis);
    pthread_mutex_destroy(&s->lock);
    close(s->end);
    free(s);
}

bool sentinel_master(struct sentinel *s, struct redis_address *address)
{
    pthread_mutex_lock(&s->lock);
    bool known = s->master.text[0];
    if (known)
        *address = s->master;
    pthread_mutex_unlock(&s->lock);
    return known;
}

bool sentinel_find(const struct sentinels *sentinels, int timeout_ms, struct redis_address *address)
{
    struct sentinel *s = sentinel_start(sentinels);
    uint64_t deadline = monotonic_ms() + (uint64_t)timeout_ms;
    bool found = false;
    while (s && !(found = sentinel_master(s, address)) && monotonic_ms() < deadline &&
           !stop_requested())
        pause_ms(FIND_MS);
    sentinel_stop(s);
    return found;
}
