/*
 * Change rings: one per thread, in the segment, on ck_ring.  Its thread pushes the slots that it made
 * dirty; the leading persister takes them.  Neither waits for the other.
 *
 *   R1  Only the thread that holds the thread slot pushes; several persisters may take (one that was
 *       superseded while stopped): single producer, many consumers.
 *   R2  A ring is a hint.  Full, lost or scribbled on, it costs a scan of the dirty bits.
 *   R3  Its size and mask are compared with the table's before every use.
 *   R4  A ring goes on where its thread slot's former holder stopped; its counters start just
 *       below overflow.
 */
#ifndef SHM_RING_H
#define SHM_RING_H

#include "worker.h"

/* Backs the ring of thread INDEX with memory and makes it usable; by the thread slot's holder. */
int ring_prepare(struct shm *shm, unsigned index);

/* False when it is full (or damaged). */
bool ring_push(struct context *c, slot_ref slot);

/* False when it is empty (or damaged). */
bool ring_take(struct shm *shm, unsigned index, slot_ref *slot);

#endif
