/*
 * persister - carries a table's changes to Redis.
 *
 * One thread sleeps in the store and writes to Redis (persister_lead.c), another one watches for
 * deaths (persister_watch.c), a third may ask for huge pages (persister_huge.c), a fourth tells how it
 * goes (persister_http.c).  A second persister of the same table stands by until the kernel says that
 * the first one is gone, or until that one has made no progress for --supersede-after.
 */
#include "tools/persister.h"

#include "lib/store.h"
#include "tools/log.h"
#include "tools/persister_batch.h"
#include "tools/persister_health.h"
#include "tools/persister_http.h"
#include "tools/persister_huge.h"
#include "tools/persister_import.h"
#include "tools/persister_lead.h"
#include "tools/persister_password.h"
#include "tools/persister_reconcile.h"
#include "tools/persister_renew.h"
#include "tools/persister_spawn.h"
#include "tools/persister_table.h"
#include "tools/persister_watch.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 64, STANDBY_MS = 20, SUPERSEDE_MIN_MS = 200 };

/* ---------------------------------------------------------------- signals ---------------- */

/* The first signal asks to flush and leave; the second leaves.  A successor finds everything. */
static void on_stop(int signal)
{
    if (stop_requested())
        _exit(128 + signal);
    stop_by(monotonic_ms() + STOP_MS);
}

/* Descriptors 0 to 2, where closed: else a socket might get their number, and log lines with it. */
static void fill_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static void on_reconcile(int signal)
{
    (void)signal;
    reconcile_request();
}

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_stop };
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = on_reconcile;
    sigaction(SIGUSR1, &action, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

/* ---------------------------------------------------------------- options ---------------- */

/* Read by libc: hidden, as everything is by default here, it would not be found. */
SESSTAB_API const char *argp_program_version = "persister (sesstab) " SESSTAB_VERSION;

enum {
    OPTION_CREATE = 0x100,
    OPTION_PERMISSIONS,
    OPTION_OWNER,
    OPTION_GROUP,
    OPTION_MAX_BYTES,
    OPTION_USER,
    OPTION_PASSWORD_FILE,
    OPTION_SENTINEL,
    OPTION_MASTER,
    OPTION_SENTINEL_PASSWORD_FILE,
    OPTION_ACK,
    OPTION_DATABASE,
    OPTION_PREFIX,
    OPTION_FLUSH_INTERVAL,
    OPTION_BATCH,
    OPTION_SPAWN_REDIS,
    OPTION_HUGE_PAGES,
    OPTION_METRICS,
    OPTION_HEALTH_LAG,
    OPTION_IMPORT_JSON,
    OPTION_LOG_LEVEL,
    OPTION_TIMEOUT,
    OPTION_SUPERSEDE_AFTER,
    OPTION_TTL,
    OPTION_RECONCILE,
    OPTION_DRY_RUN,
    OPTION_POLICY
};

static const struct argp_option options[] = {
    { NULL, 0, NULL, 0, "The table:", 1 },
    { "table", 't', "NAME", 0, "its name (/sesstab)", 1 },
    { "create", OPTION_CREATE, NULL, 0, "make it if there is none", 1 },
    { "permissions", OPTION_PERMISSIONS, "OCTAL", 0,
      "access mode when created, and the most that an existing one may allow (0600)", 1 },
    { "owner", OPTION_OWNER, "USER", 0, "a user who may own it, besides root and this one", 1 },
    { "group", OPTION_GROUP, "GROUP", 0, "its group, when created", 1 },
    { "max-bytes", OPTION_MAX_BYTES, "SIZE", 0,
      "how far it may grow, when created; with K, M or G (16G)", 1 },
    { "huge-pages", OPTION_HUGE_PAGES, NULL, 0,
      "put it on huge pages when it is loaded, and as it grows", 1 },
    { NULL, 0, NULL, 0, "Redis:", 2 },
    { "redis", 'r', "ADDRESS", 0, "unix:PATH or tcp:HOST:PORT (tcp:127.0.0.1:6379)", 2 },
    { "sentinel", OPTION_SENTINEL, "HOST:PORT,...", 0,
      "ask these sentinels where Redis is, instead of --redis", 2 },
    { "master", OPTION_MASTER, "NAME", 0, "what the sentinels call it", 2 },
    { "sentinel-password-file", OPTION_SENTINEL_PASSWORD_FILE, "FILE", 0,
      "the first line is the sentinels' own password", 2 },
    { "ack", OPTION_ACK, "WHEN", 0,
      "what durable means: memory (Redis has executed it), fsync (its disk has it) or replicas=N "
      "(N replicas have it) (memory)", 2 },
    { "user", OPTION_USER, "NAME", 0, "user name to log in with", 2 },
    { "password-file", OPTION_PASSWORD_FILE, "FILE", 0,
      "the password is its first line, read at each connect (else the variable "
      "SESSTAB_REDIS_PASSWORD)", 2 },
    { "db", OPTION_DATABASE, "N", 0, "database number (0)", 2 },
    { "prefix", OPTION_PREFIX, "TEXT", 0, "what all keys begin with (sesstab)", 2 },
    { "timeout", OPTION_TIMEOUT, "MS", 0, "how long an answer may take (5000)", 2 },
    { "ttl", OPTION_TTL, "SECONDS", 0,
      "how long sessions live in Redis without this persister, which renews it; 3 or more, 0: "
      "for ever (86400)", 2 },
    { "spawn-redis", OPTION_SPAWN_REDIS, "DIR", 0,
      "run a private redis-server whose files are in DIR, which is made if there is none, instead "
      "of --redis.  Its socket is DIR/redis.sock.  It is configured by DIR/redis.conf if there is "
      "one, and by default writes with appendfsync everysec: what is acknowledged survives the "
      "death of processes, but not a power cut", 2 },
    { NULL, 0, NULL, 0, "Pace:", 3 },
    { "flush-interval", OPTION_FLUSH_INTERVAL, "MS", 0,
      "how long changes that nobody waits for may gather (50)", 3 },
    { "batch", OPTION_BATCH, "N", 0, "most sessions in one write (128)", 3 },
    { "supersede-after", OPTION_SUPERSEDE_AFTER, "MS", 0,
      "standing by, replace a leader that lives but has made no progress for so long; 0: never "
      "(3000)", 3 },
    { NULL, 0, NULL, 0, "Comparing (a leader does so when it gets SIGUSR1):", 5 },
    { "reconcile", OPTION_RECONCILE, NULL, 0,
      "lead, compare every field, write what is wrong in Redis, print a report, and leave", 5 },
    { "dry-run", OPTION_DRY_RUN, NULL, 0,
      "with --reconcile: print the differences, change nothing; works beside a leader", 5 },
    { "policy", OPTION_POLICY, "WHO", 0,
      "what only Redis has: table: is removed there; redis: is adopted, if it can't be a session "
      "that ended (table)", 5 },
    { NULL, 0, NULL, 0, "Watching:", 6 },
    { "metrics", OPTION_METRICS, "ADDRESS", 0,
      "serve GET /metrics (Prometheus) and GET /healthz (JSON) at unix:PATH or "
      "tcp:127.0.0.1:PORT", 6 },
    { "health-lag", OPTION_HEALTH_LAG, "MS", 0,
      "how long a change may wait until it is durable before /healthz answers 503 (10000)", 6 },
    { NULL, 0, NULL, 0, "Importing:", 7 },
    { "import-json", OPTION_IMPORT_JSON, "PREFIX", 0,
      "import the sessions of an older layout (the set PREFIX:conn:active, JSON in "
      "PREFIX:conn:HANDLE) to --prefix, once; exit status 0: all of them, 1: some were bad, 2: "
      "failed; with --dry-run: only say what would be imported", 7 },
    { NULL, 0, NULL, 0, "Other:", -1 },
    { "log-level", OPTION_LOG_LEVEL, "LEVEL", 0, "error, warn, info or debug (info)", -1 },
    { 0 }
};

static const char doc[] =
    "Carries the changes of a sesstab table to Redis, and loads Redis into a fresh table."
    "\vOne persister leads a table; a second one stands by and takes over.  SIGTERM and SIGINT "
    "flush for at most 5 s and leave; what is not written by then (left= in the log) stays in the "
    "table for the next persister.  A second signal leaves at once, and loses nothing either.  Log "
    "lines (logfmt) go to standard error; those for which it has no room are counted "
    "(log-dropped).\n\n"
    "Exit status: 0 asked to leave, 1 failed (the log says why), 64 wrong usage, 128+N ended by a "
    "second signal N.  With --reconcile: 0 table and Redis were equal, 1 they were not, 2 it could "
    "not be done.  With --import-json: 0 all, 1 some were bad, 2 failed.";

struct arguments {
    struct settings settings;
    bool redis_given;
};

static unsigned long number_option(struct argp_state *state, const char *name, const char *text,
                                   unsigned long least, unsigned long most)
{
    char *rest;
    errno = 0;
    unsigned long value = strtoul(text, &rest, 10);
    if (errno || *rest || rest == text || *text == '-' || value < least || value > most)
        argp_error(state, "--%s wants a number from %lu to %lu, not '%s'", name, least, most,
                   text);
    return value;
}

static uint64_t size_option(struct argp_state *state, const char *text)
{
    static const char units[] = "KMG";
    char *rest;
    errno = 0;
    unsigned long long value = strtoull(text, &rest, 10);
    const char *unit = *rest ? strchr(units, *rest) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (errno || rest == text || *text == '-' || (*rest && (!unit || rest[1])) || value == 0 ||
        value > UINT64_MAX >> shift)
        argp_error(state, "--max-bytes wants a number, with K, M or G after it, not '%s'", text);
    return (uint64_t)value << shift;
}

static uint32_t mode_option(struct argp_state *state, const char *text)
{
    char *rest;
    unsigned long value = strtoul(text, &rest, 8);
    if (*rest || rest == text || value == 0 || value > 0777)
        argp_error(state, "--permissions wants an octal mode such as 660, not '%s'", text);
    return (uint32_t)value;
}

static uint32_t user_option(struct argp_state *state, const char *text)
{
    const struct passwd *user = getpwnam(text);
    if (user)
        return user->pw_uid;
    if (!isdigit((unsigned char)*text))
        argp_error(state, "--owner: there is no user '%s'", text);
    return (uint32_t)number_option(state, "owner", text, 0, UINT32_MAX - 1);
}

static int64_t group_option(struct argp_state *state, const char *text)
{
    const struct group *group = getgrnam(text);
    if (group)
        return group->gr_gid;
    if (!isdigit((unsigned char)*text))
        argp_error(state, "--group: there is no group '%s'", text);
    return (int64_t)number_option(state, "group", text, 0, UINT32_MAX - 1);
}

static unsigned ttl_option(struct argp_state *state, const char *text)
{
    if (strcmp(text, "0") == 0)
        return 0;
    return (unsigned)number_option(state, "ttl (unless it is 0)", text, TTL_MIN, TTL_MAX);
}

static enum policy policy_option(struct argp_state *state, const char *text)
{
    if (strcmp(text, "table") != 0 && strcmp(text, "redis") != 0)
        argp_error(state, "--policy wants table or redis, not '%s'", text);
    return strcmp(text, "redis") == 0 ? POLICY_REDIS : POLICY_TABLE;
}

/* With the slash in front, which may be left out. */
static const char *table_option(const char *text)
{
    static char name[SESSTAB_NAME_MAX + 3]; /* what is too long stays too long */
    if (*text == '/')
        return text;
    snprintf(name, sizeof name, "/%s", text);
    return name;
}

static const char *prefix_option(struct argp_state *state, const char *name, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f)
            argp_error(state, "--%s must not contain blanks or control characters", name);
    if (length == 0 || length > PREFIX_MAX)
        argp_error(state, "--%s wants 1 to %d bytes", name, PREFIX_MAX);
    return text;
}

static const char *filled_option(struct argp_state *state, const char *name, const char *text)
{
    if (!*text)
        argp_error(state, "--%s wants something, not ''", name);
    return text;
}

static void redis_option(struct argp_state *state, struct arguments *arguments, const char *text)
{
    const char *wrong = redis_parse_address(text, &arguments->settings.address);
    if (wrong)
        argp_error(state, "--redis '%s': %s", text, wrong);
    arguments->redis_given = true;
}

static void sentinel_option(struct argp_state *state, struct settings *settings, const char *text)
{
    const char *wrong = sentinels_parse(text, &settings->sentinels);
    if (wrong)
        argp_error(state, "--sentinel '%s': %s", text, wrong);
}

static void ack_option(struct argp_state *state, struct settings *settings, const char *text)
{
    const char *wrong = ack_parse(text, &settings->ack);
    if (wrong)
        argp_error(state, "--ack '%s': %s", text, wrong);
}

static void metrics_option(struct argp_state *state, struct settings *settings, const char *text)
{
    const char *wrong = http_parse_address(text, &settings->metrics);
    if (wrong)
        argp_error(state, "--metrics '%s': %s", text, wrong);
    settings->serves_metrics = true;
}

/*
 * The password of the environment, of which it is wiped: /proc and a private redis-server show
 * none.  NULL when unset or empty, as a container's file makes it.
 */
static const char *password_in_environment(void)
{
    static char password[PASSWORD_BYTES];
    char *given = getenv("SESSTAB_REDIS_PASSWORD");
    if (given) {
        snprintf(password, sizeof password, "%s", given);
        explicit_bzero(given, strlen(given));
        unsetenv("SESSTAB_REDIS_PASSWORD");
    }
    return *password ? password : NULL;
}

/* What excludes what, and what needs what. */
static void check_options(struct argp_state *state, const struct arguments *arguments)
{
    const struct settings *settings = &arguments->settings;
    const struct redis_login *login = &settings->login;
    bool sentinels = settings->sentinels.count;
    if (settings->spawn_directory && (arguments->redis_given || login->user ||
                                      login->password_file || sentinels))
        argp_error(state, "--spawn-redis excludes --redis, --sentinel, --user and --password-file");
    if (settings->dry_run && !settings->reconcile && !settings->import_from)
        argp_error(state, "--dry-run goes with --reconcile or --import-json");
    if (settings->spawn_directory && settings->reconcile)
        argp_error(state, "--reconcile wants a Redis that runs: --redis, not --spawn-redis");
    if (sentinels && arguments->redis_given)
        argp_error(state, "--sentinel excludes --redis: the sentinels say where it is");
    if (sentinels != (settings->sentinels.master != NULL))
        argp_error(state, "--sentinel and --master belong together");
    if (settings->sentinels.login.password_file && !sentinels)
        argp_error(state, "--sentinel-password-file wants --sentinel");
    if (login->user && !login->password_file && !password_in_environment())
        argp_error(state, "--user wants a password: --password-file FILE");
}

/* A leader shows its progress every TICK_MS: less than this would take a busy one for stopped. */
static int supersede_option(struct argp_state *state, const char *text)
{
    int ms = (int)number_option(state, "supersede-after", text, 0, 3600000);
    if (ms && ms < SUPERSEDE_MIN_MS)
        argp_error(state, "--supersede-after wants 0, or at least %d", SUPERSEDE_MIN_MS);
    return ms;
}

static void check_import(struct argp_state *state, const struct settings *settings)
{
    if (!settings->import_from)
        return;
    if (settings->reconcile)
        argp_error(state, "--import-json excludes --reconcile");
    if (settings->spawn_directory)
        argp_error(state, "--import-json excludes --spawn-redis");
    if (strcmp(settings->import_from, settings->prefix) == 0)
        argp_error(state, "--import-json and --prefix must differ: both layouts have their sessions "
                          "under %s:conn:HANDLE", settings->prefix);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    struct settings *settings = &arguments->settings;
    enum log_level level;
    switch (key) {
    case 't': settings->table = table_option(text); break;
    case 'r': redis_option(state, arguments, text); break;
    case OPTION_CREATE: settings->creation.create = true; break;
    case OPTION_PERMISSIONS: settings->creation.permissions = mode_option(state, text); break;
    case OPTION_OWNER: settings->creation.owner = user_option(state, text); break;
    case OPTION_GROUP: settings->creation.group = group_option(state, text); break;
    case OPTION_MAX_BYTES: settings->creation.max_bytes = size_option(state, text); break;
    case OPTION_HUGE_PAGES: settings->huge_pages = true; break;
    case OPTION_USER: settings->login.user = filled_option(state, "user", text); break;
    case OPTION_SENTINEL: sentinel_option(state, settings, text); break;
    case OPTION_MASTER:
        settings->sentinels.master = filled_option(state, "master", text);
        break;
    case OPTION_SENTINEL_PASSWORD_FILE:
        settings->sentinels.login.password_file = text;
        break;
    case OPTION_ACK: ack_option(state, settings, text); break;
    case OPTION_PASSWORD_FILE: settings->login.password_file = text; break;
    case OPTION_DATABASE:
        settings->login.database = (int)number_option(state, "db", text, 0, INT32_MAX);
        break;
    case OPTION_PREFIX: settings->prefix = prefix_option(state, "prefix", text); break;
    case OPTION_TIMEOUT:
        settings->timeout_ms = (int)number_option(state, "timeout", text, 10, 600000);
        break;
    case OPTION_RECONCILE: settings->reconcile = true; break;
    case OPTION_DRY_RUN: settings->dry_run = true; break;
    case OPTION_POLICY: settings->policy = policy_option(state, text); break;
    case OPTION_TTL: settings->ttl = ttl_option(state, text); break;
    case OPTION_SPAWN_REDIS:
        settings->spawn_directory = filled_option(state, "spawn-redis", text);
        break;
    case OPTION_FLUSH_INTERVAL:
        settings->flush_interval_ms = (unsigned)number_option(state, "flush-interval", text, 0,
                                                              60000);
        break;
    case OPTION_BATCH:
        settings->batch = (unsigned)number_option(state, "batch", text, 1, BATCH_MAX);
        break;
    case OPTION_SUPERSEDE_AFTER:
        settings->supersede_after_ms = supersede_option(state, text);
        break;
    case OPTION_METRICS: metrics_option(state, settings, text); break;
    case OPTION_HEALTH_LAG:
        settings->health_lag_ms = number_option(state, "health-lag", text, 1, 86400000);
        break;
    case OPTION_IMPORT_JSON:
        settings->import_from = prefix_option(state, "import-json", text);
        break;
    case OPTION_LOG_LEVEL:
        if (!log_parse_level(text, &level))
            argp_error(state, "--log-level wants error, warn, info or debug, not '%s'", text);
        log_set_level(level);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is not expected: every setting is an option", text);
        break;
    case ARGP_KEY_END:
        check_import(state, settings);
        check_options(state, arguments);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* False: said why. */
static bool has_password(const char *path)
{
    const char *wrong = path ? password_check(path) : NULL;
    if (wrong)
        log_event(LEVEL_ERROR, "failed", TEXT("file", path), TEXT("reason", wrong));
    return !wrong;
}

/* ---------------------------------------------------------------- running ---------------- */

static bool take_lead(const struct settings *settings, struct store *store)
{
    return store_lead(store) || (settings->supersede_after_ms &&
                                 store_supersede(store, settings->supersede_after_ms));
}

/* Who has a comparison to do does not wait for the leader's end. */
static void say_leader(const struct settings *settings, const struct store *store)
{
    char note[100];
    snprintf(note, sizeof note, "send SIGUSR1 to pid %d to have it done there",
             store_leader_pid(store));
    log_event(LEVEL_ERROR, "failed", TEXT("table", settings->table),
              TEXT("reason", "another persister leads"), TEXT("note", note));
}

/* Once: who fills a fresh table and is stopped is for people. */
static void say_stalled(const struct settings *settings, const struct store *store, bool *said)
{
    char note[100];
    if (*said || !settings->supersede_after_ms ||
        !store_filler_stalled(store, settings->supersede_after_ms))
        return;
    snprintf(note, sizeof note, "continue or kill pid %d: the table is not ready before",
             store_leader_pid(store));
    log_event(LEVEL_ERROR, "filler-stalled", TEXT("table", settings->table),
              TEXT("reason", "who fills the table makes no progress, and cannot be superseded"),
              TEXT("note", note));
    *said = true;
}

/* Looks again and again whether it may lead, for TICK_MS. */
static bool await_lead(const struct settings *settings, struct store *store)
{
    for (int i = 0; i < TICK_MS / STANDBY_MS && !stop_requested(); i++) {
        if (take_lead(settings, store))
            return true;
        pause_ms(STANDBY_MS);
    }
    return false;
}

/* False: stopped, or the table was removed, or its name means another segment (*FAILED). */
static bool stand_by(const struct settings *settings, struct store *store, bool *failed)
{
    bool said = false, said_stalled = false;
    while (!stop_requested()) {
        health_step();
        if (take_lead(settings, store))
            return true;
        say_stalled(settings, store, &said_stalled);
        if (settings->reconcile) {
            say_leader(settings, store);
            *failed = true;
            return false;
        }
        if (!said)
            log_event(LEVEL_INFO, "standby", TEXT("table", settings->table),
                      TEXT("note", "another persister leads"));
        said = true;
        enum table_name name = table_look(settings->table, store_creation_id(store));
        if (name == NAME_REMOVED) { /* nobody can join; the leader serves those who are left */
            log_event(LEVEL_INFO, "leaving", TEXT("reason", "the table was removed"));
            return false;
        }
        if (name == NAME_REPLACED) {
            log_event(LEVEL_ERROR, "failed",
                      TEXT("reason", "the table's name now means another segment"));
            *failed = true;
            return false;
        }
        if (await_lead(settings, store))
            return true;
    }
    return false;
}

static int serve_table(const struct settings *settings, sesstab *table, struct spawn *spawn,
                       const struct watch *watch)
{
    for (;;) {
        bool failed = false;
        struct store *store = store_open(table);
        if (!store) {
            log_event(LEVEL_ERROR, "failed", TEXT("reason", "out of memory"));
            return EXIT_FAILED;
        }
        enum ending ending = ENDING_STOPPED;
        if (stand_by(settings, store, &failed)) {
            struct huge *huge = settings->huge_pages ? huge_start(table) : NULL;
            ending = lead(settings, table, store, spawn, watch);
            huge_stop(huge);
        }
        store_close(store);
        if (ending == ENDING_SUPERSEDED)
            continue;
        return failed || ending == ENDING_FAILED ? EXIT_FAILED : EXIT_OK;
    }
}

static int run(const struct settings *settings, struct spawn *spawn)
{
    sesstab *table;
    int error = sesstab_open(settings->table, &settings->creation, &table);
    if (error) {
        log_event(LEVEL_ERROR, "failed", TEXT("table", settings->table),
                  TEXT("reason", *sesstab_error_detail() ? sesstab_error_detail()
                                                         : sesstab_strerror(error)),
                  TEXT("note", error == SESSTAB_NOTFOUND ? "start its server first, or use --create"
                                                         : NULL));
        return error == SESSTAB_INVALID ? EXIT_USAGE : EXIT_FAILED;
    }
    struct http *http = settings->serves_metrics ? http_start(table, settings) : NULL;
    struct watch *watch = http || !settings->serves_metrics ? watch_start(table) : NULL;
    int status = EXIT_FAILED;
    if (watch)
        status = serve_table(settings, table, spawn, watch);
    else if (http || !settings->serves_metrics)
        log_event(LEVEL_ERROR, "failed", TEXT("reason", "the thread that watches for deaths "
                                                        "could not be started"));
    watch_stop(watch);
    http_stop(http);
    sesstab_close(table);
    return status;
}

static int run_with_redis(struct settings *settings)
{
    struct spawn spawn;
    char address[sizeof settings->address.text];
    if (!settings->spawn_directory)
        return run(settings, NULL);
    const char *wrong = spawn_prepare(&spawn, settings->spawn_directory);
    if (!wrong) {
        snprintf(address, sizeof address, "unix:%s", spawn.socket);
        wrong = redis_parse_address(address, &settings->address);
    }
    if (wrong) {
        log_event(LEVEL_ERROR, "failed", TEXT("directory", settings->spawn_directory),
                  TEXT("reason", wrong));
        return EXIT_FAILED;
    }
    int status = run(settings, &spawn);
    spawn_stop(&spawn);
    return status;
}

/* For what looks at one server, once; false: said that no sentinel knows it. */
static bool find_master(struct settings *settings)
{
    if (!settings->sentinels.count ||
        sentinel_find(&settings->sentinels, settings->timeout_ms, &settings->address))
        return true;
    log_event(LEVEL_ERROR, "failed", TEXT("master", settings->sentinels.master),
              TEXT("reason", "no sentinel says where it is"));
    return false;
}

/* 1 means something else where there is something to tell about the data. */
static int failed_status(const struct settings *settings)
{
    return settings->import_from ? (int)IMPORT_FAILED
           : settings->reconcile ? RECONCILE_FAILED : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    static const struct argp parser = { options, parse_option, NULL, doc, NULL, NULL, NULL };
    struct arguments arguments = {
        .settings = { .table = "/sesstab", .prefix = "sesstab", .flush_interval_ms = 50,
                      .batch = 128, .timeout_ms = 5000, .supersede_after_ms = 3000,
                      .ttl = TTL_DEFAULT, .health_lag_ms = 10000 }
    };
    struct settings *settings = &arguments.settings;
    fill_standard_descriptors();
    redis_parse_address("tcp:127.0.0.1:6379", &settings->address);
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    const char *password = password_in_environment(); /* wiped also where it is not used */
    if (!settings->spawn_directory)
        settings->login.password = password;
    if (!has_password(settings->login.password_file) ||
        !has_password(settings->sentinels.login.password_file))
        return failed_status(settings);
    srandom((unsigned)getpid() ^ (unsigned)monotonic_ms());
    catch_signals();
    if ((settings->import_from || settings->dry_run) && !find_master(settings))
        return failed_status(settings);
    if (settings->import_from)
        return (int)import_run(settings);
    if (settings->dry_run)
        return reconcile_dry_run(settings);
    int status = run_with_redis(settings);
    if (settings->reconcile && status != EXIT_USAGE)
        status = reconcile_status();
    log_event(LEVEL_INFO, "ended", NUMBER("status", (uint64_t)status));
    return status;
}
