/* Who is attached, and who waits. */
#ifndef TOOLS_SHMDUMP_WORKERS_H
#define TOOLS_SHMDUMP_WORKERS_H

#include "tools/shmdump_image.h"

#include <cjson/cJSON.h>

struct attached {
    struct worker worker;
    worker_id id;
    enum liveness life;
    unsigned threads, sections;
};

/* Reads worker INDEX; false when nobody is attached there. */
bool read_worker(const struct image *image, uint32_t index, struct attached *worker);
void read_thread(const struct image *image, uint32_t index, struct thread *thread);

/* All that are attached, with what their threads do; *COUNT of them.  Valid until the next call. */
struct attached *read_workers(const struct image *image, unsigned *count);

cJSON *worker_json(const struct attached *worker);

/* Calls VISIT for every ticket that waits. */
typedef void ticket_visitor(uint32_t index, const struct ticket *ticket, void *context);
void each_waiting(const struct image *image, ticket_visitor *visit, void *context);

#endif
