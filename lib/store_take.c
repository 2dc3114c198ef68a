/* Sleeping, taking what changed, reading it; see store.h. */
#include "lib/store_inside.h"

#include "shm/ring.h"
#include "shm/wait.h"

#include <string.h>

/* ---------------------------------------------------------------- sleeping ---------------- */

static bool any_bit(const atomic_u64 *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (load_relaxed(&words[i]))
            return true;
    return false;
}

bool store_urgent_work(const struct store *s)
{
    const struct shm *shm = &s->table->shm;
    const struct tickets_words words = tickets_words(s);
    return s->tickets_left || any_bit(shm->urgent, words.threads) ||
           any_bit(shm->urgent + THREADS / 64, words.all - words.threads) ||
           load_relaxed(&shm->header->mode) != s->mode;
}

static bool other_work(const struct store *s)
{
    const struct shm *shm = &s->table->shm;
    return any_bit(shm->ready, THREADS / 64) || load_relaxed(&shm->header->overflow) ||
           load_relaxed(&shm->header->sweep_wanted) || s->scan.running ||
           s->sweep.chunk < store_sweep_allowed(s);
}

bool store_busy(const struct store *s)
{
    return store_urgent_work(s) || other_work(s);
}

unsigned store_progress(const struct store *s)
{
    uint64_t chunks = heap_chunks(&s->table->shm);
    bool sweeping = s->sweep.running && s->sweep.thorough;
    uint64_t done = s->scan.running ? s->scan.chunk : sweeping ? s->sweep.chunk : chunks;
    return done < chunks ? (unsigned)(done * 100 / chunks) : 100;
}

bool store_overflowed(const struct store *s)
{
    return load_relaxed(&s->table->shm.header->overflow);
}

bool store_sleep(struct store *s, bool deep, int timeout_ms)
{
    struct header *h = s->table->shm.header;
    int64_t deadline = monotonic_ms() + timeout_ms, left = timeout_ms;
    bool work;
    do {
        uint32_t seq = load_acquire(&h->wake_seq);
        atomic_store(&h->sleeping, deep ? 1 : 2); /* store_sleep:D */
        work = store_urgent_work(s) || (deep && other_work(s));
        /* At most 100 ms: a waker may die between its bit and its wake (H11). */
        if (!work && left > 0)
            futex_wait(&h->wake_seq, seq, left < 100 ? (int)left : 100);
        atomic_store(&h->sleeping, 0);
        work = work || store_urgent_work(s) || (deep && other_work(s));
        left = deadline - monotonic_ms();
    } while (!work && left > 0);
    return work;
}

/* ---------------------------------------------------------------- taking ------------------ */

void store_scan_everything(struct store *s)
{
    if (s->scan.running)
        s->scan.again = true;
    else
        s->scan = (struct scan){ .running = true };
}

/* Clears the slot's dirty bit; was it set? */
static bool store_clear_dirty(struct shm *shm, slot_ref r)
{
    uint64_t bit;
    atomic_u64 *word = dirty_word(shm, r, &bit);
    return atomic_fetch_and(word, ~bit) & bit;
}

void store_set_dirty(struct shm *shm, slot_ref r)
{
    uint64_t bit;
    atomic_u64 *word = dirty_word(shm, r, &bit);
    if (!(load_relaxed(word) & bit))
        atomic_fetch_or(word, bit);
}

/* Where R is, or would be, among the sessions with tickets that this take has found. */
static struct place *place_of(struct store *s, const struct taking *k, slot_ref r)
{
    for (uint32_t i = r.at * UINT32_C(2654435761) >> 19;; i++) {
        struct place *place = &s->places[i % PLACES];
        if (place->take != s->takes || place->image >= k->count ||
            k->images[place->image].slot.at == r.at)
            return place;
    }
}

static struct store_image *given(struct store *s, const struct taking *k, slot_ref r)
{
    const struct place *place = place_of(s, k, r);
    bool found = place->take == s->takes && place->image < k->count &&
                 k->images[place->image].slot.at == r.at;
    return found ? &k->images[place->image] : NULL;
}

static struct store_image *give_urgent(struct store *s, struct taking *k, slot_ref r)
{
    struct store_image *image = given(s, k, r);
    if (image || k->count == k->max)
        return image;
    *place_of(s, k, r) = (struct place){ s->takes, (uint32_t)k->count };
    image = &k->images[k->count++];
    *image = (struct store_image){ .slot = r, .urgent = true };
    return image;
}

static void give(struct store *s, struct taking *k, slot_ref r)
{
    if (!given(s, k, r))
        k->images[k->count++] = (struct store_image){ .slot = r };
}

static bool take_ticket(struct store *s, unsigned index, struct ticket *ticket, uint64_t word,
                        void *context)
{
    struct taking *k = context;
    if (s->links[index].chain) { /* in hands for what it was before: after that image's end */
        s->tickets_left = true;
        return true;
    }
    slot_ref r = { load_relaxed(&ticket->slot) };
    enum ticket_state state = ticket_judge(s, k->c, ticket, r);
    if (load_acquire(&ticket->word) != word)
        return true; /* its caller has taken it back while we read its fields */
    if (state != TICKET_WAITING) {
        ticket_say(s, index, word, state);
        return true;
    }
    struct store_image *image = give_urgent(s, k, r);
    if (!image) {
        s->tickets_left = true;
        return false;
    }
    store_clear_dirty(&s->table->shm, r);
    ticket_hang(s, image, index);
    return true;
}

static void take_ring(struct store *s, struct taking *k, unsigned index)
{
    struct shm *shm = &s->table->shm;
    slot_ref r;
    uint32_t most = shm->ring_entries; /* a damaged ring must not keep us */
    while (k->count < k->max && most-- && ring_take(shm, index, &r))
        if (slot_ref_valid(shm, r) && store_clear_dirty(shm, r))
            give(s, k, r);
    if (k->count == k->max) /* there may be more */
        atomic_fetch_or(&shm->ready[index / 64], UINT64_C(1) << (index % 64));
}

/* In turn, from the one behind that which filled the last take: a thread that changes something all the
 * time keeps nobody else's ring waiting. */
static void take_rings(struct store *s, struct taking *k)
{
    atomic_u64 *ready = s->table->shm.ready;
    const unsigned words = THREADS / 64, first = s->next_ring / 64 % words;
    const uint64_t from = UINT64_MAX << s->next_ring % 64;
    for (unsigned n = 0; n <= words && k->count < k->max; n++) {
        unsigned i = (first + n) % words;
        uint64_t mask = n == 0 ? from : n == words ? ~from : UINT64_MAX;
        uint64_t bits = load_relaxed(&ready[i]) & mask ? atomic_fetch_and(&ready[i], ~mask) & mask : 0;
        for (; bits; bits &= bits - 1) {
            unsigned index = i * 64 + (unsigned)__builtin_ctzll(bits);
            bool room = k->count < k->max;
            take_ring(s, k, index);
            if (room && k->count == k->max)
                s->next_ring = index + 1;
        }
    }
}

/* What is left in the scan's word of dirty bits; false when there was no room for all. */
static bool take_word(struct store *s, struct taking *k)
{
    struct scan *scan = &s->scan;
    atomic_u64 *dirty = &s->table->shm.chunks[scan->chunk].dirty[scan->word];
    for (uint64_t bits = load_relaxed(dirty) & UINT64_MAX << scan->bit; bits; bits &= bits - 1) {
        unsigned n = (unsigned)__builtin_ctzll(bits);
        if (k->count == k->max) {
            scan->bit = n;
            return false;
        }
        uint64_t page = scan->chunk * CHUNK_PAGES + scan->word * 4 + n / 16;
        slot_ref r = { (uint32_t)(page * (PAGE_BYTES / SLOT_BYTES) + n % 16) };
        if (slot_ref_valid(&s->table->shm, r) && store_clear_dirty(&s->table->shm, r))
            give(s, k, r);
    }
    scan->bit = 0;
    return true;
}

static void take_scan(struct store *s, struct taking *k)
{
    struct shm *shm = &s->table->shm;
    if (!s->scan.running && atomic_exchange(&shm->header->overflow, 0))
        store_scan_everything(s);
    uint64_t chunks = heap_chunks(shm);
    while (s->scan.running) {
        if (s->scan.chunk >= chunks) {
            s->scan = (struct scan){ .running = s->scan.again };
            continue;
        }
        for (; s->scan.word < CHUNK_PAGES / 4; s->scan.word++)
            if (!take_word(s, k))
                return;
        s->scan.word = 0;
        s->scan.chunk++;
    }
}

/* A scan that is due has its half: what overflowed, or is tried again, does not wait for the rings to be
 * empty. */
static void take_changes(struct store *s, struct taking *k)
{
    const size_t max = k->max;
    bool behind = s->scan.running || load_relaxed(&s->table->shm.header->overflow);
    if (behind)
        k->max -= (max - k->count + 1) / 2;
    take_rings(s, k);
    k->max = max;
    take_scan(s, k);
    if (behind)
        take_rings(s, k);
}

size_t store_take(struct store *s, struct store_image *images, size_t max, bool urgent_only)
{
    struct taking k = { .c = store_context(s), .images = images,
                        .max = max < STORE_TAKE_MAX ? max : STORE_TAKE_MAX };
    if (!k.c)
        return 0;
    s->takes++;
    if (max) {
        if (monotonic_ms() >= s->tickets_at)
            tickets_look_at_all(s);
        tickets_collect(s);
        s->tickets_left = false;
        rcu_enter(k.c);
        tickets_each_waiting(s, take_ticket, &k);
        rcu_exit(k.c);
        store_wake(s);
    }
    if (!urgent_only) {
        store_sweep_some(s, max ? &k : NULL);
        take_changes(s, &k);
    }
    if (k.count && !rcu_heavy_fence(&s->table->shm)) /* store_take:B */
        store_relaxed(&s->table->shm.header->sweep_wanted, 1);
    return k.count;
}

/* ---------------------------------------------------------------- reading ----------------- */

const struct block *store_examine(struct store *s, struct context *c, struct slot *slot,
                                   struct store_image *image, uint64_t *current)
{
    uint32_t incarnation = store_incarnation(s);
    uint64_t word = load_acquire(&slot->durable);
    const struct block *b = record_in(c, slot, current);
    if (!b)
        return NULL;
    uint64_t durable = DURABLE_INCARNATION(word) == incarnation ? DURABLE_VERSION(word) : 0;
    bool tomb = *current & CURRENT_TOMB;
    image->handle = b->handle;
    image->generation = b->generation;
    image->version = b->version + tomb;
    image->bound_version = b->bound_version;
    image->pending = record_unwritten(c->shm, word, b);
    image->last_seen = record_last_seen(slot, b);
    image->incarnation = incarnation;
    image->state = (sesstab_state)b->state;
    image->replace = durable < b->shrunk_version || durable < b->born_version || durable > b->version;
    image->member = durable < b->born_version || durable > b->version;
    image->kind = tomb ? STORE_DELETE
                  : durable != b->version ? STORE_PUT
                  : image->last_seen > load_relaxed(&slot->durable_seen) ? STORE_TOUCH
                                                                         : STORE_NOTHING;
    return b;
}

/* Before the store hears of it for the first time: from now on removing leaves a tombstone. */
static bool mark_stored(struct slot *slot, uint64_t current)
{
    return (current & CURRENT_STORED) || cas_exact(&slot->current, current, current | CURRENT_STORED);
}

void store_read(struct store *s, struct store_image *image, sesstab_view *view)
{
    struct context *c = store_context(s);
    image->kind = STORE_NOTHING;
    /* A slot that is not linked (yet) is nobody's session: Redis must not hear of it. */
    if (!c || !slot_hold(c, image->slot))
        return;
    struct slot *slot = slot_at(c->shm, image->slot);
    const struct block *b;
    uint64_t current;
    do {
        b = store_examine(s, c, slot, image, &current);
        bool sound = b && record_view(c->shm, b, load_relaxed(&slot->node.key), view) &&
                     record_is_current(current, b) && record_whole(view);
        s->damaged += CURRENT_BLOCK(current).at && !sound;
        if (!sound) /* quarantined: Redis keeps what it has */
            image->kind = STORE_NOTHING;
    } while (image->kind != STORE_NOTHING && !mark_stored(slot, current));
    if (image->kind == STORE_NOTHING)
        return;
    view->last_seen = image->last_seen;
    view->pending = image->pending;
    memcpy(image->player, view->player, (size_t)view->player_length + 1);
}

bool store_knows(struct store *s, uint64_t handle, struct store_image *image)
{
    struct store_image unused;
    struct context *c = store_context(s);
    if (!c)
        return true;
    image = image ? image : &unused;
    rcu_enter(c);
    uint64_t current = 0;
    struct slot *slot = index_lookup(c, handle);
    *image = (struct store_image){ .kind = STORE_NOTHING };
    if (slot && slot != INDEX_DAMAGED) {
        image->slot = slot_ref_of(c->shm, slot);
        store_examine(s, c, slot, image, &current);
    }
    rcu_exit(c);
    /* What is damaged is known: it must not be taken for gone. */
    return slot == INDEX_DAMAGED || CURRENT_BLOCK(current).at;
}
