/* Health; see persister_health.h. */
#include "tools/persister_health.h"

#include "tools/persister_metrics.h"
#include "tools/persister_record.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdatomic.h>

enum {
    HUNG_MS = 5000, /* without a step, besides what connecting may take */
    HTTP_OK = 200,
    HTTP_UNAVAILABLE = 503
};

/* Monotonic ms, 0: never; and an enum metric. */
static atomic_ullong stepped_at, answered_at;
static atomic_uint away_for = METRIC_ERROR_UNREACHABLE;

static __thread bool watched;

bool health_is_watched(void)
{
    return watched;
}

void health_step(void)
{
    watched = true;
    atomic_store_explicit(&stepped_at, monotonic_ms(), memory_order_relaxed);
}

void health_answered(void)
{
    atomic_store_explicit(&answered_at, monotonic_ms(), memory_order_relaxed);
}

void health_away(const char *reason)
{
    atomic_store_explicit(&away_for, metric_of_drop(reason), memory_order_relaxed);
}

static uint64_t age_of(const atomic_ullong *moment)
{
    uint64_t then = atomic_load_explicit(moment, memory_order_relaxed), now = monotonic_ms();
    return now > then ? now - then : 0;
}

uint64_t health_step_age(void)
{
    return age_of(&stepped_at);
}

double health_answer_age(void)
{
    bool never = !atomic_load_explicit(&answered_at, memory_order_relaxed);
    return never ? INFINITY : (double)age_of(&answered_at) / 1e3;
}

/* ---------------------------------------------------------------- the judgement ---------- */

struct judgement {
    int http;
    const char *status, *problem, *leader;
    bool connected;
    uint64_t lag, ticket_age, kept_back;
};

static void judge(struct judgement *j, int http, const char *status, const char *problem)
{
    if (j->problem)
        return;
    j->http = http;
    j->status = status;
    j->problem = problem;
}

/* The gravest first: one problem is said. */
static struct judgement judgement_of(const struct figures *f, const struct settings *settings)
{
    uint64_t now = sesstab_now();
    bool leads = metric_get(METRIC_LEADER);
    struct judgement j = { .leader = leads ? "me" : f->led ? "other" : "nobody",
                           .connected = leads ? metric_get(METRIC_CONNECTED)
                                              : f->led && !f->down_since,
                           .lag = figures_lag(f, now),
                           .kept_back = metric_get(METRIC_QUARANTINED) + metric_get(METRIC_PARKED) };
    if (f->oldest_ticket && f->oldest_ticket < now)
        j.ticket_age = now - f->oldest_ticket;
    if (health_step_age() > (uint64_t)settings->timeout_ms + HUNG_MS)
        judge(&j, HTTP_UNAVAILABLE, "down", "the thread that leads hangs");
    if (!leads && !f->led)
        judge(&j, HTTP_UNAVAILABLE, "down", "no persister leads the table");
    if (!f->ready)
        judge(&j, HTTP_UNAVAILABLE, "down", "the table is not ready: Redis is not loaded yet");
    if (!j.connected && f->mode != SESSTAB_MEMORY)
        judge(&j, HTTP_UNAVAILABLE, "degraded", "Redis is away");
    if (j.lag > settings->health_lag_ms)
        judge(&j, HTTP_UNAVAILABLE, "degraded", "changes wait too long until they are durable");
    if (j.kept_back)
        judge(&j, HTTP_OK, "degraded", "Redis refuses sessions; they are kept and tried again");
    if (!j.problem)
        j.http = HTTP_OK, j.status = "ok";
    return j;
}

/* ---------------------------------------------------------------- as JSON ---------------- */

static bool add_redis(cJSON *root, const struct judgement *j, const struct figures *f)
{
    char since[RECORD_TIME_BYTES];
    cJSON *redis = cJSON_AddObjectToObject(root, "redis");
    bool done = redis && cJSON_AddBoolToObject(redis, "connected", j->connected);
    if (!done || j->connected)
        return done;
    if (f->down_since) {
        format_time(since, f->down_since);
        done = cJSON_AddStringToObject(redis, "down_since", since);
    }
    if (metric_get(METRIC_LEADER) && f->mode != SESSTAB_MEMORY)
        done = done && cJSON_AddStringToObject(redis, "reason", metric_error_kind(away_for));
    return done;
}

static bool add_all(cJSON *root, const struct judgement *j, const struct figures *f)
{
    return cJSON_AddStringToObject(root, "status", j->status) &&
           cJSON_AddStringToObject(root, "mode", sesstab_mode_name((int)f->mode)) &&
           (!j->problem || cJSON_AddStringToObject(root, "problem", j->problem)) &&
           cJSON_AddBoolToObject(root, "ready", f->ready) &&
           cJSON_AddStringToObject(root, "leader", j->leader) && add_redis(root, j, f) &&
           cJSON_AddNumberToObject(root, "lag_ms", (double)j->lag) &&
           cJSON_AddNumberToObject(root, "undurable", (double)f->not_durable) &&
           cJSON_AddNumberToObject(root, "oldest_ticket_ms", (double)j->ticket_age) &&
           cJSON_AddNumberToObject(root, "kept_back", (double)j->kept_back) &&
           cJSON_AddNumberToObject(root, "step_age_ms", (double)health_step_age());
}

char *health_json(const struct figures *figures, const struct settings *settings, int *status)
{
    struct judgement j = judgement_of(figures, settings);
    cJSON *root = cJSON_CreateObject();
    *status = j.http;
    char *text = root && add_all(root, &j, figures) ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    return text;
}
