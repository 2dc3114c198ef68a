/*
 * The memory orders we use, behind few names.  Everything shared is a C11 atomic; everything else
 * in the segment is written before, and read after, one of these.
 *
 *   load_relaxed   the value alone matters: a hint, a counter, a word that the caller owns
 *   load_acquire   what was written before the matching store_release/cas is visible
 *   store_release  everything before is visible to who reads this
 *   cas            compare-and-swap, sequentially consistent; *expected is updated on failure
 *
 * Store-buffering pairs (I store A then load B, you store B then load A) need a full fence on both
 * sides.  Where one side is hot it only stops the compiler (rcu_light_fence) and the other side
 * pays for both with membarrier(2) (rcu_heavy_fence): see rcu.h.
 */
#ifndef SHM_ATOMIC_H
#define SHM_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint64_t atomic_u64;
typedef _Atomic uint32_t atomic_u32;

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a 64-bit compare-and-swap must work between processes");
_Static_assert(sizeof(atomic_u64) == 8, "an atomic word is a plain word in the segment");
_Static_assert(sizeof(atomic_u32) == 4, "an atomic half word is a plain half word in the segment");

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)

static inline bool cas(atomic_u64 *p, uint64_t *expected, uint64_t desired)
{
    return atomic_compare_exchange_strong(p, expected, desired);
}

/* For those who don't need to know what they met. */
static inline bool cas_exact(atomic_u64 *p, uint64_t expected, uint64_t desired)
{
    return atomic_compare_exchange_strong(p, &expected, desired);
}

/* Raises *p to at least V. */
static inline void raise_to(atomic_u64 *p, uint64_t v)
{
    uint64_t seen = load_relaxed(p);
    while (seen < v && !cas(p, &seen, v))
        ;
}

/*
 * ThreadSanitizer watches one process.  When a place comes back by way of another one, which saw that
 * nobody here reads it any more, it must be told: who claims a place comes after the sections that
 * had ended by then.  A reader whose section is still open is a race for it as before.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WATCHED_BY_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(WATCHED_BY_TSAN)
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define tell_section_ended(table) __tsan_release(table)
#define tell_place_claimed(table) __tsan_acquire(table)
#else
#define tell_section_ended(table) ((void)0)
#define tell_place_claimed(table) ((void)0)
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* For the few functions that the read path is made of: no call, no register saved. */
#define INLINE static inline __attribute__((always_inline))

#endif
