/*
 * Opening a damaged segment by its name, as a new worker does: the header is judged, the dead are
 * recovered, places are claimed; then a little work, a sweep, and leaving again.
 *
 * What the library maps is made private, so that nothing reaches the file but the patches.
 */
#include "tests/fuzz/image.h"

#include "shm/recover.h"
#include "shm/wait.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void *__real_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);

static uint8_t *file;

/* All but the page that holds a worker's lock. */
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (file && fd >= 0 && length > PAGE_BYTES)
        flags = (flags & ~MAP_SHARED) | MAP_PRIVATE;
    return __real_mmap(at, length, protection, flags, fd, offset);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[96];
    (void)argc, (void)argv;
    image_build();
    snprintf(path, sizeof path, "/dev/shm%s", image_name());
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t *base = mmap(NULL, image_table()->shm.at.end, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        abort();
    close(fd);
    file = base;
    return 0;
}

static void work(sesstab *t, struct input *input)
{
    int error;
    struct context *c = context_of(&t->shm, &error);
    for (int i = 0; c && i < 6 && input->left; i++) {
        uint8_t what = input_byte(input);
        uint64_t handle = what & 15;
        sesstab_view view;
        char buffer[4096];
        size_t size = sizeof buffer;
        c->relief_ended = monotonic_ms(); /* as if a claim had failed: no second try */
        switch (what >> 4) {
        case 0: case 1: case 2: sesstab_get(t, handle, &view, buffer, &size); break;
        case 3: case 4: sesstab_set(t, handle, "key", "value", 5); break;
        case 5: sesstab_bind(t, handle, image_players[handle & 3], 0); break;
        case 6: sesstab_remove(t, handle); break;
        case 7: sesstab_insert(t, &handle, NULL); break;
        case 8: recover_sweep(c, (unsigned)handle); break;
        case 9: sesstab_owner_alive(t, (uint32_t)handle << WORKER_INDEX_BITS | 2); break;
        default: sesstab_touch(t, handle, 0); break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = { data, size };
    sesstab *t = NULL;
    image_damage_file(&input, file);
    const sesstab_options options = { .wait_ms = 1 }; /* as in image_build() */
    if (sesstab_open(image_name(), &options, &t) == SESSTAB_OK) {
        work(t, &input);
        sesstab_close(t);
    }
    image_undo(file);
    return 0;
}
