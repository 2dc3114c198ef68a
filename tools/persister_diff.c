/* A session against what Redis holds of it; see persister_diff.h. */
#include "tools/persister_diff.h"

#include <stdio.h>
#include <string.h>

const char *const difference_names[DIFFERENCE_KINDS] = { "different", "only-table", "only-redis" };

/* ---------------------------------------------------------------- asking ----------------- */

void ask_session(struct redis *redis, const char *active, const struct session_key *key)
{
    redis_put(redis, "HGETALL", key->record, NULL);
    redis_put(redis, "HGETALL", key->metadata, NULL);
    redis_put(redis, "SISMEMBER", active, key->handle, NULL);
}

static bool has_come(struct redis *redis, const redisReply *reply, bool is_answer)
{
    if (redis_refusal(reply) == REFUSAL_LATER)
        redis_drop(redis, reply->str);
    else if (reply && reply->type != REDIS_REPLY_ERROR && !is_answer)
        redis_drop(redis, "what answers there is not Redis: of another type than was asked for");
    return reply && redis_connected(redis);
}

static bool is_pairs(const redisReply *reply)
{
    return redis_is_strings(reply) && reply->elements % 2 == 0;
}

bool receive_answers(struct redis *redis, struct answers *answers)
{
    answers->record = redis_receive(redis);
    answers->metadata = redis_receive(redis);
    answers->member = redis_receive(redis);
    return has_come(redis, answers->record, is_pairs(answers->record)) &&
           has_come(redis, answers->metadata, is_pairs(answers->metadata)) &&
           has_come(redis, answers->member,
                    answers->member && answers->member->type == REDIS_REPLY_INTEGER);
}

const char *answers_refused(const struct answers *answers)
{
    const redisReply *const replies[] = { answers->record, answers->metadata, answers->member };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++)
        if (replies[i]->type == REDIS_REPLY_ERROR && redis_refusal(replies[i]) != REFUSAL_TYPE)
            return replies[i]->str;
    return NULL;
}

void free_answers(struct answers *answers)
{
    freeReplyObject(answers->record);
    freeReplyObject(answers->metadata);
    freeReplyObject(answers->member);
    *answers = (struct answers){ 0 };
}

/* ---------------------------------------------------------------- differences ------------ */

static bool is_hash(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY;
}

static bool is_empty(const redisReply *reply)
{
    return is_hash(reply) && reply->elements == 0;
}

static bool is_member(const struct answers *answers)
{
    return answers->member->type == REDIS_REPLY_INTEGER && answers->member->integer == 1;
}

bool nothing_stored(const struct answers *answers)
{
    return is_empty(answers->record) && is_empty(answers->metadata) && !is_member(answers);
}

/* The differences of one session, as they are found. */
struct finder {
    enum difference_kind kind;
    uint64_t handle;
    difference_fn *function;
    void *context;
    size_t count;
};

static void find(struct finder *f, const char *field, const void *table, size_t table_length,
                 const void *redis, size_t redis_length)
{
    struct difference difference = { f->kind, f->handle, field, table, redis, table_length,
                                     redis_length };
    f->count++;
    if (f->function)
        f->function(&difference, f->context);
}

static void find_text(struct finder *f, const char *field, const char *table, const char *redis)
{
    find(f, field, table, table ? strlen(table) : 0, redis, redis ? strlen(redis) : 0);
}

/* The value under KEY in HGETALL's answer; NULL: there is none. */
static const redisReply *value_of(const redisReply *hash, const char *key)
{
    for (size_t i = 0; i + 1 < hash->elements; i += 2)
        if (redis_says(hash->element[i], key))
            return hash->element[i + 1];
    return NULL;
}

static void compare_value(struct finder *f, const char *field, const redisReply *stored,
                          const void *value, size_t length)
{
    if (!stored)
        find(f, field, value, length, NULL, 0);
    else if (stored->len != length || memcmp(stored->str, value, length) != 0)
        find(f, field, value, length, stored->str, stored->len);
}

static bool is_field(const redisReply *name)
{
    for (size_t i = 0; i < RECORD_FIELD_COUNT; i++)
        if (redis_says(name, record_field_names[i]))
            return true;
    return false;
}

static void diff_record(struct finder *f, const sesstab_view *view, bool seen,
                        const redisReply *record)
{
    struct session_key key;
    struct record_text text;
    session_key(&key, "", view->handle);
    format_record(&text, &key, view);
    for (size_t i = 0; i < RECORD_FIELD_COUNT; i++) {
        const char *value = text.values[i], *name = record_field_names[i];
        const redisReply *stored = value_of(record, name);
        if (i != FIELD_LAST_SEEN || seen || !stored)
            compare_value(f, name, stored, value, strlen(value));
    }
    for (size_t i = 0; i + 1 < record->elements; i += 2)
        if (!is_field(record->element[i]))
            find(f, record->element[i]->str, NULL, 0, record->element[i + 1]->str,
                 record->element[i + 1]->len);
}

/* "metadata:KEY" */
enum { METADATA_NAME = SESSTAB_KEY_MAX + 16 };
static const char *metadata_name(char name[METADATA_NAME], const char *key)
{
    snprintf(name, METADATA_NAME, "metadata:%s", key);
    return name;
}

static bool has_metadata(const sesstab_view *view, const redisReply *key)
{
    const void *value;
    return strlen(key->str) == key->len &&
           sesstab_metadata(view, key->str, &value, NULL, NULL) == SESSTAB_OK;
}

static void diff_metadata(struct finder *f, const sesstab_view *view, const redisReply *metadata)
{
    char name[METADATA_NAME];
    sesstab_pair pair;
    size_t position = 0;
    while (sesstab_metadata_next(view, &position, &pair, NULL) == SESSTAB_OK)
        compare_value(f, metadata_name(name, pair.key), value_of(metadata, pair.key), pair.value,
                      pair.length);
    for (size_t i = 0; i + 1 < metadata->elements; i += 2)
        if (!has_metadata(view, metadata->element[i]))
            find(f, metadata_name(name, metadata->element[i]->str), NULL, 0,
                 metadata->element[i + 1]->str, metadata->element[i + 1]->len);
}

size_t diff_session(const sesstab_view *view, bool seen, const struct answers *answers,
                    difference_fn *function, void *context)
{
    struct finder f = { .kind = DIFFERENT, .handle = view->handle, .function = function,
                        .context = context };
    if (is_empty(answers->record)) {
        f.kind = ONLY_IN_TABLE;
        find_text(&f, "record", view->player, NULL);
        return f.count;
    }
    if (is_hash(answers->record))
        diff_record(&f, view, seen, answers->record);
    else
        find_text(&f, "record", "a hash", answers->record->str);
    if (is_hash(answers->metadata))
        diff_metadata(&f, view, answers->metadata);
    else
        find_text(&f, "metadata", "a hash", answers->metadata->str);
    if (!is_member(answers))
        find_text(&f, "active", "member", NULL);
    return f.count;
}

/* What is there of a key: of a record its player. */
static const char *found_under(const redisReply *reply, const char *field)
{
    if (!is_hash(reply))
        return reply->str;
    const redisReply *value = value_of(reply, field);
    return value && value->str ? value->str : "a hash";
}

size_t diff_unknown(uint64_t handle, const struct answers *answers, difference_fn *function,
                    void *context)
{
    struct finder f = { .kind = ONLY_IN_REDIS, .handle = handle, .function = function,
                        .context = context };
    if (!is_empty(answers->record))
        find_text(&f, "record", NULL, found_under(answers->record, "PlayerRef"));
    if (!is_empty(answers->metadata))
        find_text(&f, "metadata", NULL, found_under(answers->metadata, ""));
    if (is_member(answers))
        find_text(&f, "active", NULL, "member");
    return f.count;
}
