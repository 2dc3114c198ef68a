/* What Redis holds, into the table; see store.h. */
#include "lib/store_inside.h"

#include "shm/wait.h"

#include <string.h>

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
    struct context *c = store_context(s);
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
