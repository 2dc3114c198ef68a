/*
 * From a published change to the persister: dirty bit, ring, wake.
 *
 *   announce:A   publish (CAS of current, or store of last_seen) / light fence / load dirty bit
 *   store_take:B clear dirty bit / heavy fence / read the session
 *                without: the worker sees the bit of a round that has read the session already, and
 *                the change waits for the sweep
 *                The mode is a condition of the same kind: who finds MEMORY has published before the
 *                leader, which has seen another mode since and fenced, sweeps (store_mode:E)
 *   announce:C   ring push / fetch_or ready bit (a full barrier) / load sleeping
 *   store_sleep:D sleeping = 1 (a full barrier) / look at ready bits / sleep
 *                without: a change in a ring and a persister asleep
 *
 * Killed after the bit and before the ring: the leader scans the bits after every death.
 */
#include "table.h"

#include "shm/ring.h"
#include "shm/wait.h"

void announce_wake(struct context *c, bool urgent)
{
    struct header *h = c->shm->header;
    uint32_t sleeping = atomic_load(&h->sleeping);
    if (sleeping == 1 || (urgent && sleeping)) {
        atomic_fetch_add(&h->wake_seq, 1);
        futex_wake_all(&h->wake_seq);
    }
}

void announce(struct context *c, struct slot *s)
{
    struct shm *shm = c->shm;
    rcu_light_fence(c); /* announce:A */
    if (shm_mode(shm) == MODE_MEMORY)
        return;
    slot_ref r = slot_ref_of(shm, s);
    uint64_t bit;
    atomic_u64 *word = dirty_word(shm, r, &bit);
    if (load_relaxed(word) & bit)
        return;
    if (atomic_fetch_or(word, bit) & bit)
        return;
    if (!ring_push(c, r))
        atomic_store(&shm->header->overflow, 1);
    atomic_fetch_or(&shm->ready[c->thread_index / 64], UINT64_C(1) << (c->thread_index % 64));
    announce_wake(c, false); /* announce:C */
}
