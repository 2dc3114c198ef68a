/* Redis -> a fresh table; see persister_load.h. */
#include "tools/persister_load.h"

#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_metrics.h"
#include "tools/persister_scan.h"

#include <stdlib.h>

enum { PROGRESS_MS = 1000 };

static void say_bad(struct load *load, const char *member, const char *why)
{
    load->bad++;
    metric_add(METRIC_LOAD_BAD, 1);
    log_event(load->quiet ? LEVEL_DEBUG : LEVEL_WARN, "load-bad", TEXT("handle", member),
              TEXT("reason", why), TEXT("note", "left as it is"));
}

static void note_numbers(struct load *load, const struct store_record *record)
{
    if (record->generation > load->max_generation && record->generation <= GENERATION_MAX)
        load->max_generation = record->generation;
    if (record->handle > load->max_handle)
        load->max_handle = record->handle;
}

/* NULL, or why the session could not be loaded. */
static const char *load_session(struct load *load, uint64_t handle, const redisReply *hash,
                                const redisReply *metadata)
{
    struct store_record record;
    sesstab_pair *pairs = NULL;
    if (hash->type == REDIS_REPLY_ARRAY && hash->elements == 0) {
        load->empty++;
        return NULL;
    }
    const char *why = parse_record(hash, handle, &record);
    note_numbers(load, &record);
    if (!why)
        why = parse_metadata(metadata, &record, &pairs);
    if (!why) {
        int error = store_load(load->store, &record);
        load->loaded += error == SESSTAB_OK;
        metric_add(METRIC_LOADED, error == SESSTAB_OK);
        load->present += error == SESSTAB_EXISTS;
        /* Ready would mean that what is not in the table does not exist. */
        if (error == SESSTAB_NOMEMORY || error == SESSTAB_NOSPACE)
            redis_drop(load->redis, "the table has no room for the sessions in Redis: "
                                    "enlarge /dev/shm or the table's --max-bytes");
        if (error != SESSTAB_OK && error != SESSTAB_EXISTS)
            why = sesstab_strerror(error);
    }
    free(pairs);
    return why;
}

static void say_progress(struct load *load)
{
    uint64_t now = monotonic_ms();
    if (now - load->said_at < PROGRESS_MS)
        return;
    load->said_at = now;
    log_event(LEVEL_INFO, "loading", NUMBER("loaded", load->loaded), NUMBER("of", load->total));
}

/* A session that cannot be asked for now is there all the same: it must not count as gone. */
static void drop_if_refused(struct load *load, const redisReply *reply)
{
    if (reply && reply->type == REDIS_REPLY_ERROR && redis_refusal(reply) != REFUSAL_TYPE)
        redis_drop(load->redis, reply->str);
}

static bool load_page(struct load *load, const struct scan *scan)
{
    struct session_key key;
    for (size_t i = 0; i < scan->count; i++) {
        session_key(&key, load->prefix, scan->handles[i]);
        redis_put(load->redis, "HGETALL", key.record, NULL);
        redis_put(load->redis, "HGETALL", key.metadata, NULL);
    }
    for (size_t i = 0; i < scan->count; i++) {
        redisReply *hash = redis_receive(load->redis), *metadata = redis_receive(load->redis);
        drop_if_refused(load, hash);
        drop_if_refused(load, metadata);
        const char *why = redis_connected(load->redis) && hash && metadata
                              ? load_session(load, scan->handles[i], hash, metadata)
                              : NULL;
        session_key(&key, load->prefix, scan->handles[i]);
        if (why && redis_connected(load->redis))
            say_bad(load, key.handle, why);
        freeReplyObject(hash);
        freeReplyObject(metadata);
    }
    say_progress(load);
    return redis_connected(load->redis);
}

bool load_run(struct load *load)
{
    struct scan scan;
    bool going = scan_begin(&scan, load->redis, load->prefix);
    load->total = scan.total;
    load->said_at = monotonic_ms();
    if (scan.unreadable)
        redis_drop(load->redis, "WRONGTYPE: the key of the active set holds something else");
    while (going && !scan.done && !stop_requested())
        going = scan_next(&scan) && load_page(load, &scan);
    load->bad += scan.strange;
    bool complete = going && scan.done && redis_connected(load->redis);
    scan_free(&scan);
    return complete;
}
