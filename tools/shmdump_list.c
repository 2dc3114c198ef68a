/*
 * The sessions: a list, one per line, filtered and sorted; and one in full.
 *
 * Unsorted, a list is printed while the table is walked and takes no memory.  Sorted, it is kept
 * until the walk is over.
 */
#include "tools/shmdump.h"
#include "tools/shmdump_index.h"
#include "tools/shmdump_session.h"
#include "tools/shmdump_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct session scratch; /* 64 KiB: too much for a stack frame */

static const char *binding(const struct image *image, const struct session *s)
{
    if (s->pending)
        return "pending"; /* also of a session that was just unbound */
    if (s->player.length == 0)
        return "-";
    return MODE_OF(image->header.mode) == MODE_MEMORY ? "final" : "durable";
}

/* ------------------------------------------------------------------ rows ------------------- */

/* What a line shows. */
struct row {
    uint64_t handle, generation, connected_at, last_seen;
    uint32_t owner;
    uint8_t state, player_length, address_length, host_length, type_length;
    const char *binding;
    const char *strings; /* player, address, host, type, without NULs; a kept row owns them */
};

static const char *join_strings(const struct session *s, struct row *row)
{
    static char joined[4 * 256];
    const struct bytes parts[] = { s->player, s->address, s->host, s->type };
    char *at = joined;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        at = mempcpy(at, parts[i].at, parts[i].length);
    row->player_length = (uint8_t)s->player.length;
    row->address_length = (uint8_t)s->address.length;
    row->host_length = (uint8_t)s->host.length;
    row->type_length = (uint8_t)s->type.length;
    return joined;
}

static size_t strings_length(const struct row *r)
{
    return (size_t)r->player_length + r->address_length + r->host_length + r->type_length;
}

static struct row make_row(const struct image *image, const struct session *s)
{
    struct row row = { .handle = s->block.handle, .generation = s->block.generation,
                       .connected_at = s->block.connected_at, .last_seen = s->last_seen,
                       .owner = s->block.owner, .state = s->block.state,
                       .binding = binding(image, s) };
    row.strings = join_strings(s, &row);
    return row;
}

/* ------------------------------------------------------------------ printing --------------- */

static void print_head(void)
{
    printf("%-12s %-16s %-16s %-10s %8s %-15s %-24s %-10s %-8s %s\n", "HANDLE", "GENERATION",
           "PLAYER", "STATE", "IDLE", "ADDRESS", "HOST", "TYPE", "OWNER", "BINDING");
}

static void print_row(const struct row *r, uint64_t now)
{
    const char *address = r->strings + r->player_length, *host = address + r->address_length;
    char owner[WORKER_TEXT_BYTES];
    printf("%-12" PRIu64 " %-16" PRIu64 " ", r->handle, r->generation);
    print_column(r->strings, r->player_length, 16);
    printf(" %-10s %8" PRIu64 " ", state_name(r->state), since(now, r->last_seen) / 1000);
    print_column(address, r->address_length, 15);
    putchar(' ');
    print_column(host, r->host_length, 24);
    putchar(' ');
    print_column(host + r->host_length, r->type_length, 10);
    printf(" %-8s %s\n", worker_text(r->owner, owner), r->binding);
}

static cJSON *row_json(const struct row *r, uint64_t now)
{
    cJSON *o = must(cJSON_CreateObject());
    const char *address = r->strings + r->player_length, *host = address + r->address_length;
    json_number(o, "handle", r->handle);
    json_number(o, "generation", r->generation);
    json_bytes(o, "player", r->strings, r->player_length);
    must(cJSON_AddStringToObject(o, "state", state_name(r->state)));
    json_number(o, "idle_ms", since(now, r->last_seen));
    json_bytes(o, "address", address, r->address_length);
    json_bytes(o, "host", host, r->host_length);
    json_bytes(o, "type", host + r->host_length, r->type_length);
    json_worker(o, "owner", r->owner);
    must(cJSON_AddBoolToObject(o, "pending", strcmp(r->binding, "pending") == 0));
    json_time(o, "connected_at", r->connected_at);
    json_time(o, "last_seen", r->last_seen);
    return o;
}

/* ------------------------------------------------------------------ the list --------------- */

struct list {
    const struct image *image;
    const struct options *options;
    struct index index;
    uint64_t now, shown, damaged, moving;
    struct row *rows; /* when sorting */
    size_t capacity;
};

static bool wanted(const struct list *list, const struct session *s)
{
    const struct options *o = list->options;
    return (!o->player || (s->player.length == strlen(o->player) &&
                           memcmp(s->player.at, o->player, s->player.length) == 0)) &&
           (o->state < 0 || s->block.state == o->state) &&
           (!o->owner_given || s->block.owner == o->owner) &&
           since(list->now, s->last_seen) >= o->idle_ms;
}

static void emit(struct list *list, const struct row *row)
{
    if (list->options->json) {
        fputs(list->shown ? ",\n" : "\n", stdout);
        json_print(row_json(row, list->now));
    } else {
        print_row(row, list->now);
    }
    list->shown++;
}

static void keep(struct list *list, struct row row)
{
    if (list->shown == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 1024;
        list->rows = must(reallocarray(list->rows, list->capacity, sizeof *list->rows));
    }
    size_t length = strings_length(&row);
    row.strings = memcpy(must(malloc(length + 1)), row.strings, length);
    list->rows[list->shown++] = row;
}

static void visit(const struct place *place, void *context)
{
    struct list *list = context;
    struct session *s = &scratch;
    if (place->kind != PLACE_SLOT || OWN_STATE(place->own) == OWN_FREE)
        return;
    session_read(list->image, (slot_ref){ place->ref }, s);
    list->damaged += s->kind == SESSION_DAMAGED;
    list->moving += s->kind == SESSION_MOVING;
    if (s->kind == SESSION_CLAIMED &&
        index_find(list->image, &list->index, s->block.handle, place->ref))
        s->kind = SESSION_LIVE;
    if (s->kind != SESSION_LIVE || !wanted(list, s))
        return;
    struct row row = make_row(list->image, s);
    if (list->options->sort == SORT_NONE)
        emit(list, &row);
    else
        keep(list, row);
}

/* ------------------------------------------------------------------ sorting ---------------- */

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_handle(const void *a, const void *b)
{
    return compare(((const struct row *)a)->handle, ((const struct row *)b)->handle);
}

static int by_player(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    size_t n = x->player_length < y->player_length ? x->player_length : y->player_length;
    int order = memcmp(x->strings, y->strings, n);
    if (order == 0)
        order = compare(x->player_length, y->player_length);
    return order ? order : by_handle(a, b);
}

static int by_idle(const void *a, const void *b) /* the shortest first */
{
    int order = compare(((const struct row *)b)->last_seen, ((const struct row *)a)->last_seen);
    return order ? order : by_handle(a, b);
}

static int by_connected(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    int order = compare(x->connected_at, y->connected_at);
    return order ? order : by_handle(a, b);
}

static int by_state(const void *a, const void *b)
{
    int order = compare(((const struct row *)a)->state, ((const struct row *)b)->state);
    return order ? order : by_handle(a, b);
}

static void emit_sorted(struct list *list)
{
    static int (*const orders[])(const void *, const void *) = {
        [SORT_HANDLE] = by_handle, [SORT_PLAYER] = by_player, [SORT_IDLE] = by_idle,
        [SORT_CONNECTED] = by_connected, [SORT_STATE] = by_state,
    };
    size_t count = list->shown;
    if (count)
        qsort(list->rows, count, sizeof *list->rows, orders[list->options->sort]);
    list->shown = 0;
    for (size_t i = 0; i < count; i++) {
        emit(list, &list->rows[i]);
        free((char *)list->rows[i].strings);
    }
    free(list->rows);
}

/* ------------------------------------------------------------------ views ------------------ */

int show_sessions(struct image *image, const struct options *options)
{
    struct list list = { .image = image, .options = options, .index = index_of_handles(image),
                         .now = clock_ms() };
    if (options->json)
        fputs("{\"sessions\":[", stdout);
    else
        print_head();
    each_place(image, visit, &list);
    if (options->sort != SORT_NONE)
        emit_sorted(&list);
    if (options->json)
        printf("],\"count\":%" PRIu64 ",\"damaged\":%" PRIu64 ",\"skipped_changing\":%" PRIu64
               "}\n",
               list.shown, list.damaged, list.moving);
    if (list.damaged)
        fprintf(stderr, "shmdump: %" PRIu64 " sessions are damaged and not shown; see --check\n",
                list.damaged);
    if (list.moving)
        fprintf(stderr, "shmdump: %" PRIu64 " sessions kept changing and are not shown\n",
                list.moving);
    return 0;
}

static void print_line(const char *name, const struct bytes *value)
{
    printf("%-16s ", name);
    print_bytes(value->at, value->length);
    putchar('\n');
}

static void print_when(const char *name, uint64_t then, uint64_t now)
{
    char time[TIME_BYTES], age[AGE_BYTES];
    if (then == 0)
        printf("%-16s never\n", name);
    else
        printf("%-16s %s (%s ago)\n", name, time_text(then, time), age_text(now, then, age));
}

static void print_owner(const struct image *image, uint32_t owner)
{
    struct worker w;
    char text[WORKER_TEXT_BYTES];
    if (owner == 0) {
        printf("%-16s -\n", "owner");
        return;
    }
    enum liveness life = worker_id_liveness(image, owner);
    printf("%-16s %s (%s", "owner", worker_text(owner, text), liveness_names[life]);
    if (life != WORKER_DEAD && image_read(image, image->at.workers + worker_index(owner) * sizeof w,
                                          &w, sizeof w)) {
        printf(", pid %" PRIu32 ", ", w.pid);
        print_bytes(w.name, strnlen(w.name, sizeof w.name));
    }
    puts(")");
}

static void print_binding(const struct image *image, const struct session *s)
{
    printf("%-16s %s", "binding", binding(image, s));
    if (s->block.bound_version)
        printf(" (made at version %" PRIu64 ")", s->block.bound_version);
    putchar('\n');
    if (s->block.flags & BLOCK_ACKED) {
        printf("%-16s ", "last durable");
        print_column(s->acked.at, s->acked.length, 0);
        printf(", %s\n", state_name(s->block.acked_state));
    }
}

static void print_durability(const struct image *image, const struct session *s)
{
    uint64_t durable = s->slot.durable;
    printf("%-16s %" PRIu64 " (born %" PRIu64 ")\n", "version", s->version, s->block.born_version);
    if (MODE_OF(image->header.mode) == MODE_MEMORY)
        return; /* there is no store */
    printf("%-16s %" PRIu64 " of incarnation %" PRIu32 "%s: %s\n", "durable version",
           DURABLE_VERSION(durable), DURABLE_INCARNATION(durable),
           DURABLE_INCARNATION(durable) == image->header.incarnation ? "" : " (not the store's)",
           s->durable ? s->touched ? "all but last seen" : "all" : "not all");
    print_when("Redis has seen", s->slot.durable_seen, clock_ms());
    printf("%-16s %s\n", "stored", s->slot.current & CURRENT_STORED ? "Redis may hold it"
                                                                    : "Redis never saw it");
    printf("%-16s %s\n", "dirty", s->dirty ? "yes" : "no");
}

static void print_metadata(const struct session *s)
{
    struct entry e;
    size_t at = 0;
    printf("%-16s %u\n", "metadata", s->block.metadata_count);
    while (session_metadata(s, &at, &e)) {
        printf("  ");
        print_column(e.key.at, e.key.length, 24);
        printf(" version %-6" PRIu64 " ", e.version);
        print_bytes(e.value.at, e.value.length);
        putchar('\n');
    }
}

static void print_session(const struct image *image, const struct session *s)
{
    uint64_t now = clock_ms();
    printf("%-16s %" PRIu64 "\n", "handle", s->block.handle);
    printf("%-16s %" PRIu64 "\n", "generation", s->block.generation);
    printf("%-16s %s\n", "state",
           s->kind == SESSION_TOMB ? "removed; Redis must still learn (a tombstone)"
                                   : state_name(s->block.state));
    print_line("player", &s->player);
    print_binding(image, s);
    print_line("address", &s->address);
    print_line("host", &s->host);
    print_line("type", &s->type);
    print_when("connected", s->block.connected_at, now);
    print_when("last seen", s->last_seen, now);
    print_owner(image, s->block.owner);
    print_durability(image, s);
    printf("%-16s slot %" PRIu32 ", block %" PRIu32 ", %" PRIu32 " bytes\n", "place", s->ref.at,
           CURRENT_BLOCK(s->slot.current).at, s->block.size);
    print_metadata(s);
}

static cJSON *metadata_json(const struct session *s)
{
    cJSON *list = must(cJSON_CreateArray());
    struct entry e;
    size_t at = 0;
    while (session_metadata(s, &at, &e)) {
        cJSON *o = must(cJSON_CreateObject());
        json_bytes(o, "key", e.key.at, e.key.length);
        json_bytes(o, "value", e.value.at, e.value.length);
        json_number(o, "version", e.version);
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

static cJSON *session_json(const struct image *image, const struct session *s)
{
    struct row row = make_row(image, s);
    cJSON *o = row_json(&row, clock_ms());
    must(cJSON_AddBoolToObject(o, "removed", s->kind == SESSION_TOMB));
    must(cJSON_AddStringToObject(o, "owner_life", s->block.owner
             ? liveness_names[worker_id_liveness(image, s->block.owner)] : "none"));
    json_number(o, "version", s->version);
    json_number(o, "born_version", s->block.born_version);
    json_number(o, "bound_version", s->block.bound_version);
    json_number(o, "durable_version", DURABLE_VERSION(s->slot.durable));
    json_number(o, "durable_incarnation", DURABLE_INCARNATION(s->slot.durable));
    json_time(o, "durable_seen", s->slot.durable_seen);
    must(cJSON_AddBoolToObject(o, "durable", s->durable));
    must(cJSON_AddBoolToObject(o, "dirty", s->dirty));
    must(cJSON_AddBoolToObject(o, "stored", (s->slot.current & CURRENT_STORED) != 0));
    if (s->block.flags & BLOCK_ACKED) {
        json_bytes(o, "acknowledged_player", s->acked.at, s->acked.length);
        must(cJSON_AddStringToObject(o, "acknowledged_state", state_name(s->block.acked_state)));
    }
    json_number(o, "slot", s->ref.at);
    json_number(o, "block", CURRENT_BLOCK(s->slot.current).at);
    json_number(o, "bytes", s->block.size);
    cJSON_AddItemToObject(o, "metadata", metadata_json(s));
    return o;
}

/* The slot that says it has the handle, for when the index does not lead to one. */
struct search {
    const struct image *image;
    uint64_t handle;
    uint32_t found;
};

static void search_visit(const struct place *place, void *context)
{
    struct search *search = context;
    if (place->kind != PLACE_SLOT || OWN_STATE(place->own) == OWN_FREE || search->found)
        return;
    uint64_t at = slot_place(search->image, (slot_ref){ place->ref });
    if (image_word(search->image, at + offsetof(struct node, key)) == search->handle &&
        CURRENT_BLOCK(image_word(search->image, at + offsetof(struct slot, current))).at)
        search->found = place->ref;
}

int show_session(struct image *image, const struct options *options)
{
    struct index index = index_of_handles(image);
    struct search search = { .image = image, .handle = options->handle };
    struct session *s = &scratch;
    uint32_t ref = index_find(image, &index, options->handle, 0);
    if (!ref) {
        each_place(image, search_visit, &search);
        ref = search.found;
        if (ref)
            fprintf(stderr, "shmdump: the index does not lead to slot %" PRIu32 "; see --check\n",
                    ref);
    }
    session_read(image, (slot_ref){ ref }, s);
    if (s->kind == SESSION_NONE || s->kind == SESSION_MOVING || s->kind == SESSION_DAMAGED) {
        fprintf(stderr, "shmdump: %s: session %" PRIu64 " %s%s\n", image->path, options->handle,
                s->kind == SESSION_NONE ? "does not exist" : s->kind == SESSION_MOVING
                ? "changed each time it was read" : "is damaged: ",
                s->kind == SESSION_DAMAGED ? s->why : "");
        return FOUND_WRONG;
    }
    if (options->json) {
        json_print(session_json(image, s));
        putchar('\n');
    } else {
        print_session(image, s);
    }
    return 0;
}
