/*
 * The inspector on a damaged segment: every view of it, as text and as JSON, by its own main().
 */
#include "tests/fuzz/image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int shmdump_main(int argc, char **argv);

static uint8_t *file;
static char path[64];

/* A copy without locks: nobody is alive in it, so that nothing is waited for. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char object[96];
    (void)argc, (void)argv;
    image_build();
    snprintf(object, sizeof object, "/dev/shm%s", image_name());
    int from = open(object, O_RDONLY | O_CLOEXEC), to = memfd_create("copy", MFD_CLOEXEC);
    size_t size = image_table()->shm.at.end;
    if (from < 0 || to < 0 || ftruncate(to, (off_t)size))
        abort();
    file = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
    for (off_t at = 0; (at = lseek(from, at, SEEK_DATA)) >= 0; at += PAGE_BYTES)
        if (pread(from, file + at, PAGE_BYTES, at) != PAGE_BYTES)
            abort();
    close(from);
    snprintf(path, sizeof path, "/proc/self/fd/%d", to);
    return freopen("/dev/null", "w", stdout) ? 0 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const views[] = { "--sessions", "--session=1", "--workers", "--rings",
                                         "--memory", "--check", "--sort=player", "--session=7" };
    struct input input = { data, size };
    uint8_t what = input_byte(&input);
    const char *argv[] = { "shmdump", path, views[what & 7], what & 8 ? "--json" : NULL, NULL };
    image_damage_file(&input, file);
    shmdump_main(what & 8 ? 4 : 3, (char **)argv);
    image_undo(file);
    return 0;
}
