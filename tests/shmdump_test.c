/*
 * The inspector: it looks into a table that lives, into one whose processes are all dead, and into
 * a copied file; finds nothing wrong where nothing is, and finds damage that is made by hand.
 */
#include "tests/harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/layout.h"

enum { WRONG = 1, UNREADABLE = 2, USAGE = 64 };

static char output[1 << 20];

/* Runs shmdump with up to four arguments; its exit status, what it says in `output`. */
static int shmdump(const char *a, const char *b, const char *c, const char *d)
{
    return run_program((const char *[]){ program("shmdump"), a, b, c, d, NULL }, output,
                       sizeof output);
}

static unsigned lines_with(const char *text)
{
    unsigned count = 0;
    for (const char *at = output; (at = strstr(at, text)); at++)
        count++;
    return count;
}

static const char *table_to_look_at(sesstab **table)
{
    const char *name = new_name();
    *table = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY,
                                                  .max_bytes = 64 << 20 });
    for (uint64_t handle = 101; handle <= 130; handle++) {
        uint64_t number = handle;
        check_ok(sesstab_insert(*table, &number, &(sesstab_info){ .host = "look.example",
                                .connected_at = sesstab_now() - 3600000 }));
        if (handle <= 110)
            check_ok(sesstab_bind(*table, handle, handle % 2 ? "#odd" : "#even", 0));
        if (handle <= 105)
            check_ok(sesstab_touch(*table, handle, 0));
    }
    check_ok(sesstab_set(*table, 101, "width", "80", 2));
    check_ok(sesstab_set_state(*table, 130, SESSTAB_DETACHED, NULL));
    return name;
}

static void every_view_shows_a_live_table(void **state)
{
    static const char *const views[] = { "--sessions", "--workers", "--rings", "--memory",
                                         "--check" };
    sesstab *table;
    const char *name = table_to_look_at(&table);
    char pid[16];
    (void)state;
    check_equal(shmdump(name, NULL, NULL, NULL), 0);
    check_equal(shmdump(name, "--json", NULL, NULL), 0);
    check(output[0] == '{');
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        check_equal(shmdump(views[i], name, NULL, NULL), 0);
        check_equal(shmdump(views[i], name, "--json", NULL), 0);
        check(output[0] == '{');
    }
    check_equal(shmdump("--workers", name, NULL, NULL), 0);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    check(strstr(output, pid) && strstr(output, "shmdump_test"));
    check_equal(shmdump("--session", "101", name, NULL), 0);
    check(strstr(output, "#odd") && strstr(output, "look.example") && strstr(output, "width"));
    check_equal(shmdump("--session", "999", name, NULL), WRONG);
}

static void sessions_are_filtered(void **state)
{
    static const struct { const char *option, *value; unsigned expected; } filters[] = {
        { "--player", "#odd", 5 },        { "--player", "#nobody", 0 },
        { "--state", "logged-in", 10 },   { "--state", "connected", 19 },
        { "--state", "detached", 1 },     { "--state", "account", 0 },
        { "--idle", "0", 30 },            { "--idle", "3000", 25 },
        { "--sort", "handle", 30 },       { "--sort", "player", 30 },
    };
    sesstab *table;
    const char *name = table_to_look_at(&table);
    char owner[16];
    (void)state;
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        check_equal(shmdump(filters[i].option, filters[i].value, "--json", name), 0);
        check_equal(lines_with("\"handle\":"), filters[i].expected);
    }
    snprintf(owner, sizeof owner, "%u", sesstab_self(table));
    check_equal(shmdump("--owner", owner, "--json", name), 0);
    check_equal(lines_with("\"handle\":"), 30);
    check_equal(shmdump("--owner", "0", "--json", name), 0);
    check_equal(lines_with("\"handle\":"), 0);
}

static void wrong_usage_is_told_so(void **state)
{
    sesstab *table;
    const char *name = table_to_look_at(&table);
    (void)state;
    check_equal(shmdump(NULL, NULL, NULL, NULL), USAGE);
    check_equal(shmdump("--nonsense", name, NULL, NULL), USAGE);
    check_equal(shmdump("--session", "x", name, NULL), USAGE);
    check_equal(shmdump("--state", "asleep", name, NULL), USAGE);
    check_equal(shmdump("--check", "--sessions", name, NULL), USAGE);
    check_equal(shmdump(new_name(), NULL, NULL, NULL), UNREADABLE);
    check(strlen(output) > 20);
}

static void what_is_no_table_is_unreadable(void **state)
{
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "%s/garbage", scratch_directory());
    for (int length = 0; length < 100000; length = length * 10 + 1) {
        FILE *file = fopen(path, "w");
        for (int i = 0; i < length; i++)
            fputc((int)random_below(256), file);
        fclose(file);
        check_equal(shmdump("--check", path, NULL, NULL), UNREADABLE);
        check(strlen(output) > 20);
    }
    check_equal(shmdump("--check", scratch_directory(), NULL, NULL), UNREADABLE);
}

/* ---------------------------------------------------------------- the dead --------------- */

static void churn_until_killed(void *table)
{
    for (;;) {
        uint64_t handle = 1 + random_below(300);
        unsigned char value[600] = { 0 };
        if (sesstab_insert(table, &handle, &(sesstab_info){ .host = "dead.example" })
            == SESSTAB_EXISTS)
            sesstab_remove(table, handle);
        sesstab_bind(table, 1 + random_below(300), random_below(2) ? "#1" : "#2", 0);
        sesstab_set(table, 1 + random_below(300), "key", value, random_below(sizeof value));
    }
}

static void copy_object(const char *name, const char *to)
{
    unlink(to);
    const char *const argv[] = { "cp", "--sparse=always", object_path(name), to, NULL };
    check_equal(run_program(argv, output, sizeof output), 0);
}

static void create_and_churn(void *name)
{
    for (child_index = 0; child_index < 2; child_index++) {
        sesstab *table = open_table(name, &(sesstab_options){ .create = true, .ring_entries = 4,
                                                              .max_bytes = 64 << 20 });
        start_child(churn_until_killed, table);
    }
    for (;;)
        pause();
}

static void a_table_whose_processes_are_all_dead_is_all_right(void **state)
{
    char copy[64];
    (void)state;
    snprintf(copy, sizeof copy, "%s/copy", scratch_directory());
    for (int i = 0; i < rounds(24); i++) {
        const char *name = new_name();
        pid_t pid = start_child(create_and_churn, (void *)name);
        wait_until(access(object_path(name), F_OK) == 0);
        wait_until(shmdump("--sessions", name, NULL, NULL) == 0 && lines_with("dead.example") > 10);
        pause_ms((unsigned)random_below(40));
        kill_child(pid); /* and its children with it */
        wait_until(shmdump("--workers", name, NULL, NULL) == 0 && !strstr(output, "alive"));
        check_table(name);
        check_equal(shmdump("--sessions", name, NULL, NULL), 0);
        unsigned sessions = lines_with("dead.example");
        check(sessions > 0);
        copy_object(name, copy);
        check_equal(unlink(object_path(name)), 0);
        check_equal(shmdump("--check", copy, NULL, NULL), 0);
        check_equal(shmdump("--sessions", copy, NULL, NULL), 0);
        check_equal(lines_with("dead.example"), sessions);
    }
}

static void a_table_is_checked_while_others_write(void **state)
{
    const char *name = new_name();
    sesstab *table = open_table(name, &(sesstab_options){ .create = true, .ring_entries = 4 });
    (void)state;
    pid_t pids[2] = { start_child(churn_until_killed, table),
                      start_child(churn_until_killed, table) };
    wait_until(count_sessions(table) > 50);
    for (int i = 0; i < rounds(24); i++) {
        check_table(name);
        check_equal(shmdump("--sessions", name, NULL, NULL), 0);
        check_equal(shmdump(name, NULL, NULL, NULL), 0);
    }
    kill_child(pids[0]);
    kill_child(pids[1]);
    check_table(name);
}

/* ---------------------------------------------------------------- damage ----------------- */

/* Maps a copy of a healthy table for writing. */
static uint8_t *map_copy(const char *path, size_t *size)
{
    sesstab *table;
    struct stat status;
    const char *name = table_to_look_at(&table);
    copy_object(name, path);
    close_table(table);
    int descriptor = open(path, O_RDWR);
    check(descriptor >= 0 && fstat(descriptor, &status) == 0);
    *size = (size_t)status.st_size;
    uint8_t *bytes = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    check(bytes != MAP_FAILED);
    close(descriptor);
    return bytes;
}

static struct slot *find_slot(uint8_t *bytes, uint64_t handle)
{
    struct header *header = (struct header *)bytes;
    struct layout at = layout_of(header->max_chunks);
    struct chunk *chunks = (struct chunk *)(bytes + at.chunks);
    for (uint64_t page = 0; page < header->committed * CHUNK_PAGES; page++)
        for (unsigned i = 0; i < PAGE_SLOTS; i++) {
            struct slot *slot = (struct slot *)(bytes + at.heap + page * PAGE_BYTES) + i;
            if (chunks[page / CHUNK_PAGES].class == CHUNK_SESSIONS && slot->node.key == handle
                && OWN_STATE(slot->node.life) == OWN_LIVE)
                return slot;
        }
    test_fail(__FILE__, __LINE__, "no slot has handle %llu", (unsigned long long)handle);
}

static struct block *block_of(uint8_t *bytes, const struct slot *slot)
{
    struct layout at = layout_of(((struct header *)bytes)->max_chunks);
    return (struct block *)(bytes + at.heap
                            + (uint64_t)CURRENT_BLOCK(slot->current).at * BLOCK_UNIT);
}

static void wrong_handle(uint8_t *bytes) { block_of(bytes, find_slot(bytes, 101))->handle = 102; }
static void wrong_version(uint8_t *bytes) { block_of(bytes, find_slot(bytes, 101))->version += 5; }
static void wrong_size(uint8_t *bytes) { block_of(bytes, find_slot(bytes, 101))->size = 1 << 30; }
static void wrong_state(uint8_t *bytes) { block_of(bytes, find_slot(bytes, 101))->state = 99; }
static void freed_block(uint8_t *bytes) { block_of(bytes, find_slot(bytes, 101))->own = 0; }
static void freed_slot(uint8_t *bytes) { find_slot(bytes, 101)->node.life = 0; }
static void wild_link(uint8_t *bytes) { find_slot(bytes, 101)->node.next |= 0xfffffff000000000; }
static void wild_block(uint8_t *bytes) { find_slot(bytes, 101)->current |= 0xfffff00000000000; }
static void two_slots_one_block(uint8_t *bytes)
{
    find_slot(bytes, 101)->current = find_slot(bytes, 102)->current;
}
static void lost_bucket(uint8_t *bytes)
{
    struct layout at = layout_of(((struct header *)bytes)->max_chunks);
    memset(bytes + at.handles, 0, 8);
}
static void wrong_buckets(uint8_t *bytes) { ((struct header *)bytes)->handles.buckets = 12345; }

static void damage_is_found(void **state)
{
    static const struct { const char *what; void (*make)(uint8_t *bytes); } damages[] = {
        { "wrong handle", wrong_handle },   { "wrong version", wrong_version },
        { "wrong size", wrong_size },       { "wrong state", wrong_state },
        { "freed block", freed_block },     { "freed slot", freed_slot },
        { "wild link", wild_link },         { "wild block", wild_block },
        { "shared block", two_slots_one_block }, { "lost bucket", lost_bucket },
        { "wrong buckets", wrong_buckets },
    };
    char path[64];
    size_t size;
    (void)state;
    snprintf(path, sizeof path, "%s/damaged", scratch_directory());
    uint8_t *healthy = map_copy(path, &size);
    munmap(healthy, size);
    check_equal(shmdump("--check", path, NULL, NULL), 0);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        uint8_t *bytes = map_copy(path, &size);
        damages[i].make(bytes);
        munmap(bytes, size);
        int status = shmdump("--check", path, NULL, NULL);
        if (status != WRONG || strlen(output) < 20)
            test_fail(__FILE__, __LINE__, "%s: exit status %d, \"%s\"", damages[i].what, status,
                      output);
        shmdump("--sessions", path, NULL, NULL);
        check(lines_with("look.example") >= 20);
    }
    unlink(path);
}

static const char *const all_views[] = { "--json", "--sessions", "--session=101", "--workers", "--rings",
                                         "--memory", "--check" };
enum { VIEWS = sizeof all_views / sizeof *all_views };

static void every_view_is_fine(const char *name)
{
    for (int i = 0; i < VIEWS; i++)
        check_equal(shmdump(all_views[i], name, NULL, NULL), 0);
}

/* Each view of NAME, as text and as JSON, exits with CANNOT_READ, or --check with WRONG, and says WHY. */
static void every_view_says(const char *name, const char *why)
{
    for (int i = 0; i < 2 * VIEWS; i++) {
        int status = shmdump(all_views[i / 2], i % 2 ? "--json" : name, i % 2 ? name : NULL, NULL);
        int expected = i / 2 == VIEWS - 1 ? WRONG : UNREADABLE;
        if (status != expected || !strstr(output, why))
            test_fail(__FILE__, __LINE__, "%s: exit status %d, \"%.500s\"", all_views[i / 2], status,
                      output);
    }
}

static void a_truncated_table_is_an_error_in_every_view(void **state)
{
    sesstab *table;
    const char *name = table_to_look_at(&table);
    char path[64];
    (void)state;
    close_table(table);
    snprintf(path, sizeof path, "%s/cut", scratch_directory());
    copy_object(name, path);
    struct stat status;
    check(stat(path, &status) == 0);
    const struct layout at = layout_of((64 << 20) / CHUNK_BYTES);
    const off_t sizes[] = { status.st_size - 1, (off_t)at.heap + 2 * CHUNK_BYTES,
                            (off_t)at.heap + 5000, (off_t)at.heap, (off_t)at.handles + 100,
                            (off_t)at.threads, PAGE_BYTES };
    check_equal(status.st_size, at.end);
    every_view_is_fine(path);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check(truncate(path, sizes[i]) == 0);
        every_view_says(path, "truncated");
    }
    check(truncate(path, sizeof(struct header) - 1) == 0);
    check_equal(shmdump("--check", path, NULL, NULL), UNREADABLE);
    unlink(path);
}

/* Takes the memory of a live table's object away behind the inspector's back. */
static void punch(const char *name, off_t from, off_t length)
{
    int descriptor = open(object_path(name), O_RDWR);
    check(descriptor >= 0);
    check(fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, length) == 0);
    close(descriptor);
}

static void open_and_wait(void *name)
{
    sesstab *table = NULL;
    check_ok(sesstab_open(name, NULL, &table));
    for (;;)
        pause();
}

static void a_punched_table_is_an_error_in_every_view(void **state)
{
    sesstab *table;
    const char *name = table_to_look_at(&table);
    const struct layout at = layout_of((64 << 20) / CHUNK_BYTES);
    (void)state;
    close_table(table);
    pid_t pid = start_child(open_and_wait, (void *)name); /* it touches none of what goes */
    wait_until(shmdump("--workers", name, NULL, NULL) == 0 && strstr(output, "alive"));
    every_view_is_fine(name);
    punch(name, (off_t)at.heap, CHUNK_BYTES);
    every_view_says(name, "");
    check_equal(shmdump("--sessions", name, NULL, NULL), UNREADABLE);
    check(strstr(output, "pages are missing") != NULL);
    kill_child(pid);
    punch(name, 0, PAGE_BYTES);
    check_equal(shmdump("--sessions", name, NULL, NULL), UNREADABLE);
}

static void cut_and_punch(void *context)
{
    const char *path = context;
    struct stat status;
    check(stat(path, &status) == 0);
    for (;;) {
        int descriptor = open(path, O_RDWR);
        check(descriptor >= 0);
        check(ftruncate(descriptor, (off_t)random_below((uint64_t)status.st_size)) == 0);
        check(ftruncate(descriptor, status.st_size) == 0);
        check(fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE_BYTES,
                        1 << random_below(24)) == 0);
        close(descriptor);
    }
}

static void truncating_and_punching_never_kills_the_inspector(void **state)
{
    sesstab *table;
    const char *name = table_to_look_at(&table), *copy = new_name();
    char path[64];
    (void)state;
    close_table(table);
    for (int i = 0; i < rounds(12); i++) {
        snprintf(path, sizeof path, "%s", object_path(copy));
        copy_object(name, path);
        pid_t pid = start_child(cut_and_punch, path);
        for (int k = 0; k < VIEWS; k++)
            check(shmdump(all_views[k], copy, NULL, NULL) <= UNREADABLE);
        kill_child(pid);
        check(unlink(path) == 0);
    }
}

/* Whatever the bytes are, shmdump ends by itself. */
static void random_damage_never_kills_the_inspector(void **state)
{
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "%s/random", scratch_directory());
    for (int i = 0; i < rounds(40); i++) {
        size_t size;
        uint8_t *bytes = map_copy(path, &size);
        struct header *header = (struct header *)bytes;
        struct layout at = layout_of(header->max_chunks);
        uint64_t heap = header->committed * CHUNK_BYTES;
        for (int k = 0; k < 200; k++) {
            uint64_t where = random_below(4) ? at.heap + random_below(heap)
                                             : PAGE_BYTES + random_below(at.players - PAGE_BYTES);
            bytes[where] ^= (uint8_t)(1 << random_below(8));
        }
        munmap(bytes, size);
        static const char *const views[] = { "--check", "--sessions", "--memory", "--rings" };
        for (size_t v = 0; v < sizeof views / sizeof *views; v++)
            check(shmdump(views[v], path, NULL, NULL) <= UNREADABLE);
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_view_shows_a_live_table),
        TEST(sessions_are_filtered),
        TEST(wrong_usage_is_told_so),
        TEST(what_is_no_table_is_unreadable),
        TEST(a_table_whose_processes_are_all_dead_is_all_right),
        TEST(a_table_is_checked_while_others_write),
        TEST(damage_is_found),
        TEST(a_truncated_table_is_an_error_in_every_view),
        TEST(a_punched_table_is_an_error_in_every_view),
        TEST(truncating_and_punching_never_kills_the_inspector),
        TEST(random_damage_never_kills_the_inspector),
    };
    return run_all(tests);
}
