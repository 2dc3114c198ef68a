/*
 * Sleep and wake between processes: futexes on 32-bit words of the segment.  A waker may die
 * between its store and its wake, so nobody sleeps longer than WAIT_SLICE_MS without looking again.
 */
#ifndef SHM_WAIT_H
#define SHM_WAIT_H

#include "atomic.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_SLICE_MS = 50 };

/* Sleeps while *word == expected, at most TIMEOUT_MS.  May return early for no reason. */
static inline void futex_wait(atomic_u32 *word, uint32_t expected, int timeout_ms)
{
    struct timespec t = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0);
}

static inline void futex_wake_all(atomic_u32 *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Milliseconds of a clock that nobody sets. */
static inline int64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

#endif
