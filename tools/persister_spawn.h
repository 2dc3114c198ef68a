/*
 * A private redis-server: a child that lives in DIR (append-only file, unix socket DIR/redis.sock,
 * log DIR/redis.log, settings from DIR/redis.conf if there is one) and leaves with its persister.
 *
 * The child holds the lock on DIR/redis.lock, through a descriptor that it inherits: two servers
 * never write the same files, also when a persister is killed and its successor starts while the
 * old server is still saving.  Meanwhile the old one serves: it has the same files, and the fence
 * keeps its old leader from writing.
 */
#ifndef TOOLS_PERSISTER_SPAWN_H
#define TOOLS_PERSISTER_SPAWN_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct spawn {
    char directory[PATH_MAX]; /* absolute */
    char socket[108];
    pid_t pid;                /* 0: not running                   */
    uint64_t started_at, retry_at;
    unsigned backoff_ms;
    bool blocked;             /* another server holds the directory; said so */
    bool shared;              /* it is another persister's private server    */
};

/* Makes the directory (0700) if it is missing.  NULL, or what is wrong. */
const char *spawn_prepare(struct spawn *spawn, const char *directory);

/* Starts the server if it does not run, with back-off; notices its end.  Never waits. */
void spawn_tend(struct spawn *spawn);

/* True when a server runs there and has its socket: ours, or that of a persister that led before and
 * is stopped, or stands by; when that one ends, ours is started. */
bool spawn_is_up(const struct spawn *spawn);

/* SIGTERM, and waits until it has saved and gone. */
void spawn_stop(struct spawn *spawn);

#endif
