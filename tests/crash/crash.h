/*
 * The crash microscope: every operation of the library is run one instruction at a time and killed,
 * or stopped, after each of them; then others go on, recover, and everything is looked at.
 *
 * The cast of one point, all processes of one job:
 *
 *   job        has the table open and prepared; traces the victim, kills it at the Kth instruction
 *   victim     does the operation between two marks (tests/stepper.h)
 *   survivor   was attached before; goes on at once on the same session and others, then recovers
 *              as a persister does, then examines everything
 *   rival      in some rows: recovers at the same time as the survivor
 *
 * Each point starts from the same bytes: the job puts back what the segment held when prepared.
 *
 *   C1  The operation is entirely there or entirely absent: the session's record is, byte for byte,
 *       one of those of an undisturbed run (before, published, after).
 *   C2  Recovery leaves nothing: not one place of the heap, bucket head, ring entry, dirty bit,
 *       ticket, thread or worker slot that was not there before, or that belongs to nobody.
 *   C3  The store is told of what was published: what it holds in the end is what the table holds.
 *   C4  Sessions that nobody changed are the same bytes as before.
 *   C5  Nobody waits for the dead or the stopped: every call of the survivor is timed, and the same
 *       calls again afterwards, when there is no victim any more (the row's noise).
 */
#ifndef TESTS_CRASH_H
#define TESTS_CRASH_H

#include "lib/store.h"
#include "lib/table.h"
#include "tests/harness.h"

/* ---------------------------------------------------------------- the table's sessions ------ */

enum {
    OTHERS = 30,      /* sessions 1 to 30 are nobody's business                              */
    NEIGHBOUR = 31,   /* used by the victim before its operation, and by the survivor        */
    VICTIM = 32,      /* the operation's session, unless the table chooses its number        */
    NEWCOMER = 33,    /* inserted and removed by the survivor                                */
    PEERS = 34,       /* and the two behind it: for rows that need more                      */
    ABSENT = 37,      /* nobody's                                                            */
    HALF_DONE = 38    /* sessions that the dead of the recovery rows leave                   */
};

#define START_TIME UINT64_C(1700000000000) /* connected at, last seen */
#define OLD_PLAYER "the old player"
#define NEW_PLAYER "the new player"
#define SURVIVOR_PLAYER "the survivor"

/* A session as it stands: its whole record but for the ownership word and birth. */
struct image {
    bool present;
    uint32_t size;
    uint64_t last_seen;
    uint8_t record[4096] __attribute__((aligned(8)));
};

void image_take(struct image *image, sesstab *table, uint64_t handle);
bool image_equal(const struct image *a, const struct image *b);
/* The record as a view; its memory is the image's. */
void image_view(const struct image *image, uint64_t handle, sesstab_view *view);

/* ---------------------------------------------------------------- operations ---------------- */

struct world;

enum operation_flags {
    IN_MEMORY = 1,     /* a table in mode MEMORY                                             */
    FULL_FENCES = 2,   /* a table without membarrier                                         */
    ABSENT_BEFORE = 4, /* no session VICTIM                                                  */
    COLD = 8,          /* the victim's first call of the table                               */
    RACE = 16,         /* recovery comes before any load, by two at once                     */
    ANSWERED = 32,     /* the survivor plays the store while the victim waits: it says durable */
    REFUSED = 64,      /* ... or refused                                                     */
    LEADS = 128,       /* the victim is the leader; stopped, it stays it: to be killed only  */
    OPEN = 256,        /* its result depends on what the survivor did while it was stopped   */
    LENGTHY = 512      /* some seconds for the recording alone: not in a brief run           */
};

struct operation {
    const char *name;
    int (*run)(struct world *w);      /* in the victim, between the marks                    */
    int result;                       /* of an undisturbed run                               */
    unsigned flags;
    void (*prepare)(struct world *w); /* in the job, behind what all tables hold             */
    void (*leave)(struct world *w);   /* in the job, last of all: what the dead left          */
    void (*warm)(struct world *w);    /* in the victim, before the first mark                */
    void (*verify)(struct world *w);  /* in the survivor: what only this row leaves          */
    /* VIEW, NULL: no session, shows the operation's effect although the survivor changed it too. */
    bool (*effect)(const sesstab_view *view);
};

extern const struct operation operations[];
extern const unsigned operation_count;

/* ---------------------------------------------------------------- a job's world ------------- */

/* What the store holds of a session: what Redis would, but for hashes in place of values. */
struct stored {
    uint64_t handle, generation, version, last_seen;
    bool present, member;
    int state;
    char player[32];
    unsigned count;
    struct { char key[24]; uint64_t value; } fields[8];
};
enum { STORED_MAX = 16 };

struct range { uint64_t at, bytes; uint8_t *copy; };
enum { GROUP_RANGE = 9, RANGES };

/* The longest call of a load, in ns: beside or after a victim, and without one; `own` is without
 * what the thread waited for a processor. */
struct times { uint64_t stall, stall_own, noise, noise_own; };

/* What job, victim and survivors tell each other. */
struct stage {
    atomic_u32 ready, go, done;   /* futexes: survivors attached; 1: go on, 2: the victim has
                                     finished after a stop; survivors that stand at that point  */
    _Atomic pid_t victim;
    _Atomic uint64_t victim_owner; /* its worker slot's word; 0: not attached before its mark     */
    uint32_t victim_slot;
    int result;                   /* what the operation returned                                */
    bool finished;                /* it did                                                     */
    struct image published;       /* the session's when the store was about to answer           */
    struct stored stored[STORED_MAX]; /* what the store holds                                   */
    struct times times;
};

struct world {
    const struct operation *operation;
    char name[64], new_name[64];
    sesstab *table;
    struct store *store;          /* while preparing; then the survivor's                       */
    struct stage *stage;
    bool stops;                   /* the victim is stopped, not killed                          */
    bool early;                   /* recovery comes before any load                             */
    bool inspect;                 /* run shmdump as well                                        */
    bool silent;                  /* this row's failures have been told                         */
    uint64_t handle;              /* of the session that the operation changes                  */
    unsigned sessions;            /* in the prepared table, but for HANDLE's                    */
    unsigned bound;               /* of these, with a player                                    */
    struct image before, published, after;
    struct range ranges[RANGES];
    struct image others[OTHERS + 1];
    struct slot other_slots[OTHERS + 1];
    uint64_t limit;
    unsigned chunks;              /* committed                                                  */
    struct stored stored[STORED_MAX]; /* what the store held then                               */
};

/* A table for OPERATION, prepared; SEED decides its hashes. */
void world_open(struct world *w, const struct operation *operation, struct stage *stage,
                uint64_t seed);
void world_close(struct world *w);

/* The prepared bytes again; all processes but the job are gone. */
void world_restore(struct world *w);

/* The segment's bytes as a number, without clocks and process ids. */
uint64_t world_fingerprint(struct world *w);

struct context *world_context(struct world *w);

/* Plays the store until nothing is left to do. */
void store_drain(struct world *w);

/* Answers those who wait, as durable or as refused. */
void store_answer(struct world *w, bool refuse);

/* C3: the store holds what the table holds. */
void store_compare(struct world *w);

/* The store gets the session as it stands, as if the leader's write had been executed already. */
void store_preview(struct world *w);

/* ---------------------------------------------------------------- the load ------------------ */

/* The survivor's calls, each of them timed (C5). */
struct load {
    struct world *w;
    int schedstat;              /* what the scheduler says of this thread                  */
    unsigned round;             /* loads so far                                            */
    uint64_t began_at, waited;  /* the call that is being timed: ns                        */
    uint64_t worst, worst_own;  /* of the latest load; without the wait for a processor    */
};

void load_open(struct load *l, struct world *w);

/* Uses the operation's session, or its handle if there is none, and others; *SEEN: how it was. */
void load_run(struct load *l, struct image *seen);

/* All that BEFORE says of a session is in AFTER, but for the survivor's own changes. */
void expect_kept(const sesstab_view *before, const sesstab_view *after);

/* ---------------------------------------------------------------- the children -------------- */

child_function be_victim, be_survivor, be_rival;

/* Before any table is opened. */
void victims_begin(void);

/* For operation.leave: a dead worker with one of everything half done. */
void leave_dead(struct world *w);

/* ---------------------------------------------------------------- accounting ---------------- */

/*
 * C2: every place, head, ring, ticket, thread and worker is counted.  LIVE sessions are in the
 * table; HINTS unless negative is how many hints there must be; ATTACHED workers have one thread.
 */
void account(struct world *w, unsigned live, int hints, unsigned attached);

/* Every free place can be found by who looks for one: nobody has it in a magazine. */
void account_free_places(struct world *w);

#endif
