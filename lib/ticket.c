/*
 * Tickets; see ticket.h.
 *
 * Of a process's tickets the segment knows state, session and version; which are in use, and the
 * callers' cookies, only the process does.
 */
#include "ticket.h"

#include "shm/wait.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

enum { LOOK_MS = 1000 }; /* the library's thread looks so often without being woken */

/* What the caller of a ticket gets back. */
struct errand {
    atomic_u64 cookie, handle;
};

/* In wipe-on-fork memory, zero at first: an all-zero pthread_mutex_t is an unlocked one. */
struct tickets {
    pthread_mutex_t lock;            /* of who starts the thread; not in any path */
    pthread_t thread;
    _Atomic int descriptor;          /* + 1; 0: there is none, and no thread */
    atomic_u32 worker;               /* this process, once it has used any of this */
    _Atomic bool closing;
    _Atomic unsigned claim_from, answer_from; /* groups: where the last one was found */
    atomic_u64 held[GROUPS / 64];    /* a bit per group that is ours */
    atomic_u64 free[GROUPS];         /* a bit per ticket of ours that nobody uses */
    struct errand errands[TICKETS - THREADS];
};
_Static_assert(GROUPS % 64 == 0, "groups fill whole words");

/* ---------------------------------------------------------------- waiting ------------------- */

static int verdict(enum ticket_state state)
{
    switch (state) {
    case TICKET_DURABLE: return SESSTAB_OK;
    case TICKET_REFUSED: return SESSTAB_REFUSED;
    case TICKET_GONE: return SESSTAB_NOTFOUND;
    default: return SESSTAB_UNKNOWN;
    }
}

static uint64_t idle_after(uint64_t word)
{
    return TICKET_WORD(TICKET_SEQ(word), TICKET_IDLE);
}

uint64_t ticket_post(struct context *c, unsigned index, const struct wanted *wanted)
{
    struct ticket *k = &c->shm->tickets[index];
    store_relaxed(&k->slot, wanted->slot.at);
    store_relaxed(&k->owner, c->worker);
    store_relaxed(&k->handle, wanted->handle);
    store_relaxed(&k->generation, wanted->generation);
    store_relaxed(&k->version, wanted->version);
    store_relaxed(&k->kind, wanted->kind);
    store_relaxed(&k->posted_at, shm_now());
    uint64_t waiting = TICKET_WORD(TICKET_SEQ(load_relaxed(&k->word)) + 1, TICKET_WAITING);
    atomic_store(&k->word, waiting); /* COMMIT: the ticket waits */
    atomic_fetch_or(&c->shm->urgent[index / 64], UINT64_C(1) << (index % 64));
    announce_wake(c, true);
    return waiting;
}

int ticket_await(struct context *c, uint64_t waiting, int timeout_ms)
{
    struct ticket *k = &c->shm->tickets[c->thread_index];
    const uint64_t idle = idle_after(waiting);
    int64_t deadline = monotonic_ms() + timeout_ms;
    for (;;) {
        uint64_t word = load_acquire(&k->word);
        if (word != waiting) {
            store_release(&k->word, idle);
            return verdict(TICKET_STATE(word));
        }
        int64_t left = deadline - monotonic_ms();
        if (left <= 0 || shm_mode(c->shm) == MODE_MEMORY) {
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

/* ---------------------------------------------------------------- groups -------------------- */

static unsigned group_of(unsigned index) { return (index - THREADS) / GROUP_TICKETS; }
static uint64_t bit_of(unsigned index) { return UINT64_C(1) << index % GROUP_TICKETS; }
_Static_assert(THREADS % GROUP_TICKETS == 0, "a ticket's number in its group is its low bits");

static bool holds(const struct tickets *p, unsigned g)
{
    return load_acquire(&p->held[g / 64]) >> g % 64 & 1;
}

/* The first group at or after FROM that is ours, or GROUPS. */
static unsigned next_held(const struct tickets *p, unsigned from)
{
    for (unsigned i = from / 64; i < GROUPS / 64; i++) {
        uint64_t bits = load_acquire(&p->held[i]);
        if (i == from / 64)
            bits &= UINT64_MAX << from % 64;
        if (bits)
            return i * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return GROUPS;
}

/* Its tickets have memory: so have those of all groups before it. */
static int back_group(struct shm *shm, unsigned g)
{
    if (g < load_acquire(&shm->header->group_high))
        return 0;
    uint64_t first = GROUP_TICKET((uint64_t)g, 0);
    int error = segment_commit(shm, shm->at.tickets + first * sizeof(struct ticket), PAGE_BYTES);
    if (!error)
        raise_to(&shm->header->group_high, g + 1);
    return error;
}

/* A group and its first ticket, so that the group goes back with its last one.  In order, from the
 * first: so no page is left out that group_high says is backed. */
static int claim_group(sesstab *t, struct context *c, unsigned *index)
{
    struct tickets *p = t->tickets;
    for (unsigned g = 0; g < GROUPS; g++) {
        atomic_u32 *group = &t->shm.groups[g];
        uint32_t nobody = 0;
        int error = back_group(&t->shm, g);
        if (error)
            return error_of(error);
        if (load_relaxed(group) ||
            !atomic_compare_exchange_strong(group, &nobody, c->worker)) /* COMMIT: ours */
            continue;
        store_relaxed(&p->worker, c->worker);
        atomic_store(&t->shm.answered[g], 0);
        atomic_fetch_or(&p->held[g / 64], UINT64_C(1) << g % 64);
        atomic_store(&p->free[g], UINT64_MAX - 1);
        *index = (unsigned)GROUP_TICKET(g, 0);
        return SESSTAB_OK;
    }
    return SESSTAB_LIMIT;
}

/* A group without a ticket in use goes back: others may need it, and claiming one costs little. */
static void give_back(sesstab *t, unsigned g)
{
    struct tickets *p = t->tickets;
    uint64_t all = UINT64_MAX;
    uint32_t self = load_relaxed(&p->worker);
    if (!cas(&p->free[g], &all, 0))
        return;
    atomic_fetch_and(&p->held[g / 64], ~(UINT64_C(1) << g % 64));
    atomic_compare_exchange_strong(&t->shm.groups[g], &self, 0); /* COMMIT: anybody's */
}

/* ---------------------------------------------------------------- claiming ------------------ */

static bool claim_in(struct tickets *p, unsigned g, unsigned *index)
{
    uint64_t bits = load_acquire(&p->free[g]);
    while (bits)
        if (cas(&p->free[g], &bits, bits & (bits - 1))) { /* COMMIT: ours */
            *index = (unsigned)GROUP_TICKET(g, (unsigned)__builtin_ctzll(bits));
            return true;
        }
    return false;
}

static bool claim_between(struct tickets *p, unsigned from, unsigned to, unsigned *index)
{
    for (unsigned g = next_held(p, from); g < to; g = next_held(p, g + 1))
        if (claim_in(p, g, index)) {
            store_relaxed(&p->claim_from, g);
            return true;
        }
    return false;
}

int ticket_claim(sesstab *t, struct context *c, uint64_t handle, void *cookie, unsigned *index)
{
    struct tickets *p = t->tickets;
    int result = SESSTAB_OK;
    unsigned from = load_relaxed(&p->claim_from);
    if (!claim_between(p, from, GROUPS, index) && !claim_between(p, 0, from, index) &&
        (result = claim_group(t, c, index)))
        return result;
    struct errand *e = &p->errands[*index - THREADS];
    store_relaxed(&e->cookie, (uintptr_t)cookie);
    store_relaxed(&e->handle, handle);
    return SESSTAB_OK;
}

void ticket_free(sesstab *t, unsigned index)
{
    atomic_u64 *free = &t->tickets->free[group_of(index)];
    if ((atomic_fetch_or(free, bit_of(index)) | bit_of(index)) == UINT64_MAX)
        give_back(t, group_of(index));
}

/* ---------------------------------------------------------------- answers ------------------- */

/* Makes the descriptor readable.  It is full only if it is readable. */
static void signal_answer(struct tickets *p)
{
    int descriptor = load_acquire(&p->descriptor) - 1;
    if (descriptor >= 0)
        eventfd_write(descriptor, 1);
}

uint64_t ticket_answer(sesstab *t, struct context *c, unsigned index)
{
    struct ticket *k = &t->shm.tickets[index];
    uint32_t seq = TICKET_SEQ(load_relaxed(&k->word)) + 1;
    store_relaxed(&k->owner, c->worker);
    store_release(&k->word, TICKET_WORD(seq, TICKET_DURABLE));
    atomic_fetch_or(&t->shm.answered[group_of(index)], bit_of(index));
    signal_answer(t->tickets);
    return TICKET_WORD(seq, TICKET_WAITING);
}

/* Is this ticket, which has an answer, ours?  Its group may be another's since we looked. */
static bool is_ours(sesstab *t, unsigned index)
{
    if (load_relaxed(&t->shm.tickets[index].owner) == load_relaxed(&t->tickets->worker))
        return true;
    atomic_fetch_or(&t->shm.answered[group_of(index)], bit_of(index));
    return false;
}

/* The answer of ticket INDEX, if there is one and nobody else takes it. */
static bool take_answer(sesstab *t, unsigned index, sesstab_answer *answer)
{
    struct ticket *k = &t->shm.tickets[index];
    const struct errand *e = &t->tickets->errands[index - THREADS];
    uint64_t word = load_acquire(&k->word);
    if (TICKET_STATE(word) == TICKET_IDLE || TICKET_STATE(word) == TICKET_WAITING ||
        !is_ours(t, index))
        return false;
    *answer = (sesstab_answer){ .ticket = ticket_number(index, word),
                                .cookie = (void *)(uintptr_t)load_relaxed(&e->cookie),
                                .handle = load_relaxed(&e->handle),
                                .result = verdict(TICKET_STATE(word)) };
    if (!cas(&k->word, &word, idle_after(word))) /* COMMIT: taken */
        return false;
    ticket_free(t, index);
    return true;
}

static bool take_in(sesstab *t, unsigned g, sesstab_answer *answer)
{
    atomic_u64 *answered = &t->shm.answered[g];
    /* Each once: one that is_ours() puts back is not looked at again and again. */
    for (uint64_t bits = load_acquire(answered); bits && holds(t->tickets, g); bits &= bits - 1) {
        uint64_t bit = bits & -bits;
        if ((atomic_fetch_and(answered, ~bit) & bit) &&
            take_answer(t, (unsigned)GROUP_TICKET(g, (unsigned)__builtin_ctzll(bit)), answer))
            return true;
    }
    return false;
}

static bool take_between(sesstab *t, unsigned from, unsigned to, sesstab_answer *answer)
{
    for (unsigned g = next_held(t->tickets, from); g < to; g = next_held(t->tickets, g + 1))
        if (take_in(t, g, answer)) {
            store_relaxed(&t->tickets->answer_from, g);
            return true;
        }
    return false;
}

static bool take_any(sesstab *t, sesstab_answer *answer)
{
    unsigned from = load_relaxed(&t->tickets->answer_from);
    return take_between(t, from, GROUPS, answer) || take_between(t, 0, from, answer);
}

/*
 * Is there an answer now of the ticket INDEX, if it is ours and in use?  The mode is loaded after the
 * ticket's word: one that was posted after a switch waits.
 */
static bool give_up(sesstab *t, unsigned index)
{
    struct ticket *k = &t->shm.tickets[index];
    uint64_t word = load_acquire(&k->word);
    if (shm_mode(&t->shm) != MODE_MEMORY || TICKET_STATE(word) == TICKET_IDLE ||
        load_relaxed(&k->owner) != load_relaxed(&t->tickets->worker))
        return false;
    if (TICKET_STATE(word) == TICKET_WAITING)
        cas_exact(&k->word, word, TICKET_WORD(TICKET_SEQ(word), TICKET_UNKNOWN)); /* COMMIT: said */
    atomic_fetch_or(&t->shm.answered[group_of(index)], bit_of(index));
    return true;
}

/* In mode MEMORY there need be no persister that answers.  True: there are answers. */
static bool give_up_in_memory(sesstab *t)
{
    struct tickets *p = t->tickets;
    bool answers = false;
    if (shm_mode(&t->shm) != MODE_MEMORY)
        return false;
    for (unsigned g = next_held(p, 0); g < GROUPS; g = next_held(p, g + 1))
        for (uint64_t used = ~load_acquire(&p->free[g]); used; used &= used - 1)
            answers |= give_up(t, (unsigned)GROUP_TICKET(g, (unsigned)__builtin_ctzll(used)));
    return answers;
}

int sesstab_next_answer(sesstab *t, sesstab_answer *answer)
{
    eventfd_t count;
    if (take_any(t, answer))
        return SESSTAB_OK;
    int descriptor = load_acquire(&t->tickets->descriptor) - 1;
    bool more = give_up_in_memory(t) || (descriptor >= 0 && !eventfd_read(descriptor, &count));
    if (!more || !take_any(t, answer))
        return SESSTAB_NOTFOUND;
    signal_answer(t->tickets); /* there may be more */
    return SESSTAB_OK;
}

int sesstab_cancel(sesstab *t, uint64_t ticket)
{
    unsigned index = (uint32_t)ticket;
    if (index < THREADS || index >= TICKETS || !holds(t->tickets, group_of(index)))
        return SESSTAB_NOTFOUND;
    uint64_t waiting = TICKET_WORD((uint32_t)(ticket >> 32), TICKET_WAITING);
    atomic_u64 *word = &t->shm.tickets[index].word;
    if (!cas_exact(word, waiting, idle_after(waiting))) /* COMMIT: taken back */
        return SESSTAB_NOTFOUND;
    ticket_free(t, index);
    return SESSTAB_OK;
}

/* ---------------------------------------------------------------- the descriptor ------------ */

static bool any_answer(sesstab *t)
{
    for (unsigned g = next_held(t->tickets, 0); g < GROUPS; g = next_held(t->tickets, g + 1))
        if (load_acquire(&t->shm.answered[g]))
            return true;
    return false;
}

static atomic_u32 *futex_of(sesstab *t)
{
    return &t->shm.workers[worker_index(load_relaxed(&t->tickets->worker))].answers;
}

/* A futex can't be polled beside sockets, so a thread sleeps on it for the event loop. */
static void *watch_answers(void *context)
{
    sesstab *t = context;
    struct tickets *p = t->tickets;
    atomic_u32 *answers = futex_of(t);
    uint32_t seen;
    pthread_mutex_lock(&p->lock); /* until who started us has made the descriptor known */
    pthread_mutex_unlock(&p->lock);
    while (seen = load_acquire(answers), !atomic_load(&p->closing)) { /* before the looks: B */
        give_up_in_memory(t);
        if (any_answer(t))
            signal_answer(p);
        futex_wait(answers, seen, LOOK_MS);
    }
    return NULL;
}

static int start_watching(sesstab *t)
{
    struct tickets *p = t->tickets;
    int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor < 0)
        return errno == EMFILE || errno == ENFILE ? SESSTAB_LIMIT : SESSTAB_SYSTEM;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&p->thread, NULL, watch_answers, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!error) {
        store_release(&p->descriptor, descriptor + 1);
        return SESSTAB_OK;
    }
    close(descriptor); /* which nobody has seen */
    return SESSTAB_LIMIT;
}

int sesstab_descriptor(sesstab *t, int *descriptor)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    struct tickets *p = t->tickets;
    if (!c)
        return result;
    pthread_mutex_lock(&p->lock);
    store_relaxed(&p->worker, c->worker);
    if (!load_relaxed(&p->descriptor))
        result = start_watching(t);
    *descriptor = load_relaxed(&p->descriptor) - 1;
    pthread_mutex_unlock(&p->lock);
    return result;
}

/* ---------------------------------------------------------------- the process's side -------- */

struct tickets *tickets_open(void)
{
    struct tickets *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (madvise(p, sizeof *p, MADV_WIPEONFORK) == 0)
        return p;
    munmap(p, sizeof *p);
    return NULL;
}

static void stop_watching(sesstab *t)
{
    struct tickets *p = t->tickets;
    atomic_store(&p->closing, true);
    atomic_fetch_add(futex_of(t), 1);
    futex_wake_all(futex_of(t));
    pthread_join(p->thread, NULL);
    close(load_relaxed(&p->descriptor) - 1);
}

static void cancel_group(sesstab *t, unsigned g)
{
    for (unsigned i = 0; i < GROUP_TICKETS; i++) {
        atomic_u64 *word = &t->shm.tickets[GROUP_TICKET(g, i)].word;
        uint64_t seen = load_acquire(word);
        while (TICKET_STATE(seen) != TICKET_IDLE && !cas(word, &seen, idle_after(seen)))
            ;
    }
    store_relaxed(&t->tickets->free[g], UINT64_MAX);
    give_back(t, g);
}

void tickets_close(sesstab *t)
{
    if (load_relaxed(&t->tickets->descriptor))
        stop_watching(t);
    for (unsigned g = next_held(t->tickets, 0); g < GROUPS; g = next_held(t->tickets, g + 1))
        cancel_group(t, g);
    munmap(t->tickets, sizeof *t->tickets);
}
