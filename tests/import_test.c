/*
 * The way here from the older layout: what it holds is imported, loaded as detached sessions and taken
 * over; what is bad is said and left; old keys never change, and nobody's sessions are overwritten.
 */
#include "tests/harness.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/persister_older.h"

#define OLD "older"
#define CONNECTED "\"ConnectedAt\":\"2026-11-22T21:00:00.1234567+01:00\""
#define SEEN "\"LastSeen\":\"2026-11-22T20:30:00.5+00:00\""
#define TIMES CONNECTED "," SEEN

enum { ALL = 0, SOME_BAD = 1, FAILED = 2, USAGE = 64, OUTPUT_BYTES = 1 << 16 };

static char output[OUTPUT_BYTES];

static void put_json(struct redis *redis, const char *name, const char *json)
{
    freeReplyObject(redis_query(redis, "SET " OLD ":conn:%s %b", name, json, strlen(json)));
    freeReplyObject(redis_query(redis, "SADD " OLD ":conn:active %s", name));
}

/* The import's exit status; what it said is in `output`. */
static int import(struct redis *redis, const char *table, const char *more)
{
    const char *argv[] = { program("persister"), "--table", table, "--redis", redis->url, "--prefix",
                           TEST_PREFIX, "--timeout", "5000", "--import-json", OLD, more, NULL };
    return run_program(argv, output, sizeof output);
}

static bool said(const char *text)
{
    return strstr(output, text) != NULL;
}

static sesstab *load(const char *name, struct redis *redis)
{
    start_persister(name, redis->url, NULL);
    sesstab *table = open_table(name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    return table;
}

/* ---------------------------------------------------------------- what is good ----------- */

static void a_session_is_imported_with_all_that_it_has(void **state)
{
    struct redis *redis = start_redis(NULL);
    const char *name = new_name();
    (void)state;
    put_json(redis, "17",
             "{\"Handle\":17,\"PlayerObjid\":\"#5:1234\",\"State\":\"LoggedIn\",\"IpAddress\":\"203.0.113.7\","
             "\"Hostname\":\"dsl-7.example.net\",\"ConnectionType\":\"telnet\"," TIMES ","
             "\"Metadata\":{\"\\uD83D\\uDE00 k\\u00e9y\":\"v\\u00e4l\\\"ue\\n\",\"raw\":\"日本\",\"n\":1700000000123,"
             "\"big\":1000000000000000,\"half\":0.5,\"neg\":-3,\"yes\":true,\"no\":false,\"empty\":\"\"}}");
    check_equal(import(redis, name, NULL), ALL);
    check(redis_field_is(redis, TEST_PREFIX ":conn:17", "PlayerRef", "#5:1234"));
    check(redis_field_is(redis, TEST_PREFIX ":conn:17", "State", "logged-in"));
    check(redis_field_is(redis, TEST_PREFIX ":conn:17", "ConnectedAt", "2026-11-22T20:00:00.123Z"));
    check(redis_field_is(redis, TEST_PREFIX ":conn:17", "LastSeen", "2026-11-22T20:30:00.500Z"));
    check(redis_field_is(redis, TEST_PREFIX ":conn:17", "Owner", ""));
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":leader"), 0);

    sesstab *table = load(name, redis);
    sesstab_view view = look(table, 17);
    check_string(view.player, "#5:1234");
    check_equal(view.state, SESSTAB_DETACHED);
    check_string(view.address, "203.0.113.7");
    check_string(view.host, "dsl-7.example.net");
    check_string(view.type, "telnet");
    check_equal(view.connected_at, 1795377600123);
    check_equal(view.last_seen, 1795379400500);
    static const char *const metadata[][2] = {
        { "\xf0\x9f\x98\x80 k\xc3\xa9y", "v\xc3\xa4l\"ue\n" }, { "raw", "日本" },
        { "n", "1700000000123" }, { "big", "1000000000000000" }, { "half", "0.5" }, { "neg", "-3" },
        { "yes", "true" }, { "no", "false" }, { "empty", "" },
    };
    check_equal(view.metadata_count, sizeof metadata / sizeof *metadata);
    for (size_t i = 0; i < sizeof metadata / sizeof *metadata; i++)
        check_string(metadata_of(&view, metadata[i][0]), metadata[i][1]);
    wait_until_redis_equals(table, redis);
    check_ok(sesstab_bind(table, 17, "#5:1234", WAIT_LIMIT));
    check_equal(look(table, 17).owner, sesstab_self(table));
}

/* All the ways in which a player and a state were ever written. */
static void every_spelling_of_player_and_state_is_understood(void **state)
{
    static const struct {
        const char *json, *player, *state;
    } cases[] = {
        { "\"State\":\"Connected\",\"PlayerRef\":null", "", "connected" },
        { "\"State\":\"AccountMode\"", "", "account" },
        { "\"State\":\"loggedin\",\"PlayerRef\":\"P#123\"", "P#123", "logged-in" },
        { "\"State\":3,\"PlayerRef\":{\"Number\":5,\"CreationMilliseconds\":1700000000123}",
          "#5:1700000000123", "logged-in" },
        { "\"State\":\"LoggedIn\",\"PlayerRef\":{\"Number\":7,\"CreationMilliseconds\":null}", "#7",
          "logged-in" },
        { "\"state\":\"LoggedIn\",\"playerObjid\":\"#1:2\",\"metadata\":null", "#1:2", "logged-in" },
        { "\"State\":2,\"Metadata\":{}", "", "connected" },
    };
    struct redis *redis = start_redis(NULL);
    char json[512], name[24], key[64];
    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(json, sizeof json, "{\"Handle\":%u,%s," TIMES "}", i + 1, cases[i].json);
        snprintf(name, sizeof name, "%u", i + 1);
        put_json(redis, name, json);
    }
    check_equal(import(redis, new_name(), NULL), ALL);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(key, sizeof key, TEST_PREFIX ":conn:%u", i + 1);
        check(redis_field_is(redis, key, "PlayerRef", cases[i].player));
        check(redis_field_is(redis, key, "State", cases[i].state));
    }
}

static void times_are_read_with_their_offsets(void **state)
{
    static const struct {
        const char *text;
        bool good;
        int64_t ms;
    } times[] = {
        { "1970-01-01T00:00:00Z", true, 0 },
        { "1970-01-01T00:00:00+00:00", true, 0 },
        { "1970-01-01T05:30:00.001+05:30", true, 1 },
        { "1969-12-31T16:00:00.9999999-08:00", true, 999 },
        { "2024-02-29T12:00:00.12Z", true, 1709208000120 },
        { "0001-01-01T00:00:00+00:00", true, -62135596800000 },
        { "2023-02-29T12:00:00Z", false, 0 },
        { "2023-02-28T12:00:60Z", false, 0 },
        { "2023-02-28T24:00:00Z", false, 0 },
        { "2023-02-28T12:00:00", false, 0 },
        { "2023-02-28T12:00:00.Z", false, 0 },
        { "2023-02-28T12:00:00.12345678Z", false, 0 },
        { "2023-02-28T12:00:00 +01:00", false, 0 },
        { "2023-02-28T12:00:00+01:00x", false, 0 },
        { "2023-2-28T12:00:00Z", false, 0 },
        { " 2023-02-28T12:00:00Z", false, 0 },
        { "yesterday", false, 0 },
        { "", false, 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int64_t ms = 0;
        if (older_parse_time(times[i].text, &ms) != times[i].good || (times[i].good && ms != times[i].ms))
            test_fail(__FILE__, __LINE__, "%s is read as %" PRId64, times[i].text, ms);
    }
}

static void a_last_seen_of_the_year_one_is_the_time_of_connecting(void **state)
{
    struct redis *redis = start_redis(NULL);
    (void)state;
    put_json(redis, "1", "{\"Handle\":1,\"State\":\"Connected\"," CONNECTED ","
                         "\"LastSeen\":\"0001-01-01T00:00:00+00:00\"}");
    check_equal(import(redis, new_name(), NULL), ALL);
    check(redis_field_is(redis, TEST_PREFIX ":conn:1", "LastSeen", "2026-11-22T20:00:00.123Z"));
}

/* ---------------------------------------------------------------- what is bad ------------ */

#define GOOD "{\"Handle\":5,\"State\":\"Connected\"," TIMES "}"
#define WITH(more) "{\"Handle\":5,\"State\":\"Connected\"," TIMES "," more "}"
#define TEN "0123456789"
#define FORTY TEN TEN TEN TEN
#define LONG FORTY FORTY FORTY FORTY FORTY FORTY FORTY

static const char *const bad[][2] = {
    { "{", "not JSON" },
    { "", "missing (expired?) or empty" },
    { GOOD "x", "not JSON" },
    { "[]", "no JSON object" },
    { "7", "no JSON object" },
    { WITH("\"Hostname\":\"\xc3\""), NULL }, /* bytes are bytes */
    { WITH("\"Hostname\":\"\\ud83d\""), "not JSON" },
    { "{\"State\":\"Connected\"," TIMES "}", "Handle is missing" },
    { "{\"Handle\":null,\"State\":\"Connected\"," TIMES "}", "Handle is missing" },
    { "{\"Handle\":-5,\"State\":\"Connected\"," TIMES "}", "not the key's" },
    { "{\"Handle\":6,\"State\":\"Connected\"," TIMES "}", "not the key's" },
    { "{\"Handle\":\"5\",\"State\":\"Connected\"," TIMES "}", "no number" },
    { "{\"Handle\":5," TIMES "}", "State is missing" },
    { "{\"Handle\":5,\"State\":\"Dancing\"," TIMES "}", "State is unknown: Dancing" },
    { "{\"Handle\":5,\"State\":1," TIMES "}", "State is unknown: 1" },
    { "{\"Handle\":5,\"State\":-1," TIMES "}", "State is unknown: -1" },
    { "{\"Handle\":5,\"State\":\"LoggedIn\"," TIMES "}", "there is no player" },
    { WITH("\"PlayerRef\":\"#1\""), "State is not LoggedIn" },
    { "{\"Handle\":5,\"State\":\"LoggedIn\",\"PlayerRef\":{\"Nr\":1}," TIMES "}", "without a Number" },
    { "{\"Handle\":5,\"State\":\"LoggedIn\",\"PlayerRef\":7," TIMES "}", "PlayerRef is no string" },
    { "{\"Handle\":5,\"State\":\"LoggedIn\",\"PlayerRef\":\"" LONG "\"," TIMES "}", "the player is longer" },
    { "{\"Handle\":5,\"State\":\"Connected\"," SEEN "}", "ConnectedAt is missing" },
    { "{\"Handle\":5,\"State\":\"Connected\"," CONNECTED "}", "LastSeen is missing" },
    { "{\"Handle\":5,\"State\":\"Connected\"," SEEN ",\"ConnectedAt\":\"2026-11-22 21:00\"}", "no time" },
    { "{\"Handle\":5,\"State\":\"Connected\"," SEEN ",\"ConnectedAt\":1795377600}", "no string" },
    { "{\"Handle\":5,\"State\":\"Connected\"," SEEN ",\"ConnectedAt\":\"0001-01-01T00:00:00Z\"}",
      "before 1970" },
    { WITH("\"IpAddress\":\"" LONG "\""), "IpAddress is longer than 63" },
    { WITH("\"Hostname\":\"" LONG "\""), "Hostname is longer than 255" },
    { WITH("\"ConnectionType\":\"" FORTY "\""), "ConnectionType is longer than 31" },
    { WITH("\"IpAddress\":1"), "IpAddress is no string" },
    { WITH("\"Hostname\":\"a\\u0000b\""), "NUL" },
    { WITH("\"Hostname\":\"a\\\\u0000b\""), NULL }, /* a backslash, and then text */
    { WITH("\"Metadata\":[1]"), "Metadata is no object" },
    { WITH("\"Metadata\":{\"k\":null}"), "metadata k is neither" },
    { WITH("\"Metadata\":{\"k\":{}}"), "metadata k is neither" },
    { WITH("\"Metadata\":{\"k\":9007199254740993000}"), "metadata k is neither" },
    { WITH("\"Metadata\":{\"\":\"v\"}"), "key is empty" },
    { WITH("\"Metadata\":{\"" LONG "\":\"v\"}"), "longer than 255" },
};

static void what_is_bad_is_said_and_left_as_it_is(void **state)
{
    struct redis *redis = start_redis(NULL);
    const char *name = new_name();
    char now[4096];
    (void)state;
    put_json(redis, "1", "{\"Handle\":1,\"State\":\"Connected\"," TIMES "}");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_json(redis, "5", bad[i][0]);
        int status = import(redis, name, "--dry-run");
        if (status != (bad[i][1] ? SOME_BAD : ALL) || (bad[i][1] && !said(bad[i][1])))
            test_fail(__FILE__, __LINE__, "%s exits %d and says %s", bad[i][0], status, output);
        check(redis_text(redis, now, sizeof now, "GET " OLD ":conn:5"));
        check_string(now, bad[i][0]);
    }
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:1"), 0);
    put_json(redis, "5", "{");
    check_equal(import(redis, name, NULL), SOME_BAD);
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:1"), 1);
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:5"), 0);
}

/* Nothing can be parsed that kills the parser, whatever a byte became. */
static void a_record_with_any_byte_changed_is_survived(void **state)
{
    static const char json[] =
        "{\"Handle\":5,\"PlayerRef\":{\"Number\":1,\"CreationMilliseconds\":2},\"State\":\"LoggedIn\","
        TIMES ",\"Metadata\":{\"a\":\"\\u00e4\\\\\",\"b\":1.5e3,\"c\":true}}";
    char changed[sizeof json];
    struct older older;
    (void)state;
    check(older_parse(&older, json, strlen(json), 5) == NULL);
    older_free(&older);
    for (unsigned round = 0; round < rounds(20000); round++) {
        memcpy(changed, json, sizeof json);
        for (unsigned n = 1 + (unsigned)random_below(3); n; n--)
            changed[random_below(sizeof json - 1)] = (char)(1 + random_below(255));
        changed[random_below(16) ? sizeof json - 1 : random_below(sizeof json)] = 0;
        older_parse(&older, changed, strlen(changed), 5);
        older_free(&older);
    }
}

static void what_leads_nowhere_is_said(void **state)
{
    struct redis *redis = start_redis(NULL);
    (void)state;
    put_json(redis, "1", "{\"Handle\":1,\"State\":\"Connected\"," TIMES "}");
    freeReplyObject(redis_query(redis, "SADD " OLD ":conn:active 2 -3 0 x"));
    freeReplyObject(redis_query(redis, "SET " OLD ":conn:4 " GOOD));
    freeReplyObject(redis_query(redis, "SET " OLD ":conn:-8 " GOOD));
    freeReplyObject(redis_query(redis, "HSET " OLD ":conn:9 a b"));
    freeReplyObject(redis_query(redis, "SADD " OLD ":conn:active 9"));
    freeReplyObject(redis_query(redis, "SET " OLD "x:conn:5 another"));
    check_equal(import(redis, new_name(), NULL), SOME_BAD);
    check(said("key=" OLD ":conn:2 reason=\"in the active set, but the key is missing"));
    check(said("member=-3") && said("member=0") && said("member=x"));
    check(said("key=" OLD ":conn:4 reason=\"its handle is not in the active set"));
    check(said("key=" OLD ":conn:-8 reason=\"what its name ends with is no handle"));
    check(said("key=" OLD ":conn:9 reason=\"WRONGTYPE"));
    check(!said(OLD "x:conn:5"));
    check(said("sessions=1 present=0 bad=7 ended=0"));
}

static void an_ended_session_is_not_imported(void **state)
{
    struct redis *redis = start_redis(NULL);
    (void)state;
    put_json(redis, "1", "{\"Handle\":1,\"State\":\"Disconnected\",\"PlayerRef\":\"#1\"," TIMES "}");
    put_json(redis, "2", "{\"Handle\":2,\"State\":4," TIMES "}");
    check_equal(import(redis, new_name(), NULL), ALL);
    check(said("event=import-ended handle=1") && said("sessions=0 present=0 bad=0 ended=2"));
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:active"), 0);
}

/* ---------------------------------------------------------------- whose sessions --------- */

static void sessions_of_ours_are_left_alone_and_a_second_run_adds_nothing(void **state)
{
    struct redis *redis = start_redis(NULL);
    const char *name = new_name(), *other = new_name();
    (void)state;
    put_json(redis, "1", "{\"Handle\":1,\"State\":\"Connected\"," TIMES "}");
    put_json(redis, "2", "{\"Handle\":2,\"State\":\"Connected\"," TIMES "}");
    pid_t persister = start_persister(other, redis->url, NULL);
    sesstab *table = open_table(other, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    insert_plain(table, 2);
    check_ok(sesstab_bind(table, 2, "ours", WAIT_LIMIT));
    close_table(table);
    check_equal(import(redis, name, NULL), FAILED);
    check(said("a persister (or another import) writes under this prefix"));
    kill(persister, SIGTERM);
    wait_until(redis_integer(redis, "EXISTS " TEST_PREFIX ":leader") == 0);
    check_equal(import(redis, other, NULL), FAILED);
    check(said("is in use: its persister would remove"));
    check_ok(sesstab_unlink(other));
    check_equal(import(redis, name, NULL), ALL);
    check(said("event=import-present handle=2") && said("sessions=1 present=1 bad=0"));
    check(redis_field_is(redis, TEST_PREFIX ":conn:2", "PlayerRef", "ours"));
    check_equal(import(redis, name, NULL), ALL);
    check(said("sessions=0 present=2 bad=0"));
}

static void what_is_half_there_is_not_touched(void **state)
{
    struct redis *redis = start_redis(NULL);
    (void)state;
    put_json(redis, "1", "{\"Handle\":1,\"State\":\"Connected\"," TIMES "}");
    freeReplyObject(redis_query(redis, "HSET " TEST_PREFIX ":conn:1:metadata k v"));
    check_equal(import(redis, new_name(), NULL), SOME_BAD);
    check(said("a part of it is there in our layout"));
    check_equal(redis_integer(redis, "EXISTS " TEST_PREFIX ":conn:1"), 0);
}

static void a_redis_that_refuses_is_a_failure_and_it_can_be_run_again(void **state)
{
    struct redis *redis = start_redis(NULL);
    const char *name = new_name();
    (void)state;
    put_json(redis, "1", "{\"Handle\":1,\"State\":\"Connected\"," TIMES "}");
    freeReplyObject(redis_query(redis, "CONFIG SET maxmemory 1"));
    check_equal(import(redis, name, NULL), FAILED);
    check(said("OOM") && said("complete=no"));
    freeReplyObject(redis_query(redis, "CONFIG SET maxmemory 0"));
    check_equal(import(redis, name, NULL), ALL);
    check(said("sessions=1 present=0"));
    kill_redis(redis);
    check_equal(import(redis, name, NULL), FAILED);
    restart_redis(redis);
}

static void wrong_usage_is_said(void **state)
{
    static const char *const wrong[][4] = {
        { "--import-json", TEST_PREFIX, "--prefix", TEST_PREFIX },
        { "--dry-run", NULL, NULL, NULL },
        { "--import-json", "a b", NULL, NULL },
        { "--import-json", "", NULL, NULL },
        { "--import-json", "old", "--spawn-redis", "/nowhere" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_equal(run_program((const char *[]){ program("persister"), wrong[i][0], wrong[i][1],
                                    wrong[i][2], wrong[i][3], NULL }, output, sizeof output), USAGE);
}

/* ---------------------------------------------------------------- many ------------------- */

/* Some with as much metadata as a record holds. */
static void append_session(struct redis *redis, uint64_t handle, char *json, size_t size)
{
    int length = snprintf(json, size,
                          "{\"Handle\":%" PRIu64 ",\"PlayerObjid\":\"#%" PRIu64 ":9\",\"State\":\"LoggedIn\","
                          "\"IpAddress\":\"192.0.2.%u\",\"Hostname\":\"h\",\"ConnectionType\":\"telnet\","
                          TIMES ",\"Metadata\":{\"handle\":\"%" PRIu64 "\"", handle, handle,
                          (unsigned)(handle % 256), handle);
    if (handle % 1000 == 0) {
        length += snprintf(json + length, size - (size_t)length, ",\"big\":\"");
        for (unsigned i = 0; i < 30000; i++)
            length += snprintf(json + length, size - (size_t)length, "%s", i % 2 ? "\\u00e9" : "x");
        length += snprintf(json + length, size - (size_t)length, "\"");
    }
    length += snprintf(json + length, size - (size_t)length, "}}");
    redisAppendCommand(redis->context, "SET " OLD ":conn:%" PRIu64 " %b", handle, json, (size_t)length);
    redisAppendCommand(redis->context, "SADD " OLD ":conn:active %" PRIu64, handle);
}

static void ten_thousand_sessions_come_over(void **state)
{
    enum { SESSIONS = 10000, JSON_BYTES = 1 << 20 };
    struct redis *redis = start_redis(NULL);
    const char *name = new_name();
    char *json = malloc(JSON_BYTES);
    (void)state;
    check(json != NULL);
    check_equal(redis_integer(redis, "DBSIZE"), 0);
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        void *reply;
        append_session(redis, handle, json, JSON_BYTES);
        for (int i = 0; i < 2; i++) {
            check(redisGetReply(redis->context, &reply) == REDIS_OK);
            freeReplyObject(reply);
        }
    }
    free(json);
    check_equal(import(redis, name, NULL), ALL);
    check(said("complete=yes sessions=10000 present=0 bad=0 ended=0"));
    sesstab *table = load(name, redis);
    check_equal(count_sessions(table), SESSIONS);
    for (uint64_t handle = 1; handle <= SESSIONS; handle += 37) {
        char text[32];
        snprintf(text, sizeof text, "%" PRIu64, handle);
        sesstab_view view = look(table, handle);
        check_string(metadata_of(&view, "handle"), text);
        check_equal(view.state, SESSTAB_DETACHED);
    }
    sesstab_view view = look(table, 5000);
    check_equal(strlen(metadata_of(&view, "big")), 45000);
    wait_until_redis_equals(table, redis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_session_is_imported_with_all_that_it_has),
        TEST(every_spelling_of_player_and_state_is_understood),
        TEST(times_are_read_with_their_offsets),
        TEST(a_last_seen_of_the_year_one_is_the_time_of_connecting),
        TEST(what_is_bad_is_said_and_left_as_it_is),
        TEST(a_record_with_any_byte_changed_is_survived),
        TEST(what_leads_nowhere_is_said),
        TEST(an_ended_session_is_not_imported),
        TEST(sessions_of_ours_are_left_alone_and_a_second_run_adds_nothing),
        TEST(what_is_half_there_is_not_touched),
        TEST(a_redis_that_refuses_is_a_failure_and_it_can_be_run_again),
        TEST(wrong_usage_is_said),
        TEST(ten_thousand_sessions_come_over),
    };
    return run_all(tests);
}
