/* Passwords from files; see persister_password.h. */
#include "tools/persister_password.h"

#include "tools/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *password_read(const char *path, char password[PASSWORD_BYTES])
{
    size_t length = 0;
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC); /* without stdio, whose buffer would keep a copy */
    if (fd < 0)
        return strerror(errno);
    while (length < PASSWORD_BYTES && (n = read(fd, password + length, PASSWORD_BYTES - length)) > 0)
        length += (size_t)n;
    const char *wrong = n < 0 ? strerror(errno) : NULL;
    close(fd);
    const char *end = memchr(password, '\n', length);
    if (wrong)
        return wrong;
    if (!end && length == PASSWORD_BYTES)
        return "its first line, which should be the password, is too long";
    password[end ? (size_t)(end - password) : length] = '\0';
    password[strcspn(password, "\r")] = '\0';
    return password[0] ? NULL : "its first line, which should be the password, is empty";
}

const char *password_check(const char *path)
{
    char password[PASSWORD_BYTES];
    struct stat s;
    const char *wrong = password_read(path, password);
    explicit_bzero(password, sizeof password);
    if (!wrong && stat(path, &s) == 0 && (s.st_mode & (S_IRGRP | S_IROTH)))
        log_event(LEVEL_WARN, "password-exposed", TEXT("file", path),
                  TEXT("note", s.st_mode & S_IROTH ? "everybody may read it: chmod 600"
                                                   : "its group may read it: chmod 600"));
    return wrong;
}
