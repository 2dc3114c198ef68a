/*
 * --check: every invariant of the segment, seen from outside; see shmdump_check.h.
 *
 * The walk along the two indexes comes first and remembers what is linked; then every place in the
 * heap is examined by itself.
 *
 * A live segment changes while it is examined: a finding counts only if the same examiner, looking
 * again at the same thing, finds it each of RECHECKS more times, RECHECK_MS apart.
 */
#include "tools/shmdump.h"
#include "tools/shmdump_check.h"
#include "tools/shmdump_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    RECHECKS = 5,
    RECHECK_MS = 20,
    WRONG_MAX = 100000 /* findings that are kept; the rest is counted */
};

/* ------------------------------------------------------------------ findings --------------- */

/* The text of an abandoned thing is shared, another belongs to its finding. */
static char *keep_text(struct check *c, enum verdict verdict, const char *text)
{
    if (verdict == WRONG)
        return must(strdup(text));
    for (size_t i = 0; i < sizeof c->texts / sizeof *c->texts; i++) {
        if (!c->texts[i])
            c->texts[i] = must(strdup(text));
        if (strcmp(c->texts[i], text) == 0)
            return c->texts[i];
    }
    return c->texts[0]; /* there are fewer kinds than texts */
}

static void drop_text(const struct finding *f)
{
    if (f->verdict == WRONG)
        free(f->text);
}

void find(struct check *c, struct spot spot, enum verdict verdict, const char *text)
{
    if (verdict == WRONG && c->wrong++ >= WRONG_MAX) {
        c->dropped++;
        return;
    }
    if (c->count == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 64;
        c->findings = must(reallocarray(c->findings, c->capacity, sizeof *c->findings));
    }
    c->findings[c->count++] = (struct finding){ spot, verdict, keep_text(c, verdict, text) };
}

/* Examines a spot for the first time; twice at once when it may just be changing. */
void examine_first(struct check *c, struct spot spot)
{
    char text[TEXT_BYTES] = "";
    c->examined[spot.kind]++;
    enum verdict verdict = examine(c, spot, text);
    if (verdict == FINE)
        return;
    if (c->image->moving) {
        c->first = false;
        verdict = examine(c, spot, text);
        c->first = true;
    }
    if (verdict != FINE)
        find(c, spot, verdict, text);
}

static void count_session(struct check *c)
{
    c->sessions += c->met == SESSION_LIVE || c->met == SESSION_CLAIMED;
    c->tombstones += c->met == SESSION_TOMB;
}

/* ------------------------------------------------------------------ all of it -------------- */

static void examine_place(const struct place *place, void *context)
{
    static const enum kind kinds[] = {
        [PLACE_SLOT] = SLOT, [PLACE_BLOCK] = BLOCK, [PLACE_HINT] = HINT
    };
    if (OWN_STATE(place->own) == OWN_FREE)
        return;
    examine_first(context, (struct spot){ kinds[place->kind], false, place->ref });
    if (place->kind == PLACE_SLOT)
        count_session(context);
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* Those of the COUNT elements at AREA that are not just zeros: those nobody ever used. */
static void examine_used(struct check *c, enum kind kind, uint64_t area, uint64_t count,
                         size_t size)
{
    static uint8_t some[64 * 1024];
    const size_t most = sizeof some / size;
    uint64_t at = image_skip_hole(c->image, area, size), i;
    for (; (i = (at - area) / size) < count;
         at = image_skip_hole(c->image, at + most * size, size)) {
        image_read(c->image, at, some, most * size);
        for (size_t j = 0; j < most && i + j < count; j++)
            if (!all_zero(some + j * size, size))
                examine_first(c, (struct spot){ kind, false, i + j });
    }
}

static uint64_t *place_bits(const struct image *image, size_t place_bytes)
{
    return must(calloc((uint64_t)image->chunks * CHUNK_BYTES / place_bytes / 64 + 1, 8));
}

static void first_pass(struct check *c)
{
    const struct image *image = c->image;
    c->first = true;
    c->handles.index = index_of_handles(image);
    c->players.index = index_of_players(image);
    c->handles.linked = place_bits(image, SLOT_BYTES);
    c->players.linked = place_bits(image, HINT_BYTES);
    for (uint64_t i = 0; i < HEADER_CHECKS + NOTES_MAX; i++)
        examine_first(c, (struct spot){ HEADER, false, i });
    examine_used(c, WORKER, image->at.workers, WORKERS, sizeof(struct worker));
    examine_used(c, THREAD, image->at.threads, THREADS, sizeof(struct thread));
    examine_used(c, RING, image->at.rings, THREADS, sizeof(struct ring));
    examine_used(c, TICKET, image->at.tickets, TICKETS, sizeof(struct ticket));
    examine_used(c, GROUP, image->at.groups, GROUPS, sizeof(worker_id));
    examine_used(c, CHUNK, image->at.chunks, image->header.max_chunks, sizeof(struct chunk));
    walk_index(c, &c->handles);
    walk_index(c, &c->players);
    each_place(image, examine_place, c);
}

/* Looks again at what was found, or only at what is wrong; forgets what is in order by now. */
static void recheck(struct check *c, bool all)
{
    size_t kept = 0;
    c->first = false;
    for (size_t i = 0; i < c->count; i++) {
        char text[TEXT_BYTES] = "";
        struct finding f = c->findings[i];
        if (all || f.verdict == WRONG) {
            drop_text(&f);
            f.verdict = examine(c, f.spot, text);
            f.text = f.verdict == FINE ? NULL : keep_text(c, f.verdict, text);
        }
        if (f.verdict != FINE)
            c->findings[kept++] = f;
    }
    c->count = kept;
}

/* What is abandoned matters less, and can be much: that is looked at once more, unless STRICT. */
static void recheck_moving(struct check *c, struct image *image, bool strict)
{
    char error[TEXT_BYTES];
    for (int i = 0; i < RECHECKS && c->count; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = RECHECK_MS * 1000000L }, NULL);
        if (!image_refresh(image, error, sizeof error)) {
            find(c, (struct spot){ HEADER, false, 0 }, WRONG, error);
            return;
        }
        c->handles.index = index_of_handles(image);
        c->players.index = index_of_players(image);
        recheck(c, strict || i == 0);
    }
}

/* ------------------------------------------------------------------ the report ------------- */

static const char *where(const struct spot *spot, char text[static 80])
{
    static const char *const names[KINDS] = {
        [HEADER] = "header", [HEAD] = "bucket", [RUN] = "bucket", [SLOT] = "slot",
        [BLOCK] = "block", [HINT] = "hint", [CHUNK] = "chunk", [WORKER] = "worker",
        [THREAD] = "thread", [RING] = "ring", [TICKET] = "ticket",
        [GROUP] = "group of tickets",
    };
    if (spot->kind == HEADER)
        return names[HEADER];
    if (spot->kind == RUN || spot->kind == HEAD)
        snprintf(text, 80, "index by %s, bucket %" PRIu64, spot->of_players ? "player" : "handle",
                 spot->at);
    else
        snprintf(text, 80, "%s %" PRIu64, names[spot->kind], spot->at);
    return text;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct finding *)a)->text, ((const struct finding *)b)->text);
}

/* Abandoned findings of one text are one line. */
static void report_abandoned(struct check *c, cJSON *list)
{
    if (c->count)
        qsort(c->findings, c->count, sizeof *c->findings, by_text);
    for (size_t i = 0, end; i < c->count; i = end) {
        const struct finding *f = &c->findings[i];
        for (end = i + 1; end < c->count && by_text(f, &c->findings[end]) == 0;)
            end++;
        if (f->verdict != ABANDONED)
            continue;
        if (list) {
            cJSON *o = must(cJSON_CreateObject());
            json_bytes(o, "what", f->text, strlen(f->text));
            json_number(o, "count", end - i);
            cJSON_AddItemToArray(list, o);
        } else {
            printf("abandoned: %zu x %s\n", end - i, f->text);
        }
    }
}

static size_t report_wrong(struct check *c, enum verdict least, cJSON *list)
{
    size_t wrong = 0;
    char place[80];
    for (size_t i = 0; i < c->count; i++) {
        const struct finding *f = &c->findings[i];
        if (f->verdict < least)
            continue;
        wrong++;
        if (list) {
            cJSON *o = must(cJSON_CreateObject());
            must(cJSON_AddStringToObject(o, "where", where(&f->spot, place)));
            json_bytes(o, "what", f->text, strlen(f->text));
            cJSON_AddItemToArray(list, o);
        } else {
            printf("%s: %s\n", where(&f->spot, place), f->text);
        }
    }
    return wrong + c->dropped;
}

static size_t report_text(struct check *c, bool strict)
{
    size_t wrong = report_wrong(c, strict ? ABANDONED : WRONG, NULL);
    if (c->dropped)
        printf("... and %zu more\n", c->dropped);
    if (!strict)
        report_abandoned(c, NULL);
    printf("%s: %" PRIu64 " sessions, %" PRIu64 " tombstones, %" PRIu64 " slots, %" PRIu64
           " blocks, %" PRIu64 " hints in use; %" PRIu64 " and %" PRIu64
           " linked nodes; %zu problems\n",
           wrong ? "NOT OK" : "ok", c->sessions, c->tombstones, c->examined[SLOT],
           c->examined[BLOCK], c->examined[HINT], c->handles.nodes, c->players.nodes, wrong);
    return wrong;
}

static size_t report_json(struct check *c, bool strict)
{
    cJSON *o = must(cJSON_CreateObject());
    size_t wrong = report_wrong(c, strict ? ABANDONED : WRONG,
                                must(cJSON_AddArrayToObject(o, "problems")));
    cJSON *abandoned = must(cJSON_AddArrayToObject(o, "abandoned"));
    if (!strict)
        report_abandoned(c, abandoned);
    must(cJSON_AddBoolToObject(o, "ok", wrong == 0));
    json_number(o, "problem_count", wrong);
    json_number(o, "sessions", c->sessions);
    json_number(o, "tombstones", c->tombstones);
    json_number(o, "slots_in_use", c->examined[SLOT]);
    json_number(o, "blocks_in_use", c->examined[BLOCK]);
    json_number(o, "hints_in_use", c->examined[HINT]);
    json_number(o, "linked_slots", c->handles.nodes);
    json_number(o, "linked_hints", c->players.nodes);
    json_print(o);
    putchar('\n');
    return wrong;
}

int check(struct image *image, const struct options *options)
{
    static struct check c;
    memset(&c, 0, sizeof c);
    c.image = image;
    first_pass(&c);
    if (image->moving)
        recheck_moving(&c, image, options->strict);
    size_t wrong = (options->json ? report_json : report_text)(&c, options->strict);
    for (size_t i = 0; i < c.count; i++)
        drop_text(&c.findings[i]);
    for (size_t i = 0; i < sizeof c.texts / sizeof *c.texts; i++)
        free(c.texts[i]);
    free(c.findings);
    forget_walked(&c.handles);
    forget_walked(&c.players);
    return wrong ? FOUND_WRONG : FOUND_NOTHING_WRONG;
}
