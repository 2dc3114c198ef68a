/*
 * Opening, creating and leaving tables; everything that may stand in the way under a table's name,
 * each with its own error, a sentence that explains it, and nothing changed.
 */
#include "tests/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "shm/layout.h"

enum { NOBODY = 65534 };

static const sesstab_options create = { .create = true, .mode = SESSTAB_MEMORY };

/* Opening NAME gives ERROR, with a detail that names the object, if the error is about one. */
static void refuse_at(int line, const char *name, const sesstab_options *options, int error)
{
    sesstab *table = NULL;
    int result = sesstab_open(name, options, &table);
    if (result != error)
        test_fail(__FILE__, line, "opening %s: \"%s\" (%s), expected \"%s\"", name,
                  sesstab_strerror(result), result ? sesstab_error_detail() : "",
                  sesstab_strerror(error));
    bool about_process = error == SESSTAB_LIMIT || error == SESSTAB_NOMEMORY;
    if (strlen(sesstab_error_detail()) < 20
        || (!about_process && !strstr(sesstab_error_detail(), name)))
        test_fail(__FILE__, line, "opening %s explains only \"%s\"", name, sesstab_error_detail());
}
#define refuse(name, options, error) refuse_at(__LINE__, (name), (options), (error))

/* ---------------------------------------------------------------- names and options ----- */

static void bad_names_are_invalid(void **state)
{
    static const char *const bad[] = {
        "", "/", "no-slash", "/two/parts", "//double", "/with space", "/tab\t", "/new\nline",
        "/umlaut\xc3\xa4", "/.", "/..", "/star*", "/back\\slash", "/percent%s",
    };
    char longest[SESSTAB_NAME_MAX + 2];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sesstab *table = NULL;
        if (sesstab_open(bad[i], &create, &table) != SESSTAB_INVALID)
            test_fail(__FILE__, __LINE__, "\"%s\" was not refused as a name", bad[i]);
        check(strlen(sesstab_error_detail()) >= 20);
        check_result(sesstab_unlink(bad[i]), SESSTAB_INVALID);
    }
    sesstab *table = NULL;
    check_result(sesstab_open(NULL, &create, &table), SESSTAB_INVALID);
    snprintf(longest, sizeof longest, "%s-%0*d", new_name(), SESSTAB_NAME_MAX, 0);
    check_equal(strlen(longest), SESSTAB_NAME_MAX + 1);
    check_result(sesstab_open(longest, &create, &table), SESSTAB_INVALID);
    longest[SESSTAB_NAME_MAX] = 0;
    insert_plain(open_table(longest, &create), 1);
}

static void bad_options_are_invalid_and_create_nothing(void **state)
{
    static const sesstab_options bad[] = {
        { .create = true, .ring_entries = 1 },     { .create = true, .ring_entries = 3 },
        { .create = true, .ring_entries = 6 },     { .create = true, .ring_entries = 1024 },
        { .create = true, .mode = 7 },             { .create = true, .max_bytes = 4096 },
        { .create = true, .permissions = 010000 }, { .create = true, .max_bytes = UINT64_MAX },
        { .create = true, .first_version = 1ULL << 48 },
    };
    const char *name = new_name();
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sesstab *table = NULL;
        if (sesstab_open(name, &bad[i], &table) != SESSTAB_INVALID)
            test_fail(__FILE__, __LINE__, "bad options no. %zu were not refused", i);
        check(access(object_path(name), F_OK) != 0);
    }
}

static void a_table_keeps_its_mode_whoever_opens_it(void **state)
{
    (void)state;
    for (int mode = 0; mode < SESSTAB_MODE_COUNT; mode++) {
        const char *name = new_name();
        sesstab *table = open_table(name, &(sesstab_options){ .create = true,
                                                              .mode = (sesstab_mode)mode });
        check_equal(sesstab_table_mode(table), mode);
        sesstab *other = open_table(name, &(sesstab_options){ .create = true });
        check_equal(sesstab_table_mode(other), mode);
        close_table(other);
        close_table(table);
    }
}

static void every_result_has_a_text(void **state)
{
    (void)state;
    for (int i = 0; i < SESSTAB_ERROR_COUNT; i++)
        for (int j = 0; j < i; j++)
            check(strcmp(sesstab_strerror(i), sesstab_strerror(j)) != 0);
    check_string(sesstab_strerror(-1), "unknown result");
    check_string(sesstab_strerror(SESSTAB_ERROR_COUNT), "unknown result");
    check_string(sesstab_state_name(SESSTAB_LOGGED_IN), "logged-in");
    check_string(sesstab_state_name(SESSTAB_STATE_COUNT), "?");
    check_string(sesstab_state_name(-1), "?");
}

static void a_table_that_is_not_there_is_not_found_and_not_made(void **state)
{
    const char *name = new_name();
    (void)state;
    refuse(name, NULL, SESSTAB_NOTFOUND);
    refuse(name, &(sesstab_options){ .create = false }, SESSTAB_NOTFOUND);
    check(access(object_path(name), F_OK) != 0);
    check_result(sesstab_unlink(name), SESSTAB_NOTFOUND);
    check(strstr(sesstab_error_detail(), name));
}

static struct stat status_of(const char *name)
{
    struct stat status;
    check(lstat(object_path(name), &status) == 0);
    return status;
}

static void a_new_table_has_the_permissions_that_were_asked_for(void **state)
{
    mode_t mask = umask(077);
    const char *usual = new_name(), *group = new_name();
    (void)state;
    open_table(usual, &create);
    open_table(group, &(sesstab_options){ .create = true, .permissions = 0660, .group = getgid() });
    umask(mask);
    check_equal(status_of(usual).st_mode & 07777, 0600);
    check_equal(status_of(group).st_mode & 07777, 0660);
    check_equal(status_of(group).st_gid, getgid());
}

static void a_new_table_belongs_to_the_group_that_was_asked_for(void **state)
{
    const char *name = new_name();
    (void)state;
    need_root("give a table to another group");
    open_table(name, &(sesstab_options){ .create = true, .permissions = 0660, .group = NOBODY });
    check_equal(status_of(name).st_gid, NOBODY);
}

/* ---------------------------------------------------------------- many at once ---------- */

enum { CREATORS = 8, CREATIONS = 30 };

struct creation {
    _Atomic unsigned made, counted;
    const char *name;
};

static void create_and_count(void *context)
{
    struct creation *creation = context;
    const sesstab_options options = create;
    meet(&creation->made, CREATORS);
    sesstab *table = open_table(creation->name, &options);
    insert_plain(table, child_index + 1);
    meet(&creation->counted, CREATORS);
    check_equal(count_sessions(table), CREATORS);
}

static void processes_that_create_at_once_share_one_table(void **state)
{
    struct creation *creation = shared_memory(sizeof *creation);
    (void)state;
    for (int i = 0; i < rounds(CREATIONS); i++) {
        creation->name = new_name();
        run_children(CREATORS, create_and_count, creation);
        check_table(creation->name);
        check_ok(sesstab_unlink(creation->name));
    }
}

static void create_whatever_happens(void *context)
{
    struct creation *creation = context;
    for (int i = 0; i < rounds(400); i++) {
        sesstab *table;
        int result = sesstab_open(creation->name, &create, &table);
        check_either(result, SESSTAB_OK, SESSTAB_STALE);
        if (result != SESSTAB_OK)
            continue;
        uint64_t handle = 0;
        result = sesstab_insert(table, &handle, NULL);
        check_either(result, SESSTAB_OK, SESSTAB_STALE);
        sesstab_close(table);
        result = sesstab_unlink(creation->name);
        check_either(result, SESSTAB_OK, SESSTAB_NOTFOUND);
    }
}

static void creating_and_unlinking_at_once_never_shows_half_a_table(void **state)
{
    struct creation *creation = shared_memory(sizeof *creation);
    (void)state;
    creation->name = new_name();
    run_children(4, create_whatever_happens, creation);
}

/* ---------------------------------------------------------------- hostile objects ------- */

static uint64_t content_sum(const char *path)
{
    uint64_t sum = 1;
    unsigned char bytes[4096];
    ssize_t got;
    int descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    while (descriptor >= 0 && (got = read(descriptor, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < got; i++)
            sum = sum * 31 + bytes[i];
    if (descriptor >= 0)
        close(descriptor);
    return sum;
}

/* Neither opening nor creating accepts what stands under NAME, or changes it. */
static void refuse_untouched_at(int line, const char *name, int error)
{
    struct stat before = status_of(name), after;
    bool regular = S_ISREG(before.st_mode) && before.st_size < CHUNK_BYTES;
    uint64_t sum = regular ? content_sum(object_path(name)) : 0;
    refuse_at(line, name, NULL, error);
    refuse_at(line, name, &create, error);
    after = status_of(name);
    if (before.st_ino != after.st_ino || before.st_mode != after.st_mode
        || before.st_size != after.st_size || before.st_blocks != after.st_blocks
        || before.st_uid != after.st_uid || before.st_nlink != after.st_nlink
        || (regular && sum != content_sum(object_path(name))))
        test_fail(__FILE__, line, "%s was changed", name);
}
#define refuse_untouched(name, error) refuse_untouched_at(__LINE__, (name), (error))

/* A table that nobody has open any more. */
static const char *left_table(void)
{
    const char *name = new_name();
    sesstab *table = open_table(name, &create);
    insert_plain(table, 1);
    close_table(table);
    return name;
}

static void a_symbolic_link_is_not_followed(void **state)
{
    const char *to_table = new_name(), *dangling = new_name();
    char target[64];
    (void)state;
    snprintf(target, sizeof target, "/dev/shm%s", left_table());
    check(symlink(target, object_path(to_table)) == 0);
    refuse_untouched(to_table, SESSTAB_PERMISSION);
    snprintf(target, sizeof target, "%s/target", scratch_directory());
    check(symlink(target, object_path(dangling)) == 0);
    refuse_untouched(dangling, SESSTAB_PERMISSION);
    check(access(target, F_OK) != 0);
}

static void directories_pipes_sockets_and_devices_are_not_trusted(void **state)
{
    const char *directory = new_name(), *pipe = new_name(), *socket = new_name(),
               *device = new_name();
    (void)state;
    check(mkdir(object_path(directory), 0700) == 0);
    refuse_untouched(directory, SESSTAB_PERMISSION);
    check(mkfifo(object_path(pipe), 0600) == 0);
    refuse_untouched(pipe, SESSTAB_PERMISSION);
    check(mknod(object_path(socket), S_IFSOCK | 0600, 0) == 0);
    refuse_untouched(socket, SESSTAB_PERMISSION);
    if (mknod(object_path(device), S_IFCHR | 0600, makedev(1, 5)) == 0)
        refuse_untouched(device, SESSTAB_PERMISSION);
}

static void a_table_with_a_second_name_is_not_trusted(void **state)
{
    const char *name = left_table(), *second = new_name();
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "%s", object_path(name));
    check(link(path, object_path(second)) == 0);
    refuse_untouched(name, SESSTAB_PERMISSION);
    check(unlink(object_path(second)) == 0);
    check_equal(count_sessions(open_table(name, NULL)), 1);
}

static void a_table_that_others_may_write_is_not_trusted(void **state)
{
    static const mode_t modes[] = { 0666, 0620, 0602, 0640, 0604, 0700 };
    const char *name = left_table();
    (void)state;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        check(chmod(object_path(name), modes[i]) == 0);
        refuse_untouched(name, SESSTAB_PERMISSION);
    }
    check(chmod(object_path(name), 0660) == 0);
    refuse(name, &(sesstab_options){ .permissions = 0640 }, SESSTAB_PERMISSION);
    check_equal(count_sessions(open_table(name, &(sesstab_options){ .permissions = 0660 })), 1);
}

static void a_stranger_s_table_is_not_trusted_unless_asked_for(void **state)
{
    const char *name = left_table();
    (void)state;
    need_root("give a table to another user");
    check(chown(object_path(name), NOBODY, NOBODY) == 0);
    refuse_untouched(name, SESSTAB_PERMISSION);
    refuse(name, &(sesstab_options){ .owner = 1 }, SESSTAB_PERMISSION);
    check_equal(count_sessions(open_table(name, &(sesstab_options){ .owner = NOBODY })), 1);
}

static void a_stranger_s_table_that_all_may_write_is_not_trusted_whatever_is_asked_for(void **state)
{
    const char *name = left_table();
    (void)state;
    need_root("give a table to another user");
    check(chown(object_path(name), NOBODY, NOBODY) == 0 && chmod(object_path(name), 0666) == 0);
    refuse_untouched(name, SESSTAB_PERMISSION);
    refuse(name, &(sesstab_options){ .owner = NOBODY }, SESSTAB_PERMISSION);
    refuse(name, &(sesstab_options){ .permissions = 0666 }, SESSTAB_PERMISSION);
    check_equal(status_of(name).st_mode & 07777, 0666);
}

static void open_as_nobody(void *context)
{
    check(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
    refuse(context, NULL, SESSTAB_PERMISSION);
    refuse(context, &create, SESSTAB_PERMISSION);
    check_result(sesstab_unlink(context), SESSTAB_PERMISSION);
}

static void a_table_of_root_is_closed_to_others(void **state)
{
    const char *name = left_table();
    (void)state;
    need_root("become another user");
    run_child(open_as_nobody, (void *)name);
    check_equal(count_sessions(open_table(name, NULL)), 1);
}

static void write_object(const char *name, const void *bytes, size_t length)
{
    int descriptor = open(object_path(name), O_WRONLY | O_CREAT | O_EXCL, 0600);
    check(descriptor >= 0 && write(descriptor, bytes, length) == (ssize_t)length);
    close(descriptor);
}

static void a_file_that_is_no_table_is_told_so(void **state)
{
    static unsigned char garbage[3 * CHUNK_BYTES];
    static const size_t sizes[] = { 0, 1, 7, 8, 4095, 4096, 65536, sizeof garbage };
    (void)state;
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (unsigned char)random_number();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *name = new_name();
        write_object(name, garbage, sizes[i]);
        refuse_untouched(name, SESSTAB_NOTATABLE);
    }
}

static void a_table_cut_short_is_told_so(void **state)
{
    static const off_t sizes[] = { 0, 100, sizeof(struct header), PAGE_BYTES, 10 * PAGE_BYTES,
                                   CHUNK_BYTES };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *name = left_table();
        check(truncate(object_path(name), sizes[i]) == 0);
        refuse_untouched(name, SESSTAB_NOTATABLE);
    }
    const char *name = left_table();
    check(truncate(object_path(name), status_of(name).st_size - 1) == 0);
    refuse_untouched(name, SESSTAB_NOTATABLE);
}

static void a_table_with_something_behind_it_is_told_so(void **state)
{
    const char *name = left_table();
    off_t size = status_of(name).st_size;
    (void)state;
    check(truncate(object_path(name), size + 1) == 0);
    refuse_untouched(name, SESSTAB_NOTATABLE);
    check(truncate(object_path(name), size + CHUNK_BYTES) == 0);
    refuse_untouched(name, SESSTAB_NOTATABLE);
    check(truncate(object_path(name), size) == 0);
    check_equal(count_sessions(open_table(name, NULL)), 1);
}

static void punch(const char *name, off_t from, off_t length)
{
    int descriptor = open(object_path(name), O_RDWR);
    check(descriptor >= 0);
    check(fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, length) == 0);
    close(descriptor);
}

/* As large as a table, and nothing in it. */
static void a_table_that_is_one_hole_is_told_so(void **state)
{
    const char *name = left_table(), *headless = left_table();
    (void)state;
    punch(name, 0, status_of(name).st_size);
    check_equal(status_of(name).st_blocks, 0);
    refuse_untouched(name, SESSTAB_NOTATABLE);
    punch(headless, 0, PAGE_BYTES);
    refuse_untouched(headless, SESSTAB_NOTATABLE);
}

/* Headers with one field changed. */
#define FIELD(field) offsetof(struct header, field), sizeof((struct header *)0)->field
static const struct damage {
    const char *what;
    size_t offset, size;
    uint64_t value;
    int error;
} damages[] = {
    { "magic", FIELD(magic), 1, SESSTAB_NOTATABLE },
    { "magic", FIELD(magic), 0, SESSTAB_NOTATABLE },
    { "layout version", FIELD(layout_version), LAYOUT_VERSION + 1, SESSTAB_WRONGVERSION },
    { "layout version", FIELD(layout_version), 0, SESSTAB_WRONGVERSION },
    { "fingerprint", FIELD(fingerprint), 1, SESSTAB_WRONGVERSION },
    { "header bytes", FIELD(header_bytes), 8, SESSTAB_WRONGVERSION },
    { "chunks", FIELD(max_chunks), 0, SESSTAB_NOTATABLE },
    { "chunks", FIELD(max_chunks), UINT32_MAX, SESSTAB_NOTATABLE },
    { "chunks", FIELD(max_chunks), CHUNKS_MAX - 1, SESSTAB_NOTATABLE },
    { "ring", FIELD(ring_entries), 0, SESSTAB_NOTATABLE },
    { "ring", FIELD(ring_entries), 7, SESSTAB_NOTATABLE },
    { "ring", FIELD(ring_entries), 1 << 20, SESSTAB_NOTATABLE },
    { "committed", FIELD(committed), UINT64_MAX, SESSTAB_NOTATABLE },
};

static void patch(const char *name, const struct damage *damage)
{
    int descriptor = open(object_path(name), O_WRONLY);
    check(descriptor >= 0);
    check(pwrite(descriptor, &damage->value, damage->size, (off_t)damage->offset)
          == (ssize_t)damage->size);
    close(descriptor);
}

static void a_header_with_a_wrong_field_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const char *name = left_table();
        patch(name, &damages[i]);
        refuse_untouched(name, damages[i].error);
    }
}

/* ---------------------------------------------------------------- no room --------------- */

/* In a child: puts a small tmpfs over its own /dev/shm. */
static void small_shared_memory(const char *size)
{
    char options[32];
    snprintf(options, sizeof options, "size=%s", size);
    check(unshare(CLONE_NEWNS) == 0);
    check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    check(mount("sesstab", "/dev/shm", "tmpfs", 0, options) == 0);
}

static unsigned objects_in_shared_memory(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/dev/shm");
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static void create_without_room(void *context)
{
    small_shared_memory("16k");
    refuse(context, &create, SESSTAB_NOSPACE);
    check_equal(objects_in_shared_memory(), 0);
}

static void creating_on_a_full_shared_memory_says_so(void **state)
{
    (void)state;
    need_root("mount a small /dev/shm");
    run_child(create_without_room, (void *)new_name());
}

/* Inserts until there is no more room; how many fitted. */
static uint64_t fill(sesstab *table, int expected)
{
    static const char padding[2000];
    const sesstab_pair pair = { "padding", padding, sizeof padding };
    const sesstab_info info = { .address = "192.0.2.1", .metadata = &pair, .metadata_count = 1 };
    for (uint64_t handle = 1;; handle++) {
        int result = sesstab_insert(table, &handle, &info);
        if (result == SESSTAB_OK)
            continue;
        check_result(result, expected);
        check_result(sesstab_touch(table, handle, 0), SESSTAB_NOTFOUND);
        return handle - 1;
    }
}

/* A table without room answers, reads, touches and removes, and has room again after that. */
static void live_on_without_room(sesstab *table, uint64_t count, int error)
{
    static const char bigger[30000];
    uint64_t now = sesstab_now() + 1000;
    check_equal(count_sessions(table), count);
    for (uint64_t handle = 1; handle <= count; handle++)
        check_ok(sesstab_touch(table, handle, now));
    check_equal(look(table, count).last_seen, now);
    uint64_t version = look(table, 1).version;
    check_result(sesstab_set(table, 1, "more", bigger, sizeof bigger), error);
    check_equal(look(table, 1).version, version);
    for (uint64_t handle = 1; handle <= count; handle++)
        check_ok(sesstab_remove(table, handle));
    check_equal(count_sessions(table), 0);
    check(fill(table, error) >= count / 2);
}

static void fill_small_memory(void *context)
{
    small_shared_memory("24m");
    sesstab *table = open_table(context, &create);
    uint64_t count = fill(table, SESSTAB_NOSPACE);
    check(count > 100);
    live_on_without_room(table, count, SESSTAB_NOSPACE);
}

static void a_shared_memory_that_fills_up_is_an_error_and_not_a_signal(void **state)
{
    (void)state;
    need_root("mount a small /dev/shm");
    run_child(fill_small_memory, (void *)new_name());
}

static void a_table_at_its_own_limit_lives_on(void **state)
{
    const char *name = new_name();
    sesstab *table = open_table(name, &(sesstab_options){ .create = true, .mode = SESSTAB_MEMORY,
                                                          .max_bytes = 64 << 20 });
    (void)state;
    uint64_t count = fill(table, SESSTAB_NOMEMORY);
    check(count > 100);
    live_on_without_room(table, count, SESSTAB_NOMEMORY);
    check_table(name);
}

static void open_with_little_address_space(void *context)
{
    struct rlimit limit = { 1 << 30, 1 << 30 };
    check(setrlimit(RLIMIT_AS, &limit) == 0);
    refuse(context, &create, SESSTAB_NOMEMORY);
    check(access(object_path(context), F_OK) != 0);
}

static void too_little_address_space_is_told_so(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* a sanitizer needs terabytes of it for itself */
    run_child(open_with_little_address_space, (void *)new_name());
}

/* ---------------------------------------------------------------- leaving --------------- */

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* Mappings of the object NAME in this process. */
static unsigned mappings_of(const char *name)
{
    char line[512];
    unsigned count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        count += strstr(line, name) != NULL;
    fclose(maps);
    return count;
}

/* More often than there are places for workers, so that one that is not given back is noticed. */
static void opening_and_closing_leaves_nothing_behind(void **state)
{
    const char *name = left_table();
    unsigned descriptors = open_descriptors();
    (void)state;
    for (int i = 0; i < SESSTAB_WORKERS_MAX + 76; i++) {
        sesstab *table = NULL;
        check_ok(sesstab_open(name, NULL, &table));
        check_ok(sesstab_set(table, 1, "key", "value", 5));
        sesstab_close(table);
    }
    sesstab_close(NULL);
    check_equal(open_descriptors(), descriptors);
    check_equal(mappings_of(name), 0);
    check_table(name);
}

static void failing_to_open_leaves_nothing_behind(void **state)
{
    const char *garbage = new_name(), *damaged = left_table();
    (void)state;
    patch(damaged, &damages[2]);
    write_object(garbage, "not a table", 11);
    unsigned descriptors = open_descriptors();
    for (int i = 0; i < 100; i++) {
        refuse(garbage, &create, SESSTAB_NOTATABLE);
        refuse(damaged, &create, damages[2].error);
    }
    check_equal(open_descriptors(), descriptors);
    check_equal(mappings_of(damaged) + mappings_of(garbage), 0);
}

static void one_process_opens_a_limited_number_of_tables(void **state)
{
    sesstab *opened[SESSTAB_TABLES_MAX];
    const char *name = left_table();
    (void)state;
    for (int i = 0; i < SESSTAB_TABLES_MAX; i++)
        opened[i] = open_table(name, NULL);
    refuse(name, NULL, SESSTAB_LIMIT);
    close_table(opened[3]);
    opened[3] = open_table(name, NULL);
    for (int i = 0; i < SESSTAB_TABLES_MAX; i++)
        check_ok(sesstab_touch(opened[i], 1, 0));
}

static void exec_leaves_no_descriptor(void **state)
{
    const char *name = left_table();
    char output[4096];
    (void)state;
    sesstab *table = open_table(name, NULL);
    check_ok(sesstab_touch(table, 1, 0));
    /* Unlike run_program(), which closes what it can. */
    int ends[2];
    check(pipe(ends) == 0);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        become_child(parent);
        sesstab_touch(table, 1, 0);
        dup2(ends[1], STDOUT_FILENO);
        execl("/bin/ls", "ls", "-l", "/proc/self/fd", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], output + used, sizeof output - 1 - used)) > 0;)
        used += (size_t)got;
    output[used] = 0;
    close(ends[0]);
    join_child(pid);
    check(strstr(output, "pipe:") && !strstr(output, "/dev/shm") && !strstr(output, "memfd"));
}

static void use_without_descriptors(void *context)
{
    sesstab *table = open_table(context, NULL);
    check_ok(sesstab_touch(table, 1, 0));
    check(close_range(3, ~0U, 0) == 0);
    for (uint64_t handle = 100; handle < 20000; handle++)
        insert_plain(table, handle);
    check(sesstab_owner_alive(table, sesstab_self(table)));
}

static void a_worker_that_closes_every_descriptor_stays_one(void **state)
{
    (void)state;
    run_child(use_without_descriptors, (void *)left_table());
}

/* ---------------------------------------------------------------- unlinking ------------- */

static void attach_after_unlink(void *table)
{
    check_result(sesstab_attach(table), SESSTAB_STALE);
    check(strlen(sesstab_error_detail()) >= 20);
    uint64_t handle = 9;
    check_result(sesstab_insert(table, &handle, NULL), SESSTAB_STALE);
}

static void an_unlinked_table_goes_on_for_those_who_have_it(void **state)
{
    const char *name = new_name();
    sesstab *old = open_table(name, &create);
    (void)state;
    insert_plain(old, 1);
    check_ok(sesstab_unlink(name));
    check_result(sesstab_unlink(name), SESSTAB_NOTFOUND);
    refuse(name, NULL, SESSTAB_NOTFOUND);
    run_child(attach_after_unlink, old);
    sesstab *new = open_table(name, &create);
    check_equal(count_sessions(new), 0);
    insert_plain(new, 2);
    insert_plain(old, 3);
    run_child(attach_after_unlink, old);
    check_equal(count_sessions(old), 2);
    check_equal(count_sessions(new), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bad_names_are_invalid),
        TEST(bad_options_are_invalid_and_create_nothing),
        TEST(a_table_keeps_its_mode_whoever_opens_it),
        TEST(every_result_has_a_text),
        TEST(a_table_that_is_not_there_is_not_found_and_not_made),
        TEST(a_new_table_has_the_permissions_that_were_asked_for),
        TEST(a_new_table_belongs_to_the_group_that_was_asked_for),
        TEST(processes_that_create_at_once_share_one_table),
        TEST(creating_and_unlinking_at_once_never_shows_half_a_table),
        TEST(a_symbolic_link_is_not_followed),
        TEST(directories_pipes_sockets_and_devices_are_not_trusted),
        TEST(a_table_with_a_second_name_is_not_trusted),
        TEST(a_table_that_others_may_write_is_not_trusted),
        TEST(a_stranger_s_table_is_not_trusted_unless_asked_for),
        TEST(a_stranger_s_table_that_all_may_write_is_not_trusted_whatever_is_asked_for),
        TEST(a_table_of_root_is_closed_to_others),
        TEST(a_file_that_is_no_table_is_told_so),
        TEST(a_table_cut_short_is_told_so),
        TEST(a_table_with_something_behind_it_is_told_so),
        TEST(a_table_that_is_one_hole_is_told_so),
        TEST(a_header_with_a_wrong_field_is_refused),
        TEST(creating_on_a_full_shared_memory_says_so),
        TEST(a_shared_memory_that_fills_up_is_an_error_and_not_a_signal),
        TEST(a_table_at_its_own_limit_lives_on),
        TEST(too_little_address_space_is_told_so),
        TEST(opening_and_closing_leaves_nothing_behind),
        TEST(failing_to_open_leaves_nothing_behind),
        TEST(one_process_opens_a_limited_number_of_tables),
        TEST(exec_leaves_no_descriptor),
        TEST(a_worker_that_closes_every_descriptor_stays_one),
        TEST(an_unlinked_table_goes_on_for_those_who_have_it),
    };
    return run_all(tests);
}
