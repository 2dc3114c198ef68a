/*
 * --check, in three files:
 *
 *   shmdump_check.c     what is examined in which order, what becomes of a finding, the report
 *   shmdump_walk.c      the walk along the two indexes, which remembers what is linked
 *   shmdump_examine.c   an examiner for each kind of thing
 *
 * What an examiner does not find in order is a finding, with one of two verdicts:
 *
 *   WRONG       no instruction at which a process can be killed leaves this
 *   ABANDONED   a death leaves this, and the sweep finds it: counted, and wrong only if --strict
 */
#ifndef TOOLS_SHMDUMP_CHECK_H
#define TOOLS_SHMDUMP_CHECK_H

#include "tools/shmdump_index.h"
#include "tools/shmdump_session.h"

enum {
    TEXT_BYTES = 200,
    HEADER_CHECKS = 6 /* spots of kind HEADER, besides the image's notes */
};

enum verdict { FINE, ABANDONED, WRONG };

/* What is examined.  `at`: a reference, a bucket or an index, by kind. */
enum kind { HEADER, HEAD, RUN, SLOT, BLOCK, HINT, CHUNK, WORKER, THREAD, RING, TICKET, GROUP, KINDS };
struct spot {
    enum kind kind;
    bool of_players; /* for RUN and HEAD */
    uint64_t at;
};

struct finding {
    struct spot spot;
    enum verdict verdict;
    char *text; /* kept by keep_text() */
};

/* One index, as the walk along it found it. */
struct walked {
    struct index index;
    uint32_t *heads;   /* the linked ones, in split order                                         */
    uint8_t *reached;  /* beside heads: the walk came by                                          */
    size_t head_count, head_capacity;
    uint64_t *linked;  /* a bit per place of the heap: an unmarked node that the walk came by     */
    uint64_t *keys;    /* of the players' unmarked nodes, sorted                                  */
    size_t key_count, key_capacity;
    uint64_t nodes;    /* that the walk came by                                                   */
};

struct check {
    const struct image *image;
    bool first;        /* pass: what the walk remembers is fresh                                  */
    struct walked handles, players;
    struct finding *findings;
    size_t count, capacity, wrong, dropped;
    char *texts[32];   /* of what is abandoned: there may be millions, of a few kinds             */
    uint64_t examined[KINDS], sessions, tombstones;
    enum session_kind met; /* by the latest examine_slot() */
};

/* Writes TEXT, TEXT_BYTES long, and returns VERDICT. */
__attribute__((format(printf, 3, 4)))
enum verdict say(char *text, enum verdict verdict, const char *format, ...);

/* Examines one thing; TEXT says what is not in order.  May be called again at any time. */
typedef enum verdict examiner(struct check *check, struct spot spot, char *text);
examiner examine;          /* whatever kind SPOT is of                                            */
examiner examine_run, examine_head;

/* Examines a spot for the first time, and keeps what it finds. */
void examine_first(struct check *check, struct spot spot);
void find(struct check *check, struct spot spot, enum verdict verdict, const char *text);

/* Walks along an index: fills WALKED, and examines each run and each head. */
void walk_index(struct check *check, struct walked *walked);
void forget_walked(struct walked *walked);

/* Has the walk come by the node at REF?  After the first pass: does a reader find it? */
bool node_linked(struct check *check, const struct walked *walked, uint32_t ref, uint64_t key);
/* The same for any hint of player and slot KEY. */
bool hint_linked(struct check *check, uint64_t key);

#endif
