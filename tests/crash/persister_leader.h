/*
 * One persister process under the microscope: started, brought to where it takes what was posted,
 * advanced by single instructions, killed there, or left stopped and robbed of its lead.
 *
 *      the leader's thread     ... store_sleep() -> batch_write[_tickets]() .. return ...
 *                                     |                 |<- instruction 0 .. n - 1 ->|
 *      leader_stand_idle()  ----------+                 |
 *      (post the operation)                             |
 *      leader_stand_at_take() --------------------------+
 *
 * Between the two it takes the session from the store, writes it, reads Redis's answers, and tells
 * the table and those who wait: everything that an acknowledgement consists of is one call.
 *
 *   L1  It leads freely, untraced, but from leader_stand_idle() to leader_release() or its death.
 *   L2  Only its main thread is stepped.  SIGKILL takes the one that watches for deaths, too.
 */
#ifndef TESTS_CRASH_PERSISTER_LEADER_H
#define TESTS_CRASH_PERSISTER_LEADER_H

#include "lib/table.h"
#include "tests/stepper.h"

struct persister {
    pid_t pid;
    char log[128];
    uint64_t returns_to; /* of the call that it stands in, from leader_stand_at_take() on */
};

/* Starts one that never lets changes gather, writes two sessions at a time so that a batch is prepared
 * while another one is written (B3), and supersedes nobody, with its log in a file named after NUMBER. */
void persister_start(struct persister *persister, const char *table, const char *url,
                     unsigned number);
bool persister_says(const struct persister *persister, const char *text);

/* Its worker in the table; 0 as long as it is none. */
worker_id persister_worker(const struct persister *persister, const struct shm *shm);

/* SIGKILL; reaps it and removes its log. */
void persister_kill(struct persister *persister);

/* Stops the leader where it is about to sleep because there is nothing to do.  A touch of session
 * HANDLE wakes it, if it sleeps already. */
void leader_stand_idle(struct persister *leader, sesstab *table, uint64_t handle);

/* Runs it from there to the call that takes what was posted meanwhile: those with TICKETS, or the
 * others. */
void leader_stand_at_take(struct persister *leader, bool tickets);

/* Records that call, to its end. */
void leader_record(struct persister *leader, struct trace *trace);

enum way {
    WAY_RECORDED, /* it stands at the trace's K-th instruction                            */
    WAY_OTHER,    /* it has executed about K instructions, not the ones in the trace      */
    WAY_ENDED     /* the call returned before                                             */
};
enum way leader_advance(struct persister *leader, const struct trace *trace, size_t k);

/* Takes the lead away from whoever has it, as a stand-by that supersedes it would. */
void leader_rob(struct shm *shm);

/* Lets it finish the call that it stands in; and lets it go. */
void leader_finish(struct persister *leader);
void leader_release(struct persister *leader);

#endif
