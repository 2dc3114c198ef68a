/*
 * A session in the older layout, as the .NET server writes it that this idea comes from: one JSON
 * object in a string.
 *
 *   PREFIX:conn:active     set of handles
 *   PREFIX:conn:<handle>   {"Handle":1,"PlayerObjid":"#5:1234","State":"LoggedIn","IpAddress":"...",
 *                           "Hostname":"...","ConnectionType":"telnet",
 *                           "ConnectedAt":"2026-11-22T21:00:00.1234567+00:00","LastSeen":"...",
 *                           "Metadata":{"key":"value",...}}
 *
 * The player is PlayerObjid, or the earlier PlayerRef, a string or {"Number":5,"CreationMilliseconds":
 * 1234}.  State is a name or the number of it.  Names are compared without regard to case (that server
 * can be set to write them in camel case).  null is as good as missing.  A LastSeen of the year 1 is
 * .NET's "never".
 *
 * What our layout cannot hold as it is (too long, a NUL, a number that a double does not hold, a
 * player without a login) is wrong, and said; nothing is cut or guessed.
 */
#ifndef TOOLS_PERSISTER_OLDER_H
#define TOOLS_PERSISTER_OLDER_H

#include "lib/store.h"

#include <cjson/cJSON.h>

enum { OLDER_BYTES_MAX = 1 << 20 }; /* of JSON: more than the largest record takes, escaped */

struct older {
    struct store_record record; /* generation and version are the reader's to choose */
    bool ended;                 /* its state says that it is over: not to be imported */
    cJSON *root;
    sesstab_pair *pairs;
    char player[64];            /* one that was an object */
    char wrong[320];
};

/* Reads JSON, which belongs to HANDLE.  NULL, or what is wrong with it.  older_free() in any case. */
const char *older_parse(struct older *older, const char *json, size_t length, uint64_t handle);

void older_free(struct older *older);

/* "2026-11-22T21:00:00.1234567+01:00"; *MS may be negative. */
bool older_parse_time(const char *text, int64_t *ms);

#endif
