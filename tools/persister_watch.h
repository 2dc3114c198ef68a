/*
 * The thread that notices deaths, so that what a killed worker left is recovered within
 * milliseconds.
 *
 * A worker's proof of life is a lock that hangs on one mapping of the segment (shm/worker.h).  When
 * the worker's memory goes, the kernel closes the file behind that mapping, and whoever watches the
 * segment by inotify(7) is told: of a worker in any PID namespace, of any user, reaped or not, and
 * not before its memory is gone.  No pid is looked at.
 *
 *   V1  An event decides nothing; it only makes store_recover() ask for the locks sooner.  (Growth
 *       and detaching close a writable file too, and asking for a lock a readable one.)
 *   V2  The event comes a moment before the lock goes, so the locks are asked for again and again,
 *       after 1, 2, 4, ... ms.
 *   V3  Whatever events say or miss (inotify may not be had), the locks are asked for every
 *       TICK_MS.
 *   V4  Asking takes time (20 us for 10 workers, 2 ms for 300, 35 ms for 1,000: for each the kernel
 *       looks through a list).  As much is spent asleep; and V3's limit grows with it.
 *   V5  This process's own death must show at once too.  When the last reference to an inotify goes, the
 *       kernel waits for one of its worker threads (longer on a busy machine); and in a process
 *       that dies it does that before it closes the file whose lock is the proof of life.  So there is
 *       another reference, a message in flight on a socket: it goes after everything else.
 */
#ifndef TOOLS_PERSISTER_WATCH_H
#define TOOLS_PERSISTER_WATCH_H

#include "lib/sesstab.h"

struct watch;

/* Starts watching TABLE; NULL when there is no memory or no thread. */
struct watch *watch_start(sesstab *table);

/* Live workers besides this process, as of the last look. */
size_t watch_others(const struct watch *watch);

/* Ends the thread and frees WATCH; NULL is allowed. */
void watch_stop(struct watch *watch);

#endif
