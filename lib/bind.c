/*
 * Bindings: bind, unbind, and the wait for Redis.
 *
 *   worker     arm the hint -> publish the binding (pending) -> settle -> post a ticket, sleep
 *   persister  takes it -> Redis -> durable = version (or rolls back) -> ticket's verdict -> wake
 *   worker     reads the verdict; or, at the deadline, takes the ticket back: UNKNOWN
 *
 * The verdict is what a CAS of the ticket's word says, never a comparison of versions by the caller:
 * the roll-back has a version too.
 */
#include "table.h"

#include "shm/wait.h"

struct bind_arguments {
    const char *player;    /* "": unbind */
    uint8_t length;
    uint32_t hash;
    hint_ref hint;
    uint32_t old_hash, acked_hash; /* hints that may have become stale */
    uint64_t generation, wait_for; /* the version to wait for; 0: nothing to wait for */
};

/* ---------------------------------------------------------------- the wait ------------------ */

static int verdict(enum ticket_state state)
{
    switch (state) {
    case TICKET_DURABLE: return SESSTAB_OK;
    case TICKET_REFUSED: return SESSTAB_REFUSED;
    case TICKET_GONE: return SESSTAB_NOTFOUND;
    default: return SESSTAB_UNKNOWN;
    }
}

static uint64_t post(struct context *c, struct slot *s, uint64_t handle,
                     const struct bind_arguments *a)
{
    unsigned index = c->thread_index;
    struct ticket *k = &c->shm->tickets[index];
    store_relaxed(&k->slot, slot_ref_of(c->shm, s).at);
    store_relaxed(&k->owner, c->worker);
    store_relaxed(&k->handle, handle);
    store_relaxed(&k->generation, a->generation);
    store_relaxed(&k->version, a->wait_for);
    store_relaxed(&k->posted_at, shm_now());
    uint64_t waiting = TICKET_WORD(TICKET_SEQ(load_relaxed(&k->word)) + 1, TICKET_WAITING);
    atomic_store(&k->word, waiting); /* COMMIT: the ticket waits */
    atomic_fetch_or(&c->shm->urgent[index / 64], UINT64_C(1) << (index % 64));
    announce_wake(c, true);
    return waiting;
}

static int await(struct context *c, uint64_t waiting, int timeout_ms)
{
    struct ticket *k = &c->shm->tickets[c->thread_index];
    const uint64_t idle = TICKET_WORD(TICKET_SEQ(waiting), TICKET_IDLE);
    int64_t deadline = monotonic_ms() + timeout_ms;
    for (;;) {
        uint64_t word = load_acquire(&k->word);
        if (word != waiting) {
            store_release(&k->word, idle);
            return verdict(TICKET_STATE(word));
        }
        int64_t left = deadline - monotonic_ms();
        if (left <= 0) {
            if (cas(&k->word, &word, idle)) /* COMMIT: nobody will answer any more */
                return SESSTAB_UNKNOWN;
            continue;
        }
        /* In slices: who would have woken us may have died just before (H11). */
        futex_wait((atomic_u32 *)&k->word, TICKET_WAITING,
                   left < WAIT_SLICE_MS ? (int)left : WAIT_SLICE_MS);
    }
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex is the low half of the word");

/* ---------------------------------------------------------------- the change ---------------- */

void draft_bind(struct context *c, const struct change *change, struct draft *d, const char *player,
                sesstab_state state)
{
    struct block *h = &d->head;
    if ((change->acked || !(h->flags & BLOCK_ACKED)) && c->shm->mode != MODE_MEMORY) {
        h->flags |= BLOCK_ACKED;
        h->acked_state = h->state;
        h->acked_length = h->player_length;
        h->acked_hash = h->player_hash;
        d->acked = d->player;
        d->acked_version = h->bound_version;
    }
    size_t length = strlen(player);
    d->player = player;
    h->player_length = (uint8_t)length;
    h->player_hash = length ? record_player_hash(c->shm, player, length) : 0;
    h->state = (uint8_t)state;
    h->bound_version = change->version;
}

static bool same_binding(const struct draft *d, const struct bind_arguments *a)
{
    return d->head.player_length == a->length && memcmp(d->player, a->player, a->length) == 0;
}

static int edit_bind(struct context *c, const struct change *change, struct draft *d, void *arguments)
{
    struct bind_arguments *a = arguments;
    sesstab_state state = a->length ? SESSTAB_LOGGED_IN : SESSTAB_CONNECTED;
    a->generation = d->head.generation;
    a->old_hash = d->head.player_hash;
    a->acked_hash = d->head.flags & BLOCK_ACKED ? d->head.acked_hash : 0;
    bool ours = !a->length || d->head.owner == c->worker;
    if (same_binding(d, a) && (!a->length || d->head.state == state) && ours) {
        a->wait_for = change->pending ? d->head.bound_version : 0;
        return CHANGE_NONE;
    }
    if (a->length) {
        d->head.owner = c->worker;
        int result = a->hint.at ? SESSTAB_OK
                                : hint_arm(c, a->hash, slot_ref_of(c->shm, change->slot), &a->hint);
        if (result)
            return result;
    }
    draft_bind(c, change, d, a->player, state);
    a->wait_for = change->version;
    return SESSTAB_OK;
}

static int bind_slot(struct context *c, struct slot *s, uint64_t handle, struct bind_arguments *a)
{
    struct change change;
    int result = session_change_slot(c, s, handle, edit_bind, a, &change);
    slot_ref r = slot_ref_of(c->shm, s);
    if (a->hint.at) {
        hint_settle(c, a->hint);
        a->hint.at = 0;
        if (result != SESSTAB_OK)
            hint_collect(c, a->hash, r);
    }
    if (result == SESSTAB_OK) {
        announce(c, s);
        if (a->old_hash && a->old_hash != a->hash)
            hint_collect(c, a->old_hash, r);
        if (a->acked_hash && a->acked_hash != a->hash)
            hint_collect(c, a->acked_hash, r);
    }
    return result == CHANGE_NONE ? SESSTAB_OK : result;
}

static int bind(sesstab *t, uint64_t handle, struct bind_arguments *a, int timeout_ms)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (!c)
        return result;
    uint64_t waiting = 0;
    bool wait;
    do {
        rcu_enter(c);
        struct slot *s = index_lookup(c, handle);
        result = s ? bind_slot(c, s, handle, a) : SESSTAB_NOTFOUND;
        wait = result == SESSTAB_OK && a->wait_for && t->shm.mode != MODE_MEMORY;
        if (wait && timeout_ms > 0)
            waiting = post(c, s, handle, a);
        rcu_exit(c);
    } while (relieved(c, result));
    if (!wait)
        return result;
    return waiting ? await(c, waiting, timeout_ms) : SESSTAB_UNKNOWN;
}

int sesstab_bind(sesstab *t, uint64_t handle, const char *player, int timeout_ms)
{
    struct bind_arguments a = { .player = player };
    if (!player || !player[0] || timeout_ms < 0)
        return SESSTAB_INVALID;
    if (!text_fits(&a.player, SESSTAB_PLAYER_MAX, &a.length))
        return SESSTAB_TOOBIG;
    a.hash = record_player_hash(&t->shm, player, a.length);
    return bind(t, handle, &a, timeout_ms);
}

int sesstab_unbind(sesstab *t, uint64_t handle, int timeout_ms)
{
    struct bind_arguments a = { .player = "" };
    return timeout_ms < 0 ? SESSTAB_INVALID : bind(t, handle, &a, timeout_ms);
}
