/*
 * A proxy between a persister and its Redis that spoils what passes, at any byte, in either
 * direction.  It is a process of its own and knows just so much of the protocol that it can tell
 * what frames a request from what is in it.
 *
 *   PASS       nothing                                  DUPLICATE  some chunks come twice
 *   CUT        both ends are closed after some byte     CORRUPT    some bytes become others
 *   DELAY      everything comes later                   TRUNCATE   from some byte on nothing comes
 *   TRICKLE    a byte a second                          INJECT     a text before, or instead of, some
 *   HOLE       nothing comes, until it is over                     chunks; a flood behind it
 *
 *   Y1  What is held back is sent when the mode ends, in order, as TCP does: also to a server whose
 *       client has gone.  Nothing that came later overtakes it.
 *   Y2  A byte is never left out of the middle of a stream (TCP does not do that either): a
 *       truncated direction stays silent until its connection ends.
 *   Y3  CORRUPT changes no value inside a request: Redis would store and acknowledge it, and nobody
 *       could tell.  What frames it, and the names of the commands, are changed.
 */
#ifndef TESTS_FAULTS_PROXY_H
#define TESTS_FAULTS_PROXY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum proxy_mode { PASS, CUT, DELAY, TRICKLE, HOLE, DUPLICATE, CORRUPT, TRUNCATE, INJECT };
enum { REQUESTS = 1, REPLIES = 2, BOTH = 3 };

/* What is asked of it; written by the driver, then `order` is raised. */
struct proxy_wish {
    enum proxy_mode mode;
    unsigned directions;
    uint64_t at;         /* CUT: once, after so many bytes from now on; 0: anywhere, again and again */
    unsigned delay_ms;
    const char *const *texts; /* INJECT: one of them at random, NULL-terminated; in a fork's memory */
    bool instead;        /* INJECT: instead of what Redis said                                   */
    bool flood;          /* INJECT: with as many zero bytes behind it as the client takes        */
};

struct proxy {
    char listen_on[104], connect_to[104];
    struct proxy_wish wish;
    _Atomic unsigned order, followed;
    _Atomic uint64_t injected;   /* how often it did something                              */
    _Atomic uint64_t passed[2];  /* bytes since the last order: requests, replies           */
};

/* The proxy process; never returns. */
void proxy_serve(void *proxy);

/* Tells it, and waits until it does so. */
void proxy_order(struct proxy *proxy, struct proxy_wish wish);

#endif
