/*
 * Passwords from files.  A file is read again at each connect, so that a password that was changed
 * is used without a restart; nothing keeps what was read, and no log line holds it.
 */
#ifndef TOOLS_PERSISTER_PASSWORD_H
#define TOOLS_PERSISTER_PASSWORD_H

#include <stddef.h>

enum { PASSWORD_BYTES = 4096 };

/* The first line of PATH into PASSWORD; NULL, or what is wrong.  The caller wipes PASSWORD. */
const char *password_read(const char *path, char password[PASSWORD_BYTES]);

/* At the start: whether it can be read at all (NULL, or what is wrong); warns when others can. */
const char *password_check(const char *path);

#endif
