/*
 * What Redis refuses and nobody waits for: it is kept, tried again slowly, and said once.
 *
 *   one session (WRONGTYPE, NOPERM on its key, ...)  held for HOLD_MS, then given back to the
 *                 store; the others go on
 *   OOM           only deletions are written, which free memory; everything else that is taken is
 *                 parked, a bit per slot, and one of it goes out as a probe every 200 ms to 1 s
 *   MISCONF       nothing is taken but tickets, and one session as a probe every 200 ms to 1 s
 *
 *   Q1  Every image given to quarantine_refused() or quarantine_park() comes back to the store:
 *       after its time, when Redis takes writes again, or by quarantine_release().
 *   Q2  It holds at most QUARANTINE sessions; with more refused, everything slows down as for
 *       MISCONF.
 */
#ifndef TOOLS_PERSISTER_QUARANTINE_H
#define TOOLS_PERSISTER_QUARANTINE_H

#include "lib/store.h"
#include "tools/persister_redis.h"

enum { QUARANTINE = 256 };

struct quarantine {
    struct store *store;
    struct quarantined {
        struct store_image image;
        uint64_t due;        /* when held: goes back then; else: forgotten then            */
        bool held, loud;
    } sessions[QUARANTINE];
    size_t count;
    bool overflowed;         /* more than QUARANTINE were refused; said so                 */
    uint64_t *parked;        /* a bit per slot                                             */
    size_t parked_words, parked_count;
    enum refusal whole;      /* why Redis takes nothing; REFUSAL_NONE: it does             */
    uint64_t since, last_refused_at;
    uint64_t probe_at;       /* 0: not slowed down                                         */
    unsigned pause_ms;
};

void quarantine_init(struct quarantine *quarantine, struct store *store);
void quarantine_free(struct quarantine *quarantine);

/* Takes IMAGE over. */
void quarantine_refused(struct quarantine *quarantine, const struct store_image *image,
                        enum refusal refusal, const char *error);

/* Takes IMAGE over, which was not even tried.  (Another one of its batch may have shown since that Redis
 * takes writes again: then it goes back at once.) */
void quarantine_park(struct quarantine *quarantine, const struct store_image *image);

/* Notes a refusal that is about everything, and says so once; false when it is not. */
bool quarantine_whole(struct quarantine *quarantine, enum refusal refusal, const char *error);

/* IMAGE was written. */
void quarantine_accepted(struct quarantine *quarantine, const struct store_image *image);

/* How many images that nobody waits for and that are no deletions may be written now. */
size_t quarantine_allowance(const struct quarantine *quarantine);

/* Until when nothing but tickets may be taken; 0: anything may. */
uint64_t quarantine_closed_until(const struct quarantine *quarantine);

/* How many sessions that were refused are held; those parked are in parked_count. */
size_t quarantine_held(const struct quarantine *quarantine);

/* Gives back what is due.  To be called every TICK_MS or so. */
void quarantine_tick(struct quarantine *quarantine);

/* Gives everything back: the connection or the lead is gone. */
void quarantine_release(struct quarantine *quarantine);

#endif
