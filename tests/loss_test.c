/*
 * Redis loses the table's data, or goes back to an older copy of them, while nobody changes anything:
 * the persister notices by itself, within CHECK_MS of its connection, and writes everything again.
 * How long it took from the loss until Redis equals the table is printed.
 */
#include "tests/harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define KEY(handle) TEST_PREFIX ":conn:" #handle

enum { SESSIONS = 500 };

struct world {
    const char *name;
    sesstab *table;
    struct redis *redis;
};

static struct world start_world(const char *const *redis_options)
{
    struct world w = { .name = new_name(), .redis = start_redis(redis_options) };
    start_persister(w.name, w.redis->url, NULL);
    w.table = open_table(w.name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(w.table, WAIT_LIMIT));
    for (uint64_t handle = 1; handle <= SESSIONS; handle++) {
        insert_plain(w.table, handle);
        check_ok(sesstab_set(w.table, handle, "key", "old", 3));
    }
    check_ok(sesstab_bind(w.table, 1, "old player", WAIT_LIMIT));
    wait_until_redis_equals(w.table, w.redis);
    return w;
}

/* What an older copy does not have. */
static void change_all(struct world *w)
{
    for (uint64_t handle = 1; handle <= SESSIONS / 2; handle++)
        check_ok(sesstab_set(w->table, handle, "key", "new", 3));
    for (uint64_t handle = SESSIONS - 50; handle <= SESSIONS; handle++)
        check_ok(sesstab_remove(w->table, handle));
    check_ok(sesstab_bind(w->table, 1, "new player", WAIT_LIMIT));
    wait_until_redis_equals(w->table, w->redis);
}

/* After a loss at LOST_AT: all is there again, and the binding was durable all the time. */
static void check_restored(struct world *w, uint64_t lost_at, const char *player)
{
    wait_until(redis_field_is(w->redis, KEY(1), "PlayerRef", player));
    wait_until_redis_equals(w->table, w->redis);
    print_message("Redis equals the table after %llu ms\n",
                  (unsigned long long)(milliseconds() - lost_at));
    check_string(look(w->table, 1).player, player);
    check(!look(w->table, 1).pending);
    check_table(w->name);
}

static void lose_by(const char *command)
{
    struct world w = start_world(NULL);
    uint64_t lost_at = milliseconds();
    freeReplyObject(redis_query(w.redis, command));
    check_restored(&w, lost_at, "old player");
    check(file_says(persister_log(), "event=lost"));
    wait_until(file_says(persister_log(), "event=resynced"));
}

static void everything_is_written_again_after_flushall(void **state)
{
    (void)state;
    lose_by("FLUSHALL");
}

static void everything_is_written_again_after_flushdb(void **state)
{
    (void)state;
    lose_by("FLUSHDB");
}

static void everything_is_written_again_after_the_databases_were_swapped_and_swapped_back(void **state)
{
    struct world w = start_world(NULL);
    uint64_t lost_at = milliseconds();
    (void)state;
    freeReplyObject(redis_query(w.redis, "SWAPDB 0 1"));
    check_restored(&w, lost_at, "old player");
    change_all(&w);
    lost_at = milliseconds();
    freeReplyObject(redis_query(w.redis, "SWAPDB 0 1"));
    check_restored(&w, lost_at, "new player");
}

static void a_restarted_redis_that_is_empty_is_filled(void **state)
{
    struct world w = start_world(NULL);
    (void)state;
    kill_redis(w.redis);
    restart_redis(w.redis);
    check_restored(&w, milliseconds(), "old player");
    check(file_says(persister_log(), "event=lost"));
}

/* The older copy has this leader's token, and this epoch. */
static void a_restarted_redis_with_an_older_file_is_brought_up_to_date(void **state)
{
    struct world w = start_world(NULL);
    (void)state;
    freeReplyObject(redis_query(w.redis, "SAVE"));
    change_all(&w);
    kill_redis(w.redis);
    restart_redis(w.redis);
    check_restored(&w, milliseconds(), "new player");
}

/*
 * The older copy is from before a reboot, with another table's epoch; and the persister that loaded this
 * table from it has been replaced since.
 */
static void an_older_file_from_before_the_table_was_made_anew_is_brought_up_to_date(void **state)
{
    struct redis *redis = start_redis(NULL);
    const char *before = new_name();
    (void)state;
    pid_t persister = start_persister(before, redis->url, NULL);
    sesstab *table = open_table(before, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    insert_plain(table, 1);
    wait_until_redis_equals(table, redis);
    freeReplyObject(redis_query(redis, "SAVE"));
    kill_child(persister);

    const char *now = new_name();
    persister = start_persister(now, redis->url, NULL);
    table = open_table(now, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(table, WAIT_LIMIT));
    insert_plain(table, 2);
    wait_until_redis_equals(table, redis);
    kill_child(persister);
    start_persister(now, redis->url, NULL);
    wait_until(file_says(persister_log(), "event=connected"));
    kill_redis(redis);
    restart_redis(redis);
    wait_until_redis_equals(table, redis);
    check_equal(redis_integer(redis, "EXISTS " KEY(2)), 1);
}

/* The same without the loss of the connection. */
static void a_redis_that_reads_an_older_file_is_brought_up_to_date(void **state)
{
    struct world w = start_world(NULL);
    (void)state;
    freeReplyObject(redis_query(w.redis, "SAVE"));
    change_all(&w);
    uint64_t lost_at = milliseconds();
    freeReplyObject(redis_query(w.redis, "DEBUG RELOAD NOSAVE"));
    check_restored(&w, lost_at, "new player");
}

/* ---------------------------------------------------------------- progress --------------- */

/* How many lines say that everything is being written again, and that no more is than in the line of
 * that kind before. */
static unsigned lines_without_progress(void)
{
    char line[1024], last[1024] = "";
    unsigned count = 0;
    FILE *f = fopen(persister_log(), "r");
    check(f != NULL);
    while (fgets(line, sizeof line, f)) {
        char *progress = strstr(line, "event=resyncing");
        if (!progress)
            continue;
        count += strcmp(progress, last) == 0;
        snprintf(last, sizeof last, "%s", progress);
    }
    fclose(f);
    return count;
}

static void progress_is_told_only_while_there_is_some(void **state)
{
    struct world w = start_world(NULL);
    (void)state;
    freeReplyObject(redis_query(w.redis, "CONFIG SET maxmemory 1"));
    freeReplyObject(redis_query(w.redis, "FLUSHALL"));
    wait_until(file_says(persister_log(), "event=redis-refuses"));
    pause_ms(4000); /* in which nothing is written */
    check_equal(lines_without_progress(), 0);
    freeReplyObject(redis_query(w.redis, "CONFIG SET maxmemory 0"));
    check_restored(&w, milliseconds(), "old player");
    wait_until(file_says(persister_log(), "event=resynced"));
}

/* ---------------------------------------------------------------- replication ------------ */

static void free_port(char port[8])
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof address;
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(descriptor, (struct sockaddr *)&address, length) == 0);
    check(getsockname(descriptor, (struct sockaddr *)&address, &length) == 0);
    close(descriptor);
    snprintf(port, 8, "%d", ntohs(address.sin_port));
}

static bool info_says(struct redis *redis, const char *text)
{
    redisReply *reply = redis_query(redis, "INFO replication");
    bool says = strstr(reply->str, text) != NULL;
    freeReplyObject(reply);
    return says;
}

/* REDIS becomes a copy of the server at PORT, and then its own master. */
static void copy_from(struct redis *redis, const char *port)
{
    freeReplyObject(redis_query(redis, "REPLICAOF 127.0.0.1 %s", port));
    wait_until(info_says(redis, "master_link_status:up"));
    freeReplyObject(redis_query(redis, "REPLICAOF NO ONE"));
}

static void a_master_that_became_a_copy_of_an_older_one_is_brought_up_to_date(void **state)
{
    char ports[2][8];
    const char *options[2][6];
    (void)state;
    for (int i = 0; i < 2; i++) {
        free_port(ports[i]);
        memcpy(options[i], (const char *[]){ "--port", ports[i], "--repl-diskless-sync-delay", "0",
                                             NULL }, 5 * sizeof **options);
    }
    struct world w = start_world(options[0]);
    struct redis *older = start_redis(options[1]);
    copy_from(older, ports[0]);
    change_all(&w);
    uint64_t lost_at = milliseconds();
    copy_from(w.redis, ports[1]);
    check_restored(&w, lost_at, "new player");
}

/* Nothing but the replication id tells. */
static void another_replication_id_alone_makes_the_persister_compare(void **state)
{
    struct world w = start_world(NULL);
    (void)state;
    freeReplyObject(redis_query(w.redis, "DEBUG CHANGE-REPL-ID"));
    wait_until(file_says(persister_log(), "event=comparing"));
    wait_until_redis_equals(w.table, w.redis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_is_written_again_after_flushall),
        TEST(everything_is_written_again_after_flushdb),
        TEST(everything_is_written_again_after_the_databases_were_swapped_and_swapped_back),
        TEST(a_restarted_redis_that_is_empty_is_filled),
        TEST(a_restarted_redis_with_an_older_file_is_brought_up_to_date),
        TEST(progress_is_told_only_while_there_is_some),
        TEST(an_older_file_from_before_the_table_was_made_anew_is_brought_up_to_date),
        TEST(a_redis_that_reads_an_older_file_is_brought_up_to_date),
        TEST(a_master_that_became_a_copy_of_an_older_one_is_brought_up_to_date),
        TEST(another_replication_id_alone_makes_the_persister_compare),
    };
    return run_all(tests);
}
