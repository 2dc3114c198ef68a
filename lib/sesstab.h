/*
 * sesstab - a lock-free session table in POSIX shared memory, with Redis behind it.
 *
 * This is the only public header of libsesstab, and its manual.
 *
 * A *table* lives in a POSIX shared-memory segment.  Every process that opens it (a *worker*) sees
 * the same *sessions*: it looks one up in nanoseconds without a lock or a system call, and changes
 * it in place.  A separate process, the *persister*, carries every change to Redis.
 *
 *     sesstab *t;
 *     sesstab_open("/mush", &(sesstab_options){ .create = true }, &t);
 *     sesstab_insert(t, &handle, &(sesstab_info){ .address = "192.0.2.7", .type = "telnet" });
 *     sesstab_read_begin(t);
 *     sesstab_view s;
 *     if (sesstab_find(t, handle, &s) == SESSTAB_OK)
 *         printf("%s has been here since %" PRIu64 "\n", s.player, s.connected_at);
 *     sesstab_read_end(t);
 *
 * GENERAL RULES
 *
 *   Threads    Every function may be called by any number of threads of any number of processes at
 *              once.  A thread needs no set-up; its state is made on its first call and given back
 *              when it ends.  sesstab_close() alone must not run beside other calls on that table.
 *   Fork       A child may use its parent's table handle at once: it becomes a worker of its own on
 *              its first call.  A read section that was open in the parent has ended in the child.
 *              The first call opens the segment by name: a child that drops privileges, changes
 *              root or gets a private /dev/shm calls sesstab_attach() before it does so.
 *   Signals    No function may be called from a signal handler.  Signals may arrive at any time;
 *              the waits inside are restarted.
 *   Sandbox    A process that restricts its system calls after opening keeps membarrier(2) allowed,
 *              or else nothing that it replaces or removes is ever reused.
 *   Cancel     A thread must not be cancelled asynchronously inside a call.
 *   Death      Any process may be killed at any instruction; the others go on.
 *   Blocking   Only sesstab_bind(), sesstab_unbind(), sesstab_flush(), sesstab_wait_ready() and
 *              sesstab_open() ever wait, each but the last no longer than the time it is given; an
 *              event loop starts bindings and polls for their answers instead.  Where the mode or the
 *              thread's class says so, other changes wait too: see sesstab_mode.  A call that
 *              finds no free memory may extend the segment by one step (64 KiB, some 40 µs), and one
 *              that can't may look for what the dead left, some milliseconds, before it fails.
 *   Results    0 (SESSTAB_OK) is success; every other value is listed under sesstab_error, and
 *              nothing has changed unless the function says otherwise.
 *   Damage     Whatever somebody else writes into the segment, no call crashes, hangs or takes one
 *              session for another.  A session whose record is damaged answers CORRUPT to whoever
 *              reads or changes it, is not written to Redis and not deleted there, and all others
 *              are served as before: end it with sesstab_remove(), and let its client come again.
 *              CORRUPT also comes for a handle when the index before its place is damaged, then
 *              from sesstab_remove() and sesstab_insert() too: `shmdump --check` says what is wrong,
 *              and the way out is to remove the table's name and to start its processes anew; the
 *              persister fills the new one from Redis.  (Damage that leaves everything in order, a
 *              link that skips a session, say, is seen by `shmdump --check` alone.)  A segment that
 *              is truncated while it is in use is SIGBUS, as for every mapped file; opening a
 *              truncated one is NOTATABLE.
 *   Time       Times are milliseconds since the Unix epoch (sesstab_now()), time-outs milliseconds.
 *   Strings    In: NUL-terminated, NULL is "".  Out: NUL-terminated, owned by the table, valid
 *              until the read section ends (a view) or as long as the caller's buffer (a copy).
 */
#ifndef SESSTAB_H
#define SESSTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SESSTAB_VERSION "0.1.0"

#define SESSTAB_API __attribute__((visibility("default")))

/* ---------------------------------------------------------------- limits ---------------- */

enum {
    SESSTAB_NAME_MAX = 200,          /* bytes in a table's name, the leading slash counted        */
    SESSTAB_PLAYER_MAX = 255,        /* bytes in a player                                         */
    SESSTAB_ADDRESS_MAX = 63,        /* bytes in an address                                       */
    SESSTAB_HOST_MAX = 255,          /* bytes in a host name                                      */
    SESSTAB_TYPE_MAX = 31,           /* bytes in a connection type                                */
    SESSTAB_KEY_MAX = 255,           /* bytes in a metadata key, at least 1                       */
    SESSTAB_RECORD_MAX = 64 * 1024,  /* bytes of a whole session's record, all of it counted      */
    SESSTAB_WORKERS_MAX = 1024,      /* processes attached to one table                           */
    SESSTAB_THREADS_MAX = 4096,      /* threads using one table                                   */
    SESSTAB_TICKETS_MAX = 61440,     /* bindings of one table that are started and not answered   */
    SESSTAB_TABLES_MAX = 16          /* tables open in one process                                */
};

/* ---------------------------------------------------------------- results --------------- */

/* The one list of results: name, text. */
#define SESSTAB_ERRORS(X)                                                                          \
    X(OK, "success")                                                                               \
    X(EXISTS, "the handle is already in use by a live session")                                    \
    X(NOTFOUND, "no such session, key or table")                                                   \
    X(REFUSED, "Redis refused the change; it has been rolled back")                                \
    X(UNKNOWN, "the deadline passed before Redis answered; the change is pending")                 \
    X(CONFLICT, "the value was changed by somebody else meanwhile")                                \
    X(INVALID, "an argument is not valid")                                                         \
    X(TOOBIG, "a string, a value, the record or the answer is too long")                           \
    X(NOTNUMBER, "the value is not an integer, or the sum does not fit into 64 bits")              \
    X(NOMEMORY, "no memory is left, in the table or in the process")                               \
    X(NOSPACE, "/dev/shm is full: make it larger, or remove what is not needed")                   \
    X(LIMIT, "too many workers, threads, tables or outstanding tickets")                           \
    X(PERMISSION, "the object's owner, mode or type is not trustworthy, or access was denied")     \
    X(NOTATABLE, "the object is not a sesstab table, or it is damaged")                            \
    X(WRONGVERSION, "the table was made by another version of sesstab")                            \
    X(STALE, "the table's name was removed or now means another segment")                          \
    X(UNSUPPORTED, "the system lacks something that the table needs")                              \
    X(CORRUPT, "a session's record is damaged; it has not been used")                              \
    X(TIMEOUT, "the time is up")                                                                   \
    X(SYSTEM, "a system call failed")

typedef enum sesstab_error {
#define X(name, text) SESSTAB_##name,
    SESSTAB_ERRORS(X)
#undef X
    SESSTAB_ERROR_COUNT
} sesstab_error;

/* The text of a result; "unknown result" for a number that is none.  Static; never NULL. */
SESSTAB_API const char *sesstab_strerror(int error);

/*
 * What exactly went wrong in this thread's last sesstab_open(), sesstab_attach(), sesstab_unlink() or
 * sesstab_huge_page() that failed: one sentence that names the object, what was found and what to do.
 * Valid until this thread's next such call; never NULL.
 */
SESSTAB_API const char *sesstab_error_detail(void);

/* ---------------------------------------------------------------- tables ---------------- */

typedef struct sesstab sesstab;

/*
 * What a table has to do with Redis, for all its processes; it may be switched at any time, with
 * sesstab_set_mode() or the tool sesstabctl.
 *
 *   SELECTIVE      bind and unbind wait for Redis, everything else is written behind
 *   MEMORY         no Redis and no persister are needed: every change is final at once, nothing waits
 *   WRITE_BEHIND   nothing waits: bind and unbind too answer OK at once
 *   WRITE_THROUGH  insert, remove, set, delete, compare_and_set, increment and set_state wait as well,
 *                  as long as sesstab_options.wait_ms says; touch never does
 *
 * A change that waits answers, besides what else it may:
 *
 *   OK       Redis has it.
 *   REFUSED  Redis said no, and what was there before was put back: nothing of the change stands in
 *            the table, nor will it.  (A binding is rolled back by the persister, anything else by the
 *            call itself before it returns: a caller that is killed in between leaves a change that
 *            nobody was told anything about, and which is written behind.  Others may have seen it in
 *            the meantime, and Redis may have such a change (not a binding) until what was put back is
 *            written.  An increment takes its DELTA away again, whoever changed the key on top.)
 *   UNKNOWN  the time is up, or the mode became MEMORY meanwhile, or what was refused could not be put
 *            back: no memory; or others had changed the key meanwhile, or deleted any after this one
 *            was, or changed anything of a session that was inserted, or whose state was set.  The
 *            change stands, pending, or what they made of it.
 *   NOTFOUND the session was removed while this call waited.
 *
 * What is answered OK without waiting is never rolled back: what is made on top of it and refused goes
 * back to it.  A removal is never refused.
 *
 * Switching to MEMORY: the persister leaves Redis and writes nothing, still mends what the dead leave,
 * and waits.  Who waits for Redis is told UNKNOWN.  Sessions that Redis holds and that are removed
 * keep their places until the mode is another again.  Switching back: it connects, and all that Redis
 * lacks is written; bindings that were made meanwhile are `pending` until then.  A table that was
 * never loaded (made in mode MEMORY) loads what Redis holds then, and is not ready until it has: where
 * both know a handle the table wins.  Nothing that a table has not loaded or written is ever removed.
 */
#define SESSTAB_MODES(X)                                                                           \
    X(SELECTIVE, "selective")                                                                      \
    X(MEMORY, "memory")                                                                            \
    X(WRITE_BEHIND, "write-behind")                                                                \
    X(WRITE_THROUGH, "write-through")

typedef enum sesstab_mode {
#define X(name, text) SESSTAB_##name,
    SESSTAB_MODES(X)
#undef X
    SESSTAB_MODE_COUNT
} sesstab_mode;

/* "selective", "memory", "write-behind", "write-through"; "?" for a number that is none. */
SESSTAB_API const char *sesstab_mode_name(int mode);

typedef struct sesstab_options {
    bool create;            /* make the table if there is none                                    */
    uint32_t permissions;   /* the segment's access mode, as for chmod; 0: 0600.  An existing
                               segment that allows more than this is refused                      */
    uint32_t owner;         /* a user id that may own the segment, besides root and the caller    */
    int64_t group;          /* when created: the segment's group id; 0: the process's own         */
    sesstab_mode mode;      /* when created: the first one, see sesstab_set_mode()                */
    uint32_t wait_ms;       /* how long a change that is not a binding waits in mode WRITE_THROUGH,
                               when this handle makes it; 0: 5000                                 */
    uint64_t max_bytes;     /* when created: the sessions' memory never grows beyond, 128 KiB to
                               64 GiB; 0: 16 GiB.  Only address space is taken; memory is, as it
                               is needed                                                          */
    /* For tests: small capacities and counters that are about to overflow. */
    uint32_t ring_entries;  /* when created: entries in a change ring, a power of two from 4 to
                               512; 0: 512                                                        */
    uint64_t first_version; /* when created: where sessions' versions start, at most 2^47; 0: 1   */
    bool full_fences;       /* when created: do without membarrier(2)                             */
} sesstab_options;

/*
 * Opens the table NAME ("/name": a slash, then letters, digits, '.', '_', '-'), and with
 * options->create makes it if there is none.  OPTIONS may be NULL.  Two processes that create at
 * once get the same table: it appears complete or not at all.  *TABLE is owned by the process;
 * sesstab_close() gives it back.  Opening the same name twice gives two independent handles.
 *
 * An existing table keeps what it was created with, and its mode: who needs another one asks with
 * sesstab_table_mode(), and switches it.
 *
 * OK · INVALID (name or option) · NOTFOUND (no such table, and not asked to create) · PERMISSION ·
 * NOTATABLE · WRONGVERSION · NOSPACE · NOMEMORY (address space) · LIMIT · UNSUPPORTED (locks or
 * membarrier do not work here) · STALE (unlinked while opening) · SYSTEM.
 */
SESSTAB_API int sesstab_open(const char *name, const sesstab_options *options, sesstab **table);

/* The mode as it is now. */
SESSTAB_API sesstab_mode sesstab_table_mode(sesstab *table);

/*
 * Switches it, for every process at once: calls that begin later follow it.  Needs neither Redis nor a
 * persister, and does not wait for them.  OK (also when it is that already) · INVALID.
 */
SESSTAB_API int sesstab_set_mode(sesstab *table, sesstab_mode mode);

/*
 * What the calling thread's changes do from here on, whatever the mode is, but for MEMORY, where nothing
 * waits: BEHIND: nothing waits, as in mode WRITE_BEHIND.  SYNCHRONOUS: all wait, as in mode
 * WRITE_THROUGH, those that are no bindings for TIMEOUT_MS (0: UNKNOWN at once); bind and unbind as
 * long as they are told.  BY_MODE: as at first, and in a child after a fork.  For a single call, set it
 * before and set it back after.  OK · INVALID (no class, negative time-out).
 */
typedef enum sesstab_class { SESSTAB_BY_MODE, SESSTAB_BEHIND, SESSTAB_SYNCHRONOUS } sesstab_class;
SESSTAB_API int sesstab_set_class(sesstab *table, sesstab_class class_, int timeout_ms);

/*
 * Leaves the table and frees the handle; sessions stay, those owned by this process become detached
 * when the persister notices.  In a forked child it leaves the parent's attachment alone.  No other
 * thread may be using the handle.  NULL is allowed.
 */
SESSTAB_API void sesstab_close(sesstab *table);

/*
 * Removes the table's name.  Processes that have it open keep using it, but nobody can open it again,
 * forked children can't become workers, and deaths can't be proved any more.  Nobody does this for you,
 * neither the last to leave nor the persister: a table waits for its processes to come back, and its
 * memory is the system's again when the name is removed and the last process has left.
 * OK · INVALID · NOTFOUND · PERMISSION · SYSTEM.
 */
SESSTAB_API int sesstab_unlink(const char *name);

/*
 * Makes this process a worker now rather than on its first use of the table: for a forked child
 * that is about to lose sight of /dev/shm.  OK (also when it is one already) · STALE · PERMISSION ·
 * LIMIT · NOMEMORY · UNSUPPORTED · SYSTEM.
 *
 * Every function below can return these too, when it is a thread's or a forked child's first.
 */
SESSTAB_API int sesstab_attach(sesstab *table);

/*
 * True when the persister has loaded Redis into the table: from then on what is not in the table
 * does not exist.  In mode MEMORY a table is always ready.  wait: OK · TIMEOUT.
 */
SESSTAB_API bool sesstab_ready(sesstab *table);
SESSTAB_API int sesstab_wait_ready(sesstab *table, int timeout_ms);

/*
 * Puts the next 2 MiB of the memory that the table uses on one huge page, for all its processes:
 * random access to a large table costs half as much then (docs/performance.md).  *POSITION is 0 at
 * first; call it again and again until NOTFOUND, after filling the table and when it has grown:
 *
 *     uint64_t position = 0;
 *     int result;
 *     do
 *         result = sesstab_huge_page(t, &position);
 *     while (result == SESSTAB_OK || result == SESSTAB_NOMEMORY);
 *
 * A call takes some milliseconds (little where it was done before), and whoever touches these 2 MiB
 * meanwhile waits for it: not for a thread that serves clients.  The table takes no more memory than
 * before.  `persister --huge-pages` does all that.
 * OK · NOTFOUND (no more) · NOMEMORY (no huge page is free; go on, and try again another time) ·
 * UNSUPPORTED (not with this kernel, see sesstab_error_detail()).
 */
SESSTAB_API int sesstab_huge_page(sesstab *table, uint64_t *position);

/* Now, in milliseconds since the Unix epoch (a few milliseconds coarse; no system call). */
SESSTAB_API uint64_t sesstab_now(void);

/* ---------------------------------------------------------------- sessions -------------- */

#define SESSTAB_STATES(X)                                                                          \
    X(CONNECTED, "connected")   /* a connection, nobody logged in                               */ \
    X(ACCOUNT, "account")       /* in account mode: known, but not yet playing                  */ \
    X(LOGGED_IN, "logged-in")   /* bound to a player                                            */ \
    X(DETACHED, "detached")     /* its owner is gone; it can be taken over or removed           */

typedef enum sesstab_state {
#define X(name, text) SESSTAB_##name,
    SESSTAB_STATES(X)
#undef X
    SESSTAB_STATE_COUNT
} sesstab_state;

/* "connected", "account", "logged-in", "detached"; "?" for a number that is none. */
SESSTAB_API const char *sesstab_state_name(int state);

/* A byte string under a key. */
typedef struct sesstab_pair {
    const char *key;
    const void *value;
    size_t length;
} sesstab_pair;

/* What a new session starts with. */
typedef struct sesstab_info {
    const char *address; /* "203.0.113.7" */
    const char *host;    /* "dsl-7.example.net" */
    const char *type;    /* "telnet", "websocket", ... */
    uint64_t connected_at; /* 0: now */
    const sesstab_pair *metadata;
    size_t metadata_count;
} sesstab_info;

/* A session as a reader sees it. */
typedef struct sesstab_view {
    uint64_t handle;
    uint64_t generation;   /* differs between two sessions that had the same handle            */
    uint64_t version;      /* counts this session's published changes                          */
    uint64_t connected_at; /* ms                                                               */
    uint32_t owner;        /* a worker, see sesstab_owner_alive(); 0: none                     */
    uint16_t metadata_count;
    uint8_t player_length;
    uint8_t state;         /* sesstab_state                                                    */
    uint64_t last_seen;    /* ms, at least connected_at                                        */
    const char *player;    /* "" when bound to nobody                                          */
    const char *address, *host, *type;
    const void *metadata_;        /* private */
    uint32_t metadata_length_;    /* private */
    bool pending;          /* the binding still waits for Redis                                */
} sesstab_view;

/*
 * Inserts a session, owned by the calling worker, in state CONNECTED.  *HANDLE is its number, chosen
 * by the caller, or 0 to let the table choose one and store it there.
 * OK · EXISTS (a live session has the handle; nothing changed) · INVALID (empty key, same key twice)
 * · TOOBIG · NOMEMORY · NOSPACE · STALE (the table had to grow and can't) · CORRUPT; if it waits for
 * Redis (see sesstab_mode) also REFUSED · UNKNOWN · NOTFOUND.
 */
SESSTAB_API int sesstab_insert(sesstab *table, uint64_t *handle, const sesstab_info *info);

/*
 * A read section: between begin and end, views stay valid and unchanging whatever others do.
 * Neither waits nor makes a system call (but a thread's first).  Sections nest.  Keep them short:
 * a section that stays open, also because its process was stopped, keeps what was alive when it
 * began from being reused, and never more.  begin: OK, or what sesstab_attach() returns; end must
 * not be called after a begin that failed.
 */
SESSTAB_API int sesstab_read_begin(sesstab *table);
SESSTAB_API void sesstab_read_end(sesstab *table);

/*
 * Finds a session, without copying; inside a read section only.  The fixed part of the record is
 * checked; that its strings end where they should is not (they end somewhere within or right behind the
 * segment): sesstab_get() looks at that too.  OK · NOTFOUND · CORRUPT, and *VIEW means nothing then.
 */
SESSTAB_API int sesstab_find(sesstab *table, uint64_t handle, sesstab_view *view);

/*
 * Finds COUNT sessions, in one read section: RESULTS[i] is what sesstab_find() would answer for
 * HANDLES[i], and VIEWS[i], if it is OK, the session.  Returns how many are OK (none outside of a read
 * section).  The memory of many is asked for at once, so that in a table that is larger than the
 * processor's cache one of a hundred costs a fraction of what it costs alone.
 */
SESSTAB_API size_t sesstab_find_many(sesstab *table, const uint64_t *handles, size_t count,
                                     sesstab_view *views, int *results);

/*
 * Copies a session.  *VIEW then points into BUFFER, needs no read section and stays the caller's.
 * *SIZE is the buffer's size; it becomes the size needed (at most SESSTAB_RECORD_MAX).
 * OK · NOTFOUND · TOOBIG (the buffer is too small) · CORRUPT, and *VIEW means nothing then.
 */
SESSTAB_API int sesstab_get(sesstab *table, uint64_t handle, sesstab_view *view, void *buffer,
                            size_t *size);

/*
 * Says that the session was active at NOW (ms; 0: sesstab_now()).  An older NOW than last_seen changes
 * nothing.  (A worker that is stopped in the middle of this call can put its older time back when it
 * goes on, but never one from before what Redis has acknowledged; the next touch mends it.)
 * Allocates nothing, waits for nothing, takes no locked instruction when the persister has not
 * written the last touch yet.  OK (also for a damaged record, which it does not look at) · NOTFOUND ·
 * CORRUPT (the index is damaged).
 */
SESSTAB_API int sesstab_touch(sesstab *table, uint64_t handle, uint64_t now);

/*
 * Sets the state, and stores the one before in *OLD unless that is NULL.  A bound session is
 * LOGGED_IN or DETACHED, an unbound one anything but LOGGED_IN: use sesstab_bind() and
 * sesstab_unbind().  The caller becomes the owner if the old state was DETACHED.
 * OK · NOTFOUND · INVALID (no state, or not one for this session) · NOMEMORY · NOSPACE · CORRUPT; if it
 * waits for Redis also REFUSED · UNKNOWN, and *OLD is stored then too.
 */
SESSTAB_API int sesstab_set_state(sesstab *table, uint64_t handle, sesstab_state state,
                                  sesstab_state *old);

/*
 * Removes the session: gone for every worker at once, and gone from Redis soon, even when this
 * process dies right after.  Allocates nothing; but to remove a damaged one that Redis may hold takes an
 * empty record.  OK · NOTFOUND · CORRUPT (the index is damaged) · NOMEMORY · NOSPACE (damaged ones
 * only); if it waits for Redis also UNKNOWN: it is gone from the table, and not yet from Redis.
 */
SESSTAB_API int sesstab_remove(sesstab *table, uint64_t handle);

/* True unless the worker is proved dead (or OWNER is 0).  Costs a few system calls. */
SESSTAB_API bool sesstab_owner_alive(sesstab *table, uint32_t owner);

/* The calling process as an owner; never 0 after a successful first call. */
SESSTAB_API uint32_t sesstab_self(sesstab *table);

/* ---------------------------------------------------------------- metadata -------------- */

/*
 * Each key's value has a version of its own: the session's version at the change that set it.
 * All four: OK · NOTFOUND (no such session) · INVALID (empty key) · TOOBIG · NOMEMORY · NOSPACE ·
 * CORRUPT; if they wait for Redis (see sesstab_mode) also REFUSED · UNKNOWN.  With UNKNOWN a version or
 * sum is stored as with OK.
 */

/* Sets KEY to LENGTH bytes at VALUE. */
SESSTAB_API int sesstab_set(sesstab *table, uint64_t handle, const char *key, const void *value,
                            size_t length);

/* Deletes KEY; NOTFOUND too when there is no such key. */
SESSTAB_API int sesstab_delete(sesstab *table, uint64_t handle, const char *key);

/*
 * Sets KEY only if its version is EXPECTED (0: only if there is no such key), and stores the new
 * version in *VERSION unless that is NULL.  CONFLICT when it is another; *VERSION is then that one.
 */
SESSTAB_API int sesstab_compare_and_set(sesstab *table, uint64_t handle, const char *key,
                                        uint64_t expected, const void *value, size_t length,
                                        uint64_t *version);

/*
 * Adds DELTA to the decimal integer under KEY (a missing key is 0) and stores the sum in *SUM
 * unless that is NULL.  NOTNUMBER when the value is no integer or the sum would not fit.
 */
SESSTAB_API int sesstab_increment(sesstab *table, uint64_t handle, const char *key, int64_t delta,
                                  int64_t *sum);

/*
 * Looks KEY up in a view.  *VALUE points into the view (with a NUL behind the value); *LENGTH and
 * *VERSION, either may be NULL, are its length and version.  OK · NOTFOUND · CORRUPT (the metadata is
 * damaged before KEY could be found).
 */
SESSTAB_API int sesstab_metadata(const sesstab_view *view, const char *key, const void **value,
                                 size_t *length, uint64_t *version);

/*
 * Walks the metadata of a view in no particular order.  *POSITION starts at 0.
 * OK (PAIR, and *VERSION unless NULL, are filled) · NOTFOUND (no more) · CORRUPT (the rest is damaged).
 */
SESSTAB_API int sesstab_metadata_next(const sesstab_view *view, size_t *position,
                                      sesstab_pair *pair, uint64_t *version);

/* ---------------------------------------------------------------- bindings -------------- */

/*
 * Binds the session to PLAYER (not empty), in state LOGGED_IN, owned by the caller, and waits until
 * Redis has it, at most TIMEOUT_MS (0: do not wait).  Everybody sees the binding at once, marked
 * `pending` until Redis has acknowledged it.
 *
 *   OK       durable: Redis acknowledged this binding, or a later change on top of it.
 *   REFUSED  Redis said no, and, asked again, did not have it.  The binding was rolled back to the last
 *            acknowledged one before this was said.
 *   UNKNOWN  the time is up, or it can't be told any more (the caller was stopped meanwhile, for long).
 *            The binding stays, pending, and will be resolved.
 *   NOTFOUND there is no such session, or it was removed while this call waited.
 *   INVALID (no player, negative time-out) · TOOBIG · NOMEMORY · NOSPACE · CORRUPT: nothing changed.
 *
 * In the modes MEMORY and WRITE_BEHIND, and for a thread of class BEHIND, the answer is OK at once.
 */
SESSTAB_API int sesstab_bind(sesstab *table, uint64_t handle, const char *player, int timeout_ms);

/*
 * Takes the binding away, in state CONNECTED; otherwise as sesstab_bind().  OK at once when the
 * session is bound to nobody and nothing is pending.
 */
SESSTAB_API int sesstab_unbind(sesstab *table, uint64_t handle, int timeout_ms);

/* ---------------------------------------------------------------- without waiting ------- */

/*
 * The same for an event loop: start, go on, and learn the answer from a descriptor.
 *
 *     sesstab_descriptor(t, &fd);                     poll fd for reading, beside everything else
 *     sesstab_start_bind(t, handle, player, login, &login->ticket);
 *     ...
 *     sesstab_answer a;                               fd is readable:
 *     while (sesstab_next_answer(t, &a) == SESSTAB_OK)
 *         answered(a.cookie, a.result);
 *
 * A ticket has no deadline: the loop has timers.  When one fires, sesstab_cancel() takes the ticket
 * back, and what is known then is what UNKNOWN means.
 *
 * Tickets belong to the process, whichever thread starts them; a forked child has none of its
 * parent's.  Those of a process that ends or closes the table are taken back.  A process may have as
 * many outstanding as are left of SESSTAB_TICKETS_MAX, which all processes share 64 at a time.
 */

typedef struct sesstab_answer {
    uint64_t ticket;
    void *cookie;    /* as given                                                                  */
    uint64_t handle;
    int result;      /* OK · REFUSED · NOTFOUND, as of sesstab_bind(); UNKNOWN when the mode becomes
                        MEMORY while it waits, or when it can't be told any more                  */
} sesstab_answer;

/*
 * Changes the binding as sesstab_bind() and sesstab_unbind() do, and returns at once.
 *
 *   OK       it is changed, and pending.  There will be one answer, unless it is cancelled, with
 *            this COOKIE; *TICKET, unless TICKET is NULL, is its number.  (Where there is nothing to
 *            wait for, it is there at once.  Another thread may get it before this call returns.)
 *   LIMIT    no ticket is free; NOSPACE also when there is no memory for more.  Nothing changed.
 *   NOTFOUND · INVALID · TOOBIG · NOMEMORY · NOSPACE · STALE · CORRUPT: nothing changed, no answer comes.
 */
SESSTAB_API int sesstab_start_bind(sesstab *table, uint64_t handle, const char *player,
                                   void *cookie, uint64_t *ticket);
SESSTAB_API int sesstab_start_unbind(sesstab *table, uint64_t handle, void *cookie,
                                     uint64_t *ticket);

/*
 * *DESCRIPTOR is readable while answers wait (and sometimes when none does).  It is one for the process
 * and the table, non-blocking and close-on-exec, made on the first call, with a thread of the library
 * that has all signals blocked.  Poll it and nothing else: sesstab_next_answer() reads it and
 * sesstab_close() closes it.  A forked child calls this again for one of its own.
 * OK · LIMIT (no more descriptors or threads) · SYSTEM.
 */
SESSTAB_API int sesstab_descriptor(sesstab *table, int *descriptor);

/* The next answer, of any thread's start.  Never waits.  OK · NOTFOUND (no more by now; the descriptor
 * will be readable when there is one). */
SESSTAB_API int sesstab_next_answer(sesstab *table, sesstab_answer *answer);

/*
 * Takes a ticket back.
 *   OK       there will be no answer.  The binding stays, pending, and will be resolved.
 *   NOTFOUND it is answered: sesstab_next_answer() gives or gave the answer to somebody.
 */
SESSTAB_API int sesstab_cancel(sesstab *table, uint64_t ticket);

/*
 * Waits until Redis has everything that calls which returned before this one have changed, in any
 * process, write-behind changes and removals too; at most TIMEOUT_MS (0: only looks).  Takes a walk over
 * the table, 32 bytes for each session that Redis lacks, and nothing of the others' time.  Damaged
 * sessions are left out.  OK (in mode MEMORY at once) · UNKNOWN (the time is up, or the mode
 * became MEMORY) · INVALID · NOMEMORY.
 */
SESSTAB_API int sesstab_flush(sesstab *table, int timeout_ms);

/* ---------------------------------------------------------------- iteration ------------- */

/*
 * A position in a walk over sessions.  {0} walks the whole table; sesstab_part() a part of it.
 * It may be kept, copied to another process and resumed at any time while it is not `open_`.
 */
typedef struct sesstab_cursor {
    uint64_t next_;
    uint32_t index_, parts_;
    bool open_;
} sesstab_cursor;

/* A cursor over part INDEX (from 0) of PARTS: together they see what one {0} cursor sees, whenever
 * each is made and run.  Of nothing when INDEX >= PARTS. */
SESSTAB_API sesstab_cursor sesstab_part(unsigned index, unsigned parts);

/*
 * The next session, in no particular order.  A session that is there during the whole walk is seen
 * once; one that comes or goes meanwhile, at most once for each time that it was inserted.  *VIEW is
 * valid until the next call with this cursor, which leaves and enters the read section by itself.
 * OK · NOTFOUND (no more; the section is left) · CORRUPT (one session was skipped; go on).
 */
SESSTAB_API int sesstab_next(sesstab *table, sesstab_cursor *cursor, sesstab_view *view);

/* Leaves the section of a walk that is not run to its end.  The cursor can be resumed. */
SESSTAB_API void sesstab_pause(sesstab *table, sesstab_cursor *cursor);

/*
 * Calls FUNCTION for every session bound to PLAYER, by an index, inside a read section, until it
 * returns nonzero.  OK · what FUNCTION returned · INVALID · CORRUPT (the index is damaged: there may be
 * more).  Damaged sessions are left out.
 */
SESSTAB_API int sesstab_by_player(sesstab *table, const char *player,
                                  int (*function)(const sesstab_view *view, void *context),
                                  void *context);

#ifdef __cplusplus
}
#endif
#endif
