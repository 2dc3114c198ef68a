/*
 * What all models share: who lives, and who dies when.
 *
 * A process is `provided (living(_pid - 1))` (the active one, that runs the others, is _pid 0): once its bit in `dead` is set it takes no further step, wherever
 * it stands.  What a death releases (its lock, at once) shows as that bit; what a survivor has made
 * of it is the model's own.  Being stopped needs nothing: any process may be overtaken by any other
 * at every step, for as long as the search goes on.
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define BIT(p) (1 << (p))
#define living(p) (!(dead & BIT(p)))

byte dead;    /* have died                                   */
byte doomed;  /* will die, unless they end before            */
byte done;    /* have ended                                  */

/* Kills the doomed, each after any of its steps. */
proctype Death()
{
    byte p;
    do
    :: atomic {
           (doomed & ~dead & ~done) != 0 ->
           if
           :: doomed & ~dead & ~done & 1 -> p = 0
           :: doomed & ~dead & ~done & 2 -> p = 1
           :: doomed & ~dead & ~done & 4 -> p = 2
           :: doomed & ~dead & ~done & 8 -> p = 3
           fi;
           dead = dead | BIT(p);
           p = 0
       }
    od
}

/* At the end of every process. */
inline finish()
{
    d_step { done = done | BIT(me) }
}
