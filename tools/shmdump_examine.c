/*
 * The examiners: each looks at one thing by itself, and at what must agree with it.  Everything is
 * read anew on each call.
 */
#include "tools/shmdump_check.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum verdict say(char *text, enum verdict verdict, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, TEXT_BYTES, format, arguments);
    va_end(arguments);
    return verdict;
}

/* ------------------------------------------------------------------ workers ---------------- */

/* What WORKER holds is in order while it lives; TEXT names it otherwise. */
static enum verdict held_by(struct check *c, worker_id worker, char *text, const char *what)
{
    if (worker == 0) /* a thread ended before its grace period was over, and left it to the sweep */
        return say(text, ABANDONED, "%s is nobody's any more", what);
    if (!worker_id_valid(worker))
        return say(text, WRONG, "it is held by %" PRIu32 ", which is no worker", worker);
    if (worker_id_liveness(c->image, worker) == WORKER_DEAD)
        return say(text, ABANDONED, "%s of a dead worker", what);
    return FINE;
}

static enum verdict examine_worker(struct check *c, struct spot spot, char *text)
{
    struct worker w;
    image_read(c->image, c->image->at.workers + spot.at * sizeof w, &w, sizeof w);
    uint64_t generation = w.owner & ~WORKER_LIVE;
    if (generation >= 1u << WORKER_GEN_BITS || (w.owner & WORKER_LIVE && generation == 0))
        return say(text, WRONG, "its generation %" PRIu64 " is impossible", generation);
    if (w.owner & WORKER_LIVE && spot.at >= c->image->workers_used)
        return say(text, WRONG, "it is in use, beyond the %" PRIu32 " that the header counts",
                   c->image->workers_used);
    if (worker_liveness(c->image, (uint32_t)spot.at) == WORKER_DEAD)
        return say(text, ABANDONED, "a dead worker, not recovered yet");
    return FINE;
}

/* The era after what is compared with it was read: it only rises. */
static uint64_t era_now(struct check *c)
{
    return image_word(c->image, offsetof(struct header, era));
}

static enum verdict examine_thread(struct check *c, struct spot spot, char *text)
{
    struct thread t;
    image_read(c->image, c->image->at.threads + spot.at * sizeof t, &t, sizeof t);
    if (!(t.owner & THREAD_LIVE))
        return FINE;
    if (spot.at >= c->image->threads_used)
        return say(text, WRONG, "it is in use, beyond the %" PRIu32 " that the header counts",
                   c->image->threads_used);
    enum verdict verdict = held_by(c, THREAD_WORKER(t.owner), text, "a thread");
    if (verdict != FINE || t.lo == THREAD_IDLE)
        return verdict;
    uint64_t era = era_now(c);
    if (t.lo > t.hi || t.hi > era)
        return say(text, WRONG, "it reads eras %" PRIu64 " to %" PRIu64 ", the era is %" PRIu64,
                   t.lo, t.hi, era);
    return FINE;
}

static enum verdict examine_ring(struct check *c, struct spot spot, char *text)
{
    const uint32_t size = c->image->header.ring_entries;
    struct ring r;
    image_read(c->image, c->image->at.rings + spot.at * sizeof r, &r, sizeof r);
    if (r.ring.size == 0 && (r.ring.mask == 0 || r.ring.mask == size - 1))
        return FINE; /* never used, or whoever prepared it first was killed */
    if (r.ring.size != size || r.ring.mask != size - 1)
        return say(text, WRONG, "its size is %u, its mask %u; the table's rings have %" PRIu32
                   " entries", r.ring.size, r.ring.mask, size);
    uint32_t entries = r.ring.p_tail - r.ring.c_head;
    if (entries >= size)
        return say(text, WRONG, "it holds %" PRIu32 " entries of at most %" PRIu32, entries,
                   size - 1);
    for (uint32_t i = 0; i < entries; i++) {
        slot_ref ref = { r.entries[(r.ring.c_head + i) & (size - 1)].slot };
        if (!slot_place(c->image, ref))
            return say(text, WRONG, "it holds %" PRIu32 ", which is no slot", ref.at);
    }
    return FINE;
}

static worker_id group_holder(struct check *c, uint64_t group)
{
    worker_id holder;
    image_read(c->image, c->image->at.groups + group * sizeof holder, &holder, sizeof holder);
    return holder;
}

static enum verdict examine_ticket(struct check *c, struct spot spot, char *text)
{
    struct ticket t;
    image_read(c->image, c->image->at.tickets + spot.at * sizeof t, &t, sizeof t);
    uint32_t state = (uint32_t)t.word;
    if (state == TICKET_IDLE)
        return FINE;
    if (state > TICKET_UNKNOWN)
        return say(text, WRONG, "its state %" PRIu32 " is none", state);
    if (t.kind > TICKET_REMOVAL)
        return say(text, WRONG, "its kind %" PRIu64 " is none", (uint64_t)t.kind);
    if (!slot_place(c->image, (slot_ref){ t.slot }))
        return say(text, WRONG, "it waits for %" PRIu32 ", which is no slot", (uint32_t)t.slot);
    char user[WORKER_TEXT_BYTES], other[WORKER_TEXT_BYTES];
    worker_id holder = spot.at < THREADS ? t.owner : group_holder(c, (spot.at - THREADS) / GROUP_TICKETS);
    if (holder != t.owner)
        return say(text, WRONG, "worker %s uses it, and %s holds its group",
                   worker_text(t.owner, user), holder ? worker_text(holder, other) : "nobody");
    return held_by(c, t.owner, text, "a ticket");
}

static enum verdict examine_group(struct check *c, struct spot spot, char *text)
{
    worker_id holder = group_holder(c, spot.at);
    if (holder == 0)
        return FINE;
    if (spot.at >= c->image->groups_used)
        return say(text, WRONG, "it is held, beyond the %" PRIu32 " that the header counts",
                   c->image->groups_used);
    return held_by(c, holder, text, "a group of tickets");
}

/* ------------------------------------------------------------------ the heap --------------- */

static enum verdict examine_birth(struct check *c, uint64_t birth, char *text)
{
    if (birth <= c->image->header.era)
        return FINE;
    uint64_t era = era_now(c);
    if (birth <= era)
        return FINE;
    return say(text, WRONG, "it was born in era %" PRIu64 ", the era is %" PRIu64, birth, era);
}

static enum verdict examine_chunk(struct check *c, struct spot spot, char *text)
{
    struct chunk k;
    image_read(c->image, c->image->at.chunks + spot.at * sizeof k, &k, sizeof k);
    if (k.class >= CHUNK_CLASSES)
        return say(text, WRONG, "its class %" PRIu64 " is none", k.class);
    if (k.class == CHUNK_UNUSED && spot.at < c->image->chunks)
        return say(text, WRONG, "it is in use, but has no class");
    if (k.class != CHUNK_UNUSED && spot.at > c->image->chunks)
        return say(text, WRONG, "it has class %" PRIu64 ", but %" PRIu32 " chunks are in use",
                   k.class, c->image->chunks);
    for (unsigned i = 0; i < CHUNK_PAGES / 4; i++) {
        uint64_t places = k.class == CHUNK_SESSIONS ? UINT64_C(0x0fff0fff0fff0fff) : 0;
        if (k.dirty[i] & ~places)
            return say(text, WRONG, "dirty bits %016" PRIx64 " in word %u are not all slots",
                       k.dirty[i], i);
    }
    return FINE;
}

/* The record's block names its slot; does the slot name the block? */
static bool block_is_current(struct check *c, uint32_t slot, uint64_t block)
{
    struct slot s;
    uint64_t place = slot_place(c->image, (slot_ref){ slot });
    if (!place || !image_read(c->image, place, &s, sizeof s))
        return false;
    enum own_state state = OWN_STATE(s.node.life);
    return CURRENT_BLOCK(s.current).at == block && (state == OWN_LIVE || state == OWN_OWNED);
}

static enum verdict examine_block(struct check *c, struct spot spot, char *text)
{
    struct block b;
    size_t capacity;
    uint64_t place = block_place(c->image, (block_ref){ (uint32_t)spot.at }, &capacity);
    image_read(c->image, place, &b, sizeof b);
    switch (OWN_STATE(b.own)) {
    case OWN_FREE:
        return FINE;
    case OWN_LIVE:
        if (!block_is_current(c, b.slot, spot.at))
            return say(text, ABANDONED, "a replaced record that nobody retired");
        return examine_birth(c, b.birth, text);
    case OWN_OWNED:
    case OWN_RETIRED:
        return held_by(c, OWN_WORKER(b.own), text, OWN_STATE(b.own) == OWN_OWNED
                                                       ? "a claimed block" : "a retired block");
    }
    return say(text, WRONG, "its ownership word %016" PRIx64 " has no known state", b.own);
}

static enum verdict examine_hint(struct check *c, struct spot spot, char *text)
{
    struct node n;
    image_read(c->image, hint_place(c->image, (hint_ref){ (uint32_t)spot.at }), &n, sizeof n);
    worker_id worker = OWN_WORKER(n.life);
    switch (OWN_STATE(n.life)) {
    case OWN_FREE:
        return FINE;
    case OWN_LIVE:
        if (worker && held_by(c, worker, text, "a hint") != FINE)
            return say(text, ABANDONED, "a hint armed by a dead worker");
        if (!node_linked(c, &c->players, (uint32_t)spot.at, n.key))
            return say(text, ABANDONED, "a hint that is not linked");
        return examine_birth(c, n.birth, text);
    case OWN_OWNED:
    case OWN_RETIRED:
        return held_by(c, worker, text, OWN_STATE(n.life) == OWN_OWNED ? "a claimed hint"
                                                                       : "a retired hint");
    }
    return say(text, WRONG, "its ownership word %016" PRIx64 " has no known state", n.life);
}

/* ------------------------------------------------------------------ sessions --------------- */

static uint32_t player_hash(const struct image *image, const struct bytes *player)
{
    uint64_t seed = image->header.hash_seed;
    uint32_t hash = (uint32_t)XXH3_64bits_withSeed(player->at, player->length, seed);
    return hash ? hash : 1;
}

/* A record that is sound in itself: does the rest of the table agree with it? */
static enum verdict examine_session(struct check *c, const struct session *s, char *text)
{
    const struct block *b = &s->block;
    uint64_t durable = DURABLE_VERSION(s->slot.durable);
    if (durable > s->version)
        return say(text, WRONG, "version %" PRIu64 " is durable, but the session is at %" PRIu64,
                   durable, s->version);
    if (s->kind == SESSION_TOMB)
        return FINE;
    if (s->player.length && b->player_hash != player_hash(c->image, &s->player))
        return say(text, WRONG, "its player's hash is %" PRIu32 ", not %" PRIu32, b->player_hash,
                   player_hash(c->image, &s->player));
    if (s->player.length && !hint_linked(c, player_key(b->player_hash, s->ref)))
        return say(text, WRONG, "it is bound, but the index by player does not lead to it");
    if (b->owner && b->state != SESSTAB_DETACHED &&
        worker_id_liveness(c->image, b->owner) == WORKER_DEAD)
        return say(text, ABANDONED, "a session of a dead worker, not detached yet");
    return FINE;
}

/* A LIVE slot, or one that was just linked. */
static enum verdict examine_live(struct check *c, struct session *s, char *text)
{
    c->met = session_read(c->image, s->ref, s);
    switch (c->met) {
    case SESSION_DAMAGED:
        return say(text, WRONG, "handle %" PRIu64 ": %s", s->slot.node.key, s->why);
    case SESSION_LIVE:
    case SESSION_CLAIMED:
    case SESSION_TOMB:
        return examine_session(c, s, text);
    default:
        return FINE; /* gone meanwhile, or changing all the time */
    }
}

static enum verdict examine_slot(struct check *c, struct spot spot, char *text)
{
    static struct session s;
    struct slot slot;
    c->met = SESSION_NONE;
    s.ref.at = (uint32_t)spot.at;
    image_read(c->image, slot_place(c->image, s.ref), &slot, sizeof slot);
    bool dead = CURRENT_BLOCK(slot.current).at == 0;
    enum own_state state = OWN_STATE(slot.node.life);
    enum verdict verdict = FINE;
    if (state == OWN_FREE)
        return FINE;
    if (state > OWN_RETIRED)
        return say(text, WRONG, "its ownership word %016" PRIx64 " has no known state",
                   slot.node.life);
    bool linked = node_linked(c, &c->handles, s.ref.at, slot.node.key);
    if (state == OWN_LIVE && !dead && !linked)
        return say(text, WRONG, "handle %" PRIu64 ": it is live, but the index does not lead to it",
                   slot.node.key);
    if (state == OWN_LIVE && dead)
        verdict = say(text, ABANDONED, "an ended session that nobody buried");
    if (!dead && linked)
        verdict = examine_live(c, &s, text);
    if (verdict == FINE && state != OWN_LIVE)
        verdict = held_by(c, OWN_WORKER(slot.node.life), text,
                          state == OWN_OWNED ? "a claimed slot" : "a retired slot");
    return verdict == FINE ? examine_birth(c, slot.node.birth, text) : verdict;
}

/* ------------------------------------------------------------------ the header ------------- */

/* Each check of the header is one spot; behind these are what image_open() had to correct. */
static bool header_right(struct check *c, uint64_t number, char *text)
{
    const struct header *h = &c->image->header;
    switch (number) {
    case 0:
        snprintf(text, TEXT_BYTES, "full_fences is %" PRIu32, h->full_fences);
        return h->full_fences <= 1;
    case 1:
        snprintf(text, TEXT_BYTES, "rings of %" PRIu32 " entries", h->ring_entries);
        return h->ring_entries >= 4 && h->ring_entries <= RING_ENTRIES_MAX &&
               !(h->ring_entries & (h->ring_entries - 1));
    case 2:
        snprintf(text, TEXT_BYTES, "sleeping is %" PRIu32, h->sleeping);
        return h->sleeping <= 2;
    case 3:
        snprintf(text, TEXT_BYTES, "ready is %" PRIu32, h->ready);
        return h->ready <= 1;
    case 4:
        snprintf(text, TEXT_BYTES, "incarnation %" PRIu32 " is impossible", h->incarnation);
        return h->incarnation >= 1 && h->incarnation <= UINT16_MAX;
    default:
        snprintf(text, TEXT_BYTES, "leader %" PRIu32 " is no worker", LEADER_WORKER(h->leader));
        return LEADER_WORKER(h->leader) == 0 || worker_id_valid(LEADER_WORKER(h->leader));
    }
}

static enum verdict examine_header(struct check *c, struct spot spot, char *text)
{
    if (spot.at < HEADER_CHECKS)
        return header_right(c, spot.at, text) ? FINE : WRONG;
    if (spot.at - HEADER_CHECKS >= c->image->note_count)
        return FINE;
    return say(text, WRONG, "%s", c->image->notes[spot.at - HEADER_CHECKS]);
}

/* ------------------------------------------------------------------ all kinds -------------- */

enum verdict examine(struct check *c, struct spot spot, char *text)
{
    static examiner *const examiners[KINDS] = {
        [HEADER] = examine_header, [HEAD] = examine_head, [RUN] = examine_run,
        [SLOT] = examine_slot, [BLOCK] = examine_block, [HINT] = examine_hint,
        [CHUNK] = examine_chunk, [WORKER] = examine_worker, [THREAD] = examine_thread,
        [RING] = examine_ring, [TICKET] = examine_ticket,
        [GROUP] = examine_group,
    };
    return examiners[spot.kind](c, spot, text);
}
