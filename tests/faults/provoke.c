/*
 * The faults: how each begins, goes on and ends.
 *
 * The persister logs in as a user of its own, "faults", so that what is done to that user does not
 * shut out the driver, which is the default user.
 */
#include "tests/faults/faults.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const fault_redis_options[] = {
    "--appendonly", "yes", "--appendfsync", "always", "--loading-process-events-interval-bytes",
    "1024", "--user", "faults", "on", ">secret", "~*", "&*", "+@all", NULL
};

/* What is loaded, is loaded slowly. */
static const char *const loading_options[] = {
    "--appendonly", "yes", "--appendfsync", "always", "--loading-process-events-interval-bytes",
    "1024", "--user", "faults", "on", ">secret", "~*", "&*", "+@all", "--key-load-delay", "100",
    NULL
};

static void start_persister_as(struct scene *s, const char *const *login)
{
    char url[112];
    const char *options[16] = { "--timeout", "400", "--flush-interval", "20", "--metrics",
                                s->stage->metrics };
    unsigned count = 6;
    for (; *login; login++)
        options[count++] = *login;
    snprintf(url, sizeof url, "unix:%s", s->stage->proxy.listen_on);
    s->persister = start_persister(s->name, url, options);
    s->before[0] = '\0';
    snprintf(s->log, sizeof s->log, "%s", persister_log());
}

void scene_start_persister(struct scene *s)
{
    char file[128];
    snprintf(file, sizeof file, "%s/password", scratch_directory());
    int descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check(descriptor >= 0 && write(descriptor, "secret\n", 7) == 7);
    close(descriptor);
    start_persister_as(s, (const char *const[]){ "--user", "faults", "--password-file", file,
                                                 NULL });
}

/* A command of words without blanks. */
static void ask(struct scene *s, const char *command)
{
    freeReplyObject(redis_query(s->redis, command));
}

static void done(struct scene *s)
{
    s->injected++;
}

static void cut_clients(struct scene *s)
{
    ask(s, "CLIENT KILL TYPE normal SKIPME yes");
}

static void order(struct scene *s, struct proxy_wish wish)
{
    proxy_order(&s->stage->proxy, wish);
}

static void proxy_end(struct scene *s)
{
    order(s, (struct proxy_wish){ .mode = PASS });
    s->injected += s->stage->proxy.injected;
}

/* ---------------------------------------------------------------- the process ------------ */

static void killed_begin(struct scene *s) { kill_redis(s->redis); done(s); }
static void killed_end(struct scene *s) { restart_redis(s->redis); }

static void stopped_begin(struct scene *s) { kill(s->redis->pid, SIGSTOP); done(s); }
static void stopped_end(struct scene *s) { kill(s->redis->pid, SIGCONT); }

static void remove_files(struct scene *s)
{
    char path[128], output[64];
    snprintf(path, sizeof path, "%s/appendonlydir", s->redis->directory);
    check_equal(run_program((const char *[]){ "rm", "-rf", path, NULL }, output, sizeof output), 0);
}

static void empty_end(struct scene *s)
{
    remove_files(s);
    restart_redis(s->redis);
}

static void old_begin(struct scene *s)
{
    char path[128], output[64];
    snprintf(path, sizeof path, "%s/appendonlydir", s->redis->directory);
    snprintf(s->copy, sizeof s->copy, "%s/old", s->redis->directory);
    check_equal(run_program((const char *[]){ "cp", "-a", path, s->copy, NULL }, output,
                            sizeof output), 0);
    done(s);
}

/* The longer the fault, the older the file. */
static void old_end(struct scene *s)
{
    char path[128], output[64];
    snprintf(path, sizeof path, "%s/appendonlydir", s->redis->directory);
    kill_redis(s->redis);
    remove_files(s);
    check_equal(run_program((const char *[]){ "mv", s->copy, path, NULL }, output, sizeof output),
                0);
    restart_redis(s->redis);
}

static void loading_begin(struct scene *s)
{
    kill_redis(s->redis);
    s->redis->options = loading_options;
    restart_redis(s->redis); /* comes back when it has loaded */
    done(s);
}

static void loading_end(struct scene *s)
{
    s->redis->options = fault_redis_options;
    ask(s, "CONFIG SET key-load-delay 0");
}

/* ---------------------------------------------------------------- its data --------------- */

static void flushall_begin(struct scene *s) { ask(s, "FLUSHALL"); done(s); }

static void flushall_step(struct scene *s)
{
    if (random_below(10) == 0)
        flushall_begin(s);
}

static void script_flush_step(struct scene *s) { ask(s, "SCRIPT FLUSH"); done(s); }
static void nothing(struct scene *s) { (void)s; }

/* Something else under one key; again and again, because the persister may replace it. */
static void spoil(struct scene *s, const char *key)
{
    freeReplyObject(redis_query(s->redis, "SET %s x", key));
    done(s);
}

static void unspoil(struct scene *s, const char *key)
{
    freeReplyObject(redis_query(s->redis, "DEL %s", key));
}

static void record_step(struct scene *s) { spoil(s, TEST_PREFIX ":conn:1000"); }
static void record_end(struct scene *s) { unspoil(s, TEST_PREFIX ":conn:1000"); }
static void metadata_step(struct scene *s) { spoil(s, TEST_PREFIX ":conn:1100:metadata"); }
static void metadata_end(struct scene *s) { unspoil(s, TEST_PREFIX ":conn:1100:metadata"); }
static void active_step(struct scene *s) { spoil(s, TEST_PREFIX ":conn:active"); }

static void active_end(struct scene *s) { unspoil(s, TEST_PREFIX ":conn:active"); }

/* Of sessions that nobody changes meanwhile, so that no write repairs them by the way. */
static void lost_begin(struct scene *s)
{
    workload_rest(s->stage);
    check_ok(sesstab_set(s->stage->table, changed_handle(0, 0), "lost", "yes", 3));
    wait_until(redis_integer(s->redis, "EXISTS " TEST_PREFIX ":conn:1100:metadata"));
    unspoil(s, TEST_PREFIX ":conn:1100:metadata");
    check_equal(redis_integer(s->redis, "SREM " TEST_PREFIX ":conn:active 900001"), 1);
    wait_until(redis_integer(s->redis, "EXISTS " TEST_PREFIX ":conn:1100:metadata"));
    workload_go(s->stage, DURING);
    done(s);
}

/* ---------------------------------------------------------------- its configuration ------ */

static void config_step(struct scene *s)
{
    static const char *const changes[] = {
        "CONFIG SET appendonly no", "CONFIG SET timeout 1", "CONFIG SET maxmemory 1gb",
        "CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET appendfsync everysec",
        "CONFIG SET appendonly yes", "CONFIG SET timeout 0", "CONFIG SET maxmemory 0",
        "CONFIG SET maxmemory-policy noeviction", "CONFIG SET appendfsync always",
    };
    ask(s, changes[s->injected % (sizeof changes / sizeof *changes)]);
    done(s);
}

static void config_end(struct scene *s)
{
    while (s->injected % 10)
        config_step(s);
}

/* The lead has to be taken, and to be used, where no memory is left. */
static void oom_begin(struct scene *s)
{
    ask(s, "CONFIG SET maxmemory 1");
    cut_clients(s);
    done(s);
}

static void oom_end(struct scene *s) { ask(s, "CONFIG SET maxmemory 0"); }

/* A directory where the file is to be written: saving fails, whoever asks. */
static void misconf_begin(struct scene *s)
{
    char path[128];
    snprintf(path, sizeof path, "%s/dump.rdb", s->redis->directory);
    check(mkdir(path, 0700) == 0);
    freeReplyObject(redis_query(s->redis, "CONFIG SET save %s", "3600 1"));
    ask(s, "BGSAVE");
    done(s);
}

static void misconf_end(struct scene *s)
{
    char path[128];
    snprintf(path, sizeof path, "%s/dump.rdb", s->redis->directory);
    check(rmdir(path) == 0);
    freeReplyObject(redis_query(s->redis, "CONFIG SET save %s", ""));
}

static void noreplicas_begin(struct scene *s)
{
    ask(s, "CONFIG SET min-replicas-to-write 1");
    done(s);
}

static void noreplicas_end(struct scene *s) { ask(s, "CONFIG SET min-replicas-to-write 0"); }

/* Of a master that is never there: it keeps its data. */
static void readonly_begin(struct scene *s) { ask(s, "REPLICAOF 127.0.0.1 1"); done(s); }
static void readonly_end(struct scene *s) { ask(s, "REPLICAOF NO ONE"); }

static void masterdown_begin(struct scene *s)
{
    ask(s, "CONFIG SET replica-serve-stale-data no");
    readonly_begin(s);
}

static void masterdown_end(struct scene *s)
{
    readonly_end(s);
    ask(s, "CONFIG SET replica-serve-stale-data yes");
}

/* ---------------------------------------------------------------- who may ---------------- */

/* The persister is started again without a password, which it does not need at first. */
static void noauth_begin(struct scene *s)
{
    kill_child(s->persister);
    start_persister_as(s, (const char *const[]){ NULL });
    wait_until(file_says(s->log, "event=connected"));
    ask(s, "CONFIG SET requirepass secret");
    cut_clients(s);
    done(s);
}

static void noauth_end(struct scene *s)
{
    freeReplyObject(redis_query(s->redis, "CONFIG SET requirepass %s", ""));
}

static void wrongpass_begin(struct scene *s)
{
    ask(s, "ACL SETUSER faults resetpass >other");
    cut_clients(s);
    done(s);
}

static void wrongpass_end(struct scene *s) { ask(s, "ACL SETUSER faults resetpass >secret"); }

static void noperm_begin(struct scene *s) { ask(s, "ACL SETUSER faults -hset"); done(s); }
static void noperm_end(struct scene *s) { ask(s, "ACL SETUSER faults +hset"); }

static void nokeys_begin(struct scene *s) { ask(s, "ACL SETUSER faults resetkeys ~other*"); done(s); }
static void nokeys_end(struct scene *s) { ask(s, "ACL SETUSER faults ~*"); }

/* Only some of a batch's commands: the others would be executed, but for EXECABORT. */
static void execabort_begin(struct scene *s) { ask(s, "ACL SETUSER faults -sadd -srem"); done(s); }
static void execabort_end(struct scene *s) { ask(s, "ACL SETUSER faults +sadd +srem"); }

/* ---------------------------------------------------------------- its clients ------------ */

static void clients_step(struct scene *s) { cut_clients(s); done(s); }

/* Every place is taken by others; the persister's connection is lost. */
static void maxclients_begin(struct scene *s)
{
    for (unsigned i = 0; i < 8; i++)
        s->extra[i] = redisConnectUnix(s->redis->socket);
    cut_clients(s);
    for (unsigned i = 0; i < 8; i++) {
        redisFree(s->extra[i]);
        s->extra[i] = redisConnectUnix(s->redis->socket);
    }
    ask(s, "CONFIG SET maxclients 1");
    cut_clients(s);
    done(s);
}

static void maxclients_end(struct scene *s)
{
    ask(s, "CONFIG SET maxclients 1000");
    for (unsigned i = 0; i < 8; i++) {
        redisFree(s->extra[i]);
        s->extra[i] = NULL;
    }
}

static void busy_begin(struct scene *s)
{
    ask(s, "CONFIG SET busy-reply-threshold 50");
    s->extra[0] = redisConnectUnix(s->redis->socket);
    check(s->extra[0] && !s->extra[0]->err);
    redisAppendCommand(s->extra[0], "EVAL %s 0", "while true do end");
    int sent = 0;
    while (!sent)
        check(redisBufferWrite(s->extra[0], &sent) == REDIS_OK);
    done(s);
}

static void busy_end(struct scene *s)
{
    ask(s, "SCRIPT KILL");
    redisFree(s->extra[0]);
    s->extra[0] = NULL;
}

/* ---------------------------------------------------------------- the way there ---------- */

static const char *const error_lines[] = {
    "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "-MISCONF Redis is configured to save RDB snapshots\r\n", "-LOADING Redis is loading\r\n",
    "-BUSY Redis is busy running a script.\r\n", "-READONLY You can't write\r\n",
    "-MASTERDOWN Link with MASTER is down\r\n", "-NOREPLICAS Not enough good replicas\r\n",
    "-NOAUTH Authentication required.\r\n", "-NOPERM this user has no permissions\r\n",
    "-EXECABORT Transaction discarded because of previous errors.\r\n", "-TRYAGAIN again\r\n",
    "-CLUSTERDOWN Hash slot not served\r\n", "-MOVED 1 127.0.0.1:1\r\n", "-NOSCRIPT no\r\n",
    "-UNBLOCKED force\r\n", "-ERR unknown command\r\n", "-ERR\r\n", "-\r\n", NULL
};

static const char *const garbage[] = {
    "HTTP/1.1 400 Bad Request\r\n\r\n", "\r\n", "*\r\n", "$\r\n", "*-7\r\n", "$-7\r\n", ":x\r\n",
    "$3\r\nab", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", "\x7f\x45\x4c\x46",
    "+OK\r\n", "+QUEUED\r\n", ":1\r\n", "*0\r\n", "$-1\r\n", "*-1\r\n", "_\r\n", "%1\r\n",
    "\xff\xff\xff\xff", NULL
};

static const char *const huge[] = {
    "*4000000000\r\n", "*2000000000\r\n", "*100000000\r\n", "$4294967296\r\n", "$2147483647\r\n",
    "$536870912\r\n", "*9223372036854775807\r\n", NULL
};

static void way(struct scene *s, enum proxy_mode mode, unsigned directions)
{
    order(s, (struct proxy_wish){ .mode = mode, .directions = directions });
}

static void blackhole_begin(struct scene *s) { way(s, HOLE, BOTH); }

static void delay_begin(struct scene *s)
{
    order(s, (struct proxy_wish){ .mode = DELAY, .directions = BOTH, .delay_ms = 60 });
}

static void trickle_begin(struct scene *s) { way(s, TRICKLE, BOTH); }
static void cut_begin(struct scene *s) { way(s, CUT, BOTH); }
static void duplicate_begin(struct scene *s) { way(s, DUPLICATE, BOTH); }
static void truncate_begin(struct scene *s) { way(s, TRUNCATE, BOTH); }
static void replies_begin(struct scene *s) { way(s, CORRUPT, REPLIES); }
static void requests_begin(struct scene *s) { way(s, CORRUPT, REQUESTS); }

static void errors_begin(struct scene *s)
{
    order(s, (struct proxy_wish){ .mode = INJECT, .directions = REPLIES, .texts = error_lines,
                                  .instead = random_below(2) });
}

static void garbage_begin(struct scene *s)
{
    order(s, (struct proxy_wish){ .mode = INJECT, .directions = REPLIES, .texts = garbage,
                                  .instead = random_below(2) });
}

static void huge_begin(struct scene *s)
{
    order(s, (struct proxy_wish){ .mode = INJECT, .directions = REPLIES, .texts = huge,
                                  .flood = true });
}

/* ---------------------------------------------------------------- all of them ------------ */

#define UNKNOWN "unknown: nobody answers in time; the binding stays and is resolved afterwards"
#define REFUSED "refused: rolled back"
#define DURABLE "durable"
#define EITHER "either: durable, or unknown while the connection is made anew"

#define ERRORS(kind) "sesstab_redis_errors_total{kind=\"" kind "\"}"
#define SLOW "sesstab_redis_round_trip_seconds_count - "                                           \
             "sesstab_redis_round_trip_seconds_bucket{le=\"0.1\"}"
#define LOSSES(extent) "sesstab_redis_losses_total{extent=\"" extent "\"}"

const struct fault faults[] = {
    { "killed", "SIGKILL, and started again with its file (appendfsync always)", UNKNOWN,
      "event=disconnected", ERRORS("closed"), SHORT, killed_begin, NULL, killed_end },
    { "stopped", "SIGSTOP, SIGCONT", UNKNOWN, "event=disconnected", ERRORS("timeout"), SHORT,
      stopped_begin, NULL, stopped_end },
    { "black hole", "nothing arrives, in either direction; later all of it", UNKNOWN,
      "event=disconnected", ERRORS("timeout"), SHORT, blackhole_begin, NULL, proxy_end },
    { "trickle", "one byte a second in either direction", UNKNOWN, "event=disconnected",
      ERRORS("timeout"), 0, trickle_begin, NULL, proxy_end },
    { "delay", "everything comes 60 ms later, in either direction",
      "either: durable, or unknown when its time-out is shorter than what that takes", "", SLOW,
      0, delay_begin, NULL, proxy_end },
    { "restarted empty", "killed, and started again without its file", UNKNOWN, "event=lost",
      LOSSES("all"), LOSES | SHORT, killed_begin, NULL, empty_end },
    { "old file", "killed, and started again with an older file", DURABLE, "event=disconnected",
      LOSSES("*"), LOSES | SHORT, old_begin, NULL, old_end },
    { "FLUSHALL", "again and again", DURABLE, "event=lost", LOSSES("all"), LOSES | SHORT,
      flushall_begin, flushall_step, nothing },
    { "SCRIPT FLUSH", "again and again", DURABLE, "", "", 0, nothing, script_flush_step, nothing },
    { "CONFIG", "appendonly, appendfsync, timeout, maxmemory, maxmemory-policy change all the time",
      DURABLE, "event=redis-reconfigured", "sesstab_redis_reconfigurations_total", BY_CHANCE,
      nothing, config_step, config_end },
    { "LOADING", "killed, and takes long to load its file", UNKNOWN, "LOADING", ERRORS("loading"),
      0, loading_begin, NULL, loading_end },
    { "READONLY", "made the replica of a master that is not there", UNKNOWN, "replica",
      ERRORS("readonly"), SHORT, readonly_begin, NULL, readonly_end },
    { "MASTERDOWN", "the same, with replica-serve-stale-data no", UNKNOWN, "replica",
      ERRORS("masterdown"), 0, masterdown_begin, NULL, masterdown_end },
    { "OOM", "maxmemory 1, and connections cut", REFUSED, "OOM", ERRORS("oom"), MAY_REFUSE | SHORT,
      oom_begin, NULL, oom_end },
    { "MISCONF", "cannot write its file", REFUSED, "MISCONF", ERRORS("misconf"), MAY_REFUSE,
      misconf_begin, NULL, misconf_end },
    { "BUSY", "a script that does not end", UNKNOWN, "BUSY", ERRORS("busy"), 0, busy_begin, NULL,
      busy_end },
    { "NOAUTH", "requirepass, and connections cut", UNKNOWN, "NOAUTH", ERRORS("noauth"), 0,
      noauth_begin, NULL, noauth_end },
    { "WRONGPASS", "another password, and connections cut", UNKNOWN, "WRONGPASS",
      ERRORS("wrongpass"), SHORT, wrongpass_begin, NULL, wrongpass_end },
    { "NOPERM", "the ACL forbids HSET", REFUSED, "NOPERM", ERRORS("noperm"), MAY_REFUSE | SHORT,
      noperm_begin, NULL, noperm_end },
    { "NOPERM keys", "the ACL forbids all our keys", UNKNOWN, "NOPERM", ERRORS("noperm"),
      MAY_REFUSE, nokeys_begin, NULL, nokeys_end },
    { "EXECABORT", "the ACL forbids SADD and SREM: some commands of a batch",
      "durable: those that need neither", "NOPERM", ERRORS("execabort"), MAY_REFUSE,
      execabort_begin, NULL, execabort_end },
    { "WRONGTYPE record", "a string lies under one session's key",
      "refused: that one, until the persister has replaced it; all others durable", "WRONGTYPE",
      ERRORS("wrongtype"), MAY_REFUSE | LOSES | SHORT, nothing, record_step, record_end },
    { "lost key", "one session's metadata are deleted, and another's place in the active set",
      DURABLE, "event=compared", "sesstab_redis_sessions_repaired_total", LOSES | SHORT, lost_begin,
      NULL, nothing },
    { "WRONGTYPE metadata", "a string lies under one session's metadata key", DURABLE,
      "WRONGTYPE", ERRORS("wrongtype"), LOSES, nothing, metadata_step, metadata_end },
    { "WRONGTYPE active", "a string lies under the active set's key",
      "unknown once it is noticed (a second): without the set nobody finds the session", "WRONGTYPE",
      ERRORS("wrongtype"), LOSES, nothing, active_step, active_end },
    { "NOREPLICAS", "min-replicas-to-write 1", UNKNOWN, "NOREPLICAS", ERRORS("noreplicas"), 0,
      noreplicas_begin, NULL, noreplicas_end },
    { "CLIENT KILL", "the connections are cut all the time", EITHER, "event=disconnected",
      ERRORS("closed"), 0, nothing, clients_step, nothing },
    { "maxclients", "no connection is left for the persister", UNKNOWN, "max number of clients",
      ERRORS("maxclients"), SHORT | BY_CHANCE, maxclients_begin, NULL, maxclients_end },
    { "cut", "the connection is cut after any byte, all the time", EITHER, "event=disconnected",
      ERRORS("closed"), SHORT, cut_begin, NULL, proxy_end },
    { "truncated", "from any byte on nothing comes any more", EITHER, "event=disconnected",
      ERRORS("timeout"), BY_CHANCE, truncate_begin, NULL, proxy_end },
    { "duplicated", "some requests and replies come twice", EITHER, "event=disconnected",
      ERRORS("garbage"), SHORT | BY_CHANCE, duplicate_begin, NULL, proxy_end },
    { "corrupt replies", "some bytes are others", EITHER, "event=disconnected", ERRORS("garbage"),
      SHORT | BY_CHANCE, replies_begin, NULL, proxy_end },
    { "corrupt requests", "some bytes of frames and command names are others", EITHER,
      "event=disconnected", ERRORS("*"), BY_CHANCE, requests_begin, NULL,
      proxy_end },
    { "error lines", "errors of every kind in the replies", EITHER, "event=disconnected",
      ERRORS("*"), MAY_REFUSE, errors_begin, NULL, proxy_end },
    { "garbage", "what is no reply, or nobody's", EITHER, "event=disconnected", ERRORS("garbage"),
      SHORT | BY_CHANCE, garbage_begin, NULL, proxy_end },
    { "huge replies", "of four billion elements, of 4 GiB, with all the bytes there are", EITHER,
      "event=disconnected", ERRORS("too-large"), SHORT | BY_CHANCE, huge_begin, NULL, proxy_end },
};
const unsigned fault_count = sizeof faults / sizeof *faults;
