/*
 * Whether the persister does what it is for, as /healthz answers.
 *
 * The thread that leads, or stands by, leaves traces: when it took its last step, when Redis answered
 * last, why Redis is away.  Another thread judges by them, so that the answer is true also when the
 * first one hangs.
 *
 *   status    HTTP  when
 *   ok        200   the table is ready, the lag is below the limit, and either this process leads and
 *                   is connected to Redis, or it stands by and the leader lives and is.  In mode MEMORY
 *                   Redis does not matter
 *   degraded  200   the same, but Redis refuses sessions, which are kept and tried again
 *   degraded  503   Redis is away, or the lag is above the limit: the table works, nothing is lost,
 *                   but changes are not durable as they should be
 *   down      503   the table is not ready, or nobody leads it, or this process's thread hangs
 *
 * Lag: figures_lag() in lib/figures.h, an upper bound.  The leader moves its moment on whenever it
 * has taken all that was announced, Redis has acknowledged it, and nothing is kept back; not while
 * it compares Redis with the table, because Redis may have gone back to an older copy.  Everything
 * that Redis can do to the leader (not answer, answer slowly, refuse, lose) therefore shows as lag.
 */
#ifndef TOOLS_PERSISTER_HEALTH_H
#define TOOLS_PERSISTER_HEALTH_H

#include "lib/figures.h"
#include "tools/persister.h"

/* ---------------------------------------------------------------- the thread that leads -- */

/* It took a step.  To be called at least every TICK_MS, also while it waits. */
void health_step(void);

/* True in that thread: in one that has taken a step.  What others ask (sentinels) is not watched. */
bool health_is_watched(void);

/* Redis has answered it. */
void health_answered(void);

/* Redis went away, or could not be reached, for this REASON. */
void health_away(const char *reason);

/* ---------------------------------------------------------------- any thread ------------- */

/* How long ago the last step was, in ms. */
uint64_t health_step_age(void);

/* How long ago Redis answered, in seconds; infinite: never. */
double health_answer_age(void);

/* The answer: a JSON object, the caller's to free (NULL: out of memory), and the HTTP status. */
char *health_json(const struct figures *figures, const struct settings *settings, int *status);

#endif
