/* What Redis holds, when the fence is taken and after a loss; see persister_leader.h. */
#include "tools/persister_leader.h"

#include "tools/log.h"
#include "tools/persister_load.h"
#include "tools/persister_metrics.h"

#include <stdio.h>
#include <string.h>

static bool table_is_empty(struct leader *l)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    bool empty = sesstab_next(l->table, &cursor, &view) == SESSTAB_NOTFOUND;
    if (!empty)
        sesstab_pause(l->table, &cursor);
    return empty;
}

/* The epoch is looked at once more: what was loaded before a loss is not durable. */
static bool still_there(struct leader *l)
{
    if (!fence_look(&l->fence))
        return false;
    if (!fence_held(&l->fence)) {
        redis_drop(&l->redis, "the lead was lost while loading");
        return false;
    }
    if (fence_epoch(&l->fence, store_incarnation(l->store)) == EPOCH_OURS)
        return true;
    store_lost(l->store);
    metric_add(METRIC_LOSSES_ALL, 1);
    redis_drop(&l->redis, "Redis lost its data while it was being loaded");
    return false;
}

/* Whose sessions are going to be loaded. */
static void note_predecessor(struct leader *l)
{
    uint64_t creation;
    uint32_t incarnation;
    if (fence_epoch_names(&l->fence, &creation, &incarnation))
        store_load_from(l->store, creation, incarnation);
}

static bool is_predecessor(struct leader *l)
{
    uint64_t creation;
    uint32_t incarnation;
    return fence_epoch_names(&l->fence, &creation, &incarnation) &&
           store_loaded_from(l->store, creation, incarnation);
}

static bool load(struct leader *l)
{
    struct load loading = { .store = l->store, .redis = &l->redis,
                            .prefix = l->settings->prefix, .quiet = l->load_tried };
    uint64_t start = monotonic_ms();
    bool was_empty = table_is_empty(l);
    if (fence_epoch(&l->fence, store_incarnation(l->store)) != EPOCH_OURS) {
        note_predecessor(l);
        if (!fence_set_epoch(&l->fence, store_incarnation(l->store)))
            return false;
    }
    l->load_tried = true;
    if (!load_run(&loading))
        redis_drop(&l->redis, "asked to stop while loading");
    if (!redis_connected(&l->redis) || !still_there(l))
        return false;
    log_event(LEVEL_INFO, "loaded", NUMBER("sessions", loading.loaded),
              NUMBER("present", loading.present), NUMBER("bad", loading.bad),
              NUMBER("empty", loading.empty), NUMBER("ms", monotonic_ms() - start));
    store_set_ready(l->store, loading.max_generation, loading.max_handle);
    log_event(LEVEL_INFO, "ready", NUMBER("max_generation", loading.max_generation),
              NUMBER("max_handle", loading.max_handle));
    /* What an earlier attempt had loaded may have been lost before this one. */
    if (!was_empty || loading.empty)
        compare_start(&l->compare, &l->batch, !loading.empty);
    else
        compare_slowly(&l->compare, &l->batch);
    return true;
}

/* Before the lead is given up for good: whether a second look shows the same SEEN, of the fence. */
bool leader_says_it_again(struct leader *l, const char seen[TOKEN_BYTES])
{
    char before[TOKEN_BYTES];
    memcpy(before, seen, sizeof before);
    if (fence_look(&l->fence) && strcmp(before, seen) != 0)
        redis_drop(&l->redis, "Redis said two different things about whose it is");
    return redis_connected(&l->redis);
}

/*
 * Redis holds another table's sessions: what this table does not know is not to be deleted.  (Not
 * so if this table was loaded from them, and Redis has gone back to a copy from before.)
 */
bool leader_belongs_to_another(struct leader *l)
{
    if (!store_is_ready(l->store) ||
        fence_epoch(&l->fence, store_incarnation(l->store)) != EPOCH_FOREIGN || is_predecessor(l))
        return false;
    if (!leader_says_it_again(l, l->fence.epoch))
        return true;
    char reason[640];
    snprintf(reason, sizeof reason,
             "Redis holds another table's sessions under this prefix (%s is %s): give this table "
             "a --prefix of its own, or, if the other one is gone for good, DEL %s",
             l->fence.epoch_key, l->fence.epoch, l->fence.epoch_key);
    leader_end(l, ENDING_FAILED, reason);
    redis_drop(&l->redis, "Redis holds another table's sessions under this prefix");
    return true;
}

bool leader_push_everything(struct leader *l)
{
    if (leader_belongs_to_another(l))
        return false;
    log_event(LEVEL_WARN, "lost", TEXT("epoch", l->fence.epoch[0] ? l->fence.epoch : "missing"),
              TEXT("note", "Redis does not hold this table's data; everything is written again"));
    store_lost(l->store);
    metric_add(METRIC_LOSSES_ALL, 1);
    l->resync = (struct resync){ .running = true, .started_at = monotonic_ms(),
                                 .written = l->batch.written, .counted = l->batch.written };
    if (!fence_set_epoch(&l->fence, store_incarnation(l->store)))
        return false;
    compare_start(&l->compare, &l->batch, false);
    return true;
}

bool leader_fill(struct leader *l)
{
    if (!store_is_ready(l->store))
        return load(l);
    if (fence_epoch(&l->fence, store_incarnation(l->store)) != EPOCH_OURS)
        return leader_push_everything(l);
    /* It says that it holds our data: since we last saw it, it may have gone back to an older copy of
     * them (a restart, a fail-over and back), token and epoch included. */
    compare_start(&l->compare, &l->batch, false);
    return true;
}
