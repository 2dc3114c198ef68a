/*
 * The clock that the tools pace themselves by, the wish to stop, and the sign of progress.
 */
#ifndef TOOLS_PERSISTER_CLOCK_H
#define TOOLS_PERSISTER_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

enum { TICK_MS = 100 }; /* nothing sleeps longer, so that signals and children are noticed */

uint64_t monotonic_ms(void);

/* Asks this process to be gone by the monotonic time DEADLINE.  For signal handlers too. */
void stop_by(uint64_t deadline);

/* It was asked to; and the deadline, 0 before that. */
bool stop_requested(void);
uint64_t stop_deadline(void);

/* Sleeps for MS, or until the process is asked to stop. */
void pause_ms(unsigned ms);

/*
 * To be called wherever the leading thread may stay for longer than TICK_MS and is not stuck, or else
 * a stand-by takes it for stopped: calls the FUNCTION of on_progress(), unless NULL.
 */
void note_progress(void);
void on_progress(void (*function)(void));

#endif
