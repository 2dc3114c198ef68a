/* The workers, and their tickets. */
#include "tools/shmdump.h"
#include "tools/shmdump_text.h"
#include "tools/shmdump_workers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool read_worker(const struct image *image, uint32_t index, struct attached *a)
{
    memset(a, 0, sizeof *a);
    image_read(image, image->at.workers + index * sizeof a->worker, &a->worker, sizeof a->worker);
    a->id = (worker_id)((a->worker.owner & ((1u << WORKER_GEN_BITS) - 1)) << WORKER_INDEX_BITS |
                        (index + 1));
    a->life = worker_liveness(image, index);
    return a->worker.owner & WORKER_LIVE && a->life != WORKER_FREE;
}

void read_thread(const struct image *image, uint32_t index, struct thread *t)
{
    image_read(image, image->at.threads + index * sizeof *t, t, sizeof *t);
}

struct attached *read_workers(const struct image *image, unsigned *count)
{
    static struct attached all[WORKERS];
    static uint32_t place[WORKERS]; /* in all[], + 1 */
    memset(place, 0, sizeof place);
    *count = 0;
    for (uint32_t i = 0; i < image->workers_used; i++)
        if (read_worker(image, i, &all[*count]))
            place[i] = ++*count;
    for (uint32_t i = 0; i < image->threads_used; i++) {
        struct thread t;
        read_thread(image, i, &t);
        uint32_t index = worker_index(THREAD_WORKER(t.owner));
        if (!(t.owner & THREAD_LIVE) || index >= WORKERS || !place[index])
            continue;
        struct attached *a = &all[place[index] - 1];
        if (a->id != THREAD_WORKER(t.owner))
            continue;
        a->threads++;
        a->sections += t.lo != THREAD_IDLE;
    }
    return all;
}

cJSON *worker_json(const struct attached *a)
{
    cJSON *o = must(cJSON_CreateObject());
    char worker[WORKER_TEXT_BYTES];
    must(cJSON_AddStringToObject(o, "worker", worker_text(a->id, worker)));
    json_number(o, "id", a->id);
    json_number(o, "pid", a->worker.pid);
    json_number(o, "uid", a->worker.uid);
    must(cJSON_AddStringToObject(o, "life", liveness_names[a->life]));
    json_bytes(o, "name", a->worker.name, strnlen(a->worker.name, sizeof a->worker.name));
    json_time(o, "attached_at", a->worker.attached_at);
    json_number(o, "threads", a->threads);
    json_number(o, "sections_open", a->sections);
    return o;
}

static void print_worker(const struct attached *a)
{
    char time[TIME_BYTES], worker[WORKER_TEXT_BYTES];
    printf("%-10s %-8" PRIu32 " %-6" PRIu32 " %-8s %-24s %8u %8u ", worker_text(a->id, worker),
           a->worker.pid, a->worker.uid, liveness_names[a->life],
           time_text(a->worker.attached_at, time), a->threads, a->sections);
    print_column(a->worker.name, strnlen(a->worker.name, sizeof a->worker.name), 0);
    putchar('\n');
}

int show_workers(struct image *image, const struct options *options)
{
    unsigned count;
    const struct attached *all = read_workers(image, &count);
    if (!options->json) {
        printf("%-10s %-8s %-6s %-8s %-24s %8s %8s %s\n", "WORKER", "PID", "UID", "LIFE",
               "ATTACHED", "THREADS", "SECTIONS", "NAME");
        for (unsigned i = 0; i < count; i++)
            print_worker(&all[i]);
        return 0;
    }
    cJSON *o = must(cJSON_CreateObject()), *list = must(cJSON_AddArrayToObject(o, "workers"));
    for (unsigned i = 0; i < count; i++)
        cJSON_AddItemToArray(list, worker_json(&all[i]));
    json_print(o);
    putchar('\n');
    return 0;
}

void each_waiting(const struct image *image, ticket_visitor *visit, void *context)
{
    static struct ticket some[1024];
    for (uint32_t i = 0; i < TICKETS; i += 1024) {
        image_read(image, image->at.tickets + i * sizeof *some, some, sizeof some);
        for (uint32_t j = 0; j < 1024; j++)
            if (TICKET_STATE(some[j].word) == TICKET_WAITING)
                visit(i + j, &some[j], context);
    }
}
