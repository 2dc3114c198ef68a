/*
 * Huge pages for what a table uses by now: 2 MiB of it at a time become one page, in the page cache,
 * and so for every process that maps it, whatever the mount of /dev/shm says (MADV_COLLAPSE).
 *
 *   Z1  Nothing is changed but pages: no byte of the segment, and nothing that a death could leave
 *       half done.  Who touches this memory meanwhile waits for the kernel, some milliseconds.
 *   Z2  Only a stretch that is backed as a whole is asked for: the kernel would fill its holes, and
 *       the table would grow.
 */
#ifndef SHM_HUGE_H
#define SHM_HUGE_H

#include "segment.h"

/*
 * Asks for the first whole stretch at or behind *POSITION, which moves behind it; 0 at first.
 * 0 (it is a huge page), ENOENT (no more), ENOTSUP (the kernel does no such thing here), or another
 * errno value: not now (no huge page is free, somebody holds one of the small ones).
 */
int huge_next(struct shm *shm, uint64_t *position);

#endif
