/*
 * mushd - a small chat server in the manner of a MUSH, and the tutorial for libsesstab.
 *
 *                 parent              mushd.c: opens the table, binds the port, forks, restarts
 *        +----------+-----+----+----------+
 *     worker 1   worker 2   worker 3   worker 4      mushd_worker.c: sockets, an event loop each
 *        +----------+-----+----+----------+          mushd_commands.c: what a player can type
 *                    table                ---> persister ---> Redis
 *
 * A worker knows only its own sockets.  Who is connected, as whom, where and since when is in the
 * table, which every worker reads without asking anybody.  To learn the library, follow a session:
 *
 *   open_table()         sesstab_open            once, in the parent; a forked worker just goes on
 *   accept_connection()  sesstab_insert          the table assigns the handle
 *   take_input()         sesstab_touch           any input counts as activity
 *   start_login()        sesstab_start_bind      returns at once; take_answers() gets the answer
 *   take_over()          sesstab_by_player       what a dead worker left is picked up
 *   do_who()             sesstab_next            everybody, while others come and go
 *   deliver_to_all()     sesstab_find            the hot path: no lock, no system call, no copy
 *   leave()              sesstab_remove          gone for every worker at once
 *
 * Invariants:
 *   M1  An event loop never waits: not for Redis, nor for another worker, nor for a slow client.
 *   M2  A connection has one session from accept_connection() to leave().  When somebody removes
 *       the session under it, the connection is closed at its next input.
 *   M3  Nothing that comes from outside is trusted: lines are bounded, text is checked when it
 *       comes in and made printable when it goes out, unsent output is bounded.
 */
#ifndef MUSHD_H
#define MUSHD_H

#include "lib/sesstab.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>

enum {
    WORKERS_MAX = 64,
    NAME_BYTES = 32,           /* of a player's name                                              */
    LINE_BYTES = 1024          /* longer lines are answered and dropped                           */
};

struct options {
    const char *table, *listen, *port;
    int workers, bind_timeout;
};
extern struct options options;
extern sesstab *table;

/*
 * A seat outlives the worker in it.  Its mailbox is made before the first fork, so that everybody
 * can write to it and a new worker has its predecessor's.  What is on the board is shared: a worker
 * writes its own line; the parent clears it when the worker died.
 */
struct seat {
    int mailbox, post;         /* the receiving end, and the sending one                          */
};
extern struct seat seats[WORKERS_MAX];
struct board {
    _Atomic uint32_t owner;    /* the worker's name in the table; 0: nobody sits here             */
    _Atomic uint32_t connections;
};
extern struct board *board;

/* ------------------------------------------------------------------ mushd_worker.c -------- */

struct bufferevent;
struct event;
struct connection {
    LIST_ENTRY(connection) link;
    struct bufferevent *stream;
    uint64_t handle;
    enum { TEXT, COMMAND, OPTION, SUBOPTION, SUBCOMMAND } telnet;
    bool overlong;             /* the line has become too long                                    */
    bool binding;              /* its login was started; until the answer its input waits too     */
    uint64_t ticket;           /* of that login                                                   */
    struct event *patience;    /* its timer                                                       */
    char player[NAME_BYTES + 1];
    bool pending;              /* its login was answered UNKNOWN and is not resolved yet          */
    bool closing;              /* its session is gone; the last output is on its way              */
    unsigned dropped;          /* lines of output that it did not read in time                    */
    size_t length;
    char line[LINE_BYTES + 1];
};

/* A worker's life, in the child; never returns. */
_Noreturn void worker_run(int number, int listening, pid_t parent);

/* The worker's number: seat + 1. */
extern int worker_number;

/* Sends a line; hang_up() also ends the session, and closes when the line is on its way. */
__attribute__((format(printf, 2, 3))) void say_to(struct connection *c, const char *format, ...);
void hang_up(struct connection *c, const char *farewell);

/* Starts to bind C to PLAYER; login_answered() gets the answer, soon or at once. */
void start_login(struct connection *c, const char *player);

/* What workers send each other. */
struct message {
    enum { SAY, PAGE, BOOT } kind;
    uint64_t handle;           /* SAY: the speaker, who knows already; else whom it is for        */
    char text[LINE_BYTES + 256];
};

/* Puts M into worker NUMBER's mailbox.  False: it is full, or there is no such worker. */
bool post(int number, const struct message *m);

/* ------------------------------------------------------------------ mushd_commands.c ------ */

void run_line(struct connection *c, char *line);

/* The answer for a login of C as PLAYER; and a later look at one that was UNKNOWN. */
void login_answered(struct connection *c, const char *player, int answer);
void settle_login(struct connection *c);

#endif
