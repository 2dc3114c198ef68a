#include "bench/table/rows.h"

#include <stdlib.h>

/* bench/instructions counts what is measured, and nothing around it. */
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_STOP_INSTRUMENTATION
#endif

enum {
    KEYS_MIN = 1 << 14,
    KEYS_MAX = 1 << 21,
    CALIBRATION = 8,         /* a calibrating run takes this part of a measurement, at least */
    PIECE_OF_RATE = 256,     /* operations between two looks at the clock                    */
    PIECE_OF_SERVER = 8,
    SAMPLES = 20000,         /* what a p99.9 can be told from                                */
    SAMPLES_OF_SERVER = 2000,
    SAMPLES_MIN = 200,
    LATENCY_TIMES = 50,      /* at most so many times as long as a loop, who ever waits for whom */
    WARM_SESSIONS = 100000,  /* W1                                                           */
    WARM_OF_LARGE = 1000,    /* operations, to have code and stack at hand                   */
    WARM_OF_SERVER = 100
};

const struct row rows[] = {
    { "get-view", "find a session, read two words of its record in place", MEASURE_LOOP,
      OPERATION_VIEW, KEYS_PRESENT, 1, true },
    { "get-view-zipf", "the same, a few sessions wanted very often (Zipf, 0.99)", MEASURE_LOOP,
      OPERATION_VIEW, KEYS_ZIPF, 1, false },
    { "get-copy", "find a session, copy all of it out", MEASURE_LOOP, OPERATION_COPY, KEYS_PRESENT,
      1, true },
    { "get-copy-zipf", "the same, Zipf", MEASURE_LOOP, OPERATION_COPY, KEYS_ZIPF, 1, false },
    { "get-miss", "look for a session that is not there", MEASURE_LOOP, OPERATION_MISS, KEYS_ABSENT,
      1, true },
    { "get-dependent", "as get-view, each handle depending on the record before: latency",
      MEASURE_LOOP, OPERATION_DEPENDENT, KEYS_PRESENT, 1, true },
    { "get-dependent-zipf", "the same, Zipf", MEASURE_LOOP, OPERATION_DEPENDENT, KEYS_ZIPF, 1,
      false },
    { "get-batch", "100 sessions asked for together; per session", MEASURE_LOOP, OPERATION_BATCH,
      KEYS_PRESENT, 1, true },
    { "touch", "raise last-seen (8 bytes)", MEASURE_LOOP, OPERATION_TOUCH, KEYS_PRESENT, 1, true },
    { "metadata-set", "replace a 16-byte value; readers see the old or the new", MEASURE_LOOP,
      OPERATION_SET, KEYS_PRESENT, 1, false },
    { "insert+remove", "a new session comes and goes, reclaiming included", MEASURE_LOOP,
      OPERATION_INSERT_REMOVE, KEYS_ABSENT, 1, false },
    { "scan", "walk over all sessions, reading two words of each; per session", MEASURE_LOOP,
      OPERATION_SCAN, KEYS_WHOLE, 1, true },
    { "by-player", "find the sessions of a player by name; each has one", MEASURE_LOOP,
      OPERATION_BY_PLAYER, KEYS_PRESENT, 1, false },
    { "mix-1", "95 % get-view, 5 % touch, one worker", MEASURE_RATE, OPERATION_MIX, KEYS_PRESENT, 1,
      false },
    { "mix-2", "the same, two workers on two processors, together", MEASURE_RATE, OPERATION_MIX,
      KEYS_PRESENT, 2, false },
    { "mix-2-zipf", "the same, Zipf", MEASURE_RATE, OPERATION_MIX, KEYS_ZIPF, 2, false },
    { "latency",
      "each get-view on the clock, whose own time is in it: idle, alone; hammered, while a second "
      "worker touches and sets the same sessions without pause",
      MEASURE_LATENCY, OPERATION_VIEW, KEYS_PRESENT, 2, false },
    { "bytes", "memory per session, everything counted", MEASURE_BYTES, OPERATION_VIEW,
      KEYS_PRESENT, 1, false },
};
const size_t row_count = sizeof rows / sizeof *rows;

/* What a latency row is in parts. */
static const char *const parts[] = { "idle-p50",     "idle-p99",     "idle-p99.9",
                                     "hammered-p50", "hammered-p99", "hammered-p99.9" };
static const double quantiles[] = { 0.5, 0.99, 0.999 };
enum { PARTS = sizeof parts / sizeof *parts, QUANTILES = sizeof quantiles / sizeof *quantiles };

/* ---------------------------------------------------------------- keys ------------------ */

struct key_sets key_sets_new(size_t sessions)
{
    size_t count = sessions < KEYS_MIN ? KEYS_MIN : sessions > KEYS_MAX ? KEYS_MAX : sessions;
    uint64_t seed = bench_seed();
    return (struct key_sets){ {
        [KEYS_PRESENT] = keys_uniform(count, 1, sessions, seed),
        [KEYS_ZIPF] = keys_zipf(count, sessions, seed + 1),
        [KEYS_ABSENT] = keys_uniform(count, sessions + 1, sessions, seed + 2),
        [KEYS_WHOLE] = { .count = sessions },
    } };
}

void key_sets_free(struct key_sets *sets)
{
    for (size_t i = 0; i < KEY_KINDS; i++)
        keys_free(&sets->of[i]);
}

/* ---------------------------------------------------------------- one measurement ------- */

/* One contender's row: its operation, its keys, and how many of them a measurement takes. */
struct lane {
    const struct open_table *open;
    operation_fn *operation;
    enum operation number;
    const struct keys *keys;
    size_t at, count; /* at: the next key, so that rounds go on where the last ended */
    size_t warm;
    bool absent;      /* the keys are not there */
    double values[PARTS][ROUNDS_MAX];
};

static volatile uint64_t sink; /* what was read is used */

/* The next COUNT keys at most; fewer where the keys begin again. */
static struct keys next_keys(struct lane *lane, size_t count)
{
    const struct keys *all = lane->keys;
    size_t left = all->count - lane->at, n = left < count ? left : count;
    struct keys part = { .count = n };
    if (all->handles)
        part = (struct keys){ all->handles + lane->at, all->players + lane->at, n };
    lane->at = (lane->at + n) % all->count;
    return part;
}

/* Nanoseconds that the operations on these keys take. */
static uint64_t clocked(struct lane *lane, const struct keys *keys)
{
    const struct contender *c = lane->open->contender;
    if (c->clocked)
        return c->clocked(lane->open->table, lane->number, keys);
    uint64_t start = bench_clock();
    sink += lane->operation(lane->open->table, keys);
    return bench_clock() - start;
}

static uint64_t run(struct lane *lane, size_t count)
{
    uint64_t ns = 0;
    while (count) {
        struct keys part = next_keys(lane, count);
        ns += clocked(lane, &part);
        count -= part.count;
    }
    return ns ? ns : 1;
}

static bool is_server(const struct lane *lane)
{
    return lane->open->contender->scope == SCOPE_SERVER;
}

/* W1: how many operations go before what is measured. */
static size_t warm_count(const struct lane *lane, size_t sessions)
{
    if (is_server(lane))
        return lane->keys->handles ? WARM_OF_SERVER : 0;
    if (sessions <= WARM_SESSIONS)
        return lane->keys->count;
    return lane->keys->handles ? WARM_OF_LARGE : 0;
}

/* Looks at what will be measured: gets, of handles that are there or not; a walk for a scan. */
static void warm_up(struct lane *lane)
{
    struct lane looking = *lane;
    operation_fn *const *operations = lane->open->contender->operations;
    if (!is_server(lane) && lane->keys->handles) {
        looking.number = lane->absent ? OPERATION_MISS : OPERATION_VIEW;
        looking.operation = operations[looking.number];
    }
    run(&looking, lane->warm);
    lane->at = looking.at;
}

/* As many operations as take NS, in whole walks over the table for a scan. */
static void calibrate(struct lane *lane, uint64_t ns, size_t step)
{
    uint64_t took;
    bench_subject(lane->open->contender->name);
    warm_up(lane);
    for (lane->count = step; (took = run(lane, lane->count)) < ns / CALIBRATION;)
        lane->count *= 2;
    double count = (double)lane->count * (double)ns / (double)took;
    lane->count = count < (double)step ? step : (size_t)(count / (double)step) * step;
}

static void measure_loop(struct lane *lane, size_t round)
{
    warm_up(lane);
    CALLGRIND_START_INSTRUMENTATION;
    uint64_t ns = run(lane, lane->count);
    CALLGRIND_STOP_INSTRUMENTATION;
    lane->values[0][round] = (double)ns / (double)lane->count;
}

/* Operations per microsecond that this worker does alone. */
static double own_rate(struct lane *lane, uint64_t ns)
{
    const size_t piece = is_server(lane) ? PIECE_OF_SERVER : PIECE_OF_RATE;
    uint64_t start = bench_clock(), now = start;
    size_t done = 0;
    for (; now < start + ns; now = bench_clock()) {
        struct keys part = next_keys(lane, piece);
        sink += lane->operation(lane->open->table, &part);
        done += part.count;
    }
    return 1000.0 * (double)done / (double)(now - start);
}

static void measure_rate(struct lane *lane, size_t round, const struct row *row, uint64_t ns)
{
    const struct open_table *o = lane->open;
    if (o->contender->mixed) {
        struct keys some = next_keys(lane, KEYS_MIN);
        lane->values[0][round] = o->contender->mixed(o->table, &some, row->workers, ns);
        return;
    }
    warm_up(lane);
    if (row->workers > 1)
        partner_begin(o->partner, JOB_MIX, lane->keys, lane->warm);
    double rate = own_rate(lane, ns);
    lane->values[0][round] = row->workers > 1 ? rate + partner_end(o->partner) : rate;
}

/* Each get on the clock; how many there were. */
static size_t sample(struct lane *lane, uint64_t ns, double samples[SAMPLES])
{
    const size_t most = is_server(lane) ? SAMPLES_OF_SERVER : SAMPLES;
    uint64_t start = bench_clock(), now = start;
    size_t count = 0;
    while (count < most && (count < SAMPLES_MIN || now - start < LATENCY_TIMES * ns)) {
        struct keys one = next_keys(lane, 1);
        uint64_t before = bench_clock();
        sink += lane->operation(lane->open->table, &one);
        now = bench_clock();
        samples[count++] = (double)(now - before);
    }
    return count;
}

/* Keeps the quantiles of many gets as parts FIRST and on. */
static void measure_gets(struct lane *lane, size_t round, uint64_t ns, size_t first)
{
    static double samples[SAMPLES];
    size_t count = sample(lane, ns, samples);
    spread_of(samples, count); /* sorts them */
    for (size_t i = 0; i < QUANTILES; i++)
        lane->values[first + i][round] = quantile(samples, count, quantiles[i]);
}

static bool can_be_hammered(const struct open_table *o)
{
    return o->partner && o->contender->operations[OPERATION_SET];
}

static void measure_hammered(struct lane *lane, size_t round, uint64_t ns)
{
    struct partner *partner = lane->open->partner;
    if (!can_be_hammered(lane->open))
        return;
    warm_up(lane);
    partner_begin(partner, JOB_HAMMER, lane->keys, lane->warm);
    measure_gets(lane, round, ns, QUANTILES);
    partner_end(partner);
}

/* W2 */
static void measure_latency(struct lane *lane, size_t round, uint64_t ns)
{
    if (round % 2)
        measure_hammered(lane, round, ns);
    warm_up(lane);
    measure_gets(lane, round, ns, 0);
    if (round % 2 == 0)
        measure_hammered(lane, round, ns);
}

/* ---------------------------------------------------------------- a row ----------------- */

static bool takes_part(const struct open_table *o, const struct row *row,
                       const struct circumstances *now)
{
    const struct contender *c = o->contender;
    if (now->huge && !c->reference)
        return false;
    switch (row->measure) {
    case MEASURE_LOOP:
        return c->operations[row->operation] &&
               !(row->operation == OPERATION_SCAN && c->walk_max && now->sessions > c->walk_max);
    case MEASURE_RATE:
        return c->mixed || (c->operations[OPERATION_MIX] && (row->workers == 1 || o->partner));
    case MEASURE_LATENCY:
        return c->operations[OPERATION_VIEW] && !c->clocked;
    default:
        return o->bytes != 0;
    }
}

static void measure(struct lane *lane, const struct row *row, size_t round,
                    const struct circumstances *c)
{
    bench_subject(lane->open->contender->name);
    switch (row->measure) {
    case MEASURE_LOOP:
        measure_loop(lane, round);
        break;
    case MEASURE_RATE:
        measure_rate(lane, round, row, c->ns);
        break;
    case MEASURE_LATENCY:
        measure_latency(lane, round, c->ns);
        break;
    case MEASURE_BYTES:
        lane->values[0][round] = (double)lane->open->bytes / (double)c->sessions;
        break;
    }
}

/* How many values a round has. */
static size_t parts_of(const struct lane *lane, const struct row *row)
{
    if (row->measure != MEASURE_LATENCY)
        return 1;
    return can_be_hammered(lane->open) ? PARTS : QUANTILES;
}

static void add_figures(const struct lane *lane, const struct row *row,
                        const struct circumstances *c)
{
    const char *const units[] = { "ns", "M/s", "ns", "B" };
    for (size_t i = 0; i < parts_of(lane, row); i++) {
        struct figure f = { .contender = lane->open->contender->name, .unit = units[row->measure],
                            .sessions = c->sessions, .huge = c->huge, .group = c->group,
                            .rounds = c->rounds };
        snprintf(f.row, sizeof f.row, "%s",
                 row->measure == MEASURE_LATENCY ? parts[i] : row->name);
        memcpy(f.values, lane->values[i], sizeof f.values);
        figures_add(&f);
    }
}

static size_t make_lanes(struct lane *lanes, const struct row *row, const struct open_table *tables,
                         size_t count, const struct circumstances *c)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (takes_part(&tables[i], row, c))
            lanes[n++] =
                (struct lane){ .open = &tables[i],
                               .number = row->operation,
                               .operation = tables[i].contender->operations[row->operation],
                               .keys = &c->keys->of[row->keys],
                               .absent = row->keys == KEYS_ABSENT };
    for (size_t i = 0; i < n && !c->count; i++)
        lanes[i].warm = warm_count(&lanes[i], c->sessions);
    return n;
}

void row_measure(const struct row *row, const struct open_table *tables, size_t count,
                 const struct circumstances *c)
{
    struct lane *lanes = bench_memory(count, sizeof *lanes);
    size_t n = make_lanes(lanes, row, tables, count, c);
    const size_t step = row->keys == KEYS_WHOLE ? c->sessions : 1;
    for (size_t i = 0; i < n && row->measure == MEASURE_LOOP; i++)
        if (c->count)
            lanes[i].count = c->count;
        else
            calibrate(&lanes[i], c->ns, step);
    for (size_t round = 0; round < c->rounds; round++)
        for (size_t i = 0; i < n; i++)
            measure(&lanes[round % 2 ? n - 1 - i : i], row, round, c);
    for (size_t i = 0; i < n; i++)
        add_figures(&lanes[i], row, c);
    figures_show(c->results);
    free(lanes);
}
