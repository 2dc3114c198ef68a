/* One persister under the microscope; see persister_leader.h. */
#include "tests/crash/persister_leader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>

/* ---------------------------------------------------------------- starting, ending --------- */

void persister_start(struct persister *p, const char *table, const char *url, unsigned number)
{
    const char *const argv[] = { program("persister"), "--table", table, "--create", "--redis", url,
                                 "--prefix", TEST_PREFIX, "--flush-interval", "0",
                                 "--batch", "2", "--supersede-after", "0", NULL };
    *p = (struct persister){ 0 };
    snprintf(p->log, sizeof p->log, "%s/leader-%d-%u.log", scratch_directory(), (int)getpid(),
             number);
    p->pid = start_program(argv, p->log);
}

bool persister_says(const struct persister *p, const char *text)
{
    return file_says(p->log, text);
}

worker_id persister_worker(const struct persister *p, const struct shm *shm)
{
    for (unsigned i = 0; i < load_acquire(&shm->header->worker_high); i++) {
        uint64_t owner = load_acquire(&shm->workers[i].owner);
        if ((owner & WORKER_LIVE) && load_relaxed(&shm->workers[i].pid) == (uint32_t)p->pid)
            return (worker_id)(owner & ~WORKER_LIVE) << WORKER_INDEX_BITS | (i + 1);
    }
    return 0;
}

void persister_kill(struct persister *p)
{
    kill_child(p->pid);
    unlink(p->log);
}

/* ---------------------------------------------------------------- addresses ---------------- */

/* The functions where it is waited for, as offsets in the program. */
static struct { const char *name; uint64_t offset; } functions[] = { { "batch_write", 0 },
                                                                     { "batch_write_tickets", 0 },
                                                                     { "store_sleep", 0 } };
enum { BATCH_WRITE, BATCH_WRITE_TICKETS, STORE_SLEEP, FUNCTIONS };

static void read_symbols(void)
{
    char command[600], line[512], name[256];
    uint64_t offset;
    snprintf(command, sizeof command, "nm '%s'", program("persister"));
    FILE *symbols = popen(command, "r");
    check(symbols != NULL);
    while (fgets(line, sizeof line, symbols))
        for (int i = 0; i < FUNCTIONS; i++)
            if (sscanf(line, "%" SCNx64 " %*c %255s", &offset, name) == 2 &&
                strcmp(name, functions[i].name) == 0)
                functions[i].offset = offset;
    pclose(symbols);
}

/* Where the first mapping that matches begins; below LIMIT. */
static uint64_t mapped_at(pid_t pid, const char *file, const char *access, uint64_t length)
{
    char path[64], line[512], seen[8], name[256];
    uint64_t from, to, found = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "r");
    check(maps != NULL);
    while (!found && fgets(line, sizeof line, maps))
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %255s", &from, &to, seen,
                   name) == 4 &&
            strstr(name, file) && strcmp(seen, access) == 0 && (!length || to - from == length))
            found = from;
    fclose(maps);
    return found;
}

static uint64_t address_of_function(pid_t pid, int which)
{
    if (!functions[which].offset)
        read_symbols();
    check(functions[which].offset);
    uint64_t base = mapped_at(pid, "/persister", "r--p", 0);
    check(base);
    return base + functions[which].offset;
}

static struct user_regs_struct registers_of(pid_t pid)
{
    struct user_regs_struct registers;
    check(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
    return registers;
}

/* ---------------------------------------------------------------- standing ----------------- */

/* About to sleep in bool store_sleep(store, bool deep, int timeout_ms), deeply and for a while: no
 * sweep, no comparison and nothing that gathers is left to do, and none is wanted. */
static bool stands_idle(pid_t pid, const struct header *h)
{
    struct user_regs_struct r = registers_of(pid);
    return (r.rsi & 1) && (int)r.rdx > 0 && !load_acquire(&h->sweep_wanted) &&
           !load_acquire(&h->overflow);
}

void leader_stand_idle(struct persister *p, sesstab *table, uint64_t handle)
{
    stepper_seize(p->pid);
    uint64_t sleep = address_of_function(p->pid, STORE_SLEEP);
    check_ok(sesstab_touch(table, handle, 0));
    do
        check(stepper_run_to(p->pid, sleep) == STEPPED);
    while (!stands_idle(p->pid, table->shm.header));
}

void leader_stand_at_take(struct persister *p, bool tickets)
{
    int function = tickets ? BATCH_WRITE_TICKETS : BATCH_WRITE;
    check(stepper_run_to(p->pid, address_of_function(p->pid, function)) == STEPPED);
    errno = 0;
    p->returns_to = (uint64_t)ptrace(PTRACE_PEEKDATA, p->pid, registers_of(p->pid).rsp, NULL);
    check(errno == 0);
}

void leader_record(struct persister *p, struct trace *trace)
{
    check(stepper_record_to(trace, p->pid, p->returns_to) == STEPPED);
}

/* ---------------------------------------------------------------- advancing ---------------- */

enum way leader_advance(struct persister *p, const struct trace *trace, size_t k)
{
    if (k == 0)
        return WAY_RECORDED;
    check(k < trace->length);
    check(stepper_advance(p->pid, trace, k) == STEPPED);
    uint64_t at = registers_of(p->pid).rip;
    return at == trace->at[k] ? WAY_RECORDED : at == p->returns_to ? WAY_ENDED : WAY_OTHER;
}

/* ---------------------------------------------------------------- robbing ------------------ */

void leader_rob(struct shm *shm)
{
    uint64_t seen = load_acquire(&shm->header->leader);
    check(cas_exact(&shm->header->leader, seen, LEADER_WORD(LEADER_TERM(seen), 0)));
}

void leader_finish(struct persister *p)
{
    if (registers_of(p->pid).rip != p->returns_to)
        check(stepper_run_to(p->pid, p->returns_to) == STEPPED);
}

void leader_release(struct persister *p)
{
    stepper_release(p->pid);
}
