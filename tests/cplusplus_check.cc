/*
 * The public header in C++: it compiles without warnings, links, and works.  Exit status 0.
 */
#include "lib/sesstab.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <unistd.h>

/* Closes and removes the table whatever happens. */
class Table {
public:
    Table() : name_("/sesstab-test-cplusplus-" + std::to_string(getpid())), table_(nullptr)
    {
        sesstab_options options = sesstab_options();
        options.create = true;
        options.mode = SESSTAB_MEMORY;
        result_ = sesstab_open(name_.c_str(), &options, &table_);
    }
    ~Table()
    {
        sesstab_close(table_);
        sesstab_unlink(name_.c_str());
    }
    Table(const Table &) = delete;
    Table &operator=(const Table &) = delete;
    int result() const { return result_; }
    sesstab *get() const { return table_; }

private:
    std::string name_;
    sesstab *table_;
    int result_;
};

static int count(const sesstab_view *, void *number)
{
    ++*static_cast<int *>(number);
    return 0;
}

static bool session_is_found(sesstab *table, std::uint64_t handle)
{
    sesstab_view view;
    const void *width = nullptr;
    if (sesstab_read_begin(table) != SESSTAB_OK)
        return false;
    bool right = sesstab_find(table, handle, &view) == SESSTAB_OK
                 && std::string(view.player) == "#1" && view.state == SESSTAB_LOGGED_IN
                 && sesstab_metadata(&view, "width", &width, nullptr, nullptr) == SESSTAB_OK
                 && std::strcmp(static_cast<const char *>(width), "80") == 0;
    sesstab_read_end(table);
    return right;
}

static bool walk_sees_one(sesstab *table)
{
    sesstab_cursor cursor = sesstab_cursor();
    sesstab_view view;
    int sessions = 0, bound = 0;
    while (sesstab_next(table, &cursor, &view) == SESSTAB_OK)
        sessions++;
    return sessions == 1 && sesstab_by_player(table, "#1", count, &bound) == SESSTAB_OK
           && bound == 1;
}

int main()
{
    Table table;
    std::uint64_t handle = 0;
    sesstab_info info = sesstab_info();
    info.type = "test";
    if (table.result() != SESSTAB_OK) {
        std::fprintf(stderr, "%s: %s\n", sesstab_strerror(table.result()), sesstab_error_detail());
        return 1;
    }
    bool right = sesstab_insert(table.get(), &handle, &info) == SESSTAB_OK
                 && sesstab_set(table.get(), handle, "width", "80", 2) == SESSTAB_OK
                 && sesstab_bind(table.get(), handle, "#1", 0) == SESSTAB_OK
                 && session_is_found(table.get(), handle) && walk_sees_one(table.get());
    if (!right)
        std::fprintf(stderr, "the table does not work from C++\n");
    return right ? 0 : 1;
}
