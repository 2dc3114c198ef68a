/*
 * How shmdump writes things down.  What comes from a segment may be any bytes: in plain text
 * whatever could upset a terminal or a column is escaped as \xHH; JSON has exact integers, and
 * strings that are not UTF-8 come as NAME_hex.
 */
#ifndef TOOLS_SHMDUMP_TEXT_H
#define TOOLS_SHMDUMP_TEXT_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

enum { TIME_BYTES = 32, AGE_BYTES = 32 };

uint64_t clock_ms(void);

/* "2024-05-06T07:08:09.123Z"; the bare number when no calendar has it; "-" for 0. */
const char *time_text(uint64_t ms, char text[static TIME_BYTES]);
/* "12.3 s", "4 d 5 h": how long ago THEN was. */
const char *age_text(uint64_t now, uint64_t then, char text[static AGE_BYTES]);
/* now - then, but never less than 0. */
uint64_t since(uint64_t now, uint64_t then);

/* Prints bytes with everything but printable ASCII and UTF-8 escaped; a COLUMN has no blanks either
 * and is "-" when empty, "\x2d" when it is a lone "-". */
void print_bytes(const void *bytes, size_t length);
void print_column(const void *bytes, size_t length, int width);

void json_number(cJSON *object, const char *name, uint64_t number);
void json_bytes(cJSON *object, const char *name, const void *bytes, size_t length);
void json_time(cJSON *object, const char *name, uint64_t ms); /* null for 0 */
/* NAME: "INDEX.GENERATION", null for nobody; and NAME_id: the number. */
void json_worker(cJSON *object, const char *name, uint32_t id);
/* Prints VALUE on one line and deletes it. */
void json_print(cJSON *value);

/* Never return NULL: out of memory ends the program. */
void *must(void *pointer);

#endif
