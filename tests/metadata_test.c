/*
 * Metadata: set, delete, compare-and-set, increment; and that nobody's change is lost when several
 * processes change one session.
 */
#include "tests/harness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value's version. */
static uint64_t key_version(sesstab *table, uint64_t handle, const char *key)
{
    sesstab_view view = look(table, handle);
    const void *value;
    uint64_t version = 0;
    sesstab_metadata(&view, key, &value, NULL, &version);
    return version;
}

static void check_value(sesstab *table, const char *key, const void *expected, size_t length)
{
    sesstab_view view = look(table, 1);
    const void *value;
    size_t got;
    check_ok(sesstab_metadata(&view, key, &value, &got, NULL));
    check_equal(got, length);
    check(memcmp(value, expected, length) == 0);
    check(((const char *)value)[length] == 0);
}

static sesstab *table_with_session_1(void)
{
    sesstab *table = memory_table();
    insert_plain(table, 1);
    return table;
}

/* ---------------------------------------------------------------- one process ------------ */

static void a_value_is_set_replaced_and_deleted(void **state)
{
    sesstab *table = table_with_session_1();
    (void)state;
    check_ok(sesstab_set(table, 1, "width", "80", 2));
    check_value(table, "width", "80", 2);
    check_ok(sesstab_set(table, 1, "width", "a much longer value than before", 31));
    check_value(table, "width", "a much longer value than before", 31);
    check_ok(sesstab_set(table, 1, "width", "1", 1));
    check_value(table, "width", "1", 1);
    check_equal(look(table, 1).metadata_count, 1);
    check_ok(sesstab_delete(table, 1, "width"));
    check_equal(look(table, 1).metadata_count, 0);
    uint64_t version = look(table, 1).version;
    check_result(sesstab_delete(table, 1, "width"), SESSTAB_NOTFOUND);
    check_equal(look(table, 1).version, version);
}

static void values_are_bytes(void **state)
{
    static const char bytes[] = "\0nul\0\xff\xfe binary\r\n$3\r\nfoo\r\n\0";
    static char all[256];
    sesstab *table = table_with_session_1();
    (void)state;
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    check_ok(sesstab_set(table, 1, "bytes", bytes, sizeof bytes));
    check_ok(sesstab_set(table, 1, "all", all, sizeof all));
    check_ok(sesstab_set(table, 1, "empty", "", 0));
    check_ok(sesstab_set(table, 1, "null", NULL, 0));
    check_ok(sesstab_set(table, 1, "key with spaces, \xc3\xa4 and :", "v", 1));
    check_value(table, "bytes", bytes, sizeof bytes);
    check_value(table, "all", all, sizeof all);
    check_value(table, "empty", "", 0);
    check_value(table, "null", "", 0);
    check_value(table, "key with spaces, \xc3\xa4 and :", "v", 1);
    check_equal(look(table, 1).metadata_count, 5);
}

static void keys_that_begin_alike_are_different(void **state)
{
    static const char *const keys[] = { "a", "aa", "aaa", "ab", "A", "a ", " a", "b" };
    sesstab *table = table_with_session_1();
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        check_ok(sesstab_set(table, 1, keys[i], keys[i], strlen(keys[i])));
    check_ok(sesstab_delete(table, 1, "aa"));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (i != 1)
            check_value(table, keys[i], keys[i], strlen(keys[i]));
    sesstab_view view = look(table, 1);
    check(!metadata_of(&view, "aa"));
}

static void a_walk_shows_each_pair_once(void **state)
{
    enum { KEYS = 100 };
    sesstab *table = table_with_session_1();
    bool seen[KEYS] = { false };
    (void)state;
    for (int i = 0; i < KEYS; i++) {
        char key[16], value[16];
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(value, sizeof value, "%d", i);
        check_ok(sesstab_set(table, 1, key, value, strlen(value)));
    }
    sesstab_view view = look(table, 1);
    sesstab_pair pair;
    size_t position = 0;
    uint64_t version;
    while (sesstab_metadata_next(&view, &position, &pair, &version) == SESSTAB_OK) {
        int i = atoi(pair.value);
        check(strncmp(pair.key, "key-", 4) == 0 && atoi(pair.key + 4) == i);
        check(!seen[i]);
        check_equal(version, key_version(table, 1, pair.key));
        seen[i] = true;
    }
    for (int i = 0; i < KEYS; i++)
        check(seen[i]);
    check_result(sesstab_metadata_next(&view, &position, &pair, NULL), SESSTAB_NOTFOUND);
}

static void an_empty_key_is_invalid_everywhere(void **state)
{
    static const char *const keys[] = { "", NULL };
    sesstab *table = table_with_session_1();
    (void)state;
    uint64_t before = look(table, 1).version;
    for (int i = 0; i < 2; i++) {
        check_result(sesstab_set(table, 1, keys[i], "v", 1), SESSTAB_INVALID);
        check_result(sesstab_delete(table, 1, keys[i]), SESSTAB_INVALID);
        check_result(sesstab_compare_and_set(table, 1, keys[i], 0, "v", 1, NULL), SESSTAB_INVALID);
        check_result(sesstab_increment(table, 1, keys[i], 1, NULL), SESSTAB_INVALID);
    }
    check_equal(look(table, 1).version, before);
}

static void what_is_too_big_changes_nothing(void **state)
{
    static char big[SESSTAB_RECORD_MAX + 1];
    char key[SESSTAB_KEY_MAX + 2];
    sesstab *table = table_with_session_1();
    (void)state;
    memset(key, 'k', sizeof key);
    key[SESSTAB_KEY_MAX + 1] = 0;
    check_ok(sesstab_set(table, 1, "n", "7", 1));
    uint64_t before = look(table, 1).version;
    check_result(sesstab_set(table, 1, key, "v", 1), SESSTAB_TOOBIG);
    check_result(sesstab_set(table, 1, "n", big, sizeof big), SESSTAB_TOOBIG);
    check_result(sesstab_set(table, 1, "n", big, SESSTAB_RECORD_MAX), SESSTAB_TOOBIG);
    check_result(sesstab_set(table, 1, "n", big, SIZE_MAX), SESSTAB_TOOBIG);
    check_result(sesstab_compare_and_set(table, 1, "m", 0, big, sizeof big, NULL), SESSTAB_TOOBIG);
    check_result(sesstab_increment(table, 1, key, 1, NULL), SESSTAB_TOOBIG);
    check_equal(look(table, 1).version, before);
    check_value(table, "n", "7", 1);
    key[SESSTAB_KEY_MAX] = 0;
    check_ok(sesstab_set(table, 1, key, "v", 1));
    check_value(table, key, "v", 1);
}

/* One byte at a time over the limit: the last that fits is whole, the next changes nothing. */
static void a_record_grows_to_its_limit_and_shrinks_again(void **state)
{
    static char value[SESSTAB_RECORD_MAX];
    sesstab *table = table_with_session_1();
    size_t fits = 0;
    (void)state;
    memset(value, 'v', sizeof value);
    for (size_t step = SESSTAB_RECORD_MAX / 2; step > 0; step /= 2)
        if (sesstab_set(table, 1, "value", value, fits + step) == SESSTAB_OK)
            fits += step;
    check(fits > SESSTAB_RECORD_MAX - 1024 && fits < SESSTAB_RECORD_MAX);
    check_value(table, "value", value, fits);
    check_result(sesstab_set(table, 1, "value", value, fits + 1), SESSTAB_TOOBIG);
    check_result(sesstab_set(table, 1, "x", "y", 1), SESSTAB_TOOBIG);
    check_value(table, "value", value, fits);
    sesstab_view view;
    size_t needed = 0;
    check_result(sesstab_get(table, 1, &view, NULL, &needed), SESSTAB_TOOBIG);
    check(needed <= SESSTAB_RECORD_MAX);
    check_ok(sesstab_set(table, 1, "value", "short", 5));
    check_ok(sesstab_set(table, 1, "x", "y", 1));
    check_value(table, "value", "short", 5);
}

static void a_session_holds_thousands_of_keys(void **state)
{
    sesstab *table = table_with_session_1();
    int count = 0, result;
    char key[16];
    (void)state;
    for (;; count++) {
        snprintf(key, sizeof key, "%x", count);
        result = sesstab_set(table, 1, key, key, strlen(key));
        if (result != SESSTAB_OK)
            break;
    }
    check_result(result, SESSTAB_TOOBIG);
    check(count > 3000);
    check_equal(look(table, 1).metadata_count, count);
    for (int i = 0; i < count; i += 97) {
        snprintf(key, sizeof key, "%x", i);
        check_value(table, key, key, strlen(key));
    }
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof key, "%x", i);
        check_ok(sesstab_delete(table, 1, key));
    }
    check_equal(look(table, 1).metadata_count, 0);
}

/* ---------------------------------------------------------------- compare-and-set -------- */

static void compare_and_set_needs_the_version_it_expects(void **state)
{
    sesstab *table = table_with_session_1();
    uint64_t version = 99, first;
    (void)state;
    check_result(sesstab_compare_and_set(table, 1, "key", 5, "a", 1, &version), SESSTAB_CONFLICT);
    check_equal(version, 0);
    check_ok(sesstab_compare_and_set(table, 1, "key", 0, "a", 1, &first));
    check_equal(first, look(table, 1).version);
    check_equal(first, key_version(table, 1, "key"));
    check_result(sesstab_compare_and_set(table, 1, "key", 0, "b", 1, &version), SESSTAB_CONFLICT);
    check_equal(version, first);
    check_ok(sesstab_set(table, 1, "other", "x", 1));
    check_equal(key_version(table, 1, "key"), first);
    check_ok(sesstab_compare_and_set(table, 1, "key", first, "b", 1, &version));
    check(version > first);
    check_result(sesstab_compare_and_set(table, 1, "key", first, "c", 1, NULL), SESSTAB_CONFLICT);
    check_value(table, "key", "b", 1);
    check_ok(sesstab_delete(table, 1, "key"));
    check_result(sesstab_compare_and_set(table, 1, "key", version, "c", 1, &version),
                 SESSTAB_CONFLICT);
    check_equal(version, 0);
}

static void a_new_session_s_keys_do_not_have_an_old_one_s_versions(void **state)
{
    sesstab *table = table_with_session_1();
    uint64_t old;
    (void)state;
    check_ok(sesstab_compare_and_set(table, 1, "key", 0, "a", 1, &old));
    check_ok(sesstab_remove(table, 1));
    uint64_t handle = 1;
    const sesstab_pair pair = { "key", "a", 1 };
    check_ok(sesstab_insert(table, &handle,
                            &(sesstab_info){ .metadata = &pair, .metadata_count = 1 }));
    check_result(sesstab_compare_and_set(table, 1, "missing", old, "b", 1, NULL), SESSTAB_CONFLICT);
    check_equal(key_version(table, 1, "key"), look(table, 1).version);
}

/* ---------------------------------------------------------------- increment -------------- */

static void increment_adds_to_integers_only(void **state)
{
    static const struct { const char *value; int64_t delta; int result; int64_t sum; } cases[] = {
        { "41", 1, SESSTAB_OK, 42 },
        { "0", -1, SESSTAB_OK, -1 },
        { "-10", 3, SESSTAB_OK, -7 },
        { "9223372036854775806", 1, SESSTAB_OK, INT64_MAX },
        { "-9223372036854775807", -1, SESSTAB_OK, INT64_MIN },
        { "-9223372036854775808", INT64_MAX, SESSTAB_OK, -1 },
        { "9223372036854775807", 1, SESSTAB_NOTNUMBER, 0 },
        { "-9223372036854775808", -1, SESSTAB_NOTNUMBER, 0 },
        { "1", INT64_MAX, SESSTAB_NOTNUMBER, 0 },
        { "9223372036854775808", 0, SESSTAB_NOTNUMBER, 0 },
        { "99999999999999999999999", 1, SESSTAB_NOTNUMBER, 0 },
        { "", 1, SESSTAB_NOTNUMBER, 0 },
        { "-", 1, SESSTAB_NOTNUMBER, 0 },
        { "1x", 1, SESSTAB_NOTNUMBER, 0 },
        { " 1", 1, SESSTAB_NOTNUMBER, 0 },
        { "1 ", 1, SESSTAB_NOTNUMBER, 0 },
        { "0x10", 1, SESSTAB_NOTNUMBER, 0 },
        { "1.5", 1, SESSTAB_NOTNUMBER, 0 },
        { "one", 1, SESSTAB_NOTNUMBER, 0 },
    };
    sesstab *table = table_with_session_1();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t sum = 12345;
        check_ok(sesstab_set(table, 1, "n", cases[i].value, strlen(cases[i].value)));
        uint64_t version = look(table, 1).version;
        int result = sesstab_increment(table, 1, "n", cases[i].delta, &sum);
        if (result != cases[i].result)
            test_fail(__FILE__, __LINE__, "\"%s\" + %lld: %s", cases[i].value,
                      (long long)cases[i].delta, sesstab_strerror(result));
        if (result == SESSTAB_OK) {
            char text[32];
            snprintf(text, sizeof text, "%lld", (long long)cases[i].sum);
            check_equal(sum, cases[i].sum);
            check_value(table, "n", text, strlen(text));
        } else {
            check_equal(look(table, 1).version, version);
            check_value(table, "n", cases[i].value, strlen(cases[i].value));
        }
    }
}

static void a_number_with_a_nul_in_it_is_none(void **state)
{
    sesstab *table = table_with_session_1();
    (void)state;
    check_ok(sesstab_set(table, 1, "n", "1\0", 2));
    check_result(sesstab_increment(table, 1, "n", 1, NULL), SESSTAB_NOTNUMBER);
}

static void a_missing_number_is_zero(void **state)
{
    sesstab *table = table_with_session_1();
    int64_t sum;
    (void)state;
    check_ok(sesstab_increment(table, 1, "n", -5, &sum));
    check_equal(sum, -5);
    check_ok(sesstab_increment(table, 1, "n", 0, NULL));
    check_value(table, "n", "-5", 2);
}

/* ---------------------------------------------------------------- many processes --------- */

struct crowd {
    _Atomic unsigned start;
    sesstab *table;
    int rounds;
    _Atomic uint64_t wins;
};

static struct crowd *crowd(int times)
{
    struct crowd *shared = shared_memory(sizeof *shared);
    shared->table = table_with_session_1();
    shared->rounds = times;
    return shared;
}

static void set_own_key(void *context)
{
    struct crowd *shared = context;
    char key[16], value[16];
    snprintf(key, sizeof key, "worker-%u", child_index);
    for (int i = 0; i < shared->rounds; i++) {
        snprintf(value, sizeof value, "%d", i);
        meet(&shared->start, 2);
        check_ok(sesstab_set(shared->table, 1, key, value, strlen(value)));
        sesstab_view view = look(shared->table, 1);
        check_string(metadata_of(&view, key), value);
    }
}

static void two_workers_that_set_different_keys_at_once_lose_neither(void **state)
{
    struct crowd *shared = crowd(1000);
    (void)state;
    uint64_t version = look(shared->table, 1).version;
    run_children(2, set_own_key, shared);
    check_value(shared->table, "worker-0", "999", 3);
    check_value(shared->table, "worker-1", "999", 3);
    check_equal(look(shared->table, 1).version, version + 2000);
}

static void increment_often(void *context)
{
    struct crowd *shared = context;
    for (int i = 0; i < shared->rounds; i++)
        check_ok(sesstab_increment(shared->table, 1, "n", child_index % 2 ? -1 : 3, NULL));
}

static void increments_by_four_processes_add_up_exactly(void **state)
{
    struct crowd *shared = crowd(20000);
    char sum[16];
    (void)state;
    run_children(4, increment_often, shared);
    snprintf(sum, sizeof sum, "%d", 2 * 20000 * (3 - 1));
    check_value(shared->table, "n", sum, strlen(sum));
}

static void compare_and_set_often(void *context)
{
    struct crowd *shared = context;
    uint64_t version, wins = 0;
    while (wins < (uint64_t)shared->rounds) {
        char value[32];
        sesstab_view view = look(shared->table, 1);
        const void *before = "0";
        version = 0;
        sesstab_metadata(&view, "n", &before, NULL, &version);
        snprintf(value, sizeof value, "%d", atoi(before) + 1);
        int result = sesstab_compare_and_set(shared->table, 1, "n", version, value, strlen(value),
                                             &version);
        check(result == SESSTAB_OK || result == SESSTAB_CONFLICT);
        wins += result == SESSTAB_OK;
    }
    shared->wins += wins;
}

static void compare_and_set_by_four_processes_loses_nothing(void **state)
{
    struct crowd *shared = crowd(2000);
    char sum[32];
    (void)state;
    run_children(4, compare_and_set_often, shared);
    snprintf(sum, sizeof sum, "%llu", (unsigned long long)shared->wins);
    check_string(sum, "8000");
    check_value(shared->table, "n", sum, strlen(sum));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_value_is_set_replaced_and_deleted),
        TEST(values_are_bytes),
        TEST(keys_that_begin_alike_are_different),
        TEST(a_walk_shows_each_pair_once),
        TEST(an_empty_key_is_invalid_everywhere),
        TEST(what_is_too_big_changes_nothing),
        TEST(a_record_grows_to_its_limit_and_shrinks_again),
        TEST(a_session_holds_thousands_of_keys),
        TEST(compare_and_set_needs_the_version_it_expects),
        TEST(a_new_session_s_keys_do_not_have_an_old_one_s_versions),
        TEST(increment_adds_to_integers_only),
        TEST(a_number_with_a_nul_in_it_is_none),
        TEST(a_missing_number_is_zero),
        TEST(two_workers_that_set_different_keys_at_once_lose_neither),
        TEST(increments_by_four_processes_add_up_exactly),
        TEST(compare_and_set_by_four_processes_loses_nothing),
    };
    return run_all(tests);
}
