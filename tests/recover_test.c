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

/* ---------------------------------------------------------------- late and early ---------- */

/* A leader in this process, on a ready table of its own with the usual sessions, all acknowledged. */
static struct store *lead_scene(struct scene *scene)
{
    struct store_image images[64];
    sesstab_view view;
    *scene = (struct scene){ .name = new_name() };
    scene->table = open_table(scene->name, &(sesstab_options){ .create = true });
    struct store *store = store_open(scene->table);
    check(store && store_lead(store));
    store_set_ready(store, 0, 0);
    for (uint64_t h = 1; h <= SESSIONS; h++)
        insert_plain(scene->table, h);
    for (size_t n; (n = store_take(store, images, 64, false)) || store_busy(store);)
        for (size_t i = 0; i < n; i++) {
            check_ok(sesstab_read_begin(scene->table));
            store_read(store, &images[i], &view);
            sesstab_read_end(scene->table);
            store_ack(store, &images[i]);
        }
    return store;
}

static struct store_image take_victim(struct scene *scene, struct store *store)
{
    struct store_image image;
    sesstab_view view;
    wait_until(store_take(store, &image, 1, false) == 1);
    check_ok(sesstab_read_begin(scene->table));
    store_read(store, &image, &view);
    sesstab_read_end(scene->table);
    check_equal(image.handle, VICTIM);
    return image;
}

/* Its worker was stopped between publishing a binding and posting the ticket; meanwhile that binding
 * was refused, and another is durable. */
static uint64_t victim_durable(struct context *c)
{
    rcu_enter(c);
    uint64_t durable = victim(c)->durable;
    rcu_exit(c);
    return durable;
}

static void set_victim_durable(struct context *c, uint64_t durable)
{
    rcu_enter(c);
    victim(c)->durable = durable;
    rcu_exit(c);
}

/* This thread's ticket, as if it waited for VERSION of the image's session. */
static void post_by_hand(struct context *c, const struct store_image *image, uint64_t version)
{
    struct ticket *k = &c->shm->tickets[c->thread_index];
    k->slot = image->slot.at;
    k->owner = c->worker;
    k->handle = image->handle;
    k->generation = image->generation;
    k->version = version;
    k->word = TICKET_WORD(1, TICKET_WAITING);
    c->shm->urgent[c->thread_index / 64] |= UINT64_C(1) << (c->thread_index % 64);
}

static void a_late_ticket_of_a_refused_binding_is_not_told_that_it_is_durable(void **state)
{
    struct scene scene;
    struct store *store = lead_scene(&scene);
    struct context *c = mine(scene.table);
    struct ticket *k = &c->shm->tickets[c->thread_index];
    (void)state;
    check_result(sesstab_bind(scene.table, VICTIM, "refused", 0), SESSTAB_UNKNOWN);
    struct store_image image = take_victim(&scene, store);
    uint64_t version = image.bound_version;
    check(store_refuse(store, &image, 0));
    check_result(sesstab_bind(scene.table, VICTIM, "durable", 0), SESSTAB_UNKNOWN);
    image = take_victim(&scene, store);
    store_ack(store, &image);
    check(!look(scene.table, VICTIM).pending);

    post_by_hand(c, &image, version);
    store_take(store, &image, 1, true);
    check_equal(TICKET_STATE(k->word), TICKET_REFUSED);
    k->word = TICKET_WORD(1, TICKET_IDLE);
    store_close(store);
}

/*
 * It was stopped between publishing and posting; the next binding is refused meanwhile.  MARKED_ONLY:
 * and the leader that had it acknowledged was killed between its mark and the durable word.
 */
static void check_late_ticket_of_a_durable_binding(bool marked_only)
{
    struct scene scene;
    struct store *store = lead_scene(&scene);
    struct context *c = mine(scene.table);
    struct ticket *k = &c->shm->tickets[c->thread_index];
    check_result(sesstab_bind(scene.table, VICTIM, "durable", 0), SESSTAB_UNKNOWN);
    struct store_image image = take_victim(&scene, store);
    uint64_t version = image.bound_version, before = victim_durable(c);
    store_ack(store, &image);
    if (marked_only)
        set_victim_durable(c, before);
    check_result(sesstab_bind(scene.table, VICTIM, "refused", 0), SESSTAB_UNKNOWN);
    image = take_victim(&scene, store);
    post_by_hand(c, &image, version);
    check(store_refuse(store, &image, 0));
    check_string(look(scene.table, VICTIM).player, "durable");
    check_equal(TICKET_STATE(k->word), TICKET_WAITING);
    image = take_victim(&scene, store);
    store_ack(store, &image);
    check(!look(scene.table, VICTIM).pending);
    check_string(look(scene.table, VICTIM).player, "durable");
    check(TICKET_STATE(k->word) != TICKET_REFUSED);
    k->word = TICKET_WORD(1, TICKET_IDLE);
    store_close(store);
}

static void a_late_ticket_of_a_durable_binding_is_not_refused_with_the_next(void **state)
{
    (void)state;
    check_late_ticket_of_a_durable_binding(false);
    check_late_ticket_of_a_durable_binding(true);
}

/* The same, but the next one is on top before the first is acknowledged, and is told to keep it. */
static void nor_when_it_was_kept_below_the_next_by_a_leader_that_died(void **state)
{
    struct scene scene;
    struct store *store = lead_scene(&scene);
    struct context *c = mine(scene.table);
    struct ticket *k = &c->shm->tickets[c->thread_index];
    (void)state;
    check_result(sesstab_bind(scene.table, VICTIM, "durable", 0), SESSTAB_UNKNOWN);
    struct store_image image = take_victim(&scene, store);
    uint64_t version = image.bound_version, before = victim_durable(c);
    check_result(sesstab_bind(scene.table, VICTIM, "refused", 0), SESSTAB_UNKNOWN);
    store_ack(store, &image);
    set_victim_durable(c, before);
    image = take_victim(&scene, store);
    post_by_hand(c, &image, version);
    check(store_refuse(store, &image, 0));
    check_string(look(scene.table, VICTIM).player, "durable");
    check_equal(TICKET_STATE(k->word), TICKET_WAITING);
    store_take(store, &image, 1, true);
    check(TICKET_STATE(k->word) != TICKET_REFUSED);
    k->word = TICKET_WORD(1, TICKET_IDLE);
    store_close(store);
}

/* The slot's former life left its dirty bit set; the new one is filled, and not linked. */
static void redis_does_not_hear_of_a_session_that_is_not_inserted_yet(void **state)
{
    struct scene scene;
    struct store *store = lead_scene(&scene);
    struct context *c = mine(scene.table);
    struct store_image image = { .kind = STORE_PUT };
    sesstab_view view;
    slot_ref slot;
    block_ref r;
    (void)state;
    rcu_enter(c);
    check(heap_claim_slot(c, &slot) == 0 && heap_claim_block(c, 200, &r) == 0);
    struct slot *s = slot_at(c->shm, slot);
    memcpy(&block_at(c->shm, r)->handle, &record_of(c, victim(c))->handle, 96);
    block_at(c->shm, r)->handle = 666;
    s->node.key = 666;
    s->current = CURRENT_WORD(r, 1, 0);
    image.slot = slot;
    store_read(store, &image, &view);
    check_equal(image.kind, STORE_NOTHING);
    check(!(s->current & CURRENT_STORED));
    s->current = CURRENT_WORD((block_ref){ 0 }, 1, 0);
    heap_unclaim(c, RETIRED_BLOCK, r.at);
    check(heap_retire(c, RETIRED_SLOT, slot.at, &s->node.life, s->node.life));
    rcu_exit(c);
    store_close(store);
}

/* As if its loader had been killed between linking it and making its hint. */
static void a_bound_session_without_a_hint_gets_one(void **state)
{
    struct scene scene;
    struct store *store = lead_scene(&scene);
    struct context *c = mine(scene.table);
    struct store_image image;
    hint_ref hint;
    int found = 0;
    (void)state;
    check_result(sesstab_bind(scene.table, VICTIM, "bound", 0), SESSTAB_UNKNOWN);
    rcu_enter(c);
    hint_of_victim(c, record_of(c, victim(c))->player_hash, &hint);
    put_back(c, &hint_at(c->shm, hint)->life, OWN_RETIRED);
    index_remove(c, INDEX_PLAYERS, hint.at, true);
    rcu_exit(c);
    check_ok(sesstab_by_player(scene.table, "bound", count_one, &found));
    check_equal(found, 0);
    check(store_lead(store)); /* the sweep of a new leader */
    do
        store_take(store, &image, 1, false);
    while (store_busy(store));
    check_ok(sesstab_by_player(scene.table, "bound", count_one, &found));
    check_equal(found, 1);
    store_close(store);
    check_strictly(scene.name, "a hint restored");
}

struct claim {
    sesstab *table;
    block_ref block;
};

/* Replaces the claimed record, as far as its ownership word goes, and would free it. */
static void retire_in_child(void *context)
{
    struct claim *claim = context;
    struct context *c = mine(claim->table);
    struct block *b = block_at(c->shm, claim->block);
    rcu_enter(c);
    own_publish(&b->own);
    check(heap_retire(c, RETIRED_BLOCK, claim->block.at, &b->own, b->own));
    rcu_exit(c);
    rcu_reclaim(c);
    check_equal(OWN_STATE(b->own), OWN_RETIRED);
}

/* Else a writer that pauses between publishing and saying LIVE says it of another's claim. */
static void what_was_just_claimed_is_held_by_the_claimer_s_section(void **state)
{
    struct claim *claim = shared_memory(sizeof *claim);
    const char *name;
    claim->table = selective_table(&name);
    struct context *c = mine(claim->table);
    (void)state;
    rcu_enter(c);
    atomic_fetch_add(&c->shm->header->era, 3); /* others reclaim meanwhile */
    check(heap_claim_block(c, 200, &claim->block) == 0);
    run_child(retire_in_child, claim);
    check_equal(OWN_STATE(block_at(c->shm, claim->block)->own), OWN_RETIRED);
    rcu_exit(c);
    check(worker_recover(c->shm, NULL, 0, NULL) <= 1);
    recover_sweep(c, 0);
    rcu_reclaim(c);
    check_equal(OWN_STATE(block_at(c->shm, claim->block)->own), OWN_FREE);
}

/* Else whoever gives back what its claim did not get frees another's record. */
static void a_claim_that_fails_names_no_place(void **state)
{
    const char *name = new_name();
    sesstab *table = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY,
                                                          .max_bytes = 2 << 20 });
    struct context *c = mine(table);
    block_ref r, claimed = { 0 };
    unsigned taken = 0;
    (void)state;
    check_ok(sesstab_insert(table, &(uint64_t){ 1 }, NULL)); /* now the magazine knows free blocks */
    struct magazine *m = &c->blocks[CHUNK_SESSIONS], known = *m;
    check(known.count > 2);
    rcu_enter(c);
    for (uint32_t i = 0; i < known.count; i++) /* which others take meanwhile */
        block_at(c->shm, (block_ref){ known.at[i] })->own |= OWN_WORD(OWN_OWNED, c->worker, 0);
    m->count = 0;
    while (heap_claim_block(c, 200, &r) == 0)
        taken++;
    check(taken > 1000);
    *m = known;
    check(heap_claim_block(c, 200, &claimed) != 0);
    check_equal(claimed.at, 0);
    rcu_exit(c);
    for (uint32_t i = 0; i < known.count; i++)
        heap_unclaim(c, RETIRED_BLOCK, known.at[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_a_death_leaves_half_done_stops_nobody_and_is_found),
        TEST(what_a_dead_worker_did_not_announce_reaches_redis),
        TEST(a_late_ticket_of_a_refused_binding_is_not_told_that_it_is_durable),
        TEST(a_late_ticket_of_a_durable_binding_is_not_refused_with_the_next),
        TEST(nor_when_it_was_kept_below_the_next_by_a_leader_that_died),
        TEST(redis_does_not_hear_of_a_session_that_is_not_inserted_yet),
        TEST(a_bound_session_without_a_hint_gets_one),
        TEST(what_was_just_claimed_is_held_by_the_claimer_s_section),
        TEST(a_claim_that_fails_names_no_place),
    };
    return run_all(tests);
}
