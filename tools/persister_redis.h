/*
 * One blocking connection to Redis: addresses, pipelined commands, replies with a deadline, and
 * what its errors mean.  Knows nothing of sessions.
 *
 *   R1  After any doubt (time-out, disconnect, a reply that is not of the protocol) the connection
 *       is dropped.  Every call on a dropped connection does nothing and says so, so that a caller
 *       needs to look only at its replies.
 *   R2  Replies come in the order of the commands; that is the only correlation there is.
 *   R3  Queued output is never reused after a drop: it is rebuilt from the table.
 *   R4  Whatever the other end sends, a reply takes no more memory than what it takes to hold
 *       REPLY_BYTES of it.
 *
 * hiredis connects and reads.  Commands are encoded here, into a buffer that is kept: hiredis's general
 * formatting was most of what a write cost this process.
 */
#ifndef TOOLS_PERSISTER_REDIS_H
#define TOOLS_PERSISTER_REDIS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redis_address {
    char text[300]; /* as given, for people                        */
    char host[256]; /* a host, or the path of a unix socket        */
    int port;       /* 0: a unix socket                            */
};

/*
 * "unix:PATH", "tcp:HOST:PORT", "tcp:[V6]:PORT".  NULL, or what is wrong with TEXT.  There is no TLS:
 * hiredis has it from 1.0 on, Debian 12 has 0.14, and what can't be tried out is not offered.
 */
const char *redis_parse_address(const char *text, struct redis_address *address);

struct redis_login {
    const char *user;          /* NULL: Redis's default user                       */
    const char *password;      /* NULL: none                                       */
    const char *password_file; /* instead, read at each connect; NULL: none        */
    int database;
};

struct redis {
    redisContext *context; /* NULL: dropped                                              */
    int timeout_ms;        /* for connecting and for each reply                          */
    size_t appended;       /* commands since the connection was made                     */
    size_t received;       /* bytes since the last reply                                 */
    char reason[256];      /* why it was dropped                                         */
    const char **arguments; /* of the command that is being built                        */
    size_t *lengths;
    size_t count, room;
    char *output;          /* encoded commands; from `sent` on they are still to be sent */
    size_t output_room, queued, sent;
    bool holding;          /* what was appended from here on is not sent yet             */
    size_t held_from, held_appended;
    size_t answered;       /* commands since the connection was made                     */
    uint64_t asked_at;     /* us: when the group that is under way was begun; 0: none is  */
};

/* Connects, authenticates and selects the database; false with a reason.  Drops the old one. */
bool redis_connect(struct redis *redis, const struct redis_address *address,
                   const struct redis_login *login);

bool redis_connected(const struct redis *redis);

/* Drops the connection; the first reason given stays until the next connect. */
void redis_drop(struct redis *redis, const char *reason);

/* Frees what the struct holds. */
void redis_free(struct redis *redis);

/* Builds a command: start, arguments (the caller keeps them until append), append. */
void redis_start(struct redis *redis, const char *command);
void redis_text(struct redis *redis, const char *text);
void redis_bytes(struct redis *redis, const void *bytes, size_t length);
void redis_append(struct redis *redis);

/* A command of strings, ended by NULL, appended. */
void redis_put(struct redis *redis, const char *command, ...) __attribute__((sentinel));

/* Sends what the socket takes now; redis_receive() sends the rest. */
void redis_send(struct redis *redis);

/* From now on commands are only encoded, until they are released to be sent, or taken back. */
void redis_hold(struct redis *redis);
void redis_release(struct redis *redis);
void redis_take_back(struct redis *redis);

/* Sends what was appended and returns the next reply, the caller's to free; NULL: dropped. */
redisReply *redis_receive(struct redis *redis);

/* redis_put() and redis_receive() in one. */
redisReply *redis_ask(struct redis *redis, const char *command, ...) __attribute__((sentinel));

/* What an error reply means for the command that got it. */
enum refusal {
    REFUSAL_NONE,
    REFUSAL_LATER,   /* not now, or not here: keep, reconnect, send again                       */
    REFUSAL_FULL,    /* OOM: over maxmemory with no eviction                                    */
    REFUSAL_STORAGE, /* MISCONF: Redis cannot save to its disk and takes no writes              */
    REFUSAL_DENIED,  /* NOPERM: the ACL forbids the command or the key                          */
    REFUSAL_TYPE,    /* WRONGTYPE: something else lives under that key                          */
    REFUSAL_OTHER    /* any other error: Redis said no                                          */
};
enum refusal redis_classify(const char *error);
const char *refusal_name(enum refusal refusal);

/*
 * What a reply is.  The caller says for each which types it takes: what a damaged line makes of a
 * reply may be of any other.  REPLY may be NULL (dropped), which is none of this.
 */

/* The class of REPLY's error; REFUSAL_NONE when it is no error. */
enum refusal redis_refusal(const redisReply *reply);

/* True for a string, status or error reply equal to TEXT. */
bool redis_says(const redisReply *reply, const char *text);

/* True for a string without a NUL. */
bool redis_is_text(const redisReply *reply);

/* True for an array of strings only, as HGETALL gives. */
bool redis_is_strings(const redisReply *reply);

/* True for what SCAN and SSCAN give: where to go on, as a number, and an array of strings. */
bool redis_is_page(const redisReply *reply);

#endif
