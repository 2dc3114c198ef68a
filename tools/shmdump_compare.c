/* A table against Redis; see shmdump_compare.h. */
#include "tools/shmdump_compare.h"

#include "tools/persister_clock.h"
#include "tools/persister_scan.h"
#include "tools/shmdump_index.h"
#include "tools/shmdump_session.h"

#include <stdio.h>
#include <string.h>

enum {
    SLICE = 128,
    SUSPECTS = 4096,
    LOOKS = 3,
    TRIES = 10,
    PAUSE_MS = 4 /* before the second look; twice as long before each that follows, to 512 ms */
};

/* What must be looked at. */
enum origin { FROM_TABLE, FROM_SET, FROM_RECORD_KEY, FROM_METADATA_KEY };
struct suspect {
    uint64_t handle;
    uint32_t slot; /* where it was; 0: the index has to be asked */
    enum origin origin;
    uint8_t different; /* looks in a row */
};

/* What the table says of a session at one moment. */
struct standing {
    enum { ABSENT, UNSETTLED, SETTLED, DAMAGED } state;
    uint64_t current, life;
    uint64_t last_seen; /* 0: a newer one is on its way */
    uint32_t owner;
};

enum finding { EQUAL, IN_FLIGHT, DIFFERS };

struct work {
    struct comparison *c;
    struct index index;
    char active[KEY_BYTES];
    struct suspect slice[SLICE];
    size_t count;
    struct suspect suspects[SUSPECTS];
    size_t suspect_count;
    /* Whether an owner is dead is a question to the kernel: asked once for each. */
    struct { worker_id id; bool dead; } owners[WORKERS];
};

/* 64 KiB each, and more: too much for a stack frame.  One comparison at a time. */
static struct work work;
static struct session session;

/* ------------------------------------------------------------------ the table -------------- */

static bool owner_gone(struct work *w, uint32_t owner)
{
    if (owner == 0 || !worker_id_valid(owner))
        return true;
    uint32_t index = worker_index(owner);
    if (w->owners[index].id != owner) {
        w->owners[index].id = owner;
        w->owners[index].dead = worker_id_liveness(w->c->image, owner) == WORKER_DEAD;
    }
    return w->owners[index].dead;
}

/* Reads HANDLE's session, in its SLOT unless 0, into `session`. */
static enum session_kind read_session(struct work *w, uint64_t handle, uint32_t slot)
{
    if (slot && session_read(w->c->image, (slot_ref){ slot }, &session) != SESSION_NONE &&
        session.slot.node.key == handle)
        return session.kind;
    slot = index_find(w->c->image, &w->index, handle, 0);
    return session_read(w->c->image, (slot_ref){ slot }, &session);
}

static bool is_settled(const struct work *w)
{
    uint64_t durable = session.slot.durable;
    return DURABLE_VERSION(durable) == session.block.version &&
           DURABLE_INCARNATION(durable) == w->c->image->header.incarnation;
}

static struct standing stand(struct work *w, const struct suspect *suspect)
{
    enum session_kind kind = read_session(w, suspect->handle, suspect->slot);
    struct standing standing = { .state = UNSETTLED, .current = session.slot.current,
                                 .life = session.slot.node.life };
    if (kind == SESSION_NONE)
        standing = (struct standing){ .state = ABSENT };
    if (kind == SESSION_DAMAGED)
        standing.state = DAMAGED;
    if (kind != SESSION_LIVE && kind != SESSION_CLAIMED)
        return standing;
    standing.state = is_settled(w) ? SETTLED : UNSETTLED;
    standing.last_seen = session.touched ? 0 : session.last_seen;
    standing.owner = session.block.owner;
    return standing;
}

/* The view of `session`; strings and metadata are those of its copy. */
static sesstab_view session_view(void)
{
    const struct block *b = &session.block;
    return (sesstab_view){
        .handle = b->handle, .generation = b->generation, .version = b->version,
        .connected_at = b->connected_at, .owner = b->owner, .metadata_count = b->metadata_count,
        .player_length = b->player_length, .state = b->state, .last_seen = session.last_seen,
        .player = session.player.at, .address = session.address.at, .host = session.host.at,
        .type = session.type.at, .metadata_ = session.record + b->metadata_at,
        .metadata_length_ = b->size - b->metadata_at,
    };
}

/* ------------------------------------------------------------------ one look --------------- */

/* A key of a member is looked at as such, and metadata with their record. */
static bool is_looked_at_elsewhere(const struct suspect *s, const struct answers *answers)
{
    bool member = answers->member->type == REDIS_REPLY_INTEGER && answers->member->integer == 1;
    bool record = answers->record->type != REDIS_REPLY_ARRAY || answers->record->elements;
    return (s->origin >= FROM_RECORD_KEY && member) || (s->origin == FROM_METADATA_KEY && record);
}

static enum finding find_unknown(struct work *w, const struct suspect *s,
                                 const struct answers *answers, bool last)
{
    if (nothing_stored(answers) || is_looked_at_elsewhere(s, answers))
        return EQUAL;
    if (last)
        diff_unknown(s->handle, answers, w->c->report, w->c->context);
    w->c->only_redis += last;
    return DIFFERS;
}

static enum finding find_known(struct work *w, const struct standing *standing, bool seen,
                               const struct answers *answers, bool last)
{
    sesstab_view view = session_view();
    bool stored = answers->record->type != REDIS_REPLY_ARRAY || answers->record->elements;
    size_t count = diff_session(&view, seen, answers, last ? w->c->report : NULL, w->c->context);
    if (count == 0 || last)
        w->c->owner_gone += view.state == SESSTAB_DETACHED || owner_gone(w, standing->owner);
    if (count && last && stored)
        w->c->different++;
    else if (count && last)
        w->c->only_table++;
    return count ? DIFFERS : EQUAL;
}

/* What the answers say that came between BEFORE and now; the last look reports a difference. */
static enum finding judge(struct work *w, const struct suspect *s, const struct standing *before,
                          const struct answers *answers)
{
    struct standing after = stand(w, s);
    bool last = s->different + 1 == LOOKS;
    if (after.state != before->state || after.current != before->current ||
        after.life != before->life)
        return IN_FLIGHT;
    if (after.state == ABSENT)
        return find_unknown(w, s, answers, last);
    if (after.state != SETTLED)
        return IN_FLIGHT;
    bool seen = after.last_seen && after.last_seen == before->last_seen;
    enum finding finding = find_known(w, &after, seen, answers, last);
    w->c->equal += finding == EQUAL;
    return finding;
}

/* Looks at COUNT suspects at once; those that remain suspect stand at the front then, *COUNT. */
static bool look(struct work *w, struct suspect *suspects, size_t *count)
{
    static struct standing before[SLICE];
    struct redis *redis = w->c->redis;
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++) {
        struct session_key key;
        before[i] = stand(w, &suspects[i]);
        session_key(&key, w->c->prefix, suspects[i].handle);
        ask_session(redis, w->active, &key);
    }
    for (size_t i = 0; i < *count; i++) {
        struct suspect s = suspects[i];
        struct answers answers = { 0 };
        bool received = receive_answers(redis, &answers);
        const char *refused = received ? answers_refused(&answers) : NULL;
        if (refused)
            redis_drop(redis, refused);
        if (received && !refused) {
            enum finding finding = judge(w, &s, &before[i], &answers);
            s.different = finding == DIFFERS ? s.different + 1 : 0;
            if (finding != EQUAL && s.different < LOOKS)
                suspects[kept++] = s;
        }
        free_answers(&answers);
    }
    *count = kept;
    return redis_connected(redis);
}

/* ------------------------------------------------------------------ looking again ---------- */

/* The header and the size; the incarnation may have changed. */
static bool refresh(struct work *w)
{
    struct comparison *c = w->c;
    if (image_refresh(c->image, c->why, sizeof c->why))
        w->index = index_of_handles(c->image);
    return !c->why[0];
}

static bool look_at_all(struct work *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->suspect_count; i += SLICE) {
        size_t count = w->suspect_count - i < SLICE ? w->suspect_count - i : SLICE;
        if (!look(w, &w->suspects[i], &count))
            return false;
        memmove(&w->suspects[kept], &w->suspects[i], count * sizeof *w->suspects);
        kept += count;
    }
    w->suspect_count = kept;
    return true;
}

static bool look_again(struct work *w)
{
    for (unsigned try = 0; try < TRIES && w->suspect_count; try++) {
        pause_ms(PAUSE_MS << (try < 7 ? try : 7));
        if (stop_requested() || !refresh(w) || !look_at_all(w))
            return false;
    }
    for (size_t i = 0; i < w->suspect_count; i++) {
        bool damaged = stand(w, &w->suspects[i]).state == DAMAGED;
        w->c->damaged += damaged;
        w->c->in_flight += !damaged;
    }
    w->suspect_count = 0;
    return true;
}

/* The slice's first look. */
static bool look_at_slice(struct work *w)
{
    if (w->count && !look(w, w->slice, &w->count))
        return false;
    memcpy(&w->suspects[w->suspect_count], w->slice, w->count * sizeof *w->slice);
    w->suspect_count += w->count;
    w->count = 0;
    return w->suspect_count + SLICE <= SUSPECTS || look_again(w);
}

/* ------------------------------------------------------------------ the whole -------------- */

static void visit(const struct place *place, void *context)
{
    struct work *w = context;
    uint64_t at = slot_place(w->c->image, (slot_ref){ place->ref });
    if (place->kind != PLACE_SLOT || OWN_STATE(place->own) == OWN_FREE || !at ||
        !redis_connected(w->c->redis) || w->c->why[0])
        return;
    if (!CURRENT_BLOCK(image_word(w->c->image, at + offsetof(struct slot, current))).at)
        return; /* an ended session */
    uint64_t handle = image_word(w->c->image, at + offsetof(struct node, key));
    w->slice[w->count++] = (struct suspect){ .handle = handle, .slot = place->ref };
    if (w->count == SLICE)
        look_at_slice(w);
}

static bool compare_table(struct work *w)
{
    each_place(w->c->image, visit, w);
    return redis_connected(w->c->redis) && !w->c->why[0] && look_at_slice(w);
}

static bool compare_page(struct work *w, const struct scan *scan)
{
    for (size_t i = 0; i < scan->count; i++) {
        enum origin origin = !scan->of_keys      ? FROM_SET
                             : scan->metadata[i] ? FROM_METADATA_KEY
                                                 : FROM_RECORD_KEY;
        if (read_session(w, scan->handles[i], 0) == SESSION_NONE)
            w->slice[w->count++] = (struct suspect){ .handle = scan->handles[i],
                                                     .origin = origin };
    }
    return look_at_slice(w);
}

static bool compare_scan(struct work *w, struct scan *scan)
{
    bool going = redis_connected(w->c->redis);
    while (going && !scan->done)
        going = scan_next(scan) && compare_page(w, scan);
    w->c->strange += scan->strange;
    scan_free(scan);
    return going;
}

static bool compare_redis(struct work *w)
{
    struct scan scan;
    scan_begin(&scan, w->c->redis, w->c->prefix);
    if (!compare_scan(w, &scan))
        return false;
    scan_begin_keys(&scan, w->c->redis, w->c->prefix);
    return compare_scan(w, &scan);
}

/* NULL, or why there is nothing to compare. */
static const char *not_comparable(const struct image *image)
{
    if (MODE_OF(image->header.mode) == MODE_MEMORY)
        return "the table is in mode memory: nothing of it is in Redis";
    if (!image->header.ready)
        return "the table has not been loaded from Redis yet";
    return NULL;
}

bool compare_with_redis(struct comparison *c)
{
    struct work *w = &work;
    memset(w, 0, sizeof *w);
    w->c = c;
    c->why[0] = '\0';
    active_key(w->active, c->prefix);
    const char *why = not_comparable(c->image);
    if (why) {
        snprintf(c->why, sizeof c->why, "%s", why);
        return false;
    }
    if (refresh(w) && compare_table(w) && compare_redis(w) && look_again(w))
        return true;
    if (!c->why[0])
        snprintf(c->why, sizeof c->why, "%s", redis_connected(c->redis) ? "asked to stop"
                                                                         : c->redis->reason);
    return false;
}

bool comparison_equal(const struct comparison *c)
{
    return c->only_table + c->only_redis + c->different + c->damaged == 0;
}
