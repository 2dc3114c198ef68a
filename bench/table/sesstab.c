/*
 * Our own rows, through the public header.
 *
 *   sesstab  a table in mode MEMORY, so that nothing has to drain it
 *   dirty    a table in mode SELECTIVE without a persister, in which therefore every session that
 *            was touched is dirty: the state of a busy session between two rounds of the persister
 */
#include "bench/sandbox.h"
#include "bench/table/loops.h"
#include "lib/sesstab.h"

#include <stdlib.h>
#include <sys/stat.h>

enum { COPY_BYTES = 512 };

struct table {
    sesstab *table;
    char name[SANDBOX_NAME_MAX];
};

static sesstab *of(void *table)
{
    return ((struct table *)table)->table;
}

/* ---------------------------------------------------------------- reading --------------- */

static uint64_t view(void *table, uint64_t handle)
{
    sesstab *t = of(table);
    sesstab_view v;
    uint64_t words = 0;
    if (sesstab_read_begin(t) != SESSTAB_OK)
        return 0;
    if (sesstab_find(t, handle, &v) == SESSTAB_OK)
        words = read_words(v.connected_at, v.player);
    sesstab_read_end(t);
    return words;
}

static bool copy(void *table, uint64_t handle, struct record *unused)
{
    char buffer[COPY_BYTES];
    size_t size = sizeof buffer;
    sesstab_view v;
    (void)unused;
    int result = sesstab_get(of(table), handle, &v, buffer, &size);
    __asm__ volatile("" : : "r"(buffer), "r"(&v) : "memory"); /* all of it is wanted */
    return result == SESSTAB_OK;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    sesstab *t = of(table);
    sesstab_view views[BATCH];
    int results[BATCH];
    if (sesstab_read_begin(t) != SESSTAB_OK)
        return 0;
    size_t found = sesstab_find_many(t, handles, count, views, results);
    for (size_t i = 0; i < count; i++)
        if (results[i] == SESSTAB_OK)
            *sum += read_words(views[i].connected_at, views[i].player);
    sesstab_read_end(t);
    return found;
}

static size_t scan(void *table, uint64_t *sum)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view v;
    size_t seen = 0;
    while (sesstab_next(of(table), &cursor, &v) == SESSTAB_OK) {
        *sum += read_words(v.connected_at, v.player);
        seen++;
    }
    return seen;
}

static int add_words(const sesstab_view *v, void *sum)
{
    *(uint64_t *)sum += read_words(v->connected_at, v->player);
    return 0;
}

static uint64_t by_player(void *table, const char *player)
{
    uint64_t sum = 0;
    return sesstab_by_player(of(table), player, add_words, &sum) == SESSTAB_OK ? sum : 0;
}

static bool read_back(void *table, uint64_t handle, struct record *record)
{
    char buffer[COPY_BYTES];
    size_t size = sizeof buffer, length;
    const void *value;
    sesstab_view v;
    if (sesstab_get(of(table), handle, &v, buffer, &size) != SESSTAB_OK ||
        sesstab_metadata(&v, "client", &value, &length, NULL) != SESSTAB_OK || length != SET_BYTES)
        return false;
    *record = (struct record){ .connected_at = v.connected_at, .last_seen = v.last_seen };
    snprintf(record->player, sizeof record->player, "%s", v.player);
    memcpy(record->metadata, value, length);
    return true;
}

/* ---------------------------------------------------------------- changing -------------- */

#define PAIR(key, value) { key, value, sizeof value - 1 },
static const sesstab_pair usual_pairs[] = { USUAL_METADATA(PAIR) };

static const sesstab_info usual_info = {
    .address = USUAL_ADDRESS,
    .host = USUAL_HOST,
    .type = USUAL_TYPE,
    .connected_at = USUAL_CONNECTED_AT,
    .metadata = usual_pairs,
    .metadata_count = sizeof usual_pairs / sizeof *usual_pairs,
};

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    return sesstab_touch(of(table), handle, now) == SESSTAB_OK;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    return sesstab_set(of(table), handle, "client", value, SET_BYTES) == SESSTAB_OK;
}

static bool insert(void *table, uint64_t handle, const struct record *unused)
{
    (void)unused;
    return sesstab_insert(of(table), &handle, &usual_info) == SESSTAB_OK;
}

static bool erase(void *table, uint64_t handle)
{
    return sesstab_remove(of(table), handle) == SESSTAB_OK;
}

/* ---------------------------------------------------------------- open, close ----------- */

static int fill(sesstab *table, size_t sessions)
{
    char player[PLAYER_BYTES];
    int result = SESSTAB_OK;
    for (uint64_t handle = 1; handle <= sessions && !result; handle++) {
        player_of(handle, player);
        if (!(result = sesstab_insert(table, &handle, &usual_info)))
            result = sesstab_bind(table, handle, player, 0);
        if (result == SESSTAB_UNKNOWN) /* pending: there is no persister */
            result = SESSTAB_OK;
    }
    return result;
}

static void close_table(void *table)
{
    struct table *t = table;
    sesstab_close(t->table);
    sesstab_unlink(t->name);
    free(t);
}

static void *open_mode(const char *what, sesstab_mode mode, size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    sandbox_table(t->name, what);
    int result =
        sesstab_open(t->name, &(sesstab_options){ .create = true, .mode = mode }, &t->table);
    if (result) {
        free(t);
        return left_out(what, "%s: %s", sesstab_strerror(result), sesstab_error_detail());
    }
    if ((result = fill(t->table, sessions))) {
        close_table(t);
        return left_out(what, "%zu sessions: %s", sessions, sesstab_strerror(result));
    }
    return t;
}

static void *open_memory(size_t sessions)
{
    return open_mode("sesstab", SESSTAB_MEMORY, sessions);
}

static void *open_dirty(size_t sessions)
{
    return open_mode("dirty", SESSTAB_SELECTIVE, sessions);
}

static uint64_t bytes(void *table)
{
    struct table *t = table;
    char path[SANDBOX_PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "/dev/shm%s", t->name);
    if (stat(path, &status) != 0)
        bench_fail("%s has gone", path);
    return (uint64_t)status.st_blocks * 512;
}

LOOP(get_view, each_view, view)
LOOP(get_copy, each_copy, copy)
LOOP(get_miss, each_miss, view)
LOOP(get_dependent, each_dependent, view)
LOOP(get_batch, each_batch, batch)
LOOP(touches, each_touch, touch)
LOOP(sets, each_set, set)
LOOP(inserts, each_insert_remove, insert, erase)
LOOP(scans, each_scan, scan)
LOOP(players, each_player, by_player)
LOOP(mix, each_mix, view, touch)

const struct contender sesstab_contender = {
    .name = "sesstab",
    .scope = SCOPE_PROCESSES,
    .lacks = "nothing of the list: shared by processes, any of which may be killed anywhere; grows; "
             "Redis behind it, if a persister runs (not here: mode MEMORY)",
    .reference = true,
    .in_dev_shm = true,
    .bytes_per_session = 420,
    .open = open_memory,
    .close = close_table,
    .read_back = read_back,
    .bytes = bytes,
    .operations = {
        [OPERATION_VIEW] = get_view,
        [OPERATION_COPY] = get_copy,
        [OPERATION_MISS] = get_miss,
        [OPERATION_DEPENDENT] = get_dependent,
        [OPERATION_BATCH] = get_batch,
        [OPERATION_TOUCH] = touches,
        [OPERATION_SET] = sets,
        [OPERATION_INSERT_REMOVE] = inserts,
        [OPERATION_SCAN] = scans,
        [OPERATION_BY_PLAYER] = players,
        [OPERATION_MIX] = mix,
    },
};

const struct contender dirty_contender = {
    .name = "dirty",
    .scope = SCOPE_PROCESSES,
    .lacks = "sesstab again, in mode SELECTIVE with the persister stopped: a session that was touched "
             "is waiting for Redis already",
    .in_dev_shm = true,
    .bytes_per_session = 420,
    .open = open_dirty,
    .close = close_table,
    .read_back = read_back,
    .bytes = bytes,
    .operations = {
        [OPERATION_VIEW] = get_view,
        [OPERATION_TOUCH] = touches,
        [OPERATION_SET] = sets,
        [OPERATION_MIX] = mix,
    },
};
