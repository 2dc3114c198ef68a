/*
 * Bindings without waiting: tickets, their answers through a descriptor, cancelling, what deaths
 * and forks leave; and flush.  With a real Redis and a real persister, but where a test needs to stand
 * between two of the persister's steps: there it leads itself.
 */
#include "tests/harness.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "lib/store.h"
#include "lib/ticket.h"

#define KEY(handle) TEST_PREFIX ":conn:" #handle

struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
    pid_t persister;
    uint64_t ticket;
    _Atomic unsigned ready;
    _Atomic bool stop;
};

static struct world *start_world(void)
{
    struct world *world = shared_memory(sizeof *world);
    world->name = new_name();
    world->redis = start_redis(NULL);
    world->persister = start_persister(world->name, world->redis->url, NULL);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    return world;
}

static void check_world(struct world *world)
{
    wait_until_redis_equals(world->table, world->redis);
    check_table(world->name);
}

static void insert_many(sesstab *table, uint64_t count)
{
    for (uint64_t handle = 1; handle <= count; handle++)
        insert_plain(table, handle);
}

static int descriptor_of(sesstab *table)
{
    int descriptor;
    check_ok(sesstab_descriptor(table, &descriptor));
    return descriptor;
}

static bool readable(int descriptor, int timeout_ms)
{
    struct pollfd p = { .fd = descriptor, .events = POLLIN };
    return poll(&p, 1, timeout_ms) == 1;
}

/* The next answer, for which it sleeps on the descriptor and nowhere else. */
static sesstab_answer await_answer(sesstab *table)
{
    sesstab_answer answer;
    int descriptor = descriptor_of(table);
    while (sesstab_next_answer(table, &answer) != SESSTAB_OK)
        check(readable(descriptor, WAIT_LIMIT));
    return answer;
}

static uint64_t start_bind(sesstab *table, uint64_t handle, const char *player)
{
    uint64_t ticket;
    check_ok(sesstab_start_bind(table, handle, player, (void *)(uintptr_t)handle, &ticket));
    return ticket;
}

static void expect_answer(sesstab *table, uint64_t ticket, uint64_t handle, int result)
{
    sesstab_answer answer = await_answer(table);
    check_equal(answer.ticket, ticket);
    check_equal(answer.handle, handle);
    check_equal((uintptr_t)answer.cookie, handle);
    check_result(answer.result, result);
}

static void expect_no_answer(sesstab *table)
{
    sesstab_answer answer;
    check_result(sesstab_next_answer(table, &answer), SESSTAB_NOTFOUND);
}

/* Groups of tickets that somebody holds; and this process. */
static unsigned groups_held(sesstab *table)
{
    unsigned held = 0;
    for (unsigned g = 0; g < GROUPS; g++)
        held += table->shm.groups[g] != 0;
    return held;
}

static unsigned groups_of_ours(sesstab *table)
{
    unsigned held = 0;
    for (unsigned g = 0; g < GROUPS; g++)
        held += table->shm.groups[g] == sesstab_self(table);
    return held;
}

/* ---------------------------------------------------------------- answers ---------------- */

static void an_answer_comes_through_the_descriptor(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 1);
    expect_no_answer(world->table);
    uint64_t ticket = start_bind(world->table, 1, "#1");
    check_string(look(world->table, 1).player, "#1");
    expect_answer(world->table, ticket, 1, SESSTAB_OK);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#1"));
    check(!look(world->table, 1).pending);
    expect_no_answer(world->table);
    check(!readable(descriptor_of(world->table), 0));
    check_ok(sesstab_start_unbind(world->table, 1, (void *)1, &ticket));
    expect_answer(world->table, ticket, 1, SESSTAB_OK);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", ""));
    check_equal(groups_held(world->table), 0);
    check_world(world);
}

static void an_answer_that_waits_makes_a_later_descriptor_readable(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 1);
    uint64_t ticket = start_bind(world->table, 1, "#1");
    wait_until(!look(world->table, 1).pending);
    check(readable(descriptor_of(world->table), WAIT_LIMIT));
    expect_answer(world->table, ticket, 1, SESSTAB_OK);
    check_world(world);
}

static void where_there_is_nothing_to_wait_for_the_answer_comes_the_same_way(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_many(table, 1);
    int descriptor = descriptor_of(table);
    uint64_t ticket = start_bind(table, 1, "#1");
    check(readable(descriptor, 0));
    expect_answer(table, ticket, 1, SESSTAB_OK);
    check_ok(sesstab_start_bind(table, 1, "#2", NULL, NULL));
    check_result(await_answer(table).result, SESSTAB_OK);
    expect_no_answer(table);
    check(!readable(descriptor, 0));
}

static void a_start_that_fails_has_no_answer(void **state)
{
    char long_name[SESSTAB_PLAYER_MAX + 2];
    sesstab *table = memory_table();
    uint64_t ticket = 77;
    (void)state;
    insert_many(table, 1);
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    check_result(sesstab_start_bind(table, 2, "#1", NULL, &ticket), SESSTAB_NOTFOUND);
    check_result(sesstab_start_unbind(table, 2, NULL, &ticket), SESSTAB_NOTFOUND);
    check_result(sesstab_start_bind(table, 1, "", NULL, &ticket), SESSTAB_INVALID);
    check_result(sesstab_start_bind(table, 1, NULL, NULL, &ticket), SESSTAB_INVALID);
    check_result(sesstab_start_bind(table, 1, long_name, NULL, &ticket), SESSTAB_TOOBIG);
    check_equal(ticket, 77);
    expect_no_answer(table);
    check_equal(groups_held(table), 0);
    check_result(sesstab_cancel(table, 0), SESSTAB_NOTFOUND);
    check_result(sesstab_cancel(table, UINT64_MAX), SESSTAB_NOTFOUND);
    check_result(sesstab_cancel(table, THREADS), SESSTAB_NOTFOUND);
}

/* Collects COUNT answers of handles 1 to COUNT, each once, all with RESULT. */
static void collect_once(sesstab *table, uint64_t count, int result)
{
    bool *seen = calloc(count + 1, sizeof *seen);
    for (uint64_t n = 0; n < count; n++) {
        sesstab_answer answer = await_answer(table);
        check_result(answer.result, result);
        check(answer.handle >= 1 && answer.handle <= count && !seen[answer.handle]);
        check_equal((uintptr_t)answer.cookie, answer.handle);
        seen[answer.handle] = true;
    }
    free(seen);
    expect_no_answer(table);
    check_equal(groups_of_ours(table), 0);
}

static void thousands_are_outstanding_and_each_is_answered_once(void **state)
{
    const uint64_t count = rounds(8000);
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, count);
    for (int round = 0; round < 3; round++) {
        kill(world->persister, SIGSTOP);
        for (uint64_t handle = 1; handle <= count; handle++)
            start_bind(world->table, handle, round % 2 ? "#odd" : "#even");
        check(groups_held(world->table) >= count / GROUP_TICKETS);
        kill(world->persister, SIGCONT);
        collect_once(world->table, count, SESSTAB_OK);
    }
    check_world(world);
}

static void many_tickets_for_one_session_are_all_answered(void **state)
{
    const uint64_t count = 1000;
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 1);
    kill(world->persister, SIGSTOP);
    for (uint64_t i = 1; i <= count; i++)
        check_ok(sesstab_start_bind(world->table, 1, i % 2 ? "#odd" : "#even",
                                    (void *)(uintptr_t)i, NULL));
    kill(world->persister, SIGCONT);
    uint64_t sum = 0;
    for (uint64_t i = 1; i <= count; i++) {
        sesstab_answer answer = await_answer(world->table);
        check_result(answer.result, SESSTAB_OK);
        sum += (uintptr_t)answer.cookie;
    }
    check_equal(sum, count * (count + 1) / 2);
    check(redis_field_is(world->redis, KEY(1), "PlayerRef", "#even"));
    check_world(world);
}

static void a_refused_binding_is_rolled_back_before_its_answer(void **state)
{
    const uint64_t count = 100;
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, count);
    for (uint64_t handle = 1; handle <= count; handle++)
        start_bind(world->table, handle, "#before");
    collect_once(world->table, count, SESSTAB_OK);
    freeReplyObject(redis_query(world->redis, "CONFIG SET maxmemory 1"));
    for (uint64_t handle = 1; handle <= count; handle++)
        start_bind(world->table, handle, "#refused");
    for (uint64_t n = 0; n < count; n++) {
        sesstab_answer answer = await_answer(world->table);
        check_result(answer.result, SESSTAB_REFUSED);
        check_string(look(world->table, answer.handle).player, "#before");
    }
    freeReplyObject(redis_query(world->redis, "CONFIG SET maxmemory 0"));
    start_bind(world->table, 1, "#after");
    check_result(await_answer(world->table).result, SESSTAB_OK);
    check_world(world);
}

static void the_ticket_of_a_removed_session_says_so(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    kill(world->persister, SIGSTOP);
    uint64_t ticket = start_bind(world->table, 1, "#2");
    check_ok(sesstab_remove(world->table, 1));
    kill(world->persister, SIGCONT);
    expect_answer(world->table, ticket, 1, SESSTAB_NOTFOUND);
    check_world(world);
}

/* ---------------------------------------------------------------- limits, cancelling ----- */

static void what_is_cancelled_is_not_answered_and_stays_pending(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 2);
    kill(world->persister, SIGSTOP);
    uint64_t cancelled = start_bind(world->table, 1, "#1");
    uint64_t kept = start_bind(world->table, 2, "#2");
    check_ok(sesstab_cancel(world->table, cancelled));
    check_result(sesstab_cancel(world->table, cancelled), SESSTAB_NOTFOUND);
    check(look(world->table, 1).pending);
    check_string(look(world->table, 1).player, "#1");
    kill(world->persister, SIGCONT);
    expect_answer(world->table, kept, 2, SESSTAB_OK);
    wait_until(!look(world->table, 1).pending);
    expect_no_answer(world->table);
    check_result(sesstab_cancel(world->table, kept), SESSTAB_NOTFOUND);
    check_world(world);
}

static void an_answer_that_is_there_can_not_be_cancelled(void **state)
{
    sesstab *table = memory_table();
    (void)state;
    insert_many(table, 1);
    uint64_t ticket = start_bind(table, 1, "#1");
    check_result(sesstab_cancel(table, ticket), SESSTAB_NOTFOUND);
    expect_answer(table, ticket, 1, SESSTAB_OK);
}

struct race {
    sesstab *table;
    _Atomic uint64_t tickets[1000];
    _Atomic uint64_t ends[1000]; /* of each ticket: cancelled or answered */
    _Atomic uint64_t answers, cancels;
    _Atomic bool over;
};

static void *cancel_at_random(void *context)
{
    struct race *race = context;
    uint64_t random = 1;
    while (!race->over) {
        random = random * UINT64_C(6364136223846793005) + 1;
        unsigned i = random >> 33 & 511;
        uint64_t ticket = atomic_exchange(&race->tickets[i], 0);
        if (!ticket || sesstab_cancel(race->table, ticket) != SESSTAB_OK)
            continue;
        race->cancels++;
        race->ends[i]++;
    }
    return NULL;
}

static void end_answered(struct race *race, const sesstab_answer *answer)
{
    race->answers++;
    race->ends[answer->handle - 1]++;
}

static void cancel_and_answer_agree_on_who_was_first(void **state)
{
    enum { SESSIONS = 512 };
    static struct race race;
    struct world *world = start_world();
    pthread_t thread;
    sesstab_answer answer;
    (void)state;
    memset(&race, 0, sizeof race);
    race.table = world->table;
    insert_many(world->table, SESSIONS);
    check(pthread_create(&thread, NULL, cancel_at_random, &race) == 0);
    uint64_t started = 0;
    for (int round = 1; round <= rounds(60); round++) {
        for (uint64_t handle = 1; handle <= SESSIONS; handle++, started++)
            race.tickets[handle - 1] = start_bind(world->table, handle, round % 2 ? "#1" : "#2");
        while (race.answers + race.cancels < started) {
            while (sesstab_next_answer(world->table, &answer) == SESSTAB_OK)
                end_answered(&race, &answer);
            readable(descriptor_of(world->table), 1);
        }
        for (unsigned i = 0; i < SESSIONS; i++)
            check_equal(race.ends[i], round);
    }
    race.over = true;
    pthread_join(thread, NULL);
    check(race.answers && race.cancels);
    expect_no_answer(world->table);
    check_equal(groups_held(world->table), 0);
    check_world(world);
}

static void expect_limit(void *context)
{
    struct world *world = context;
    check_result(sesstab_start_bind(world->table, 1, "#other", NULL, NULL), SESSTAB_LIMIT);
}

static void when_no_ticket_is_left_a_start_says_so_and_changes_nothing(void **state)
{
    struct world *world = shared_memory(sizeof *world);
    uint64_t *tickets = calloc(SESSTAB_TICKETS_MAX, sizeof *tickets);
    (void)state;
    world->table = selective_table(&world->name);
    insert_many(world->table, 1);
    for (size_t i = 0; i < SESSTAB_TICKETS_MAX; i++)
        tickets[i] = start_bind(world->table, 1, "#1");
    expect_limit(world);
    run_child(expect_limit, world);
    check_string(look(world->table, 1).player, "#1");
    for (size_t i = 0; i < SESSTAB_TICKETS_MAX; i++)
        check_ok(sesstab_cancel(world->table, tickets[i]));
    check_equal(groups_held(world->table), 0);
    check_ok(sesstab_cancel(world->table, start_bind(world->table, 1, "#2")));
    free(tickets);
}

/* ---------------------------------------------------------------- threads, forks, tables - */

struct crew {
    struct world *world;
    _Atomic uint64_t answers, next;
    uint64_t count;
};

static void *start_and_take(void *context)
{
    struct crew *crew = context;
    sesstab *table = crew->world->table;
    sesstab_answer answer;
    while (crew->answers < crew->count) {
        uint64_t n = crew->next++;
        if (n < crew->count)
            start_bind(table, 1 + n % 500, n % 1000 < 500 ? "#1" : "#2");
        while (sesstab_next_answer(table, &answer) == SESSTAB_OK) {
            check_result(answer.result, SESSTAB_OK);
            crew->answers++;
        }
        if (n >= crew->count)
            readable(descriptor_of(table), 10);
    }
    return NULL;
}

static void threads_start_and_take_answers_at_once(void **state)
{
    struct crew crew = { .world = start_world(), .count = rounds(40000) };
    pthread_t threads[4];
    (void)state;
    insert_many(crew.world->table, 500);
    for (size_t i = 0; i < 4; i++)
        check(pthread_create(&threads[i], NULL, start_and_take, &crew) == 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    check_equal(crew.answers, crew.count);
    expect_no_answer(crew.world->table);
    check_equal(groups_held(crew.world->table), 0);
    check_world(crew.world);
}

static void have_tickets_of_one_s_own(void *context)
{
    struct world *world = context;
    expect_no_answer(world->table);
    for (uint64_t handle = 51; handle <= 100; handle++)
        start_bind(world->table, handle, "#child");
    meet(&world->ready, 2);
    for (uint64_t n = 0; n < 50; n++) {
        sesstab_answer answer = await_answer(world->table);
        check_result(answer.result, SESSTAB_OK);
        check(answer.handle > 50);
    }
    expect_no_answer(world->table);
}

static void a_forked_child_has_tickets_of_its_own(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 100);
    int descriptor = descriptor_of(world->table);
    kill(world->persister, SIGSTOP);
    for (uint64_t handle = 1; handle <= 50; handle++)
        start_bind(world->table, handle, "#parent");
    pid_t pid = start_child(have_tickets_of_one_s_own, world);
    meet(&world->ready, 2);
    kill(world->persister, SIGCONT);
    check_equal(descriptor_of(world->table), descriptor);
    collect_once(world->table, 50, SESSTAB_OK);
    join_child(pid);
    check_world(world);
}

static void cancel_inherited(void *context)
{
    struct world *world = context;
    check_result(sesstab_cancel(world->table, world->ticket), SESSTAB_NOTFOUND);
}

static void a_child_can_not_cancel_its_parent_s_tickets(void **state)
{
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    world->table = selective_table(&world->name);
    insert_many(world->table, 1);
    world->ticket = start_bind(world->table, 1, "#1");
    run_child(cancel_inherited, world);
    check_ok(sesstab_cancel(world->table, world->ticket));
}

static void two_tables_have_a_descriptor_each(void **state)
{
    struct world *one = start_world();
    sesstab *two = memory_table();
    (void)state;
    insert_many(one->table, 1);
    insert_many(two, 1);
    check(descriptor_of(one->table) != descriptor_of(two));
    start_bind(two, 1, "#2");
    check(readable(descriptor_of(two), 0) && !readable(descriptor_of(one->table), 0));
    expect_no_answer(one->table);
    uint64_t ticket = start_bind(one->table, 1, "#1");
    check_result(await_answer(two).result, SESSTAB_OK);
    expect_answer(one->table, ticket, 1, SESSTAB_OK);
    check_world(one);
}

static void a_closed_table_s_tickets_are_taken_back(void **state)
{
    const char *name;
    sesstab *table = selective_table(&name), *second;
    (void)state;
    check_ok(sesstab_open(name, NULL, &second));
    insert_many(table, 1);
    int descriptor = descriptor_of(second);
    for (int i = 0; i < 200; i++)
        start_bind(second, 1, "#1");
    check_equal(groups_held(table), 4);
    sesstab_close(second);
    check_equal(groups_held(table), 0);
    check(fcntl(descriptor, F_GETFD) == -1);
    check_table(name);
}

static void shmdump_finds_a_ticket_in_use_whose_group_nobody_holds(void **state)
{
    const char *name;
    char output[4096];
    sesstab *table = selective_table(&name);
    (void)state;
    insert_many(table, 1);
    uint64_t ticket = start_bind(table, 1, "#1");
    const char *const check_it[] = { program("shmdump"), "--check", name, NULL };
    check_equal(run_program(check_it, output, sizeof output), 0);
    atomic_store(&table->shm.groups[0], 0);
    check(run_program(check_it, output, sizeof output) != 0);
    check(strstr(output, "nobody holds its group"));
    atomic_store(&table->shm.groups[0], sesstab_self(table));
    check_ok(sesstab_cancel(table, ticket));
    check_table(name);
}

/* ---------------------------------------------------------------- deaths ----------------- */

static void start_thousand_and_wait(void *context)
{
    struct world *world = context;
    descriptor_of(world->table);
    for (uint64_t handle = 1; handle <= 1000; handle++)
        start_bind(world->table, handle, "#killed");
    meet(&world->ready, 2);
    for (;;)
        pause();
}

static void a_killed_worker_s_tickets_come_back(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 1000);
    kill(world->redis->pid, SIGSTOP);
    pid_t pid = start_child(start_thousand_and_wait, world);
    meet(&world->ready, 2);
    check_equal(groups_held(world->table), 1000 / GROUP_TICKETS + 1);
    kill_child(pid);
    wait_until(groups_held(world->table) == 0);
    kill(world->redis->pid, SIGCONT);
    for (uint64_t handle = 1; handle <= 1000; handle++)
        start_bind(world->table, handle, "#after");
    collect_once(world->table, 1000, SESSTAB_OK);
    check_world(world);
}

/* Starts bindings without end, and takes their answers; each is OK. */
static void *keep_starting(void *context)
{
    struct crew *crew = context;
    sesstab *table = crew->world->table;
    sesstab_answer answer;
    uint64_t outstanding = 0;
    for (uint64_t n = 0; !crew->world->stop || outstanding; n++) {
        for (; outstanding < 300 && !crew->world->stop; outstanding++, n++)
            start_bind(table, 1 + n % 1000, n % 2000 < 1000 ? "#1" : "#2");
        readable(descriptor_of(table), WAIT_LIMIT);
        for (; sesstab_next_answer(table, &answer) == SESSTAB_OK; outstanding--, crew->answers++)
            check_result(answer.result, SESSTAB_OK);
    }
    return NULL;
}

static void successors_answer_what_killed_persisters_were_asked(void **state)
{
    struct crew crew = { .world = start_world() };
    pthread_t thread;
    (void)state;
    insert_many(crew.world->table, 1000);
    check(pthread_create(&thread, NULL, keep_starting, &crew) == 0);
    for (int i = 0; i < rounds(12); i++) {
        uint64_t answers = crew.answers;
        wait_until(crew.answers > answers + 500);
        pause_ms((unsigned)random_below(10));
        kill_child(crew.world->persister);
        crew.world->persister = start_persister(crew.world->name, crew.world->redis->url, NULL);
    }
    crew.world->stop = true;
    pthread_join(thread, NULL);
    check_equal(groups_held(crew.world->table), 0);
    check_world(crew.world);
}

/* The leader answers and dies before it says so, by hand. */
static void a_new_leader_tells_of_answers_that_the_former_one_gave_silently(void **state)
{
    const char *name;
    sesstab *table = selective_table(&name);
    (void)state;
    insert_many(table, 1);
    int descriptor = descriptor_of(table);
    uint64_t ticket = start_bind(table, 1, "#1");
    atomic_u64 *word = &table->shm.tickets[(uint32_t)ticket].word;
    check_equal(TICKET_STATE(*word), TICKET_WAITING);
    store_relaxed(word, TICKET_WORD(TICKET_SEQ(*word), TICKET_DURABLE));
    expect_no_answer(table);
    struct store *store = store_open(table);
    check(store && store_lead(store));
    check(readable(descriptor, WAIT_LIMIT));
    expect_answer(table, ticket, 1, SESSTAB_OK);
    store_close(store);
}

/* ---------------------------------------------------------------- the store's side ------- */

struct lead {
    const char *name;
    sesstab *table;
    struct store *store;
};

static struct lead new_lead(void)
{
    struct lead lead;
    lead.table = selective_table(&lead.name);
    lead.store = store_open(lead.table);
    check(lead.store && store_lead(lead.store));
    store_set_ready(lead.store, 0, 0);
    return lead;
}

static size_t take_read(struct lead *lead, struct store_image *images, size_t max)
{
    sesstab_view view;
    size_t taken = store_take(lead->store, images, max, true);
    check_ok(sesstab_read_begin(lead->table));
    for (size_t i = 0; i < taken; i++)
        store_read(lead->store, &images[i], &view);
    sesstab_read_end(lead->table);
    return taken;
}

static void a_ticket_is_in_one_image_s_hands(void **state)
{
    struct lead lead = new_lead();
    struct store_image images[2], again[2];
    (void)state;
    insert_many(lead.table, 2);
    uint64_t one = start_bind(lead.table, 1, "#1"), also = start_bind(lead.table, 1, "#1");
    uint64_t two = start_bind(lead.table, 2, "#2");
    check_equal(take_read(&lead, images, 2), 2);
    check_equal(store_take(lead.store, again, 2, true), 0);
    unsigned of_two = images[1].handle == 2;
    check(store_waited_for(lead.store, &images[0]) && store_waited_for(lead.store, &images[1]));
    store_ack(lead.store, &images[of_two]);
    expect_answer(lead.table, two, 2, SESSTAB_OK);
    expect_no_answer(lead.table);
    store_retry(lead.store, &images[!of_two]); /* both of its tickets wait again */
    check_equal(take_read(&lead, again, 2), 1);
    check_equal(again[0].handle, 1);
    store_let_go(lead.store, &images[!of_two]); /* it has had its end: AGAIN keeps what it has */
    check(store_waited_for(lead.store, &again[0]));
    check_ok(sesstab_cancel(lead.table, also));
    store_ack(lead.store, &again[0]);
    store_wake(lead.store);
    expect_answer(lead.table, one, 1, SESSTAB_OK);
    expect_no_answer(lead.table);
    store_close(lead.store);
    check_table(lead.name);
}

static void a_ticket_that_is_used_again_while_it_is_in_hands_is_not_lost(void **state)
{
    struct lead lead = new_lead();
    struct store_image first[2], second[2];
    (void)state;
    insert_many(lead.table, 2);
    uint64_t cancelled = start_bind(lead.table, 1, "#1");
    check_equal(take_read(&lead, first, 2), 1);
    check_ok(sesstab_cancel(lead.table, cancelled));
    uint64_t ticket = start_bind(lead.table, 2, "#2"); /* the same cell, another session */
    check_equal((uint32_t)ticket, (uint32_t)cancelled);
    check_equal(take_read(&lead, second, 2), 0);
    store_ack(lead.store, &first[0]);
    expect_no_answer(lead.table);
    check(store_busy(lead.store));
    check_equal(take_read(&lead, second, 2), 1);
    store_ack(lead.store, &second[0]);
    store_wake(lead.store);
    expect_answer(lead.table, ticket, 2, SESSTAB_OK);
    store_close(lead.store);
    check_table(lead.name);
}

/* A late leader may do that when its successor has looked already, and die: no lead begins then. */
static void a_leader_finds_answers_of_which_nobody_was_told(void **state)
{
    struct lead lead = new_lead();
    struct store_image images[2];
    (void)state;
    insert_many(lead.table, 1);
    int descriptor = descriptor_of(lead.table);
    uint64_t ticket = start_bind(lead.table, 1, "#1");
    check_equal(take_read(&lead, images, 2), 1);
    atomic_u64 *word = &lead.table->shm.tickets[(uint32_t)ticket].word;
    store_relaxed(word, TICKET_WORD(TICKET_SEQ(*word), TICKET_DURABLE));
    store_let_go(lead.store, &images[0]);
    expect_no_answer(lead.table);
    wait_until(store_take(lead.store, images, 2, true) == 0 && readable(descriptor, 0));
    expect_answer(lead.table, ticket, 1, SESSTAB_OK);
    store_close(lead.store);
    check_table(lead.name);
}

/*
 * Its worker was stopped between publishing and posting; meanwhile the next binding was refused,
 * and one more is durable.  Whether its own ever was can't be told.
 */
static void a_ticket_that_is_posted_too_late_to_tell_is_answered_unknown(void **state)
{
    struct lead lead = new_lead();
    struct store_image image;
    int result = SESSTAB_OK;
    unsigned late;
    (void)state;
    insert_many(lead.table, 1);
    check_result(sesstab_bind(lead.table, 1, "#1", 0), SESSTAB_UNKNOWN);
    struct wanted w = { .handle = 1, .generation = look(lead.table, 1).generation,
                        .version = look(lead.table, 1).version, .kind = TICKET_BINDING };
    uint64_t refused = start_bind(lead.table, 1, "#2");
    check_equal(take_read(&lead, &image, 1), 1);
    check(store_refuse(lead.store, &image, 0));
    store_wake(lead.store);
    expect_answer(lead.table, refused, 1, SESSTAB_REFUSED);
    uint64_t durable = start_bind(lead.table, 1, "#3");
    check_equal(take_read(&lead, &image, 1), 1);
    store_ack(lead.store, &image);
    store_wake(lead.store);
    expect_answer(lead.table, durable, 1, SESSTAB_OK);

    struct context *c = context_for(lead.table, &result);
    check_ok(ticket_claim(lead.table, c, 1, (void *)1, &late));
    w.slot = image.slot;
    uint64_t waiting = ticket_post(c, late, &w);
    check_equal(store_take(lead.store, &image, 1, true), 0);
    expect_answer(lead.table, ticket_number(late, waiting), 1, SESSTAB_UNKNOWN);
    store_close(lead.store);
    check_table(lead.name);
}

static void a_leader_that_follows_another_comes_to_rest(void **state)
{
    struct lead lead = new_lead();
    struct store_image image;
    (void)state;
    insert_many(lead.table, 1);
    uint64_t ticket = start_bind(lead.table, 1, "#1");
    store_close(lead.store); /* hands over what waits, and nothing that nobody ever had */
    lead.store = store_open(lead.table);
    wait_until(store_lead(lead.store));
    check_equal(take_read(&lead, &image, 1), 1);
    store_ack(lead.store, &image);
    store_wake(lead.store);
    expect_answer(lead.table, ticket, 1, SESSTAB_OK);
    wait_until(store_take(lead.store, &image, 1, false) == 0 && !store_busy(lead.store));
    check(!store_sleep(lead.store, false, 10));
    store_close(lead.store);
    check_table(lead.name);
}

/* Somebody has written over the word that says whose it is. */
static void a_damaged_ticket_keeps_nobody_who_asks_for_answers(void **state)
{
    struct lead lead = new_lead();
    struct store_image images[2];
    (void)state;
    insert_many(lead.table, 2);
    uint64_t damaged = start_bind(lead.table, 1, "#1"), sound = start_bind(lead.table, 2, "#2");
    check_equal(take_read(&lead, images, 2), 2);
    store_ack(lead.store, &images[0]);
    store_ack(lead.store, &images[1]);
    struct ticket *ticket = &lead.table->shm.tickets[(uint32_t)damaged];
    uint32_t owner = atomic_exchange(&ticket->owner, 12345);
    expect_answer(lead.table, sound, 2, SESSTAB_OK);
    expect_no_answer(lead.table);
    ticket->owner = owner;
    expect_answer(lead.table, damaged, 1, SESSTAB_OK);
    store_close(lead.store);
    check_table(lead.name);
}

/* ---------------------------------------------------------------- flush ------------------ */

static void *touch_and_change(void *context)
{
    struct world *world = context;
    for (uint64_t n = 0; !world->stop; n++) {
        uint64_t handle = 1001 + n % 1000;
        check_ok(sesstab_touch(world->table, handle, 0));
        check_ok(sesstab_increment(world->table, handle, "n", 1, NULL));
    }
    return NULL;
}

static void a_flush_ends_when_redis_has_what_was_changed_before(void **state)
{
    struct world *world = start_world();
    pthread_t thread;
    (void)state;
    insert_many(world->table, 2000);
    check(pthread_create(&thread, NULL, touch_and_change, world) == 0);
    for (uint64_t round = 1; round <= rounds(40); round++) {
        char value[24];
        uint64_t handle = 1 + random_below(900), gone = 901 + round;
        snprintf(value, sizeof value, "%d", (int)round);
        check_ok(sesstab_set(world->table, handle, "round", value, strlen(value)));
        check_ok(sesstab_remove(world->table, gone));
        check_ok(sesstab_flush(world->table, WAIT_LIMIT));
        check_equal(redis_integer(world->redis, "EXISTS " TEST_PREFIX ":conn:%d", (int)gone), 0);
        check_equal(redis_integer(world->redis, "HEXISTS " TEST_PREFIX ":conn:%d:metadata round",
                                  (int)handle), 1);
        char got[24];
        check(redis_text(world->redis, got, sizeof got, "HGET " TEST_PREFIX
                         ":conn:%d:metadata round", (int)handle));
        check_string(got, value);
    }
    world->stop = true;
    pthread_join(thread, NULL);
    check_ok(sesstab_flush(world->table, WAIT_LIMIT));
    check_ok(sesstab_flush(world->table, 0));
    check_world(world);
}

static void a_flush_that_redis_does_not_answer_says_unknown(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 10);
    check_ok(sesstab_flush(world->table, WAIT_LIMIT));
    kill(world->redis->pid, SIGSTOP);
    check_ok(sesstab_flush(world->table, 0)); /* nothing has changed */
    check_ok(sesstab_touch(world->table, 3, sesstab_now() + 1000));
    check_result(sesstab_flush(world->table, 50), SESSTAB_UNKNOWN);
    kill(world->redis->pid, SIGCONT);
    check_ok(sesstab_flush(world->table, WAIT_LIMIT));
    check_result(sesstab_flush(world->table, -1), SESSTAB_INVALID);
    check_world(world);
}

static struct slot *slot_of(sesstab *table, uint64_t handle)
{
    int result = SESSTAB_OK;
    check_ok(sesstab_read_begin(table));
    struct slot *slot = index_lookup(context_for(table, &result), handle);
    sesstab_read_end(table);
    return slot;
}

static void *flush_at_length(void *context)
{
    struct world *world = context;
    check_ok(sesstab_flush(world->table, WAIT_LIMIT));
    return NULL;
}

/* A worker that was stopped within a touch puts its older time back when it goes on. */
static void a_flush_does_not_wait_for_a_time_that_was_taken_back(void **state)
{
    const char *name;
    struct world world = { .table = selective_table(&name) };
    struct store *store = store_open(world.table);
    struct store_image image;
    sesstab_view view;
    pthread_t thread;
    (void)state;
    check(store && store_lead(store));
    store_set_ready(store, 0, 0);
    insert_many(world.table, 1);
    wait_until(store_take(store, &image, 1, false));
    check_ok(sesstab_read_begin(world.table));
    store_read(store, &image, &view);
    sesstab_read_end(world.table);
    store_ack(store, &image);
    check_ok(sesstab_flush(world.table, 0));

    struct slot *slot = slot_of(world.table, 1);
    uint64_t before = slot->last_seen;
    check_ok(sesstab_touch(world.table, 1, before + 5000));
    check(pthread_create(&thread, NULL, flush_at_length, &world) == 0);
    pause_ms(100); /* so that it has seen the touch; else there is nothing to wait for */
    store_relaxed(&slot->last_seen, before);
    pthread_join(thread, NULL);
    store_close(store);
    check_table(name);
}

static void a_flush_after_redis_lost_everything_waits_until_it_is_there_again(void **state)
{
    struct world *world = start_world();
    (void)state;
    insert_many(world->table, 2000);
    check_ok(sesstab_flush(world->table, WAIT_LIMIT));
    uint32_t before = world->table->shm.header->incarnation;
    freeReplyObject(redis_query(world->redis, "FLUSHALL"));
    wait_until(world->table->shm.header->incarnation != before);
    check_ok(sesstab_flush(world->table, WAIT_LIMIT));
    check_equal(redis_integer(world->redis, "SCARD " KEY(active)), 2000);
    check_world(world);
}

static void a_flush_of_what_came_and_went_does_not_wait(void **state)
{
    const char *name;
    sesstab *table = selective_table(&name);
    struct store *store = store_open(table);
    (void)state;
    check(store && store_lead(store));
    store_set_ready(store, 0, 0);
    insert_many(table, 100);
    check_result(sesstab_flush(table, 0), SESSTAB_UNKNOWN);
    for (uint64_t handle = 1; handle <= 100; handle++)
        check_ok(sesstab_remove(table, handle)); /* the store never heard of it */
    check_ok(sesstab_flush(table, 0));
    store_close(store);
    check_ok(sesstab_flush(memory_table(), 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_answer_comes_through_the_descriptor),
        TEST(an_answer_that_waits_makes_a_later_descriptor_readable),
        TEST(where_there_is_nothing_to_wait_for_the_answer_comes_the_same_way),
        TEST(a_start_that_fails_has_no_answer),
        TEST(thousands_are_outstanding_and_each_is_answered_once),
        TEST(many_tickets_for_one_session_are_all_answered),
        TEST(a_refused_binding_is_rolled_back_before_its_answer),
        TEST(the_ticket_of_a_removed_session_says_so),
        TEST(what_is_cancelled_is_not_answered_and_stays_pending),
        TEST(an_answer_that_is_there_can_not_be_cancelled),
        TEST(cancel_and_answer_agree_on_who_was_first),
        TEST(when_no_ticket_is_left_a_start_says_so_and_changes_nothing),
        TEST(threads_start_and_take_answers_at_once),
        TEST(a_forked_child_has_tickets_of_its_own),
        TEST(a_child_can_not_cancel_its_parent_s_tickets),
        TEST(two_tables_have_a_descriptor_each),
        TEST(a_closed_table_s_tickets_are_taken_back),
        TEST(shmdump_finds_a_ticket_in_use_whose_group_nobody_holds),
        TEST(a_killed_worker_s_tickets_come_back),
        TEST(successors_answer_what_killed_persisters_were_asked),
        TEST(a_new_leader_tells_of_answers_that_the_former_one_gave_silently),
        TEST(a_ticket_is_in_one_image_s_hands),
        TEST(a_ticket_that_is_used_again_while_it_is_in_hands_is_not_lost),
        TEST(a_leader_finds_answers_of_which_nobody_was_told),
        TEST(a_ticket_that_is_posted_too_late_to_tell_is_answered_unknown),
        TEST(a_leader_that_follows_another_comes_to_rest),
        TEST(a_damaged_ticket_keeps_nobody_who_asks_for_answers),
        TEST(a_flush_ends_when_redis_has_what_was_changed_before),
        TEST(a_flush_that_redis_does_not_answer_says_unknown),
        TEST(a_flush_does_not_wait_for_a_time_that_was_taken_back),
        TEST(a_flush_after_redis_lost_everything_waits_until_it_is_there_again),
        TEST(a_flush_of_what_came_and_went_does_not_wait),
    };
    return run_all(tests);
}
