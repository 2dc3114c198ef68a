/*
 * APCu: the shared memory of PHP's processes, asked by a PHP script (apcu.php) that does the loops
 * and looks at its own clock.  What PHP takes for the loop itself is subtracted; what it takes for
 * calling a function is in the figures, since nobody can use APCu without it.  PHP is not pinned.
 */
#include "bench/sandbox.h"
#include "bench/table/contender.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES_PER_SESSION = 800, MEGABYTES_MORE = 16, ANSWER_MAX = 512 };

struct table {
    char sessions[24], hint[48], megabytes[48], script[4096];
    int in[2], out[2]; /* pipes from here to PHP and back */
    FILE *to, *from;
    pid_t php;
};

/* ---------------------------------------------------------------- asking ---------------- */

/* The answer behind "ok "; NULL: PHP failed, and the text says why. */
static const char *answer_of(struct table *t, char text[ANSWER_MAX])
{
    if (!fgets(text, ANSWER_MAX, t->from))
        snprintf(text, ANSWER_MAX, "PHP has ended");
    text[strcspn(text, "\n")] = 0;
    return strncmp(text, "ok ", 3) == 0 ? text + 3 : NULL;
}

static const char *try_to_ask(struct table *t, const char *operation, const struct keys *keys,
                              unsigned workers, uint64_t ns, char text[ANSWER_MAX])
{
    size_t count = keys ? keys->count : 0;
    fprintf(t->to, "%s %zu %u %llu\n", operation, count, workers, (unsigned long long)ns);
    if (count)
        fwrite(keys->handles, sizeof *keys->handles, count, t->to);
    fflush(t->to);
    return answer_of(t, text);
}

static double ask(struct table *t, const char *operation, const struct keys *keys, unsigned workers,
                  uint64_t ns)
{
    char text[ANSWER_MAX];
    const char *answer = try_to_ask(t, operation, keys, workers, ns, text);
    if (!answer)
        bench_fail("apcu: %s: %s", operation, text);
    return strtod(answer, NULL);
}

static const char *const names[OPERATION_COUNT] = {
    [OPERATION_COPY] = "copy",   [OPERATION_MISS] = "miss",
    [OPERATION_BATCH] = "batch", [OPERATION_TOUCH] = "touch",
    [OPERATION_SET] = "set",     [OPERATION_INSERT_REMOVE] = "insert+remove",
    [OPERATION_SCAN] = "scan",
};

/* A scan has no keys, but their count: any will do. */
static uint64_t clocked(void *table, enum operation operation, const struct keys *keys)
{
    struct keys some = *keys;
    if (!some.handles)
        some.handles = bench_memory(some.count, sizeof *some.handles);
    double ns = ask(table, names[operation], &some, 1, 0);
    if (some.handles != keys->handles)
        free((void *)some.handles);
    return (uint64_t)ns;
}

static double mixed(void *table, const struct keys *keys, unsigned workers, uint64_t ns)
{
    return ask(table, "mix", keys, workers, ns);
}

#define UNCLOCKED(name, operation)                                                                 \
    static uint64_t name(void *table, const struct keys *keys)                                     \
    {                                                                                              \
        return clocked(table, operation, keys);                                                    \
    }

UNCLOCKED(get_copy, OPERATION_COPY)
UNCLOCKED(get_miss, OPERATION_MISS)
UNCLOCKED(get_batch, OPERATION_BATCH)
UNCLOCKED(touches, OPERATION_TOUCH)
UNCLOCKED(sets, OPERATION_SET)
UNCLOCKED(inserts, OPERATION_INSERT_REMOVE)
UNCLOCKED(scans, OPERATION_SCAN)

static bool read_back(void *table, uint64_t handle, struct record *record)
{
    char text[ANSWER_MAX];
    struct keys one = { &handle, NULL, 1 };
    const char *hex = try_to_ask(table, "read", &one, 1, 0, text);
    unsigned char *to = (unsigned char *)record;
    for (size_t i = 0; i < sizeof *record; i++)
        if (!hex || sscanf(hex + 2 * i, "%2hhx", &to[i]) != 1)
            return false;
    record->last_seen = strtoull(hex + 2 * sizeof *record, NULL, 10);
    return true;
}

static uint64_t bytes(void *table)
{
    return (uint64_t)ask(table, "bytes", NULL, 1, 0);
}

/* ---------------------------------------------------------------- open, close ----------- */

static void be_php(void *table)
{
    struct table *t = table;
    close(t->in[1]);
    if (dup2(t->in[0], 0) < 0 || dup2(t->out[1], 1) < 0)
        return;
    execlp("php", "php", "-d", "apc.enable_cli=1", "-d", t->megabytes, "-d", t->hint, "-d",
           "memory_limit=-1", "-d", "display_errors=stderr", t->script, t->sessions, (char *)NULL);
    fprintf(stderr, "php: %s\n", strerror(errno));
}

static bool has_apcu(void)
{
    return system("php -d apc.enable_cli=1 -r "
                  "'exit(function_exists(\"apcu_enabled\") && apcu_enabled() && "
                  "function_exists(\"pcntl_fork\") ? 0 : 1);' >/dev/null 2>&1") == 0;
}

static struct table *start_php(size_t sessions)
{
    struct table *t = bench_memory(1, sizeof *t);
    snprintf(t->sessions, sizeof t->sessions, "%zu", sessions);
    snprintf(t->hint, sizeof t->hint, "apc.entries_hint=%zu", 2 * sessions);
    snprintf(t->megabytes, sizeof t->megabytes, "apc.shm_size=%zuM",
             sessions * BYTES_PER_SESSION / 1000000 + MEGABYTES_MORE);
    sandbox_beside(t->script, sizeof t->script, "apcu.php");
    if (pipe(t->in) != 0 || pipe(t->out) != 0)
        bench_fail("pipe: %s", strerror(errno));
    t->php = sandbox_child(be_php, t);
    bench_unpin(t->php);
    close(t->in[0]);
    close(t->out[1]);
    t->to = fdopen(t->in[1], "w");
    t->from = fdopen(t->out[0], "r");
    return t;
}

static void close_table(void *table)
{
    struct table *t = table;
    fclose(t->to);
    fclose(t->from);
    sandbox_kill(t->php);
    free(t);
}

static void *open_table(size_t sessions)
{
    char text[ANSWER_MAX];
    if (!sandbox_can_run("php") || !has_apcu())
        return left_out("apcu", "there is no PHP with APCu (packages php8.2-cli, php-apcu)");
    struct table *t = start_php(sessions);
    if (try_to_ask(t, "ready", NULL, 1, 0, text))
        return t;
    close_table(t);
    return left_out("apcu", "%s", text);
}

const struct contender apcu_contender = {
    .name = "apcu",
    .scope = SCOPE_SERVER,
    .lacks = "PHP processes only, children of one; the time is PHP's, its loop subtracted; a value is "
             "copied whole; a change of a part can be lost to another; a killed writer stops "
             "everybody; nothing is found by player; no persistence",
    .sessions_max = 1000000,
    .walk_max = 100000,
    .bytes_per_session = 800,
    .open = open_table,
    .close = close_table,
    .read_back = read_back,
    .bytes = bytes,
    .clocked = clocked,
    .mixed = mixed,
    .operations = {
        [OPERATION_COPY] = get_copy,
        [OPERATION_MISS] = get_miss,
        [OPERATION_BATCH] = get_batch,
        [OPERATION_TOUCH] = touches,
        [OPERATION_SET] = sets,
        [OPERATION_INSERT_REMOVE] = inserts,
        [OPERATION_SCAN] = scans,
    },
};
