/* The older layout becomes ours; see persister_import.h. */
#include "tools/persister_import.h"

#include "tools/log.h"
#include "tools/persister_fence.h"
#include "tools/persister_older.h"
#include "tools/persister_scan.h"
#include "tools/persister_server.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROGRESS_MS = 1000, PAGE = 128 };

struct import {
    const struct settings *settings;
    struct redis redis;
    struct server server;
    struct fence fence;
    struct transaction transaction;
    uint64_t *handles; /* of the old active set, in order */
    size_t count, room;
    uint64_t generation;
    uint64_t imported, present, bad, ended, started_at, said_at;
};

/* ---------------------------------------------------------------- saying ----------------- */

static void say_bad(struct import *im, const char *key, const char *why)
{
    im->bad++;
    log_event(LEVEL_WARN, "import-bad", TEXT("key", key), TEXT("reason", why),
              TEXT("note", "left as it is"));
}

static bool fail(const char *reason)
{
    log_event(LEVEL_ERROR, "failed", TEXT("reason", reason));
    return false;
}

/* The connection was dropped, with a reason. */
static bool fail_dropped(const struct import *im)
{
    log_event(LEVEL_ERROR, "failed", TEXT("redis", im->settings->address.text),
              TEXT("reason", stop_requested() ? "asked to stop; run it again to go on"
                                              : im->redis.reason));
    return false;
}

static void say_progress(struct import *im, size_t done)
{
    uint64_t now = monotonic_ms();
    if (now - im->said_at < PROGRESS_MS)
        return;
    im->said_at = now;
    log_event(LEVEL_INFO, "importing", NUMBER("done", done), NUMBER("of", im->count));
}

/* ---------------------------------------------------------------- who may write ---------- */

static bool table_is_out_of_use(const struct settings *settings)
{
    char reason[512];
    sesstab *table;
    int error = sesstab_open(settings->table, NULL, &table);
    bool loaded = !error && sesstab_ready(table);
    if (!error)
        sesstab_close(table);
    if (loaded) {
        snprintf(reason, sizeof reason,
                 "the table %s is in use: its persister would remove the imported sessions, which the "
                 "table does not know.  Stop the server and its persister, remove the table (rm "
                 "/dev/shm%s), import, and start them again; or import under another --prefix and give "
                 "--table the name that it is for", settings->table, settings->table);
        return fail(reason);
    }
    if (error && error != SESSTAB_NOTFOUND) {
        snprintf(reason, sizeof reason, "whether the table %s is in use can't be seen: %s",
                 settings->table, sesstab_error_detail());
        return fail(reason);
    }
    return true;
}

static bool nobody_leads(struct import *im)
{
    char reason[400];
    if (!fence_look(&im->fence))
        return fail_dropped(im);
    if (fence_holder(&im->fence) == HOLDER_NOBODY)
        return true;
    enum alive alive = fence_holder_alive(&im->fence);
    if (!redis_connected(&im->redis))
        return fail_dropped(im);
    if (alive == ALIVE_NO)
        return true;
    snprintf(reason, sizeof reason,
             alive == ALIVE_YES ? "a persister (or another import) writes under this prefix: stop it, or "
                                  "import under another --prefix.  Its token is %s"
                                : "whether a persister writes under this prefix can't be seen: allow "
                                  "this user CLIENT LIST and CLIENT SETNAME, or, when none does, DEL "
                                  "<prefix>:leader.  The token is %s",
             im->fence.holder);
    return fail(reason);
}

static bool connect_and_lead(struct import *im)
{
    const struct settings *settings = im->settings;
    if (!redis_connect(&im->redis, &settings->address, &settings->login) ||
        !server_ask(&im->redis, &im->server))
        return fail_dropped(im);
    if (!nobody_leads(im))
        return false;
    if (!settings->dry_run && !fence_take(&im->fence))
        return fail_dropped(im);
    return true;
}

/* ---------------------------------------------------------------- the old handles -------- */

static int compare_handles(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool keep_handle(struct import *im, uint64_t handle)
{
    if (im->count == im->room) {
        size_t room = im->room ? im->room * 2 : 1024;
        uint64_t *larger = realloc(im->handles, room * sizeof *larger);
        if (!larger)
            return fail("out of memory");
        im->handles = larger;
        im->room = room;
    }
    im->handles[im->count++] = handle;
    return true;
}

/* A walk over a set may give a member twice. */
static void sort_handles(struct import *im)
{
    size_t n = 0;
    if (im->count)
        qsort(im->handles, im->count, sizeof *im->handles, compare_handles);
    for (size_t i = 0; i < im->count; i++)
        if (i == 0 || im->handles[i] != im->handles[n - 1])
            im->handles[n++] = im->handles[i];
    im->count = n;
}

static bool read_handles(struct import *im)
{
    struct scan scan;
    bool going = scan_begin(&scan, &im->redis, im->settings->import_from), kept = true;
    while (going && kept && !scan.done) {
        going = scan_next(&scan);
        for (size_t i = 0; going && kept && i < scan.count; i++)
            kept = keep_handle(im, scan.handles[i]);
    }
    im->bad += scan.strange;
    scan_free(&scan);
    sort_handles(im);
    return kept && (going || fail_dropped(im));
}

/* ---------------------------------------------------------------- one page --------------- */

/* What is to be read of a handle; three answers. */
static void ask(struct import *im, uint64_t handle)
{
    struct session_key old, ours;
    char active[KEY_BYTES], most[24];
    session_key(&old, im->settings->import_from, handle);
    session_key(&ours, im->settings->prefix, handle);
    active_key(active, im->settings->prefix);
    snprintf(most, sizeof most, "%d", OLDER_BYTES_MAX);
    redis_put(&im->redis, "GETRANGE", old.record, "0", most, NULL);
    redis_put(&im->redis, "EXISTS", ours.record, ours.metadata, NULL);
    redis_put(&im->redis, "SISMEMBER", active, ours.handle, NULL);
}

static void write_session(struct import *im, const struct store_record *r)
{
    struct session_key key;
    char active[KEY_BYTES];
    const sesstab_view view = { .handle = r->handle, .generation = im->generation++, .version = 1,
                                .connected_at = r->connected_at, .last_seen = r->last_seen,
                                .state = (uint8_t)r->state, .player = r->player,
                                .address = r->address, .host = r->host, .type = r->type };
    session_key(&key, im->settings->prefix, r->handle);
    active_key(active, im->settings->prefix);
    append_record(&im->redis, &key, &view);
    if (r->metadata_count) {
        redis_start(&im->redis, "HSET");
        redis_text(&im->redis, key.metadata);
        for (size_t i = 0; i < r->metadata_count; i++) {
            redis_text(&im->redis, r->metadata[i].key);
            redis_bytes(&im->redis, r->metadata[i].value, r->metadata[i].length);
        }
        redis_append(&im->redis);
    }
    redis_put(&im->redis, "SADD", active, key.handle, NULL);
}

/* What is there of the session in our layout: 0 nothing, 1 all, -1 a part. */
static int there(const redisReply *keys, const redisReply *active)
{
    bool hash = keys->integer == 0, alone = active->integer == 0;
    return hash && alone ? 0 : !hash && !alone ? 1 : -1;
}

/* NULL, or why the session cannot be imported; OLDER is filled, and *PRESENT says that it was before. */
static const char *understand(const redisReply *json, const redisReply *keys, const redisReply *active,
                              uint64_t handle, struct older *older, bool *present)
{
    *present = false;
    const redisReply *const replies[] = { json, keys, active };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++)
        if (replies[i]->type == REDIS_REPLY_ERROR)
            return replies[i]->str;
    if (keys->type != REDIS_REPLY_INTEGER || active->type != REDIS_REPLY_INTEGER)
        return "whether it is there in our layout was not answered with a number";
    if (json->type != REDIS_REPLY_STRING || json->len == 0)
        return "in the active set, but the key is missing (expired?) or empty";
    if (there(keys, active) < 0)
        return "a part of it is there in our layout, another is not";
    *present = there(keys, active) > 0;
    return older_parse(older, json->str, json->len, handle);
}

/* Reads the three answers; READY is filled when the session is to be written. */
static bool judge(struct import *im, uint64_t handle, struct older *older)
{
    struct session_key key;
    bool present = false, ready = false;
    redisReply *json = redis_receive(&im->redis), *keys = redis_receive(&im->redis),
               *active = redis_receive(&im->redis);
    session_key(&key, im->settings->import_from, handle);
    if (json && keys && active) {
        const char *why = understand(json, keys, active, handle, older, &present);
        ready = !why && !older->ended && !present;
        im->present += present && !why;
        im->ended += !why && older->ended && !present;
        if (why)
            say_bad(im, key.record, why);
        else if (present)
            log_event(LEVEL_INFO, "import-present", NUMBER("handle", handle),
                      TEXT("note", "left as it is"));
        else if (older->ended)
            log_event(LEVEL_INFO, "import-ended", NUMBER("handle", handle),
                      TEXT("note", "its state is Disconnected; left as it is"));
    }
    freeReplyObject(json);
    freeReplyObject(keys);
    freeReplyObject(active);
    return ready;
}

static bool commit(struct import *im)
{
    enum verdict verdict = fence_commit(&im->fence, &im->transaction);
    if (verdict == ABORTED)
        return fail(im->transaction.error);
    if (verdict == FENCED)
        return fail("a persister has taken the lead under this prefix; run it again when it is stopped");
    if (verdict != COMMITTED)
        return fail_dropped(im);
    for (size_t i = 0; i < im->transaction.exec->elements; i++)
        if (im->transaction.exec->element[i]->type == REDIS_REPLY_ERROR)
            return fail(im->transaction.exec->element[i]->str);
    return true;
}

/* Writes those of PAGE whose READY is set. */
static bool write_page(struct import *im, const struct older *page, const bool *ready, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (ready[i] && n++ == 0 && !im->settings->dry_run)
            fence_begin(&im->fence, &im->transaction);
        if (ready[i] && !im->settings->dry_run)
            write_session(im, &page[i].record);
    }
    if (n && !im->settings->dry_run && !commit(im))
        return false;
    im->imported += n;
    return true;
}

static bool import_page(struct import *im, size_t first)
{
    static struct older page[PAGE];
    bool ready[PAGE];
    size_t count = im->count - first < PAGE ? im->count - first : PAGE;
    memset(page, 0, sizeof page);
    for (size_t i = 0; i < count; i++)
        ask(im, im->handles[first + i]);
    for (size_t i = 0; i < count; i++)
        ready[i] = judge(im, im->handles[first + i], &page[i]);
    bool done = redis_connected(&im->redis) ? write_page(im, page, ready, count) : fail_dropped(im);
    for (size_t i = 0; i < count; i++)
        older_free(&page[i]);
    return done;
}

static bool import_all(struct import *im)
{
    for (size_t first = 0; first < im->count; first += PAGE) {
        if (stop_requested())
            return fail_dropped(im);
        if (!import_page(im, first))
            return false;
        say_progress(im, first);
    }
    return true;
}

/* ---------------------------------------------------------------- keys without a member -- */

/* "PREFIX:conn:*", where PREFIX stands for itself. */
static void old_pattern(char pattern[2 * KEY_BYTES], const char *prefix)
{
    for (; *prefix; *pattern++ = *prefix++)
        if (strchr("*?[]\\", *prefix))
            *pattern++ = '\\';
    strcpy(pattern, ":conn:*");
}

static void judge_key(struct import *im, const char *key, size_t length)
{
    uint64_t handle;
    size_t before = strlen(im->settings->import_from) + strlen(":conn:");
    const char *name = key + before;
    if (length < before || strcmp(name, "active") == 0 || strchr(name, ':'))
        return;
    if (!parse_handle(name, (size_t)(key + length - name), &handle))
        say_bad(im, key, "what its name ends with is no handle");
    else if (!im->count || !bsearch(&handle, im->handles, im->count, sizeof handle, compare_handles))
        say_bad(im, key, "its handle is not in the active set");
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One answer to SCAN, which may name a key twice. */
static void judge_keys(struct import *im, redisReply *keys)
{
    char **names = calloc(keys->elements + 1, sizeof *names);
    for (size_t i = 0; names && i < keys->elements; i++)
        names[i] = keys->element[i]->str;
    if (names && keys->elements)
        qsort(names, keys->elements, sizeof *names, compare_texts);
    for (size_t i = 0; names && i < keys->elements; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0)
            judge_key(im, names[i], strlen(names[i]));
    free(names);
}

static bool look_for_others(struct import *im)
{
    char pattern[2 * KEY_BYTES], position[24] = "0";
    old_pattern(pattern, im->settings->import_from);
    do {
        redisReply *page = redis_ask(&im->redis, "SCAN", position, "MATCH", pattern, "COUNT", "1000",
                                     NULL);
        bool good = redis_is_page(page);
        if (good) {
            judge_keys(im, page->element[1]);
            snprintf(position, sizeof position, "%s", page->element[0]->str);
        } else if (page) {
            redis_drop(&im->redis, page->type == REDIS_REPLY_ERROR ? page->str : "SCAN is no page");
        }
        freeReplyObject(page);
        if (!good || stop_requested())
            return fail_dropped(im);
    } while (strcmp(position, "0") != 0);
    return true;
}

/* ---------------------------------------------------------------- all of it -------------- */

enum import_status import_run(const struct settings *settings)
{
    struct import im = { .settings = settings, .started_at = monotonic_ms(),
                         .generation = sesstab_now() * 1000 }; /* as a table counts them */
    im.said_at = im.started_at;
    im.redis.timeout_ms = settings->timeout_ms;
    fence_init(&im.fence, &im.redis, settings->prefix, 0);
    bool done = table_is_out_of_use(settings) && connect_and_lead(&im) && read_handles(&im) &&
                import_all(&im) && look_for_others(&im);
    if (!settings->dry_run)
        fence_leave(&im.fence);
    log_event(done ? LEVEL_INFO : LEVEL_ERROR, settings->dry_run ? "would-import" : "imported",
              TEXT("complete", done ? "yes" : "no"), NUMBER("sessions", im.imported),
              NUMBER("present", im.present), NUMBER("bad", im.bad), NUMBER("ended", im.ended),
              NUMBER("ms", monotonic_ms() - im.started_at));
    transaction_free(&im.transaction);
    redis_free(&im.redis);
    free(im.handles);
    return !done ? IMPORT_FAILED : im.bad ? IMPORT_SOME_BAD : IMPORT_ALL;
}
