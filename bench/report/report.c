/*
 * From the benchmarks' figures (bench/results.h) to what people read.
 *
 *     report TEMPLATE FILE...   the template, in which a line @name arguments@ becomes a table
 *     report --tsv FILE...      a line per figure, for gnuplot
 *
 *   @facts BENCH@             what is known about a run: the machine, the rounds
 *   @notes BENCH PREFIX@      the facts whose names begin with it, without it: rows, contenders
 *   @table BENCH SIZE PAGES@  rows downwards, contenders across: medians
 *   @spread BENCH SIZE PAGES@ the same with the least and the most
 *   @figures BENCH@           a line per figure
 *   @goals@                   all goals, and whether they were reached
 *
 * Numbers have three digits: more would promise what no machine keeps.
 */
#include "bench/bench.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 128, LINE_MAX_BYTES = 4096 };

static cJSON *all; /* the objects of all files */

/* ---------------------------------------------------------------- reading --------------- */

static char *whole_file(const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        bench_fail("%s: %s", path, strerror(errno));
    size_t size = (size_t)ftell(f);
    char *text = bench_memory(size + 1, 1);
    rewind(f);
    if (fread(text, 1, size, f) != size)
        bench_fail("%s can't be read", path);
    fclose(f);
    return text;
}

static void add_file(const char *path)
{
    char *text = whole_file(path);
    cJSON *file = cJSON_Parse(text), *one;
    if (!cJSON_IsArray(file))
        bench_fail("%s holds no figures", path);
    while ((one = cJSON_DetachItemFromArray(file, 0)))
        cJSON_AddItemToArray(all, one);
    cJSON_Delete(file);
    free(text);
}

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static double number_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static bool is(const cJSON *object, const char *key, const char *text)
{
    return strcmp(text_of(object, key), text) == 0;
}

static bool has(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key) != NULL;
}

/* ---------------------------------------------------------------- numbers --------------- */

/* 1234567 -> 1,234,567; 12.34 -> 12.3 */
static const char *pretty(double value, char text[32])
{
    char digits[32];
    if (value < 100) {
        snprintf(text, 32, "%.*f", value < 0.995 ? 3 : value < 9.95 ? 2 : 1, value);
        return text;
    }
    double unit = 1;
    while (value / unit >= 1000)
        unit *= 10;
    int n = snprintf(digits, sizeof digits, "%.0f", (double)(long long)(value / unit + 0.5) * unit),
        at = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = 0;
    return text;
}

static void print_number(double value)
{
    char text[32];
    printf("%s", pretty(value, text));
}

/* ---------------------------------------------------------------- tables ---------------- */

/* Names in the order in which they first come. */
struct names {
    const char *all[NAMES_MAX];
    size_t count;
};

static void add_name(struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->all[i], name) == 0)
            return;
    if (names->count == NAMES_MAX)
        bench_fail("more than %d different names", NAMES_MAX);
    names->all[names->count++] = name;
}

struct choice {
    char bench[32], pages[16];
    double size;
};

static bool chosen(const cJSON *one, const struct choice *c)
{
    return has(one, "row") && is(one, "bench", c->bench) && is(one, "pages", c->pages) &&
           number_of(one, "size") == c->size;
}

static const cJSON *cell(const struct choice *c, const char *row, const char *contender)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, all)
        if (chosen(one, c) && is(one, "row", row) && is(one, "contender", contender))
            return one;
    return NULL;
}

static void print_cell(const cJSON *one, bool spread)
{
    printf(" | ");
    if (!one) {
        printf("–");
        return;
    }
    print_number(number_of(one, "median"));
    if (!spread)
        return;
    printf(" (");
    print_number(number_of(one, "low"));
    printf("–");
    print_number(number_of(one, "high"));
    printf(")");
}

static void print_table_row(const struct choice *c, const char *row, const struct names *contenders,
                            bool spread)
{
    const char *unit = "";
    for (size_t i = 0; i < contenders->count; i++)
        if (cell(c, row, contenders->all[i]))
            unit = text_of(cell(c, row, contenders->all[i]), "unit");
    printf("| %s, %s", row, unit);
    for (size_t i = 0; i < contenders->count; i++)
        print_cell(cell(c, row, contenders->all[i]), spread);
    printf(" |\n");
}

static void print_table(const struct choice *c, bool spread)
{
    struct names rows = { 0 }, contenders = { 0 };
    const cJSON *one;
    cJSON_ArrayForEach(one, all) {
        if (!chosen(one, c))
            continue;
        add_name(&rows, text_of(one, "row"));
        add_name(&contenders, text_of(one, "contender"));
    }
    if (!rows.count) {
        printf("(not measured in this run)\n");
        return;
    }
    printf("| row");
    for (size_t i = 0; i < contenders.count; i++)
        printf(" | %s", contenders.all[i]);
    printf(" |\n| ---");
    for (size_t i = 0; i < contenders.count; i++)
        printf(" | ---:");
    printf(" |\n");
    for (size_t i = 0; i < rows.count; i++)
        print_table_row(c, rows.all[i], &contenders, spread);
}

/* ---------------------------------------------------------------- lists ----------------- */

static bool begins(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static void print_notes(const char *bench, const char *prefix)
{
    const cJSON *one;
    const char *before = "| | |\n| --- | --- |\n";
    cJSON_ArrayForEach(one, all) {
        const char *name = text_of(one, "fact");
        if (!has(one, "fact") || !is(one, "bench", bench) || !begins(name, prefix) ||
            (!*prefix && strchr(name, ':')))
            continue;
        printf("%s| %s | %s |\n", before, name + strlen(prefix), text_of(one, "text"));
        before = "";
    }
    if (*before)
        printf("(nothing)\n");
}

static void print_figures(const char *bench)
{
    const cJSON *one;
    printf("| row | contender | sessions | unit | median | low | high | ratio |\n"
           "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |\n");
    cJSON_ArrayForEach(one, all) {
        if (!has(one, "row") || !is(one, "bench", bench))
            continue;
        printf("| %s | %s | ", text_of(one, "row"), text_of(one, "contender"));
        print_number(number_of(one, "size"));
        printf(" | %s", text_of(one, "unit"));
        print_cell(one, false);
        printf(" | ");
        print_number(number_of(one, "low"));
        printf(" | ");
        print_number(number_of(one, "high"));
        printf(" | ");
        if (has(one, "ratio"))
            print_number(number_of(one, "ratio"));
        printf(" |\n");
    }
}

static void print_goals(void)
{
    const cJSON *one;
    printf("| goal | sessions | pages | limit | reached | verdict |\n"
           "| --- | ---: | --- | ---: | ---: | --- |\n");
    cJSON_ArrayForEach(one, all) {
        if (!has(one, "goal"))
            continue;
        printf("| %s | ", text_of(one, "goal"));
        if (number_of(one, "size") > 0)
            print_number(number_of(one, "size"));
        printf(" | %s | ", text_of(one, "pages"));
        print_number(number_of(one, "limit"));
        printf(" | ");
        if (number_of(one, "reached") >= 0)
            print_number(number_of(one, "reached"));
        printf(" | %s |\n", text_of(one, "verdict"));
    }
}

/* ---------------------------------------------------------------- the template ---------- */

/* True: the line was a directive, and has been replaced. */
static bool replace(const char *line)
{
    char word[16] = "", prefix[32] = "";
    struct choice c = { .pages = "4k" };
    if (line[0] != '@' || sscanf(line, "@%15[a-z] %31[^ @\n]", word, c.bench) < 1)
        return false;
    if (strcmp(word, "facts") == 0)
        print_notes(c.bench, "");
    else if (strcmp(word, "notes") == 0 && sscanf(line, "@%*s %*s %31[^@\n]", prefix) == 1)
        print_notes(c.bench, prefix);
    else if (strcmp(word, "figures") == 0)
        print_figures(c.bench);
    else if (strcmp(word, "goals") == 0)
        print_goals();
    else if (sscanf(line, "@%*s %*s %lf %15[^ @\n]", &c.size, c.pages) >= 1)
        print_table(&c, strcmp(word, "spread") == 0);
    else
        bench_fail("the template says what nobody understands: %s", line);
    return true;
}

static void fill_in(const char *template)
{
    char line[LINE_MAX_BYTES];
    FILE *f = fopen(template, "r");
    if (!f)
        bench_fail("%s: %s", template, strerror(errno));
    while (fgets(line, sizeof line, f))
        if (!replace(line))
            fputs(line, stdout);
    fclose(f);
}

static void print_tsv(void)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, all)
        if (has(one, "row"))
            printf("%s\t%s\t%s\t%.0f\t%s\t%.6g\t%.6g\t%.6g\t%s\n", text_of(one, "bench"),
                   text_of(one, "row"), text_of(one, "contender"), number_of(one, "size"),
                   text_of(one, "pages"), number_of(one, "median"), number_of(one, "low"),
                   number_of(one, "high"), text_of(one, "unit"));
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s TEMPLATE|--tsv FILE...\n", argv[0]);
        return 64;
    }
    all = cJSON_CreateArray();
    for (int i = 2; i < argc; i++)
        add_file(argv[i]);
    if (strcmp(argv[1], "--tsv") == 0)
        print_tsv();
    else
        fill_in(argv[1]);
    cJSON_Delete(all);
    return 0;
}
