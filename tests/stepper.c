#include "stepper.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

/* ---------------------------------------------------------------- the child ---------------- */

/* The trap is the tracer's only sign, so that the operation is as it would be without one. */
__attribute__((noinline)) void stepper_mark(void)
{
    __asm__ volatile("int3\n\t.globl stepper_marked\nstepper_marked: nop" ::: "memory");
}
extern const char stepper_marked[]; /* where a marking process stands after its trap */

/* ---------------------------------------------------------------- stops -------------------- */

static uint64_t address_of(pid_t pid)
{
    errno = 0;
    long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL);
    check(errno == 0);
    return (uint64_t)at;
}

/* Waits until the process stops or ends; *SIGNAL: what it stopped for. */
static bool wait_stop(pid_t pid, int *signal)
{
    int status;
    while (waitpid(pid, &status, __WALL) < 0)
        check(errno == EINTR);
    if (!WIFSTOPPED(status))
        return false;
    *signal = WSTOPSIG(status);
    return true;
}

/* Resumes by REQUEST until a trap of ours; other signals are handed on. */
static enum stepped resume(pid_t pid, enum __ptrace_request request, uint64_t *at)
{
    int signal = 0;
    do {
        int deliver = signal;
        if (ptrace(request, pid, NULL, (void *)(intptr_t)deliver) < 0)
            check(errno == ESRCH); /* killed by another: the wait tells */
        if (!wait_stop(pid, &signal))
            return STEPPED_GONE;
    } while (signal != SIGTRAP);
    uint64_t here = address_of(pid);
    if (at)
        *at = here;
    return here == (uint64_t)(uintptr_t)stepper_marked ? STEPPED_MARK : STEPPED;
}

enum stepped stepper_step(pid_t pid, uint64_t *at)
{
    return resume(pid, PTRACE_SINGLESTEP, at);
}

enum stepped stepper_run(pid_t pid)
{
    return resume(pid, PTRACE_CONT, NULL);
}

static void debug_register(pid_t pid, unsigned number, uint64_t value)
{
    size_t offset = offsetof(struct user, u_debugreg) + number * sizeof(long);
    check(ptrace(PTRACE_POKEUSER, pid, offset, value) == 0);
}

/* Runs freely to FIRST or to SECOND (0: only to the first); *AT: which. */
static enum stepped run_to_either(pid_t pid, uint64_t first, uint64_t second, uint64_t *at)
{
    enum { CONTROL = 7, ENABLE_FIRST = 1, ENABLE_SECOND = 4 };
    debug_register(pid, 0, first);
    debug_register(pid, 1, second);
    debug_register(pid, CONTROL, second ? ENABLE_FIRST | ENABLE_SECOND : ENABLE_FIRST);
    enum stepped result = resume(pid, PTRACE_CONT, at);
    if (result != STEPPED_GONE)
        debug_register(pid, CONTROL, 0);
    return result;
}

enum stepped stepper_run_to(pid_t pid, uint64_t address)
{
    return run_to_either(pid, address, 0, NULL);
}

/* ---------------------------------------------------------------- beginning, ending -------- */

pid_t stepper_start(child_function *function, void *context)
{
    pid_t parent = getpid(), pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        become_child(parent);
        check(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        raise(SIGSTOP);
        function(context);
        _exit(0);
    }
    int signal;
    check(wait_stop(pid, &signal) && signal == SIGSTOP);
    check(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL) == 0);
    check(stepper_run(pid) == STEPPED_MARK);
    return pid;
}

void stepper_seize(pid_t pid)
{
    int signal;
    check(ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_EXITKILL) == 0);
    check(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0);
    check(wait_stop(pid, &signal));
}

void stepper_release(pid_t pid)
{
    check(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
}

void stepper_kill(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    do
        while (waitpid(pid, &status, __WALL) < 0)
            check(errno == EINTR);
    while (WIFSTOPPED(status));
}

/* ---------------------------------------------------------------- traces ------------------- */

/* The addresses met so far, as an open hash set: a trace's only question is "for the first time?". */
struct met {
    uint64_t *at;
    size_t size, count;
};

static bool met_before(struct met *m, uint64_t at)
{
    size_t i = at * UINT64_C(0x9e3779b97f4a7c15) & (m->size - 1);
    for (; m->at[i]; i = (i + 1) & (m->size - 1))
        if (m->at[i] == at)
            return true;
    m->at[i] = at;
    check(++m->count < m->size / 2); /* an operation's code is far smaller than this */
    return false;
}

static void append(struct trace *t, struct met *m, uint64_t at)
{
    if (t->length == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 4096;
        t->at = realloc(t->at, t->capacity * sizeof *t->at);
        t->fresh = realloc(t->fresh, t->capacity * sizeof *t->fresh);
        check(t->at && t->fresh);
    }
    size_t n = t->length++;
    t->at[n] = at;
    t->fresh[n] = met_before(m, at) ? t->fresh[n - 1] : (uint32_t)n;
}

enum stepped stepper_record_to(struct trace *t, pid_t pid, uint64_t end)
{
    struct met m = { .size = 1 << 20 };
    uint64_t at = address_of(pid);
    enum stepped result;
    *t = (struct trace){ .end = end };
    check((m.at = calloc(m.size, sizeof *m.at)) != NULL);
    do {
        append(t, &m, at);
        result = stepper_step(pid, &at);
    } while (result == STEPPED && at != end);
    free(m.at);
    return result;
}

void stepper_record(struct trace *t, child_function *function, void *context)
{
    enum { AT_THE_MARK = 0 };
    pid_t pid = stepper_start(function, context);
    check(stepper_record_to(t, pid, AT_THE_MARK) == STEPPED_MARK);
    stepper_kill(pid);
}

void trace_free(struct trace *t)
{
    free(t->at);
    free(t->fresh);
    *t = (struct trace){ 0 };
}

/* How often the Kth instruction was executed in (FROM, K]. */
static size_t times_executed(const struct trace *t, size_t from, size_t k)
{
    size_t times = 0;
    for (size_t i = from + 1; i <= k; i++)
        times += t->at[i] == t->at[k];
    return times;
}

enum stepped stepper_advance(pid_t pid, const struct trace *t, size_t k)
{
    size_t done = k < t->length ? t->fresh[k] : k;
    enum stepped result = STEPPED;
    uint64_t at = 0;
    if (k == t->length)
        return t->end ? stepper_run_to(pid, t->end) : stepper_run(pid);
    if (done)
        result = run_to_either(pid, t->at[done], t->end, &at);
    /* Late in a loop it is quicker to stop at the Kth instruction's address each time round. */
    size_t times = times_executed(t, done, k);
    if (2 * times < k - done)
        for (done = k; result == STEPPED && times-- && (!t->end || at != t->end);)
            result = run_to_either(pid, t->at[k], t->end, &at);
    while (result == STEPPED && done++ < k && (!t->end || at != t->end))
        result = stepper_step(pid, &at);
    return result;
}
