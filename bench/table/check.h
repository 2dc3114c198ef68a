/* Does a contender do what its figures claim?  Fails, naming it, if it does not. */
#ifndef BENCH_TABLE_CHECK_H
#define BENCH_TABLE_CHECK_H

#include "bench/table/rows.h"

/* Asks for sessions and compares what comes back; changes some and reads the changes back. */
void check_contender(const struct open_table *open, const struct key_sets *keys);

#endif
