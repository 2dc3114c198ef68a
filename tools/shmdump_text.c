/* How shmdump writes things down: see shmdump_text.h. */
#include "tools/shmdump_text.h"

#include "tools/shmdump_image.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

void *must(void *pointer)
{
    if (!pointer) {
        fputs("shmdump: out of memory\n", stderr);
        exit(2);
    }
    return pointer;
}

/* ------------------------------------------------------------------ times ------------------ */

uint64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t since(uint64_t now, uint64_t then)
{
    return now > then ? now - then : 0;
}

const char *time_text(uint64_t ms, char text[static TIME_BYTES])
{
    static const uint64_t year_9999_ends = UINT64_C(253402300800000);
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    if (ms == 0) {
        strcpy(text, "-");
    } else if (ms >= year_9999_ends || !gmtime_r(&seconds, &tm)) {
        snprintf(text, TIME_BYTES, "%" PRIu64, ms);
    } else {
        size_t n = strftime(text, TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(text + n, TIME_BYTES - n, ".%03uZ", (unsigned)(ms % 1000));
    }
    return text;
}

const char *age_text(uint64_t now, uint64_t then, char text[static AGE_BYTES])
{
    uint64_t ms = since(now, then), s = ms / 1000;
    if (s < 60)
        snprintf(text, AGE_BYTES, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
    else if (s < 3600)
        snprintf(text, AGE_BYTES, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text, AGE_BYTES, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    else
        snprintf(text, AGE_BYTES, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
    return text;
}

/* ------------------------------------------------------------------ bytes ------------------ */

/* The length of the printable character at P: 1 to 4, or 0 when there is none. */
static size_t character(const uint8_t *p, size_t left)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] < 0x7f;
    size_t n = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
    if (n == 0 || n > left || p[0] >= 0xf5)
        return 0;
    uint32_t c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    /* Not overlong, no surrogate, no C1 control, no bidirectional override. */
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || c < 0xa0 ||
        (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x2028 || c == 0x2029)
        return 0;
    return n;
}

/* Prints, with `also` escaped too; returns the columns it took (a character is taken as one). */
static int print_escaped(const uint8_t *p, size_t length, const char *also)
{
    int columns = 0;
    for (size_t i = 0, n; i < length; i += n) {
        n = character(p + i, length - i);
        if (n == 0 || p[i] == '\\' || strchr(also, p[i])) {
            columns += printf("\\x%02x", p[i]);
            n = 1;
        } else {
            fwrite(p + i, 1, n, stdout);
            columns++;
        }
    }
    return columns;
}

void print_bytes(const void *bytes, size_t length)
{
    print_escaped(bytes, length, "");
}

void print_column(const void *bytes, size_t length, int width)
{
    int columns;
    if (length == 0)
        columns = printf("-");
    else
        columns = print_escaped(bytes, length, length == 1 ? " -" : " ");
    printf("%*s", columns < width ? width - columns : 0, "");
}

/* ------------------------------------------------------------------ JSON ------------------- */

void json_number(cJSON *object, const char *name, uint64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, number);
    must(cJSON_AddRawToObject(object, name, digits)); /* a double would round it */
}

static char *hexadecimal(const uint8_t *bytes, size_t length)
{
    char *text = must(malloc(2 * length + 1));
    for (size_t i = 0; i < length; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
    text[2 * length] = '\0';
    return text;
}

void json_bytes(cJSON *object, const char *name, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    size_t i = 0, n = 1;
    for (; i < length && n; i += n)
        n = p[i] && p[i] < 0x80 ? 1 : character(p + i, length - i);
    if (n) {
        char *text = must(strndup(bytes, length));
        must(cJSON_AddStringToObject(object, name, text));
        free(text);
        return;
    }
    char *text = hexadecimal(bytes, length), key[300];
    snprintf(key, sizeof key, "%s_hex", name);
    must(cJSON_AddStringToObject(object, key, text));
    free(text);
}

void json_time(cJSON *object, const char *name, uint64_t ms)
{
    char text[TIME_BYTES];
    if (ms == 0)
        must(cJSON_AddNullToObject(object, name));
    else
        must(cJSON_AddStringToObject(object, name, time_text(ms, text)));
}

void json_worker(cJSON *object, const char *name, uint32_t id)
{
    char text[WORKER_TEXT_BYTES], key[64];
    if (id == 0)
        must(cJSON_AddNullToObject(object, name));
    else
        must(cJSON_AddStringToObject(object, name, worker_text(id, text)));
    snprintf(key, sizeof key, "%s_id", name);
    json_number(object, key, id);
}

void json_print(cJSON *value)
{
    char *text = must(cJSON_PrintUnformatted(value));
    fputs(text, stdout);
    free(text);
    cJSON_Delete(value);
}
