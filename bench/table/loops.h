/*
 * The loops that are measured, once for all tables.  A table gives its primitives, and
 *
 *     LOOP(get_view, each_view, view)
 *
 * makes the operation: the loop is inlined with the primitive in it, so that no table pays for a
 * call that another does not pay, and all count what they did not find in the same way.
 */
#ifndef BENCH_TABLE_LOOPS_H
#define BENCH_TABLE_LOOPS_H

#include "bench/table/contender.h"

/* The words read in place; 0: no such session. */
typedef uint64_t view_fn(void *table, uint64_t handle);
/* The whole session copied out; may leave RECORD alone if its copy looks otherwise. */
typedef bool copy_fn(void *table, uint64_t handle, struct record *record);
/* How many of the sessions were found, the sum of their words. */
typedef size_t batch_fn(void *table, const uint64_t *handles, size_t count, uint64_t *sum);
/* last-seen = NOW, which is later than all before */
typedef bool touch_fn(void *table, uint64_t handle, uint64_t now);
/* The 16-byte value replaced: readers see the old or the new. */
typedef bool set_fn(void *table, uint64_t handle, const uint64_t value[SET_BYTES / 8]);
typedef bool insert_fn(void *table, uint64_t handle, const struct record *record);
typedef bool remove_fn(void *table, uint64_t handle);
/* Sessions seen, the sum of their words. */
typedef size_t scan_fn(void *table, uint64_t *sum);
/* The words of all sessions of the player; 0: none. */
typedef uint64_t player_fn(void *table, const char *player);

#define EACH static inline __attribute__((always_inline, unused)) uint64_t

/* True: somebody did not do what was asked. */
static inline uint64_t found_all(uint64_t sum, uint64_t missing, const char *what)
{
    if (missing)
        bench_fail("%s failed for %llu sessions", what, (unsigned long long)missing);
    return sum;
}

EACH each_view(void *table, const struct keys *keys, view_fn *view)
{
    uint64_t sum = 0, missing = 0;
    for (size_t i = 0; i < keys->count; i++) {
        uint64_t words = view(table, keys->handles[i]);
        missing += !words;
        sum += words;
    }
    return found_all(sum, missing, "a view");
}

/* The next handle depends on what was read: its address can't be known before. */
EACH each_dependent(void *table, const struct keys *keys, view_fn *view)
{
    uint64_t words = 0, missing = 0;
    for (size_t i = 0; i < keys->count; i++) {
        words = view(table, keys->handles[i] + (words >> 63));
        missing += !words;
    }
    return found_all(words, missing, "a dependent view");
}

EACH each_miss(void *table, const struct keys *keys, view_fn *view)
{
    uint64_t there = 0;
    for (size_t i = 0; i < keys->count; i++)
        there += view(table, keys->handles[i]) != 0;
    return found_all(keys->count, there, "not finding what is not there");
}

EACH each_copy(void *table, const struct keys *keys, copy_fn *copy)
{
    struct record record;
    uint64_t missing = 0;
    for (size_t i = 0; i < keys->count; i++) {
        missing += !copy(table, keys->handles[i], &record);
        __asm__ volatile("" : : "r"(&record) : "memory"); /* all of it is wanted */
    }
    return found_all(keys->count, missing, "a copy");
}

EACH each_batch(void *table, const struct keys *keys, batch_fn *batch)
{
    uint64_t sum = 0, missing = 0;
    for (size_t i = 0; i < keys->count; i += BATCH) {
        size_t left = keys->count - i, n = left < (size_t)BATCH ? left : (size_t)BATCH;
        missing += n - batch(table, keys->handles + i, n, &sum);
    }
    return found_all(sum, missing, "a batch");
}

EACH each_touch(void *table, const struct keys *keys, touch_fn *touch)
{
    uint64_t now = bench_clock(), failed = 0;
    for (size_t i = 0; i < keys->count; i++)
        failed += !touch(table, keys->handles[i], ++now);
    return found_all(now, failed, "a touch");
}

EACH each_set(void *table, const struct keys *keys, set_fn *set)
{
    uint64_t value[SET_BYTES / 8] = { bench_clock(), 0 }, failed = 0;
    for (size_t i = 0; i < keys->count; i++) {
        value[0]++;
        failed += !set(table, keys->handles[i], value);
    }
    return found_all(value[0], failed, "a set");
}

EACH each_insert_remove(void *table, const struct keys *keys, insert_fn *insert, remove_fn *remove)
{
    const struct record usual = usual_record(1);
    uint64_t failed = 0;
    for (size_t i = 0; i < keys->count; i++) {
        failed += !insert(table, keys->handles[i], &usual);
        failed += !remove(table, keys->handles[i]);
    }
    return found_all(keys->count, failed, "an insert or a remove");
}

/* keys->count: sessions in the table, once or several times */
EACH each_scan(void *table, const struct keys *keys, scan_fn *scan)
{
    uint64_t sum = 0;
    size_t seen = 0, last = 1;
    while (seen < keys->count && last)
        seen += last = scan(table, &sum);
    return found_all(sum, seen - keys->count, "seeing once");
}

EACH each_player(void *table, const struct keys *keys, player_fn *by_player)
{
    uint64_t sum = 0, missing = 0;
    for (size_t i = 0; i < keys->count; i++) {
        uint64_t words = by_player(table, keys->players[i]);
        missing += !words;
        sum += words;
    }
    return found_all(sum, missing, "a search by player");
}

EACH each_mix(void *table, const struct keys *keys, view_fn *view, touch_fn *touch)
{
    uint64_t now = bench_clock(), sum = 0, failed = 0;
    for (size_t i = 0, left = MIX_TOUCH; i < keys->count; i++) {
        if (--left) {
            uint64_t words = view(table, keys->handles[i]);
            failed += !words;
            sum += words;
        } else {
            failed += !touch(table, keys->handles[i], ++now);
            left = MIX_TOUCH;
        }
    }
    return found_all(sum, failed, "a get or a touch");
}

#define LOOP(name, each, ...)                                                                      \
    static uint64_t name(void *table, const struct keys *keys)                                     \
    {                                                                                              \
        return each(table, keys, __VA_ARGS__);                                                     \
    }

#endif
