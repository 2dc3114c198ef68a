/*
 * Walking over all sessions: slot by slot, in the order in which they lie in the heap.  Slots never
 * move, so that a cursor is a number that stays meaningful for ever.
 */
#include "table.h"

enum { SLOTS_PER_PAGE = PAGE_BYTES / SLOT_BYTES, SLOTS_PER_CHUNK = CHUNK_BYTES / SLOT_BYTES };

/* The first slot reference that can be one, at or after AT, in a page of the cursor's part; 0 when
 * the heap ends.  A part is every page whose number leaves INDEX when divided by PARTS: this stays
 * so while the table grows. */
static uint64_t next_slot(struct shm *shm, const sesstab_cursor *k, uint64_t at)
{
    if (at < SLOTS_PER_PAGE)
        at = SLOTS_PER_PAGE; /* page 0 is no page */
    for (;;) {
        uint64_t chunk = at / SLOTS_PER_CHUNK;
        if (unlikely(at * SLOT_BYTES >= load_relaxed(&shm->limit)) && chunk >= heap_chunks(shm))
            return 0;
        if (load_acquire(&shm->chunks[chunk].class) != CHUNK_SESSIONS)
            at = (chunk + 1) * SLOTS_PER_CHUNK;
        else if (at % SLOTS_PER_PAGE >= PAGE_SLOTS)
            at = layout_align(at, SLOTS_PER_PAGE);
        else if (k->parts_ && at / SLOTS_PER_PAGE % k->parts_ != k->index_)
            at = (at / SLOTS_PER_PAGE + 1) * SLOTS_PER_PAGE;
        else
            return at;
    }
}

/* A live session's birth is never after the era that is read later. */
static bool from_the_future(struct context *c, struct slot *s)
{
    uint64_t life = load_acquire(&s->node.life), birth = load_acquire(&s->node.birth);
    return OWN_STATE(life) == OWN_LIVE && birth > load_acquire(&c->shm->header->era);
}

/* NOTFOUND: no live session stands here. */
static int look(struct context *c, uint64_t at, sesstab_view *view)
{
    slot_ref r = { (uint32_t)at };
    struct slot *s = slot_at(c->shm, r);
    if (!slot_hold(c, r))
        return from_the_future(c, s) ? SESSTAB_CORRUPT : SESSTAB_NOTFOUND;
    return session_view(c, s, load_relaxed(&s->node.key), view);
}

/* The records of a walk lie anywhere: asks for that of the slot AHEAD of AT, if it is in the page, and
 * for AT's like in the next page. */
static inline void prefetch_ahead(struct shm *shm, const struct slot *s, uint64_t at)
{
    enum { AHEAD = 4 };
    struct block *b;
    if (at % SLOTS_PER_PAGE < PAGE_SLOTS - AHEAD) {
        block_known(shm, CURRENT_BLOCK(load_relaxed(&s[AHEAD].current)), &b);
        __builtin_prefetch(b);
        __builtin_prefetch(&b->born_version);
    }
    __builtin_prefetch(s + SLOTS_PER_PAGE);
}

/* From AT to its page's end; *AT is where it stopped. */
static int look_in_page(struct context *c, uint64_t *at, sesstab_view *view)
{
    for (; *at % SLOTS_PER_PAGE < PAGE_SLOTS; ++*at) {
        struct slot *s = (struct slot *)(c->shm->heap + *at * SLOT_BYTES);
        enum own_state state = OWN_STATE(load_acquire(&s->node.life));
        if (state != OWN_LIVE && state != OWN_OWNED)
            continue;
        prefetch_ahead(c->shm, s, *at);
        /* Live while the section runs, and of a birth within hi: held (E5). */
        if (likely(state == OWN_LIVE && load_acquire(&s->node.birth) <= c->hi &&
                   session_view_usual(c, c->shm, s, load_relaxed(&s->node.key), view)))
            return SESSTAB_OK;
        int result = look(c, *at, view);
        if (result != SESSTAB_NOTFOUND)
            return result;
    }
    return SESSTAB_NOTFOUND;
}

int sesstab_next(sesstab *t, sesstab_cursor *cursor, sesstab_view *view)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (!c)
        return result;
    if (likely(cursor->open_ && c->depth))
        rcu_renew(c);
    else
        rcu_enter(c);
    uint64_t at = cursor->next_;
    do {
        at = next_slot(c->shm, cursor, at);
        if (at == 0)
            break;
        result = look_in_page(c, &at, view);
    } while (result == SESSTAB_NOTFOUND);
    cursor->open_ = at != 0;
    if (at == 0) {
        rcu_exit(c);
        return SESSTAB_NOTFOUND;
    }
    cursor->next_ = at + 1;
    return result;
}

void sesstab_pause(sesstab *t, sesstab_cursor *cursor)
{
    if (cursor->open_)
        sesstab_read_end(t);
    cursor->open_ = false;
}

sesstab_cursor sesstab_part(unsigned index, unsigned parts)
{
    return (sesstab_cursor){ .index_ = index, .parts_ = parts ? parts : 1 };
}
