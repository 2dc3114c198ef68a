#include "record.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint32_t record_player_hash(const struct shm *shm, const char *player, size_t length)
{
    uint32_t h = (uint32_t)XXH3_64bits_withSeed(player, length, shm->hash_seed);
    return h ? h : 1;
}

/* ---------------------------------------------------------------- metadata ------------------ */

INLINE bool next_entry(const uint8_t *metadata, size_t length, size_t *at, struct entry *e)
{
    struct metadata m;
    if (*at > length || sizeof m > length - *at)
        return false;
    memcpy(&m, metadata + *at, sizeof m);
    e->key_length = m.key_length;
    e->value_length = m.value_length;
    e->bytes = sizeof m + e->key_length + 1 + e->value_length + 1;
    e->version = (uint64_t)m.version_high << 32 | m.version_low;
    if (e->bytes > length - *at)
        return false;
    e->key = (const char *)metadata + *at + sizeof m;
    e->value = metadata + *at + sizeof m + e->key_length + 1;
    if (e->key[e->key_length] || e->value[e->value_length])
        return false;
    *at += e->bytes;
    return true;
}

bool record_entry(const uint8_t *metadata, size_t length, size_t *at, struct entry *e)
{
    return next_entry(metadata, length, at, e);
}

bool record_find(const uint8_t *metadata, size_t length, const char *key, size_t key_length, size_t *at,
                 struct entry *e)
{
    size_t next = 0;
    for (*at = 0; next_entry(metadata, length, &next, e); *at = next)
        if (e->key_length == key_length && memcmp(e->key, key, key_length) == 0)
            return true;
    return false;
}

static size_t entry_size(size_t key_length, size_t value_length)
{
    return sizeof(struct metadata) + key_length + 1 + value_length + 1;
}

/* gcc 12 knows that a length is below 256 and inlines `rep movs`, which is slow to start: a metadata
 * set takes 200 ns with it and 140 without.  So it shall not know. */
static uint8_t *put_bytes(uint8_t *to, const void *bytes, size_t length)
{
    __asm__("" : "+r"(length));
    if (length) /* BYTES may be NULL */
        memcpy(to, bytes, length);
    return to + length;
}

static uint8_t *put_string(uint8_t *to, const char *s, size_t length)
{
    to = put_bytes(to, s, length);
    *to = 0;
    return to + 1;
}

static uint8_t *put_entry(uint8_t *to, const char *key, size_t key_length, const void *value,
                          size_t length, uint64_t version)
{
    struct metadata m = { .version_low = (uint32_t)version, .version_high = (uint16_t)(version >> 32),
                          .value_length = (uint16_t)length, .key_length = (uint8_t)key_length };
    memcpy(to, &m, sizeof m);
    to = put_string(to + sizeof m, key, key_length);
    return put_string(to, value, length);
}

/* ---------------------------------------------------------------- writing ------------------- */

static size_t strings_size(const struct block *h)
{
    return (size_t)h->player_length + h->address_length + h->host_length + h->type_length + 4 +
           ((h->flags & BLOCK_ACKED) ? h->acked_length + 1u + ACKED_VERSION_BYTES : 0);
}

size_t record_pairs_size(const sesstab_pair *pairs, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += entry_size(strlen(pairs[i].key), pairs[i].length);
    return size;
}

size_t record_size(const struct draft *d)
{
    size_t size = sizeof d->head + strings_size(&d->head) + d->metadata_length - d->drop_length;
    if (d->key)
        size += entry_size(d->key_length, d->value_length);
    return size + (d->pair_count ? d->pairs_size : 0);
}

/* The strings lie as a record has them, as those of a record do that keeps them. */
static bool strings_in_order(const struct draft *d)
{
    const struct block *h = &d->head;
    return d->address == d->player + h->player_length + 1 &&
           d->host == d->address + h->address_length + 1 && d->type == d->host + h->host_length + 1 &&
           (!(h->flags & BLOCK_ACKED) || (d->acked == d->type + h->type_length + 1 &&
            memcmp(d->acked + h->acked_length + 1, &d->acked_version, ACKED_VERSION_BYTES) == 0));
}

static uint8_t *put_strings(uint8_t *to, const struct draft *d)
{
    const struct block *h = &d->head;
    if (strings_in_order(d))
        return put_bytes(to, d->player, strings_size(h));
    to = put_string(to, d->player, h->player_length);
    to = put_string(to, d->address, h->address_length);
    to = put_string(to, d->host, h->host_length);
    to = put_string(to, d->type, h->type_length);
    if (h->flags & BLOCK_ACKED) {
        to = put_string(to, d->acked, h->acked_length);
        to = put_bytes(to, &d->acked_version, ACKED_VERSION_BYTES);
    }
    return to;
}

/* An entry that replaces another takes its place. */
static uint8_t *put_metadata(uint8_t *to, const struct draft *d, uint64_t version)
{
    size_t before = d->drop_length ? d->drop_at : d->metadata_length, behind = before + d->drop_length;
    to = put_bytes(to, d->metadata, before);
    if (d->key)
        to = put_entry(to, d->key, d->key_length, d->value, d->value_length,
                       d->key_version ? d->key_version : version);
    if (behind < d->metadata_length)
        to = put_bytes(to, d->metadata + behind, d->metadata_length - behind);
    for (size_t i = 0; i < d->pair_count; i++)
        to = put_entry(to, d->pairs[i].key, strlen(d->pairs[i].key), d->pairs[i].value,
                       d->pairs[i].length, version);
    return to;
}

void record_write(const struct draft *d, struct block *b)
{
    const struct block *h = &d->head;
    memcpy(&b->handle, &h->handle, sizeof *b - offsetof(struct block, handle));
    uint8_t *to = put_strings((uint8_t *)(b + 1), d);
    b->metadata_at = (uint16_t)(to - (uint8_t *)b);
    to = put_metadata(to, d, h->version);
    b->size = (uint32_t)(to - (uint8_t *)b);
    b->metadata_count = (uint16_t)(h->metadata_count + (d->key != NULL) - (d->drop_length != 0) +
                                   d->pair_count);
}

/* ---------------------------------------------------------------- reading ------------------- */

bool record_draft(struct shm *shm, const struct block *b, uint64_t handle, struct draft *d)
{
    sesstab_view v;
    memcpy(&d->head.handle, &b->handle, sizeof *b - offsetof(struct block, handle));
    memcpy(&v, &d->head.handle, VIEW_FIXED);
    if (d->head.handle != handle || !record_parts(shm, &d->head, b, &v))
        return false;
    d->player = v.player;
    d->address = v.address;
    d->host = v.host;
    d->type = v.type;
    d->acked = v.type + d->head.type_length + 1;
    d->acked_version = 0;
    if (d->head.flags & BLOCK_ACKED)
        memcpy(&d->acked_version, d->acked + d->head.acked_length + 1, ACKED_VERSION_BYTES);
    d->metadata = v.metadata_;
    d->metadata_length = v.metadata_length_;
    d->drop_at = d->drop_length = 0;
    d->key = NULL;
    d->key_version = 0;
    d->pair_count = 0;
    return record_terminated(&v);
}

bool record_terminated(const sesstab_view *v)
{
    const char *end = v->metadata_;
    return v->address[-1] == 0 && v->host[-1] == 0 && v->type[-1] == 0 && end[-1] == 0;
}

bool record_whole(const sesstab_view *v)
{
    struct entry e;
    size_t at = 0;
    unsigned count = 0;
    if (!record_terminated(v))
        return false;
    while (record_entry(v->metadata_, v->metadata_length_, &at, &e))
        count++;
    return at == v->metadata_length_ && count == v->metadata_count;
}
