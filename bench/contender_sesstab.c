/*
 * Our own rows, through the public header.  The table is in mode MEMORY, so that nothing has to
 * drain it; TOUCH_DIRTY has a second one in mode SELECTIVE and no persister, in which therefore
 * every session is dirty: the state of a busy session between two rounds of the persister.
 */
#include "bench/contender.h"
#include "bench/sandbox.h"
#include "lib/sesstab.h"
#include "shm/layout.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct table {
    char name[SANDBOX_NAME_MAX], dirty_name[SANDBOX_NAME_MAX];
    sesstab *table, *dirty;
    uint64_t now; /* rises with every touch, so that each has something to store */
};

static void must(int result, const char *what)
{
    if (result)
        bench_fail("%s: %s. %s", what, sesstab_strerror(result), sesstab_error_detail());
}

/* Keeps a failure among many results, to be looked at when the clock has stopped. */
static inline void keep(int *failed, int result)
{
    if (result)
        *failed = result;
}

/* ---------------------------------------------------------------- open, close ----------- */

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

static sesstab *create(const char *name, sesstab_mode mode)
{
    sesstab *table;
    must(sesstab_open(name, &(sesstab_options){ .create = true, .mode = mode }, &table), "open");
    return table;
}

static void fill(sesstab *table, size_t sessions, bool bind)
{
    char player[PLAYER_BYTES];
    for (uint64_t handle = 1; handle <= sessions; handle++) {
        must(sesstab_insert(table, &handle, &usual_info), "insert");
        player_of(handle, player);
        if (bind)
            must(sesstab_bind(table, handle, player, 0), "bind");
    }
}

static void *open_table(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    sandbox_table(t->name, "memory");
    sandbox_table(t->dirty_name, "dirty");
    t->table = create(t->name, SESSTAB_MEMORY);
    fill(t->table, sessions, true);
    t->dirty = create(t->dirty_name, SESSTAB_SELECTIVE);
    fill(t->dirty, sessions, false);
    t->now = sesstab_now();
    return t;
}

static void close_table(void *table)
{
    struct table *t = table;
    sesstab_close(t->table);
    sesstab_close(t->dirty);
    must(sesstab_unlink(t->name), "unlink");
    must(sesstab_unlink(t->dirty_name), "unlink");
    free(t);
}

/* ---------------------------------------------------------------- reading --------------- */

static uint64_t get_view(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    uint64_t sum = 0;
    int failed = 0;
    for (size_t i = 0; i < keys->count; i++) {
        sesstab_view view;
        keep(&failed, sesstab_read_begin(t));
        keep(&failed, sesstab_find(t, keys->handles[i], &view));
        sum += read_words(view.connected_at, view.player);
        sesstab_read_end(t);
    }
    must(failed, "find");
    return sum;
}

static uint64_t get_dependent(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    uint64_t sum = 0, last = 0;
    int failed = 0;
    for (size_t i = 0; i < keys->count; i++) {
        sesstab_view view;
        keep(&failed, sesstab_read_begin(t));
        keep(&failed, sesstab_find(t, keys->handles[i] + (last & 1), &view));
        last = view.connected_at;
        sum += read_words(last, view.player);
        sesstab_read_end(t);
    }
    must(failed, "find");
    return sum;
}

static uint64_t get_copy(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    char buffer[512];
    uint64_t sum = 0;
    int failed = 0;
    for (size_t i = 0; i < keys->count; i++) {
        sesstab_view view;
        size_t size = sizeof buffer;
        keep(&failed, sesstab_get(t, keys->handles[i], &view, buffer, &size));
        sum += read_words(view.connected_at, view.player);
    }
    must(failed, "get");
    return sum;
}

static uint64_t get_miss(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    uint64_t misses = 0;
    for (size_t i = 0; i < keys->count; i++) {
        sesstab_view view;
        must(sesstab_read_begin(t), "read_begin");
        misses += sesstab_find(t, keys->handles[i], &view) == SESSTAB_NOTFOUND;
        sesstab_read_end(t);
    }
    if (misses != keys->count)
        bench_fail("sesstab found a session that is not there");
    return misses;
}

static uint64_t scan(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    uint64_t sum = 0;
    size_t seen = 0;
    while (seen < keys->count) {
        sesstab_cursor cursor = { 0 };
        sesstab_view view;
        while (sesstab_next(t, &cursor, &view) == SESSTAB_OK) {
            sum += read_words(view.connected_at, view.player);
            seen++;
        }
    }
    if (seen != keys->count)
        bench_fail("a walk over the table saw %zu sessions instead of %zu", seen, keys->count);
    return sum;
}

static int add_words(const sesstab_view *view, void *sum)
{
    *(uint64_t *)sum += read_words(view->connected_at, view->player);
    return 0;
}

static uint64_t by_player(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    uint64_t sum = 0;
    int failed = 0;
    for (size_t i = 0; i < keys->count; i++)
        keep(&failed, sesstab_by_player(t, keys->players[i], add_words, &sum));
    must(failed, "by_player");
    if (sum < keys->count * USUAL_CONNECTED_AT)
        bench_fail("sesstab did not find every player's session");
    return sum;
}

/* ---------------------------------------------------------------- changing -------------- */

static uint64_t touch_in(struct table *t, sesstab *table, const struct keys *keys)
{
    int failed = 0;
    for (size_t i = 0; i < keys->count; i++)
        keep(&failed, sesstab_touch(table, keys->handles[i], ++t->now));
    must(failed, "touch");
    return t->now;
}

static uint64_t touch(void *table, const struct keys *keys)
{
    struct table *t = table;
    return touch_in(t, t->table, keys);
}

static uint64_t touch_dirty(void *table, const struct keys *keys)
{
    struct table *t = table;
    return touch_in(t, t->dirty, keys);
}

static uint64_t metadata_set(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    uint64_t value[METADATA_SET_BYTES / 8] = { 0 };
    int failed = 0;
    for (size_t i = 0; i < keys->count; i++) {
        value[0]++;
        keep(&failed, sesstab_set(t, keys->handles[i], "client", value, sizeof value));
    }
    must(failed, "set");
    return value[0];
}

static uint64_t insert_remove(void *table, const struct keys *keys)
{
    sesstab *t = ((struct table *)table)->table;
    int failed = 0;
    for (size_t i = 0; i < keys->count; i++) {
        uint64_t handle = keys->handles[i];
        keep(&failed, sesstab_insert(t, &handle, &usual_info));
        keep(&failed, sesstab_remove(t, handle));
    }
    must(failed, "insert and remove");
    return keys->count;
}

/* ---------------------------------------------------------------- sizes ----------------- */

static size_t usual_record_bytes(sesstab *table)
{
    sesstab_view view;
    must(sesstab_read_begin(table), "read_begin");
    must(sesstab_find(table, 1, &view), "find");
    const char *end = (const char *)view.metadata_ + view.metadata_length_;
    size_t bytes = sizeof(struct block) + (size_t)(end - view.player);
    sesstab_read_end(table);
    return bytes;
}

static size_t block_for(size_t record)
{
    size_t bytes = BLOCK_UNIT;
    while (bytes < record)
        bytes *= 2;
    return bytes;
}

struct sizes sesstab_sizes(void *table)
{
    struct table *t = table;
    struct header header;
    struct stat status;
    char path[SANDBOX_PATH_MAX];
    snprintf(path, sizeof path, "/dev/shm%s", t->name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0 || pread(fd, &header, sizeof header, 0) != sizeof header)
        bench_fail("%s can't be read", path);
    close(fd);
    size_t record = usual_record_bytes(t->table);
    return (struct sizes){ .slot = sizeof(struct slot), .block = block_for(record),
                           .record = record, .heap = header.committed * CHUNK_BYTES,
                           .segment = (uint64_t)status.st_blocks * 512 };
}

const struct contender sesstab_contender = {
    .name = "sesstab",
    .open = open_table,
    .close = close_table,
    .operations = {
        [OPERATION_GET_VIEW] = get_view,
        [OPERATION_GET_COPY] = get_copy,
        [OPERATION_GET_MISS] = get_miss,
        [OPERATION_GET_DEPENDENT] = get_dependent,
        [OPERATION_TOUCH] = touch,
        [OPERATION_TOUCH_DIRTY] = touch_dirty,
        [OPERATION_METADATA_SET] = metadata_set,
        [OPERATION_INSERT_REMOVE] = insert_remove,
        [OPERATION_SCAN] = scan,
        [OPERATION_BY_PLAYER] = by_player,
    },
};
