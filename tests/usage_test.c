/*
 * What the programs are asked wrongly: exit status 64 and a sentence that names what is wrong, before
 * anything is touched; and what cannot be done where exit status 1 has another meaning.
 */
#include "tests/harness.h"

#include <string.h>
#include <unistd.h>

enum { WORDS = 8 };

struct mistake {
    const char *says;
    const char *argv[WORDS];
};

/* The first word is the program. */
static const struct mistake mistakes[] = {
    { "--master wants", { "persister", "--sentinel", "127.0.0.1:1", "--master", "" } },
    { "--spawn-redis wants", { "persister", "--spawn-redis", "" } },
    { "--user wants", { "persister", "--user", "" } },
    { "no user 'no one'", { "persister", "--owner", "no one" } },
    { "no group 'no one'", { "persister", "--group", "no one" } },
    { "--owner wants a number", { "persister", "--owner", "99999999999" } },
    { "table name '/a/b'", { "persister", "--table", "/a/b", "--create" } },
    { "table name '/'", { "persister", "--table", "", "--create", "--reconcile" } },
    { "max_bytes", { "persister", "--table", "/never", "--create", "--max-bytes", "1" } },
    { "--dry-run goes with", { "persister", "--dry-run" } },
    { "is not expected", { "persister", "/mush" } },
    { "table name '/a/b'", { "sesstabctl", "--table", "/a/b", "mode" } },
    { "no command", { "sesstabctl", "dance" } },
    { "which table", { "shmdump" } },
    { "it is --diff-redis=ADDRESS", { "shmdump", "/never", "--diff-redis", "unix:/never" } },
    { "one table at a time", { "shmdump", "/never", "/again" } },
    { "--user wants a password", { "shmdump", "/never", "--diff-redis", "--user", "me" } },
    { "such as 2.1", { "shmdump", "/never", "--owner", "me" } },
    { "go with --diff-redis", { "shmdump", "/never", "--db", "1" } },
};

static int run(const char *const words[WORDS], char *output, size_t size)
{
    const char *argv[WORDS + 1] = { program(words[0]) };
    memcpy(argv + 1, words + 1, (WORDS - 1) * sizeof *words);
    return run_program(argv, output, size);
}

static void what_is_asked_wrongly_is_said_and_touches_nothing(void **state)
{
    char output[2048];
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        int status = run(mistakes[i].argv, output, sizeof output);
        if (status != 64 || !strstr(output, mistakes[i].says))
            test_fail(__FILE__, __LINE__, "mistake %zu: status %d, not \"%s\" but: %s", i, status,
                      mistakes[i].says, output);
    }
    check_equal(access("/dev/shm/never", F_OK), -1);
}

/* 1 means that table and Redis differ, or that some records were bad. */
static void what_cannot_be_done_is_not_taken_for_a_difference(void **state)
{
    static const char *const cannot[][WORDS] = {
        { "persister", "--table", "/never", "--reconcile" },
        { "persister", "--table", "/never", "--reconcile", "--password-file", "/never" },
        { "persister", "--reconcile", "--dry-run", "--password-file", "/never" },
        { "persister", "--import-json", "old", "--password-file", "/never" },
        { "persister", "--import-json", "old", "--prefix", "new", "--redis", "unix:/never" },
    };
    char output[2048];
    (void)state;
    for (size_t i = 0; i < sizeof cannot / sizeof *cannot; i++) {
        check_equal(run(cannot[i], output, sizeof output), 2);
        check(strstr(output, "/never") != NULL); /* what it was that was in the way */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_asked_wrongly_is_said_and_touches_nothing),
        TEST(what_cannot_be_done_is_not_taken_for_a_difference),
    };
    return run_all(tests);
}
