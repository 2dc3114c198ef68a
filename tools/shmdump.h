/* What shmdump was asked for, and the parts that answer. */
#ifndef TOOLS_SHMDUMP_H
#define TOOLS_SHMDUMP_H

#include "tools/persister_redis.h"
#include "tools/shmdump_image.h"

enum view {
    VIEW_SUMMARY, VIEW_SESSIONS, VIEW_SESSION, VIEW_WORKERS, VIEW_RINGS, VIEW_MEMORY, VIEW_CHECK,
    VIEW_DIFF
};
enum sort { SORT_NONE, SORT_HANDLE, SORT_PLAYER, SORT_IDLE, SORT_CONNECTED, SORT_STATE };

/* Exit codes, besides argp's 64. */
enum { FOUND_NOTHING_WRONG = 0, FOUND_WRONG = 1, CANNOT_READ = 2 };

struct options {
    const char *name;
    enum view view;
    bool view_given, json, strict;
    double watch;             /* seconds; 0: once                                                 */
    uint64_t handle;          /* for VIEW_SESSION                                                 */
    /* for VIEW_SESSIONS */
    const char *player;
    int state;                /* -1: any                                                          */
    bool owner_given;
    uint32_t owner;
    uint64_t idle_ms;
    enum sort sort;
    /* for VIEW_DIFF */
    struct redis_address redis;
    struct redis_login login;
    const char *prefix;
    bool redis_option;        /* one of these was given                                           */
};

/* Each prints its view and returns the exit code. */
typedef int show(struct image *image, const struct options *options);
show show_summary, show_workers, show_rings, show_memory, show_sessions, show_session, check,
    show_diff;

#endif
