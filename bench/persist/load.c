/*
 * All sessions at once: from a server that inserts them to Redis; compared with Redis by a new
 * persister; written once more after Redis has lost everything; and from Redis into a fresh table.
 * Beside the last two a program that pipelines the same commands, 1,024 sessions at a time, and
 * does nothing with the answers.  Measured once each.
 */
#include "bench/persist/direct.h"
#include "bench/persist/rows.h"

#include <string.h>

enum { DEPTH = 1024, LOOK_US = 50000 };

static double since(uint64_t start)
{
    return (double)(bench_clock() - start) / 1e9;
}

static void put(const struct plan *plan, const char *row, const char *contender, double seconds)
{
    output_single(row, contender, plan->fill, "per-s", (double)plan->fill / seconds);
}

static size_t members(const struct stage *s)
{
    return ask_redis_number(s->connection, "SCARD " STAGE_PREFIX ":conn:active");
}

static void fill(struct stage *s, const struct plan *plan)
{
    uint64_t start = bench_clock();
    put(plan, "insert-and-bind", "sesstab", stage_insert(s, plan->fill));
    stage_settle(s, "sessions in Redis");
    put(plan, "insert-to-redis", "sesstab", since(start));
}

static bool log_says(const char *text)
{
    char path[SANDBOX_PATH_MAX], line[1024];
    bool found = false;
    sandbox_path(path, "persister.log");
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return found;
}

/* A persister takes over a table that survived: from its start until it has compared everything. */
static void compare(struct stage *s, const struct plan *plan)
{
    stage_stop_persister(s);
    uint64_t start = bench_clock();
    stage_start_persister(s);
    for (; !log_says("event=compared"); bench_pause_us(LOOK_US))
        sandbox_must_live(s->persister, "persister.log");
    put(plan, "compare", "sesstab", since(start));
}

/* From the loss, which the persister first has to notice, until Redis has everything again. */
static void resync(struct stage *s, const struct plan *plan)
{
    struct progress progress = { .what = "written again", .total = plan->fill };
    freeReplyObject(ask_redis(s->connection, "FLUSHALL"));
    uint64_t start = bench_clock();
    for (size_t there; (there = members(s)) < plan->fill; bench_pause_us(LOOK_US)) {
        sandbox_must_live(s->persister, "persister.log");
        progress_show(&progress, there);
    }
    put(plan, "resync", "sesstab", since(start));
    progress_show(&progress, plan->fill);
    stage_settle(s, NULL);
}

static size_t sessions_in(sesstab *table)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    size_t count = 0;
    while (sesstab_next(table, &cursor, &view) == SESSTAB_OK)
        count++;
    return count;
}

static void load(struct stage *s, const struct plan *plan)
{
    struct progress progress = { .what = "loaded", .total = plan->fill };
    stage_stop_persister(s);
    stage_renew_table(s);
    uint64_t start = bench_clock();
    stage_start_persister(s);
    while (sesstab_wait_ready(s->table, 1000) != SESSTAB_OK) {
        sandbox_must_live(s->persister, "persister.log");
        progress_show(&progress, sessions_in(s->table));
    }
    put(plan, "load", "sesstab", since(start));
    s->sessions = sessions_in(s->table);
    progress_show(&progress, s->sessions);
    if (s->sessions != plan->fill)
        bench_fail("%zu of %zu sessions were loaded", s->sessions, plan->fill);
    stage_settle(s, "detached sessions in Redis");
}

static void check_some(const struct stage *s, uint64_t random)
{
    for (int i = 0; i < 100; i++)
        stage_check(s, 1 + bench_random(&random) % s->sessions);
}

void row_load(const struct plan *plan)
{
    struct stage s;
    stage_open(&s, false);
    fill(&s, plan);
    compare(&s, plan);
    resync(&s, plan);
    check_some(&s, plan->seed);
    load(&s, plan);
    check_some(&s, plan->seed);
    fprintf(stderr, "the same commands, pipelined ...\n");
    put(plan, "resync", "raw-1024", direct_drain(s.connection, direct_record, plan->fill, DEPTH));
    put(plan, "load", "raw-1024", direct_drain(s.connection, direct_load, plan->fill, DEPTH));
    stage_close(&s);
}
