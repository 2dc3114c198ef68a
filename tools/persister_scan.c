/* A walk over the active set; see persister_scan.h. */
#include "tools/persister_scan.h"

#include "tools/log.h"

#include <stdio.h>
#include <string.h>

bool scan_begin(struct scan *scan, struct redis *redis, const char *prefix)
{
    memset(scan, 0, sizeof *scan);
    scan->redis = redis;
    active_key(scan->active, prefix);
    snprintf(scan->position, sizeof scan->position, "0");
    redisReply *reply = redis_ask(redis, "SCARD", scan->active, NULL);
    if (reply && reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0)
        scan->total = (uint64_t)reply->integer;
    else if (redis_refusal(reply) == REFUSAL_TYPE)
        scan->unreadable = scan->done = true;
    else if (reply)
        redis_drop(redis, reply->type == REDIS_REPLY_ERROR ? reply->str : "SCARD is no number");
    freeReplyObject(reply);
    if (scan->unreadable)
        log_event(LEVEL_ERROR, "active-unreadable", TEXT("key", scan->active),
                  TEXT("note", "it is no set; DEL it, and the members are written again"));
    return redis_connected(redis);
}

/* SCAN's pattern for what begins with TEXT. */
static void beginning_with(char pattern[2 * KEY_BYTES], const char *text)
{
    for (; *text; *pattern++ = *text++)
        if (strchr("*?[]^\\-", *text))
            *pattern++ = '\\';
    strcpy(pattern, "*");
}

void scan_begin_keys(struct scan *scan, struct redis *redis, const char *prefix)
{
    memset(scan, 0, sizeof *scan);
    scan->redis = redis;
    scan->of_keys = true;
    active_key(scan->active, prefix);
    strcpy(scan->start, scan->active);
    scan->start[strlen(scan->start) - strlen("active")] = '\0';
    beginning_with(scan->pattern, scan->start);
    snprintf(scan->position, sizeof scan->position, "0");
}

static bool fetch(struct scan *scan)
{
    freeReplyObject(scan->page);
    scan->used = 0;
    scan->page = scan->of_keys ? redis_ask(scan->redis, "SCAN", scan->position, "MATCH",
                                           scan->pattern, "COUNT", "1024", NULL)
                               : redis_ask(scan->redis, "SSCAN", scan->active, scan->position,
                                           "COUNT", "128", NULL);
    if (!scan->page)
        return false;
    if (!redis_is_page(scan->page)) {
        redis_drop(scan->redis, scan->page->type == REDIS_REPLY_ERROR
                                    ? scan->page->str : "the scan's answer is no page");
        scan_free(scan);
        return false;
    }
    snprintf(scan->position, sizeof scan->position, "%s", scan->page->element[0]->str);
    scan->fetched_all = strcmp(scan->position, "0") == 0;
    return true;
}

/* "<start>7" or "<start>7:metadata", as the next of the handles. */
static bool take_key(struct scan *scan, const char *key, size_t length)
{
    static const char suffix[] = ":metadata";
    size_t start = strlen(scan->start), tail = sizeof suffix - 1;
    if (length < start || memcmp(key, scan->start, start) != 0)
        return false;
    key += start;
    length -= start;
    bool metadata = length > tail && memcmp(key + length - tail, suffix, tail) == 0;
    scan->metadata[scan->count] = metadata;
    return parse_handle(key, length - (metadata ? tail : 0), &scan->handles[scan->count]);
}

static void take(struct scan *scan, const redisReply *member)
{
    bool text = member->type == REDIS_REPLY_STRING;
    if (text && scan->of_keys && redis_says(member, scan->active))
        return;
    if (text && (scan->of_keys ? take_key(scan, member->str, member->len)
                               : parse_handle(member->str, member->len,
                                              &scan->handles[scan->count]))) {
        scan->count++;
        return;
    }
    scan->strange++;
    log_event(LEVEL_WARN, scan->of_keys ? "strange-key" : "strange-member",
              TEXT("key", scan->active), TEXT("member", text ? member->str : "?"),
              TEXT("note", "left as it is"));
}

bool scan_next(struct scan *scan)
{
    scan->count = 0;
    if (scan->unreadable)
        return true;
    bool used_up = !scan->page || scan->used == scan->page->element[1]->elements;
    if (used_up && !scan->fetched_all && !fetch(scan))
        return false;
    const redisReply *members = scan->page->element[1];
    while (scan->count < SCAN_PAGE && scan->used < members->elements)
        take(scan, members->element[scan->used++]);
    scan->done = scan->fetched_all && scan->used == members->elements;
    return true;
}

void scan_free(struct scan *scan)
{
    freeReplyObject(scan->page);
    scan->page = NULL;
}
