#include "journal/rejects.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "journal/segment.hpp"

namespace chatbot {
namespace {

const std::string name = "rejected";

constexpr int max_tries = 20;
constexpr useconds_t try_again_us = 1000;

std::uint64_t size_of(const struct stat& state)
{
    return static_cast<std::uint64_t>(state.st_size);
}

// Opens and locks the file that is to be appended to; if it is full, it is
// renamed, and another one made.
File open_shared(const Rejects& rejects, std::size_t n, std::string& path)
{
    path = rejects.dir + "/" + name + ".jsonl";
    for (int i = 0; i < max_tries; ++i) {
        auto file = open_file(path, O_RDWR | O_CREAT | O_APPEND);
        if (!file) {
            return {};
        }

        struct stat state;
        if (!try_lock(file, LOCK_EX)) {
            usleep(try_again_us);
            continue;
        }
        if (!still_there(path, file, state)) {
            continue;
        }

        auto size = size_of(state);
        if (size == 0 || size + n <= rejects.max_size / 16 ||
            !move_away(rejects.dir, name, path)) {
            return file;
        }
    }
    return {};
}

std::string append_to(const File& file, const std::string& path,
                      std::string_view lines)
{
    struct stat state;
    std::uint64_t size = 0;
    if (look_at(file, state)) {
        // One that died halfway left a torn line, which would spoil the next.
        size = size_of(state);
        if (cut_torn_line(file, size) &&
            write_lines(file, size, lines) == Written::all) {
            return {};
        }
    }
    return describe(path, errno);
}

}  // namespace

std::string set_aside(const Rejects& rejects, std::string_view lines)
{
    auto taken = disk_size(rejects.dir, name, {}).value_or(0);
    if (taken != 0 && taken + lines.size() > rejects.max_size / 4) {
        return rejects.dir +
               ": the records that PostgreSQL refused take a "
               "quarter of max_size; move or remove " +
               name + "*.jsonl";
    }

    std::string path;
    auto file = open_shared(rejects, lines.size(), path);
    if (file) {
        return append_to(file, path, lines);
    }

    Segment own;
    unsigned made = 0;
    if (!make_segment(rejects.dir, name, made, own)) {
        return describe(own.path, errno);
    }
    auto error = append_to(own.file, own.path, lines);
    if (!error.empty()) {
        unlink(own.path.c_str());
    }
    return error;
}

}  // namespace chatbot
