#include "record.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint32_t record_player_hash(const struct shm *shm, const char *player, size_t length)
{
    uint32_t h = (uint32_t)XXH3_64bits_withSeed(player, length, shm->hash_seed);
    return h ? h : 1;
}

/* ---------------------------------------------------------------- metadata ------------------ */

bool record_entry(const uint8_t *metadata, size_t length, size_t *at, struct entry *e)
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

bool record_find(const uint8_t *metadata, size_t length, const char *key, size_t *at,
                 struct entry *e)
{
    size_t n = strlen(key), next = 0;
    for (*at = 0; record_entry(metadata, length, &next, e); *at = next)
        if (e->key_length == n && memcmp(e->key, key, n) == 0)
            return true;
    return false;
}

static size_t entry_size(size_t key_length, size_t value_length)
{
    return sizeof(struct metadata) + key_length + 1 + value_length + 1;
}

static uint8_t *put_entry(uint8_t *to, const char *key, const void *value, size_t length,
                          uint64_t version)
{
    size_t n = strlen(key);
    struct metadata m = { .version_low = (uint32_t)version, .version_high = (uint16_t)(version >> 32),
                          .value_length = (uint16_t)length, .key_length = (uint8_t)n };
    memcpy(to, &m, sizeof m);
    to += sizeof m;
    memcpy(to, key, n + 1);
    to += n + 1;
    if (length)
        memcpy(to, value, length);
    to[length] = 0;
    return to + length + 1;
}

/* ---------------------------------------------------------------- writing ------------------- */

static size_t strings_size(const struct block *h)
{
    return (size_t)h->player_length + h->address_length + h->host_length + h->type_length + 4 +
           ((h->flags & BLOCK_ACKED) ? h->acked_length + 1u + ACKED_VERSION_BYTES : 0);
}

size_t record_size(const struct draft *d)
{
    size_t size = sizeof d->head + strings_size(&d->head) + d->metadata_length - d->drop_length;
    if (d->key)
        size += entry_size(strlen(d->key), d->value_length);
    for (size_t i = 0; i < d->pair_count; i++)
        size += entry_size(strlen(d->pairs[i].key), d->pairs[i].length);
    return size;
}

static uint8_t *put_string(uint8_t *to, const char *s, size_t length)
{
    /* gcc 12 knows that a length is below 256 and inlines `rep movs`, which is slow to start:
     * a metadata set takes 200 ns with it and 140 without.  So it shall not know. */
    __asm__("" : "+r"(length));
    memcpy(to, s, length);
    to[length] = 0;
    return to + length + 1;
}

static uint8_t *put_metadata(uint8_t *to, const struct draft *d, uint64_t version)
{
    size_t behind = d->drop_at + d->drop_length;
    if (d->metadata_length) {
        memcpy(to, d->metadata, d->drop_at);
        to += d->drop_at;
        memcpy(to, d->metadata + behind, d->metadata_length - behind);
        to += d->metadata_length - behind;
    }
    if (d->key)
        to = put_entry(to, d->key, d->value, d->value_length, version);
    for (size_t i = 0; i < d->pair_count; i++)
        to = put_entry(to, d->pairs[i].key, d->pairs[i].value, d->pairs[i].length, version);
    return to;
}

void record_write(const struct draft *d, struct block *b)
{
    const struct block *h = &d->head;
    memcpy(&b->handle, &h->handle, sizeof *b - offsetof(struct block, handle));
    uint8_t *to = (uint8_t *)(b + 1);
    to = put_string(to, d->player, h->player_length);
    to = put_string(to, d->address, h->address_length);
    to = put_string(to, d->host, h->host_length);
    to = put_string(to, d->type, h->type_length);
    if (h->flags & BLOCK_ACKED) {
        to = put_string(to, d->acked, h->acked_length);
        memcpy(to, &d->acked_version, ACKED_VERSION_BYTES);
        to += ACKED_VERSION_BYTES;
    }
    b->metadata_at = (uint16_t)(to - (uint8_t *)b);
    to = put_metadata(to, d, h->version);
    b->size = (uint32_t)(to - (uint8_t *)b);
    b->metadata_count = (uint16_t)(h->metadata_count + (d->key != NULL) - (d->drop_length != 0) +
                                   d->pair_count);
}

/* ---------------------------------------------------------------- reading ------------------- */

/* Loaded once: who scribbles on the record can't come between a check and what relies on it. */
#define once(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* Out of line, so that the usual way needs no registers saved. */
__attribute__((noinline)) static bool block_holds(struct shm *shm, const struct block *b, size_t size)
{
    block_ref r = { (uint32_t)((uint64_t)((const uint8_t *)b - shm->heap) / BLOCK_UNIT) };
    return size <= block_bytes(shm, r);
}

/*
 * Points V at the parts of the record B, whose fixed part is H: itself, or a copy.  False: they are
 * not in order, or not within B's block.  (The smallest block needs no look at its chunk's class.)
 */
static inline bool view_parts(struct shm *shm, const struct block *h, const struct block *b,
                              sesstab_view *v)
{
    const char *record = (const char *)b, *end;
    uint32_t size = once(h->size);
    v->state = once(h->state);
    v->player_length = once(h->player_length);
    v->player = (const char *)(b + 1);
    v->address = v->player + v->player_length + 1;
    v->host = v->address + once(h->address_length) + 1;
    v->type = v->host + once(h->host_length) + 1;
    end = v->type + once(h->type_length) + 1;
    if (once(h->flags) & BLOCK_ACKED)
        end += once(h->acked_length) + 1 + ACKED_VERSION_BYTES;
    v->metadata_ = end;
    v->metadata_length_ = size - (uint32_t)(end - record);
    if (unlikely(end != record + h->metadata_at || v->metadata_length_ > size ||
                 v->state >= SESSTAB_STATE_COUNT))
        return false;
    return likely(size <= BLOCK_UNIT) || block_holds(shm, b, size);
}

bool record_draft(struct shm *shm, const struct block *b, uint64_t handle, struct draft *d)
{
    sesstab_view v;
    memset(d, 0, sizeof *d);
    memcpy(&d->head.handle, &b->handle, sizeof *b - offsetof(struct block, handle));
    if (d->head.handle != handle || !view_parts(shm, &d->head, b, &v))
        return false;
    d->player = v.player;
    d->address = v.address;
    d->host = v.host;
    d->type = v.type;
    d->acked = v.type + d->head.type_length + 1;
    if (d->head.flags & BLOCK_ACKED)
        memcpy(&d->acked_version, d->acked + d->head.acked_length + 1, ACKED_VERSION_BYTES);
    d->metadata = v.metadata_;
    d->metadata_length = v.metadata_length_;
    return record_terminated(&v);
}

bool record_view(struct shm *shm, const struct block *b, uint64_t handle, sesstab_view *v)
{
    if (unlikely(b->handle != handle))
        return false;
    v->handle = handle;
    v->generation = b->generation;
    v->version = b->version;
    v->connected_at = b->connected_at;
    v->owner = b->owner;
    v->metadata_count = b->metadata_count;
    return view_parts(shm, b, b, v);
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
