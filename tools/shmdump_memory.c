/* What the memory is used for, by class of chunk. */
#include "tools/shmdump.h"
#include "tools/shmdump_text.h"

#include <inttypes.h>
#include <stdio.h>

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* Slots, hints, and blocks by class. */
enum { ROW_SLOTS = CHUNK_CLASSES, ROWS };

struct memory {
    const struct image *image;
    uint64_t chunks[CHUNK_CLASSES];
    uint64_t places[ROWS][4]; /* by own_state */
    uint64_t sessions;
};

static unsigned row_of(const struct place *p)
{
    return p->kind == PLACE_SLOT ? ROW_SLOTS : p->class;
}

static void count_place(const struct place *p, void *context)
{
    struct memory *m = context;
    enum own_state state = OWN_STATE(p->own);
    m->places[row_of(p)][state <= OWN_RETIRED ? state : OWN_FREE]++;
    if (p->kind != PLACE_SLOT || state != OWN_LIVE)
        return;
    uint64_t current = image_word(m->image, slot_place(m->image, (slot_ref){ p->ref }) +
                                                offsetof(struct slot, current));
    m->sessions += CURRENT_BLOCK(current).at && !(current & CURRENT_TOMB);
}

static const char *row_name(unsigned row, char name[static 16])
{
    if (row == ROW_SLOTS)
        return "slots";
    if (row == CHUNK_HINTS)
        return "hints";
    snprintf(name, 16, "blocks-%zu", class_block_bytes((enum chunk_class)row));
    return name;
}

static uint64_t row_bytes(unsigned row)
{
    if (row == ROW_SLOTS)
        return SLOT_BYTES;
    return row == CHUNK_HINTS ? HINT_BYTES : class_block_bytes((enum chunk_class)row);
}

static uint64_t row_chunks(const struct memory *m, unsigned row)
{
    return m->chunks[row == ROW_SLOTS ? CHUNK_SESSIONS : row];
}

static void print_memory_row(const struct memory *m, unsigned row)
{
    const uint64_t *n = m->places[row];
    char name[16];
    char chunks[24] = "same";
    if (row != CHUNK_SESSIONS)
        snprintf(chunks, sizeof chunks, "%" PRIu64, row_chunks(m, row));
    printf("%-13s %8s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64
           " %12" PRIu64 "\n", row_name(row, name), chunks, n[0] + n[1] + n[2] + n[3],
           n[OWN_FREE], n[OWN_OWNED], n[OWN_LIVE], n[OWN_RETIRED],
           (n[OWN_OWNED] + n[OWN_LIVE] + n[OWN_RETIRED]) * row_bytes(row));
}

static cJSON *memory_row_json(const struct memory *m, unsigned row)
{
    const uint64_t *n = m->places[row];
    cJSON *o = must(cJSON_CreateObject());
    char name[16];
    must(cJSON_AddStringToObject(o, "kind", row_name(row, name)));
    if (row == CHUNK_SESSIONS)
        must(cJSON_AddStringToObject(o, "in_chunks_of", "slots"));
    else
        json_number(o, "chunks", row_chunks(m, row));
    json_number(o, "places", n[0] + n[1] + n[2] + n[3]);
    json_number(o, "free", n[OWN_FREE]);
    json_number(o, "owned", n[OWN_OWNED]);
    json_number(o, "live", n[OWN_LIVE]);
    json_number(o, "retired", n[OWN_RETIRED]);
    json_number(o, "bytes", (n[OWN_OWNED] + n[OWN_LIVE] + n[OWN_RETIRED]) * row_bytes(row));
    return o;
}

static void memory_json(const struct memory *m)
{
    cJSON *o = must(cJSON_CreateObject()), *list = must(cJSON_AddArrayToObject(o, "memory"));
    for (unsigned row = CHUNK_SESSIONS; row < ROWS; row++)
        cJSON_AddItemToArray(list, memory_row_json(m, row));
    json_number(o, "unused_chunks", m->chunks[CHUNK_UNUSED]);
    json_number(o, "sessions", m->sessions);
    json_number(o, "bytes_used", m->image->used);
    json_number(o, "bytes_in_chunks", (uint64_t)m->image->chunks * CHUNK_BYTES);
    if (m->sessions)
        json_number(o, "bytes_per_session", m->image->used / m->sessions);
    json_print(o);
    putchar('\n');
}

static void print_memory(const struct memory *m)
{
    printf("%-13s %8s %10s %10s %10s %10s %10s %12s\n", "KIND", "CHUNKS", "PLACES", "FREE", "OWNED",
           "LIVE", "RETIRED", "BYTES");
    print_memory_row(m, ROW_SLOTS);
    for (unsigned row = CHUNK_SESSIONS; row < ROW_SLOTS; row++)
        if (row_chunks(m, row))
            print_memory_row(m, row);
    if (m->chunks[CHUNK_UNUSED])
        printf("%-13s %8" PRIu64 "\n", "unused", m->chunks[CHUNK_UNUSED]);
    char name[16];
    printf("same         %s are in the chunks of the slots\n", row_name(CHUNK_SESSIONS, name));
    printf("used         %.1f MiB in the file, %.1f MiB of it chunks\n", mib(m->image->used),
           mib((uint64_t)m->image->chunks * CHUNK_BYTES));
    if (m->sessions)
        printf("per session  %" PRIu64 " bytes of the file (%" PRIu64 " sessions)\n",
               m->image->used / m->sessions, m->sessions);
}

int show_memory(struct image *image, const struct options *options)
{
    struct memory m = { .image = image };
    for (uint64_t i = 0; i < image->chunks; i++)
        m.chunks[image_class(image, i)]++;
    each_place(image, count_place, &m);
    if (options->json)
        memory_json(&m);
    else
        print_memory(&m);
    return 0;
}
