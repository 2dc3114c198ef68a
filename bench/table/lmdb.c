/*
 * LMDB on /dev/shm, without syncing: a copy-on-write B+tree that processes share.  Handles are
 * integer keys, inserted in their order, which is what it likes best.  Readers keep a transaction
 * and renew it for each get; a change is a transaction of its own, as a change that others must see
 * is.  An index by player would be a second database, which every transaction pays for: there is
 * none.
 */
#include "bench/table/loops.h"

#if __has_include(<lmdb.h>)

#include "bench/sandbox.h"

#include <lmdb.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { BYTES_PER_SESSION = 600, BYTES_MORE = 64 << 20, FILL_BATCH = 10000, MODE = 0600 };

struct table {
    char path[SANDBOX_PATH_MAX];
    size_t bytes; /* of the map */
    MDB_env *env;
    MDB_dbi sessions;
    MDB_txn *reader;
};

static void must(int result, const char *what)
{
    if (result)
        bench_fail("%s: %s", what, mdb_strerror(result));
}

/* ---------------------------------------------------------------- reading --------------- */

static MDB_val key_of(uint64_t *handle)
{
    return (MDB_val){ sizeof *handle, handle };
}

/* Inside a transaction: valid until it ends. */
static const struct record *find(struct table *t, MDB_txn *txn, uint64_t handle)
{
    MDB_val key = key_of(&handle), value;
    return mdb_get(txn, t->sessions, &key, &value) == 0 ? value.mv_data : NULL;
}

static uint64_t view(void *table, uint64_t handle)
{
    struct table *t = table;
    mdb_txn_renew(t->reader);
    const struct record *r = find(t, t->reader, handle);
    uint64_t words = r ? words_of(r) : 0;
    mdb_txn_reset(t->reader);
    return words;
}

static bool copy(void *table, uint64_t handle, struct record *record)
{
    struct table *t = table;
    mdb_txn_renew(t->reader);
    const struct record *r = find(t, t->reader, handle);
    if (r)
        *record = *r;
    mdb_txn_reset(t->reader);
    return r;
}

static size_t batch(void *table, const uint64_t *handles, size_t count, uint64_t *sum)
{
    struct table *t = table;
    size_t found = 0;
    mdb_txn_renew(t->reader);
    for (size_t i = 0; i < count; i++) {
        const struct record *r = find(t, t->reader, handles[i]);
        found += r != NULL;
        *sum += r ? words_of(r) : 0;
    }
    mdb_txn_reset(t->reader);
    return found;
}

static size_t scan(void *table, uint64_t *sum)
{
    struct table *t = table;
    MDB_cursor *cursor;
    MDB_val key, value;
    size_t seen = 0;
    mdb_txn_renew(t->reader);
    must(mdb_cursor_open(t->reader, t->sessions, &cursor), "mdb_cursor_open");
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        *sum += words_of(value.mv_data);
        seen++;
    }
    mdb_cursor_close(cursor);
    mdb_txn_reset(t->reader);
    return seen;
}

/* ---------------------------------------------------------------- changing -------------- */

static MDB_txn *begin(struct table *t)
{
    MDB_txn *txn;
    must(mdb_txn_begin(t->env, NULL, 0, &txn), "mdb_txn_begin");
    return txn;
}

static int put(struct table *t, MDB_txn *txn, uint64_t handle, const struct record *record,
               unsigned flags)
{
    MDB_val key = key_of(&handle), value = { sizeof *record, (void *)record };
    return mdb_put(txn, t->sessions, &key, &value, flags);
}

static bool touch(void *table, uint64_t handle, uint64_t now)
{
    struct table *t = table;
    MDB_txn *txn = begin(t);
    const struct record *r = find(t, txn, handle);
    struct record next = r ? *r : (struct record){ 0 };
    next.last_seen = now;
    bool done = r && put(t, txn, handle, &next, 0) == 0;
    return mdb_txn_commit(txn) == 0 && done;
}

static bool set(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8])
{
    struct table *t = table;
    MDB_txn *txn = begin(t);
    const struct record *r = find(t, txn, handle);
    struct record next = r ? *r : (struct record){ 0 };
    memcpy(next.metadata, value, SET_BYTES);
    bool done = r && put(t, txn, handle, &next, 0) == 0;
    return mdb_txn_commit(txn) == 0 && done;
}

static bool insert(void *table, uint64_t handle, const struct record *record)
{
    struct table *t = table;
    MDB_txn *txn = begin(t);
    bool done = put(t, txn, handle, record, MDB_NOOVERWRITE) == 0;
    return mdb_txn_commit(txn) == 0 && done;
}

static bool erase(void *table, uint64_t handle)
{
    struct table *t = table;
    MDB_val key = key_of(&handle);
    MDB_txn *txn = begin(t);
    bool done = mdb_del(txn, t->sessions, &key, NULL) == 0;
    return mdb_txn_commit(txn) == 0 && done;
}

/* ---------------------------------------------------------------- open, close ----------- */

static int open_database(struct table *t)
{
    MDB_txn *txn = begin(t);
    int result = mdb_dbi_open(txn, NULL, MDB_CREATE | MDB_INTEGERKEY, &t->sessions);
    if (!result)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return result;
}

static int open_env(struct table *t)
{
    const unsigned flags = MDB_NOSUBDIR | MDB_NOSYNC | MDB_WRITEMAP | MDB_NOTLS;
    int result = mdb_env_create(&t->env);
    if (!result)
        result = mdb_env_set_mapsize(t->env, t->bytes);
    if (!result)
        result = mdb_env_open(t->env, t->path, flags, MODE);
    if (!result)
        result = open_database(t);
    if (!result)
        result = mdb_txn_begin(t->env, NULL, MDB_RDONLY, &t->reader);
    if (!result)
        mdb_txn_reset(t->reader);
    return result;
}

static void fill(struct table *t, size_t sessions)
{
    for (uint64_t handle = 1; handle <= sessions;) {
        MDB_txn *txn = begin(t);
        for (int i = 0; i < FILL_BATCH && handle <= sessions; i++, handle++) {
            struct record record = usual_record(handle);
            must(put(t, txn, handle, &record, MDB_APPEND), "mdb_put");
        }
        must(mdb_txn_commit(txn), "mdb_txn_commit");
    }
}

/* Also in a forked child, in which the parent's environment must not be used. */
static void *join(void *table)
{
    const struct table *with = table;
    struct table *t = bench_memory(1, sizeof *t);
    *t = *with;
    must(open_env(t), t->path);
    return t;
}

static void leave(void *table)
{
    struct table *t = table;
    mdb_txn_abort(t->reader);
    mdb_env_close(t->env);
    free(t);
}

static void *open_table(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    char name[SANDBOX_NAME_MAX];
    sandbox_table(name, "lmdb");
    snprintf(t->path, sizeof t->path, "/dev/shm%s", name);
    t->bytes = sessions * BYTES_PER_SESSION + BYTES_MORE;
    int result = open_env(t);
    if (result) {
        free(t);
        return left_out("lmdb", "%s", mdb_strerror(result));
    }
    fill(t, sessions);
    return t;
}

static void close_table(void *table)
{
    char path[SANDBOX_PATH_MAX], lock[SANDBOX_PATH_MAX + 8];
    snprintf(path, sizeof path, "%s", ((struct table *)table)->path);
    snprintf(lock, sizeof lock, "%s-lock", path);
    leave(table);
    remove(path);
    remove(lock);
}

static uint64_t bytes(void *table)
{
    struct stat status;
    if (stat(((struct table *)table)->path, &status) != 0)
        bench_fail("LMDB's file has gone");
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
LOOP(mix, each_mix, view, touch)

#define LMDB_BUILT                                                                                 \
    .open = open_table, .close = close_table, .join = join, .leave = leave, .read_back = copy,     \
    .bytes = bytes,                                                                                \
    .operations = {                                                                                \
        [OPERATION_VIEW] = get_view,                                                               \
        [OPERATION_COPY] = get_copy,                                                               \
        [OPERATION_MISS] = get_miss,                                                               \
        [OPERATION_DEPENDENT] = get_dependent,                                                     \
        [OPERATION_BATCH] = get_batch,                                                             \
        [OPERATION_TOUCH] = touches,                                                               \
        [OPERATION_SET] = sets,                                                                    \
        [OPERATION_INSERT_REMOVE] = inserts,                                                       \
        [OPERATION_SCAN] = scans,                                                                  \
        [OPERATION_MIX] = mix,                                                                     \
    }
#else
#define LMDB_BUILT .missing = "liblmdb-dev"
#endif

const struct contender lmdb_contender = {
    .name = "lmdb",
    .scope = SCOPE_PROCESSES,
    .lacks = "one writer at a time; a reader that stopped keeps all later pages; nothing synced here; "
             "the size of the map is fixed beforehand",
    .in_dev_shm = true,
    .bytes_per_session = 300,
    LMDB_BUILT,
};
