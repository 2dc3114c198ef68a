/*
 * Interleavings that break the obvious version, each built on purpose: somebody is stopped at the
 * instruction where it hurts, the others go on, and then it goes on too.
 *
 * Where a process has to stand at a certain step of an operation, it is run one instruction at a
 * time until the segment shows that step (stepper.h).
 */
#include "tests/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/store.h"
#include "lib/table.h"
#include "shm/recover.h"
#include "shm/ring.h"
#include "tests/places.h"
#include "tests/stepper.h"

enum {
    SESSIONS = 100,
    VICTIM = 7,
    VALUE_MAX = 2000
};

static struct context *mine(sesstab *t)
{
    int error = 0;
    struct context *c = context_of(&t->shm, &error);
    check(c != NULL);
    return c;
}

static sesstab *filled_table(const char **name)
{
    const sesstab_options creation = { .create = true, .mode = SESSTAB_MEMORY };
    const char *chosen = new_name();
    sesstab *table = open_table(chosen, &creation);
    for (uint64_t h = 1; h <= SESSIONS; h++)
        insert_plain(table, h);
    if (name)
        *name = chosen;
    return table;
}

static struct slot *slot_of(struct context *c, uint64_t handle)
{
    rcu_enter(c);
    struct slot *s = index_lookup(c, handle);
    rcu_exit(c);
    return s;
}

static uint64_t retired(sesstab *t)
{
    return places_count(&t->shm).count[OWN_RETIRED];
}

static uint64_t committed(sesstab *t)
{
    return t->shm.header->committed;
}

/* ---------------------------------------------------------------- stopped readers -------- */

enum {
    READERS = 16,
    COMERS = 10, /* handles that come and go */
    /* What one of them may pin: records of those that stay, slots and records of those that come
     * and go, and what the writer has retired without ending the era. */
    PINNED_BY_ONE = SESSIONS + 2 * COMERS + RCU_BATCH
};

/* Changes of every size, and sessions that come and go; every session is changed. */
static void churn(sesstab *table, int updates)
{
    static const char value[VALUE_MAX];
    for (int i = 0; i < updates; i++) {
        uint64_t comer = 1000 + (uint64_t)i % COMERS;
        if (i % 4 == 3 && sesstab_remove(table, comer) != SESSTAB_OK)
            insert_plain(table, comer);
        check_ok(sesstab_set(table, 1 + (uint64_t)i % SESSIONS, "value", value,
                             (size_t)i * 37 % VALUE_MAX));
    }
}

static void stop_in_section(void *table)
{
    sesstab_view view;
    check_ok(sesstab_read_begin(table));
    check_ok(sesstab_find(table, VICTIM, &view));
    kill(getpid(), SIGSTOP);
    check(view.handle == VICTIM);
    sesstab_read_end(table);
}

static pid_t stop_a_reader(sesstab *table)
{
    int status;
    pid_t pid = start_child(stop_in_section, table);
    check(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    return pid;
}

static void stopped_readers_pin_no_more_than_what_was_alive_when_each_stopped(void **state)
{
    pid_t readers[READERS];
    const int some = 8 * SESSIONS;
    (void)state;
    sesstab *table = filled_table(NULL);
    struct context *c = mine(table);
    for (int r = 0; r < READERS; r++) {
        churn(table, some);
        readers[r] = stop_a_reader(table);
        churn(table, some);
        rcu_reclaim(c);
        check(retired(table) >= (uint64_t)(r + 1) * SESSIONS); /* or else nothing is measured */
        check(retired(table) <= (uint64_t)(r + 1) * PINNED_BY_ONE);
    }
    churn(table, rounds(20000));
    uint64_t before = committed(table);
    for (int i = 0; i < 5; i++) {
        churn(table, rounds(20000));
        rcu_reclaim(c);
        check(retired(table) <= READERS * PINNED_BY_ONE);
        check_equal(committed(table), before);
    }
    kill(readers[0], SIGCONT); /* it finds what it had found */
    join_child(readers[0]);
    for (int r = 1; r < READERS; r++)
        kill_child(readers[r]);
    wait_until(worker_recover(&table->shm, NULL, 0, NULL) == 0 &&
               table->shm.header->deaths == READERS);
    rcu_reclaim(c);
    check_equal(retired(table), 0);
}

/* ---------------------------------------------------------------- stopped writers -------- */

/* In shared memory: a child's operation, stopped at a step of it. */
struct scene {
    sesstab *table;
    const struct step *step;
    _Atomic uint32_t worker;
    _Atomic int result;
    uint64_t current;      /* the victim's word before                                       */
    block_ref old;
    atomic_u64 *word;      /* looked at by the step                                          */
};

static const char big[300];

static int set_victim(struct scene *s)
{
    return sesstab_set(s->table, VICTIM, "key", big, sizeof big);
}

static int remove_victim(struct scene *s)
{
    return sesstab_remove(s->table, VICTIM);
}

static int insert_one(struct scene *s)
{
    uint64_t handle = SESSIONS + 1;
    return sesstab_insert(s->table, &handle, NULL);
}

static int nothing_more(struct scene *s)
{
    (void)s;
    return SESSTAB_OK;
}

static struct slot *victim(struct scene *s)
{
    return slot_of(mine(s->table), VICTIM);
}

static bool owned_by_writer(struct scene *s, uint64_t word)
{
    return OWN_STATE(word) == OWN_OWNED && OWN_WORKER(word) == s->worker;
}

/* The child has taken a place, in the class that a BIG record needs or among the slots. */
static bool claimed(struct scene *s)
{
    struct shm *shm = &s->table->shm;
    for (uint64_t chunk = 0; chunk < shm->header->committed; chunk++) {
        uint64_t at = chunk * CHUNK_BYTES;
        unsigned class = (unsigned)shm->chunks[chunk].class;
        for (uint64_t o = at; class == CHUNK_512 && o < at + CHUNK_BYTES; o += class_bytes(class))
            if (owned_by_writer(s, ((struct block *)(shm->heap + o))->own))
                return true;
    }
    return false;
}

static bool published(struct scene *s)
{
    return *s->word != s->current && OWN_STATE(block_at(&s->table->shm, s->old)->own) == OWN_LIVE;
}

static bool dead(struct scene *s)
{
    return CURRENT_BLOCK(*s->word).at == 0;
}

static bool marked(struct scene *s)
{
    struct slot *slot = (struct slot *)((char *)s->word - offsetof(struct slot, current));
    return slot->node.next & LINK_MARK;
}

static bool linked_and_owned(struct scene *s)
{
    struct slot *slot = slot_of(mine(s->table), SESSIONS + 1);
    return slot && OWN_STATE(slot->node.life) == OWN_OWNED;
}

static bool at_once(struct scene *s)
{
    (void)s;
    return true;
}

static const struct step {
    const char *name;
    int (*operation)(struct scene *);
    bool (*reached)(struct scene *);
    int before; /* changes that it makes first: they wait in its hands for their grace period */
} steps[] = {
    { "between claim and publish", set_victim, claimed, 0 },
    { "between publish and retire", set_victim, published, 0 },
    { "the same, with full hands", set_victim, published, RCU_BATCH - 1 },
    { "with full hands, outside of a section", nothing_more, at_once, RCU_BATCH - 1 },
    { "between link and LIVE", insert_one, linked_and_owned, 0 },
    { "between death and mark", remove_victim, dead, 0 },
    { "between mark and unlinking", remove_victim, marked, 0 },
};
enum {
    STEPS = sizeof steps / sizeof *steps,
    TIMES = 4,      /* that each is tried: at the step, then a random few instructions later */
    LATER_MAX = 30
};

static void operate(void *scene)
{
    struct scene *s = scene;
    s->worker = sesstab_self(s->table);
    for (int i = 0; i < s->step->before; i++)
        check_ok(sesstab_set(s->table, 1, "key", &i, sizeof i));
    stepper_mark();
    s->result = s->step->operation(s);
    stepper_mark();
}

/* False when it came to its end on the way. */
static bool stop_at(struct scene *s, pid_t pid, uint64_t later)
{
    while (!s->step->reached(s))
        check_equal(stepper_step(pid, NULL), STEPPED);
    while (later--)
        if (stepper_step(pid, NULL) != STEPPED)
            return false;
    return true;
}

static void sweep_all(sesstab *table)
{
    for (uint64_t i = 0; i < committed(table); i++)
        recover_sweep(mine(table), (unsigned)i);
}

static void others_work_and_grow(sesstab *table, bool sweep)
{
    uint64_t before = committed(table), handle = VICTIM;
    if (sweep)
        sweep_all(table);
    int result = sesstab_insert(table, &handle, NULL);
    check_either(result, SESSTAB_OK, SESSTAB_EXISTS);
    check_ok(sesstab_set(table, VICTIM, "after", "wards", 5));
    churn(table, 10 * RCU_BATCH);
    rcu_reclaim(mine(table));
    /* The stopped one reads too; and there is what it holds itself. */
    check(retired(table) <= PINNED_BY_ONE + RCU_BATCH);
    for (uint64_t h = 10000; committed(table) < before + 2; h++)
        insert_plain(table, h);
    for (uint64_t h = 1; h <= SESSIONS; h++)
        check_ok(sesstab_touch(table, h, 0));
}

static void check_strictly(const char *name, const char *what)
{
    char output[2000];
    const char *const argv[] = { program("shmdump"), "--check", "--strict", name, NULL };
    if (run_program(argv, output, sizeof output) != 0)
        test_fail(__FILE__, __LINE__, "%s: %s", what, output);
}

static void recover_everything(sesstab *table)
{
    wait_until(worker_recover(&table->shm, NULL, 0, NULL) || table->shm.header->deaths);
    sweep_all(table);
    sweep_all(table);
    rcu_reclaim(mine(table));
}

static void stop_and_go_on(struct scene *s, const struct step *step, uint64_t later)
{
    const char *name;
    bool sweep = random_below(2);
    *s = (struct scene){ .table = filled_table(&name), .step = step, .result = -1 };
    s->word = &victim(s)->current;
    s->current = *s->word;
    s->old = CURRENT_BLOCK(s->current);
    pid_t pid = stepper_start(operate, s);
    bool stopped = stop_at(s, pid, later);
    others_work_and_grow(s->table, sweep);
    if (stopped)
        check_equal(stepper_run(pid), STEPPED_MARK);
    check_result(s->result, SESSTAB_OK);
    check_strictly(name, step->name); /* nobody has to clear up after the living */
    stepper_kill(pid);
    sesstab_remove(s->table, SESSIONS + 1); /* it would want to be detached, by a persister */
    recover_everything(s->table);
    check_strictly(name, step->name);
    close_table(s->table);
}

static void a_stopped_writer_pins_little_and_finishes_when_it_goes_on(void **state)
{
    struct scene *s = shared_memory(sizeof *s);
    (void)state;
    if (SANITIZED) {
        print_message("a sanitizer's own instructions are too many to be stepped through\n");
        skip();
    }
    for (int i = 0; i < STEPS * TIMES; i++)
        stop_and_go_on(s, &steps[i % STEPS], i < STEPS ? 0 : random_below(LATER_MAX));
}

/* ---------------------------------------------------------------- H2: a frozen link ------ */

struct walker {
    sesstab *table;
    uint64_t a, b; /* handles, neighbours in the list */
    _Atomic unsigned entered, reused;
};

/* Stands on session A on its way to B, and goes on when there is another session in B's place. */
static void *stand_on_a(void *context)
{
    struct walker *k = context;
    struct context *c = mine(k->table);
    rcu_enter(c);
    struct walk w = { .hash = hash_of_handle(c->shm, k->a), .key = k->a };
    do
        index_start_walk(c, INDEX_HANDLES, &w);
    while (!index_advance(c, INDEX_HANDLES, &w));
    check(w.node && w.node->key == k->a);
    meet(&k->entered, 2);
    meet(&k->reused, 2);
    w.hash = hash_of_handle(c->shm, k->b);
    w.key = k->b;
    index_step(&w);
    check(w.word & LINK_MARK);
    check(!index_advance(c, INDEX_HANDLES, &w));
    rcu_exit(c);
    return NULL;
}

/* A handle whose session comes right behind A's: alone with it in a bucket. */
static uint64_t neighbour_of(struct shm *shm, uint64_t a)
{
    uint64_t buckets = index_size(shm, INDEX_HANDLES), hash = hash_of_handle(shm, a), b = 1 << 20;
    while (((hash_of_handle(shm, b) ^ hash) & (buckets - 1)) ||
           !hash_before(hash, hash_of_handle(shm, b)))
        b++;
    return b;
}

static void a_reader_on_a_removed_session_does_not_follow_its_link_to_a_reused_place(void **state)
{
    struct walker k = { .a = 5 };
    pthread_t thread;
    (void)state;
    k.table = memory_table();
    struct context *c = mine(k.table);
    insert_plain(k.table, k.a);
    struct slot *a = slot_of(c, k.a);
    uint64_t other = 1 << 30;
    k.b = neighbour_of(c->shm, k.a);
    check(pthread_create(&thread, NULL, stand_on_a, &k) == 0);
    meet(&k.entered, 2);
    c->shm->header->era++; /* what is born from here on is younger than the reader's interval */
    insert_plain(k.table, k.b);
    slot_ref place = slot_ref_of(c->shm, slot_of(c, k.b));
    check_equal(LINK_REF(a->node.next), place.at);
    check_ok(sesstab_remove(k.table, k.a));
    check_ok(sesstab_remove(k.table, k.b));
    rcu_reclaim(c);
    check_equal(OWN_STATE(a->node.life), OWN_RETIRED);
    check_equal(OWN_STATE(slot_at(c->shm, place)->node.life), OWN_FREE);
    do
        insert_plain(k.table, ++other);
    while (slot_of(c, other) != slot_at(c->shm, place));
    meet(&k.reused, 2);
    check(pthread_join(thread, NULL) == 0);
}

/* ---------------------------------------------------------------- H3: bucket heads ------- */

struct head_scene {
    sesstab *table;
    atomic_u64 *head;
    uint64_t bucket;
};

/* The first session of a bucket, so that its head is made. */
static void use_bucket(void *context)
{
    struct head_scene *h = context;
    uint64_t handle = 1 << 16;
    struct context *c = mine(h->table);
    while ((hash_of_handle(c->shm, handle) & (index_size(c->shm, INDEX_HANDLES) - 1)) != h->bucket)
        handle++;
    stepper_mark();
    insert_plain(h->table, handle);
    stepper_mark();
}

/* Sessions that sort right in front of the head and right behind it. */
static void insert_around(struct head_scene *h, uint64_t *handle)
{
    struct shm *shm = &h->table->shm;
    uint64_t buckets = index_size(shm, INDEX_HANDLES);
    for (int i = 0; i < 3; i++) {
        do
            ++*handle;
        while (((hash_of_handle(shm, *handle) ^ h->bucket) & (buckets / 2 - 1)) != 0);
        insert_plain(h->table, *handle);
        insert_plain(h->table, *handle + (UINT64_C(1) << 40)); /* and anywhere */
    }
}

static void while_the_maker_of_a_bucket_head_is_stopped_nobody_is_lost(void **state)
{
    struct head_scene *h = shared_memory(sizeof *h);
    const char *name;
    uint64_t handle = 1 << 20, seen = 0, inserted = 0;
    unsigned changes = 0;
    (void)state;
    if (SANITIZED) {
        print_message("a sanitizer's own instructions are too many to be stepped through\n");
        skip();
    }
    h->table = filled_table(&name);
    h->bucket = index_size(&h->table->shm, INDEX_HANDLES) / 2 + 1;
    while (h->table->shm.handles[h->bucket])
        h->bucket++;
    h->head = &h->table->shm.handles[h->bucket];
    pid_t pid = stepper_start(use_bucket, h);
    while (stepper_step(pid, NULL) == STEPPED)
        if (*h->head != seen) { /* claimed; where it leads; linked; finished */
            changes++;
            insert_around(h, &handle);
            inserted += 6;
            seen = *h->head;
        }
    check(changes >= 3 && !(*h->head & LINK_CLAIMED));
    stepper_kill(pid);
    check_equal(count_sessions(h->table), SESSIONS + inserted + 1);
    for (uint64_t i = 1 << 20; i <= handle; i++)
        if (slot_of(mine(h->table), i))
            check_ok(sesstab_remove(h->table, i));
    check_table(name);
}

/* ---------------------------------------------------------------- the store -------------- */

struct lead {
    const char *name;
    sesstab *table;
    struct store *store;
};

static struct lead new_lead(bool ready)
{
    struct lead lead = { .name = new_name() };
    lead.table = open_table(lead.name, &(sesstab_options){ .create = true });
    lead.store = store_open(lead.table);
    check(lead.store && store_lead(lead.store));
    if (ready)
        store_set_ready(lead.store, 0, 0);
    return lead;
}

/* The next session that needs a write; kind NOTHING when none does. */
static struct store_image next_write(struct lead *lead)
{
    struct store_image image = { .kind = STORE_NOTHING };
    sesstab_view view;
    while (image.kind == STORE_NOTHING)
        if (store_take(lead->store, &image, 1, false)) {
            check_ok(sesstab_read_begin(lead->table));
            store_read(lead->store, &image, &view);
            sesstab_read_end(lead->table);
        } else if (!store_busy(lead->store)) {
            break;
        }
    return image;
}

static struct store_image expect_write(struct lead *lead, uint64_t handle, enum store_kind kind)
{
    struct store_image image = next_write(lead);
    check_equal(image.kind, kind);
    check_equal(image.handle, handle);
    return image;
}

static void acknowledge(struct lead *lead, uint64_t handle, enum store_kind kind)
{
    struct store_image image = expect_write(lead, handle, kind);
    store_ack(lead->store, &image);
}

/* H5: two lives of one slot, each at the same version, each a tombstone. */
static void a_late_acknowledgement_spares_the_slot_s_next_session(void **state)
{
    struct lead lead = new_lead(true);
    struct context *c = mine(lead.table);
    (void)state;
    insert_plain(lead.table, 5);
    acknowledge(&lead, 5, STORE_PUT);
    struct slot *slot = slot_of(c, 5);
    check_ok(sesstab_remove(lead.table, 5));
    struct store_image late = expect_write(&lead, 5, STORE_DELETE);
    store_ack(lead.store, &late);
    rcu_reclaim(c);
    insert_plain(lead.table, 6);
    check(slot_of(c, 6) == slot);
    check(look(lead.table, 6).version > late.version);
    acknowledge(&lead, 6, STORE_PUT);
    check_ok(sesstab_remove(lead.table, 6));
    store_ack(lead.store, &late);
    check(CURRENT_BLOCK(slot->current).at && (slot->current & CURRENT_TOMB));
    acknowledge(&lead, 6, STORE_DELETE);
    check_equal(next_write(&lead).kind, STORE_NOTHING);
    store_close(lead.store);
}

/* H5: a table that is made anew. */
static void generations_go_on_above_those_that_redis_holds(void **state)
{
    struct lead lead = new_lead(false);
    uint64_t high = lead.table->shm.header->next_generation + 1000000;
    (void)state;
    store_set_ready(lead.store, high, 0);
    insert_plain(lead.table, 1);
    check(look(lead.table, 1).generation > high);
    store_close(lead.store);
}

/* H11: as if the waker had been killed between its bit and its wake. */
static void *push_without_waking(void *context)
{
    struct lead *lead = context;
    struct context *c = mine(lead->table);
    struct shm *shm = c->shm;
    wait_until(shm->header->sleeping);
    pause_ms(5); /* perhaps it is in the kernel by now */
    check(ring_push(c, slot_ref_of(shm, slot_of(c, 1))));
    atomic_fetch_or(&shm->ready[c->thread_index / 64], UINT64_C(1) << (c->thread_index % 64));
    return NULL;
}

static void a_sleeper_sees_work_that_nobody_woke_it_for(void **state)
{
    struct lead lead = new_lead(true);
    pthread_t thread;
    (void)state;
    insert_plain(lead.table, 1);
    acknowledge(&lead, 1, STORE_PUT);
    while (next_write(&lead).kind != STORE_NOTHING || store_busy(lead.store))
        ;
    check(pthread_create(&thread, NULL, push_without_waking, &lead) == 0);
    check(store_sleep(lead.store, true, 100 * WAIT_LIMIT)); /* else the test hangs, and is ended */
    check(pthread_join(thread, NULL) == 0);
    store_close(lead.store);
}

/* H12: what Redis said before the removal comes late. */
static void what_was_removed_while_the_table_was_loaded_does_not_come_back(void **state)
{
    const struct store_record record = {
        .handle = 7, .generation = 3, .version = 2, .connected_at = 1000, .last_seen = 1000,
        .player = "#7", .address = "", .host = "", .type = "",
    };
    struct lead lead = new_lead(false);
    (void)state;
    insert_plain(lead.table, 7);
    check_ok(sesstab_remove(lead.table, 7));
    check_result(store_load(lead.store, &record), SESSTAB_EXISTS);
    check_equal(count_sessions(lead.table), 0);
    store_set_ready(lead.store, 3, 7);
    acknowledge(&lead, 7, STORE_DELETE); /* Redis may hold it */
    check_equal(next_write(&lead).kind, STORE_NOTHING);
    check_equal(count_sessions(lead.table), 0);
    store_close(lead.store);
}

/* H13: a collector has found a hint settled and stale; it is needed again before it is taken. */
static void a_hint_that_was_armed_again_is_not_collected_by_who_was_late(void **state)
{
    sesstab *table = filled_table(NULL);
    struct context *c = mine(table);
    slot_ref slot = slot_ref_of(c->shm, slot_of(c, VICTIM));
    hint_ref first, again;
    (void)state;
    rcu_enter(c);
    check_ok(hint_arm(c, 4711, slot, &first));
    hint_settle(c, first);
    atomic_u64 *life = &hint_at(c->shm, first)->life;
    uint64_t seen = *life;
    check_ok(hint_arm(c, 4711, slot, &again));
    check_equal(again.at, first.at);
    check(OWN_WORKER(*life) == c->worker);
    recover_collect_hint(c, first.at); /* armed by the living: left alone, though stale */
    check_equal(OWN_STATE(*life), OWN_LIVE);
    hint_settle(c, again);
    check(!cas_exact(life, seen, OWN_WORD(OWN_RETIRED, c->worker, OWN_SEQ(seen))));
    recover_collect_hint(c, first.at);
    check_equal(OWN_STATE(*life), OWN_RETIRED);
    rcu_exit(c);
}

/* H15: a toucher was stopped between reading the clock and storing, for an hour. */
static void an_old_last_seen_that_is_stored_late_is_not_believed(void **state)
{
    struct lead lead = new_lead(true);
    const uint64_t now = sesstab_now() + 1000, hour = 3600 * 1000;
    (void)state;
    insert_plain(lead.table, 1);
    check_ok(sesstab_touch(lead.table, 1, now));
    acknowledge(&lead, 1, STORE_PUT);
    struct slot *slot = slot_of(mine(lead.table), 1);
    slot->last_seen = now - hour;
    check_equal(look(lead.table, 1).last_seen, now);
    check_equal(next_write(&lead).kind, STORE_NOTHING);
    /* In the handle's next session, the earlier one's times count neither way. */
    check_ok(sesstab_remove(lead.table, 1));
    insert_plain(lead.table, 1);
    uint64_t connected = look(lead.table, 1).connected_at;
    slot->last_seen = now - hour;
    check_equal(look(lead.table, 1).last_seen, connected);
    store_close(lead.store);
}

/* ---------------------------------------------------------------- H7: proof of life ------ */

static void lock_byte_of(sesstab *table, uint32_t worker, short type)
{
    struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_len = 1,
                       .l_start = (off_t)(table->shm.at.workers +
                                          worker_index(worker) * sizeof(struct worker)) };
    int fd = open(table->shm.path, O_RDWR | O_CLOEXEC);
    check(fd >= 0 && fcntl(fd, F_OFD_SETLK, &l) == 0);
}

/* In shared memory. */
struct late {
    sesstab *table;
    _Atomic uint32_t dead, worker, thread;
    _Atomic unsigned entered, left;
};

static void attach_and_stay(void *context)
{
    struct late *late = context;
    late->dead = sesstab_self(late->table);
    for (;;)
        pause();
}

static uint32_t dead_worker(struct late *late)
{
    late->dead = 0;
    pid_t pid = start_child(attach_and_stay, late);
    wait_until(late->dead);
    kill_child(pid);
    wait_until(!sesstab_owner_alive(late->table, late->dead));
    return late->dead;
}

static void a_stranger_s_read_lock_makes_nobody_alive(void **state)
{
    struct late *late = shared_memory(sizeof *late);
    (void)state;
    sesstab *table = late->table = memory_table();
    uint32_t worker = dead_worker(late);
    lock_byte_of(table, worker, F_RDLCK);
    check(!sesstab_owner_alive(table, worker));
    check_equal(worker_recover(&table->shm, NULL, 0, NULL), 1);
    check(worker_gone(&table->shm, worker));
    sesstab *second = open_table(strrchr(table->shm.path, '/'), NULL); /* in another slot */
    check(worker_index(sesstab_self(second)) != worker_index(worker));
}

/* On overlayfs a lock goes with its descriptor. */
static void open_on_overlay(void *context)
{
    static const char *const parts[] = { "lower", "upper", "work" };
    char path[4][200], layers[700];
    sesstab *table;
    (void)context;
    check(unshare(CLONE_NEWNS) == 0);
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    snprintf(path[3], sizeof path[3], "%s/layers", scratch_directory());
    check(mkdir(path[3], 0755) == 0 && mount("tmpfs", path[3], "tmpfs", 0, NULL) == 0);
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof path[i], "%.150s/%s", path[3], parts[i]);
        check(mkdir(path[i], 0755) == 0);
    }
    snprintf(layers, sizeof layers, "lowerdir=%s,upperdir=%s,workdir=%s", path[0], path[1],
             path[2]);
    if (mount("overlay", "/dev/shm", "overlay", 0, layers) != 0)
        _exit(0); /* this kernel has none */
    check_result(sesstab_open("/overlay", &(sesstab_options){ .create = true }, &table),
                 SESSTAB_UNSUPPORTED);
    check(strlen(sesstab_error_detail()) >= 20);
}

static void a_dev_shm_where_locks_do_not_hold_is_refused(void **state)
{
    (void)state;
    need_root("mount another file system on /dev/shm");
    run_child(open_on_overlay, NULL);
}

/* ---------------------------------------------------------------- H8: late recovery ------ */

static void recover_late(void *context)
{
    struct late *late = context;
    check_ok(sesstab_attach(late->table));
    stepper_mark();
    worker_recover(&late->table->shm, NULL, 0, NULL);
    stepper_mark();
}

/* Takes the dead one's slots, and reads what only it can still see. */
static void read_in_its_place(void *context)
{
    struct late *late = context;
    sesstab_view view;
    check_ok(sesstab_read_begin(late->table));
    check_ok(sesstab_find(late->table, VICTIM, &view));
    late->worker = sesstab_self(late->table);
    late->thread = mine(late->table)->thread_index;
    meet(&late->entered, 2);
    meet(&late->left, 2);
    check_string(view.host, "victim.example");
    sesstab_read_end(late->table);
}

static void replace_victim(sesstab *table)
{
    uint64_t handle = VICTIM;
    sesstab_remove(table, VICTIM);
    check_ok(sesstab_insert(table, &handle, &(sesstab_info){ .host = "victim.example" }));
}

/* The recoverer stands LATER instructions behind "it is dead".  False: it had finished by then. */
static bool recover_in_between(struct late *late, uint64_t later)
{
    struct shm *shm = &late->table->shm;
    replace_victim(late->table);
    late->entered = late->left = 0;
    pid_t pid = stepper_start(recover_late, late);
    uint32_t worker = dead_worker(late);
    shm->header->overflow = 0;
    while (!shm->header->overflow)
        check_equal(stepper_step(pid, NULL), STEPPED);
    while (later--)
        check_equal(stepper_step(pid, NULL), STEPPED);
    bool between = !worker_gone(shm, worker);
    if (between) {
        check_equal(worker_recover(shm, NULL, 0, NULL), 1);
        pid_t reader = start_child(read_in_its_place, late);
        meet(&late->entered, 2);
        check_equal(worker_index(late->worker), worker_index(worker));
        check_equal(stepper_run(pid), STEPPED_MARK);
        check(!worker_gone(shm, late->worker));
        check(shm->threads[late->thread].owner & THREAD_LIVE);
        check_ok(sesstab_remove(late->table, VICTIM));
        for (int i = 0; i < 4 * RCU_BATCH; i++)
            check_ok(sesstab_increment(late->table, 1, "n", 1, NULL));
        meet(&late->left, 2);
        join_child(reader);
        wait_until(worker_recover(shm, NULL, 0, NULL) || worker_gone(shm, late->worker));
    }
    stepper_kill(pid);
    wait_until(worker_recover(shm, NULL, 0, NULL));
    return between;
}

static void a_recovery_that_goes_on_late_spares_who_has_the_slot_now(void **state)
{
    enum { STRIDE = 3 };
    struct late *late = shared_memory(sizeof *late);
    uint64_t later = random_below(STRIDE), times = 0;
    (void)state;
    if (SANITIZED) {
        print_message("a sanitizer's own instructions are too many to be stepped through\n");
        skip();
    }
    late->table = filled_table(NULL);
    for (; recover_in_between(late, later); later += STRIDE)
        times++;
    check(times > 5);
}

/* ---------------------------------------------------------------- fences ----------------- */

/* From here on membarrier(2) fails in this process. */
static void forbid_membarrier(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    check(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0);
}

static void write_without_membarrier(void *table)
{
    struct context *c = mine(table);
    uint64_t before = retired(table);
    forbid_membarrier();
    for (int i = 0; i < 3 * RCU_BATCH; i++)
        check_ok(sesstab_increment(table, 1, "n", 1, NULL));
    check_equal(c->freed, 0);
    check_equal(retired(table), before + 3 * RCU_BATCH);
}

static void open_without_membarrier(void *name)
{
    sesstab *table;
    forbid_membarrier();
    check_result(sesstab_open(name, NULL, &table), SESSTAB_UNSUPPORTED);
    check(strstr(sesstab_error_detail(), "membarrier"));
    /* A table of its own does without. */
    check_ok(sesstab_open(new_name(), &(sesstab_options){ .create = true }, &table));
    check(table->shm.full_fences);
}

static void who_may_not_fence_frees_nothing_and_is_told_so_when_it_opens(void **state)
{
    const char *name;
    (void)state;
    sesstab *table = filled_table(&name);
    check(!table->shm.full_fences);
    run_child(open_without_membarrier, (void *)name);
    run_child(write_without_membarrier, table);
    check_equal(look(table, 1).version, 1 + 3 * RCU_BATCH);
}

/* ---------------------------------------------------------------- sections --------------- */

static void a_walk_is_in_another_section_at_every_step(void **state)
{
    sesstab *table = filled_table(NULL);
    struct context *c = mine(table);
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    uint64_t last = 0;
    (void)state;
    for (int i = 0; i < SESSIONS; i++) {
        check_ok(sesstab_next(table, &cursor, &view));
        check(c->thread->lo != THREAD_IDLE && c->thread->lo > last);
        last = c->thread->lo;
        c->shm->header->era++;
    }
    check_result(sesstab_next(table, &cursor, &view), SESSTAB_NOTFOUND);
    check_equal(c->thread->lo, THREAD_IDLE);
}

/* While the era stands still a step goes on in the section that it has: also then it frees what has
 * come together. */
static void a_walk_that_removes_frees_at_its_steps(void **state)
{
    sesstab *table = filled_table(NULL);
    struct context *c = mine(table);
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    (void)state;
    for (uint64_t h = SESSIONS + 1; h <= 2 * RCU_BATCH; h++)
        insert_plain(table, h);
    rcu_reclaim(c);
    uint64_t before = c->freed;
    while (sesstab_next(table, &cursor, &view) == SESSTAB_OK) {
        check(c->limbo.fresh < RCU_BATCH);
        check_equal(c->thread->lo, c->shm->header->era);
        check_ok(sesstab_remove(table, view.handle));
    }
    check(c->freed >= before + 2 * RCU_BATCH);
}

/* ---------------------------------------------------------------- with a persister ------- */

/* A worker was stopped between the dirty bit and the ring: who sees the bit later is silent. */
static void a_binding_does_not_rely_on_a_bit_that_a_stopped_worker_set(void **state)
{
    const char *name = new_name();
    struct redis *redis = start_redis(NULL);
    (void)state;
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    start_persister(name, redis->url, NULL);
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    insert_plain(table, 1);
    wait_until_redis_equals(table, redis);
    for (int i = 0; i < 20; i++) {
        uint64_t bit;
        char player[32];
        struct context *c = mine(table);
        atomic_u64 *word = dirty_word(c->shm, slot_ref_of(c->shm, slot_of(c, 1)), &bit);
        atomic_fetch_or(word, bit);
        snprintf(player, sizeof player, "#%d", i);
        check_ok(sesstab_bind(table, 1, player, WAIT_LIMIT));
    }
    wait_until_redis_equals(table, redis);
}

static bool all_deleted(struct redis *redis, uint64_t from, uint64_t to)
{
    for (; from <= to; from++)
        if (redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:%llu", (unsigned long long)from))
            return false;
    return true;
}

/* What is too much for Redis is refused with the deletions in it, which would make room. */
static void a_redis_without_memory_is_still_told_to_delete(void **state)
{
    enum { CHANGED = 50, REMOVED = 10 };
    const char *name = new_name();
    struct redis *redis = start_redis(NULL);
    (void)state;
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    start_persister(name, redis->url, NULL);
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    for (uint64_t h = 1; h <= CHANGED + REMOVED; h++)
        insert_plain(table, h);
    wait_until_redis_equals(table, redis);
    freeReplyObject(redis_query(redis, "CONFIG SET maxmemory 1"));
    for (uint64_t h = 1; h <= CHANGED; h++) {
        check_ok(sesstab_set(table, h, "key", "value", 5));
        if (h <= REMOVED)
            check_ok(sesstab_remove(table, CHANGED + h));
    }
    wait_until(all_deleted(redis, CHANGED + 1, CHANGED + REMOVED));
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:1:metadata"), 0);
    freeReplyObject(redis_query(redis, "CONFIG SET maxmemory 0"));
    wait_until_redis_equals(table, redis);
}

/* H17 */
static void the_persister_of_a_table_that_was_made_anew_leaves(void **state)
{
    const char *name = new_name();
    struct redis *redis = start_redis(NULL);
    char log[128];
    (void)state;
    sesstab *old = open_table(name, &(sesstab_options){ .create = true });
    start_persister(name, redis->url, NULL);
    snprintf(log, sizeof log, "%s", persister_log());
    check_ok(sesstab_wait_ready(old, WAIT_LIMIT));
    insert_plain(old, 1);
    check_ok(sesstab_bind(old, 1, "old", WAIT_LIMIT));
    check_ok(sesstab_unlink(name));
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    start_persister(name, redis->url, NULL);
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    check_string(look(table, 1).player, "old");
    check_ok(sesstab_bind(table, 1, "new", WAIT_LIMIT));
    wait_until(file_says(log, "another segment"));
    check_result(sesstab_bind(old, 1, "late", 200), SESSTAB_UNKNOWN); /* nobody serves it */
    wait_until_redis_equals(table, redis);
    check(redis_field_is(redis, TEST_PREFIX ":conn:1", "PlayerRef", "new"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stopped_readers_pin_no_more_than_what_was_alive_when_each_stopped),
        TEST(a_stopped_writer_pins_little_and_finishes_when_it_goes_on),
        TEST(a_reader_on_a_removed_session_does_not_follow_its_link_to_a_reused_place),
        TEST(while_the_maker_of_a_bucket_head_is_stopped_nobody_is_lost),
        TEST(a_late_acknowledgement_spares_the_slot_s_next_session),
        TEST(generations_go_on_above_those_that_redis_holds),
        TEST(a_sleeper_sees_work_that_nobody_woke_it_for),
        TEST(what_was_removed_while_the_table_was_loaded_does_not_come_back),
        TEST(a_hint_that_was_armed_again_is_not_collected_by_who_was_late),
        TEST(an_old_last_seen_that_is_stored_late_is_not_believed),
        TEST(a_stranger_s_read_lock_makes_nobody_alive),
        TEST(a_dev_shm_where_locks_do_not_hold_is_refused),
        TEST(a_recovery_that_goes_on_late_spares_who_has_the_slot_now),
        TEST(who_may_not_fence_frees_nothing_and_is_told_so_when_it_opens),
        TEST(a_walk_is_in_another_section_at_every_step),
        TEST(a_walk_that_removes_frees_at_its_steps),
        TEST(a_binding_does_not_rely_on_a_bit_that_a_stopped_worker_set),
        TEST(a_redis_without_memory_is_still_told_to_delete),
        TEST(the_persister_of_a_table_that_was_made_anew_leaves),
    };
    return run_all(tests);
}
