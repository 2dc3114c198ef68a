/* Reconcile; see persister_reconcile.h. */
#include "tools/persister_reconcile.h"

#include "tools/log.h"
#include "tools/shmdump.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

static atomic_bool requested;
static int status = RECONCILE_FAILED;

void reconcile_request(void)
{
    atomic_store(&requested, true);
}

bool reconcile_requested(void)
{
    return atomic_load_explicit(&requested, memory_order_relaxed) &&
           atomic_exchange(&requested, false);
}

int reconcile_dry_run(const struct settings *settings)
{
    static struct image image;
    struct options options = { .redis = settings->address, .login = settings->login,
                               .prefix = settings->prefix };
    char error[5000];
    if (!image_open(&image, settings->table, error, sizeof error)) {
        log_event(LEVEL_ERROR, "failed", TEXT("table", settings->table), TEXT("reason", error));
        return RECONCILE_FAILED;
    }
    int found = show_diff(&image, &options);
    image_close(&image);
    if (fflush(stdout) != 0)
        found = CANNOT_READ;
    return found == FOUND_NOTHING_WRONG ? RECONCILE_EQUAL
           : found == FOUND_WRONG       ? RECONCILE_DIFFERENT
                                        : RECONCILE_FAILED;
}

void reconcile_report(const struct compare *c, uint64_t not_durable)
{
    const struct {
        const char *name;
        uint64_t count;
    } sums[] = {
        { "equal", c->compared - c->repaired },
        { "only_table", c->only_table },
        { "only_redis", c->only_redis },
        { "different", c->repaired - c->only_table },
        { "in_flight", c->in_flight },
        { "owner_gone", c->owner_gone },
        { "strange", c->strange },
        { "repaired", c->repaired },
        { "removed", c->removed },
        { "adopted", c->adopted },
        { "left", c->left },
        { "not_durable", not_durable },
    };
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        printf("%s%s %" PRIu64, i ? ", " : "", sums[i].name, sums[i].count);
    putchar('\n');
    status = c->repaired + c->only_redis ? RECONCILE_DIFFERENT : RECONCILE_EQUAL;
    if (not_durable || fflush(stdout) != 0)
        status = RECONCILE_FAILED;
}

int reconcile_status(void)
{
    return status;
}
