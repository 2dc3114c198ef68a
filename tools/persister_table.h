/*
 * The table's name.  A persister holds a segment, not a name: when the name is removed or means
 * another segment, it must not go on as if nothing had happened.
 */
#ifndef TOOLS_PERSISTER_TABLE_H
#define TOOLS_PERSISTER_TABLE_H

#include "lib/sesstab.h"

enum table_name {
    NAME_SAME,
    NAME_REMOVED,
    NAME_REPLACED, /* another segment has it: two leaders would write to one Redis */
    NAME_UNKNOWN   /* it could not be looked at                                    */
};
enum table_name table_look(const char *name, uint64_t creation_id);

#endif
