/*
 * The fence: no byte that another connection left in Redis's input buffer, and no leader that was
 * stopped and continues, changes anything once a new connection has taken the lead.
 *
 *   take      SET leader <token>, unique to this connection; WATCH leader; GET leader = token
 *   a batch   MULTI, commands, ECHO serial, EXEC, WATCH leader, GET leader: one write; the next
 *             batch only after GET has shown the token
 *
 *   stale connection's batch             new connection              what Redis does
 *   MULTI HSET.. EXEC (still buffered)   SET leader new              the stale EXEC answers nil
 *
 *   F1  A batch is executed only if nobody wrote the leader key since GET showed this token.
 *   F2  Who takes the lead writes its token, and reads the answer, before it reads the table.
 *   F3  A batch counts as executed only if its own serial number came back from within EXEC: an
 *       answer that came twice, or too many, is never taken for the next batch's (R2).
 *   F4  Under OOM Redis takes no command inside MULTI, not even DEL: a script that compares the
 *       token is the fence then, and for nothing but deletions and these two keys.
 *   F5  Where replicas are wanted, WAIT stands between EXEC and WATCH: it speaks of everything that
 *       was written by this connection, and GET comes after it.  It answers with a count when its
 *       time is up as well: fewer than wanted, and the batch is not confirmed, nor is any after it until
 *       fence_confirm() has counted enough: only that one waits meanwhile.
 *
 * Keys: <prefix>:leader  the token, {creation id}.{pid}.{process}.{connection}; deleted on leaving
 *       <prefix>:epoch   {creation id}.{incarnation}: whose data this is.  Lost with the data.
 */
#ifndef TOOLS_PERSISTER_FENCE_H
#define TOOLS_PERSISTER_FENCE_H

#include "tools/persister_record.h"
#include "tools/persister_redis.h"

enum { TOKEN_BYTES = 96 };

struct fence {
    struct redis *redis;
    char leader_key[KEY_BYTES], epoch_key[KEY_BYTES];
    char creation[24];          /* "<creation id>."                                         */
    char process[64];           /* "<creation id>.<pid>.<random>.": this process's tokens   */
    char token[TOKEN_BYTES];
    unsigned takes;
    uint64_t serial;            /* of the last batch or look                                */
    char holder[TOKEN_BYTES];   /* what the leader key was seen to hold last; "" nothing    */
    char epoch[TOKEN_BYTES];    /* what the epoch key was seen to hold last; "" nothing     */
    unsigned replicas;          /* that must have a batch; 0: none need it                  */
    int wait_ms;                /* for them                                                 */
    bool confirmed;             /* they had everything when they were asked last (F5)       */
};

enum verdict {
    COMMITTED, /* executed: `exec` has a reply per command; the fence says if confirmed  */
    ABORTED,   /* Redis refused it whole: `error`, and `refusals` of the commands it was for */
    FENCED,    /* the leader key changed: nothing was executed                           */
    BROKEN     /* dropped: nobody knows                                                  */
};

void fence_init(struct fence *fence, struct redis *redis, const char *prefix,
                uint64_t creation_id);

/* Reads holder and epoch; false: dropped, also when the answers are not those to its questions. */
bool fence_look(struct fence *fence);

/*
 * The same in a transaction: FENCED also when the keys say what they said and were touched since the
 * last one, because Redis has read another copy of its data.
 */
enum verdict fence_check(struct fence *fence);

/* Takes the lead with a new token; false: dropped, with the reason. */
bool fence_take(struct fence *fence);

/* True while the last look showed this connection's token. */
bool fence_held(const struct fence *fence);

/* Who held it at the last look. */
enum holder {
    HOLDER_NOBODY,
    HOLDER_US,      /* this process, by this or an earlier connection    */
    HOLDER_SIBLING, /* another persister of this very segment            */
    HOLDER_FOREIGN  /* a persister of another segment                    */
};
enum holder fence_holder(const struct fence *fence);

/*
 * Whether the holder's connection is there and was used lately.  Redis may forbid the question
 * (ALIVE_UNKNOWN); a connection that was dropped by it says nothing about the holder.
 */
enum alive { ALIVE_NO, ALIVE_YES, ALIVE_UNKNOWN };
enum alive fence_holder_alive(struct fence *fence);

/* Writes the epoch key, fenced; false: not done (dropped, or the fence is lost). */
bool fence_set_epoch(struct fence *fence, uint32_t incarnation);

/*
 * Whether the holder's key is read by anybody, where ALIVE_UNKNOWN is the answer: to be asked
 * before fence_look(), which reads it as well, and when this process has not read
 * it for some seconds.
 */
enum alive fence_holder_reads(struct fence *fence);

/* EPOCH_OURS only if it names this segment and INCARNATION; EPOCH_FOREIGN: another segment. */
enum epoch { EPOCH_OURS, EPOCH_MISSING, EPOCH_OTHER, EPOCH_FOREIGN };
enum epoch fence_epoch(const struct fence *fence, uint32_t incarnation);

/* What the epoch names; false: nothing that a persister wrote. */
bool fence_epoch_names(const struct fence *fence, uint64_t *creation_id, uint32_t *incarnation);

/* Waits for the replicas; whether they have what this connection has written. */
bool fence_confirm(struct fence *fence);

/* Deletes the leader key if it is ours; best effort. */
void fence_leave(struct fence *fence);

/* ---------------------------------------------------------------- batches ---------------- */

struct transaction {
    size_t first, commands; /* the connection's count at MULTI; commands between, ECHO last */
    char serial[24];        /* F3 */
    bool wait;              /* F5 */
    redisReply *exec;
    enum refusal *refusals; /* per command, of the queueing                            */
    size_t room;
    enum refusal refusal;   /* of `error`                                              */
    char error[200];        /* the first                                               */
};

void transaction_free(struct transaction *transaction);

/* Begins one; every command appended from here on is in it. */
void fence_begin(struct fence *fence, struct transaction *transaction);

/* Ends it; redis_receive() or redis_send() sends it. */
void fence_end(struct fence *fence, struct transaction *transaction);

/* Reads all its replies. */
enum verdict fence_verdict(struct fence *fence, struct transaction *transaction);

/* Both. */
enum verdict fence_commit(struct fence *fence, struct transaction *transaction);

#endif
