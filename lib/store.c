#include "store.h"

#include "lib/table.h"
#include "shm/recover.h"
#include "shm/ring.h"
#include "shm/wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Tickets that a late leader took with it are looked for this often; and no single look of a stand-by
 * counts for more than so much of the leader's silence. */
enum { TICKETS_PERIOD_MS = 1000, LOOK_COUNTS_MS = 200 };

/* The background sweep: a whole round starts this often, and no more chunks are looked at per
 * second, so that a large idle table costs next to nothing. */
enum { SWEEP_PERIOD_MS = 10000, SWEEP_RETRY_MS = 1000,
       SWEEP_CHUNKS_PER_S = (50 << 20) / CHUNK_BYTES, SWEEP_CHUNKS_PER_TAKE = (8 << 20) / CHUNK_BYTES,
       SWEEP_CHUNKS_IN_HASTE = 8 }; /* while somebody waits */

struct sweep {
    bool running, thorough;  /* thorough: somebody died; as fast as it goes, and hints are set anew */
    bool again;              /* somebody died while it ran: a whole round more, after this one      */
    bool starved;            /* a session could not be detached for want of memory: soon again      */
    uint64_t chunk;
    int64_t started, next;   /* monotonic ms */
};

struct scan {
    bool running, again;     /* again: a whole round more, after this one */
    uint64_t chunk;
    unsigned word, bit;
};

/*
 * A ticket that was taken hangs on its image, in a chain, and is nobody else's until that image's end:
 * what becomes of an image costs as much as tickets wait for it, however many others wait.
 *
 *   waiting --store_take--> in the chain of an image --store_ack, _refuse, _retry, _forget or
 *      ^                                                _let_go--> answered, or
 *      +------------------------------------------------------------- waiting again
 *
 * A chain's number is never used again: that of an image which was let go leads nowhere.
 */
struct link {
    uint32_t next;                    /* index + 1 of the chain's next ticket; 0: none */
    uint32_t chain;                   /* 0: in none */
};

/* Where a take has put a session with tickets: by a hash of its slot. */
enum { PLACES = 2 * STORE_TAKE_MAX };
struct place {
    uint32_t take, image;
};

/* A stand-by's watch over the leader. */
struct vigil {
    uint64_t leader, beat;            /* as seen last */
    int64_t looked_at, silence_ms;
};

struct store {
    sesstab *table;
    uint64_t leading;                 /* header.leader as this store made it; 0: it never led */
    enum store_former former;
    worker_id superseded;             /* by this store, and not known to be dead; 0: nobody */
    struct vigil vigil;
    int64_t tickets_at;               /* when all tickets are looked at again; monotonic ms */
    uint64_t waiting[TICKETS / 64];   /* tickets that this leader knows to wait */
    struct link links[TICKETS];
    uint32_t chains, takes;           /* numbers of the latest ones */
    struct place places[PLACES];
    uint64_t answered[WORKERS / 64];  /* workers with answers of which they were not told yet */
    unsigned next_ticket;             /* where the next take begins: everybody gets a turn */
    unsigned next_ring;               /* the same for rings */
    bool tickets_left;                /* the last take had no room for all */
    struct scan scan;                 /* of the dirty bits */
    struct sweep sweep;
    uint32_t mode;                    /* header.mode as this leader knows it */
    uint64_t damaged;
};

static struct context *context_in(struct store *s)
{
    int result;
    return context_for(s->table, &result);
}

struct store *store_open(sesstab *table)
{
    struct store *s = calloc(1, sizeof *s);
    if (s) {
        s->table = table;
        s->mode = load_relaxed(&table->shm.header->mode);
    }
    return s;
}

/* Whoever leads by now knows nothing of the tickets that we took note of, of the dirty bits that we
 * have set, nor of the deaths that we were told of. */
static void hand_over(struct store *s, struct context *c)
{
    struct shm *shm = &s->table->shm;
    struct header *h = shm->header;
    store_wake(s);
    for (unsigned i = 0; i < TICKETS; i++)
        if (s->links[i].chain)
            s->waiting[i / 64] |= UINT64_C(1) << i % 64;
    for (unsigned i = 0; i < TICKETS / 64; i++)
        if (s->waiting[i])
            atomic_fetch_or(&shm->urgent[i], s->waiting[i]);
    atomic_store(&h->overflow, 1);
    atomic_store(&h->sweep_wanted, 1);
    if (!cas_exact(&h->leader, s->leading, LEADER_WORD(LEADER_TERM(s->leading), 0)))
        atomic_store(&h->compare_wanted, 1);
    announce_wake(c, true);
}

void store_close(struct store *s)
{
    struct context *c = context_in(s);
    if (s->leading && c)
        hand_over(s, c);
    free(s);
}

uint64_t store_creation_id(const struct store *s) { return s->table->shm.creation_id; }
bool store_is_ready(const struct store *s) { return load_acquire(&s->table->shm.header->ready); }

int store_leader_pid(const struct store *s)
{
    const struct shm *shm = &s->table->shm;
    worker_id id = (worker_id)load_relaxed(&shm->header->leader);
    uint32_t index = (id & ((1u << WORKER_INDEX_BITS) - 1)) - 1;
    return index < WORKERS ? (int)load_relaxed(&shm->workers[index].pid) : 0;
}

uint32_t store_incarnation(const struct store *s)
{
    return load_relaxed(&s->table->shm.header->incarnation);
}

/* ---------------------------------------------------------------- tickets' words ------------ */

static unsigned groups_used(const struct shm *shm)
{
    uint64_t high = load_acquire(&shm->header->group_high);
    return high < GROUPS ? (unsigned)high : GROUPS;
}

/* The words of a bitmap by ticket in which there ever was one: threads' first, then groups'.  They only
 * become more. */
struct ticket_words {
    unsigned threads, all;
};

static struct ticket_words ticket_words(const struct store *s)
{
    uint64_t high = load_acquire(&s->table->shm.header->thread_high);
    unsigned threads = high > THREADS ? THREADS / 64 : high ? (unsigned)(high + 63) / 64 : 1;
    return (struct ticket_words){ threads, threads + groups_used(&s->table->shm) };
}

static unsigned nth_word(struct ticket_words words, unsigned n)
{
    return n < words.threads ? n : THREADS / 64 + n - words.threads;
}

/* ---------------------------------------------------------------- leadership ---------------- */

static void sweep_everything(struct store *s)
{
    s->sweep = (struct sweep){ .running = true, .thorough = true, .started = monotonic_ms() };
}

/* From the beginning; one that runs comes to its end first, or who begins anew all the time would
 * never come to what lies behind. */
static void scan_everything(struct store *s)
{
    if (s->scan.running)
        s->scan.again = true;
    else
        s->scan = (struct scan){ .running = true };
}

/* Its worker has an answer, or may have one, in group G. */
static void note_answer(struct store *s, unsigned g, uint64_t bits)
{
    struct shm *shm = &s->table->shm;
    unsigned worker = worker_index(load_relaxed(&shm->groups[g]));
    atomic_fetch_or(&shm->answered[g], bits);
    if (worker < WORKERS)
        s->answered[worker / 64] |= UINT64_C(1) << worker % 64;
}

void store_wake(struct store *s)
{
    struct shm *shm = &s->table->shm;
    const uint64_t high = load_acquire(&shm->header->worker_high); /* beyond it nothing is backed */
    for (unsigned i = 0; i < WORKERS / 64; i++)
        for (; s->answered[i]; s->answered[i] &= s->answered[i] - 1) {
            unsigned worker = i * 64 + (unsigned)__builtin_ctzll(s->answered[i]);
            if (worker >= high)
                continue;
            atomic_fetch_add(&shm->workers[worker].answers, 1);
            futex_wake_all(&shm->workers[worker].answers);
        }
}

/* The former leader may have died between a verdict and its bit, or before it woke anybody (H11). */
static void wake_everybody(struct store *s)
{
    for (unsigned g = 0; g < groups_used(&s->table->shm); g++)
        if (load_relaxed(&s->table->shm.groups[g]))
            note_answer(s, g, UINT64_MAX);
    store_wake(s);
}

/* Any bit may have been taken note of by who led before, or leads no more and does not know it yet. */
static void look_at_all_tickets(struct store *s)
{
    const struct ticket_words words = ticket_words(s);
    for (unsigned n = 0; n < words.all; n++)
        s->waiting[nth_word(words, n)] = UINT64_MAX;
    s->tickets_at = monotonic_ms() + TICKETS_PERIOD_MS;
}

/* The former leader's knowledge is gone: any bit may be clear, any ticket taken. */
static void look_at_everything(struct store *s)
{
    struct shm *shm = &s->table->shm;
    look_at_all_tickets(s);
    wake_everybody(s);
    uint64_t threads = load_acquire(&shm->header->thread_high);
    for (unsigned i = 0; i < threads && i < THREADS; i += 64)
        atomic_store(&shm->ready[i / 64], UINT64_MAX);
    scan_everything(s);
    sweep_everything(s);
}

static bool take_lead(struct store *s, struct context *c, uint64_t seen, enum store_former former)
{
    uint64_t mine = LEADER_WORD(LEADER_TERM(seen) + 1, c->worker);
    if (!cas_exact(&s->table->shm.header->leader, seen, mine)) /* COMMIT: leads */
        return false;
    s->leading = mine;
    s->former = former;
    s->superseded = former == FORMER_STALLED ? LEADER_WORKER(seen) : 0;
    store_beat(s);
    look_at_everything(s);
    return true;
}

bool store_leads(const struct store *s)
{
    return s->leading && load_acquire(&s->table->shm.header->leader) == s->leading;
}

/* Somebody else has led since; a store that never led (a test's) is nobody's former leader. */
static bool is_late(const struct store *s)
{
    return s->leading && !store_leads(s);
}

bool store_lead(struct store *s)
{
    struct shm *shm = &s->table->shm;
    struct context *c = context_in(s);
    if (!c)
        return false;
    if (store_leads(s)) {
        look_at_everything(s);
        return true;
    }
    uint64_t seen = load_acquire(&shm->header->leader);
    worker_id leader = LEADER_WORKER(seen);
    if (leader && worker_alive(shm, leader))
        return false;
    return take_lead(s, c, seen, leader ? FORMER_DEAD : FORMER_NOBODY);
}

bool store_supersede(struct store *s, int after_ms)
{
    struct header *h = s->table->shm.header;
    struct context *c = context_in(s);
    struct vigil *v = &s->vigil, last = *v;
    *v = (struct vigil){ .leader = load_acquire(&h->leader), .beat = load_acquire(&h->leader_beat),
                         .looked_at = monotonic_ms() };
    if (v->leader != last.leader || v->beat != last.beat)
        return false;
    int64_t passed = v->looked_at - last.looked_at;
    v->silence_ms = last.silence_ms + (passed < LOOK_COUNTS_MS ? passed : LOOK_COUNTS_MS);
    return c && v->silence_ms >= after_ms && store_is_ready(s) && LEADER_WORKER(v->leader) &&
           take_lead(s, c, v->leader, FORMER_STALLED);
}

enum store_former store_former(const struct store *s) { return s->former; }

void store_beat(struct store *s)
{
    if (store_leads(s))
        add_relaxed(&s->table->shm.header->leader_beat, 1);
}

bool store_compare_wanted(struct store *s)
{
    atomic_u64 *wanted = &s->table->shm.header->compare_wanted;
    bool dead = s->superseded && worker_gone(&s->table->shm, s->superseded);
    if (dead)
        s->superseded = 0;
    return (load_relaxed(wanted) && atomic_exchange(wanted, 0)) || dead;
}

/* ---------------------------------------------------------------- sleeping ------------------ */

static bool any_bit(const atomic_u64 *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (load_relaxed(&words[i]))
            return true;
    return false;
}

static bool urgent_work(const struct store *s)
{
    const struct shm *shm = &s->table->shm;
    const struct ticket_words words = ticket_words(s);
    return s->tickets_left || any_bit(shm->urgent, words.threads) ||
           any_bit(shm->urgent + THREADS / 64, words.all - words.threads) ||
           load_relaxed(&shm->header->mode) != s->mode;
}

/* How many chunks of this round may have been swept by now; 0: no round is due. */
static uint64_t sweep_allowed(const struct store *s)
{
    int64_t now = monotonic_ms();
    if (s->sweep.running)
        return s->sweep.thorough ? UINT64_MAX
                                 : (uint64_t)(now - s->sweep.started) * SWEEP_CHUNKS_PER_S / 1000 + 1;
    return now >= s->sweep.next;
}

static bool other_work(const struct store *s)
{
    const struct shm *shm = &s->table->shm;
    return any_bit(shm->ready, THREADS / 64) || load_relaxed(&shm->header->overflow) ||
           load_relaxed(&shm->header->sweep_wanted) || s->scan.running ||
           s->sweep.chunk < sweep_allowed(s);
}

bool store_busy(const struct store *s)
{
    return urgent_work(s) || other_work(s);
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
        work = urgent_work(s) || (deep && other_work(s));
        /* At most 100 ms: a waker may die between its bit and its wake (H11). */
        if (!work && left > 0)
            futex_wait(&h->wake_seq, seq, left < 100 ? (int)left : 100);
        atomic_store(&h->sleeping, 0);
        work = work || urgent_work(s) || (deep && other_work(s));
        left = deadline - monotonic_ms();
    } while (!work && left > 0);
    return work;
}

/* ---------------------------------------------------------------- tickets ------------------- */

static void answer(struct store *s, unsigned index, uint64_t word, enum ticket_state verdict)
{
    struct ticket *k = &s->table->shm.tickets[index];
    if (!cas_exact(&k->word, word, TICKET_WORD(TICKET_SEQ(word), verdict))) /* COMMIT: said */
        return;
    if (index < THREADS)
        futex_wake_all((atomic_u32 *)&k->word);
    else
        note_answer(s, (index - THREADS) / GROUP_TICKETS, UINT64_C(1) << index % GROUP_TICKETS);
}

/*
 * What can be said about a binding's version, with the record B on top and DURABLE in Redis.  A ticket
 * may be posted long after its binding was published (its worker was stopped), so that versions alone
 * don't tell: the binding may have been rolled back, and another be durable by now.
 */
static enum ticket_state judge_binding(uint64_t version, const struct block *b, uint64_t durable)
{
    if (b->bound_version < version || b->refused_version == version)
        return TICKET_REFUSED;
    if (version < b->refused_version) /* a refusal lies between: who can't tell says unknown */
        return durable >= version ? TICKET_UNKNOWN : TICKET_WAITING;
    return durable >= version ? TICKET_DURABLE : TICKET_WAITING;
}

static enum ticket_kind kind_of(const struct ticket *k)
{
    return (enum ticket_kind)load_relaxed(&k->kind);
}

static enum ticket_state judge(const struct ticket *k, const struct block *b, uint64_t durable)
{
    uint64_t version = load_relaxed(&k->version);
    if (kind_of(k) == TICKET_BINDING)
        return judge_binding(version, b, durable);
    return durable >= version ? TICKET_DURABLE : TICKET_WAITING;
}

/*
 * A removed session's slot holds B, NULL: nothing, or something damaged.  The tombstone leaves it when
 * Redis has deleted the session; or it was revived before that, and the next session's write replaces
 * what Redis has.
 */
static enum ticket_state judge_removal(const struct ticket *k, uint64_t current, const struct block *b,
                                       uint64_t durable)
{
    if (!CURRENT_BLOCK(current).at || (b && b->handle != load_relaxed(&k->handle)))
        return TICKET_DURABLE;
    bool revived = b && b->generation != load_relaxed(&k->generation);
    return revived && durable >= load_relaxed(&k->version) ? TICKET_DURABLE : TICKET_WAITING;
}

/* Answers the ticket if it can be answered already; WAITING if it can't. */
static enum ticket_state judge_ticket(struct store *s, struct context *c, const struct ticket *k,
                                      slot_ref r)
{
    struct shm *shm = &s->table->shm;
    if (!slot_ref_valid(shm, r))
        return TICKET_GONE;
    struct slot *slot = slot_at(shm, r);
    if (load_acquire(&slot->node.birth) > c->hi)
        rcu_extend(c);
    uint64_t current, word = load_acquire(&slot->durable);
    const struct block *b = record_in(c, slot, &current);
    bool same_store = DURABLE_INCARNATION(word) == store_incarnation(s);
    uint64_t durable = same_store ? DURABLE_VERSION(word) : 0;
    if (kind_of(k) == TICKET_REMOVAL)
        return judge_removal(k, current, b, durable);
    if (!b || (current & CURRENT_TOMB) || b->handle != load_relaxed(&k->handle) ||
        b->generation != load_relaxed(&k->generation))
        return TICKET_GONE;
    return judge(k, b, durable);
}

/* False: no more of them. */
typedef bool ticket_fn(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context);

/* This ticket does not wait.  If it is answered, its process may not know: who answered it may have been
 * stopped, or killed, before the bit. */
static void forget_ticket(struct store *s, unsigned index, enum ticket_state state)
{
    s->waiting[index / 64] &= ~(UINT64_C(1) << index % 64);
    if (index >= THREADS && state != TICKET_IDLE)
        note_answer(s, (index - THREADS) / GROUP_TICKETS, UINT64_C(1) << index % GROUP_TICKETS);
}

/* Calls FUNCTION for the tickets that wait and are in no chain, in turn from s->next_ticket, which
 * becomes the one that it stops at; forgets those that do not wait. */
static void each_waiting(struct store *s, ticket_fn *function, void *context)
{
    const struct ticket_words words = ticket_words(s);
    const unsigned first = s->next_ticket / 64 % words.all;
    const uint64_t from = UINT64_MAX << s->next_ticket % 64;
    for (unsigned n = 0; n <= words.all; n++) {
        unsigned nth = (first + n) % words.all, i = nth_word(words, nth);
        uint64_t bits = s->waiting[i] & (n == 0 ? from : n == words.all ? ~from : UINT64_MAX);
        for (; bits; bits &= bits - 1) {
            unsigned bit = (unsigned)__builtin_ctzll(bits), index = i * 64 + bit;
            struct ticket *k = &s->table->shm.tickets[index];
            uint64_t word = load_acquire(&k->word);
            if (TICKET_STATE(word) != TICKET_WAITING) {
                forget_ticket(s, index, TICKET_STATE(word));
            } else if (!function(s, index, k, word, context)) {
                s->next_ticket = nth * 64 + bit;
                return;
            }
        }
    }
}

static void collect_urgent(struct store *s)
{
    atomic_u64 *urgent = s->table->shm.urgent;
    const struct ticket_words words = ticket_words(s);
    for (unsigned n = 0; n < words.all; n++) {
        unsigned i = nth_word(words, n);
        if (load_relaxed(&urgent[i]))
            s->waiting[i] |= atomic_exchange(&urgent[i], 0);
    }
}

size_t store_waiting(struct store *s)
{
    const struct ticket_words words = ticket_words(s);
    size_t count = 0;
    collect_urgent(s);
    for (unsigned n = 0; n < words.all; n++)
        count += (size_t)__builtin_popcountll(s->waiting[nth_word(words, n)]);
    return count;
}

/* ---------------------------------------------------------------- chains -------------------- */

static void hang(struct store *s, struct store_image *image, unsigned index)
{
    if (!image->chain) {
        s->chains += s->chains == UINT32_MAX ? 2 : 1;
        image->chain = s->chains;
    }
    s->links[index] = (struct link){ image->tickets, image->chain };
    image->tickets = index + 1;
    s->waiting[index / 64] &= ~(UINT64_C(1) << index % 64);
}

/* Calls FUNCTION for the tickets of IMAGE that still wait. */
static void each_chained(struct store *s, const struct store_image *image, ticket_fn *function,
                         void *context)
{
    for (uint32_t at = image->tickets; at && s->links[at - 1].chain == image->chain;
         at = s->links[at - 1].next) {
        struct ticket *k = &s->table->shm.tickets[at - 1];
        uint64_t word = load_acquire(&k->word);
        if (TICKET_STATE(word) == TICKET_WAITING)
            function(s, at - 1, k, word, context);
    }
}

void store_let_go(struct store *s, const struct store_image *image)
{
    for (uint32_t at = image->tickets; at && s->links[at - 1].chain == image->chain;
         at = s->links[at - 1].next) {
        unsigned index = at - 1;
        s->links[index].chain = 0;
        if (TICKET_STATE(load_relaxed(&s->table->shm.tickets[index].word)) == TICKET_WAITING)
            s->waiting[index / 64] |= UINT64_C(1) << index % 64;
    }
}

/* ---------------------------------------------------------------- taking -------------------- */

struct taking {
    struct context *c;
    struct store_image *images;
    size_t count, max;
};

/* Clears the slot's dirty bit; was it set? */
static bool clear_dirty(struct shm *shm, slot_ref r)
{
    uint64_t bit;
    atomic_u64 *word = dirty_word(shm, r, &bit);
    return atomic_fetch_and(word, ~bit) & bit;
}

static void set_dirty(struct shm *shm, slot_ref r)
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
    enum ticket_state state = judge_ticket(s, k->c, ticket, r);
    if (load_acquire(&ticket->word) != word)
        return true; /* its caller has taken it back while we read its fields */
    if (state != TICKET_WAITING) {
        answer(s, index, word, state);
        return true;
    }
    struct store_image *image = give_urgent(s, k, r);
    if (!image) {
        s->tickets_left = true;
        return false;
    }
    clear_dirty(&s->table->shm, r);
    hang(s, image, index);
    return true;
}

static void take_ring(struct store *s, struct taking *k, unsigned index)
{
    struct shm *shm = &s->table->shm;
    slot_ref r;
    uint32_t most = shm->ring_entries; /* a damaged ring must not keep us */
    while (k->count < k->max && most-- && ring_take(shm, index, &r))
        if (slot_ref_valid(shm, r) && clear_dirty(shm, r))
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
        if (slot_ref_valid(&s->table->shm, r) && clear_dirty(&s->table->shm, r))
            give(s, k, r);
    }
    scan->bit = 0;
    return true;
}

static void take_scan(struct store *s, struct taking *k)
{
    struct shm *shm = &s->table->shm;
    if (!s->scan.running && atomic_exchange(&shm->header->overflow, 0))
        scan_everything(s);
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

static void sweep_some(struct store *s, const struct taking *k);

size_t store_take(struct store *s, struct store_image *images, size_t max, bool urgent_only)
{
    struct taking k = { .c = context_in(s), .images = images,
                        .max = max < STORE_TAKE_MAX ? max : STORE_TAKE_MAX };
    if (!k.c)
        return 0;
    s->takes++;
    if (max) {
        if (monotonic_ms() >= s->tickets_at)
            look_at_all_tickets(s);
        collect_urgent(s);
        s->tickets_left = false;
        rcu_enter(k.c);
        each_waiting(s, take_ticket, &k);
        rcu_exit(k.c);
        store_wake(s);
    }
    if (!urgent_only) {
        sweep_some(s, max ? &k : NULL);
        take_changes(s, &k);
    }
    if (k.count && !rcu_heavy_fence(&s->table->shm)) /* store_take:B */
        store_relaxed(&s->table->shm.header->sweep_wanted, 1);
    return k.count;
}

/* ---------------------------------------------------------------- reading ------------------- */

/* Fills IMAGE from the slot's record; NULL when there is none that the store should hear of. */
static const struct block *examine(struct store *s, struct context *c, struct slot *slot,
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
    struct context *c = context_in(s);
    image->kind = STORE_NOTHING;
    /* A slot that is not linked (yet) is nobody's session: Redis must not hear of it. */
    if (!c || !slot_hold(c, image->slot))
        return;
    struct slot *slot = slot_at(c->shm, image->slot);
    const struct block *b;
    uint64_t current;
    do {
        b = examine(s, c, slot, image, &current);
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
    struct context *c = context_in(s);
    if (!c)
        return true;
    image = image ? image : &unused;
    rcu_enter(c);
    uint64_t current = 0;
    struct slot *slot = index_lookup(c, handle);
    *image = (struct store_image){ .kind = STORE_NOTHING };
    if (slot && slot != INDEX_DAMAGED) {
        image->slot = slot_ref_of(c->shm, slot);
        examine(s, c, slot, image, &current);
    }
    rcu_exit(c);
    /* What is damaged is known: it must not be taken for gone. */
    return slot == INDEX_DAMAGED || CURRENT_BLOCK(current).at;
}

/* ---------------------------------------------------------------- mode ---------------------- */

/*
 *   announce:A    publish / light fence / load the mode: MEMORY, so that nobody is told
 *   store_mode:E  load the mode: another / heavy fence / sweep
 *                 without: a change made while the mode was MEMORY waits for the background sweep
 */
sesstab_mode store_mode(struct store *s, bool *switched)
{
    uint32_t word = load_acquire(&s->table->shm.header->mode);
    *switched = word != s->mode;
    if (*switched) {
        s->mode = word;
        if (!rcu_heavy_fence(&s->table->shm)) /* store_mode:E */
            store_relaxed(&s->table->shm.header->sweep_wanted, 1);
        sweep_everything(s);
    }
    return (sesstab_mode)MODE_OF(word);
}

static bool give_up(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    (void)k, (void)context;
    answer(s, index, word, TICKET_UNKNOWN);
    return true;
}

void store_rest(struct store *s, int timeout_ms)
{
    collect_urgent(s);
    each_waiting(s, give_up, NULL);
    store_wake(s);
    store_connected(s, true); /* it is not missed */
    futex_wait(&s->table->shm.header->mode, s->mode, timeout_ms);
}

/* ---------------------------------------------------------------- acknowledging ------------- */

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
    enum ticket_kind kind = kind_of(k);
    if (version > image->version || (p->bindings_only && kind != TICKET_BINDING))
        return TICKET_WAITING; /* a newer change is not judged by it */
    if (image->kind == STORE_DELETE)
        return kind == TICKET_REMOVAL ? TICKET_DURABLE : TICKET_GONE;
    if (kind != TICKET_BINDING)
        return kind == TICKET_CHANGE ? TICKET_DURABLE : TICKET_WAITING;
    if (p->refuse && p->record) /* what it was rolled back to is not refused, even if it asks late */
        return version <= image->bound_version && version > p->kept ? TICKET_REFUSED : TICKET_WAITING;
    return p->record ? judge_binding(version, p->record, image->version) : TICKET_GONE;
}

static bool speak(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    struct speaking *p = context;
    if (!same_session(k, p->image))
        return true;
    enum ticket_state state = fate(p, k);
    if (state != TICKET_WAITING)
        answer(s, index, word, state);
    return true;
}

static bool see_waiting(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    struct speaking *p = context;
    (void)s, (void)index, (void)word;
    p->found |= same_session(k, p->image) && (!p->bindings_only || kind_of(k) == TICKET_BINDING);
    return true;
}

bool store_waited_for(struct store *s, const struct store_image *image)
{
    struct speaking p = { .image = image };
    each_chained(s, image, see_waiting, &p);
    return p.found;
}

bool store_binding_waited_for(struct store *s, const struct store_image *image)
{
    struct speaking p = { .image = image, .bindings_only = true };
    each_chained(s, image, see_waiting, &p);
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
    if (h->bound_version <= image->bound_version || change->acked ||
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
    struct context *c = context_in(s);
    if (!c || image->kind == STORE_NOTHING) {
        store_let_go(s, image);
        return;
    }
    if (is_late(s)) { /* Redis had it then; what Redis has now is the successor's to say */
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
        each_chained(s, image, speak, &p);
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
    struct context *c = context_in(s);
    uint64_t current;
    const struct block *b;
    if (!c || is_late(s))
        return;
    struct speaking p = { .image = image, .bindings_only = true };
    rcu_enter(c);
    struct slot *slot = slot_for(c, image, &current, &b);
    bool said = !slot || !image->pending || secure_binding(c, slot, image);
    if (said) {
        p.record = slot && slot_for(c, image, &current, &b) ? b : NULL;
        each_chained(s, image, speak, &p);
    }
    rcu_exit(c);
}

/* ---------------------------------------------------------------- refusing ------------------ */

static bool deny(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    struct speaking *p = context;
    uint64_t version = load_relaxed(&k->version);
    if (kind_of(k) == TICKET_CHANGE && same_session(k, p->image) && version <= p->image->version &&
        version > p->kept) {
        answer(s, index, word, TICKET_REFUSED);
        p->denied++;
    }
    return true;
}

unsigned store_deny(struct store *s, const struct store_image *image, uint64_t held)
{
    struct speaking p = { .image = image, .kept = held };
    if (!is_late(s))
        each_chained(s, image, deny, &p);
    return p.denied;
}

struct roll_back {
    const struct store_image *image;
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
    if (h->bound_version != image->bound_version || change->acked)
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

bool store_refuse(struct store *s, const struct store_image *image)
{
    struct context *c = context_in(s);
    if (!c)
        return false;
    uint64_t current;
    const struct block *b;
    struct change change;
    struct roll_back r = { .image = image };
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
        if (result == CHANGE_NONE && change.acked && change.old->bound_version == image->bound_version) {
            rcu_exit(c); /* another leader's acknowledgement came between */
            return false;
        }
        if (result == SESSTAB_OK && player)
            hint_collect(c, player, image->slot);
        announce(c, slot);
    }
    rcu_exit(c);
    if (result != SESSTAB_OK && result != CHANGE_NONE && result != SESSTAB_NOTFOUND)
        return false;
    add_relaxed(&c->shm->header->refusals, 1);
    struct speaking p = { .image = image, .refuse = true, .bindings_only = true,
                          .record = slot ? b : NULL, .kept = r.kept };
    each_chained(s, image, speak, &p);
    store_let_go(s, image);
    collect_urgent(s); /* who posted before the roll-back is told now, who comes later is judged */
    each_waiting(s, speak, &p);
    return true;
}

void store_retry(struct store *s, const struct store_image *image)
{
    store_let_go(s, image);
    set_dirty(&s->table->shm, image->slot);
    scan_everything(s);
}

void store_forget(struct store *s, const struct store_image *image)
{
    struct context *c = context_in(s);
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

void store_lost(struct store *s)
{
    uint32_t lost = store_incarnation(s), next = (lost + 1) & 0xffff;
    atomic_compare_exchange_strong(&s->table->shm.header->incarnation, &lost, next ? next : 1);
    sweep_everything(s);
}

/* What is given back sets the scan going; after a death or a loss the sweep is thorough. */
void store_settle(struct store *s, uint64_t since)
{
    struct header *h = s->table->shm.header;
    bool looking = s->scan.running || (s->sweep.running && s->sweep.thorough) ||
                   load_relaxed(&h->sweep_wanted) ||
                   load_relaxed(&h->mode) != s->mode; /* in between it may have been MEMORY */
    if (!looking && store_leads(s))
        store_relaxed(&h->durable_until, since); /* also back, when the clock was set back */
}

void store_connected(struct store *s, bool connected)
{
    atomic_u64 *since = &s->table->shm.header->store_down_since;
    if (connected)
        store_relaxed(since, 0);
    else if (!load_relaxed(since))
        store_relaxed(since, shm_now());
}

void store_acknowledged(struct store *s, enum acknowledged where, unsigned replicas)
{
    store_relaxed(&s->table->shm.header->acknowledged, (uint64_t)replicas << 8 | where);
}

uint64_t store_lag(struct store *s)
{
    uint64_t lag = 0, current;
    sesstab_cursor k = { 0 };
    sesstab_view v;
    struct store_image image;
    int result;
    while ((result = sesstab_next(s->table, &k, &v)) != SESSTAB_NOTFOUND) {
        struct context *c = context_in(s);
        if (result == SESSTAB_CORRUPT)
            continue;
        if (result != SESSTAB_OK || !c)
            break;
        struct slot *slot = index_lookup(c, v.handle);
        lag += slot && examine(s, c, slot, &image, &current) && image.kind != STORE_NOTHING;
    }
    sesstab_pause(s->table, &k);
    return lag;
}

/* ---------------------------------------------------------------- the sweep ----------------- */

static int edit_detach(struct context *c, const struct change *change, struct draft *d, void *arguments)
{
    (void)change, (void)arguments;
    if (d->head.state == SESSTAB_DETACHED || !worker_gone(c->shm, d->head.owner))
        return CHANGE_NONE;
    d->head.state = SESSTAB_DETACHED;
    return SESSTAB_OK;
}

/* One session: is its change known, does its owner live?  True if its dirty bit was set. */
static bool sweep_session(struct store *s, struct context *c, slot_ref r)
{
    struct slot *slot = slot_at(c->shm, r);
    struct store_image image;
    struct change change;
    uint64_t current;
    if (OWN_STATE(load_relaxed(&slot->node.life)) == OWN_FREE || !slot_hold(c, r))
        return false;
    const struct block *b = examine(s, c, slot, &image, &current);
    if (!b)
        return false;
    if (s->sweep.thorough && !(current & CURRENT_TOMB))
        hint_restore(c, b, r);
    bool orphan = !(current & CURRENT_TOMB) && b->state != SESSTAB_DETACHED &&
                  worker_gone(c->shm, b->owner);
    int result = orphan ? session_change_slot(c, slot, b->handle, edit_detach, NULL, &change)
                        : CHANGE_NONE;
    s->sweep.starved |= result == SESSTAB_NOMEMORY || result == SESSTAB_NOSPACE;
    if (result == SESSTAB_OK)
        add_relaxed(&c->shm->header->detached, 1);
    else if (image.kind == STORE_NOTHING)
        return false;
    set_dirty(c->shm, r);
    return true;
}

static void sweep_chunk(struct store *s, struct context *c, uint64_t chunk)
{
    struct shm *shm = c->shm;
    bool found = false;
    recover_sweep(c, (unsigned)chunk);
    if (s->sweep.thorough)
        heap_rehint(shm, (unsigned)chunk);
    if (load_acquire(&shm->chunks[chunk].class) != CHUNK_SESSIONS)
        return;
    for (uint32_t page = chunk == 0; page < CHUNK_PAGES; page++) {
        uint32_t first = (uint32_t)((chunk * CHUNK_PAGES + page) * (PAGE_BYTES / SLOT_BYTES));
        rcu_enter(c);
        for (uint32_t k = 0; k < PAGE_SLOTS; k++)
            found |= sweep_session(s, c, (slot_ref){ first + k });
        rcu_exit(c);
    }
    if (found && !s->scan.running)
        s->scan = (struct scan){ .running = true, .chunk = chunk };
    else if (found && s->scan.chunk >= chunk)
        scan_everything(s);
    add_relaxed(&shm->header->swept, 1);
}

/* Pages that this process has never touched take long: who waits and can be served does not wait for
 * many of them.  K: what is being taken; NULL: nobody can be served. */
static uint64_t sweep_most(const struct store *s, const struct taking *k)
{
    return k && (k->count || urgent_work(s)) ? SWEEP_CHUNKS_IN_HASTE : SWEEP_CHUNKS_PER_TAKE;
}

static void sweep_some(struct store *s, const struct taking *k)
{
    struct context *c = context_in(s);
    uint64_t chunks = heap_chunks(&s->table->shm);
    if (atomic_exchange(&s->table->shm.header->sweep_wanted, 0)) {
        s->sweep.again = s->sweep.running && s->sweep.chunk > 0;
        if (!s->sweep.again)
            sweep_everything(s);
        s->sweep.thorough = true;
    }
    uint64_t allowed = sweep_allowed(s);
    if (!s->sweep.running && allowed)
        s->sweep = (struct sweep){ .running = true, .started = monotonic_ms() };
    for (uint64_t i = 0; s->sweep.chunk < chunks && s->sweep.chunk < allowed && i < sweep_most(s, k); i++)
        sweep_chunk(s, c, s->sweep.chunk++);
    if (!s->sweep.running || s->sweep.chunk < chunks)
        return;
    if (c->limbo.count) /* what a reader pinned when it was found; nobody else can free it */
        rcu_reclaim(c);
    bool again = s->sweep.again;
    int period = s->sweep.starved ? SWEEP_RETRY_MS : SWEEP_PERIOD_MS;
    s->sweep = (struct sweep){ .next = s->sweep.started + period };
    if (again)
        sweep_everything(s);
}

/* ---------------------------------------------------------------- loading ------------------- */

static int check_record(const struct store_record *r)
{
    if (!r->handle || !r->version || r->version > VERSION_MAX / 2 || (unsigned)r->state >= SESSTAB_STATE_COUNT)
        return SESSTAB_INVALID;
    if (r->metadata_count > SESSTAB_RECORD_MAX)
        return SESSTAB_TOOBIG;
    for (size_t i = 0; i < r->metadata_count; i++) {
        size_t n = strlen(r->metadata[i].key);
        if (n == 0)
            return SESSTAB_INVALID;
        if (n > SESSTAB_KEY_MAX || r->metadata[i].length > UINT16_MAX)
            return SESSTAB_TOOBIG;
    }
    return SESSTAB_OK;
}

static int draft_of_record(struct context *c, const struct store_record *r, struct draft *d)
{
    struct block *h = &d->head;
    *d = (struct draft){ .player = r->player, .address = r->address, .host = r->host, .type = r->type,
                         .pairs = r->metadata, .pair_count = r->metadata_count,
                         .pairs_size = record_pairs_size(r->metadata, r->metadata_count) };
    if (!text_fits(&d->player, SESSTAB_PLAYER_MAX, &h->player_length) ||
        !text_fits(&d->address, SESSTAB_ADDRESS_MAX, &h->address_length) ||
        !text_fits(&d->host, SESSTAB_HOST_MAX, &h->host_length) ||
        !text_fits(&d->type, SESSTAB_TYPE_MAX, &h->type_length))
        return SESSTAB_TOOBIG;
    h->handle = r->handle;
    h->generation = r->generation;
    h->connected_at = r->connected_at;
    h->born_version = h->shrunk_version = h->bound_version = r->version;
    h->version = r->version + (r->state != SESSTAB_DETACHED); /* becoming detached is a change */
    h->state = SESSTAB_DETACHED;
    if (h->player_length)
        h->player_hash = record_player_hash(c->shm, d->player, h->player_length);
    return SESSTAB_OK;
}

int store_load(struct store *s, const struct store_record *record)
{
    struct draft d;
    struct context *c = context_in(s);
    int result = check_record(record);
    if (!c)
        return SESSTAB_LIMIT;
    if (!result)
        result = draft_of_record(c, record, &d);
    if (result)
        return result;
    rcu_enter(c);
    result = session_insert(c, &d, record->last_seen, true);
    /* EXISTS: perhaps a loader before us linked it, and died before this. */
    struct slot *slot = result == SESSTAB_OK || result == SESSTAB_EXISTS
                      ? index_lookup(c, record->handle) : NULL;
    uint64_t current;
    const struct block *b = slot ? record_in(c, slot, &current) : NULL;
    if (b && !(current & CURRENT_TOMB) && !hint_restore(c, b, slot_ref_of(c->shm, slot)))
        result = SESSTAB_NOMEMORY;
    rcu_exit(c);
    return result;
}

uint64_t store_reserve(struct store *s, uint64_t most)
{
    atomic_u64 *next = &s->table->shm.header->next_generation;
    uint64_t seen = load_relaxed(next);
    while (seen <= most && !cas(next, &seen, most + 1))
        ;
    return seen;
}

void store_load_from(struct store *s, uint64_t creation_id, uint32_t incarnation)
{
    store_relaxed(&s->table->shm.header->loaded_incarnation, incarnation);
    store_relaxed(&s->table->shm.header->loaded_from, creation_id);
}

bool store_loaded_from(const struct store *s, uint64_t creation_id, uint32_t incarnation)
{
    const struct header *h = s->table->shm.header;
    return creation_id && load_relaxed(&h->loaded_from) == creation_id &&
           load_relaxed(&h->loaded_incarnation) == incarnation;
}

void store_set_ready(struct store *s, uint64_t max_generation, uint64_t max_handle)
{
    struct header *h = s->table->shm.header;
    raise_to(&h->next_generation, max_generation + 1);
    if (max_handle < UINT64_MAX / 2) /* handles that servers chose at random leave no room above */
        raise_to(&h->next_handle, max_handle + 1);
    atomic_store(&h->ready, 1); /* COMMIT: what is not here does not exist */
    futex_wake_all(&h->ready);
}

/* ---------------------------------------------------------------- deaths -------------------- */

const char *store_path(const sesstab *table)
{
    return table->shm.path;
}

unsigned store_recover(sesstab *table, int *pids, size_t max, size_t *count)
{
    int result;
    if (!context_for(table, &result))
        return 0;
    unsigned dead = worker_recover(&table->shm, pids, max, count);
    struct context *c = context_for(table, &result);
    if (dead && c)
        announce_wake(c, false);
    return dead;
}
