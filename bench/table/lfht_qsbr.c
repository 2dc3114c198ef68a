/*
 * cds_lfht under the qsbr flavour: read sections cost nothing, but every thread has to say often
 * that it is in none.  Here it does after each operation, as an event loop's turn would.
 */
#define _LGPL_SOURCE /* inlines the read side; the header allows it to compatible licences */
#include <urcu-qsbr.h>

static inline void quiesce(void)
{
    rcu_quiescent_state();
}

#include "bench/table/lfht.h"

static void go_offline(void *table)
{
    (void)table;
    rcu_thread_offline();
}

static void go_online(void *table)
{
    (void)table;
    rcu_thread_online();
}

const struct contender qsbr_contender = {
    .name = "lfht-qsbr",
    .lacks = LFHT_LACKS "; a thread that waits without saying so stops all reclaiming",
    .pause = go_offline,
    .resume = go_online,
    LFHT_CONTENDER,
};
