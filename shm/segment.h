/*
 * The segment: one POSIX shared-memory object, and a process's mapping of it.
 *
 * It is built in an unnamed file (O_TMPFILE) and then linked, so that a name is complete or absent.
 * It is mapped once, at its largest size; the file is sparse.  Before a part is used it is
 * committed: posix_fallocate(3) takes the memory, so that a full /dev/shm is an error code and
 * never a SIGBUS.  Nothing is ever remapped, and no descriptor is kept.
 *
 *   G1  The header's constant part was complete before the name existed.
 *   G2  Chunks below header.committed are backed by memory; so are workers below header.worker_high,
 *       lines and tickets of threads below header.thread_high, the rings of claimed ones, and the
 *       tickets of groups below header.group_high.
 *   G3  header.committed only rises, and only after the chunk is backed and has its class.
 *
 * Functions of shm/ return 0 or an errno value; shm_detail() tells the story of the last failure:
 *   EEXIST ENOENT EINVAL EACCES  as usual          EPERM     not trustworthy (owner, mode, type)
 *   EBADMSG  not a table, damaged                  EPROTO    another layout version or compiler
 *   ESTALE   the name is gone or means another     ENOSPC    /dev/shm is full
 *   ENOMEM   address space, or max_bytes reached   EUSERS    no worker, thread or table slot free
 *   ENOTSUP  locks or membarrier do not work
 */
#ifndef SHM_SEGMENT_H
#define SHM_SEGMENT_H

#include "layout.h"

#include <pthread.h>
#include <sys/types.h>

enum { SHM_TABLES_MAX = 16, SHM_PATH_MAX = 256, SHM_DETAIL_MAX = 512 };

struct context;
struct process;

/* A process's view of one segment.  All but `limit` is constant after segment_open(). */
struct shm {
    uint8_t *base;
    struct header *header;
    struct worker *workers;
    struct thread *threads;
    atomic_u64 *urgent, *ready, *answered;
    atomic_u32 *groups;
    struct ticket *tickets;
    struct ring *rings;
    struct chunk *chunks;
    atomic_u64 *handles, *players;
    uint8_t *heap;
    atomic_u64 limit;        /* heap bytes known to be committed: a cache of header.committed       */
    atomic_u64 counted;      /* chunks by class so far; see heap.c, census_of()                    */
    uint64_t hash_seed;
    uint32_t max_chunks, ring_entries;
    bool full_fences;

    struct layout at;
    dev_t device;
    ino_t inode;
    uint64_t creation_id;
    char path[SHM_PATH_MAX];

    unsigned index;          /* in shm_tls, and so many bytes from its start                      */
    size_t tls_offset;
    uint64_t serial;         /* never reused, so that a stale shm_tls entry is known as such        */
    struct process *process; /* wiped in a forked child                                            */
    pthread_key_t key;       /* gives a thread's context back when it ends                         */
};

/* It may be switched at any time. */
static inline enum header_mode shm_mode(const struct shm *shm)
{
    return MODE_OF(load_relaxed(&shm->header->mode));
}

struct segment_options {
    bool create;
    mode_t permissions;
    uid_t owner;
    gid_t group;
    bool group_given;
    enum header_mode mode;
    uint32_t ring_entries, max_chunks;
    uint64_t first_version;
    bool full_fences;
};

/* Maps the segment NAME into *SHM, creating it if asked.  Registers with membarrier. */
int segment_open(const char *name, const struct segment_options *options, struct shm *shm);

/* Unmaps it.  The worker must have detached. */
void segment_close(struct shm *shm);

int segment_unlink(const char *name);

/*
 * A fresh descriptor of the very segment that SHM maps, by its name: for locks and growth.  The
 * caller closes it.  -1 and ESTALE in *ERROR when the name means something else by now.  ACCESS:
 * O_RDONLY to ask about locks, O_RDWR for the rest.  (Who watches for deaths is woken when a
 * descriptor that could write is closed; asking must not look like one.)
 */
int segment_descriptor(const struct shm *shm, int access, int *error);

/* Backs [offset, offset + length) with memory.  0, ENOSPC, or another errno value. */
int segment_commit(struct shm *shm, uint64_t offset, uint64_t length);

/* The story of this thread's last failure in shm/. */
const char *shm_detail(void);
int shm_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t shm_now(void); /* ms since the epoch, coarse */

#endif
