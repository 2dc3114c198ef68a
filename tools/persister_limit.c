/* A limit for log lines; see persister_limit.h. */
#include "tools/persister_limit.h"

#include <stdio.h>
#include <string.h>

/* That of REASON in this minute, or one for it; NULL when all are in use. */
static struct limited *find(struct limit *limit, const char *reason, uint64_t now)
{
    struct limited *unused = NULL;
    for (size_t i = 0; i < LIMIT_REASONS; i++) {
        struct limited *l = &limit->reasons[i];
        if (!l->since || now - l->since >= LIMIT_MS)
            unused = l;
        else if (strncmp(l->reason, reason, sizeof l->reason - 1) == 0)
            return l;
    }
    if (unused) {
        *unused = (struct limited){ .since = now };
        snprintf(unused->reason, sizeof unused->reason, "%s", reason);
    }
    return unused;
}

bool limit_allows(struct limit *limit, const char *reason, uint64_t now)
{
    struct limited *l = find(limit, reason, now);
    if (l && l->said < LIMIT_LOUD) {
        l->said++;
        return true;
    }
    if (!limit->unsaid++)
        limit->unsaid_since = now;
    return false;
}

uint64_t limit_unsaid(struct limit *limit, uint64_t now, uint64_t *ms)
{
    uint64_t unsaid = limit->unsaid;
    *ms = now - limit->unsaid_since;
    if (!unsaid || *ms < LIMIT_MS)
        return 0;
    limit->unsaid = 0;
    return unsaid;
}
