#include "rcu.h"

#include "heap.h"

#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

bool rcu_heavy_fence(struct shm *shm)
{
    if (!shm->full_fences)
        return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
    atomic_fetch_add(&shm->header->era, 0); /* a seq_cst read-modify-write */
    return true;
}

/* ---------------------------------------------------------------- limbo --------------------- */

static atomic_u64 *word_of(struct shm *shm, uint32_t kind, uint32_t ref)
{
    switch (kind) {
    case RETIRED_SLOT: return &slot_at(shm, (slot_ref){ ref })->node.life;
    case RETIRED_HINT: return &hint_at(shm, (hint_ref){ ref })->life;
    default: return &block_at(shm, (block_ref){ ref })->own;
    }
}

static uint64_t birth_of(struct shm *shm, uint32_t kind, uint32_t ref)
{
    switch (kind) {
    case RETIRED_SLOT: return load_relaxed(&slot_at(shm, (slot_ref){ ref })->node.birth);
    case RETIRED_HINT: return load_relaxed(&hint_at(shm, (hint_ref){ ref })->birth);
    default: return load_relaxed(&block_at(shm, (block_ref){ ref })->birth);
    }
}

/* Nobody's: the sweep will adopt it. */
static void orphan(struct shm *shm, uint32_t kind, uint32_t ref)
{
    atomic_u64 *word = word_of(shm, kind, ref);
    store_release(word, OWN_WORD(OWN_RETIRED, 0, OWN_SEQ(load_relaxed(word))));
    store_relaxed(&shm->header->sweep_wanted, 1);
}

static bool limbo_grow(struct limbo *l)
{
    size_t capacity = l->capacity ? l->capacity * 2 : 2 * RCU_BATCH;
    struct retired *items = realloc(l->items, capacity * sizeof *items);
    if (!items)
        return false;
    l->items = items;
    l->capacity = capacity;
    return true;
}

void rcu_retire(struct context *c, enum retired_kind kind, uint32_t ref)
{
    struct limbo *l = &c->limbo;
    if (l->count == l->capacity && !limbo_grow(l)) {
        orphan(c->shm, kind, ref);
        return;
    }
    l->items[l->count++] = (struct retired){ birth_of(c->shm, kind, ref), 0, ref, kind };
    l->fresh++;
}

/* ---------------------------------------------------------------- reclaim ------------------- */

struct interval { uint64_t lo, hi; };

/* As many as fit on any thread's stack; further ones are merged into the last, which pins more. */
enum { INTERVALS = 256 };

static void merge(struct interval *into, uint64_t lo, uint64_t hi)
{
    into->lo = into->lo < lo ? into->lo : lo;
    into->hi = into->hi > hi ? into->hi : hi;
}

/* The announced intervals; *PINNER is a worker that has one. */
static size_t intervals(struct shm *shm, struct interval *found, worker_id *pinner)
{
    size_t n = 0;
    uint64_t high = load_acquire(&shm->header->thread_high);
    for (uint64_t i = 0; i < high && i < THREADS; i++) {
        struct thread *t = &shm->threads[i];
        uint64_t owner = load_acquire(&t->owner);
        uint64_t lo = load_acquire(&t->lo); /* rcu_reclaim:A, rcu_reclaim:D; E3 */
        uint64_t hi = load_acquire(&t->hi);
        if (!(owner & THREAD_LIVE) || lo == THREAD_IDLE)
            continue;
        *pinner = THREAD_WORKER(owner);
        if (n < INTERVALS)
            found[n++] = (struct interval){ lo, hi };
        else
            merge(&found[n - 1], lo, hi);
    }
    return n;
}

static bool pinned(const struct retired *r, const struct interval *i, size_t n)
{
    for (; n--; i++)
        if (r->birth <= i->hi && r->retired >= i->lo)
            return true;
    return false;
}

static void release(struct context *c, const struct retired *r)
{
    atomic_u64 *word = word_of(c->shm, r->kind, r->ref);
    store_release(word, OWN_WORD(OWN_FREE, 0, OWN_SEQ(load_relaxed(word)) + 1));
    heap_freed(c, r->kind, r->ref);
    c->freed++;
}

/* The fresh get their era, and the era ends: who enters from here on does not pin them.  False: the
 * kernel refused the fence, without which nothing may be freed. */
static bool stamp(struct context *c)
{
    struct shm *shm = c->shm;
    struct limbo *l = &c->limbo;
    if (!rcu_heavy_fence(shm))
        return false;
    /* After the fence: at least every lo under which a fresh item may have been reached. */
    uint64_t era = load_acquire(&shm->header->era);
    for (size_t i = l->count - l->fresh; i < l->count; i++)
        l->items[i].retired = era;
    l->fresh = 0;
    cas_exact(&shm->header->era, era, era + 1);
    return true;
}

/* Frees what nobody pins; stamp() was its fence. */
static void sift(struct context *c)
{
    struct shm *shm = c->shm;
    struct limbo *l = &c->limbo;
    struct interval found[INTERVALS];
    worker_id pinner = 0;
    size_t n = intervals(shm, found, &pinner), kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (pinned(&l->items[i], found, n))
            l->items[kept++] = l->items[i];
        else
            release(c, &l->items[i]);
    }
    l->count = l->pinned = kept;
    /* A dead reader pins until it is recovered; with no persister about, that is us. */
    if (kept >= RCU_BATCH && pinner != c->worker && !worker_alive(shm, pinner))
        worker_recover(shm, NULL, 0, NULL);
}

void rcu_reclaim(struct context *c)
{
    if (stamp(c))
        sift(c);
}

void rcu_pass(struct context *c)
{
    if (stamp(c) && c->limbo.count - c->limbo.pinned >= c->limbo.pinned / 2)
        sift(c);
}

void rcu_abandon(struct context *c)
{
    struct limbo *l = &c->limbo;
    if (l->count)
        rcu_reclaim(c);
    for (size_t i = 0; i < l->count; i++)
        orphan(c->shm, l->items[i].kind, l->items[i].ref);
    heap_flush(c);
    free(l->items);
    *l = (struct limbo){ 0 };
}
