/*
 * Changes that wait, and are taken back by who made them; removals (lib/wait.c, lib/metadata.c,
 * lib/session.c; lib/store.h S3, S4; judge_removal and fate in the store).
 *
 * One session with one key, which workers set, delete, or remove and insert again; each waits for
 * Redis.  Whom it is refused takes it back by one more change, unless somebody changed the same on top.
 * Redis refuses a write, or takes the record and not the metadata, or its answer is lost; the leader is
 * killed, or superseded and goes on; workers are killed, or their time is up.
 *
 *   in the code                                    here
 *   session_change, remove_slot, session_insert    change
 *   ticket_post, ticket_await                      Worker
 *   edit_back, edit_state_back, settle_insert      take_back
 *   take_ticket, ticket_judge, judge_removal       judge_ticket
 *   store_examine                                  read_record
 *   batch_write, judge_executed                    write
 *   store_ack, raise_durable, ack_delete           acknowledge
 *   fate, speak                                    speak_acked
 *   answer_refused, read_back, is_whole            settle_refused
 *   store_deny, deny                               deny
 *
 * That nothing which another connection left behind is executed is acknowledge.pml's to prove: here a
 * batch of who does not lead any more is executed not at all, and one of a dead leader at once.
 *
 *   C1  Told OK: Redis has had it, and it is what is there when nobody moves, but for later changes
 *       that were not refused.  (A removal: no Redis ever has that session again.)
 *   C2  Told refused: it is not there, nor is it ever again; who was told anything else of a change has
 *       not lost it by that.
 *   C3  When nobody moves, Redis has what the table has, and all who wait have been answered.
 *   C4  A verdict is said to the ticket that it was found for, once.
 *
 * A value's name is the version at which it was set; 0: the key is not there.  A state is as a session
 * that was inserted: taken back only if the record is still the one that the change has made.
 */
#include "common.pml"

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef CHANGES
#define CHANGES 1      /* of the first worker; the others make one */
#endif
#ifndef DROPS
#define DROPS 0        /* answers that are lost */
#endif
#ifndef REFUSALS
#define REFUSALS 1     /* writes that Redis refuses, or takes in part */
#endif

#define FIRST WORKERS  /* process numbers: workers, first leader, second leader */
#define SECOND (WORKERS + 1)
#define NOBODY 255
#define VERSIONS 14

#define max(a, b) ((a) > (b) -> (a) : (b))

#if WORKERS == 1
#define each(what) what(0)
#elif WORKERS == 2
#define each(what) what(0); what(1)
#else
#define each(what) what(0); what(1); what(2)
#endif

mtype = { NOTHING, SET, DELETE, REMOVE, INSERT };
mtype = { IDLE, WAITING, DURABLE, REFUSED, GONE, UNKNOWN };

/* ---------------------------------------------------------------- the session -------------- */

/* `current` is {version, tomb, gone}: one compare-and-swap changes all of these. */
byte version = 1, value = 1, shrunk = 1, born = 1, generation = 1;
bit tomb, gone;
byte durable = 1;
#define live (!tomb && !gone)

mtype ticket[WORKERS] = IDLE;
byte ticket_version[WORKERS], ticket_generation[WORKERS];
bit ticket_removal[WORKERS];

/* Redis */
byte stored_version = 1, stored_value = 1, stored_generation = 1; /* generation 0: nothing */
byte stored_whole = 1; /* the newest version of which Redis has had all */
byte refusals, drops;

byte leader = NOBODY;

/* What was done and said, to judge it by: by version; and generations that are gone for good. */
mtype made[VERSIONS];
short told_refused, taken_back, said_removed;

/* ---------------------------------------------------------------- changing ----------------- */

#define next_version() version++; made[version] = op; mine = version; life = generation

inline change()
{
    if
    :: atomic { live -> op = SET; was = value; next_version(); value = mine }
#ifdef DELETES
    :: atomic { live && value -> op = DELETE; was = value; next_version(); value = 0; shrunk = mine }
#endif
#ifdef REMOVALS
    :: atomic { live -> op = REMOVE; next_version(); tomb = true }
    :: atomic {
           tomb && !gone -> op = INSERT; generation++; next_version();
           tomb = false; value = mine; born = mine; shrunk = mine
       }
    :: atomic { gone -> goto over }
#endif
    fi
}

/* What stands of the key: the entry's version, or that at which it was deleted last. */
#if MUTANT == 2
#define standing value /* a deletion asks only whether the key is away */
#define as_made (op == DELETE -> 0 : mine)
#else
#define standing (value -> value : shrunk)
#define as_made mine
#endif

inline take_back()
{
    atomic {
        if
        :: !live || generation != life -> verdict = REFUSED
        :: live && generation == life && op == INSERT ->
            if
#if MUTANT == 3
            :: true -> version++; tomb = true; verdict = REFUSED
#else
            :: version == born -> version++; tomb = true; verdict = REFUSED
            :: version != born -> verdict = UNKNOWN
#endif
            fi
        :: live && generation == life && op != INSERT ->
            if
            :: standing == as_made ->
                version++; value = was; verdict = REFUSED;
#if MUTANT != 4
                shrunk = (was -> shrunk : version);
#endif
                assert(!(told_refused & BIT(value)))                                   /* C2 */
            :: standing != as_made ->
#if MUTANT == 1
                verdict = REFUSED /* who is on top may put it back */
#else
                verdict = UNKNOWN
#endif
            fi
        fi;
        taken_back = taken_back | (verdict == REFUSED -> BIT(mine) : 0)
    }
}

inline tell()
{
    atomic {
        if
        :: verdict == REFUSED ->
            assert(value != mine || !live);                                            /* C2 */
            told_refused = told_refused | BIT(mine)
        :: else
        fi;
        verdict = 0; mine = 0; was = 0; life = 0; op = 0
    }
}

proctype Worker(byte me) provided (living(_pid - 1))
{
    byte mine, was, life, changes;
    mtype op, verdict;
again:
    change();
    atomic {
        ticket_version[me] = mine; ticket_generation[me] = life; ticket_removal[me] = (op == REMOVE);
        ticket[me] = WAITING
    };
    if
    :: atomic { ticket[me] != WAITING -> verdict = ticket[me]; ticket[me] = IDLE }
#ifdef DEADLINES
    :: atomic { ticket[me] == WAITING -> verdict = UNKNOWN; ticket[me] = IDLE } /* COMMIT: unknown */
#endif
    fi;
    if
    :: atomic { verdict == REFUSED -> skip };
        take_back()
    :: atomic { verdict != REFUSED -> skip }
    fi;
    tell();
    if
    :: atomic { me == 0 && changes + 1 < CHANGES -> changes++; goto again }
    :: atomic { me != 0 || changes + 1 == CHANGES -> skip }
    fi;
over:
    atomic { done = done | BIT(me) }
}

/* ---------------------------------------------------------------- verdicts ----------------- */

inline say(w, what, found)
{
    if
#if MUTANT == 5
    :: true -> /* a store, where a compare-and-swap from the word that was seen should be */
        assert(ticket[w] == WAITING && ticket_version[w] == found);                    /* C4 */
#else
    :: ticket[w] == WAITING && ticket_version[w] == found ->
#endif
        ticket[w] = what; /* COMMIT: said */
        if
        :: what == DURABLE && ticket_removal[w] ->
            assert(stored_generation != ticket_generation[w]);                         /* C1 */
            said_removed = said_removed | BIT(ticket_generation[w])
        :: what == DURABLE && !ticket_removal[w] -> assert(stored_whole >= found)        /* C1 */
        :: what != DURABLE
        fi
    :: else
    fi
}

#define settle_verdict(w)                                                                          \
    atomic {                                                                                       \
        if                                                                                         \
        :: verdict != 0 -> say(w, verdict, v)                                                      \
        :: else                                                                                    \
        fi;                                                                                        \
        v = 0; verdict = 0                                                                         \
    }

#define same_life(w) (live && ticket_generation[w] == generation)
#if MUTANT == 6
#define removed(w) (ticket_generation[w] != generation || gone) /* as soon as it was revived */
#else
#define removed(w) (gone || ticket_generation[w] != generation && durable >= ticket_version[w])
#endif

/* What can be said at once; who waits for more hangs on the image. */
inline take_ticket(w)
{
    atomic {
        v = ticket_version[w];
        if
        :: ticket[w] == WAITING && !living(w) -> ticket[w] = IDLE /* recovered */
        :: ticket[w] == WAITING && living(w) && ticket_removal[w] && removed(w) -> verdict = DURABLE
        :: ticket[w] == WAITING && living(w) && !ticket_removal[w] && !same_life(w) -> verdict = GONE
        :: ticket[w] == WAITING && living(w) && !ticket_removal[w] && same_life(w) && durable >= v ->
            verdict = DURABLE
        :: else -> hung = hung | (ticket[w] == WAITING -> BIT(w) : 0)
        fi
    };
    settle_verdict(w)
}

#define hangs(w) ((hung & BIT(w)) && ticket[w] == WAITING && ticket_version[w] <= image_version &&   \
                  ticket_generation[w] == image_generation)

inline speak_acked(w)
{
    atomic {
        v = ticket_version[w];
        if
        :: hangs(w) && image_delete -> verdict = (ticket_removal[w] -> DURABLE : GONE)
        :: hangs(w) && !image_delete && !ticket_removal[w] -> verdict = DURABLE
        :: else
        fi
    };
    settle_verdict(w)
}

inline deny(w)
{
    atomic {
        v = ticket_version[w];
        if
        :: hangs(w) && v > held && !ticket_removal[w] -> verdict = REFUSED
        :: else
        fi
    };
    settle_verdict(w)
}

/* ---------------------------------------------------------------- leading ------------------ */

/* What is durable is read first. */
inline read_record()
{
    atomic { d = durable };
    atomic {
        image_version = version; image_value = value; image_generation = generation;
        image_delete = tomb; replace = d < shrunk || d < born;
        nothing = gone || !tomb && d == version;
        d = 0
    }
}

inline store_in_redis(all_of_it)
{
    assert(image_version >= stored_version);                                           /* C1 */
    assert(image_delete || !(said_removed & BIT(image_generation)));                   /* C1 */
    stored_version = image_version;
    if
    :: image_delete -> stored_generation = 0; stored_value = 0
    :: !image_delete ->
        stored_generation = image_generation;
        if
        :: replace && !all_of_it -> stored_value = 0
        :: all_of_it && (replace || image_value) -> stored_value = image_value
        :: else /* what is not there any more is left alone */
        fi
    fi;
    stored_whole = (image_delete || stored_value == image_value -> image_version : stored_whole)
}

/* One batch, fenced: what becomes of it, and what is heard of that. */
inline write()
{
    atomic {
        if
        :: leader != me -> result = UNKNOWN
        :: leader == me -> store_in_redis(true); result = DURABLE
        :: leader == me && refusals < REFUSALS -> refusals++; result = REFUSED
#ifdef IN_PART
        :: leader == me && !image_delete && refusals < REFUSALS ->
            refusals++; store_in_redis(false); in_part = true; result = REFUSED
#endif
        :: leader == me && drops < DROPS -> drops++; store_in_redis(true); result = UNKNOWN
        fi
    }
}

/* store_ack: nothing, from who is known to be late. */
inline acknowledge()
{
    if
    :: atomic { leader != me -> skip }
    :: atomic { leader == me -> skip };
        atomic { durable = max(durable, image_version) }; /* COMMIT: durable */
        atomic {
#if MUTANT == 7
            gone = gone || image_delete /* whoever has revived it */
#else
            gone = gone || image_delete && tomb && version == image_version /* COMMIT: dead */
#endif
        };
        each(speak_acked)
    fi
}

/* What an earlier attempt has brought there, whose answer was lost, is not denied. */
inline settle_refused()
{
    if
    :: atomic { hung && !image_delete -> skip };
        atomic {
            held = (stored_generation == image_generation && !in_part -> stored_version : 0);
#if MUTANT == 8
            whole = (held == image_version) /* with or without the metadata */
#else
            whole = (held == image_version && stored_value == image_value)
#endif
        };
        if
        :: atomic { whole && version == image_version -> whole = false };
            acknowledge()
        :: atomic { !whole || version != image_version -> whole = false };
            if
            :: atomic { leader != me -> skip }
            :: atomic { leader == me -> skip };
                each(deny)
            fi
        fi
    :: atomic { !hung || image_delete -> skip }
    fi
}

#define judged(w) (ticket[w] == WAITING &&                                                         \
                   (!living(w) || (ticket_removal[w] -> removed(w)                                \
                                                     : !same_life(w) || durable >= ticket_version[w])))
#define to_do (!gone && (tomb || version != durable) || judged(0) || judged(WORKERS - 1) || judged(WORKERS / 2))

proctype Persister(byte me) provided (living(_pid - 1))
{
    byte d, v, hung, held;
    byte image_version, image_value, image_generation;
    bit image_delete, replace, nothing, whole, in_part;
    mtype verdict, result;
#ifdef SUPERSEDE
    me == FIRST || leader == FIRST; /* stopped for long enough, whatever it does */
#else
    me == FIRST || !living(FIRST);  /* the lock */
#endif
    atomic { leader = me };
    do
    :: atomic { leader != me -> break }
    :: atomic { leader == me && to_do -> skip };
        each(take_ticket);
        read_record();
        if
        :: atomic { nothing -> skip }
        :: atomic { !nothing -> skip };
            write();
            if
            :: atomic { result == UNKNOWN -> skip } /* given back */
            :: atomic { result == DURABLE -> skip };
                acknowledge()
            :: atomic { result == REFUSED -> skip };
                settle_refused()
            fi
        fi;
        atomic {
            hung = 0; held = 0; in_part = false; replace = false; nothing = false; result = 0;
            image_version = 0; image_value = 0; image_generation = 0; image_delete = false
        }
    od;
    atomic { done = done | BIT(me) }
}

/* ---------------------------------------------------------------- the end ------------------ */

/* The last change that was not taken back is what is there; told refused, nobody sees it. */
inline judge_all()
{
    last = VERSIONS - 1;
    do
    :: last && (made[last] == 0 || (taken_back & BIT(last))) -> last--
    :: else -> break
    od;
    assert(last == 0 || (made[last] == REMOVE) == !live);                              /* C1, C2 */
    assert(!live || value == (last == 0 -> 1 : (made[last] == DELETE -> 0 : last)));  /* C1, C2 */
}

init {
    byte last;
    atomic {
        if
        :: doomed = 0
#ifdef DEATHS
        :: doomed = BIT(FIRST)
        :: doomed = BIT(0)
#endif
        fi;
        run Worker(0);
#if WORKERS > 1
        run Worker(1);
#endif
#if WORKERS > 2
        run Worker(2);
#endif
        run Persister(FIRST);
        run Persister(SECOND);
        run Death()
    };
    atomic {
        timeout ->
        assert(gone || version == durable);                                                /* C3 */
        assert(tomb == false || gone);                                                     /* C3 */
        assert(gone == (stored_generation == 0));                                          /* C3 */
        assert(gone || stored_version == version && stored_value == value);                /* C3 */
        assert(ticket[0] != WAITING && ticket[WORKERS - 1] != WAITING && ticket[WORKERS / 2] != WAITING); /* C3 */
        judge_all()
    }
}
