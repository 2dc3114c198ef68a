/*
 * Log lines in logfmt; see log.h.  A line is built in a buffer on the stack and written by one
 * write(2), so that lines of several threads and processes do not mix.  poll(2) reports a pipe as
 * writable only when PIPE_BUF bytes fit, and no line is longer.
 */
#include "tools/log.h"

#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = PIPE_BUF, VALUE_MAX_BYTES = 640 };

struct line {
    char bytes[LINE_MAX_BYTES];
    size_t used;
};

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static _Atomic(int) threshold = LEVEL_INFO;
static atomic_ullong dropped; /* lines, since log-dropped was written last */
static atomic_ullong ever_dropped;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&threshold, level, memory_order_relaxed);
}

bool log_parse_level(const char *text, enum log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}

/* Keeps one byte free for the newline; what does not fit is cut off (no event has so much). */
static void add(struct line *line, const char *bytes, size_t count)
{
    size_t room = sizeof line->bytes - 1 - line->used;
    if (count > room)
        count = room;
    memcpy(line->bytes + line->used, bytes, count);
    line->used += count;
}

static void add_text(struct line *line, const char *text)
{
    add(line, text, strlen(text));
}

static bool is_plain(const char *text)
{
    if (!*text)
        return false;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p <= ' ' || *p == '"' || *p == '=' || *p == '\\' || *p == 0x7f)
            return false;
    return true;
}

static void add_escaped(struct line *line, unsigned char byte)
{
    char hex[5];
    if (byte == '"' || byte == '\\') {
        add(line, (const char[]){ '\\', (char)byte }, 2);
    } else if (byte == '\n') {
        add(line, "\\n", 2);
    } else if (byte < ' ' || byte == 0x7f) {
        snprintf(hex, sizeof hex, "\\x%02x", byte);
        add(line, hex, 4);
    } else {
        add(line, (const char *)&byte, 1);
    }
}

static void add_value(struct line *line, const char *text)
{
    size_t start = line->used;
    bool plain = is_plain(text);
    if (!plain)
        add(line, "\"", 1);
    for (; *text && line->used - start < VALUE_MAX_BYTES; text++)
        add_escaped(line, (unsigned char)*text);
    add_text(line, *text ? "..." : "");
    if (!plain)
        add(line, "\"", 1);
}

static void add_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    char text[64];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "ts=%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1000000);
    add_text(line, text);
}

static void add_field(struct line *line, const struct log_field *field)
{
    char number[24];
    if (!field->is_number && !field->text)
        return;
    add(line, " ", 1);
    add_text(line, field->key);
    add(line, "=", 1);
    if (field->is_number) {
        snprintf(number, sizeof number, "%llu", (unsigned long long)field->number);
        add_text(line, number);
    } else {
        add_value(line, field->text);
    }
}

static bool has_room(void)
{
    struct pollfd stderr_poll = { .fd = STDERR_FILENO, .events = POLLOUT };
    return poll(&stderr_poll, 1, 0) == 1;
}

static void write_line(enum log_level level, const char *event, const struct log_field *fields)
{
    struct line line = { .used = 0 };
    add_time(&line);
    add_text(&line, " level=");
    add_text(&line, level_names[level]);
    add_text(&line, " event=");
    add_text(&line, event);
    for (; fields->key; fields++)
        add_field(&line, fields);
    line.bytes[line.used++] = '\n';
    /* Nobody to tell when standard error is gone. */
    ssize_t written = write(STDERR_FILENO, line.bytes, line.used);
    (void)written;
}

static void drop_line(void)
{
    atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&ever_dropped, 1, memory_order_relaxed);
}

unsigned long long log_lines_dropped(void)
{
    return atomic_load_explicit(&ever_dropped, memory_order_relaxed);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    if ((int)level > atomic_load_explicit(&threshold, memory_order_relaxed))
        return;
    if (!has_room()) {
        drop_line();
        return;
    }
    unsigned long long lines = atomic_exchange_explicit(&dropped, 0, memory_order_relaxed);
    if (lines) {
        write_line(LEVEL_WARN, "log-dropped",
                   (const struct log_field[]){ NUMBER("lines", lines),
                       TEXT("reason", "standard error had no room"), { 0 } });
        if (!has_room()) {
            drop_line();
            return;
        }
    }
    write_line(level, event, fields);
}
