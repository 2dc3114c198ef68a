/* The two indexes, walked from outside: see shmdump_index.h. */
#include "tools/shmdump_index.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NODE_HASH (UINT64_C(1) << 63)

struct index index_of_handles(const struct image *image)
{
    return (struct index){ "handles", false, image->at.handles, image->handle_buckets,
                           image->at.handles_max, image->header.hash_seed };
}

struct index index_of_players(const struct image *image)
{
    return (struct index){ "players", true, image->at.players, image->player_buckets,
                           image->at.players_max, 0 };
}

/* ------------------------------------------------------------------ order ------------------ */

uint64_t index_hash(const struct index *index, uint64_t key)
{
    return (index->of_players ? key : layout_hash(index->seed, key)) | NODE_HASH;
}

uint64_t player_key(uint32_t player_hash, slot_ref slot)
{
    return (uint64_t)slot.at << 32 | player_hash;
}

int split_order(uint64_t a, uint64_t b)
{
    uint64_t differ = a ^ b, lowest = differ & -differ;
    return differ == 0 ? 0 : a & lowest ? 1 : -1;
}

static uint64_t bucket_head(const struct image *image, const struct index *index, uint64_t bucket)
{
    return image_word(image, index->heads + bucket * 8);
}

/* ------------------------------------------------------------------ walking ---------------- */

__attribute__((format(printf, 2, 3)))
static bool wrong(struct walk *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(w->wrong, sizeof w->wrong, format, arguments);
    va_end(arguments);
    return false;
}

bool walk_from(struct walk *w, const struct image *image, const struct index *index,
               uint64_t bucket)
{
    w->image = image;
    w->index = index;
    w->at_head = true;
    w->at = (uint32_t)bucket;
    w->hash = bucket;
    w->equal_steps = 0;
    w->wrong[0] = '\0';
    w->link = bucket_head(image, index, bucket);
    return HEAD_LINKED(w->link);
}

/* The place that w->link leads to, into *NEXT. */
static bool follow(struct walk *w, struct walk *next)
{
    uint32_t ref = LINK_REF(w->link);
    next->at = ref;
    next->at_head = w->link & LINK_HEAD;
    if (next->at_head) {
        if (ref >= w->index->max)
            return wrong(w, "its link leads to bucket %u of %" PRIu64, ref, w->index->max);
        next->hash = ref;
        next->link = bucket_head(w->image, w->index, ref);
        if (next->link == 0)
            return wrong(w, "its link leads to bucket %u, which is not linked", ref);
        return true;
    }
    uint64_t place = w->index->of_players ? hint_place(w->image, (hint_ref){ ref })
                                          : slot_place(w->image, (slot_ref){ ref });
    if (!place)
        return wrong(w, "its link leads to %s %u, which is none",
                     w->index->of_players ? "hint" : "slot", ref);
    if (!image_read(w->image, place, &next->node, sizeof next->node))
        return wrong(w, "its link leads to %u, which is not in the file", ref);
    next->hash = index_hash(w->index, next->node.key);
    next->link = next->node.next;
    return true;
}

/* Brent's test, for a stretch of one key. */
static bool no_circle(const struct walk *w, struct walk *next)
{
    next->equal_steps = w->equal_steps + 1;
    next->met = w->met;
    if (w->equal_steps && next->at == w->met)
        return false;
    if ((next->equal_steps & w->equal_steps) == 0)
        next->met = next->at;
    return true;
}

/* May NEXT stand behind W? */
static bool in_order(struct walk *w, struct walk *next)
{
    uint32_t tag_mask = (1u << LINK_TAG_BITS) - 1;
    int order = split_order(w->hash, next->hash);
    bool same = false;
    if (order == 0 && !w->at_head && !next->at_head) {
        same = w->node.key == next->node.key;
        order = w->node.key <= next->node.key ? -1 : 1;
    }
    if (order >= 0)
        return wrong(w, "its link leads back, to %s %u", next->at_head ? "bucket" : "node",
                     next->at);
    if (same && next->at == w->at)
        return wrong(w, "its link leads to itself");
    if (same && !w->index->of_players && !((w->link | next->link) & LINK_MARK))
        return wrong(w, "slot %u behind it has the same handle %" PRIu64 ", and both are live",
                     next->at, next->node.key);
    if (same && !no_circle(w, next))
        return wrong(w, "its links go round in a circle");
    if (w->at_head && w->link & LINK_CLAIMED)
        return true; /* names a worker instead of the tag */
    if (LINK_TAG(w->link) != (next->hash & tag_mask))
        return wrong(w, "its link has tag %u for %s %u, whose hash ends in %u", LINK_TAG(w->link),
                     next->at_head ? "bucket" : "node", next->at, (uint32_t)next->hash & tag_mask);
    return true;
}

bool walk_next(struct walk *w)
{
    struct walk next = { .image = w->image, .index = w->index };
    if (w->link & LINK_CLAIMED && !w->at_head)
        return wrong(w, "its link is claimed, as only a bucket's may be");
    if (w->link & LINK_MARK && w->at_head)
        return wrong(w, "its link is marked deleted, as only a node's may be");
    if (w->link & LINK_HEAD && LINK_REF(w->link) == 0) {
        if (!(w->link & LINK_CLAIMED) && LINK_TAG(w->link) != 0)
            wrong(w, "its link to the end has tag %u", LINK_TAG(w->link));
        return false;
    }
    if (!follow(w, &next) || !in_order(w, &next))
        return false;
    *w = next;
    return true;
}

/* ------------------------------------------------------------------ finding ---------------- */

/* Stands on the nearest linked head at or before BUCKET among its parents, as readers do. */
static bool walk_from_parent(struct walk *w, const struct image *image, const struct index *index,
                             uint64_t bucket)
{
    while (!walk_from(w, image, index, bucket)) {
        if (bucket == 0)
            return false;
        bucket &= ~(UINT64_C(1) << (63 - __builtin_clzll(bucket)));
    }
    return true;
}

uint32_t index_find(const struct image *image, const struct index *index, uint64_t key, uint32_t at)
{
    uint64_t hash = index_hash(index, key);
    struct walk w;
    if (!walk_from_parent(&w, image, index, hash & (index->buckets - 1)))
        return 0;
    while (walk_next(&w) && split_order(w.hash, hash) <= 0)
        if (!w.at_head && w.node.key == key && !(w.link & LINK_MARK) && (at == 0 || w.at == at))
            return w.at;
    return 0;
}
