/*
 * RCU across processes: read sections, eras, retirement, reclamation.
 *
 * Interval-based reclamation (Wen, Izraelevitz, Cai, Beadle, Scott: "Interval-Based Memory
 * Reclamation", PPoPP 2018, the 2GE variant), with the reader's fence moved to the reclaimer by
 * membarrier(2), as liburcu's sys-membarrier flavour does within one process.
 *
 * Every place (slot, block, hint) carries its birth era.  A reader announces an interval [lo, hi] of
 * eras in its thread line; it touches only places born at or before hi.  A place that was retired at
 * era r may be reused when no announced interval has birth <= hi and r >= lo.  So a reader that
 * stopped for ever pins what was alive while it ran, and never what came later.
 *
 *   E1  A place's birth never falls: its memory keeps its kind for ever, and the era only rises.
 *   E2  A place is retired after it became unreachable, by the one who won the CAS to RETIRED.
 *   E3  lo is read before hi by reclaimers and written after hi by readers.
 *   E4  A reader that meets a birth above hi raises hi to the global era and re-loads the link it
 *       came by.  Changed or marked: it starts over, keeping the interval.  (A marked link is
 *       frozen, so that its staying the same would prove nothing.)  Blocks: re-loads `current`.
 *       Nor does it follow a marked link when hi has risen since it came to the node.
 *   E5  A place met with birth <= hi, by a link that was live while the section ran, cannot be
 *       reused: it was alive within [lo, hi].  By E1 the birth that was read is the true one.
 *
 *   pairs                                               without it
 *   rcu_enter:B  store lo, hi / light fence / load link a reclaimer misses the reader that has just
 *   rcu_reclaim:A unlink / heavy fence / load lo, hi    got the link, and reuses what it reads
 *   rcu_extend:B as rcu_enter, for hi                   the same
 *   rcu_exit:C   reads / store_release lo = IDLE        a write of the next life is seen by a read
 *   rcu_reclaim:D load_acquire lo / reuse               of this one
 *
 * liburcu itself can't serve here: its registry, its reader counters and its grace periods live in
 * one process's private memory, and its membarrier is the private-expedited one.
 */
#ifndef SHM_RCU_H
#define SHM_RCU_H

#include "worker.h"

enum retired_kind { RETIRED_SLOT, RETIRED_HINT, RETIRED_BLOCK };

struct retired {
    uint64_t birth, retired; /* eras; `retired` is stamped by the next reclaim                     */
    uint32_t ref;
    uint32_t kind;
};

/*
 * Orders the stores before it against the loads after it, on the hot side of a store-buffering
 * pair; the cold side calls rcu_heavy_fence().  Where membarrier is not to be had this is a full
 * fence (a seq_cst exchange, which the thread sanitizer understands).
 */
static inline void rcu_light_fence(struct context *c)
{
    if (unlikely(c->shm->full_fences))
        atomic_exchange(&c->thread->hi, c->hi);
    else
        atomic_signal_fence(memory_order_seq_cst);
}
/* False: the kernel refused (a seccomp filter that came after the table was opened), so that nothing
 * may be concluded from what is read afterwards. */
bool rcu_heavy_fence(struct shm *shm);

static inline void rcu_enter(struct context *c)
{
    if (unlikely(c->depth++))
        return;
    struct thread *me = c->thread;
    uint64_t era = load_acquire(&c->shm->header->era);
    c->hi = era;
    store_release(&me->hi, era);
    store_release(&me->lo, era); /* rcu_enter:B */
    rcu_light_fence(c);
}

/* Retirements that share a membarrier, and an era: what a reader that stops now pins beside what is
 * alive, so that it is the same however much others pin already. */
enum { RCU_BATCH = 256 };
_Static_assert(MAGAZINE_MAX >= RCU_BATCH + PAGE_BLOCKS, "a magazine holds what a batch frees");

/* After RCU_BATCH retirements: ends the era, and frees what it can when there is enough of it to be
 * worth a look at all that is pinned.  rcu_reclaim() always looks. */
void rcu_pass(struct context *c);
void rcu_reclaim(struct context *c);

static inline void rcu_exit(struct context *c)
{
    if (unlikely(--c->depth))
        return;
    tell_section_ended(c->shm->header);
    store_release(&c->thread->lo, THREAD_IDLE); /* rcu_exit:C */
    if (unlikely(c->limbo.fresh >= RCU_BATCH))
        rcu_pass(c);
}

/* Raises hi to the global era: the caller then re-loads the link by which it came (E4). */
static inline void rcu_extend(struct context *c)
{
    c->hi = load_acquire(&c->shm->header->era);
    store_release(&c->thread->hi, c->hi); /* rcu_extend:B */
    rcu_light_fence(c);
}

/*
 * rcu_exit() and rcu_enter() in one, for who walks from place to place: what was read before is given
 * up.  While the era stands still the new section would announce what this one does, lo = hi = era,
 * and this one goes on.  (lo <= hi <= era, so that a lo that is the era says it of hi too.)
 */
static inline void rcu_renew(struct context *c)
{
    if (likely(load_relaxed(&c->thread->lo) == load_acquire(&c->shm->header->era) &&
               c->limbo.fresh < RCU_BATCH))
        return;
    rcu_exit(c);
    rcu_enter(c);
}

/*
 * Hands over a place whose ownership word the caller has just moved to RETIRED, naming this worker.
 * It becomes FREE after its grace period.
 */
void rcu_retire(struct context *c, enum retired_kind kind, uint32_t ref);

/* The thread ends: frees what can be freed, leaves the rest to the sweep. */
void rcu_abandon(struct context *c);

#endif
