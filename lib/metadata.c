/*
 * Metadata: reading it out of a view, and the four changes.  Each change is one edit of a draft, so
 * that two workers who set different keys at once both succeed: the second one's edit is done again
 * on top of the first's record.
 *
 * A change that waits for Redis keeps what it replaces, and puts it back, with the version that it had,
 * when Redis refuses it: unless the key was changed on top meanwhile, by one who may put the refused
 * value back, so that nobody can tell (CONFLICT).
 */
#include "table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- reading ------------------- */

int sesstab_metadata(const sesstab_view *view, const char *key, const void **value, size_t *length,
                     uint64_t *version)
{
    struct entry e;
    size_t at;
    if (!key)
        return SESSTAB_NOTFOUND;
    if (!record_find(view->metadata_, view->metadata_length_, key, strlen(key), &at, &e))
        return at == view->metadata_length_ ? SESSTAB_NOTFOUND : SESSTAB_CORRUPT;
    *value = e.value;
    if (length)
        *length = e.value_length;
    if (version)
        *version = e.version;
    return SESSTAB_OK;
}

int sesstab_metadata_next(const sesstab_view *view, size_t *position, sesstab_pair *pair,
                          uint64_t *version)
{
    struct entry e;
    if (!record_entry(view->metadata_, view->metadata_length_, position, &e))
        return *position >= view->metadata_length_ ? SESSTAB_NOTFOUND : SESSTAB_CORRUPT;
    *pair = (sesstab_pair){ e.key, e.value, e.value_length };
    if (version)
        *version = e.version;
    return SESSTAB_OK;
}

/* ---------------------------------------------------------------- changing ------------------ */

enum { DIGITS = 24 };           /* and a sign and a NUL: any sum's */

/* What was there before a change that waits. */
struct kept {
    uint64_t generation;
    uint64_t version;           /* of the entry; 0: there was none */
    size_t length;
    void *value;
};

/* (Small enough that gcc 12 does not clear it by `rep stos`, which is slow to start.) */
struct metadata_arguments {
    const char *key;
    const void *value;
    size_t key_length, length;
    bool compare;
    uint64_t expected, version;
    int64_t delta, sum;
    char *text;                 /* DIGITS for a sum, until the record is written */
    struct kept *kept;          /* NULL: it does not wait */
};

/* Keeps the entry E, NULL: none, to be put back. */
static int keep(struct kept *k, const struct entry *e)
{
    k->version = e ? e->version : 0;
    k->length = e ? e->value_length : 0;
    void *copy = realloc(k->value, k->length + 1);
    if (!copy)
        return SESSTAB_NOMEMORY;
    k->value = copy;
    if (e)
        memcpy(copy, e->value, e->value_length);
    return SESSTAB_OK;
}

static int check_key(struct metadata_arguments *a)
{
    if (!a->key || !a->key[0])
        return SESSTAB_INVALID;
    a->key_length = strlen(a->key);
    return a->key_length > SESSTAB_KEY_MAX ? SESSTAB_TOOBIG : SESSTAB_OK;
}

static void drop(struct draft *d, size_t at, const struct entry *e)
{
    d->drop_at = (uint32_t)at;
    d->drop_length = (uint32_t)e->bytes;
}

static int find(const struct draft *d, const struct metadata_arguments *a, size_t *at, struct entry *e)
{
    if (record_find(d->metadata, d->metadata_length, a->key, a->key_length, at, e))
        return SESSTAB_OK;
    return *at == d->metadata_length ? SESSTAB_NOTFOUND : SESSTAB_CORRUPT;
}

static int edit_set(struct context *c, const struct change *change, struct draft *d, void *arguments)
{
    struct metadata_arguments *a = arguments;
    struct entry e;
    size_t at;
    (void)c;
    int found = find(d, a, &at, &e);
    if (found == SESSTAB_CORRUPT)
        return found;
    a->version = found == SESSTAB_OK ? e.version : 0;
    if (a->compare && a->version != a->expected)
        return SESSTAB_CONFLICT;
    if (a->kept && keep(a->kept, found == SESSTAB_OK ? &e : NULL))
        return SESSTAB_NOMEMORY;
    if (found == SESSTAB_OK)
        drop(d, at, &e);
    d->key = a->key;
    d->key_length = a->key_length;
    d->value = a->value;
    d->value_length = a->length;
    a->version = change->version;
    return SESSTAB_OK;
}

/* At which version the key became what it is: where it is away, at which the session lost one last. */
static uint64_t standing(const struct draft *d, int found, const struct entry *e)
{
    return found == SESSTAB_OK ? e->version : d->head.shrunk_version;
}

/* Back to what was there before the change, or without it to nothing. */
static int edit_back(struct context *c, const struct change *change, struct draft *d, void *arguments)
{
    struct metadata_arguments *a = arguments;
    struct entry e;
    size_t at;
    (void)c;
    if (change->generation != a->kept->generation)
        return CHANGE_NONE;
    int found = find(d, a, &at, &e);
    if (found == SESSTAB_CORRUPT)
        return found;
    if (standing(d, found, &e) != a->version)
        return SESSTAB_CONFLICT;
    if (found == SESSTAB_OK)
        drop(d, at, &e);
    if (!a->kept->version) {
        d->head.shrunk_version = change->version;
        return SESSTAB_OK;
    }
    d->key = a->key;
    d->key_length = a->key_length;
    d->key_version = a->kept->version;
    d->value = a->kept->value;
    d->value_length = a->kept->length;
    return SESSTAB_OK;
}

/* A change, and the wait for Redis. */
static int change_key_and_wait(sesstab *t, uint64_t handle, change_fn *edit, change_fn *back,
                               struct metadata_arguments *a)
{
    struct change made;
    struct kept kept = { .value = NULL };
    a->kept = &kept;
    int result = session_change(t, handle, edit, a, &made);
    if (result == SESSTAB_OK) {
        kept.generation = made.generation;
        result = change_settle(t, handle, &made, back, a);
    }
    free(kept.value);
    return result;
}

/* One change, and the wait for Redis if there is one. */
static int change_key(sesstab *t, uint64_t handle, change_fn *edit, change_fn *back,
                      struct metadata_arguments *a)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (!c)
        return result;
    return change_waits(c, false) ? change_key_and_wait(t, handle, edit, back, a)
                                  : session_change(t, handle, edit, a, NULL);
}

static int set(sesstab *t, uint64_t handle, struct metadata_arguments *a)
{
    int result = check_key(a);
    if (result)
        return result;
    if (!a->value && a->length)
        return SESSTAB_INVALID;
    if (a->length > SESSTAB_RECORD_MAX)
        return SESSTAB_TOOBIG;
    return change_key(t, handle, edit_set, edit_back, a);
}

int sesstab_set(sesstab *t, uint64_t handle, const char *key, const void *value, size_t length)
{
    struct metadata_arguments a = { .key = key, .value = value, .length = length };
    return set(t, handle, &a);
}

int sesstab_compare_and_set(sesstab *t, uint64_t handle, const char *key, uint64_t expected,
                            const void *value, size_t length, uint64_t *version)
{
    struct metadata_arguments a = { .key = key, .value = value, .length = length, .compare = true,
                                    .expected = expected };
    int result = set(t, handle, &a);
    if (version && (result == SESSTAB_OK || result == SESSTAB_UNKNOWN || result == SESSTAB_CONFLICT))
        *version = a.version;
    return result;
}

static int edit_delete(struct context *c, const struct change *change, struct draft *d,
                       void *arguments)
{
    struct metadata_arguments *a = arguments;
    struct entry e;
    size_t at;
    (void)c;
    int found = find(d, a, &at, &e);
    if (found != SESSTAB_OK)
        return found;
    if (a->kept && keep(a->kept, &e))
        return SESSTAB_NOMEMORY;
    drop(d, at, &e);
    a->version = d->head.shrunk_version = change->version; /* Redis must lose the field too */
    return SESSTAB_OK;
}

int sesstab_delete(sesstab *t, uint64_t handle, const char *key)
{
    struct metadata_arguments a = { .key = key };
    int result = check_key(&a);
    return result ? result : change_key(t, handle, edit_delete, edit_back, &a);
}

/* The whole value is a decimal integer that fits. */
static bool number(const struct entry *e, int64_t *n)
{
    char text[DIGITS], more;
    if (e->value_length == 0 || e->value_length >= sizeof text)
        return false;
    memcpy(text, e->value, e->value_length);
    text[e->value_length] = 0;
    bool digits = strspn(text, "0123456789-") == e->value_length;
    if (!digits || sscanf(text, "%" SCNd64 "%c", n, &more) != 1)
        return false;
    /* sscanf saturates silently: what does not print as it was read did not fit. */
    char again[DIGITS];
    snprintf(again, sizeof again, "%" PRId64, *n);
    return strcmp(again, text) == 0;
}

static int edit_increment(struct context *c, const struct change *change, struct draft *d,
                          void *arguments)
{
    struct metadata_arguments *a = arguments;
    struct entry e;
    size_t at;
    int64_t n = 0;
    if (find(d, a, &at, &e) == SESSTAB_OK && !number(&e, &n))
        return SESSTAB_NOTNUMBER;
    if (__builtin_add_overflow(n, a->delta, &a->sum))
        return SESSTAB_NOTNUMBER;
    a->length = (size_t)snprintf(a->text, DIGITS, "%" PRId64, a->sum);
    a->value = a->text;
    return edit_set(c, change, d, a);
}

/* Back to what was there before; or, with another change on top, DELTA less than there is. */
static int edit_decrement(struct context *c, const struct change *change, struct draft *d,
                          void *arguments)
{
    struct metadata_arguments *a = arguments;
    struct entry e;
    size_t at;
    int64_t n;
    int result = edit_back(c, change, d, a);
    if (result != SESSTAB_CONFLICT)
        return result;
    if (find(d, a, &at, &e) != SESSTAB_OK || !number(&e, &n))
        return SESSTAB_CONFLICT; /* nothing of the sum stands now */
    if (__builtin_sub_overflow(n, a->delta, &n))
        return SESSTAB_NOTNUMBER;
    drop(d, at, &e);
    d->key = a->key;
    d->key_length = a->key_length;
    d->value = a->text;
    d->value_length = (size_t)snprintf(a->text, DIGITS, "%" PRId64, n);
    return SESSTAB_OK;
}

int sesstab_increment(sesstab *t, uint64_t handle, const char *key, int64_t delta, int64_t *sum)
{
    char text[DIGITS];
    struct metadata_arguments a = { .key = key, .delta = delta, .text = text };
    int result = check_key(&a);
    if (!result)
        result = change_key(t, handle, edit_increment, edit_decrement, &a);
    if ((result == SESSTAB_OK || result == SESSTAB_UNKNOWN) && sum)
        *sum = a.sum;
    return result;
}
