/*
 * Walking over all sessions: slot by slot, in the order in which they lie in the heap.  Slots never
 * move, so that a cursor is a number that stays meaningful for ever.
 */
#include "table.h"

enum { SLOTS_PER_PAGE = PAGE_BYTES / SLOT_BYTES, SLOTS_PER_CHUNK = CHUNK_BYTES / SLOT_BYTES };

/* The first slot reference that can be one, at or after AT, in a page of the cursor's part; 0 when
 * the heap ends.  A part is every page whose number leaves INDEX when divided by PARTS: this stays
 * so while the table grows. */
static uint64_t next_slot(struct context *c, const sesstab_cursor *k, uint64_t at)
{
    uint64_t chunks = heap_chunks(c->shm);
    if (at < SLOTS_PER_PAGE)
        at = SLOTS_PER_PAGE; /* page 0 is no page */
    for (;;) {
        uint64_t chunk = at / SLOTS_PER_CHUNK;
        if (chunk >= chunks)
            return 0;
        if (load_acquire(&c->shm->chunks[chunk].class) != CHUNK_SESSIONS)
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
static int look(struct context *c, slot_ref r, sesstab_view *view)
{
    struct slot *s = slot_at(c->shm, r);
    if (!slot_hold(c, r))
        return from_the_future(c, s) ? SESSTAB_CORRUPT : SESSTAB_NOTFOUND;
    return session_view(c, s, load_relaxed(&s->node.key), view);
}

int sesstab_next(sesstab *t, sesstab_cursor *cursor, sesstab_view *view)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (!c)
        return result;
    sesstab_pause(t, cursor);
    rcu_enter(c);
    for (;;) {
        uint64_t at = next_slot(c, cursor, cursor->next_);
        if (at == 0) {
            rcu_exit(c);
            return SESSTAB_NOTFOUND;
        }
        cursor->next_ = at + 1;
        result = look(c, (slot_ref){ (uint32_t)at }, view);
        if (result != SESSTAB_NOTFOUND)
            break;
    }
    cursor->open_ = true;
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
