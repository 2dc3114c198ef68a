/*
 * The store's side of the table, with the test itself as the leading persister: what is handed out,
 * how often, and what becomes of it.  No Redis: its answers are what the test says they are.
 */
#include "tests/harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/store.h"
#include "lib/table.h"
#include "shm/ring.h"

struct lead {
    const char *name;
    sesstab *table;
    struct store *store;
};

static struct store *lead_table(sesstab *table)
{
    struct store *store = store_open(table);
    check(store && store_lead(store));
    return store;
}

static struct lead new_lead(void)
{
    struct lead lead = { .name = new_name() };
    lead.table = open_table(lead.name, &(sesstab_options){ .create = true, .ring_entries = 4 });
    lead.store = lead_table(lead.table);
    store_set_ready(lead.store, 0, 0);
    return lead;
}

static void end_lead(struct lead *lead)
{
    store_close(lead->store);
    check_table(lead->name);
}

static void read_image(struct lead *lead, struct store_image *image)
{
    sesstab_view view;
    check_ok(sesstab_read_begin(lead->table));
    store_read(lead->store, image, &view);
    if (image->kind != STORE_NOTHING)
        check_equal(view.handle, image->handle);
    sesstab_read_end(lead->table);
}

/* The next session that needs a write; kind NOTHING when none does. */
static struct store_image next_write(struct lead *lead)
{
    struct store_image image = { .kind = STORE_NOTHING };
    uint64_t limit = milliseconds() + WAIT_LIMIT;
    for (;;) {
        size_t taken = store_take(lead->store, &image, 1, false);
        if (taken)
            read_image(lead, &image);
        if (taken && image.kind != STORE_NOTHING)
            return image;
        if (!taken && !store_busy(lead->store))
            return (struct store_image){ .kind = STORE_NOTHING };
        check(milliseconds() < limit);
    }
}

static struct store_image expect_write(struct lead *lead, uint64_t handle, enum store_kind kind)
{
    struct store_image image = next_write(lead);
    check_equal(image.kind, kind);
    check_equal(image.handle, handle);
    return image;
}

static void expect_nothing(struct lead *lead)
{
    check_equal(next_write(lead).kind, STORE_NOTHING);
}

/* Inserts a session and has it acknowledged. */
static void insert_stored(struct lead *lead, uint64_t handle)
{
    insert_plain(lead->table, handle);
    struct store_image image = expect_write(lead, handle, STORE_PUT);
    store_ack(lead->store, &image);
    expect_nothing(lead);
}

/* ---------------------------------------------------------------- changes ---------------- */

static void a_change_is_handed_out_once_until_it_is_tried_again(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    expect_nothing(&lead);
    insert_plain(lead.table, 1);
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    check(image.replace && image.member && !image.pending);
    check_equal(image.version, look(lead.table, 1).version);
    check_equal(image.generation, look(lead.table, 1).generation);
    expect_nothing(&lead);
    store_retry(lead.store, &image);
    image = expect_write(&lead, 1, STORE_PUT);
    expect_nothing(&lead);
    store_ack(lead.store, &image);
    expect_nothing(&lead);
    check_equal(store_lag(lead.store), 0);
    end_lead(&lead);
}

static void what_changes_while_it_is_in_hands_is_handed_out_again(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_plain(lead.table, 1);
    struct store_image first = expect_write(&lead, 1, STORE_PUT);
    check_ok(sesstab_set(lead.table, 1, "key", "value", 5));
    store_ack(lead.store, &first);
    check_equal(store_lag(lead.store), 1);
    struct store_image second = expect_write(&lead, 1, STORE_PUT);
    check(second.version > first.version && !second.replace);
    store_ack(lead.store, &second);
    expect_nothing(&lead);
    end_lead(&lead);
}

static void a_late_acknowledgement_does_not_cover_what_came_after(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_stored(&lead, 1);
    check_result(sesstab_bind(lead.table, 1, "one", 0), SESSTAB_UNKNOWN);
    struct store_image one = expect_write(&lead, 1, STORE_PUT);
    check_result(sesstab_bind(lead.table, 1, "two", 0), SESSTAB_UNKNOWN);
    store_ack(lead.store, &one);
    check(look(lead.table, 1).pending);
    struct store_image two = expect_write(&lead, 1, STORE_PUT);
    check(two.pending);
    store_ack(lead.store, &two);
    check(!look(lead.table, 1).pending);
    store_ack(lead.store, &one);
    check(!look(lead.table, 1).pending);
    expect_nothing(&lead);
    end_lead(&lead);
}

static void a_thousand_changes_are_one_write(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_stored(&lead, 1);
    for (int i = 0; i < 1000; i++)
        check_ok(sesstab_increment(lead.table, 1, "n", 1, NULL));
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    check_equal(image.version, look(lead.table, 1).version);
    store_ack(lead.store, &image);
    expect_nothing(&lead);
    end_lead(&lead);
}

static void a_touch_alone_is_a_touch(void **state)
{
    struct lead lead = new_lead();
    uint64_t now = sesstab_now() + 1000;
    (void)state;
    insert_stored(&lead, 1);
    for (uint64_t i = 0; i <= 1000; i++)
        check_ok(sesstab_touch(lead.table, 1, now + i));
    struct store_image image = expect_write(&lead, 1, STORE_TOUCH);
    check_equal(image.last_seen, now + 1000);
    check_ok(sesstab_touch(lead.table, 1, now + 2000));
    store_ack(lead.store, &image);
    image = expect_write(&lead, 1, STORE_TOUCH);
    check_equal(image.last_seen, now + 2000);
    store_ack(lead.store, &image);
    expect_nothing(&lead);
    end_lead(&lead);
}

static void a_deleted_key_makes_the_write_replace_everything(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_stored(&lead, 1);
    check_ok(sesstab_set(lead.table, 1, "key", "value", 5));
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    check(!image.replace);
    check_ok(sesstab_delete(lead.table, 1, "key"));
    store_ack(lead.store, &image);
    image = expect_write(&lead, 1, STORE_PUT);
    check(image.replace);
    store_ack(lead.store, &image);
    expect_nothing(&lead);
    end_lead(&lead);
}

static void more_changes_than_the_rings_hold_are_all_handed_out(void **state)
{
    struct lead lead = new_lead();
    bool seen[501] = { false };
    (void)state;
    for (uint64_t handle = 1; handle <= 500; handle++)
        insert_plain(lead.table, handle);
    for (int i = 0; i < 500; i++) {
        struct store_image image = next_write(&lead);
        check(image.kind == STORE_PUT && image.handle <= 500 && !seen[image.handle]);
        seen[image.handle] = true;
        store_ack(lead.store, &image);
    }
    expect_nothing(&lead);
    end_lead(&lead);
}

/* ---------------------------------------------------------------- removing --------------- */

enum { HOT = 2, ENOUGH = 1000 };

/* Changes as many hot sessions as a take has room for, and takes; how many others were taken. */
static unsigned take_beside_hot_ones(struct lead *lead)
{
    struct store_image images[HOT];
    unsigned others = 0;
    for (uint64_t handle = 1; handle <= HOT; handle++)
        check_ok(sesstab_increment(lead->table, handle, "n", 1, NULL));
    size_t taken = store_take(lead->store, images, HOT, false);
    for (size_t i = 0; i < taken; i++) {
        read_image(lead, &images[i]);
        others += images[i].kind != STORE_NOTHING && images[i].handle > HOT;
        store_ack(lead->store, &images[i]);
    }
    return others;
}

static void what_overflowed_is_handed_out_beside_what_changes_all_the_time(void **state)
{
    struct lead lead = new_lead();
    const unsigned cold = 20;
    unsigned taken = 0;
    (void)state;
    for (uint64_t handle = 1; handle <= HOT + cold; handle++)
        insert_plain(lead.table, handle);
    check(store_overflowed(lead.store));
    for (unsigned i = 0; taken < cold && i < ENOUGH; i++)
        taken += take_beside_hot_ones(&lead);
    check_equal(taken, cold);
    end_lead(&lead);
}

static void *change_once(void *context)
{
    sesstab *table = context;
    check_ok(sesstab_set(table, HOT + 1, "key", "value", 5));
    return NULL;
}

static void a_thread_s_change_is_handed_out_beside_one_that_changes_all_the_time(void **state)
{
    struct lead lead = new_lead();
    pthread_t thread;
    unsigned taken = 0;
    (void)state;
    for (uint64_t handle = 1; handle <= HOT + 1; handle++)
        insert_stored(&lead, handle);
    check(pthread_create(&thread, NULL, change_once, lead.table) == 0);
    check(pthread_join(thread, NULL) == 0);
    for (unsigned i = 0; !taken && i < ENOUGH; i++)
        taken += take_beside_hot_ones(&lead);
    check_equal(taken, 1);
    end_lead(&lead);
}

enum { NEW_THREADS = 8 };

struct newcomers {
    sesstab *table;
    _Atomic unsigned ready, leave;
};

static void *come_and_wait(void *context)
{
    struct newcomers *n = context;
    check_ok(sesstab_read_begin(n->table));
    sesstab_read_end(n->table);
    atomic_fetch_add_explicit(&n->ready, 1, memory_order_relaxed);
    while (!atomic_load_explicit(&n->leave, memory_order_relaxed))
        pause_ms(1);
    return NULL;
}

/* Threads of the leader's own process, so that the thread sanitizer sees both sides. */
static void rings_are_looked_into_while_threads_prepare_theirs(void **state)
{
    struct lead lead = new_lead();
    struct newcomers n = { .table = lead.table };
    pthread_t threads[NEW_THREADS];
    slot_ref slot;
    (void)state;
    for (int i = 0; i < NEW_THREADS; i++)
        check(pthread_create(&threads[i], NULL, come_and_wait, &n) == 0);
    bool all = false;
    for (int after = 0; after < 2; after += all) {
        all = atomic_load_explicit(&n.ready, memory_order_relaxed) == NEW_THREADS;
        for (unsigned index = 0; index < load_relaxed(&lead.table->shm.header->thread_high); index++)
            check(!ring_take(&lead.table->shm, index, &slot));
    }
    atomic_store_explicit(&n.leave, 1, memory_order_relaxed);
    for (int i = 0; i < NEW_THREADS; i++)
        check(pthread_join(threads[i], NULL) == 0);
    end_lead(&lead);
}

static void what_the_store_never_heard_of_needs_no_deletion(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_plain(lead.table, 1);
    check_ok(sesstab_remove(lead.table, 1));
    expect_nothing(&lead);
    check(!store_knows(lead.store, 1, NULL));
    end_lead(&lead);
}

static void a_session_in_hands_leaves_a_tombstone(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_plain(lead.table, 1);
    struct store_image put = expect_write(&lead, 1, STORE_PUT);
    check_ok(sesstab_remove(lead.table, 1));
    check(store_knows(lead.store, 1, NULL));
    store_retry(lead.store, &put); /* nobody knows whether Redis has it */
    struct store_image image = expect_write(&lead, 1, STORE_DELETE);
    store_ack(lead.store, &image);
    check(!store_knows(lead.store, 1, NULL));
    expect_nothing(&lead);
    end_lead(&lead);
}

static void a_late_deletion_leaves_the_new_session_alone(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    for (int i = 0; i < 5; i++) {
        insert_stored(&lead, 7);
        uint64_t old = look(lead.table, 7).generation;
        check_ok(sesstab_remove(lead.table, 7));
        struct store_image image = expect_write(&lead, 7, STORE_DELETE);
        insert_plain(lead.table, 7);
        store_ack(lead.store, &image);
        check_equal(count_sessions(lead.table), 1);
        struct store_image put = expect_write(&lead, 7, STORE_PUT);
        check(put.replace && put.member && put.generation > old);
        check(put.version > image.version);
        store_ack(lead.store, &put);
        expect_nothing(&lead);
        check_ok(sesstab_remove(lead.table, 7));
        image = expect_write(&lead, 7, STORE_DELETE);
        store_ack(lead.store, &image);
    }
    end_lead(&lead);
}

/* ---------------------------------------------------------------- waiting ---------------- */

struct waiter { sesstab *table; const char *player; int expected; };

static void bind_and_wait(void *context)
{
    struct waiter *waiter = context;
    int result = *waiter->player
                     ? sesstab_bind(waiter->table, 1, waiter->player, WAIT_LIMIT)
                     : sesstab_unbind(waiter->table, 1, WAIT_LIMIT);
    check_result(result, waiter->expected);
}

/* Takes session 1 once somebody waits for it. */
static struct store_image take_waited(struct lead *lead)
{
    struct store_image image = { .kind = STORE_NOTHING };
    wait_until(store_take(lead->store, &image, 1, true) == 1);
    read_image(lead, &image);
    check(image.urgent && image.kind == STORE_PUT && image.pending);
    check(store_waited_for(lead->store, &image));
    return image;
}

/* Whether the child has ended; it stays to be joined. */
static bool ended(pid_t pid)
{
    siginfo_t info = { .si_pid = 0 };
    check(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
    return info.si_pid != 0;
}

/* Acknowledges whatever needs a write. */
static void acknowledge_all(struct lead *lead)
{
    struct store_image image;
    while ((image = next_write(lead)).kind != STORE_NOTHING)
        store_ack(lead->store, &image);
}

static void who_waits_is_told_that_the_store_has_it(void **state)
{
    struct lead lead = new_lead();
    struct waiter waiter = { lead.table, "#1", SESSTAB_OK };
    (void)state;
    insert_stored(&lead, 1);
    pid_t first = start_child(bind_and_wait, &waiter), second = start_child(bind_and_wait, &waiter);
    struct store_image image = take_waited(&lead);
    check(look(lead.table, 1).pending && !ended(first) && !ended(second));
    store_ack(lead.store, &image);
    while (!ended(first) || !ended(second))
        acknowledge_all(&lead);
    join_child(first);
    join_child(second);
    check(!look(lead.table, 1).pending);
    check_string(look(lead.table, 1).player, "#1");
    end_lead(&lead);
}

/* What a new leader does first, of a table larger than it can look through meanwhile. */
static void who_waits_does_not_wait_for_a_sweep_of_the_whole_table(void **state)
{
    enum { SESSIONS = 5000 };
    struct lead lead = new_lead();
    struct waiter waiter = { lead.table, "#1", SESSTAB_OK };
    struct store_image images[4];
    (void)state;
    for (uint64_t handle = 1; handle <= SESSIONS; handle++)
        insert_plain(lead.table, handle);
    acknowledge_all(&lead);
    pid_t child = start_child(bind_and_wait, &waiter);
    wait_until(store_take(lead.store, images, 1, true) == 1);
    store_let_go(lead.store, images);
    check(store_lead(lead.store));
    check_equal(store_take(lead.store, images, 4, false), 1);
    check(images->urgent && store_progress(lead.store) < 100);
    read_image(&lead, images);
    store_ack(lead.store, images);
    while (!ended(child))
        acknowledge_all(&lead);
    join_child(child);
    end_lead(&lead);
}

static void a_refused_binding_is_rolled_back_before_it_is_said(void **state)
{
    struct lead lead = new_lead();
    struct waiter waiter = { lead.table, "#1", SESSTAB_REFUSED };
    (void)state;
    insert_stored(&lead, 1);
    pid_t pid = start_child(bind_and_wait, &waiter);
    struct store_image image = take_waited(&lead);
    check_ok(sesstab_set(lead.table, 1, "kept", "yes", 3));
    check(store_refuse(lead.store, &image, 0));
    sesstab_view view = look(lead.table, 1);
    check_string(view.player, "");
    check_equal(view.state, SESSTAB_CONNECTED);
    check(!view.pending);
    check_string(metadata_of(&view, "kept"), "yes");
    join_child(pid);
    image = expect_write(&lead, 1, STORE_PUT);
    store_ack(lead.store, &image);
    expect_nothing(&lead);
    end_lead(&lead);
}

static void a_refusal_goes_back_to_the_last_acknowledged_binding(void **state)
{
    struct lead lead = new_lead();
    struct waiter waiter = { lead.table, "refused", SESSTAB_REFUSED };
    (void)state;
    insert_stored(&lead, 1);
    check_result(sesstab_bind(lead.table, 1, "acknowledged", 0), SESSTAB_UNKNOWN);
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    store_ack(lead.store, &image);
    check_result(sesstab_bind(lead.table, 1, "never heard of", 0), SESSTAB_UNKNOWN);
    pid_t pid = start_child(bind_and_wait, &waiter);
    image = take_waited(&lead);
    check(store_refuse(lead.store, &image, 0));
    join_child(pid);
    sesstab_view view = look(lead.table, 1);
    check_string(view.player, "acknowledged");
    check_equal(view.state, SESSTAB_LOGGED_IN);
    check(!view.pending);
    end_lead(&lead);
}

/* Two bind one session at once; the first is refused while the second is not yet written. */
static void a_refusal_does_not_judge_a_later_binding(void **state)
{
    struct lead lead = new_lead();
    struct waiter first = { lead.table, "first", SESSTAB_REFUSED },
                  second = { lead.table, "second", SESSTAB_OK };
    (void)state;
    insert_stored(&lead, 1);
    pid_t first_pid = start_child(bind_and_wait, &first);
    struct store_image one = take_waited(&lead);
    pid_t second_pid = start_child(bind_and_wait, &second);
    wait_until(strcmp(look(lead.table, 1).player, "second") == 0);
    check(store_refuse(lead.store, &one, 0));
    join_child(first_pid);
    check_string(look(lead.table, 1).player, "second");
    check(look(lead.table, 1).pending && !ended(second_pid));
    while (!ended(second_pid))
        acknowledge_all(&lead);
    join_child(second_pid);
    check(!look(lead.table, 1).pending);
    end_lead(&lead);
}

/* A leader that died had written what is below: Redis has it, and the table does not know. */
static void what_redis_has_is_not_refused_with_what_is_on_top(void **state)
{
    struct lead lead = new_lead();
    struct waiter below = { lead.table, "below", SESSTAB_OK },
                  on_top = { lead.table, "on top", SESSTAB_OK };
    (void)state;
    insert_stored(&lead, 1);
    pid_t below_pid = start_child(bind_and_wait, &below);
    struct store_image written = take_waited(&lead);
    store_let_go(lead.store, &written);
    pid_t top_pid = start_child(bind_and_wait, &on_top);
    wait_until(strcmp(look(lead.table, 1).player, "on top") == 0);
    struct store_image image = take_waited(&lead);
    check(!store_refuse(lead.store, &image, written.version));
    store_retry(lead.store, &image);
    image = take_waited(&lead);
    check_result(sesstab_bind(lead.table, 1, "last", 0), SESSTAB_UNKNOWN);
    check(!store_refuse(lead.store, &image, written.version)); /* nor when another is on top of that */
    store_retry(lead.store, &image);
    check_string(look(lead.table, 1).player, "last");
    check(look(lead.table, 1).pending && !ended(below_pid) && !ended(top_pid));
    while (!ended(below_pid) || !ended(top_pid))
        acknowledge_all(&lead);
    join_child(below_pid);
    join_child(top_pid);
    end_lead(&lead);
}

/* Redis has what is gone back to, or, having lost it, something older. */
static void what_redis_has_and_is_gone_back_to_forbids_no_refusal(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_stored(&lead, 1);
    const uint64_t older = look(lead.table, 1).version;
    for (int i = 0; i < 2; i++) {
        struct waiter waiter = { lead.table, "refused", SESSTAB_REFUSED };
        const char *player = i ? "second" : "first";
        check_result(sesstab_bind(lead.table, 1, player, 0), SESSTAB_UNKNOWN);
        struct store_image acked = expect_write(&lead, 1, STORE_PUT);
        store_ack(lead.store, &acked);
        pid_t pid = start_child(bind_and_wait, &waiter);
        struct store_image image = take_waited(&lead);
        check(store_refuse(lead.store, &image, i ? older : acked.version));
        join_child(pid);
        check_string(look(lead.table, 1).player, player);
    }
    end_lead(&lead);
}

static void an_acknowledgement_does_not_judge_a_later_binding(void **state)
{
    struct lead lead = new_lead();
    struct waiter first = { lead.table, "first", SESSTAB_OK },
                  second = { lead.table, "second", SESSTAB_REFUSED };
    (void)state;
    insert_stored(&lead, 1);
    pid_t first_pid = start_child(bind_and_wait, &first);
    struct store_image one = take_waited(&lead);
    pid_t second_pid = start_child(bind_and_wait, &second);
    wait_until(strcmp(look(lead.table, 1).player, "second") == 0);
    store_ack(lead.store, &one);
    join_child(first_pid);
    check(look(lead.table, 1).pending && !ended(second_pid));
    struct store_image two = take_waited(&lead);
    check(two.version > one.version && store_refuse(lead.store, &two, 0));
    join_child(second_pid);
    check_string(look(lead.table, 1).player, "first");
    check(!look(lead.table, 1).pending);
    end_lead(&lead);
}

static void a_binding_that_was_durable_is_not_rolled_back_when_redis_lost_it(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_stored(&lead, 1);
    for (int i = 0; i < 2; i++) {
        struct waiter waiter = { lead.table, i ? "second" : "first", SESSTAB_OK };
        pid_t pid = start_child(bind_and_wait, &waiter);
        struct store_image image = take_waited(&lead);
        store_ack(lead.store, &image);
        join_child(pid);
    }
    store_lost(lead.store);
    check(look(lead.table, 1).pending);
    struct store_image image = next_write(&lead);
    check(image.kind == STORE_PUT && image.replace && !store_refuse(lead.store, &image, 0));
    check_string(look(lead.table, 1).player, "second");
    check_result(sesstab_bind(lead.table, 1, "third", 0), SESSTAB_UNKNOWN);
    store_retry(lead.store, &image);
    image = next_write(&lead);
    check(store_refuse(lead.store, &image, 0));
    check_string(look(lead.table, 1).player, "second");
    end_lead(&lead);
}

static void a_refused_unbinding_leaves_the_session_bound(void **state)
{
    struct lead lead = new_lead();
    struct waiter waiter = { lead.table, "", SESSTAB_REFUSED };
    (void)state;
    insert_stored(&lead, 1);
    check_result(sesstab_bind(lead.table, 1, "#1", 0), SESSTAB_UNKNOWN);
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    store_ack(lead.store, &image);
    pid_t pid = start_child(bind_and_wait, &waiter);
    image = take_waited(&lead);
    check(store_refuse(lead.store, &image, 0));
    join_child(pid);
    check_string(look(lead.table, 1).player, "#1");
    check_equal(look(lead.table, 1).state, SESSTAB_LOGGED_IN);
    end_lead(&lead);
}

static void who_waits_for_a_removed_session_is_told_that_it_is_gone(void **state)
{
    struct lead lead = new_lead();
    struct waiter waiter = { lead.table, "#1", SESSTAB_NOTFOUND };
    (void)state;
    insert_stored(&lead, 1);
    pid_t pid = start_child(bind_and_wait, &waiter);
    wait_until(look(lead.table, 1).pending);
    check_ok(sesstab_remove(lead.table, 1));
    insert_plain(lead.table, 1);
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    store_ack(lead.store, &image);
    while (!ended(pid))
        acknowledge_all(&lead);
    join_child(pid);
    check_string(look(lead.table, 1).player, "");
    end_lead(&lead);
}

/* ---------------------------------------------------------------- leaders ---------------- */

static void only_one_leads(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    struct store *second = store_open(lead.table);
    check(second && !store_lead(second) && !store_lead(second));
    store_close(lead.store);
    check(store_lead(second));
    lead.store = second;
    end_lead(&lead);
}

struct doomed { struct lead lead; _Atomic bool holds; };

static void take_and_be_killed(void *context)
{
    struct doomed *doomed = context;
    doomed->lead.store = lead_table(doomed->lead.table);
    for (uint64_t i = 0; i < 20; i++)
        check_equal(next_write(&doomed->lead).kind, STORE_PUT);
    doomed->holds = true;
    for (;;)
        pause();
}

/* The first leader dies with twenty sessions in its hands: Redis may have them or not. */
static void what_a_dead_leader_had_in_hands_is_handed_out_again(void **state)
{
    struct doomed *doomed = shared_memory(sizeof *doomed);
    (void)state;
    doomed->lead.name = new_name();
    doomed->lead.table = open_table(doomed->lead.name, &(sesstab_options){ .create = true });
    for (uint64_t handle = 1; handle <= 30; handle++)
        insert_plain(doomed->lead.table, handle);
    pid_t pid = start_child(take_and_be_killed, doomed);
    wait_until(doomed->holds);
    kill_child(pid);
    struct lead lead = doomed->lead;
    lead.store = store_open(lead.table);
    wait_until(store_lead(lead.store));
    check_ok(sesstab_remove(lead.table, 1));
    bool seen[31] = { false };
    for (int i = 0; i < 30; i++) {
        struct store_image image = next_write(&lead);
        check(image.handle >= 1 && image.handle <= 30 && !seen[image.handle]);
        check_equal(image.kind, image.handle == 1 ? STORE_DELETE : STORE_PUT);
        seen[image.handle] = true;
        store_ack(lead.store, &image);
    }
    expect_nothing(&lead);
    check_equal(store_lag(lead.store), 0);
    end_lead(&lead);
}

static void a_store_that_lost_its_data_gets_everything_again(void **state)
{
    struct lead lead = new_lead();
    uint32_t incarnation = store_incarnation(lead.store);
    (void)state;
    for (uint64_t handle = 1; handle <= 5; handle++)
        insert_stored(&lead, handle);
    check_result(sesstab_bind(lead.table, 1, "#1", 0), SESSTAB_UNKNOWN);
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    store_ack(lead.store, &image);
    store_lost(lead.store);
    check(store_incarnation(lead.store) != incarnation);
    check_equal(store_lag(lead.store), 5);
    for (int i = 0; i < 5; i++) {
        image = next_write(&lead);
        check(image.kind == STORE_PUT && image.replace && image.member);
        store_ack(lead.store, &image);
    }
    expect_nothing(&lead);
    check(!look(lead.table, 1).pending);
    end_lead(&lead);
}

static void a_lost_key_is_written_whole(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_stored(&lead, 1);
    check_ok(sesstab_touch(lead.table, 1, sesstab_now() + 1000));
    struct store_image image = expect_write(&lead, 1, STORE_TOUCH);
    store_forget(lead.store, &image);
    image = expect_write(&lead, 1, STORE_PUT);
    check(image.replace && image.member);
    store_ack(lead.store, &image);
    expect_nothing(&lead);
    end_lead(&lead);
}

/* ---------------------------------------------------------------- loading ---------------- */

static struct store_record record_of(uint64_t handle)
{
    static const sesstab_pair pair = { "key", "value", 5 };
    return (struct store_record){ .handle = handle, .generation = 500, .version = 40,
        .connected_at = 1000, .last_seen = 2000, .state = SESSTAB_LOGGED_IN, .player = "#1",
        .address = "192.0.2.1", .host = "h", .type = "t", .metadata = &pair,
        .metadata_count = 1 };
}

static void a_loaded_session_is_durable_as_it_was_and_becomes_detached(void **state)
{
    const char *name = new_name();
    struct lead lead = { .name = name };
    (void)state;
    lead.table = open_table(name, &(sesstab_options){ .create = true });
    lead.store = lead_table(lead.table);
    struct store_record record = record_of(9);
    check(!store_is_ready(lead.store));
    check_ok(store_load(lead.store, &record));
    check_result(store_load(lead.store, &record), SESSTAB_EXISTS);
    sesstab_view view = look(lead.table, 9);
    check_equal(view.generation, 500);
    check_equal(view.last_seen, 2000);
    check_string(view.player, "#1");
    check_string(metadata_of(&view, "key"), "value");
    check_equal(view.owner, 0);
    check(!view.pending);
    store_set_ready(lead.store, 500, 9);
    check(store_is_ready(lead.store));
    wait_until(look(lead.table, 9).state == SESSTAB_DETACHED
               || next_write(&lead).kind == STORE_PUT);
    check_equal(look(lead.table, 9).state, SESSTAB_DETACHED);
    uint64_t handle = 0;
    check_ok(sesstab_insert(lead.table, &handle, NULL));
    check(handle > 9 && look(lead.table, handle).generation > 500);
    end_lead(&lead);
}

static void what_the_table_knows_is_not_loaded(void **state)
{
    const char *name = new_name();
    struct lead lead = { .name = name };
    (void)state;
    lead.table = open_table(name, &(sesstab_options){ .create = true });
    lead.store = lead_table(lead.table);
    insert_plain(lead.table, 1);
    insert_plain(lead.table, 2);
    check_ok(sesstab_remove(lead.table, 2));
    for (uint64_t handle = 1; handle <= 2; handle++) {
        struct store_record record = record_of(handle);
        check_result(store_load(lead.store, &record), SESSTAB_EXISTS);
        check(store_knows(lead.store, handle, NULL));
    }
    store_set_ready(lead.store, 500, 2);
    check_string(look(lead.table, 1).player, "");
    check_result(sesstab_touch(lead.table, 2, 0), SESSTAB_NOTFOUND);
    end_lead(&lead);
}

/* They are holes of the file: in a full /dev/shm to read one is SIGBUS. */
static void a_leader_looks_into_no_ring_that_nobody_had(void **state)
{
    struct lead lead = new_lead();
    struct stat before, after;
    (void)state;
    expect_nothing(&lead);
    check(stat(object_path(lead.name), &before) == 0);
    check(store_lead(lead.store));
    for (unsigned i = 0; i < THREADS / 64; i++) /* somebody scribbles */
        atomic_store(&lead.table->shm.ready[i], UINT64_MAX);
    expect_nothing(&lead);
    check(stat(object_path(lead.name), &after) == 0);
    check_equal(after.st_blocks, before.st_blocks);
    end_lead(&lead);
}

/* The byte of session 1's record that says how long its first key is. */
static uint8_t *first_key_length(sesstab *table)
{
    check_ok(sesstab_read_begin(table));
    struct context *c = shm_tls[table->shm.index].context;
    struct block *b = block_at(c->shm, CURRENT_BLOCK(index_lookup(c, 1)->current));
    sesstab_read_end(table);
    return (uint8_t *)b + b->metadata_at + offsetof(struct metadata, key_length);
}

static void torn_metadata_is_not_written(void **state)
{
    struct lead lead = new_lead();
    (void)state;
    insert_stored(&lead, 1);
    check_ok(sesstab_set(lead.table, 1, "key", "value", 5));
    *first_key_length(lead.table) = 100;
    expect_nothing(&lead);
    *first_key_length(lead.table) = 3;
    check_ok(sesstab_touch(lead.table, 1, sesstab_now() + 1000));
    struct store_image image = expect_write(&lead, 1, STORE_PUT);
    store_ack(lead.store, &image);
    end_lead(&lead);
}

static void a_damaged_record_is_not_loaded(void **state)
{
    const char *name = new_name();
    struct lead lead = { .name = name };
    char longest[SESSTAB_HOST_MAX + 2];
    (void)state;
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    lead.table = open_table(name, &(sesstab_options){ .create = true });
    lead.store = lead_table(lead.table);
    struct store_record record = record_of(1);
    record.host = longest;
    check_result(store_load(lead.store, &record), SESSTAB_TOOBIG);
    record = record_of(0);
    check_result(store_load(lead.store, &record), SESSTAB_INVALID);
    check_equal(count_sessions(lead.table), 0);
    end_lead(&lead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_change_is_handed_out_once_until_it_is_tried_again),
        TEST(what_changes_while_it_is_in_hands_is_handed_out_again),
        TEST(a_late_acknowledgement_does_not_cover_what_came_after),
        TEST(a_thousand_changes_are_one_write),
        TEST(a_touch_alone_is_a_touch),
        TEST(a_deleted_key_makes_the_write_replace_everything),
        TEST(more_changes_than_the_rings_hold_are_all_handed_out),
        TEST(what_overflowed_is_handed_out_beside_what_changes_all_the_time),
        TEST(a_thread_s_change_is_handed_out_beside_one_that_changes_all_the_time),
        TEST(rings_are_looked_into_while_threads_prepare_theirs),
        TEST(what_the_store_never_heard_of_needs_no_deletion),
        TEST(a_session_in_hands_leaves_a_tombstone),
        TEST(a_late_deletion_leaves_the_new_session_alone),
        TEST(who_waits_is_told_that_the_store_has_it),
        TEST(who_waits_does_not_wait_for_a_sweep_of_the_whole_table),
        TEST(a_refused_binding_is_rolled_back_before_it_is_said),
        TEST(a_refusal_goes_back_to_the_last_acknowledged_binding),
        TEST(a_refusal_does_not_judge_a_later_binding),
        TEST(what_redis_has_is_not_refused_with_what_is_on_top),
        TEST(what_redis_has_and_is_gone_back_to_forbids_no_refusal),
        TEST(an_acknowledgement_does_not_judge_a_later_binding),
        TEST(a_binding_that_was_durable_is_not_rolled_back_when_redis_lost_it),
        TEST(a_refused_unbinding_leaves_the_session_bound),
        TEST(who_waits_for_a_removed_session_is_told_that_it_is_gone),
        TEST(only_one_leads),
        TEST(what_a_dead_leader_had_in_hands_is_handed_out_again),
        TEST(a_store_that_lost_its_data_gets_everything_again),
        TEST(a_lost_key_is_written_whole),
        TEST(a_loaded_session_is_durable_as_it_was_and_becomes_detached),
        TEST(what_the_table_knows_is_not_loaded),
        TEST(a_leader_looks_into_no_ring_that_nobody_had),
        TEST(torn_metadata_is_not_written),
        TEST(a_damaged_record_is_not_loaded),
    };
    return run_all(tests);
}
