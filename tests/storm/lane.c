/*
 * The oracle: each lane has sessions that it alone changes, so that it knows what they hold.
 *
 * What is expected of a session stands twice in the books; a store of one word says which of the
 * two holds.  An operation is put down first, then made, then recorded by that store.  Whoever
 * comes after a death finds one of three: no operation under way; one that is recorded; or one of
 * which all or nothing may have happened, and the table says which.
 *
 * Bindings have a number of their own, which their player tells.  What is known of them:
 *
 *   sure    answered durable, or seen not to be pending.  Nothing came later: it must be there.
 *   maybe   came later and was answered "unknown", or not at all.  It may be there, for as long as
 *           nothing later was answered; if it is refused, what is there is sure, or maybe.
 *   Any other was answered "refused" or has been replaced, and must never be seen again.
 */
#include "tests/storm/storm.h"

#include <stdio.h>
#include <string.h>

#define LL(n) ((unsigned long long)(n))

static struct expect *expected(struct own *o)
{
    return &o->expect[atomic_load(&o->current)];
}

/* From here on NEXT is what is expected. */
static void record(struct own *o, const struct expect *next)
{
    uint32_t other = !atomic_load(&o->current);
    o->expect[other] = *next;
    atomic_store(&o->current, other);
}

static void begin(struct lane *l, struct own *o, enum operation operation, uint64_t value)
{
    l->index = (uint32_t)(o - l->own);
    l->target = !atomic_load(&o->current);
    l->value = value;
    atomic_store(&l->operation, operation);
}

static void end(struct lane *l, struct own *o, const struct expect *next)
{
    record(o, next);
    atomic_store(&l->operation, OP_NONE);
}

static bool is_assigned(const struct lane *l, const struct own *o)
{
    return o - l->own >= OWN;
}

static struct expect nothing(const struct lane *l, const struct own *o)
{
    uint64_t handle = is_assigned(l, o) ? 0 : OWN_HANDLE(l->number, o - l->own);
    return (struct expect){ .handle = handle, .number = handle };
}

void lane_init(struct lane *l, unsigned number)
{
    l->number = number;
    for (unsigned i = 0; i < SESSIONS; i++)
        l->own[i].expect[0] = nothing(l, &l->own[i]);
}

unsigned lane_sessions(const struct lane *l)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SESSIONS; i++)
        count += l->own[i].expect[l->own[i].current].exists;
    return count;
}

/* ---------------------------------------------------------------- bindings -------------- */

static void bound(struct expect *e, uint64_t binding)
{
    e->sure = binding;
    e->maybe_count = 0;
    e->checked = false;
}

static bool is_player(const struct expect *e, uint64_t binding, const char *player)
{
    char text[40];
    content_player(text, e->handle, binding);
    return strcmp(text, player) == 0;
}

static void count_checked(struct expect *e)
{
    books->count.checked += !e->checked && (e->sure & 1);
    e->checked = true;
}

static void check_binding(struct expect *e, const sesstab_view *view)
{
    bool found = is_player(e, e->sure, view->player);
    uint64_t which = e->sure;
    for (unsigned i = 0; i < e->maybe_count && !found; i++)
        if ((found = is_player(e, e->maybe[i], view->player)))
            which = e->maybe[i];
    if (!found)
        fault(LOST, "session %llx is bound to \"%s\"%s; %llu is sure, %u others may be",
              LL(e->handle), view->player, view->pending ? ", pending" : "", LL(e->sure >> 1),
              e->maybe_count);
    if (!found || (!view->pending && e->maybe_count))
        bound(e, which);
    else if (!e->maybe_count)
        count_checked(e);
}

/* ---------------------------------------------------------------- looking --------------- */

static void check_values(struct expect *e, const sesstab_view *view)
{
    const char *n = metadata_of(view, "n");
    int64_t count = n ? strtoll(n, NULL, 10) : 0;
    uint32_t v = content_serial(view, "v"), x = content_serial(view, "x");
    if (v != e->v || x != e->x || count != e->n)
        fault(LOST, "session %llx holds v %u x %u n %lld instead of %u %u %lld", LL(e->handle), v,
              x, (long long)count, e->v, e->x, (long long)e->n);
    e->v = v;
    e->x = x;
    e->n = count;
}

static void check_life(struct expect *e, const sesstab_view *view)
{
    if (e->generation && view->generation != e->generation)
        fault(DUPLICATED, "session %llx is of generation %llu, not %llu", LL(e->handle),
              LL(view->generation), LL(e->generation));
    else if (e->generation && view->version < e->version)
        fault(LOST, "session %llx went back from version %llu to %llu", LL(e->handle),
              LL(e->version), LL(view->version));
    if (view->last_seen < e->seen)
        fault(LOST, "session %llx was last seen at %llu, touched at %llu", LL(e->handle),
              LL(view->last_seen), LL(e->seen));
    if (e->owner && (view->owner != e->owner || view->state == SESSTAB_DETACHED))
        fault(WRONG, "session %llx of worker %x is %s and belongs to %x", LL(e->handle), e->owner,
              sesstab_state_name(view->state), view->owner);
    e->generation = view->generation;
    e->version = view->version;
    books->count.detached += view->state == SESSTAB_DETACHED;
}

static void check_session(struct expect *e, const sesstab_view *view)
{
    if (view->handle != e->handle || content_number(view) != e->number)
        fault(WRONG, "session %llx: found %llx, which holds %llx", LL(e->handle), LL(view->handle),
              LL(content_number(view)));
    content_check(view);
    check_life(e, view);
    check_values(e, view);
    check_binding(e, view);
}

/* Compares the session with what is expected of it, and learns what could not be known. */
static void compare(struct thread *t, struct own *o, struct expect *e)
{
    sesstab_view view;
    int result = sesstab_read_begin(t->table);
    if (result == SESSTAB_OK) {
        result = TIMED(t, "find", 0, sesstab_find(t->table, e->handle, &view));
        if (result == SESSTAB_OK && e->exists)
            check_session(e, &view);
        sesstab_read_end(t->table);
    }
    if (result == SESSTAB_OK && !e->exists)
        fault(DUPLICATED, "session %llx was removed and is there", LL(e->handle));
    else if (result == SESSTAB_NOTFOUND && e->exists)
        fault(LOST, "session %llx is gone", LL(e->handle));
    else if (result != SESSTAB_NOTFOUND)
        succeeded("find", e->handle, result);
    if ((result == SESSTAB_OK) != e->exists)
        *e = nothing(t->lane, o);
}

/* ---------------------------------------------------------------- operations ------------ */

typedef void operation_fn(struct thread *t, struct own *o, struct expect *e);

static uint32_t next_serial(struct lane *l)
{
    return ++l->serial;
}

static void insert(struct thread *t, struct own *o, struct expect *e)
{
    struct lane *l = t->lane;
    uint32_t serial = next_serial(l);
    struct expect fresh = nothing(l, o);
    if (is_assigned(l, o))
        fresh.number = TAG(l->number, serial);
    begin(l, o, OP_INSERT, fresh.number);
    int result = content_insert(t, &fresh.handle, fresh.number, serial);
    if (succeeded("insert", fresh.handle, result)) {
        fresh.exists = true;
        fresh.v = serial;
        fresh.owner = sesstab_self(t->table);
        *e = fresh;
    }
    end(l, o, e);
}

static void insert_again(struct thread *t, struct own *o, struct expect *e)
{
    uint64_t handle = e->handle;
    int result = TIMED(t, "insert", 0, sesstab_insert(t->table, &handle, NULL));
    (void)o;
    if (result != SESSTAB_EXISTS)
        fault(WRONG, "inserting live session %llx again: %s", LL(handle), sesstab_strerror(result));
}

static void remove_own(struct thread *t, struct own *o, struct expect *e)
{
    begin(t->lane, o, OP_REMOVE, 0);
    if (succeeded("remove", e->handle, TIMED(t, "remove", 0, sesstab_remove(t->table, e->handle))))
        *e = nothing(t->lane, o);
    end(t->lane, o, e);
}

static void touch(struct thread *t, struct own *o, struct expect *e)
{
    uint64_t now = sesstab_now();
    begin(t->lane, o, OP_TOUCH, 0);
    if (succeeded("touch", e->handle, TIMED(t, "touch", 0, sesstab_touch(t->table, e->handle, now)))
        && now > e->seen)
        e->seen = now;
    end(t->lane, o, e);
}

/* With or without a look at the version of what is there. */
static int put(struct thread *t, struct expect *e, const char *key, uint32_t serial)
{
    char value[VALUE_MAX];
    uint64_t version = 0;
    size_t length = content_value(value, e->number, serial);
    if (roll(&t->dice, 2))
        return TIMED(t, "set", 0, sesstab_set(t->table, e->handle, key, value, length));
    int result = TIMED(t, "compare-and-set", 0, sesstab_compare_and_set(t->table, e->handle, key,
                                                    UINT64_MAX, value, length, &version));
    if (result != SESSTAB_CONFLICT)
        fault(WRONG, "a wrong version of session %llx: %s", LL(e->handle),
              sesstab_strerror(result));
    return TIMED(t, "compare-and-set", 0, sesstab_compare_and_set(t->table, e->handle, key, version,
                                              value, length, NULL));
}

static void set(struct thread *t, struct own *o, struct expect *e)
{
    uint32_t serial = next_serial(t->lane);
    begin(t->lane, o, OP_SET, serial);
    if (succeeded("set", e->handle, put(t, e, "v", serial)))
        e->v = serial;
    end(t->lane, o, e);
}

/* The key "x" comes and goes. */
static void mark(struct thread *t, struct own *o, struct expect *e)
{
    uint32_t serial = e->x ? 0 : next_serial(t->lane);
    begin(t->lane, o, OP_MARK, serial);
    int result = serial ? put(t, e, "x", serial)
                        : TIMED(t, "delete", 0, sesstab_delete(t->table, e->handle, "x"));
    if (succeeded("delete", e->handle, result))
        e->x = serial;
    end(t->lane, o, e);
}

static void increment(struct thread *t, struct own *o, struct expect *e)
{
    int64_t sum;
    begin(t->lane, o, OP_INCREMENT, 0);
    int result = TIMED(t, "increment", 0, sesstab_increment(t->table, e->handle, "n", 1, &sum));
    if (succeeded("increment", e->handle, result)) {
        if (sum != e->n + 1)
            fault(LOST, "session %llx counted %lld after %lld", LL(e->handle), (long long)sum,
                  (long long)e->n);
        e->n = sum;
    }
    end(t->lane, o, e);
}

/* Detaches, or takes a session over that a dead worker had. */
static void set_state(struct thread *t, struct own *o, struct expect *e)
{
    static const sesstab_state unbound[] = { SESSTAB_CONNECTED, SESSTAB_ACCOUNT };
    sesstab_state wanted = e->sure & 1 ? SESSTAB_LOGGED_IN : unbound[roll(&t->dice, 2)];
    if (roll(&t->dice, 3) == 0)
        wanted = SESSTAB_DETACHED;
    begin(t->lane, o, OP_STATE, 0);
    e->owner = 0;
    int result = TIMED(t, "state", 0, sesstab_set_state(t->table, e->handle, wanted, NULL));
    /* Which states are allowed depends on the binding. */
    if (result != SESSTAB_INVALID || !e->maybe_count)
        succeeded("state", e->handle, result);
    end(t->lane, o, e);
}

static void conclude(struct expect *e, uint64_t binding, uint32_t owner, int result)
{
    bool binds = binding & 1;
    if (result == SESSTAB_OK)
        bound(e, binding);
    else if (result == SESSTAB_UNKNOWN)
        e->maybe[e->maybe_count++] = binding;
    else if (result != SESSTAB_REFUSED && !succeeded("bind", e->handle, result))
        return;
    e->owner = result == SESSTAB_OK && binds ? owner : 0;
    books->count.durable += result == SESSTAB_OK && binds;
    books->count.unknown += result == SESSTAB_UNKNOWN;
    books->count.refused += result == SESSTAB_REFUSED;
}

static void bind(struct thread *t, struct own *o, struct expect *e)
{
    char player[40];
    bool binds = roll(&t->dice, 4);
    uint64_t binding = BINDING(next_serial(t->lane), binds);
    int timeout = roll(&t->dice, 4) ? (int)(20 + roll(&t->dice, 200)) : 0;
    content_player(player, e->handle, binding);
    if (e->maybe_count == MAYBE) {
        remove_own(t, o, e);
        return;
    }
    begin(t->lane, o, OP_BIND, binding);
    int result = binds
        ? TIMED(t, "bind", timeout, sesstab_bind(t->table, e->handle, player, timeout))
        : TIMED(t, "unbind", timeout, sesstab_unbind(t->table, e->handle, timeout));
    conclude(e, binding, sesstab_self(t->table), result);
    end(t->lane, o, e);
}

void lane_step(struct thread *t)
{
    static operation_fn *const operations[] = {
        touch, touch, set, mark, increment, increment, set_state, bind, bind, remove_own,
        insert_again
    };
    struct own *o = &t->lane->own[roll(&t->dice, SESSIONS)];
    struct expect e = *expected(o);
    if (e.handle) {
        compare(t, o, &e);
        record(o, &e);
    }
    if (e.exists)
        operations[roll(&t->dice, sizeof operations / sizeof *operations)](t, o, &e);
    else
        insert(t, o, &e);
}

/* ---------------------------------------------------------------- after a death --------- */

/* The session that was inserted under a handle that nobody lived to be told; 0: none. */
static uint64_t find_assigned(struct thread *t, uint64_t number)
{
    sesstab_cursor cursor = { 0 };
    sesstab_view view;
    uint64_t handle = 0;
    while (sesstab_next(t->table, &cursor, &view) == SESSTAB_OK)
        if (content_number(&view) == number) {
            if (handle)
                fault(DUPLICATED, "sessions %llx and %llx are one insert", LL(handle),
                      LL(view.handle));
            handle = view.handle;
        }
    return handle;
}

static void adopt_insert(struct thread *t, struct own *o, struct expect *e, uint64_t number)
{
    static _Thread_local char buffer[SESSTAB_RECORD_MAX];
    struct expect found = nothing(t->lane, o);
    size_t size = sizeof buffer;
    sesstab_view view;
    if (is_assigned(t->lane, o))
        found.handle = find_assigned(t, number);
    if (!found.handle || sesstab_get(t->table, found.handle, &view, buffer, &size) != SESSTAB_OK)
        return;
    found.exists = true;
    found.number = number;
    found.v = content_serial(&view, "v");
    *e = found;
}

/* The values that are there, if they are those from before or those that were to be. */
static void adopt_values(struct expect *e, enum operation operation, uint64_t value,
                         const sesstab_view *view)
{
    const char *n = metadata_of(view, "n");
    if (operation == OP_SET && content_serial(view, "v") == value)
        e->v = (uint32_t)value;
    if (operation == OP_MARK && content_serial(view, "x") == value)
        e->x = (uint32_t)value;
    if (operation == OP_INCREMENT && n && strtoll(n, NULL, 10) == e->n + 1)
        e->n++;
}

static void adopt(struct thread *t, struct own *o, struct expect *e)
{
    static _Thread_local char buffer[SESSTAB_RECORD_MAX];
    struct lane *l = t->lane;
    enum operation operation = atomic_load(&l->operation);
    sesstab_view view;
    size_t size = sizeof buffer;
    if (operation == OP_INSERT) {
        adopt_insert(t, o, e, l->value);
        return;
    }
    bool there = sesstab_get(t->table, e->handle, &view, buffer, &size) == SESSTAB_OK;
    if (operation == OP_REMOVE && !there)
        *e = nothing(l, o);
    if (operation == OP_BIND)
        e->maybe[e->maybe_count++] = l->value;
    if (there)
        adopt_values(e, operation, l->value, &view);
}

void lane_take_over(struct thread *t)
{
    struct lane *l = t->lane;
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct own *o = &l->own[i];
        struct expect e = *expected(o);
        e.owner = 0;
        if (l->operation != OP_NONE && l->index == i && o->current != l->target) {
            adopt(t, o, &e);
            record(o, &e); /* before the operation ends: its target is reached by this */
        }
        if (e.handle)
            compare(t, o, &e);
        if (l->operation != OP_NONE && l->index == i)
            atomic_store(&l->operation, OP_NONE);
        record(o, &e);
    }
}

/* ---------------------------------------------------------------- calm ------------------ */

void lane_check_redis(struct lane *l, struct redis *redis)
{
    char found[64];
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct expect *e = expected(&l->own[i]);
        if (!e->exists || e->maybe_count || !(e->sure & 1))
            continue;
        bool there = redis_text(redis, found, sizeof found,
                                "HGET " TEST_PREFIX ":conn:%llu PlayerRef", LL(e->handle));
        if (!there || !is_player(e, e->sure, found))
            fault(LOST, "session %llx is bound to \"%s\" in Redis; %llu is sure", LL(e->handle),
                  there ? found : "(none)", LL(e->sure >> 1));
    }
}
