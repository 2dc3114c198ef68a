/*
 * The store that the survivor plays: it takes, reads and acknowledges as a persister does, and
 * keeps what Redis would keep.  C3 is judged by it.
 */
#include "tests/crash/crash.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---------------------------------------------------------------- writing ------------------- */

static struct stored *stored_of(struct world *w, uint64_t handle)
{
    struct stored *r = w->stage->stored;
    while (r->handle && r->handle != handle)
        r++;
    check(r < w->stage->stored + STORED_MAX);
    r->handle = handle;
    return r;
}

static bool is_watched(const struct world *w, uint64_t handle)
{
    return handle == w->handle || (handle >= NEIGHBOUR && handle < HALF_DONE + 4);
}

/* As HSET does: what is not named stays. */
static void put_field(struct stored *r, const sesstab_pair *pair)
{
    unsigned i = 0;
    while (i < r->count && strcmp(r->fields[i].key, pair->key) != 0)
        i++;
    check(i < sizeof r->fields / sizeof *r->fields);
    snprintf(r->fields[i].key, sizeof r->fields[i].key, "%s", pair->key);
    r->fields[i].value = XXH3_64bits(pair->value, pair->length);
    r->count += i == r->count;
}

static void put(struct stored *r, const struct store_image *image, const sesstab_view *v)
{
    size_t at = 0;
    sesstab_pair pair;
    if (image->replace)
        r->count = 0;
    r->present = true;
    r->member |= image->member;
    r->generation = v->generation;
    r->version = image->version;
    r->state = v->state;
    snprintf(r->player, sizeof r->player, "%s", v->player);
    while (sesstab_metadata_next(v, &at, &pair, NULL) == SESSTAB_OK)
        put_field(r, &pair);
}

static void write_image(struct world *w, const struct store_image *image, const sesstab_view *v)
{
    if (!is_watched(w, image->handle))
        return;
    struct stored *r = stored_of(w, image->handle);
    if (image->kind == STORE_DELETE)
        *r = (struct stored){ .handle = r->handle };
    else if (image->kind == STORE_PUT)
        put(r, image, v);
    if (image->kind != STORE_DELETE)
        r->last_seen = image->last_seen;
}

void store_preview(struct world *w)
{
    struct store_image stored;
    struct image image;
    sesstab_view view = { 0 };
    image_take(&image, w->table, w->handle);
    if (image.present)
        image_view(&image, w->handle, &view);
    check(store_knows(w->store, w->handle, &stored));
    write_image(w, &stored, &view);
}

static void serve(struct world *w, struct store_image *image, bool refuse)
{
    sesstab_view view;
    check_ok(sesstab_read_begin(w->table));
    store_read(w->store, image, &view);
    if (image->kind != STORE_NOTHING && !refuse)
        write_image(w, image, &view);
    sesstab_read_end(w->table);
    if (refuse)
        store_deny(w->store, image, 0);
    if (refuse && image->pending)
        check(store_refuse(w->store, image, 0));
    else if (image->kind != STORE_NOTHING && !refuse)
        store_ack(w->store, image);
    else if (refuse)
        store_retry(w->store, image);
    else
        store_let_go(w->store, image);
}

void store_answer(struct world *w, bool refuse)
{
    struct store_image image;
    while (store_take(w->store, &image, 1, true))
        serve(w, &image, refuse);
}

void store_drain(struct world *w)
{
    struct store_image images[16];
    bool switched;
    if (!w->store)
        return;
    do {
        store_mode(w->store, &switched);
        size_t n = store_take(w->store, images, 16, false);
        for (size_t i = 0; i < n; i++)
            serve(w, &images[i], false);
    } while (store_busy(w->store));
}

/* ---------------------------------------------------------------- C3 ------------------------ */

static void compare_stored(struct world *w, uint64_t handle)
{
    struct image image;
    sesstab_view v;
    sesstab_pair pair;
    struct stored *r = stored_of(w, handle);
    unsigned fields = 0;
    size_t at = 0;
    image_take(&image, w->table, handle);
    check_equal(r->present, image.present);
    if (!image.present)
        return;
    image_view(&image, handle, &v);
    check(r->member);
    check_equal(r->version, v.version);
    check_equal(r->generation, v.generation);
    check_equal(r->last_seen, image.last_seen);
    check_equal(r->state, v.state);
    check_string(r->player, v.player);
    for (; sesstab_metadata_next(&v, &at, &pair, NULL) == SESSTAB_OK; fields++) {
        unsigned i = 0;
        while (i < r->count && strcmp(r->fields[i].key, pair.key) != 0)
            i++;
        check(i < r->count && r->fields[i].value == XXH3_64bits(pair.value, pair.length));
    }
    check_equal(r->count, fields);
}

void store_compare(struct world *w)
{
    if (!w->store)
        return;
    compare_stored(w, w->handle);
    for (uint64_t h = NEIGHBOUR; h < HALF_DONE + 4; h++)
        compare_stored(w, h);
}

