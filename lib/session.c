/*
 * Sessions: insert, find, get, touch, state, remove, and the one way in which a live one changes.
 *
 *                insert: index CAS             remove, STORED: current CAS
 *      absent ---------------------> live --------------------------> tombstone
 *         ^                          |  ^                              |      |
 *         |                          |  +--- insert: current CAS ------+      | Redis has deleted it
 *         |      remove, not STORED: |           (next generation)            | (persister): current CAS
 *         |              current CAS v                                        v
 *         +---- marked, unlinked -- dead <------------------------------------+
 *
 *   a crash leaves         and
 *   live, not announced    the leader's sweep after a death finds version != durable
 *   tombstone, not ann.    the same
 *   dead, still linked     whoever inserts the handle, or the sweep, buries it
 */
#include "lib/ticket.h"

#include "shm/recover.h"

/* ---------------------------------------------------------------- reading ------------------- */

bool slot_hold(struct context *c, slot_ref r)
{
    struct slot *s = slot_at(c->shm, r);
    uint64_t life = s ? load_acquire(&s->node.life) : 0;
    if (OWN_STATE(life) != OWN_LIVE && OWN_STATE(life) != OWN_OWNED)
        return false;
    if (load_acquire(&s->node.birth) > c->hi)
        rcu_extend(c);
    if (load_acquire(&s->node.birth) > c->hi) /* reused just now, or damaged */
        return false;
    if (OWN_STATE(life) == OWN_OWNED) {
        if (!index_reaches(c, INDEX_HANDLES, r.at))
            return false; /* about to be inserted, or given up */
        own_publish(&s->node.life);
    }
    uint64_t now = load_acquire(&s->node.life);
    return OWN_SEQ(now) == OWN_SEQ(life) && OWN_STATE(now) == OWN_LIVE;
}

/* The slot S of a handle holds no record that can be read: does it end the search, or is it damaged? */
static int without_record(const struct slot *s, uint64_t current)
{
    return CURRENT_BLOCK(current).at || s == INDEX_DAMAGED ? SESSTAB_CORRUPT : SESSTAB_NOTFOUND;
}

int session_view(struct context *c, struct slot *s, uint64_t handle, sesstab_view *v)
{
    /* Before the record: else what was acknowledged later, a roll-back perhaps, would speak for it. */
    uint64_t current, durable = load_acquire(&s->durable);
    const struct block *b = record_in(c, s, &current);
    if (unlikely(!b))
        return without_record(s, current);
    if (current & CURRENT_TOMB)
        return SESSTAB_NOTFOUND;
    if (unlikely(!record_view(c->shm, b, handle, v) || !current_is_of(current, v->version)))
        return SESSTAB_CORRUPT;
    v->last_seen = record_last_seen(s, b);
    v->pending = record_pending(c->shm, durable, b);
    return SESSTAB_OK;
}

static __attribute__((noinline)) int find_further(struct context *c, uint64_t handle, sesstab_view *v)
{
    struct slot *s = index_lookup_further(c, handle);
    if (!s)
        return SESSTAB_NOTFOUND;
    return likely(session_view_usual(c, c->shm, s, handle, v)) ? SESSTAB_OK : session_view(c, s, handle, v);
}

/* What is not as usual is left to find_further(), from the beginning. */
INLINE int find(struct context *c, struct shm *shm, uint64_t handle, sesstab_view *v)
{
    struct slot *s;
    if (likely(index_lookup_near(c, shm, handle, &s) && session_view_usual(c, shm, s, handle, v)))
        return SESSTAB_OK;
    return find_further(c, handle, v);
}

static __attribute__((noinline)) int outside_section(sesstab *t)
{
    int result = SESSTAB_INVALID;
    context_for(t, &result);
    return result;
}

int sesstab_find(sesstab *t, uint64_t handle, sesstab_view *view)
{
    struct context *c = context_known(&t->shm);
    if (unlikely(!c || !c->depth))
        return outside_section(t);
    return find(c, &t->shm, handle, view);
}

/* ---------------------------------------------------------------- reading many -------------- */

/* So many are on their way from memory at once; a bucket's further nodes are followed so far. */
enum { GROUP = 32, HOPS = 3 };

/* The slot that WORD leads to, asked for; NULL: none, or nothing to prepare for. */
static struct slot *prefetch_slot(struct shm *shm, uint64_t word)
{
    struct slot *s;
    if (word == 0 || (word & (LINK_HEAD | LINK_CLAIMED)) || !slot_known(shm, (slot_ref){ LINK_REF(word) }, &s))
        return NULL;
    __builtin_prefetch(s);
    return s;
}

static void prefetch_record(struct shm *shm, struct slot *s)
{
    struct block *b;
    block_known(shm, CURRENT_BLOCK(load_relaxed(&s->current)), &b);
    __builtin_prefetch(b);
    __builtin_prefetch(&b->born_version);
}

/*
 * Asks for the cache lines of a group in the order in which a lookup needs them, each time for all.
 * What is read here only says where to look next: find() checks it.
 */
static void prefetch_group(struct shm *shm, const uint64_t *handles, size_t count)
{
    atomic_u64 *heads[GROUP];
    struct slot *slots[GROUP];
    uint64_t mask = index_mask(shm, INDEX_HANDLES);
    for (size_t i = 0; i < count; i++) {
        heads[i] = &shm->handles[hash_of_handle(shm, handles[i]) & mask];
        __builtin_prefetch(heads[i]);
    }
    for (size_t i = 0; i < count; i++)
        slots[i] = prefetch_slot(shm, load_relaxed(heads[i]));
    for (unsigned hop = 0; hop < HOPS; hop++)
        for (size_t i = 0; i < count; i++) {
            struct slot *s = slots[i];
            if (!s)
                continue;
            bool there = load_relaxed(&s->node.key) == handles[i];
            if (there)
                prefetch_record(shm, s);
            slots[i] = there ? NULL : prefetch_slot(shm, load_relaxed(&s->node.next));
        }
}

size_t sesstab_find_many(sesstab *t, const uint64_t *handles, size_t count, sesstab_view *views,
                         int *results)
{
    struct context *c = context_known(&t->shm);
    int outside = unlikely(!c || !c->depth) ? outside_section(t) : SESSTAB_OK;
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (i % GROUP == 0 && !outside)
            prefetch_group(&t->shm, handles + i, count - i < GROUP ? count - i : GROUP);
        results[i] = outside ? outside : find(c, &t->shm, handles[i], &views[i]);
        found += results[i] == SESSTAB_OK;
    }
    return found;
}

/* ---------------------------------------------------------------- copying ------------------- */

static const char *moved(const char *p, const char *from, const char *to)
{
    return to + (p - from);
}

/* Copies the record behind its fixed part, and points the view there. */
static int copy_out(sesstab_view *v, char *buffer, size_t *size)
{
    const char *from = v->player;
    size_t bytes = (size_t)((const char *)v->metadata_ + v->metadata_length_ - from), room = *size;
    *size = bytes;
    if (bytes > room)
        return SESSTAB_TOOBIG;
    memcpy(buffer, from, bytes);
    v->player = buffer;
    v->address = moved(v->address, from, buffer);
    v->host = moved(v->host, from, buffer);
    v->type = moved(v->type, from, buffer);
    v->metadata_ = moved(v->metadata_, from, buffer);
    return record_terminated(v) ? SESSTAB_OK : SESSTAB_CORRUPT;
}

int sesstab_get(sesstab *t, uint64_t handle, sesstab_view *view, void *buffer, size_t *size)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (unlikely(!c))
        return result;
    rcu_enter(c);
    result = find(c, &t->shm, handle, view);
    if (result == SESSTAB_OK)
        result = copy_out(view, buffer, size);
    rcu_exit(c);
    return result;
}

/* ---------------------------------------------------------------- changing ------------------ */

void draft_next(struct context *c, const struct change *change, struct draft *d)
{
    (void)c;
    d->head.version = change->version;
    if (change->acked) /* nothing to roll back to is needed any more */
        d->head.flags = (uint8_t)((d->head.flags & ~BLOCK_ACKED) | BLOCK_FINAL);
}

/* A claimed block for the draft: the one of the last attempt if it is large enough. */
static int claim_for(struct context *c, const struct draft *d, block_ref *r)
{
    size_t size = record_size(d);
    if (size > SESSTAB_RECORD_MAX || d->head.metadata_count + d->pair_count + 1 > UINT16_MAX)
        return SESSTAB_TOOBIG;
    if (r->at && block_bytes(c->shm, *r) >= size)
        return SESSTAB_OK;
    if (r->at)
        heap_unclaim(c, RETIRED_BLOCK, r->at);
    r->at = 0;
    int error = heap_claim_block(c, (uint32_t)size, r);
    return likely(error == 0) ? SESSTAB_OK : error_of(error);
}

static void write_block(struct context *c, block_ref r, const struct draft *d, slot_ref slot)
{
    struct block *b = block_at(c->shm, r);
    record_write(d, b);
    b->slot = slot.at;
}

/*
 * Slot and record name each other, and the record is a block's: only then is replacing it a matter of
 * this session alone.  (Else the block may be another session's: it must not be retired.)
 */
static bool stands_in(struct context *c, const struct slot *s, uint64_t current, const struct block *b)
{
    return b->slot == slot_ref_of(c->shm, s).at && record_is_current(current, b) &&
           block_ref_valid(c->shm, CURRENT_BLOCK(current));
}

/* The record that was current until our CAS: nobody can reach it any more. */
static void retire_old(struct context *c, block_ref r)
{
    struct block *b = block_at(c->shm, r);
    uint64_t own = load_acquire(&b->own);
    if (OWN_STATE(own) == OWN_LIVE)
        heap_retire(c, RETIRED_BLOCK, r.at, &b->own, own);
}

/* One try to put the draft where `seen` stands. */
static bool publish(struct context *c, struct slot *s, uint64_t seen, block_ref r, uint64_t version)
{
    own_publish(&block_at(c->shm, CURRENT_BLOCK(seen))->own);
    uint64_t next = CURRENT_WORD(r, version, seen & CURRENT_STORED);
    if (!cas_exact(&s->current, seen, next)) /* COMMIT: the change is made */
        return false;
    own_publish(&block_at(c->shm, r)->own);
    retire_old(c, CURRENT_BLOCK(seen));
    return true;
}

int session_change_slot(struct context *c, struct slot *s, uint64_t handle, change_fn *edit,
                        void *arguments, struct change *change)
{
    block_ref mine = { 0 };
    int result;
    for (;;) {
        uint64_t current;
        struct draft d;
        change->slot = s;
        change->durable = load_acquire(&s->durable);
        change->old = record_in(c, s, &current);
        result = change->old ? SESSTAB_NOTFOUND : without_record(s, current);
        if (!change->old || (current & CURRENT_TOMB))
            break;
        record_prefetch_rest(change->old);
        result = SESSTAB_CORRUPT;
        if (!record_draft(c->shm, change->old, handle, &d) || !stands_in(c, s, current, &d.head))
            break;
        change->version = d.head.version + 1;
        change->generation = d.head.generation;
        change->pending = record_unwritten(c->shm, change->durable, &d.head);
        change->acked = (current & CURRENT_ACKED) || (d.head.flags & BLOCK_FINAL) ||
                        DURABLE_VERSION(change->durable) >= d.head.bound_version;
        draft_next(c, change, &d);
        if ((result = edit(c, change, &d, arguments)) || (result = claim_for(c, &d, &mine)))
            break;
        write_block(c, mine, &d, slot_ref_of(c->shm, s));
        if (publish(c, s, current, mine, change->version))
            return SESSTAB_OK;
    }
    if (mine.at)
        heap_unclaim(c, RETIRED_BLOCK, mine.at);
    return result;
}

int session_change(sesstab *t, uint64_t handle, change_fn *edit, void *arguments,
                   struct change *change)
{
    struct change unused;
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (unlikely(!c))
        return result;
    do {
        rcu_enter(c);
        struct slot *s = index_lookup(c, handle);
        result = s ? session_change_slot(c, s, handle, edit, arguments, change ? change : &unused)
                   : SESSTAB_NOTFOUND;
        if (result == SESSTAB_OK)
            announce(c, s);
        rcu_exit(c);
    } while (relieved(c, result));
    return result == CHANGE_NONE ? SESSTAB_OK : result;
}

/* ---------------------------------------------------------------- insert -------------------- */

bool text_fits(const char **text, size_t max, uint8_t *length)
{
    if (!*text)
        *text = "";
    size_t n = strlen(*text);
    *length = (uint8_t)n;
    return n <= max;
}

static int check_pairs(const sesstab_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!pairs[i].key || !pairs[i].key[0] || (!pairs[i].value && pairs[i].length))
            return SESSTAB_INVALID;
        if (strlen(pairs[i].key) > SESSTAB_KEY_MAX || pairs[i].length > SESSTAB_RECORD_MAX)
            return SESSTAB_TOOBIG;
        for (size_t k = 0; k < i; k++)
            if (pairs[i].key[0] == pairs[k].key[0] && strcmp(pairs[i].key, pairs[k].key) == 0)
                return SESSTAB_INVALID;
    }
    return SESSTAB_OK;
}

/* The first version of a slot's next life: above all its earlier ones (their low bits are all that
 * is left, beside what was acknowledged). */
static uint64_t first_version(const struct context *c, const struct slot *s)
{
    uint64_t current = load_relaxed(&s->current), mask = (UINT64_C(1) << CURRENT_VERSION_BITS) - 1;
    if (current == 0)
        return c->shm->header->first_version;
    uint64_t durable = DURABLE_VERSION(load_relaxed(&s->durable));
    uint64_t version = (durable & ~mask) | CURRENT_LOW(current);
    return (version < durable ? version + mask + 1 : version) + 1;
}

/* Until the table is loaded, Redis may hold any handle; in mode MEMORY nobody asks. */
static uint64_t stored_flag(struct context *c, bool from_store)
{
    bool ready = load_acquire(&c->shm->header->ready);
    return from_store || (!ready && shm_mode(c->shm) != MODE_MEMORY) ? CURRENT_STORED : 0;
}

static void born_at(struct draft *d, uint64_t version)
{
    d->head.version = d->head.born_version = d->head.shrunk_version = version;
    d->head.bound_version = 0;
}

static void fill_slot(struct context *c, struct slot *s, const struct draft *d, block_ref r,
                      uint64_t last_seen, bool from_store, bool durable)
{
    uint64_t incarnation = load_relaxed(&c->shm->header->incarnation);
    store_relaxed(&s->node.key, d->head.handle);
    store_relaxed(&s->last_seen, last_seen);
    store_relaxed(&s->durable, durable ? DURABLE_WORD(incarnation, d->head.born_version) : 0);
    store_relaxed(&s->durable_seen, durable ? last_seen : 0);
    store_release(&s->current, CURRENT_WORD(r, d->head.version, stored_flag(c, from_store)));
}

/* EXISTS: somebody linked the handle before us; look again.  CORRUPT: the list is damaged. */
static int insert_new(struct context *c, struct draft *d, uint64_t last_seen, bool from_store)
{
    slot_ref slot;
    block_ref r = { 0 };
    int result = error_of(heap_claim_slot(c, &slot));
    if (result)
        return result;
    struct slot *s = slot_at(c->shm, slot);
    /* What the store has keeps its version, unless the slot was used: then it is written anew, newer than both. */
    bool durable = from_store && !load_relaxed(&s->current);
    if (!durable) {
        uint64_t first = first_version(c, s);
        born_at(d, from_store && first <= d->head.version ? d->head.version + 1 : first);
    }
    if ((result = claim_for(c, d, &r))) {
        heap_unclaim(c, RETIRED_SLOT, slot.at);
        return result;
    }
    write_block(c, r, d, slot);
    fill_slot(c, s, d, r, last_seen, from_store, durable);
    struct node *twin;
    if (!index_insert(c, INDEX_HANDLES, slot.at, false, &twin)) {
        /* Walkers may be looking at the slot, so it takes its grace period. */
        store_release(&s->current, CURRENT_WORD((block_ref){ 0 }, d->head.version, 0));
        heap_unclaim(c, RETIRED_BLOCK, r.at);
        heap_retire(c, RETIRED_SLOT, slot.at, &s->node.life, load_relaxed(&s->node.life));
        return twin ? SESSTAB_EXISTS : SESSTAB_CORRUPT;
    }
    own_publish(&s->node.life);
    own_publish(&block_at(c->shm, r)->own);
    announce(c, s);
    return SESSTAB_OK;
}

/* The handle's tombstone becomes the new session.  EXISTS: it changed meanwhile; look again. */
static int revive(struct context *c, struct slot *s, uint64_t current, const struct block *old,
                  struct draft *d, uint64_t last_seen)
{
    block_ref r = { 0 };
    born_at(d, old->version + 2); /* the tombstone is old + 1 */
    int result = claim_for(c, d, &r);
    if (result)
        return result;
    write_block(c, r, d, slot_ref_of(c->shm, s));
    uint64_t seen = load_relaxed(&s->last_seen);
    if (!publish(c, s, current, r, d->head.version)) {
        heap_unclaim(c, RETIRED_BLOCK, r.at);
        return SESSTAB_EXISTS;
    }
    cas_exact(&s->last_seen, seen, last_seen); /* unless the new session was touched already */
    announce(c, s);
    return SESSTAB_OK;
}

int session_insert(struct context *c, struct draft *d, uint64_t last_seen, bool from_store)
{
    for (;;) {
        uint64_t current;
        struct slot *s = index_lookup(c, d->head.handle);
        if (!s) {
            int result = insert_new(c, d, last_seen, from_store);
            if (result != SESSTAB_EXISTS)
                return result;
            continue;
        }
        const struct block *b = record_in(c, s, &current);
        if (!CURRENT_BLOCK(current).at) {
            if (s != INDEX_DAMAGED)
                recover_bury(c, slot_ref_of(c->shm, s));
            if (s == INDEX_DAMAGED || index_lookup(c, d->head.handle) == s)
                return SESSTAB_CORRUPT; /* it can't be unlinked */
            continue;
        }
        if (!(current & CURRENT_TOMB) || from_store)
            return SESSTAB_EXISTS;
        if (!b || b->handle != d->head.handle || !stands_in(c, s, current, b))
            return SESSTAB_CORRUPT;
        int result = revive(c, s, current, b, d, last_seen);
        if (result != SESSTAB_EXISTS)
            return result;
    }
}

static int draft_of_info(struct context *c, const sesstab_info *info, struct draft *d)
{
    struct block *h = &d->head;
    draft_clear(d);
    d->player = "";
    d->address = info->address;
    d->host = info->host;
    d->type = info->type;
    d->pairs = info->metadata;
    d->pair_count = info->metadata_count;
    if (!text_fits(&d->address, SESSTAB_ADDRESS_MAX, &h->address_length) ||
        !text_fits(&d->host, SESSTAB_HOST_MAX, &h->host_length) ||
        !text_fits(&d->type, SESSTAB_TYPE_MAX, &h->type_length))
        return SESSTAB_TOOBIG;
    if (d->pair_count > SESSTAB_RECORD_MAX)
        return SESSTAB_TOOBIG;
    int result = check_pairs(d->pairs, d->pair_count);
    if (result)
        return result;
    d->pairs_size = record_pairs_size(d->pairs, d->pair_count);
    if (record_size(d) > SESSTAB_RECORD_MAX)
        result = SESSTAB_TOOBIG;
    h->connected_at = info->connected_at ? info->connected_at : shm_now();
    h->owner = c->worker;
    h->state = SESSTAB_CONNECTED;
    return result;
}

static int insert_assigned(struct context *c, uint64_t *handle, struct draft *d)
{
    int result;
    do {
        d->head.handle = atomic_fetch_add(&c->shm->header->next_handle, 1);
        result = session_insert(c, d, d->head.connected_at, false);
    } while (result == SESSTAB_EXISTS);
    if (result == SESSTAB_OK)
        *handle = d->head.handle;
    return result;
}

/* ---------------------------------------------------------------- touch --------------------- */

int sesstab_touch(sesstab *t, uint64_t handle, uint64_t now)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (unlikely(!c))
        return result;
    if (!now)
        now = shm_now();
    rcu_enter(c);
    struct slot *s = index_lookup(c, handle);
    uint64_t current = s ? load_acquire(&s->current) : 0;
    if (unlikely(!CURRENT_BLOCK(current).at || (current & CURRENT_TOMB))) {
        result = s == INDEX_DAMAGED ? SESSTAB_CORRUPT : SESSTAB_NOTFOUND;
    } else if (load_relaxed(&s->last_seen) < now) {
        store_relaxed(&s->last_seen, now); /* COMMIT; see record_last_seen() for late ones */
        announce(c, s);
    }
    rcu_exit(c);
    return result;
}

/* ---------------------------------------------------------------- state --------------------- */

struct state_arguments {
    sesstab_state wanted, before;
    bool wait;
    worker_id owner;     /* before */
    uint64_t generation, version; /* of the change */
};

static bool state_allowed(sesstab_state wanted, bool bound)
{
    return wanted == SESSTAB_DETACHED || bound == (wanted == SESSTAB_LOGGED_IN);
}

static int edit_state(struct context *c, const struct change *change, struct draft *d, void *arguments)
{
    struct state_arguments *a = arguments;
    a->before = (sesstab_state)d->head.state;
    a->owner = d->head.owner;
    a->generation = d->head.generation;
    if (!state_allowed(a->wanted, d->head.player_length != 0))
        return SESSTAB_INVALID;
    if (a->before == a->wanted && !a->wait)
        return CHANGE_NONE; /* else it is published, so that nobody takes back what is there (CONFLICT) */
    if (a->before == SESSTAB_DETACHED)
        d->head.owner = c->worker;
    d->head.state = (uint8_t)a->wanted;
    a->version = change->version;
    return SESSTAB_OK;
}

/* Redis refused it: back to what was.  A state does not say who has set it, so this is known only while
 * nobody has changed the session. */
static int edit_state_back(struct context *c, const struct change *change, struct draft *d,
                           void *arguments)
{
    const struct state_arguments *a = arguments;
    (void)c;
    if (change->generation != a->generation)
        return CHANGE_NONE;
    if (change->version != a->version + 1)
        return SESSTAB_CONFLICT;
    d->head.state = (uint8_t)a->before;
    d->head.owner = a->owner;
    return SESSTAB_OK;
}

int sesstab_set_state(sesstab *t, uint64_t handle, sesstab_state state, sesstab_state *old)
{
    struct state_arguments a = { .wanted = state };
    if ((unsigned)state >= SESSTAB_STATE_COUNT)
        return SESSTAB_INVALID;
    struct change change;
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    a.wait = c && change_waits(c, false);
    result = session_change(t, handle, edit_state, &a, &change);
    if (result == SESSTAB_OK && old) /* whatever becomes of it */
        *old = a.before;
    if (result != SESSTAB_OK || !a.wait)
        return result;
    return change_settle(t, handle, &change, edit_state_back, &a);
}

/* ---------------------------------------------------------------- remove -------------------- */

static void collect_hints(struct context *c, struct slot *s, uint32_t player, uint32_t acked)
{
    slot_ref r = slot_ref_of(c->shm, s);
    if (player)
        hint_collect(c, player, r);
    if (acked && acked != player)
        hint_collect(c, acked, r);
}

/*
 * The record is damaged, or another session's.  If Redis may hold the handle an empty record takes its
 * place, as a tombstone; else none does.  What stood there is left alone: if it is a record that
 * nothing leads to now, the sweep finds it.  CONFLICT: it changed meanwhile.
 */
static int remove_damaged(struct context *c, struct slot *s, uint64_t handle, uint64_t current)
{
    bool stored = current & CURRENT_STORED;
    struct draft d = { .player = "", .address = "", .host = "", .type = "" };
    block_ref r = { 0 };
    d.head.handle = handle;
    d.head.generation = atomic_fetch_add(&c->shm->header->next_generation, 1);
    born_at(&d, first_version(c, s));
    int result = stored ? claim_for(c, &d, &r) : SESSTAB_OK;
    if (result)
        return result;
    if (stored)
        write_block(c, r, &d, slot_ref_of(c->shm, s));
    uint64_t next = CURRENT_WORD(r, d.head.version + 1, stored ? CURRENT_STORED | CURRENT_TOMB : 0);
    if (!cas_exact(&s->current, current, next)) { /* COMMIT: removed */
        if (stored)
            heap_unclaim(c, RETIRED_BLOCK, r.at);
        return SESSTAB_CONFLICT;
    }
    if (stored) {
        own_publish(&block_at(c->shm, r)->own);
        announce(c, s);
    } else {
        recover_bury(c, slot_ref_of(c->shm, s));
    }
    store_relaxed(&c->shm->header->sweep_wanted, 1);
    return SESSTAB_OK;
}

/* What is removed, and what became of it. */
struct removal {
    uint64_t only;       /* of this generation, if nobody has changed it; 0: whatever is there */
    slot_ref slot;
    uint64_t generation, version; /* of the tombstone; 0: there is none */
};

static int remove_slot(struct context *c, struct slot *s, uint64_t handle, struct removal *r)
{
    for (;;) {
        uint64_t current;
        const struct block *b = record_in(c, s, &current);
        if (!CURRENT_BLOCK(current).at)
            return without_record(s, current);
        if (!b || b->handle != handle || !stands_in(c, s, current, b)) {
            int result = r->only ? SESSTAB_CORRUPT : remove_damaged(c, s, handle, current);
            if (result != SESSTAB_CONFLICT)
                return result;
            continue;
        }
        if ((current & CURRENT_TOMB) || (r->only && r->only != b->generation))
            return SESSTAB_NOTFOUND;
        if (r->only && b->version != b->born_version)
            return SESSTAB_EXISTS;
        bool stored = current & CURRENT_STORED;
        uint32_t player = b->player_hash, acked = b->flags & BLOCK_ACKED ? b->acked_hash : 0;
        block_ref old = CURRENT_BLOCK(current), after = stored ? old : (block_ref){ 0 };
        uint64_t next = CURRENT_WORD(after, b->version + 1, stored ? CURRENT_STORED | CURRENT_TOMB : 0);
        own_publish(&block_at(c->shm, old)->own);
        r->slot = slot_ref_of(c->shm, s);
        r->generation = b->generation;
        r->version = stored ? b->version + 1 : 0;
        if (!cas_exact(&s->current, current, next)) /* COMMIT: removed */
            continue;
        if (stored)
            announce(c, s);
        else
            retire_old(c, old);
        collect_hints(c, s, player, acked);
        if (!stored)
            recover_bury(c, slot_ref_of(c->shm, s));
        return SESSTAB_OK;
    }
}

static int remove_handle(struct context *c, uint64_t handle, struct removal *r)
{
    int result;
    do {
        rcu_enter(c);
        struct slot *s = index_lookup(c, handle);
        result = s ? remove_slot(c, s, handle, r) : SESSTAB_NOTFOUND;
        rcu_exit(c);
    } while (relieved(c, result));
    return result;
}

int sesstab_remove(sesstab *t, uint64_t handle)
{
    int result = SESSTAB_OK;
    struct removal r = { 0 };
    struct context *c = context_for(t, &result);
    if (!c)
        return result;
    bool wait = change_waits(c, false);
    result = remove_handle(c, handle, &r);
    if (!wait || result != SESSTAB_OK || !r.version)
        return result;
    return change_await(t, &(struct wanted){ r.slot, handle, r.generation, r.version, TICKET_REMOVAL });
}

/* ---------------------------------------------------------------- inserting, and waiting ------ */

/* Waits for a new session; S: its slot, NULL when it is gone already. */
static int settle_insert(sesstab *t, struct slot *s, const struct draft *d)
{
    const struct block *h = &d->head;
    int result = SESSTAB_NOTFOUND;
    struct context *c = context_for(t, &result);
    if (s && s != INDEX_DAMAGED)
        result = change_await(t, &(struct wanted){ slot_ref_of(&t->shm, s), h->handle, h->generation,
                                                    h->version, TICKET_CHANGE });
    if (result != SESSTAB_REFUSED || !c)
        return result;
    int removed = remove_handle(c, h->handle, &(struct removal){ .only = h->generation });
    return removed == SESSTAB_OK || removed == SESSTAB_NOTFOUND ? SESSTAB_REFUSED : SESSTAB_UNKNOWN;
}

int sesstab_insert(sesstab *t, uint64_t *handle, const sesstab_info *info)
{
    const sesstab_info none = { 0 };
    struct draft d;
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (!c || (result = draft_of_info(c, info ? info : &none, &d)))
        return result;
    d.head.handle = *handle;
    d.head.generation = atomic_fetch_add(&t->shm.header->next_generation, 1);
    bool wait = change_waits(c, false);
    struct slot *s = NULL;
    do {
        rcu_enter(c);
        result = *handle ? session_insert(c, &d, d.head.connected_at, false)
                         : insert_assigned(c, handle, &d);
        if (wait && result == SESSTAB_OK)
            s = index_lookup(c, *handle); /* NULL: it was removed just now */
        rcu_exit(c);
    } while (relieved(c, result));
    return wait && result == SESSTAB_OK ? settle_insert(t, s, &d) : result;
}
