/* What the heap's ownership words say; see places.h. */
#include "tests/places.h"

/* COUNT places of SIZE bytes from OFFSET on, each with its ownership word at WORD. */
static void count_run(struct shm *shm, struct places *p, uint64_t offset, unsigned count,
                      unsigned size, size_t word)
{
    for (unsigned i = 0; i < count; i++, offset += size) {
        enum own_state state = OWN_STATE(load_relaxed((atomic_u64 *)(shm->heap + offset + word)));
        p->count[state]++;
        p->bytes += state == OWN_FREE ? 0 : size;
    }
}

static void count_page(struct shm *shm, struct places *p, unsigned class, uint64_t page)
{
    if (class == CHUNK_HINTS) {
        count_run(shm, p, page, PAGE_BYTES / HINT_BYTES, HINT_BYTES, offsetof(struct node, life));
        return;
    }
    count_run(shm, p, page, PAGE_SLOTS, SLOT_BYTES, offsetof(struct slot, node.life));
    count_run(shm, p, page + PAGE_SLOTS * SLOT_BYTES, PAGE_BLOCKS, BLOCK_UNIT,
              offsetof(struct block, own));
}

static void count_chunk(struct shm *shm, struct places *p, unsigned chunk)
{
    unsigned class = (unsigned)load_acquire(&shm->chunks[chunk].class);
    uint64_t at = (uint64_t)chunk * CHUNK_BYTES;
    if (class >= CHUNK_512 && class < CHUNK_CLASSES)
        count_run(shm, p, at, CHUNK_BYTES / class_bytes(class), class_bytes(class),
                  offsetof(struct block, own));
    if (class != CHUNK_SESSIONS && class != CHUNK_HINTS)
        return;
    for (unsigned page = chunk == 0; page < CHUNK_PAGES; page++)
        count_page(shm, p, class, at + (uint64_t)page * PAGE_BYTES);
}

struct places places_count(struct shm *shm)
{
    struct places p = { { 0 }, 0 };
    uint64_t chunks = load_acquire(&shm->header->committed);
    for (uint64_t i = 0; i < chunks && i < shm->max_chunks; i++)
        count_chunk(shm, &p, (unsigned)i);
    return p;
}
