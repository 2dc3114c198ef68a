/*
 * The thread that notices deaths: it watches the workers' pidfds, so that what a killed worker left
 * is recovered within milliseconds, and lets the table prove deaths every 100 ms besides (a worker
 * of another PID namespace has no pid here).
 *
 * A pid decides nothing: a pidfd that fires only makes store_recover() look sooner.
 */
#ifndef TOOLS_PERSISTER_WATCH_H
#define TOOLS_PERSISTER_WATCH_H

#include "lib/sesstab.h"

#include <stdbool.h>

struct watch;

/* Starts watching TABLE; NULL when there is no memory or no thread. */
struct watch *watch_start(sesstab *table);

/* Live workers besides this process, as of the last look. */
size_t watch_others(const struct watch *watch);

/* Ends the thread and frees WATCH; NULL is allowed. */
void watch_stop(struct watch *watch);

#endif
