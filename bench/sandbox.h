/*
 * What a benchmark takes from the machine, and gives back however it ends.
 *
 *   B1  Segments are named /sesstab-bench-<pid>-..., files lie in one directory of its own.
 *   B2  Every process started here dies with the benchmark.
 *   B3  A janitor process removes all that once the benchmark and all its processes are gone: they
 *       all hold the end of a pipe, and the kernel closes it also after SIGKILL.
 */
#ifndef BENCH_SANDBOX_H
#define BENCH_SANDBOX_H

#include <stddef.h>
#include <sys/types.h>

enum { SANDBOX_NAME_MAX = 64, SANDBOX_PATH_MAX = 96 };

/* First of all, while there is one thread.  exit() ends it. */
void sandbox_start(void);

/* The name of a table. */
void sandbox_table(char name[SANDBOX_NAME_MAX], const char *what);

/* A path in the directory. */
void sandbox_path(char path[SANDBOX_PATH_MAX], const char *file);

/* Starts ARGV with its output in the directory's file LOG, or FUNCTION in a forked child. */
pid_t sandbox_program(const char *const argv[], const char *log);
pid_t sandbox_child(void (*function)(void *), void *context);

/* Fails, showing LOG, if the program has ended already. */
void sandbox_must_live(pid_t pid, const char *log);

/* Kills it and waits for its end. */
void sandbox_kill(pid_t pid);

#endif
