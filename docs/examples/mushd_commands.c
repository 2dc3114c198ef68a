/*
 * What a player can type, and what logging in means.  Everything here runs in the event loop of the
 * worker that holds the player's socket, reads the table, and waits for nothing.
 *
 * A view is valid inside its read section only.  Commands that send to other sessions therefore
 * note what they need of them (`targets`), leave the section, and act then.
 */
#include "mushd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { TARGETS = 64 };

static char record[SESSTAB_RECORD_MAX]; /* for copies of sessions */

/* ---------------------------------------------------------------- looking ---------------- */

/* The player at C, or "".  Reading as it usually is: a section, a lookup, what is needed of it. */
static void player_of(const struct connection *c, char player[SESSTAB_PLAYER_MAX + 1])
{
    sesstab_view s;
    *player = '\0';
    if (sesstab_read_begin(table))
        return;
    if (sesstab_find(table, c->handle, &s) == SESSTAB_OK && s.state == SESSTAB_LOGGED_IN)
        memcpy(player, s.player, s.player_length + 1u);
    sesstab_read_end(table);
}

/* The worker that holds a session's socket; 0: nobody does. */
static int worker_of(const sesstab_view *s)
{
    for (int i = 0; i < options.workers; i++)
        if (s->state != SESSTAB_DETACHED && s->owner && board[i].owner == s->owner)
            return i + 1;
    return 0;
}

struct targets {
    int count;
    struct target {
        uint64_t handle, last_seen;
        int worker;
        bool detached;
    } at[TARGETS];
};

static int add_target(const sesstab_view *s, void *context)
{
    struct targets *t = context;
    if (t->count == TARGETS)
        return 1;
    t->at[t->count++] = (struct target){ s->handle, s->last_seen, worker_of(s),
                                         s->state == SESSTAB_DETACHED };
    return 0;
}

/* WHO is a player, found by the index of players, or a handle. */
static void look_up(const char *who, struct targets *t)
{
    char *end;
    uint64_t handle = strtoull(who, &end, 10);
    sesstab_view s;
    t->count = 0;
    if (*who && *end) {
        sesstab_by_player(table, who, add_target, t);
    } else if (*who && sesstab_read_begin(table) == SESSTAB_OK) {
        if (sesstab_find(table, handle, &s) == SESSTAB_OK)
            add_target(&s, t);
        sesstab_read_end(table);
    }
}

/* Nobody holds the socket of a detached session: that is worker 0. */
static const char *number_or_dash(int worker, char text[16])
{
    snprintf(text, 16, worker ? "%d" : "-", worker);
    return text;
}

static const char *ago(uint64_t then, char text[16])
{
    uint64_t now = sesstab_now(), s = now > then ? (now - then) / 1000 : 0;
    bool minutes = s >= 60, hours = s >= 3600;
    snprintf(text, 16, "%" PRIu64 "%c", hours ? s / 3600 : minutes ? s / 60 : s,
             hours ? 'h' : minutes ? 'm' : 's');
    return text;
}

/* ---------------------------------------------------------------- logging in ------------- */

/* Copies the metadata of a detached session, but for keys that the new one has set already. */
static void inherit(struct connection *c, uint64_t from)
{
    size_t size = sizeof record, position = 0;
    sesstab_pair pair;
    sesstab_view old;
    if (sesstab_get(table, from, &old, record, &size))
        return;
    while (sesstab_metadata_next(&old, &position, &pair, NULL) == SESSTAB_OK)
        sesstab_compare_and_set(table, c->handle, pair.key, 0, pair.value, pair.length, NULL);
}

/* Redis has the new login: now, and not before, this player's sessions without a worker may go. */
static void take_over(struct connection *c, const char *player)
{
    struct targets t;
    char idle[16];
    look_up(player, &t);
    for (struct target *old = t.at; old < t.at + t.count; old++) {
        if (!old->detached)
            continue;
        inherit(c, old->handle);
        if (sesstab_remove(table, old->handle) == SESSTAB_OK)
            say_to(c, "You take over your detached session %" PRIu64 ", last seen %s ago.",
                   old->handle, ago(old->last_seen, idle));
    }
}

/* The three answers that a binding can have, passed on truthfully. */
void login_answered(struct connection *c, const char *player, int answer)
{
    switch (answer) {
    case SESSTAB_OK:
        say_to(c, "Welcome, %s.  Your login is durable: Redis has it.", player);
        take_over(c, player);
        break;
    case SESSTAB_REFUSED:
        say_to(c, "Redis refused your login, and it was rolled back.  Please try again later.");
        break;
    case SESSTAB_UNKNOWN:
        say_to(c, "Welcome, %s.  Redis does not answer: your login is pending.", player);
        c->pending = true;
        break;
    default:
        say_to(c, "You cannot log in: %s.", sesstab_strerror(answer));
    }
}

/* A login that was UNKNOWN stays visible as pending until Redis has taken or refused it. */
void settle_login(struct connection *c)
{
    char player[SESSTAB_PLAYER_MAX + 1];
    sesstab_view s;
    if (sesstab_read_begin(table))
        return;
    int error = sesstab_find(table, c->handle, &s);
    c->pending = !error && s.pending;
    sesstab_read_end(table);
    if (error || c->pending)
        return;
    player_of(c, player);
    if (*player) {
        say_to(c, "Your login as %s is durable now.", player);
        take_over(c, player);
    } else {
        say_to(c, "Redis refused your login, and it was rolled back.  Please try again later.");
    }
}

/* ---------------------------------------------------------------- commands --------------- */

static void do_connect(struct connection *c, char *name)
{
    static const char digits[] = "0123456789";
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789_-.:#";
    char player[SESSTAB_PLAYER_MAX + 1];
    player_of(c, player);
    if (*player)
        say_to(c, "You are %s already.", player);
    else if (strlen(name) > NAME_BYTES || name[strspn(name, allowed)]
             || !name[strspn(name, digits)])
        say_to(c, "A name has 1 to %d letters, digits, _ - . : #, and is not just a number.",
               NAME_BYTES);
    else
        start_login(c, name);
}

static void do_say(struct connection *c, char *text)
{
    struct message m = { .kind = SAY, .handle = c->handle };
    char player[SESSTAB_PLAYER_MAX + 1];
    player_of(c, player);
    snprintf(m.text, sizeof m.text, "%s says, \"%s\"", player, text);
    say_to(c, "You say, \"%s\"", text);
    for (int worker = 1; worker <= options.workers; worker++)
        if (board[worker - 1].owner && !post(worker, &m))
            say_to(c, "(Worker %d did not take it.)", worker);
}

static void do_page(struct connection *c, char *argument)
{
    char player[SESSTAB_PLAYER_MAX + 1], *name = strsep(&argument, "=");
    struct message m = { .kind = PAGE };
    struct targets t;
    int reached = 0;

    name[strcspn(name, " ")] = '\0';
    if (!argument || !*name) {
        say_to(c, "Usage: page <player> = <text>");
        return;
    }
    argument += strspn(argument, " ");
    player_of(c, player);
    snprintf(m.text, sizeof m.text, "%s pages: %s", player, argument);
    look_up(name, &t);
    for (struct target *to = t.at; to < t.at + t.count; to++) {
        m.handle = to->handle;
        reached += to->worker && post(to->worker, &m);
    }
    if (reached)
        say_to(c, "You page %s: %s", name, argument);
    else
        say_to(c, t.count ? "%s cannot hear you just now." : "%s is not here.", name);
}

static void do_who(struct connection *c, char *unused)
{
    int here = 0, detached = 0, nobody = 0, error;
    sesstab_cursor cursor = { 0 };
    sesstab_view s;
    char worker[16], idle[16];
    (void)unused;

    say_to(c, "%-20s %8s  %-10s %-8s %6s %5s", "Player", "Handle", "State", "Login",
           "Worker", "Idle");
    while ((error = sesstab_next(table, &cursor, &s)) == SESSTAB_OK || error == SESSTAB_CORRUPT) {
        if (error)
            continue;
        *(!*s.player ? &nobody : s.state == SESSTAB_DETACHED ? &detached : &here) += 1;
        if (*s.player)
            say_to(c, "%-20s %8" PRIu64 "  %-10s %-8s %6s %5s", s.player, s.handle,
                   sesstab_state_name(s.state), s.pending ? "pending" : "durable",
                   number_or_dash(worker_of(&s), worker), ago(s.last_seen, idle));
    }
    say_to(c, "%d logged in, %d detached, %d not logged in.  You are on worker %d of %d.", here,
           detached, nobody, worker_number, options.workers);
}

static void do_idle(struct connection *c, char *who)
{
    struct targets t;
    char idle[16], worker[16];
    look_up(who, &t);
    for (struct target *to = t.at; to < t.at + t.count; to++)
        say_to(c, "%s: idle for %s (session %" PRIu64 ", worker %s).", who,
               ago(to->last_seen, idle), to->handle, number_or_dash(to->worker, worker));
    if (!t.count)
        say_to(c, "%s is not here.", who);
}

/* A copy, where a view would do as well: it could be kept, and outlives the read section. */
static void do_session(struct connection *c, char *unused)
{
    size_t size = sizeof record, position = 0;
    char since[16], idle[16];
    sesstab_pair pair;
    uint64_t version;
    sesstab_view s;
    int error = sesstab_get(table, c->handle, &s, record, &size);
    (void)unused;
    if (error) {
        say_to(c, "Your session cannot be read: %s.", sesstab_strerror(error));
        return;
    }
    say_to(c, "Session %" PRIu64 ", generation %" PRIu64 ", version %" PRIu64, s.handle,
           s.generation, s.version);
    say_to(c, "  player     %s (%s)", *s.player ? s.player : "nobody",
           s.pending ? "pending" : "durable");
    say_to(c, "  state      %s", sesstab_state_name(s.state));
    say_to(c, "  from       %s (%s) by %s", s.address, s.host, s.type);
    say_to(c, "  connected  %s ago, idle for %s", ago(s.connected_at, since),
           ago(s.last_seen, idle));
    say_to(c, "  worker     %d (process %d)", worker_number, getpid());
    while (sesstab_metadata_next(&s, &position, &pair, &version) == SESSTAB_OK)
        say_to(c, "  %s = %.*s (set at version %" PRIu64 ")", pair.key, (int)pair.length,
               (const char *)pair.value, version);
}

static void do_set(struct connection *c, char *argument)
{
    char *key = strsep(&argument, " ");
    int error = argument ? sesstab_set(table, c->handle, key, argument, strlen(argument))
                         : sesstab_delete(table, c->handle, key);
    if (error == SESSTAB_NOTFOUND && !argument)
        say_to(c, "%s is not set.", key);
    else if (error)
        say_to(c, "That cannot be done: %s.", sesstab_strerror(error));
    else
        say_to(c, argument ? "%s is now %s." : "%s is deleted.", key, argument);
}

/* A real game would ask whether this player may.  What no worker holds is removed right here. */
static void do_boot(struct connection *c, char *who)
{
    struct message m = { .kind = BOOT };
    char player[SESSTAB_PLAYER_MAX + 1];
    struct targets t;
    int booted = 0;
    player_of(c, player);
    snprintf(m.text, sizeof m.text, "%s has booted you.", player);
    look_up(who, &t);
    for (struct target *to = t.at; to < t.at + t.count; to++) {
        m.handle = to->handle;
        booted += to->worker ? post(to->worker, &m) : !sesstab_remove(table, to->handle);
    }
    if (t.count == 0)
        say_to(c, "%s is not here.", who);
    else if (!c->closing)
        say_to(c, "%d of %d sessions booted.", booted, t.count);
}

static void do_quit(struct connection *c, char *unused)
{
    (void)unused;
    hang_up(c, "Goodbye.");
}

static void do_help(struct connection *c, char *unused);

static const struct command {
    const char *name, *usage, *help;
    void (*run)(struct connection *c, char *argument);
    bool players_only, wants_argument;
} commands[] = {
    { "connect", "connect <player>", "log in", do_connect, false, true },
    { "WHO", "WHO", "everybody, on all workers", do_who, false, false },
    { "say", "say <text>", "talk to everybody", do_say, true, true },
    { "page", "page <player> = <text>", "talk to one player", do_page, true, true },
    { "idle", "idle <player>", "how long a player has been idle", do_idle, false, true },
    { "session", "session", "your session, in full", do_session, false, false },
    { "set", "set <key> [<value>]", "set or delete metadata of your session", do_set, true, true },
    { "@boot", "@boot <player or handle>", "close a connection, wherever it is", do_boot, true,
      true },
    { "help", "help", "this list", do_help, false, false },
    { "QUIT", "QUIT", "leave", do_quit, false, false },
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void do_help(struct connection *c, char *unused)
{
    (void)unused;
    for (int i = 0; i < COMMANDS; i++)
        say_to(c, "  %-26s %s", commands[i].usage, commands[i].help);
}

static const struct command *command_named(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcasecmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void trim(char **line)
{
    *line += strspn(*line, " ");
    for (size_t n = strlen(*line); n && (*line)[n - 1] == ' '; n--)
        (*line)[n - 1] = '\0';
}

void run_line(struct connection *c, char *line)
{
    char player[SESSTAB_PLAYER_MAX + 1], empty[1] = "";
    trim(&line);
    if (!*line)
        return;
    if (mbstowcs(NULL, line, 0) == (size_t)-1) {
        say_to(c, "That line is not UTF-8.  It was dropped.");
        return;
    }
    const struct command *command = command_named(strsep(&line, " "));
    char *argument = line ? line + strspn(line, " ") : empty;
    player_of(c, player);
    if (!command)
        say_to(c, "Huh?  (Type \"help\" for help.)");
    else if (command->players_only && !*player)
        say_to(c, "Please \"connect <player>\" first.");
    else if (command->wants_argument && !*argument)
        say_to(c, "Usage: %s", command->usage);
    else
        command->run(c, argument);
}
