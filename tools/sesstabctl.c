/*
 * sesstabctl - asks a living table to do something: to switch its mode, to say when Redis has it all.
 *
 * It attaches like any other worker, does one thing, says what it did on one line, and leaves.
 * (shmdump looks at a table without taking part, also at a dead one.)
 */
#include "lib/sesstab.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 64, ARGUMENTS_MAX = 2 };

SESSTAB_API const char *argp_program_version = "sesstabctl (sesstab) " SESSTAB_VERSION;

struct arguments {
    const char *table;
    uint32_t owner;
    const char *words[ARGUMENTS_MAX];
    unsigned count;
};

/* Returns a sesstab_error, and has printed what was asked for when that is OK. */
typedef int command_function(sesstab *table, const struct arguments *arguments);

/* ------------------------------------------------------------------ mode ------------------- */

/* SESSTAB_MODE_COUNT when NAME is none. */
static unsigned mode_of(const char *name)
{
    unsigned mode = 0;
    while (mode < SESSTAB_MODE_COUNT && strcmp(name, sesstab_mode_name((int)mode)) != 0)
        mode++;
    return mode;
}

static int mode(sesstab *table, const struct arguments *arguments)
{
    int result = SESSTAB_OK;
    if (arguments->count > 1)
        result = sesstab_set_mode(table, (sesstab_mode)mode_of(arguments->words[1]));
    if (result == SESSTAB_OK)
        puts(sesstab_mode_name((int)sesstab_table_mode(table)));
    return result;
}

static void check_mode(const struct arguments *arguments, struct argp_state *state)
{
    if (arguments->count > 1 && mode_of(arguments->words[1]) == SESSTAB_MODE_COUNT)
        argp_error(state, "'%s' is no mode: it is selective, memory, write-behind or write-through",
                   arguments->words[1]);
}

/* ------------------------------------------------------------------ flush ------------------ */

enum { FLUSH_MS = 10000 };

/* Negative when TEXT is no time. */
static long milliseconds_of(const char *text)
{
    char *rest;
    errno = 0;
    long ms = strtol(text, &rest, 10);
    return errno || *rest || *text < '0' || *text > '9' || ms > INT_MAX ? -1 : ms;
}

static int flush(sesstab *table, const struct arguments *arguments)
{
    int result = sesstab_flush(table, arguments->count > 1 ? (int)milliseconds_of(arguments->words[1])
                                                           : FLUSH_MS);
    if (result == SESSTAB_OK)
        puts("flushed");
    return result;
}

static void check_flush(const struct arguments *arguments, struct argp_state *state)
{
    if (arguments->count > 1 && milliseconds_of(arguments->words[1]) < 0)
        argp_error(state, "'%s' is no number of milliseconds", arguments->words[1]);
}

/* ------------------------------------------------------------------ commands --------------- */

static const struct command {
    const char *name;
    command_function *run;
    void (*check)(const struct arguments *arguments, struct argp_state *state);
} commands[] = {
    { "mode", mode, check_mode },
    { "flush", flush, check_flush },
};

static const struct command *command_of(const struct arguments *arguments)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(arguments->words[0], commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

static const struct argp_option options[] = {
    { "table", 't', "NAME", 0, "the table's name (/sesstab)", 0 },
    { "owner", 'o', "USER", 0, "a user who may own it, besides root and this one", 0 },
    { 0 }
};

static const char doc[] =
    "Asks a living sesstab table to do something."
    "\vmode [NAME] prints the table's mode, or switches it first, for all its processes at once:\n"
    "  selective      bind and unbind wait for Redis, the rest is written behind\n"
    "  memory         no Redis; the persister rests\n"
    "  write-behind   nothing waits for Redis\n"
    "  write-through  every change but touch waits for Redis\n"
    "flush [MS] waits until Redis has all that was changed before, at most MS milliseconds (10000).\n\n"
    "Exit status: 0 done, 1 failed (standard error says why), 64 wrong usage.";

/* With the slash in front, which may be left out. */
static const char *table_option(const char *text)
{
    static char name[SESSTAB_NAME_MAX + 3]; /* what is too long stays too long */
    if (*text == '/')
        return text;
    snprintf(name, sizeof name, "/%s", text);
    return name;
}

static uint32_t user_option(struct argp_state *state, const char *text)
{
    const struct passwd *user = getpwnam(text);
    char *rest;
    errno = 0;
    unsigned long number = strtoul(text, &rest, 10);
    if (!user && (errno || *rest || *text < '0' || *text > '9' || number >= UINT32_MAX))
        argp_error(state, "--owner wants a user, not '%s'", text);
    return user ? user->pw_uid : (uint32_t)number;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    const struct command *command;
    switch (key) {
    case 't':
        arguments->table = table_option(text);
        break;
    case 'o':
        arguments->owner = user_option(state, text);
        break;
    case ARGP_KEY_ARG:
        if (arguments->count == ARGUMENTS_MAX)
            argp_error(state, "'%s' is too much", text);
        arguments->words[arguments->count++] = text;
        break;
    case ARGP_KEY_END:
        if (arguments->count == 0)
            argp_error(state, "what is to be done? mode [NAME], or flush [MS]");
        if (!(command = command_of(arguments)))
            argp_error(state, "'%s' is no command: mode [NAME], or flush [MS]", arguments->words[0]);
        command->check(arguments, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ------------------------------------------------------------------ running ---------------- */

static int fail(const struct arguments *arguments, int error)
{
    const char *detail = sesstab_error_detail();
    fprintf(stderr, "sesstabctl: %s: %s\n", arguments->table,
            *detail ? detail : sesstab_strerror(error));
    return error == SESSTAB_INVALID ? EXIT_USAGE : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    static const struct argp parser = { options, parse_option, "mode [NAME]\nflush [MS]", doc,
                                        NULL, NULL, NULL };
    struct arguments arguments = { .table = "/sesstab" };
    sesstab *table;
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    /* Whatever access its maker has allowed. */
    const sesstab_options any = { .permissions = 0777, .owner = arguments.owner };
    int error = sesstab_open(arguments.table, &any, &table);
    if (error)
        return fail(&arguments, error);
    error = command_of(&arguments)->run(table, &arguments);
    int status = error ? fail(&arguments, error) : EXIT_SUCCESS;
    sesstab_close(table);
    return status;
}
