/* What Redis refuses and nobody waits for; see persister_quarantine.h. */
#include "tools/persister_quarantine.h"

#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_metrics.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOUD = 8,
    HOLD_MS = 500,
    FORGET_MS = 10000,    /* a session that was not refused for so long is no news any more */
    PAUSE_MIN_MS = 200,
    PAUSE_MAX_MS = 1000,
    CALM_MS = 2000        /* without a refusal, until it is said that Redis takes writes again */
};

void quarantine_init(struct quarantine *q, struct store *store)
{
    memset(q, 0, sizeof *q);
    q->store = store;
    q->pause_ms = PAUSE_MIN_MS;
}

void quarantine_free(struct quarantine *q)
{
    free(q->parked);
    q->parked = NULL;
    q->parked_words = 0;
}

/* ---------------------------------------------------------------- one session ------------ */

static struct quarantined *find(struct quarantine *q, uint64_t handle)
{
    for (size_t i = 0; i < q->count; i++)
        if (q->sessions[i].image.handle == handle)
            return &q->sessions[i];
    return NULL;
}

static void forget(struct quarantine *q, struct quarantined *session)
{
    *session = q->sessions[--q->count];
}

/* The remembered session of HANDLE, new or not; NULL when there is no more room. */
static struct quarantined *remember(struct quarantine *q, uint64_t handle, enum refusal refusal,
                                    const char *error)
{
    struct quarantined *session = find(q, handle);
    if (session || q->count == QUARANTINE)
        return session;
    /* Many at once have one cause, which is said by then. */
    bool loud = q->count < LOUD;
    log_event(loud ? LEVEL_WARN : LEVEL_DEBUG, "session-refused", NUMBER("handle", handle),
              TEXT("kind", refusal_name(refusal)), TEXT("reason", error),
              TEXT("note", "kept; tried again"));
    session = &q->sessions[q->count++];
    session->loud = loud;
    return session;
}

static void hold(struct quarantined *session, const struct store_image *image)
{
    session->image = *image;
    session->held = true;
    session->due = monotonic_ms() + HOLD_MS;
}

/* ---------------------------------------------------------------- parking ---------------- */

static bool make_room(struct quarantine *q, size_t words)
{
    if (words <= q->parked_words)
        return true;
    uint64_t *parked = realloc(q->parked, words * sizeof *parked);
    if (!parked)
        return false;
    memset(parked + q->parked_words, 0, (words - q->parked_words) * sizeof *parked);
    q->parked = parked;
    q->parked_words = words;
    return true;
}

void quarantine_park(struct quarantine *q, const struct store_image *image)
{
    uint64_t bit = UINT64_C(1) << image->slot.at % 64;
    size_t word = image->slot.at / 64;
    if (!q->probe_at /* Redis takes writes again, by now */ || !make_room(q, word + 1)) {
        store_retry(q->store, image);
        return;
    }
    q->parked_count += !(q->parked[word] & bit);
    q->parked[word] |= bit;
}

/* Gives back up to MOST parked ones. */
static void unpark(struct quarantine *q, size_t most)
{
    for (size_t word = 0; word < q->parked_words && q->parked_count && most; word++)
        for (; q->parked[word] && most; q->parked[word] &= q->parked[word] - 1) {
            unsigned bit = (unsigned)__builtin_ctzll(q->parked[word]);
            struct store_image image = { .slot = { (uint32_t)(word * 64 + bit) } };
            store_retry(q->store, &image);
            q->parked_count--;
            most--;
        }
}

/* ---------------------------------------------------------------- everything ------------- */

static void slow_down(struct quarantine *q)
{
    uint64_t now = monotonic_ms();
    if (q->probe_at > now)
        return;
    q->probe_at = now + q->pause_ms;
    q->pause_ms = q->pause_ms * 2 < PAUSE_MAX_MS ? q->pause_ms * 2 : PAUSE_MAX_MS;
}

static void speed_up(struct quarantine *q)
{
    q->probe_at = 0;
    q->pause_ms = PAUSE_MIN_MS;
    unpark(q, SIZE_MAX);
}

bool quarantine_whole(struct quarantine *q, enum refusal refusal, const char *error)
{
    if (refusal != REFUSAL_FULL && refusal != REFUSAL_STORAGE)
        return false;
    q->last_refused_at = monotonic_ms();
    if (q->whole != refusal) {
        log_event(LEVEL_ERROR, "redis-refuses", TEXT("kind", refusal_name(refusal)),
                  TEXT("reason", error), TEXT("note", "changes are kept; bindings are refused"));
        q->since = q->last_refused_at;
    }
    q->whole = refusal;
    slow_down(q);
    return true;
}

static void overflow(struct quarantine *q)
{
    if (!q->overflowed)
        log_event(LEVEL_ERROR, "quarantine-full", NUMBER("sessions", QUARANTINE),
                  TEXT("note", "more are refused; writing slows down"));
    q->overflowed = true;
    slow_down(q);
}

static void say_calm(struct quarantine *q, uint64_t now)
{
    if (q->whole == REFUSAL_NONE || q->probe_at || now - q->last_refused_at < CALM_MS)
        return;
    log_event(LEVEL_INFO, "redis-accepts", NUMBER("refused_ms", q->last_refused_at - q->since));
    q->whole = REFUSAL_NONE;
}

/* ---------------------------------------------------------------- the calls -------------- */

void quarantine_refused(struct quarantine *q, const struct store_image *image,
                        enum refusal refusal, const char *error)
{
    bool whole = quarantine_whole(q, refusal, error);
    struct quarantined *session = whole ? NULL : remember(q, image->handle, refusal, error);
    if (whole && refusal == REFUSAL_FULL) {
        quarantine_park(q, image);
    } else if (session) {
        hold(session, image);
    } else {
        if (!whole)
            overflow(q);
        store_retry(q->store, image);
    }
}

void quarantine_accepted(struct quarantine *q, const struct store_image *image)
{
    /* A deletion is taken also where there is no memory. */
    if (q->probe_at && (q->whole != REFUSAL_FULL || image->kind != STORE_DELETE))
        speed_up(q);
    struct quarantined *session = q->count ? find(q, image->handle) : NULL;
    if (!session || session->held)
        return;
    log_event(session->loud ? LEVEL_INFO : LEVEL_DEBUG, "session-accepted",
              NUMBER("handle", image->handle));
    forget(q, session);
}

size_t quarantine_allowance(const struct quarantine *q)
{
    if (!q->probe_at || q->whole != REFUSAL_FULL)
        return SIZE_MAX;
    return monotonic_ms() >= q->probe_at;
}

uint64_t quarantine_closed_until(const struct quarantine *q)
{
    return q->whole == REFUSAL_FULL ? 0 : q->probe_at;
}

size_t quarantine_held(const struct quarantine *q)
{
    size_t held = 0;
    for (size_t i = 0; i < q->count; i++)
        held += q->sessions[i].held;
    return held;
}

void quarantine_tick(struct quarantine *q)
{
    uint64_t now = monotonic_ms();
    metric_set(METRIC_QUARANTINED, q->count);
    metric_set(METRIC_PARKED, q->parked_count);
    for (size_t i = 0; i < q->count;) {
        struct quarantined *session = &q->sessions[i];
        if (session->due > now) {
            i++;
        } else if (session->held) {
            session->held = false;
            session->due = now + FORGET_MS;
            store_retry(q->store, &session->image);
        } else {
            forget(q, session);
        }
    }
    if (q->count < QUARANTINE / 2)
        q->overflowed = false;
    if (q->whole == REFUSAL_FULL && q->probe_at && now >= q->probe_at)
        unpark(q, 1);
    say_calm(q, now);
}

void quarantine_release(struct quarantine *q)
{
    for (size_t i = 0; i < q->count; i++)
        if (q->sessions[i].held)
            store_retry(q->store, &q->sessions[i].image);
    q->count = 0;
    speed_up(q);
    metric_set(METRIC_QUARANTINED, 0);
    metric_set(METRIC_PARKED, 0);
}
