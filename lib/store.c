/* The store: who leads, the mode, losses, deaths; see store.h. */
#include "lib/store_inside.h"

#include "shm/recover.h"
#include "shm/wait.h"

#include <stdlib.h>

/* No single look of a stand-by counts for more than so much of the leader's silence. */
enum { LOOK_COUNTS_MS = 200 };

struct context *store_context(struct store *s)
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
    struct context *c = store_context(s);
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

/* ---------------------------------------------------------------- leadership -------------- */

/* The former leader's knowledge is gone: any bit may be clear, any ticket taken. */
static void look_at_everything(struct store *s)
{
    struct shm *shm = &s->table->shm;
    tickets_look_at_all(s);
    tickets_wake_everybody(s);
    uint64_t threads = load_acquire(&shm->header->thread_high);
    for (unsigned i = 0; i < threads && i < THREADS; i += 64)
        atomic_store(&shm->ready[i / 64], UINT64_MAX);
    store_scan_everything(s);
    store_sweep_everything(s);
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

bool store_is_late(const struct store *s)
{
    return s->leading && !store_leads(s);
}

bool store_lead(struct store *s)
{
    struct shm *shm = &s->table->shm;
    struct context *c = store_context(s);
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
    struct context *c = store_context(s);
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

bool store_filler_stalled(const struct store *s, int after_ms)
{
    return s->vigil.silence_ms >= after_ms && LEADER_WORKER(s->vigil.leader) && !store_is_ready(s);
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

/* ---------------------------------------------------------------- mode -------------------- */

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
        store_sweep_everything(s);
    }
    return (sesstab_mode)MODE_OF(word);
}

/* The mode is loaded after the ticket's word: one that was posted after a switch is not told UNKNOWN. */
static bool give_up(struct store *s, unsigned index, struct ticket *k, uint64_t word, void *context)
{
    (void)k, (void)context;
    if (load_acquire(&s->table->shm.header->mode) != s->mode)
        return false;
    ticket_say(s, index, word, TICKET_UNKNOWN);
    return true;
}

void store_rest(struct store *s, int timeout_ms)
{
    tickets_collect(s);
    tickets_each_waiting(s, give_up, NULL);
    store_wake(s);
    store_connected(s, true); /* it is not missed */
    futex_wait(&s->table->shm.header->mode, s->mode, timeout_ms);
}

/* ---------------------------------------------------------------- for people -------------- */

void store_lost(struct store *s)
{
    uint32_t lost = store_incarnation(s), next = (lost + 1) & 0xffff;
    atomic_compare_exchange_strong(&s->table->shm.header->incarnation, &lost, next ? next : 1);
    store_sweep_everything(s);
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
    atomic_u64 *told = &s->table->shm.header->acknowledged;
    uint64_t word = (uint64_t)replicas << 8 | where;
    if (load_relaxed(told) != word) /* said with each batch, on a line that readers read */
        store_relaxed(told, word);
}

uint64_t store_lag(struct store *s)
{
    uint64_t lag = 0, current;
    sesstab_cursor k = { 0 };
    sesstab_view v;
    struct store_image image;
    int result;
    while ((result = sesstab_next(s->table, &k, &v)) != SESSTAB_NOTFOUND) {
        struct context *c = store_context(s);
        if (result == SESSTAB_CORRUPT)
            continue;
        if (result != SESSTAB_OK || !c)
            break;
        struct slot *slot = index_lookup(c, v.handle);
        lag += slot && store_examine(s, c, slot, &image, &current) && image.kind != STORE_NOTHING;
    }
    sesstab_pause(s->table, &k);
    return lag;
}

/* ---------------------------------------------------------------- deaths ------------------ */

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
