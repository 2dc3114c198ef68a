/*
 * One session as the table has it against what Redis holds of it, field by field.
 *
 *   field           what of the session
 *   PlayerRef ...   a field of the record; one that the record should not have is named as well
 *   metadata:KEY    a metadata key
 *   record, metadata   the whole key: it is not a hash, or there is a record on one side only
 *   active          the membership in the active set
 */
#ifndef TOOLS_PERSISTER_DIFF_H
#define TOOLS_PERSISTER_DIFF_H

#include "tools/persister_record.h"

enum difference_kind { DIFFERENT, ONLY_IN_TABLE, ONLY_IN_REDIS, DIFFERENCE_KINDS };
extern const char *const difference_names[DIFFERENCE_KINDS];

struct difference {
    enum difference_kind kind;
    uint64_t handle;
    const char *field;
    const void *table, *redis; /* the values; NULL: none on this side */
    size_t table_length, redis_length;
};
typedef void difference_fn(const struct difference *difference, void *context);

/* What Redis holds of a session. */
struct answers {
    redisReply *record, *metadata, *member;
};

/* Appends the question. */
void ask_session(struct redis *redis, const char *active, const struct session_key *key);

/* Its answers, to be freed in any case.  False: dropped. */
bool receive_answers(struct redis *redis, struct answers *answers);

/* NULL, or why Redis does not tell, which is no difference.  (Something else under a key is one.) */
const char *answers_refused(const struct answers *answers);

void free_answers(struct answers *answers);

/* True when Redis holds nothing of the session. */
bool nothing_stored(const struct answers *answers);

/*
 * Calls FUNCTION, unless NULL, for each difference; returns how many there are.  Without SEEN a
 * last-seen that differs is none: a newer one is on its way.
 */
size_t diff_session(const sesstab_view *view, bool seen, const struct answers *answers,
                    difference_fn *function, void *context);

/* The same for a handle that the table does not have. */
size_t diff_unknown(uint64_t handle, const struct answers *answers, difference_fn *function,
                    void *context);

#endif
