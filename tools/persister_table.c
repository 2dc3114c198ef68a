/* The table's name; see persister_table.h. */
#include "tools/persister_table.h"

#include "shm/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

enum table_name table_look(const char *name, uint64_t creation_id)
{
    uint64_t found;
    int fd = shm_open(name, O_RDONLY, 0);
    if (fd < 0)
        return errno == ENOENT ? NAME_REMOVED : NAME_UNKNOWN;
    ssize_t got = pread(fd, &found, sizeof found, offsetof(struct header, creation_id));
    close(fd);
    if (got != sizeof found)
        return NAME_UNKNOWN;
    return found == creation_id ? NAME_SAME : NAME_REPLACED;
}
