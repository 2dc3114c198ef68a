/*
 * C2: everything in the segment is counted, and must be what it is expected to be, exactly.  The
 * survivors stand still meanwhile.
 */
#include "tests/crash/crash.h"

#include <string.h>

struct count {
    struct world *w;
    unsigned state[3][4];  /* slots, hints, blocks by enum own_state */
    unsigned free_without_hint;
};

/* ---------------------------------------------------------------- places -------------------- */

static void count_place(struct count *n, enum retired_kind kind, uint64_t word,
                        uint64_t hints, unsigned page)
{
    enum own_state state = OWN_STATE(word);
    check(state <= OWN_RETIRED);
    n->state[kind][state]++;
    n->free_without_hint += state == OWN_FREE && !(hints >> page & 1);
}

static void count_block(struct count *n, uint64_t offset, const struct chunk *k, unsigned page)
{
    struct shm *shm = &n->w->table->shm;
    block_ref r = { (uint32_t)(offset / BLOCK_UNIT) };
    const struct block *b = block_at(shm, r);
    count_place(n, RETIRED_BLOCK, b->own, k->block_hints, page);
    if (OWN_STATE(b->own) == OWN_LIVE) {
        check(slot_ref_valid(shm, (slot_ref){ b->slot }));
        check_equal(CURRENT_BLOCK(slot_at(shm, (slot_ref){ b->slot })->current).at, r.at);
    }
}

static void count_slots(struct count *n, uint64_t offset, const struct chunk *k, unsigned page)
{
    slot_ref r = { (uint32_t)(offset / SLOT_BYTES) };
    for (unsigned i = 0; i < PAGE_SLOTS; i++, r.at++)
        count_place(n, RETIRED_SLOT, slot_at(&n->w->table->shm, r)->node.life, k->slot_hints, page);
}

static void count_hints(struct count *n, uint64_t offset, const struct chunk *k, unsigned page)
{
    hint_ref r = { (uint32_t)(offset / HINT_BYTES) };
    for (unsigned i = 0; i < PAGE_BYTES / HINT_BYTES; i++, r.at++)
        count_place(n, RETIRED_HINT, hint_at(&n->w->table->shm, r)->life, k->block_hints, page);
}

/* The blocks of BYTES bytes that begin in [OFFSET + FIRST, the page's end). */
static void count_blocks(struct count *n, uint64_t offset, uint32_t first, uint32_t bytes,
                         const struct chunk *k, unsigned page)
{
    for (uint32_t at = first; at < PAGE_BYTES; at += bytes)
        if ((offset + at) % bytes == 0)
            count_block(n, offset + at, k, page);
}

static void count_page(struct count *n, const struct chunk *k, uint64_t offset, unsigned page)
{
    unsigned class = (unsigned)k->class;
    if (class == CHUNK_HINTS) {
        count_hints(n, offset, k, page);
        return;
    }
    if (class == CHUNK_SESSIONS)
        count_slots(n, offset, k, page);
    uint32_t slots = class == CHUNK_SESSIONS ? PAGE_SLOTS * SLOT_BYTES : 0;
    count_blocks(n, offset, slots, class_bytes(class), k, page);
}

static void count_places(struct count *n)
{
    struct shm *shm = &n->w->table->shm;
    for (unsigned chunk = 0; chunk < shm->header->committed; chunk++)
        for (unsigned page = chunk == 0; page < CHUNK_PAGES; page++)
            count_page(n, &shm->chunks[chunk],
                       (uint64_t)chunk * CHUNK_BYTES + (uint64_t)page * PAGE_BYTES, page);
}

/* ---------------------------------------------------------------- indexes ------------------- */

/* Nodes along the whole list; all linked, none marked. */
static unsigned count_list(struct shm *shm, enum index_kind kind)
{
    atomic_u64 *heads = index_buckets(shm, kind);
    unsigned nodes = 0;
    uint64_t last_key = 0, word = heads[0];
    for (unsigned steps = 0;; steps++) {
        check(steps < 100000 && !(word & (LINK_MARK | LINK_CLAIMED)));
        if (word & LINK_HEAD) {
            if (LINK_REF(word) == 0)
                return nodes;
            check(LINK_REF(word) < index_size(shm, kind));
            word = heads[LINK_REF(word)];
            continue;
        }
        struct node *n = index_node(shm, kind, LINK_REF(word));
        check(n && OWN_STATE(n->life) == OWN_LIVE);
        check(nodes == 0 || kind == INDEX_PLAYERS || n->key != last_key);
        last_key = n->key;
        word = n->next;
        nodes++;
    }
}

static void expect_no_claimed_heads(struct shm *shm, enum index_kind kind)
{
    for (uint64_t i = 0; i < index_size(shm, kind); i++)
        check(!(index_buckets(shm, kind)[i] & LINK_CLAIMED));
}

/* ---------------------------------------------------------------- processes ----------------- */

static void expect_attached(struct shm *shm, unsigned attached)
{
    unsigned workers = 0, threads = 0;
    for (uint64_t i = 0; i < shm->header->worker_high; i++)
        workers += (shm->workers[i].owner & WORKER_LIVE) != 0;
    for (uint64_t i = 0; i < shm->header->thread_high; i++)
        threads += (shm->threads[i].owner & THREAD_LIVE) != 0;
    check_equal(workers, attached);
    check_equal(threads, attached);
}

static void expect_nothing_waits(struct shm *shm)
{
    for (uint64_t i = 0; i < shm->header->thread_high; i++) {
        check_equal(TICKET_STATE(shm->tickets[i].word), TICKET_IDLE);
        const struct ck_ring *r = &shm->rings[i].ring;
        check(r->size == 0 || r->p_tail == r->c_head); /* 0: its first holder died preparing it */
    }
    for (unsigned g = 0; g < GROUPS; g++)
        check_equal(shm->groups[g], 0);
    for (uint64_t i = 0; i < shm->header->group_high * GROUP_TICKETS; i++)
        check_equal(TICKET_STATE(shm->tickets[THREADS + i].word), TICKET_IDLE);
    for (unsigned i = 0; i < THREADS / 64; i++)
        check_equal(shm->urgent[i] | shm->ready[i], 0);
    for (uint64_t i = 0; i < shm->header->committed; i++)
        for (unsigned k = 0; k < CHUNK_PAGES / 4; k++)
            check_equal(shm->chunks[i].dirty[k], 0);
    check(shm_mode(shm) == MODE_MEMORY || !shm->header->overflow);
}

/* ---------------------------------------------------------------- the account --------------- */

void account(struct world *w, unsigned live, int hints, unsigned attached)
{
    struct shm *shm = &w->table->shm;
    struct count n = { .w = w };
    count_places(&n);
    for (int kind = RETIRED_SLOT; kind <= RETIRED_BLOCK; kind++) {
        check_equal(n.state[kind][OWN_OWNED], 0);
        check_equal(n.state[kind][OWN_RETIRED], 0);
    }
    check_equal(n.state[RETIRED_SLOT][OWN_LIVE], live);
    check_equal(n.state[RETIRED_BLOCK][OWN_LIVE], live);
    check_equal(count_list(shm, INDEX_HANDLES), live);
    check_equal(count_list(shm, INDEX_PLAYERS), n.state[RETIRED_HINT][OWN_LIVE]);
    if (hints >= 0)
        check_equal(n.state[RETIRED_HINT][OWN_LIVE], hints);
    expect_no_claimed_heads(shm, INDEX_HANDLES);
    expect_no_claimed_heads(shm, INDEX_PLAYERS);
    expect_attached(shm, attached);
    expect_nothing_waits(shm);
}

void account_free_places(struct world *w)
{
    struct count n = { .w = w };
    count_places(&n);
    check_equal(n.free_without_hint, 0);
}
