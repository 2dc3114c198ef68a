/*
 * Leading: from the moment that this process is the table's leader until it stops or is no longer.
 *
 *   connect   with back-off; ask what the server is; take the fence
 *   fill      fresh table: load Redis, then ready.  Survived: same epoch -> compare (after every
 *             connect); else Redis lost its data -> everything is pushed again
 *   serve     tickets at once; other changes gather for the flush interval
 *   check     every CHECK_MS: is the token there and was not touched, is the epoch there, is it the
 *             same server and the same copy of the data; every TICK_MS: is the table's name ours
 *   rest      while the mode is MEMORY: no connection, nothing is taken; the dead are mended as always.
 *             Back in another mode: connect, as after a loss of the connection
 *   leave     flush within STOP_MS, give the token back; not when another one leads by now
 *
 * While Redis is away no session is taken from the store: what accumulates is bits in the table.
 */
#ifndef TOOLS_PERSISTER_LEAD_H
#define TOOLS_PERSISTER_LEAD_H

#include "lib/store.h"
#include "tools/persister.h"
#include "tools/persister_spawn.h"
#include "tools/persister_watch.h"

enum ending {
    ENDING_STOPPED,    /* asked to, or nobody uses the table any more     */
    ENDING_SUPERSEDED, /* another persister of this table took the token  */
    ENDING_FAILED      /* said why                                        */
};

/* SPAWN: NULL without a private redis-server. */
enum ending lead(const struct settings *settings, sesstab *table, struct store *store,
                 struct spawn *spawn, const struct watch *watch);

#endif
