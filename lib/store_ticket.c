/* Who waits for Redis: bits, chains, answers; see store_inside.h. */
#include "lib/store_inside.h"

#include "shm/wait.h"

/* Tickets that a late leader took with it are looked for this often. */
enum { TICKETS_PERIOD_MS = 1000 };

/* ---------------------------------------------------------------- bits by ticket ---------- */

static unsigned groups_used(const struct shm *shm)
{
    uint64_t high = load_acquire(&shm->header->group_high);
    return high < GROUPS ? (unsigned)high : GROUPS;
}

struct tickets_words tickets_words(const struct store *s)
{
    uint64_t high = load_acquire(&s->table->shm.header->thread_high);
    unsigned threads = high > THREADS ? THREADS / 64 : high ? (unsigned)(high + 63) / 64 : 1;
    return (struct tickets_words){ threads, threads + groups_used(&s->table->shm) };
}

static unsigned nth_word(struct tickets_words words, unsigned n)
{
    return n < words.threads ? n : THREADS / 64 + n - words.threads;
}

/* ---------------------------------------------------------------- answers ----------------- */

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

void tickets_wake_everybody(struct store *s)
{
    for (unsigned g = 0; g < groups_used(&s->table->shm); g++)
        if (load_relaxed(&s->table->shm.groups[g]))
            note_answer(s, g, UINT64_MAX);
    store_wake(s);
}

void tickets_look_at_all(struct store *s)
{
    const struct tickets_words words = tickets_words(s);
    for (unsigned n = 0; n < words.all; n++)
        s->waiting[nth_word(words, n)] = UINT64_MAX;
    s->tickets_at = monotonic_ms() + TICKETS_PERIOD_MS;
}

/* ---------------------------------------------------------------- verdicts ---------------- */

void ticket_say(struct store *s, unsigned index, uint64_t word, enum ticket_state verdict)
{
    struct ticket *k = &s->table->shm.tickets[index];
    if (!cas_exact(&k->word, word, TICKET_WORD(TICKET_SEQ(word), verdict))) /* COMMIT: said */
        return;
    if (index < THREADS)
        futex_wake_all((atomic_u32 *)&k->word);
    else
        note_answer(s, (index - THREADS) / GROUP_TICKETS, UINT64_C(1) << index % GROUP_TICKETS);
}

enum ticket_state ticket_judge_binding(uint64_t version, const struct block *b, uint64_t durable)
{
    if (b->bound_version < version || b->refused_version == version)
        return TICKET_REFUSED;
    if (version < b->refused_version) /* a refusal lies between: who can't tell says unknown */
        return durable >= version ? TICKET_UNKNOWN : TICKET_WAITING;
    return durable >= version ? TICKET_DURABLE : TICKET_WAITING;
}

static enum ticket_state judge(const struct ticket *k, const struct block *b, uint64_t durable)
{
    uint64_t version = load_relaxed(&k->version);
    if (ticket_kind_of(k) == TICKET_BINDING)
        return ticket_judge_binding(version, b, durable);
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
enum ticket_state ticket_judge(struct store *s, struct context *c, const struct ticket *k,
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
    if (ticket_kind_of(k) == TICKET_REMOVAL)
        return judge_removal(k, current, b, durable);
    if (!b || (current & CURRENT_TOMB) || b->handle != load_relaxed(&k->handle) ||
        b->generation != load_relaxed(&k->generation))
        return TICKET_GONE;
    return judge(k, b, durable);
}

/* This ticket does not wait.  If it is answered, its process may not know: who answered it may have been
 * stopped, or killed, before the bit. */
static void forget_ticket(struct store *s, unsigned index, enum ticket_state state)
{
    s->waiting[index / 64] &= ~(UINT64_C(1) << index % 64);
    if (index >= THREADS && state != TICKET_IDLE)
        note_answer(s, (index - THREADS) / GROUP_TICKETS, UINT64_C(1) << index % GROUP_TICKETS);
}

void tickets_each_waiting(struct store *s, ticket_fn *function, void *context)
{
    const struct tickets_words words = tickets_words(s);
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

void tickets_collect(struct store *s)
{
    atomic_u64 *urgent = s->table->shm.urgent;
    const struct tickets_words words = tickets_words(s);
    for (unsigned n = 0; n < words.all; n++) {
        unsigned i = nth_word(words, n);
        if (load_relaxed(&urgent[i]))
            s->waiting[i] |= atomic_exchange(&urgent[i], 0);
    }
}

size_t store_waiting(struct store *s)
{
    const struct tickets_words words = tickets_words(s);
    size_t count = 0;
    tickets_collect(s);
    for (unsigned n = 0; n < words.all; n++)
        count += (size_t)__builtin_popcountll(s->waiting[nth_word(words, n)]);
    return count;
}

/* ---------------------------------------------------------------- chains ------------------ */

void ticket_hang(struct store *s, struct store_image *image, unsigned index)
{
    if (!image->chain) {
        s->chains += s->chains == UINT32_MAX ? 2 : 1;
        image->chain = s->chains;
    }
    s->links[index] = (struct link){ image->tickets, image->chain };
    image->tickets = index + 1;
    s->waiting[index / 64] &= ~(UINT64_C(1) << index % 64);
}

void tickets_each_chained(struct store *s, const struct store_image *image, ticket_fn *function,
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
