/*
 * A limit for log lines of one kind that may come by the thousand: of each reason the first few in a
 * minute are said, and once a minute how many were not.
 *
 *   L1  At most LIMIT_REASONS * LIMIT_LOUD lines in a minute, and one with the sum, whatever the reasons are.
 *   L2  A reason that is new within the minute is said, unless LIMIT_REASONS others were.
 */
#ifndef TOOLS_PERSISTER_LIMIT_H
#define TOOLS_PERSISTER_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

enum { LIMIT_REASONS = 8, LIMIT_LOUD = 8, LIMIT_MS = 60000 };

struct limit {
    struct limited {
        char reason[200];
        uint64_t since; /* of its minute; 0: never used */
        unsigned said;
    } reasons[LIMIT_REASONS];
    uint64_t unsaid, unsaid_since;
};

/* Whether a line with REASON may be said at NOW (monotonic, ms); one that may not is counted. */
bool limit_allows(struct limit *limit, const char *reason, uint64_t now);

/* How many lines were not said, once a minute (in *MS); 0: none, or it is not time yet. */
uint64_t limit_unsaid(struct limit *limit, uint64_t now, uint64_t *ms);

#endif
