/*
 * A leader that leads no more and does not know it yet, with the test as both leaders: what each of
 * its late calls does to the table (LATE CALLS in lib/store.h), one at a time.
 */
#include "tests/harness.h"

#include <stdatomic.h>
#include <string.h>

#include "lib/store.h"
#include "lib/table.h"

struct two {
    const char *name;
    sesstab *table;
    struct store *late, *leader;
};

static struct two start(void)
{
    struct two t = { .name = new_name() };
    t.table = open_table(t.name, &(sesstab_options){ .create = true });
    t.late = store_open(t.table);
    t.leader = store_open(t.table);
    check(t.late && t.leader && store_lead(t.late));
    store_set_ready(t.late, 0, 0);
    return t;
}

static void supersede(struct two *t)
{
    wait_until(store_supersede(t->leader, 0));
    check(store_leads(t->leader) && !store_leads(t->late));
}

static void end(struct two *t)
{
    if (t->late)
        store_close(t->late);
    store_close(t->leader);
    check_table(t->name);
}

static void close_late(struct two *t)
{
    store_close(t->late);
    t->late = NULL;
}

/* The next session that STORE would write; kind NOTHING when it finds none. */
static struct store_image take(struct two *t, struct store *store)
{
    struct store_image image = { .kind = STORE_NOTHING };
    sesstab_view view;
    do {
        if (!store_take(store, &image, 1, false))
            continue;
        check_ok(sesstab_read_begin(t->table));
        store_read(store, &image, &view);
        sesstab_read_end(t->table);
    } while (image.kind == STORE_NOTHING && store_busy(store));
    return image;
}

static void settle(struct two *t, struct store *store)
{
    struct store_image image;
    while ((image = take(t, store)).kind != STORE_NOTHING)
        store_ack(store, &image);
}

/* A thread's ticket waits for a binding of HANDLE until the test's end. */
static void bind_and_wait(void *context)
{
    sesstab_bind(context, 1, "player", WAIT_LIMIT);
}

static pid_t start_waiting(struct two *t)
{
    pid_t pid = start_child(bind_and_wait, t->table);
    const atomic_u64 *urgent = t->table->shm.urgent;
    wait_until(atomic_load(&urgent[0]));
    return pid;
}

/* ---------------------------------------------------------------- who leads -------------- */

static void nobody_is_superseded_before_the_table_is_ready(void **state)
{
    struct two t = { .name = new_name() };
    (void)state;
    t.table = open_table(t.name, &(sesstab_options){ .create = true });
    t.late = store_open(t.table);
    t.leader = store_open(t.table);
    check(store_lead(t.late));
    check(!store_filler_stalled(t.leader, 0)); /* nobody was seen yet */
    for (int i = 0; i < 10; i++)
        check(!store_supersede(t.leader, 0));
    check(store_filler_stalled(t.leader, 0));
    store_set_ready(t.late, 0, 0);
    check(!store_filler_stalled(t.leader, 0));
    supersede(&t);
    end(&t);
}

static void who_shows_progress_is_not_superseded(void **state)
{
    struct two t = start();
    (void)state;
    for (int i = 0; i < 10; i++) {
        store_beat(t.late);
        check(!store_supersede(t.leader, 0));
    }
    supersede(&t);
    for (int i = 0; i < 10; i++) {
        store_beat(t.late); /* counts for nobody */
        check(!store_lead(t.late));
    }
    supersede(&(struct two){ .late = t.leader, .leader = t.late });
    check(store_former(t.late) == FORMER_STALLED);
    end(&t);
}

/* ---------------------------------------------------------------- late calls ------------- */

static void a_late_acknowledgement_makes_nothing_durable(void **state)
{
    struct two t = start();
    (void)state;
    insert_plain(t.table, 1);
    struct store_image image = take(&t, t.late);
    check_equal(image.kind, STORE_PUT);
    supersede(&t);
    store_ack(t.late, &image);
    check_equal(store_lag(t.leader), 1);
    image = take(&t, t.leader);
    check_equal(image.handle, 1);
    store_ack(t.leader, &image);
    check_equal(store_lag(t.leader), 0);
    end(&t);
}

static void a_late_acknowledgement_of_a_deletion_leaves_the_tombstone(void **state)
{
    struct two t = start();
    (void)state;
    insert_plain(t.table, 1);
    settle(&t, t.late);
    check_ok(sesstab_remove(t.table, 1));
    struct store_image image = take(&t, t.late);
    check_equal(image.kind, STORE_DELETE);
    supersede(&t);
    store_ack(t.late, &image);
    check(store_knows(t.leader, 1, NULL));
    check_equal(take(&t, t.leader).kind, STORE_DELETE);
    end(&t);
}

/* What was acknowledged of an earlier incarnation says nothing of the one that was written since. */
static void an_acknowledgement_from_before_a_loss_takes_no_later_one_back(void **state)
{
    struct two t = start();
    (void)state;
    insert_plain(t.table, 1);
    struct store_image before = take(&t, t.late), after;
    store_lost(t.late);
    after = take(&t, t.late);
    check(after.incarnation != before.incarnation);
    store_ack(t.late, &after);
    check_equal(store_lag(t.late), 0);
    store_ack(t.late, &before);
    check_equal(store_lag(t.late), 0);
    end(&t);
}

static void what_a_late_leader_took_comes_back_when_it_steps_back(void **state)
{
    struct two t = start();
    (void)state;
    insert_plain(t.table, 1);
    settle(&t, t.late);
    supersede(&t);
    settle(&t, t.leader);
    pid_t waiting = start_waiting(&t);
    check_ok(sesstab_set(t.table, 1, "key", "value", 5));
    struct store_image taken = take(&t, t.late);
    check(taken.kind == STORE_PUT && taken.urgent);
    close_late(&t);
    check(store_compare_wanted(t.leader) && !store_compare_wanted(t.leader));
    struct store_image image = take(&t, t.leader);
    check(image.kind == STORE_PUT && image.urgent);
    store_ack(t.leader, &image);
    join_child(waiting);
    end(&t);
}

/* It is stopped again with a ticket in its hands: the leader looks at all of them. */
static void a_ticket_that_a_late_leader_took_is_found(void **state)
{
    struct two t = start();
    (void)state;
    insert_plain(t.table, 1);
    settle(&t, t.late);
    supersede(&t);
    settle(&t, t.leader);
    pid_t waiting = start_waiting(&t);
    check(take(&t, t.late).urgent);
    struct store_image image;
    wait_until(store_take(t.leader, &image, 1, true));
    sesstab_view view;
    check_ok(sesstab_read_begin(t.table));
    store_read(t.leader, &image, &view);
    sesstab_read_end(t.table);
    store_ack(t.leader, &image);
    join_child(waiting);
    end(&t);
}

static void lead_until_killed(void *context)
{
    sesstab *table = context;
    struct store *store = store_open(table);
    check(store && store_lead(store));
    store_set_ready(store, 0, 0);
    for (;;)
        pause();
}

static void a_superseded_leader_s_death_is_a_reason_to_compare(void **state)
{
    struct two t = { .name = new_name() };
    (void)state;
    t.table = open_table(t.name, &(sesstab_options){ .create = true });
    t.leader = store_open(t.table);
    pid_t first = start_child(lead_until_killed, t.table);
    wait_until(store_supersede(t.leader, 0));
    check(store_former(t.leader) == FORMER_STALLED && !store_compare_wanted(t.leader));
    kill_child(first);
    wait_until(store_recover(t.table, NULL, 0, NULL));
    check(store_compare_wanted(t.leader) && !store_compare_wanted(t.leader));
    end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_is_superseded_before_the_table_is_ready),
        TEST(who_shows_progress_is_not_superseded),
        TEST(a_late_acknowledgement_makes_nothing_durable),
        TEST(a_late_acknowledgement_of_a_deletion_leaves_the_tombstone),
        TEST(an_acknowledgement_from_before_a_loss_takes_no_later_one_back),
        TEST(what_a_late_leader_took_comes_back_when_it_steps_back),
        TEST(a_ticket_that_a_late_leader_took_is_found),
        TEST(a_superseded_leader_s_death_is_a_reason_to_compare),
    };
    return run_all(tests);
}
