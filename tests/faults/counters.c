/*
 * What the persister counted while a fault lasted; see faults.h.
 *
 * A page is what GET /metrics answered, whole: lines "NAME VALUE" and comments.  A counter that is
 * on no page is 0, so an empty page is that of a persister that has just begun.
 */
#include "tests/faults/faults.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = { 10, 0 }; /* it is asked again */
    check(fd >= 0 && strlen(path) < sizeof address.sun_path);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* connect() too */
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool get(const char *path, char page[PAGE_BYTES])
{
    static const char request[] = "GET /metrics HTTP/1.0\r\n\r\n";
    size_t used = 0;
    ssize_t got;
    int fd = connect_to(path);
    page[0] = '\0';
    if (fd < 0)
        return false;
    send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    while (used < PAGE_BYTES - 1 && (got = recv(fd, page + used, PAGE_BYTES - 1 - used, 0)) > 0)
        used += (size_t)got;
    page[used] = '\0';
    close(fd);
    check(used < PAGE_BYTES - 1);
    return strncmp(page, "HTTP/1.", 7) == 0 && strstr(page, "\nsesstab_redis_connects_total ");
}

void counters_read(const struct scene *s, char page[PAGE_BYTES])
{
    wait_until(get(s->stage->metrics + strlen("unix:"), page));
}

/* The name and value of the line at PAGE, if it has them, and where the next one is. */
static const char *next_line(const char *page, char name[256], double *value)
{
    size_t length = strcspn(page, "\n");
    snprintf(name, 256, "%.*s", (int)length, page);
    char *blank = strrchr(name, ' ');
    *value = blank ? strtod(blank, NULL) : 0;
    if (blank)
        *blank = '\0';
    return page + length + (page[length] == '\n');
}

/* The sum of the series whose names match PATTERN, which is LENGTH long. */
static double sum(const char *page, const char *pattern, size_t length)
{
    char name[256], wanted[160];
    double value, total = 0;
    snprintf(wanted, sizeof wanted, "%.*s", (int)length, pattern);
    while (*page) {
        page = next_line(page, name, &value);
        if (fnmatch(wanted, name, 0) == 0)
            total += value;
    }
    return total;
}

/* "PATTERN" or "PATTERN - PATTERN" */
static double worth(const char *page, const char *counter)
{
    const char *minus = strstr(counter, " - ");
    if (!minus)
        return sum(page, counter, strlen(counter));
    return sum(page, counter, (size_t)(minus - counter)) - sum(page, minus + 3, strlen(minus + 3));
}

bool counters_rose(const char *counter, const char *before, const char *after, char *text,
                   size_t size)
{
    double more = worth(after, counter) - worth(before, counter);
    snprintf(text, size, "%s %+.0f", counter, more);
    return more > 0;
}

void counters_say(const struct scene *s)
{
    static char page[PAGE_BYTES];
    char name[256];
    double value;
    counters_read(s, page);
    fprintf(stderr, "    what rose:\n");
    for (const char *at = page; *at;) {
        at = next_line(at, name, &value);
        if (strstr(name, "_total") && value > sum(s->before, name, strlen(name)))
            fprintf(stderr, "      %s %.0f\n", name, value);
    }
}
