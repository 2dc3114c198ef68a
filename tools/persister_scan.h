/*
 * A walk over the active set, or over all keys of sessions, some handles at a time.  They may come
 * twice; those that are there during the whole walk come at least once.
 */
#ifndef TOOLS_PERSISTER_SCAN_H
#define TOOLS_PERSISTER_SCAN_H

#include "tools/persister_record.h"

enum { SCAN_PAGE = 128 }; /* handles that one scan_next() gives at most */

struct scan {
    struct redis *redis;
    char active[KEY_BYTES];
    bool of_keys;
    char start[KEY_BYTES]; /* of the sessions' keys                                */
    char pattern[2 * KEY_BYTES];
    char position[24];     /* SSCAN's, SCAN's */
    bool fetched_all;
    redisReply *page;      /* the last answer, whatever its size ...               */
    size_t used;           /* ... and how many of its members were given           */
    uint64_t handles[SCAN_PAGE];
    bool metadata[SCAN_PAGE]; /* it is the key of the handle's metadata            */
    size_t count;
    uint64_t total;        /* members of the active set at the beginning           */
    uint64_t strange;      /* what is no handle, or no such key: logged, left alone */
    bool unreadable;       /* the set is something else: nothing to walk over      */
    bool done;
};

/* False: dropped.  scan_free() is due in any case. */
bool scan_begin(struct scan *scan, struct redis *redis, const char *prefix);

/* The same over the keys of sessions, also of those that are not in the active set: it takes as
 * long as Redis needs to go through all keys that it has. */
void scan_begin_keys(struct scan *scan, struct redis *redis, const char *prefix);

/* The next handles; count may be 0 although it is not done.  False: dropped. */
bool scan_next(struct scan *scan);

void scan_free(struct scan *scan);

#endif
