/*
 * Who is alive?  Workers of every kind (threads, zombies, other namespaces, other users, hosts that
 * close what is not theirs) judge each other, in pairs; then each is killed, and only it is dead.
 *
 *   I1  A worker is alive until its memory is gone: also stopped, when its main thread has ended,
 *       and with a pid that is nobody's here, or somebody else's.
 *   I2  It is dead from then on, whoever waits for it, whichever children live on, whoever gets its
 *       pid.
 *   I3  Who can't see the segment's name proves nobody dead.
 *
 * Nothing here waits for a time to pass: a death is awaited as an event, and what must not happen
 * is asked for after that.
 */
#include "tests/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "lib/table.h"

extern char **environ;

enum { NOBODY = 65534 };

/* A worker under test, in shared memory. */
struct life {
    sesstab *table;
    uint64_t handle;
    void (*kind)(struct life *);
    _Atomic int pid;         /* as the test sees it                                             */
    _Atomic uint32_t self;   /* as the table sees it; 0: not attached yet                       */
    _Atomic uint64_t beats;  /* of its heart                                                    */
    _Atomic uint32_t judged; /* whom it is to judge at each beat                                */
    _Atomic bool says_alive;
    _Atomic bool zombie;     /* of another namespace: it is dead, and its parent has not waited */
};

/* The reading end tells processes that the harness does not know that the test is over. */
static int leash[2] = { -1, -1 };

static void rest(void)
{
    struct pollfd end = { .fd = leash[0], .events = POLLIN };
    if (poll(&end, 1, 3) > 0)
        _exit(0);
}

static void be_born(struct life *l)
{
    insert_plain(l->table, l->handle);
    l->self = sesstab_self(l->table);
}

_Noreturn static void live_on(struct life *l)
{
    for (;; rest()) {
        check_ok(sesstab_increment(l->table, l->handle, "beats", 1, NULL));
        if (l->judged)
            l->says_alive = sesstab_owner_alive(l->table, l->judged);
        l->beats++;
    }
}

/* ---------------------------------------------------------------- kinds of workers ------- */

static void plain(struct life *l)
{
    be_born(l);
    live_on(l);
}

_Noreturn static void *live_as_thread(void *l)
{
    live_on(l);
}

static void main_thread_ended(struct life *l)
{
    pthread_t thread;
    be_born(l);
    check(pthread_create(&thread, NULL, live_as_thread, l) == 0);
    pthread_exit(NULL);
}

_Noreturn static void *read_as_thread(void *context)
{
    struct life *l = context;
    for (;; rest())
        look(l->table, l->handle);
}

static void with_threads_and_memory(struct life *l)
{
    enum { BYTES = 64 << 20 };
    pthread_t thread;
    be_born(l);
    void *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    check(memory != MAP_FAILED);
    for (int i = 0; i < 8; i++)
        check(pthread_create(&thread, NULL, read_as_thread, l) == 0);
    live_on(l);
}

static void close_and_reuse_descriptors(struct life *l)
{
    check(close_range(3, ~0U, 0) == 0);
    for (int i = 0; i < 20; i++)
        check(open(i % 2 ? l->table->shm.path : "/dev/null", O_RDWR | O_CLOEXEC) >= 0);
    check(close_range(3, ~0U, 0) == 0);
}

static void closing_descriptors_around_a_fork(struct life *l)
{
    be_born(l);
    close_and_reuse_descriptors(l);
    pid_t pid = fork();
    if (pid == 0) {
        close_and_reuse_descriptors(l);
        _exit(0);
    }
    close_and_reuse_descriptors(l);
    check(waitpid(pid, NULL, 0) == pid);
    live_on(l);
}

/* The first process of a PID namespace, with pid 1; its parent keeps it a zombie. */
static void in_a_pid_namespace(struct life *l)
{
    check(unshare(CLONE_NEWPID) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        become_child(0); /* that is how it sees its parent */
        be_born(l);
        live_on(l);
    }
    l->pid = pid;
    check(waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT) == 0);
    l->zombie = true;
    for (;;)
        rest();
}

static void own_mounts(void)
{
    check(unshare(CLONE_NEWNS) == 0);
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
}

static void with_a_private_dev_shm(struct life *l)
{
    be_born(l);
    own_mounts();
    check(mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL) == 0);
    live_on(l);
}

static void who_sees_no_process_of_others(struct life *l)
{
    own_mounts();
    check(mount("proc", "/proc", "proc", 0, "hidepid=2") == 0);
    check(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* another user: it has been reset */
    check(access("/proc/1/stat", F_OK) != 0 && kill(1, 0) != 0);
    be_born(l);
    live_on(l);
}

static const struct kind {
    const char *name;
    void (*live)(struct life *);
    bool privileged, blind; /* needs to be root; can't see the name (I3) */
} kinds[] = {
    { "plain", plain, false, false },
    { "main thread ended", main_thread_ended, false, false },
    { "threads and memory", with_threads_and_memory, false, false },
    { "closing descriptors", closing_descriptors_around_a_fork, false, false },
    { "PID namespace", in_a_pid_namespace, true, false },
    { "another PID namespace", in_a_pid_namespace, true, false },
    { "private /dev/shm", with_a_private_dev_shm, true, true },
    { "sees no processes", who_sees_no_process_of_others, true, false },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* ---------------------------------------------------------------- lives ------------------ */

static void unshare_everything(void *context)
{
    _Atomic bool *allowed = context;
    *allowed = unshare(CLONE_NEWPID | CLONE_NEWNS) == 0;
}

/* Root in a container may not make namespaces. */
static bool may_unshare(void)
{
    _Atomic bool *allowed = shared_memory(sizeof *allowed);
    run_child(unshare_everything, (void *)allowed);
    if (!*allowed)
        print_message("needs root, and the right to make namespaces\n");
    return *allowed;
}

#define need_namespaces()                                                                          \
    do {                                                                                           \
        if (!may_unshare())                                                                        \
            skip();                                                                                \
    } while (0)

/* Workers of every kind may use them; the second has a Redis and a persister. */
static sesstab *table_for_all(void)
{
    return open_table(new_name(), &(sesstab_options){
        .create = true, .mode = SESSTAB_MEMORY, .permissions = 0666 });
}

static sesstab *persisted_table_for_all(void)
{
    const char *name = new_name(), *const options[] = { "--permissions", "666", NULL };
    struct redis *redis = start_redis(NULL);
    sesstab *table = open_table(name, &(sesstab_options){ .create = true, .permissions = 0666 });
    start_persister(name, redis->url, options);
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    return table;
}

static void start_living(void *life)
{
    struct life *l = life;
    l->kind(l);
}

static void beat(struct life *l)
{
    uint64_t beats = l->beats;
    wait_until(l->beats >= beats + 2);
}

/* Starts a worker that owns session HANDLE; returns our child: the worker, or its parent. */
static pid_t start_life(struct life *l, sesstab *table, uint64_t handle,
                        void (*kind)(struct life *))
{
    memset(l, 0, sizeof *l);
    l->table = table;
    l->handle = handle;
    l->kind = kind;
    pid_t pid = start_child(start_living, l);
    wait_until(l->self);
    if (!l->pid)
        l->pid = pid;
    return pid;
}

/* Kills the worker; on return its memory is torn down, and nobody has waited for it. */
static void end_life(struct life *l, pid_t child)
{
    kill(l->pid, SIGKILL);
    if (l->pid == child)
        check(waitid(P_PID, (id_t)child, NULL, WEXITED | WNOWAIT) == 0);
    else
        wait_until(l->zombie);
}

static bool says_alive(struct life *judge, struct life *l)
{
    judge->judged = l->self;
    beat(judge);
    return judge->says_alive;
}

static void judge_one(sesstab *table, struct life *judge, const struct kind *by, struct life *l,
                      uint64_t handle, const struct kind *kind)
{
    pid_t child = start_life(l, table, handle, kind->live);
    beat(l);
    check(sesstab_owner_alive(table, l->self) && says_alive(judge, l));
    kill(l->pid, SIGSTOP);
    check(sesstab_owner_alive(table, l->self) && says_alive(judge, l));
    end_life(l, child);
    wait_until(!sesstab_owner_alive(table, l->self));
    if (says_alive(judge, l) != by->blind)
        test_fail(__FILE__, __LINE__, "judged wrongly: the dead \"%s\", by \"%s\"", kind->name,
                  by->name);
    check(sesstab_owner_alive(table, judge->self));
    kill_child(child);
}

static void every_kind_of_worker_judges_every_other_rightly(void **state)
{
    struct life *lives = shared_memory(2 * sizeof *lives);
    uint64_t handle = 1;
    (void)state;
    sesstab *table = table_for_all();
    bool all = may_unshare();
    for (int by = 0; by < KINDS; by++) {
        if (kinds[by].privileged && !all)
            continue;
        pid_t judge = start_life(&lives[0], table, handle++, kinds[by].live);
        for (int k = 0; k < KINDS; k++)
            if (all || !kinds[k].privileged)
                judge_one(table, &lives[0], &kinds[by], &lives[1], handle++, &kinds[k]);
        kill_child(judge);
    }
}

/* ---------------------------------------------------------------- pids ------------------- */

static uint32_t shown_pid(sesstab *table, uint32_t worker)
{
    return table->shm.workers[worker_index(worker)].pid;
}

static void equal_pids_in_two_namespaces_are_two_workers(void **state)
{
    struct life *lives = shared_memory(2 * sizeof *lives);
    pid_t children[2];
    (void)state;
    need_namespaces();
    sesstab *table = table_for_all();
    for (int i = 0; i < 2; i++)
        children[i] = start_life(&lives[i], table, 1 + (uint64_t)i, in_a_pid_namespace);
    check_equal(shown_pid(table, lives[0].self), 1);
    check_equal(shown_pid(table, lives[1].self), 1);
    check(says_alive(&lives[0], &lives[1]) && says_alive(&lives[1], &lives[0]));
    end_life(&lives[0], children[0]);
    wait_until(!sesstab_owner_alive(table, lives[0].self));
    check(!says_alive(&lives[1], &lives[0]));
    check(sesstab_owner_alive(table, lives[1].self));
    worker_recover(&table->shm, NULL, 0, NULL);
    check(worker_gone(&table->shm, lives[0].self) && !worker_gone(&table->shm, lives[1].self));
    beat(&lives[1]);
}

/* fork() within a namespace where nobody else forks: its child has the pid that was asked for. */
static pid_t fork_as(int pid)
{
    FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "w");
    check(last && fprintf(last, "%d", pid - 1) > 0 && fclose(last) == 0);
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        become_child(parent);
    else
        check_equal(child, pid);
    return child;
}

static void kill_and_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    check(waitpid(pid, NULL, 0) == pid);
}

/* The life and death of worker L with a pid; it judges until then. */
static pid_t live_as(struct life *l, int pid)
{
    pid_t child = fork_as(pid);
    if (child == 0) {
        be_born(l);
        live_on(l);
    }
    wait_until(l->beats);
    return child;
}

enum { REUSED_PID = 777 };

/* In a namespace of its own. */
static void reuse_a_pid(struct life *first)
{
    struct life *second = first + 1;
    sesstab *table = first->table;
    pid_t pid = live_as(first, REUSED_PID);
    check(sesstab_owner_alive(table, first->self));
    kill_and_reap(pid);

    pid_t stranger = fork_as(REUSED_PID);
    if (stranger == 0)
        for (;;)
            pause();
    check(kill(stranger, 0) == 0);
    wait_until(!sesstab_owner_alive(table, first->self));
    kill_and_reap(stranger);

    /* The slot is used again too, so that everything but the generation is the same. */
    check_equal(worker_recover(&table->shm, NULL, 0, NULL), 1);
    pid = live_as(second, REUSED_PID);
    check_equal(worker_index(second->self), worker_index(first->self));
    check_equal(shown_pid(table, second->self), REUSED_PID);
    check(sesstab_owner_alive(table, second->self));
    check(!sesstab_owner_alive(table, first->self));
    kill_and_reap(pid);
    wait_until(!sesstab_owner_alive(table, second->self));
    check_equal(look(table, first->handle).owner, first->self);
}

static void in_a_namespace_reuse_a_pid(void *lives)
{
    check(unshare(CLONE_NEWPID) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        become_child(0);
        reuse_a_pid(lives);
        _exit(0);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && status == 0);
}

static void a_pid_that_is_used_again_makes_nobody_alive_or_dead(void **state)
{
    struct life *lives = shared_memory(2 * sizeof *lives);
    (void)state;
    need_namespaces();
    if (access("/proc/sys/kernel/ns_last_pid", W_OK) != 0) {
        print_message("needs to write /proc/sys/kernel/ns_last_pid\n");
        skip();
    }
    lives[0].table = lives[1].table = table_for_all();
    lives[0].handle = 1;
    lives[1].handle = 2;
    run_child(in_a_namespace_reuse_a_pid, lives);
}

/* ---------------------------------------------------------------- children --------------- */

/* A worker, one of whose children stays: an exec'd program, which knows nothing of the table. */
static void with_a_spawned_program(struct life *l)
{
    char *const argv[] = { "cat", NULL };
    posix_spawn_file_actions_t actions;
    pid_t pid;
    be_born(l);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, leash[0], 0);
    posix_spawn_file_actions_addclose(&actions, leash[1]);
    check(posix_spawn(&pid, "/bin/cat", &actions, NULL, argv, environ) == 0);
    close(leash[1]);
    live_on(l);
}

static void a_worker_is_dead_although_a_program_that_it_started_lives(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    (void)state;
    check(pipe(leash) == 0);
    sesstab *table = table_for_all();
    pid_t child = start_life(l, table, 1, with_a_spawned_program);
    beat(l);
    check(sesstab_owner_alive(table, l->self));
    end_life(l, child);
    wait_until(!sesstab_owner_alive(table, l->self));
    kill_child(child);
    close(leash[1]);
    close(leash[0]);
    leash[0] = leash[1] = -1;
}

/* A worker whose memory a child uses until the test lets it go (judged != 0). */
static void with_a_vfork_child(struct life *l)
{
    be_born(l);
    close(leash[1]);
    if (vfork() == 0) {
        l->beats = 2;
        while (!l->judged)
            rest();
        _exit(0);
    }
    live_on(l);
}

static void a_worker_is_alive_as_long_as_a_vfork_child_uses_its_memory(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    (void)state;
    if (SANITIZED) {
        print_message("the sanitizers make vfork() a fork()\n");
        skip();
    }
    check(pipe(leash) == 0);
    sesstab *table = table_for_all();
    pid_t child = start_life(l, table, 1, with_a_vfork_child);
    wait_until(l->beats);
    end_life(l, child);
    check(sesstab_owner_alive(table, l->self));
    worker_recover(&table->shm, NULL, 0, NULL);
    check(!worker_gone(&table->shm, l->self));
    l->judged = 1;
    wait_until(!sesstab_owner_alive(table, l->self));
    kill_child(child);
    close(leash[1]);
    close(leash[0]);
    leash[0] = leash[1] = -1;
}

enum { CHILDREN = 100, PARENT_S = 10 }; /* children of one parent; its own sessions */

static void have_children(struct life *lives, int from, int to)
{
    for (int i = from; i < to; i++)
        if (fork() == 0) {
            close(leash[1]); /* its end tells them that the test is over */
            be_born(&lives[1 + i]);
            live_on(&lives[1 + i]);
        }
}

/* Half of its children are there before it is a worker itself. */
static void be_parent(void *context)
{
    struct life *lives = context;
    have_children(lives, 0, CHILDREN / 2);
    for (uint64_t h = 1000; h < 1000 + PARENT_S; h++)
        insert_plain(lives[0].table, h);
    be_born(&lives[0]);
    have_children(lives, CHILDREN / 2, CHILDREN);
    live_on(&lives[0]);
}

static bool parent_s_sessions_are_detached(sesstab *table)
{
    for (uint64_t h = 1000; h < 1000 + PARENT_S; h++)
        if (look(table, h).state != SESSTAB_DETACHED)
            return false;
    return true;
}

static void a_parent_s_death_is_not_its_hundred_children_s(void **state)
{
    struct life *lives = shared_memory((1 + CHILDREN) * sizeof *lives);
    (void)state;
    sesstab *table = persisted_table_for_all();
    check(pipe(leash) == 0);
    for (int i = 0; i <= CHILDREN; i++) {
        lives[i].table = table;
        lives[i].handle = 1 + (uint64_t)i;
    }
    pid_t parent = start_child(be_parent, lives);
    for (int i = 0; i <= CHILDREN; i++)
        wait_until(lives[i].beats);
    kill_child(parent);
    wait_until(worker_gone(&table->shm, lives[0].self) && parent_s_sessions_are_detached(table));
    for (int i = 1; i <= CHILDREN; i++) {
        beat(&lives[i]);
        check(sesstab_owner_alive(table, lives[i].self));
        check_equal(look(table, lives[i].handle).state, SESSTAB_CONNECTED);
    }
    close(leash[1]);
    for (int i = 1; i <= CHILDREN; i++)
        wait_until(!sesstab_owner_alive(table, lives[i].self));
    close(leash[0]);
    leash[0] = leash[1] = -1;
}

/* ---------------------------------------------------------------- the host program ------- */

/* By raw system calls: the thread sanitizer would find the race, which is meant. */
_Noreturn static void *close_everything_again_and_again(void *path)
{
    for (;;) {
        for (int i = 0; i < 8; i++)
            syscall(SYS_openat, AT_FDCWD, i % 2 ? path : "/dev/null", O_RDONLY | O_CLOEXEC);
        syscall(SYS_close_range, 3, ~0U, 0);
    }
}

static void judge_while_descriptors_are_closed(void *context)
{
    struct life *l = context;
    pthread_t thread;
    check_ok(sesstab_attach(l->table));
    check(pthread_create(&thread, NULL, close_everything_again_and_again, l->table->shm.path) == 0);
    for (int i = 0; i < rounds(20000); i++) {
        check(sesstab_owner_alive(l->table, l->self));
        check_equal(worker_recover(&l->table->shm, NULL, 0, NULL), 0);
    }
}

static void a_host_that_closes_descriptors_meanwhile_sees_no_false_death(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    (void)state;
    sesstab *table = table_for_all();
    start_life(l, table, 1, plain);
    run_child(judge_while_descriptors_are_closed, l);
    check(sesstab_owner_alive(table, l->self));
    check_equal(table->shm.header->deaths, 0);
}

/* ---------------------------------------------------------------- another /dev/shm ------- */

static void use_another_dev_shm(void *context)
{
    const struct life *l = context;
    const char *name = strrchr(l->table->shm.path, '/');
    const sesstab_options creation = { .create = true, .mode = SESSTAB_MEMORY };
    sesstab *other;
    own_mounts();
    check(mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL) == 0);
    check_result(sesstab_attach(l->table), SESSTAB_STALE);
    check_ok(sesstab_open(name, &creation, &other));
    check_equal(count_sessions(other), 0);
    insert_plain(other, 2);
    /* The name is there again, and is another segment's: nothing is locked or proved by it. */
    check_result(sesstab_attach(l->table), SESSTAB_STALE);
    check(strstr(sesstab_error_detail(), "another segment"));
    check(sesstab_owner_alive(l->table, l->self));
    check_equal(worker_recover(&l->table->shm, NULL, 0, NULL), 0);
}

static void a_private_dev_shm_holds_another_table_and_proves_nobody_dead(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    (void)state;
    need_namespaces();
    sesstab *table = table_for_all();
    pid_t child = start_life(l, table, 1, plain);
    run_child(use_another_dev_shm, l);
    check_equal(count_sessions(table), 1);
    end_life(l, child);
    wait_until(!sesstab_owner_alive(table, l->self));
    run_child(use_another_dev_shm, l); /* dead, and alive for who can't see the name */
    kill_child(child);
}

/* ---------------------------------------------------------------- who frees the slot ----- */

static bool told(int events)
{
    char buffer[4096];
    bool any = false;
    while (read(events, buffer, sizeof buffer) > 0)
        any = true;
    return any;
}

/* What the persister's watcher relies on. */
static void the_kernel_tells_of_a_worker_s_death_and_not_of_a_question(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    (void)state;
    sesstab *table = table_for_all();
    pid_t child = start_life(l, table, 1, may_unshare() ? in_a_pid_namespace : plain);
    int events = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    check(events >= 0 && inotify_add_watch(events, table->shm.path, IN_CLOSE_WRITE) >= 0);
    beat(l);
    check(sesstab_owner_alive(table, l->self));
    check_equal(worker_recover(&table->shm, NULL, 0, NULL), 0);
    check_table(strrchr(table->shm.path, '/'));
    check(!told(events));
    end_life(l, child);
    wait_until(told(events));
    wait_until(!sesstab_owner_alive(table, l->self));
    check(!told(events));
    close(events);
    kill_child(child);
}

static void the_persister_frees_every_dead_worker_s_slot_and_no_other(void **state)
{
    struct life *lives = shared_memory(KINDS * sizeof *lives);
    pid_t children[KINDS] = { 0 };
    (void)state;
    sesstab *table = persisted_table_for_all();
    bool all = may_unshare();
    for (int k = 0; k < KINDS; k++)
        if (all || !kinds[k].privileged)
            children[k] = start_life(&lives[k], table, 1 + (uint64_t)k, kinds[k].live);
    for (int k = 0; k < KINDS; k++) {
        if (!children[k])
            continue;
        end_life(&lives[k], children[k]);
        wait_until(worker_gone(&table->shm, lives[k].self));
        wait_until(look(table, lives[k].handle).state == SESSTAB_DETACHED);
        for (int i = k + 1; i < KINDS; i++)
            if (children[i]) {
                beat(&lives[i]);
                check(!worker_gone(&table->shm, lives[i].self));
                check_equal(look(table, lives[i].handle).state, SESSTAB_CONNECTED);
            }
        kill_child(children[k]);
    }
}

/* A worker that is dead, and that nobody has noticed yet; KIND may leave something behind. */
static void leave_dead(struct life *l, sesstab *table, uint64_t handle, void (*kind)(struct life *))
{
    pid_t child = start_life(l, table, handle, kind);
    wait_until(l->beats);
    kill_child(child);
    wait_until(!sesstab_owner_alive(table, l->self));
    check(!worker_gone(&table->shm, l->self));
}

static void in_a_read_section(struct life *l)
{
    check_ok(sesstab_read_begin(l->table));
    be_born(l);
    live_on(l);
}

static void who_opens_a_table_frees_the_slots_of_the_dead(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    const char *name = new_name();
    (void)state;
    sesstab *table = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY });
    leave_dead(l, table, 1, plain);
    open_table(name, NULL);
    check(worker_gone(&table->shm, l->self));
}

static void who_reclaims_what_a_dead_reader_pins_frees_its_slot(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    (void)state;
    sesstab *table = memory_table();
    leave_dead(l, table, 1, in_a_read_section);
    for (int i = 0; i < 4 * RCU_BATCH; i++)
        check_ok(sesstab_increment(table, 1, "n", 1, NULL));
    check(worker_gone(&table->shm, l->self));
}

static void in_a_read_section_when_told(struct life *l)
{
    be_born(l);
    while (!l->judged)
        rest();
    check_ok(sesstab_read_begin(l->table));
    for (;; rest())
        l->beats++;
}

static uint64_t fill(sesstab *table)
{
    uint64_t n = 0, handle;
    int result;
    do
        handle = 1000 + n;
    while ((result = sesstab_insert(table, &handle, NULL)) == SESSTAB_OK && ++n);
    check_result(result, SESSTAB_NOMEMORY);
    return n;
}

/* All memory is pinned by a reader; it dies; the next insert finds that out. */
static void who_finds_the_table_full_frees_what_a_dead_reader_pins(void **state)
{
    struct life *l = shared_memory(sizeof *l);
    (void)state;
    sesstab *table = open_table(new_name(), &(sesstab_options){
        .create = true, .mode = SESSTAB_MEMORY, .max_bytes = 3 << 20 });
    pid_t child = start_life(l, table, 1, in_a_read_section_when_told);
    uint64_t n = fill(table), handle = 5;
    l->judged = 1;
    wait_until(l->beats);
    kill(child, SIGSTOP);
    for (uint64_t h = 1000; h < 1000 + n; h++)
        check_ok(sesstab_remove(table, h));
    check_result(sesstab_insert(table, &handle, NULL), SESSTAB_NOMEMORY);
    check(sesstab_owner_alive(table, l->self));
    kill_child(child);
    wait_until(!sesstab_owner_alive(table, l->self));
    /* Who has failed does not look again at once. */
    wait_until(sesstab_insert(table, &handle, NULL) == SESSTAB_OK);
    check(worker_gone(&table->shm, l->self));
    check_equal(fill(table), n - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_kind_of_worker_judges_every_other_rightly),
        TEST(equal_pids_in_two_namespaces_are_two_workers),
        TEST(a_pid_that_is_used_again_makes_nobody_alive_or_dead),
        TEST(a_worker_is_dead_although_a_program_that_it_started_lives),
        TEST(a_worker_is_alive_as_long_as_a_vfork_child_uses_its_memory),
        TEST(a_parent_s_death_is_not_its_hundred_children_s),
        TEST(a_host_that_closes_descriptors_meanwhile_sees_no_false_death),
        TEST(a_private_dev_shm_holds_another_table_and_proves_nobody_dead),
        TEST(the_kernel_tells_of_a_worker_s_death_and_not_of_a_question),
        TEST(the_persister_frees_every_dead_worker_s_slot_and_no_other),
        TEST(who_opens_a_table_frees_the_slots_of_the_dead),
        TEST(who_reclaims_what_a_dead_reader_pins_frees_its_slot),
        TEST(who_finds_the_table_full_frees_what_a_dead_reader_pins),
    };
    return run_all(tests);
}
