/*
 * The thread that puts a leader's table on huge pages (--huge-pages): once it is loaded, and again as
 * it grows.
 *
 *   H1  It rests ten times as long as each 2 MiB took: whoever wants to look at them meanwhile waits.
 *   H2  It only asks; a table on small pages works as well.
 */
#ifndef TOOLS_PERSISTER_HUGE_H
#define TOOLS_PERSISTER_HUGE_H

#include "lib/sesstab.h"

struct huge;

/* NULL when there is no thread to be had, which is logged. */
struct huge *huge_start(sesstab *table);

/* Ends after the 2 MiB that it is at.  NULL is allowed. */
void huge_stop(struct huge *huge);

#endif
