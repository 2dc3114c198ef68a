/* Consistent copies of sessions: see shmdump_session.h. */
#include "tools/shmdump_session.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIES = 16,
    USUAL_BYTES = 512 /* of a record: read at once, the rest when there is more */
};

const char *state_name(unsigned state)
{
    static const char *const names[] = {
#define X(name, text) text,
        SESSTAB_STATES(X)
#undef X
    };
    return state < SESSTAB_STATE_COUNT ? names[state] : "?";
}

__attribute__((format(printf, 2, 3)))
static bool wrong(struct session *s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(s->why, sizeof s->why, format, arguments);
    va_end(arguments);
    return false;
}

/* ------------------------------------------------------------------ the record ------------- */

/* One string and its NUL at *AT. */
static bool take_string(struct session *s, const char *what, size_t length, size_t *at,
                        struct bytes *string)
{
    const char *text = (const char *)s->record + *at;
    if (length + 1 > s->block.size - *at)
        return wrong(s, "the %s of %zu bytes does not fit into the record", what, length);
    if (text[length] != '\0' || memchr(text, '\0', length))
        return wrong(s, "the %s is not %zu bytes with a NUL behind", what, length);
    *string = (struct bytes){ text, length };
    *at += length + 1;
    return true;
}

static bool take_acked_version(struct session *s, size_t *at)
{
    if (s->block.size - *at < ACKED_VERSION_BYTES)
        return wrong(s, "the version of the acknowledged player does not fit into the record");
    *at += ACKED_VERSION_BYTES;
    return true;
}

static bool take_strings(struct session *s, size_t *at)
{
    const struct block *b = &s->block;
    *at = sizeof *b;
    s->acked = (struct bytes){ "", 0 };
    return take_string(s, "player", b->player_length, at, &s->player) &&
           take_string(s, "address", b->address_length, at, &s->address) &&
           take_string(s, "host", b->host_length, at, &s->host) &&
           take_string(s, "type", b->type_length, at, &s->type) &&
           (!(b->flags & BLOCK_ACKED) ||
            (take_string(s, "acknowledged player", b->acked_length, at, &s->acked) &&
             take_acked_version(s, at)));
}

/* Bounded by nothing but the record's size: for the check and for the checked. */
static bool next_entry(const struct session *s, size_t *at, struct entry *e)
{
    struct metadata m;
    size_t left = s->block.size - *at;
    if (left < sizeof m)
        return false;
    memcpy(&m, s->record + *at, sizeof m);
    size_t need = sizeof m + m.key_length + 1u + m.value_length + 1u;
    const char *key = (const char *)s->record + *at + sizeof m, *value = key + m.key_length + 1;
    if (need > left || m.key_length == 0 || key[m.key_length] || value[m.value_length] ||
        memchr(key, '\0', m.key_length))
        return false;
    e->key = (struct bytes){ key, m.key_length };
    e->value = (struct bytes){ value, m.value_length };
    e->version = (uint64_t)m.version_high << 32 | m.version_low;
    *at += need;
    return true;
}

static int by_key(const void *a, const void *b)
{
    const struct bytes *x = a, *y = b;
    int order = memcmp(x->at, y->at, x->length < y->length ? x->length : y->length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* A key twice?  KEYS is COUNT long and gets sorted. */
static const struct bytes *double_key(struct bytes *keys, size_t count)
{
    qsort(keys, count, sizeof *keys, by_key);
    for (size_t i = 1; i < count; i++)
        if (by_key(&keys[i - 1], &keys[i]) == 0)
            return &keys[i];
    return NULL;
}

static bool check_metadata(struct session *s)
{
    static struct bytes keys[SESSTAB_RECORD_MAX / (sizeof(struct metadata) + 3)];
    const struct block *b = &s->block;
    size_t at = b->metadata_at;
    struct entry e;
    for (unsigned i = 0; i < b->metadata_count; i++) {
        if (!next_entry(s, &at, &e))
            return wrong(s, "metadata entry %u of %u, at byte %zu, is malformed", i + 1,
                         b->metadata_count, at);
        if (e.version > b->version)
            return wrong(s, "metadata entry %u has version %" PRIu64 ", the record %" PRIu64, i + 1,
                         e.version, b->version);
        keys[i] = e.key; /* in bounds: each entry took more than the divisor */
    }
    if (at != b->size)
        return wrong(s, "the record has %u bytes, but its parts end at %zu", b->size, at);
    if (double_key(keys, b->metadata_count))
        return wrong(s, "a metadata key is there twice");
    return true;
}

static bool check_versions(struct session *s, bool tomb)
{
    const struct block *b = &s->block;
    uint32_t mask = (1u << CURRENT_VERSION_BITS) - 1;
    if (b->version > VERSION_MAX)
        return wrong(s, "version %" PRIu64 " is impossible", b->version);
    if (((b->version + tomb) & mask) != CURRENT_LOW(s->slot.current))
        return wrong(s, "the record's version %" PRIu64 " does not match current's low bits %u%s",
                     b->version, CURRENT_LOW(s->slot.current), tomb ? " (a tombstone)" : "");
    if (b->bound_version > b->version || b->born_version > b->version ||
        b->shrunk_version > b->version)
        return wrong(s, "it was born at %" PRIu64 ", bound at %" PRIu64 ", shrunk at %" PRIu64
                     ", after its own version %" PRIu64, b->born_version, b->bound_version,
                     b->shrunk_version, b->version);
    return true;
}

static bool check_fields(struct session *s)
{
    const struct block *b = &s->block;
    if (b->state >= SESSTAB_STATE_COUNT || b->acked_state >= SESSTAB_STATE_COUNT)
        return wrong(s, "state %u (acknowledged: %u) is none", b->state, b->acked_state);
    if (b->address_length > SESSTAB_ADDRESS_MAX || b->type_length > SESSTAB_TYPE_MAX)
        return wrong(s, "the address or the type is too long");
    if (b->state == SESSTAB_LOGGED_IN && b->player_length == 0)
        return wrong(s, "it is logged in, but bound to nobody");
    if ((b->player_length == 0) != (b->player_hash == 0))
        return wrong(s, "the player of %u bytes has hash %u", b->player_length, b->player_hash);
    if (b->owner && !worker_id_valid(b->owner))
        return wrong(s, "its owner %u is no worker", b->owner);
    return true;
}

/* Everything that must be true of a record that its slot names. */
static bool check_record(struct session *s)
{
    const struct block *b = &s->block;
    bool tomb = s->slot.current & CURRENT_TOMB;
    size_t at;
    if (b->slot != s->ref.at || b->handle != s->slot.node.key)
        return wrong(s, "the record belongs to slot %u, handle %" PRIu64, b->slot, b->handle);
    if (OWN_STATE(b->own) != OWN_LIVE && OWN_STATE(b->own) != OWN_OWNED)
        return wrong(s, "the record's block is %s",
                     OWN_STATE(b->own) == OWN_FREE ? "free" : "retired");
    if (!check_versions(s, tomb) || !check_fields(s) || !take_strings(s, &at))
        return false;
    if (b->metadata_at != at)
        return wrong(s, "the metadata begins at %u, the strings end at %zu", b->metadata_at, at);
    return check_metadata(s);
}

/* ------------------------------------------------------------------ the copy --------------- */

/* The record that s->slot.current names; false when there is none to be had. */
static bool read_record(const struct image *image, struct session *s)
{
    block_ref ref = CURRENT_BLOCK(s->slot.current);
    size_t capacity;
    uint64_t place = block_place(image, ref, &capacity);
    if (!place)
        return wrong(s, "current names block %u, which is none", ref.at);
    size_t first = capacity < USUAL_BYTES ? capacity : USUAL_BYTES;
    bool all = image_read(image, place, s->record, first);
    memcpy(&s->block, s->record, sizeof s->block);
    size_t size = s->block.size;
    if (size < sizeof s->block || size > capacity)
        return wrong(s, "the record has %zu bytes in a block of %zu", size, capacity);
    if (size > first)
        all = image_read(image, place + first, s->record + first, size - first);
    if (!all)
        return wrong(s, "its record is not all in the file");
    return true;
}

bool slot_dirty(const struct image *image, slot_ref ref)
{
    uint64_t at = (uint64_t)ref.at * SLOT_BYTES;
    unsigned page = at % CHUNK_BYTES / PAGE_BYTES, index = at % PAGE_BYTES / SLOT_BYTES;
    uint64_t word = image_word(image, image->at.chunks + at / CHUNK_BYTES * sizeof(struct chunk) +
                                          offsetof(struct chunk, dirty) + page / 4 * 8);
    return word >> (page % 4 * 16 + index) & 1;
}

static void derive(const struct image *image, struct session *s)
{
    const struct header *h = &image->header;
    uint64_t durable = s->slot.durable, durable_version = DURABLE_VERSION(durable);
    bool same_store = DURABLE_INCARNATION(durable) == h->incarnation;
    bool tomb = s->slot.current & CURRENT_TOMB;
    s->version = s->block.version + tomb;
    s->last_seen = s->slot.last_seen;
    if (s->last_seen < s->slot.durable_seen)
        s->last_seen = s->slot.durable_seen;
    if (s->last_seen < s->block.connected_at)
        s->last_seen = s->block.connected_at;
    s->durable = same_store && durable_version >= s->version;
    s->touched = s->last_seen > s->slot.durable_seen;
    s->pending = MODE_OF(h->mode) != MODE_MEMORY && s->block.bound_version > 0 && !tomb &&
                 (!same_store || s->block.bound_version > durable_version);
    s->dirty = slot_dirty(image, s->ref);
    s->kind = tomb ? SESSION_TOMB
                   : OWN_STATE(s->slot.node.life) == OWN_LIVE ? SESSION_LIVE : SESSION_CLAIMED;
}

static bool holds_session(const struct slot *slot)
{
    enum own_state state = OWN_STATE(slot->node.life);
    return (state == OWN_LIVE || state == OWN_OWNED) && CURRENT_BLOCK(slot->current).at;
}

enum session_kind session_read(const struct image *image, slot_ref ref, struct session *s)
{
    s->ref = ref;
    s->kind = SESSION_NONE;
    s->place = slot_place(image, ref);
    if (!s->place || !image_read(image, s->place, &s->slot, sizeof s->slot))
        return SESSION_NONE;
    for (int i = 0; i < TRIES; i++) {
        if (!holds_session(&s->slot))
            return s->kind = SESSION_NONE;
        uint64_t current = s->slot.current, life = s->slot.node.life;
        bool whole = read_record(image, s);
        if (image->moving)
            image_read(image, s->place, &s->slot, sizeof s->slot);
        if (s->slot.current != current || OWN_SEQ(s->slot.node.life) != OWN_SEQ(life))
            continue;
        s->kind = SESSION_DAMAGED;
        if (whole && check_record(s))
            derive(image, s);
        return s->kind;
    }
    return s->kind = SESSION_MOVING;
}

bool session_metadata(const struct session *s, size_t *offset, struct entry *entry)
{
    size_t at = s->block.metadata_at + *offset;
    if (at >= s->block.size || !next_entry(s, &at, entry))
        return false;
    *offset = at - s->block.metadata_at;
    return true;
}
