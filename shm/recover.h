/*
 * The sweep: finds in the heap what a death left there, by the ownership words alone (layout.h has
 * the table of what a crash leaves in which state).  Every step is a CAS from the exact word seen;
 * anybody may sweep, together with others, and die in it.  It retires, and never frees: a grace
 * period lies between whatever it judged and the reuse.
 *
 * worker_recover() judges who is dead; the sweep only asks whether a named worker still holds its
 * slot.
 */
#ifndef SHM_RECOVER_H
#define SHM_RECOVER_H

#include "worker.h"

/* Sweeps one chunk, and this chunk's share of the bucket heads.  Returns how many places it mended. */
unsigned recover_sweep(struct context *c, unsigned chunk);

/*
 * True when hint N leads nowhere: its slot's record is bound to another player, and was never
 * acknowledged as bound to this one.  Inside a read section; N linked.
 */
bool recover_hint_stale(struct context *c, const struct node *n);

/* Takes a settled hint out of the index unless somebody arms it first. */
void recover_collect_hint(struct context *c, uint32_t ref);

/* A dead session's slot: marks, unlinks, retires.  Finders help. */
void recover_bury(struct context *c, slot_ref slot);

#endif
