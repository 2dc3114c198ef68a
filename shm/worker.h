/*
 * Who is attached: a worker slot per process, a thread slot per thread, and the proof of life.
 *
 * PROOF OF LIFE.  A worker write-locks the first byte of its slot with an open-file-description
 * lock, maps one page through that descriptor with MADV_DONTFORK, and closes it.  The lock now hangs
 * on the mapping alone: it survives a program that closes every descriptor, a forked child does not
 * share it, and it goes when the process's memory goes (exit, SIGKILL, exec), reaped or not.  Who
 * wants to know asks with F_OFD_GETLK for a read lock, through a fresh descriptor of the same inode.
 * No proof of death means alive.
 *
 *   W1  A slot's owner says LIVE only while its claimer held the lock at the CAS: a live word
 *       without a lock is a dead worker.
 *   W2  Nothing of a dead worker's is stored to without a CAS from the exact word seen; the slot
 *       becomes free last.  Anyone may recover, at once with others, and may die doing it.
 *   W3  All private state that names a worker or thread lies in MADV_WIPEONFORK memory, so that in
 *       a forked child it is zero: the child attaches as a worker of its own on its first call.
 *
 *   worker slot:  free --lock, CAS--> LIVE --(detach, or recovered after death) CAS--> free
 *   thread slot:  free --CAS-------> LIVE --(thread ends, or recovered)        CAS--> free
 *
 *   a crash leaves                        repaired by
 *   lock held, owner still free           the kernel drops the lock
 *   LIVE, lock gone                       worker_recover()
 *   threads freed, worker still LIVE      worker_recover(), again
 */
#ifndef SHM_WORKER_H
#define SHM_WORKER_H

#include "segment.h"

/* A magazine holds what a batch of retirements frees (RCU_BATCH), and what a page has beside it: else
 * the rest of each batch would have to be searched for, page by page. */
enum { MAGAZINE_MAX = 256 + 64, ARENA_THREADS = THREADS };

/* Places that were free when last seen: hints, each is claimed by a CAS before use. */
struct magazine {
    uint32_t count;
    uint32_t at[MAGAZINE_MAX];
};

/* Where a thread has looked for free places. */
struct search {
    uint64_t hinted;        /* header.hinted, when it found none                                   */
    uint32_t cursor, empty; /* chunk that had some last; chunks that had none then                 */
};

/* What waits for its grace period; see rcu.c. */
struct limbo {
    struct retired *items;
    size_t count, capacity;
    size_t fresh;  /* the last `fresh` items have no retire era yet */
    size_t pinned; /* the first `pinned` items were pinned when last looked at */
};

struct tls_entry {
    struct context *context;
    uint64_t serial; /* of the table; 0: none                                                       */
};

/*
 * A thread's private state for one table.  In wipe-on-fork memory: in a child it is zero, and another
 * thread of the child may be the next that uses it.  So it says whose it is: the forking thread's
 * entry still points at it.
 */
struct context {
    struct shm *shm;
    _Atomic(struct tls_entry *) user; /* the thread's, NULL when it is nobody's                    */
    struct thread *thread;      /* its line in the segment                                         */
    uint64_t hi;                /* = thread->hi                                                    */
    uint32_t depth;             /* of read sections                                                */
    uint32_t thread_index;
    worker_id worker;
    uint32_t class;             /* sesstab_class of this thread's changes, and how long they wait  */
    int class_ms;
    struct search searches[CHUNK_CLASSES]; /* [0] for slots, then by class                         */
    uint64_t freed;             /* places that this thread has freed                                */
    int64_t relief_began, relief_ended; /* monotonic ms; see heap_relieve()                         */
    unsigned relief_tries;      /* 0: the last claim did not fail                                   */
    struct limbo limbo;
    struct context *next_free;
    struct magazine slots, hints, blocks[CHUNK_CLASSES];
};
enum { CONTEXT_BYTES = 5 * PAGE_BYTES };
_Static_assert(sizeof(struct context) <= CONTEXT_BYTES, "contexts don't share pages");

extern __thread struct tls_entry shm_tls[SHM_TABLES_MAX] __attribute__((tls_model("initial-exec")));

/* Attaches this process to a mapped segment; leaves it.  open: 0 or an errno value of segment.h. */
int worker_open(struct shm *shm);
void worker_close(struct shm *shm);

/* The slow path of context_of(): attaches the process if need be, then the thread. */
struct context *context_attach(struct shm *shm, int *error);

/* This thread's state; NULL if it has none yet, or none any more after a fork. */
INLINE struct context *context_known(struct shm *shm)
{
    struct tls_entry *e = (struct tls_entry *)((uint8_t *)shm_tls + shm->tls_offset);
    __asm__("" : "+r"(e)); /* else gcc computes it twice */
    if (unlikely(e->serial != shm->serial))
        return NULL;
    struct context *c = e->context;
    if (!c) /* it has one: that spares who calls a question */
        __builtin_unreachable();
    return likely(load_relaxed(&c->user) == e) ? c : NULL;
}

/* This thread's state; NULL and *ERROR when it can't be had. */
static inline struct context *context_of(struct shm *shm, int *error)
{
    struct context *c = context_known(shm);
    return likely(c != NULL) ? c : context_attach(shm, error);
}

static inline unsigned worker_index(worker_id id) { return (id & ((1u << WORKER_INDEX_BITS) - 1)) - 1; }
static inline uint32_t worker_gen(worker_id id) { return id >> WORKER_INDEX_BITS; }

/* True when ID no longer holds its slot: it detached, or it was recovered.  Costs one load. */
static inline bool worker_gone(const struct shm *shm, worker_id id)
{
    unsigned index = worker_index(id);
    if (id == 0 || index >= WORKERS || index >= load_acquire(&shm->header->worker_high))
        return true; /* beyond worker_high nothing is backed (G2) */
    return load_acquire(&shm->workers[index].owner) != (WORKER_LIVE | worker_gen(id));
}

/* False only if the worker is proved dead (or gone).  System calls. */
bool worker_alive(struct shm *shm, worker_id id);

/*
 * Recovers every worker that is proved dead; returns how many this call finished.  What a dead worker
 * leaves in the heap is the sweep's to find.  PIDS unless NULL gets up to MAX pids of the living.
 */
unsigned worker_recover(struct shm *shm, int *pids, size_t max, size_t *count);

#endif
