/* The sweep: what nobody announced, and sessions whose owner died; see store.h. */
#include "lib/store_inside.h"

#include "shm/recover.h"
#include "shm/wait.h"

/* The background sweep: a whole round starts this often, and no more chunks are looked at per
 * second, so that a large idle table costs next to nothing. */
enum { SWEEP_PERIOD_MS = 10000, SWEEP_RETRY_MS = 1000,
       SWEEP_CHUNKS_PER_S = (50 << 20) / CHUNK_BYTES, SWEEP_CHUNKS_PER_TAKE = (8 << 20) / CHUNK_BYTES,
       SWEEP_CHUNKS_IN_HASTE = 8 }; /* while somebody waits */

void store_sweep_everything(struct store *s)
{
    s->sweep = (struct sweep){ .running = true, .thorough = true, .started = monotonic_ms() };
}

uint64_t store_sweep_allowed(const struct store *s)
{
    int64_t now = monotonic_ms();
    if (s->sweep.running)
        return s->sweep.thorough ? UINT64_MAX
                                 : (uint64_t)(now - s->sweep.started) * SWEEP_CHUNKS_PER_S / 1000 + 1;
    return now >= s->sweep.next;
}

static int edit_detach(struct context *c, const struct change *change, struct draft *d, void *arguments)
{
    (void)change, (void)arguments;
    if (d->head.state == SESSTAB_DETACHED || !worker_gone(c->shm, d->head.owner))
        return CHANGE_NONE;
    d->head.state = SESSTAB_DETACHED;
    return SESSTAB_OK;
}

/* One session: is its change known, does its owner live?  True if its dirty bit was set. */
static bool sweep_session(struct store *s, struct context *c, slot_ref r)
{
    struct slot *slot = slot_at(c->shm, r);
    struct store_image image;
    struct change change;
    uint64_t current;
    if (OWN_STATE(load_relaxed(&slot->node.life)) == OWN_FREE || !slot_hold(c, r))
        return false;
    const struct block *b = store_examine(s, c, slot, &image, &current);
    if (!b)
        return false;
    if (s->sweep.thorough && !(current & CURRENT_TOMB))
        hint_restore(c, b, r);
    bool orphan = !(current & CURRENT_TOMB) && b->state != SESSTAB_DETACHED &&
                  worker_gone(c->shm, b->owner);
    int result = orphan ? session_change_slot(c, slot, b->handle, edit_detach, NULL, &change)
                        : CHANGE_NONE;
    s->sweep.starved |= result == SESSTAB_NOMEMORY || result == SESSTAB_NOSPACE;
    if (result == SESSTAB_OK)
        add_relaxed(&c->shm->header->detached, 1);
    else if (image.kind == STORE_NOTHING)
        return false;
    store_set_dirty(c->shm, r);
    return true;
}

static void sweep_chunk(struct store *s, struct context *c, uint64_t chunk)
{
    struct shm *shm = c->shm;
    bool found = false;
    recover_sweep(c, (unsigned)chunk);
    if (s->sweep.thorough)
        heap_rehint(shm, (unsigned)chunk);
    if (load_acquire(&shm->chunks[chunk].class) != CHUNK_SESSIONS)
        return;
    for (uint32_t page = chunk == 0; page < CHUNK_PAGES; page++) {
        uint32_t first = (uint32_t)((chunk * CHUNK_PAGES + page) * (PAGE_BYTES / SLOT_BYTES));
        rcu_enter(c);
        for (uint32_t k = 0; k < PAGE_SLOTS; k++)
            found |= sweep_session(s, c, (slot_ref){ first + k });
        rcu_exit(c);
    }
    if (found && !s->scan.running)
        s->scan = (struct scan){ .running = true, .chunk = chunk };
    else if (found && s->scan.chunk >= chunk)
        store_scan_everything(s);
    add_relaxed(&shm->header->swept, 1);
}

/* Pages that this process has never touched take long: who waits and can be served does not wait for
 * many of them.  K: what is being taken; NULL: nobody can be served. */
static uint64_t sweep_most(const struct store *s, const struct taking *k)
{
    return k && (k->count || store_urgent_work(s)) ? SWEEP_CHUNKS_IN_HASTE : SWEEP_CHUNKS_PER_TAKE;
}

void store_sweep_some(struct store *s, const struct taking *k)
{
    struct context *c = store_context(s);
    uint64_t chunks = heap_chunks(&s->table->shm);
    if (atomic_exchange(&s->table->shm.header->sweep_wanted, 0)) {
        s->sweep.again = s->sweep.running && s->sweep.chunk > 0;
        if (!s->sweep.again)
            store_sweep_everything(s);
        s->sweep.thorough = true;
    }
    uint64_t allowed = store_sweep_allowed(s);
    if (!s->sweep.running && allowed)
        s->sweep = (struct sweep){ .running = true, .started = monotonic_ms() };
    for (uint64_t i = 0; s->sweep.chunk < chunks && s->sweep.chunk < allowed && i < sweep_most(s, k); i++)
        sweep_chunk(s, c, s->sweep.chunk++);
    if (!s->sweep.running || s->sweep.chunk < chunks)
        return;
    if (c->limbo.count) /* what a reader pinned when it was found; nobody else can free it */
        rcu_reclaim(c);
    bool again = s->sweep.again;
    int period = s->sweep.starved ? SWEEP_RETRY_MS : SWEEP_PERIOD_MS;
    s->sweep = (struct sweep){ .next = s->sweep.started + period };
    if (again)
        store_sweep_everything(s);
}
