#include "bench/bench.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

/* ---------------------------------------------------------------- errors ---------------- */

void bench_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void *bench_memory(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        bench_fail("out of memory: %zu times %zu bytes", count, size);
    return memory;
}

uint64_t bench_number(const char *text, uint64_t max, const char *what)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9' || number == 0 || number > max) {
        fprintf(stderr, "%s: --%s: \"%s\" is not a number from 1 to %llu\n",
                program_invocation_short_name, what, text, (unsigned long long)max);
        exit(64);
    }
    return number;
}

/* ---------------------------------------------------------------- the machine ----------- */

uint64_t bench_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void bench_pause_us(unsigned us)
{
    struct timespec t = { us / 1000000, (long)(us % 1000000) * 1000 };
    nanosleep(&t, NULL);
}

int bench_pin(void)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        bench_fail("sched_getaffinity: %s", strerror(errno));
    int cpu = CPU_SETSIZE - 1;
    while (!CPU_ISSET(cpu, &allowed))
        cpu--;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        bench_fail("sched_setaffinity to processor %d: %s", cpu, strerror(errno));
    return cpu;
}

/* The first line of FILE that begins with START, without it; "?" if there is none. */
static void line_of(const char *file, const char *start, char *text, size_t size)
{
    char line[512];
    FILE *f = fopen(file, "r");
    snprintf(text, size, "?");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, start, strlen(start)) != 0)
            continue;
        line[strcspn(line, "\n")] = 0;
        const char *rest = line + strlen(start);
        snprintf(text, size, "%s", rest + strspn(rest, " \t:"));
        break;
    }
    if (f)
        fclose(f);
}

void bench_describe_machine(int cpu)
{
    char model[128], load[64], pages[64];
    struct utsname system;
    cpu_set_t allowed;
    uname(&system);
    line_of("/proc/cpuinfo", "model name", model, sizeof model);
    line_of("/proc/loadavg", "", load, sizeof load);
    line_of("/sys/kernel/mm/transparent_hugepage/enabled", "", pages, sizeof pages);
    load[strcspn(load, " ")] = 0;
    int count = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 0;
    printf("# %s, %s %s, compiler %s\n", model, system.sysname, system.release, __VERSION__);
    printf("# load average before: %s; transparent huge pages: %s\n", load, pages);
    if (cpu < 0)
        printf("# nothing is pinned; %d processors\n", count);
    else
        printf("# pinned to processor %d\n", cpu);
}

/* ---------------------------------------------------------------- keys ------------------ */

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void player_of(uint64_t handle, char player[PLAYER_BYTES])
{
    snprintf(player, PLAYER_BYTES, "#%u:%u", (unsigned)(handle % 100000000), 1234u);
}

struct keys keys_uniform(size_t count, uint64_t first, uint64_t range, uint64_t seed)
{
    uint64_t *handles = bench_memory(count, sizeof *handles);
    char(*players)[PLAYER_BYTES] = bench_memory(count, PLAYER_BYTES);
    for (size_t i = 0; i < count; i++) {
        handles[i] = first + bench_random(&seed) % range;
        player_of(handles[i], players[i]);
    }
    return (struct keys){ handles, (const char(*)[PLAYER_BYTES])players, count };
}

void keys_free(struct keys *keys)
{
    free((void *)keys->handles);
    free((void *)keys->players);
    *keys = (struct keys){ 0 };
}

/* ---------------------------------------------------------------- statistics ------------ */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread spread_of(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_size);
    return (struct spread){ quantile(values, count, 0.5), values[0], values[count - 1] };
}

double quantile(const double *sorted, size_t count, double share)
{
    size_t rank = (size_t)(share * (double)count);
    return sorted[rank < count ? rank : count - 1];
}

double ratio_of(const double *a, const double *b, size_t count)
{
    double ratios[ROUNDS_MAX];
    for (size_t i = 0; i < count; i++)
        ratios[i] = a[i] / b[i];
    return spread_of(ratios, count).median;
}
