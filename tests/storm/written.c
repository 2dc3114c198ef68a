/*
 * What only the segment tells: how far Redis has acknowledged a session.  Apart, because the segment's
 * `struct thread` is not the storm's.
 */
#include "lib/table.h"
#include "tests/harness.h"

bool table_is_written(sesstab *t, uint64_t handle);

bool table_is_written(sesstab *t, uint64_t handle)
{
    int result = SESSTAB_OK;
    struct context *c = context_for(t, &result);
    uint64_t durable = 0;
    sesstab_view view;
    check_ok(sesstab_read_begin(t));
    struct slot *slot = index_lookup(c, handle);
    if (slot)
        durable = DURABLE_VERSION(load_acquire(&slot->durable));
    bool written = sesstab_find(t, handle, &view) != SESSTAB_OK || durable >= view.version;
    sesstab_read_end(t);
    return written;
}
