/*
 * The survivor: goes on at once after the victim's death (load.c), recovers, and judges what is
 * left.  Beside it the rival, who recovers at the same time.
 */
#include "tests/crash/crash.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/recover.h"
#include "shm/wait.h"

enum { HUNG_SECONDS = 60 };

/* ---------------------------------------------------------------- recovery ------------------ */

static void sweep_heap(struct world *w)
{
    struct context *c = world_context(w);
    for (uint64_t i = 0; i < w->table->shm.header->committed; i++) {
        recover_sweep(c, (unsigned)i);
        heap_rehint(c->shm, (unsigned)i);
    }
}

static void free_garbage(struct world *w)
{
    struct context *c = world_context(w);
    for (int i = 0; i < 3 && c->limbo.count; i++)
        rcu_reclaim(c);
}

/* As a persister does it: judges who is dead, sweeps, answers and writes everything, as leader. */
static void recover(struct world *w)
{
    store_recover(w->table, NULL, 0, NULL);
    if (w->store)
        check(store_lead(w->store));
    for (int round = 0; round < 2; round++) {
        w->table->shm.header->sweep_wanted = 1;
        store_drain(w);
        if (!w->store)
            sweep_heap(w);
    }
    free_garbage(w);
    check(!w->store || store_lag(w->store) == 0);
}

static bool victim_is_attached(const struct world *w)
{
    uint64_t owner = w->stage->victim_owner;
    return owner && load_acquire(&w->table->shm.workers[w->stage->victim_slot].owner) == owner;
}

/* ---------------------------------------------------------------- judging ------------------- */

static void expect_one_of_three(const struct world *w, const struct image *seen)
{
    if (image_equal(seen, &w->before) || image_equal(seen, &w->after) ||
        (w->published.size && image_equal(seen, &w->published)))
        return;
    fprintf(stderr, "the session is neither as before nor as after: size %u (%u, %u), seen %+lld\n",
            seen->size, w->before.size, w->after.size, (long long)(seen->last_seen - START_TIME));
    check(!"entirely there or entirely absent");
}

/* The one of the three that became VERSION when it was detached; NULL: none. */
static const struct image *before_detaching(struct world *w, uint64_t version)
{
    const struct image *const known[] = { &w->before, &w->published, &w->after };
    for (unsigned i = 0; i < 3; i++)
        if (known[i]->present && ((const struct block *)known[i]->record)->version + 1 == version)
            return known[i];
    return NULL;
}

/* C1 after a recovery without a load before it: an owner that died has left it detached. */
static void expect_one_or_detached(struct world *w, const struct image *now)
{
    sesstab_view v, wanted;
    const struct image *was = NULL;
    if (now->present) {
        image_view(now, w->handle, &v);
        was = v.state == SESSTAB_DETACHED ? before_detaching(w, v.version) : NULL;
    }
    if (!was) {
        expect_one_of_three(w, now);
        return;
    }
    image_view(was, w->handle, &wanted);
    check(!sesstab_owner_alive(w->table, v.owner));
    check_equal(v.owner, wanted.owner);
    check_string(v.player, wanted.player);
    expect_kept(&wanted, &v);
}

/* C4. */
static void expect_others_untouched(struct world *w)
{
    struct context *c = world_context(w);
    struct image now;
    for (uint64_t h = 1; h <= OTHERS; h++) {
        image_take(&now, w->table, h);
        check(image_equal(&now, &w->others[h]));
        rcu_enter(c);
        struct slot s = *index_lookup(c, h);
        rcu_exit(c);
        s.node.next = w->other_slots[h].node.next;
        check(memcmp(&s, &w->other_slots[h], sizeof s) == 0);
    }
}

static void inspect(struct world *w)
{
    char output[2000];
    const char *const argv[] = { program("shmdump"), "--check", "--strict", w->name, NULL };
    if (w->inspect && run_program(argv, output, sizeof output) != 0)
        test_fail(__FILE__, __LINE__, "%s", output);
}

/* In mode MEMORY nobody detaches what the dead owned last, until a load makes it the survivor's. */
static bool is_detachable(const struct world *w)
{
    return shm_mode(&w->table->shm) != MODE_MEMORY || (!w->stops && !w->early);
}

/* C2 to C4, after recovery. */
static void examine(struct world *w, bool present)
{
    account(w, w->sessions + present, -1, 2);
    store_compare(w);
    expect_others_untouched(w);
    if (is_detachable(w))
        inspect(w);
}

/* What the operation returned after it had been stopped, and what it has done. */
static void judge_late(struct world *w)
{
    struct stage *stage = w->stage;
    const struct operation *o = w->operation;
    struct image now;
    sesstab_view v;
    check(stage->finished);
    image_take(&now, w->table, w->handle);
    if (now.present)
        image_view(&now, w->handle, &v);
    /* The store may have answered otherwise, the survivor have inserted or recovered before it. */
    bool answered = (o->flags & (ANSWERED | REFUSED | OPEN)) || o->result == SESSTAB_UNKNOWN;
    if (stage->result != SESSTAB_EXISTS && !answered && !o->leave)
        check_result(stage->result, o->result);
    if (o->effect && stage->result == SESSTAB_OK)
        check(o->effect(now.present ? &v : NULL));
}

/* ---------------------------------------------------------------- waiting ------------------- */

static void announce_done(atomic_u32 *word)
{
    atomic_fetch_add(word, 1);
    futex_wake_all(word);
}

static bool sleeps_in_futex(pid_t pid)
{
    char path[40], text[16] = "";
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(fd);
    return strncmp(text, "202 ", 4) == 0; /* SYS_futex on x86-64 */
}

/* The victim sleeps: the store says what this row wants. */
static void answer(struct world *w)
{
    image_take(&w->stage->published, w->table, w->handle);
    store_answer(w, w->operation->flags & REFUSED);
}

static void wait_for_go(struct world *w, uint32_t number)
{
    struct stage *stage = w->stage;
    bool answers = number == 1 && w->operation->flags & (ANSWERED | REFUSED);
    uint32_t now;
    while ((now = atomic_load(&stage->go)) < number)
        if (answers && stage->victim && sleeps_in_futex(stage->victim)) {
            answer(w);
            answers = false;
        } else {
            if (number == 2) /* the victim goes on, and may want an answer */
                store_drain(w);
            futex_wait(&stage->go, now, answers ? 1 : WAIT_SLICE_MS);
        }
}

/* ---------------------------------------------------------------- the survivor -------------- */

/* Its first look at a page is not to count as a stall. */
static void touch_pages(struct world *w)
{
    for (unsigned i = 0; i < RANGES; i++) {
        uint64_t at = w->ranges[i].at, from = at / PAGE_BYTES * PAGE_BYTES;
        check(madvise(w->table->shm.base + from, at - from + w->ranges[i].bytes,
                      MADV_POPULATE_WRITE) == 0);
    }
}

static void arrive(struct world *w)
{
    check_ok(sesstab_attach(w->table));
    touch_pages(w);
    alarm(HUNG_SECONDS);
}

/* Goes on before anything is recovered. */
static void live_beside(struct load *l)
{
    struct image seen;
    load_run(l, &seen);
    l->w->stage->times.stall = l->worst;
    l->w->stage->times.stall_own = l->worst_own;
    expect_one_of_three(l->w, &seen);
}

/* The victim is stopped and alive: whatever is done, nothing of its own is taken. */
static void live_beside_the_stopped(struct load *l)
{
    struct world *w = l->w;
    bool attached = victim_is_attached(w);
    live_beside(l);
    recover(w);
    check_equal(victim_is_attached(w), attached);
    announce_done(&w->stage->done);
    wait_for_go(w, 2);
    judge_late(w);
}

/* Recovers, and the rival too; *PRESENT: the session is there. */
static void recover_both(struct world *w, bool *present)
{
    struct image seen, now;
    image_take(&seen, w->table, w->handle);
    recover(w);
    if ((w->operation->flags & RACE) && !w->stops) {
        while (!atomic_load(&w->stage->done))
            futex_wait(&w->stage->done, 0, WAIT_SLICE_MS);
        recover(w);
    }
    check(!victim_is_attached(w));
    image_take(&now, w->table, w->handle);
    if (w->early && !w->stops)
        expect_one_or_detached(w, &now);
    else if (!w->stops)
        check(image_equal(&seen, &now));
    *present = now.present;
}

/* The session is gone too, and all is as it was. */
static void clear_away(struct world *w)
{
    int result = sesstab_remove(w->table, w->handle);
    check_either(result, SESSTAB_OK, SESSTAB_NOTFOUND);
    recover(w);
    account(w, w->sessions, (int)w->bound, 2);
    store_compare(w);
    heap_flush(world_context(w));
    account_free_places(w);
}

static void judge(struct load *l)
{
    struct world *w = l->w;
    struct image seen;
    bool present;
    recover_both(w, &present);
    examine(w, present);
    load_run(l, &seen);
    w->stage->times.noise = l->worst;
    w->stage->times.noise_own = l->worst_own;
    if (!is_detachable(w))
        inspect(w);
    if (w->operation->verify)
        w->operation->verify(w);
    clear_away(w);
}

void be_survivor(void *context)
{
    struct world *w = context;
    struct load l;
    load_open(&l, w);
    if (w->silent)
        check(freopen("/dev/null", "w", stderr) != NULL);
    arrive(w);
    if (shm_mode(&w->table->shm) != MODE_MEMORY)
        check((w->store = store_open(w->table)) != NULL);
    if (w->operation->flags & (ANSWERED | REFUSED))
        check(store_lead(w->store));
    announce_done(&w->stage->ready);
    wait_for_go(w, 1);
    if (w->stops)
        live_beside_the_stopped(&l);
    else if (!w->early)
        live_beside(&l);
    judge(&l);
    if (w->store)
        store_close(w->store);
    sesstab_close(w->table);
}

/* Recovers at the same time as the survivor, and leaves. */
void be_rival(void *context)
{
    struct world *w = context;
    arrive(w);
    announce_done(&w->stage->ready);
    wait_for_go(w, 1);
    for (int round = 0; round < 3; round++) {
        worker_recover(&w->table->shm, NULL, 0, NULL);
        sweep_heap(w);
    }
    sesstab_close(w->table);
    announce_done(&w->stage->done);
}
