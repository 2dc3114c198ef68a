// Boost.Interprocess: an unordered_map in managed_shared_memory under one interprocess_sharable_mutex.
//
// Boost has no hash map of its own for shared memory that does without a lock; this is what its
// documentation shows.  A process that dies inside holds the mutex for ever.

#include "bench/table/loops.h"

#if __has_include(<boost/interprocess/managed_shared_memory.hpp>) && __has_include(<boost/unordered_map.hpp>)

#include "bench/sandbox.h"

#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/interprocess/sync/sharable_lock.hpp>
#include <boost/unordered_map.hpp>

#include <functional>
#include <string>
#include <utility>

namespace ipc = boost::interprocess;

namespace {

struct hash_handle {
    std::size_t operator()(std::uint64_t handle) const { return hash_of(handle); }
};

using pair = std::pair<const std::uint64_t, record>;
using allocator = ipc::allocator<pair, ipc::managed_shared_memory::segment_manager>;
using map = boost::unordered_map<std::uint64_t, record, hash_handle, std::equal_to<std::uint64_t>,
                                 allocator>;
using mutex = ipc::interprocess_sharable_mutex;
using reading = ipc::sharable_lock<mutex>;
using writing = ipc::scoped_lock<mutex>;

struct table {
    std::string name;
    ipc::managed_shared_memory segment;
    map *sessions;
    mutex *lock;
};

constexpr std::size_t BYTES_PER_SESSION = 320, BYTES_MORE = 1 << 20;

table &of(void *t) { return *static_cast<table *>(t); }

// ---------------------------------------------------------------- reading -------------------

std::uint64_t view(void *t, std::uint64_t handle)
{
    reading lock(*of(t).lock);
    auto at = of(t).sessions->find(handle);
    return at == of(t).sessions->end() ? 0 : words_of(&at->second);
}

bool copy(void *t, std::uint64_t handle, record *out)
{
    reading lock(*of(t).lock);
    auto at = of(t).sessions->find(handle);
    if (at == of(t).sessions->end())
        return false;
    *out = at->second;
    return true;
}

std::size_t batch(void *t, const std::uint64_t *handles, std::size_t count, std::uint64_t *sum)
{
    reading lock(*of(t).lock);
    std::size_t found = 0;
    for (std::size_t i = 0; i < count; i++) {
        auto at = of(t).sessions->find(handles[i]);
        if (at == of(t).sessions->end())
            continue;
        *sum += words_of(&at->second);
        found++;
    }
    return found;
}

std::size_t scan(void *t, std::uint64_t *sum)
{
    reading lock(*of(t).lock);
    for (const auto &session : *of(t).sessions)
        *sum += words_of(&session.second);
    return of(t).sessions->size();
}

// ---------------------------------------------------------------- changing ------------------

bool touch(void *t, std::uint64_t handle, std::uint64_t now)
{
    writing lock(*of(t).lock);
    auto at = of(t).sessions->find(handle);
    if (at == of(t).sessions->end())
        return false;
    at->second.last_seen = now;
    return true;
}

bool set(void *t, std::uint64_t handle, const std::uint64_t *value)
{
    writing lock(*of(t).lock);
    auto at = of(t).sessions->find(handle);
    if (at == of(t).sessions->end())
        return false;
    std::memcpy(at->second.metadata, value, SET_BYTES);
    return true;
}

bool insert(void *t, std::uint64_t handle, const record *session)
{
    writing lock(*of(t).lock);
    return of(t).sessions->emplace(handle, *session).second;
}

bool erase(void *t, std::uint64_t handle)
{
    writing lock(*of(t).lock);
    return of(t).sessions->erase(handle) == 1;
}

// ---------------------------------------------------------------- open, close ---------------

table *new_table(std::size_t sessions)
{
    char name[SANDBOX_NAME_MAX];
    sandbox_table(name, "boost");
    auto *t = new table{ name + 1, // Boost puts the slash itself
                         { ipc::create_only, name + 1, sessions * BYTES_PER_SESSION + BYTES_MORE },
                         nullptr, nullptr };
    t->lock = t->segment.construct<mutex>("lock")();
    t->sessions = t->segment.construct<map>("sessions")(
        sessions, hash_handle(), std::equal_to<std::uint64_t>(),
        allocator(t->segment.get_segment_manager()));
    return t;
}

void *open_table(std::size_t sessions)
{
    try {
        table *t = new_table(sessions);
        for (std::uint64_t handle = 1; handle <= sessions; handle++) {
            record session = usual_record(handle);
            insert(t, handle, &session);
        }
        return t;
    } catch (const std::exception &e) {
        return left_out("boost", "%s", e.what());
    }
}

void close_table(void *t)
{
    ipc::shared_memory_object::remove(of(t).name.c_str());
    delete &of(t);
}

std::uint64_t bytes(void *t)
{
    return of(t).segment.get_size() - of(t).segment.get_free_memory();
}

LOOP(get_view, each_view, view)
LOOP(get_copy, each_copy, copy)
LOOP(get_miss, each_miss, view)
LOOP(get_dependent, each_dependent, view)
LOOP(get_batch, each_batch, batch)
LOOP(touches, each_touch, touch)
LOOP(sets, each_set, set)
LOOP(inserts, each_insert_remove, insert, erase)
LOOP(scans, each_scan, scan)
LOOP(mix, each_mix, view, touch)

contender make()
{
    contender c{};
    c.open = open_table;
    c.close = close_table;
    c.read_back = copy;
    c.bytes = bytes;
    c.operations[OPERATION_VIEW] = get_view;
    c.operations[OPERATION_COPY] = get_copy;
    c.operations[OPERATION_MISS] = get_miss;
    c.operations[OPERATION_DEPENDENT] = get_dependent;
    c.operations[OPERATION_BATCH] = get_batch;
    c.operations[OPERATION_TOUCH] = touches;
    c.operations[OPERATION_SET] = sets;
    c.operations[OPERATION_INSERT_REMOVE] = inserts;
    c.operations[OPERATION_SCAN] = scans;
    c.operations[OPERATION_MIX] = mix;
    return c;
}

#else

namespace {

contender make()
{
    contender c{};
    c.missing = "libboost-dev";
    return c;
}

#endif

contender described()
{
    contender c = make();
    c.name = "boost";
    c.scope = SCOPE_PROCESSES;
    c.lacks = "Boost.Interprocess: one lock for all, whoever dies inside stops everybody for ever; "
              "fixed size; nothing is found by player; no persistence";
    c.in_dev_shm = true;
    c.bytes_per_session = 330;
    return c;
}

} // namespace

extern "C" const contender boost_contender = described();
