#include "bench/report/goals.h"

#include "bench/report/figures.h"

#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 4096 };

/* ---------------------------------------------------------------- the table ------------- */

static bool is_goal(const cJSON *one, const char *bench)
{
    return has(one, "goal") && is(one, "bench", bench);
}

static bool same_line(const cJSON *a, const cJSON *b)
{
    return is(a, "bench", text_of(b, "bench")) && is(a, "goal", text_of(b, "goal")) &&
           is(a, "pages", text_of(b, "pages"));
}

/* The first goal with this text and these pages: the line is printed when it comes. */
static bool begins_line(const cJSON *goal)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
        if (has(one, "goal") && same_line(one, goal))
            return one == goal;
    return false;
}

static const cJSON *at_size(const cJSON *goal, double size)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
        if (has(one, "goal") && same_line(one, goal) && number_of(one, "size") == size)
            return one;
    return NULL;
}

static void print_reached(const cJSON *goal)
{
    bool missed = is(goal, "verdict", "missed");
    if (number_of(goal, "reached") < 0) {
        printf("%s", text_of(goal, "verdict"));
        return;
    }
    printf(missed ? "**" : "");
    print_number(number_of(goal, "reached"));
    printf(" %s%s", text_of(goal, "verdict"), missed ? "**" : "");
    if (has(goal, "floor")) {
        printf(" (floor ");
        print_number(number_of(goal, "floor"));
        printf(")");
    }
}

static void print_line(const cJSON *goal, const struct sizes *sizes)
{
    printf("| %s%s | %g", text_of(goal, "goal"), is(goal, "pages", "huge") ? ", huge pages" : "",
           number_of(goal, "limit"));
    for (size_t i = 0; i < sizes->count; i++) {
        const cJSON *one = at_size(goal, sizes->all[i]);
        printf(" | ");
        if (one)
            print_reached(one);
    }
    printf(" |\n");
}

void print_goals(const char *bench)
{
    struct sizes sizes = { 0 };
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
        if (is_goal(one, bench))
            add_size(&sizes, number_of(one, "size"));
    if (!sizes.count) {
        printf("(Not judged in this run.)\n");
        return;
    }
    printf("| goal | limit");
    for (size_t i = 0; i < sizes.count; i++) {
        printf(" | ");
        print_number(sizes.all[i]);
    }
    printf(" |\n| --- | ---:");
    for (size_t i = 0; i < sizes.count; i++)
        printf(" | ---:");
    printf(" |\n");
    cJSON_ArrayForEach(one, all_figures)
        if (is_goal(one, bench) && begins_line(one))
            print_line(one, &sizes);
}

/* ---------------------------------------------------------------- what was missed ------- */

/* The template's text for a goal, up to the end of the section; "": there is none. */
static char *section(FILE *template)
{
    char line[LINE_BYTES], *text = calloc(1, 1);
    size_t length = 0;
    while (text && fgets(line, sizeof line, template) && strcmp(line, "@end@\n") != 0) {
        text = realloc(text, length + strlen(line) + 1);
        if (text)
            length += (size_t)sprintf(text + length, "%s", line);
    }
    if (!text)
        exit(1);
    return text;
}

/* Prints the lines below the "? " line that the goal begins with. */
static void print_explanation(const char *text, const char *goal)
{
    bool mine = false, any = false;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        int length = (int)strcspn(line, "\n");
        if (begins(line, "? ")) {
            mine = strncmp(goal, line + 2, (size_t)length - 2) == 0;
            continue;
        }
        if (mine && length)
            printf("  %.*s\n", length, line);
        any |= mine && length;
    }
    if (!any)
        printf("  Not explained yet.\n");
}

static bool missed(const cJSON *one)
{
    return has(one, "goal") && is(one, "verdict", "missed");
}

/* The first that was missed of those with its text: it speaks for all of them. */
static bool speaks(const cJSON *goal)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, all_figures)
        if (missed(one) && is(one, "bench", text_of(goal, "bench")) &&
            is(one, "goal", text_of(goal, "goal")))
            return one == goal;
    return false;
}

static void print_where_missed(const cJSON *goal)
{
    const cJSON *one;
    const char *before = "";
    printf("- **%s**, missed with ", text_of(goal, "goal"));
    cJSON_ArrayForEach(one, all_figures) {
        if (!missed(one) || !is(one, "bench", text_of(goal, "bench")) ||
            !is(one, "goal", text_of(goal, "goal")))
            continue;
        printf("%s", before);
        print_number(number_of(one, "reached"));
        printf(" at ");
        print_number(number_of(one, "size"));
        printf(is(one, "pages", "huge") ? " (huge pages)" : "");
        before = ", ";
    }
    printf(".\n");
}

void print_missed(FILE *template)
{
    char *text = section(template);
    const cJSON *one;
    bool any = false;
    cJSON_ArrayForEach(one, all_figures) {
        if (!missed(one) || !speaks(one))
            continue;
        print_where_missed(one);
        print_explanation(text, text_of(one, "goal"));
        any = true;
    }
    if (!any)
        printf("None.\n");
    free(text);
}
