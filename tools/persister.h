/*
 * What the persister's parts share: settings; the clock and the wish to stop are in
 * persister_clock.h.
 *
 *   persister.c             options, signals, main
 *   persister_lead.c        leading: serving, pacing, leaving
 *   persister_connect.c     connecting, and taking the fence
 *   persister_fill.c        what Redis holds against what the table is
 *   persister_batch.c       sessions in hands -> one fenced batch -> what became of each
 *   persister_round.c       one write per session and flush interval
 *   persister_quarantine.c  what Redis refuses: kept, retried slowly, logged once
 *   persister_limit.c       how many lines a flood of refusals may log
 *   persister_fence.c       the leader's token: stale bytes change nothing
 *   persister_record.c      a session as Redis sees it: keys, fields, times
 *   persister_load.c        Redis -> a fresh table
 *   persister_compare.c     Redis against a table that survived
 *   persister_renew.c       the time to live of what Redis holds
 *   persister_diff.c        a session against what Redis holds of it
 *   persister_reconcile.c   comparing on demand
 *   persister_scan.c        a walk over the active set, for both of these
 *   persister_clock.c       the clock, and the wish to stop
 *   persister_redis.c       one connection
 *   persister_server.c      what the server is and what its acknowledgement is worth
 *   persister_sentinel.c    the thread that asks where the master is
 *   persister_ack.c         what "durable" means, and whether Redis keeps it
 *   persister_password.c    passwords from files
 *   persister_spawn.c       a private redis-server
 *   persister_watch.c       the thread that notices deaths
 *   persister_huge.c        the thread that puts the table on huge pages, if it is asked for
 *   persister_metrics.c     what is counted
 *   persister_health.c      whether it does what it is for
 *   persister_http.c        the thread that answers /metrics and /healthz
 *   persister_import.c      the older layout becomes ours, once
 *   persister_older.c       a session in the older layout
 *   persister_table.c       whether the table's name still means this segment
 */
#ifndef TOOLS_PERSISTER_H
#define TOOLS_PERSISTER_H

#include "lib/sesstab.h"
#include "tools/persister_ack.h"
#include "tools/persister_clock.h"
#include "tools/persister_redis.h"
#include "tools/persister_sentinel.h"

enum {
    STOP_MS = 5000,    /* after SIGTERM, to flush                                               */
    CHECK_MS = 500     /* how often a loss of Redis's data and a rival leader are looked for    */
};

enum policy { POLICY_TABLE, POLICY_REDIS }; /* persister_compare.h */

struct settings {
    const char *table;
    sesstab_options creation;
    struct redis_address address; /* unless there are sentinels */
    struct redis_login login;
    struct sentinels sentinels;
    struct ack_wish ack;
    const char *prefix;
    const char *spawn_directory; /* NULL: no private redis-server */
    unsigned flush_interval_ms;
    unsigned batch;
    int timeout_ms;
    int supersede_after_ms; /* 0: a leader that lives is never replaced */
    unsigned ttl;               /* seconds that a session lives in Redis unless renewed; 0: ever */
    bool huge_pages;
    bool reconcile, dry_run;    /* compare, report and leave; without changing anything */
    enum policy policy;         /* what becomes of what only Redis has, when that is asked for */
    const char *import_from;      /* prefix of an older layout to be imported; NULL: none */
    bool serves_metrics;
    struct redis_address metrics; /* where */
    uint64_t health_lag_ms;       /* above this /healthz says that it is not well */
};

#endif
