#include "ring.h"

CK_RING_PROTOTYPE(change, ring_entry)

#define COUNTERS_START (UINT32_MAX - 2)

/* Also while another thread prepares it: the size is stored last (ring_prepare). */
static bool usable(const struct shm *shm, const struct ring *r)
{
    return __atomic_load_n(&r->ring.size, __ATOMIC_ACQUIRE) == shm->ring_entries &&
           ck_pr_load_uint(&r->ring.mask) == shm->ring_entries - 1;
}

int ring_prepare(struct shm *shm, unsigned index)
{
    struct ring *r = &shm->rings[index];
    int error = segment_commit(shm, shm->at.rings + index * sizeof *r, sizeof *r);
    if (error)
        return error;
    store_release(&shm->threads[index].has_ring, 1);
    if (usable(shm, r))
        return 0;
    /* As ck_ring_init(), but the size comes last: killed before, it is prepared again. */
    r->ring.c_head = r->ring.p_tail = r->ring.p_head = COUNTERS_START;
    r->ring.mask = shm->ring_entries - 1;
    __atomic_store_n(&r->ring.size, shm->ring_entries, __ATOMIC_RELEASE); /* COMMIT: usable() */
    return 0;
}

bool ring_push(struct context *c, slot_ref slot)
{
    struct ring *r = &c->shm->rings[c->thread_index];
    struct ring_entry e = { slot.at };
    return usable(c->shm, r) && ck_ring_enqueue_spmc_change(&r->ring, r->entries, &e);
}

bool ring_take(struct shm *shm, unsigned index, slot_ref *slot)
{
    struct ring *r = &shm->rings[index];
    struct ring_entry e;
    /* A hole in a full /dev/shm must not be looked into. */
    if (index >= load_acquire(&shm->header->thread_high) ||
        !load_acquire(&shm->threads[index].has_ring))
        return false;
    if (!usable(shm, r) || !ck_ring_dequeue_spmc_change(&r->ring, r->entries, &e))
        return false;
    slot->at = e.slot;
    return true;
}
