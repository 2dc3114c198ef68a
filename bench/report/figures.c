#include "bench/report/figures.h"

#include "bench/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

cJSON *all_figures;

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
        cJSON_AddItemToArray(all_figures, one);
    cJSON_Delete(file);
    free(text);
}

void figures_read(char **paths, int count)
{
    all_figures = cJSON_CreateArray();
    for (int i = 0; i < count; i++)
        add_file(paths[i]);
}

const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : "";
}

double number_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

bool is(const cJSON *object, const char *key, const char *text)
{
    return strcmp(text_of(object, key), text) == 0;
}

bool has(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key) != NULL;
}

bool begins(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* ---------------------------------------------------------------- numbers --------------- */

static void print_large(double value)
{
    double unit = 1;
    char digits[32];
    while (value / unit >= 1000)
        unit *= 10;
    int n = snprintf(digits, sizeof digits, "%.0f", (double)(long long)(value / unit + 0.5) * unit);
    for (int i = 0; i < n; i++)
        printf(i && (n - i) % 3 == 0 ? ",%c" : "%c", digits[i]);
}

void print_number(double value)
{
    if (value == 0)
        printf("0");
    else if (value < 100)
        printf("%.*f", value < 0.995 ? 3 : value < 9.95 ? 2 : 1, value);
    else
        print_large(value);
}

/* ---------------------------------------------------------------- names, sizes ---------- */

void add_name(struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->all[i], name) == 0)
            return;
    if (names->count == NAMES_MAX)
        bench_fail("more than %d different names", NAMES_MAX);
    names->all[names->count++] = name;
}

void add_size(struct sizes *sizes, double size)
{
    size_t at = 0;
    while (at < sizes->count && sizes->all[at] < size)
        at++;
    if (at < sizes->count && sizes->all[at] == size)
        return;
    if (sizes->count == SIZES_MAX)
        bench_fail("more than %d different sizes", SIZES_MAX);
    memmove(&sizes->all[at + 1], &sizes->all[at], (sizes->count - at) * sizeof *sizes->all);
    sizes->all[at] = size;
    sizes->count++;
}
