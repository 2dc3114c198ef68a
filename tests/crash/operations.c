/*
 * The rows of the microscope: each operation with what it needs beforehand.
 *
 * The victim is warm unless the row says COLD: it has attached, and has changed a session before,
 * so that its magazines are filled and the row shows the operation alone.
 */
#include "tests/crash/crash.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "shm/recover.h"
#include "shm/wait.h"
#include "tests/stepper.h"

static char large_value[300];

/* ---------------------------------------------------------------- insert, remove ------------ */

static const sesstab_info some_info = {
    .address = "198.51.100.9", .host = "nine.example.net", .type = "ssh",
    .connected_at = START_TIME, .metadata_count = 1,
    .metadata = (const sesstab_pair[]){ { "key", "new", 3 } }
};

static int run_insert(struct world *w)
{
    uint64_t handle = VICTIM;
    return sesstab_insert(w->table, &handle, &some_info);
}

static int run_insert_assigned(struct world *w)
{
    uint64_t handle = 0;
    return sesstab_insert(w->table, &handle, &some_info);
}

static void prepare_assigned(struct world *w)
{
    w->table->shm.header->next_handle = w->handle = 1000;
}

/* Removed, and the store has not heard of it yet. */
static void prepare_tombstone(struct world *w)
{
    check_ok(sesstab_remove(w->table, VICTIM));
}

/* Never told to the store: removing it needs no tombstone. */
static void prepare_unstored(struct world *w)
{
    uint64_t handle = VICTIM;
    check_ok(sesstab_insert(w->table, &handle, &some_info));
}

static void prepare_full(struct world *w)
{
    uint64_t places = (CHUNK_PAGES - 1) * PAGE_SLOTS; /* page 0 holds none */
    uint64_t handle = 10000, last = handle + places - count_sessions(w->table);
    for (; handle < last; handle++)
        check_ok(sesstab_insert(w->table, &handle, &some_info));
    store_drain(w);
}

static int run_remove(struct world *w)
{
    return sesstab_remove(w->table, VICTIM);
}

static bool is_there(const sesstab_view *v) { return v != NULL; }
static bool is_gone(const sesstab_view *v) { return v == NULL; }

/* ---------------------------------------------------------------- touch, state -------------- */

static int run_touch(struct world *w)
{
    return sesstab_touch(w->table, VICTIM, START_TIME + 7);
}

static void prepare_dirty(struct world *w)
{
    check_ok(sesstab_touch(w->table, VICTIM, START_TIME + 1));
}

static bool is_touched(const sesstab_view *v) { return v && v->last_seen >= START_TIME + 7; }

static int run_state(struct world *w)
{
    sesstab_state old;
    return sesstab_set_state(w->table, VICTIM, SESSTAB_ACCOUNT, &old);
}

/* ---------------------------------------------------------------- metadata ------------------ */

static int run_set(struct world *w)
{
    return sesstab_set(w->table, VICTIM, "key", "other", 5);
}

static bool is_set(const sesstab_view *v)
{
    const char *value = v ? metadata_of(v, "key") : NULL;
    return value && strcmp(value, "other") == 0;
}

static int run_set_large(struct world *w)
{
    return sesstab_set(w->table, VICTIM, "key", large_value, sizeof large_value);
}

static bool is_large(const sesstab_view *v)
{
    const void *value;
    size_t length = 0;
    return v && sesstab_metadata(v, "key", &value, &length, NULL) == SESSTAB_OK &&
           length == sizeof large_value;
}

/* There is a chunk of larger blocks already. */
static void prepare_large(struct world *w)
{
    check_ok(sesstab_set(w->table, NEIGHBOUR, "large", large_value, sizeof large_value));
    check_ok(sesstab_delete(w->table, NEIGHBOUR, "large"));
    store_drain(w);
}

static int run_delete(struct world *w)
{
    return sesstab_delete(w->table, VICTIM, "key");
}

static bool is_deleted(const sesstab_view *v) { return v && !metadata_of(v, "key"); }

static int run_increment(struct world *w)
{
    int64_t sum;
    return sesstab_increment(w->table, VICTIM, "number", 1, &sum);
}

static bool is_incremented(const sesstab_view *v)
{
    return v && strcmp(metadata_of(v, "number"), "42") == 0;
}

static int run_compare_and_set(struct world *w)
{
    uint64_t version = (1u << CURRENT_VERSION_BITS) - 2;
    return sesstab_compare_and_set(w->table, VICTIM, "key", version, "other", 5, &version);
}

/* Three changes (NEIGHBOUR's was the first) fill a ring of four: the next finds it full. */
static void warm_ring(struct world *w)
{
    for (uint64_t h = PEERS; h < PEERS + 2; h++)
        check_ok(sesstab_touch(w->table, h, START_TIME + 1));
}

static void prepare_asleep(struct world *w)
{
    w->table->shm.header->sleeping = 1;
}

/* ---------------------------------------------------------------- bindings ------------------ */

static void prepare_bound(struct world *w)
{
    check_either(sesstab_bind(w->table, VICTIM, OLD_PLAYER, 0), SESSTAB_OK, SESSTAB_UNKNOWN);
    store_drain(w);
}

/* Acknowledged, and another on top that is not. */
static void prepare_bound_twice(struct world *w)
{
    prepare_bound(w);
    check_result(sesstab_bind(w->table, VICTIM, "in between", 0), SESSTAB_UNKNOWN);
}

static int run_bind(struct world *w)
{
    return sesstab_bind(w->table, VICTIM, NEW_PLAYER, 30000);
}

static int run_bind_briefly(struct world *w)
{
    return sesstab_bind(w->table, VICTIM, NEW_PLAYER, 20);
}

static int run_bind_and_go(struct world *w)
{
    return sesstab_bind(w->table, VICTIM, NEW_PLAYER, 0);
}

/* Outstanding for ever; what is known of the binding then is what UNKNOWN means. */
static int run_start(struct world *w)
{
    int result = sesstab_start_bind(w->table, VICTIM, NEW_PLAYER, NULL, NULL);
    return result ? result : SESSTAB_UNKNOWN;
}

static int run_start_and_cancel(struct world *w)
{
    uint64_t ticket;
    int result = sesstab_start_bind(w->table, VICTIM, NEW_PLAYER, NULL, &ticket);
    if (!result)
        result = sesstab_cancel(w->table, ticket);
    return result ? result : SESSTAB_UNKNOWN;
}

static int run_start_and_ask(struct world *w)
{
    sesstab_answer answer;
    int result = sesstab_start_bind(w->table, VICTIM, NEW_PLAYER, NULL, NULL);
    atomic_u32 *answers = &w->table->shm.workers[worker_index(sesstab_self(w->table))].answers;
    while (!result && sesstab_next_answer(w->table, &answer))
        futex_wait(answers, load_relaxed(answers), WAIT_SLICE_MS); /* as the library's thread */
    return result ? result : answer.result;
}

static int run_unbind(struct world *w)
{
    return sesstab_unbind(w->table, VICTIM, 30000);
}

static bool is_bound(const sesstab_view *v) { return v && v->player_length; }

/* ---------------------------------------------------------------- reading ------------------- */

static int run_find(struct world *w)
{
    sesstab_view v;
    const void *value;
    int result = sesstab_read_begin(w->table);
    if (!result)
        result = sesstab_find(w->table, VICTIM, &v);
    if (!result)
        result = sesstab_metadata(&v, "number", &value, NULL, NULL);
    sesstab_read_end(w->table);
    return result;
}

static int run_get(struct world *w)
{
    static char buffer[4096];
    size_t size = sizeof buffer;
    sesstab_view v;
    return sesstab_get(w->table, VICTIM, &v, buffer, &size);
}

/* Its bucket has no head yet: the way there is made. */
static int run_find_absent(struct world *w)
{
    sesstab_view v;
    sesstab_read_begin(w->table);
    int result = sesstab_find(w->table, ABSENT, &v);
    sesstab_read_end(w->table);
    return result;
}

static int run_walk(struct world *w)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view v;
    int result = SESSTAB_OK;
    for (int i = 0; i < 5 && !result; i++)
        result = sesstab_next(w->table, &cursor, &v);
    sesstab_pause(w->table, &cursor);
    return result;
}

static int count_one(const sesstab_view *view, void *context)
{
    (void)view;
    ++*(int *)context;
    return 0;
}

static int run_by_player(struct world *w)
{
    int found = 0;
    int result = sesstab_by_player(w->table, OLD_PLAYER, count_one, &found);
    return result ? result : found == 1 ? SESSTAB_OK : SESSTAB_NOTFOUND;
}

/* ---------------------------------------------------------------- attaching, leaving -------- */

static int run_attach(struct world *w)
{
    return sesstab_attach(w->table);
}

static int run_open(struct world *w)
{
    sesstab *t;
    return sesstab_open(w->name, NULL, &t);
}

static const sesstab_options new_table = { .create = true, .max_bytes = 2 * CHUNK_BYTES };

static int run_create(struct world *w)
{
    sesstab *t;
    return sesstab_open(w->new_name, &new_table, &t);
}

/* The name is there with a whole table behind it, or it is not there. */
static void verify_create(struct world *w)
{
    sesstab *t;
    if (access(object_path(w->new_name), F_OK) != 0)
        return;
    check_ok(sesstab_open(w->new_name, NULL, &t));
    for (uint64_t h = 1; h < 4; h++)
        insert_plain(t, h);
    check_equal(count_sessions(t), 3);
    sesstab_close(t);
    check_table(w->new_name);
    check_ok(sesstab_unlink(w->new_name));
}

static int run_close(struct world *w)
{
    sesstab_close(w->table);
    return SESSTAB_OK;
}

static _Atomic uint32_t thread_taken; /* the thread slot of the first, and 1 */

static void *attach_and_stay(void *context)
{
    struct world *w = context;
    check_ok(sesstab_attach(w->table));
    thread_taken = world_context(w)->thread_index + 1;
    for (;;)
        pause();
    return NULL;
}

/* The process is a worker already; this thread is not. */
static void warm_thread(struct world *w)
{
    pthread_t thread;
    check(pthread_create(&thread, NULL, attach_and_stay, w) == 0);
    wait_until(thread_taken);
}

static int run_attach_thread(struct world *w)
{
    int result = sesstab_attach(w->table);
    return world_context(w)->thread_index + 1 == thread_taken ? SESSTAB_SYSTEM : result;
}

/* ---------------------------------------------------------------- memory -------------------- */

static void change_neighbour(struct world *w, int times)
{
    for (int i = 0; i < times; i++)
        check_ok(sesstab_set(w->table, NEIGHBOUR, "warm", "1", 1));
}

static void warm_some_garbage(struct world *w) { change_neighbour(w, 6); }
static void warm_full_batch(struct world *w) { change_neighbour(w, RCU_BATCH - 2); }

static int run_reclaim(struct world *w)
{
    rcu_reclaim(world_context(w));
    return SESSTAB_OK;
}

/* ---------------------------------------------------------------- recovery ------------------ */

static int run_recover(struct world *w)
{
    return worker_recover(&w->table->shm, NULL, 0, NULL) == 1 ? SESSTAB_OK : SESSTAB_SYSTEM;
}

static void warm_recover(struct world *w)
{
    change_neighbour(w, 1);
    check(worker_recover(&w->table->shm, NULL, 0, NULL) == 1);
}

static int run_sweep_sessions(struct world *w)
{
    return recover_sweep(world_context(w), 0) > 5 ? SESSTAB_OK : SESSTAB_SYSTEM;
}

static int run_sweep_hints(struct world *w)
{
    return recover_sweep(world_context(w), 1) > 3 ? SESSTAB_OK : SESSTAB_SYSTEM;
}

/* ---------------------------------------------------------------- the store's side ---------- */

/* The victim leads, nothing is left to do, and then it binds. */
static void lead(struct world *w)
{
    w->store = store_open(w->table);
    check(w->store && store_lead(w->store));
    store_drain(w);
}

static void warm_refusal(struct world *w)
{
    lead(w);
    check_result(sesstab_bind(w->table, VICTIM, NEW_PLAYER, 0), SESSTAB_UNKNOWN);
}

static void warm_acknowledgement(struct world *w)
{
    warm_refusal(w);
    store_preview(w);
}

static int take_one(struct world *w, bool refuse)
{
    struct store_image image;
    sesstab_view view;
    if (store_take(w->store, &image, 1, false) != 1)
        return SESSTAB_NOTFOUND;
    sesstab_read_begin(w->table);
    store_read(w->store, &image, &view);
    sesstab_read_end(w->table);
    if (!refuse)
        store_ack(w->store, &image);
    return refuse && !store_refuse(w->store, &image, 0) ? SESSTAB_NOMEMORY : SESSTAB_OK;
}

static int run_acknowledge(struct world *w) { return take_one(w, false); }
static int run_refuse(struct world *w) { return take_one(w, true); }

static void warm_deletion(struct world *w)
{
    lead(w);
    check_ok(sesstab_remove(w->table, VICTIM));
    store_preview(w);
}

/* ---------------------------------------------------------------- modes --------------------- */

/* Its changes wait for the store, as in mode WRITE_THROUGH; the survivor's do not. */
static void warm_synchronous(struct world *w)
{
    check_ok(sesstab_set_class(w->table, SESSTAB_SYNCHRONOUS, 30000));
}

static int run_set_mode(struct world *w)
{
    return sesstab_set_mode(w->table, SESSTAB_WRITE_BEHIND);
}

/* ---------------------------------------------------------------- the rows ------------------ */

const struct operation operations[] = {
    { "insert", run_insert, .flags = ABSENT_BEFORE, .effect = is_there },
    { "insert, assigned handle", run_insert_assigned, .prepare = prepare_assigned,
      .effect = is_there },
    { "insert, in memory", run_insert, .flags = ABSENT_BEFORE | IN_MEMORY, .effect = is_there },
    { "insert, full fences, two recover", run_insert, .flags = ABSENT_BEFORE | FULL_FENCES | RACE,
      .effect = is_there },
    { "insert on a tombstone", run_insert, .prepare = prepare_tombstone, .effect = is_there },
    { "insert into a full table", run_insert, .flags = ABSENT_BEFORE, .prepare = prepare_full,
      .effect = is_there },
    { "insert of a live handle", run_insert, .result = SESSTAB_EXISTS },
    { "touch, clean", run_touch, .effect = is_touched },
    { "touch, dirty", run_touch, .prepare = prepare_dirty, .effect = is_touched },
    { "touch, full fences, two recover", run_touch, .flags = FULL_FENCES | RACE,
      .effect = is_touched },
    { "set", run_set, .effect = is_set },
    { "set, in memory", run_set, .flags = IN_MEMORY, .effect = is_set },
    { "set, full fences, two recover", run_set, .flags = FULL_FENCES | RACE, .effect = is_set },
    { "set, first call", run_set, .flags = COLD, .effect = is_set },
    { "set, larger class", run_set_large, .prepare = prepare_large, .effect = is_large },
    { "set, first of its class", run_set_large, .effect = is_large },
    { "set, ring full", run_set, .warm = warm_ring, .effect = is_set },
    { "set, store asleep", run_set, .prepare = prepare_asleep, .effect = is_set },
    { "set, reclaims a batch", run_set, .warm = warm_full_batch, .flags = LENGTHY,
      .effect = is_set },
    { "delete", run_delete, .effect = is_deleted },
    { "increment", run_increment, .effect = is_incremented },
    { "compare and set", run_compare_and_set, .effect = is_set },
    { "state", run_state, .flags = OPEN, .effect = is_there },
    { "insert, written through, refused", run_insert, .result = SESSTAB_REFUSED,
      .flags = ABSENT_BEFORE | REFUSED, .warm = warm_synchronous },
    { "set, written through", run_set, .flags = ANSWERED, .warm = warm_synchronous,
      .effect = is_set },
    { "set, written through, refused", run_set, .result = SESSTAB_REFUSED, .flags = REFUSED,
      .warm = warm_synchronous, .effect = is_there },
    { "delete, written through, refused", run_delete, .result = SESSTAB_REFUSED, .flags = REFUSED,
      .warm = warm_synchronous, .effect = is_there },
    { "remove, written through", run_remove, .flags = ANSWERED, .warm = warm_synchronous,
      .effect = is_gone },
    { "switch the mode", run_set_mode, .effect = is_there },
    { "bind, durable", run_bind, .flags = ANSWERED, .effect = is_bound },
    { "bind, refused", run_bind, .result = SESSTAB_REFUSED, .flags = REFUSED, .effect = is_there },
    { "bind, unknown", run_bind_briefly, .result = SESSTAB_UNKNOWN, .effect = is_bound },
    { "bind, full fences, two recover", run_bind_and_go, .result = SESSTAB_UNKNOWN,
      .flags = FULL_FENCES | RACE, .effect = is_bound },
    { "bind, in memory", run_bind_and_go, .flags = IN_MEMORY, .effect = is_bound },
    { "bind, started", run_start, .result = SESSTAB_UNKNOWN, .effect = is_bound },
    { "bind, started, cancelled", run_start_and_cancel, .result = SESSTAB_UNKNOWN, .effect = is_bound },
    { "bind, started, durable", run_start_and_ask, .flags = ANSWERED, .effect = is_bound },
    { "bind, started, refused", run_start_and_ask, .result = SESSTAB_REFUSED, .flags = REFUSED,
      .effect = is_there },
    { "bind over a binding", run_bind, .flags = ANSWERED, .prepare = prepare_bound,
      .effect = is_bound },
    { "bind over a pending one", run_bind, .flags = ANSWERED, .prepare = prepare_bound_twice,
      .effect = is_bound },
    { "bind over one, refused", run_bind, .result = SESSTAB_REFUSED, .flags = REFUSED,
      .prepare = prepare_bound, .effect = is_bound },
    { "unbind", run_unbind, .flags = ANSWERED, .prepare = prepare_bound, .effect = is_there },
    { "remove", run_remove, .effect = is_gone },
    { "remove, never stored", run_remove, .flags = ABSENT_BEFORE, .prepare = prepare_unstored,
      .effect = is_gone },
    { "remove, bound", run_remove, .prepare = prepare_bound, .effect = is_gone },
    { "remove, bound, in memory", run_remove, .flags = IN_MEMORY, .prepare = prepare_bound,
      .effect = is_gone },
    { "remove, full fences, two recover", run_remove, .flags = FULL_FENCES | RACE,
      .prepare = prepare_bound, .effect = is_gone },
    { "find", run_find, .flags = 0 },
    { "find, full fences", run_find, .flags = FULL_FENCES },
    { "find, makes bucket heads", run_find_absent, .result = SESSTAB_NOTFOUND },
    { "get", run_get, .flags = 0 },
    { "walk", run_walk, .flags = 0 },
    { "by player", run_by_player, .flags = OPEN, .prepare = prepare_bound },
    { "attach", run_attach, .flags = COLD },
    { "attach a thread", run_attach_thread, .flags = COLD, .warm = warm_thread },
    { "open", run_open, .flags = COLD },
    { "create", run_create, .flags = COLD, .verify = verify_create },
    { "close", run_close, .flags = 0 },
    { "thread ends", NULL, .flags = 0 }, /* end_thread() */
    { "reclaim", run_reclaim, .warm = warm_some_garbage },
    { "acknowledge", run_acknowledge, .flags = LEADS, .warm = warm_acknowledgement },
    { "acknowledge a deletion", run_acknowledge, .flags = LEADS, .warm = warm_deletion },
    { "roll back", run_refuse, .flags = LEADS, .warm = warm_refusal },
    { "recover a worker", run_recover, .leave = leave_dead },
    { "recover a worker, two recover", run_recover, .leave = leave_dead, .flags = RACE },
    { "sweep sessions", run_sweep_sessions, .leave = leave_dead, .warm = warm_recover,
      .flags = LENGTHY },
    { "sweep hints", run_sweep_hints, .leave = leave_dead, .warm = warm_recover, .flags = LENGTHY },
    { "sweep sessions, two recover", run_sweep_sessions, .leave = leave_dead, .warm = warm_recover,
      .flags = RACE | LENGTHY },
};
const unsigned operation_count = sizeof operations / sizeof *operations;

/* ---------------------------------------------------------------- the victim ---------------- */

/* A thread's end runs the destructors in the order of their keys: a mark, the table's, a mark. */
static pthread_key_t first_key, last_key;

static void mark_the_end(void *value)
{
    (void)value;
    stepper_mark();
}

static void mark_the_very_end(void *value)
{
    struct world *w = value;
    w->stage->finished = true;
    stepper_mark();
}

void victims_begin(void)
{
    check(pthread_key_create(&first_key, mark_the_end) == 0);
}

static void end_thread(struct world *w)
{
    check(pthread_key_create(&last_key, mark_the_very_end) == 0 && last_key > w->table->shm.key);
    check(pthread_setspecific(first_key, w) == 0 && pthread_setspecific(last_key, w) == 0);
    pthread_exit(NULL);
}

void be_victim(void *context)
{
    struct world *w = context;
    const struct operation *o = w->operation;
    struct stage *stage = w->stage;
    stage->victim = getpid();
    if (!(o->flags & COLD)) {
        uint32_t self = sesstab_self(w->table);
        stage->victim_slot = worker_index(self);
        stage->victim_owner = WORKER_LIVE | worker_gen(self);
        change_neighbour(w, 1);
    }
    if (o->warm)
        o->warm(w);
    if (!o->run)
        end_thread(w);
    stepper_mark();
    stage->result = o->run(w);
    stage->finished = true;
    stepper_mark();
    for (;;)
        pause();
}
