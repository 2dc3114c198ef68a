/*
 * Which changes wait for Redis, and what becomes of one that Redis refuses: its caller, who alone is
 * told so, takes it back before the call returns.  (Bindings are the persister's to roll back.)
 *
 *   caller     publishes, keeping what was before -> posts its ticket (ticket.h), sleeps
 *   persister  answers DURABLE or REFUSED
 *   caller     REFUSED: one more change puts back what was; UNKNOWN where somebody has changed it on
 *              top: who is refused as well puts back what was refused (tests/models/changes.pml)
 *
 * Killed in between, it has told nobody anything: the change stands, and is written behind.
 * Whether a call waits is decided once, at its beginning, by the mode and the thread's class.
 */
#include "lib/ticket.h"

enum { DEFAULT_WAIT_MS = 5000 };

static int wait_ms(const sesstab *t, const struct context *c)
{
    if (c->class == SESSTAB_SYNCHRONOUS)
        return c->class_ms;
    return t->wait_ms ? t->wait_ms : DEFAULT_WAIT_MS;
}

int sesstab_set_class(sesstab *t, sesstab_class class_, int timeout_ms)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if ((unsigned)class_ > SESSTAB_SYNCHRONOUS || timeout_ms < 0)
        return SESSTAB_INVALID;
    if (!c)
        return result;
    c->class = class_;
    c->class_ms = timeout_ms;
    return SESSTAB_OK;
}

/* ---------------------------------------------------------------- changes ------------------- */

int change_await(sesstab *t, const struct wanted *a)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    if (!c)
        return result;
    int timeout_ms = wait_ms(t, c);
    if (timeout_ms == 0)
        return SESSTAB_UNKNOWN;
    return ticket_await(c, ticket_post(c, c->thread_index, a), timeout_ms);
}

int change_settle(sesstab *t, uint64_t handle, const struct change *change, change_fn *undo,
                  void *arguments)
{
    struct wanted a = { slot_ref_of(&t->shm, change->slot), handle, change->generation,
                        change->version, TICKET_CHANGE };
    int result = change_await(t, &a);
    if (result != SESSTAB_REFUSED)
        return result;
    int undone = session_change(t, handle, undo, arguments, NULL);
    return undone == SESSTAB_OK || undone == SESSTAB_NOTFOUND ? SESSTAB_REFUSED : SESSTAB_UNKNOWN;
}
