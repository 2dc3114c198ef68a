/*
 * Reconcile: table, Redis and living owners are compared on demand, and made one.
 *
 *   --reconcile --dry-run  only reads, also beside a leader, which goes on: what shmdump
 *                          --diff-redis does (shmdump_compare.h)
 *   --reconcile            takes the lead, compares thoroughly (persister_compare.h), writes what
 *                          was wrong, reports on standard output, leaves; fails where another leads
 *   SIGUSR1                the leader compares thoroughly at once, while it serves, and logs it;
 *                          one that stands by, or has no Redis just now, as soon as it can
 *
 * Owners: sessions whose owner is dead become detached by the sweep that follows taking the lead
 * (lib/store.h), and those that are loaded are so from the start; the report counts them.
 */
#ifndef TOOLS_PERSISTER_RECONCILE_H
#define TOOLS_PERSISTER_RECONCILE_H

#include "tools/persister.h"
#include "tools/persister_compare.h"

enum { RECONCILE_EQUAL = 0, RECONCILE_DIFFERENT = 1, RECONCILE_FAILED = 2 };

/* Prints the differences; one of these. */
int reconcile_dry_run(const struct settings *settings);

/* For the signal handler; and whether there was a request since the last call. */
void reconcile_request(void);
bool reconcile_requested(void);

/* Prints what COMPARE found and did.  NOT_DURABLE: sessions that could not be written. */
void reconcile_report(const struct compare *compare, uint64_t not_durable);

/* What became of it; RECONCILE_FAILED before reconcile_report(). */
int reconcile_status(void);

#endif
