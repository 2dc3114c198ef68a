/* cds_lfht under the memb flavour: read sections without a fence, writers pay by membarrier(2). */
#define RCU_MEMBARRIER
#define _LGPL_SOURCE /* inlines the read side; the header allows it to compatible licences */
#include <urcu.h>

static inline void quiesce(void) {}

#include "bench/table/lfht.h"

const struct contender memb_contender = {
    .name = "lfht-memb",
    .lacks = LFHT_LACKS,
    .reference = true,
    LFHT_CONTENDER,
};
