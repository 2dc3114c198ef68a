/*
 * GET /metrics and GET /healthz, on a unix socket or a loopback address, by a thread of its own: they
 * are served while the persister leads, while it stands by, and while its other threads hang.
 *
 *   E1  Whoever connects takes nothing from the table but this thread's time: the walk over the table
 *       is repeated only after ten times as long as it took.
 *   E2  A client has LIFE_MS for everything; then its connection is cut, whatever it does.  There are
 *       CONNECTIONS at once at most; others wait in the kernel's queue.  One request, one connection.
 *   E3  A unix socket is its owner's alone (0600).  A file that a dead process left there is replaced,
 *       a socket that somebody listens on is not, nor what is no socket.
 *
 * HTTP itself is libmicrohttpd's.
 */
#ifndef TOOLS_PERSISTER_HTTP_H
#define TOOLS_PERSISTER_HTTP_H

#include "lib/sesstab.h"
#include "tools/persister.h"

struct http;

/* "unix:PATH", "tcp:127.0.0.1:PORT" or "tcp:[::1]:PORT".  NULL, or what is wrong with TEXT. */
const char *http_parse_address(const char *text, struct redis_address *address);

/* Listens at settings->metrics and starts the thread; NULL: said why.  SETTINGS must stay. */
struct http *http_start(sesstab *table, const struct settings *settings);

/* Ends the thread and frees HTTP; NULL is allowed. */
void http_stop(struct http *http);

#endif
