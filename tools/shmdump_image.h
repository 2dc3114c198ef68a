/*
 * An image: a segment seen from outside, read-only, by somebody who trusts none of it.
 *
 *   I1  Every byte comes through image_read(), which checks it against the file's size and copies
 *       it with pread(2).  Nothing is mapped: reading a hole through a mapping allocates a page,
 *       and a file that somebody truncates under a mapping is SIGBUS.
 *   I2  An offset into the heap comes from slot_place(), block_place() or hint_place() only: the
 *       chunk must be committed, in the file, and of the class that the reference is for.
 *   I3  What was corrected on the way is in notes, for people and for --check.
 *
 * A live segment changes while it is read.  A single word is always whole; for more than a word see
 * session_read() and the walk in shmdump_index.h.
 */
#ifndef TOOLS_SHMDUMP_IMAGE_H
#define TOOLS_SHMDUMP_IMAGE_H

#include "lib/sesstab.h"
#include "shm/layout.h"

#include <sys/types.h>

enum { NOTES_MAX = 16, NOTE_BYTES = 200 };

struct image {
    int fd;
    char path[4096];
    dev_t device;
    ino_t inode;
    uint64_t size, used;   /* of the file: its length, and what it occupies                       */
    struct header header;  /* a copy, see image_refresh()                                         */
    struct layout at;
    uint32_t chunks;       /* committed, and really in the file                                   */
    uint64_t handle_buckets, player_buckets; /* as the header says, if that can be                */
    uint32_t workers_used, threads_used, groups_used; /* nothing beyond was ever used             */
    bool live;             /* the locks on this file mean something: it is no copy                */
    bool moving;           /* a worker is alive: what was read may change                         */
    uint8_t *classes;      /* of each chunk, as far as seen; a class is for ever                  */
    char notes[NOTES_MAX][NOTE_BYTES];
    unsigned note_count;
};

/*
 * Opens NAME: "/table" or "table" is an object in /dev/shm, anything else with a slash a file's
 * path.  False: ERROR says what is wrong and what to do.
 */
bool image_open(struct image *image, const char *name, char *error, size_t error_size);
void image_close(struct image *image);

/* Reads the header and the file's size again.  False: it is no table any more; ERROR as above. */
bool image_refresh(struct image *image, char *error, size_t error_size);

/*
 * The file still has all bytes of the table, and, while a worker lives, all pages that were committed.
 * False: it was truncated or punched, before we opened it or since; ERROR as above.  What is missing was
 * read as zeros.
 */
bool image_whole(const struct image *image, char *error, size_t error_size);

/* Copies SIZE bytes at AT.  False, and zeros, when they are not all in the file. */
bool image_read(const struct image *image, uint64_t at, void *buffer, size_t size);

/* One word; 0 when it is not in the file. */
uint64_t image_word(const struct image *image, uint64_t at);

/*
 * AT, or some multiple of STEP bytes further when AT lies in a hole of the file: what is skipped is
 * zeros.  Behind everything when only zeros follow.
 */
uint64_t image_skip_hole(const struct image *image, uint64_t at, size_t step);

/* What chunk INDEX is used for; CHUNK_UNUSED when it is out of range or of no known class. */
enum chunk_class image_class(const struct image *image, uint64_t index);

/* The offset in the file of what a reference means; 0 when it means nothing of that kind. */
uint64_t slot_place(const struct image *image, slot_ref ref);
uint64_t hint_place(const struct image *image, hint_ref ref);
uint64_t block_place(const struct image *image, block_ref ref, size_t *capacity);

/* Bytes of a block in a chunk of CLASS; 0 when such a chunk has none. */
size_t class_block_bytes(enum chunk_class class);

/* A slot, a block or a hint, and its ownership word. */
enum place_kind { PLACE_SLOT, PLACE_BLOCK, PLACE_HINT };
struct place {
    enum place_kind kind;
    enum chunk_class class;
    uint32_t ref;
    uint64_t own;
};

/* Calls VISIT for every place in the heap.  VISIT must not call each_place(). */
typedef void place_visitor(const struct place *place, void *context);
void each_place(const struct image *image, place_visitor *visit, void *context);

enum liveness { WORKER_FREE, WORKER_DEAD, WORKER_ALIVE, WORKER_UNKNOWN, LIVENESS_COUNT };
extern const char *const liveness_names[LIVENESS_COUNT];

/* Whether worker INDEX lives: the kernel's word (its lock), unknown for a copied file. */
enum liveness worker_liveness(const struct image *image, uint32_t index);

/* The same for the worker that an ownership word or a record names: dead when its slot is free. */
enum liveness worker_id_liveness(const struct image *image, worker_id id);
bool worker_id_valid(worker_id id);
uint32_t worker_index(worker_id id);

/* "INDEX.GENERATION", as Redis has it in Owner; "-" for 0, nobody. */
enum { WORKER_TEXT_BYTES = 24 };
const char *worker_text(worker_id id, char text[static WORKER_TEXT_BYTES]);

/* Which segment was meant is gone, or its name now means another one. */
bool image_replaced(const struct image *image);

#endif
