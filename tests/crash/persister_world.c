/* The persister killed or stopped at one instruction; see persister_world.h. */
#include "tests/crash/persister_world.h"

#include "shm/wait.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    REDIS_FIELDS = 11,
    PATIENT_MS = WAIT_LIMIT,
    IMPATIENT_MS = 1,
    SLEEPY_MS = 3,
    SPOILT = 2,   /* the session whose key in Redis is made one of another type       */
    COMING = 7,   /* the session that comes and goes                                  */
    PROBED = 8    /* the session by which is seen whether somebody leads              */
};
static const uint64_t EVERYTHING = UINT64_MAX;
static const uint64_t FIRST_VERSION = UINT64_C(1) << 40; /* as text always equally long */

static uint64_t microseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---------------------------------------------------------------- callers ------------------ */

static void look_into_table(struct caller *m)
{
    sesstab_view view;
    check_ok(sesstab_read_begin(m->world->table));
    m->in_table[0] = '\0';
    m->pending = false;
    if (sesstab_find(m->world->table, m->handle, &view) == SESSTAB_OK) {
        snprintf(m->in_table, sizeof m->in_table, "%s", view.player);
        m->pending = view.pending;
    }
    sesstab_read_end(m->world->table);
}

static void look_into_redis(struct caller *m)
{
    char key[64], type[16];
    unsigned long long handle = m->handle;
    snprintf(key, sizeof key, TEST_PREFIX ":conn:%llu", handle);
    m->in_redis[0] = '\0';
    m->redis_fields = 0;
    redis_text(m->world->redis, type, sizeof type, "TYPE %s", key);
    if (strcmp(type, "hash") != 0)
        return;
    redisReply *hash = redis_query(m->world->redis, "HGETALL %s", key);
    m->redis_fields = hash->elements / 2;
    for (size_t i = 0; i + 1 < hash->elements; i += 2)
        if (strcmp(hash->element[i]->str, "PlayerRef") == 0)
            snprintf(m->in_redis, sizeof m->in_redis, "%s", hash->element[i + 1]->str);
    freeReplyObject(hash);
}

static int carry_out(struct caller *m)
{
    sesstab *t = m->world->table;
    sesstab_info info = { .address = "192.0.2.7", .host = "host.example", .type = "test",
                          .metadata = &(sesstab_pair){ "size", "80x24", 5 }, .metadata_count = 1 };
    switch (m->request) {
    case BIND: return sesstab_bind(t, m->handle, m->text, m->timeout_ms);
    case UNBIND: return sesstab_unbind(t, m->handle, m->timeout_ms);
    case SET: return sesstab_set(t, m->handle, "key", m->text, strlen(m->text));
    case DELETE: return sesstab_delete(t, m->handle, "key");
    case TOUCH: return sesstab_touch(t, m->handle, m->when);
    case INSERT: return sesstab_insert(t, &m->handle, &info);
    case REMOVE: return sesstab_remove(t, m->handle);
    }
    return SESSTAB_INVALID;
}

static void run_caller(void *context)
{
    struct caller *m = context;
    redis_own_connection(m->world->redis);
    for (uint32_t done = 0;; done++) {
        while (load_acquire(&m->asked) == done)
            futex_wait(&m->asked, done, WAIT_SLICE_MS);
        m->result = carry_out(m);
        m->answered_at = microseconds();
        look_into_table(m);
        look_into_redis(m);
        store_release(&m->answered, done + 1);
    }
}

static void ask(struct caller *m, enum request request, uint64_t handle, const char *text)
{
    m->request = request;
    m->handle = handle;
    m->timeout_ms = PATIENT_MS;
    snprintf(m->text, sizeof m->text, "%s", text);
    atomic_fetch_add(&m->asked, 1);
    futex_wake_all(&m->asked);
}

static bool has_answered(const struct caller *m)
{
    return load_acquire(&m->answered) == load_relaxed(&m->asked);
}

/* Like wait_until(), in shorter steps: a point has many waits. */
#define await(condition)                                                                           \
    do {                                                                                           \
        uint64_t limit_ = milliseconds() + WAIT_LIMIT;                                             \
        while (!(condition)) {                                                                     \
            if (milliseconds() > limit_)                                                           \
                test_fail(__FILE__, __LINE__, "never became true: %s", #condition);                \
            usleep(100);                                                                           \
        }                                                                                          \
    } while (0)

static bool all_answered(const struct world *w)
{
    for (unsigned i = 0; i < CALLERS; i++)
        if (!has_answered(&w->callers[i]))
            return false;
    return true;
}

/* Everything that was asked is in the table: each caller is through, or its ticket waits. */
static bool all_posted(const struct world *w)
{
    unsigned done = 0;
    for (unsigned i = 0; i < CALLERS; i++)
        done += has_answered(&w->callers[i]);
    for (unsigned i = 0; i < THREADS / 64; i++)
        done += (unsigned)__builtin_popcountll(load_acquire(&w->shm->urgent[i]));
    return done >= CALLERS;
}

/* ---------------------------------------------------------------- answers ------------------ */

/* V1 to V3. */
static void judge_answer(struct world *w, struct caller *m, struct finding *f)
{
    char *bound = w->bound[m->handle];
    m->judged = load_relaxed(&m->asked);
    if (m->request != BIND && m->request != UNBIND) {
        check_ok(m->result);
        return;
    }
    switch (m->result) {
    case SESSTAB_OK:
        check_string(m->in_redis, m->text);
        check_equal(m->redis_fields, REDIS_FIELDS);
        check_string(m->in_table, m->text);
        check(!m->pending);
        f->durable++;
        break;
    case SESSTAB_REFUSED:
        check(w->refusing == m->handle || w->refusing == EVERYTHING);
        check_string(m->in_table, bound);
        check(strcmp(m->in_redis, m->text) != 0);
        f->refused++;
        return;
    default:
        check_result(m->result, SESSTAB_UNKNOWN);
        check(m->timeout_ms == IMPATIENT_MS);
        f->unknown++;
    }
    memcpy(bound, m->text, sizeof m->text);
}

/* Asks and waits for the answer. */
static void do_now(struct world *w, enum request request, uint64_t handle, const char *text)
{
    struct finding unused = { 0 };
    ask(&w->callers[0], request, handle, text);
    await(has_answered(&w->callers[0]));
    check_ok(w->callers[0].result);
    judge_answer(w, &w->callers[0], &unused);
}

/* A player or value that there never was, always equally long. */
static const char *next_text(struct world *w)
{
    static char text[32];
    snprintf(text, sizeof text, "#%012llu", (unsigned long long)++w->texts);
    return text;
}

static void await_in_redis(struct world *w, uint64_t handle, bool there)
{
    await(redis_integer(w->redis, "EXISTS " TEST_PREFIX ":conn:%llu", (unsigned long long)handle)
          == there);
}

/* ---------------------------------------------------------------- operations --------------- */

static void post_bind(struct world *w) { ask(&w->callers[0], BIND, 1, next_text(w)); }

static void prepare_unbind(struct world *w) { do_now(w, BIND, 1, next_text(w)); }
static void post_unbind(struct world *w) { ask(&w->callers[0], UNBIND, 1, ""); }

static void post_set(struct world *w) { ask(&w->callers[0], SET, 3, next_text(w)); }
static void judge_set(struct world *w)
{
    sesstab_view view = look(w->table, 3);
    check_string(metadata_of(&view, "key"), w->callers[0].text);
}

static void prepare_delete(struct world *w) { do_now(w, SET, 3, next_text(w)); }
static void post_delete(struct world *w) { ask(&w->callers[0], DELETE, 3, ""); }
static void judge_delete(struct world *w)
{
    sesstab_view view = look(w->table, 3);
    check(!metadata_of(&view, "key"));
}

static void post_touch(struct world *w)
{
    uint64_t now = sesstab_now();
    w->last_touch = now > w->last_touch ? now : w->last_touch + 1;
    w->callers[0].when = w->last_touch;
    ask(&w->callers[0], TOUCH, 3, "");
}
static void judge_touch(struct world *w)
{
    check_equal(look(w->table, 3).last_seen, w->last_touch);
}

static bool is_there(struct world *w, uint64_t handle)
{
    char buffer[SESSTAB_RECORD_MAX];
    size_t size = sizeof buffer;
    sesstab_view view;
    return sesstab_get(w->table, handle, &view, buffer, &size) == SESSTAB_OK;
}

static void make_coming(struct world *w, bool there)
{
    if (is_there(w, COMING) != there)
        do_now(w, there ? INSERT : REMOVE, COMING, "");
    await_in_redis(w, COMING, there);
}
static void prepare_insert(struct world *w) { make_coming(w, false); }
static void post_insert(struct world *w) { ask(&w->callers[0], INSERT, COMING, ""); }
static void judge_insert(struct world *w) { check(is_there(w, COMING)); }
static void prepare_remove(struct world *w) { make_coming(w, true); }
static void post_remove(struct world *w) { ask(&w->callers[0], REMOVE, COMING, ""); }
static void judge_remove(struct world *w) { check(!is_there(w, COMING)); }

static void post_revive(struct world *w)
{
    do_now(w, REMOVE, COMING, "");
    ask(&w->callers[0], INSERT, COMING, "");
}

/* The slot that is to die lives again, with the DEL perhaps on its way. */
static void revive(struct world *w) { do_now(w, INSERT, COMING, ""); }

static void spoil(struct world *w)
{
    do_now(w, BIND, SPOILT, next_text(w));
    freeReplyObject(redis_query(w->redis, "DEL " TEST_PREFIX ":conn:%d", SPOILT));
    freeReplyObject(redis_query(w->redis, "SET " TEST_PREFIX ":conn:%d no-hash", SPOILT));
    w->refusing = SPOILT;
}
static void post_spoilt(struct world *w) { ask(&w->callers[0], BIND, SPOILT, next_text(w)); }
static void mend(struct world *w)
{
    char type[16], key[64];
    snprintf(key, sizeof key, TEST_PREFIX ":conn:%d", SPOILT);
    redis_text(w->redis, type, sizeof type, "TYPE %s", key);
    if (strcmp(type, "string") == 0)
        freeReplyObject(redis_query(w->redis, "DEL %s", key));
    w->refusing = 0;
    do_now(w, BIND, SPOILT, next_text(w));
}

static void fill_redis_now(struct world *w)
{
    freeReplyObject(redis_query(w->redis, "CONFIG SET maxmemory 1"));
    w->refusing = EVERYTHING;
}
static void fill_redis(struct world *w)
{
    do_now(w, BIND, 1, next_text(w));
    fill_redis_now(w);
}
static void empty_redis(struct world *w)
{
    freeReplyObject(redis_query(w->redis, "CONFIG SET maxmemory 0"));
    w->refusing = 0;
    do_now(w, BIND, 1, next_text(w));
}

static void prepare_batch(struct world *w)
{
    do_now(w, BIND, 4, next_text(w));
    make_coming(w, true);
}
static void post_batch(struct world *w)
{
    ask(&w->callers[0], BIND, 1, next_text(w));
    ask(&w->callers[1], UNBIND, 4, "");
    ask(&w->callers[2], SET, 3, next_text(w));
    ask(&w->callers[3], REMOVE, COMING, "");
}
static void judge_batch(struct world *w)
{
    sesstab_view view = look(w->table, 3);
    check_string(metadata_of(&view, "key"), w->callers[2].text);
    judge_remove(w);
}

static void post_binds(struct world *w, const uint64_t handles[4])
{
    for (size_t i = 0; i < 4; i++)
        ask(&w->callers[i], BIND, handles[i], next_text(w));
}

/* Two are written, and two are read and encoded meanwhile. */
static void post_ahead(struct world *w)
{
    post_binds(w, (const uint64_t[]){ 1, 4, 5, 6 });
}

/* Redis refuses one of the first two, so that the others are taken back. */
static void post_ahead_refused(struct world *w)
{
    post_binds(w, (const uint64_t[]){ 1, SPOILT, 5, 6 });
}

static void post_impatient(struct world *w)
{
    post_bind(w);
    w->callers[0].timeout_ms = IMPATIENT_MS;
}

const struct operation operations[] = {
    { "bind", .tickets = true, .post = post_bind },
    { "unbind", .tickets = true, .prepare = prepare_unbind, .post = post_unbind },
    { "bind-impatient", .tickets = true, .post = post_impatient },
    { "bind-refused", .tickets = true, .prepare = spoil, .post = post_spoilt, .lift = mend },
    { "bind-full", .tickets = true, .prepare = fill_redis, .post = post_bind, .lift = empty_redis },
    { "bind-then-full", .tickets = true, .post = post_bind, .strike = fill_redis_now,
      .lift = empty_redis },
    { "bind-ahead", .tickets = true, .post = post_ahead },
    { "ahead-refused", .tickets = true, .prepare = spoil, .post = post_ahead_refused, .lift = mend },
    { "set", .post = post_set, .judge = judge_set },
    { "delete", .prepare = prepare_delete, .post = post_delete, .judge = judge_delete },
    { "touch", .post = post_touch, .judge = judge_touch },
    { "insert", .prepare = prepare_insert, .post = post_insert, .judge = judge_insert },
    { "remove", .prepare = prepare_remove, .post = post_remove, .judge = judge_remove },
    { "revive", .prepare = prepare_remove, .post = post_revive, .judge = judge_insert },
    { "remove-then-revive", .prepare = prepare_remove, .post = post_remove, .strike = revive,
      .judge = judge_insert },
    { "batch", .tickets = true, .prepare = prepare_batch, .post = post_batch,
      .judge = judge_batch },
    { "bind-stopped", .stop = true, .tickets = true, .post = post_bind },
    { "ahead-stopped", .stop = true, .tickets = true, .post = post_ahead },
    { "refused-stopped", .stop = true, .tickets = true, .prepare = spoil, .post = post_spoilt,
      .lift = mend },
    { "set-stopped", .stop = true, .post = post_set, .judge = judge_set },
    { "remove-stopped", .stop = true, .prepare = prepare_remove, .post = post_remove,
      .judge = judge_remove, .newer = "insert" },
    { "revive-stopped", .stop = true, .prepare = prepare_remove, .post = post_remove,
      .strike = revive, .judge = judge_insert, .newer = "set" },
    { "insert-stopped", .stop = true, .prepare = prepare_insert, .post = post_insert,
      .judge = judge_insert, .newer = "remove" },
    { "batch-stopped", .stop = true, .tickets = true, .prepare = prepare_batch, .post = post_batch,
      .judge = judge_batch },
};
const size_t operation_count = sizeof operations / sizeof *operations;

const struct operation *operation_named(const char *name)
{
    for (size_t i = 0; i < operation_count; i++)
        if (strcmp(operations[i].name, name) == 0)
            return &operations[i];
    test_fail(__FILE__, __LINE__, "there is no operation %s", name);
}

/* ---------------------------------------------------------------- one point ---------------- */

static void start_standby(struct world *w)
{
    persister_start(&w->standby, w->name, w->redis->url, w->persisters++);
}

/* The stand-by is ready, OPERATION is posted, and the leader is about to take it. */
static void begin(struct world *w, const struct operation *o)
{
    await(persister_says(&w->standby, "event=standby"));
    if (o->prepare)
        o->prepare(w);
    leader_stand_idle(&w->leader, w->table, PROBED);
    o->post(w);
    await(all_posted(w));
    leader_stand_at_take(&w->leader, o->tickets);
}

/* What the dead left is found by a sweep, which begins when their deaths are seen. */
static bool nothing_is_left(struct world *w, char *output, size_t size)
{
    const char *const argv[] = { program("shmdump"), "--check", "--strict", w->name, NULL };
    return run_program(argv, output, size) == 0;
}

/* V4, and that each session is bound to whom it was acknowledged to be. */
static void settle(struct world *w)
{
    char output[4096];
    uint64_t limit = milliseconds() + WAIT_LIMIT;
    await(load_acquire(&w->shm->header->deaths) >= w->deaths);
    wait_until_redis_equals(w->table, w->redis);
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        if (is_there(w, handle))
            check_string(look(w->table, handle).player, w->bound[handle]);
    while (!nothing_is_left(w, output, sizeof output))
        if (milliseconds() > limit)
            test_fail(__FILE__, __LINE__, "shmdump --check --strict:\n%s", output);
}

static void check_nothing_left_of(struct world *w, worker_id dead)
{
    check(worker_gone(w->shm, dead));
    for (unsigned i = 0; i < load_acquire(&w->shm->header->thread_high); i++) {
        uint64_t owner = load_acquire(&w->shm->threads[i].owner);
        check(!(owner & THREAD_LIVE) || THREAD_WORKER(owner) != dead);
    }
}

static void judge(struct world *w, const struct operation *o)
{
    settle(w);
    if (o->judge)
        o->judge(w);
}

static void finish(struct world *w, const struct operation *o)
{
    if (o->lift)
        o->lift(w);
    judge(w, o);
}

/* All callers' answers, and what they are worth. */
static void hear(struct world *w, struct finding *f)
{
    await(all_answered(w));
    for (unsigned i = 0; i < CALLERS; i++)
        if (w->callers[i].judged != load_relaxed(&w->callers[i].asked))
            judge_answer(w, &w->callers[i], f);
}

void world_record(struct world *w, const struct operation *o, struct trace *trace)
{
    struct finding unused = { 0 };
    begin(w, o);
    leader_record(&w->leader, trace);
    leader_release(&w->leader);
    if (o->strike)
        o->strike(w);
    hear(w, &unused);
    finish(w, o);
}

/* How long a process was ready to run and had no processor, since it began. */
static uint64_t waited_us(pid_t pid)
{
    char path[64];
    unsigned long long ran, waited;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *file = fopen(path, "r");
    check(file && fscanf(file, "%llu %llu", &ran, &waited) == 2);
    fclose(file);
    return waited / 1000;
}

/* All whose turn it is in a take-over: to end, to take over, to write, to hear. */
static uint64_t cast_waited_us(const struct world *w)
{
    return waited_us(w->leader.pid) + waited_us(w->standby.pid) + waited_us(w->redis->pid) +
           waited_us(w->probing);
}

/* The leader got its signal at START, when the cast had waited for WAITED (and is not reaped yet):
 * the one that stands by answers a bind. */
static void await_successor(struct world *w, uint64_t start, uint64_t waited, struct finding *f)
{
    struct finding unused = { 0 };
    struct caller *probe = &w->callers[CALLERS - 1];
    ask(probe, BIND, PROBED, next_text(w));
    await(has_answered(probe));
    f->took_over_us = probe->answered_at - start;
    waited = cast_waited_us(w) - waited;
    f->own_us = f->took_over_us > waited ? f->took_over_us - waited : 0;
    judge_answer(w, probe, &unused);
    w->leader = w->standby;
    start_standby(w);
    hear(w, f);
}

static void kill_leader(struct world *w, const struct operation *o, struct finding *f)
{
    worker_id dead = persister_worker(&w->leader, w->shm);
    if (o->strike)
        o->strike(w);
    struct persister old = w->leader;
    uint64_t waited = cast_waited_us(w), start = microseconds();
    kill(old.pid, SIGKILL);
    await_successor(w, start, waited, f);
    persister_kill(&old);
    w->deaths++;
    finish(w, o);
    check_nothing_left_of(w, dead);
}

/* The whole operation, by a leader that nobody disturbs. */
static void carry_out_now(struct world *w, const struct operation *o, struct finding *f)
{
    if (o->prepare)
        o->prepare(w);
    o->post(w);
    hear(w, f);
    finish(w, o);
}

/* What it had in its hands is old by the time that it goes on; it must see that, and step back. */
static void stop_leader(struct world *w, const struct operation *o, struct finding *f)
{
    const struct operation *newer = o->newer ? operation_named(o->newer) : o;
    struct persister old = w->leader;
    worker_id stopped = persister_worker(&old, w->shm);
    if (o->strike)
        o->strike(w);
    uint64_t waited = cast_waited_us(w), start = microseconds();
    leader_rob(w->shm);
    await_successor(w, start, waited, f);
    check(worker_alive(w->shm, stopped));
    finish(w, o);
    carry_out_now(w, newer, f);
    leader_finish(&old);
    judge(w, newer);
    leader_release(&old);
    pause_ms(SLEEPY_MS); /* both sleep and believe that they lead: either may be woken */
    do_now(w, BIND, PROBED, next_text(w));
    await(persister_says(&old, "another persister of this table has taken the lead"));
    persister_kill(&old);
    w->deaths++;
    settle(w);
}

struct finding world_point(struct world *w, const struct operation *o, const struct trace *trace,
                           size_t k)
{
    struct finding f = { 0 };
    begin(w, o);
    f.way = leader_advance(&w->leader, trace, k);
    if (o->stop)
        stop_leader(w, o, &f);
    else
        kill_leader(w, o, &f);
    return f;
}

/* ---------------------------------------------------------------- the beginning ------------ */

struct world *world_start(const char *name, struct redis *redis)
{
    struct world *w = shared_memory(sizeof *w);
    *w = (struct world){ .name = name, .redis = redis };
    w->callers = shared_memory(CALLERS * sizeof *w->callers);
    freeReplyObject(redis_query(redis, "CONFIG SET maxmemory 0"));
    freeReplyObject(redis_query(redis, "FLUSHALL"));
    w->table = open_table(name, &(sesstab_options){ .create = true,
                                                    .first_version = FIRST_VERSION });
    w->shm = &w->table->shm;
    start_standby(w);
    check_ok(sesstab_wait_ready(w->table, WAIT_LIMIT));
    w->leader = w->standby;
    start_standby(w);
    for (unsigned i = 0; i < CALLERS; i++) {
        w->callers[i].world = w;
        w->probing = start_child(run_caller, &w->callers[i]); /* the last one stays */
    }
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        do_now(w, INSERT, handle, "");
    /* The first leader has never stood by; from here on each has the same past. */
    world_point(w, &operations[0], NULL, 0);
    return w;
}
