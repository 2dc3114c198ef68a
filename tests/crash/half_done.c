/*
 * What a dead worker left half done, for the rows in which recovery itself is killed: one of each
 * line of the tables "a crash leaves" in shm/layout.h, shm/index.h and lib/player.c, built by hand.
 * A child does an operation, puts words back to what they were at the instruction where it is
 * supposed to die, and is killed.
 */
#include "tests/crash/crash.h"

static void put_back(struct context *c, atomic_u64 *word, enum own_state state)
{
    *word = OWN_WORD(state, state == OWN_LIVE ? 0 : c->worker, OWN_SEQ(*word));
}

static struct slot *slot_of(struct context *c, uint64_t handle)
{
    struct slot *s = index_lookup(c, handle);
    check(s != NULL);
    return s;
}

static struct block *record_of(struct context *c, uint64_t handle)
{
    return block_at(c->shm, CURRENT_BLOCK(slot_of(c, handle)->current));
}

static void insert_half_done(struct world *w)
{
    for (uint64_t h = HALF_DONE; h < HALF_DONE + 4; h++)
        check_ok(sesstab_insert(w->table, &h, NULL));
}

/* Linked, and not yet LIVE; ended, and not marked; marked, and not unlinked; unlinked, and not
 * retired. */
static void leave_sessions(struct world *w, struct context *c)
{
    const block_ref none = { 0 };
    insert_half_done(w);
    put_back(c, &slot_of(c, HALF_DONE)->node.life, OWN_OWNED);
    put_back(c, &record_of(c, HALF_DONE)->own, OWN_OWNED);
    for (uint64_t h = HALF_DONE + 1; h <= HALF_DONE + 2; h++) {
        struct slot *s = slot_of(c, h);
        if (h == HALF_DONE + 2)
            s->node.next |= LINK_MARK;
        s->current = CURRENT_WORD(none, record_of(c, h)->version + 1, 0);
    }
    struct slot *unlinked = slot_of(c, HALF_DONE + 3);
    check_ok(sesstab_remove(w->table, HALF_DONE + 3));
    put_back(c, &unlinked->node.life, OWN_LIVE);
}

/* Claimed and never used; replaced and not retired; retired and not free. */
static void leave_places(struct world *w, struct context *c)
{
    slot_ref slot;
    block_ref block;
    hint_ref hint;
    check(heap_claim_slot(c, &slot) == 0 && heap_claim_block(c, 200, &block) == 0);
    check(heap_claim_hint(c, &hint) == 0);
    struct block *old = record_of(c, NEIGHBOUR);
    for (int i = 0; i < 3; i++)
        check_ok(sesstab_set(w->table, NEIGHBOUR, "key", "left", 4));
    put_back(c, &old->own, OWN_LIVE);
}

/* Armed for nothing; linked, and not yet LIVE; retired, and still linked. */
static void leave_hints(struct context *c)
{
    const slot_ref r = slot_ref_of(c->shm, slot_of(c, NEIGHBOUR));
    hint_ref hint;
    for (uint32_t player = 4711; player < 4714; player++) {
        check(hint_arm(c, player, r, &hint) == SESSTAB_OK);
        if (player > 4711)
            put_back(c, &hint_at(c->shm, hint)->life, player == 4712 ? OWN_OWNED : OWN_RETIRED);
    }
}

/* One claimed and not linked, some linked and not finished. */
static void leave_heads(struct context *c)
{
    atomic_u64 *heads = c->shm->handles;
    unsigned claimed = 0, linked = 0;
    for (uint64_t i = 1; i < index_size(c->shm, INDEX_HANDLES); i++) {
        uint64_t w = heads[i];
        if (!w && !claimed++)
            heads[i] = LINK_WORD(0, c->worker, LINK_CLAIMED | LINK_HEAD);
        else if (w && linked++ < 2)
            heads[i] = LINK_WORD(LINK_REF(w), c->worker, LINK_CLAIMED | (w & LINK_HEAD));
    }
    check(claimed && linked >= 2);
}

/* Reads and has dirtied a session without a ring entry when it dies. */
static void leave_everything(void *context)
{
    struct world *w = context;
    struct context *c = world_context(w);
    rcu_enter(c);
    leave_sessions(w, c);
    leave_places(w, c);
    leave_hints(c);
    leave_heads(c);
    w->stage->ready = 1;
    for (;;)
        pause();
}

void leave_dead(struct world *w)
{
    w->stage->ready = 0;
    pid_t pid = start_child(leave_everything, w);
    wait_until(w->stage->ready);
    kill_child(pid);
    w->sessions++; /* the one that was linked */
}

