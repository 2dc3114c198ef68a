/*
 * Writers on a damaged segment, and readers between them: insert, set, delete, increment,
 * compare-and-set, touch, bind, unbind, state, remove, reclamation.
 */
#include "tests/fuzz/image.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    image_build();
    return 0;
}

static void insert(uint64_t handle, size_t padding)
{
    static const char value[2000];
    const sesstab_pair pair = { "padding", value, padding % 4 * 500 };
    if (handle)
        sesstab_insert(image_table(), &handle, &(sesstab_info){
            .host = image_host(handle), .type = "new", .metadata = &pair,
            .metadata_count = padding % 4 != 0 });
}

static void find(sesstab *t, uint64_t handle)
{
    sesstab_view view;
    if (sesstab_read_begin(t) != SESSTAB_OK)
        return;
    if (sesstab_find(t, handle, &view) == SESSTAB_OK)
        image_look_at(&view, handle);
    sesstab_read_end(t);
}

static void change(uint64_t handle, uint8_t what, uint8_t how)
{
    static const char *const keys[] = { "width", "padding", "count", "new" };
    static const char value[3000];
    sesstab *t = image_table();
    const char *key = keys[how & 3];
    switch (what) {
    case 0: case 1: insert(handle, how); break;
    case 2: sesstab_set(t, handle, key, value, how * 10u); break;
    case 3: sesstab_delete(t, handle, key); break;
    case 4: sesstab_increment(t, handle, key, how, NULL); break;
    case 5: sesstab_compare_and_set(t, handle, key, how >> 2, value, how, NULL); break;
    case 6: sesstab_touch(t, handle, 1800000000000 + how); break;
    case 7: case 8: sesstab_bind(t, handle, image_players[how & 3], 0); break;
    case 9: sesstab_unbind(t, handle, 0); break;
    case 10: sesstab_set_state(t, handle, (sesstab_state)(how & 3), NULL); break;
    case 11: case 12: sesstab_remove(t, handle); break;
    case 13: rcu_reclaim(image_context()); break;
    default: find(t, handle); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    image_damage(&input);
    for (int i = 0; i < 10 && input.left; i++) {
        uint8_t what = input_byte(&input), how = input_byte(&input);
        change(how >> 4, what & 15, how);
        if (what & 16)
            find(image_table(), how >> 4);
    }
    image_reset();
    return 0;
}
