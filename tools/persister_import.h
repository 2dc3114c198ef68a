/*
 * `persister --import-json PREFIX`: sessions of the older layout (persister_older.h) become ours, once.
 *
 *   I1  Old keys are only read.  A session that is there in our layout already is left alone.
 *   I2  Ours are written like a leader writes: fenced, so that no persister and no second import
 *       writes at the same time.  Where one leads, or a table was loaded from these keys (its
 *       persister would remove what the table does not know), nothing is done.
 *   I3  What cannot be imported is said, a line each, and left as it is.
 *   I4  Interrupted, it can be run again: what was imported is there already.
 *
 * Order: who may write; the old set of handles; sessions page by page: old key, what we have of it,
 * one transaction; at last the old keys that no handle leads to.
 */
#ifndef TOOLS_PERSISTER_IMPORT_H
#define TOOLS_PERSISTER_IMPORT_H

#include "tools/persister.h"

enum import_status { IMPORT_ALL = 0, IMPORT_SOME_BAD = 1, IMPORT_FAILED = 2 };

/* The exit status. */
enum import_status import_run(const struct settings *settings);

#endif
