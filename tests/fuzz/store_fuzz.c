/*
 * The persister's side, recovery and the sweep on a damaged segment: take, read, acknowledge, refuse,
 * retry, lose; recover the dead; sweep a chunk.  A damaged record is never handed out.
 */
#include "tests/fuzz/image.h"

#include "lib/store.h"
#include "shm/recover.h"

#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    image_build();
    return 0;
}

static struct store_image images[8];
static size_t taken;

static void read_images(struct store *s)
{
    for (size_t i = 0; i < taken; i++) {
        sesstab_view view;
        if (sesstab_read_begin(image_table()) != SESSTAB_OK)
            return;
        store_read(s, &images[i], &view);
        if (images[i].kind != STORE_NOTHING)
            image_look_at(&view, images[i].handle);
        if (images[i].kind != STORE_NOTHING && !record_whole(&view))
            abort();
        sesstab_read_end(image_table());
    }
}

static void judge(struct store *s, uint8_t how)
{
    if (!taken)
        return;
    struct store_image *image = &images[how % taken];
    switch (how >> 5) {
    case 0: case 1: case 2: store_ack(s, image); break;
    case 3: store_refuse(s, image, how & 1 ? image->version : 0); break;
    case 4: store_retry(s, image); break;
    case 5: store_forget(s, image); break;
    case 6: store_waited_for(s, image); break;
    default: store_knows(s, how & 15, NULL); break;
    }
}

static void load(struct store *s, uint64_t handle, uint64_t version)
{
    store_load(s, &(struct store_record){ .handle = handle, .generation = 1, .version = version,
               .player = image_players[version & 3], .address = "", .host = image_host(handle),
               .type = "" });
}

static void serve(struct store *s, uint8_t what, uint8_t how)
{
    switch (what & 15) {
    case 0: case 1: case 2:
        taken = store_take(s, images, 1 + how % 8, how & 128);
        read_images(s);
        break;
    case 3: case 4: case 5: case 6: case 7: judge(s, how); break;
    case 8: store_lost(s); break;
    case 9: store_recover(image_table(), NULL, 0, NULL); break;
    case 10: recover_sweep(image_context(), how); break;
    case 11: heap_rehint(&image_table()->shm, how % 6); break;
    case 12: store_lag(s); break;
    case 13: store_set_ready(s, how, how); break;
    case 14: load(s, 1 + how % 16, how); break;
    default: rcu_reclaim(image_context()); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    struct store *s = store_open(image_table());
    taken = 0;
    image_damage(&input);
    for (int i = 0; s && i < 8 && input.left; i++) {
        uint8_t what = input_byte(&input);
        serve(s, what, input_byte(&input));
    }
    if (s)
        store_close(s);
    image_reset();
    return 0;
}
