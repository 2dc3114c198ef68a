/*
 * The table in which an operation is killed: how it is made, put back, and told from another.
 *
 * Capacities are the smallest and counters stand just below overflow, so that the operation itself
 * takes them over: versions (29 low bits), worker generations, the sequences of threads, tickets
 * and places, ring counters.
 */
#include "tests/crash/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PARTIES = 16, MAX_CHUNKS = 6 };

struct context *world_context(struct world *w)
{
    int error = 0;
    struct context *c = context_of(&w->table->shm, &error);
    check(c != NULL);
    return c;
}

/* ---------------------------------------------------------------- images -------------------- */

void image_take(struct image *image, sesstab *table, uint64_t handle)
{
    uint64_t current;
    memset(image, 0, sizeof *image);
    check_ok(sesstab_read_begin(table));
    int error;
    struct context *c = context_of(&table->shm, &error);
    struct slot *s = index_lookup(c, handle);
    const struct block *b = s ? record_in(c, s, &current) : NULL;
    if (b && !(current & CURRENT_TOMB)) {
        image->present = true;
        image->size = b->size;
        image->last_seen = record_last_seen(s, b);
        check(b->size > sizeof *b && b->size <= sizeof image->record);
        memcpy(image->record, b, b->size);
        memset(image->record, 0, offsetof(struct block, handle));
    }
    sesstab_read_end(table);
}

bool image_equal(const struct image *a, const struct image *b)
{
    return a->present == b->present && a->size == b->size && a->last_seen == b->last_seen &&
           memcmp(a->record, b->record, a->size) == 0;
}

/* The strings as layout.h has them, one behind the other, each with its NUL. */
static void view_strings(const struct block *b, sesstab_view *v)
{
    const char *end = (const char *)b + b->metadata_at;
    v->player = (const char *)(b + 1);
    v->address = v->player + b->player_length + 1;
    v->host = v->address + b->address_length + 1;
    v->type = v->host + b->host_length + 1;
    check(v->type + b->type_length < end && end[-1] == 0);
    check(!v->address[-1] && !v->host[-1] && !v->type[-1] && !v->type[b->type_length]);
}

void image_view(const struct image *image, uint64_t handle, sesstab_view *v)
{
    const struct block *b = (const struct block *)image->record;
    check(b->handle == handle && b->size == image->size && b->metadata_at <= b->size);
    *v = (sesstab_view){
        .handle = handle, .generation = b->generation, .version = b->version,
        .connected_at = b->connected_at, .last_seen = image->last_seen, .owner = b->owner,
        .player_length = b->player_length, .metadata_count = b->metadata_count, .state = b->state,
        .metadata_ = image->record + b->metadata_at, .metadata_length_ = b->size - b->metadata_at };
    view_strings(b, v);
}

/* ---------------------------------------------------------------- counters ------------------ */

/* The next attachments, threads and tickets take their counters over the edge. */
static void wind_counters(struct shm *shm)
{
    for (unsigned i = 1; i < PARTIES; i++) {
        shm->workers[i].owner = (1u << WORKER_GEN_BITS) - 2;
        shm->threads[i].owner = UINT32_MAX - 1;
        shm->tickets[i].word = TICKET_WORD(UINT32_MAX - 1, TICKET_IDLE);
    }
}

static void wind_place(atomic_u64 *word)
{
    if (OWN_STATE(*word) == OWN_FREE && OWN_SEQ(*word) < UINT32_MAX / 2)
        *word = OWN_WORD(OWN_FREE, 0, UINT32_MAX - 1);
}

/* So does the next life of every place that is free. */
static void wind_places(struct shm *shm)
{
    for (uint64_t offset = PAGE_BYTES; offset < CHUNK_BYTES; offset += PAGE_BYTES) {
        for (unsigned i = 0; i < PAGE_SLOTS; i++)
            wind_place(&slot_at(shm, (slot_ref){ (uint32_t)(offset / SLOT_BYTES) + i })->node.life);
        for (unsigned i = 3; i < PAGE_BYTES / BLOCK_UNIT; i++)
            wind_place(&block_at(shm, (block_ref){ (uint32_t)(offset / BLOCK_UNIT) + i })->own);
    }
    for (uint32_t i = CHUNK_BYTES / HINT_BYTES; i < 2 * CHUNK_BYTES / HINT_BYTES; i++)
        wind_place(&hint_at(shm, (hint_ref){ i })->life);
}

/* ---------------------------------------------------------------- what all tables hold ------ */

static void insert(struct world *w, uint64_t handle)
{
    const sesstab_pair pairs[] = { { "key", "value", 5 }, { "number", "41", 2 } };
    check_ok(sesstab_insert(w->table, &handle, &(sesstab_info){
        .address = "192.0.2.7", .host = "seven.example.net", .type = "telnet",
        .connected_at = START_TIME, .metadata = pairs, .metadata_count = 2 }));
    if (handle == 1)
        wind_places(&w->table->shm);
}

static void insert_all(struct world *w)
{
    for (uint64_t h = 1; h < ABSENT; h++) {
        if (h == NEWCOMER || (h == VICTIM && (w->operation->flags & ABSENT_BEFORE)))
            continue;
        insert(w, h);
        if (h <= OTHERS && h % 3 == 0) {
            char player[32];
            snprintf(player, sizeof player, "player %d", (int)h);
            check_either(sesstab_bind(w->table, h, player, 0), SESSTAB_OK, SESSTAB_UNKNOWN);
        }
    }
}

static void open_store(struct world *w)
{
    w->store = store_open(w->table);
    check(w->store && store_lead(w->store));
    store_set_ready(w->store, 0, 0);
}

static void open_segment(struct world *w, uint64_t seed)
{
    unsigned flags = w->operation->flags;
    snprintf(w->name, sizeof w->name, "%s-%u", new_name(), child_index);
    snprintf(w->new_name, sizeof w->new_name, "%s-%u", new_name(), child_index);
    check_ok(sesstab_open(w->name, &(sesstab_options){
        .create = true, .mode = flags & IN_MEMORY ? SESSTAB_MEMORY : SESSTAB_SELECTIVE,
        .max_bytes = (uint64_t)MAX_CHUNKS * CHUNK_BYTES, .ring_entries = 4,
        .first_version = (1u << CURRENT_VERSION_BITS) - 2,
        .full_fences = flags & FULL_FENCES }, &w->table));
    struct shm *shm = &w->table->shm;
    shm->hash_seed = shm->header->hash_seed = seed;
    wind_counters(shm);
}

/* ---------------------------------------------------------------- putting back -------------- */

static void add_range(struct world *w, unsigned i, const void *begin, uint64_t bytes)
{
    uint64_t at = (uint64_t)((const uint8_t *)begin - w->table->shm.base);
    w->ranges[i] = (struct range){ at, bytes, malloc(bytes) };
    check(w->ranges[i].copy != NULL);
    memcpy(w->ranges[i].copy, begin, bytes);
}

static void remember_bytes(struct world *w)
{
    struct shm *shm = &w->table->shm;
    w->chunks = (unsigned)shm->header->committed;
    w->limit = shm->limit;
    check(w->chunks < MAX_CHUNKS);
    add_range(w, 0, shm->header, PAGE_BYTES + PARTIES * sizeof(struct worker));
    add_range(w, 1, shm->threads, PARTIES * sizeof(struct thread));
    add_range(w, 2, shm->urgent, shm->at.tickets - shm->at.urgent);
    add_range(w, 3, shm->tickets, PARTIES * sizeof(struct ticket));
    add_range(w, 4, shm->rings, PARTIES * sizeof(struct ring));
    add_range(w, 5, shm->chunks, MAX_CHUNKS * sizeof(struct chunk));
    add_range(w, 6, shm->handles, shm->at.handles_max * 8);
    add_range(w, 7, shm->players, shm->at.players_max * 8);
    add_range(w, 8, shm->heap, (uint64_t)w->chunks * CHUNK_BYTES);
    add_range(w, GROUP_RANGE, &shm->tickets[GROUP_TICKET(0, 0)], GROUP_TICKETS * sizeof(struct ticket));
}

/* Chunks that came meanwhile are holes again. */
static void forget_growth(struct world *w)
{
    struct shm *shm = &w->table->shm;
    uint64_t from = shm->at.heap + (uint64_t)w->chunks * CHUNK_BYTES;
    if (!shm->chunks[w->chunks].class)
        return;
    int fd = open(object_path(w->name), O_RDWR | O_CLOEXEC);
    check(fd >= 0);
    check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                    (off_t)(shm->at.end - from)) == 0);
    close(fd);
}

void world_restore(struct world *w)
{
    struct shm *shm = &w->table->shm;
    forget_growth(w);
    for (unsigned i = 0; i < RANGES; i++)
        memcpy(shm->base + w->ranges[i].at, w->ranges[i].copy, w->ranges[i].bytes);
    store_relaxed(&shm->limit, w->limit);
    memset(w->stage, 0, sizeof *w->stage);
    memcpy(w->stage->stored, w->stored, sizeof w->stored);
    unlink(object_path(w->new_name));
}

/* The first PARTIES elements of SIZE bytes, each without what lies in [FROM, TO). */
static void hash_without(XXH3_state_t *h, const void *elements, size_t size, size_t from, size_t to)
{
    const uint8_t *e = elements;
    for (unsigned i = 0; i < PARTIES; i++, e += size) {
        XXH3_64bits_update(h, e, from);
        XXH3_64bits_update(h, e + to, size - to);
    }
}

uint64_t world_fingerprint(struct world *w)
{
    struct shm *shm = &w->table->shm;
    XXH3_state_t h;
    XXH3_64bits_reset(&h);
    XXH3_64bits_update(&h, shm->header, sizeof *shm->header);
    hash_without(&h, shm->workers, sizeof(struct worker), offsetof(struct worker, pid),
                 offsetof(struct worker, name));
    hash_without(&h, shm->threads, sizeof(struct thread), offsetof(struct thread, tid),
                 offsetof(struct thread, unused));
    hash_without(&h, shm->tickets, sizeof(struct ticket), offsetof(struct ticket, posted_at),
                 offsetof(struct ticket, unused));
    for (unsigned i = 0; i < GROUP_RANGE; i++)
        if (i == 2 || i > 3)
            XXH3_64bits_update(&h, shm->base + w->ranges[i].at, w->ranges[i].bytes);
    return XXH3_64bits_digest(&h);
}

/* ---------------------------------------------------------------- the world ----------------- */

/* C4 is judged by these. */
static void remember_others(struct world *w)
{
    struct context *c = world_context(w);
    for (uint64_t h = 1; h <= OTHERS; h++) {
        image_take(&w->others[h], w->table, h);
        w->other_slots[h] = *index_lookup(c, h);
    }
}

static int count_bound(const sesstab_view *view, uint64_t but_for)
{
    return view->handle != but_for && view->player_length;
}

static void count_others(struct world *w)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    while (sesstab_next(w->table, &cursor, &view) == SESSTAB_OK) {
        w->sessions += view.handle != w->handle;
        w->bound += (unsigned)count_bound(&view, w->handle);
    }
}

/* The job keeps no place and no garbage of its own: what it has is in the segment. */
static void empty_hands(struct world *w)
{
    struct context *c = world_context(w);
    for (int i = 0; i < 3 && c->limbo.count; i++)
        rcu_reclaim(c);
    check_equal(c->limbo.count, 0);
    heap_flush(c);
    memset(c->searches, 0, sizeof c->searches);
}

void world_open(struct world *w, const struct operation *operation, struct stage *stage,
                uint64_t seed)
{
    *w = (struct world){ .operation = operation, .stage = stage, .handle = VICTIM };
    memset(stage, 0, sizeof *stage);
    open_segment(w, seed);
    if (!(operation->flags & IN_MEMORY))
        open_store(w);
    insert_all(w);
    store_drain(w);
    if (operation->prepare)
        operation->prepare(w);
    if (w->store)
        store_close(w->store);
    w->store = NULL;
    empty_hands(w);
    count_others(w);
    rcu_enter(world_context(w));
    remember_others(w);
    rcu_exit(world_context(w));
    if (operation->leave)
        operation->leave(w);
    remember_bytes(w);
    memcpy(w->stored, stage->stored, sizeof w->stored);
}

void world_close(struct world *w)
{
    world_restore(w);
    for (unsigned i = 0; i < RANGES; i++)
        free(w->ranges[i].copy);
    sesstab_close(w->table);
    check_ok(sesstab_unlink(w->name));
}
