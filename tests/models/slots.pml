/*
 * Slots and the index: claim, link, mark, unlink, retire, free; bucket heads; what survivors make of
 * a death (shm/layout.h "ownership word", shm/index.h, shm/recover.h).
 *
 * Two keys, one per bucket; the head of bucket 1 is not linked yet.  So the list is
 *
 *      H0 -> (key 0) -> H1 -> (key 1) -> END
 *
 * Workers insert and remove, one at a time or at once; a sweeper may sweep beside them; each may be
 * killed.  When nobody moves any more a survivor sweeps, and everything is counted.
 *
 *   in the code                              here
 *   walk_to, index_advance                   walk
 *   want_head, init_head, finish_head        want_head
 *   session_insert, insert_new, index_insert insert
 *   remove_slot of a session not STORED      remove
 *   recover_bury, index_remove, unlinked     bury, unlinked
 *   heap_claim_slot, heap_retire, release    claim, retire, leave
 *   sweep_slot, hold, adopt                  sweep_place
 *   index_reaches                            walk, with ONLY
 *   recover_head                             sweep_head
 *   worker_recover                           recover
 *
 * A step is one access of shared memory.  Where the code loads a word and then compares-and-swaps it,
 * and does nothing when that fails, both are one step: the failed one is a later load.
 *
 *   A1  A place is retired when no head leads to it any more (E2).                          P2
 *   A2  A place is in one limbo at most, and is freed by the one that its word names.       P4
 *   A3  Nobody reads a free place, and no link leads nowhere.                               P2
 *   A4  Of two that insert a key one succeeds; what is inserted can be found until it is
 *       removed.                                                                            W1
 *   A5  Without a death no sweep is needed.  After one, two sweeps find every place: it is
 *       free, or a session's that can be reached, or waits for its grace period.            P2
 *   A6  Nobody waits for anybody.  (No step here ever blocks; the run "cycles" shows that
 *       none goes round for ever, whoever has died or stopped.)                             P1
 *
 * A grace period is taken as given (reclaim.pml proves it): a retired place is freed when every
 * section that ran at that moment has ended.
 */
#include "common.pml"

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef OPS
#define OPS 1       /* of each worker */
#endif
#ifndef PLACES
#define PLACES 2
#endif
#ifndef SWEEPERS
#define SWEEPERS 0  /* beside the workers */
#endif
#define SURVIVOR (WORKERS + SWEEPERS)
#define EVERYBODY (BIT(SURVIVOR) - 1)

/* Link words.  What a link leads to has the number of its own link; END ends the list. */
#define H0 0
#define H1 1
#define FIRST 2
#define LAST (FIRST + PLACES - 1)
#define END 7
#define TARGET(w) ((w) & 7)
#define MARK 8
#define CLAIMED 16
#define CLAIM(p, target) (CLAIMED | (p) << 5 | (target))
#define CLAIMER(w) ((w) >> 5)
#define RETARGET(w, target) ((w) & ~7 | (target))
#ifdef ONE_BUCKET   /* both keys are neighbours, and no head is wanted */
#define BUCKET(k) 0
#else
#define BUCKET(k) (k)
#endif
#define IS_NODE(w) (TARGET(w) >= FIRST && TARGET(w) != END)

/* Ownership words; an owner is its number + 1. */
#define FREE 0
#define OWNED 1
#define LIVE 2
#define RETIRED 3
#define STATE(w) ((w) & 3)
#define OWNER(w) ((w) >> 2 & 7)
#define SEQ(w) ((w) >> 5)
#define LIFE(state, owner, seq) ((state) | (owner) << 2 | ((seq) & 7) << 5)
#define ME (me + 1)

byte link[LAST + 1];
byte life[LAST + 1];
bit key[LAST + 1];
bit current[LAST + 1];  /* 1: it has a record                          */
byte limbo[LAST + 1];   /* whose it is in, + 1                         */
byte pins[LAST + 1];    /* sections that its grace period waits for    */
byte inside;            /* who is in a section                         */
byte gone;              /* the dead who have been recovered            */
bit present[2];         /* the truth: is there a session of this key?  */

byte at_, n_;           /* scratch: 0 between steps                    */

/* ---------------------------------------------------------------- places ------------------- */

/* Sets at_ to R if the list leads there, or else to END. */
inline find(r)
{
    at_ = H0;
    n_ = 0;
    do
    :: at_ == r || at_ == END -> break
    :: else ->
        at_ = TARGET(link[at_]);
        n_++;
        assert(at_ != 0 && n_ <= PLACES + 2) /* A3 */
    od
}

inline retire(r)
{
    find(r);
    assert(at_ == END);                                /* A1 */
    assert(limbo[r] == 0 || !living(limbo[r] - 1));    /* A2 */
    life[r] = LIFE(RETIRED, ME, SEQ(life[r])); /* COMMIT: ours */
    limbo[r] = ME;
    pins[r] = inside;
    at_ = 0; n_ = 0
}

inline unlinked(r)
{
    if
    :: STATE(life[r]) == LIVE -> retire(r)
    :: else
    fi
}

inline own_publish(r)
{
    if
    :: STATE(life[r]) == OWNED -> life[r] = LIFE(LIVE, 0, SEQ(life[r]))
    :: else
    fi
}

inline enter()
{
    inside = inside | BIT(me)
}

inline drop_pins(mask)
{
    inside = inside & ~(mask);
    for (at_ : FIRST .. LAST) {
        pins[at_] = pins[at_] & ~(mask)
    };
    at_ = 0
}

/* A reclaim, or none yet: it comes with the next batch. */
inline leave()
{
    atomic {
        drop_pins(BIT(me));
        if
        :: for (at_ : FIRST .. LAST) {
               if
               :: limbo[at_] == ME && pins[at_] == 0 ->
                   assert(STATE(life[at_]) == RETIRED && OWNER(life[at_]) == ME); /* A2 */
                   life[at_] = LIFE(FREE, 0, SEQ(life[at_]) + 1);
                   limbo[at_] = 0;
                   link[at_] = 0;
                   key[at_] = 0
               :: else
               fi
           }
        :: skip
        fi;
        at_ = 0
    }
}

/* ---------------------------------------------------------------- walking ------------------ */

mtype = { START, LOAD, GOING, MARKED, UNLINKED, THERE };

/* Is the place wished for where WORD leads, without a visit? */
inline judge(k, to_head)
{
    status = (TARGET(word) == END || TARGET(word) == H1 && (to_head || k == 0) -> THERE : GOING)
}

/*
 * To the first node not before key K: `word` leads there, `from` holds it.  PAST: K's own nodes count
 * as before; ONLY: all of them but this one.  UNLINKS marked nodes on its way.  TO_HEAD: stops at
 * head 1.
 */
inline walk(k, past, unlinks, to_head, only)
{
    status = START;
    do
    :: atomic {
           status == START ->
           from = (BUCKET(k) == 1 && link[H1] != 0 && !(link[H1] & CLAIMED) -> H1 : H0);
           status = LOAD
       }
    :: atomic { status == LOAD -> word = link[from]; judge(k, to_head) }
    :: atomic {
           status == GOING ->
           assert(TARGET(word) != 0); /* A3 */
           if
           :: TARGET(word) == H1 -> from = H1; word = link[H1]; judge(k, to_head)
           :: else ->
               assert(STATE(life[TARGET(word)]) != FREE); /* A3 */
               next = link[TARGET(word)];
               if
               :: unlinks && (next & MARK) -> status = MARKED
               :: else ->
                   if
                   :: key[TARGET(word)] < k || key[TARGET(word)] == k &&
                      (past || only != 0 && only != TARGET(word)) ->
                       from = TARGET(word); word = next; judge(k, to_head)
                   :: else -> status = THERE
                   fi;
                   next = 0
               fi
           fi
       }
    :: atomic {
           status == MARKED ->
           if
#if MUTANT == 1
           :: TARGET(link[from]) == TARGET(word) -> link[from] = RETARGET(link[from], TARGET(next));
#else
           :: link[from] == word -> link[from] = RETARGET(word, TARGET(next)); /* COMMIT: unlinked */
#endif
               status = UNLINKED
           :: else -> status = START
           fi
       }
    :: atomic {
           status == UNLINKED ->
           unlinked(TARGET(word));
           word = RETARGET(word, TARGET(next));
           next = 0;
           judge(k, to_head)
       }
    :: atomic { status == THERE -> break }
    od
}

/* ---------------------------------------------------------------- bucket heads ------------- */

inline finish_head()
{
    if
    :: link[H1] & CLAIMED -> link[H1] = TARGET(link[H1])
    :: else
    fi
}

/* Claims head 1 if nobody has, and links it. */
inline want_head(k)
{
    if
#if MUTANT == 2
    :: atomic { BUCKET(k) == 1 && link[H1] == 0 -> claim = CLAIM(me, 0) }
#else
    :: atomic { BUCKET(k) == 1 && link[H1] == 0 -> claim = CLAIM(me, 0); link[H1] = claim }
#endif
    :: atomic { BUCKET(k) == 0 || link[H1] != 0 -> claim = 0 }
    fi;
    do
    :: atomic { claim == 0 -> break }
    :: atomic { claim != 0 -> skip };
        walk(1, false, true, true, 0);
        atomic {
            if
#if MUTANT == 2
            :: TARGET(word) != H1 -> link[H1] = TARGET(word)
#else
            :: TARGET(word) != H1 && link[H1] == claim ->
                claim = RETARGET(claim, TARGET(word)); link[H1] = claim
#endif
            :: else -> claim = 0
            fi
        }
        atomic {
            if
            :: claim != 0 && link[from] == word -> link[from] = RETARGET(word, H1) /* COMMIT: linked */
            :: claim != 0 && link[from] != word -> word = 0
            :: else
            fi
        }
        atomic {
            if
            :: claim != 0 && word != 0 -> finish_head(); claim = 0
            :: else
            fi
        }
    od
}

/* ---------------------------------------------------------------- operations --------------- */

/* Marks and unlinks the session in `node`. */
inline bury()
{
#if MUTANT != 3
    atomic { own_publish(node) };
#endif
    link[node] = link[node] | MARK; /* COMMIT: deleted */
#if MUTANT != 4
    walk(key[node], true, true, false, 0);
#endif
    atomic { unlinked(node) }
}

/* The session of key K in `node`, or 0. */
inline lookup(k)
{
    want_head(k);
    walk(k, false, false, false, 0);
    atomic { node = (IS_NODE(word) && key[TARGET(word)] == k -> TARGET(word) : 0) }
}

/* A free place in `node`, its record written; 0: no memory. */
inline claim_place(k)
{
    atomic {
        for (at_ : FIRST .. LAST) {
            if
            :: STATE(life[at_]) == FREE -> break
            :: else
            fi
        }
        node = (at_ <= LAST -> at_ : 0);
        at_ = 0;
        if
        :: node != 0 -> life[node] = LIFE(OWNED, ME, SEQ(life[node])); key[node] = k; current[node] = 1
        :: else
        fi
    }
}

/* Links the place in `node`; a twin that is there already is left where `word` leads. */
inline index_insert(k)
{
    do
    :: walk(k, false, true, false, 0);
        atomic {
            if
            :: IS_NODE(word) && key[TARGET(word)] == k -> break
            :: else
            fi;
            if
            :: link[from] == word ->
                link[node] = TARGET(word);
                link[from] = RETARGET(word, node); /* COMMIT: the session is there */
                assert(!present[k]);               /* A4 */
                present[k] = true;
                word = 0;
                break
            :: else
            fi
        }
    od
}

inline insert(k)
{
    do
    :: lookup(k);
        if
        :: atomic { node != 0 && current[node] -> break } /* EXISTS */
        :: atomic { node != 0 && !current[node] -> skip };
            bury()
        :: atomic { node == 0 -> skip };
            claim_place(k);
            if
            :: atomic { node == 0 -> break } /* no memory */
            :: atomic { node != 0 -> skip };
                index_insert(k);
                if
                :: atomic { word == 0 -> own_publish(node); break }
                :: atomic { word != 0 -> current[node] = 0 };
                    atomic { retire(node) }
                fi
            fi
        fi
    od
}

inline remove(k)
{
    lookup(k);
    if
    :: atomic {
           node != 0 && current[node] ->
           current[node] = 0; /* COMMIT: removed */
           assert(present[k]);
           present[k] = false
       };
       bury()
    :: atomic { node == 0 || !current[node] -> skip }
    fi
}

proctype Worker(byte me) provided (living(_pid - 1))
{
    byte status, from, word, next, claim, node, ops;
    do
    :: atomic { ops < OPS -> ops++; enter(); node = 0 };
        if
        :: insert(1)
        :: remove(1)
#ifndef ONE_KEY
        :: insert(0)
        :: remove(0)
#endif
        fi;
        leave()
    :: atomic { ops == OPS -> from = 0; word = 0; node = 0; status = 0; done = done | BIT(me); break }
    od
}

/* ---------------------------------------------------------------- recovery ----------------- */

/* Each dead one is proved dead by its lock; its announcement goes first, its name last. */
inline recover()
{
    atomic {
        if
        :: dead & ~gone -> drop_pins(dead & ~gone); gone = gone | dead
        :: else
        fi
    }
}

#define is_gone(owner) ((owner) == 0 || (gone & BIT((owner) - 1)))

inline sweep_owned()
{
#if MUTANT != 5
    walk(key[node], false, false, false, node);
#endif
    if
#if MUTANT != 5
    :: atomic { TARGET(word) == node -> own_publish(node) }
    :: atomic { TARGET(word) != node -> current[node] = 0 };
#else
    :: current[node] = 0;
#endif
        atomic {
            if
            :: life[node] == seen -> retire(node)
            :: else
            fi
        }
    fi
}

inline adopt()
{
    atomic {
        if
        :: life[node] == seen ->
            assert(limbo[node] == 0 || !living(limbo[node] - 1)); /* A2 */
#if MUTANT == 8
            life[node] = LIFE(FREE, 0, SEQ(seen) + 1); limbo[node] = 0; link[node] = 0
#else
            life[node] = LIFE(RETIRED, ME, SEQ(seen)); /* COMMIT: ours */
            limbo[node] = ME;
            pins[node] = inside
#endif
        :: else
        fi
    }
}

inline sweep_place(r)
{
    atomic { enter(); node = r; seen = life[r] };
    atomic { owner_gone = is_gone(OWNER(seen)) };
    if
    :: atomic { STATE(seen) == FREE || life[node] != seen -> skip }
    :: atomic { STATE(seen) == OWNED && life[node] == seen -> skip };
        if
#if MUTANT == 9
        :: skip;
#else
        :: atomic { owner_gone -> skip };
#endif
            sweep_owned()
        :: atomic { !owner_gone -> skip }
        fi
    :: atomic { STATE(seen) == LIVE && life[node] == seen -> skip };
        if
        :: atomic { !current[node] -> skip };
            bury()
        :: atomic { current[node] -> skip }
        fi
    :: atomic { STATE(seen) == RETIRED && life[node] == seen -> skip };
        if
#if MUTANT == 6
        :: skip;
#else
        :: atomic { owner_gone -> skip };
#endif
            adopt()
        :: atomic { !owner_gone -> skip }
        fi
    fi;
    leave()
}

inline sweep_head()
{
    atomic { enter(); claim = link[H1] };
    if
    :: atomic { (claim & CLAIMED) && (gone & BIT(CLAIMER(claim))) -> skip };
#if MUTANT != 7
        walk(1, false, false, true, 0);
#endif
        atomic {
            if
#if MUTANT != 7
            :: TARGET(word) == H1 -> finish_head()
            :: TARGET(word) != H1 && link[H1] == claim -> link[H1] = 0
#else
            :: link[H1] == claim -> link[H1] = 0
#endif
            :: else
            fi
        }
    :: atomic { !((claim & CLAIMED) && (gone & BIT(CLAIMER(claim)))) -> skip }
    fi;
    claim = 0;
    leave()
}

inline sweep()
{
    recover();
    ref = FIRST;
    do
    :: atomic { ref <= LAST -> skip };
        sweep_place(ref);
        ref++
    :: atomic { ref > LAST -> break }
    od;
    sweep_head()
}

proctype Sweeper(byte me) provided (living(_pid - 1))
{
    byte status, from, word, next, claim, node, seen, ref;
    bit owner_gone;
    sweep();
    atomic { from = 0; word = 0; node = 0; seen = 0; ref = 0; status = 0; done = done | BIT(me) }
}

/* ---------------------------------------------------------------- the end ------------------ */

/* A live session's, or in the hands of who will free it. */
#define settled(r) (STATE(life[r]) == LIVE && current[r] || \
                    STATE(life[r]) == RETIRED && limbo[r] != 0 && living(limbo[r] - 1) || \
                    STATE(life[r]) == FREE)

inline count_everything()
{
    n_ = 0;
    for (ref : FIRST .. LAST) {
        assert(settled(ref)); /* A5 */
        find(ref);
        assert((at_ == ref) == (STATE(life[ref]) == LIVE)); /* A5 */
        if
        :: STATE(life[ref]) == LIVE -> assert(present[key[ref]]); n_ = 0
        :: else
        fi
    };
    for (ref : 0 .. 1) {
        node = 0;
        for (seen : FIRST .. LAST) {
            if
            :: STATE(life[seen]) == LIVE && key[seen] == ref -> node++
            :: else
            fi
        };
        assert(node == present[ref]) /* A4 */
    };
    node = 0; seen = 0; ref = 0
}

active proctype Survivor()
{
    byte me = SURVIVOR, status, from, word, next, claim, node, seen, ref;
    bit owner_gone;
    atomic {
        if
        :: link[H0] = END
        :: link[H0] = FIRST; link[FIRST] = END; life[FIRST] = LIFE(LIVE, 0, 0); current[FIRST] = 1;
           if
           :: key[FIRST] = 0; present[0] = true
           :: key[FIRST] = 1; present[1] = true
           :: present[0] = true; present[1] = true;
              key[FIRST + 1] = 1; life[FIRST + 1] = LIFE(LIVE, 0, 0); current[FIRST + 1] = 1;
              link[FIRST] = FIRST + 1; link[FIRST + 1] = END
           fi
        fi;
        if
        :: doomed = 0
#ifdef DEATHS
        :: doomed = 1
#if SWEEPERS == 1
        :: doomed = BIT(WORKERS)
        :: doomed = BIT(WORKERS) | 1
#elif WORKERS > 1
        :: doomed = 3
#endif
#endif
        fi;
        for (ref : 0 .. WORKERS - 1) {
            run Worker(ref)
        };
#if SWEEPERS
        for (ref : WORKERS .. WORKERS + SWEEPERS - 1) {
            run Sweeper(ref)
        };
#endif
        run Death();
        ref = 0
    };
    atomic {
        timeout ->
        assert((done | dead) == EVERYBODY); /* A6 */
        find(END);                          /* A3 */
        if
        :: dead == 0 && SWEEPERS == 0 -> count_everything() /* A5 */
        :: else
        fi;
        sweep();
        sweep();
        count_everything();
        assert(!(link[H1] & CLAIMED)) /* A5 */
    }
}
