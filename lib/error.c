#include "table.h"

#include <errno.h>

const char *sesstab_strerror(int error)
{
    static const char *const texts[] = {
#define X(name, text) [SESSTAB_##name] = text,
        SESSTAB_ERRORS(X)
#undef X
    };
    return error >= 0 && error < SESSTAB_ERROR_COUNT ? texts[error] : "unknown result";
}

const char *sesstab_state_name(int state)
{
    static const char *const texts[] = {
#define X(name, text) [SESSTAB_##name] = text,
        SESSTAB_STATES(X)
#undef X
    };
    return state >= 0 && state < SESSTAB_STATE_COUNT ? texts[state] : "?";
}

const char *sesstab_mode_name(int mode)
{
    static const char *const texts[] = {
#define X(name, text) [SESSTAB_##name] = text,
        SESSTAB_MODES(X)
#undef X
    };
    return mode >= 0 && mode < SESSTAB_MODE_COUNT ? texts[mode] : "?";
}

const char *sesstab_error_detail(void)
{
    return shm_detail();
}

int error_of(int error)
{
    switch (error) {
    case 0: return SESSTAB_OK;
    case EINVAL: return SESSTAB_INVALID;
    case ENOENT: return SESSTAB_NOTFOUND;
    case EPERM: case EACCES: return SESSTAB_PERMISSION;
    case EBADMSG: return SESSTAB_NOTATABLE;
    case EPROTO: return SESSTAB_WRONGVERSION;
    case ESTALE: return SESSTAB_STALE;
    case ENOSPC: return SESSTAB_NOSPACE;
    case ENOMEM: return SESSTAB_NOMEMORY;
    case EUSERS: return SESSTAB_LIMIT;
    case ENOTSUP: return SESSTAB_UNSUPPORTED;
    default: return SESSTAB_SYSTEM;
    }
}
