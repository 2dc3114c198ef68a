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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

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

/* Is there such a program on PATH? */
bool sandbox_can_run(const char *program);

/* The path of a file that lies beside this program. */
void sandbox_beside(char *path, size_t size, const char *file);

/* Bytes of memory that the process has. */
uint64_t sandbox_memory_of(pid_t pid);

/* Fails, showing LOG, if the program has ended already. */
void sandbox_must_live(pid_t pid, const char *log);

/* Kills it and waits for its end. */
void sandbox_kill(pid_t pid);

/* Waits for its end, which it comes to by itself; fails if that was no success. */
void sandbox_wait(pid_t pid);

#ifdef __cplusplus
}
#endif
#endif
