/*
 * What a death leaves half done, built by hand: a child does an operation, puts words back to what
 * they were at the instruction where it is supposed to die, and is killed.  The survivors work on the
 * same session at once; then recovery and two sweeps must leave nothing, not even something
 * "abandoned" (shmdump --check --strict).
 *
 * One case for every line of the tables "a crash leaves" in shm/layout.h, shm/index.h, lib/player.c
 * and lib/announce.c.
 */
#include "tests/harness.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "lib/store.h"
#include "lib/table.h"
#include "shm/recover.h"
#include "shm/ring.h"

enum { SESSIONS = 600, VICTIM = 7 };

struct half_done {
    const char *what;
    void (*leave)(sesstab *t, struct context *c);
};

/* ---------------------------------------------------------------- the dying ---------------- */

static struct context *mine(sesstab *t)
{
    int error = 0;
    struct context *c = context_of(&t->shm, &error);
    check(c != NULL);
    return c;
}

static struct slot *victim(struct context *c)
{
    struct slot *s = index_lookup(c, VICTIM);
    check(s != NULL);
    return s;
}

static struct block *record_of(struct context *c, struct slot *s)
{
    return block_at(c->shm, CURRENT_BLOCK(s->current));
}

/* Puts an ownership word back to STATE, held by the dying. */
static void put_back(struct context *c, atomic_u64 *word, enum own_state state)
{
    *word = OWN_WORD(state, state == OWN_LIVE ? 0 : c->worker, OWN_SEQ(*word));
}

static void a_block_claimed(sesstab *t, struct context *c)
{
    block_ref r;
    (void)t;
    check(heap_claim_block(c, 200, &r) == 0 && heap_claim_block(c, 5000, &r) == 0);
}

static void a_slot_filled_and_not_linked(sesstab *t, struct context *c)
{
    slot_ref slot;
    block_ref r;
    (void)t;
    check(heap_claim_slot(c, &slot) == 0 && heap_claim_block(c, 200, &r) == 0);
    struct slot *s = slot_at(c->shm, slot);
    memcpy(&block_at(c->shm, r)->handle, &record_of(c, victim(c))->handle, 96);
    block_at(c->shm, r)->slot = slot.at;
    s->node.key = SESSIONS + 5;
    s->current = CURRENT_WORD(r, 1, 0);
}

static void a_session_linked_and_not_yet_live(sesstab *t, struct context *c)
{
    check_ok(sesstab_remove(t, VICTIM));
    insert_plain(t, VICTIM);
    put_back(c, &victim(c)->node.life, OWN_OWNED);
    put_back(c, &record_of(c, victim(c))->own, OWN_OWNED);
}

static void a_record_replaced_and_not_retired(sesstab *t, struct context *c)
{
    struct block *old = record_of(c, victim(c));
    check_ok(sesstab_set(t, VICTIM, "key", "value", 5));
    put_back(c, &old->own, OWN_LIVE);
}

static void records_retired_and_not_free(sesstab *t, struct context *c)
{
    (void)c;
    for (int i = 0; i < 100; i++)
        check_ok(sesstab_set(t, VICTIM, "key", "value", 5));
}

static void a_session_dead_and_not_marked(sesstab *t, struct context *c)
{
    struct slot *s = victim(c);
    (void)t;
    s->current = CURRENT_WORD((block_ref){ 0 }, record_of(c, s)->version + 1, 0);
}

static void a_session_marked_and_not_unlinked(sesstab *t, struct context *c)
{
    struct slot *s = victim(c);
    a_session_dead_and_not_marked(t, c);
    s->node.next |= LINK_MARK;
}

static void a_session_unlinked_and_not_retired(sesstab *t, struct context *c)
{
    struct slot *s = victim(c);
    check_ok(sesstab_remove(t, VICTIM));
    put_back(c, &s->node.life, OWN_LIVE);
}

static void a_bucket_head_claimed(sesstab *t, struct context *c)
{
    for (uint64_t i = 1; i < index_size(&t->shm, INDEX_HANDLES); i++)
        if (t->shm.handles[i] == 0) {
            t->shm.handles[i] = LINK_WORD(0, c->worker, LINK_CLAIMED | LINK_HEAD);
            return;
        }
    check(!"a head that is not linked yet");
}

static void bucket_heads_linked_and_still_claimed(sesstab *t, struct context *c)
{
    int found = 0;
    for (uint64_t i = 1; i < index_size(&t->shm, INDEX_HANDLES); i++) {
        uint64_t w = t->shm.handles[i];
        if (w && i % 3 == 0) {
            t->shm.handles[i] = LINK_WORD(LINK_REF(w), c->worker, LINK_CLAIMED | (w & LINK_HEAD));
            found++;
        }
    }
    check(found > 10);
}

static void a_hint_claimed(sesstab *t, struct context *c)
{
    hint_ref hint;
    (void)t;
    check(heap_claim_hint(c, &hint) == 0);
    hint_at(c->shm, hint)->key = 1234;
}

static void hint_of_victim(struct context *c, uint32_t player, hint_ref *hint)
{
    check(hint_arm(c, player, slot_ref_of(c->shm, victim(c)), hint) == SESSTAB_OK);
}

static void a_hint_linked_and_not_yet_live(sesstab *t, struct context *c)
{
    hint_ref hint;
    (void)t;
    hint_of_victim(c, 4711, &hint);
    put_back(c, &hint_at(c->shm, hint)->life, OWN_OWNED);
}

static void a_hint_armed_for_nothing(sesstab *t, struct context *c)
{
    hint_ref hint;
    (void)t;
    hint_of_victim(c, 4711, &hint);
}

static void a_hint_armed_and_its_binding_published(sesstab *t, struct context *c)
{
    hint_ref hint;
    check_ok(sesstab_bind(t, VICTIM, "somebody", 0));
    hint_of_victim(c, record_of(c, victim(c))->player_hash, &hint);
}

static void a_hint_retired_and_still_linked(sesstab *t, struct context *c)
{
    hint_ref hint;
    (void)t;
    hint_of_victim(c, 4711, &hint);
    put_back(c, &hint_at(c->shm, hint)->life, OWN_RETIRED);
}

static void a_read_section(sesstab *t, struct context *c)
{
    (void)c;
    check_ok(sesstab_read_begin(t));
    for (int i = 0; i < 1000; i++)
        check_ok(sesstab_set(t, VICTIM, "key", "value", 5));
}

static const struct half_done half_done[] = {
#define CASE(name) { #name, name }
    CASE(a_block_claimed),
    CASE(a_slot_filled_and_not_linked),
    CASE(a_session_linked_and_not_yet_live),
    CASE(a_record_replaced_and_not_retired),
    CASE(records_retired_and_not_free),
    CASE(a_session_dead_and_not_marked),
    CASE(a_session_marked_and_not_unlinked),
    CASE(a_session_unlinked_and_not_retired),
    CASE(a_bucket_head_claimed),
    CASE(bucket_heads_linked_and_still_claimed),
    CASE(a_hint_claimed),
    CASE(a_hint_linked_and_not_yet_live),
    CASE(a_hint_armed_for_nothing),
    CASE(a_hint_armed_and_its_binding_published),
    CASE(a_hint_retired_and_still_linked),
    CASE(a_read_section),
#undef CASE
};
enum { CASES = sizeof half_done / sizeof *half_done };

struct scene {
    sesstab *table;
    const char *name;
    void (*leave)(sesstab *t, struct context *c);
    _Atomic unsigned left;
};

static void leave_and_die(void *context)
{
    struct scene *scene = context;
    struct context *c = mine(scene->table);
    rcu_enter(c);
    scene->leave(scene->table, c);
    scene->left = 1;
    for (;;)
        pause();
}

static void kill_half_done(struct scene *scene)
{
    scene->left = 0;
    pid_t pid = start_child(leave_and_die, scene);
    wait_until(scene->left);
    kill_child(pid);
}

/* ---------------------------------------------------------------- the survivors ------------ */

static int count_one(const sesstab_view *view, void *context)
{
    (void)view;
    ++*(int *)context;
    return 0;
}

/* What others do with the victim's handle before anybody has recovered anything. */
static void go_on(sesstab *t)
{
    uint64_t handle = VICTIM;
    int bound = 0, result = sesstab_insert(t, &handle, NULL);
    check_either(result, SESSTAB_OK, SESSTAB_EXISTS);
    check_ok(sesstab_set(t, VICTIM, "after", "wards", 5));
    sesstab_view v = look(t, VICTIM);
    check_string(metadata_of(&v, "after"), "wards");
    check_ok(sesstab_bind(t, VICTIM, "survivor", 0));
    check_ok(sesstab_by_player(t, "survivor", count_one, &bound));
    check_equal(bound, 1);
    check_ok(sesstab_touch(t, VICTIM, 0));
    check_equal(count_sessions(t), SESSIONS);
    for (uint64_t i = 1; i <= SESSIONS; i++)
        check_ok(sesstab_touch(t, i, 0));
}

static void recover_everything(sesstab *t)
{
    struct context *c = mine(t);
    /* The kernel takes a moment; and a writer that needed memory may have done it already. */
    wait_until(worker_recover(&t->shm, NULL, 0, NULL) || t->shm.header->deaths);
    for (int round = 0; round < 2; round++)
        for (uint64_t i = 0; i < t->shm.header->committed; i++)
            recover_sweep(c, (unsigned)i);
    rcu_reclaim(c);
}

static void check_strictly(const char *name, const char *what)
{
    char output[2000];
    const char *const argv[] = { program("shmdump"), "--check", "--strict", name, NULL };
    if (run_program(argv, output, sizeof output) != 0)
        test_fail(__FILE__, __LINE__, "%s: %s", what, output);
}

static void what_a_death_leaves_half_done_stops_nobody_and_is_found(void **state)
{
    struct scene *scene = shared_memory(sizeof *scene);
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int early = 0; early < 2; early++) {
            *scene = (struct scene){ .name = new_name(), .leave = half_done[i].leave };
            scene->table = open_table(scene->name, &(sesstab_options){
                .create = true, .mode = SESSTAB_MEMORY, .full_fences = i % 2 });
            for (uint64_t h = 1; h <= SESSIONS; h++)
                insert_plain(scene->table, h);
            kill_half_done(scene);
            if (early) /* recovery comes first */
                recover_everything(scene->table);
            go_on(scene->table);
            if (!early)
                recover_everything(scene->table);
            go_on(scene->table);
            check_strictly(scene->name, half_done[i].what);
            close_table(scene->table);
        }
}

/* ---------------------------------------------------------------- announcing --------------- */

/* As if it had been killed right after the CAS that publishes. */
static void published_only(sesstab *t, struct context *c)
{
    uint64_t bit;
    slot_ref r = slot_ref_of(c->shm, victim(c)), taken;
    atomic_u64 *dirty = dirty_word(c->shm, r, &bit);
    check_ok(sesstab_set(t, VICTIM, "last", "words", 5));
    *dirty &= ~bit;
    while (ring_take(c->shm, c->thread_index, &taken))
        check_equal(taken.at, r.at);
    t->shm.ready[c->thread_index / 64] = 0;
}

/* As if it had been killed between the dirty bit and the ring: later changes don't announce. */
static void marked_only(sesstab *t, struct context *c)
{
    slot_ref taken;
    check_ok(sesstab_set(t, VICTIM, "last", "words", 5));
    while (ring_take(c->shm, c->thread_index, &taken))
        ;
    t->shm.ready[c->thread_index / 64] = 0;
}

/* As if it had been killed between the ring and the wake-up. */
static void not_woken(sesstab *t, struct context *c)
{
    (void)c;
    check_ok(sesstab_set(t, VICTIM, "last", "words", 5));
}

static void what_a_dead_worker_did_not_announce_reaches_redis(void **state)
{
    void (*const cases[])(sesstab *, struct context *) = { published_only, marked_only, not_woken };
    struct scene *scene = shared_memory(sizeof *scene);
    struct redis *redis = start_redis(NULL);
    (void)state;
    for (int i = 0; i < 3; i++) {
        *scene = (struct scene){ .name = new_name(), .leave = cases[i] };
        pid_t persister = start_persister(scene->name, redis->url, NULL);
        wait_until(sesstab_open(scene->name, NULL, &scene->table) == SESSTAB_OK);
        check_ok(sesstab_wait_ready(scene->table, WAIT_LIMIT));
        sesstab_remove(scene->table, VICTIM);
        insert_plain(scene->table, VICTIM);
        wait_until_redis_equals(scene->table, redis);
        kill_half_done(scene);
        wait_until_redis_equals(scene->table, redis);
        check(redis_field_is(redis, TEST_PREFIX ":conn:7:metadata", "last", "words"));
        kill_child(persister);
        sesstab_close(scene->table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_a_death_leaves_half_done_stops_nobody_and_is_found),
        TEST(what_a_dead_worker_did_not_announce_reaches_redis),
    };
    return run_all(tests);
}
