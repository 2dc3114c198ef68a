/*
 * The storm: worker processes do everything that the library offers, on one table, while a process
 * that is never killed itself kills and stops them, the persisters and Redis at random, and an
 * oracle knows what each session may be.
 *
 *   storm.c     options, one storm after the other, the table of results
 *   killer.c    starts, stops and kills: workers, persisters, Redis
 *   worker.c    a worker process: its threads, its forks, its attachments
 *   lane.c      the oracle: sessions with one writer each, what is expected of them to the letter
 *   commons.c   sessions that everybody changes, what is expected of them within bounds
 *   content.c   what a session holds follows from its number, so that any reader can tell
 *   calm.c      the storm pauses: everything that died is recovered, and all books must balance
 *   books.c     counting: faults, and how long calls take
 *
 * THE BOOKS are memory that all processes share and that outlives each of them.
 *
 *   B1  A lane belongs to one thread of one process at a time: its next owner starts when the one
 *       before has been reaped.
 *   B2  What a thread is about to do stands in its lane before the call, and what it was answered
 *       afterwards, put there by one store.  Killed in between, its successor takes whatever it
 *       finds, all of the change or nothing of it.
 *   B3  What everybody changes is counted before and after each call: what is found must lie
 *       between what was answered and what was started.
 *   B4  At each calm both are replaced by what was found, so that doubts do not add up.
 *
 * The seed repeats what is chosen, not how the kernel schedules it.
 */
#ifndef TESTS_STORM_STORM_H
#define TESTS_STORM_STORM_H

#include "tests/harness.h"

#include <stdatomic.h>

enum {
    SEATS_MAX = 32,  /* worker processes                                                          */
    LANES = 3,       /* threads of a worker, at most                                              */
    OWN = 4,         /* sessions of a lane with a number of their own                             */
    ASSIGNED = 4,    /* and with a number that the table chose                                    */
    SESSIONS = OWN + ASSIGNED,
    STEADY = 6,      /* sessions that stay                                                        */
    CHURN = 24,      /* sessions that everybody inserts and removes                               */
    MAYBE = 6,       /* bindings of unknown fate that a lane keeps in mind                        */
    CHILDREN = 32,   /* of workers, by fork, alive at once                                        */
    PERSISTERS = 3,
    VALUE_MAX = 3000,
    PLAYERS = 5,     /* of the sessions that everybody changes                                    */
    HANG_MS = 100
};

/* The numbers that sessions get.  The table assigns from 1 on. */
#define FIXED (UINT64_C(1) << 40)
#define STEADY_HANDLE(k) (FIXED + 1 + (k))
#define CHURN_HANDLE(k) (FIXED + 1000 + (k))
#define OWN_HANDLE(lane, k) (FIXED + 10000 + (uint64_t)(lane) * SESSIONS + (k))
#define BALLAST_HANDLE(k) (FIXED + 1000000 + (k))
/* A session with an assigned handle says in its strings which lane inserted it, and as which. */
#define TAG(lane, serial) (UINT64_C(1) << 60 | (uint64_t)(lane) << 48 | (serial))

struct dice { uint64_t state; };
uint64_t roll(struct dice *dice, uint64_t below);
void pause_some(struct dice *dice, unsigned most_us);

struct variant {
    const char *name;
    sesstab_options options;
    bool full;       /* filled to its max_bytes                                                   */
    bool scarce;     /* NOMEMORY is an answer                                                     */
};

/* ---------------------------------------------------------------- faults ---------------- */

enum fault {
    LOST,        /* what was answered is not there                                               */
    DUPLICATED,  /* a session is there twice, or one that was removed came back                  */
    WRONG,       /* torn, another's, or an answer that cannot be true                            */
    LEAKED,      /* memory or a place that nobody has and nobody finds                           */
    HANG,        /* a call that took too long                                                    */
    FAULTS
};

/* Counts the fault and says what it is. */
void fault(enum fault kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---------------------------------------------------------------- calls ----------------- */

struct schedule { uint64_t cpu, waited; }; /* ns: on a processor, and runnable without one */

/* One call at a time, timed.  The killer looks at it too. */
struct call {
    _Atomic uint64_t started;   /* ns; 0: no call                                                 */
    struct schedule before;
    const char *what;
    uint32_t stops;             /* of its process, see struct seat                                */
    uint32_t allowed;           /* ms that it may wait                                            */
    pid_t tid;
};

/* A thread's own things. */
struct thread {
    sesstab *table;
    struct lane *lane;          /* NULL: it has none                                              */
    struct seat *seat;          /* NULL: nobody stops it                                          */
    struct call *call, spare;
    struct dice dice;
    int schedstat;              /* descriptor                                                     */
};

void thread_init(struct thread *thread, sesstab *table, struct lane *lane, struct seat *seat,
                 uint64_t seed);
void thread_done(struct thread *thread);

/* The value of EXPRESSION, a call that may wait for ALLOWED ms. */
#define TIMED(thread, what, allowed, expression)                                                   \
    (call_begin((thread), (what), (uint32_t)(allowed)), call_end((thread), (int)(expression)))
void call_begin(struct thread *thread, const char *what, uint32_t allowed);
int call_end(struct thread *thread, int result);

/* Looks at a call of another process that is under way for AT_LEAST ms; true when it hangs. */
bool call_hangs(const struct seat *seat, const struct call *call, uint64_t at_least);

/* A process that measures what the machine itself does to the time of a call; see books.c. */
void measure_noise(void *unused);

uint64_t nanoseconds(void);

/* ---------------------------------------------------------------- lanes ----------------- */

/* What is expected of a session with one writer. */
struct expect {
    bool exists, checked;       /* checked: this durable binding was found to be there            */
    uint8_t maybe_count;
    uint32_t v, x;              /* serials of the values under these keys; 0: no such key         */
    uint32_t owner;             /* who the owner must be; 0: anybody                              */
    int64_t n;                  /* value under "n"; 0: perhaps no such key                        */
    uint64_t handle, number, generation, version, seen;
    uint64_t sure;              /* the latest binding that was answered durable: BINDING()        */
    uint64_t maybe[MAYBE];      /* those that came later, each of unknown fate                    */
};
#define BINDING(serial, bound) ((uint64_t)(serial) << 1 | (bound))

struct own {
    struct expect expect[2];
    _Atomic uint32_t current;   /* which of the two holds                                         */
};

enum operation {
    OP_NONE, OP_INSERT, OP_REMOVE, OP_TOUCH, OP_SET, OP_MARK, OP_INCREMENT, OP_BIND, OP_STATE
};

struct lane {
    unsigned number;
    struct own own[SESSIONS];
    _Atomic uint32_t operation; /* under way, on own[index]; the fields below belong to it        */
    uint32_t index, target;     /* target: what own[index].current will be once it is recorded    */
    uint64_t value;
    uint32_t serial;            /* of values and bindings; none is used twice                     */
    struct call call;
};

void lane_init(struct lane *lane, unsigned number);
/* The lane's owner died: finds out what became of its last operation, and checks everything. */
void lane_take_over(struct thread *thread);
void lane_step(struct thread *thread);
/* During a calm: every durable binding of the lane is in Redis. */
void lane_check_redis(struct lane *lane, struct redis *redis);
/* How many sessions of the lane are expected. */
unsigned lane_sessions(const struct lane *lane);

/* ---------------------------------------------------------------- commons --------------- */

struct balance { _Atomic uint64_t started, done, failed; };

struct commons {
    struct steady { struct balance increments, swaps; uint64_t n, c; } steady[STEADY];
    struct churn { struct balance inserts, removes; bool there; } churn[CHURN];
};

void commons_init(struct thread *thread);
void commons_change(struct thread *thread);
void commons_count(struct thread *thread);
void commons_read(struct thread *thread);
void commons_walk(struct thread *thread);
void commons_settle(struct thread *thread);
/* How many sessions of the commons there are, after commons_settle(). */
unsigned commons_sessions(void);

/* An answer that the variant allows besides OK, counted; anything else is a fault. */
bool succeeded(const char *what, uint64_t handle, int result);

/* ---------------------------------------------------------------- content --------------- */

/* Inserts a session that holds NUMBER, and under "v" the value with SERIAL unless that is 0. */
int content_insert(struct thread *thread, uint64_t *handle, uint64_t number, uint32_t serial);
size_t content_value(char value[VALUE_MAX], uint64_t number, uint32_t serial);
/* Whatever a reader can tell about a view; faults if it is not as it should be. */
void content_check(const sesstab_view *view);
/* The number that its strings hold; 0: none. */
uint64_t content_number(const sesstab_view *view);
/* The serial of the value under KEY; 0: there is none. */
uint32_t content_serial(const sesstab_view *view, const char *key);
void content_player(char player[40], uint64_t handle, uint64_t binding);

/* ---------------------------------------------------------------- the books ------------- */

/* A worker's place; the process in it changes. */
struct seat {
    pid_t pid;
    bool dying;                 /* killed, not reaped yet                                         */
    uint64_t resume_at;         /* ms; 0: not stopped                                             */
    _Atomic uint32_t stops;     /* odd from before SIGSTOP to after SIGCONT                       */
    struct lane lanes[LANES];
};

/* Sums over all processes; made of 64-bit words only. */
struct counts {
    _Atomic uint64_t operations, views, forks, attaches, threads, detached;
    _Atomic uint64_t durable, checked, refused, unknown, no_memory;
    _Atomic uint64_t slow;      /* calls over HANG_MS                                             */
    _Atomic uint64_t faults[FAULTS];
};

struct books {
    const struct variant *variant;
    const char *name;           /* of the table                                                   */
    unsigned seats;
    bool judge_hangs;           /* HANG_MS is a limit; otherwise only for ever is                 */
    double first_mib, last_mib; /* of the segment, at the first and the latest calm               */
    unsigned ballast, ballast_end; /* numbers of the sessions that are only there to fill it      */
    _Atomic bool blows;         /* a forked child that comes too late for it leaves               */
    struct counts count;
    _Atomic uint64_t said;      /* faults                                                         */
    _Atomic uint64_t noise, worst, noise_worst; /* ns: of late; of all calls; ever                */
    _Atomic uint64_t asleep_since;              /* ns: who measures the noise                     */
    _Atomic pid_t children[CHILDREN];
    struct commons commons;
    struct seat seat[SEATS_MAX];
};
extern struct books *books;

/* ---------------------------------------------------------------- the storm ------------- */

/* The process in SEAT: threads that work until they are killed or, SHORT_LIVED, die at work. */
_Noreturn void worker_run(struct seat *seat, sesstab *table, uint64_t seed, bool short_lived);

/* What the killer did. */
struct toll { uint64_t workers, children, persisters, redis, stops, cuts, refusals; };

struct storm {
    sesstab *table;
    struct redis redis;
    struct toll toll;
    uint64_t rate;              /* deaths of workers per second                                   */
};

void killer_start(struct storm *storm);
/* Blows until the time END (ms), or until so many workers were killed. */
void killer_blow(struct storm *storm, uint64_t end, uint64_t kills);
/* All workers are dead and reaped, Redis and the persisters run. */
void killer_calm(struct storm *storm);
void killer_resume(struct storm *storm);

/* The storm has paused: everything must be in order. */
void calm_check(struct storm *storm);
/* Fills the table to its max_bytes with sessions that nobody changes, but for ROOM of them. */
void calm_fill(unsigned room);
/* Every slot that is free can be had. */
void calm_check_capacity(void);

#endif
