/* A session as Redis sees it; see persister_record.h. */
#include "tools/persister_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---------------------------------------------------------------- keys ------------------- */

enum { NUMBER_BYTES = 24 };

/* By hand: these numbers and times are most of what a write costs this process. */
static void format_number(char text[NUMBER_BYTES], uint64_t number)
{
    char digits[NUMBER_BYTES];
    char *digit = digits + sizeof digits;
    *--digit = '\0';
    do
        *--digit = (char)('0' + number % 10);
    while (number /= 10);
    memcpy(text, digit, (size_t)(digits + sizeof digits - digit));
}

/* Returns where the text ends. */
static char *start_key(char key[KEY_BYTES], const char *prefix)
{
    return stpcpy(mempcpy(key, prefix, strnlen(prefix, PREFIX_MAX)), ":conn:");
}

void session_key(struct session_key *key, const char *prefix, uint64_t handle)
{
    format_number(key->handle, handle);
    char *end = stpcpy(start_key(key->record, prefix), key->handle);
    end = mempcpy(key->metadata, key->record, (size_t)(end - key->record));
    strcpy(end, ":metadata");
}

void active_key(char key[KEY_BYTES], const char *prefix)
{
    strcpy(start_key(key, prefix), "active");
}

/* ---------------------------------------------------------------- numbers and times ------ */

/* Decimal digits only, all of them. */
static bool parse_number(const char *text, size_t length, uint64_t *number)
{
    uint64_t value = 0;
    if (length == 0 || length > 20)
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return true;
}

bool parse_handle(const char *text, size_t length, uint64_t *handle)
{
    /* "07" is not how 7 is written. */
    return parse_number(text, length, handle) && *handle != 0 && text[0] != '0';
}

/* COUNT digits; returns where they end. */
static char *put_digits(char *to, uint64_t number, int count)
{
    for (int i = count; i-- > 0; number /= 10)
        to[i] = (char)('0' + number % 10);
    return to + count;
}

/*
 * The day that begins DAYS after 1970-01-01, as "2026-11-22".  Years are counted from March, so
 * that a leap day is a year's last, and in eras of 400 years, which are all alike.
 */
static char *put_date(char *to, uint64_t days)
{
    days += 719468; /* from 0000-03-01 */
    uint64_t era = days / 146097, day = days % 146097;
    uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    uint64_t month = (5 * day + 2) / 153; /* 0: March */
    to = put_digits(to, 400 * era + year + (month >= 10), 4);
    *to++ = '-';
    to = put_digits(to, month < 10 ? month + 3 : month - 9, 2);
    *to++ = '-';
    return put_digits(to, day - (153 * month + 2) / 5 + 1, 2);
}

void format_time(char text[RECORD_TIME_BYTES], uint64_t ms)
{
    const uint64_t last = UINT64_C(253402300799999); /* 9999-12-31T23:59:59.999Z */
    if (ms > last)
        ms = last;
    uint64_t second = ms / 1000 % 86400;
    char *to = put_date(text, ms / 86400000);
    *to++ = 'T';
    to = put_digits(to, second / 3600, 2);
    *to++ = ':';
    to = put_digits(to, second / 60 % 60, 2);
    *to++ = ':';
    to = put_digits(to, second % 60, 2);
    *to++ = '.';
    to = put_digits(to, ms % 1000, 3);
    strcpy(to, "Z");
}

bool parse_time(const char *text, uint64_t *ms)
{
    struct tm utc = { .tm_isdst = 0 };
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
    unsigned fraction = 0;
    if (!rest)
        return false;
    if (*rest == '.') {
        unsigned weight = 100;
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, weight /= 10)
            fraction += (unsigned)(*rest - '0') * weight;
    }
    time_t seconds = timegm(&utc);
    if (strcmp(rest, "Z") != 0 || seconds < 0)
        return false;
    *ms = (uint64_t)seconds * 1000 + fraction;
    return true;
}

/* ---------------------------------------------------------------- writing ---------------- */

/* As layout.h draws a worker_id. */
static void format_owner(char text[2 * NUMBER_BYTES], uint32_t owner)
{
    *text = '\0';
    if (!owner)
        return;
    format_number(text, (owner & ((1u << WORKER_INDEX_BITS) - 1)) - 1);
    size_t length = strlen(text);
    text[length] = '.';
    format_number(text + length + 1, owner >> WORKER_INDEX_BITS);
}

const char *const record_field_names[RECORD_FIELD_COUNT] = {
#define X(constant, name) name,
    RECORD_FIELDS(X)
#undef X
};

void format_record(struct record_text *text, const struct session_key *key,
                   const sesstab_view *view)
{
    const char **values = text->values;
    format_number(text->generation, view->generation);
    format_number(text->version, view->version);
    format_owner(text->owner, view->owner);
    format_time(text->connected, view->connected_at);
    format_time(text->seen, view->last_seen);
    values[FIELD_HANDLE] = key->handle;
    values[FIELD_GENERATION] = text->generation;
    values[FIELD_PLAYER] = view->player;
    values[FIELD_STATE] = sesstab_state_name(view->state);
    values[FIELD_ADDRESS] = view->address;
    values[FIELD_HOST] = view->host;
    values[FIELD_TYPE] = view->type;
    values[FIELD_CONNECTED_AT] = text->connected;
    values[FIELD_LAST_SEEN] = text->seen;
    values[FIELD_OWNER] = text->owner;
    values[FIELD_VERSION] = text->version;
}

void append_record(struct redis *redis, const struct session_key *key, const sesstab_view *view)
{
    struct record_text text;
    format_record(&text, key, view);
    redis_start(redis, "HSET");
    redis_text(redis, key->record);
    for (size_t i = 0; i < RECORD_FIELD_COUNT; i++) {
        redis_text(redis, record_field_names[i]);
        redis_text(redis, text.values[i]);
    }
    redis_append(redis);
}

void append_metadata(struct redis *redis, const struct session_key *key, const sesstab_view *view)
{
    sesstab_pair pair;
    size_t position = 0;
    redis_start(redis, "HSET");
    redis_text(redis, key->metadata);
    while (sesstab_metadata_next(view, &position, &pair, NULL) == SESSTAB_OK) {
        redis_text(redis, pair.key);
        redis_bytes(redis, pair.value, pair.length);
    }
    redis_append(redis);
}

void append_touch(struct redis *redis, const struct session_key *key, uint64_t last_seen)
{
    char seen[RECORD_TIME_BYTES];
    format_time(seen, last_seen);
    redis_put(redis, "HSET", key->record, "LastSeen", seen, NULL);
}

/* ---------------------------------------------------------------- reading ---------------- */

/* The value of NAME in HGETALL's reply; "" when it is missing; NULL when it is no text. */
static const char *field(const redisReply *reply, const char *name)
{
    for (size_t i = 0; i + 1 < reply->elements; i += 2)
        if (redis_says(reply->element[i], name))
            return redis_is_text(reply->element[i + 1]) ? reply->element[i + 1]->str : NULL;
    return "";
}

static bool number_field(const redisReply *reply, const char *name, uint64_t *number)
{
    const char *text = field(reply, name);
    return text && parse_number(text, strlen(text), number);
}

static bool time_field(const redisReply *reply, const char *name, uint64_t *ms)
{
    const char *text = field(reply, name);
    return text && parse_time(text, ms);
}

static bool state_field(const redisReply *reply, sesstab_state *state)
{
    const char *text = field(reply, "State");
    for (int i = 0; text && i < SESSTAB_STATE_COUNT; i++)
        if (strcmp(text, sesstab_state_name(i)) == 0) {
            *state = (sesstab_state)i;
            return true;
        }
    return false;
}

const char *parse_record(const redisReply *reply, uint64_t handle, struct store_record *record)
{
    uint64_t stored_handle;
    memset(record, 0, sizeof *record);
    record->handle = handle;
    if (reply->type == REDIS_REPLY_ERROR)
        return reply->str;
    if (reply->type != REDIS_REPLY_ARRAY)
        return "not a hash";
    if (reply->elements == 0)
        return "in the active set, but its hash is missing";
    if (!number_field(reply, "Handle", &stored_handle) || stored_handle != handle)
        return "Handle is not the key's";
    if (!number_field(reply, "Generation", &record->generation) || record->generation == 0 ||
        record->generation > GENERATION_MAX)
        return "Generation is missing or not a number";
    if (!number_field(reply, "Version", &record->version) || record->version == 0)
        return "Version is missing or not a number";
    if (!state_field(reply, &record->state))
        return "State is missing or unknown";
    if (!time_field(reply, "ConnectedAt", &record->connected_at))
        return "ConnectedAt is missing or not a time";
    if (!time_field(reply, "LastSeen", &record->last_seen))
        return "LastSeen is missing or not a time";
    record->player = field(reply, "PlayerRef");
    record->address = field(reply, "IpAddress");
    record->host = field(reply, "Hostname");
    record->type = field(reply, "ConnectionType");
    if (!record->player || !record->address || !record->host || !record->type)
        return "a field holds a NUL byte";
    return NULL;
}

const char *parse_metadata(const redisReply *reply, struct store_record *record,
                           sesstab_pair **pairs)
{
    *pairs = NULL;
    if (reply->type == REDIS_REPLY_ERROR)
        return reply->str;
    if (reply->type != REDIS_REPLY_ARRAY)
        return "the metadata is not a hash";
    size_t count = reply->elements / 2;
    if (count && !(*pairs = calloc(count, sizeof **pairs)))
        return "out of memory";
    for (size_t i = 0; i < count; i++) {
        const redisReply *key = reply->element[2 * i], *value = reply->element[2 * i + 1];
        if (!redis_is_text(key) || value->type != REDIS_REPLY_STRING)
            return "a metadata key holds a NUL byte";
        (*pairs)[i] = (sesstab_pair){ key->str, value->str, value->len };
    }
    record->metadata = *pairs;
    record->metadata_count = count;
    return NULL;
}

bool parse_stored(const redisReply *reply, struct stored *stored)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
        return false;
    for (size_t i = 0; i < 3; i++)
        if (!redis_is_text(reply->element[i]))
            return false;
    return parse_number(reply->element[0]->str, reply->element[0]->len, &stored->generation) &&
           parse_number(reply->element[1]->str, reply->element[1]->len, &stored->version) &&
           parse_time(reply->element[2]->str, &stored->last_seen);
}
