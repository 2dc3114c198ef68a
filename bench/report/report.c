/*
 * From the benchmarks' figures (bench/results.h) to what people read.
 *
 *     report TEMPLATE FILE...   the template, in which a line @name arguments@ becomes a table
 *     report --tsv FILE...      a line per figure, for gnuplot
 *
 *   @facts BENCH@             what is known about a run: the machine, the rounds
 *   @notes BENCH PREFIX@      the facts whose names begin with it, without it: rows, contenders
 *   @table BENCH SIZE PAGES [CONTENDER...]@
 *                             rows downwards, contenders (all, or these) across: medians
 *   @spread ...@              the same with the least and the most
 *   @tables BENCH@            a table for each size
 *   @figures BENCH@           a line per figure
 *   @goals BENCH@             goals, and whether they were reached
 *   @missed@ ... @end@        those that were missed, and why (goals.h)
 */
#include "bench/bench.h"
#include "bench/report/goals.h"
#include "bench/report/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 4096 };

static void replace_table(char *arguments, bool spread)
{
    struct choice c = { .pages = "4k" };
    int used = 0;
    if (sscanf(arguments, "%31s %lf %15s%n", c.bench, &c.size, c.pages, &used) != 3)
        bench_fail("a table needs a benchmark, a size and pages: %s", arguments);
    for (char *name = strtok(arguments + used, " "); name; name = strtok(NULL, " "))
        add_name(&c.contenders, name);
    print_table(&c, spread);
}

static void replace_notes(const char *arguments)
{
    char bench[32] = "", prefix[64] = "";
    sscanf(arguments, "%31s %63[^\n]", bench, prefix);
    print_notes(bench, prefix);
}

/* True: the line was a directive, and has been replaced. */
static bool replace(char *line, FILE *template)
{
    char name[16] = "";
    int used = 0;
    if (line[0] != '@' || sscanf(line, "@%15[a-z]%n", name, &used) != 1)
        return false;
    char *arguments = line + used + (line[used] == ' ');
    arguments[strcspn(arguments, "@\n")] = 0;
    if (strcmp(name, "facts") == 0)
        print_notes(arguments, "");
    else if (strcmp(name, "notes") == 0)
        replace_notes(arguments);
    else if (strcmp(name, "table") == 0 || strcmp(name, "spread") == 0)
        replace_table(arguments, strcmp(name, "spread") == 0);
    else if (strcmp(name, "tables") == 0)
        print_tables(arguments);
    else if (strcmp(name, "figures") == 0)
        print_figures(arguments);
    else if (strcmp(name, "goals") == 0)
        print_goals(arguments);
    else if (strcmp(name, "missed") == 0)
        print_missed(template);
    else
        bench_fail("the template says what nobody understands: %s", line);
    return true;
}

static void fill_in(const char *path)
{
    char line[LINE_BYTES];
    FILE *template = fopen(path, "r");
    if (!template)
        bench_fail("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, template))
        if (!replace(line, template))
            fputs(line, stdout);
    fclose(template);
}

static void print_tsv(void)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
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
    figures_read(argv + 2, argc - 2);
    if (strcmp(argv[1], "--tsv") == 0)
        print_tsv();
    else
        fill_in(argv[1]);
    cJSON_Delete(all_figures);
    return 0;
}
