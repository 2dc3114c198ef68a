/*
 * The bytes of the segment.  Everything that two processes must agree on stands here, and nothing
 * else does: a tool that looks at a dead segment needs only this file.
 *
 *   offset        area        what
 *   0             header      struct header: identity, counters, the two indexes' sizes, the persister
 *                 workers     struct worker [WORKERS]: who is attached; an OFD lock on a worker's first
 *                             byte is its proof of life
 *                 threads     struct thread [THREADS]: what each thread may be reading
 *                 urgent      a bit per ticket: the persister should look at it
 *                 ready       a bit per thread: its ring may hold something
 *                 answered    a bit per ticket of a group: its worker should look at it
 *                 groups      worker_id [GROUPS]: who holds these 64 tickets; 0: nobody
 *                 tickets     struct ticket [TICKETS]: who waits for Redis
 *                 rings       struct ring [THREADS]: slots that changed
 *                 chunks      struct chunk [max_chunks]: class, hints and dirty bits of each chunk
 *                 handles     link words: bucket heads of the index by handle
 *                 players     link words: bucket heads of the index by player
 *                 heap        chunks of 64 KiB, each of one class for ever
 *
 *   a chunk of sessions is 16 pages; each page holds 12 slots of 64 bytes, then 13 blocks of 256:
 *
 *        0         768                                                    4096
 *        | s0..s11 | b0   b1   b2   ...                               b12 |
 *
 *   so that a slot and its record usually share a page.  A chunk of hints holds 32-byte nodes; all
 *   other chunks hold blocks of one size.
 *
 * References are offsets into the heap, in units, each in a struct of its own (slot_ref, block_ref,
 * hint_ref); heap.h has the one checked door from each to an address.  There is no pointer in the
 * segment, no function, and no pid that decides anything.
 *
 * Area offsets follow from `max_chunks` alone (layout_of()); the header repeats none of them.
 */
#ifndef SHM_LAYOUT_H
#define SHM_LAYOUT_H

#include "atomic.h"

#include <ck_ring.h>
#include <stddef.h>

#define LAYOUT_MAGIC UINT64_C(0x3162617473736573) /* "sesstab1", little-endian */
#define LAYOUT_VERSION 4u

enum {
    WORKERS = 1024,
    THREADS = 4096,
    TICKETS = 65536,      /* the first THREADS: one per thread, for synchronous calls */
    GROUP_TICKETS = 64,   /* the others are claimed by processes, so many (a page) at a time */
    GROUPS = (TICKETS - THREADS) / GROUP_TICKETS,
    CHUNK_BYTES = 64 << 10,
    PAGE_BYTES = 4096,
    CHUNK_PAGES = CHUNK_BYTES / PAGE_BYTES,
    PAGE_SLOTS = 12,
    PAGE_BLOCKS = 13,
    CHUNK_SLOTS = CHUNK_PAGES * PAGE_SLOTS,
    HUGE_PAGE_BYTES = 2 << 20,
    SLOT_BYTES = 64,
    HINT_BYTES = 32,
    BLOCK_UNIT = 256,     /* block references count in these; the smallest block */
    RING_ENTRIES_MAX = 512,
    INDEX_BUCKETS_MIN = 256
};

typedef struct { uint32_t at; } slot_ref;   /* heap offset / SLOT_BYTES; 0: none */
typedef struct { uint32_t at; } block_ref;  /* heap offset / BLOCK_UNIT; 0: none */
typedef struct { uint32_t at; } hint_ref;   /* heap offset / HINT_BYTES; 0: none */

/* ------------------------------------------------------------------ ownership word --------- */

/*
 * Slots, blocks and hints share one ownership protocol, in one word {state, worker, gen, seq}.
 *
 *          alloc: claimer           published: claimer,        replaced or unlinked:
 *                                   or who helps it            whoever wins the CAS
 *   FREE ------------------> OWNED ------------------> LIVE ------------------> RETIRED --> FREE
 *                              |                                                   ^     winner, after
 *                              +---------------------------------------------------+     its grace period
 *                                 given up: claimer; dead claimer: recovery
 *
 *   a crash leaves          and it is found again by
 *   FREE, in nobody's cache the sweep: sets the page's hint bit
 *   OWNED, unpublished      recovery: claimer dead and unreachable -> RETIRED by who recovers
 *   OWNED, published        recovery: claimer dead and reachable -> LIVE.  Also helped by a replacer
 *   LIVE, unreachable       the sweep -> RETIRED by who sweeps.  (Once LIVE and unreachable, always so.)
 *   RETIRED, worker dead    the sweep: adopted by a CAS that names the new worker
 *
 * `seq` counts the lives of the place, so that every CAS is from the exact life that was seen.
 */
enum own_state { OWN_FREE = 0, OWN_OWNED = 1, OWN_LIVE = 2, OWN_RETIRED = 3 };

/* A worker as ownership words and records name it: index and generation; 0 is nobody. */
enum { WORKER_INDEX_BITS = 11, WORKER_GEN_BITS = 18 };
typedef uint32_t worker_id; /* gen << 11 | (index + 1) */

#define OWN_SEQ(w) ((uint32_t)(w))
#define OWN_STATE(w) ((enum own_state)((w) >> 61))
#define OWN_WORKER(w) ((worker_id)((w) >> 32 & ((1u << 29) - 1)))
#define OWN_WORD(state, worker, seq)                                                               \
    ((uint64_t)(state) << 61 | (uint64_t)(worker) << 32 | (uint32_t)(seq))

/* ------------------------------------------------------------------ heap ------------------- */

enum chunk_class {
    CHUNK_UNUSED = 0,
    CHUNK_SESSIONS = 1, /* slots and 256-byte blocks */
    CHUNK_HINTS = 2,
    CHUNK_512 = 3,      /* CHUNK_512 + i: blocks of 512 << i bytes */
    CHUNK_64K = 10,
    CHUNK_CLASSES = 11
};

/* The common head of what hangs in an index: a slot, or a hint (which is nothing else). */
struct node {
    atomic_u64 next;  /* LINK_*; inserters and removers, by CAS only                             */
    atomic_u64 key;   /* slot: handle.  hint: player hash | slot_ref << 32.  Constant while linked  */
    atomic_u64 life;  /* ownership word                                                          */
    atomic_u64 birth; /* era of the claim; written by the claimer; rises from life to life       */
};
_Static_assert(sizeof(struct node) == HINT_BYTES, "a hint is just a node");

/* A session's fixed place.  It never moves, and slots lie where slots lie for ever. */
struct slot {
    struct node node;
    atomic_u64 current;      /* CURRENT_*: the word whose CAS publishes every change              */
    atomic_u64 last_seen;    /* ms; raised in place by touch, a hint: see record_last_seen()      */
    atomic_u64 durable;      /* DURABLE_*: what Redis acknowledged; written by the persister      */
    atomic_u64 durable_seen; /* the last_seen that Redis acknowledged; written by the persister   */
};
_Static_assert(sizeof(struct slot) == SLOT_BYTES, "a slot is one cache line");

/*
 * current: {block 32, version's low bits 29, ACKED, TOMB, STORED}
 *
 *   block != 0, !TOMB   live: the block is the record
 *   block != 0, TOMB    tombstone: removed, Redis must still learn; the block is the last record,
 *                       and the tombstone's version is that record's + 1
 *   block == 0          dead: unlink and retire the slot; never live again in this life
 *
 * STORED: Redis may hold this handle.  Set (by CAS) before the first send; then removing needs a
 * tombstone.  ACKED: the binding in this record is acknowledged; set (by CAS) before `durable` says
 * so, so that who puts another binding on top knows what to go back to; every change clears it.
 * Low version bits make every CAS exact even if a block came back.
 */
#define CURRENT_STORED UINT64_C(1)
#define CURRENT_TOMB UINT64_C(2)
#define CURRENT_ACKED UINT64_C(4)
#define CURRENT_VERSION_BITS 29
#define CURRENT_BLOCK(w) ((block_ref){ (uint32_t)((w) >> 32) })
#define CURRENT_LOW(w) ((uint32_t)(w) >> 3)
#define CURRENT_WORD(block, version, flags)                                                        \
    ((uint64_t)(block).at << 32 | (uint32_t)((uint32_t)(version) << 3) | (flags))

/* durable: {incarnation of the store 16, version 48}.  Another incarnation means "not durable". */
#define VERSION_BITS 48
#define VERSION_MAX ((UINT64_C(1) << VERSION_BITS) - 1)
#define DURABLE_VERSION(w) ((w) & VERSION_MAX)
#define DURABLE_INCARNATION(w) ((uint32_t)((w) >> VERSION_BITS))
#define DURABLE_WORD(incarnation, version) ((uint64_t)(incarnation) << VERSION_BITS | (version))

/*
 * A record.  Immutable once published, but for `own`.  The strings follow the struct, each with a
 * NUL: player, address, host, type, and, if ACKED, the last acknowledged player and, in 8 bytes, the
 * version at which that was bound (48 bits, so that the last byte is a NUL too).  Then the metadata.
 */
struct block {
    atomic_u64 own;          /* ownership word                                                   */
    atomic_u64 birth;        /* era of the claim                                                 */
    uint64_t handle;         /* = slot's key: a wrong reference never shows another session      */
    uint64_t generation;
    uint64_t version;        /* of the session                                                   */
    uint64_t connected_at;   /* ms                                                               */
    uint32_t owner;          /* worker_id                                                        */
    uint16_t metadata_count;
    uint8_t player_length;
    uint8_t state;           /* sesstab_state; from handle to here as in sesstab_view            */
    uint8_t address_length, host_length, type_length, acked_length;
    uint16_t metadata_at;    /* where the metadata begins, from the block's start                */
    uint8_t flags;           /* BLOCK_*                                                          */
    uint8_t acked_state;     /* state to go back to, if ACKED                                    */
    uint64_t born_version;   /* version of the insert: durable below it means Redis has none of it */
    uint64_t shrunk_version; /* version at which metadata last lost a key                        */
    uint64_t bound_version;  /* version of the last bind or unbind: pending while durable is less */
    uint64_t refused_version;/* the newest binding of this generation that was rolled back        */
    uint32_t slot;           /* slot_ref it belongs to                                           */
    uint32_t player_hash;    /* of player; 0 when bound to nobody                                */
    uint32_t acked_hash;     /* of the last acknowledged player, if ACKED                        */
    uint32_t size;           /* bytes used, this struct included                                 */
};
/*
 * ACKED: it names the last acknowledged player, to go back to.  FINAL: the binding in it is never
 * rolled back, because it was acknowledged, or because its caller was told OK without waiting.
 */
enum { BLOCK_ACKED = 1, BLOCK_FINAL = 2, ACKED_VERSION_BYTES = 8 };
_Static_assert(sizeof(struct block) == 112, "strings begin at 112");
_Static_assert(offsetof(struct block, handle) == 16, "a block's words lie where the picture says");
_Static_assert(offsetof(struct block, born_version) == 64, "what a look needs first is one cache line");

/* One metadata entry: this, then the key and a NUL, then the value and a NUL; not aligned. */
struct metadata {
    uint32_t version_low;
    uint16_t version_high;
    uint16_t value_length;
    uint8_t key_length;
} __attribute__((packed));
_Static_assert(sizeof(struct metadata) == 9, "an entry costs 11 bytes besides key and value");

/* What the heap keeps beside each chunk. */
struct chunk {
    atomic_u64 class;              /* enum chunk_class; CAS from UNUSED, then for ever            */
    atomic_u64 slot_hints;         /* bit per page: it may have free slots                        */
    atomic_u64 block_hints;        /* bit per page: it may have free blocks (or hints)            */
    atomic_u64 unused;
    atomic_u64 dirty[CHUNK_PAGES / 4]; /* 16 bits per page, the first 12 used: slot is dirty      */
};
_Static_assert(sizeof(struct chunk) == 64, "a chunk's record is one cache line");

/* ------------------------------------------------------------------ index ------------------ */

/*
 * The hash of a handle: both halves of a product, folded (Wang Yi's wyhash, public domain), keyed by
 * the table's seed.  Where it leads matters to everybody who looks into the segment.
 */
static inline uint64_t layout_hash(uint64_t seed, uint64_t handle)
{
    unsigned __int128 product = (unsigned __int128)(handle ^ seed) * UINT64_C(0xa0761d6478bd642f);
    return (uint64_t)(product >> 64) ^ (uint64_t)product;
}

/*
 * A link word: {ref 32, tag 29, HEAD, CLAIMED, MARK}; in a bucket head, or in a node's `next`.
 *
 *   MARK     the node that holds this link is deleted; the word is frozen
 *   HEAD     ref is the number of a bucket, whose head is the next in the list; else a node
 *   CLAIMED  (bucket heads only) being linked; the 29 bits name the worker, not a tag
 *   tag      low 29 bits of the target's hash: its place in the order without a visit
 *
 * 0 in a bucket head: not linked yet.  LINK_END (head of bucket 0, where nothing can lead): the end.
 */
#define LINK_MARK UINT64_C(1)
#define LINK_CLAIMED UINT64_C(2)
#define LINK_HEAD UINT64_C(4)
#define LINK_TAG_BITS 29
#define LINK_TAG(w) ((uint32_t)(w) >> 3)
#define LINK_REF(w) ((uint32_t)((w) >> 32))
#define LINK_WORD(ref, tag, flags)                                                                 \
    ((uint64_t)(ref) << 32 | (uint32_t)((uint32_t)(tag) << 3) | (flags))
#define LINK_END LINK_WORD(0, 0, LINK_HEAD)

/* ------------------------------------------------------------------ processes -------------- */

/* worker.owner: {LIVE bit, generation}.  A generation is never used twice in a row. */
#define WORKER_LIVE (UINT64_C(1) << 63)

struct worker {
    atomic_u64 owner;      /* 0 or the last generation: free; WORKER_LIVE | generation: attached  */
    atomic_u32 pid;        /* shown to people, decides nothing                                    */
    atomic_u32 uid;
    atomic_u64 attached_at;/* ms                                                                  */
    atomic_u32 answers;    /* futex: raised by the persister when it has answered tickets of its
                              groups (lib/ticket.h)                                               */
    char name[36];         /* the program's name, for people                                      */
};
_Static_assert(sizeof(struct worker) == 64, "workers do not share cache lines");

/*
 * One thread of a worker.  owner: {LIVE bit, worker_id 29 bits at 32, seq 32}.
 * lo, hi: the eras that the thread may be reading; lo == THREAD_IDLE: none.
 */
#define THREAD_LIVE (UINT64_C(1) << 63)
#define THREAD_WORKER(w) ((worker_id)((w) >> 32 & ((1u << 29) - 1)))
#define THREAD_IDLE UINT64_MAX
struct thread {
    atomic_u64 owner;
    atomic_u64 lo, hi;     /* written by the thread only                                         */
    atomic_u64 tid;        /* shown to people                                                    */
    atomic_u64 has_ring;   /* 1 for ever: the ring of this slot is backed by memory; set by
                              ring_prepare() once it is, asked by ring_take() before it looks    */
    uint64_t unused[3];
};
_Static_assert(sizeof(struct thread) == 64, "threads do not share cache lines");

/* A change ring: the thread pushes, the leading persister takes. */
struct ring_entry { uint32_t slot; };
struct ring {
    struct ck_ring ring;   /* indices only, no pointers; its size and mask are checked before use */
    struct ring_entry entries[RING_ENTRIES_MAX];
    uint8_t unused[PAGE_BYTES - sizeof(struct ck_ring) - RING_ENTRIES_MAX * 4];
};
_Static_assert(sizeof(struct ring) == PAGE_BYTES, "a ring is a page");

/*
 * Somebody waits for Redis: a thread, on its own ticket, or a process, on one of a group that it
 * holds (lib/ticket.h).  word: {seq 32, verdict 32}; its low half is the futex.
 *
 *   IDLE -> WAITING            by the caller, after the fields
 *   WAITING -> DURABLE | REFUSED | GONE   by the persister; UNKNOWN when the mode becomes MEMORY
 *   WAITING -> IDLE            by the caller at its deadline or when it cancels, or by recovery
 *   any of these -> IDLE       by the caller
 * Every edge is one CAS from the exact word, so that caller and persister agree on what was said.
 */
enum ticket_state {
    TICKET_IDLE, TICKET_WAITING, TICKET_DURABLE, TICKET_REFUSED, TICKET_GONE, TICKET_UNKNOWN
};
#define TICKET_WORD(seq, state) ((uint64_t)(seq) << 32 | (uint32_t)(state))
#define TICKET_STATE(w) ((enum ticket_state)(uint32_t)(w))
#define TICKET_SEQ(w) ((uint32_t)((w) >> 32))
/*
 * What is waited for.  BINDING: `version` names it, and only the persister rolls it back, before it says
 * REFUSED.  CHANGE: the session at `version` or later; who is told REFUSED takes it back.  REMOVAL:
 * `version` is the tombstone's; never refused.
 */
enum ticket_kind { TICKET_BINDING, TICKET_CHANGE, TICKET_REMOVAL };
struct ticket {
    atomic_u64 word;
    atomic_u32 slot;       /* slot_ref                                                            */
    atomic_u32 owner;      /* worker_id                                                           */
    atomic_u64 handle, generation;
    atomic_u64 version;    /* durable at or above this is DURABLE                                 */
    atomic_u64 posted_at;  /* ms                                                                  */
    atomic_u64 kind;       /* enum ticket_kind                                                    */
    uint64_t unused;
};
_Static_assert(sizeof(struct ticket) == 64, "tickets do not share cache lines");
_Static_assert(GROUP_TICKETS * sizeof(struct ticket) == PAGE_BYTES, "a group is backed as one page");

/* The ticket that is number K of group G. */
#define GROUP_TICKET(g, k) (THREADS + (g) * GROUP_TICKETS + (k))

/* ------------------------------------------------------------------ header ----------------- */

/* The size of an index; buckets beyond what is committed are never counted. */
struct index_head {
    atomic_u64 buckets;           /* a power of two, only ever doubled                            */
    atomic_u64 unused[7];
};

/* The mode: {switches so far 30, mode 2}, so that a leader that was stopped meanwhile notices that there
 * was another one in between. */
enum header_mode { MODE_SELECTIVE, MODE_MEMORY, MODE_WRITE_BEHIND, MODE_WRITE_THROUGH };
#define MODE_OF(word) ((enum header_mode)((word) & 3))
#define MODE_SWITCHES(word) ((uint32_t)(word) >> 2)
#define MODE_WORD(switches, mode) ((uint32_t)(switches) << 2 | (uint32_t)(mode))

/*
 * Who leads: {term 32, worker 32}.  Each edge is one CAS from the exact word.
 *
 *   {t, nobody}                                   -> {t + 1, me}  store_lead()
 *   {t, W}, W is proved dead                      -> {t + 1, me}  store_lead()
 *   {t, W}, W lives, and makes no progress: ready -> {t + 1, me}  store_supersede()
 *   {t, me}                                       -> {t, nobody}  store_close()
 *
 * A crash leaves {t, W}, and W's lock gone: W is proved dead.
 */
#define LEADER_WORD(term, worker) ((uint64_t)(uint32_t)(term) << 32 | (worker_id)(worker))
#define LEADER_TERM(w) ((uint32_t)((w) >> 32))
#define LEADER_WORKER(w) ((worker_id)(w))

#define CACHE_LINE _Alignas(64)

/* Where the store has what it acknowledges; written by the persister. */
enum acknowledged {
    ACKNOWLEDGED_UNKNOWN, /* it does not tell, or was never asked                     */
    ACKNOWLEDGED_MEMORY,  /* lost with the server                                     */
    ACKNOWLEDGED_KERNEL,  /* lost with the machine, up to two seconds                 */
    ACKNOWLEDGED_DISK,
    ACKNOWLEDGED_REPLICAS,
    ACKNOWLEDGED_NOTHING, /* replicas or fsync are missing: nothing is acknowledged   */
    ACKNOWLEDGED_COUNT
};

struct header {
    /* Written before the segment has a name, then constant. */
    uint64_t magic;
    uint32_t layout_version;
    uint32_t header_bytes;
    uint64_t fingerprint;         /* of every size and offset in this file                        */
    uint64_t creation_id;         /* random: tells two segments of one name apart                 */
    uint64_t hash_seed;
    uint64_t created_at;          /* ms                                                           */
    uint8_t boot_id[16];
    uint32_t max_chunks;          /* fixes every area's offset                                    */
    uint32_t full_fences;         /* 1: no membarrier; every reader pays                          */
    uint32_t ring_entries;
    uint64_t first_version;

    CACHE_LINE atomic_u64 era;    /* raised by reclaimers                                         */
    CACHE_LINE atomic_u64 next_generation; /* starts from the clock: above any stored one         */
    atomic_u64 next_handle;
    CACHE_LINE atomic_u64 committed;  /* chunks; only ever raised                                 */
    atomic_u64 sweep_cursor;      /* next chunk that somebody short of memory sweeps              */
    atomic_u64 worker_high, thread_high, group_high; /* nothing beyond was ever used              */
    CACHE_LINE struct index_head handles;
    CACHE_LINE struct index_head players;

    /* How often hints of free places were set: [0] of slots, then by class.  See refill(). */
    CACHE_LINE atomic_u64 hinted[CHUNK_CLASSES];

    /* Between workers and the persister. */
    CACHE_LINE atomic_u32 sleeping;   /* 0 awake, 1 sleeping, 2 sleeping but for urgent work; the
                                         leader alone writes it (see lib/store.h on late ones)    */
    atomic_u32 wake_seq;          /* the persister's futex; wakers bump it                        */
    atomic_u32 overflow;          /* a ring was full or lost: look at every dirty bit             */
    atomic_u32 sweep_wanted;      /* somebody died: look at every session                         */
    CACHE_LINE atomic_u32 ready;  /* 1: what is not here does not exist; futex                    */
    atomic_u32 incarnation;       /* of the store, 1 to 65535; raised when it lost data           */
    atomic_u32 mode;              /* MODE_WORD; futex                                             */
    atomic_u32 loaded_incarnation; /* with `loaded_from`, below                                   */
    atomic_u64 leader;            /* LEADER_*: who leads                                          */
    atomic_u64 store_down_since;  /* ms; 0: connected.  For people                                */
    atomic_u64 compare_wanted;    /* set by a superseded leader as it steps back: what it did late
                                     is to be compared with Redis; cleared by the leader          */
    atomic_u64 acknowledged;      /* replicas << 8 | enum acknowledged.  For people               */
    atomic_u64 loaded_from;       /* the creation id of the table whose sessions this one was filled
                                     with, 0: of none; the loading leader writes it, before ready   */

    /* Counters for people, relaxed, added to rarely. */
    CACHE_LINE atomic_u64 deaths, recovered, durable_writes, refusals, detached, swept;
    atomic_u64 leader_beat;       /* raised by the leader while it makes progress (not on a line that
                                     readers read)                                                */
    atomic_u64 durable_until;     /* ms: all that was published before was durable by then.  For
                                     people; see lib/figures.h                                    */
};
_Static_assert(sizeof(struct header) <= PAGE_BYTES, "the header is one page");

/* Where the areas lie. */
struct layout {
    uint64_t workers, threads, urgent, ready, answered, groups, tickets, rings, chunks, handles,
             players, heap, end;
    uint64_t handles_max, players_max; /* buckets */
};

static inline uint64_t layout_align(uint64_t v, uint64_t to) { return (v + to - 1) / to * to; }

/* MAX_CHUNKS as in the header: 2 to 1048576 (64 GiB). */
enum { CHUNKS_MAX = 1 << 20 };
static inline struct layout layout_of(uint32_t max_chunks)
{
    struct layout l;
    uint64_t slots = (uint64_t)max_chunks * CHUNK_SLOTS, buckets = INDEX_BUCKETS_MIN;
    while (buckets < slots)
        buckets *= 2;
    l.handles_max = 2 * buckets; /* see heap.c, growing */
    l.players_max = buckets;
    l.workers = PAGE_BYTES;
    l.threads = l.workers + WORKERS * sizeof(struct worker);
    l.urgent = l.threads + THREADS * sizeof(struct thread);
    l.ready = l.urgent + TICKETS / 8;
    l.answered = l.ready + THREADS / 8;
    l.groups = l.answered + GROUPS * 8;
    l.tickets = layout_align(l.groups + GROUPS * sizeof(worker_id), PAGE_BYTES);
    l.rings = l.tickets + TICKETS * sizeof(struct ticket);
    l.chunks = l.rings + THREADS * sizeof(struct ring);
    l.handles = layout_align(l.chunks + max_chunks * sizeof(struct chunk), HUGE_PAGE_BYTES);
    l.players = l.handles + l.handles_max * 8;
    l.heap = layout_align(l.players + l.players_max * 8, HUGE_PAGE_BYTES);
    l.end = l.heap + (uint64_t)max_chunks * CHUNK_BYTES;
    return l;
}

/* Changes whenever the compiler would lay any of this out differently. */
static inline uint64_t layout_fingerprint(void)
{
    const uint64_t facts[] = {
        LAYOUT_VERSION, sizeof(struct header), sizeof(struct worker), sizeof(struct thread),
        sizeof(struct ticket), sizeof(struct ring), sizeof(struct ck_ring), sizeof(struct chunk),
        sizeof(struct slot), sizeof(struct block), sizeof(struct metadata),
        offsetof(struct header, era), offsetof(struct header, committed),
        offsetof(struct header, handles), offsetof(struct header, sleeping),
        offsetof(struct header, ready), offsetof(struct header, mode),
        offsetof(struct header, leader), offsetof(struct header, deaths),
        offsetof(struct header, leader_beat),
        offsetof(struct slot, current), offsetof(struct slot, durable),
        offsetof(struct block, slot), offsetof(struct block, metadata_count), layout_hash(1, 1),
        offsetof(struct ring, entries), offsetof(struct chunk, dirty),
        offsetof(struct worker, answers), offsetof(struct header, group_high),
        WORKERS, THREADS, TICKETS, GROUP_TICKETS, CHUNK_BYTES, PAGE_SLOTS, PAGE_BLOCKS, BLOCK_UNIT, HINT_BYTES,
    };
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a over the words */
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        h = (h ^ facts[i]) * UINT64_C(0x100000001b3);
    return h;
}

#endif
