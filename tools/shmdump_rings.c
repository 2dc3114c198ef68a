/* What waits for the persister: change rings, dirty bits, tickets. */
#include "tools/shmdump.h"
#include "tools/shmdump_text.h"
#include "tools/shmdump_workers.h"

#include <inttypes.h>
#include <stdio.h>

struct ring_row {
    uint32_t index;
    struct thread thread;
    struct ring ring;
    bool made, sane, announced; /* has memory; its numbers can be; its bit in `ready` is set */
    uint32_t entries;
    enum liveness life;
};

static void read_ring(const struct image *image, uint32_t index, struct ring_row *r)
{
    const uint32_t size = image->header.ring_entries;
    read_thread(image, index, &r->thread);
    image_read(image, image->at.rings + index * sizeof r->ring, &r->ring, sizeof r->ring);
    r->index = index;
    r->made = r->ring.ring.size != 0;
    r->entries = r->ring.ring.p_tail - r->ring.ring.c_head;
    r->sane = r->ring.ring.size == size && r->ring.ring.mask == size - 1 && r->entries <= size;
    r->announced = image_word(image, image->at.ready + index / 64 * 8) >> index % 64 & 1;
    r->life = r->thread.owner & THREAD_LIVE
                  ? worker_id_liveness(image, THREAD_WORKER(r->thread.owner)) : WORKER_FREE;
}

/* A thread slot that nobody has and whose ring is empty says nothing. */
static bool worth_showing(const struct ring_row *r)
{
    return r->life != WORKER_FREE || (r->made && (!r->sane || r->entries)) || r->announced;
}

static uint64_t eras_behind(const struct image *image, const struct thread *t)
{
    return t->lo == THREAD_IDLE ? 0 : since(image->header.era, t->lo);
}

static void print_ring(const struct image *image, const struct ring_row *r)
{
    bool used = r->thread.owner & THREAD_LIVE;
    char owner[WORKER_TEXT_BYTES];
    printf("%-6" PRIu32 " %-10s %-8" PRIu64 " %-8s ", r->index,
           worker_text(used ? THREAD_WORKER(r->thread.owner) : 0, owner), r->thread.tid,
           liveness_names[r->life]);
    if (!used || r->thread.lo == THREAD_IDLE)
        printf("%-10s ", "-");
    else
        printf("%-10" PRIu64 " ", eras_behind(image, &r->thread));
    if (r->made && r->sane)
        printf("%7" PRIu32 " %8u %s\n", r->entries, r->ring.ring.size - 1,
               r->announced ? "yes" : "no");
    else
        printf("%7s %8s %s\n", r->made ? "damaged" : "-", "-", r->announced ? "yes" : "no");
}

static cJSON *ring_json(const struct image *image, const struct ring_row *r)
{
    bool used = r->thread.owner & THREAD_LIVE;
    cJSON *o = must(cJSON_CreateObject());
    json_number(o, "thread", r->index);
    json_worker(o, "worker", used ? THREAD_WORKER(r->thread.owner) : 0);
    json_number(o, "tid", r->thread.tid);
    must(cJSON_AddStringToObject(o, "life", liveness_names[r->life]));
    must(cJSON_AddBoolToObject(o, "reading", used && r->thread.lo != THREAD_IDLE));
    json_number(o, "eras_behind", used ? eras_behind(image, &r->thread) : 0);
    must(cJSON_AddBoolToObject(o, "damaged", r->made && !r->sane));
    json_number(o, "entries", r->made && r->sane ? r->entries : 0);
    json_number(o, "capacity", r->made && r->sane ? r->ring.ring.size - 1 : 0);
    must(cJSON_AddBoolToObject(o, "announced", r->announced));
    return o;
}

static void show_all_rings(const struct image *image, cJSON *list)
{
    static struct ring_row r;
    if (!list)
        printf("%-6s %-10s %-8s %-8s %-10s %7s %8s %s\n", "THREAD", "WORKER", "TID", "LIFE",
               "READING", "ENTRIES", "CAPACITY", "ANNOUNCED");
    for (uint32_t i = 0; i < image->threads_used; i++) {
        read_ring(image, i, &r);
        if (!worth_showing(&r))
            continue;
        if (list)
            cJSON_AddItemToArray(list, ring_json(image, &r));
        else
            print_ring(image, &r);
    }
}

/* Dirty bits of chunk INDEX. */
static unsigned dirty_of(const struct image *image, uint64_t index)
{
    uint64_t words[CHUNK_PAGES / 4];
    unsigned n = 0;
    image_read(image,
               image->at.chunks + index * sizeof(struct chunk) + offsetof(struct chunk, dirty),
               words, sizeof words);
    for (unsigned i = 0; i < CHUNK_PAGES / 4; i++)
        n += (unsigned)__builtin_popcountll(words[i]);
    return n;
}

static uint64_t show_dirty(const struct image *image, cJSON *list)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < image->chunks; i++) {
        unsigned n = image_class(image, i) == CHUNK_SESSIONS ? dirty_of(image, i) : 0;
        total += n;
        if (n && list) {
            cJSON *o = must(cJSON_CreateObject());
            json_number(o, "chunk", i);
            json_number(o, "dirty", n);
            cJSON_AddItemToArray(list, o);
        } else if (n) {
            printf("dirty        %u in chunk %" PRIu64 "\n", n, i);
        }
    }
    return total;
}

/* Bits that are set in the COUNT words at AREA. */
static uint64_t count_bits(const struct image *image, uint64_t area, unsigned count)
{
    uint64_t words[TICKETS / 64], n = 0;
    image_read(image, area, words, count * sizeof *words);
    for (unsigned i = 0; i < count; i++)
        n += (uint64_t)__builtin_popcountll(words[i]);
    return n;
}

static uint64_t count_urgent(const struct image *image)
{
    return count_bits(image, image->at.urgent, TICKETS / 64);
}

/* What workers have not looked at yet. */
static uint64_t count_answered(const struct image *image)
{
    return count_bits(image, image->at.answered, GROUPS);
}

static uint64_t count_groups(const struct image *image)
{
    worker_id holders[GROUPS];
    uint64_t n = 0;
    image_read(image, image->at.groups, holders, sizeof holders);
    for (unsigned g = 0; g < GROUPS; g++)
        n += holders[g] != 0;
    return n;
}

struct tickets {
    cJSON *list;
    uint64_t now, count;
};

static void show_ticket(uint32_t index, const struct ticket *t, void *context)
{
    struct tickets *tickets = context;
    char age[AGE_BYTES], worker[WORKER_TEXT_BYTES];
    if (!tickets->list && tickets->count++ == 0)
        printf("%-8s %-10s %-12s %-16s %-10s %s\n", "TICKET", "WORKER", "HANDLE", "GENERATION",
               "VERSION", "WAITING");
    if (!tickets->list) {
        printf("%-8" PRIu32 " %-10s %-12" PRIu64 " %-16" PRIu64 " %-10" PRIu64 " %s\n",
               index, worker_text(t->owner, worker), t->handle, t->generation, t->version,
               age_text(tickets->now, t->posted_at, age));
        return;
    }
    cJSON *o = must(cJSON_CreateObject());
    json_number(o, "ticket", index);
    json_worker(o, "worker", t->owner);
    json_number(o, "handle", t->handle);
    json_number(o, "generation", t->generation);
    json_number(o, "version", t->version);
    json_number(o, "waiting_ms", since(tickets->now, t->posted_at));
    cJSON_AddItemToArray(tickets->list, o);
}

static const char *sleeping_text(uint32_t sleeping)
{
    static const char *const texts[] = { "awake", "asleep", "asleep but for urgent work" };
    return sleeping < sizeof texts / sizeof *texts ? texts[sleeping] : "?";
}

static void rings_json(const struct image *image)
{
    const struct header *h = &image->header;
    cJSON *o = must(cJSON_CreateObject());
    show_all_rings(image, must(cJSON_AddArrayToObject(o, "rings")));
    json_number(o, "dirty", show_dirty(image, must(cJSON_AddArrayToObject(o, "dirty_by_chunk"))));
    must(cJSON_AddBoolToObject(o, "overflow", h->overflow != 0));
    must(cJSON_AddBoolToObject(o, "sweep_wanted", h->sweep_wanted != 0));
    must(cJSON_AddStringToObject(o, "persister", sleeping_text(h->sleeping)));
    json_number(o, "urgent", count_urgent(image));
    json_number(o, "answered", count_answered(image));
    json_number(o, "groups_held", count_groups(image));
    struct tickets tickets = { must(cJSON_AddArrayToObject(o, "tickets_waiting")), clock_ms(), 0 };
    each_waiting(image, show_ticket, &tickets);
    json_print(o);
    putchar('\n');
}

int show_rings(struct image *image, const struct options *options)
{
    const struct header *h = &image->header;
    if (options->json) {
        rings_json(image);
        return 0;
    }
    show_all_rings(image, NULL);
    printf("capacity     of a ring: %" PRIu32 " of its %" PRIu32 " entries, one stays empty\n",
           h->ring_entries - 1, h->ring_entries);
    printf("dirty        %" PRIu64 " in all\n", show_dirty(image, NULL));
    printf("overflow     %s\n", h->overflow ? "yes: every dirty bit will be looked at" : "no");
    printf("sweep        %s\n", h->sweep_wanted ? "wanted" : "not wanted");
    printf("persister    %s\n", sleeping_text(h->sleeping));
    printf("urgent       %" PRIu64 " tickets to look at\n", count_urgent(image));
    printf("answered     %" PRIu64 " for their processes to look at\n", count_answered(image));
    printf("groups       %" PRIu64 " of %d held, of %d tickets each\n", count_groups(image), GROUPS,
           GROUP_TICKETS);
    struct tickets tickets = { NULL, clock_ms(), 0 };
    each_waiting(image, show_ticket, &tickets);
    if (!tickets.count)
        puts("tickets      none waiting");
    return 0;
}
