/*
 * What the persister tells those who watch it: /metrics and /healthz are there while it leads, while it
 * stands by and while it hangs; they tell of every trouble; and nobody who asks can keep others from
 * asking.
 */
#include "tests/harness.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_BYTES = 65536 };

struct world {
    const char *name, *address; /* of the table; of the pages */
    sesstab *table;
    struct redis *redis;
    pid_t persister;
};

/* ---------------------------------------------------------------- asking ----------------- */

static const char *new_address(void)
{
    static char addresses[8][128];
    static unsigned next;
    char *address = addresses[next % 8];
    snprintf(address, sizeof addresses[0], "unix:%s/http-%u", scratch_directory(), next++);
    return address;
}

/* A connection to "unix:PATH" or "tcp:127.0.0.1:PORT"; -1: nobody listens. */
static int connect_to(const char *address)
{
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    struct sockaddr_in port = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    bool is_path = strncmp(address, "unix:", 5) == 0;
    int fd = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(fd >= 0);
    if (is_path)
        snprintf(path.sun_path, sizeof path.sun_path, "%s", address + 5);
    else
        port.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    if (connect(fd, is_path ? (struct sockaddr *)&path : (struct sockaddr *)&port,
                is_path ? sizeof path : sizeof port) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Sends REQUEST and reads until the other end closes: the status, 0: there was no answer.  What was
 * answered is in ANSWER till the next call. */
static char answer[ANSWER_BYTES];

static int ask_raw(const char *address, const char *request)
{
    size_t used = 0;
    ssize_t got;
    int status = 0, fd = connect_to(address);
    answer[0] = 0;
    if (fd < 0)
        return 0;
    send(fd, request, strlen(request), MSG_NOSIGNAL);
    while (used < sizeof answer - 1 && (got = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0)
        used += (size_t)got;
    answer[used] = 0;
    close(fd);
    return sscanf(answer, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

static int ask(const char *address, const char *path)
{
    char request[128];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path);
    return ask_raw(address, request);
}

static const char *body(void)
{
    const char *end = strstr(answer, "\r\n\r\n");
    check(end != NULL);
    return end + 4;
}

/* The value of a line of /metrics, which must be there: NAME is "name" or "name{labels}". */
static double metric(const char *address, const char *name)
{
    char line[160];
    check_equal(ask(address, "/metrics"), 200);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *found = strstr(body(), line);
    if (!found)
        test_fail(__FILE__, __LINE__, "there is no metric %s", name);
    return atof(found + strlen(line));
}

static bool health_says(const char *address, int status, const char *text)
{
    return ask(address, "/healthz") == status && strstr(body(), text);
}

/* ---------------------------------------------------------------- worlds ----------------- */

static pid_t persister_at(struct world *world, const char *address, const char *const *more)
{
    const char *options[16] = { "--metrics", address };
    for (size_t n = 2; more && *more; more++)
        options[n++] = *more;
    return start_persister(world->name, world->redis->url, options);
}

static struct world *start_world(const char *const *options)
{
    struct world *world = shared_memory(sizeof *world);
    world->name = new_name();
    world->address = new_address();
    world->redis = start_redis(NULL);
    world->persister = persister_at(world, world->address, options);
    world->table = open_table(world->name, &(sesstab_options){ .create = true });
    check_ok(sesstab_wait_ready(world->table, WAIT_LIMIT));
    wait_until(ask(world->address, "/healthz") == 200);
    return world;
}

/* ---------------------------------------------------------------- what is served --------- */

static void metrics_are_what_prometheus_wants(void **state)
{
    struct world *world = start_world(NULL);
    char path[128], command[256], output[4096];
    (void)state;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    check_equal(ask(world->address, "/metrics"), 200);
    check(strstr(answer, "Content-Type: text/plain; version=0.0.4") != NULL);
    snprintf(path, sizeof path, "%s/metrics", scratch_directory());
    FILE *file = fopen(path, "w");
    check(file && fputs(body(), file) >= 0 && fclose(file) == 0);
    snprintf(command, sizeof command, "promtool check metrics <%s 2>&1", path);
    int status = run_program((const char *[]){ "sh", "-c", command, NULL }, output, sizeof output);
    check_string(output, "");
    check_equal(status, 0);
}

static void metrics_tell_what_the_table_holds(void **state)
{
    struct world *world = start_world(NULL);
    const char *at = world->address;
    (void)state;
    for (uint64_t handle = 1; handle <= 30; handle++)
        insert_plain(world->table, handle);
    for (uint64_t handle = 1; handle <= 10; handle++)
        check_ok(sesstab_bind(world->table, handle, "#1", WAIT_LIMIT));
    for (uint64_t handle = 11; handle <= 15; handle++)
        check_ok(sesstab_set_state(world->table, handle, SESSTAB_ACCOUNT, NULL));
    check_ok(sesstab_remove(world->table, 30));
    wait_until(metric(at, "sesstab_sessions{state=\"connected\"}") == 14);
    check(metric(at, "sesstab_sessions{state=\"account\"}") == 5);
    check(metric(at, "sesstab_sessions{state=\"logged-in\"}") == 10);
    check(metric(at, "sesstab_sessions{state=\"detached\"}") == 0);
    wait_until(metric(at, "sesstab_undurable_sessions") == 0);
    check(metric(at, "sesstab_redis_writes_total") >= 29);
    check(metric(at, "sesstab_redis_batches_total{outcome=\"committed\"}") >= 10);
    check(metric(at, "sesstab_redis_round_trip_seconds_count") >= 10);
    check(metric(at, "sesstab_redis_round_trip_seconds_bucket{le=\"+Inf\"}") >= 10);
    check(metric(at, "sesstab_memory_committed_bytes") >= 65536);
    check(metric(at, "sesstab_workers") == 2);
    check(metric(at, "sesstab_leader") == 1);
    check(metric(at, "sesstab_led") == 1);
    check(metric(at, "sesstab_ready") == 1);
    check(metric(at, "sesstab_redis_up") == 1);
}

static void die_with_a_session(void *context)
{
    struct world *world = context;
    insert_plain(world->table, 77);
    for (;;)
        pause();
}

static void deaths_show(void **state)
{
    struct world *world = start_world(NULL);
    (void)state;
    pid_t child = start_child(die_with_a_session, world);
    wait_until(count_sessions(world->table) == 1);
    kill_child(child);
    wait_until(metric(world->address, "sesstab_worker_deaths_total") == 1);
    wait_until(metric(world->address, "sesstab_detached_sessions_total") == 1);
    check(metric(world->address, "sesstab_sessions{state=\"detached\"}") == 1);
}

static void what_is_not_there_is_said_so(void **state)
{
    struct world *world = start_world(NULL);
    const char *at = world->address;
    (void)state;
    check_equal(ask(at, "/"), 404);
    check_equal(ask(at, "/metrics/more"), 404);
    check_equal(ask_raw(at, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), 405);
    check(strstr(answer, "Allow: GET, HEAD") != NULL);
    check_equal(ask_raw(at, "DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
    check_equal(ask_raw(at, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    check_string(body(), "");
    check_equal(ask(at, "/healthz?verbose"), 200);
}

/* ---------------------------------------------------------------- health ----------------- */

static void health_is_json_and_complete(void **state)
{
    struct world *world = start_world(NULL);
    (void)state;
    check_equal(ask(world->address, "/healthz"), 200);
    cJSON *health = cJSON_Parse(body());
    check(health != NULL);
    check_string(cJSON_GetObjectItem(health, "status")->valuestring, "ok");
    check_string(cJSON_GetObjectItem(health, "leader")->valuestring, "me");
    check(cJSON_IsTrue(cJSON_GetObjectItem(health, "ready")));
    check(cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetObjectItem(health, "redis"), "connected")));
    check(cJSON_IsNumber(cJSON_GetObjectItem(health, "lag_ms")));
    check(cJSON_IsNumber(cJSON_GetObjectItem(health, "oldest_ticket_ms")));
    check(cJSON_IsNumber(cJSON_GetObjectItem(health, "kept_back")));
    cJSON_Delete(health);
}

/* Redis does not answer: before the connection is given up, and after. */
static void a_stopped_redis_shows_as_lag_and_then_as_away(void **state)
{
    struct world *world = start_world((const char *[]){ "--health-lag", "400", NULL });
    const char *at = world->address;
    (void)state;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    wait_until(metric(at, "sesstab_undurable_sessions") == 0);
    kill(world->redis->pid, SIGSTOP);
    check_result(sesstab_bind(world->table, 1, "#2", 0), SESSTAB_UNKNOWN);
    wait_until(health_says(at, 503, "changes wait too long"));
    check(metric(at, "sesstab_durable_lag_seconds") >= 0.4);
    check(metric(at, "sesstab_pending_bindings") == 1);
    double lag = metric(at, "sesstab_durable_lag_seconds");
    wait_until(metric(at, "sesstab_durable_lag_seconds") >= lag + 0.5);
    wait_until(health_says(at, 503, "\"reason\":\"timeout\"") &&
               strstr(body(), "\"connected\":false,\"down_since\":\"20"));
    check(metric(at, "sesstab_redis_up") == 0);
    kill(world->redis->pid, SIGCONT);
    wait_until(health_says(at, 200, "\"status\":\"ok\""));
    wait_until(metric(at, "sesstab_undurable_sessions") == 0);
    check(metric(at, "sesstab_redis_errors_total{kind=\"timeout\"}") >= 1);
    check(metric(at, "sesstab_redis_disconnects_total") >= 1);
}

static void calls_that_wait_show(void **state)
{
    struct world *world = start_world(NULL);
    uint64_t tickets[20];
    (void)state;
    for (uint64_t handle = 1; handle <= 20; handle++)
        insert_plain(world->table, handle);
    wait_until(metric(world->address, "sesstab_undurable_sessions") == 0);
    kill(world->redis->pid, SIGSTOP);
    for (uint64_t handle = 1; handle <= 20; handle++)
        check_ok(sesstab_start_bind(world->table, handle, "#1", NULL, &tickets[handle - 1]));
    wait_until(metric(world->address, "sesstab_waiting_tickets") == 20);
    wait_until(metric(world->address, "sesstab_oldest_ticket_age_seconds") > 0.3);
    kill(world->redis->pid, SIGCONT);
    wait_until(metric(world->address, "sesstab_waiting_tickets") == 0);
    check(metric(world->address, "sesstab_oldest_ticket_age_seconds") == 0);
}

static void in_mode_memory_redis_does_not_matter(void **state)
{
    struct world *world = start_world((const char *[]){ "--health-lag", "500", NULL });
    const char *at = world->address;
    (void)state;
    kill_redis(world->redis);
    insert_plain(world->table, 1);
    wait_until(health_says(at, 503, "Redis is away"));
    check_ok(sesstab_set_mode(world->table, SESSTAB_MEMORY));
    wait_until(health_says(at, 200, "\"mode\":\"memory\""));
    check(!health_says(at, 200, "\"reason\"")); /* which would be that of the time before */
    check(metric(at, "sesstab_mode{mode=\"memory\"}") == 1);
    check(metric(at, "sesstab_durable_lag_seconds") == 0);
    insert_plain(world->table, 2);
    check_ok(sesstab_set_mode(world->table, SESSTAB_SELECTIVE));
    wait_until(health_says(at, 503, "Redis is away"));
    wait_until(metric(at, "sesstab_durable_lag_seconds") > 0.5);
    restart_redis(world->redis);
    wait_until(ask(at, "/healthz") == 200);
    wait_until_redis_equals(world->table, world->redis);
}

static void touch_all_the_time(void *context)
{
    struct world *world = context;
    for (uint64_t now = sesstab_now();; now++)
        for (uint64_t handle = 1; handle <= 100; handle++)
            check_ok(sesstab_touch(world->table, handle, now));
}

/* Something is always on its way, and nothing for long. */
static void lag_stays_small_while_all_the_time_something_changes(void **state)
{
    struct world *world = start_world(NULL);
    (void)state;
    for (uint64_t handle = 1; handle <= 100; handle++)
        insert_plain(world->table, handle);
    pid_t child = start_child(touch_all_the_time, world);
    double before = metric(world->address, "sesstab_redis_writes_total");
    wait_until(metric(world->address, "sesstab_redis_writes_total") >= before + 3000);
    check_equal(ask(world->address, "/healthz"), 200);
    check(metric(world->address, "sesstab_durable_lag_seconds") < 10);
    kill_child(child);
}

static void a_table_that_is_not_loaded_is_not_well(void **state)
{
    struct world *world = shared_memory(sizeof *world);
    (void)state;
    world->name = new_name();
    world->address = new_address();
    world->redis = start_redis(NULL);
    kill_redis(world->redis);
    world->persister = persister_at(world, world->address, NULL);
    wait_until(health_says(world->address, 503, "not ready") &&
               strstr(body(), "\"status\":\"down\"") &&
               strstr(body(), "\"reason\":\"unreachable\""));
    restart_redis(world->redis);
    wait_until(ask(world->address, "/healthz") == 200);
}

/* The thread that leads is stopped; the one that answers is not. */
static void a_leader_that_hangs_is_told_by_its_own_persister(void **state)
{
    struct world *world = start_world((const char *[]){ "--timeout", "100", NULL });
    int status;
    (void)state;
    check(ptrace(PTRACE_SEIZE, world->persister, NULL, NULL) == 0);
    check(ptrace(PTRACE_INTERRUPT, world->persister, NULL, NULL) == 0);
    check(waitpid(world->persister, &status, __WALL) == world->persister && WIFSTOPPED(status));
    wait_until(health_says(world->address, 503, "hangs"));
    check(strstr(body(), "\"status\":\"down\"") != NULL);
    check(ptrace(PTRACE_DETACH, world->persister, NULL, NULL) == 0);
    wait_until(ask(world->address, "/healthz") == 200);
}

static void a_stand_by_is_well_while_a_leader_lives_and_leads_afterwards(void **state)
{
    struct world *world = start_world(NULL);
    const char *second = new_address();
    (void)state;
    persister_at(world, second, NULL);
    wait_until(health_says(second, 200, "\"leader\":\"other\""));
    check(metric(second, "sesstab_leader") == 0);
    check(metric(second, "sesstab_led") == 1);
    check(metric(second, "sesstab_ready") == 1);
    kill_child(world->persister);
    wait_until(health_says(second, 200, "\"leader\":\"me\""));
    check(metric(second, "sesstab_leader") == 1);
    check(metric(second, "sesstab_leads_total") == 1);
}

/* ---------------------------------------------------------------- troubles --------------- */

static void configure(struct world *world, const char *setting, const char *value)
{
    freeReplyObject(redis_query(world->redis, "CONFIG SET %s %s", setting, value));
}

static void a_full_redis_shows(void **state)
{
    struct world *world = start_world((const char *[]){ "--health-lag", "500", NULL });
    const char *at = world->address;
    (void)state;
    insert_plain(world->table, 1);
    configure(world, "maxmemory", "1");
    check_result(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT), SESSTAB_REFUSED);
    check(metric(at, "sesstab_redis_errors_total{kind=\"oom\"}") >= 1);
    check(metric(at, "sesstab_redis_errors_total{kind=\"execabort\"}") >= 1);
    check(metric(at, "sesstab_redis_batches_total{outcome=\"aborted\"}") >= 1);
    wait_until(metric(at, "sesstab_refused_bindings_total") >= 1);
    wait_until(metric(at, "sesstab_parked_sessions") == 1);
    wait_until(health_says(at, 503, "changes wait too long"));
    configure(world, "maxmemory", "0");
    wait_until(health_says(at, 200, "\"status\":\"ok\""));
    check(metric(at, "sesstab_parked_sessions") == 0);
}

static void change_all(struct world *world, unsigned count, const char *value)
{
    for (unsigned handle = 1; handle <= count; handle++)
        check_ok(sesstab_set(world->table, handle, "key", value, strlen(value)));
}

/*
 * The write that shows that Redis is well again goes out with others that are not tried.  All are changed
 * until then, so that it has company.
 */
static void nothing_stays_parked_when_redis_is_well(void **state)
{
    enum { SESSIONS = 100 };
    struct world *world = start_world(NULL);
    (void)state;
    for (unsigned handle = 1; handle <= SESSIONS; handle++)
        insert_plain(world->table, handle);
    wait_until_redis_equals(world->table, world->redis);
    configure(world, "maxmemory", "1");
    change_all(world, SESSIONS, "full");
    wait_until(metric(world->address, "sesstab_parked_sessions") > 0);
    configure(world, "maxmemory", "0");
    do
        change_all(world, SESSIONS, "well");
    while (!redis_field_is(world->redis, TEST_PREFIX ":conn:1:metadata", "key", "well"));
    wait_until(metric(world->address, "sesstab_parked_sessions") == 0);
    wait_until_redis_equals(world->table, world->redis);
}

static void a_session_that_redis_refuses_shows(void **state)
{
    struct world *world = start_world((const char *[]){ "--health-lag", "500", NULL });
    const char *at = world->address;
    (void)state;
    insert_plain(world->table, 5);
    check_ok(sesstab_bind(world->table, 5, "#5", WAIT_LIMIT));
    freeReplyObject(redis_query(world->redis, "SET %s:conn:5 something", TEST_PREFIX));
    check_ok(sesstab_touch(world->table, 5, sesstab_now() + 5000));
    wait_until(metric(at, "sesstab_quarantined_sessions") == 1);
    check(metric(at, "sesstab_redis_errors_total{kind=\"wrongtype\"}") >= 1);
    check(metric(at, "sesstab_redis_refused_writes_total") >= 1);
    freeReplyObject(redis_query(world->redis, "DEL %s:conn:5", TEST_PREFIX));
    wait_until_redis_equals(world->table, world->redis);
    wait_until(ask(at, "/healthz") == 200);
}

static void lost_data_and_lost_connections_show(void **state)
{
    struct world *world = start_world(NULL);
    const char *at = world->address;
    (void)state;
    insert_plain(world->table, 1);
    check_ok(sesstab_bind(world->table, 1, "#1", WAIT_LIMIT));
    freeReplyObject(redis_query(world->redis, "FLUSHALL"));
    wait_until(metric(at, "sesstab_redis_losses_total{extent=\"all\"}") >= 1);
    wait_until_redis_equals(world->table, world->redis);
    kill_redis(world->redis);
    wait_until(health_says(at, 503, "Redis is away"));
    wait_until(metric(at, "sesstab_redis_errors_total{kind=\"unreachable\"}") >= 1);
    check(metric(at, "sesstab_redis_errors_total{kind=\"closed\"}") >= 1);
    check(metric(at, "sesstab_redis_disconnects_total") == 1);
    restart_redis(world->redis);
    wait_until(ask(at, "/healthz") == 200);
    check(metric(at, "sesstab_redis_connects_total") == 2);
    wait_until(metric(at, "sesstab_redis_losses_total{extent=\"all\"}") >= 2);
    wait_until_redis_equals(world->table, world->redis);
}

static void a_refused_login_shows(void **state)
{
    struct world *world = start_world(NULL);
    (void)state;
    configure(world, "requirepass", "secret");
    freeReplyObject(redis_query(world->redis, "CLIENT KILL TYPE normal SKIPME yes"));
    wait_until(metric(world->address, "sesstab_redis_errors_total{kind=\"noauth\"}") >= 1);
    wait_until(health_says(world->address, 503, "\"reason\":\"noauth\""));
}

/* Something answers, and it is not Redis. */
static void answer_garbage(void *context)
{
    int fd = *(int *)context;
    char request[512];
    for (;;) {
        int client = accept(fd, NULL, NULL);
        check(client >= 0);
        check(read(client, request, sizeof request) >= 0);
        check(write(client, "HTTP/1.1 400 no\r\n\r\n", 19) == 19);
        close(client);
    }
}

static void garbage_shows(void **state)
{
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    char url[128];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const char *at = new_address();
    (void)state;
    snprintf(path.sun_path, sizeof path.sun_path, "%s/garbage", scratch_directory());
    snprintf(url, sizeof url, "unix:%s/garbage", scratch_directory());
    check(fd >= 0 && bind(fd, (struct sockaddr *)&path, sizeof path) == 0 && listen(fd, 8) == 0);
    start_child(answer_garbage, &fd);
    start_persister(new_name(), url, (const char *[]){ "--metrics", at, NULL });
    wait_until(ask(at, "/healthz") != 0);
    wait_until(metric(at, "sesstab_redis_errors_total{kind=\"garbage\"}") >= 1);
    wait_until(health_says(at, 503, "\"reason\":\"garbage\""));
    close(fd);
}

/* ---------------------------------------------------------------- addresses -------------- */

static int run_persister(const char *address, const char *table, char *output, size_t size)
{
    return run_program((const char *[]){ program("persister"), "--table", table, "--create",
                           "--redis", "unix:/nowhere", "--metrics", address, NULL }, output, size);
}

static void addresses_that_are_none_are_refused(void **state)
{
    static const char *const wrong[][2] = {
        { "9100", "unix:PATH or tcp:HOST:PORT" }, { "tcp:127.0.0.1:0", "port" },
        { "tcp:127.0.0.1:70000", "port" }, { "tcp:localhost:9100", "in numbers" },
        { "tcp:0.0.0.0:9100", "not a loopback address" }, { "tcp:[::]:9100", "not a loopback address" },
        { "tcp:10.1.2.3:9100", "not a loopback address" }, { "unix:", "missing" },
    };
    char output[2048];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_equal(run_persister(wrong[i][0], "/never", output, sizeof output), 64);
        check(strstr(output, wrong[i][1]) != NULL);
    }
}

static int some_free_port(void)
{
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof any;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(fd >= 0 && bind(fd, (struct sockaddr *)&any, length) == 0 &&
          getsockname(fd, (struct sockaddr *)&any, &length) == 0);
    close(fd);
    return ntohs(any.sin_port);
}

static void an_address_in_use_is_an_error(void **state)
{
    struct world *world = start_world(NULL);
    char tcp[64], output[2048];
    (void)state;
    check_equal(run_persister(world->address, world->name, output, sizeof output), 1);
    check(strstr(output, "another process listens there") != NULL);
    check_equal(ask(world->address, "/healthz"), 200);
    snprintf(tcp, sizeof tcp, "tcp:127.0.0.1:%d", some_free_port());
    persister_at(world, tcp, NULL);
    wait_until(ask(tcp, "/healthz") == 200);
    check(metric(tcp, "sesstab_leader") == 0);
    check_equal(run_persister(tcp, world->name, output, sizeof output), 1);
    check(strstr(output, "another process listens there") != NULL);
}

static void a_dead_one_s_socket_is_replaced_and_nothing_else(void **state)
{
    struct world *world = start_world(NULL);
    char file[128], output[2048];
    const char *path = world->address + 5;
    struct stat s;
    int status;
    (void)state;
    check(stat(path, &s) == 0 && S_ISSOCK(s.st_mode) && (s.st_mode & 0777) == 0600);
    kill_child(world->persister);
    check(stat(path, &s) == 0);
    world->persister = persister_at(world, world->address, NULL);
    wait_until(ask(world->address, "/healthz") == 200);
    kill(world->persister, SIGTERM);
    check(waitpid(world->persister, &status, 0) == world->persister && status == 0);
    check(stat(path, &s) != 0);

    snprintf(file, sizeof file, "unix:%s/precious", scratch_directory());
    FILE *precious = fopen(file + 5, "w");
    check(precious && fputs("do not lose", precious) >= 0 && fclose(precious) == 0);
    check_equal(run_persister(file, world->name, output, sizeof output), 1);
    check(strstr(output, "no socket") && file_says(file + 5, "do not lose"));
}

/* ---------------------------------------------------------------- hostile clients -------- */

/* Each sends a byte now and then and would do so for ever, more of them than there may be. */
static void slow_clients_keep_nobody_from_asking(void **state)
{
    enum { SLOW = 200 };
    struct world *world = start_world(NULL);
    int fds[SLOW];
    (void)state;
    for (unsigned i = 0; i < SLOW; i++) {
        fds[i] = connect_to(world->address);
        if (fds[i] >= 0)
            send(fds[i], "GET /metr", 9, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    pid_t asker = fork();
    if (asker == 0) {
        become_child(getppid());
        _exit(ask(world->address, "/healthz") != 200);
    }
    int status, done = 0;
    wait_until((done = waitpid(asker, &status, WNOHANG)) != 0 ||
               (send(fds[random_below(SLOW)], "i", 1, MSG_NOSIGNAL | MSG_DONTWAIT), false));
    check(done == asker && status == 0);
    for (unsigned i = 0; i < SLOW; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void nonsense_is_survived(void **state)
{
    struct world *world = start_world(NULL);
    static char huge[1 << 20];
    (void)state;
    memset(huge, 'x', sizeof huge - 1);
    memcpy(huge, "GET /", 5);
    check(ask_raw(world->address, huge) != 200);
    memcpy(huge, "GET /metrics HTTP/1.1\r\nA: ", 26);
    check(ask_raw(world->address, huge) != 200);
    for (unsigned i = 0; i < rounds(300); i++) {
        size_t length = 1 + random_below(400);
        for (size_t k = 0; k < length; k++)
            huge[k] = (char)(1 + random_below(255));
        memcpy(huge + length, "\r\n\r\n", 5);
        int fd = connect_to(world->address);
        check(fd >= 0);
        send(fd, huge, length + 4, MSG_NOSIGNAL);
        close(fd);
    }
    check_equal(ask(world->address, "/healthz"), 200);
}

/* ---------------------------------------------------------------- what looks at it ------- */

/* Every sesstab_ name in FILE is one that is served. */
static unsigned check_names(const char *address, const char *file)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";
    static char text[1 << 18];
    unsigned count = 0;
    FILE *in = fopen(file, "r");
    check(in != NULL);
    size_t length = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    text[length] = 0;
    check_equal(ask(address, "/metrics"), 200);
    for (const char *at = strstr(text, "sesstab_"); at; at = strstr(at + 1, "sesstab_")) {
        char line[128];
        snprintf(line, sizeof line, "\n%.*s", (int)strspn(at, letters), at);
        const char *found = strstr(body(), line);
        while (found && found[strlen(line)] != ' ' && found[strlen(line)] != '{')
            found = strstr(found + 1, line);
        if (!found)
            test_fail(__FILE__, __LINE__, "%s: there is no metric%s", file, line);
        count++;
    }
    return count;
}

static cJSON *parse_file(const char *file)
{
    static char text[1 << 18];
    FILE *in = fopen(file, "r");
    check(in != NULL);
    text[fread(text, 1, sizeof text - 1, in)] = 0;
    fclose(in);
    return cJSON_Parse(text);
}

static void the_dashboard_and_the_alerts_use_what_is_served(void **state)
{
    struct world *world = start_world(NULL);
    char output[4096];
    unsigned panels = 0;
    const cJSON *panel;
    (void)state;
    cJSON *dashboard = parse_file("docs/grafana-dashboard.json");
    check(dashboard && cJSON_GetObjectItem(dashboard, "title"));
    cJSON_ArrayForEach(panel, cJSON_GetObjectItem(dashboard, "panels")) {
        const cJSON *target = cJSON_GetArrayItem(cJSON_GetObjectItem(panel, "targets"), 0);
        check(cJSON_GetObjectItem(panel, "title") && cJSON_GetObjectItem(panel, "gridPos"));
        check(target && strstr(cJSON_GetObjectItem(target, "expr")->valuestring, "sesstab_"));
        panels++;
    }
    cJSON_Delete(dashboard);
    check(panels >= 10);
    check(check_names(world->address, "docs/grafana-dashboard.json") >= panels);
    check(check_names(world->address, "docs/prometheus-alerts.yml") >= 5);
    int status = run_program((const char *[]){ "promtool", "check", "rules",
                                 "docs/prometheus-alerts.yml", NULL }, output, sizeof output);
    check_equal(status, 0);
    check(strstr(output, "SUCCESS") != NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(metrics_are_what_prometheus_wants),
        TEST(metrics_tell_what_the_table_holds),
        TEST(deaths_show),
        TEST(what_is_not_there_is_said_so),
        TEST(health_is_json_and_complete),
        TEST(a_stopped_redis_shows_as_lag_and_then_as_away),
        TEST(calls_that_wait_show),
        TEST(in_mode_memory_redis_does_not_matter),
        TEST(lag_stays_small_while_all_the_time_something_changes),
        TEST(a_table_that_is_not_loaded_is_not_well),
        TEST(a_leader_that_hangs_is_told_by_its_own_persister),
        TEST(a_stand_by_is_well_while_a_leader_lives_and_leads_afterwards),
        TEST(a_full_redis_shows),
        TEST(nothing_stays_parked_when_redis_is_well),
        TEST(a_session_that_redis_refuses_shows),
        TEST(lost_data_and_lost_connections_show),
        TEST(a_refused_login_shows),
        TEST(garbage_shows),
        TEST(addresses_that_are_none_are_refused),
        TEST(an_address_in_use_is_an_error),
        TEST(a_dead_one_s_socket_is_replaced_and_nothing_else),
        TEST(slow_clients_keep_nobody_from_asking),
        TEST(nonsense_is_survived),
        TEST(the_dashboard_and_the_alerts_use_what_is_served),
    };
    return run_all(tests);
}
