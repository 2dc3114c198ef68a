#include "huge.h"

#include "heap.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; newer than Debian 12's headers of the C library */
#endif

/* [AT, AT + a huge page) lies in the BYTES at FROM. */
static bool lies_in(uint64_t at, uint64_t from, uint64_t bytes)
{
    return at >= from && at + HUGE_PAGE_BYTES <= from + bytes;
}

/* Z2.  What the heap has committed is never given back.  (mincore(2) knows of a page only once it was
 * touched.) */
static bool is_backed(struct shm *shm, uint64_t at)
{
    if (at >= shm->at.heap)
        return lies_in(at, shm->at.heap, heap_chunks(shm) * CHUNK_BYTES);
    struct heap_heads heads = heap_heads(shm);
    return lies_in(at, shm->at.handles, heads.handles * sizeof(atomic_u64)) ||
           lies_in(at, shm->at.players, heads.players * sizeof(atomic_u64));
}

/* The kernel knows no such request, or none for this memory. */
static int refused(const struct shm *shm)
{
    return shm_fail(ENOTSUP, "%s: the kernel makes no huge pages here: MADV_COLLAPSE wants Linux "
                    "6.1, transparent huge pages compiled in and not denied (/sys/kernel/mm/"
                    "transparent_hugepage/shmem_enabled, prctl PR_SET_THP_DISABLE)", shm->path);
}

int huge_next(struct shm *shm, uint64_t *position)
{
    uint64_t at = layout_align(*position, HUGE_PAGE_BYTES);
    while (at < shm->at.end && !is_backed(shm, at))
        at += HUGE_PAGE_BYTES;
    *position = at;
    if (at >= shm->at.end)
        return ENOENT;
    *position += HUGE_PAGE_BYTES;
    if (madvise(shm->base + at, HUGE_PAGE_BYTES, MADV_COLLAPSE) == 0)
        return 0;
    return errno == EINVAL ? refused(shm) : errno;
}
