#include "heap.h"

#include "recover.h"
#include "wait.h"

#include <errno.h>
#include <string.h>

/* A claim that failed is tried again so often and for so long, and then, by this thread, not for a
 * while. */
enum { RELIEF_TRIES = 20, RELIEF_MS = 50, RELIEF_PAUSE_MS = 100, SWEPT_AT_ONCE = 4 };

/* ---------------------------------------------------------------- references ---------------- */

uint64_t heap_chunks(struct shm *shm)
{
    uint64_t committed = load_acquire(&shm->header->committed);
    raise_to(&shm->limit, (committed < shm->max_chunks ? committed : shm->max_chunks) * CHUNK_BYTES);
    return load_relaxed(&shm->limit) / CHUNK_BYTES;
}

/* CHUNK_UNUSED as well for what is no class. */
static unsigned class_at(struct shm *shm, uint64_t offset)
{
    uint64_t class = heap_holds(shm, offset, 1) ? load_acquire(&chunk_of(shm, offset)->class) : 0;
    return class < CHUNK_CLASSES ? (unsigned)class : CHUNK_UNUSED;
}

bool slot_ref_valid(struct shm *shm, slot_ref r)
{
    return r.at >= PAGE_BYTES / SLOT_BYTES && r.at % (PAGE_BYTES / SLOT_BYTES) < PAGE_SLOTS &&
           class_at(shm, (uint64_t)r.at * SLOT_BYTES) == CHUNK_SESSIONS;
}

bool hint_ref_valid(struct shm *shm, hint_ref r)
{
    return r.at >= PAGE_BYTES / HINT_BYTES &&
           class_at(shm, (uint64_t)r.at * HINT_BYTES) == CHUNK_HINTS;
}

uint32_t block_bytes(struct shm *shm, block_ref r)
{
    return heap_holds(shm, (uint64_t)r.at * BLOCK_UNIT, 1) ? block_bytes_known(shm, r) : 0;
}

bool block_ref_valid(struct shm *shm, block_ref r)
{
    return r.at && block_bytes(shm, r) != 0;
}

/* ---------------------------------------------------------------- growing ------------------- */

/*
 * Bucket heads that SLOTS slots get: for the index by handle the largest power of two that is not above
 * 17/8 of them, so that three sessions of four are the first of their bucket; about half of that for the
 * index by player.  What is committed for each slot is what such a power of two never exceeds, so that the
 * heads are in place whenever an index doubles, and each chunk commits a small piece.
 */
static uint64_t handle_heads(uint64_t slots) { return slots * 17 / 8; }
static uint64_t player_heads(uint64_t slots) { return slots; }

static uint64_t buckets_for(uint64_t heads, uint64_t room)
{
    uint64_t b = INDEX_BUCKETS_MIN;
    while (b < room && b * 2 <= heads)
        b *= 2;
    return b;
}

/*
 * Chunks of two classes among the first CHUNKS.  A chunk keeps its class, so that each process counts on
 * from where it was; a sum in the segment would stay wrong when its adder is killed.
 */
enum { COUNT_BITS = 21 };
_Static_assert(CHUNKS_MAX < 1 << COUNT_BITS, "shm->counted is {chunks, of sessions, of hints}");
struct census { uint64_t sessions, hints; };

static uint64_t one_of(struct shm *shm, uint64_t chunk)
{
    uint64_t class = load_acquire(&shm->chunks[chunk].class);
    return class == CHUNK_SESSIONS ? UINT64_C(1) << COUNT_BITS : class == CHUNK_HINTS;
}

static struct census census_of(struct shm *shm, uint64_t chunks)
{
    const uint64_t mask = (UINT64_C(1) << COUNT_BITS) - 1;
    uint64_t counted = load_relaxed(&shm->counted), i = counted >> 2 * COUNT_BITS;
    uint64_t sum = counted & (mask << COUNT_BITS | mask);
    for (; i > chunks; i--) /* another thread is ahead */
        sum -= one_of(shm, i - 1);
    for (; i < chunks; i++)
        sum += one_of(shm, i);
    raise_to(&shm->counted, chunks << 2 * COUNT_BITS | sum);
    return (struct census){ sum >> COUNT_BITS, sum & mask };
}

static uint64_t slots_in(struct shm *shm, uint64_t chunks)
{
    return census_of(shm, chunks).sessions * CHUNK_SLOTS;
}

struct heap_heads heap_heads(struct shm *shm)
{
    uint64_t slots = slots_in(shm, heap_chunks(shm));
    uint64_t handles = handle_heads(slots), players = player_heads(slots);
    return (struct heap_heads){ handles < shm->at.handles_max ? handles : shm->at.handles_max,
                                players < shm->at.players_max ? players : shm->at.players_max };
}

static void grow_indexes(struct shm *shm)
{
    struct heap_heads heads = heap_heads(shm);
    raise_to(&shm->header->handles.buckets, buckets_for(heads.handles, shm->at.handles_max));
    raise_to(&shm->header->players.buckets, buckets_for(heads.players, shm->at.players_max));
}

/* Chunk INDEX has its class: count it.  Anybody may do this, any number of times. */
static void count_chunk(struct shm *shm, unsigned index)
{
    cas_exact(&shm->header->committed, index, index + 1); /* COMMIT: the chunk is in use */
    grow_indexes(shm);                                    /* killed before it: the next growth's */
}

static int commit_heads(struct shm *shm, uint64_t at, uint64_t room, uint64_t from, uint64_t to)
{
    if (to > room)
        to = room;
    return from < to ? segment_commit(shm, at + from * 8, (to - from) * 8) : 0;
}

/* What chunk INDEX needs if it becomes one of CLASS.  (All before it have their class.) */
static int commit_chunk(struct shm *shm, unsigned index, unsigned class)
{
    const struct layout *at = &shm->at;
    uint64_t from = slots_in(shm, index);
    uint64_t to = from + (class == CHUNK_SESSIONS ? CHUNK_SLOTS : 0);
    int error = segment_commit(shm, at->chunks + index * sizeof(struct chunk), sizeof(struct chunk));
    if (!error)
        error = commit_heads(shm, at->handles, at->handles_max, handle_heads(from), handle_heads(to));
    if (!error)
        error = commit_heads(shm, at->players, at->players_max, player_heads(from), player_heads(to));
    if (!error)
        error = segment_commit(shm, at->heap + (uint64_t)index * CHUNK_BYTES, CHUNK_BYTES);
    return error;
}

/* Before it is counted, so that nobody looks into it and finds no bit.  Done again, or late, it costs
 * a look at pages that are full. */
static void hint_new_chunk(struct shm *shm, unsigned index)
{
    struct chunk *k = &shm->chunks[index];
    /* All pages; but page 0 of the heap holds slot 0, which is no slot. */
    uint64_t pages = (UINT64_C(1) << CHUNK_PAGES) - (index == 0 ? 2 : 1);
    if (load_acquire(&k->class) == CHUNK_SESSIONS)
        atomic_fetch_or(&k->slot_hints, pages);
    atomic_fetch_or(&k->block_hints, pages);
}

/* Adds a chunk of CLASS; *INDEX is where. */
static int grow(struct shm *shm, unsigned class, unsigned *index)
{
    for (;;) {
        uint64_t n = load_acquire(&shm->header->committed);
        if (n >= shm->max_chunks)
            return shm_fail(ENOMEM, "%s: the table has reached its max_bytes", shm->path);
        int error = commit_chunk(shm, (unsigned)n, class);
        if (error)
            return error;
        /* COMMIT: the chunk has its class */
        bool mine = cas_exact(&shm->chunks[n].class, CHUNK_UNUSED, class);
        hint_new_chunk(shm, (unsigned)n);
        count_chunk(shm, (unsigned)n);
        if (mine) {
            *index = (unsigned)n;
            return 0;
        }
    }
}

/* ---------------------------------------------------------------- pages --------------------- */

/* What a page of a class holds, as ownership words. */
struct places {
    uint32_t first, count, step; /* refs of one kind */
};

static struct places places_of(unsigned class, unsigned chunk, unsigned page, enum retired_kind kind)
{
    uint64_t offset = (uint64_t)chunk * CHUNK_BYTES + (uint64_t)page * PAGE_BYTES;
    if (kind == RETIRED_SLOT)
        return (struct places){ (uint32_t)(offset / SLOT_BYTES), PAGE_SLOTS, 1 };
    if (kind == RETIRED_HINT)
        return (struct places){ (uint32_t)(offset / HINT_BYTES), PAGE_BYTES / HINT_BYTES, 1 };
    if (class == CHUNK_SESSIONS)
        return (struct places){ (uint32_t)(offset / BLOCK_UNIT + 3), PAGE_BLOCKS, 1 };
    uint32_t bytes = class_bytes(class);
    if (bytes <= PAGE_BYTES)
        return (struct places){ (uint32_t)(offset / BLOCK_UNIT), PAGE_BYTES / bytes, bytes / BLOCK_UNIT };
    /* A block of several pages belongs to its first. */
    bool first = page % (bytes / PAGE_BYTES) == 0;
    return (struct places){ (uint32_t)(offset / BLOCK_UNIT), first, 1 };
}

INLINE atomic_u64 *word_at(struct shm *shm, enum retired_kind kind, uint32_t ref)
{
    switch (kind) {
    case RETIRED_SLOT: return &slot_at(shm, (slot_ref){ ref })->node.life;
    case RETIRED_HINT: return &hint_at(shm, (hint_ref){ ref })->life;
    default: return &block_at(shm, (block_ref){ ref })->own;
    }
}

static bool has_free(struct shm *shm, unsigned class, unsigned chunk, unsigned page,
                     enum retired_kind kind)
{
    struct places p = places_of(class, chunk, page, kind);
    for (uint32_t i = 0; i < p.count; i++)
        if (OWN_STATE(load_relaxed(word_at(shm, kind, p.first + i * p.step))) == OWN_FREE)
            return true;
    return false;
}

static enum retired_kind main_kind(unsigned class)
{
    return class == CHUNK_HINTS ? RETIRED_HINT : RETIRED_BLOCK;
}

/* By what it is told apart what a thread looks for: slots, or places of a class. */
static unsigned line_of(enum retired_kind kind, unsigned class)
{
    return kind == RETIRED_SLOT ? CHUNK_UNUSED : class;
}

static atomic_u64 *hints_of(struct chunk *k, enum retired_kind kind)
{
    return kind == RETIRED_SLOT ? &k->slot_hints : &k->block_hints;
}

/* These pages of CHUNK may have free places.  First the bits, then the count: who has read the count
 * before it looked knows by it that there is something to look at again. */
static void hint(struct shm *shm, enum retired_kind kind, unsigned class, unsigned chunk, uint64_t pages)
{
    atomic_fetch_or(hints_of(&shm->chunks[chunk], kind), pages);
    atomic_fetch_add(&shm->header->hinted[line_of(kind, class)], 1);
}

static void rehint(struct shm *shm, enum retired_kind kind, unsigned class, unsigned chunk)
{
    uint64_t pages = 0;
    for (unsigned page = chunk == 0; page < CHUNK_PAGES; page++)
        pages |= (uint64_t)has_free(shm, class, chunk, page, kind) << page;
    /* Also when the bits are set: their setter may have been killed before it counted. */
    if (pages)
        hint(shm, kind, class, chunk, pages);
}

void heap_rehint(struct shm *shm, unsigned chunk)
{
    unsigned class = class_at(shm, (uint64_t)chunk * CHUNK_BYTES);
    if (class == CHUNK_UNUSED)
        return;
    if (class == CHUNK_SESSIONS)
        rehint(shm, RETIRED_SLOT, class, chunk);
    rehint(shm, main_kind(class), class, chunk);
}

/* ---------------------------------------------------------------- magazines ----------------- */

static struct magazine *magazine_of(struct context *c, enum retired_kind kind, unsigned class)
{
    return kind == RETIRED_SLOT ? &c->slots : kind == RETIRED_HINT ? &c->hints : &c->blocks[class];
}

/* Large blocks are few: don't keep many from the others. */
static uint32_t magazine_size(unsigned class)
{
    return class < CHUNK_512 ? MAGAZINE_MAX : class < CHUNK_512 + 3 ? 64 : 4;
}

static void load_page(struct context *c, unsigned class, unsigned chunk, unsigned page,
                      enum retired_kind kind)
{
    if (chunk == 0 && page == 0) /* holds slot 0, which is no slot; only a damaged hint leads here */
        return;
    struct magazine *m = magazine_of(c, kind, class);
    struct places p = places_of(class, chunk, page, kind);
    uint32_t room = magazine_size(class) - m->count, taken = 0;
    for (uint32_t i = p.count; i-- > 0;) { /* backwards: the first is on top */
        uint32_t ref = p.first + i * p.step;
        if (OWN_STATE(load_relaxed(word_at(c->shm, kind, ref))) != OWN_FREE)
            continue;
        if (taken == room) { /* more than we can hold: leave the page to others too */
            hint(c->shm, kind, class, chunk, UINT64_C(1) << page);
            break;
        }
        m->at[m->count++] = ref;
        taken++;
    }
}

static bool take_hint(atomic_u64 *word, unsigned bit)
{
    uint64_t mask = UINT64_C(1) << bit;
    return atomic_fetch_and(word, ~mask) & mask;
}

/* Fills the magazine from a page of CHUNK whose bit is set. */
static bool refill_from(struct context *c, unsigned class, unsigned chunk, enum retired_kind kind)
{
    struct chunk *k = &c->shm->chunks[chunk];
    uint64_t pages;
    while ((pages = load_relaxed(hints_of(k, kind)))) {
        unsigned page = (unsigned)__builtin_ctzll(pages);
        if (!take_hint(hints_of(k, kind), page) || page >= CHUNK_PAGES)
            continue;
        load_page(c, class, chunk, page, kind);
        /* A new session wants its record on the slot's page. */
        if (kind == RETIRED_SLOT && c->blocks[CHUNK_SESSIONS].count <= MAGAZINE_MAX - PAGE_BLOCKS &&
            take_hint(&k->block_hints, page))
            load_page(c, class, chunk, page, RETIRED_BLOCK);
        if (magazine_of(c, kind, class)->count)
            return true;
    }
    return false;
}

/*
 * Looks from where it found something last.  The chunks in which there was nothing are looked at again
 * only when a hint was set since: a table that grows is not searched through for each new chunk.
 */
static bool refill(struct context *c, unsigned class, enum retired_kind kind)
{
    struct search *s = &c->searches[line_of(kind, class)];
    uint64_t hinted = load_acquire(&c->shm->header->hinted[line_of(kind, class)]);
    uint64_t n = heap_chunks(c->shm), empty = s->hinted == hinted ? s->empty : 0;
    for (uint64_t i = empty; i < n; i++) {
        uint64_t at = empty ? i : s->cursor + i;
        unsigned chunk = (unsigned)(at < n ? at : at - n);
        if (load_acquire(&c->shm->chunks[chunk].class) == class && refill_from(c, class, chunk, kind)) {
            s->cursor = chunk;
            return true;
        }
    }
    s->hinted = hinted;
    s->empty = (uint32_t)n;
    return false;
}

/* There may be free places in CHUNK and those after it. */
static void look_into(struct context *c, unsigned class, enum retired_kind kind, unsigned chunk)
{
    struct search *s = &c->searches[line_of(kind, class)];
    s->cursor = chunk;
    if (s->empty > chunk)
        s->empty = chunk;
}

/* Before the table grows, a few chunks are swept: what the dead left comes back even without a
 * persister, faster than the table grows. */
static void sweep_a_little(struct context *c)
{
    uint64_t n = heap_chunks(c->shm);
    worker_recover(c->shm, NULL, 0, NULL);
    for (unsigned i = 0; i < SWEPT_AT_ONCE && i < n && load_relaxed(&c->shm->header->sweep_wanted); i++) {
        unsigned chunk = (unsigned)(add_relaxed(&c->shm->header->sweep_cursor, 1) % n);
        recover_sweep(c, chunk);
        heap_rehint(c->shm, chunk);
    }
}

static uint64_t hint_chunks_for(uint64_t slots)
{
    return layout_align(slots, CHUNK_BYTES / HINT_BYTES) / (CHUNK_BYTES / HINT_BYTES);
}

/* Sessions alone must not fill the memory: without hints nobody could log in.  So a chunk of sessions
 * whose players won't all fit into the hints that there are brings more of them. */
static void grow_hints(struct context *c)
{
    unsigned chunk;
    for (;;) {
        struct census n = census_of(c->shm, heap_chunks(c->shm));
        if (n.hints >= hint_chunks_for(n.sessions * CHUNK_SLOTS) ||
            grow(c->shm, CHUNK_HINTS, &chunk) != 0)
            return;
        look_into(c, CHUNK_HINTS, RETIRED_HINT, chunk);
    }
}

static int more(struct context *c, unsigned class, enum retired_kind kind)
{
    if (refill(c, class, kind))
        return 0;
    sweep_a_little(c);
    if (refill(c, class, kind))
        return 0;
    unsigned chunk = 0;
    int error = grow(c->shm, class, &chunk);
    if (error) {
        look_into(c, class, kind, 0); /* everywhere: P3 */
        return refill(c, class, kind) ? 0 : error;
    }
    if (class == CHUNK_SESSIONS)
        grow_hints(c);
    look_into(c, class, kind, chunk);
    refill(c, class, kind);
    return 0; /* or others were quicker, and the caller comes again */
}

/* One chunk at a time, each to its end: who is killed while it sweeps has helped all the same. */
static uint64_t relieve_chunk(struct context *c, unsigned chunk)
{
    uint64_t before = c->freed;
    recover_sweep(c, chunk);
    rcu_reclaim(c);
    heap_rehint(c->shm, chunk);
    return c->freed - before;
}

/* Looks through the heap, from where the last one stopped, until something was freed. */
static bool search(struct context *c, int64_t until)
{
    worker_recover(c->shm, NULL, 0, NULL);
    uint64_t n = heap_chunks(c->shm), freed = 0;
    for (uint64_t i = 0; i < n && !freed && monotonic_ms() < until; i++)
        freed = relieve_chunk(c, (unsigned)(add_relaxed(&c->shm->header->sweep_cursor, 1) % n));
    return freed;
}

/*
 * What there is may be in the hands of others who search, or pinned by a reader who was interrupted:
 * they get some moments, and the claim is tried after each.
 */
bool heap_relieve(struct context *c)
{
    const struct timespec moment = { 0, 1000000 };
    int64_t now = monotonic_ms();
    if (c->depth || (!c->relief_tries && now - c->relief_ended < RELIEF_PAUSE_MS))
        return false;
    if (c->relief_tries >= RELIEF_TRIES && now - c->relief_began >= RELIEF_MS) {
        c->relief_tries = 0;
        c->relief_ended = now;
        return false;
    }
    if (c->relief_tries++ == 0) {
        c->relief_began = now;
        if (search(c, now + RELIEF_MS / 2))
            return true;
    }
    nanosleep(&moment, NULL);
    rcu_reclaim(c);
    return true;
}

/* ---------------------------------------------------------------- claiming ------------------ */

/* *REF is stored to by success alone: callers give back what it names. */
INLINE int claim(struct context *c, unsigned class, enum retired_kind kind, uint32_t *ref)
{
    struct magazine *m = magazine_of(c, kind, class);
    for (;;) {
        while (m->count) {
            uint32_t at = m->at[--m->count];
            atomic_u64 *word = word_at(c->shm, kind, at);
            uint64_t seen = load_relaxed(word);
            if (OWN_STATE(seen) == OWN_FREE &&
                cas(word, &seen, OWN_WORD(OWN_OWNED, c->worker, OWN_SEQ(seen)))) { /* COMMIT: claimed */
                tell_place_claimed(c->shm->header);
                *ref = at;
                return 0;
            }
        }
        int error = more(c, class, kind);
        if (error)
            return error;
    }
}

/*
 * The birth of what was just claimed.  From here on our own section holds it: else it could be published,
 * replaced, freed and claimed by another before we come to say that ours is LIVE.
 */
static void be_born(struct context *c, atomic_u64 *birth)
{
    uint64_t era = load_acquire(&c->shm->header->era);
    store_release(birth, era);
    if (era > c->hi)
        rcu_extend(c);
}

int heap_claim_slot(struct context *c, slot_ref *slot)
{
    int error = claim(c, CHUNK_SESSIONS, RETIRED_SLOT, &slot->at);
    if (!error)
        be_born(c, &slot_at(c->shm, *slot)->node.birth);
    return error;
}

int heap_claim_hint(struct context *c, hint_ref *hint)
{
    int error = claim(c, CHUNK_HINTS, RETIRED_HINT, &hint->at);
    if (!error)
        be_born(c, &hint_at(c->shm, *hint)->birth);
    return error;
}

static unsigned class_for(uint32_t bytes)
{
    unsigned class = CHUNK_512;
    if (bytes <= BLOCK_UNIT)
        return CHUNK_SESSIONS;
    while (class_bytes(class) < bytes)
        class++;
    return class;
}

int heap_claim_block(struct context *c, uint32_t bytes, block_ref *block)
{
    int error = ENOMEM;
    /* A larger block will do when the table can't grow. */
    for (unsigned class = class_for(bytes); error && class < CHUNK_CLASSES;
         class = class == CHUNK_SESSIONS ? CHUNK_512 : class + 1)
        error = claim(c, class, RETIRED_BLOCK, &block->at);
    if (!error)
        be_born(c, &block_at(c->shm, *block)->birth);
    return error;
}

/* ---------------------------------------------------------------- giving back --------------- */

bool heap_retire(struct context *c, enum retired_kind kind, uint32_t ref, atomic_u64 *word,
                 uint64_t seen)
{
    if (!cas_exact(word, seen, OWN_WORD(OWN_RETIRED, c->worker, OWN_SEQ(seen)))) /* COMMIT: ours */
        return false;
    rcu_retire(c, kind, ref);
    return true;
}

static uint64_t offset_of(enum retired_kind kind, uint32_t ref)
{
    return (uint64_t)ref * (kind == RETIRED_SLOT ? SLOT_BYTES : kind == RETIRED_HINT ? HINT_BYTES
                                                                                     : BLOCK_UNIT);
}

static void set_hint(struct shm *shm, enum retired_kind kind, unsigned class, uint32_t ref)
{
    uint64_t offset = offset_of(kind, ref);
    unsigned chunk = (unsigned)(offset / CHUNK_BYTES);
    uint64_t bit = UINT64_C(1) << (offset % CHUNK_BYTES / PAGE_BYTES);
    if (!(load_relaxed(hints_of(&shm->chunks[chunk], kind)) & bit))
        hint(shm, kind, class, chunk, bit);
}

static bool is_place(struct shm *shm, enum retired_kind kind, uint32_t ref)
{
    switch (kind) {
    case RETIRED_SLOT: return slot_ref_valid(shm, (slot_ref){ ref });
    case RETIRED_HINT: return hint_ref_valid(shm, (hint_ref){ ref });
    default: return block_ref_valid(shm, (block_ref){ ref });
    }
}

void heap_freed(struct context *c, enum retired_kind kind, uint32_t ref)
{
    unsigned class = class_at(c->shm, offset_of(kind, ref));
    if (!is_place(c->shm, kind, ref)) /* its chunk's class is damaged by now: nobody gets it */
        return;
    struct magazine *m = magazine_of(c, kind, class);
    if (m->count < magazine_size(class))
        m->at[m->count++] = ref;
    else
        set_hint(c->shm, kind, class, ref);
}

void heap_unclaim(struct context *c, enum retired_kind kind, uint32_t ref)
{
    atomic_u64 *word = word_at(c->shm, kind, ref);
    store_release(word, OWN_WORD(OWN_FREE, 0, OWN_SEQ(load_relaxed(word)) + 1));
    heap_freed(c, kind, ref);
}

static void flush_magazine(struct context *c, struct magazine *m, enum retired_kind kind, unsigned class)
{
    while (m->count)
        set_hint(c->shm, kind, class, m->at[--m->count]);
}

void heap_flush(struct context *c)
{
    flush_magazine(c, &c->slots, RETIRED_SLOT, CHUNK_SESSIONS);
    flush_magazine(c, &c->hints, RETIRED_HINT, CHUNK_HINTS);
    for (unsigned class = 0; class < CHUNK_CLASSES; class++)
        flush_magazine(c, &c->blocks[class], RETIRED_BLOCK, class);
}
