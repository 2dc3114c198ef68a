#include "tests/fuzz/image.h"

#include "shm/recover.h"
#include "shm/wait.h"

#include <fcntl.h>
#include <sanitizer/asan_interface.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNKS = 6, BUCKETS = 4096, PATCHES_MAX = 8, ELEMENTS_MAX = 256 };

const char *const image_players[4] = { "#5:1234", "#6", "wizard", "nobody" };

static sesstab *table;
static char name[64];
static struct context sound; /* this thread's state, as it was when the segment was done */
static uint64_t sound_limit;
static uint64_t sound_heads[2][BUCKETS];
static bool texts_damaged, sizes_damaged;

sesstab *image_table(void) { return table; }
const char *image_name(void) { return name; }

struct context *image_context(void)
{
    int error;
    return context_of(&table->shm, &error);
}

/* What must be true, or the process ends and the fuzzer keeps the input. */
static void must(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "not true: %s\n", what);
    abort();
}

/* ---------------------------------------------------------------- the sound segment --------- */

static void remove_name(void)
{
    sesstab_unlink(name);
}

const char *image_host(uint64_t handle)
{
    static char host[32];
    snprintf(host, sizeof host, "host-%llu.example", (unsigned long long)handle);
    return host;
}

static void insert(uint64_t handle, size_t padding)
{
    static char value[60000];
    sesstab_pair pairs[] = { { "width", "132x43", 6 }, { "padding", value, padding } };
    must(sesstab_insert(table, &handle, &(sesstab_info){
             .address = "192.0.2.7", .host = image_host(handle), .type = "telnet",
             .connected_at = 1700000000000, .metadata = pairs, .metadata_count = padding ? 2 : 1 })
             == SESSTAB_OK, "a session can be inserted");
}

static void populate(void)
{
    static const size_t paddings[] = { 0, 0, 0, 300, 1500, 50000, 0, 20, 0, 90 };
    for (uint64_t handle = 1; handle <= 12; handle++) {
        /* Before the table is ready every session counts as stored; afterwards none does yet. */
        store_relaxed(&table->shm.header->ready, handle == 6 || handle == 7);
        insert(handle, handle <= 10 ? paddings[handle - 1] : 0);
    }
    for (uint64_t handle = 1; handle <= 8; handle++)
        sesstab_bind(table, handle, image_players[handle % 3], 0);
    for (int i = 0; i < 3; i++) { /* replaced records, one more of each */
        sesstab_set(table, 1, "width", "80x25", 5);
        sesstab_increment(table, 2, "count", 7, NULL);
        sesstab_touch(table, 3, 1700000001000 + (uint64_t)i);
    }
    sesstab_remove(table, 11);
    sesstab_remove(table, 12);
}

static int nothing(const sesstab_view *view, void *context)
{
    (void)view, (void)context;
    return 0;
}

/* The bucket heads that lookups want are linked: else each input would link them anew. */
static void link_heads(void)
{
    sesstab_view view;
    sesstab_read_begin(table);
    for (uint64_t handle = 1; handle < 32; handle++)
        sesstab_find(table, handle, &view);
    sesstab_read_end(table);
    for (int i = 0; i < 4; i++)
        sesstab_by_player(table, image_players[i], nothing, NULL);
}

/* A worker that is killed while it waits for Redis: its sessions, its ticket, its places. */
static void leave_a_dead_worker(void)
{
    int ends[2];
    char byte = 0;
    must(pipe(ends) == 0, "there is a pipe");
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        insert(13, 0);
        insert(14, 0);
        if (write(ends[1], &byte, 1) == 1)
            sesstab_bind(table, 14, image_players[2], 3600000);
        _exit(1);
    }
    must(read(ends[0], &byte, 1) == 1, "the child came so far");
    atomic_u64 *urgent = table->shm.urgent;
    while (!load_acquire(urgent))
        usleep(1000);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ends[0]);
    close(ends[1]);
}

/* From now on the table is a private view of the file (F1), with poison behind it (F3). */
static void make_private(void)
{
    struct shm *shm = &table->shm;
    int fd = open(shm->path, O_RDWR | O_CLOEXEC);
    must(fd >= 0 && mmap(shm->base, shm->at.end, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0) == shm->base,
         "the file can be mapped");
    close(fd);
    memcpy(sound_heads[0], shm->handles, sizeof sound_heads[0]);
    memcpy(sound_heads[1], shm->players, sizeof sound_heads[1]);
    ASAN_POISON_MEMORY_REGION(shm->base + shm->at.end, PAGE_BYTES);
}

void image_build(void)
{
    snprintf(name, sizeof name, "/sesstab-fuzz-%d", (int)getpid());
    /* In a damaged mode every change waits for a persister: nobody is there. */
    const sesstab_options options = { .create = true, .max_bytes = CHUNKS * CHUNK_BYTES, .ring_entries = 8,
                                      .full_fences = true, .wait_ms = 1 };
    must(sesstab_open(name, &options, &table) == SESSTAB_OK, "the table can be made");
    atexit(remove_name);
    /* The same order in the index each time (F4). */
    table->shm.hash_seed = table->shm.header->hash_seed = UINT64_C(0x5e5517ab);
    populate();
    leave_a_dead_worker();
    link_heads();
    make_private();
    sound = *image_context();
    sound_limit = heap_chunks(&table->shm) * CHUNK_BYTES;
}

void image_reset(void)
{
    struct context *c = image_context();
    struct limbo limbo = c->limbo;
    madvise(table->shm.base, table->shm.at.end, MADV_DONTNEED);
    *c = sound;
    /* What was freed waits for nobody any more. */
    c->limbo = (struct limbo){ .items = limbo.items, .capacity = limbo.capacity };
    c->relief_ended = monotonic_ms(); /* as if a claim had failed just now: no second try */
    store_relaxed(&table->shm.limit, sound_limit);
    texts_damaged = sizes_damaged = false;
}

/* ---------------------------------------------------------------- damage -------------------- */

enum area {
    HEADER, WORKER, THREAD, TICKET, RING, CHUNK, HANDLES_HEAD, PLAYERS_HEAD, SLOT, BLOCK, HINT, ANY,
    AREAS
};

enum how { SET, FLIP, ADD, COPY, BYTE, LINK, REFER, HOWS };

struct patch {
    uint8_t area, how;
    uint16_t index, field, other;
    uint64_t value;
} __attribute__((packed));
_Static_assert(sizeof(struct patch) == 16, "a patch is 16 bytes of input");

/* The offsets of an area's elements that hold something. */
struct elements { uint64_t at[ELEMENTS_MAX]; unsigned count, words; };
static struct elements elements[AREAS];

static void add_element(enum area area, uint64_t at)
{
    if (elements[area].count < ELEMENTS_MAX)
        elements[area].at[elements[area].count++] = at;
}

static void list_row(enum area area, uint64_t at, size_t step, unsigned count, unsigned words)
{
    elements[area].words = words;
    for (unsigned i = 0; i < count; i++)
        add_element(area, at + i * step);
}

static void list_heads(enum area area, const struct shm *shm, uint64_t at)
{
    elements[area].words = 1;
    for (unsigned i = 0; i < BUCKETS; i++)
        if (*(const uint64_t *)(shm->base + at + i * 8) || i < 8)
            add_element(area, at + i * 8);
}

/* The places that are in use, each with a free one behind. */
static void list_places(enum area area, const struct shm *shm, unsigned chunk, size_t first,
                        size_t step, unsigned word)
{
    uint64_t at = shm->at.heap + (uint64_t)chunk * CHUNK_BYTES, end = at + CHUNK_BYTES;
    bool used = false;
    elements[area].words = (unsigned)(area == BLOCK ? BLOCK_UNIT : step) / 8;
    for (at += first; at < end; at += step) {
        bool before = used;
        used = *(const uint64_t *)(shm->base + at + word) != 0;
        if (used || before)
            add_element(area, at);
    }
}

/* The pages in which the sessions are, and some that are free. */
static void list_sessions(const struct shm *shm, unsigned chunk)
{
    uint64_t at = shm->at.heap + (uint64_t)chunk * CHUNK_BYTES;
    for (unsigned page = chunk == 0; page < 4; page++) {
        uint64_t first = at + page * PAGE_BYTES;
        list_row(SLOT, first, SLOT_BYTES, PAGE_SLOTS, SLOT_BYTES / 8);
        list_row(BLOCK, first + PAGE_SLOTS * SLOT_BYTES, BLOCK_UNIT, PAGE_BLOCKS, BLOCK_UNIT / 8);
    }
}

static void list_elements(const struct shm *shm)
{
    const struct layout *at = &shm->at;
    list_row(HEADER, 0, PAGE_BYTES, 1, sizeof(struct header) / 8);
    list_row(WORKER, at->workers, sizeof(struct worker), 4, sizeof(struct worker) / 8);
    list_row(THREAD, at->threads, sizeof(struct thread), 4, sizeof(struct thread) / 8);
    list_row(TICKET, at->tickets, sizeof(struct ticket), 4, sizeof(struct ticket) / 8);
    list_row(RING, at->rings, sizeof(struct ring), 3, offsetof(struct ring, entries) / 8 + 4);
    list_row(CHUNK, at->chunks, sizeof(struct chunk), CHUNKS, sizeof(struct chunk) / 8);
    list_row(ANY, 0, 8, 1, 1);
    list_heads(HANDLES_HEAD, shm, at->handles);
    list_heads(PLAYERS_HEAD, shm, at->players);
    for (unsigned i = 0; i < CHUNKS; i++) {
        unsigned class = (unsigned)shm->chunks[i].class;
        if (class == CHUNK_SESSIONS)
            list_sessions(shm, i);
        else if (class == CHUNK_HINTS)
            list_places(HINT, shm, i, i ? 0 : PAGE_BYTES, HINT_BYTES, offsetof(struct node, life));
        else if (class != CHUNK_UNUSED)
            list_places(BLOCK, shm, i, 0, class_bytes(class), offsetof(struct block, own));
    }
}

/* A link that leads to the node at PLACE, with the right tag. */
static uint64_t link_to(const uint8_t *base, bool hint, uint64_t place)
{
    const struct node *n = (const struct node *)(base + place);
    uint64_t hash = index_hash(&table->shm, hint ? INDEX_PLAYERS : INDEX_HANDLES, n->key);
    uint64_t ref = (place - table->shm.at.heap) / (hint ? HINT_BYTES : SLOT_BYTES);
    return LINK_WORD(ref, HASH_TAG(hash), 0);
}

static uint64_t chosen(const struct elements *e, uint16_t number)
{
    return e->at[number % e->count];
}

/* What the patch makes of OLD, which is word WORD of an element of AREA. */
static uint64_t patched(const uint8_t *base, const struct patch *p, enum area area, unsigned word,
                        uint64_t old)
{
    bool hint = area == HINT || area == PLAYERS_HEAD;
    uint64_t block = chosen(&elements[BLOCK], p->other) - table->shm.at.heap;
    switch (p->how % HOWS) {
    case SET: return p->value;
    case FLIP: return old ^ UINT64_C(1) << p->value % 64;
    case ADD: return old + (uint64_t)(int8_t)p->value;
    case COPY: return *(const uint64_t *)(base + chosen(&elements[area], p->other) + word * 8);
    case BYTE: return (old & ~(UINT64_C(255) << p->value % 8 * 8)) |
                      (p->value >> 8 & 255) << p->value % 8 * 8;
    case LINK: return link_to(base, hint, chosen(&elements[hint ? HINT : SLOT], p->other));
    default: return (old & UINT32_MAX) | block / BLOCK_UNIT << 32; /* as `current` has its block */
    }
}

/* What says whose record it is, the lengths, and the text itself: F2 can't be judged without them. */
static bool is_text(enum area area, unsigned word)
{
    return area == ANY ||
           (area == BLOCK && (word == offsetof(struct block, handle) / 8 ||
                              word == offsetof(struct block, version) / 8 ||
                              word >= offsetof(struct block, size) / 8));
}

static struct { uint64_t at, old; } undone[PATCHES_MAX];
static unsigned undo_count;

static void apply(uint8_t *base, const struct patch *p)
{
    enum area area = p->area % AREAS;
    const struct elements *e = &elements[area];
    unsigned word = p->field % e->words;
    uint64_t at = chosen(e, p->index) + word * 8, old;
    if (area == ANY)
        at = (p->value ^ (uint64_t)p->index << 24 ^ (uint64_t)p->field << 12) % table->shm.at.end & ~7ull;
    memcpy(&old, base + at, 8);
    uint64_t new = patched(base, p, area, word, old);
    memcpy(base + at, &new, 8);
    texts_damaged |= is_text(area, word);
    sizes_damaged |= at >= offsetof(struct header, handles) && at < offsetof(struct header, sleeping);
    undone[undo_count].at = at;
    undone[undo_count++].old = old;
}

static void damage(struct input *input, uint8_t *base)
{
    unsigned count = input_byte(input) % (PATCHES_MAX + 1);
    if (!elements[HEADER].count)
        list_elements(&table->shm);
    undo_count = 0;
    for (struct patch p; count-- && input->left >= sizeof p;) {
        memcpy(&p, input->at, sizeof p);
        input->at += sizeof p;
        input->left -= sizeof p;
        apply(base, &p);
    }
}

void image_damage(struct input *input) { damage(input, table->shm.base); }
void image_damage_file(struct input *input, uint8_t *file) { damage(input, file); }

/*
 * To have pages given back costs several times what a lookup does.  All that the read path writes is
 * this thread's line, and links in bucket heads; beyond those only when an index's size is wrong.
 */
void image_reset_after_reading(void)
{
    static unsigned count;
    struct shm *shm = &table->shm;
    if (sizes_damaged || ++count % 64 == 0) {
        image_reset();
        return;
    }
    image_undo(shm->base);
    memcpy(shm->handles, sound_heads[0], sizeof sound_heads[0]);
    memcpy(shm->players, sound_heads[1], sizeof sound_heads[1]);
    struct context *c = image_context();
    store_relaxed(&c->thread->lo, THREAD_IDLE);
    c->hi = sound.hi;
    c->depth = 0;
}

void image_undo(uint8_t *file)
{
    for (; undo_count; undo_count--)
        memcpy(file + undone[undo_count - 1].at, &undone[undo_count - 1].old, 8);
    texts_damaged = sizes_damaged = false;
}

uint8_t input_byte(struct input *input)
{
    if (!input->left)
        return 0;
    input->left--;
    return *input->at++;
}

/* ---------------------------------------------------------------- what was found ------------ */

static volatile size_t sink;

static void read_metadata(const sesstab_view *view)
{
    size_t position = 0;
    sesstab_pair pair;
    uint64_t version;
    while (sesstab_metadata_next(view, &position, &pair, &version) == SESSTAB_OK) {
        sink += strlen(pair.key);
        for (size_t i = 0; i < pair.length; i += 64)
            sink += ((const uint8_t *)pair.value)[i];
    }
}

/* What the view shows ends within the block, or is a copy. */
static bool within_its_block(const sesstab_view *view)
{
    struct shm *shm = &table->shm;
    uint64_t at = (uint64_t)((const uint8_t *)view->player - shm->heap) - sizeof(struct block);
    const char *end = (const char *)view->metadata_ + view->metadata_length_;
    size_t size = sizeof(struct block) + (size_t)(end - view->player);
    return at >= (uint64_t)CHUNKS * CHUNK_BYTES || size <= BLOCK_UNIT ||
           size <= block_bytes(shm, (block_ref){ (uint32_t)(at / BLOCK_UNIT) });
}

void image_look_at(const sesstab_view *view, uint64_t handle)
{
    struct shm *shm = &table->shm;
    must(view->handle == handle, "the view is of the handle that was asked for");
    must(view->state < SESSTAB_STATE_COUNT, "the state is one");
    must(within_its_block(view), "a record lies within its block");
    read_metadata(view);
    /* A damaged string ends somewhere, if only behind the segment. */
    ASAN_UNPOISON_MEMORY_REGION(shm->base + shm->at.end, PAGE_BYTES);
    sink += strlen(view->player) + strlen(view->address) + strlen(view->type);
    bool right = strcmp(view->host, image_host(handle)) == 0;
    ASAN_POISON_MEMORY_REGION(shm->base + shm->at.end, PAGE_BYTES);
    must(right || texts_damaged, "a session that is found is the one that was asked for");
}
