/*
 * The leader, as its three files share it; private to them.
 *
 *   persister_lead.c      serving: what is done while it leads, in which order, and leaving
 *   persister_connect.c   from no connection to one that holds the fence, and back
 *   persister_fill.c      what Redis holds: it is loaded, compared, or written anew
 *
 * One thread uses it.
 */
#ifndef TOOLS_PERSISTER_LEADER_H
#define TOOLS_PERSISTER_LEADER_H

#include "tools/persister_batch.h"
#include "tools/persister_compare.h"
#include "tools/persister_fence.h"
#include "tools/persister_lead.h"
#include "tools/persister_renew.h"
#include "tools/persister_server.h"

enum { BACKOFF_MIN_MS = 10, BACKOFF_MAX_MS = 500 };

/* Everything is being written again. */
struct resync {
    bool running;
    uint64_t started_at, written; /* of batch.written: when it began; as counted so far */
    uint64_t counted;
    unsigned percent;
};

struct leader {
    const struct settings *settings;
    sesstab *table;
    struct store *store;
    struct spawn *spawn;
    const struct watch *watch;
    struct sentinel *sentinel;   /* NULL without                                         */
    struct redis_address address; /* of the server, or the master; "" while it is unknown */
    struct redis redis;
    struct server server;
    struct fence fence;
    struct ack ack;
    struct batch batch;
    struct compare compare;
    struct resync resync;
    uint64_t progress_at;        /* the next line about how far compare and resync are   */
    uint64_t progress_said;      /* how far they were then                               */
    struct renew renew;
    bool reconciling;            /* a thorough comparison is to come to its end          */
    bool once_more;              /* none has begun since one was asked for               */
    bool over;
    enum ending ending;          /* once over                                            */
    bool up;                     /* connected and filled                                 */
    uint64_t up_since, retry_at, rival_until;
    bool rival_unknown;          /* whether it is alive; its key is not to be read till then */
    bool load_tried;             /* what is bad in Redis was logged                      */
    unsigned backoff_ms;
    char said[256];              /* the last reason that was logged for not being up     */
    bool said_up;
    uint64_t gather_until;       /* write-behind changes go out then; 0: none is known   */
    uint64_t round_until;        /* a session that was written before is not, till then  */
    uint64_t round_began;        /* ms since the epoch                                   */
    unsigned repeats;
    uint64_t tick_at, check_at, look_at;
    bool name_removed;
};

/* Ends the lead, once; REASON is logged. */
void leader_end(struct leader *leader, enum ending ending, const char *reason);

/* False: another one leads, and this has ended. */
bool leader_still_leads(struct leader *leader);

/* Starts a comparison, and says why. */
void leader_compare_again(struct leader *leader, const char *reason);

/* ---------------------------------------------------------------- persister_connect.c ---- */

/* Connects when it is time to; else waits for a moment. */
void leader_connect_in_time(struct leader *leader);

/* Connects, takes the fence and fills; or it is down, with the reason logged. */
void leader_try_to_connect(struct leader *leader);

/* Not while another server may listen at the private one's socket, or no sentinel has answered. */
bool leader_may_connect(const struct leader *leader);

/* The connection is gone: notes it, and when to try again. */
void leader_went_down(struct leader *leader);

/* The leader key is no longer what this connection wrote. */
void leader_fenced(struct leader *leader);

/* The sentinels name another master than the one that is written to: there, and at once. */
void leader_follow_master(struct leader *leader);

/* Whether anything may be written (A1); tells people what "durable" means by now. */
bool leader_may_write(struct leader *leader);

/* ---------------------------------------------------------------- persister_fill.c ------- */

/* What follows taking the fence; false: not done, mostly dropped. */
bool leader_fill(struct leader *leader);

/* Redis does not hold this table's data: everything is to be written again. */
bool leader_push_everything(struct leader *leader);

/* Redis holds another table's sessions, and this has ended. */
bool leader_belongs_to_another(struct leader *leader);

/* Before the lead is given up for good: whether a second look shows the same SEEN, of the fence. */
bool leader_says_it_again(struct leader *leader, const char seen[TOKEN_BYTES]);

#endif
