/*
 * Several persisters of one table: one leads, whatever is killed or stopped, and one that led before
 * and goes on changes nothing that is newer.
 */
#include "tests/harness.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/table.h"

#define KEY(handle) TEST_PREFIX ":conn:" #handle
#define SUPERSEDE_AFTER "250"

enum { PERSISTERS = 3, BINDERS = 3 };

struct persister {
    pid_t pid;
    char log[96];
    bool stopped;
};

struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
    struct persister persisters[PERSISTERS];
    const char *const *options; /* of each persister */
    _Atomic bool stop;
    _Atomic uint64_t acknowledged;
    _Atomic uint64_t began[BINDERS], ended[BINDERS]; /* µs: of each binder's last durable binding */
    pid_t load[BINDERS + 1];
};

static const char *const quick[] = { "--supersede-after", SUPERSEDE_AFTER, NULL };
/* Where who leads must not change by itself: on a slow machine one may not run for a while. */
static const char *const patient[] = { "--supersede-after", "1500", NULL };

static uint64_t microseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---------------------------------------------------------------- persisters ------------- */

static struct header *header_of(const struct world *w)
{
    return w->table->shm.header;
}

static void start(struct world *w, unsigned i)
{
    struct persister *p = &w->persisters[i];
    p->pid = start_persister(w->name, w->redis->url, w->options);
    p->stopped = false;
    snprintf(p->log, sizeof p->log, "%s", persister_log());
}

static void start_standby(struct world *w, unsigned i)
{
    start(w, i);
    wait_until(file_says(w->persisters[i].log, "event=standby"));
}

/* The leader's place among PERSISTERS; -1 when nobody leads whom we started. */
static int leader_of(struct world *w)
{
    worker_id leader = LEADER_WORKER(load_acquire(&header_of(w)->leader));
    if (!leader || worker_gone(&w->table->shm, leader))
        return -1;
    uint32_t pid = load_relaxed(&w->table->shm.workers[worker_index(leader)].pid);
    for (int i = 0; i < PERSISTERS; i++)
        if (w->persisters[i].pid == (pid_t)pid)
            return i;
    return -1;
}

static void stop(struct world *w, int i)
{
    kill(w->persisters[i].pid, SIGSTOP);
    w->persisters[i].stopped = true;
}

static void go_on(struct world *w, int i)
{
    kill(w->persisters[i].pid, SIGCONT);
    w->persisters[i].stopped = false;
}

static struct world *start_world(unsigned persisters, const char *const *options)
{
    struct world *w = shared_memory(sizeof *w);
    w->name = new_name();
    w->options = options;
    w->redis = start_redis(NULL);
    start(w, 0);
    w->table = open_table(w->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(w->table, WAIT_LIMIT));
    for (unsigned i = 1; i < persisters; i++)
        start_standby(w, i);
    check_equal(leader_of(w), 0);
    return w;
}

static void check_world(struct world *w)
{
    wait_until_redis_equals(w->table, w->redis);
    check_table(w->name);
}

static void bind_durably(struct world *w, uint64_t handle, const char *player)
{
    char key[64];
    check_ok(sesstab_bind(w->table, handle, player, WAIT_LIMIT));
    snprintf(key, sizeof key, TEST_PREFIX ":conn:%" PRIu64, handle);
    check(redis_field_is(w->redis, key, "PlayerRef", player));
}

/* ---------------------------------------------------------------- load ------------------- */

/* What is durable must be in Redis when it is said so. */
static void bind_and_ask_redis(void *context)
{
    struct world *w = context;
    char player[32];
    redis_own_connection(w->redis);
    for (unsigned i = 1; !w->stop; i++) {
        uint64_t began = microseconds();
        snprintf(player, sizeof player, "#%u", i);
        bind_durably(w, 1 + child_index, player);
        w->ended[child_index] = microseconds();
        w->began[child_index] = began;
        w->acknowledged++;
    }
}

static void change_until_stopped(void *context)
{
    struct world *w = context;
    while (!w->stop) {
        uint64_t handle = 100 + random_below(50);
        switch (random_below(4)) {
        case 0: sesstab_remove(w->table, handle); break;
        case 1: sesstab_increment(w->table, handle, "n", 1, NULL); break;
        case 2: sesstab_touch(w->table, handle, 0); break;
        default: sesstab_insert(w->table, &handle, NULL);
        }
        if (random_below(20) == 0)
            pause_ms(1);
    }
}

static void start_load(struct world *w)
{
    for (child_index = 0; child_index < BINDERS; child_index++) {
        insert_plain(w->table, 1 + child_index);
        w->load[child_index] = start_child(bind_and_ask_redis, w);
    }
    w->load[BINDERS] = start_child(change_until_stopped, w);
    wait_until(w->acknowledged > 2 * BINDERS);
}

static void stop_load(struct world *w)
{
    uint64_t enough = w->acknowledged + 2 * BINDERS;
    wait_until(w->acknowledged > enough);
    w->stop = true;
    for (int i = 0; i <= BINDERS; i++)
        join_child(w->load[i]);
}

/* ---------------------------------------------------------------- killed ----------------- */

/* From START to the first answer to a bind that began after it. */
static uint64_t first_answer_since(struct world *w, uint64_t start)
{
    for (;; usleep(100))
        for (int i = 0; i < BINDERS; i++)
            if (w->began[i] > start)
                return w->ended[i] - start;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void killed_leaders_are_replaced_at_once_under_load(void **state)
{
    struct world *w = start_world(PERSISTERS, quick);
    uint64_t took[40];
    int kills = rounds(40);
    (void)state;
    start_load(w);
    for (int i = 0; i < kills; i++) {
        wait_until(leader_of(w) >= 0);
        int leader = leader_of(w);
        pause_ms((unsigned)random_below(20));
        uint64_t start_at = microseconds();
        kill_child(w->persisters[leader].pid);
        took[i] = first_answer_since(w, start_at);
        start_standby(w, (unsigned)leader);
    }
    qsort(took, (size_t)kills, sizeof *took, ascending);
    print_message("from SIGKILL of the leader to a durable answer from another one, %d times: "
                  "median %.1f ms, at most %.1f ms\n", kills, (double)took[kills / 2] / 1000,
                  (double)took[kills - 1] / 1000);
    stop_load(w);
    check_world(w);
}

/* Of the kernel, in /proc: 'D' waits for the kernel itself. */
static char state_of(pid_t pid)
{
    char path[32], state = '?';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        state = '?';
    if (file)
        fclose(file);
    return state;
}

/* Whether a killed persister had lost its lock while it still waited for the kernel. */
static bool dies_at_once(struct world *w)
{
    struct persister *p = &w->persisters[0];
    worker_id id = LEADER_WORKER(load_acquire(&header_of(w)->leader));
    kill(p->pid, SIGKILL);
    wait_until(!worker_alive(&w->table->shm, id));
    char state = state_of(p->pid);
    kill_child(p->pid);
    start(w, 0);
    wait_until(leader_of(w) == 0);
    return state == 'D';
}

/* What the kernel waits for is the end of its inotify. */
static void a_killed_leader_is_gone_before_the_kernel_has_ended_its_inotify(void **state)
{
    struct world *w = start_world(1, quick);
    (void)state;
    wait_until(dies_at_once(w));
    check_world(w);
}

/* ---------------------------------------------------------------- stopped ---------------- */

static void a_stopped_leader_is_superseded_and_steps_back(void **state)
{
    struct world *w = start_world(2, patient);
    (void)state;
    insert_plain(w->table, 1);
    bind_durably(w, 1, "first");
    stop(w, 0);
    uint64_t start_at = milliseconds();
    bind_durably(w, 1, "second");
    print_message("a stopped leader was replaced after %llu ms (--supersede-after %s)\n",
                  (unsigned long long)(milliseconds() - start_at), patient[1]);
    check_equal(leader_of(w), 1);
    check(file_says(w->persisters[1].log, "former=stalled"));
    go_on(w, 0);
    wait_until(file_says(w->persisters[0].log, "event=superseded"));
    wait_until(file_says(w->persisters[0].log, "event=standby"));
    wait_until(file_says(w->persisters[1].log, "a persister that led before has stepped back"));
    bind_durably(w, 1, "third");
    check_equal(leader_of(w), 1);
    kill_child(w->persisters[1].pid); /* the one that stepped back leads again */
    bind_durably(w, 1, "fourth");
    check_world(w);
}

static void a_leader_that_waits_for_redis_is_not_superseded(void **state)
{
    struct world *w = start_world(2, patient);
    (void)state;
    insert_plain(w->table, 1);
    bind_durably(w, 1, "first");
    uint64_t leading = load_acquire(&header_of(w)->leader);
    kill(w->redis->pid, SIGSTOP);
    check_result(sesstab_bind(w->table, 1, "second", 4000), SESSTAB_UNKNOWN);
    check_equal(load_acquire(&header_of(w)->leader), leading);
    kill(w->redis->pid, SIGCONT);
    bind_durably(w, 1, "third");
    check_equal(load_acquire(&header_of(w)->leader), leading);
    check_world(w);
}

static void a_loader_is_not_superseded_but_replaced_when_it_dies(void **state)
{
    struct world *w = shared_memory(sizeof *w);
    (void)state;
    w->name = new_name();
    w->options = quick;
    w->redis = start_redis(NULL);
    kill_redis(w->redis);
    start(w, 0);
    w->table = open_table(w->name, &(sesstab_options){ .create = true });
    wait_until(leader_of(w) == 0);
    start_standby(w, 1);
    stop(w, 0);
    wait_until(file_says(w->persisters[1].log, "event=filler-stalled"));
    check_equal(leader_of(w), 0);
    restart_redis(w->redis);
    kill_child(w->persisters[0].pid);
    check_ok(sesstab_wait_ready(w->table, WAIT_LIMIT));
    check_equal(leader_of(w), 1);
    insert_plain(w->table, 1);
    bind_durably(w, 1, "first");
    check_world(w);
}

static void with_all_stopped_the_first_that_goes_on_leads(void **state)
{
    struct world *w = start_world(2, quick);
    (void)state;
    insert_plain(w->table, 1);
    bind_durably(w, 1, "first");
    stop(w, 0);
    stop(w, 1);
    check_result(sesstab_bind(w->table, 1, "second", 500), SESSTAB_UNKNOWN);
    go_on(w, 1);
    wait_until(!look(w->table, 1).pending);
    check(redis_field_is(w->redis, KEY(1), "PlayerRef", "second"));
    check_equal(leader_of(w), 1);
    /* The one that superseded dies while the one that it superseded is still stopped. */
    kill_child(w->persisters[1].pid);
    start(w, 2);
    bind_durably(w, 1, "third");
    check_equal(leader_of(w), 2);
    go_on(w, 0);
    wait_until(file_says(w->persisters[0].log, "event=superseded"));
    bind_durably(w, 1, "fourth");
    check_world(w);
}

static void two_that_supersede_each_other_again_and_again_lose_nothing(void **state)
{
    struct world *w = start_world(2, quick);
    (void)state;
    start_load(w);
    for (int i = 0; i < rounds(16); i++) {
        wait_until(leader_of(w) >= 0);
        int leader = leader_of(w);
        stop(w, leader);
        wait_until(leader_of(w) == !leader);
        pause_ms((unsigned)random_below(30));
        go_on(w, leader);
        uint64_t before = w->acknowledged;
        wait_until(w->acknowledged > before + BINDERS);
    }
    stop_load(w);
    check_world(w);
}

/*
 * H1 by a stopped leader: its batch lies in the stopped Redis's input buffer, or is on its way there,
 * or half written, or its answer is not read yet.
 */
static void what_a_stopped_leader_had_under_way_changes_nothing_newer(void **state)
{
    struct world *w = start_world(2, quick);
    char player[32];
    (void)state;
    for (uint64_t handle = 1; handle <= 2; handle++)
        insert_plain(w->table, handle);
    for (int i = 0; i < rounds(24); i++) {
        wait_until(leader_of(w) >= 0);
        int leader = leader_of(w);
        bool redis_too = random_below(2);
        if (redis_too)
            kill(w->redis->pid, SIGSTOP);
        snprintf(player, sizeof player, "old %d", i);
        int result = sesstab_bind(w->table, 1, player, (int)random_below(4));
        check_either(result, SESSTAB_OK, SESSTAB_UNKNOWN);
        check_ok(sesstab_set(w->table, 2, "key", player, strlen(player)));
        usleep((useconds_t)random_below(1500));
        stop(w, leader);
        if (redis_too)
            kill(w->redis->pid, SIGCONT);
        snprintf(player, sizeof player, "new %d", i);
        check_ok(sesstab_set(w->table, 2, "key", player, strlen(player)));
        bind_durably(w, 2, player);
        bind_durably(w, 1, player);
        wait_until_redis_equals(w->table, w->redis);
        go_on(w, leader);
        wait_until(file_says(w->persisters[leader].log, "event=superseded"));
        pause_ms((unsigned)random_below(5));
        check(redis_field_is(w->redis, KEY(1), "PlayerRef", player));
        check(redis_field_is(w->redis, KEY(2) ":metadata", "key", player));
        kill_child(w->persisters[leader].pid);
        start_standby(w, (unsigned)leader);
    }
    check_world(w);
}

/* ---------------------------------------------------------------- a Redis of their own --- */

static void start_spawning(struct world *w, unsigned i, const char *directory)
{
    struct persister *p = &w->persisters[i];
    const char *const argv[] = { program("persister"), "--table", w->name, "--create",
                                 "--spawn-redis", directory, "--prefix", TEST_PREFIX,
                                 "--supersede-after", SUPERSEDE_AFTER, NULL };
    snprintf(p->log, sizeof p->log, "%s/spawning-%u.log", scratch_directory(), i);
    p->pid = start_program(argv, p->log);
}

/* It is not stopped with its persister, and serves the successor as long as it lives. */
static void the_private_redis_of_a_stopped_leader_serves_the_next_one(void **state)
{
    struct world *w = shared_memory(sizeof *w);
    char directory[96];
    (void)state;
    w->name = new_name();
    snprintf(directory, sizeof directory, "%s/private", scratch_directory());
    start_spawning(w, 0, directory);
    w->table = open_table(w->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(w->table, WAIT_LIMIT));
    start_spawning(w, 1, directory);
    wait_until(file_says(w->persisters[1].log, "event=standby"));
    insert_plain(w->table, 1);
    check_ok(sesstab_bind(w->table, 1, "first", WAIT_LIMIT));
    stop(w, 0);
    check_ok(sesstab_bind(w->table, 1, "second", WAIT_LIMIT));
    check_equal(leader_of(w), 1);
    go_on(w, 0);
    wait_until(file_says(w->persisters[0].log, "event=superseded"));
    check_ok(sesstab_bind(w->table, 1, "third", WAIT_LIMIT));
    kill_child(w->persisters[0].pid); /* and its server with it */
    wait_until(file_says(w->persisters[1].log, "event=redis-started"));
    check_ok(sesstab_bind(w->table, 1, "fourth", WAIT_LIMIT));
    kill(w->persisters[1].pid, SIGTERM);
    join_child(w->persisters[1].pid);
}

/* ---------------------------------------------------------------- everything ------------- */

static void trouble_a_persister(struct world *w)
{
    int leader = leader_of(w);
    unsigned i = leader >= 0 && random_below(2) ? (unsigned)leader
                                                : (unsigned)random_below(PERSISTERS);
    if (w->persisters[i].stopped && random_below(2)) {
        go_on(w, (int)i);
    } else if (random_below(3) == 0) {
        kill_child(w->persisters[i].pid);
        start(w, i);
    } else {
        stop(w, (int)i);
    }
}

static void trouble_redis(struct world *w)
{
    kill(w->redis->pid, SIGSTOP);
    pause_ms((unsigned)random_below(100));
    kill(w->redis->pid, SIGCONT);
}

static void persisters_and_redis_stopped_and_killed_at_random_lose_nothing(void **state)
{
    struct world *w = start_world(PERSISTERS, quick);
    (void)state;
    start_load(w);
    for (int i = 0; i < rounds(60); i++) {
        if (random_below(6))
            trouble_a_persister(w);
        else
            trouble_redis(w);
        pause_ms((unsigned)random_below(300));
    }
    for (int i = 0; i < PERSISTERS; i++)
        go_on(w, i);
    stop_load(w);
    check_world(w);
    print_message("%" PRIu64 " bindings were acknowledged, by %" PRIu32 " leaders\n",
                  (uint64_t)w->acknowledged, LEADER_TERM(load_acquire(&header_of(w)->leader)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(killed_leaders_are_replaced_at_once_under_load),
        TEST(a_killed_leader_is_gone_before_the_kernel_has_ended_its_inotify),
        TEST(a_stopped_leader_is_superseded_and_steps_back),
        TEST(a_leader_that_waits_for_redis_is_not_superseded),
        TEST(a_loader_is_not_superseded_but_replaced_when_it_dies),
        TEST(with_all_stopped_the_first_that_goes_on_leads),
        TEST(two_that_supersede_each_other_again_and_again_lose_nothing),
        TEST(what_a_stopped_leader_had_under_way_changes_nothing_newer),
        TEST(the_private_redis_of_a_stopped_leader_serves_the_next_one),
        TEST(persisters_and_redis_stopped_and_killed_at_random_lose_nothing),
    };
    return run_all(tests);
}
