/* What harness.c asks of redis_harness.c. */
#ifndef TESTS_HARNESS_PRIVATE_H
#define TESTS_HARNESS_PRIVATE_H

#include <stdbool.h>

/* The test is over: forget connections and servers.  False: a persister's sanitizer complained. */
bool redis_harness_end(void);

/* The test failed: show what the last persister said. */
void redis_harness_explain(void);

#endif
