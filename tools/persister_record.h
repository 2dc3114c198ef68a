/*
 * A session as Redis sees it.  The only place that knows key names, field names and formats.
 *
 *   <prefix>:conn:<handle>            hash  Handle, Generation, PlayerRef, State, IpAddress,
 *                                           Hostname, ConnectionType, ConnectedAt, LastSeen,
 *                                           Owner (index.generation, empty: nobody), Version
 *   <prefix>:conn:<handle>:metadata   hash  the metadata, byte for byte
 *   <prefix>:conn:active              set   live handles
 *
 * Times are ISO-8601 UTC with milliseconds.
 */
#ifndef TOOLS_PERSISTER_RECORD_H
#define TOOLS_PERSISTER_RECORD_H

#include "lib/sesstab.h"
#include "lib/store.h"
#include "tools/persister_redis.h"

enum {
    PREFIX_MAX = 100,       /* bytes of a key prefix                       */
    KEY_BYTES = PREFIX_MAX + 48,
    RECORD_TIME_BYTES = 32
};

struct session_key {
    char handle[24];
    char record[KEY_BYTES];
    char metadata[KEY_BYTES];
};

void session_key(struct session_key *key, const char *prefix, uint64_t handle);
void active_key(char key[KEY_BYTES], const char *prefix);

/* A handle as a member of the active set; false for anything else. */
bool parse_handle(const char *text, size_t length, uint64_t *handle);

/* "2026-11-22T21:00:00.123Z"; a time that Redis's readers could not parse becomes the last one. */
void format_time(char text[RECORD_TIME_BYTES], uint64_t ms);
bool parse_time(const char *text, uint64_t *ms);

/* Appends HSET of the record / of the metadata (at least one pair) / of LastSeen alone. */
void append_record(struct redis *redis, const struct session_key *key,
                   const struct store_image *image, const sesstab_view *view);
void append_metadata(struct redis *redis, const struct session_key *key, const sesstab_view *view);
void append_touch(struct redis *redis, const struct session_key *key, uint64_t last_seen);

/*
 * Fills RECORD (but for its metadata) from the reply to HGETALL; strings stay the reply's.  NULL,
 * or what is wrong with it.
 */
const char *parse_record(const redisReply *reply, uint64_t handle, struct store_record *record);

/* Fills RECORD's metadata; *PAIRS is the caller's to free.  NULL, or what is wrong with it. */
const char *parse_metadata(const redisReply *reply, struct store_record *record,
                           sesstab_pair **pairs);

/* What a HMGET of these says; false when a field is missing or no number. */
#define STORED_FIELDS "Generation", "Version", "LastSeen"
struct stored {
    uint64_t generation, version, last_seen;
};
bool parse_stored(const redisReply *reply, struct stored *stored);

#endif
