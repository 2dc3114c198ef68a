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
    if (reply && reply->type == REDIS_REPLY_INTEGER)
        scan->total = (uint64_t)reply->integer;
    else if (reply && redis_refusal(reply) == REFUSAL_TYPE)
        scan->unreadable = scan->done = true;
    else if (reply)
        redis_drop(redis, reply->type == REDIS_REPLY_ERROR ? reply->str : "SCARD is no number");
    freeReplyObject(reply);
    if (scan->unreadable)
        log_event(LEVEL_ERROR, "active-unreadable", TEXT("key", scan->active),
                  TEXT("note", "it is no set; DEL it, and the members are written again"));
    return redis_connected(redis);
}

static bool is_page(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
           reply->element[0]->type == REDIS_REPLY_STRING &&
           reply->element[1]->type == REDIS_REPLY_ARRAY;
}

static bool fetch(struct scan *scan)
{
    freeReplyObject(scan->page);
    scan->used = 0;
    scan->page = redis_ask(scan->redis, "SSCAN", scan->active, scan->position, "COUNT", "128",
                           NULL);
    if (!scan->page)
        return false;
    if (!is_page(scan->page)) {
        redis_drop(scan->redis, scan->page->type == REDIS_REPLY_ERROR ? scan->page->str
                                                                      : "SSCAN is no page");
        return false;
    }
    snprintf(scan->position, sizeof scan->position, "%s", scan->page->element[0]->str);
    scan->fetched_all = strcmp(scan->position, "0") == 0;
    return true;
}

static void take(struct scan *scan, const redisReply *member)
{
    bool text = member->type == REDIS_REPLY_STRING;
    if (text && parse_handle(member->str, member->len, &scan->handles[scan->count])) {
        scan->count++;
        return;
    }
    scan->strange++;
    log_event(LEVEL_WARN, "strange-member", TEXT("key", scan->active),
              TEXT("member", text ? member->str : "?"), TEXT("note", "left as it is"));
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
