#include "index.h"

struct slot index_damaged;

/* Each thread may link one hint of a player to a slot at once, beside one that the dead left. */
enum { EQUALS_MAX = 2 * THREADS };

/* ---------------------------------------------------------------- walking ------------------- */

/* Ends the walk: there is no node, and no conclusion. */
static bool damage(struct walk *w)
{
    w->node = NULL;
    return w->damaged = true;
}

/* The list goes on with HASH: never back, and among equals not for ever. */
static bool rises(struct walk *w, uint64_t hash)
{
    if (hash == w->passed)
        return ++w->equals < EQUALS_MAX;
    bool up = hash_before(w->passed, hash);
    w->passed = hash;
    w->equals = 0;
    return up;
}

/* LINK pointed at something else: a claimed head keeps its owner where others keep the tag. */
static uint64_t retarget(uint64_t link, uint32_t ref, uint32_t tag, uint64_t head)
{
    return link & LINK_CLAIMED ? LINK_WORD(ref, LINK_TAG(link), LINK_CLAIMED | head)
                               : LINK_WORD(ref, tag, head);
}

/* The node at REF; NULL: no node can stand there. */
static struct node *node_at(struct context *c, enum index_kind kind, uint32_t ref)
{
    bool place = kind == INDEX_HANDLES ? slot_ref_valid(c->shm, (slot_ref){ ref })
                                       : hint_ref_valid(c->shm, (hint_ref){ ref });
    return place ? index_node(c->shm, kind, ref) : NULL;
}

/* Only an ended session is ever unlinked. */
static bool may_be_unlinked(enum index_kind kind, struct node *n)
{
    return kind != INDEX_HANDLES || !CURRENT_BLOCK(load_acquire(&((struct slot *)n)->current)).at;
}

/* A marked slot was unlinked: the one who moves it to RETIRED frees it.  (A hint's remover has
 * done so beforehand.) */
static void unlinked(struct context *c, enum index_kind kind, struct node *n, uint32_t ref)
{
    uint64_t life = load_acquire(&n->life);
    if (kind == INDEX_HANDLES && OWN_STATE(life) == OWN_LIVE)
        heap_retire(c, RETIRED_SLOT, ref, &n->life, life);
}

/* Follows a link to a head: true to go on behind it, false when the place wished for is before it (or
 * the list is damaged). */
static bool pass_head(struct context *c, enum index_kind kind, struct walk *w, uint32_t bucket)
{
    w->at_head = w->to_head && bucket == w->hash;
    bool behind = bucket == w->hash ? !w->at_head : hash_before(bucket, w->hash);
    if (!behind)
        return false;
    if (bucket >= index_room(c->shm, kind) || !rises(w, bucket))
        return !damage(w);
    w->from = &index_buckets(c->shm, kind)[bucket];
    w->word = load_acquire(w->from);
    return true;
}

/* Is the node before the place wished for?  Its key is read only if the link's tag can't tell. */
static bool is_before(struct context *c, enum index_kind kind, const struct walk *w,
                      const struct node *n)
{
    uint32_t tag = LINK_TAG(w->word), mine = HASH_TAG(w->hash);
    if (!(w->word & LINK_CLAIMED) && tag != mine)
        return hash_before(tag, mine);
    uint64_t hash = index_hash(c->shm, kind, n->key);
    if (hash != w->hash)
        return hash_before(hash, w->hash);
    return w->past ? n->key <= w->key : n->key < w->key;
}

/* By the tag alone: the link leads behind the place wished for. */
static bool leads_behind(const struct walk *w)
{
    uint32_t tag = LINK_TAG(w->word), mine = HASH_TAG(w->hash);
    return !(w->word & LINK_CLAIMED) && tag != mine && !hash_before(tag, mine);
}

/* Makes the target of w->word safe to read (E4, E5).  False: disturbed, or damaged. */
static bool protect(struct context *c, struct walk *w, struct node *n)
{
    uint64_t birth;
    while (unlikely((birth = load_acquire(&n->birth)) > c->hi)) {
        rcu_extend(c);
        if (birth > c->hi) /* the era was read after it: a true birth is never beyond (E1) */
            return !damage(w);
        if ((w->word & LINK_MARK) || load_acquire(w->from) != w->word)
            return false;
    }
    return true;
}

/* The link's tag is that of HASH. */
static bool leads_to(const struct walk *w, uint64_t hash)
{
    return (w->word & LINK_CLAIMED) || LINK_TAG(w->word) == HASH_TAG(hash);
}

/* Does a list in order lead to N by w->word? */
static bool in_place(struct context *c, enum index_kind kind, struct walk *w, const struct node *n)
{
    uint64_t hash = index_hash(c->shm, kind, n->key);
    return leads_to(w, hash) && rises(w, hash);
}

bool index_advance(struct context *c, enum index_kind kind, struct walk *w)
{
    w->node = NULL;
    w->at_head = false;
    for (;;) {
        uint32_t ref = LINK_REF(w->word);
        if (w->word & LINK_HEAD) {
            if (!leads_to(w, ref))
                return damage(w);
            if (ref == 0 || !pass_head(c, kind, w, ref))
                return true;
            continue;
        }
        if (leads_behind(w) && !w->unlink)
            return true;
        struct node *n = node_at(c, kind, ref);
        if (unlikely(!n))
            return damage(w);
        if (!protect(c, w, n))
            return w->damaged;
        if (!in_place(c, kind, w, n))
            return damage(w);
        uint64_t next = load_acquire(&n->next);
        if (w->unlink && (next & LINK_MARK)) {
            if (!may_be_unlinked(kind, n))
                return damage(w);
            uint64_t past = retarget(w->word, LINK_REF(next), LINK_TAG(next), next & LINK_HEAD);
            if (!cas(w->from, &w->word, past)) /* COMMIT: unlinked */
                return false;
            w->word = past;
            unlinked(c, kind, n, ref);
            continue;
        }
        if (!is_before(c, kind, w, n)) {
            w->node = n;
            w->ref = ref;
            return true;
        }
        w->from = &n->next;
        w->word = next;
    }
}

static void walk_to(struct context *c, enum index_kind kind, struct walk *w)
{
    do
        index_start_walk(c, kind, w);
    while (!index_advance(c, kind, w));
}

/* ---------------------------------------------------------------- bucket heads -------------- */

/* The tag for a link to where W's leads. */
static uint32_t target_tag(struct context *c, enum index_kind kind, const struct walk *w)
{
    if (w->node)
        return HASH_TAG(index_hash(c->shm, kind, w->node->key));
    return w->word & LINK_HEAD ? HASH_TAG(LINK_REF(w->word)) : LINK_TAG(w->word);
}

/* CLAIMED and linked -> linked.  Others may change the head's target meanwhile. */
static void finish_head(struct context *c, enum index_kind kind, uint32_t bucket)
{
    atomic_u64 *head = &index_buckets(c->shm, kind)[bucket];
    struct walk w = { .hash = bucket };
    do {
        do {
            w.from = head;
            w.word = load_acquire(head);
            if (!(w.word & LINK_CLAIMED) || w.damaged)
                return;
            w.node = (w.word & LINK_HEAD) ? NULL : node_at(c, kind, LINK_REF(w.word));
        } while (w.node && !protect(c, &w, w.node));
    } while (!cas_exact(head, w.word,
                        LINK_WORD(LINK_REF(w.word), target_tag(c, kind, &w), w.word & LINK_HEAD)));
}

static void init_head(struct context *c, enum index_kind kind, uint32_t bucket)
{
    atomic_u64 *head = &index_buckets(c->shm, kind)[bucket];
    uint64_t claim = LINK_WORD(0, c->worker, LINK_CLAIMED | LINK_HEAD);
    if (!cas_exact(head, 0, claim)) /* somebody else is at it, or was */
        return;
    struct walk w = { .hash = bucket, .unlink = true, .to_head = true };
    do {
        walk_to(c, kind, &w);
        if (w.damaged) {
            cas_exact(head, claim, 0);
            return;
        }
        uint64_t next = LINK_WORD(LINK_REF(w.word), c->worker, LINK_CLAIMED | (w.word & LINK_HEAD));
        if (w.at_head || !cas_exact(head, claim, next))
            return;
        claim = next;
    } while (!cas_exact(w.from, w.word, /* COMMIT: the head is linked */
                        retarget(w.word, bucket, HASH_TAG(bucket), LINK_HEAD)));
    finish_head(c, kind, bucket);
}

static void recover_head(struct context *c, enum index_kind kind, uint32_t bucket)
{
    atomic_u64 *head = &index_buckets(c->shm, kind)[bucket];
    uint64_t word = load_acquire(head);
    if (!(word & LINK_CLAIMED) || !worker_gone(c->shm, LINK_TAG(word)))
        return;
    struct walk w = { .hash = bucket, .to_head = true };
    walk_to(c, kind, &w);
    if (w.at_head)
        finish_head(c, kind, bucket);
    else if (!w.damaged)
        cas_exact(head, word, 0);
}

void index_recover_heads(struct context *c, enum index_kind kind, uint64_t from, uint64_t to)
{
    for (; from < to; from++)
        recover_head(c, kind, (uint32_t)from);
}

/* Links the head of a hash's bucket, and first those above it: so each is a short walk away. */
static void want_head(struct context *c, enum index_kind kind, uint64_t hash)
{
    atomic_u64 *heads = index_buckets(c->shm, kind);
    uint64_t size = index_size(c->shm, kind), bucket = hash & (size - 1);
    if (likely(load_relaxed(&heads[bucket]) != 0))
        return;
    for (uint64_t n = 2; n <= size; n *= 2)
        if (load_relaxed(&heads[bucket & (n - 1)]) == 0)
            init_head(c, kind, (uint32_t)(bucket & (n - 1)));
}

/* ---------------------------------------------------------------- operations ---------------- */

static struct slot *lookup_slowly(struct context *c, uint64_t handle, uint64_t hash)
{
    want_head(c, INDEX_HANDLES, hash);
    struct walk w = { .hash = hash, .key = handle };
    walk_to(c, INDEX_HANDLES, &w);
    if (w.damaged)
        return INDEX_DAMAGED;
    return w.node && w.node->key == handle ? (struct slot *)w.node : NULL;
}

/* The chain ends here: WORD leads to the head of a bucket that lies behind. */
static bool ends(uint64_t hash, uint64_t word)
{
    return (word & (LINK_CLAIMED | LINK_HEAD)) == LINK_HEAD &&
           (LINK_REF(word) == 0 ? word == LINK_END : hash_before(hash, LINK_REF(word)));
}

enum { SHORT = 64 };

/*
 * Along the usual chain, a few nodes with tags that tell; whatever is unusual is index_advance()'s, which
 * a chain of SHORT nodes is.  (A marked node may be passed: what lies behind it was linked while the
 * section ran, and a birth within hi holds it.)
 */
struct slot *index_lookup_further(struct context *c, uint64_t handle)
{
    struct shm *shm = c->shm;
    uint64_t hash = hash_of_handle(shm, handle);
    uint32_t mine = HASH_TAG(hash);
    uint64_t word = load_acquire(&shm->handles[hash & index_mask(shm, INDEX_HANDLES)]);
    for (unsigned left = SHORT; left && word && !(word & (LINK_CLAIMED | LINK_HEAD)); left--) {
        uint32_t tag = LINK_TAG(word);
        struct slot *s;
        if (tag != mine && !hash_before(tag, mine))
            return NULL;
        if (unlikely(!slot_known(shm, (slot_ref){ LINK_REF(word) }, &s) ||
                     load_acquire(&s->node.birth) > c->hi))
            break;
        if (tag == mine) {
            if (likely(load_relaxed(&s->node.key) == handle))
                return s;
            break; /* its tag's namesake, or damaged */
        }
        word = load_acquire(&s->node.next);
    }
    return likely(ends(hash, word)) ? NULL : lookup_slowly(c, handle, hash);
}

bool index_insert(struct context *c, enum index_kind kind, uint32_t ref, bool duplicates,
                  struct node **twin)
{
    struct node *n = index_node(c->shm, kind, ref);
    struct walk w = { .hash = index_hash(c->shm, kind, n->key), .key = n->key, .unlink = true };
    want_head(c, kind, w.hash);
    do {
        walk_to(c, kind, &w);
        if (w.damaged || (!duplicates && w.node && w.node->key == n->key)) {
            *twin = w.node;
            return false;
        }
        store_release(&n->next, LINK_WORD(LINK_REF(w.word), target_tag(c, kind, &w),
                                          w.word & LINK_HEAD));
    } while (!cas_exact(w.from, w.word, retarget(w.word, ref, HASH_TAG(w.hash), 0))); /* COMMIT */
    return true;
}

void index_remove(struct context *c, enum index_kind kind, uint32_t ref, bool mine)
{
    struct node *n = index_node(c->shm, kind, ref);
    struct walk w = { .hash = index_hash(c->shm, kind, n->key), .key = n->key, .past = true,
                      .unlink = true };
    if (!mine)
        own_publish(&n->life);
    atomic_fetch_or(&n->next, LINK_MARK); /* COMMIT: deleted */
    walk_to(c, kind, &w);                 /* now it is unlinked, by us or by another */
    if (w.damaged)
        return;
    if (mine)
        rcu_retire(c, kind == INDEX_HANDLES ? RETIRED_SLOT : RETIRED_HINT, ref);
    else
        unlinked(c, kind, n, ref);
}

bool index_reaches(struct context *c, enum index_kind kind, uint32_t ref)
{
    struct node *n = index_node(c->shm, kind, ref);
    struct walk w = { .hash = index_hash(c->shm, kind, n->key), .key = n->key };
    for (;;) {
        walk_to(c, kind, &w);
        while (w.node && w.node->key == n->key) {
            if (w.ref == ref)
                return true;
            index_step(&w);
            if (!index_advance(c, kind, &w))
                goto disturbed;
        }
        return w.damaged;
    disturbed:;
    }
}
