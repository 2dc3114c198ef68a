/*
 * How much of a table in use lies on huge pages.  A file does not tell that, only the processes that
 * map it do, each for what it has touched itself (/proc/PID/smaps, ShmemPmdMapped).
 */
#ifndef TOOLS_SHMDUMP_HUGE_H
#define TOOLS_SHMDUMP_HUGE_H

#include "tools/shmdump_workers.h"

struct huge_pages {
    uint32_t pid;             /* of the process that has most of them; 0: none could be asked   */
    uint64_t touched, huge;   /* bytes of the table that it has mapped, and those on huge pages */
};

/* Asks the living of COUNT workers, a few at most: it takes a while for a large table. */
struct huge_pages huge_pages_of(const struct image *image, const struct attached *all,
                                unsigned count);

#endif
