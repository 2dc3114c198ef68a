/*
 * Reclamation: eras, intervals, and fences that only one side pays for (shm/rcu.h).
 *
 * A list of at most two places, H -> .. -> END, that writers change while a reader walks it.  Memory is
 * x86's: the stores of a process wait in its buffer and become visible in order, any time later;
 * its own compare-and-swaps empty the buffer, and a heavy fence of anybody empties everybody's.
 *
 *   in the code                                here
 *   rcu_enter, rcu_extend, rcu_exit            enter, extend, leave
 *   index_advance, protect                     walk
 *   index_lookup (passes marked nodes)         walk, while `fast`
 *   record_in (the link is slot.current)       walk: it is a head's link, which is never marked
 *   hold (a place met without a link)          meet
 *   a visit to the session that a hint names   walk, with VISITS
 *   be_born: the claimer holds what it claims  make
 *   heap_claim_*, index_insert                 insert
 *   index_remove, unlinked, heap_retire        mark, unlink
 *   rcu_reclaim, intervals, pinned, release    reclaim
 *   context_fill: a thread attaches            Attacher: the era rises at any time
 *   worker_recover of the reader's thread      Recovery
 *
 * What a writer does to links is one step each: that this is right is slots.pml's.
 *
 *   R1  A place is read only in the life in which the reader got to it.                     P2
 *   R2  A reader comes to its end, whoever stops or dies (run "cycles").                    P1
 *   R3  What was born after the eras that a stopped reader has announced is freed.          P6
 */
#include "common.pml"

#ifndef OPS
#define OPS 5       /* steps of all writers: insert, mark, unlink, reclaim */
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef SECTIONS
#define SECTIONS 1  /* of the reader */
#endif
#ifndef ATTACHES
#define ATTACHES 0
#endif

#define READER 0
#define IDLE 255

#define H 0         /* links and places have one number: H is no place */
#define A 1
#define B 2
#define END 3
#define TARGET(w) ((w) & 3)
#define MARK 4

#define FREE 0
#define OWNED 1
#define LIVE 2
#define RETIRED 3

byte link[3];
byte state[3];
byte lives[3];      /* ends of life so far                          */
byte birth[3];      /* as memory shows it                           */
byte born[3];       /* as the limbo remembers it                    */
byte retired[3];    /* 0: not stamped yet                           */
byte owner[3];      /* whose limbo it is in                         */
byte era = 1;
byte lo = IDLE, hi; /* of the reader, as memory shows them          */
bit recovered;      /* its thread is no longer live                 */
bit for_ever;       /* who stops is stopped, not dead               */
byte ops, attaches;

/* ---------------------------------------------------------------- store buffers ------------ */

#define LO 4
#define HI 5
chan late[1 + WRITERS] = [4] of { byte, byte }; /* {LO, HI or the place of a birth; value} */

byte where_, value_, at_, p_; /* scratch: 0 between steps */

inline oldest(p)
{
    late[p] ? where_, value_;
    if
    :: where_ == LO -> lo = value_
    :: where_ == HI -> hi = value_
    :: else -> birth[where_] = value_
    fi;
    where_ = 0; value_ = 0
}

inline drain(p)
{
    do
    :: nempty(late[p]) -> oldest(p)
    :: empty(late[p]) -> break
    od
}

inline drain_all()
{
    for (p_ : 0 .. WRITERS) {
        drain(p_)
    };
    p_ = 0
}

/* Takes a store whenever it likes; also of who is stopped or dead. */
proctype Memory()
{
    do
    :: d_step { nempty(late[0]) -> oldest(0) }
    :: d_step { nempty(late[1]) -> oldest(1) }
#if WRITERS > 1
    :: d_step { nempty(late[2]) -> oldest(2) }
#endif
    od
}

/* ---------------------------------------------------------------- the reader --------------- */

/* R1 */
#define right(place, life) ((state[place] == LIVE || state[place] == RETIRED) && lives[place] == life)

inline enter()
{
    atomic {
        my_hi = era;
#if MUTANT == 3
        late[READER] ! LO, my_hi; /* and never hi */
#else
        late[READER] ! HI, my_hi;
        late[READER] ! LO, my_hi /* rcu_enter:B */
#endif
    }
}

inline extend()
{
    atomic {
        my_hi = era;
        late[READER] ! HI, my_hi /* rcu_extend:B */
    }
}

inline leave()
{
    late[READER] ! LO, IDLE /* rcu_exit:C */
}

inline load_link(at)
{
    word = link[at];
    life = (TARGET(word) == END -> 0 : lives[TARGET(word)])
}

/* Along the list to its end; what it stands on is read again before it goes on. */
inline walk()
{
    atomic { from = H; load_link(H) };
    do
    :: atomic { TARGET(word) == END -> break }
    :: atomic { TARGET(word) != END -> older = (birth[TARGET(word)] <= my_hi) };
        if
        :: atomic { !older && fast -> fast = false; from = H; load_link(H) }
        :: atomic { !older && !fast -> skip };
            extend();
            atomic {
                if
#if MUTANT == 1
                :: skip /* does not re-load the link */
#elif MUTANT == 2
                :: link[from] != word -> from = H; load_link(H)
                :: link[from] == word && (word & MARK) /* trusts a marked one */
                :: link[from] == word && !(word & MARK) -> load_link(from)
#else
                :: link[from] != word || (word & MARK) -> from = H; load_link(H)
                :: link[from] == word && !(word & MARK) -> load_link(from) /* got it afresh */
#endif
                fi
            }
        :: atomic {
               older ->
               assert(right(TARGET(word), life)); /* R1 */
#if MUTANT == 4
               if /* restarts at every mark */
               :: link[TARGET(word)] & MARK -> from = H; load_link(H)
               :: else -> from = TARGET(word); stands = life; load_link(from)
               fi
#else
               from = TARGET(word); stands = life; load_link(from)
#endif
           };
            atomic {
                assert(from == H || right(from, stands)); /* R1 */
                older = false
            }
#ifdef VISITS
            ;
            if
            :: skip
            :: extend(); /* to read the session that the node leads to */
                atomic { load_link(from) };
                if
#if MUTANT != 12
                :: atomic { (word & MARK) -> from = H; load_link(H) }
                :: atomic { !(word & MARK) -> skip }
#else
                :: skip
#endif
                fi
            fi
#endif
        fi
    od
}

/* A sweeper comes to a place by its number. */
inline meet(place)
{
    atomic { word = state[place]; life = lives[place] };
    if
    :: atomic { word == LIVE && birth[place] > my_hi -> skip };
        extend()
    :: atomic { word == LIVE && birth[place] <= my_hi -> skip }
    :: atomic { word != LIVE -> skip }
    fi;
    if
    :: atomic { word == LIVE && state[place] == LIVE && lives[place] == life -> skip };
        assert(right(place, life)) /* R1 */
    :: atomic { word != LIVE || state[place] != LIVE || lives[place] != life -> skip }
    fi
}

/* Claims a place, links it, and comes back to say that it is LIVE. */
inline make(place)
{
    if
    :: atomic {
           state[place] == FREE ->
           drain(READER); state[place] = OWNED; link[place] = END; life = lives[place]; word = era
       };
        atomic { late[READER] ! place, word };
#if MUTANT != 11
        if
        :: atomic { word > my_hi -> skip };
            extend()
        :: atomic { word <= my_hi -> skip }
        fi;
#endif
        atomic { drain(READER); link[place] = TARGET(link[H]); link[H] = place; state[place] = LIVE };
        assert(right(place, life)) /* R1 */
    :: atomic { state[place] != FREE -> skip }
    fi
}

proctype Reader() provided (living(_pid - 1))
{
    byte my_hi, from, word, life, stands, sections;
    bit older, fast;
    do
    :: atomic { sections < SECTIONS -> sections++ };
        enter();
        if
        :: fast = true; walk()
        :: walk()
#ifdef MEETS
        :: meet(B)
#endif
#ifdef MAKES
        :: make(B)
#endif
        fi;
        atomic {
            leave();
            from = 0; word = 0; life = 0; stands = 0; my_hi = 0; fast = false
        }
    :: atomic { sections == SECTIONS -> done = done | BIT(READER); break }
    od
}

/* ---------------------------------------------------------------- writers ------------------ */

/* The last place in the list before PLACE, or before its end. */
inline find_before(place)
{
    at_ = H;
    do
    :: TARGET(link[at_]) == place || TARGET(link[at_]) == END -> break
    :: else -> at_ = TARGET(link[at_])
    od
}

/* Behind PRED, where that is linked and not deleted. */
inline insert(place)
{
    atomic { state[place] == FREE -> drain(me); state[place] = OWNED; ops++ }; /* COMMIT: claimed */
#if MUTANT != 7
    now = era;
    late[me] ! place, now;
#endif
    atomic {
        drain(me);
        find_before(3 - place); /* the other place, if it is in the list */
        if
        :: pred = H
        :: TARGET(link[at_]) == 3 - place && !(link[3 - place] & MARK) -> pred = 3 - place
        fi;
        link[place] = TARGET(link[pred]);
        link[pred] = place; /* COMMIT: linked */
        state[place] = LIVE;
        pred = 0; at_ = 0
    };
#if MUTANT == 7
    now = era;
    late[me] ! place, now;
#endif
    now = 0
}

#define deleted(place) (state[place] == LIVE && (link[place] & MARK))

inline unlink(place)
{
    atomic {
        /* The first deleted one: what is before it is not. */
        deleted(place) && !(deleted(3 - place) && TARGET(link[3 - place]) == place) ->
        ops++;
        drain(me);
        find_before(place);
        link[at_] = TARGET(link[place]); /* COMMIT: unlinked */
        state[place] = RETIRED;
        owner[place] = me;
        born[place] = birth[place];
#if MUTANT == 6
        retired[place] = began;
#else
        retired[place] = 0;
#endif
        at_ = 0
    }
}

inline stamp(place)
{
    if
    :: state[place] == RETIRED && owner[place] == me && retired[place] == 0 -> retired[place] = now
    :: else
    fi
}

#if MUTANT == 9
#define pinned(place) (!recovered && low != IDLE && retired[place] >= low) /* epochs */
#else
#define pinned(place) (!recovered && low != IDLE && born[place] <= high && retired[place] >= low)
#endif

inline release(place)
{
    if
    :: state[place] == RETIRED && owner[place] == me && !pinned(place) ->
        state[place] = FREE;
        lives[place]++;
        owner[place] = 0; born[place] = 0; retired[place] = 0; link[place] = END;
#if MUTANT == 8
        birth[place] = 0
#endif
    :: else
    fi
}

inline reclaim()
{
    atomic { (state[A] == RETIRED && owner[A] == me || state[B] == RETIRED && owner[B] == me) -> ops++ };
#if MUTANT != 5
    d_step { drain_all() }; /* rcu_heavy_fence */
#endif
    atomic { now = era; stamp(A); stamp(B) };
    d_step {
        drain(me);
        if
        :: era == now -> era++
        :: else
        fi
    };
    low = lo; /* rcu_reclaim:A, rcu_reclaim:D */
    high = hi;
    atomic { release(A); release(B); now = 0; low = 0; high = 0 }
}

proctype Writer(byte me) provided (living(_pid - 1))
{
    byte now, pred, low, high;
#if MUTANT == 6
    byte began = 1; /* the era in which its section began */
#endif
    do
    :: ops < OPS ->
        if
        :: insert(A)
        :: insert(B)
        :: atomic { state[A] == LIVE && !deleted(A) -> ops++; drain(me); link[A] = link[A] | MARK }
        :: atomic { state[B] == LIVE && !deleted(B) -> ops++; drain(me); link[B] = link[B] | MARK }
        :: unlink(A)
        :: unlink(B)
        :: reclaim()
        :: break
        fi
    :: ops >= OPS -> break
    od;
    done = done | BIT(me)
}

/* ---------------------------------------------------------------- others ------------------- */

proctype Attacher()
{
    do
    :: atomic { attaches < ATTACHES -> attaches++; era++ }
    od
}

/* Only who is proved dead is recovered. */
proctype Recovery()
{
    do
#if MUTANT == 10
    :: atomic { !recovered -> recovered = true }
#else
    :: atomic { !recovered && !living(READER) && !for_ever -> drain(READER); recovered = true }
#endif
    od
}

/* When nobody moves: a last reclaim by each, and then nothing younger than HI may be left. */
inline last_look(place)
{
    if
    :: state[place] == RETIRED && living(owner[place]) ->
        me = owner[place];
        stamp(place);
        release(place);
        assert(state[place] == FREE || birth[place] <= hi) /* R3 */
    :: else
    fi
}

init {
    byte me, now, low, high;
    atomic {
        link[H] = A; link[A] = END; link[B] = END; state[A] = LIVE; birth[A] = 1;
        if
        :: doomed = 0
#ifdef DEATHS
        :: doomed = BIT(READER); for_ever = false
        :: doomed = BIT(READER); for_ever = true
        :: doomed = BIT(1)
#endif
        fi;
        run Reader();
        for (me : 1 .. WRITERS) {
            run Writer(me)
        };
        run Memory();
        run Attacher();
        run Recovery();
        run Death();
        me = 0
    };
    atomic {
        timeout ->
        assert((done | dead) == BIT(1 + WRITERS) - 1); /* R2 */
        now = era; low = lo; high = hi;
        last_look(A);
        last_look(B)
    }
}
