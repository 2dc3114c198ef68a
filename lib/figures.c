/* What a table holds and has counted; see figures.h. */
#include "lib/figures.h"

#include "lib/table.h"
#include "shm/wait.h"

/* ---------------------------------------------------------------- sessions ------------------ */

/* Whether Redis has all of it, as store_read() would find. */
static bool is_durable(const struct shm *shm, struct slot *slot, const struct block *b, uint64_t durable,
                       bool tomb)
{
    return !tomb && DURABLE_INCARNATION(durable) == load_relaxed(&shm->header->incarnation) &&
           DURABLE_VERSION(durable) == b->version &&
           record_last_seen(slot, b) <= load_relaxed(&slot->durable_seen);
}

static void count_session(struct context *c, slot_ref r, struct figures *f)
{
    struct slot *slot = slot_at(c->shm, r);
    uint64_t current;
    if (OWN_STATE(load_relaxed(&slot->node.life)) == OWN_FREE || !slot_hold(c, r))
        return;
    uint64_t durable = load_acquire(&slot->durable);
    const struct block *b = record_in(c, slot, &current);
    bool tomb = current & CURRENT_TOMB;
    if (!b || b->state >= SESSTAB_STATE_COUNT) {
        f->damaged += CURRENT_BLOCK(current).at != 0;
        return;
    }
    f->not_durable += !is_durable(c->shm, slot, b, durable, tomb);
    f->deletions += tomb;
    if (tomb)
        return;
    f->sessions[b->state]++;
    f->pending += record_pending(c->shm, durable, b);
}

static void count_chunk(struct context *c, uint64_t chunk, struct figures *f)
{
    const struct chunk *k = &c->shm->chunks[chunk];
    if (load_acquire(&k->class) != CHUNK_SESSIONS)
        return;
    for (unsigned i = 0; i < CHUNK_PAGES / 4; i++)
        f->dirty += (unsigned)__builtin_popcountll(load_relaxed(&k->dirty[i]));
    for (uint32_t page = chunk == 0; page < CHUNK_PAGES; page++) {
        uint32_t first = (uint32_t)((chunk * CHUNK_PAGES + page) * (PAGE_BYTES / SLOT_BYTES));
        rcu_enter(c);
        for (uint32_t i = 0; i < PAGE_SLOTS; i++)
            count_session(c, (slot_ref){ first + i }, f);
        rcu_exit(c);
    }
}

/* ---------------------------------------------------------------- threads ------------------- */

static void count_tickets(const struct shm *shm, unsigned from, uint64_t to, struct figures *f)
{
    for (unsigned i = from; i < to && i < TICKETS; i++) {
        const struct ticket *k = &shm->tickets[i];
        uint64_t posted = load_relaxed(&k->posted_at);
        if (TICKET_STATE(load_acquire(&k->word)) != TICKET_WAITING)
            continue;
        f->tickets++;
        if (!f->oldest_ticket || posted < f->oldest_ticket)
            f->oldest_ticket = posted;
    }
}

static void count_ring(const struct shm *shm, unsigned index, struct figures *f)
{
    const struct ck_ring *ring = &shm->rings[index].ring;
    if (!load_acquire(&shm->threads[index].has_ring))
        return;
    unsigned entries = ck_pr_load_uint(&ring->p_tail) - ck_pr_load_uint(&ring->c_head);
    f->ring_entries += entries <= shm->ring_entries ? entries : 0;
}

/* Threads' tickets and rings, and groups' tickets: only what is backed by memory, G2 in segment.h. */
static void count_waiting(struct shm *shm, struct figures *f)
{
    uint64_t threads = load_acquire(&shm->header->thread_high);
    threads = threads < THREADS ? threads : THREADS;
    for (unsigned i = 0; i < threads; i++)
        count_ring(shm, i, f);
    count_tickets(shm, 0, threads, f);
    count_tickets(shm, GROUP_TICKET(0, 0), GROUP_TICKET(load_acquire(&shm->header->group_high), 0), f);
}

static void count_workers(struct shm *shm, struct figures *f)
{
    uint64_t high = load_acquire(&shm->header->worker_high);
    for (uint64_t i = 0; i < high && i < WORKERS; i++)
        f->workers += (load_relaxed(&shm->workers[i].owner) & WORKER_LIVE) != 0;
}

static void read_header(struct shm *shm, struct figures *f)
{
    const struct header *h = shm->header;
    f->committed_bytes = heap_chunks(shm) * CHUNK_BYTES;
    f->limit_bytes = (uint64_t)shm->max_chunks * CHUNK_BYTES;
    f->deaths = load_relaxed(&h->deaths);
    f->recovered = load_relaxed(&h->recovered);
    f->acknowledged = load_relaxed(&h->durable_writes);
    f->refused = load_relaxed(&h->refusals);
    f->detached = load_relaxed(&h->detached);
    f->swept = load_relaxed(&h->swept);
    f->down_since = load_relaxed(&h->store_down_since);
    f->durable_until = load_relaxed(&h->durable_until);
    f->mode = (sesstab_mode)shm_mode(shm);
    f->ready = load_acquire(&h->ready);
    worker_id leader = LEADER_WORKER(load_relaxed(&h->leader));
    f->led = leader && worker_alive(shm, leader);
}

int figures_read(sesstab *table, struct figures *f)
{
    struct shm *shm = &table->shm;
    int result;
    struct context *c = context_for(table, &result);
    if (!c)
        return result;
    *f = (struct figures){ .walked_at = shm_now() };
    int64_t start = monotonic_ms();
    read_header(shm, f);
    count_workers(shm, f);
    count_waiting(shm, f);
    uint64_t chunks = heap_chunks(shm);
    for (uint64_t i = 0; i < chunks; i++)
        count_chunk(c, i, f);
    if (!f->durable_until) /* nothing was ever said, and nothing is older than the table */
        f->durable_until = shm->header->created_at;
    if (!f->not_durable && f->walked_at > f->durable_until)
        f->durable_until = f->walked_at;
    f->walk_ms = (uint64_t)(monotonic_ms() - start);
    return SESSTAB_OK;
}

uint64_t figures_lag(const struct figures *f, uint64_t now)
{
    if (f->mode == SESSTAB_MEMORY)
        return 0;
    return now > f->durable_until ? now - f->durable_until : 0;
}
