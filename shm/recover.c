#include "recover.h"

#include "index.h"

/* Where the hint's slot is, or none. */
static slot_ref slot_of_hint(const struct node *n)
{
    return (slot_ref){ (uint32_t)(n->key >> 32) };
}

void recover_bury(struct context *c, slot_ref slot)
{
    index_remove(c, INDEX_HANDLES, slot.at, false);
}

/*
 * The sweep meets places without a link that leads to them.  This makes the one whose ownership word
 * said SEEN safe to judge: from here on it can't be reused while the section lasts.  False: it has
 * changed already.
 */
static bool hold(struct context *c, atomic_u64 *birth, atomic_u64 *word, uint64_t seen)
{
    if (load_acquire(birth) > c->hi)
        rcu_extend(c);
    /* A birth that is beyond the era even now is damaged, or of a life that has just begun. */
    return load_acquire(birth) <= c->hi && load_acquire(word) == seen;
}

/* ---------------------------------------------------------------- slots --------------------- */

/* Nobody will ever link it: its record goes too. */
static void retire_unpublished(struct context *c, slot_ref r, struct slot *s, uint64_t life)
{
    uint64_t current = load_acquire(&s->current);
    block_ref b = CURRENT_BLOCK(current), none = { 0 };
    cas_exact(&s->current, current, CURRENT_WORD(none, CURRENT_LOW(current), 0));
    if (!heap_retire(c, RETIRED_SLOT, r.at, &s->node.life, life))
        return;
    struct block *block = block_ref_valid(c->shm, b) ? block_at(c->shm, b) : NULL;
    uint64_t own = block ? load_acquire(&block->own) : 0;
    /* Another sweeper may have been quicker, and the block be somebody's by now. */
    if (!block || !hold(c, &block->birth, &block->own, own) || block->slot != r.at)
        return;
    if ((OWN_STATE(own) == OWN_OWNED && OWN_WORKER(own) == OWN_WORKER(life)) ||
        OWN_STATE(own) == OWN_LIVE)
        heap_retire(c, RETIRED_BLOCK, b.at, &block->own, own);
}

/* RETIRED, but its worker died before its grace period. */
static bool adopt(struct context *c, atomic_u64 *word, uint64_t seen)
{
    return cas_exact(word, seen, OWN_WORD(OWN_RETIRED, c->worker, OWN_SEQ(seen)));
}

static unsigned sweep_slot(struct context *c, slot_ref r)
{
    struct slot *s = slot_at(c->shm, r);
    uint64_t life = load_acquire(&s->node.life);
    bool gone = worker_gone(c->shm, OWN_WORKER(life));
    if (OWN_STATE(life) == OWN_FREE || !hold(c, &s->node.birth, &s->node.life, life))
        return 0;
    switch (OWN_STATE(life)) {
    case OWN_OWNED:
        if (!gone)
            return 0;
        if (index_reaches(c, INDEX_HANDLES, r.at))
            own_publish(&s->node.life);
        else
            retire_unpublished(c, r, s, life);
        return 1;
    case OWN_LIVE:
        if (CURRENT_BLOCK(load_acquire(&s->current)).at)
            return 0;
        recover_bury(c, r);
        return 1;
    case OWN_RETIRED:
        if (!gone || !adopt(c, &s->node.life, life))
            return 0;
        rcu_retire(c, RETIRED_SLOT, r.at);
        return 1;
    default:
        return 0;
    }
}

/* ---------------------------------------------------------------- blocks -------------------- */

static bool block_is_current(struct context *c, const struct block *b, block_ref r)
{
    slot_ref slot = { b->slot };
    if (!slot_ref_valid(c->shm, slot))
        return false;
    struct slot *s = slot_at(c->shm, slot);
    enum own_state state = OWN_STATE(load_acquire(&s->node.life));
    return CURRENT_BLOCK(load_acquire(&s->current)).at == r.at &&
           (state == OWN_LIVE || state == OWN_OWNED);
}

/* The slot of its handle has it, whatever it says itself: the record is damaged, and shall stay. */
static bool block_is_named(struct context *c, const struct block *b, block_ref r)
{
    const struct slot *s = index_lookup(c, b->handle);
    return s == INDEX_DAMAGED || (s && CURRENT_BLOCK(load_acquire(&s->current)).at == r.at);
}

static unsigned sweep_block(struct context *c, block_ref r)
{
    struct block *b = block_at(c->shm, r);
    uint64_t own = load_acquire(&b->own);
    bool gone = worker_gone(c->shm, OWN_WORKER(own));
    if (OWN_STATE(own) == OWN_FREE || !hold(c, &b->birth, &b->own, own))
        return 0;
    switch (OWN_STATE(own)) {
    case OWN_OWNED:
        if (!gone)
            return 0;
        if (block_is_current(c, b, r))
            own_publish(&b->own);
        else
            heap_retire(c, RETIRED_BLOCK, r.at, &b->own, own);
        return 1;
    case OWN_LIVE:
        return !block_is_current(c, b, r) && !block_is_named(c, b, r) &&
               heap_retire(c, RETIRED_BLOCK, r.at, &b->own, own);
    case OWN_RETIRED:
        if (!gone || !adopt(c, &b->own, own))
            return 0;
        rcu_retire(c, RETIRED_BLOCK, r.at);
        return 1;
    default:
        return 0;
    }
}

/* ---------------------------------------------------------------- hints --------------------- */

bool recover_hint_stale(struct context *c, const struct node *n)
{
    slot_ref r = slot_of_hint(n);
    uint32_t player = (uint32_t)n->key;
    if (!slot_ref_valid(c->shm, r))
        return true;
    struct slot *s = slot_at(c->shm, r);
    for (;;) {
        uint64_t current = load_acquire(&s->current);
        block_ref b = CURRENT_BLOCK(current);
        if (!b.at || (current & CURRENT_TOMB) || !block_ref_valid(c->shm, b))
            return true;
        struct block *block = block_at(c->shm, b);
        if (load_acquire(&block->birth) > c->hi)
            rcu_extend(c);
        if (load_acquire(&s->current) != current)
            continue; /* what follows is read of the current record only */
        return block->slot != r.at || (block->player_hash != player &&
               !((block->flags & BLOCK_ACKED) && block->acked_hash == player));
    }
}

void recover_collect_hint(struct context *c, uint32_t ref)
{
    struct node *n = hint_at(c->shm, (hint_ref){ ref });
    uint64_t life = load_acquire(&n->life);
    /* Armed by the living: they are about to need it. */
    if (OWN_STATE(life) != OWN_LIVE || !worker_gone(c->shm, OWN_WORKER(life)) ||
        !recover_hint_stale(c, n))
        return;
    if (cas_exact(&n->life, life, OWN_WORD(OWN_RETIRED, c->worker, OWN_SEQ(life)))) /* COMMIT: ours */
        index_remove(c, INDEX_PLAYERS, ref, true);
}

static unsigned sweep_hint(struct context *c, uint32_t ref)
{
    struct node *n = hint_at(c->shm, (hint_ref){ ref });
    uint64_t life = load_acquire(&n->life);
    bool gone = worker_gone(c->shm, OWN_WORKER(life));
    if (!gone || OWN_STATE(life) == OWN_FREE || !hold(c, &n->birth, &n->life, life))
        return 0;
    switch (OWN_STATE(life)) {
    case OWN_OWNED:
        if (index_reaches(c, INDEX_PLAYERS, ref))
            own_publish(&n->life);
        else
            heap_retire(c, RETIRED_HINT, ref, &n->life, life);
        return 1;
    case OWN_LIVE:
        if (OWN_WORKER(life)) /* armed by the dead: settle it */
            cas_exact(&n->life, life, OWN_WORD(OWN_LIVE, 0, OWN_SEQ(life)));
        if (!recover_hint_stale(c, n))
            return 0;
        recover_collect_hint(c, ref);
        return 1;
    case OWN_RETIRED: /* perhaps still linked: its remover died in the middle */
        if (!adopt(c, &n->life, life))
            return 0;
        index_remove(c, INDEX_PLAYERS, ref, true);
        return 1;
    default:
        return 0;
    }
}

/* ---------------------------------------------------------------- the sweep ----------------- */

static unsigned sweep_page(struct context *c, unsigned class, uint64_t offset)
{
    unsigned mended = 0;
    if (class == CHUNK_HINTS) {
        for (uint32_t i = 0; i < PAGE_BYTES / HINT_BYTES; i++)
            mended += sweep_hint(c, (uint32_t)(offset / HINT_BYTES) + i);
        return mended;
    }
    uint32_t step = class_bytes(class) / BLOCK_UNIT, first = 0;
    if (class == CHUNK_SESSIONS) {
        for (uint32_t i = 0; i < PAGE_SLOTS; i++)
            mended += sweep_slot(c, (slot_ref){ (uint32_t)(offset / SLOT_BYTES) + i });
        first = PAGE_BYTES / BLOCK_UNIT - PAGE_BLOCKS;
    }
    uint32_t page = (uint32_t)(offset / BLOCK_UNIT);
    for (uint32_t i = first; i < PAGE_BYTES / BLOCK_UNIT; i++)
        if ((page + i) % step == 0)
            mended += sweep_block(c, (block_ref){ page + i });
    return mended;
}

static void sweep_heads(struct context *c, enum index_kind kind, uint64_t chunk, uint64_t chunks)
{
    uint64_t size = index_size(c->shm, kind);
    index_recover_heads(c, kind, size * chunk / chunks, size * (chunk + 1) / chunks);
}

unsigned recover_sweep(struct context *c, unsigned chunk)
{
    struct shm *shm = c->shm;
    uint64_t chunks = heap_chunks(shm);
    uint64_t class = chunk < chunks ? load_acquire(&shm->chunks[chunk].class) : CHUNK_UNUSED;
    unsigned mended = 0;
    if (class == CHUNK_UNUSED || class >= CHUNK_CLASSES)
        return 0;
    for (unsigned page = chunk == 0; page < CHUNK_PAGES; page++) {
        rcu_enter(c);
        mended += sweep_page(c, (unsigned)class, (uint64_t)chunk * CHUNK_BYTES + (uint64_t)page * PAGE_BYTES);
        rcu_exit(c);
    }
    rcu_enter(c);
    sweep_heads(c, INDEX_HANDLES, chunk, chunks);
    sweep_heads(c, INDEX_PLAYERS, chunk, chunks);
    rcu_exit(c);
    add_relaxed(&shm->header->recovered, mended);
    return mended;
}
