/* Figures as tables of markdown. */
#ifndef BENCH_REPORT_TABLES_H
#define BENCH_REPORT_TABLES_H

#include "bench/report/figures.h"

/* What of all figures a table shows; "" for figures that say nothing of pages. */
struct choice {
    char bench[32], pages[16];
    double size;
    struct names contenders; /* across; none: all that there are */
};

/* Rows downwards, contenders across: medians, and with SPREAD the least and the most. */
void print_table(const struct choice *choice, bool spread);

/* The same for each size of a benchmark. */
void print_tables(const char *bench);

/* A line per figure, those of a row one after the other. */
void print_figures(const char *bench);

/* The facts of a benchmark whose names begin with PREFIX; "": those without a colon. */
void print_notes(const char *bench, const char *prefix);

#endif
