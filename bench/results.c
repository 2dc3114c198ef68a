#include "bench/results.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct results {
    const char *bench;
    cJSON *all, *last;
};

struct results *results_new(const char *bench)
{
    struct results *r = bench_memory(1, sizeof *r);
    *r = (struct results){ bench, cJSON_CreateArray(), NULL };
    return r;
}

static void add(struct results *r)
{
    r->last = cJSON_CreateObject();
    cJSON_AddItemToArray(r->all, r->last);
    results_text(r, "bench", r->bench);
}

void results_number(struct results *r, const char *key, double number)
{
    cJSON_AddNumberToObject(r->last, key, number);
}

void results_text(struct results *r, const char *key, const char *text)
{
    cJSON_AddStringToObject(r->last, key, text);
}

void results_figure(struct results *r, const char *row, const char *contender, uint64_t size,
                    const char *unit, struct spread figure)
{
    add(r);
    results_text(r, "row", row);
    results_text(r, "contender", contender);
    results_number(r, "size", (double)size);
    results_text(r, "unit", unit);
    results_number(r, "median", figure.median);
    results_number(r, "low", figure.min);
    results_number(r, "high", figure.max);
}

void results_goal(struct results *r, const char *goal, uint64_t size, double limit, double reached,
                  const char *verdict)
{
    add(r);
    results_text(r, "goal", goal);
    results_number(r, "size", (double)size);
    results_number(r, "limit", limit);
    results_number(r, "reached", reached);
    results_text(r, "verdict", verdict);
}

void results_fact(struct results *r, const char *name, const char *text)
{
    add(r);
    results_text(r, "fact", name);
    results_text(r, "text", text);
}

static void machine_fact(const char *name, const char *text, void *results)
{
    results_fact(results, name, text);
}

void results_machine(struct results *r)
{
    bench_machine(machine_fact, r);
}

/* A line for each object. */
static void print_all(FILE *f, const cJSON *all)
{
    const cJSON *one;
    const char *before = "[\n";
    cJSON_ArrayForEach(one, all) {
        char *text = cJSON_PrintUnformatted(one);
        fprintf(f, "%s%s", before, text);
        free(text);
        before = ",\n";
    }
    fputs("\n]\n", f);
}

void results_write(struct results *r, const char *path)
{
    if (path) {
        FILE *f = fopen(path, "w");
        if (!f)
            bench_fail("%s: %s", path, strerror(errno));
        print_all(f, r->all);
        if (fclose(f) != 0)
            bench_fail("%s: %s", path, strerror(errno));
    }
    cJSON_Delete(r->all);
    free(r);
}
