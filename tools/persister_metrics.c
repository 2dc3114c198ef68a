/* What the persister counts; see persister_metrics.h. */
#include "tools/persister_metrics.h"

#include "tools/log.h"
#include "tools/persister_health.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

static atomic_ullong values[METRIC_COUNT];

void metric_add(enum metric metric, uint64_t n)
{
    atomic_fetch_add_explicit(&values[metric], n, memory_order_relaxed);
}

void metric_set(enum metric metric, uint64_t value)
{
    atomic_store_explicit(&values[metric], value, memory_order_relaxed);
}

uint64_t metric_get(enum metric metric)
{
    return atomic_load_explicit(&values[metric], memory_order_relaxed);
}

/* ---------------------------------------------------------------- errors by kind --------- */

static const char *const kinds[] = {
#define X(metric, constant, kind) kind,
    ERROR_KINDS(X, )
#undef X
};

const char *metric_error_kind(enum metric error)
{
    return kinds[error - METRIC_ERROR_UNREACHABLE];
}

bool metric_is_of_connection(enum metric error)
{
    return error >= METRIC_ERROR_UNREACHABLE && error <= METRIC_ERROR_UNUSABLE;
}

/* "noperm" for "NOPERM this user has no permissions ..." */
static bool begins_with_code(const char *text, const char *kind)
{
    size_t length = strlen(kind);
    return *text >= 'A' && *text <= 'Z' && strncasecmp(text, kind, length) == 0 &&
           (text[length] == ' ' || text[length] == '\0');
}

enum metric metric_of_reply(const char *error)
{
    enum metric m = METRIC_ERROR_UNUSABLE + 1;
    if (strstr(error, "max number of clients")) /* whose code is ERR */
        return METRIC_ERROR_MAXCLIENTS;
    while (m < METRIC_ERROR_OTHER_REPLY && !begins_with_code(error, metric_error_kind(m)))
        m++;
    return m;
}

enum metric metric_of_drop(const char *reason)
{
    static const struct {
        const char *text;
        enum metric metric;
    } texts[] = {
        { "no answer within", METRIC_ERROR_TIMEOUT },
        { "timed out", METRIC_ERROR_TIMEOUT },
        { "Server closed the connection", METRIC_ERROR_CLOSED },
        { "Connection reset", METRIC_ERROR_CLOSED },
        { "Broken pipe", METRIC_ERROR_CLOSED },
        { "not Redis", METRIC_ERROR_GARBAGE },
        { "answered by something else", METRIC_ERROR_GARBAGE },
        { "was not queued", METRIC_ERROR_GARBAGE },
        { "did not answer", METRIC_ERROR_GARBAGE },
        { "is no number", METRIC_ERROR_GARBAGE },
        { "is no page", METRIC_ERROR_GARBAGE },
        { "are not those to what was asked", METRIC_ERROR_GARBAGE },
        { "reply is too large", METRIC_ERROR_TOO_LARGE },
        { "Connection refused", METRIC_ERROR_UNREACHABLE },
        { "No such file", METRIC_ERROR_UNREACHABLE },
        { "No route", METRIC_ERROR_UNREACHABLE },
        { "unreachable", METRIC_ERROR_UNREACHABLE },
        { "name resolution", METRIC_ERROR_UNREACHABLE },
        { "not known", METRIC_ERROR_UNREACHABLE },
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strstr(reason, texts[i].text))
            return texts[i].metric;
    /* "MULTI: NOPERM ..." */
    for (const char *quoted = reason; quoted; quoted = strstr(quoted, ": ")) {
        quoted += strncmp(quoted, ": ", 2) == 0 ? 2 : 0;
        enum metric m = metric_of_reply(quoted);
        if (m != METRIC_ERROR_OTHER_REPLY)
            return m;
    }
    return METRIC_ERROR_UNUSABLE;
}

/* ---------------------------------------------------------------- round trips ------------ */

/* Upper bounds of the buckets, microseconds and as they are written. */
#define BUCKETS(X)                                                                                 \
    X(100, "0.0001") X(250, "0.00025") X(500, "0.0005") X(1000, "0.001") X(2500, "0.0025")         \
    X(5000, "0.005") X(10000, "0.01") X(25000, "0.025") X(50000, "0.05") X(100000, "0.1")          \
    X(250000, "0.25") X(500000, "0.5") X(1000000, "1") X(2500000, "2.5") X(5000000, "5")           \
    X(10000000, "10") X(UINT64_MAX, "+Inf")

static const struct {
    uint64_t limit;
    const char *text;
} buckets[] = {
#define X(limit, text) { limit, text },
    BUCKETS(X)
#undef X
};
enum { BUCKET_COUNT = sizeof buckets / sizeof *buckets };

static atomic_ullong trips[BUCKET_COUNT], trips_us;

void metric_round_trip(uint64_t microseconds)
{
    size_t i = 0;
    while (microseconds > buckets[i].limit)
        i++;
    atomic_fetch_add_explicit(&trips[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&trips_us, microseconds, memory_order_relaxed);
}

static void print_round_trips(FILE *out)
{
    static const char name[] = "sesstab_redis_round_trip_seconds";
    unsigned long long count = 0;
    fprintf(out, "# HELP %s From the first byte of a group of commands sent to the last answer.\n"
                 "# TYPE %s histogram\n", name, name);
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        count += atomic_load_explicit(&trips[i], memory_order_relaxed);
        fprintf(out, "%s_bucket{le=\"%s\"} %llu\n", name, buckets[i].text, count);
    }
    fprintf(out, "%s_sum %.6f\n%s_count %llu\n", name,
            (double)atomic_load_explicit(&trips_us, memory_order_relaxed) / 1e6, name, count);
}

/* ---------------------------------------------------------------- the exposition --------- */

/* What is read when it is asked for: type, name, labels, expression, help. */
#define FIGURES(X)                                                                                 \
    X(gauge, "sesstab_build_info", "version=\"" SESSTAB_VERSION "\"", 1,                           \
      "The version of this persister")                                                             \
    X(gauge, "sesstab_ready", "", f->ready, "1 when Redis was loaded into the table")              \
    X(gauge, "sesstab_led", "", f->led, "1 while some living persister leads the table")           \
    X(gauge, "sesstab_mode", "mode=\"selective\"", f->mode == SESSTAB_SELECTIVE,                   \
      "1 for the mode that the table is in")                                                       \
    X(gauge, "sesstab_mode", "mode=\"memory\"", f->mode == SESSTAB_MEMORY,                         \
      "1 for the mode that the table is in")                                                       \
    X(gauge, "sesstab_mode", "mode=\"write-behind\"", f->mode == SESSTAB_WRITE_BEHIND,             \
      "1 for the mode that the table is in")                                                       \
    X(gauge, "sesstab_mode", "mode=\"write-through\"", f->mode == SESSTAB_WRITE_THROUGH,           \
      "1 for the mode that the table is in")                                                       \
    X(gauge, "sesstab_sessions", "state=\"connected\"", f->sessions[SESSTAB_CONNECTED],            \
      "Live sessions by state")                                                                    \
    X(gauge, "sesstab_sessions", "state=\"account\"", f->sessions[SESSTAB_ACCOUNT],                \
      "Live sessions by state")                                                                    \
    X(gauge, "sesstab_sessions", "state=\"logged-in\"", f->sessions[SESSTAB_LOGGED_IN],            \
      "Live sessions by state")                                                                    \
    X(gauge, "sesstab_sessions", "state=\"detached\"", f->sessions[SESSTAB_DETACHED],              \
      "Live sessions by state")                                                                    \
    X(gauge, "sesstab_pending_bindings", "", f->pending, "Bindings that wait for Redis")           \
    X(gauge, "sesstab_durable_lag_seconds", "", (double)figures_lag(f, now) / 1e3,                 \
      "Upper bound of the age of the oldest change that is not durable")                           \
    X(gauge, "sesstab_undurable_sessions", "", f->not_durable,                                     \
      "Sessions and deletions with a change that Redis has not acknowledged")                      \
    X(gauge, "sesstab_undurable_deletions", "", f->deletions,                                      \
      "Deletions that Redis has not acknowledged")                                                 \
    X(gauge, "sesstab_damaged_sessions", "", f->damaged, "Sessions whose record cannot be read")   \
    X(gauge, "sesstab_dirty_sessions", "", f->dirty, "Sessions announced to the leader")           \
    X(gauge, "sesstab_ring_entries", "", f->ring_entries, "Entries in the change rings")           \
    X(gauge, "sesstab_waiting_tickets", "", f->tickets, "Calls that wait for Redis")               \
    X(gauge, "sesstab_oldest_ticket_age_seconds", "",                                              \
      f->oldest_ticket && f->oldest_ticket < now ? (double)(now - f->oldest_ticket) / 1e3 : 0,     \
      "Age of the oldest call that waits for Redis")                                               \
    X(gauge, "sesstab_workers", "", f->workers, "Attached processes, persisters among them")       \
    X(gauge, "sesstab_memory_committed_bytes", "", f->committed_bytes,                             \
      "Memory taken for sessions")                                                                 \
    X(gauge, "sesstab_memory_limit_bytes", "", f->limit_bytes,                                     \
      "Memory that may be taken for sessions")                                                     \
    X(gauge, "sesstab_walk_duration_seconds", "", (double)f->walk_ms / 1e3,                        \
      "How long the walk over the table took that these numbers are of")                           \
    X(gauge, "sesstab_redis_answer_age_seconds", "", health_answer_age(),                          \
      "Time since Redis last answered this process; +Inf: never")                                  \
    X(gauge, "sesstab_leader_step_age_seconds", "", (double)health_step_age() / 1e3,               \
      "Time since the thread that leads or stands by took a step")                                 \
    X(counter, "sesstab_worker_deaths_total", "", f->deaths, "Processes that died attached")       \
    X(counter, "sesstab_recovered_places_total", "", f->recovered,                                 \
      "Places in the table that the dead left half-done, and which were mended")                   \
    X(counter, "sesstab_detached_sessions_total", "", f->detached,                                 \
      "Sessions that became detached because their owner had gone")                                \
    X(counter, "sesstab_acknowledged_changes_total", "", f->acknowledged,                          \
      "Changes that Redis acknowledged, whoever led")                                              \
    X(counter, "sesstab_refused_bindings_total", "", f->refused,                                   \
      "Bindings that Redis refused and that were rolled back, whoever led")                        \
    X(counter, "sesstab_swept_chunks_total", "", f->swept,                                         \
      "Chunks of 64 KiB looked through for what nobody announced")                                 \
    X(counter, "sesstab_dropped_log_lines_total", "", log_lines_dropped(),                         \
      "Log lines for which standard error had no room")

/* HELP and TYPE once for those of one name, which stand together. */
static void print_head(FILE *out, const char **last, const char *type, const char *name,
                       const char *help)
{
    if (*last && strcmp(*last, name) == 0)
        return;
    *last = name;
    fprintf(out, "# HELP %s %s.\n# TYPE %s %s\n", name, help, name, type);
}

static void print_value(FILE *out, const char *name, const char *labels, double value)
{
    fprintf(out, *labels ? "%s{%s} " : "%s%s ", name, labels);
    if (value > 1e18)
        fprintf(out, "+Inf\n");
    else
        fprintf(out, "%.15g\n", value);
}

void metrics_print(FILE *out, const struct figures *f, uint64_t now)
{
    const char *last = NULL;
#define X(constant, type, name, labels, help)                                                      \
    print_head(out, &last, #type, name, help);                                                     \
    print_value(out, name, labels, (double)metric_get(METRIC_##constant));
    METRICS(X)
#undef X
#define X(type, name, labels, value, help)                                                         \
    print_head(out, &last, #type, name, help);                                                     \
    print_value(out, name, labels, (double)(value));
    FIGURES(X)
#undef X
    print_round_trips(out);
}
