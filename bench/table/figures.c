#include "bench/table/figures.h"

#include <stdlib.h>
#include <string.h>

static struct figure *figures;
static size_t count, shown;

const struct figure *figures_find(const char *row, const char *contender, size_t sessions,
                                  bool huge, int group)
{
    for (const struct figure *f = figures; f < figures + count; f++)
        if (f->sessions == sessions && f->huge == huge && strcmp(f->row, row) == 0 &&
            strcmp(f->contender, contender) == 0 &&
            (group == ANY_GROUP || f->group == (unsigned)group))
            return f;
    return NULL;
}

static struct spread spread_in(const struct figure *f)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, f->values, sizeof sorted);
    return spread_of(sorted, f->rounds);
}

double figure_median(const struct figure *f)
{
    return spread_in(f).median;
}

/* ---------------------------------------------------------------- showing --------------- */

static const char *const peers[][2] = { { "sesstab", "vs_sesstab" },
                                        { "lfht-memb", "vs_lfht" },
                                        { "seqlock", "vs_seqlock" } };
enum { PEERS = sizeof peers / sizeof *peers };

void figures_print_header(void)
{
    printf("%-9s %-18s %-5s %-10s %10s %10s %10s %-4s", "sessions", "row", "pages", "table",
           "median", "min", "max", "unit");
    for (size_t i = 0; i < PEERS; i++)
        printf(" %10s", peers[i][1]);
    putchar('\n');
}

static void show(const struct figure *f, struct results *results)
{
    struct spread s = spread_in(f);
    printf("%-9zu %-18s %-5s %-10s %10.1f %10.1f %10.1f %-4s", f->sessions, f->row,
           f->huge ? "huge" : "4k", f->contender, s.median, s.min, s.max, f->unit);
    results_figure(results, f->row, f->contender, f->sessions, f->unit, s);
    results_text(results, "pages", f->huge ? "huge" : "4k");
    results_number(results, "rounds", (double)f->rounds);
    for (size_t i = 0; i < PEERS; i++) {
        const struct figure *peer =
            figures_find(f->row, peers[i][0], f->sessions, f->huge, (int)f->group);
        if (!peer) {
            printf(" %10s", "-");
            continue;
        }
        double ratio = ratio_of(f->values, peer->values, f->rounds);
        printf(" %10.2f", ratio);
        results_number(results, peers[i][1], ratio);
    }
    putchar('\n');
}

void figures_add(const struct figure *f)
{
    figures = realloc(figures, (count + 1) * sizeof *figures);
    if (!figures)
        bench_fail("out of memory for %zu figures", count + 1);
    figures[count++] = *f;
}

void figures_show(struct results *results)
{
    for (; shown < count; shown++) {
        const struct figure *f = &figures[shown];
        if (figures_find(f->row, f->contender, f->sessions, f->huge, ANY_GROUP) == f)
            show(f, results);
    }
}
