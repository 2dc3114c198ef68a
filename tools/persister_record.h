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

/* The fields of a record, in the order in which they are written. */
#define RECORD_FIELDS(X)                                                                           \
    X(HANDLE, "Handle")                                                                            \
    X(GENERATION, "Generation")                                                                    \
    X(PLAYER, "PlayerRef")                                                                         \
    X(STATE, "State")                                                                              \
    X(ADDRESS, "IpAddress")                                                                        \
    X(HOST, "Hostname")                                                                            \
    X(TYPE, "ConnectionType")                                                                      \
    X(CONNECTED_AT, "ConnectedAt")                                                                 \
    X(LAST_SEEN, "LastSeen")                                                                       \
    X(OWNER, "Owner")                                                                              \
    X(VERSION, "Version")

enum record_field {
#define X(constant, name) FIELD_##constant,
    RECORD_FIELDS(X)
#undef X
    RECORD_FIELD_COUNT
};
extern const char *const record_field_names[RECORD_FIELD_COUNT];

/* A session as the texts of these; they point into it, the view and the key. */
struct record_text {
    const char *values[RECORD_FIELD_COUNT];
    char generation[24], version[24], owner[48];
    char connected[RECORD_TIME_BYTES], seen[RECORD_TIME_BYTES];
};
void format_record(struct record_text *text, const struct session_key *key,
                   const sesstab_view *view);

/* Appends HSET of the record / of the metadata (at least one pair) / of LastSeen alone. */
void append_record(struct redis *redis, const struct session_key *key, const sesstab_view *view);
void append_metadata(struct redis *redis, const struct session_key *key, const sesstab_view *view);
void append_touch(struct redis *redis, const struct session_key *key, uint64_t last_seen);

/* Above it no generation is believed: tables count from the clock, and would come round to 0. */
#define GENERATION_MAX (UINT64_MAX / 2)

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
