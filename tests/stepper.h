/*
 * The microscope: a process that is run one instruction at a time, so that it can be killed or
 * stopped after exactly the Kth of an operation.
 *
 * A stepped child is a fork of ours under ptrace(2).  It runs freely until it calls stepper_mark(),
 * is then stepped, and has finished its operation when it calls stepper_mark() again:
 *
 *      child:   ... stepper_mark();  sesstab_set(...);  stepper_mark(); ...
 *                   |<- instruction 0 ........ n - 1 ->|
 *
 * A step costs some ten microseconds.  So a long operation is recorded once (the address of every
 * instruction), and later children run at full speed, by the processor's breakpoint register, to the
 * last instruction before the Kth that had not been executed before; the rest is stepped, or, in a
 * loop, run from one execution of the Kth's address to the next.
 * Forked children share our addresses, and a program that takes another way than the recorded one is
 * noticed: the breakpoint is not hit, or the addresses differ.
 *
 *   S1  A stepped process dies with its tracer (PTRACE_O_EXITKILL).
 *   S2  Signals other than our own traps are handed on to the stepped process.
 *   S3  Only the thread that is traced is stepped.  SIGKILL takes them all.
 */
#ifndef TESTS_STEPPER_H
#define TESTS_STEPPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/harness.h"

/* What an operation executed, in order. */
struct trace {
    uint64_t *at;     /* instruction addresses                                          */
    uint32_t *fresh;  /* the last instruction up to this one that was executed first then  */
    size_t length, capacity;
    uint64_t end;     /* the address that it came to then; 0: a mark                       */
};

enum stepped {
    STEPPED,        /* stands before its next instruction                               */
    STEPPED_MARK,   /* came to stepper_mark(): the operation has begun, or is finished  */
    STEPPED_GONE    /* exited or was killed; it is reaped                               */
};

/* In the child: the operation begins, or has ended. */
void stepper_mark(void);

/* Forks a child that runs FUNCTION under ptrace; returns when it stands at its first mark. */
pid_t stepper_start(child_function *function, void *context);

/* Executes one instruction; *AT unless NULL: the address of the next. */
enum stepped stepper_step(pid_t pid, uint64_t *at);

/* Runs freely until it comes to ADDRESS, to a mark, or ends. */
enum stepped stepper_run_to(pid_t pid, uint64_t address);

/* Runs freely to its next mark or its end. */
enum stepped stepper_run(pid_t pid);

/* Steps a child from its first mark to its second and records the way; the child is killed. */
void stepper_record(struct trace *trace, child_function *function, void *context);
void trace_free(struct trace *trace);

/* The same for a process that stands anywhere, from here to the address END; it is left there. */
enum stepped stepper_record_to(struct trace *trace, pid_t pid, uint64_t end);

/*
 * Brings a process that stands where TRACE began to where it has executed K instructions, K at most
 * the trace's length.  Where it took another way than the trace, it may come to its mark or its
 * end, or to the trace's end address, before.
 */
enum stepped stepper_advance(pid_t pid, const struct trace *trace, size_t k);

/* For a process that was not forked by stepper_start(): takes it as it is, and stops it. */
void stepper_seize(pid_t pid);
/* Lets it go on without us. */
void stepper_release(pid_t pid);
/* SIGKILL, and reaps it. */
void stepper_kill(pid_t pid);

#endif
