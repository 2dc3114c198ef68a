/*
 * Tickets: how a worker waits for Redis, and how a process learns answers without waiting.  Private.
 *
 * A thread that waits has a ticket of its own, the one of its thread slot.  A process that does not
 * wait claims tickets by the group: 64 of them, one page, while it has some outstanding.
 *
 *   group    0 --CAS: the process that needs it--> worker --all 64 free: the process, at once-->  0
 *                                                         --worker dead: who recovers it------->  0
 *   ticket   IDLE --start--> WAITING --persister--> DURABLE | REFUSED | ... --next_answer--> IDLE
 *                               |                                                              ^
 *                               +------------------ cancel, close, recovery -------------------+
 *
 *   persister                               library thread                 event loop
 *   CAS ticket: the verdict                 seen = worker.answers          (readable)
 *   answered bit          A                 answered bits?  -> eventfd     read eventfd           C
 *   raise worker.answers                    sleeps on worker.answers       answered bits?  take one
 *   wake, once a batch                      while == seen, <= 1 s  B         each; none: NOTFOUND
 *
 *   A before the raise, B: seen before the look      else an answer, and the thread asleep
 *   C before the last look, and written again when   else an answer, and a descriptor that is not
 *     that look finds one                            readable
 *
 *   T1  A ticket is used by who cleared its bit in `free`, and that process's alone; every edge of its
 *       word is one CAS, so that verdict, cancel and recovery agree on who was first.
 *   T2  The answered bit, the futex and the descriptor are hints: a stale one costs a look, and one that
 *       was never set because the persister died is set by its successor, for all groups (H11).
 *       One that a late leader did not set, or that the group's former holder cleared and did not
 *       put back (is_ours()), is set when the leader looks at all tickets, every second.
 *   T3  What names a worker is in memory that a fork wipes: a child has no tickets, no thread and no
 *       descriptor, and makes its own.  The parent's are left alone.
 *   T4  In mode MEMORY no persister need be there: the process answers its own tickets UNKNOWN, by
 *       the same CAS, when it looks for answers.
 *
 *   killed between                          leaves, and it is found by
 *   group claimed, first ticket posted      the group's word; worker_recover()
 *   binding published, ticket posted        a pending binding that nobody waits for; the leader's sweep
 *   ticket posted, urgent bit               WAITING; worker_recover()
 *   verdict taken, bit in `free`            nothing that is not private
 */
#ifndef LIB_TICKET_H
#define LIB_TICKET_H

#include "lib/table.h"

_Static_assert(SESSTAB_TICKETS_MAX == GROUPS * GROUP_TICKETS, "as the manual says");

/* What somebody waits for: that Redis has VERSION of the session. */
struct wanted {
    slot_ref slot;
    uint64_t handle, generation, version;
    enum ticket_kind kind;
};

/* Posts the ticket INDEX, which is the caller's and idle; its word. */
uint64_t ticket_post(struct context *c, unsigned index, const struct wanted *wanted);

/* Waits for the thread's own ticket, whose word is WAITING: OK · REFUSED · NOTFOUND · UNKNOWN (the time
 * is up, or the mode is MEMORY now). */
int ticket_await(struct context *c, uint64_t waiting, int timeout_ms);

/* The process's side; NULL: out of memory. */
struct tickets *tickets_open(void);

/* Takes back what is outstanding, ends the library's thread, frees. */
void tickets_close(sesstab *t);

/* A ticket of this process, for HANDLE and COOKIE: OK · LIMIT · NOSPACE · STALE. */
int ticket_claim(sesstab *t, struct context *c, uint64_t handle, void *cookie, unsigned *index);

/* Gives back one that was not posted. */
void ticket_free(sesstab *t, unsigned index);

/* Answers one that has nothing to wait for; its word while it waited. */
uint64_t ticket_answer(sesstab *t, struct context *c, unsigned index);

/* As callers know it. */
static inline uint64_t ticket_number(unsigned index, uint64_t word)
{
    return (uint64_t)TICKET_SEQ(word) << 32 | index;
}

#endif
