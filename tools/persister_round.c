/* Rounds; see persister_round.h. */
#include "tools/persister_round.h"

#include <stdlib.h>
#include <string.h>

void round_init(struct round *round, struct store *store)
{
    memset(round, 0, sizeof *round);
    round->store = store;
}

void round_free(struct round *round)
{
    free(round->written);
    free(round->kept);
    memset(round, 0, sizeof *round);
}

static bool grow(uint64_t **bits, size_t from, size_t to)
{
    uint64_t *larger = realloc(*bits, to * sizeof *larger);
    if (!larger)
        return false;
    memset(larger + from, 0, (to - from) * sizeof *larger);
    *bits = larger;
    return true;
}

static bool make_room(struct round *round, size_t words)
{
    if (words <= round->words)
        return true;
    words += words / 2;
    if (!grow(&round->written, round->words, words) || !grow(&round->kept, round->words, words))
        return false;
    round->words = words;
    return true;
}

void round_begin(struct round *round)
{
    for (size_t word = 0; word < round->words && round->kept_count; word++)
        for (; round->kept[word]; round->kept[word] &= round->kept[word] - 1) {
            unsigned bit = (unsigned)__builtin_ctzll(round->kept[word]);
            struct store_image image = { .slot = { (uint32_t)(word * 64 + bit) } };
            store_retry(round->store, &image);
            round->kept_count--;
        }
    if (round->words)
        memset(round->written, 0, round->words * sizeof *round->written);
}

void round_written(struct round *round, const struct store_image *image)
{
    size_t word = image->slot.at / 64;
    if (make_room(round, word + 1))
        round->written[word] |= UINT64_C(1) << image->slot.at % 64;
}

bool round_keep(struct round *round, const struct store_image *image)
{
    size_t word = image->slot.at / 64;
    uint64_t bit = UINT64_C(1) << image->slot.at % 64;
    if (image->urgent || word >= round->words || !(round->written[word] & bit))
        return false;
    round->kept_count += !(round->kept[word] & bit);
    round->kept[word] |= bit;
    return true;
}
