#include "journal/segment.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <utility>

namespace chatbot {
namespace {

constexpr std::string_view extension = ".jsonl";
constexpr std::string_view rejected_prefix = "rejected";
constexpr int max_lost = 100;
constexpr std::size_t max_errors = 10;

struct CloseDir {
    void operator()(DIR* dir) const { closedir(dir); }
};

// Calls `visit` with the path of each file of the journal whose name starts
// with `prefix`; false: the directory cannot be read.  (std::filesystem ends
// the process where it is out of memory.)
template <class Visit>
bool visit_files(const std::string& dir, std::string_view prefix, Visit visit)
{
    std::unique_ptr<DIR, CloseDir> files(opendir(dir.c_str()));
    if (!files) {
        return false;
    }

    while (auto entry = readdir(files.get())) {
        std::string_view name = entry->d_name;
        if (name.starts_with(prefix) && name.ends_with(extension)) {
            visit(dir + "/" + entry->d_name, name);
        }
    }
    return true;
}

bool look_at(const std::string& path, struct stat& state)
{
    return lstat(path.c_str(), &state) == 0 && S_ISREG(state.st_mode);
}

// Oldest first, as far as the names tell.
std::vector<std::string> segments_in(const std::string& dir,
                                     std::string_view prefix)
{
    std::vector<std::string> paths;
    visit_files(dir, prefix, [&](std::string path, std::string_view name) {
        if (!name.starts_with(rejected_prefix)) {
            paths.push_back(std::move(path));
        }
    });
    std::sort(paths.begin(), paths.end());
    return paths;
}

// Takes over the segment; returns false if there is nothing in it to ship, if
// its lock is held, or if it was removed or replaced before it was locked here.
bool take_over(Segment& segment)
{
    struct stat state;
    if (!try_lock(segment.file, LOCK_EX) ||
        !still_there(segment.path, segment.file, state)) {
        return false;
    }

    segment.size = static_cast<std::uint64_t>(state.st_size);
    segment.since = state.st_mtime;  // not earlier than that
    segment.adopted = true;
    if (!cut_torn_line(segment.file, segment.size)) {
        return false;
    }
    trim(segment);

    if (segment.size == 0) {
        unlink(segment.path.c_str());
    }
    return segment.size != 0;
}

// Opens and takes over one segment; what is wrong with it goes to `errors`.
bool adopt_file(const std::string& path, Segment& segment,
                std::vector<std::string>& errors)
{
    segment.path = path;
    segment.file = open_file(path, O_RDWR);
    if (!segment.file && errno != ENOENT && errors.size() < max_errors) {
        errors.push_back(describe(path, errno));
    }
    return segment.file && take_over(segment);
}

bool is_held(const std::string& path)
{
    auto file = open_file(path, O_RDONLY);
    return file && !try_lock(file, LOCK_SH) && errno == EWOULDBLOCK;
}

bool is_empty(const std::string& path)
{
    struct stat state;
    return !look_at(path, state) || state.st_size == 0;
}

}  // namespace

bool make_segment(const std::string& dir, const std::string& name,
                  unsigned& made, Segment& segment)
{
    const std::string stem = dir + "/" + name + "-" + utc_now() + "-" +
                             std::to_string(getpid()) + "-";
    struct stat state;

    // A file of that name may be there; and an adopter may lock, and then
    // remove, a new one before it is locked here.
    for (int lost = 0;;) {
        segment.path = stem + std::to_string(++made) + std::string(extension);
        segment.file =
            open_file(segment.path, O_RDWR | O_CREAT | O_EXCL | O_APPEND);
        if (!segment.file) {
            if (errno == EEXIST) {
                continue;
            }
            return false;
        }

        bool locked = try_lock(segment.file, LOCK_EX);
        int error = locked ? EWOULDBLOCK : errno;
        if (locked && still_there(segment.path, segment.file, state)) {
            return true;
        }

        // Not every file system has locks.
        unlink(segment.path.c_str());
        segment.file = {};
        if (error != EWOULDBLOCK || ++lost == max_lost) {
            errno = error;
            return false;
        }
    }
}

// A file that was cut by another program must not grow again.
void trim(Segment& segment)
{
    struct stat state;
    if (look_at(segment.file, state) &&
        static_cast<std::uint64_t>(state.st_size) >= segment.size) {
        (void)!truncate(segment.file, segment.size);
    }
    segment.claimed = segment.size;
}

void close_segment(Segment segment)
{
    if (segment.shipped == segment.size && unlink(segment.path.c_str()) != 0) {
        (void)!truncate(segment.file, 0);
    }
}

Orphans find_orphans(const std::string& dir, const std::string& prefix,
                     std::size_t max)
{
    Orphans found;
    found.segments.reserve(max);
    for (const auto& path : segments_in(dir, prefix)) {
        if (found.segments.size() == max) {
            found.more = true;
            break;
        }

        Segment segment;
        if (adopt_file(path, segment, found.errors)) {
            found.segments.push_back(std::move(segment));
        }
    }
    return found;
}

std::vector<std::string> tidy_orphans(const std::string& dir,
                                      const std::string& prefix)
{
    std::vector<std::string> errors;
    for (const auto& path : segments_in(dir, prefix)) {
        Segment segment;
        (void)adopt_file(path, segment, errors);
    }
    return errors;
}

std::vector<std::string> find_abandoned(const std::string& dir,
                                        const std::string& prefix)
{
    auto paths = segments_in(dir, prefix);
    std::erase_if(paths, [](const std::string& path) {
        return is_empty(path) || is_held(path);
    });
    return paths;
}

bool has_held(const std::string& dir, const std::string& prefix)
{
    auto paths = segments_in(dir, prefix);
    return std::any_of(paths.begin(), paths.end(), is_held);
}

bool read_slice(const Slice& slice, std::string& lines)
{
    const std::uint64_t total = slice.to - slice.from;

    for (std::uint64_t want = max_slice;; want *= 2) {
        lines.resize(std::min(want, total));
        if (!read_at(slice.fd, slice.from, lines.data(), lines.size())) {
            lines.clear();
            return false;
        }

        auto newline = lines.rfind('\n');
        if (newline != std::string::npos) {
            lines.resize(newline + 1);
            return true;
        }
        if (lines.size() == total) {
            return true;
        }
    }
}

std::optional<std::uint64_t> disk_size(const std::string& dir,
                                       std::string_view prefix,
                                       const std::set<std::string>& except)
{
    std::uint64_t total = 0;
    auto add = [&](const std::string& path, std::string_view) {
        struct stat state;
        if (!except.contains(path) && look_at(path, state)) {
            total += disk_size(state);
        }
    };
    return visit_files(dir, prefix, add) ? std::optional(total) : std::nullopt;
}

Usage usage(const std::string& dir, std::string_view prefix)
{
    Usage all;
    visit_files(dir, "", [&](const std::string& path, std::string_view name) {
        struct stat state;
        if (look_at(path, state)) {
            all.disk += disk_size(state);
            all.bytes += name.starts_with(prefix)
                             ? static_cast<std::uint64_t>(state.st_size)
                             : 0;
        }
    });
    return all;
}

// The new name is taken by an empty file first, as nothing may be overwritten.
bool move_away(const std::string& dir, const std::string& name,
               const std::string& path)
{
    Segment place;
    unsigned made = 0;
    return make_segment(dir, name, made, place) &&
           (std::rename(path.c_str(), place.path.c_str()) == 0 ||
            (close_segment(std::move(place)), false));
}

}  // namespace chatbot
