/*
 * Store faults: a real Redis does its worst to a real persister while worker processes go on, and
 * what they were answered is held against what Redis has afterwards.
 *
 *   faults.c    options, one fault after the other, the table of results
 *   provoke.c   the faults: how each begins, goes on and ends, and what callers are told
 *   proxy.c     what spoils the bytes between persister and Redis
 *   workload.c  the workers: bindings, changes, and how long a get and a touch take
 *   judge.c     what was lost
 *   counters.c  what the persister counted
 *   cuts.c      the connection cut at every byte of an exchange
 *
 *   workers, probe ----- table ----- persister ----- proxy ----- Redis
 *        |                                                         |
 *        +------ after OK: is it there?  (past the proxy) ---------+
 *
 *   L1  A session has one writer, so the answers to its bindings are a history: what is durable at
 *       the end is the last that was answered OK, or one after it that was answered UNKNOWN, and
 *       never one that was REFUSED.
 *   L2  Right after OK, while the fault is not itself a loss of Redis's data, Redis holds it.
 *   L3  Right after REFUSED, neither table nor Redis shows it.
 *   L4  When the fault is over everything becomes durable, and Redis equals the table.
 *   L5  No call takes longer than its time-out and what the machine needs.
 *   L6  A counter that says what the fault was rose.
 *
 * What workers feel of Redis is the p99 of get and touch, divided by that of the same calls, made
 * in turn by the same process, on a table of mode MEMORY which nobody else uses: what a busy
 * machine does to both is no news.  That process has a processor of its own when there are two.
 */
#ifndef TESTS_FAULTS_FAULTS_H
#define TESTS_FAULTS_FAULTS_H

#include "tests/faults/proxy.h"
#include "tests/harness.h"

enum {
    WORKERS = 3,
    BOUND = 4,          /* sessions that a worker binds                                          */
    CHANGED = 6,        /* whose metadata it changes                                             */
    FLEETING = 6,       /* that it inserts and removes                                           */
    ATTEMPTS = 1 << 15, /* bindings of one session, at most                                      */
    BIND_MS = 150,      /* a caller's patience                                                   */
    REDIS_MS = 400,     /* the persister's                                                       */
    HANG_STEPS = 50,    /* L5: steps of STEP_MS that the driver took while a worker took none    */
    WINDOWS = 256,      /* in which the probe takes a p99, in a phase                            */
    WINDOW_MS = 50,
    PAGE_BYTES = 1 << 16 /* of GET /metrics                                                      */
};

enum phase { CALM_BEFORE, DURING, RECOVERY, CALM_AFTER, PHASES };
enum told { TOLD_OK, TOLD_REFUSED, TOLD_UNKNOWN, TOLD_OTHER, TOLDS };
enum probed { GET, TOUCH, PROBED };
enum probed_table { TABLE, APART, PROBED_TABLES };

/* The answers to one session's bindings.  Attempt 0 is the session as it was inserted. */
struct history {
    _Atomic uint32_t attempts;
    struct attempt { uint32_t ms; uint8_t told; bool unbind; } attempt[ATTEMPTS];
};

struct worker {
    _Atomic uint64_t call;     /* the number of the call that it is in; 0: none                  */
    _Atomic bool resting;
    _Atomic uint64_t counted[CHANGED]; /* increments that were answered OK                       */
    struct history bound[BOUND];
    uint64_t watched, steps;   /* by the driver: the call it saw, and how often in a row         */
};

/* What all processes of one fault share. */
struct stage {
    _Atomic unsigned phase;
    _Atomic bool rest, strict; /* strict: L2 holds                                               */
    _Atomic uint64_t told[PHASES][TOLDS], lost, wrong, hung, checked;
    /* By the probe alone: the p99 of each window, in ns. */
    uint32_t p99[PHASES][PROBED][PROBED_TABLES][WINDOWS], windows[PHASES];
    _Atomic bool probe_resting;
    struct worker workers[WORKERS];
    sesstab *table, *apart;
    char metrics[112];         /* where the persister serves them                                */
    struct redis *redis;
    struct proxy proxy;
};

uint64_t bound_handle(unsigned worker, unsigned k);
uint64_t changed_handle(unsigned worker, unsigned k);
void player_text(char text[32], uint64_t handle, uint32_t attempt);

/* Says what is wrong and counts it. */
void lose(struct stage *stage, const char *format, ...) __attribute__((format(printf, 2, 3)));
void wrong(struct stage *stage, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---------------------------------------------------------------- workload -------------- */

/* Inserts the sessions, and starts the workers and the probe, which rest. */
void workload_start(struct stage *stage);

/* They go on in PHASE; they rest, each having come to the end of its call. */
void workload_go(struct stage *stage, enum phase phase);
void workload_rest(struct stage *stage);

/*
 * Counts workers whose call takes too long (L5); called at each step.  Not by the clock: where the
 * machine gives a worker no time, it gives the driver none either.
 */
void workload_watch(struct stage *stage);

/* What comes now runs on all processors but one, which is the probe's. */
void leave_the_probe_a_processor(void);

/*
 * The median of the windows in the phases whose bits are set, and in what range around it the half
 * of them lies: of the p99 in ns, and of its ratio to that of the table apart.
 */
struct spread { double median, low, high; };
struct spread probe_ns(const struct stage *stage, unsigned phases, enum probed what);
struct spread probe_ratio(const struct stage *stage, unsigned phases, enum probed what);

/* ---------------------------------------------------------------- judging --------------- */

/* Waits until Redis equals the table; false when it never does, and says how it differs. */
bool judge_wait_equal(struct stage *stage, unsigned limit_ms);

/* Whether `shmdump --diff-redis`, which reads both from outside, finds no difference either. */
bool judge_asks_shmdump(struct stage *stage, const char *name);

/* The bindings against their histories, and the counts (L1, L4). */
void judge_histories(struct stage *stage);

/* ---------------------------------------------------------------- faults ---------------- */

/* What a fault needs to do its worst. */
struct scene {
    struct stage *stage;
    struct redis *redis;
    const char *name;             /* the table's                                                 */
    pid_t persister;
    char log[96];
    uint64_t injected;
    redisContext *extra[8];      /* connections of its own                                      */
    char copy[128];               /* of Redis's files                                            */
    char before[PAGE_BYTES];      /* the persister's counters; "": it is a new one               */
};

enum {
    LOSES = 1,      /* Redis loses data on purpose: L2 does not hold meanwhile                   */
    MAY_REFUSE = 2, /* bindings may be answered REFUSED                                          */
    SHORT = 4,      /* one of those that `make check` runs                                       */
    BY_CHANCE = 8   /* what it does comes by chance: it lasts until it was counted               */
};

struct fault {
    const char *name, *what;
    const char *told;        /* what the caller of a bind is told, and why                       */
    const char *says;        /* what the persister's log says, or ""                             */
    const char *counter;     /* what rises (L6), or ""; see counters_rose()                      */
    unsigned flags;
    void (*begin)(struct scene *);
    void (*step)(struct scene *); /* every STEP_MS while it lasts; may be NULL                   */
    void (*end)(struct scene *);
};
enum { STEP_MS = 40 };

extern const struct fault faults[];
extern const unsigned fault_count;

/* More options of Redis and of the persister that all faults are run with. */
extern const char *const fault_redis_options[];
void scene_start_persister(struct scene *scene);

/* What GET /metrics answers now. */
void counters_read(const struct scene *scene, char page[PAGE_BYTES]);

/*
 * Whether COUNTER, "NAME" or "NAME - NAME", with wildcards, is more on page AFTER than BEFORE, and
 * by how much, in TEXT.
 */
bool counters_rose(const char *counter, const char *before, const char *after, char *text,
                   size_t size);

/* Says all that rose. */
void counters_say(const struct scene *scene);

/* A table, a Redis, a proxy and a persister, which has loaded. */
void scene_set_up(struct scene *scene);

/* The connection cut at every STRIDE-th byte; false when something was lost. */
bool cuts_run(unsigned stride);

#endif
