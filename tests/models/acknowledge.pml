/*
 * Acknowledgement and take-over: what is said of a binding is true, whoever dies, is superseded or
 * left bytes behind (lib/store.h S1-S3, tools/persister_fence.h F1-F2, lib/bind.c).
 *
 * One session.  Workers bind it and wait, with a deadline.  Two persisters: the second leads when the
 * first has died (its lock is free), or, in the runs SUPERSEDE, when it was only stopped and goes on
 * afterwards.  A leader that loses its connection takes the lead again by a new one.  Redis
 * executes what lies in its input buffers whenever it likes, of closed connections too, or refuses it.
 *
 *   in the code                                    here
 *   session_change_slot, draft_bind, publish       put_binding, put_final, confirm
 *   ticket_post, ticket_await                      Worker
 *   fence_take: SET token, WATCH, GET              take_lead
 *   batch: MULTI HSET EXEC, WATCH leader, GET      send; Redis executes it as one
 *   store_read, examine                            read_record
 *   settle: store_ack, secure_binding, speak       acknowledge
 *   settle_refused, read_back                      settle_refused
 *   store_refuse, edit_roll_back                   refuse
 *   judge_ticket, judge, take_ticket               judge_ticket
 *   redis_drop, went_down, establish               `lost`
 *
 *   K1  Said to be durable: Redis has it, and it is never rolled back; Redis never goes back
 *       behind it.                                                              D1, D7, D12
 *   K2  Said to be refused: it is neither the session's binding nor in Redis, nor ever again;
 *       and nobody was told that it is durable.  (Redis may have it, until the roll-back is
 *       written, from the successor of one who was superseded before he rolled it back.) D2, D12
 *   K3  When nobody moves, Redis has the record's version and binding, and all who wait have
 *       been answered.                                                          P8, D3
 *   K4  A verdict is said to the ticket that it was found for, once.            D3
 *   K5  A binding that was answered OK at once is never rolled back.            M3
 *
 * A binding's name is the version at which it was made; 0: to nobody.  Redis losing its data
 * (incarnations) is not here; other changes that wait, and removals, are in changes.pml.
 */
#include "common.pml"

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef BINDS
#define BINDS 1        /* of the first worker; the others bind once */
#endif
#ifndef DROPS
#define DROPS 1        /* connections that are lost    */
#endif
#ifndef REFUSALS
#define REFUSALS 1     /* writes that Redis refuses    */
#endif

#define FIRST WORKERS  /* process numbers: workers, first leader, second leader */
#define SECOND (WORKERS + 1)
#define CONNECTIONS (DROPS + 3)
#define VERSIONS 16

/* ---------------------------------------------------------------- the session -------------- */

/* `current` is {version, marked}: a compare-and-swap of it changes all of these at once. */
byte version = 1;
bit marked;            /* CURRENT_ACKED                                       */
bit final;             /* BLOCK_FINAL: the binding in it is never rolled back */
byte player;           /* the binding in the record                           */
byte bound;            /* bound_version                                       */
bit has_acked;         /* BLOCK_ACKED: there is something to roll back to ... */
byte acked;            /* ... and this is it                                  */
byte refused;          /* refused_version                                     */
byte durable = 1;

mtype = { IDLE, WAITING, DURABLE, REFUSED };
mtype ticket[WORKERS] = IDLE;
byte ticket_version[WORKERS];

/* What was said, to judge it by: a bit per version. */
short said_durable, said_refused, said_at_once, was_written, rolled_back, refused_late;

#define max(a, b) ((a) > (b) -> (a) : (b))

/* ---------------------------------------------------------------- Redis -------------------- */

mtype = { SET, LOOK, WRITE, READ, OK, FENCED };
chan in[CONNECTIONS] = [2] of { mtype, byte, byte };    /* version, player              */
chan out[CONNECTIONS] = [1] of { mtype, byte, byte };   /* holder, or version read back */
bit closed[CONNECTIONS];
byte watched[CONNECTIONS];      /* 0: no; 1: yes; 2: yes, and the key was written since */
mtype executed[CONNECTIONS];    /* EXEC has been executed; WATCH and GET come next      */
byte holder;                    /* the leader key: a connection's number + 1            */
byte stored_version = 1, stored_player;
byte connections, drops, refusals;
bit exhausted;                  /* a leader gave up because the bounds were reached     */

inline reply(c, what, a, b)
{
    if
    :: closed[c]
    :: !closed[c] -> out[c] ! what, a, b
    fi
}

inline store_in_redis(v, p)
{
    assert(v > stored_version || v == stored_version && p == stored_player); /* K1 */
    assert(!(said_refused & ~refused_late & BIT(p)));                           /* K2 */
    stored_version = v;
    stored_player = p;
    was_written = was_written | BIT(p)
}

inline execute(c)
{
    if
    :: atomic {
           in[c] ? SET, v, p ->
           holder = c + 1;
           for (i : 0 .. CONNECTIONS - 1) {
               watched[i] = (watched[i] -> 2 : 0)
           };
           watched[c] = 0; i = 0;
           reply(c, OK, 0, 0)
       }
    :: atomic { in[c] ? LOOK, v, p -> watched[c] = 1; reply(c, OK, holder, 0) }
    :: atomic { in[c] ? READ, v, p -> reply(c, OK, stored_version, stored_player) }
    :: atomic {
           !executed[c] && in[c] ? [WRITE, v, p] ->
           in[c] ? WRITE, v, p;
           if
#if MUTANT == 1
           :: store_in_redis(v, p); executed[c] = OK
#else
           :: watched[c] == 2 -> executed[c] = FENCED /* EXEC: nil */
           :: watched[c] != 2 -> store_in_redis(v, p); executed[c] = OK
#endif
           :: watched[c] != 2 && refusals < REFUSALS -> refusals++; executed[c] = REFUSED
           fi;
           watched[c] = 0
       }
    :: atomic { executed[c] -> watched[c] = 1; reply(c, executed[c], holder, 0); executed[c] = 0 }
    fi;
    v = 0; p = 0
}

proctype Redis()
{
    byte v, p, i;
    do
    :: nempty(in[0]) || executed[0] -> execute(0)
    :: nempty(in[1]) || executed[1] -> execute(1)
    :: nempty(in[2]) || executed[2] -> execute(2)
#if CONNECTIONS > 3
    :: nempty(in[3]) || executed[3] -> execute(3)
#endif
    od
}

/* ---------------------------------------------------------------- changing ----------------- */

/* What session_change_slot concludes; D is what was durable before the record was read. */
#define is_acked(d) (marked || final || (d) >= bound)
#define unchanged (version == seen && marked == was_marked)

/* record_in */
inline read_current()
{
    atomic { d = durable };
    atomic { seen = version; was_marked = marked }
}

/* draft_next, draft_bind, publish */
inline put_binding(d)
{
    has_acked = has_acked && !is_acked(d);
#if MUTANT == 2
    acked = player; /* what was there, acknowledged or not */
#else
    acked = (has_acked -> acked : player);
#endif
    has_acked = true;
    version++; /* COMMIT: the binding is published */
    player = version;
    bound = version;
    marked = false;
    final = false
}

/* The same by a call that does not wait, and is answered OK at once. */
inline put_final()
{
    version++; /* COMMIT: the binding is published */
    player = version;
    bound = version;
    has_acked = false;
    marked = false;
#if MUTANT == 14
    final = false;
#else
    final = true;
#endif
    said_at_once = said_at_once | BIT(player)
}

/* Such a call that finds the binding there already. */
inline confirm()
{
#if MUTANT != 15
    if
    :: !is_acked(durable) -> version++; has_acked = false; final = true /* COMMIT: confirmed */
    :: else
    fi;
#endif
    said_at_once = said_at_once | BIT(player)
}

proctype Worker(byte me)
{
    byte mine, seen, d, binds;
    bit was_marked;
#ifdef AT_ONCE /* all but the first worker */
    if
    :: atomic { me != 0 -> put_final(); goto over }
    :: atomic { me != 0 -> confirm(); goto over }
    :: atomic { me == 0 -> skip }
    fi;
#endif
#ifdef IN_ORDER
    me == 0 || ticket[0] != IDLE || (done & 1); /* the second one binds while the first one waits */
#endif
again:
    do
    :: read_current();
        atomic {
            if
            :: unchanged -> put_binding(d); mine = version; break
            :: else
            fi
        }
    od;
    atomic { ticket_version[me] = mine; ticket[me] = WAITING; seen = 0; d = 0; was_marked = false };
    if
    :: atomic { ticket[me] != WAITING -> ticket[me] = IDLE }
#ifdef DEADLINES
    :: atomic { ticket[me] == WAITING -> ticket[me] = IDLE } /* COMMIT: unknown */
#endif
    fi;
    mine = 0;
    if
    :: atomic { me == 0 && binds + 1 < BINDS -> binds++; goto again }
    :: atomic { me != 0 || binds + 1 == BINDS -> skip }
    fi;
over:
    atomic { done = done | BIT(me) }
}

/* ---------------------------------------------------------------- verdicts ----------------- */

inline say(w, verdict, found)
{
    if
#if MUTANT == 10
    :: true -> /* a store, where a compare-and-swap from the word that was seen should be */
        assert(ticket[w] == WAITING && ticket_version[w] == found); /* K4 */
#else
    :: ticket[w] == WAITING && ticket_version[w] == found ->
#endif
        ticket[w] = verdict; /* COMMIT: said */
        if
        :: verdict == DURABLE ->
            assert(stored_player >= found && !(rolled_back & BIT(found)));   /* K1 */
            assert(!(said_refused & BIT(found)));                            /* K2 */
            said_durable = said_durable | BIT(found)
        :: else ->
            assert(player != found);                                         /* K2 */
            assert(stored_player != found || (refused_late & BIT(found)));   /* K2 */
            assert(!(said_durable & BIT(found)));                            /* K2 */
            said_refused = said_refused | BIT(found)
        fi
    :: else
    fi
}

/* judge(): what DURABLE means to ticket version V, with the record on top. */
#if MUTANT == 3
#define says_refused(v) (false)
#define says_durable(v, d) ((d) >= (v)) /* by versions alone */
#elif MUTANT == 4
#define says_refused(v) (bound < (v)) /* without refused_version */
#define says_durable(v, d) (bound >= (v) && (d) >= (v))
#else
#define says_refused(v) (bound < (v) || refused == (v))
#define says_durable(v, d) (!says_refused(v) && (v) >= refused && (d) >= (v))
#endif

/* The record and the ticket are read, then the ticket is answered. */
inline judge_ticket(w)
{
    atomic {
        verdict = IDLE; v = ticket_version[w]; d = durable;
        if
        :: ticket[w] == WAITING && says_refused(v) -> verdict = REFUSED
        :: ticket[w] == WAITING && says_durable(v, d) -> verdict = DURABLE
        :: else
        fi;
        d = 0
    };
    atomic {
        if
        :: verdict != IDLE -> say(w, verdict, v)
        :: else
        fi;
        v = 0; verdict = 0
    }
}

/* speak(), fate() after an acknowledgement of D */
inline speak_acked(w, last)
{
    atomic {
        verdict = IDLE; v = ticket_version[w];
        if
        :: ticket[w] == WAITING && v <= last && says_refused(v) -> verdict = REFUSED
        :: ticket[w] == WAITING && v <= last && says_durable(v, last) -> verdict = DURABLE
        :: else
        fi
    };
    atomic {
        if
        :: verdict != IDLE -> say(w, verdict, v)
        :: else
        fi;
        v = 0; verdict = 0
    }
}

/* the same after a roll-back */
inline speak_refused(w)
{
    atomic {
        v = ticket_version[w];
        if
#if MUTANT == 11
        :: ticket[w] == WAITING && v <= image_bound -> verdict = REFUSED
#else
        :: ticket[w] == WAITING && v <= image_bound && v > d -> verdict = REFUSED
#endif
        :: else -> verdict = IDLE
        fi
    };
    atomic {
        if
        :: verdict != IDLE -> say(w, verdict, v)
        :: else
        fi;
        v = 0; verdict = 0
    }
}

/* ---------------------------------------------------------------- acknowledging ------------ */

/* secure_binding, put_below */
inline secure_binding()
{
    do
    :: atomic { marked || bound < image_bound -> break }
    :: atomic { !marked && bound >= image_bound -> skip };
        read_current();
        atomic {
            if
            :: !unchanged /* again */
            :: unchanged && bound == image_bound ->
                marked = true; /* COMMIT: acknowledged */
                break
            :: unchanged && bound > image_bound && is_acked(d) -> break
            :: unchanged && bound > image_bound && !is_acked(d) ->
                version++; /* COMMIT: put below */
                has_acked = true;
                acked = image_player;
                break
            :: unchanged && bound < image_bound -> break
            fi
        }
    od;
    seen = 0; was_marked = false; d = 0
}

inline acknowledge()
{
#if MUTANT != 5
    if
    :: atomic { image_pending -> skip };
        secure_binding()
    :: atomic { !image_pending -> skip }
    fi;
#endif
    atomic { durable = max(durable, image_version) }; /* COMMIT: durable */
    speak_acked(0, image_version);
#if WORKERS > 1
    speak_acked(1, image_version);
#endif
    skip
}

/* ---------------------------------------------------------------- refusing ----------------- */

/* Up to this version nothing is refused; D is what was durable before the record was read. */
#define kept(d) max(d, (has_acked && !is_acked(d) -> acked : 0))
#if MUTANT == 16
#define is_newer(stored, d) (false)
#else
#define is_newer(stored, d) ((stored) > kept(d))
#endif

/* Another one's token is in Redis. */
#define is_late (holder != c + 1 && !(own & BIT(holder - 1)))

/* edit_roll_back, publish */
inline roll_back()
{
    refused_late = refused_late | (is_late -> BIT(bound) : 0);
    assert(!((said_durable | said_at_once) & BIT(player)));                           /* K1, K5 */
    rolled_back = rolled_back | BIT(player);
    player = (has_acked -> acked : 0);
    assert(player == 0 || ((was_written | said_at_once) & BIT(player)));              /* K2 */
    assert(!(said_refused & BIT(player)));                                            /* K2 */
    assert(stored_player <= player || is_late);                                       /* K2 */
    assert(((said_durable | said_at_once) & ~(BIT(player) - 1) & ~BIT(player) & (BIT(bound) - 1)) == 0); /* K1, K5 */
#if MUTANT != 12 /* the record says at which version that was bound */
    d = max(d, player);
#endif
    version++; /* COMMIT: rolled back */
    has_acked = false;
    refused = bound;
    bound = d;
    marked = false;
    final = true
}

/* Redis has version STORED of the session. */
inline refuse(stored)
{
    atomic {
        rolled = !(durable >= image_bound || (marked || final) && bound == image_bound)
    };
#if MUTANT == 6
    speak_refused(0); /* before it is rolled back */
#if WORKERS > 1
    speak_refused(1);
#endif
#endif
    do
    :: atomic { !rolled -> break }
    :: atomic { rolled -> skip };
        read_current();
        atomic {
            if
            :: !unchanged /* again */
            :: unchanged && is_newer(stored, d) -> /* what Redis has would be refused as well */
                rolled = false;
                break
            :: unchanged && !is_newer(stored, d) && bound != image_bound -> d = kept(d); break
            :: unchanged && !is_newer(stored, d) && bound == image_bound && is_acked(d) ->
#if MUTANT != 13
                rolled = false; /* another leader has acknowledged it */
#endif
                break
            :: unchanged && !is_newer(stored, d) && bound == image_bound && !is_acked(d) ->
                roll_back();
                break
            fi
        }
    od;
    if
    :: atomic { rolled -> rolled = false };
        speak_refused(0);
#if WORKERS > 1
        speak_refused(1)
#endif
    :: atomic { !rolled -> skip }
    fi;
    seen = 0; was_marked = false; d = 0
}

/* Was it written by an attempt whose answer was lost? */
inline settle_refused()
{
    if
    :: atomic { urgent && (ticket[0] == WAITING || ticket[WORKERS - 1] == WAITING) -> skip };
#if MUTANT == 7
        refuse(0)
#else
        ask(READ);
        if
        :: atomic { lost -> skip }
        :: atomic { !lost && answer >= image_bound -> image_version = (answer < image_version -> answer : image_version) };
            acknowledge()
        :: atomic { !lost && answer < image_bound -> skip };
            refuse(answer)
        fi
#endif
    :: atomic { !urgent || !(ticket[0] == WAITING || ticket[WORKERS - 1] == WAITING) -> skip }
    fi
}

/* ---------------------------------------------------------------- leading ------------------ */

/* Sends one command, or one batch, and waits for its answer, or no longer. */
inline ask(command)
{
    atomic { in[c] ! command, image_version, image_player };
    if
    :: atomic { out[c] ? result, answer, _ }
    :: atomic { drops < DROPS -> drops++; closed[c] = true; lost = true; result = 0 }
    fi
}

/* The record, with what is durable read first. */
inline read_record()
{
    atomic { d = durable };
    atomic {
        image_version = version; image_player = player; image_bound = bound;
        image_pending = bound != 0 && d < bound;
        d = 0
    }
}

inline take_lead()
{
    atomic {
        if
        :: connections < CONNECTIONS -> c = connections; connections++; lost = false; own = own | BIT(c)
        :: else -> exhausted = true; goto over
        fi
    };
    ask(SET);
    if
    :: atomic { !lost -> skip };
        ask(LOOK)
    :: atomic { lost -> skip }
    fi;
    atomic { lost = lost || answer != c + 1; answer = 0; result = 0 }
}

#define to_do (version != durable || judged(0) || judged(WORKERS - 1))
#define judged(w) (ticket[w] == WAITING && (says_refused(ticket_version[w]) || \
                                            says_durable(ticket_version[w], durable)))

proctype Persister(byte me) provided (living(_pid - 1))
{
    byte c, d, v, seen, answer, own;
    byte image_version, image_player, image_bound;
    mtype verdict, result;
    bit image_pending, was_marked, rolled, urgent, held, superseded, lost = true;
    byte holder_was;
#if MUTANT == 8
    bit have_read;
#endif
stand_by:
#ifndef SUPERSEDE
    me == FIRST || !living(FIRST); /* the lock */
#endif
    do
    :: atomic { lost -> skip };
#if MUTANT == 8
        read_record(); /* and uses it once it has the lead */
        have_read = true;
#endif
        take_lead()
    :: atomic { !lost && to_do -> skip };
        judge_ticket(0);
#if WORKERS > 1
        judge_ticket(1);
#endif
        urgent = (ticket[0] == WAITING || ticket[WORKERS - 1] == WAITING);
#if MUTANT == 8
        if
        :: atomic { have_read -> have_read = false }
        :: atomic { !have_read -> skip };
            read_record()
        fi;
#else
        read_record();
#endif
        if
        :: atomic { image_version != durable -> skip };
            ask(WRITE);
            atomic { holder_was = answer; held = (answer == c + 1) };
            if
            :: atomic { result == 0 || result == FENCED -> skip }
            :: atomic { result == OK -> skip };
                acknowledge()
            :: atomic { result == REFUSED -> skip };
                settle_refused()
            fi;
            atomic {
                if
#if MUTANT != 9
                :: !lost && !held && !(own & BIT(holder_was - 1)) -> superseded = true
                :: !lost && !held && (own & BIT(holder_was - 1)) -> lost = true
#endif
                :: else
                fi
            }
        :: atomic { image_version == durable -> skip }
        fi;
        atomic {
            image_version = 0; image_player = 0; image_bound = 0; image_pending = false;
            answer = 0; result = 0; held = false; holder_was = 0; urgent = false;
            if
            :: superseded && me == FIRST -> goto over /* and waits for the lock, which the other one holds */
            :: superseded && me == SECOND -> superseded = false; lost = true; goto stand_by
            :: else
            fi
        }
    od;
over:
    atomic { done = done | BIT(me) }
}

/* ---------------------------------------------------------------- the end ------------------ */

/* A refusal of a later binding lies between: who cannot tell says unknown, at the deadline. */
#define hopeless(w) (ticket[w] == WAITING && ticket_version[w] < refused)
#define answered(w) (ticket[w] == IDLE || hopeless(w))

init {
    byte p;
    atomic {
        if
        :: doomed = 0
#ifdef DEATHS
        :: doomed = BIT(FIRST)
#endif
        fi;
        run Worker(0);
#if WORKERS > 1
        run Worker(1);
#endif
        run Persister(FIRST);
        run Persister(SECOND);
        run Redis();
        run Death()
    };
    atomic {
        timeout ->
        assert(exhausted || version == durable);                                           /* K3 */
        assert(exhausted || stored_version == version && stored_player == player);         /* K3 */
        assert(exhausted || answered(0) && answered(WORKERS - 1));                         /* K3 */
        assert(!(said_refused & BIT(stored_player)) || exhausted)                          /* K2 */
    }
}
