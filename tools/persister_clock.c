/* Clock and stopping; see persister_clock.h. */
#include "tools/persister_clock.h"

#include <stdatomic.h>
#include <time.h>

static atomic_ullong deadline_of_stop; /* 0: go on */

uint64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void stop_by(uint64_t deadline)
{
    atomic_store_explicit(&deadline_of_stop, deadline, memory_order_relaxed);
}

uint64_t stop_deadline(void)
{
    return atomic_load_explicit(&deadline_of_stop, memory_order_relaxed);
}

bool stop_requested(void)
{
    return stop_deadline() != 0;
}

void pause_ms(unsigned ms)
{
    struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
    if (!stop_requested())
        nanosleep(&time, NULL);
}

static _Thread_local void (*progress_function)(void); /* other threads make no progress */

void on_progress(void (*function)(void))
{
    progress_function = function;
}

void note_progress(void)
{
    if (progress_function)
        progress_function();
}
