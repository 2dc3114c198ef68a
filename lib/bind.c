/*
 * Bindings: bind and unbind, waiting for Redis or not.
 *
 *   worker     arm the hint -> publish the binding (pending) -> settle -> post a ticket (ticket.h)
 *   persister  takes it -> Redis -> durable = version (or rolls back) -> ticket's verdict -> wake
 *   worker     reads the verdict; or, at its deadline or when it cancels, takes the ticket back: UNKNOWN
 *
 * Only the persister rolls a binding back, and never a FINAL one: acknowledged, or made by a call that
 * was answered OK without waiting (mode MEMORY or WRITE_BEHIND, class BEHIND).
 */
#include "lib/ticket.h"

struct bind_arguments {
    const char *player;    /* "": unbind */
    uint8_t length;
    uint32_t hash;
    hint_ref hint;
    uint32_t old_hash, acked_hash; /* hints that may have become stale */
    uint64_t generation, wait_for; /* the version to wait for; 0: nothing to wait for */
    bool final;            /* OK is said at once */
};

/* ---------------------------------------------------------------- the change ---------------- */

void draft_bind(struct context *c, const struct change *change, struct draft *d, const char *player,
                sesstab_state state, bool final)
{
    struct block *h = &d->head;
    h->flags &= (uint8_t)~BLOCK_FINAL;
    if (final) {
        h->flags = (uint8_t)((h->flags & ~BLOCK_ACKED) | BLOCK_FINAL);
    } else if (change->acked || !(h->flags & BLOCK_ACKED)) {
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
        if (!a->final || change->acked)
            return CHANGE_NONE;
        d->head.flags = (uint8_t)((d->head.flags & ~BLOCK_ACKED) | BLOCK_FINAL);
        return SESSTAB_OK;
    }
    if (a->length) {
        d->head.owner = c->worker;
        int result = a->hint.at ? SESSTAB_OK
                                : hint_arm(c, a->hash, slot_ref_of(c->shm, change->slot), &a->hint);
        if (result)
            return result;
    }
    draft_bind(c, change, d, a->player, state, a->final);
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

/* ---------------------------------------------------------------- the calls ----------------- */

enum { NO_TICKET = TICKETS };

/*
 * Changes the binding and posts TICKET, if there is anything to wait for.  *WAITING is its word then;
 * with NO_TICKET, any but 0; else 0.
 */
static int publish(struct context *c, uint64_t handle, struct bind_arguments *a, unsigned ticket,
                   uint64_t *waiting)
{
    int result;
    *waiting = 0;
    a->final = !change_waits(c, true);
    do {
        rcu_enter(c);
        struct slot *s = index_lookup(c, handle);
        result = s ? bind_slot(c, s, handle, a) : SESSTAB_NOTFOUND;
        if (result == SESSTAB_OK && a->wait_for && !a->final) {
            struct wanted w = { slot_ref_of(c->shm, s), handle, a->generation, a->wait_for,
                                TICKET_BINDING };
            *waiting = ticket == NO_TICKET ? a->wait_for : ticket_post(c, ticket, &w);
        }
        rcu_exit(c);
    } while (relieved(c, result));
    return result;
}

static int bind(sesstab *t, uint64_t handle, struct bind_arguments *a, int timeout_ms)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    uint64_t waiting;
    if (!c)
        return result;
    result = publish(c, handle, a, timeout_ms ? c->thread_index : NO_TICKET, &waiting);
    if (!waiting)
        return result;
    return timeout_ms ? ticket_await(c, waiting, timeout_ms) : SESSTAB_UNKNOWN;
}

/* The ticket comes first: without one nothing is changed. */
static int start(sesstab *t, uint64_t handle, struct bind_arguments *a, void *cookie, uint64_t *ticket)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    unsigned index;
    uint64_t waiting;
    if (!c || (result = ticket_claim(t, c, handle, cookie, &index)))
        return result;
    if ((result = publish(c, handle, a, index, &waiting))) {
        ticket_free(t, index);
        return result;
    }
    if (!waiting)
        waiting = ticket_answer(t, c, index);
    if (ticket)
        *ticket = ticket_number(index, waiting);
    return SESSTAB_OK;
}

static int to_player(sesstab *t, const char *player, struct bind_arguments *a)
{
    *a = (struct bind_arguments){ .player = player };
    if (!player || !player[0])
        return SESSTAB_INVALID;
    if (!text_fits(&a->player, SESSTAB_PLAYER_MAX, &a->length))
        return SESSTAB_TOOBIG;
    a->hash = record_player_hash(&t->shm, player, a->length);
    return SESSTAB_OK;
}

int sesstab_bind(sesstab *t, uint64_t handle, const char *player, int timeout_ms)
{
    struct bind_arguments a;
    int result = timeout_ms < 0 ? SESSTAB_INVALID : to_player(t, player, &a);
    return result ? result : bind(t, handle, &a, timeout_ms);
}

int sesstab_unbind(sesstab *t, uint64_t handle, int timeout_ms)
{
    struct bind_arguments a = { .player = "" };
    return timeout_ms < 0 ? SESSTAB_INVALID : bind(t, handle, &a, timeout_ms);
}

int sesstab_start_bind(sesstab *t, uint64_t handle, const char *player, void *cookie,
                       uint64_t *ticket)
{
    struct bind_arguments a;
    int result = to_player(t, player, &a);
    return result ? result : start(t, handle, &a, cookie, ticket);
}

int sesstab_start_unbind(sesstab *t, uint64_t handle, void *cookie, uint64_t *ticket)
{
    struct bind_arguments a = { .player = "" };
    return start(t, handle, &a, cookie, ticket);
}
