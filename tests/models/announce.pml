/*
 * From a change to the persister and back: dirty bit, ring, sleep, wake, ticket (lib/announce.c,
 * lib/bind.c, lib/store_take.c, shm/wait.h).
 *
 * Workers touch sessions (a plain store, which waits in the worker's store buffer as on x86) or bind
 * them (a compare-and-swap, and then they wait for the verdict).  One persister leads and another
 * stands by; Redis is there and takes everything.  A ring holds one entry.
 *
 *   in the code                              here
 *   sesstab_touch, announce                  touch, announce
 *   bind, post, await                        bind, await
 *   announce_wake                            wake
 *   store_sleep, gather                      sleep_deeply, sleep_shortly
 *   store_take: tickets, rings, scan, sweep  take_tickets, take_rings, take_scan, store_sweep_some
 *   store_read, store_ack, answer            write
 *   store_lead                               the first line of Persister
 *   worker_recover, store_recover            Recovery
 *   "at most 100 ms", WAIT_SLICE_MS          Time: when nothing else can happen, sleepers look again
 *   SWEEP_PERIOD_MS                          Time, the second time
 *
 *   N1  While nobody dies and nobody is stopped, no change and no verdict ever waits for a
 *       time-out.                                                                       P8, D3
 *   N2  After a death one time-out at most passes until every change has reached Redis and
 *       every waiter has been answered.                                                 P8, D7
 *   N3  What a stopped worker left half announced waits for the background sweep, and not
 *       longer.                                                              the table of times
 *   N4  A verdict is true: what is said to be durable has been written.                 D1
 */
#include "common.pml"

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef OPS
#define OPS 1
#endif
#ifndef SESSIONS
#define SESSIONS 2
#endif

#define LEADER WORKERS              /* process numbers: workers, leader, stand-by */
#define STANDBY (WORKERS + 1)
#define EVERY_WORKER (BIT(WORKERS) - 1)

byte seen[SESSIONS], durable_seen[SESSIONS];
byte version[SESSIONS], durable[SESSIONS];
byte now = 0;                       /* the clock, as touches read it */
bit dirty[SESSIONS];
chan ring[WORKERS] = [1] of { byte };
byte ready, urgent;                 /* a bit per worker */
bit overflow, sweep_wanted;

mtype = { IDLE, WAITING, DURABLE };
mtype ticket[WORKERS] = IDLE;
byte ticket_session[WORKERS], ticket_version[WORKERS];
bit waits[WORKERS];                 /* asleep on its ticket */

byte sleeping;                      /* 0 awake, 1 deeply, 2 but for urgent work */
bit bumped;                         /* wake_seq is not what the persister loaded */
bit asleep;                         /* the persister is in futex_wait */
bit ticked, sweep_due;              /* its 100 ms, its 10 s are over */
bit for_ever;                       /* who stops is stopped, not dead */

/* ---------------------------------------------------------------- store buffers ------------ */

chan late[WORKERS] = [1] of { byte, byte }; /* {session, last_seen} */
#if MUTANT == 5
byte late_sleeping = 3; /* the persister's plain store; 3: none */
#endif
byte where_, value_, p_;            /* scratch: 0 between steps */

/* A buffer holds one store; a later one of the same process waits until it is out. */
inline drain(p)
{
    if
    :: nempty(late[p]) -> late[p] ? where_, value_; seen[where_] = value_; where_ = 0; value_ = 0
    :: empty(late[p])
    fi
}

inline drain_all()
{
    for (p_ : 0 .. WORKERS - 1) {
        drain(p_)
    };
    p_ = 0
}

proctype Memory()
{
    do
    :: d_step { nempty(late[0]) -> drain(0); p_ = 0 }
#if WORKERS > 1
    :: d_step { nempty(late[1]) -> drain(1); p_ = 0 }
#endif
#if MUTANT == 5
    :: d_step { late_sleeping != 3 -> sleeping = late_sleeping; late_sleeping = 3 }
#endif
    od
}


/* ---------------------------------------------------------------- workers ------------------ */

inline wake(is_urgent)
{
    atomic { woke = (sleeping == 1 || is_urgent && sleeping != 0) };
    if
    :: atomic { woke -> woke = false };
#if MUTANT != 6
        bumped = true;
#endif
        asleep = false
    :: atomic { !woke -> skip }
    fi
}

inline announce(s)
{
    /* announce:A: only the compiler is told */
    if
    :: atomic { dirty[s] -> skip }
    :: atomic { !dirty[s] -> skip };
        atomic { drain(me); was = dirty[s]; dirty[s] = true };
        if
        :: atomic { was -> was = false }
        :: atomic { !was -> skip };
            if
            :: ring[me] ! s
            :: atomic { full(ring[me]) -> skip };
#if MUTANT != 3
                overflow = true
#else
                skip
#endif
            fi;
            ready = ready | BIT(me);
            wake(false) /* announce:C */
        fi
    fi
}

inline touch(s)
{
    atomic { now++; late[me] ! s, now }; /* COMMIT, when it leaves the buffer */
    announce(s)
}

inline await()
{
    do
    :: atomic { ticket[me] == DURABLE -> assert(durable[s] >= mine); ticket[me] = IDLE; break } /* N4 */
    :: atomic { ticket[me] == WAITING -> waits[me] = true };
        atomic { !waits[me] -> skip }
    od
}

inline bind(s)
{
    atomic { drain(me); version[s]++; mine = version[s] }; /* COMMIT: the binding is published */
    announce(s);
    atomic { ticket_session[me] = s; ticket_version[me] = mine; ticket[me] = WAITING };
    urgent = urgent | BIT(me);
    wake(true);
    await();
    mine = 0
}

proctype Worker(byte me) provided (living(_pid - 1))
{
    byte s, ops, mine;
    bit was, woke;
    do
    :: ops < OPS ->
        atomic {
            ops++;
            if
            :: s = 0
#if SESSIONS > 1
            :: s = 1
#endif
            fi
        };
        if
        :: touch(s)
        :: bind(s)
        fi
    :: atomic { ops == OPS -> s = 0; done = done | BIT(me); break }
    od
}

/* ---------------------------------------------------------------- sleeping ----------------- */

#define any_work (urgent != 0 || ready != 0 || overflow || sweep_wanted || scan || sweep || sweep_due)

inline set_sleeping(value)
{
#if MUTANT == 5
    late_sleeping = value
#else
    sleeping = value
#endif
}

/* The bits are looked at one after the other. */
inline look_for_work()
{
    work = (urgent != 0 || ready != 0);
    work = (work || overflow || sweep_wanted || scan || sweep || sweep_due)
}

inline sleep_deeply()
{
    do
#if MUTANT == 4
    :: look_for_work(); /* and not again */
        bumped = false; /* loads wake_seq */
        set_sleeping(1);
#elif MUTANT == 7
    :: set_sleeping(1);
        look_for_work();
        bumped = false; /* loads wake_seq, too late */
#else
    :: bumped = false; /* loads wake_seq */
        set_sleeping(1); /* store_sleep:D */
        look_for_work();
#endif
        if
        :: atomic { !work && !bumped -> asleep = true };
            atomic { !asleep -> skip }
        :: atomic { work || bumped -> skip }
        fi;
        set_sleeping(0);
        if
        :: atomic { !work -> work = any_work || ticked; ticked = false }
        :: atomic { work -> skip }
        fi;
        if
        :: atomic { work -> work = false; break }
        :: atomic { !work -> skip }
        fi
    od
}

/* While changes gather: its time is over at any moment. */
inline sleep_shortly()
{
    set_sleeping(2);
    set_sleeping(0)
}

/* ---------------------------------------------------------------- taking ------------------- */

inline give(s)
{
    given = given | BIT(s)
}

inline answer(w)
{
    if
    :: ticket[w] == WAITING -> ticket[w] = DURABLE /* COMMIT: said */
    :: else
    fi
}

inline take_ticket(w)
{
    if
    :: atomic { (waiting & BIT(w)) && ticket[w] == WAITING -> skip };
        if
        :: atomic { durable[ticket_session[w]] >= ticket_version[w] -> answer(w) };
            waits[w] = false /* futex_wake */
        :: atomic {
               durable[ticket_session[w]] < ticket_version[w] ->
               dirty[ticket_session[w]] = false;
               give(ticket_session[w])
           }
        fi
    :: atomic { !((waiting & BIT(w)) && ticket[w] == WAITING) -> waiting = waiting & ~BIT(w) }
    fi
}

inline take_tickets()
{
    atomic { waiting = waiting | urgent; urgent = 0 };
    take_ticket(0);
#if WORKERS > 1
    take_ticket(1)
#endif
}

inline sweep_session(s)
{
    atomic {
        if
        :: seen[s] > durable_seen[s] || version[s] != durable[s] -> dirty[s] = true; scan = true
        :: else
        fi
    }
}

inline sweep_some()
{
    atomic { sweep = sweep || sweep_wanted || sweep_due; sweep_wanted = false; sweep_due = false };
    if
    :: atomic { sweep -> skip };
        sweep_session(0);
#if SESSIONS > 1
        sweep_session(1);
#endif
        sweep = false
    :: atomic { !sweep -> skip }
    fi
}

inline take_ring(w)
{
    do
    :: atomic {
           (bits & BIT(w)) && nempty(ring[w]) ->
           ring[w] ? s;
#if MUTANT == 2
           give(s) /* the bit is cleared when it has been read */
#else
           if
           :: dirty[s] -> dirty[s] = false; give(s)
           :: else
           fi
#endif
       }
    :: atomic { !(bits & BIT(w)) || empty(ring[w]) -> bits = bits & ~BIT(w); break }
    od
}

inline take_rings()
{
    atomic { bits = ready; ready = 0 };
    take_ring(0);
#if WORKERS > 1
    take_ring(1)
#endif
}

inline scan_word(s)
{
    atomic {
        if
        :: dirty[s] -> dirty[s] = false; give(s)
        :: else
        fi
    }
}

inline take_scan()
{
#if MUTANT == 8
    scan = scan || overflow;
#else
    atomic { scan = scan || overflow; overflow = false };
#endif
    if
    :: atomic { scan -> skip };
        scan_word(0);
#if SESSIONS > 1
        scan_word(1);
#endif
#if MUTANT == 8
        overflow = false;
#endif
        scan = false
    :: atomic { !scan -> skip }
    fi
}

/* ---------------------------------------------------------------- writing ------------------ */

inline speak(w)
{
    if
    :: atomic {
           (waiting & BIT(w)) && ticket[w] == WAITING && ticket_session[w] == s &&
           ticket_version[w] <= image_version -> answer(w)
       };
        waits[w] = false
    :: atomic {
           !((waiting & BIT(w)) && ticket[w] == WAITING && ticket_session[w] == s &&
             ticket_version[w] <= image_version) -> skip
       }
    fi
}

/* Reads the session, writes it to Redis, and says so. */
inline write()
{
    do
    :: atomic { given != 0 -> s = (given & 1 -> 0 : 1) };
        atomic { image_version = version[s]; image_seen = seen[s] };
#if MUTANT == 2
        dirty[s] = false;
#endif
        atomic {
            durable[s] = image_version; /* COMMIT: durable */
            durable_seen[s] = (image_seen > durable_seen[s] -> image_seen : durable_seen[s])
        };
        speak(0);
#if WORKERS > 1
        speak(1);
#endif
        atomic { given = given & ~BIT(s); image_version = 0; image_seen = 0; s = 0 }
    :: atomic { given == 0 -> break }
    od
}

proctype Persister(byte me) provided (living(_pid - 1))
{
    byte s, waiting, bits, given, image_version, image_seen;
    bit work, scan, sweep;
    atomic {
        (me == LEADER || !living(LEADER)) -> /* the lock */
#if MUTANT != 9
        waiting = EVERY_WORKER; ready = EVERY_WORKER; scan = true; sweep = true
#endif
    };
    do
    :: sleep_deeply();
        sleep_shortly();
        take_tickets();
        sweep_some();
        take_rings();
        take_scan();
#if MUTANT != 1
        d_step { drain_all() }; /* store_take:B, a heavy fence */
#endif
        write()
    od
}

/* ---------------------------------------------------------------- deaths ------------------- */

/* By the persister's watcher, who wakes, or by any other worker, who does not. */
proctype Recovery()
{
    byte dead_one;
    bit woke;
    atomic { (dead & EVERY_WORKER) != 0 && !for_ever -> dead_one = (dead & 1 -> 0 : 1); drain(dead_one) };
#if MUTANT != 10
    overflow = true;
    sweep_wanted = true;
#endif
    atomic { ticket[dead_one] = IDLE };
#if MUTANT != 10
    sweep_wanted = true;
#endif
    if
    :: wake(false)
    :: skip
    fi
}

/* ---------------------------------------------------------------- time --------------------- */

/* (A touch that comes late may turn `seen` back: the larger of both counts.) */
#define unwritten(s) (seen[s] > durable_seen[s] || version[s] != durable[s])
#define unanswered(w) (living(w) && ticket[w] != IDLE)
#if SESSIONS > 1
#define all_written (!unwritten(0) && !unwritten(1))
#else
#define all_written (!unwritten(0))
#endif
#if WORKERS > 1
#define all_answered (!unanswered(0) && !unanswered(1))
#else
#define all_answered (!unanswered(0))
#endif

init {
    byte p, ticks;
    atomic {
        if
        :: doomed = 0
#ifdef DEATHS
        :: doomed = BIT(0); for_ever = false
        :: doomed = BIT(0); for_ever = true
        :: doomed = BIT(LEADER)
#endif
        fi;
        for (p : 0 .. WORKERS - 1) {
            run Worker(p)
        };
        run Persister(LEADER);
        run Persister(STANDBY);
        run Memory();
        run Recovery();
        run Death();
        p = 0
    };
    do
    :: atomic {
           timeout ->
           if
           :: all_written && all_answered && (done | dead) & EVERY_WORKER == EVERY_WORKER -> break
           :: else
           fi;
           assert(dead != 0);                 /* N1 */
           ticks++;
           assert(ticks < 2 || for_ever);     /* N2 */
           assert(ticks < 3);                 /* N3 */
           sweep_due = (ticks == 2);
#if MUTANT != 11
           ticked = true;
           asleep = false;
#endif
           for (p : 0 .. WORKERS - 1) {
               waits[p] = false
           };
           p = 0
       }
    od
}
