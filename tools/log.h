/*
 * Log lines in logfmt on standard error, one event per line, whole or not at all.  Logging never
 * waits: lines for which a pipe has no room are counted, and log-dropped says so later.
 *
 *   ts=2026-11-22T21:00:00.123Z level=info event=loaded sessions=1200 bad=0 ms=41
 *
 * A value that would be ambiguous is quoted, with \" \\ \n and \xNN inside; one that is very long
 * is cut, and ends with "...".  Any thread may log.
 */
#ifndef TOOLS_LOG_H
#define TOOLS_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LEVEL_ERROR, LEVEL_WARN, LEVEL_INFO, LEVEL_DEBUG };

/* One key=value; a text of NULL leaves the field out. */
struct log_field {
    const char *key;
    const char *text;
    uint64_t number;
    bool is_number;
};

#define TEXT(k, v) ((struct log_field){ .key = (k), .text = (v) })
#define NUMBER(k, n) ((struct log_field){ .key = (k), .number = (n), .is_number = true })

/* log_event(LEVEL_INFO, "loaded", NUMBER("sessions", n), TEXT("from", address)); */
#define log_event(level, event, ...)                                                               \
    log_write((level), (event), (const struct log_field[]){ __VA_ARGS__ __VA_OPT__(, ) { 0 } })

/* Lines above LEVEL are dropped; info at the start. */
void log_set_level(enum log_level level);

/* "error", "warn", "info", "debug"; false for anything else. */
bool log_parse_level(const char *text, enum log_level *level);

/* How many lines had no room since the start. */
unsigned long long log_lines_dropped(void);

/* FIELDS ends with an entry whose key is NULL. */
void log_write(enum log_level level, const char *event, const struct log_field *fields);

#endif
