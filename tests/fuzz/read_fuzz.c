/*
 * The read path on a damaged segment: find, get, metadata, walks, by player.  Nothing is read outside
 * it, every call ends, and no session is taken for another one.
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

static void find(uint64_t handle)
{
    sesstab_view view;
    if (sesstab_read_begin(image_table()) != SESSTAB_OK)
        return;
    if (sesstab_find(image_table(), handle, &view) == SESSTAB_OK)
        image_look_at(&view, handle);
    sesstab_read_end(image_table());
}

/* Those from FIRST on. */
static void find_many(uint64_t first)
{
    enum { MANY = 40 };
    sesstab_view views[MANY];
    uint64_t handles[MANY];
    int results[MANY];
    for (uint64_t i = 0; i < MANY; i++)
        handles[i] = (first + i) % MANY;
    if (sesstab_read_begin(image_table()) != SESSTAB_OK)
        return;
    sesstab_find_many(image_table(), handles, MANY, views, results);
    for (size_t i = 0; i < MANY; i++)
        if (results[i] == SESSTAB_OK)
            image_look_at(&views[i], handles[i]);
    sesstab_read_end(image_table());
}

static void get(uint64_t handle)
{
    static char buffer[SESSTAB_RECORD_MAX];
    size_t size = sizeof buffer;
    sesstab_view view;
    if (sesstab_get(image_table(), handle, &view, buffer, &size) == SESSTAB_OK)
        image_look_at(&view, handle);
}

/* Two pages of each chunk have all the sessions. */
static void walk(unsigned page)
{
    sesstab_cursor cursor = sesstab_part(page % 128, 128);
    sesstab_view view;
    int result;
    while ((result = sesstab_next(image_table(), &cursor, &view)) != SESSTAB_NOTFOUND)
        if (result == SESSTAB_OK)
            image_look_at(&view, view.handle);
}

static int look(const sesstab_view *view, void *context)
{
    (void)context;
    image_look_at(view, view->handle);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    image_damage(&input);
    for (int i = 0; i < 12 && input.left; i++) {
        uint8_t what = input_byte(&input);
        switch (what >> 5) {
        case 0: case 1: find(what & 31); break;
        case 2: find_many(what & 31); break;
        case 3: case 4: get(what & 31); break;
        case 5: walk(what & 3); break;
        default: sesstab_by_player(image_table(), image_players[what & 3], look, NULL); break;
        }
    }
    image_reset_after_reading();
    return 0;
}
