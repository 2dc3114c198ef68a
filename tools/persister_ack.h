/*
 * What "durable" means: what --ack asks for, and whether the server keeps it.
 *
 *   memory      Redis has executed it; where it is then is up to the server's configuration
 *   fsync       and the server's disk has it: appendonly yes, appendfsync always,
 *               no-appendfsync-on-rewrite no, as CONFIG GET says at connect and at each check
 *   replicas=N  and N replicas have it: WAIT N after each batch (F5 in persister_fence.h)
 *
 *            WAIT counts fewer, or CONFIG GET says otherwise: said once
 *     KEPT -----------------------------------------------------------------> NOT KEPT
 *          <-----------------------------------------------------------------
 *            at each check: WAIT counts enough, CONFIG GET says so: said once
 *
 *   A1  While it is not kept nothing is acknowledged to the table: what was sent just then is given
 *       back to the store, and nothing more is taken from it, as while Redis is away.  Callers are
 *       told unknown when their time is over, and durable as soon as it is kept again.
 *   A2  A server that does not do fsync is refused when this process connects for the first time.
 */
#ifndef TOOLS_PERSISTER_ACK_H
#define TOOLS_PERSISTER_ACK_H

#include "shm/layout.h"
#include "tools/persister_fence.h"
#include "tools/persister_server.h"

enum ack_kind { ACK_MEMORY, ACK_FSYNC, ACK_REPLICAS };

struct ack_wish {
    enum ack_kind kind;
    unsigned replicas; /* ACK_REPLICAS: how many */
};

/* "memory", "fsync", "replicas=N".  NULL, or what is wrong with TEXT. */
const char *ack_parse(const char *text, struct ack_wish *wish);

struct ack {
    const struct ack_wish *wish;
    struct fence *fence;
    struct server *server;
    bool proved;  /* the server was asked, and keeps it   */
    bool kept;    /* as was said last                     */
    char why[256]; /* it is not kept                      */
};

/* Tells FENCE to wait for replicas, where they are wanted. */
void ack_init(struct ack *ack, const struct ack_wish *wish, struct fence *fence,
              struct server *server);

/* After server_ask().  False, with `why`: the promise can't be made at the start (A2). */
bool ack_possible(struct ack *ack);

/* Whether anything may be written now; says so when that changes.  Asks nothing. */
bool ack_kept(struct ack *ack);

/* Asks Redis how its configuration is by now, and, where some were missing, for its replicas. */
void ack_look(struct ack *ack);

/* Where what is acknowledged is, for people. */
enum acknowledged ack_where(const struct ack *ack);

#endif
