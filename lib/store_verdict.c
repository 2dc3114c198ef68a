/* What Redis acknowledged or refused; see store.h. */
#include "lib/store_inside.h"

#include "shm/recover.h"

#include <string.h>

/* ---------------------------------------------------------------- acknowledging ----------- */

struct speaking {
    const struct store_image *image;
    const struct block *record; /* that is current by now; NULL: the session is gone */
    bool refuse, found;
    bool bindings_only;         /* of the rest of the image nothing is known */
    uint64_t kept;              /* see roll_back */
    unsigned denied;
};

static bool same_session(const struct ticket *k, const struct store_image *image)
{
    return load_relaxed(&k->slot) == image->slot.at && load_relaxed(&k->handle) == image->handle &&
           load_relaxed(&k->generation) == image->generation;
}

/* What the image's fate means for a ticket. */
static enum ticket_state fate(const struct speaking *p, const struct ticket *k)
{
    const struct store_image *image = p->image;
    uint64_t version = load_relaxed(&k->version);
    enum ticket_kind kind = ticket_kind_of(k);
    if (version > image->version || (p->bindings_only && kind != TICKET_BINDING))
        return TICKET_WAITING; /* a newer change is not judged by it */
    if (image->kind == STORE_DELETE)
        return kind == TICKET_REMOVAL ? TICKET_DURABLE : TICKET_GONE;
    if (kind != TICKET_BINDING)
        return kind == TICKET_CHANGE ? TICKET_DURABLE : TICKET_WAITING;
    if (p->refuse && p->record) /* what it was rolled back to is not refused, even if it asks late */
        return version <= image->bound_version && version > p->kept ? TICKET_REFUSED : TICKET_WAITING;
    return p->record ? ticket_judge_binding(version, p->record, image->version) : TICKET_GONE;
}

static bool speak(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    struct speaking *p = context;
    if (!same_session(k, p->image))
        return true;
    enum ticket_state state = fate(p, k);
    if (state != TICKET_WAITING)
        ticket_say(s, index, word, state);
    return true;
}

static bool see_waiting(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    struct speaking *p = context;
    (void)s, (void)index, (void)word;
    p->found |= same_session(k, p->image) && (!p->bindings_only || ticket_kind_of(k) == TICKET_BINDING);
    return true;
}

bool store_waited_for(struct store *s, const struct store_image *image)
{
    struct speaking p = { .image = image };
    tickets_each_chained(s, image, see_waiting, &p);
    return p.found;
}

bool store_binding_waited_for(struct store *s, const struct store_image *image)
{
    struct speaking p = { .image = image, .bindings_only = true };
    tickets_each_chained(s, image, see_waiting, &p);
    return p.found;
}

/* The slot while it still holds the image's session; inside a section. */
static struct slot *slot_for(struct context *c, const struct store_image *image, uint64_t *current,
                             const struct block **b)
{
    struct slot *slot = slot_at(c->shm, image->slot);
    if (!slot)
        return NULL;
    if (load_acquire(&slot->node.birth) > c->hi)
        rcu_extend(c);
    *b = record_in(c, slot, current);
    return *b && (*b)->handle == image->handle && (*b)->generation == image->generation ? slot : NULL;
}

/* Another binding is on top of the acknowledged one: this is what it would be rolled back to. */
static int edit_acked(struct context *c, const struct change *change, struct draft *d, void *arguments)
{
    const struct store_image *image = arguments;
    struct block *h = &d->head;
    if (h->generation != image->generation || /* removed and inserted since it was looked at */
        h->bound_version <= image->bound_version || change->acked ||
        ((h->flags & BLOCK_ACKED) && d->acked_version >= image->bound_version))
        return CHANGE_NONE;
    size_t length = strlen(image->player);
    h->flags |= BLOCK_ACKED;
    h->acked_state = (uint8_t)image->state;
    h->acked_length = (uint8_t)length;
    h->acked_hash = length ? record_player_hash(c->shm, image->player, length) : 0;
    d->acked = image->player;
    d->acked_version = image->bound_version;
    return SESSTAB_OK;
}

static bool put_below(struct context *c, struct slot *slot, const struct store_image *image)
{
    struct change change;
    hint_ref hint = { 0 };
    size_t length = strlen(image->player);
    uint32_t hash = length ? record_player_hash(c->shm, image->player, length) : 0;
    if (hash && hint_arm(c, hash, image->slot, &hint) != SESSTAB_OK)
        return false;
    int result = session_change_slot(c, slot, image->handle, edit_acked, (void *)image, &change);
    if (hash) {
        hint_settle(c, hint);
        hint_collect(c, hash, image->slot);
    }
    announce(c, slot);
    return result == SESSTAB_OK || result == CHANGE_NONE || result == SESSTAB_NOTFOUND;
}

/*
 * Makes sure that nobody rolls back behind the image's binding, before anybody is told that it is
 * durable.  Either the record holds that binding: it is marked ACKED, and a change that was drafted
 * without knowing fails its CAS and is drafted again.  Or another binding is on top: the record
 * learns what to go back to.  Killed in between, it is marked and not durable: Redis has it, so
 * that is true as well.  False: no memory.
 */
static bool secure_binding(struct context *c, struct slot *slot, const struct store_image *image)
{
    for (;;) {
        uint64_t current;
        const struct block *b = record_in(c, slot, &current);
        if (!b || b->generation != image->generation || (current & (CURRENT_TOMB | CURRENT_ACKED)) ||
            b->bound_version < image->bound_version)
            return true; /* gone, marked already, or rolled back */
        if (b->bound_version == image->bound_version) {
            if (cas_exact(&slot->current, current, current | CURRENT_ACKED)) /* COMMIT: acknowledged */
                return true;
            continue;
        }
        return put_below(c, slot, image);
    }
}

/* A late acknowledgement, from before a loss, takes nothing back that was acknowledged since. */
static void raise_durable(struct context *c, struct slot *slot, const struct store_image *image)
{
    uint64_t seen = load_relaxed(&slot->durable), next = DURABLE_WORD(image->incarnation, image->version);
    do {
        uint32_t of = DURABLE_INCARNATION(seen);
        if (of == image->incarnation ? DURABLE_VERSION(seen) >= image->version
                                     : of == load_relaxed(&c->shm->header->incarnation))
            return;
    } while (!cas(&slot->durable, &seen, next)); /* COMMIT: durable */
}

static void raise_seen(struct slot *slot, const struct store_image *image, const struct block *b)
{
    bool new = DURABLE_VERSION(load_relaxed(&slot->durable)) < b->born_version;
    if (new)
        store_relaxed(&slot->durable_seen, image->last_seen); /* not the earlier session's */
    else
        raise_to(&slot->durable_seen, image->last_seen);
}

/* Redis has deleted it: unless somebody revived it, the tombstone dies. */
static void ack_delete(struct context *c, struct slot *slot, const struct store_image *image,
                       uint64_t current, const struct block *b)
{
    if (!(current & CURRENT_TOMB) || b->version + 1 != image->version)
        return;
    block_ref r = CURRENT_BLOCK(current);
    uint64_t dead = CURRENT_WORD((block_ref){ 0 }, image->version, 0);
    own_publish(&block_at(c->shm, r)->own);
    if (!cas_exact(&slot->current, current, dead)) /* COMMIT: dead */
        return;
    uint64_t own = load_acquire(&block_at(c->shm, r)->own);
    if (OWN_STATE(own) == OWN_LIVE)
        heap_retire(c, RETIRED_BLOCK, r.at, &block_at(c->shm, r)->own, own);
    recover_bury(c, image->slot);
}

/* False: it can't be said yet. */
static bool ack_slot(struct context *c, struct slot *slot, const struct store_image *image,
                     uint64_t current, const struct block *b)
{
    if (image->kind == STORE_PUT && image->pending && !secure_binding(c, slot, image))
        return false;
    raise_seen(slot, image, b);
    if (image->kind != STORE_TOUCH)
        raise_durable(c, slot, image);
    if (image->kind == STORE_DELETE)
        ack_delete(c, slot, image, current, b);
    return true;
}

void store_ack(struct store *s, const struct store_image *image)
{
    struct context *c = store_context(s);
    if (!c || image->kind == STORE_NOTHING) {
        store_let_go(s, image);
        return;
    }
    if (store_is_late(s)) { /* Redis had it then; what Redis has now is the successor's to say */
        store_retry(s, image);
        return;
    }
    uint64_t current, now;
    const struct block *b, *after;
    struct speaking p = { .image = image };
    rcu_enter(c);
    struct slot *slot = slot_for(c, image, &current, &b);
    bool said = !slot || ack_slot(c, slot, image, current, b);
    if (said) { /* by the record of now: a late leader's binding may have been rolled back */
        p.record = slot && slot_for(c, image, &now, &after) ? after : NULL;
        tickets_each_chained(s, image, speak, &p);
    }
    rcu_exit(c);
    store_let_go(s, image);
    if (said)
        add_relaxed(&s->table->shm.header->durable_writes, 1);
    else
        store_retry(s, image);
}

void store_ack_binding(struct store *s, const struct store_image *image)
{
    struct context *c = store_context(s);
    uint64_t current;
    const struct block *b;
    if (!c || store_is_late(s))
        return;
    struct speaking p = { .image = image, .bindings_only = true };
    rcu_enter(c);
    struct slot *slot = slot_for(c, image, &current, &b);
    bool said = !slot || !image->pending || secure_binding(c, slot, image);
    if (said) {
        p.record = slot && slot_for(c, image, &current, &b) ? b : NULL;
        tickets_each_chained(s, image, speak, &p);
    }
    rcu_exit(c);
}

/* ---------------------------------------------------------------- refusing ---------------- */

static bool deny(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    struct speaking *p = context;
    uint64_t version = load_relaxed(&k->version);
    if (ticket_kind_of(k) == TICKET_CHANGE && same_session(k, p->image) && version <= p->image->version &&
        version > p->kept) {
        ticket_say(s, index, word, TICKET_REFUSED);
        p->denied++;
    }
    return true;
}

unsigned store_deny(struct store *s, const struct store_image *image, uint64_t held)
{
    struct speaking p = { .image = image, .kept = held };
    if (!store_is_late(s))
        tickets_each_chained(s, image, deny, &p);
    return p.denied;
}

struct roll_back {
    const struct store_image *image;
    uint64_t held; /* what Redis has of the session is of this version */
    uint64_t kept; /* bindings up to this version are not refused with the image's */
};

static int edit_roll_back(struct context *c, const struct change *change, struct draft *d,
                          void *arguments)
{
    struct roll_back *r = arguments;
    const struct store_image *image = r->image;
    struct block *h = &d->head;
    (void)c;
    /* What is gone back to was acknowledged, though a leader may have died before `durable` said so. */
    r->kept = DURABLE_VERSION(change->durable);
    if ((h->flags & BLOCK_ACKED) && d->acked_version > r->kept)
        r->kept = d->acked_version;
    /* Another binding on top of it is judged for itself. */
    if (h->bound_version != image->bound_version || change->acked || r->held > r->kept)
        return CHANGE_NONE;
    bool acked = h->flags & BLOCK_ACKED;
    d->player = acked ? d->acked : "";
    h->player_length = acked ? h->acked_length : 0;
    h->player_hash = acked ? h->acked_hash : 0;
    h->state = acked ? h->acked_state : SESSTAB_CONNECTED;
    h->flags = (uint8_t)((h->flags & ~BLOCK_ACKED) | BLOCK_FINAL);
    h->refused_version = h->bound_version;
    h->bound_version = r->kept;
    return SESSTAB_OK;
}

/*
 * Nothing may be refused: Redis has something that would be refused with the image's binding, and that was
 * never acknowledged; or another leader's acknowledgement came between.
 */
static bool is_spared(const struct change *change, const struct roll_back *r)
{
    return r->held > r->kept ||
           (change->acked && change->old->bound_version == r->image->bound_version);
}

bool store_refuse(struct store *s, const struct store_image *image, uint64_t held)
{
    struct context *c = store_context(s);
    if (!c || store_is_late(s))
        return false;
    uint64_t current;
    const struct block *b;
    struct change change;
    struct roll_back r = { .image = image, .held = held };
    int result = SESSTAB_OK;
    rcu_enter(c);
    struct slot *slot = slot_for(c, image, &current, &b);
    if (slot && (current & CURRENT_TOMB))
        slot = NULL; /* removed: those who wait are told so */
    if (slot && (DURABLE_VERSION(load_acquire(&slot->durable)) >= image->bound_version ||
                 (b->bound_version == image->bound_version &&
                  ((current & CURRENT_ACKED) || (b->flags & BLOCK_FINAL))))) {
        rcu_exit(c); /* OK was said once, whatever became of Redis since: that stays said */
        return false;
    }
    if (slot) {
        uint32_t player = b->player_hash;
        result = session_change_slot(c, slot, image->handle, edit_roll_back, &r, &change);
        if (result == CHANGE_NONE && is_spared(&change, &r)) {
            rcu_exit(c);
            return false;
        }
        if (result == SESSTAB_OK && player)
            hint_collect(c, player, image->slot);
        announce(c, slot);
    }
    rcu_exit(c);
    if (result == SESSTAB_NOTFOUND)
        slot = NULL; /* removed meanwhile */
    else if (result != SESSTAB_OK && result != CHANGE_NONE)
        return false;
    add_relaxed(&c->shm->header->refusals, 1);
    struct speaking p = { .image = image, .refuse = true, .bindings_only = true,
                          .record = slot ? b : NULL, .kept = r.kept };
    tickets_each_chained(s, image, speak, &p);
    store_let_go(s, image);
    tickets_collect(s); /* who posted before the roll-back is told now, who comes later is judged */
    tickets_each_waiting(s, speak, &p);
    return true;
}

void store_retry(struct store *s, const struct store_image *image)
{
    store_let_go(s, image);
    store_set_dirty(&s->table->shm, image->slot);
    store_scan_everything(s);
}

void store_forget(struct store *s, const struct store_image *image)
{
    struct context *c = store_context(s);
    uint64_t current;
    const struct block *b;
    store_let_go(s, image);
    if (!c)
        return;
    rcu_enter(c);
    struct slot *slot = slot_for(c, image, &current, &b);
    if (slot) {
        uint64_t seen = load_relaxed(&slot->durable); /* incarnation 0 is nobody's */
        cas_exact(&slot->durable, seen, DURABLE_WORD(0, DURABLE_VERSION(seen)));
    }
    rcu_exit(c);
    store_retry(s, image);
}
