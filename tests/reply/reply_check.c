/*
 * What answers is not what was asked: each part of the persister that reads replies, against bytes that
 * were written beforehand.  R1 of persister_redis.h: it drops the connection, does nothing more, and
 * says so; what cannot be true is not believed.
 *
 * The other end is a socket that has sent the bytes and sends no more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/store.h"
#include "tools/log.h"
#include "tools/persister.h"
#include "tools/persister_diff.h"
#include "tools/persister_fence.h"
#include "tools/persister_load.h"
#include "tools/persister_metrics.h"
#include "tools/persister_scan.h"
#include "tools/persister_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CREATION = 0x5e55 };

/* ---------------------------------------------------------------- the other end ---------- */

struct line {
    char directory[64], path[80];
    int listener, other_end;
    struct redis redis;
    struct fence fence;
};

static int open_line(void **state)
{
    struct line *line = calloc(1, sizeof *line);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    strcpy(line->directory, "/tmp/sesstab-reply-XXXXXX");
    assert_non_null(mkdtemp(line->directory));
    snprintf(line->path, sizeof line->path, "%s/socket", line->directory);
    strcpy(name.sun_path, line->path);
    line->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(line->listener, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(line->listener, 1), 0);
    line->other_end = -1;
    line->redis.timeout_ms = 10000;
    fence_init(&line->fence, &line->redis, "p", CREATION);
    *state = line;
    return 0;
}

static int close_line(void **state)
{
    struct line *line = *state;
    redis_free(&line->redis);
    close(line->other_end);
    close(line->listener);
    unlink(line->path);
    rmdir(line->directory);
    free(line);
    return 0;
}

/* Connects anew, to one that answers these LENGTH bytes. */
static void answered_bytes(struct line *line, const void *bytes, size_t length)
{
    const struct redis_login nobody = { 0 };
    struct redis_address address;
    char text[128];
    snprintf(text, sizeof text, "unix:%s", line->path);
    assert_null(redis_parse_address(text, &address));
    assert_true(redis_connect(&line->redis, &address, &nobody));
    if (line->other_end >= 0)
        close(line->other_end);
    line->other_end = accept4(line->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(write(line->other_end, bytes, length), length);
    shutdown(line->other_end, SHUT_WR);
}

static void answered(struct line *line, const char *text)
{
    answered_bytes(line, text, strlen(text));
}

static void assert_dropped(struct line *line, const char *reason)
{
    assert_false(redis_connected(&line->redis));
    if (!strstr(line->redis.reason, reason))
        fail_msg("dropped for \"%s\", not \"%s\"", line->redis.reason, reason);
}

/* ---------------------------------------------------------------- nobody answers --------- */

static void fence_says_that_it_was_dropped(void **state)
{
    struct line *line = *state;
    struct fence *fence = &line->fence;
    fence->replicas = 1;
    assert_false(fence_look(fence));
    assert_int_equal(fence_holder_alive(fence), ALIVE_UNKNOWN);
    assert_int_equal(fence_holder_reads(fence), ALIVE_UNKNOWN);
    assert_false(fence_take(fence));
    assert_false(fence_held(fence));
    assert_false(fence_set_epoch(fence, 1));
    assert_int_equal(fence_check(fence), BROKEN);
    assert_false(fence_confirm(fence));
    fence_leave(fence);
}

static void others_say_that_they_were_dropped(void **state)
{
    struct line *line = *state;
    struct server server;
    struct scan scan;
    struct answers answers;
    assert_null(redis_ask(&line->redis, "PING", NULL));
    assert_false(server_ask(&line->redis, &server));
    assert_string_equal(server_worth(&server), "unknown");
    server_is_same(&line->redis, &server);
    assert_false(scan_begin(&scan, &line->redis, "p"));
    assert_false(scan_next(&scan));
    scan_free(&scan);
    assert_false(receive_answers(&line->redis, &answers));
    free_answers(&answers);
}

/* The end comes after each byte of a conversation that would be fine. */
static void fence_is_not_taken_by_half(void **state)
{
    struct line *line = *state;
    char whole[512];
    struct fence *fence = &line->fence;
    for (size_t length = 0;; length++) {
        fence->takes = 0;
        snprintf(whole, sizeof whole, "+OK\r\n+OK\r\n+OK\r\n+OK\r\n$%zu\r\n%s1\r\n+OK\r\n*0\r\n+OK\r\n$%zu\r\n%s1\r\n",
                 strlen(fence->process) + 1, fence->process, strlen(fence->process) + 1, fence->process);
        answered_bytes(line, whole, length);
        assert_int_equal(fence_take(fence), length == strlen(whole));
        if (length == strlen(whole))
            return;
        assert_false(fence_held(fence));
    }
}

/* ---------------------------------------------------------------- of another type -------- */

static void ask_info(struct line *line)
{
    struct server server;
    assert_false(server_ask(&line->redis, &server));
}

static void ask_scan(struct line *line)
{
    struct scan scan;
    assert_false(scan_begin(&scan, &line->redis, "p") && scan_next(&scan));
    assert_false(scan_next(&scan));
    scan_free(&scan);
}

static void ask_alive(struct line *line)
{
    strcpy(line->fence.holder, "somebody");
    assert_int_equal(fence_holder_alive(&line->fence), ALIVE_UNKNOWN);
}

static void ask_answers(struct line *line)
{
    struct answers answers;
    assert_false(receive_answers(&line->redis, &answers));
    free_answers(&answers);
}

static void what_is_of_another_type_drops_the_connection(void **state)
{
    static const struct {
        void (*ask)(struct line *);
        const char *replies, *reason;
    } cases[] = {
        { ask_info, ":1\r\n", "INFO" },
        { ask_info, "*0\r\n", "INFO" },
        { ask_info, "$1\r\na\r\n:1\r\n", "CONFIG" },
        { ask_info, "$1\r\na\r\n$-1\r\n", "CONFIG" },
        { ask_scan, ":-1\r\n", "SCARD" },
        { ask_scan, "$1\r\n1\r\n", "SCARD" },
        { ask_scan, ":1\r\n:0\r\n", "page" },
        { ask_scan, ":1\r\n*2\r\n:0\r\n*0\r\n", "page" },
        { ask_scan, ":1\r\n*2\r\n$0\r\n\r\n*0\r\n", "page" },
        { ask_scan, ":1\r\n*2\r\n$2\r\n0x\r\n*0\r\n", "page" },
        { ask_scan, ":1\r\n*2\r\n$1\r\n0\r\n*1\r\n:7\r\n", "page" },
        { ask_scan, ":1\r\n*2\r\n$1\r\n0\r\n$1\r\n7\r\n", "page" },
        { ask_scan, ":1\r\n*3\r\n$1\r\n0\r\n*0\r\n*0\r\n", "page" },
        { ask_alive, "+OK\r\n*1\r\n:1\r\n", "CLIENT LIST" },
        { ask_alive, "+OK\r\n:1\r\n", "CLIENT LIST" },
        { ask_answers, ":1\r\n*0\r\n:1\r\n", "another type" },
        { ask_answers, "*1\r\n$1\r\na\r\n*0\r\n:1\r\n", "another type" },
        { ask_answers, "*2\r\n$1\r\na\r\n:1\r\n*0\r\n:1\r\n", "another type" },
        { ask_answers, "*0\r\n*0\r\n$1\r\n1\r\n", "another type" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answered(*state, cases[i].replies);
        cases[i].ask(*state);
        assert_dropped(*state, cases[i].reason);
        assert_int_equal(metric_of_drop(((struct line *)*state)->redis.reason), METRIC_ERROR_GARBAGE);
    }
}

static void what_is_too_large_or_no_reply_drops_the_connection(void **state)
{
    static const struct {
        const char *reply, *reason;
    } cases[] = {
        { "*1048577\r\n", "too large" },
        { "*1048576\r\n*1048577\r\n", "too large" },
        { "*4294967296\r\n", "not Redis" },
        { "*-2\r\n", "not Redis" },
        { "$-2\r\n", "not Redis" },
        { "$9223372036854775807\r\nx", "closed" },
        { "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", "not Redis" },
        { ":99999999999999999999\r\n", "not Redis" },
        { "hello\r\n", "not Redis" },
    };
    struct line *line = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answered(line, cases[i].reply);
        assert_null(redis_ask(&line->redis, "PING", NULL));
        assert_dropped(line, cases[i].reason);
    }
}

/* ---------------------------------------------------------------- what is not believed --- */

static void look_at(struct line *line, const char *behind, size_t length)
{
    char bytes[512];
    struct fence *fence = &line->fence;
    snprintf(fence->token, sizeof fence->token, "%s1", fence->process);
    int head = snprintf(bytes, sizeof bytes, "$%zu\r\n%s", strlen(fence->token) + length, fence->token);
    memcpy(bytes + head, behind, length);
    int rest = snprintf(bytes + head + length, sizeof bytes - 200, "\r\n$-1\r\n$1\r\n%c\r\n",
                        (char)('1' + fence->serial));
    answered_bytes(line, bytes, (size_t)(head + rest) + length);
    assert_true(fence_look(fence));
}

static void a_token_with_a_nul_is_not_ours(void **state)
{
    struct line *line = *state;
    look_at(line, "", 0);
    assert_true(fence_held(&line->fence));
    look_at(line, "\0x", 2);
    assert_false(fence_held(&line->fence));
    assert_int_equal(fence_holder(&line->fence), HOLDER_NOBODY);
}

/* The highest one that a table saw is where its own go on: from there they would come round to 0. */
static void a_generation_out_of_range_is_not_believed(void **state)
{
    static const char replies[] =
        ":1\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\n7\r\n*4\r\n$6\r\nHandle\r\n$1\r\n7\r\n$10\r\nGeneration\r\n"
        "$20\r\n18446744073709551615\r\n*0\r\n";
    struct line *line = *state;
    struct load load = { .redis = &line->redis, .prefix = "p" };
    answered(line, replies);
    assert_true(load_run(&load));
    assert_int_equal(load.bad, 1);
    assert_int_equal(load.max_handle, 7);
    assert_int_equal(load.max_generation, 0);
}

static void a_key_of_another_prefix_is_no_session(void **state)
{
    static const char page[] = "*2\r\n$1\r\n0\r\n*2\r\n$8\r\np:conn:7\r\n$8\r\nq:conn:8\r\n";
    struct line *line = *state;
    struct scan scan;
    answered(line, page);
    scan_begin_keys(&scan, &line->redis, "p");
    assert_true(scan_next(&scan));
    assert_int_equal(scan.count, 1);
    assert_int_equal(scan.handles[0], 7);
    assert_int_equal(scan.strange, 1);
    scan_free(&scan);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, open_line, close_line)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fence_says_that_it_was_dropped),
        TEST(others_say_that_they_were_dropped),
        TEST(fence_is_not_taken_by_half),
        TEST(what_is_of_another_type_drops_the_connection),
        TEST(what_is_too_large_or_no_reply_drops_the_connection),
        TEST(a_token_with_a_nul_is_not_ours),
        TEST(a_generation_out_of_range_is_not_believed),
        TEST(a_key_of_another_prefix_is_no_session),
    };
    log_set_level(LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
