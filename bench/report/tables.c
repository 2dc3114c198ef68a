#include "bench/report/tables.h"

#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- a table --------------- */

static bool chosen(const cJSON *one, const struct choice *c)
{
    return has(one, "row") && is(one, "bench", c->bench) && is(one, "pages", c->pages) &&
           number_of(one, "size") == c->size;
}

static const cJSON *cell(const struct choice *c, const char *row, const char *contender)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
        if (chosen(one, c) && is(one, "row", row) && is(one, "contender", contender))
            return one;
    return NULL;
}

static void print_least_and_most(const cJSON *one)
{
    print_number(number_of(one, "low"));
    printf(" – ");
    print_number(number_of(one, "high"));
}

static void print_cell(const cJSON *one, bool spread)
{
    printf(" | ");
    if (!one) {
        printf("–");
        return;
    }
    print_number(number_of(one, "median"));
    if (spread) {
        printf(" (");
        print_least_and_most(one);
        printf(")");
    }
}

/* Nanoseconds are what is usual. */
static void print_row(const struct choice *c, const char *row, const struct names *contenders,
                      bool spread)
{
    const char *unit = "ns";
    for (size_t i = 0; i < contenders->count; i++)
        if (cell(c, row, contenders->all[i]))
            unit = text_of(cell(c, row, contenders->all[i]), "unit");
    printf(strcmp(unit, "ns") == 0 ? "| %s" : "| %s, %s", row, unit);
    for (size_t i = 0; i < contenders->count; i++)
        print_cell(cell(c, row, contenders->all[i]), spread);
    printf(" |\n");
}

static void print_header(const struct names *contenders)
{
    printf("| row");
    for (size_t i = 0; i < contenders->count; i++)
        printf(" | %s", contenders->all[i]);
    printf(" |\n| ---");
    for (size_t i = 0; i < contenders->count; i++)
        printf(" | ---:");
    printf(" |\n");
}

static bool named(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->all[i], name) == 0)
            return true;
    return names->count == 0;
}

/* Asked for, in that order, and measured. */
static struct names columns_of(const struct choice *c, const struct names *measured)
{
    struct names columns = { 0 };
    for (size_t i = 0; i < c->contenders.count; i++)
        if (named(measured, c->contenders.all[i]))
            add_name(&columns, c->contenders.all[i]);
    return c->contenders.count ? columns : *measured;
}

void print_table(const struct choice *c, bool spread)
{
    struct names rows = { 0 }, measured = { 0 };
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures) {
        if (!chosen(one, c) || !named(&c->contenders, text_of(one, "contender")))
            continue;
        add_name(&rows, text_of(one, "row"));
        add_name(&measured, text_of(one, "contender"));
    }
    if (!rows.count) {
        printf("(Not measured in this run.)\n");
        return;
    }
    struct names columns = columns_of(c, &measured);
    print_header(&columns);
    for (size_t i = 0; i < rows.count; i++)
        print_row(c, rows.all[i], &columns, spread);
}

static struct sizes sizes_of(const char *bench)
{
    struct sizes sizes = { 0 };
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
        if (has(one, "row") && is(one, "bench", bench))
            add_size(&sizes, number_of(one, "size"));
    return sizes;
}

void print_tables(const char *bench)
{
    struct sizes sizes = sizes_of(bench);
    if (!sizes.count)
        printf("(Not measured in this run.)\n");
    for (size_t i = 0; i < sizes.count; i++) {
        struct choice c = { .size = sizes.all[i] };
        snprintf(c.bench, sizeof c.bench, "%s", bench);
        printf(i ? "\nAmong " : "Among ");
        print_number(sizes.all[i]);
        printf(" sessions:\n\n");
        print_table(&c, false);
    }
}

/* ---------------------------------------------------------------- a list ---------------- */

static void print_figure(const cJSON *one)
{
    printf("| %s | %s | ", text_of(one, "row"), text_of(one, "contender"));
    print_number(number_of(one, "size"));
    printf(" | %s", text_of(one, "unit"));
    print_cell(one, false);
    printf(" | ");
    print_least_and_most(one);
    printf(" | ");
    if (has(one, "ratio"))
        print_number(number_of(one, "ratio"));
    printf(" |\n");
}

void print_figures(const char *bench)
{
    struct names rows = { 0 };
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
        if (has(one, "row") && is(one, "bench", bench))
            add_name(&rows, text_of(one, "row"));
    if (!rows.count) {
        printf("(Not measured in this run.)\n");
        return;
    }
    printf("| row | who | sessions | unit | median | least – most | ratio |\n"
           "| --- | --- | ---: | --- | ---: | ---: | ---: |\n");
    for (size_t i = 0; i < rows.count; i++)
        cJSON_ArrayForEach(one, all_figures)
            if (is(one, "row", rows.all[i]) && is(one, "bench", bench))
                print_figure(one);
}

void print_notes(const char *bench, const char *prefix)
{
    const cJSON *one;
    const char *before = "| | |\n| --- | --- |\n";
    cJSON_ArrayForEach(one, all_figures) {
        const char *name = text_of(one, "fact");
        if (!has(one, "fact") || !is(one, "bench", bench) || !begins(name, prefix) ||
            (!*prefix && strchr(name, ':')))
            continue;
        printf("%s| %s | %s |\n", before, name + strlen(prefix), text_of(one, "text"));
        before = "";
    }
    if (*before)
        printf("(Nothing.)\n");
}
