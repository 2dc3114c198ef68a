/* A session in the older layout; see persister_older.h. */
#include "tools/persister_older.h"

#include "lib/record.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define EXACT_MAX 9007199254740992.0 /* beyond, a double holds not every whole number */

static const char *wrong(struct older *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static const char *wrong(struct older *o, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(o->wrong, sizeof o->wrong, format, arguments);
    va_end(arguments);
    return o->wrong;
}

/* NULL when it is missing or null. */
static const cJSON *member(const struct older *o, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(o->root, name);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

/* ---------------------------------------------------------------- times ------------------ */

/* ".1234567" in milliseconds; returns where it ends, NULL: it is none. */
static const char *parse_fraction(const char *text, int64_t *ms)
{
    size_t digits = *text == '.' ? strspn(text + 1, "0123456789") : 0;
    *ms = 0;
    if (*text != '.')
        return text;
    for (size_t i = 0; i < 3; i++)
        *ms = *ms * 10 + (i < digits ? text[1 + i] - '0' : 0);
    return digits >= 1 && digits <= 7 ? text + 1 + digits : NULL;
}

bool older_parse_time(const char *text, int64_t *ms)
{
    static const char pattern[] = "dddd-dd-ddTdd:dd:dd";
    struct tm given = { 0 }, zone = { 0 };
    for (size_t i = 0; i < sizeof pattern - 1; i++)
        if (pattern[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != pattern[i])
            return false;
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &given);
    rest = rest ? parse_fraction(rest, ms) : NULL;
    if (!rest || (*rest != '+' && *rest != '-' && strcmp(rest, "Z") != 0))
        return false;
    rest = strptime(rest, "%z", &zone);
    struct tm real = given;
    time_t seconds = timegm(&real);
    /* The 31st of February becomes the 3rd of March. */
    if (!rest || *rest || real.tm_mday != given.tm_mday || real.tm_sec != given.tm_sec)
        return false;
    *ms += ((int64_t)seconds - zone.tm_gmtoff) * 1000;
    return true;
}

static const char *time_member(struct older *o, const char *name, int64_t *ms)
{
    const cJSON *item = member(o, name);
    if (!cJSON_IsString(item))
        return wrong(o, "%s is missing or no string", name);
    if (!older_parse_time(item->valuestring, ms))
        return wrong(o, "%s is no time with an offset: %.64s", name, item->valuestring);
    return NULL;
}

static const char *read_times(struct older *o)
{
    int64_t connected, seen;
    const char *why = time_member(o, "ConnectedAt", &connected);
    if (!why)
        why = time_member(o, "LastSeen", &seen);
    if (why)
        return why;
    if (connected < 0)
        return wrong(o, "ConnectedAt is before 1970");
    o->record.connected_at = (uint64_t)connected;
    o->record.last_seen = (uint64_t)(seen < connected ? connected : seen);
    return NULL;
}

/* ---------------------------------------------------------------- text and numbers ------- */

static const char *text_member(struct older *o, const char *name, const char **text)
{
    const cJSON *item = member(o, name);
    if (item && !cJSON_IsString(item))
        return wrong(o, "%s is no string", name);
    *text = item ? item->valuestring : "";
    return NULL;
}

static bool is_whole(const cJSON *item)
{
    return cJSON_IsNumber(item) && fabs(item->valuedouble) <= EXACT_MAX &&
           item->valuedouble == (double)(int64_t)item->valuedouble;
}

static const char *read_handle(struct older *o, uint64_t handle)
{
    const cJSON *item = member(o, "Handle");
    if (!cJSON_IsNumber(item))
        return wrong(o, "Handle is missing or no number");
    if (item->valuedouble != (double)handle)
        return wrong(o, "Handle is %.17g: not the key's", item->valuedouble);
    o->record.handle = handle;
    return NULL;
}

/* "#5:1234", or "#5" without a creation time. */
static const char *read_player(struct older *o)
{
    const char *name = member(o, "PlayerObjid") ? "PlayerObjid" : "PlayerRef";
    const cJSON *item = member(o, name);
    if (!cJSON_IsObject(item))
        return text_member(o, name, &o->record.player);
    const cJSON *number = cJSON_GetObjectItem(item, "Number");
    const cJSON *created = cJSON_GetObjectItem(item, "CreationMilliseconds");
    bool dated = created && !cJSON_IsNull(created);
    if (!is_whole(number) || (dated && !is_whole(created)))
        return wrong(o, "%s is an object without a Number", name);
    int length = snprintf(o->player, sizeof o->player, "#%.0f", number->valuedouble);
    if (dated)
        snprintf(o->player + length, sizeof o->player - (size_t)length, ":%.0f",
                 created->valuedouble);
    o->record.player = o->player;
    return NULL;
}

/* ---------------------------------------------------------------- state ------------------ */

/* The numbers are those of the enum { Error, None, Connected, LoggedIn, Disconnected }. */
static const struct {
    const char *name;
    int number;
    sesstab_state state;
    bool ended;
} states[] = {
    { "Connected", 2, SESSTAB_CONNECTED, false },
    { "AccountMode", -1, SESSTAB_ACCOUNT, false },
    { "LoggedIn", 3, SESSTAB_LOGGED_IN, false },
    { "Disconnected", 4, SESSTAB_DETACHED, true },
};

static const char *read_state(struct older *o)
{
    const cJSON *item = member(o, "State");
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (cJSON_IsString(item) ? strcasecmp(item->valuestring, states[i].name) == 0
                                 : is_whole(item) && item->valuedouble == states[i].number &&
                                       states[i].number >= 0) {
            o->record.state = states[i].state;
            o->ended = states[i].ended;
            return NULL;
        }
    if (cJSON_IsString(item))
        return wrong(o, "State is unknown: %.64s", item->valuestring);
    if (cJSON_IsNumber(item))
        return wrong(o, "State is unknown: %.17g", item->valuedouble);
    return wrong(o, "State is missing, or neither a name nor a number");
}

/* ---------------------------------------------------------------- metadata --------------- */

/* The value as text, to be freed; NULL: none of ours, or out of memory. */
static char *value_text(const cJSON *item)
{
    char number[48];
    if (cJSON_IsString(item))
        return strdup(item->valuestring);
    if (cJSON_IsBool(item))
        return strdup(cJSON_IsTrue(item) ? "true" : "false");
    if (!cJSON_IsNumber(item) || fabs(item->valuedouble) > EXACT_MAX)
        return NULL;
    snprintf(number, sizeof number, is_whole(item) ? "%.0f" : "%.17g", item->valuedouble);
    return strdup(number);
}

static const char *read_metadata(struct older *o)
{
    const cJSON *metadata = member(o, "Metadata"), *item;
    if (!metadata)
        return NULL;
    if (!cJSON_IsObject(metadata))
        return wrong(o, "Metadata is no object");
    o->pairs = calloc((size_t)cJSON_GetArraySize(metadata) + 1, sizeof *o->pairs);
    if (!o->pairs)
        return wrong(o, "out of memory");
    o->record.metadata = o->pairs;
    cJSON_ArrayForEach(item, metadata) {
        char *text = value_text(item);
        if (!text)
            return wrong(o, "metadata %.64s is neither a string nor a boolean nor a number up to 2^53",
                         item->string);
        o->pairs[o->record.metadata_count++] = (sesstab_pair){ item->string, text, strlen(text) };
    }
    return NULL;
}

/* ---------------------------------------------------------------- limits ----------------- */

static const char *check_lengths(struct older *o)
{
    const struct store_record *r = &o->record;
    const struct {
        const char *name, *text;
        size_t most;
    } texts[] = {
        { "the player", r->player, SESSTAB_PLAYER_MAX },
        { "IpAddress", r->address, SESSTAB_ADDRESS_MAX },
        { "Hostname", r->host, SESSTAB_HOST_MAX },
        { "ConnectionType", r->type, SESSTAB_TYPE_MAX },
    };
    size_t size = sizeof(struct block) + record_pairs_size(r->metadata, r->metadata_count);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size += strlen(texts[i].text) + 1;
        if (strlen(texts[i].text) > texts[i].most)
            return wrong(o, "%s is longer than %zu bytes", texts[i].name, texts[i].most);
    }
    for (size_t i = 0; i < r->metadata_count; i++)
        if (!*r->metadata[i].key || strlen(r->metadata[i].key) > SESSTAB_KEY_MAX ||
            r->metadata[i].length > UINT16_MAX)
            return wrong(o, "a metadata key is empty or longer than %d bytes, or its value than %d",
                         SESSTAB_KEY_MAX, UINT16_MAX);
    return size > SESSTAB_RECORD_MAX ? wrong(o, "all of it is longer than %d bytes", SESSTAB_RECORD_MAX)
                                     : NULL;
}

/* As the table has it: who is bound is logged in, and the other way round. */
static const char *check_binding(struct older *o)
{
    bool bound = *o->record.player, logged_in = o->record.state == SESSTAB_LOGGED_IN;
    if (o->ended || bound == logged_in)
        return NULL;
    return bound ? wrong(o, "there is a player, but State is not LoggedIn")
                 : wrong(o, "State is LoggedIn, but there is no player");
}

/* cJSON would end the string there. */
static bool has_nul(const char *json, size_t length)
{
    if (strlen(json) != length)
        return true;
    for (const char *at = strchr(json, '\\'); at; at = strchr(at + 2, '\\')) {
        if (strncmp(at, "\\u0000", 6) == 0)
            return true;
        if (!at[1])
            break;
    }
    return false;
}

/* ---------------------------------------------------------------- all of it -------------- */

static const char *read_all(struct older *o, uint64_t handle)
{
    const char *why = read_handle(o, handle);
    why = why ? why : read_state(o);
    why = why ? why : read_player(o);
    why = why ? why : text_member(o, "IpAddress", &o->record.address);
    why = why ? why : text_member(o, "Hostname", &o->record.host);
    why = why ? why : text_member(o, "ConnectionType", &o->record.type);
    why = why ? why : read_times(o);
    why = why ? why : read_metadata(o);
    why = why ? why : check_lengths(o);
    return why ? why : check_binding(o);
}

const char *older_parse(struct older *o, const char *json, size_t length, uint64_t handle)
{
    memset(o, 0, sizeof *o);
    if (length > OLDER_BYTES_MAX)
        return wrong(o, "longer than %d bytes", OLDER_BYTES_MAX);
    if (has_nul(json, length))
        return wrong(o, "it holds a NUL");
    const char *end = json;
    o->root = cJSON_ParseWithOpts(json, &end, true);
    if (!o->root)
        return wrong(o, "not JSON, from byte %zu on", (size_t)(end - json));
    if (!cJSON_IsObject(o->root))
        return wrong(o, "no JSON object");
    return read_all(o, handle);
}

void older_free(struct older *o)
{
    for (size_t i = 0; i < o->record.metadata_count; i++)
        free((void *)(uintptr_t)o->pairs[i].value);
    free(o->pairs);
    cJSON_Delete(o->root);
    memset(o, 0, sizeof *o);
}
