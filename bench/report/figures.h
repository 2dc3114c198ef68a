/*
 * The objects of all files of figures (bench/results.h), and how their numbers are printed: three
 * digits, since more would promise what no machine keeps.
 */
#ifndef BENCH_REPORT_FIGURES_H
#define BENCH_REPORT_FIGURES_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

extern cJSON *all_figures;

/* Reads them; fails if one is no file of figures. */
void figures_read(char **paths, int count);

const char *text_of(const cJSON *object, const char *key);  /* "" if there is none */
double number_of(const cJSON *object, const char *key);     /* 0 if there is none  */
bool is(const cJSON *object, const char *key, const char *text);
bool has(const cJSON *object, const char *key);
bool begins(const char *text, const char *start);

/* 1234567 -> 1,230,000; 12.34 -> 12.3 */
void print_number(double value);

/* Names in the order in which they first come. */
enum { NAMES_MAX = 128 };
struct names {
    const char *all[NAMES_MAX];
    size_t count;
};
void add_name(struct names *names, const char *name);

/* Numbers in rising order, each once. */
enum { SIZES_MAX = 16 };
struct sizes {
    double all[SIZES_MAX];
    size_t count;
};
void add_size(struct sizes *sizes, double size);

#endif
