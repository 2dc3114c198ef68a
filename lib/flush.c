/*
 * Flush: waits until Redis has what the table holds now.
 *
 *   walk     every slot in use: what Redis lacks is noted, {slot, generation, version, last seen}
 *   wait     until each noted slot's durable words have come so far; looks every few milliseconds
 *
 * Asks nothing of the persister, which writes what is announced in its own time.  Versions go on
 * across a slot's lives, so that a durable word that has come as far covers the session that was seen,
 * its end too; and a slot that is dead or free holds nothing that Redis should hear of.
 *
 *   F1  What was published before the walk began is durable by the words that the walk reads, or noted.
 *   F2  When the store is lost meanwhile (another incarnation), what was durable is not any more: the
 *       walk is made again.
 *   F3  No read section is open while it sleeps.
 *   F4  A time that was put back meanwhile (see sesstab_touch()) is not waited for: Redis has what
 *       the table has.
 */
#include "table.h"

#include "shm/wait.h"

#include <stdlib.h>

enum { PAUSE_MIN_MS = 1, PAUSE_MAX_MS = 10 };

/* What Redis lacked of a session; 0: nothing of that kind. */
struct lacking {
    uint64_t generation, version, last_seen;
    slot_ref slot;
};

struct flush {
    struct context *c;
    uint32_t incarnation;
    struct lacking *items;
    size_t count, capacity;
};

static uint32_t incarnation_of(const struct flush *f)
{
    return load_acquire(&f->c->shm->header->incarnation);
}

/* What Redis lacks of the session in slot R; inside a section.  False: it holds none. */
static bool look_at(const struct flush *f, slot_ref r, struct lacking *l)
{
    if (!slot_hold(f->c, r))
        return false;
    struct slot *s = slot_at(f->c->shm, r);
    sesstab_view v;
    uint64_t current, word = load_acquire(&s->durable), seen = load_acquire(&s->durable_seen);
    const struct block *b = record_in(f->c, s, &current);
    if (!b || !record_view(f->c->shm, b, load_relaxed(&s->node.key), &v) ||
        !record_is_current(current, b) || !record_whole(&v))
        return false; /* what is damaged is not written */
    bool tomb = current & CURRENT_TOMB;
    uint64_t durable = DURABLE_INCARNATION(word) == f->incarnation ? DURABLE_VERSION(word) : 0;
    uint64_t last_seen = tomb ? 0 : record_last_seen(s, b);
    *l = (struct lacking){ .slot = r, .generation = v.generation,
                           .version = durable < v.version + tomb ? v.version + tomb : 0,
                           .last_seen = last_seen > seen ? last_seen : 0 };
    return true;
}

/* ---------------------------------------------------------------- the walk ------------------ */

static bool make_room(struct flush *f)
{
    if (f->count + PAGE_SLOTS <= f->capacity)
        return true;
    size_t capacity = f->capacity ? 2 * f->capacity : 1024;
    struct lacking *items = realloc(f->items, capacity * sizeof *items);
    if (!items)
        return false;
    f->items = items;
    f->capacity = capacity;
    return true;
}

static void walk_page(struct flush *f, uint64_t page)
{
    rcu_enter(f->c);
    for (uint32_t k = 0; k < PAGE_SLOTS; k++) {
        slot_ref r = { (uint32_t)(page * (PAGE_BYTES / SLOT_BYTES)) + k };
        struct lacking *l = &f->items[f->count];
        if (OWN_STATE(load_relaxed(&slot_at(f->c->shm, r)->node.life)) != OWN_FREE &&
            look_at(f, r, l) && (l->version || l->last_seen))
            f->count++;
    }
    rcu_exit(f->c);
}

/* False: no memory. */
static bool walk(struct flush *f)
{
    struct shm *shm = f->c->shm;
    uint64_t chunks = heap_chunks(shm);
    f->count = 0;
    f->incarnation = incarnation_of(f);
    for (uint64_t page = 1; page < chunks * CHUNK_PAGES; page++) { /* page 0 is nobody's */
        if (load_acquire(&shm->chunks[page / CHUNK_PAGES].class) != CHUNK_SESSIONS)
            continue;
        if (!make_room(f))
            return false;
        walk_page(f, page);
    }
    return true;
}

/* ---------------------------------------------------------------- the wait ------------------ */

static bool is_durable(const struct flush *f, const struct lacking *noted)
{
    struct lacking now;
    rcu_enter(f->c);
    bool held = look_at(f, noted->slot, &now);
    const struct slot *s = slot_at(f->c->shm, noted->slot);
    uint64_t word = load_acquire(&s->durable), seen = load_acquire(&s->durable_seen);
    rcu_exit(f->c);
    if (!held)
        return true;
    return (!noted->version || (DURABLE_INCARNATION(word) == f->incarnation &&
                                DURABLE_VERSION(word) >= noted->version)) &&
           (seen >= noted->last_seen || !now.last_seen || now.generation != noted->generation);
}

/* Looks at those that are left, from the last; true when none is. */
static bool all_durable(struct flush *f)
{
    while (f->count && is_durable(f, &f->items[f->count - 1]))
        f->count--;
    return f->count == 0;
}

static int flush(struct flush *f, int timeout_ms)
{
    int64_t deadline = monotonic_ms() + timeout_ms, left;
    int pause = PAUSE_MIN_MS;
    if (!walk(f))
        return SESSTAB_NOMEMORY;
    while (!all_durable(f) || f->incarnation != incarnation_of(f)) {
        if ((left = deadline - monotonic_ms()) <= 0 || shm_mode(f->c->shm) == MODE_MEMORY)
            return SESSTAB_UNKNOWN;
        if (left < pause)
            pause = (int)left;
        nanosleep(&(struct timespec){ .tv_nsec = pause * 1000000L }, NULL);
        pause = 2 * pause < PAUSE_MAX_MS ? 2 * pause : PAUSE_MAX_MS;
        if (f->incarnation != incarnation_of(f) && !walk(f))
            return SESSTAB_NOMEMORY;
    }
    return SESSTAB_OK;
}

int sesstab_flush(sesstab *t, int timeout_ms)
{
    int result = SESSTAB_OK;
    struct flush f = { .c = context_for(t, &result) };
    if (timeout_ms < 0)
        return SESSTAB_INVALID;
    if (!f.c || shm_mode(&t->shm) == MODE_MEMORY)
        return result;
    result = flush(&f, timeout_ms);
    free(f.items);
    return result;
}
