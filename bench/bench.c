#include "bench/bench.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------- errors ---------------- */

static const char *subject;

void bench_subject(const char *name)
{
    subject = name;
}

void bench_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    if (subject)
        fprintf(stderr, "%s: ", subject);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void bench_progress(const char *format, ...)
{
    va_list arguments;
    if (!isatty(STDERR_FILENO))
        return;
    va_start(arguments, format);
    fputs("\r\033[K", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\r', stderr);
    va_end(arguments);
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

uint64_t bench_seed(void)
{
    const char *text = getenv("SESSTAB_SEED");
    return text ? bench_number(text, UINT64_MAX, "SESSTAB_SEED") : 1;
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

/* What the program may use, as it was before anything was pinned. */
static const cpu_set_t *allowed(void)
{
    static cpu_set_t set;
    if (CPU_COUNT(&set) == 0 && sched_getaffinity(0, sizeof set, &set) != 0)
        bench_fail("sched_getaffinity: %s", strerror(errno));
    return &set;
}

static int last_cpu(void)
{
    int cpu = CPU_SETSIZE - 1;
    while (!CPU_ISSET(cpu, allowed()))
        cpu--;
    return cpu;
}

int bench_second_cpu(void)
{
    int cpu = 0;
    while (!CPU_ISSET(cpu, allowed()))
        cpu++;
    return cpu == last_cpu() ? -1 : cpu;
}

void bench_pin_to(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        bench_fail("sched_setaffinity to processor %d: %s", cpu, strerror(errno));
}

void bench_unpin(pid_t pid)
{
    sched_setaffinity(pid, sizeof(cpu_set_t), allowed());
}

int bench_pin(void)
{
    int cpu = last_cpu();
    bench_pin_to(cpu);
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

/* "L1 Data 48K, L2 Unified 2048K, ..." */
static void caches(char *text, size_t size)
{
    size_t used = 0;
    snprintf(text, size, "?");
    for (int i = 0; used < size; i++) {
        const char *const facts[] = { "level", "type", "size" };
        char path[96], fact[3][32];
        for (int k = 0; k < 3; k++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i,
                     facts[k]);
            line_of(path, "", fact[k], sizeof fact[k]);
        }
        if (fact[0][0] == '?')
            return;
        used += (size_t)snprintf(text + used, size - used, "%sL%s %s %s", i ? ", " : "", fact[0],
                                 fact[1], fact[2]);
    }
}

/* The word in brackets: what the kernel is set to. */
static void setting(const char *file, char *text, size_t size)
{
    line_of(file, "", text, size);
    char *start = strchr(text, '['), *end = strchr(text, ']');
    if (start && end) {
        *end = 0;
        memmove(text, start + 1, (size_t)(end - start));
    }
}

static void huge_pages(char *text, size_t size)
{
    char private[64], shared[64];
    setting("/sys/kernel/mm/transparent_hugepage/enabled", private, sizeof private);
    setting("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shared, sizeof shared);
    snprintf(text, size, "private memory: %s; shared memory: %s", private, shared);
}

void bench_machine(bench_fact_fn *fact, void *context)
{
    char text[256];
    struct utsname system;
    uname(&system);
    line_of("/proc/cpuinfo", "model name", text, sizeof text);
    fact("CPU", text, context);
    snprintf(text, sizeof text, "%d", CPU_COUNT(allowed()));
    fact("processors to use", text, context);
    caches(text, sizeof text);
    fact("caches", text, context);
    line_of("/proc/meminfo", "MemTotal", text, sizeof text);
    snprintf(text, sizeof text, "%.1f GiB", strtod(text, NULL) / (1 << 20));
    fact("memory", text, context);
    snprintf(text, sizeof text, "%.200s %.50s", system.sysname, system.release);
    fact("kernel", text, context);
    huge_pages(text, sizeof text);
    fact("transparent huge pages", text, context);
    line_of("/sys/devices/system/clocksource/clocksource0/current_clocksource", "", text,
            sizeof text);
    fact("clock", text, context);
#ifdef __clang__
    fact("compiler", __VERSION__, context);
#else
    fact("compiler", "gcc " __VERSION__, context);
#endif
    line_of("/proc/loadavg", "", text, sizeof text);
    text[strcspn(text, " ")] = 0;
    fact("load average before", text, context);
}

static void print_fact(const char *name, const char *text, void *context)
{
    (void)context;
    printf("# %s: %s\n", name, text);
}

void bench_describe_machine(int cpu)
{
    bench_machine(print_fact, NULL);
    if (cpu < 0)
        printf("# nothing is pinned\n");
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

static struct keys keys_of(uint64_t *handles, size_t count)
{
    char(*players)[PLAYER_BYTES] = bench_memory(count, PLAYER_BYTES);
    for (size_t i = 0; i < count; i++)
        player_of(handles[i], players[i]);
    return (struct keys){ handles, (const char(*)[PLAYER_BYTES])players, count };
}

struct keys keys_uniform(size_t count, uint64_t first, uint64_t range, uint64_t seed)
{
    uint64_t *handles = bench_memory(count, sizeof *handles);
    for (size_t i = 0; i < count; i++)
        handles[i] = first + bench_random(&seed) % range;
    return keys_of(handles, count);
}

/* Gray et al., "Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994; as in YCSB. */
struct keys keys_zipf(size_t count, uint64_t range, uint64_t seed)
{
    const double theta = 0.99, alpha = 1 / (1 - theta), n = (double)range;
    uint64_t *handles = bench_memory(count, sizeof *handles);
    double zeta = 0;
    for (uint64_t i = 1; i <= range; i++)
        zeta += pow(1 / (double)i, theta);
    double zeta2 = 1 + pow(0.5, theta), eta = (1 - pow(2 / n, 1 - theta)) / (1 - zeta2 / zeta);
    for (size_t i = 0; i < count; i++) {
        double u = (double)(bench_random(&seed) >> 11) * 0x1p-53, uz = u * zeta;
        uint64_t rank = uz < 1 ? 0 : uz < zeta2 ? 1 : (uint64_t)(n * pow(eta * u - eta + 1, alpha));
        handles[i] = 1 + bench_random(&rank) % range;
    }
    return keys_of(handles, count);
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
