/*
 * shmdump - looks into a sesstab table from outside.
 *
 * Read-only, needs nobody's cooperation, stops nobody, takes no part: it works on a live table, on
 * one whose processes are all dead, and on a copied file.  It trusts nothing that it reads.
 */
#include "tools/shmdump.h"
#include "tools/persister_record.h"
#include "tools/shmdump_session.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

SESSTAB_API const char *argp_program_version = "shmdump (sesstab) " SESSTAB_VERSION;

/* ------------------------------------------------------------------ options ---------------- */

enum { KEY_PLAYER = 256, KEY_STATE, KEY_OWNER, KEY_IDLE, KEY_SORT, KEY_STRICT, KEY_DIFF,
       KEY_PREFIX, KEY_USER, KEY_PASSWORD_FILE, KEY_DATABASE };

static const char doc[] =
    "Look into a sesstab table from outside: read-only, without anybody's help, alive or dead."
    "\vTABLE is a table's name (\"/mush\" or \"mush\"), or, with another slash in it, the path of "
    "a copied segment.  Without an option that says what to show, a summary is shown.\n\n"
    "Exit status: 0 all went well; 1 --check found something wrong, --diff-redis a difference, or "
    "there is no such session; 2 the table or Redis cannot be read, or not all of it (it was "
    "truncated); 64 wrong usage.";

static const struct argp_option option_list[] = {
    { NULL, 0, NULL, 0, "What to show:", 1 },
    { "sessions", 's', NULL, 0, "All sessions, one per line", 0 },
    { "session", 'S', "HANDLE", 0, "One session in full, with its metadata", 0 },
    { "workers", 'w', NULL, 0, "Attached processes, and whether they live", 0 },
    { "rings", 'r', NULL, 0, "What waits for the persister: rings, dirty bits, tickets", 0 },
    { "memory", 'm', NULL, 0, "What the memory is used for", 0 },
    { "check", 'c', NULL, 0, "Check every invariant; exit with 1 if one is broken", 0 },
    { "diff-redis", KEY_DIFF, "ADDRESS", OPTION_ARG_OPTIONAL,
      "How table and Redis (unix:PATH or tcp:HOST:PORT; tcp:127.0.0.1:6379) differ; exit with 1 if "
      "they do", 0 },
    { NULL, 0, NULL, 0, "Which sessions (each implies --sessions):", 2 },
    { "player", KEY_PLAYER, "PLAYER", 0, "Only those bound to PLAYER", 0 },
    { "state", KEY_STATE, "STATE", 0, "Only those connected, account, logged-in or detached", 0 },
    { "owner", KEY_OWNER, "WORKER", 0, "Only those owned by WORKER, as --workers shows it", 0 },
    { "idle", KEY_IDLE, "SECONDS", 0, "Only those idle for at least SECONDS", 0 },
    { "sort", KEY_SORT, "KEY", 0, "Sort by handle, player, idle, connected or state", 0 },
    { NULL, 0, NULL, 0, "Which Redis (with --diff-redis):", 3 },
    { "prefix", KEY_PREFIX, "TEXT", 0, "What all keys begin with (sesstab)", 0 },
    { "user", KEY_USER, "NAME", 0, "User name to log in with", 0 },
    { "password-file", KEY_PASSWORD_FILE, "FILE", 0,
      "The password is its first line (else the variable SESSTAB_REDIS_PASSWORD)", 0 },
    { "db", KEY_DATABASE, "N", 0, "Database number (0)", 0 },
    { NULL, 0, NULL, 0, "How:", 4 },
    { "json", 'j', NULL, 0, "As JSON", 0 },
    { "watch", 'W', "SECONDS", 0, "Again and again, every SECONDS, until Ctrl-C", 0 },
    { "strict", KEY_STRICT, NULL, 0, "With --check: what a dead process left is wrong, too", 0 },
    { NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0 },
    { 0 },
};

static double seconds(const char *text, struct argp_state *state, const char *option)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0) || value > 1e9)
        argp_error(state, "--%s wants a number of seconds, not '%s'", option, text);
    return value;
}

static uint64_t number(const char *text, struct argp_state *state, const char *option, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value > max)
        argp_error(state, "--%s wants a number up to %llu, not '%s'", option,
                   (unsigned long long)max, text);
    return value;
}

/* "INDEX.GENERATION" as it is printed, or the same as one number; "-" and 0 are nobody. */
static worker_id worker(const char *text, struct argp_state *state)
{
    unsigned index = 0, generation = 0;
    int length = -1;
    if (strcmp(text, "-") == 0)
        return 0;
    if (isdigit((unsigned char)*text) && !strchr(text, '.'))
        return (worker_id)number(text, state, "owner", UINT32_MAX);
    if (strspn(text, "0123456789.") != strlen(text) || strlen(text) > 12 ||
        sscanf(text, "%u.%u%n", &index, &generation, &length) != 2 || text[length] ||
        index >= WORKERS || generation >= 1u << WORKER_GEN_BITS)
        argp_error(state, "--owner wants a worker as --workers shows it, such as 2.1, not '%s'",
                   text);
    return generation << WORKER_INDEX_BITS | (index + 1);
}

static int state_number(const char *text, struct argp_state *state)
{
    for (int i = 0; i < SESSTAB_STATE_COUNT; i++)
        if (strcmp(text, state_name((unsigned)i)) == 0)
            return i;
    argp_error(state, "--state wants connected, account, logged-in or detached, not '%s'", text);
    return -1;
}

static enum sort sort_key(const char *text, struct argp_state *state)
{
    static const char *const names[] = { "none", "handle", "player", "idle", "connected", "state" };
    for (unsigned i = SORT_HANDLE; i <= SORT_STATE; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum sort)i;
    argp_error(state, "--sort wants handle, player, idle, connected or state, not '%s'", text);
    return SORT_NONE;
}

static void choose(struct options *o, enum view view, struct argp_state *state)
{
    if (o->view_given && o->view != view)
        argp_error(state, "only one thing can be shown at a time");
    o->view = view;
    o->view_given = true;
}

static error_t parse_filter(int key, char *text, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case KEY_PLAYER: o->player = text; break;
    case KEY_STATE: o->state = state_number(text, state); break;
    case KEY_OWNER:
        o->owner = worker(text, state);
        o->owner_given = true;
        break;
    case KEY_IDLE: o->idle_ms = (uint64_t)(seconds(text, state, "idle") * 1000); break;
    case KEY_SORT: o->sort = sort_key(text, state); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    choose(o, VIEW_SESSIONS, state);
    return 0;
}

static void diff_option(struct options *o, const char *text, struct argp_state *state)
{
    const char *wrong = text ? redis_parse_address(text, &o->redis) : NULL;
    if (wrong)
        argp_error(state, "--diff-redis '%s': %s", text, wrong);
    choose(o, VIEW_DIFF, state);
}

static const char *prefix_option(const char *text, struct argp_state *state)
{
    size_t length = strlen(text);
    if (length == 0 || length > PREFIX_MAX)
        argp_error(state, "--prefix wants 1 to %d bytes", PREFIX_MAX);
    return text;
}

static error_t parse_redis(int key, char *text, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case KEY_PREFIX: o->prefix = prefix_option(text, state); break;
    case KEY_USER: o->login.user = text; break;
    case KEY_PASSWORD_FILE: o->login.password_file = text; break;
    case KEY_DATABASE: o->login.database = (int)number(text, state, "db", INT32_MAX); break;
    default: return parse_filter(key, text, state);
    }
    o->redis_option = true;
    return 0;
}

static void finish(const struct options *o, struct argp_state *state)
{
    if (!o->name)
        argp_error(state, "which table?  (The tables of this machine are in /dev/shm.)");
    if (o->strict && o->view != VIEW_CHECK)
        argp_error(state, "--strict goes with --check");
    if (o->watch > 0 && o->view == VIEW_CHECK)
        argp_error(state, "--check cannot be watched");
    if (o->login.user && !o->login.password_file && !getenv("SESSTAB_REDIS_PASSWORD"))
        argp_error(state, "--user wants a password: --password-file FILE");
    if (o->redis_option && o->view != VIEW_DIFF)
        argp_error(state, "--prefix, --user, --password-file and --db go with --diff-redis");
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case 's': choose(o, VIEW_SESSIONS, state); break;
    case 'S':
        choose(o, VIEW_SESSION, state);
        o->handle = number(text, state, "session", UINT64_MAX);
        break;
    case 'w': choose(o, VIEW_WORKERS, state); break;
    case 'r': choose(o, VIEW_RINGS, state); break;
    case 'm': choose(o, VIEW_MEMORY, state); break;
    case 'c': choose(o, VIEW_CHECK, state); break;
    case KEY_DIFF: diff_option(o, text, state); break;
    case 'j': o->json = true; break;
    case KEY_STRICT: o->strict = true; break;
    case 'h': argp_state_help(state, stdout, ARGP_HELP_STD_HELP); break;
    case 'W':
        o->watch = seconds(text, state, "watch");
        if (o->watch < 0.01)
            argp_error(state, "--watch wants at least 0.01 seconds");
        break;
    case ARGP_KEY_ARG:
        if (o->name)
            argp_error(state, "'%s' is too much: one table at a time%s", text,
                       o->view == VIEW_DIFF ? " (and it is --diff-redis=ADDRESS)" : "");
        o->name = text;
        break;
    case ARGP_KEY_END: finish(o, state); break;
    default: return parse_redis(key, text, state);
    }
    return 0;
}

/* ------------------------------------------------------------------ showing ---------------- */

static show *const views[] = {
    [VIEW_SUMMARY] = show_summary, [VIEW_SESSIONS] = show_sessions, [VIEW_SESSION] = show_session,
    [VIEW_WORKERS] = show_workers, [VIEW_RINGS] = show_rings, [VIEW_MEMORY] = show_memory,
    [VIEW_CHECK] = check, [VIEW_DIFF] = show_diff,
};

static int show_view(struct image *image, const struct options *o)
{
    char error[300];
    if (o->view != VIEW_CHECK)
        for (unsigned i = 0; i < image->note_count; i++)
            fprintf(stderr, "shmdump: %s: %s\n", image->path, image->notes[i]);
    int code = views[o->view](image, o);
    if (image_whole(image, error, sizeof error))
        return code;
    if (image->size >= image->at.end) /* else that was noted */
        fprintf(stderr, "shmdump: %s: %s\n", image->path, error);
    return o->view == VIEW_CHECK ? FOUND_WRONG : CANNOT_READ;
}

static int show_once(const struct options *o)
{
    static struct image image;
    char error[5000];
    if (!image_open(&image, o->name, error, sizeof error)) {
        fprintf(stderr, "shmdump: %s: %s\n", o->name, error);
        return CANNOT_READ;
    }
    int code = show_view(&image, o);
    image_close(&image);
    return code;
}

/* ------------------------------------------------------------------ watching --------------- */

static void pause_for(double duration)
{
    struct timespec t = { .tv_sec = (time_t)duration };
    t.tv_nsec = (long)((duration - (double)t.tv_sec) * 1e9);
    nanosleep(&t, NULL);
}

/*
 * Opens the table anew each time: after a restart of the server its name means another segment, and
 * in between it means none.  Ctrl-C ends the program: there is nothing to clean up.
 */
static int watch(const struct options *o)
{
    static struct image image;
    char error[5000];
    uint64_t creation = 0;
    bool had = false, waiting = false, clear = isatty(STDOUT_FILENO) && !o->json;
    while (!ferror(stdout)) {
        if (clear)
            fputs("\033[H\033[2J", stdout);
        if (image_open(&image, o->name, error, sizeof error)) {
            if (had && image.header.creation_id != creation)
                fprintf(stderr, "shmdump: %s: reacquired: another segment has the name now\n",
                        o->name);
            had = true;
            waiting = false;
            creation = image.header.creation_id;
            show_view(&image, o);
            image_close(&image);
        } else if (clear || !waiting) {
            fflush(stdout); /* the clearing comes first */
            fprintf(stderr, "shmdump: %s: %s; waiting\n", o->name, error);
            waiting = true;
        }
        if (fflush(stdout) == 0)
            pause_for(o->watch);
    }
    return CANNOT_READ;
}

/* ------------------------------------------------------------------ main ------------------- */

int main(int argc, char **argv)
{
    static const struct argp argp = { option_list, parse, "TABLE", doc, NULL, NULL, NULL };
    struct options options = { .state = -1, .prefix = "sesstab" };
    redis_parse_address("tcp:127.0.0.1:6379", &options.redis);
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    int code = options.watch > 0 ? watch(&options) : show_once(&options);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "shmdump: cannot write: %s\n", strerror(errno));
        return CANNOT_READ;
    }
    return code;
}
