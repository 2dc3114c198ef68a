#include "tools/shmdump_huge.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/sysmacros.h>

enum { ASKED_MAX = 8 };

/* LINE begins a mapping, in which case *OURS says whether it is one of the table's file. */
static bool begins(const struct image *image, const char *line, bool *ours)
{
    unsigned device_major, device_minor;
    uint64_t inode;
    if (sscanf(line, "%*x-%*x %*s %*x %x:%x %" SCNu64, &device_major, &device_minor, &inode) != 3)
        return false;
    *ours = inode == image->inode && makedev(device_major, device_minor) == image->device;
    return true;
}

/* What process PID has mapped; its pid is 0 when it may not be asked or does not have the table. */
static struct huge_pages ask(const struct image *image, uint32_t pid)
{
    struct huge_pages h = { 0 };
    char line[512];
    bool ours = false;
    uint64_t kib;
    snprintf(line, sizeof line, "/proc/%" PRIu32 "/smaps", pid);
    FILE *f = fopen(line, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (begins(image, line, &ours) || !ours)
            continue;
        h.pid = pid;
        if (sscanf(line, "Rss: %" SCNu64, &kib) == 1)
            h.touched += kib * 1024;
        if (sscanf(line, "ShmemPmdMapped: %" SCNu64, &kib) == 1)
            h.huge += kib * 1024;
    }
    if (f)
        fclose(f);
    return h;
}

struct huge_pages huge_pages_of(const struct image *image, const struct attached *all,
                                unsigned count)
{
    struct huge_pages best = { 0 };
    unsigned asked = 0;
    for (unsigned i = 0; i < count && asked < ASKED_MAX; i++) {
        if (all[i].life != WORKER_ALIVE)
            continue;
        struct huge_pages h = ask(image, all[i].worker.pid);
        asked += h.pid != 0;
        if (h.pid && (!best.pid || h.huge > best.huge))
            best = h;
    }
    return best;
}
