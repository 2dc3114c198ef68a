/* --check along the two indexes: see shmdump_check.h. */
#include "tools/shmdump_check.h"
#include "tools/shmdump_text.h"

#include <inttypes.h>
#include <stdlib.h>

static bool get_bit(const uint64_t *bits, uint64_t i) { return bits[i / 64] >> i % 64 & 1; }
static void set_bit(uint64_t *bits, uint64_t i) { bits[i / 64] |= UINT64_C(1) << i % 64; }

static struct walked *walked(struct check *c, bool of_players)
{
    return of_players ? &c->players : &c->handles;
}

/* ------------------------------------------------------------------ heads ------------------- */

static int by_split_order(const void *a, const void *b)
{
    return split_order(*(const uint32_t *)a, *(const uint32_t *)b);
}

/* The place of BUCKET in w->heads, or of the first behind it. */
static size_t head_place(const struct walked *w, uint32_t bucket)
{
    size_t low = 0, high = w->head_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (split_order(w->heads[middle], bucket) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void add_head(struct walked *w, uint32_t bucket)
{
    if (w->head_count == w->head_capacity) {
        w->head_capacity = w->head_capacity ? 2 * w->head_capacity : 1024;
        w->heads = must(reallocarray(w->heads, w->head_capacity, sizeof *w->heads));
    }
    w->heads[w->head_count++] = bucket;
}

/* Lists the heads that are linked; holes of the file hold none. */
static void list_heads(struct check *c, struct walked *w)
{
    static uint64_t some[8192];
    const uint64_t end = w->index.heads + w->index.max * 8;
    uint64_t at = image_skip_hole(c->image, w->index.heads, 8);
    for (; at < end; at = image_skip_hole(c->image, at + sizeof some, 8)) {
        size_t count = end - at < sizeof some ? (end - at) / 8 : sizeof some / 8;
        image_read(c->image, at, some, count * 8);
        for (size_t i = 0; i < count; i++)
            if (HEAD_LINKED(some[i]))
                add_head(w, (uint32_t)((at - w->index.heads) / 8 + i));
    }
    if (w->head_count)
        qsort(w->heads, w->head_count, sizeof *w->heads, by_split_order);
    w->reached = must(calloc(w->head_count + 1, 1));
}

/* ------------------------------------------------------------------ what is linked ---------- */

static void add_key(struct walked *w, uint64_t key)
{
    if (w->key_count == w->key_capacity) {
        w->key_capacity = w->key_capacity ? 2 * w->key_capacity : 1024;
        w->keys = must(reallocarray(w->keys, w->key_capacity, sizeof *w->keys));
    }
    w->keys[w->key_count++] = key;
}

static void remember_node(struct walked *w, const struct walk *walk)
{
    w->nodes++;
    if (walk->link & LINK_MARK)
        return;
    set_bit(w->linked, walk->at);
    if (w->index.of_players)
        add_key(w, walk->node.key);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bool node_linked(struct check *c, const struct walked *w, uint32_t ref, uint64_t key)
{
    return c->first ? get_bit(w->linked, ref) : index_find(c->image, &w->index, key, ref) != 0;
}

bool hint_linked(struct check *c, uint64_t key)
{
    const struct walked *w = &c->players;
    if (!c->first)
        return index_find(c->image, &w->index, key, 0) != 0;
    return w->key_count && bsearch(&key, w->keys, w->key_count, sizeof key, by_number);
}

/* ------------------------------------------------------------------ runs and heads ---------- */

/* A linked node must not be free; a slot is retired only after it was unlinked. */
static enum verdict examine_linked(const struct walk *walk, char *text)
{
    static const char *const states[] = { "free", "claimed", "live", "retired", "in state 4",
                                          "in state 5", "in state 6", "in state 7" };
    enum own_state state = OWN_STATE(walk->node.life);
    bool of_players = walk->index->of_players;
    if (state == OWN_FREE || state > OWN_RETIRED || (state == OWN_RETIRED && !of_players))
        return say(text, WRONG, "%s %" PRIu32 " is linked, but %s", of_players ? "hint" : "slot",
                   walk->at, states[state]);
    return FINE;
}

/*
 * From the head of SPOT to the next head; *NEXT is its bucket, *LAST says that there is none.  The
 * first pass remembers what it meets.
 */
static enum verdict walk_run(struct check *c, struct spot spot, char *text, uint32_t *next,
                             bool *last)
{
    struct walked *w = walked(c, spot.of_players);
    struct walk walk;
    enum verdict verdict = FINE;
    *last = true;
    /* A claimed head that the list leads to is linked. */
    if (!walk_from(&walk, c->image, &w->index, spot.at) && walk.link == 0)
        return spot.at ? FINE : say(text, WRONG, "the head of the list is not linked");
    while (walk_next(&walk)) {
        if (walk.at_head) {
            *last = false;
            *next = walk.at;
            return verdict;
        }
        if (c->first)
            remember_node(w, &walk);
        if (verdict == FINE)
            verdict = examine_linked(&walk, text);
    }
    if (!walk.wrong[0])
        return verdict;
    if (walk.at_head)
        return say(text, WRONG, "%s", walk.wrong);
    return say(text, WRONG, "%s %" PRIu32 ": %s", spot.of_players ? "hint" : "slot", walk.at,
               walk.wrong);
}

enum verdict examine_run(struct check *c, struct spot spot, char *text)
{
    uint32_t next;
    bool last;
    return walk_run(c, spot, text, &next, &last);
}

/* Every linked head is in the list: the walk came by it, or a walk from the head before it does. */
enum verdict examine_head(struct check *c, struct spot spot, char *text)
{
    struct walked *w = walked(c, spot.of_players);
    uint32_t bucket = (uint32_t)spot.at;
    size_t place = head_place(w, bucket);
    struct walk walk;
    if (bucket >= w->index.buckets)
        return say(text, WRONG, "its head is linked, but there are only %" PRIu64 " buckets",
                   w->index.buckets);
    if (bucket == 0 || (c->first && w->reached[place]))
        return FINE;
    if (!c->first && place && walk_from(&walk, c->image, &w->index, w->heads[place - 1]))
        while (walk_next(&walk) && split_order(walk.hash, bucket) <= 0)
            if (walk.at_head && walk.at == bucket)
                return FINE;
    return say(text, WRONG, "its head is linked, but not in the list");
}

/* ------------------------------------------------------------------ the whole --------------- */

/* The bucket at which to go on after the run of BUCKET: the next linked head. */
static bool head_behind(const struct walked *w, uint32_t bucket, uint32_t *next)
{
    size_t place = head_place(w, bucket);
    if (place < w->head_count && w->heads[place] == bucket)
        place++;
    if (place >= w->head_count)
        return false;
    *next = w->heads[place];
    return true;
}

/* The whole list, run by run; behind a run that is wrong it goes on at the next linked head. */
void walk_index(struct check *c, struct walked *w)
{
    struct spot spot = { RUN, w->index.of_players, 0 };
    bool last = false;
    list_heads(c, w);
    for (uint32_t next = 0; !last; spot.at = next) {
        char text[TEXT_BYTES] = "";
        size_t place = head_place(w, (uint32_t)spot.at);
        if (place < w->head_count && w->heads[place] == spot.at)
            w->reached[place] = 1;
        c->examined[RUN]++;
        enum verdict verdict = walk_run(c, spot, text, &next, &last);
        if (verdict == FINE)
            continue;
        find(c, spot, verdict, text);
        if (last)
            last = !head_behind(w, (uint32_t)spot.at, &next);
    }
    if (w->key_count)
        qsort(w->keys, w->key_count, sizeof *w->keys, by_number);
    for (size_t i = 0; i < w->head_count; i++)
        examine_first(c, (struct spot){ HEAD, w->index.of_players, w->heads[i] });
}

void forget_walked(struct walked *w)
{
    free(w->heads);
    free(w->reached);
    free(w->linked);
    free(w->keys);
}
