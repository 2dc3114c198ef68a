/*
 * The index by player.  An entry {hash of the player, slot} says "look there"; the session's record
 * has the last word.  lib/table.h tells when hints are armed, settled and collected, and why.
 *
 *   hint's life:  OWNED --link--> LIVE{worker: armed} --settle--> LIVE{0} --collect--> RETIRED
 *                                      ^                             |
 *                                      +--- arm (next sequence) -----+
 *
 *   a crash leaves           and
 *   OWNED                    the sweep retires it, or publishes it if it is linked
 *   armed, worker dead       counts as settled
 *   RETIRED, still linked    the sweep adopts it and unlinks it
 */
#include "table.h"

#include "shm/recover.h"

static uint64_t key_of(uint32_t player_hash, slot_ref slot)
{
    return (uint64_t)slot.at << 32 | player_hash;
}

/* ---------------------------------------------------------------- arming -------------------- */

/* A settled hint for KEY becomes ours. */
static bool arm_existing(struct context *c, uint64_t key, hint_ref *hint)
{
    struct walk w = { .hash = index_hash(c->shm, INDEX_PLAYERS, key), .key = key, .unlink = true };
    do
        index_start_walk(c, INDEX_PLAYERS, &w);
    while (!index_advance(c, INDEX_PLAYERS, &w));
    while (w.node && load_relaxed(&w.node->key) == key) {
        uint64_t life = load_acquire(&w.node->life);
        if (OWN_STATE(life) == OWN_LIVE && worker_gone(c->shm, OWN_WORKER(life)) &&
            /* The next sequence: a collector that saw it settled before us must fail. */
            cas_exact(&w.node->life, life, OWN_WORD(OWN_LIVE, c->worker, OWN_SEQ(life) + 1))) {
            hint->at = w.ref;
            return true;
        }
        index_step(&w);
        if ((w.word & LINK_MARK) || !index_advance(c, INDEX_PLAYERS, &w))
            return false; /* disturbed: a new hint does as well */
    }
    return false;
}

int hint_arm(struct context *c, uint32_t player_hash, slot_ref slot, hint_ref *hint)
{
    uint64_t key = key_of(player_hash, slot);
    struct node *unused;
    if (arm_existing(c, key, hint))
        return SESSTAB_OK;
    int result = error_of(heap_claim_hint(c, hint));
    if (result)
        return result;
    struct node *n = hint_at(c->shm, *hint);
    store_relaxed(&n->key, key);
    if (!index_insert(c, INDEX_PLAYERS, hint->at, true, &unused)) {
        heap_unclaim(c, RETIRED_HINT, hint->at);
        hint->at = 0;
        return SESSTAB_CORRUPT;
    }
    uint64_t life = load_relaxed(&n->life); /* OWNED, and the sweep leaves the living alone */
    cas_exact(&n->life, life, OWN_WORD(OWN_LIVE, c->worker, OWN_SEQ(life)));
    return SESSTAB_OK;
}

void hint_settle(struct context *c, hint_ref hint)
{
    struct node *n = hint_at(c->shm, hint);
    uint64_t life = load_relaxed(&n->life);
    cas_exact(&n->life, life, OWN_WORD(OWN_LIVE, 0, OWN_SEQ(life)));
}

/* ---------------------------------------------------------------- walking ------------------- */

/* Goes to W's wish from the start, or, if it was disturbed, from the node NODE_KEY on. */
static void seek(struct context *c, struct walk *w)
{
    do
        index_start_walk(c, INDEX_PLAYERS, w);
    while (!index_advance(c, INDEX_PLAYERS, w));
}

/* The first hint of a player. */
static void first_hint(struct context *c, uint32_t player_hash, struct walk *w)
{
    *w = (struct walk){ .hash = player_hash };
    seek(c, w);
}

/* The next one with another key (twins are adjacent). */
static void next_hint(struct context *c, struct walk *w)
{
    uint64_t key = load_relaxed(&w->node->key);
    w->hash = index_hash(c->shm, INDEX_PLAYERS, key);
    w->key = key;
    w->past = true;
    index_step(w);
    /* To look at the session may have extended our interval: then a frozen link may lead to a hint that
     * was freed before it, and is another's by now (E4). */
    if ((w->word & LINK_MARK) || !index_advance(c, INDEX_PLAYERS, w))
        seek(c, w);
}

void hint_collect(struct context *c, uint32_t player_hash, slot_ref slot)
{
    uint64_t key = key_of(player_hash, slot);
    struct walk w = { .hash = index_hash(c->shm, INDEX_PLAYERS, key), .key = key };
    seek(c, &w);
    if (w.node && load_relaxed(&w.node->key) == key)
        recover_collect_hint(c, w.ref); /* a twin is left to the sweep */
}

bool hint_restore(struct context *c, const struct block *b, slot_ref slot)
{
    hint_ref hint;
    uint64_t key = key_of(b->player_hash, slot);
    struct walk w = { .hash = index_hash(c->shm, INDEX_PLAYERS, key), .key = key };
    if (!b->player_hash)
        return true;
    seek(c, &w);
    if (w.node && load_relaxed(&w.node->key) == key &&
        OWN_STATE(load_acquire(&w.node->life)) == OWN_LIVE)
        return true;
    if (hint_arm(c, b->player_hash, slot, &hint) != SESSTAB_OK)
        return false;
    hint_settle(c, hint);
    return true;
}

static int visit(struct context *c, const struct node *n, const char *player, size_t length,
                 int (*function)(const sesstab_view *, void *), void *context)
{
    slot_ref r = { (uint32_t)(load_relaxed(&n->key) >> 32) };
    sesstab_view v;
    /* The hint may outlive its session: the slot is held before it is believed. */
    if (!slot_ref_valid(c->shm, r) || !slot_hold(c, r))
        return 0;
    struct slot *s = slot_at(c->shm, r);
    if (session_view(c, s, load_relaxed(&s->node.key), &v) != SESSTAB_OK)
        return 0;
    if (v.player_length != length || memcmp(v.player, player, length))
        return 0;
    return function(&v, context);
}

int sesstab_by_player(sesstab *t, const char *player,
                      int (*function)(const sesstab_view *view, void *context), void *context)
{
    if (!player || !player[0] || !function)
        return SESSTAB_INVALID;
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (!c)
        return result;
    size_t length = strlen(player);
    uint32_t hash = record_player_hash(&t->shm, player, length);
    struct walk w;
    rcu_enter(c);
    for (first_hint(c, hash, &w); w.node && (uint32_t)load_relaxed(&w.node->key) == hash && !result;
         next_hint(c, &w))
        result = visit(c, w.node, player, length, function, context);
    rcu_exit(c);
    return result || !w.damaged ? result : SESSTAB_CORRUPT;
}
