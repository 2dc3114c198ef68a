#include "bench/contender.h"

#include <string.h>

struct record usual_record(uint64_t handle)
{
    struct record r = { .connected_at = USUAL_CONNECTED_AT,
                        .last_seen = USUAL_CONNECTED_AT,
                        .generation = handle,
                        .version = 1,
                        .address = USUAL_ADDRESS,
                        .host = USUAL_HOST,
                        .type = USUAL_TYPE };
    player_of(handle, r.player);
    memcpy(r.metadata, USUAL_CLIENT, METADATA_SET_BYTES);
    return r;
}
