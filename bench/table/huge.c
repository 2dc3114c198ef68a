#include "bench/table/huge.h"

#include "bench/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES (UINT64_C(2) << 20)
enum { SMALL_PAGES = 512, MAPPINGS_MAX = 256, NAME_MAX_SHOWN = 48 };

struct mapping {
    uint64_t from, to;
    char name[NAME_MAX_SHOWN];
    uint64_t refused;  /* bytes */
    int error;         /* why, the last time */
};

/* ---------------------------------------------------------------- what there is --------- */

static bool parse(const char *line, struct mapping *m)
{
    char access[8], path[512] = "private";
    *m = (struct mapping){ 0 };
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %511[^\n]", &m->from, &m->to, access,
               path) < 3)
        return false;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    snprintf(m->name, sizeof m->name, "%.*s", NAME_MAX_SHOWN - 1, name);
    return strncmp(access, "rw", 2) == 0 && m->to - m->from >= HUGE_BYTES;
}

static size_t all_mappings(struct mapping *mappings)
{
    char line[1024];
    size_t count = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && count < MAPPINGS_MAX && fgets(line, sizeof line, f))
        count += parse(line, &mappings[count]);
    if (f)
        fclose(f);
    return count;
}

static bool all_there(uint8_t *at)
{
    unsigned char present[SMALL_PAGES];
    if (mincore(at, HUGE_BYTES, present) != 0)
        return false;
    for (size_t i = 0; i < SMALL_PAGES; i++)
        if (!(present[i] & 1))
            return false;
    return true;
}

/* ---------------------------------------------------------------- asking ---------------- */

static void collapse(struct mapping *m)
{
    uint64_t at = (m->from + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    for (; at + HUGE_BYTES <= m->to; at += HUGE_BYTES) {
        uint8_t *memory = (uint8_t *)(uintptr_t)at;
        if (!all_there(memory) || madvise(memory, HUGE_BYTES, MADV_COLLAPSE) == 0)
            continue;
        m->refused += HUGE_BYTES;
        m->error = errno;
    }
}

/* ---------------------------------------------------------------- what was got ---------- */

/* The value of a line "Name:   12 kB" in bytes, if it is this name's. */
static uint64_t value_of(const char *line, const char *name)
{
    size_t n = strlen(name);
    uint64_t kilobytes = 0;
    if (strncmp(line, name, n) == 0 && line[n] == ':')
        sscanf(line + n + 1, "%" SCNu64, &kilobytes);
    return kilobytes * 1024;
}

/* Resident bytes of the mapping, and how many of them lie in huge pages that are mapped as such. */
static void measure(const struct mapping *m, uint64_t *resident, uint64_t *huge)
{
    char line[1024];
    bool inside = false;
    uint64_t from, to;
    FILE *f = fopen("/proc/self/smaps", "r");
    *resident = *huge = 0;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2)
            inside = from == m->from;
        if (!inside)
            continue;
        *resident += value_of(line, "Rss");
        *huge += value_of(line, "AnonHugePages") + value_of(line, "ShmemPmdMapped") +
                 value_of(line, "FilePmdMapped");
    }
    if (f)
        fclose(f);
}

/* A collapsed piece of a file is mapped as one page when it is next touched. */
static void touch_all(const struct mapping *m)
{
    uint64_t at = (m->from + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    for (; at + HUGE_BYTES <= m->to; at += HUGE_BYTES)
        if (all_there((uint8_t *)(uintptr_t)at))
            (void)*(volatile uint8_t *)(uintptr_t)at;
}

static void report(const struct mapping *m)
{
    uint64_t resident, huge;
    measure(m, &resident, &huge);
    if (resident < HUGE_BYTES)
        return;
    printf("# huge pages: %-36s %8.1f of %8.1f MiB", m->name, (double)huge / (1 << 20),
           (double)resident / (1 << 20));
    if (m->refused)
        printf("; refused for %.1f MiB: %s", (double)m->refused / (1 << 20), strerror(m->error));
    putchar('\n');
}

void huge_ask(void)
{
    static struct mapping mappings[MAPPINGS_MAX];
    size_t count = all_mappings(mappings);
    for (size_t i = 0; i < count; i++) {
        collapse(&mappings[i]);
        touch_all(&mappings[i]);
        report(&mappings[i]);
    }
}
