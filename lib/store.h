/*
 * The store's side of the table: what the leading persister asks of it and tells it.  Private: the
 * persister is its only user.  It knows nothing of Redis; it hands out what must be written, and is
 * told what became of it.
 *
 * One thread of one process uses a `struct store` (a death watcher thread may call store_recover()
 * beside it).  Nothing here is trusted to be alone: leadership is not death, and every effect is one
 * that a leader may have late, when another one leads (see below).
 *
 *   worker                             leader
 *   publishes (CAS of current)         takes: clears the dirty bit, heavy fence      (store_take)
 *   last_seen / light fence /          reads the latest state, marks it STORED       (store_read)
 *   dirty bit clear? sets it, pushes     ... writes it to Redis, gets the answer ...
 *   the ring, wakes                    durable = version; answers tickets            (store_ack)
 *
 *   S1  A change that is published and not durable is in a ring, has its dirty bit set, is in the
 *       leader's hands (an image neither acked nor retried), or is found by the sweep.
 *   S2  A slot that changes again while it is in hands may be given out again; each image is true of
 *       the moment when it was read, and they are to be written and acked in the order of reading.
 *   S3  A ticket is answered DURABLE only by store_ack() (that of a binding also by
 *       store_ack_binding()), that of a binding REFUSED only after the roll-back, and not while Redis
 *       has something newer than what is rolled back to.
 *   S4  A ticket for which an image was taken is the image's until its end: store_ack(), store_refuse()
 *       that succeeded, store_retry(), store_forget() or store_let_go(), as often as one likes.
 *       What is not answered then waits again.
 *
 * LATE CALLS.  A leader that was stopped, superseded, and goes on, calls any of these once more before
 * it sees that it leads no longer (store_leads()), steps back and closes its store.  Redis executes
 * nothing of it (tools/persister_fence.h).  In the segment:
 *
 *   store_take     clears bits, empties rings, notes tickets: what the leader should have had.
 *                  store_close() gives all of it back: the tickets, and a scan and a sweep for the
 *                  rest.  Killed before: the recovery asks for scan and sweep, and the leader looks
 *                  at all tickets every second.  Stopped again: that second, and the background sweep
 *   store_read     STORED: one DEL too many
 *   store_ack      nothing, if it is known to be late; else it is true of what Redis had, and raises
 *                  `durable` by a CAS, but never below what a later incarnation says.  Redis may have
 *                  lost it since, and the successor may have compared that session before it was
 *                  said: so the successor compares once more when the late one is through
 *                  (store_compare_wanted())
 *   store_ack_binding   the same: nothing, or ACKED, which is true of what Redis had
 *   store_refuse   a CAS of the record, ACKED or durable forbid it: the two leaders' verdicts on one
 *                  binding exclude each other, and a ticket moves once (H4).  Nothing, if it is known to be
 *                  late; else what the successor has written and not acknowledged yet may be rolled back:
 *                  Redis has it until that is written
 *   store_deny     REFUSED of a change that Redis did not take from the late one, and may yet take from
 *                  its successor, before the caller takes it back: as if it had been taken first
 *   store_forget   written once too often
 *   store_lost     a CAS: no other's bump is undone; at worst one is too many, and everything is
 *                  written once too often
 *   store_sleep    `sleeping` is 0 although the leader sleeps, or the reverse: a wake-up is missed for
 *                  the 100 ms that no sleep exceeds (H11), or made in vain.  Both sleep on one futex,
 *                  and a wake wakes both
 *   store_mode     notes the mode for itself
 *   store_connected, store_acknowledged   for people; the leader says it again at its next check
 *   store_settle   true of the moment when its last batch was acknowledged
 *   store_load     before the table is ready it cannot be late: only the dead are replaced till then.  Of
 *                  one that adopts (tools/persister_compare.h): a session that never was here, and that
 *                  no other leader adopts, for its generation is reserved
 *   store_load_from, store_set_ready   as store_load; the latter only raises numbers once it is ready
 *   sweeping       any worker may: exact CASes, and set bits
 */
#ifndef LIB_STORE_H
#define LIB_STORE_H

#include "lib/sesstab.h"
#include "shm/layout.h"

struct store;

enum store_kind {
    STORE_NOTHING, /* clean, or nothing that the store ever knew: no write needed (do not ack)     */
    STORE_TOUCH,   /* only last_seen is newer: HSET LastSeen                                        */
    STORE_PUT,     /* write the record and its metadata                                             */
    STORE_DELETE   /* a tombstone: delete both keys, take the handle out of the active set          */
};

enum { STORE_TAKE_MAX = 4096 }; /* sessions in one take */

/* One session in the leader's hands. */
struct store_image {
    slot_ref slot;
    bool urgent;          /* a ticket waits for it                                                  */
    uint32_t tickets, chain; /* those that it was taken for; store_ticket.c's                              */
    /* Filled by store_read(): */
    enum store_kind kind;
    bool replace;         /* PUT: delete both keys first; Redis may hold another generation or
                             metadata keys that are gone.  Without it HSET alone is enough          */
    bool member;          /* PUT: add the handle to the active set                                  */
    uint64_t handle, generation, version, last_seen;
    uint64_t bound_version; /* the binding in it was made at this version                           */
    bool pending;         /* PUT: its binding is not durable yet                                    */
    uint32_t incarnation; /* of the store when it was read                                          */
    sesstab_state state;
    char player[SESSTAB_PLAYER_MAX + 1]; /* PUT: of the binding in it                               */
};

/* A store for TABLE; NULL when out of memory. */
struct store *store_open(sesstab *table);
void store_close(struct store *store); /* also gives leadership back, and what it knows of tickets */

/*
 * Becomes the leader, if nobody else is, or the one who was is proved dead: true.  (Its proof of
 * life is its worker's.)  After true: every waiting ticket and every session is looked at again (a
 * sweep).  A leader may call it again for that.
 */
bool store_lead(struct store *store);

/*
 * A stand-by's other way, to be called every 100 ms or so: true when it has taken the lead from one
 * who lives but has made no progress for AFTER_MS, as seen by these calls.  Never before the table
 * is ready: a loader that continued late would insert what was removed meanwhile (H12).
 */
bool store_supersede(struct store *store, int after_ms);

/* Whether those calls saw one who would have been superseded, if the table were ready. */
bool store_filler_stalled(const struct store *store, int after_ms);

/* Whom the store took the lead from. */
enum store_former { FORMER_NOBODY, FORMER_DEAD, FORMER_STALLED };
enum store_former store_former(const struct store *store);

/* True until another one has taken the lead.  One load: to be asked before every step. */
bool store_leads(const struct store *store);

/* The leader's sign of progress, from the thread that writes; also while it waits for Redis. */
void store_beat(struct store *store);

/* True, once, when what another leader did late should be compared with Redis: it has stepped back,
 * or died, since this store took over from it. */
bool store_compare_wanted(struct store *store);

/* The table's identity and the store's incarnation, as they go into Redis's epoch key. */
uint64_t store_creation_id(const struct store *store);
uint32_t store_incarnation(const struct store *store);
bool store_is_ready(const struct store *store); /* the table is loaded */

/*
 * The table's mode; *SWITCHED: it was switched since the last call.  Then everything is looked at again,
 * for what was made while the mode was MEMORY and announced to nobody.
 */
sesstab_mode store_mode(struct store *store, bool *switched);

/* In mode MEMORY: tells all who wait UNKNOWN, and sleeps until the mode is switched, at most
 * TIMEOUT_MS. */
void store_rest(struct store *store, int timeout_ms);

/* The leading process, for people; 0: there is none, or it says nothing. */
int store_leader_pid(const struct store *store);

/*
 * Sleeps until there is work, at most TIMEOUT_MS.  DEEP: any change wakes; else only urgent work
 * (a ticket) does, so that changes can gather meanwhile.  True when there is work now of that kind.
 */
bool store_sleep(struct store *store, bool deep, int timeout_ms);

/*
 * Takes up to MAX sessions that may need writing, those with tickets first; URGENT_ONLY: only those.
 * Fills slot and urgent of IMAGES; returns how many.  Takes nothing that it does not return.
 * Includes a bounded slice of sweeping when a sweep is due (after a death, a take-over, a lost
 * store, and every few seconds).
 */
size_t store_take(struct store *store, struct store_image *images, size_t max, bool urgent_only);

/* How many tickets it knows to wait, besides those for which images are taken. */
size_t store_waiting(struct store *store);

/* True when a ring was full: more has gathered than is worth waiting for. */
bool store_overflowed(const struct store *store);

/* How much of the table, in percent, was gone through since everything was to be looked at last. */
unsigned store_progress(const struct store *store);

/* True when store_take() would find more at once (a ring, a bitmap scan or a sweep is not done). */
bool store_busy(const struct store *store);

/*
 * Reads the latest state of image->slot, fills the rest of IMAGE and VIEW, and marks the session
 * STORED unless kind is NOTHING.  Inside a read section of the table only; VIEW is valid until it
 * ends (for DELETE it is the last record).  A damaged record gives NOTHING and is counted.
 */
void store_read(struct store *store, struct store_image *image, sesstab_view *view);

/* The image's end, when it is none of those below: its tickets wait again, for the next take. */
void store_let_go(struct store *store, const struct store_image *image);

/* Wakes the workers whose tickets were answered since the last time: after a batch.  (A take does it
 * too, for what it has answered.) */
void store_wake(struct store *store);

/* True while a ticket for which IMAGE was taken waits; and for its binding. */
bool store_waited_for(struct store *store, const struct store_image *image);
bool store_binding_waited_for(struct store *store, const struct store_image *image);

/*
 * Redis has acknowledged the image: it is durable; its tickets are answered; a tombstone that
 * nobody revived meanwhile dies.  What changed in between stays dirty.
 */
void store_ack(struct store *store, const struct store_image *image);

/*
 * Redis has the binding of an image that is not acknowledged as a whole (its metadata was refused): the
 * tickets of bindings are answered, and it is never rolled back.  The session stays dirty.
 */
void store_ack_binding(struct store *store, const struct store_image *image);

/*
 * Redis said no: the tickets of other changes than bindings in IMAGE are answered REFUSED, but for those
 * up to version HELD, which an earlier attempt may have brought to Redis.  Each of their callers takes
 * its change back; returns how many.  The session stays dirty.
 */
unsigned store_deny(struct store *store, const struct store_image *image, uint64_t held);

/*
 * Redis said no to an image whose binding is waited for, and has version HELD of the session (0: nothing),
 * which is older than the binding: rolls the binding back to the last acknowledged one, on top of whatever
 * is current, then answers the tickets REFUSED.  False: it could not (no memory), or may not (this binding
 * was acknowledged once, and Redis has lost it since; or its caller was told OK without waiting; or HELD
 * is newer than what it would be rolled back to: what Redis has would be refused with it; or the lead is
 * lost); nothing was answered.  The session stays dirty.
 */
bool store_refuse(struct store *store, const struct store_image *image, uint64_t held);

/* The image was not written, or nobody knows: it will be taken again. */
void store_retry(struct store *store, const struct store_image *image);

/* The write shows that Redis had lost the key: take it again, whole. */
void store_forget(struct store *store, const struct store_image *image);

/* Redis lost its data: a new incarnation; every session is dirty again, whole. */
void store_lost(struct store *store);

/*
 * Says that everything that was announced before SINCE (ms since the epoch) has been taken, and was
 * acknowledged or given back.  Noted as `durable_until` (lib/figures.h) unless something was given
 * back, or a sweep is under way that looks for what nobody announced.
 */
void store_settle(struct store *store, uint64_t since);

/* Tells the table whether Redis is there (for people). */
void store_connected(struct store *store, bool connected);

/* Tells the table where Redis has what it acknowledges (for people). */
void store_acknowledged(struct store *store, enum acknowledged where, unsigned replicas);

/* Sessions that are not durable, counted by a walk over the table; and the oldest ticket's age. */
uint64_t store_lag(struct store *store);

/*
 * Whether the table holds HANDLE, live or as a tombstone; IMAGE unless NULL is filled as by
 * store_read() (kind NOTHING when durable) without marking anything.
 */
bool store_knows(struct store *store, uint64_t handle, struct store_image *image);

/* ------------------------------------------------------------------ loading ---------------- */

struct store_record {
    uint64_t handle, generation, version, connected_at, last_seen;
    sesstab_state state;
    const char *player, *address, *host, *type;
    const sesstab_pair *metadata;
    size_t metadata_count;
};

/*
 * Inserts a session that Redis holds, durable as it is, without an owner; state becomes DETACHED (a
 * change that is written back).  OK · EXISTS (the table already has that handle, also as a
 * tombstone: the table wins) · INVALID · TOOBIG · NOMEMORY · NOSPACE.
 */
int store_load(struct store *store, const struct store_record *record);

/*
 * From now on no session is given a generation up to MOST.  Returns the first that none was ever given:
 * what has one from there up to MOST never was in this table, so it can't be one that was removed.
 */
uint64_t store_reserve(struct store *store, uint64_t most);

/*
 * Notes that this table is filled with the sessions of the one that was created as CREATION_ID, as they
 * were in its INCARNATION; and whether it was.
 */
void store_load_from(struct store *store, uint64_t creation_id, uint32_t incarnation);
bool store_loaded_from(const struct store *store, uint64_t creation_id, uint32_t incarnation);

/* Everything is loaded: generations and assigned handles go on above these; the table is ready. */
void store_set_ready(struct store *store, uint64_t max_generation, uint64_t max_handle);

/* ------------------------------------------------------------------ deaths ----------------- */

/* The segment's file: when a worker's memory goes, the kernel closes a writable descriptor of it. */
const char *store_path(const sesstab *table);

/*
 * Proves which workers are dead and recovers what they left; returns how many.  Any thread.  PIDS
 * unless NULL receives up to MAX pids of live workers, *COUNT of them, to watch for deaths.
 */
unsigned store_recover(sesstab *table, int *pids, size_t max, size_t *count);

#endif
