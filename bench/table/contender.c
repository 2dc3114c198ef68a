#include "bench/table/contender.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

_Static_assert(sizeof USUAL_CLIENT - 1 == SET_BYTES, "the record keeps its size");
_Static_assert(sizeof(struct record) == 192, "peers are compared with 192-byte records");

const struct contender *const contenders[] = {
    &sesstab_contender, &dirty_contender,     &empty_contender, &floor_contender,
    &seqlock_contender, &rwlock_contender,    &boost_contender, &lmdb_contender,
    &redis_contender,   &memcached_contender, &apcu_contender,  &memb_contender,
    &qsbr_contender,    &ck_contender,
};
const size_t contender_count = sizeof contenders / sizeof *contenders;

left_out_fn *left_out_too;

void *left_out(const char *contender, const char *format, ...)
{
    char why[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    printf("# %s is left out: %s\n", contender, why);
    if (left_out_too)
        left_out_too(contender, why);
    return NULL;
}

struct record usual_record(uint64_t handle)
{
    struct record r = { .connected_at = USUAL_CONNECTED_AT,
                        .last_seen = USUAL_CONNECTED_AT,
                        .generation = handle,
                        .version = 1,
                        .address = USUAL_ADDRESS,
                        .host = USUAL_HOST,
                        .type = USUAL_TYPE };
    player_of(handle, r.player);
    memcpy(r.metadata, USUAL_CLIENT, SET_BYTES);
    return r;
}

enum { HUGE_BYTES = 2 << 20 };

static void must(bool done, size_t bytes)
{
    if (!done)
        bench_fail("%zu bytes: %s", bytes, strerror(errno));
}

/* Shared memory gets huge pages only where address and offset agree: it begins at such a place. */
static uint8_t *aligned_place(size_t bytes)
{
    uint8_t *reserved = mmap(NULL, bytes + HUGE_BYTES, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(reserved != MAP_FAILED, bytes);
    size_t before = (HUGE_BYTES - (uintptr_t)reserved % HUGE_BYTES) % HUGE_BYTES;
    munmap(reserved, before);
    munmap(reserved + before + bytes, HUGE_BYTES - before);
    return reserved + before;
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

void *table_memory(size_t bytes, bool shared)
{
    bytes = whole_pages(bytes);
    int flags = MAP_FIXED | MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE);
    void *memory = mmap(aligned_place(bytes), bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    must(memory != MAP_FAILED && (shared || madvise(memory, bytes, MADV_DONTFORK) == 0), bytes);
    return memory;
}

void table_memory_free(void *memory, size_t bytes)
{
    munmap(memory, whole_pages(bytes));
}
