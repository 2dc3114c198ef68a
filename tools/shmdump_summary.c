/* The summary: gathered in one walk over the table, then written as text or as JSON. */
#include "tools/shmdump.h"
#include "tools/shmdump_huge.h"
#include "tools/shmdump_index.h"
#include "tools/shmdump_session.h"
#include "tools/shmdump_text.h"
#include "tools/shmdump_workers.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ gathering --------------- */

struct waiting {
    uint64_t count, oldest; /* posted_at; 0: none */
};

struct summary {
    const struct image *image;
    struct index index;
    uint64_t sessions, by_state[SESSTAB_STATE_COUNT];
    uint64_t bound, pending, tombstones, dirty, not_durable, touched, damaged, moving;
    struct waiting waiting;
    unsigned workers[LIVENESS_COUNT], threads, sections;
    struct attached leader; /* id 0: nobody leads */
    struct huge_pages huge;
};

static void count_session(const struct place *place, void *context)
{
    static struct session s;
    struct summary *sum = context;
    if (place->kind != PLACE_SLOT || OWN_STATE(place->own) == OWN_FREE)
        return;
    enum session_kind kind = session_read(sum->image, (slot_ref){ place->ref }, &s);
    if (kind == SESSION_CLAIMED &&
        index_find(sum->image, &sum->index, s.block.handle, place->ref))
        kind = SESSION_LIVE;
    sum->damaged += kind == SESSION_DAMAGED;
    sum->moving += kind == SESSION_MOVING;
    sum->tombstones += kind == SESSION_TOMB;
    if (kind != SESSION_LIVE && kind != SESSION_TOMB)
        return;
    sum->dirty += s.dirty;
    sum->not_durable += !s.durable;
    if (kind == SESSION_TOMB)
        return;
    sum->touched += s.durable && s.touched;
    sum->sessions++;
    sum->by_state[s.block.state]++;
    sum->bound += s.player.length > 0;
    sum->pending += s.pending;
}

/* Only its name is known when it is none of those who are attached. */
static void find_leader(const struct image *image, const struct attached *all, unsigned count,
                        struct summary *sum)
{
    worker_id leader = LEADER_WORKER(image->header.leader);
    if (leader == 0 || !worker_id_valid(leader))
        return;
    for (unsigned i = 0; i < count; i++)
        if (all[i].id == leader)
            sum->leader = all[i];
    sum->leader.id = leader;
    sum->leader.life = worker_id_liveness(image, leader);
}

static void count_waiting(uint32_t index, const struct ticket *ticket, void *context)
{
    struct waiting *w = context;
    (void)index;
    w->count++;
    if (w->oldest == 0 || ticket->posted_at < w->oldest)
        w->oldest = ticket->posted_at;
}

static void summarize(const struct image *image, struct summary *sum)
{
    unsigned count;
    *sum = (struct summary){ .image = image, .index = index_of_handles(image) };
    each_place(image, count_session, sum);
    each_waiting(image, count_waiting, &sum->waiting);
    const struct attached *all = read_workers(image, &count);
    for (unsigned i = 0; i < count; i++) {
        sum->workers[all[i].life]++;
        sum->threads += all[i].threads;
        sum->sections += all[i].sections;
    }
    find_leader(image, all, count, sum);
    sum->huge = huge_pages_of(image, all, count);
}

/* ------------------------------------------------------------------ writing ----------------- */

/* What the creator read from here; a segment of another boot is a copy. */
static bool this_boot(const struct header *h)
{
    uint8_t id[sizeof h->boot_id] = { 0 };
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    bool same = fd >= 0 && read(fd, id, sizeof id) == (ssize_t)sizeof id &&
                memcmp(id, h->boot_id, sizeof id) == 0;
    if (fd >= 0)
        close(fd);
    return same;
}

static const char *mode_name(const struct header *h)
{
    return sesstab_mode_name(MODE_OF(h->mode));
}

static bool is_ready(const struct header *h)
{
    return h->ready == 1 || MODE_OF(h->mode) == MODE_MEMORY;
}

/* null: nobody could be asked. */
static cJSON *huge_json(const struct huge_pages *huge)
{
    if (!huge->pid)
        return must(cJSON_CreateNull());
    cJSON *o = must(cJSON_CreateObject());
    json_number(o, "bytes", huge->huge);
    json_number(o, "of_bytes", huge->touched);
    json_number(o, "pid", huge->pid);
    return o;
}

static cJSON *table_json(const struct summary *sum)
{
    const struct image *image = sum->image;
    const struct header *h = &image->header;
    cJSON *o = must(cJSON_CreateObject());
    must(cJSON_AddStringToObject(o, "path", image->path));
    json_time(o, "created_at", h->created_at);
    json_number(o, "creation_id", h->creation_id);
    must(cJSON_AddStringToObject(o, "mode", mode_name(h)));
    must(cJSON_AddBoolToObject(o, "this_boot", this_boot(h)));
    must(cJSON_AddBoolToObject(o, "copy", !image->live));
    json_number(o, "bytes_reserved", image->at.end);
    json_number(o, "bytes_committed", (uint64_t)image->chunks * CHUNK_BYTES);
    json_number(o, "bytes_used", image->used);
    cJSON_AddItemToObject(o, "huge_pages", huge_json(&sum->huge));
    json_number(o, "chunks", image->chunks);
    json_number(o, "max_chunks", h->max_chunks);
    json_number(o, "handle_buckets", image->handle_buckets);
    json_number(o, "player_buckets", image->player_buckets);
    return o;
}

static cJSON *sessions_json(const struct summary *sum)
{
    cJSON *o = must(cJSON_CreateObject()), *states = must(cJSON_AddObjectToObject(o, "by_state"));
    for (unsigned i = 0; i < SESSTAB_STATE_COUNT; i++)
        json_number(states, state_name(i), sum->by_state[i]);
    json_number(o, "count", sum->sessions);
    json_number(o, "bound", sum->bound);
    json_number(o, "pending", sum->pending);
    json_number(o, "tombstones", sum->tombstones);
    json_number(o, "dirty", sum->dirty);
    json_number(o, "not_durable", sum->not_durable);
    json_number(o, "last_seen_not_durable", sum->touched);
    json_number(o, "damaged", sum->damaged);
    json_number(o, "skipped_changing", sum->moving);
    return o;
}

static enum acknowledged acknowledged_in(const struct header *h)
{
    uint64_t where = h->acknowledged & 0xff;
    return where < ACKNOWLEDGED_COUNT ? (enum acknowledged)where : ACKNOWLEDGED_UNKNOWN;
}

static void acknowledged_json(const struct header *h, cJSON *o)
{
    static const char *const names[] = { "unknown", "memory", "kernel", "disk", "replicas",
                                         "nothing" };
    enum acknowledged where = acknowledged_in(h);
    must(cJSON_AddStringToObject(o, "acknowledged_in", names[where]));
    if (where == ACKNOWLEDGED_REPLICAS)
        json_number(o, "replicas", h->acknowledged >> 8);
}

static cJSON *store_json(const struct summary *sum, uint64_t now)
{
    const struct header *h = &sum->image->header;
    cJSON *o = must(cJSON_CreateObject());
    must(cJSON_AddBoolToObject(o, "ready", is_ready(h)));
    json_number(o, "incarnation", h->incarnation);
    json_time(o, "down_since", h->store_down_since);
    acknowledged_json(h, o);
    if (sum->leader.id)
        cJSON_AddItemToObject(o, "leader", worker_json(&sum->leader));
    else
        must(cJSON_AddNullToObject(o, "leader"));
    json_number(o, "tickets_waiting", sum->waiting.count);
    json_number(o, "oldest_ticket_ms", sum->waiting.count ? since(now, sum->waiting.oldest) : 0);
    return o;
}

static cJSON *counters_json(const struct header *h)
{
    cJSON *o = must(cJSON_CreateObject());
    json_number(o, "deaths", h->deaths);
    json_number(o, "mended", h->recovered);
    json_number(o, "durable_writes", h->durable_writes);
    json_number(o, "refusals", h->refusals);
    json_number(o, "detached", h->detached);
    json_number(o, "swept", h->swept);
    return o;
}

static void summary_json(const struct summary *sum)
{
    cJSON *o = must(cJSON_CreateObject()), *workers = must(cJSON_CreateObject());
    cJSON_AddItemToObject(o, "table", table_json(sum));
    cJSON_AddItemToObject(o, "sessions", sessions_json(sum));
    for (unsigned i = WORKER_DEAD; i <= WORKER_UNKNOWN; i++)
        json_number(workers, liveness_names[i], sum->workers[i]);
    json_number(workers, "threads", sum->threads);
    json_number(workers, "sections_open", sum->sections);
    cJSON_AddItemToObject(o, "workers", workers);
    cJSON_AddItemToObject(o, "store", store_json(sum, clock_ms()));
    cJSON_AddItemToObject(o, "counters", counters_json(&sum->image->header));
    json_print(o);
    putchar('\n');
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void print_huge(const struct huge_pages *huge)
{
    if (huge->pid)
        printf("huge pages   %.1f MiB of the %.1f MiB that process %" PRIu32 " has looked at\n",
               mib(huge->huge), mib(huge->touched), huge->pid);
    else
        puts("huge pages   unknown: no process that uses the table can be asked");
}

static void print_table(const struct summary *sum, uint64_t now)
{
    const struct image *image = sum->image;
    const struct header *h = &image->header;
    char time[TIME_BYTES], age[AGE_BYTES];
    printf("table        %s%s\n", image->path, image->live ? "" : " (a copy)");
    printf("created      %s (%s ago)%s, mode %s\n", time_text(h->created_at, time),
           age_text(now, h->created_at, age), this_boot(h) ? "" : ", before this boot",
           mode_name(h));
    printf("memory       %.1f MiB reserved (address space; the file is sparse),\n"
           "             %" PRIu32 " of %" PRIu32 " chunks of 64 KiB committed, %.1f MiB used\n",
           mib(image->at.end), image->chunks, h->max_chunks, mib(image->used));
    printf("indexes      %" PRIu64 " buckets by handle, %" PRIu64 " by player\n",
           image->handle_buckets, image->player_buckets);
    if (image->live)
        print_huge(&sum->huge);
}

static void print_sessions(const struct summary *sum)
{
    printf("sessions     %" PRIu64 ":", sum->sessions);
    for (unsigned i = 0; i < SESSTAB_STATE_COUNT; i++)
        printf("%s %" PRIu64 " %s", i ? "," : "", sum->by_state[i], state_name(i));
    printf("\nbound        %" PRIu64 "\n", sum->bound);
    printf("pending      %" PRIu64 " bindings and unbindings wait for Redis\n", sum->pending);
    printf("tombstones   %" PRIu64 "\n", sum->tombstones);
    printf("dirty        %" PRIu64 "\n", sum->dirty);
    if (MODE_OF(sum->image->header.mode) != MODE_MEMORY)
        printf("not durable  %" PRIu64 ", and the last-seen time alone of %" PRIu64 " more\n",
               sum->not_durable, sum->touched);
    if (sum->damaged || sum->moving)
        printf("not counted  %" PRIu64 " damaged (see --check), %" PRIu64 " that kept changing\n",
               sum->damaged, sum->moving);
}

static void print_leader(const struct summary *sum)
{
    const struct attached *a = &sum->leader;
    char worker[WORKER_TEXT_BYTES];
    if (a->id == 0) {
        puts("persister    none leads");
        return;
    }
    printf("persister    worker %s, ", worker_text(a->id, worker));
    if (a->worker.pid)
        printf("pid %" PRIu32 ", ", a->worker.pid);
    puts(liveness_names[a->life]);
}

/* What "durable" means, as the persister has found out. */
static void print_acknowledged(const struct header *h)
{
    static const char *const texts[] = {
        "Redis does not tell where it has what it acknowledges",
        "in memory: lost when Redis dies",
        "in kernel: lost when its machine dies, up to two seconds",
        "in disk",
        "in replicas",
        "nothing at present: what --ack asks for is missing (see the persister's log)",
    };
    enum acknowledged where = acknowledged_in(h);
    if (where == ACKNOWLEDGED_REPLICAS)
        printf("acknowledged in %" PRIu64 " replicas\n", h->acknowledged >> 8);
    else
        printf("acknowledged %s\n", texts[where]);
}

static void print_store(const struct summary *sum, uint64_t now)
{
    const struct header *h = &sum->image->header;
    char time[TIME_BYTES], age[AGE_BYTES];
    if (h->store_down_since)
        printf("store        incarnation %" PRIu32 ", down since %s (%s)\n", h->incarnation,
               time_text(h->store_down_since, time), age_text(now, h->store_down_since, age));
    else
        printf("store        incarnation %" PRIu32 ", %s\n", h->incarnation,
               sum->leader.life == WORKER_ALIVE ? "connected" : "nobody says that it is down");
    if (sum->waiting.count)
        printf("tickets      %" PRIu64 " waiting, the oldest for %s\n", sum->waiting.count,
               age_text(now, sum->waiting.oldest, age));
    else
        puts("tickets      none waiting");
    print_acknowledged(h);
    printf("ready        %s\n", is_ready(h) ? "yes" : "no");
}

static void print_summary(const struct summary *sum)
{
    const struct header *h = &sum->image->header;
    uint64_t now = clock_ms();
    print_table(sum, now);
    print_sessions(sum);
    printf("workers      %u alive, %u dead, %u unknown; %u threads, %u read sections open\n",
           sum->workers[WORKER_ALIVE], sum->workers[WORKER_DEAD], sum->workers[WORKER_UNKNOWN],
           sum->threads, sum->sections);
    print_leader(sum);
    print_store(sum, now);
    printf("counters     deaths %" PRIu64 ", mended %" PRIu64 ", durable writes %" PRIu64
           ", refusals %" PRIu64 ", detached %" PRIu64 ", swept %" PRIu64 "\n", h->deaths,
           h->recovered, h->durable_writes, h->refusals, h->detached, h->swept);
}

int show_summary(struct image *image, const struct options *options)
{
    static struct summary sum;
    summarize(image, &sum);
    if (options->json)
        summary_json(&sum);
    else
        print_summary(&sum);
    return 0;
}
