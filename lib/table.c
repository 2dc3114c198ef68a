/*
 * Opening and leaving a table, read sections, and the small questions about it.
 */
#include "table.h"

#include "lib/ticket.h"

#include "shm/huge.h"
#include "shm/wait.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define DEFAULT_BYTES (UINT64_C(16) << 30)

static int bad_option(const sesstab_options *o)
{
    if ((unsigned)o->mode >= SESSTAB_MODE_COUNT)
        return shm_fail(EINVAL, "options.mode %d is no sesstab_mode", (int)o->mode);
    if (o->wait_ms > INT_MAX)
        return shm_fail(EINVAL, "options.wait_ms is above %d", INT_MAX);
    if (o->permissions & ~0777u)
        return shm_fail(EINVAL, "options.permissions %o is more than an access mode",
                        (unsigned)o->permissions);
    if (o->ring_entries && (o->ring_entries < 4 || o->ring_entries > RING_ENTRIES_MAX ||
                            (o->ring_entries & (o->ring_entries - 1))))
        return shm_fail(EINVAL, "options.ring_entries %u is not a power of two from 4 to %d",
                        (unsigned)o->ring_entries, RING_ENTRIES_MAX);
    if (o->max_bytes && (o->max_bytes < 2 * CHUNK_BYTES ||
                         o->max_bytes > (uint64_t)CHUNKS_MAX * CHUNK_BYTES))
        return shm_fail(EINVAL, "options.max_bytes is not between 128 KiB and 64 GiB");
    if (o->first_version > VERSION_MAX / 2)
        return shm_fail(EINVAL, "options.first_version is above 2^47");
    return 0;
}

static struct segment_options segment_options_of(const sesstab_options *o)
{
    return (struct segment_options){
        .create = o->create,
        .permissions = o->permissions ? o->permissions : 0600,
        .owner = o->owner,
        .group = (gid_t)o->group,
        .group_given = o->group > 0,
        .mode = (enum header_mode)o->mode,
        .ring_entries = o->ring_entries ? o->ring_entries : RING_ENTRIES_MAX,
        .max_chunks = (uint32_t)((o->max_bytes ? o->max_bytes : DEFAULT_BYTES) / CHUNK_BYTES),
        .first_version = o->first_version ? o->first_version : 1,
        .full_fences = o->full_fences,
    };
}

static int open_table(const char *name, const struct segment_options *o, sesstab *t)
{
    int error = 0;
    /* Somebody may unlink the name while we attach: with `create` that is no reason to give up. */
    for (int tries = 0; tries < 16; tries++) {
        error = segment_open(name, o, &t->shm);
        if (error)
            return error;
        error = worker_open(&t->shm);
        if (error)
            segment_close(&t->shm);
        if (error != ESTALE || !o->create)
            break;
    }
    return error;
}

int sesstab_open(const char *name, const sesstab_options *options, sesstab **table)
{
    const sesstab_options none = { 0 };
    shm_fail(0, "%s", "");
    if (!options)
        options = &none;
    if (!table)
        return error_of(shm_fail(EINVAL, "sesstab_open: no place for the table was given"));
    int error = bad_option(options);
    if (error)
        return error_of(error);
    sesstab *t = calloc(1, sizeof *t);
    if (!t || !(t->tickets = tickets_open())) {
        free(t);
        return error_of(shm_fail(ENOMEM, "out of memory"));
    }
    struct segment_options o = segment_options_of(options);
    t->wait_ms = (int)options->wait_ms;
    error = open_table(name, &o, t);
    if (error) {
        tickets_close(t);
        free(t);
        return error_of(error);
    }
    shm_fail(0, "%s", ""); /* what was tried before it worked is no failure */
    *table = t;
    return SESSTAB_OK;
}

void sesstab_close(sesstab *t)
{
    if (!t)
        return;
    tickets_close(t);
    worker_close(&t->shm);
    segment_close(&t->shm);
    free(t);
}

/* ---------------------------------------------------------------- mode ---------------------- */

#define X(name, text) _Static_assert((int)SESSTAB_##name == (int)MODE_##name, "one numbering");
SESSTAB_MODES(X)
#undef X

sesstab_mode sesstab_table_mode(sesstab *t)
{
    return (sesstab_mode)shm_mode(&t->shm);
}

/*
 * Killed behind the CAS, it has switched: the sleepers wake by themselves within a slice (H11), and
 * what workers had in hand by the old mode is the leader's to find (store_mode:E).
 */
int sesstab_set_mode(sesstab *t, sesstab_mode mode)
{
    int result = SESSTAB_OK;
    struct header *h = t->shm.header;
    struct context *c = context_for(t, &result);
    if ((unsigned)mode >= SESSTAB_MODE_COUNT)
        return SESSTAB_INVALID;
    if (!c)
        return result;
    uint32_t seen = load_relaxed(&h->mode);
    do
        if (MODE_OF(seen) == (enum header_mode)mode)
            return SESSTAB_OK;
    while (!atomic_compare_exchange_strong(&h->mode, &seen, /* COMMIT: switched */
                                           MODE_WORD(MODE_SWITCHES(seen) + 1, mode)));
    futex_wake_all(&h->mode);
    futex_wake_all(&h->ready);
    announce_wake(c, true);
    return SESSTAB_OK;
}

int sesstab_unlink(const char *name)
{
    return error_of(segment_unlink(name));
}

int sesstab_attach(sesstab *t)
{
    int result = SESSTAB_OK;
    context_for(t, &result);
    return result;
}

/* ---------------------------------------------------------------- ready --------------------- */

bool sesstab_ready(sesstab *t)
{
    return load_acquire(&t->shm.header->ready) || shm_mode(&t->shm) == MODE_MEMORY;
}

int sesstab_wait_ready(sesstab *t, int timeout_ms)
{
    int64_t deadline = monotonic_ms() + timeout_ms, left;
    while (!sesstab_ready(t)) {
        if ((left = deadline - monotonic_ms()) <= 0)
            return SESSTAB_TIMEOUT;
        futex_wait(&t->shm.header->ready, 0, left < WAIT_SLICE_MS ? (int)left : WAIT_SLICE_MS);
    }
    return SESSTAB_OK;
}

uint64_t sesstab_now(void)
{
    return shm_now();
}

/* ---------------------------------------------------------------- memory -------------------- */

int sesstab_huge_page(sesstab *t, uint64_t *position)
{
    int error = huge_next(&t->shm, position);
    return error && error != ENOENT && error != ENOTSUP ? SESSTAB_NOMEMORY : error_of(error);
}

/* ---------------------------------------------------------------- workers ------------------- */

uint32_t sesstab_self(sesstab *t)
{
    int result;
    struct context *c = context_for(t, &result);
    return c ? c->worker : 0;
}

bool sesstab_owner_alive(sesstab *t, uint32_t owner)
{
    return worker_alive(&t->shm, owner);
}

/* ---------------------------------------------------------------- sections ------------------ */

/* This thread's, or this process's, first. */
static __attribute__((noinline)) int begin_attached(sesstab *t)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (c)
        rcu_enter(c);
    return result;
}

int sesstab_read_begin(sesstab *t)
{
    struct context *c = context_known(&t->shm);
    if (unlikely(!c))
        return begin_attached(t);
    rcu_enter(c);
    return SESSTAB_OK;
}

void sesstab_read_end(sesstab *t)
{
    struct context *c = context_known(&t->shm);
    if (likely(c && c->depth)) /* else it was begun in the parent, before a fork */
        rcu_exit(c);
}
