/*
 * Walking over all sessions: slot by slot, in the order in which they lie in the heap.  Slots never
 * move, so that a cursor is a number that stays meaningful for ever.
 */
#include "table.h"

enum { SLOTS_PER_PAGE = PAGE_BYTES / SLOT_BYTES, SLOTS_PER_CHUNK = CHUNK_BYTES / SLOT_BYTES };

/* The first slot reference that can be one, at or after AT; 0 when the heap ends. */
static uint64_t next_slot(struct context *c, uint64_t at)
{
    uint64_t committed = load_acquire(&c->shm->header->committed);
    if (at < SLOTS_PER_PAGE)
        at = SLOTS_PER_PAGE; /* page 0 is no page */
    for (;;) {
        uint64_t chunk = at / SLOTS_PER_CHUNK;
        if (chunk >= committed || chunk >= c->shm->max_chunks)
            return 0;
        if (load_acquire(&c->shm->chunks[chunk].class) != CHUNK_SESSIONS)
            at = (chunk + 1) * SLOTS_PER_CHUNK;
        else if (at % SLOTS_PER_PAGE >= PAGE_SLOTS)
            at = layout_align(at, SLOTS_PER_PAGE);
        else
            return at;
    }
}

/* NOTFOUND: no live session stands here. */
static int look(struct context *c, slot_ref r, sesstab_view *view)
{
    struct slot *s = slot_at(c->shm, r);
    uint64_t life = load_acquire(&s->node.life);
    if (OWN_STATE(life) != OWN_LIVE && OWN_STATE(life) != OWN_OWNED)
        return SESSTAB_NOTFOUND;
    /* We did not come by a link: make the slot safe, then see that it is still the same. */
    if (load_acquire(&s->node.birth) > c->hi)
        rcu_extend(c);
    if (OWN_STATE(life) == OWN_OWNED && !index_reaches(c, INDEX_HANDLES, r.at))
        return SESSTAB_NOTFOUND; /* about to be inserted, or given up */
    uint64_t now = load_acquire(&s->node.life);
    if (OWN_SEQ(now) != OWN_SEQ(life) || (OWN_STATE(now) != OWN_LIVE && OWN_STATE(now) != OWN_OWNED))
        return SESSTAB_NOTFOUND;
    return session_view(c, s, load_relaxed(&s->node.key), view);
}

static bool at_end(const sesstab_cursor *k, uint64_t at)
{
    return at == 0 || (k->end_ && at >= k->end_);
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
        uint64_t at = next_slot(c, cursor->next_);
        if (at_end(cursor, at)) {
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

sesstab_cursor sesstab_part(sesstab *t, unsigned index, unsigned parts)
{
    uint64_t chunks = load_acquire(&t->shm.header->committed);
    if (parts == 0 || index >= parts)
        return (sesstab_cursor){ .next_ = 1, .end_ = 1 }; /* of nothing */
    uint64_t slots = chunks * SLOTS_PER_CHUNK;
    uint64_t begin = slots * index / parts / SLOTS_PER_PAGE * SLOTS_PER_PAGE;
    uint64_t end = slots * (index + 1) / parts / SLOTS_PER_PAGE * SLOTS_PER_PAGE;
    bool last = index + 1 == parts; /* sees what is added, too */
    return (sesstab_cursor){ .next_ = begin, .end_ = last ? 0 : end ? end : 1 };
}
