/*
 * What every fuzz target stands on: a small sound segment, and a way to damage it and to have it back.
 *
 * An input is a number of patches, then the patches, then whatever the target makes of the rest:
 *
 *   | count | {area, how, index, field, other, value} 16 bytes | ... | rest
 *
 * A patch damages one word of one element of one area; how: a value, a bit, a copy of the same word of
 * another element, a link in good order to another node, ...  So that most inputs are almost sound
 * segments, and reach far.
 *
 *   F1  The segment is a file that nothing changes after image_build().  The table that the library has
 *       open is a private mapping of it: image_reset() gives all pages back that were touched.
 *   F2  Nothing is wrong in it but what a patch did.  So a session that is found is the one that was
 *       asked for, unless a patch wrote over the records' own texts.
 *   F3  The page behind the segment is poison to the library: whatever reads there is reported.
 *   F4  The sessions, their order in the index, and what an input does are the same in each run.
 */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include "lib/table.h"

enum { HANDLES = 16 }; /* 1 to 10 live, 11 and 12 tombstones, 13 and 14 a dead worker's, others free */

extern const char *const image_players[4];

/* The host name by which a session is known to be its handle's; valid until the next call. */
const char *image_host(uint64_t handle);

/* Builds the segment, and opens it. */
void image_build(void);

/* The open table, and this thread's state in it. */
sesstab *image_table(void);
struct context *image_context(void);
const char *image_name(void);

/* Damages the open table, or with it the FILE (an own, writable mapping; see image_undo()). */
struct input { const uint8_t *at; size_t left; };
void image_damage(struct input *input);
void image_damage_file(struct input *input, uint8_t *file);

/* The open table is sound again; the patches in the file are taken back. */
void image_reset(void);
void image_reset_after_reading(void); /* the same after calls that only read, and much cheaper */
void image_undo(uint8_t *file);

/* Takes a byte of the input; 0 when there is none left. */
uint8_t input_byte(struct input *input);

/* A view that the library returned for HANDLE: reads all of it, and checks what must be true of it. */
void image_look_at(const sesstab_view *view, uint64_t handle);

#endif
