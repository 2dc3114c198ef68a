/*
 * Huge pages, asked for after the tables are filled: MADV_COLLAPSE for every 2 MiB of this
 * process's memory that is all there.  It works on /dev/shm too, whatever the mount says; holes are
 * left alone, since a collapse would fill them.
 */
#ifndef BENCH_TABLE_HUGE_H
#define BENCH_TABLE_HUGE_H

/* Asks, and prints as comment lines what was got, mapping by mapping. */
void huge_ask(void);

#endif
