/*
 * --diff-redis: how the table and Redis differ, a line for each difference.
 */
#include "tools/log.h"
#include "tools/shmdump.h"
#include "tools/shmdump_compare.h"
#include "tools/shmdump_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 5000 };

/* ------------------------------------------------------------------ lines ------------------ */

static void print_value(const void *value, size_t length, int width)
{
    if (value)
        print_column(value, length, width);
    else
        printf("%-*s", width, "(none)");
}

static void print_difference(const struct difference *d, void *context)
{
    (void)context;
    printf("%-12" PRIu64 " %-10s ", d->handle, difference_names[d->kind]);
    print_column(d->field, strlen(d->field), 20);
    putchar(' ');
    print_value(d->table, d->table_length, 24);
    putchar(' ');
    print_value(d->redis, d->redis_length, 0);
    putchar('\n');
}

static void add_value(cJSON *object, const char *name, const void *value, size_t length)
{
    if (value)
        json_bytes(object, name, value, length);
    else
        must(cJSON_AddNullToObject(object, name));
}

static void print_difference_json(const struct difference *d, void *context)
{
    bool *first = context;
    cJSON *o = must(cJSON_CreateObject());
    json_number(o, "handle", d->handle);
    must(cJSON_AddStringToObject(o, "kind", difference_names[d->kind]));
    json_bytes(o, "field", d->field, strlen(d->field));
    add_value(o, "table", d->table, d->table_length);
    add_value(o, "redis", d->redis, d->redis_length);
    fputs(*first ? "\n" : ",\n", stdout);
    *first = false;
    json_print(o);
}

/* ------------------------------------------------------------------ sums ------------------- */

#define SUMS(X)                                                                                    \
    X(equal) X(only_table) X(only_redis) X(different) X(in_flight) X(owner_gone) X(damaged)        \
    X(strange)

static void print_sums(const struct comparison *c)
{
#define X(name) printf("%s%s %" PRIu64, #name[0] == 'e' ? "" : ", ", #name, c->name);
    SUMS(X)
#undef X
    putchar('\n');
}

static void print_sums_json(const struct comparison *c)
{
#define X(name) printf(",\"%s\":%" PRIu64, #name, c->name);
    SUMS(X)
#undef X
    puts("}");
}

/* ------------------------------------------------------------------ the view --------------- */

static void complain(const char *of, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, of, why);
}

static bool connect_to(struct redis *redis, const struct options *o)
{
    struct redis_login login = o->login;
    const char *given = getenv("SESSTAB_REDIS_PASSWORD");
    if (given && *given)
        login.password = given;
    redis->timeout_ms = TIMEOUT_MS;
    if (redis_connect(redis, &o->redis, &login))
        return true;
    complain(o->redis.text, redis->reason);
    return false;
}

static bool compare_and_print(struct comparison *c, bool json)
{
    bool first = true;
    c->report = json ? print_difference_json : print_difference;
    c->context = &first;
    if (json)
        fputs("{\"differences\":[", stdout);
    else
        printf("%-12s %-10s %-20s %-24s %s\n", "HANDLE", "WHERE", "FIELD", "TABLE", "REDIS");
    bool done = compare_with_redis(c);
    if (json)
        fputs("]", stdout);
    (json ? print_sums_json : print_sums)(c);
    return done;
}

int show_diff(struct image *image, const struct options *options)
{
    struct redis redis = { 0 };
    struct comparison c = { .image = image, .redis = &redis, .prefix = options->prefix };
    int code = CANNOT_READ;
    log_set_level(LEVEL_ERROR); /* what the persister's parts would log is in the sums */
    if (connect_to(&redis, options)) {
        bool done = compare_and_print(&c, options->json);
        if (!done)
            complain(options->redis.text, c.why);
        code = !done ? CANNOT_READ : comparison_equal(&c) ? FOUND_NOTHING_WRONG : FOUND_WRONG;
    }
    redis_free(&redis);
    return code;
}
