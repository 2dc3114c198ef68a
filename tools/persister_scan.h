/*
 * A walk over the active set, some handles at a time.  Members may come twice; those that are there
 * during the whole walk come at least once.
 */
#ifndef TOOLS_PERSISTER_SCAN_H
#define TOOLS_PERSISTER_SCAN_H

#include "tools/persister_record.h"

enum { SCAN_PAGE = 128 }; /* handles that one scan_next() gives at most */

struct scan {
    struct redis *redis;
    char active[KEY_BYTES];
    char position[24];    /* SSCAN's */
    bool fetched_all;
    redisReply *page;     /* SSCAN's last answer, whatever its size ... */
    size_t used;          /* ... and how many of its members were given */
    uint64_t handles[SCAN_PAGE];
    size_t count;
    uint64_t total;       /* members at the beginning                   */
    uint64_t strange;     /* members that are no handles: logged, left alone */
    bool unreadable;      /* the key holds something else: nothing to walk over  */
    bool done;
};

/* False: dropped.  scan_free() is due in any case. */
bool scan_begin(struct scan *scan, struct redis *redis, const char *prefix);

/* The next handles; count may be 0 although it is not done.  False: dropped. */
bool scan_next(struct scan *scan);

void scan_free(struct scan *scan);

#endif
