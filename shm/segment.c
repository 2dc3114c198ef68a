#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SHM_DIRECTORY "/dev/shm"

static __thread char detail[SHM_DETAIL_MAX];

const char *shm_detail(void)
{
    return detail[0] ? detail : "no failure so far";
}

int shm_fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    return error;
}

uint64_t shm_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---------------------------------------------------------------- names --------------------- */

static int path_of(const char *name, char *path)
{
    size_t n = name ? strlen(name) : 0;
    if (n < 2 || name[0] != '/' || n > 200)
        return shm_fail(EINVAL, "table name %s%.210s%s: a slash and 1 to 199 letters, digits, '.', "
                        "'_' or '-' are wanted, as in /mush", name ? "'" : "", name ? name : "NULL",
                        name ? "'" : "");
    for (size_t i = 1; i < n; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-' || (c == '.' && i > 1)))
            return shm_fail(EINVAL, "table name '%s': character %zu is not a letter, digit, '_', "
                            "'-' or (not first) '.'", name, i + 1);
    }
    snprintf(path, SHM_PATH_MAX, SHM_DIRECTORY "%s", name);
    return 0;
}

int segment_unlink(const char *name)
{
    char path[SHM_PATH_MAX];
    int error = path_of(name, path);
    if (error)
        return error;
    struct stat s;
    if (lstat(path, &s))
        return shm_fail(errno, "%s: %s%s", path, strerror(errno),
                        errno == ENOENT ? "; there is nothing to remove" : "");
    if (!S_ISREG(s.st_mode))
        return shm_fail(EPERM, "%s is not a regular file, so it is no table; it was left alone", path);
    if (unlink(path))
        return shm_fail(errno, "%s: %s", path, strerror(errno));
    return 0;
}

/* ---------------------------------------------------------------- memory -------------------- */

static int commit_through(int fd, uint64_t offset, uint64_t length)
{
    int error;
    while ((error = posix_fallocate(fd, (off_t)offset, (off_t)length)) == EINTR)
        ;
    return error;
}

int segment_commit(struct shm *shm, uint64_t offset, uint64_t length)
{
    uint64_t end = layout_align(offset + length, PAGE_BYTES);
    offset = offset / PAGE_BYTES * PAGE_BYTES;
    int error, fd = segment_descriptor(shm, O_RDWR, &error);
    if (fd >= 0) {
        error = commit_through(fd, offset, end - offset);
        close(fd);
    } else if (madvise(shm->base + offset, end - offset, MADV_POPULATE_WRITE) == 0) {
        error = 0; /* no name to open (chroot, private /dev/shm): through the mapping instead */
    } else {
        error = errno == EFAULT || errno == ENOMEM ? ENOSPC : errno;
    }
    if (error == ENOSPC)
        return shm_fail(ENOSPC, "%s: no room for %llu more bytes; enlarge /dev/shm (mount -o "
                        "remount,size=..., docker --shm-size) or remove what is not needed", shm->path,
                        (unsigned long long)(end - offset));
    return error ? shm_fail(error, "%s: can't commit memory: %s", shm->path, strerror(error)) : 0;
}

int segment_descriptor(const struct shm *shm, int access, int *error)
{
    int fd = open(shm->path, access | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        *error = shm_fail(errno == ENOENT ? ESTALE : errno, errno == ENOENT
                          ? "%s: the name was removed while the table was in use%.0s"
                          : "%s: %s", shm->path, strerror(errno));
        return -1;
    }
    struct stat s;
    if (fstat(fd, &s) == 0 && s.st_dev == shm->device && s.st_ino == shm->inode)
        return fd;
    close(fd);
    *error = shm_fail(ESTALE, "%s: the name now means another segment than the one in use", shm->path);
    return -1;
}

/* The parts that every table needs from its first moment. */
static int commit_first(int fd, const struct layout *at)
{
    const uint64_t parts[][2] = {
        { 0, sizeof(struct header) },
        { at->urgent, at->tickets - at->urgent },
        { at->chunks, PAGE_BYTES },
        { at->handles, INDEX_BUCKETS_MIN * 8 },
        { at->players, INDEX_BUCKETS_MIN * 8 },
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        int error = commit_through(fd, parts[i][0], parts[i][1]);
        if (error)
            return error;
    }
    return 0;
}

/* ---------------------------------------------------------------- mapping ------------------- */

/* The heap's offset is a multiple of this too: else no part of it could ever be a huge page. */
enum { MAP_ALIGNMENT = HUGE_PAGE_BYTES };

static void unmap(uint8_t *base, uint64_t size)
{
    munmap(base, size + PAGE_BYTES);
}

/* A page of zeros stands behind the segment: there ends, at the latest, a string of a damaged record
 * that has lost its NUL. */
static int map(int fd, uint64_t size, uint8_t **base)
{
    uint64_t reserved = size + PAGE_BYTES + MAP_ALIGNMENT;
    uint8_t *room = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t before = -(uintptr_t)room % MAP_ALIGNMENT;
    if (room != MAP_FAILED)
        *base = mmap(room + before, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
                     fd, 0);
    if (room == MAP_FAILED || *base == MAP_FAILED || mprotect(*base + size, PAGE_BYTES, PROT_READ)) {
        int error = errno;
        if (room != MAP_FAILED)
            munmap(room, reserved);
        return shm_fail(error, "can't map %llu MiB of address space: %s; raise the limit (ulimit -v) "
                        "or create the table with a smaller max_bytes",
                        (unsigned long long)(size >> 20), strerror(error));
    }
    if (before)
        munmap(room, before);
    munmap(*base + size + PAGE_BYTES, MAP_ALIGNMENT - before);
    madvise(*base, size, MADV_DONTDUMP);
    return 0;
}

static void point(struct shm *shm, uint8_t *base)
{
    struct header *h = (struct header *)base;
    const struct layout *at = &shm->at;
    shm->base = base;
    shm->header = h;
    shm->workers = (struct worker *)(base + at->workers);
    shm->threads = (struct thread *)(base + at->threads);
    shm->urgent = (atomic_u64 *)(base + at->urgent);
    shm->ready = (atomic_u64 *)(base + at->ready);
    shm->answered = (atomic_u64 *)(base + at->answered);
    shm->groups = (atomic_u32 *)(base + at->groups);
    shm->tickets = (struct ticket *)(base + at->tickets);
    shm->rings = (struct ring *)(base + at->rings);
    shm->chunks = (struct chunk *)(base + at->chunks);
    shm->handles = (atomic_u64 *)(base + at->handles);
    shm->players = (atomic_u64 *)(base + at->players);
    shm->heap = base + at->heap;
    shm->hash_seed = h->hash_seed;
    shm->max_chunks = h->max_chunks;
    shm->ring_entries = h->ring_entries;
    shm->full_fences = h->full_fences;
    shm->creation_id = h->creation_id;
}

static bool membarrier_works(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0 &&
           syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

/* ---------------------------------------------------------------- creating ------------------ */

static void fill_header(struct header *h, const struct segment_options *o)
{
    h->layout_version = LAYOUT_VERSION;
    h->header_bytes = sizeof *h;
    h->fingerprint = layout_fingerprint();
    while (h->creation_id == 0)
        if (getrandom(&h->creation_id, 8, 0) != 8 || getrandom(&h->hash_seed, 8, 0) != 8)
            h->creation_id = (uint64_t)getpid() << 32 ^ shm_now();
    h->created_at = shm_now();
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, h->boot_id, sizeof h->boot_id) < 0)
            memset(h->boot_id, 0, sizeof h->boot_id);
        close(fd);
    }
    h->max_chunks = o->max_chunks;
    h->full_fences = o->full_fences || !membarrier_works();
    h->ring_entries = o->ring_entries;
    h->first_version = o->first_version;
    store_relaxed(&h->era, 1);
    /* Microseconds of the clock: above every generation that an earlier table has handed out. */
    store_relaxed(&h->next_generation, h->created_at * 1000);
    store_relaxed(&h->next_handle, 1);
    store_relaxed(&h->handles.buckets, INDEX_BUCKETS_MIN);
    store_relaxed(&h->players.buckets, INDEX_BUCKETS_MIN);
    store_relaxed(&h->mode, MODE_WORD(0, o->mode));
    store_relaxed(&h->incarnation, 1);
    h->magic = LAYOUT_MAGIC;
}

/* An unnamed, complete segment; its descriptor in *FD. */
static int build(const char *path, const struct segment_options *o, int *fd)
{
    struct layout at = layout_of(o->max_chunks);
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < at.end)
        return shm_fail(EINVAL, "%s: the file size limit (ulimit -f) is below the %llu MiB of address "
                        "space that the table reserves; raise it or choose a smaller max_bytes",
                        path, (unsigned long long)(at.end >> 20));
    *fd = open(SHM_DIRECTORY, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd < 0)
        return shm_fail(errno == EOPNOTSUPP ? ENOTSUP : errno, "can't create a file in "
                        SHM_DIRECTORY ": %s", strerror(errno));
    int error = ftruncate(*fd, (off_t)at.end) ? errno : commit_first(*fd, &at);
    uint8_t *base;
    if (error)
        shm_fail(error, "%s: can't take its first pages: %s; enlarge /dev/shm (mount -o "
                 "remount,size=..., docker --shm-size)", path, strerror(error));
    else
        error = map(*fd, at.end, &base);
    if (error) {
        close(*fd);
        return error;
    }
    fill_header((struct header *)base, o);
    store_relaxed((atomic_u64 *)(base + at.handles), LINK_END); /* bucket 0 is always there */
    store_relaxed((atomic_u64 *)(base + at.players), LINK_END);
    unmap(base, at.end);
    if (o->group_given && fchown(*fd, (uid_t)-1, o->group))
        error = shm_fail(errno, "%s: can't give it to group %u: %s", path, (unsigned)o->group,
                         strerror(errno));
    else if (fchmod(*fd, o->permissions))
        error = shm_fail(errno, "%s: chmod: %s", path, strerror(errno));
    if (error)
        close(*fd);
    return error;
}

/* EEXIST: somebody else was first. */
static int create(const char *path, const struct segment_options *o)
{
    int fd = -1, error = build(path, o, &fd);
    if (error)
        return error;
    char self[40];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    /* COMMIT: the segment has a name, and is complete */
    if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW))
        error = shm_fail(errno, "%s: can't link it: %s", path, strerror(errno));
    close(fd);
    return error;
}

/* ---------------------------------------------------------------- attaching ----------------- */

static int check_file(const char *path, const struct stat *s, const struct segment_options *o)
{
    if (!S_ISREG(s->st_mode))
        return shm_fail(EPERM, "%s is not a regular file", path);
    if (s->st_nlink == 0)
        return shm_fail(ESTALE, "%s was removed just now", path);
    if (s->st_nlink > 1)
        return shm_fail(EPERM, "%s has %lu hard links; a table has one name", path,
                        (unsigned long)s->st_nlink);
    if (s->st_uid != geteuid() && s->st_uid != 0 && s->st_uid != o->owner)
        return shm_fail(EPERM, "%s belongs to user %u, but only user %u and root are trusted; see "
                        "options.owner, or --owner of the tools", path, (unsigned)s->st_uid,
                        (unsigned)(o->owner ? o->owner : geteuid()));
    if ((s->st_mode & 0777) & ~o->permissions)
        return shm_fail(EPERM, "%s has mode %03o, which allows more than %03o: chmod or remove it, or "
                        "set options.permissions", path,
                        (unsigned)(s->st_mode & 0777), (unsigned)o->permissions);
    if (s->st_size < PAGE_BYTES)
        return shm_fail(EBADMSG, "%s is too small (%lld bytes) to be a table", path,
                        (long long)s->st_size);
    return 0;
}

static int check_header(const char *path, const struct header *h, uint64_t size)
{
    if (h->magic != LAYOUT_MAGIC)
        return shm_fail(EBADMSG, "%s is not a sesstab table (magic %016llx)", path,
                        (unsigned long long)h->magic);
    if (h->layout_version != LAYOUT_VERSION)
        return shm_fail(EPROTO, "%s has layout version %u, this program has %u; stop all its users and "
                        "remove it, the persister will fill a new one from Redis", path,
                        h->layout_version, LAYOUT_VERSION);
    if (h->fingerprint != layout_fingerprint() || h->header_bytes != sizeof *h)
        return shm_fail(EPROTO, "%s was laid out by another build (fingerprint %016llx, here %016llx)",
                        path, (unsigned long long)h->fingerprint,
                        (unsigned long long)layout_fingerprint());
    if (h->max_chunks < 2 || h->max_chunks > CHUNKS_MAX ||
        h->ring_entries < 4 || h->ring_entries > RING_ENTRIES_MAX ||
        (h->ring_entries & (h->ring_entries - 1)) || load_relaxed(&h->committed) > h->max_chunks)
        return shm_fail(EBADMSG, "%s is damaged: its header holds impossible sizes", path);
    if (layout_of(h->max_chunks).end != size)
        return shm_fail(EBADMSG, "%s is damaged: it has %llu bytes instead of %llu", path,
                        (unsigned long long)size, (unsigned long long)layout_of(h->max_chunks).end);
    return 0;
}

static int attach_file(int fd, const struct segment_options *o, struct shm *shm)
{
    struct stat s;
    union { struct header header; uint8_t page[PAGE_BYTES]; } first;
    if (fstat(fd, &s))
        return shm_fail(errno, "%s: %s", shm->path, strerror(errno));
    int error = check_file(shm->path, &s, o);
    if (error)
        return error;
    if (pread(fd, &first, sizeof first, 0) != (ssize_t)sizeof first)
        return shm_fail(EBADMSG, "%s can't be read", shm->path);
    if ((error = check_header(shm->path, &first.header, (uint64_t)s.st_size)))
        return error;
    bool works = membarrier_works();
    if (!first.header.full_fences && !works)
        return shm_fail(ENOTSUP, "%s needs membarrier(2), which this process may not use (seccomp?); "
                        "create the table with full_fences", shm->path);
    shm->at = layout_of(first.header.max_chunks);
    shm->device = s.st_dev;
    shm->inode = s.st_ino;
    uint8_t *base;
    if ((error = map(fd, shm->at.end, &base)))
        return error;
    point(shm, base);
    return 0;
}

static int attach(const struct segment_options *o, struct shm *shm)
{
    int fd = open(shm->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && (errno == ELOOP || errno == EISDIR || errno == ENXIO))
        return shm_fail(EPERM, "%s is a symbolic link, a directory or a socket, not a table",
                        shm->path);
    if (fd < 0 && errno == ENOENT)
        return shm_fail(ENOENT, "%s: there is no such table; start the process that makes it, or set "
                        "options.create", shm->path);
    if (fd < 0)
        return shm_fail(errno, "%s: %s", shm->path, strerror(errno));
    int error = attach_file(fd, o, shm);
    close(fd);
    return error;
}

int segment_open(const char *name, const struct segment_options *options, struct shm *shm)
{
    int error = path_of(name, shm->path);
    if (error)
        return error;
    /* Between a create that lost the race and the attach, the winner may unlink: try again. */
    for (int tries = 0; tries < 16; tries++) {
        error = attach(options, shm);
        if (!options->create || (error != ENOENT && error != ESTALE))
            return error;
        error = create(shm->path, options);
        if (error && error != EEXIST)
            return error;
    }
    return error;
}

void segment_close(struct shm *shm)
{
    unmap(shm->base, shm->at.end);
}
