#include "bench/sandbox.h"

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROGRAMS_MAX = 32, NOT_FOUND = 127, LOG_SHOWN = 4096 };

static pid_t owner, janitor, programs[PROGRAMS_MAX];
static int lifeline = -1;      /* open while the benchmark or a process of its lives */
static char directory[32];

/* ---------------------------------------------------------------- the janitor ----------- */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void tidy(void)
{
    char pattern[SANDBOX_NAME_MAX];
    glob_t found;
    snprintf(pattern, sizeof pattern, "/dev/shm/sesstab-bench-%d-*", (int)owner);
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            remove(found.gl_pathv[i]);
        globfree(&found);
    }
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static _Noreturn void be_janitor(int end)
{
    char byte;
    setsid(); /* out of reach of the terminal's Ctrl-C */
    signal(SIGTERM, SIG_IGN);
    /* Who reads the benchmark's output must not wait for us. */
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd <= 2; fd++)
        dup2(null, fd);
    while (read(end, &byte, 1) < 0 && errno == EINTR)
        ;
    tidy();
    _exit(0);
}

static void sandbox_end(void)
{
    if (getpid() != owner)
        return;
    for (size_t i = 0; i < PROGRAMS_MAX; i++)
        if (programs[i])
            sandbox_kill(programs[i]);
    close(lifeline);
    waitpid(janitor, NULL, 0);
}

void sandbox_start(void)
{
    int ends[2];
    strcpy(directory, "/tmp/sesstab-bench-XXXXXX");
    if (pipe(ends) != 0 || !mkdtemp(directory))
        bench_fail("a directory in /tmp and a pipe: %s", strerror(errno));
    owner = getpid();
    janitor = fork();
    if (janitor < 0)
        bench_fail("fork: %s", strerror(errno));
    if (janitor == 0) {
        close(ends[1]);
        be_janitor(ends[0]);
    }
    close(ends[0]);
    lifeline = ends[1];
    atexit(sandbox_end);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

/* ---------------------------------------------------------------- names ----------------- */

void sandbox_table(char name[SANDBOX_NAME_MAX], const char *what)
{
    snprintf(name, SANDBOX_NAME_MAX, "/sesstab-bench-%d-%s", (int)owner, what);
}

void sandbox_path(char path[SANDBOX_PATH_MAX], const char *file)
{
    snprintf(path, SANDBOX_PATH_MAX, "%s/%s", directory, file);
}

/* ---------------------------------------------------------------- processes ------------- */

static pid_t *place_of(pid_t pid)
{
    for (size_t i = 0; i < PROGRAMS_MAX; i++)
        if (programs[i] == pid)
            return &programs[i];
    bench_fail("more than %d processes at once", PROGRAMS_MAX);
}

static pid_t start(void)
{
    pid_t *place = place_of(0), pid = fork();
    if (pid < 0)
        bench_fail("fork: %s", strerror(errno));
    if (pid > 0)
        return *place = pid;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != owner) /* it may have died before */
        _exit(1);
    return 0;
}

pid_t sandbox_program(const char *const argv[], const char *log)
{
    char path[SANDBOX_PATH_MAX];
    sandbox_path(path, log);
    pid_t pid = start();
    if (pid)
        return pid;
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), in = open("/dev/null", O_RDONLY);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(1);
    execvp(argv[0], (char *const *)argv);
    dprintf(2, "%s: %s\n", argv[0], strerror(errno));
    _exit(NOT_FOUND);
}

pid_t sandbox_child(void (*function)(void *), void *context)
{
    pid_t pid = start();
    if (pid)
        return pid;
    function(context);
    _exit(0);
}

bool sandbox_can_run(const char *program)
{
    char path[4096], file[4096 + 256];
    const char *all = getenv("PATH");
    snprintf(path, sizeof path, "%s", all ? all : "/usr/bin:/bin");
    for (char *rest = path, *one; (one = strsep(&rest, ":"));) {
        snprintf(file, sizeof file, "%s/%s", one, program);
        if (access(file, X_OK) == 0)
            return true;
    }
    return false;
}

void sandbox_beside(char *path, size_t size, const char *file)
{
    char self[4096] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        bench_fail("/proc/self/exe: %s", strerror(errno));
    char *slash = strrchr(self, '/');
    *slash = 0;
    snprintf(path, size, "%s/%s", self, file);
}

uint64_t sandbox_memory_of(pid_t pid)
{
    char path[32];
    unsigned long long size, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%llu %llu", &size, &resident) != 2)
        bench_fail("%s can't be read", path);
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

void sandbox_must_live(pid_t pid, const char *log)
{
    char path[SANDBOX_PATH_MAX], text[LOG_SHOWN] = "";
    if (waitpid(pid, NULL, WNOHANG) != pid)
        return;
    *place_of(pid) = 0;
    sandbox_path(path, log);
    FILE *f = fopen(path, "r");
    if (f) {
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
    }
    bench_fail("a program ended that should run; it said:\n%s", text);
}

void sandbox_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    *place_of(pid) = 0;
}

void sandbox_wait(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    *place_of(pid) = 0;
    if (status != 0)
        bench_fail("process %d ended with status %d", (int)pid, status);
}
