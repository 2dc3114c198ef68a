/* The workers and the probe; see faults.h. */
#include "tests/faults/faults.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    /* Once per flush a session's touch announces it: of so few, that is far from one in 100. */
    PROBE_SESSIONS = 16,
    PROBE_CALLS = 250,  /* in a row, then a pause, so that others have the processor as well     */
    PROBE_PAUSE_US = 500,
    OP_PAUSE_US = 700
};

#define PROBE_HANDLE(i) (900000 + (uint64_t)(i))

uint64_t bound_handle(unsigned worker, unsigned k)
{
    return 1000 * (worker + 1) + k;
}

uint64_t changed_handle(unsigned worker, unsigned k)
{
    return 1000 * (worker + 1) + 100 + k;
}

static uint64_t fleeting_handle(unsigned worker, unsigned k)
{
    return 1000 * (worker + 1) + 200 + k;
}

void player_text(char text[32], uint64_t handle, uint32_t attempt)
{
    snprintf(text, 32, "#%llu.%u", (unsigned long long)handle, attempt);
}

static void pause_us(unsigned us)
{
    nanosleep(&(struct timespec){ .tv_nsec = us * 1000L }, NULL);
}

/* ---------------------------------------------------------------- bindings --------------- */

/* Asks Redis past the proxy; false when it has no answer to give now. */
static bool redis_player(redisContext **direct, struct stage *stage, uint64_t handle,
                         char text[256])
{
    struct timeval limit = { 0, 200000 };
    if (!*direct) {
        *direct = redisConnectUnixWithTimeout(stage->redis->socket, limit);
        if (*direct && !(*direct)->err)
            redisSetTimeout(*direct, limit);
    }
    redisReply *reply = *direct && !(*direct)->err
                            ? redisCommand(*direct, "HGET " TEST_PREFIX ":conn:%llu PlayerRef",
                                           (unsigned long long)handle)
                            : NULL;
    if (!reply && *direct) {
        redisFree(*direct);
        *direct = NULL;
    }
    bool known = reply && reply->type != REDIS_REPLY_ERROR;
    if (known)
        snprintf(text, 256, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "(none)");
    if (reply)
        freeReplyObject(reply);
    return known;
}

/* L2, L3 */
static void check_told(struct stage *stage, redisContext **direct, uint64_t handle,
                       const char *player, enum told told)
{
    char text[256];
    bool strict = stage->strict;
    unsigned phase = stage->phase;
    if (told == TOLD_REFUSED && strcmp(look(stage->table, handle).player, player) == 0)
        wrong(stage, "session %llu: \"%s\" was refused, and the table shows it",
              (unsigned long long)handle, player);
    if ((told != TOLD_OK && told != TOLD_REFUSED) || !redis_player(direct, stage, handle, text))
        return;
    bool there = strcmp(text, player) == 0;
    /* The fault may have begun, or ended, between the answer and the question. */
    if (!strict || !stage->strict || phase != stage->phase)
        return;
    stage->checked++;
    if (told == TOLD_OK && !there)
        lose(stage, "session %llu: \"%s\" was durable, and Redis holds \"%s\"",
             (unsigned long long)handle, player, text);
    if (told == TOLD_REFUSED && there)
        wrong(stage, "session %llu: \"%s\" was refused, and Redis holds it",
              (unsigned long long)handle, player);
}

static enum told told_by(int result)
{
    return result == SESSTAB_OK        ? TOLD_OK
           : result == SESSTAB_REFUSED ? TOLD_REFUSED
           : result == SESSTAB_UNKNOWN ? TOLD_UNKNOWN
                                       : TOLD_OTHER;
}

static void bind_one(struct stage *stage, struct worker *w, unsigned self, redisContext **direct)
{
    unsigned k = (unsigned)random_below(BOUND);
    uint64_t handle = bound_handle(self, k);
    struct history *h = &w->bound[k];
    uint32_t n = h->attempts + 1;
    bool unbind = random_below(5) == 0;
    char player[32] = "";
    if (n == ATTEMPTS)
        return;
    if (!unbind)
        player_text(player, handle, n);
    h->attempt[n] = (struct attempt){ .told = TOLD_UNKNOWN, .unbind = unbind };
    h->attempts = n; /* before the call: one that is killed in it has asked */
    unsigned phase = stage->phase;
    int result = unbind ? sesstab_unbind(stage->table, handle, BIND_MS)
                        : sesstab_bind(stage->table, handle, player, BIND_MS);
    enum told told = told_by(result);
    h->attempt[n].told = told;
    h->attempt[n].ms = (uint32_t)milliseconds();
    stage->told[phase][told]++;
    if (told == TOLD_OTHER)
        wrong(stage, "session %llu: a binding was answered \"%s\"", (unsigned long long)handle,
              sesstab_strerror(result));
    w->call = 0;
    if (!unbind)
        check_told(stage, direct, handle, player, told);
}

/* ---------------------------------------------------------------- changes ---------------- */

static void change_one(struct stage *stage, struct worker *w, unsigned self)
{
    unsigned k = (unsigned)random_below(CHANGED);
    uint64_t handle = changed_handle(self, k);
    char key[16], value[24];
    snprintf(key, sizeof key, "k%u", (unsigned)random_below(5));
    snprintf(value, sizeof value, "%llu", (unsigned long long)random_number());
    switch (random_below(5)) {
    case 0: check_ok(sesstab_touch(stage->table, handle, 0)); break;
    case 1: check_ok(sesstab_set(stage->table, handle, key, value, strlen(value))); break;
    case 2: sesstab_delete(stage->table, handle, key); break;
    default:
        check_ok(sesstab_increment(stage->table, handle, "n", 1, NULL));
        w->counted[k]++;
    }
}

static void come_or_go(struct stage *stage, unsigned self)
{
    uint64_t handle = fleeting_handle(self, (unsigned)random_below(FLEETING));
    const sesstab_pair pair = { "came", "yes", 3 };
    if (sesstab_remove(stage->table, handle) == SESSTAB_NOTFOUND)
        check_ok(sesstab_insert(stage->table, &handle,
                                &(sesstab_info){ .type = "fleeting", .metadata = &pair,
                                                 .metadata_count = 1 }));
}

static void rest(struct stage *stage, struct worker *w)
{
    w->resting = true;
    while (stage->rest)
        pause_us(500);
    w->resting = false;
}

static void work(void *context)
{
    struct stage *stage = context;
    unsigned self = child_index;
    struct worker *w = &stage->workers[self];
    redisContext *direct = NULL;
    for (uint64_t call = 1;; call++) {
        while (stage->rest) /* again, if it was let go and called back before it noticed */
            rest(stage, w);
        w->call = call;
        switch (random_below(6)) {
        case 0: come_or_go(stage, self); break;
        case 1:
        case 2: change_one(stage, w, self); break;
        default: bind_one(stage, w, self, &direct);
        }
        w->call = 0;
        pause_us(OP_PAUSE_US);
    }
}

void workload_watch(struct stage *stage)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        struct worker *w = &stage->workers[i];
        uint64_t call = w->call;
        w->steps = call && call == w->watched ? w->steps + 1 : 0;
        w->watched = call;
        if (w->steps < HANG_STEPS)
            continue;
        stage->hung++;
        fprintf(stderr, "    worker %u has been in one call for %llu steps\n", i,
                (unsigned long long)w->steps);
    }
}

/* ---------------------------------------------------------------- the probe -------------- */

static uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* One window's calls, by nanoseconds. */
enum { NS_MAX = 1 << 14 };
struct window { uint32_t count, calls[PROBED][PROBED_TABLES][NS_MAX]; };

static void note(struct window *w, enum probed what, enum probed_table where, uint64_t ns)
{
    w->calls[what][where][ns < NS_MAX ? ns : NS_MAX - 1]++;
}

static void probe_once(sesstab *table, struct window *w, enum probed_table where, uint64_t handle)
{
    static char buffer[SESSTAB_RECORD_MAX];
    sesstab_view view;
    size_t size = sizeof buffer;
    uint64_t start = nanoseconds();
    int got = sesstab_get(table, handle, &view, buffer, &size);
    uint64_t between = nanoseconds();
    int touched = sesstab_touch(table, handle, 0);
    uint64_t end = nanoseconds();
    check(got == SESSTAB_OK && touched == SESSTAB_OK);
    note(w, GET, where, between - start);
    note(w, TOUCH, where, end - between);
}

static void probe_both(struct stage *stage, struct window *w)
{
    uint64_t handle = PROBE_HANDLE(random_below(PROBE_SESSIONS));
    probe_once(stage->table, w, TABLE, handle);
    probe_once(stage->apart, w, APART, handle);
    w->count++;
}

static uint32_t p99_of(const uint32_t calls[NS_MAX], uint32_t count)
{
    uint64_t seen = 0;
    for (uint32_t ns = 0; ns < NS_MAX; ns++)
        if ((seen += calls[ns]) * 100 >= (uint64_t)count * 99)
            return ns;
    return NS_MAX;
}

static void end_window(struct stage *stage, unsigned phase, struct window *w)
{
    uint32_t n = stage->windows[phase];
    if (n < WINDOWS && w->count >= PROBE_CALLS) {
        for (unsigned what = 0; what < PROBED; what++)
            for (unsigned where = 0; where < PROBED_TABLES; where++)
                stage->p99[phase][what][where][n] = p99_of(w->calls[what][where], w->count);
        stage->windows[phase] = n + 1;
    }
    memset(w, 0, sizeof *w);
}

static cpu_set_t probe_processor;

void leave_the_probe_a_processor(void)
{
    cpu_set_t others;
    check(sched_getaffinity(0, sizeof others, &others) == 0);
    CPU_ZERO(&probe_processor);
    for (int cpu = 0; cpu < CPU_SETSIZE && !CPU_COUNT(&probe_processor); cpu++)
        if (CPU_ISSET(cpu, &others))
            CPU_SET(cpu, &probe_processor);
    CPU_XOR(&others, &others, &probe_processor);
    if (CPU_COUNT(&others))
        sched_setaffinity(0, sizeof others, &others);
}

static void probe(void *context)
{
    struct stage *stage = context;
    static struct window w;
    if (CPU_COUNT(&probe_processor))
        sched_setaffinity(0, sizeof probe_processor, &probe_processor);
    for (;;) {
        unsigned phase = stage->phase;
        uint64_t end = milliseconds() + WINDOW_MS;
        while (!stage->rest && phase == stage->phase && milliseconds() < end) {
            for (unsigned i = 0; i < PROBE_CALLS; i++)
                probe_both(stage, &w);
            pause_us(PROBE_PAUSE_US);
        }
        end_window(stage, phase, &w);
        for (stage->probe_resting = true; stage->rest;)
            pause_us(PROBE_PAUSE_US);
        stage->probe_resting = false;
    }
}

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct spread spread_of(double *all, unsigned n)
{
    if (!n)
        return (struct spread){ 0 };
    qsort(all, n, sizeof *all, by_number);
    return (struct spread){ all[n / 2], all[n / 4], all[n - 1 - n / 4] };
}

struct spread probe_ns(const struct stage *stage, unsigned phases, enum probed what)
{
    double all[PHASES * WINDOWS];
    unsigned n = 0;
    for (unsigned p = 0; p < PHASES; p++)
        for (uint32_t i = 0; phases & (1u << p) && i < stage->windows[p]; i++)
            all[n++] = stage->p99[p][what][TABLE][i];
    return spread_of(all, n);
}

struct spread probe_ratio(const struct stage *stage, unsigned phases, enum probed what)
{
    double all[PHASES * WINDOWS];
    unsigned n = 0;
    for (unsigned p = 0; p < PHASES; p++)
        for (uint32_t i = 0; phases & (1u << p) && i < stage->windows[p]; i++)
            all[n++] = (double)stage->p99[p][what][TABLE][i] / stage->p99[p][what][APART][i];
    return spread_of(all, n);
}

/* ---------------------------------------------------------------- start, go, rest -------- */

void workload_start(struct stage *stage)
{
    stage->rest = true;
    for (unsigned w = 0; w < WORKERS; w++) {
        for (unsigned k = 0; k < BOUND; k++)
            insert_plain(stage->table, bound_handle(w, k));
        for (unsigned k = 0; k < CHANGED; k++)
            insert_plain(stage->table, changed_handle(w, k));
    }
    stage->apart = memory_table();
    for (unsigned i = 0; i < PROBE_SESSIONS; i++) {
        insert_plain(stage->table, PROBE_HANDLE(i));
        insert_plain(stage->apart, PROBE_HANDLE(i));
    }
    for (child_index = 0; child_index < WORKERS; child_index++)
        start_child(work, stage);
    start_child(probe, stage);
}

void workload_go(struct stage *stage, enum phase phase)
{
    stage->phase = phase;
    stage->rest = false;
}

void workload_rest(struct stage *stage)
{
    stage->rest = true;
    for (unsigned i = 0; i < WORKERS; i++)
        wait_until(stage->workers[i].resting);
    wait_until(stage->probe_resting);
}
