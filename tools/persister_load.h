/*
 * Redis -> a fresh table: every session that Redis holds is inserted, durable as it is, before the
 * table says that it is ready.
 *
 * A handle that the table already has is skipped: the table wins.  What cannot be understood is
 * logged and left in Redis as it is.  A member of the active set without a session is counted only;
 * the comparison takes it out.
 */
#ifndef TOOLS_PERSISTER_LOAD_H
#define TOOLS_PERSISTER_LOAD_H

#include "lib/store.h"
#include "tools/persister_redis.h"

struct load {
    struct store *store;
    struct redis *redis;
    const char *prefix;
    uint64_t loaded, present, bad, empty;
    bool quiet; /* an earlier attempt has logged what is bad */
    uint64_t max_generation, max_handle;
    uint64_t total, said_at; /* for progress: members of the active set; when it was told last */
};

/* False: dropped, or asked to stop; it can be run again. */
bool load_run(struct load *load);

#endif
