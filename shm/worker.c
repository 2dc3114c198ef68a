#include "worker.h"

#include "rcu.h"
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

__thread struct tls_entry shm_tls[SHM_TABLES_MAX] __attribute__((tls_model("initial-exec")));

/*
 * The process's side of its attachment, and the arena of its threads' contexts: one mapping that a
 * forked child sees as zeros.  An all-zero pthread_mutex_t is an unlocked one, so the child's lock
 * is free whatever the parent's threads held.
 */
struct process {
    pthread_mutex_t lock;     /* attach, and a thread's first call and end: never on a hot path */
    worker_id worker;         /* 0: not attached (yet, or in this child) */
    void *lock_page;
    uint32_t contexts;        /* used so far in the arena */
    struct context *free;
};

enum { ARENA_BYTES = (1 + ARENA_THREADS) * CONTEXT_BYTES };

/* ---------------------------------------------------------------- locks --------------------- */

static int lock_byte(int fd, int command, short type, uint64_t offset, struct flock *l)
{
    *l = (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1 };
    return fcntl(fd, command, l) ? errno : 0;
}

/* Does anybody hold the lock on byte OFFSET?  1, 0, or -1 when it can't be learned. */
static int lock_held(struct shm *shm, uint64_t offset)
{
    int error, fd = segment_descriptor(shm, O_RDONLY, &error);
    if (fd < 0)
        return -1;
    struct flock l;
    error = lock_byte(fd, F_OFD_GETLK, F_RDLCK, offset, &l);
    /* The host program may close and reuse descriptor numbers at any time: still the same file? */
    struct stat s;
    bool same = fstat(fd, &s) == 0 && s.st_dev == shm->device && s.st_ino == shm->inode;
    close(fd);
    return error || !same ? -1 : l.l_type != F_UNLCK;
}

/* Takes the lock on byte OFFSET for this process: 0, or EAGAIN when somebody has it, or another errno
 * value.  *PAGE is the mapping that holds it; munmap releases. */
static int lock_hold(struct shm *shm, uint64_t offset, void **page)
{
    int error, fd = segment_descriptor(shm, O_RDWR, &error);
    if (fd < 0)
        return error;
    struct flock l;
    error = lock_byte(fd, F_OFD_SETLK, F_WRLCK, offset, &l);
    if (error == EACCES)
        error = EAGAIN;
    if (!error) {
        *page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
        if (*page == MAP_FAILED || madvise(*page, PAGE_BYTES, MADV_DONTFORK))
            error = errno;
    }
    close(fd); /* the mapping keeps the lock */
    if (error)
        return error;
    int held = lock_held(shm, offset);
    if (held != 1)
        munmap(*page, PAGE_BYTES);
    if (held < 0)
        return shm_fail(ESTALE, "%s was removed or replaced just now", shm->path);
    if (held == 0)
        return shm_fail(ENOTSUP, "%s: locks do not outlive their descriptor here; /dev/shm must be a "
                        "tmpfs", shm->path);
    return 0;
}

static uint64_t worker_offset(const struct shm *shm, unsigned index)
{
    return shm->at.workers + index * sizeof(struct worker);
}

/* ---------------------------------------------------------------- worker slots -------------- */

static void describe(struct worker *w)
{
    store_relaxed(&w->pid, (uint32_t)getpid());
    store_relaxed(&w->uid, (uint32_t)geteuid());
    store_relaxed(&w->attached_at, shm_now());
    char name[sizeof w->name] = "";
    snprintf(name, sizeof name, "%s", program_invocation_short_name);
    memcpy(w->name, name, sizeof w->name);
}

/* A page holds as many workers as lines of threads, or tickets. */
enum { PAGE_LINES = PAGE_BYTES / 64 };
_Static_assert(sizeof(struct worker) == 64 && sizeof(struct thread) == 64 && sizeof(struct ticket) == 64,
               "a line each");

/* Line INDEX of any of them lies behind the pages that the lines below HIGH lie in, which are backed
 * (G2). */
static bool unbacked(unsigned index, atomic_u64 *high)
{
    return index >= layout_align(load_acquire(high), PAGE_LINES);
}

static int back(struct shm *shm, uint64_t area, unsigned index)
{
    return segment_commit(shm, area + index / PAGE_LINES * PAGE_BYTES, PAGE_BYTES);
}

/* EAGAIN: taken, try the next. */
static int claim(struct shm *shm, unsigned index, struct process *p)
{
    struct worker *w = &shm->workers[index];
    bool missing = unbacked(index, &shm->header->worker_high);
    int error = missing ? back(shm, shm->at.workers, index) : 0;
    if (error)
        return error;
    uint64_t owner = load_acquire(&w->owner);
    if (owner & WORKER_LIVE)
        return EAGAIN;
    if ((error = lock_hold(shm, worker_offset(shm, index), &p->lock_page)))
        return error;
    uint64_t gen = (owner + 1) & ((1u << WORKER_GEN_BITS) - 1);
    gen += gen == 0;
    raise_to(&shm->header->worker_high, index + 1);
    if (!cas(&w->owner, &owner, WORKER_LIVE | gen)) { /* COMMIT: attached */
        munmap(p->lock_page, PAGE_BYTES);
        return EAGAIN;
    }
    describe(w);
    p->worker = (worker_id)gen << WORKER_INDEX_BITS | (index + 1);
    return 0;
}

static int claim_any(struct shm *shm, struct process *p)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        int error = claim(shm, i, p);
        if (error != EAGAIN)
            return error;
    }
    return shm_fail(EUSERS, "%s: all %d worker slots are taken", shm->path, WORKERS);
}

static int worker_attach(struct shm *shm)
{
    int error = claim_any(shm, shm->process);
    if (error && worker_recover(shm, NULL, 0, NULL))
        error = claim_any(shm, shm->process);
    return error;
}

bool worker_alive(struct shm *shm, worker_id id)
{
    return !worker_gone(shm, id) && lock_held(shm, worker_offset(shm, worker_index(id))) != 0;
}

/* ---------------------------------------------------------------- threads ------------------- */

static int thread_back(struct shm *shm, unsigned index)
{
    if (!unbacked(index, &shm->header->thread_high))
        return 0;
    int error = back(shm, shm->at.threads, index);
    return error ? error : back(shm, shm->at.tickets, index);
}

/* EAGAIN: taken, try the next. */
static int thread_try(struct shm *shm, struct context *c, unsigned index)
{
    struct thread *t = &shm->threads[index];
    int error = thread_back(shm, index);
    if (error)
        return error;
    uint64_t owner = load_acquire(&t->owner);
    if (owner & THREAD_LIVE)
        return EAGAIN;
    uint64_t next = THREAD_LIVE | (uint64_t)c->worker << 32 | (uint32_t)(owner + 1);
    raise_to(&shm->header->thread_high, index + 1);
    if (!cas(&t->owner, &owner, next)) /* COMMIT: the thread slot is ours */
        return EAGAIN;
    store_release(&t->lo, THREAD_IDLE);
    store_relaxed(&t->tid, (uint64_t)syscall(SYS_gettid));
    c->thread = t;
    c->thread_index = index;
    return 0;
}

static void thread_leave(struct context *c)
{
    store_release(&c->thread->lo, THREAD_IDLE);
    uint64_t owner = load_relaxed(&c->thread->owner);
    cas_exact(&c->thread->owner, owner, owner & ~THREAD_LIVE);
}

static int thread_any(struct shm *shm, struct context *c)
{
    for (unsigned i = 0; i < THREADS; i++) {
        int error = thread_try(shm, c, i);
        if (error != EAGAIN)
            return error;
    }
    return shm_fail(EUSERS, "%s: all %d thread slots are taken", shm->path, THREADS);
}

static int thread_claim(struct shm *shm, struct context *c)
{
    int error = thread_any(shm, c);
    if (error && worker_recover(shm, NULL, 0, NULL))
        error = thread_any(shm, c);
    if (!error && (error = ring_prepare(shm, c->thread_index)))
        thread_leave(c);
    return error;
}

/* ---------------------------------------------------------------- contexts ------------------ */

static struct context *context_take(struct process *p)
{
    struct context *c = p->free;
    if (c)
        p->free = c->next_free;
    else if (p->contexts < ARENA_THREADS)
        c = (struct context *)((uint8_t *)p + ++p->contexts * (size_t)CONTEXT_BYTES);
    return c;
}

static void context_give(struct process *p, struct context *c)
{
    c->shm = NULL;
    store_relaxed(&c->user, NULL);
    c->next_free = p->free;
    p->free = c;
}

/* All but `user`, which is NULL: in a child, the entry of the thread that forked still leads here, and
 * that thread may look just now. */
static void context_clear(struct context *c)
{
    const size_t from = offsetof(struct context, thread);
    c->shm = NULL;
    memset((uint8_t *)c + from, 0, sizeof *c - from);
}
_Static_assert(offsetof(struct context, thread) == 16, "only shm and user come before");

static int context_fill(struct shm *shm, struct context *c)
{
    context_clear(c);
    c->worker = shm->process->worker;
    int error = thread_claim(shm, c);
    if (error)
        return error;
    /* Threads that die young, one after the other, never get as far as a reclaim.  Were the era to
     * stand still meanwhile, one stopped reader would pin all that they leave. */
    atomic_fetch_add(&shm->header->era, 1);
    c->shm = shm;
    return 0;
}

struct context *context_attach(struct shm *shm, int *error)
{
    struct process *p = shm->process;
    struct context *c = NULL;
    pthread_mutex_lock(&p->lock);
    *error = p->worker ? 0 : worker_attach(shm);
    if (!*error && !(c = context_take(p)))
        *error = shm_fail(EUSERS, "%s: too many threads in this process", shm->path);
    if (c && (*error = context_fill(shm, c))) {
        context_give(p, c);
        c = NULL;
    }
    pthread_mutex_unlock(&p->lock);
    if (!c)
        return NULL;
    store_relaxed(&c->user, &shm_tls[shm->index]);
    shm_tls[shm->index] = (struct tls_entry){ c, shm->serial };
    pthread_setspecific(shm->key, c);
    return c;
}

static void context_release(struct shm *shm, struct context *c)
{
    rcu_abandon(c);
    thread_leave(c);
    context_give(shm->process, c);
}

/* A pthread key's destructor: the thread ends. */
static void context_ended(void *value)
{
    struct context *c = value;
    struct shm *shm = c->shm;
    /* In a child, this may be of the time before the fork: wiped, or another thread's by now. */
    if (!shm || load_relaxed(&c->user) != &shm_tls[shm->index])
        return;
    /* Another key's destructor that comes after us may use the table: as a new thread. */
    shm_tls[shm->index] = (struct tls_entry){ 0 };
    pthread_mutex_lock(&shm->process->lock);
    context_release(shm, c);
    pthread_mutex_unlock(&shm->process->lock);
}

/* ---------------------------------------------------------------- process ------------------- */

static _Atomic uint64_t next_serial = 1;
static _Atomic uint32_t tables_used; /* a bit per index in shm_tls */

static bool index_take(struct shm *shm)
{
    uint32_t used = tables_used;
    do {
        if (used == (1u << SHM_TABLES_MAX) - 1)
            return false;
        shm->index = (unsigned)__builtin_ctz(~used);
    } while (!atomic_compare_exchange_strong(&tables_used, &used, used | 1u << shm->index));
    shm->tls_offset = shm->index * sizeof(struct tls_entry);
    shm->serial = next_serial++;
    return true;
}

int worker_open(struct shm *shm)
{
    if (!index_take(shm))
        return shm_fail(EUSERS, "%d tables are open in this process already", SHM_TABLES_MAX);
    void *arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int error = arena == MAP_FAILED || madvise(arena, ARENA_BYTES, MADV_WIPEONFORK) ? errno : 0;
    if (!error)
        error = pthread_key_create(&shm->key, context_ended);
    shm->process = arena;
    if (error) {
        if (arena != MAP_FAILED)
            munmap(arena, ARENA_BYTES);
        tables_used &= ~(1u << shm->index);
        return shm_fail(error, "%s: %s", shm->path, strerror(error));
    }
    worker_recover(shm, NULL, 0, NULL);
    if (!context_attach(shm, &error))
        worker_close(shm);
    return error;
}

static void worker_detach(struct shm *shm, struct process *p)
{
    for (uint32_t i = 1; i <= p->contexts; i++) {
        struct context *c = (struct context *)((uint8_t *)p + i * (size_t)CONTEXT_BYTES);
        if (c->shm)
            context_release(shm, c);
    }
    struct worker *w = &shm->workers[worker_index(p->worker)];
    cas_exact(&w->owner, WORKER_LIVE | worker_gen(p->worker), worker_gen(p->worker));
    store_relaxed(&shm->header->sweep_wanted, 1); /* its sessions have lost their owner */
    munmap(p->lock_page, PAGE_BYTES);
}

void worker_close(struct shm *shm)
{
    pthread_key_delete(shm->key);
    if (shm->process->worker)
        worker_detach(shm, shm->process);
    munmap(shm->process, ARENA_BYTES);
    shm_tls[shm->index] = (struct tls_entry){ 0 };
    tables_used &= ~(1u << shm->index);
}

/* ---------------------------------------------------------------- recovery ------------------ */

/* A ticket of the dead: nobody waits for it any more.  It may be answered meanwhile, once. */
static void recover_ticket(struct ticket *k, worker_id dead)
{
    uint64_t word = load_acquire(&k->word);
    while (TICKET_STATE(word) != TICKET_IDLE && load_relaxed(&k->owner) == dead &&
           !cas(&k->word, &word, TICKET_WORD(TICKET_SEQ(word) + 1, TICKET_IDLE)))
        ;
}

static void recover_group(struct shm *shm, unsigned g, worker_id dead)
{
    if (load_acquire(&shm->groups[g]) != dead)
        return;
    for (unsigned k = 0; k < GROUP_TICKETS; k++)
        recover_ticket(&shm->tickets[GROUP_TICKET(g, k)], dead);
    atomic_compare_exchange_strong(&shm->groups[g], &dead, 0); /* COMMIT: anybody's */
}

static void recover_thread(struct shm *shm, unsigned index, worker_id dead)
{
    struct thread *t = &shm->threads[index];
    uint64_t owner = load_acquire(&t->owner);
    if (!(owner & THREAD_LIVE) || THREAD_WORKER(owner) != dead)
        return;
    recover_ticket(&shm->tickets[index], dead);
    cas_exact(&t->owner, owner, owner & ~THREAD_LIVE);
}

static bool recover(struct shm *shm, unsigned index, uint64_t owner)
{
    worker_id dead = (worker_id)(owner & ~WORKER_LIVE) << WORKER_INDEX_BITS | (index + 1);
    /* What it published without announcing, and its ring, are found by looking at everything. */
    atomic_store(&shm->header->overflow, 1);
    atomic_store(&shm->header->sweep_wanted, 1);
    uint64_t threads = load_acquire(&shm->header->thread_high);
    for (unsigned i = 0; i < threads && i < THREADS; i++)
        recover_thread(shm, i, dead);
    uint64_t groups = load_acquire(&shm->header->group_high);
    for (unsigned g = 0; g < groups && g < GROUPS; g++)
        recover_group(shm, g, dead);
    if (!cas_exact(&shm->workers[index].owner, owner, owner & ~WORKER_LIVE)) /* COMMIT: recovered */
        return false;
    /* Again: the sweep asks who is gone, and a quick leader may have swept before the CAS. */
    atomic_store(&shm->header->sweep_wanted, 1);
    add_relaxed(&shm->header->deaths, 1);
    return true;
}

unsigned worker_recover(struct shm *shm, int *pids, size_t max, size_t *count)
{
    unsigned done = 0;
    size_t living = 0;
    uint64_t high = load_acquire(&shm->header->worker_high);
    for (unsigned i = 0; i < high && i < WORKERS; i++) {
        struct worker *w = &shm->workers[i];
        uint64_t owner = load_acquire(&w->owner);
        if (!(owner & WORKER_LIVE))
            continue;
        if (lock_held(shm, worker_offset(shm, i)) == 0)
            done += recover(shm, i, owner);
        else if (pids && living < max)
            pids[living++] = (int)load_relaxed(&w->pid);
    }
    if (count)
        *count = living;
    return done;
}
