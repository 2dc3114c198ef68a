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
    unsigned class = class_at(shm, (uint64_t)r.at * BLOCK_UNIT);
    if (class == CHUNK_SESSIONS)
        return r.at % (PAGE_BYTES / BLOCK_UNIT) >= 3 ? BLOCK_UNIT : 0;
    if (class < CHUNK_512)
        return 0;
    uint32_t bytes = class_bytes(class);
    return r.at % (bytes / BLOCK_UNIT) == 0 ? bytes : 0;
}

bool block_ref_valid(struct shm *shm, block_ref r)
{
    return r.at && block_bytes(shm, r) != 0;
}

/* ---------------------------------------------------------------- growing ------------------- */

/*
 * Commits what SLOTS slots need of an index's bucket heads: twice as many heads as slots, so that
 * the next doubling finds its memory in place.  Growth adds a chunk at a time, so each step is small.
 */
static int commit_index(struct shm *shm, uint64_t at, uint64_t max, uint64_t from, uint64_t slots)
{
    uint64_t first = 2 * from * 8, last = 2 * slots * 8;
    if (last > max * 8)
        last = max * 8;
    return first < last ? segment_commit(shm, at + first, last - first) : 0;
}

/* The smallest power of two that is not below SLOTS. */
static uint64_t buckets_for(uint64_t slots)
{
    uint64_t b = INDEX_BUCKETS_MIN;
    while (b < slots)
        b *= 2;
    return b;
}

/* One bucket per slot that there is room for.  Counted anew each time, a chunk being rare and large:
 * a sum kept beside the chunks would stay wrong when its adder is killed. */
static void grow_indexes(struct shm *shm)
{
    uint64_t slots = 0, chunks = heap_chunks(shm);
    for (uint64_t i = 0; i < chunks; i++)
        if (load_relaxed(&shm->chunks[i].class) == CHUNK_SESSIONS)
            slots += CHUNK_PAGES * PAGE_SLOTS;
    uint64_t b = buckets_for(slots);
    raise_to(&shm->header->handles.buckets, b);
    raise_to(&shm->header->players.buckets, b > INDEX_BUCKETS_MIN ? b / 2 : b);
}

/* Chunk INDEX has its class: count it.  Anybody may do this, any number of times. */
static void count_chunk(struct shm *shm, unsigned index)
{
    cas_exact(&shm->header->committed, index, index + 1); /* COMMIT: the chunk is in use */
    grow_indexes(shm);                                    /* killed before it: the next growth's */
}

static int commit_chunk(struct shm *shm, unsigned index)
{
    uint64_t each = CHUNK_PAGES * PAGE_SLOTS, before = index * each;
    int error = segment_commit(shm, shm->at.chunks + index * sizeof(struct chunk),
                               sizeof(struct chunk));
    if (!error)
        error = commit_index(shm, shm->at.handles, shm->at.handles_max, before, before + each);
    if (!error)
        error = commit_index(shm, shm->at.players, shm->at.players_max, before / 2,
                             (before + each) / 2);
    if (!error)
        error = segment_commit(shm, shm->at.heap + (uint64_t)index * CHUNK_BYTES, CHUNK_BYTES);
    return error;
}

static void hint_new_chunk(struct chunk *k, unsigned index, unsigned class)
{
    for (int i = 0; i < 4; i++) {
        /* All pages; but page 0 of the heap holds slot 0, which is no slot. */
        uint64_t pages = index == 0 && i == 0 ? ~UINT64_C(1) : UINT64_MAX;
        if (class == CHUNK_SESSIONS)
            atomic_store(&k->slot_hints[i], pages);
        atomic_store(&k->block_hints[i], pages);
    }
}

/* Adds a chunk of CLASS; *INDEX is where. */
static int grow(struct shm *shm, unsigned class, unsigned *index)
{
    for (;;) {
        uint64_t n = load_acquire(&shm->header->committed);
        if (n >= shm->max_chunks)
            return shm_fail(ENOMEM, "%s: the table has reached its max_bytes", shm->path);
        int error = commit_chunk(shm, (unsigned)n);
        if (error)
            return error;
        struct chunk *k = &shm->chunks[n];
        bool mine = cas_exact(&k->class, CHUNK_UNUSED, class); /* COMMIT: the chunk has its class */
        if (mine)
            hint_new_chunk(k, (unsigned)n, class);
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

static atomic_u64 *word_at(struct shm *shm, enum retired_kind kind, uint32_t ref)
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

void heap_rehint(struct shm *shm, unsigned chunk)
{
    struct chunk *k = &shm->chunks[chunk];
    unsigned class = class_at(shm, (uint64_t)chunk * CHUNK_BYTES);
    if (class == CHUNK_UNUSED)
        return;
    for (unsigned page = chunk == 0; page < CHUNK_PAGES; page++) {
        uint64_t bit = UINT64_C(1) << (page % 64);
        if (class == CHUNK_SESSIONS && has_free(shm, class, chunk, page, RETIRED_SLOT))
            atomic_fetch_or(&k->slot_hints[page / 64], bit);
        if (has_free(shm, class, chunk, page, main_kind(class)))
            atomic_fetch_or(&k->block_hints[page / 64], bit);
    }
}

/* ---------------------------------------------------------------- magazines ----------------- */

/* Where the thread found free places of a kind last. */
static uint32_t *cursor_of(struct context *c, enum retired_kind kind, unsigned class)
{
    return &c->cursors[kind == RETIRED_SLOT ? CHUNK_UNUSED : class];
}

static struct magazine *magazine_of(struct context *c, enum retired_kind kind, unsigned class)
{
    return kind == RETIRED_SLOT ? &c->slots : kind == RETIRED_HINT ? &c->hints : &c->blocks[class];
}

/* Large blocks are few: don't keep many from the others. */
static uint32_t magazine_size(unsigned class)
{
    return class < CHUNK_512 + 3 ? MAGAZINE_MAX : 4;
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
            atomic_fetch_or(&c->shm->chunks[chunk].block_hints[page / 64], UINT64_C(1) << (page % 64));
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
    atomic_u64 *hints = kind == RETIRED_SLOT ? k->slot_hints : k->block_hints;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t word;
        while ((word = load_relaxed(&hints[i]))) {
            unsigned bit = (unsigned)__builtin_ctzll(word);
            if (!take_hint(&hints[i], bit))
                continue;
            load_page(c, class, chunk, i * 64 + bit, kind);
            /* A new session wants its record on the slot's page. */
            if (kind == RETIRED_SLOT && c->blocks[CHUNK_SESSIONS].count <= MAGAZINE_MAX - PAGE_BLOCKS &&
                take_hint(&k->block_hints[i], bit))
                load_page(c, class, chunk, i * 64 + bit, RETIRED_BLOCK);
            if (magazine_of(c, kind, class)->count)
                return true;
        }
    }
    return false;
}

static bool refill(struct context *c, unsigned class, enum retired_kind kind)
{
    uint64_t n = heap_chunks(c->shm);
    uint32_t *cursor = cursor_of(c, kind, class);
    for (uint64_t i = 0; i < n; i++) {
        unsigned chunk = (unsigned)((*cursor + i) % n);
        if (load_acquire(&c->shm->chunks[chunk].class) == class && refill_from(c, class, chunk, kind)) {
            *cursor = chunk;
            return true;
        }
    }
    return false;
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

static int more(struct context *c, unsigned class, enum retired_kind kind)
{
    if (refill(c, class, kind))
        return 0;
    sweep_a_little(c);
    if (refill(c, class, kind))
        return 0;
    unsigned chunk = 0;
    int error = grow(c->shm, class, &chunk);
    if (!error) {
        /* Sessions alone must not fill the memory: without a chunk of hints nobody could log in. */
        if (chunk == 0 && class == CHUNK_SESSIONS)
            grow(c->shm, CHUNK_HINTS, cursor_of(c, RETIRED_HINT, CHUNK_HINTS));
        *cursor_of(c, kind, class) = chunk;
        refill(c, class, kind);
    }
    return error; /* 0: or others were quicker, and the caller comes again */
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
static int claim(struct context *c, unsigned class, enum retired_kind kind, uint32_t *ref)
{
    struct magazine *m = magazine_of(c, kind, class);
    for (;;) {
        while (m->count) {
            uint32_t at = m->at[--m->count];
            atomic_u64 *word = word_at(c->shm, kind, at);
            uint64_t seen = load_relaxed(word);
            if (OWN_STATE(seen) == OWN_FREE &&
                cas(word, &seen, OWN_WORD(OWN_OWNED, c->worker, OWN_SEQ(seen)))) { /* COMMIT: claimed */
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

static void set_hint(struct shm *shm, enum retired_kind kind, uint32_t ref)
{
    uint64_t offset = offset_of(kind, ref);
    struct chunk *k = chunk_of(shm, offset);
    unsigned page = (unsigned)(offset % CHUNK_BYTES / PAGE_BYTES);
    atomic_u64 *hints = kind == RETIRED_SLOT ? k->slot_hints : k->block_hints;
    uint64_t bit = UINT64_C(1) << (page % 64);
    if (!(load_relaxed(&hints[page / 64]) & bit))
        atomic_fetch_or(&hints[page / 64], bit);
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
        set_hint(c->shm, kind, ref);
}

void heap_unclaim(struct context *c, enum retired_kind kind, uint32_t ref)
{
    atomic_u64 *word = word_at(c->shm, kind, ref);
    store_release(word, OWN_WORD(OWN_FREE, 0, OWN_SEQ(load_relaxed(word)) + 1));
    heap_freed(c, kind, ref);
}

static void flush_magazine(struct context *c, struct magazine *m, enum retired_kind kind)
{
    while (m->count)
        set_hint(c->shm, kind, m->at[--m->count]);
}

void heap_flush(struct context *c)
{
    flush_magazine(c, &c->slots, RETIRED_SLOT);
    flush_magazine(c, &c->hints, RETIRED_HINT);
    for (unsigned class = 0; class < CHUNK_CLASSES; class++)
        flush_magazine(c, &c->blocks[class], RETIRED_BLOCK);
}
