/* Reading a segment from outside: see shmdump_image.h for what this promises. */
#include "tools/shmdump_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SHM_DIRECTORY "/dev/shm"

const char *const liveness_names[] = { "free", "dead", "alive", "unknown" };

__attribute__((format(printf, 2, 3)))
static void note(struct image *image, const char *format, ...)
{
    if (image->note_count == NOTES_MAX)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(image->notes[image->note_count++], NOTE_BYTES, format, arguments);
    va_end(arguments);
}

/* ------------------------------------------------------------------ reading ---------------- */

bool image_read(const struct image *image, uint64_t at, void *buffer, size_t size)
{
    size_t done = 0;
    while (done < size && at + done < image->size) {
        ssize_t n = pread(image->fd, (char *)buffer + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    memset((char *)buffer + done, 0, size - done);
    return done == size;
}

uint64_t image_word(const struct image *image, uint64_t at)
{
    uint64_t word;
    image_read(image, at, &word, sizeof word);
    return word;
}

uint64_t image_skip_hole(const struct image *image, uint64_t at, size_t step)
{
    if (at >= image->size)
        return INT64_MAX;
    off_t data = lseek(image->fd, (off_t)at, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? INT64_MAX : at;
    return data <= (off_t)at ? at : at + ((uint64_t)data - at) / step * step;
}

enum chunk_class image_class(const struct image *image, uint64_t index)
{
    if (index >= image->chunks)
        return CHUNK_UNUSED;
    if (image->classes[index] == CHUNK_UNUSED) {
        uint64_t class = image_word(image, image->at.chunks + index * sizeof(struct chunk) +
                                               offsetof(struct chunk, class));
        image->classes[index] = class < CHUNK_CLASSES ? (uint8_t)class : CHUNK_UNUSED;
    }
    return image->classes[index];
}

size_t class_block_bytes(enum chunk_class class)
{
    if (class == CHUNK_SESSIONS)
        return BLOCK_UNIT;
    if (class >= CHUNK_512 && class < CHUNK_CLASSES)
        return (size_t)512 << (class - CHUNK_512);
    return 0;
}

uint64_t slot_place(const struct image *image, slot_ref ref)
{
    uint64_t at = (uint64_t)ref.at * SLOT_BYTES;
    if (ref.at == 0 || image_class(image, at / CHUNK_BYTES) != CHUNK_SESSIONS ||
        at % PAGE_BYTES >= PAGE_SLOTS * SLOT_BYTES)
        return 0;
    return image->at.heap + at;
}

uint64_t hint_place(const struct image *image, hint_ref ref)
{
    uint64_t at = (uint64_t)ref.at * HINT_BYTES;
    if (ref.at == 0 || image_class(image, at / CHUNK_BYTES) != CHUNK_HINTS)
        return 0;
    return image->at.heap + at;
}

uint64_t block_place(const struct image *image, block_ref ref, size_t *capacity)
{
    uint64_t at = (uint64_t)ref.at * BLOCK_UNIT;
    enum chunk_class class = image_class(image, at / CHUNK_BYTES);
    size_t bytes = class_block_bytes(class);
    if (ref.at == 0 || bytes == 0)
        return 0;
    if (class == CHUNK_SESSIONS ? at % PAGE_BYTES < PAGE_SLOTS * SLOT_BYTES
                                : at % CHUNK_BYTES % bytes != 0)
        return 0;
    *capacity = bytes;
    return image->at.heap + at;
}

/* ------------------------------------------------------------------ all places ------------- */

/* COUNT places of a kind, STEP bytes apart, from byte FIRST of a chunk; UNIT: of references. */
struct row {
    enum place_kind kind;
    enum chunk_class class;
    size_t first, count, step, unit;
};

/* The chunk's bytes are at CHUNK, and it begins at HEAP_AT in the heap. */
static void visit_row(const uint8_t *chunk, uint64_t heap_at, const struct row *row,
                      place_visitor *visit, void *context)
{
    struct place place = { .kind = row->kind, .class = row->class };
    size_t word = row->kind == PLACE_BLOCK ? offsetof(struct block, own)
                                           : offsetof(struct node, life);
    for (size_t i = 0; i < row->count; i++) {
        size_t at = row->first + i * row->step;
        memcpy(&place.own, chunk + at + word, sizeof place.own);
        place.ref = (uint32_t)((heap_at + at) / row->unit);
        visit(&place, context);
    }
}

/* The first page of the heap is never used, so that no reference is 0. */
static void visit_session_pages(const uint8_t *chunk, uint64_t heap_at, place_visitor *visit,
                                void *context)
{
    struct row slots = { PLACE_SLOT, CHUNK_SESSIONS, 0, PAGE_SLOTS, SLOT_BYTES, SLOT_BYTES };
    struct row blocks = { PLACE_BLOCK, CHUNK_SESSIONS, 0, PAGE_BLOCKS, BLOCK_UNIT, BLOCK_UNIT };
    for (size_t page = heap_at == 0; page < CHUNK_PAGES; page++) {
        slots.first = page * PAGE_BYTES;
        blocks.first = slots.first + PAGE_SLOTS * SLOT_BYTES;
        visit_row(chunk, heap_at, &slots, visit, context);
        visit_row(chunk, heap_at, &blocks, visit, context);
    }
}

static struct row row_of(enum chunk_class class, uint64_t heap_at)
{
    bool hints = class == CHUNK_HINTS;
    size_t bytes = hints ? HINT_BYTES : class_block_bytes(class);
    size_t first = heap_at ? 0 : bytes < PAGE_BYTES ? PAGE_BYTES : bytes;
    return (struct row){ hints ? PLACE_HINT : PLACE_BLOCK, class, first,
                         (CHUNK_BYTES - first) / bytes, bytes, hints ? HINT_BYTES : BLOCK_UNIT };
}

void each_place(const struct image *image, place_visitor *visit, void *context)
{
    static uint8_t chunk[CHUNK_BYTES];
    for (uint64_t i = 0; i < image->chunks; i++) {
        uint64_t heap_at = i * CHUNK_BYTES;
        enum chunk_class class = image_class(image, i);
        if (class == CHUNK_UNUSED)
            continue;
        image_read(image, image->at.heap + heap_at, chunk, sizeof chunk);
        if (class == CHUNK_SESSIONS) {
            visit_session_pages(chunk, heap_at, visit, context);
        } else {
            struct row row = row_of(class, heap_at);
            visit_row(chunk, heap_at, &row, visit, context);
        }
    }
}

/* ------------------------------------------------------------------ opening ---------------- */

/* What --help says: "/table" and "table" are objects, all else with a slash are files. */
static bool find_path(struct image *image, const char *name, char *error, size_t error_size)
{
    const char *base = name + (*name == '/');
    bool is_object = *base && !strchr(base, '/');
    if (is_object && strlen(base) >= SESSTAB_NAME_MAX) {
        snprintf(error, error_size, "the name is longer than %d bytes", SESSTAB_NAME_MAX);
        return false;
    }
    int n = snprintf(image->path, sizeof image->path, "%s%s", is_object ? SHM_DIRECTORY "/" : "",
                     is_object ? base : name);
    if (!*name || n >= (int)sizeof image->path) {
        snprintf(error, error_size, *name ? "the path is too long" : "the name is empty");
        return false;
    }
    return true;
}

static bool open_file(struct image *image, char *error, size_t error_size)
{
    /* O_NONBLOCK: a FIFO of that name must not hang us. */
    image->fd = open(image->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (image->fd >= 0)
        return true;
    const char *help = "";
    if (errno == ENOENT)
        help = strncmp(image->path, SHM_DIRECTORY "/", sizeof SHM_DIRECTORY) == 0
                   ? "; is the server running?  (for a file in this directory say ./NAME)" : "";
    else if (errno == EACCES)
        help = "; try as the table's owner or as root";
    snprintf(error, error_size, "cannot open %.*s: %s%s", (int)error_size / 2, image->path,
             strerror(errno), help);
    return false;
}

/* Identity first: everything else means something only in a table of our layout. */
static bool identify(const struct header *h, char *error, size_t error_size)
{
    if (h->magic != LAYOUT_MAGIC)
        snprintf(error, error_size, "not a sesstab table (its first bytes are not \"sesstab1\")");
    else if (h->layout_version != LAYOUT_VERSION)
        snprintf(error, error_size, "the table has layout version %u, this shmdump reads %u: "
                 "use the shmdump of the sesstab that made it", h->layout_version, LAYOUT_VERSION);
    else if (h->fingerprint != layout_fingerprint() || h->header_bytes != sizeof *h)
        snprintf(error, error_size, "the table was laid out by another build (fingerprint "
                 "%016llx, here %016llx): use the shmdump of the sesstab that made it",
                 (unsigned long long)h->fingerprint, (unsigned long long)layout_fingerprint());
    else if (h->max_chunks < 2 || h->max_chunks > CHUNKS_MAX)
        snprintf(error, error_size, "the header is damaged: max_chunks is %u, not 2 to %u",
                 h->max_chunks, CHUNKS_MAX);
    else
        return true;
    return false;
}

static uint64_t bounded_buckets(struct image *image, const char *index, uint64_t buckets,
                                uint64_t max)
{
    if (buckets >= INDEX_BUCKETS_MIN && buckets <= max && (buckets & (buckets - 1)) == 0)
        return buckets;
    note(image, "index of %s: %llu buckets is no power of two from %d to %llu; taken as %llu",
         index, (unsigned long long)buckets, INDEX_BUCKETS_MIN, (unsigned long long)max,
         (unsigned long long)max);
    return max;
}

static uint32_t bounded_high(struct image *image, const char *what, uint64_t high, uint32_t max)
{
    if (high <= max)
        return (uint32_t)high;
    note(image, "header: %llu %s were used, but there are only %u; all are looked at",
         (unsigned long long)high, what, max);
    return max;
}

/* The numbers that later loops trust. */
static void bound(struct image *image)
{
    const struct header *h = &image->header;
    image->note_count = 0;
    if (image->size < image->at.end)
        note(image, "the file is truncated: %llu bytes of %llu; what is missing reads as zeros",
             (unsigned long long)image->size, (unsigned long long)image->at.end);
    uint64_t committed = h->committed, in_file = 0;
    if (committed > h->max_chunks) {
        note(image, "header: %llu chunks are committed of at most %u; taken as %u",
             (unsigned long long)committed, h->max_chunks, h->max_chunks);
        committed = h->max_chunks;
    }
    if (image->size > image->at.heap)
        in_file = (image->size - image->at.heap + CHUNK_BYTES - 1) / CHUNK_BYTES;
    if (committed > in_file) {
        note(image, "%llu chunks are committed, only %llu are in the file",
             (unsigned long long)committed, (unsigned long long)in_file);
        committed = in_file;
    }
    image->chunks = (uint32_t)committed;
    image->handle_buckets = bounded_buckets(image, "handles", h->handles.buckets,
                                            image->at.handles_max);
    image->player_buckets = bounded_buckets(image, "players", h->players.buckets,
                                            image->at.players_max);
    image->workers_used = bounded_high(image, "workers", h->worker_high, WORKERS);
    image->threads_used = bounded_high(image, "threads", h->thread_high, THREADS);
    image->groups_used = bounded_high(image, "groups", h->group_high, GROUPS);
}

bool image_refresh(struct image *image, char *error, size_t error_size)
{
    struct stat st;
    uint32_t max_chunks = image->header.max_chunks;
    if (fstat(image->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        snprintf(error, error_size, "not a regular file, so no table");
        return false;
    }
    image->size = st.st_size > 0 ? (uint64_t)st.st_size : 0;
    image->used = (uint64_t)st.st_blocks * 512;
    image->device = st.st_dev;
    image->inode = st.st_ino;
    if (!image_read(image, 0, &image->header, sizeof image->header)) {
        snprintf(error, error_size, "too short to be a table: %llu bytes",
                 (unsigned long long)image->size);
        return false;
    }
    if (!identify(&image->header, error, error_size))
        return false;
    if (image->classes && image->header.max_chunks != max_chunks) {
        snprintf(error, error_size, "the header is damaged: max_chunks changed from %u to %u",
                 max_chunks, image->header.max_chunks);
        return false;
    }
    image->at = layout_of(image->header.max_chunks);
    bound(image);
    return true;
}

/* What the file occupies at least: these parts were committed before they were used.  (A copy may be
 * sparser: cp leaves out what is zeros.) */
static uint64_t committed_bytes(const struct image *image)
{
    return sizeof image->header + (image->at.tickets - image->at.urgent) +
           (uint64_t)image->chunks * (sizeof(struct chunk) + CHUNK_BYTES);
}

bool image_whole(const struct image *image, char *error, size_t error_size)
{
    struct stat st;
    uint64_t least = image->moving ? committed_bytes(image) : 0;
    if (fstat(image->fd, &st) != 0)
        snprintf(error, error_size, "cannot be looked at any more: %s", strerror(errno));
    else if ((uint64_t)st.st_size < image->at.end)
        snprintf(error, error_size, "the file is truncated: %llu bytes of %llu; what is missing was read "
                 "as zeros", (unsigned long long)st.st_size, (unsigned long long)image->at.end);
    else if ((uint64_t)st.st_blocks * 512 < least)
        snprintf(error, error_size, "pages are missing: it occupies %llu bytes, of which at least %llu are "
                 "in use; what is missing was read as zeros", (unsigned long long)st.st_blocks * 512,
                 (unsigned long long)least);
    else
        return true;
    return false;
}

/* ------------------------------------------------------------------ life ------------------- */

/* Any process at all holds the lock of worker INDEX. */
static bool lock_held(const struct image *image, uint32_t index)
{
    struct flock lock = {
        .l_type = F_RDLCK, /* holders have write locks; a stranger's read lock proves nothing */
        .l_whence = SEEK_SET,
        .l_start = (off_t)(image->at.workers + index * sizeof(struct worker)),
        .l_len = 1,
    };
    return fcntl(image->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/*
 * A copy has no locks, and that must not read as "everybody is dead": locks count only on the file
 * that workers attach to, which is on the tmpfs of /dev/shm, or visibly locked by somebody (another
 * container's /dev/shm, reached by its path).
 */
static void look_for_life(struct image *image)
{
    struct stat shm;
    struct statfs fs;
    bool any = false;
    for (uint32_t i = 0; i < image->workers_used && !any; i++)
        any = lock_held(image, i);
    image->moving = any;
    image->live = any || (fstatfs(image->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC &&
                          stat(SHM_DIRECTORY, &shm) == 0 && shm.st_dev == image->device);
}

uint32_t worker_index(worker_id id)
{
    return (id & ((1u << WORKER_INDEX_BITS) - 1)) - 1;
}

const char *worker_text(worker_id id, char text[static WORKER_TEXT_BYTES])
{
    if (id == 0)
        return strcpy(text, "-");
    snprintf(text, WORKER_TEXT_BYTES, "%" PRIu32 ".%" PRIu32, worker_index(id),
             id >> WORKER_INDEX_BITS);
    return text;
}

bool worker_id_valid(worker_id id)
{
    return worker_index(id) < WORKERS && id >> WORKER_INDEX_BITS < 1u << WORKER_GEN_BITS;
}

enum liveness worker_liveness(const struct image *image, uint32_t index)
{
    uint64_t owner = image_word(image, image->at.workers + index * sizeof(struct worker) +
                                           offsetof(struct worker, owner));
    if (!(owner & WORKER_LIVE))
        return WORKER_FREE;
    if (!image->live)
        return WORKER_UNKNOWN;
    return lock_held(image, index) ? WORKER_ALIVE : WORKER_DEAD;
}

enum liveness worker_id_liveness(const struct image *image, worker_id id)
{
    if (!worker_id_valid(id))
        return WORKER_DEAD;
    uint32_t index = worker_index(id);
    uint64_t owner = image_word(image, image->at.workers + index * sizeof(struct worker) +
                                           offsetof(struct worker, owner));
    uint32_t generation = (uint32_t)owner & ((1u << WORKER_GEN_BITS) - 1);
    if (!(owner & WORKER_LIVE) || generation != id >> WORKER_INDEX_BITS)
        return WORKER_DEAD;
    return worker_liveness(image, index);
}

/* ------------------------------------------------------------------ the whole -------------- */

bool image_open(struct image *image, const char *name, char *error, size_t error_size)
{
    memset(image, 0, sizeof *image);
    image->fd = -1;
    if (!find_path(image, name, error, error_size) || !open_file(image, error, error_size))
        return false;
    if (!image_refresh(image, error, error_size)) {
        image_close(image);
        return false;
    }
    image->classes = calloc(image->header.max_chunks, 1);
    if (!image->classes) {
        snprintf(error, error_size, "out of memory");
        image_close(image);
        return false;
    }
    look_for_life(image);
    return true;
}

void image_close(struct image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    free(image->classes);
    image->fd = -1;
    image->classes = NULL;
}

bool image_replaced(const struct image *image)
{
    struct stat st;
    return stat(image->path, &st) != 0 || st.st_dev != image->device || st.st_ino != image->inode;
}
