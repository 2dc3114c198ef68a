/*
 * What a session holds follows from its number: strings, and a value that says which of many it is.
 * So a reader recognises a record that is torn, stale or somebody else's, whoever wrote it.
 *
 *   number 42: address "a42", host "h42", type "t42"; value "42.7.xxxx...": number, serial, and as
 *   many letters as follow from both.
 */
#include "tests/storm/storm.h"

#include <stdio.h>
#include <string.h>

/* Mostly short, so that most records are of the usual size; sometimes thousands of bytes. */
size_t content_value(char value[VALUE_MAX], uint64_t number, uint32_t serial)
{
    struct dice dice = { number * 31 + serial };
    int start = snprintf(value, VALUE_MAX, "%llu.%u.", (unsigned long long)number, serial);
    size_t most = roll(&dice, 16) ? 40 : VALUE_MAX - (size_t)start;
    size_t length = (size_t)start + roll(&dice, most);
    memset(value + start, 'a' + (int)roll(&dice, 26), length - (size_t)start);
    return length;
}

int content_insert(struct thread *t, uint64_t *handle, uint64_t number, uint32_t serial)
{
    char address[24], host[24], type[24], value[VALUE_MAX];
    snprintf(address, sizeof address, "a%llu", (unsigned long long)number);
    snprintf(host, sizeof host, "h%llu", (unsigned long long)number);
    snprintf(type, sizeof type, "t%llu", (unsigned long long)number);
    const sesstab_pair pair = { "v", value, content_value(value, number, serial) };
    const sesstab_info info = { .address = address, .host = host, .type = type,
                                .metadata = &pair, .metadata_count = serial != 0 };
    return TIMED(t, "insert", 0, sesstab_insert(t->table, handle, &info));
}

void content_player(char player[40], uint64_t handle, uint64_t binding)
{
    player[0] = 0;
    if (binding & 1)
        snprintf(player, 40, "s%llx.%llu", (unsigned long long)handle,
                 (unsigned long long)binding >> 1);
}

static uint64_t number_in(const char *text, char letter)
{
    return text[0] == letter ? strtoull(text + 1, NULL, 10) : 0;
}

uint64_t content_number(const sesstab_view *view)
{
    uint64_t number = number_in(view->address, 'a');
    bool same = number == number_in(view->host, 'h') && number == number_in(view->type, 't');
    return same ? number : 0;
}

uint32_t content_serial(const sesstab_view *view, const char *key)
{
    const void *value;
    if (sesstab_metadata(view, key, &value, NULL, NULL) != SESSTAB_OK)
        return 0;
    const char *dot = strchr(value, '.');
    return dot ? (uint32_t)strtoul(dot + 1, NULL, 10) : UINT32_MAX;
}

static bool value_is_whole(const sesstab_view *view, const char *key)
{
    char expected[VALUE_MAX];
    const void *value;
    size_t length;
    if (sesstab_metadata(view, key, &value, &length, NULL) != SESSTAB_OK)
        return true;
    size_t right = content_value(expected, content_number(view), content_serial(view, key));
    return length == right && memcmp(value, expected, length) == 0;
}

static bool player_is_possible(const sesstab_view *view)
{
    char whose[40];
    if (view->handle >= OWN_HANDLE(0, 0) || view->handle < FIXED)
        snprintf(whose, sizeof whose, "s%llx.", (unsigned long long)view->handle);
    else if (view->handle >= CHURN_HANDLE(0))
        snprintf(whose, sizeof whose, "p%u", (unsigned)(view->handle % PLAYERS));
    else
        snprintf(whose, sizeof whose, "steady");
    return !*view->player || strncmp(view->player, whose, strlen(whose)) == 0;
}

static bool state_is_possible(const sesstab_view *view)
{
    bool bound = *view->player, logged_in = view->state == SESSTAB_LOGGED_IN;
    return view->state == SESSTAB_DETACHED || bound == logged_in;
}

void content_check(const sesstab_view *view)
{
    uint64_t number = content_number(view);
    unsigned long long h = view->handle;
    books->count.views++;
    if (!number || (view->handle >= FIXED ? number != view->handle : number < TAG(0, 0)))
        fault(WRONG, "session %llx holds the strings of %s, %s, %s", h, view->address, view->host,
              view->type);
    if (!value_is_whole(view, "v") || !value_is_whole(view, "x"))
        fault(WRONG, "session %llx holds a torn value", h);
    if (strlen(view->player) != view->player_length || !player_is_possible(view))
        fault(WRONG, "session %llx is bound to \"%s\"", h, view->player);
    if (!state_is_possible(view))
        fault(WRONG, "session %llx is %s, bound to \"%s\"", h, sesstab_state_name(view->state),
              view->player);
    if (view->last_seen < view->connected_at)
        fault(WRONG, "session %llx was seen before it connected", h);
}
