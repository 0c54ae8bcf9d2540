#include "journal/journal.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

namespace chatbot {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view extension = ".jsonl";
constexpr std::string_view rejected_name = "rejected.jsonl";
constexpr std::chrono::seconds retry_interval{1};
constexpr std::chrono::seconds empty_interval{1};
constexpr std::chrono::seconds look_interval{1};
constexpr int max_lost = 100;

// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(Call call)
{
    decltype(call()) result;
    do {
        result = call();
    } while (result == -1 && errno == EINTR);
    return result;
}

int open_file(const std::string& path, int flags)
{
    return uninterrupted(
        [&] { return open(path.c_str(), flags | O_CLOEXEC, 0640); });
}

bool lock(int fd, int how)
{
    return uninterrupted([&] { return flock(fd, how); }) == 0;
}

bool truncate(int fd, std::uint64_t size)
{
    return uninterrupted(
               [&] { return ftruncate(fd, static_cast<off_t>(size)); }) == 0;
}

// "20261123T061300Z"
std::string utc_now()
{
    std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);

    char text[32];
    return {text, std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &utc)};
}

std::string describe(const std::string& path, int error)
{
    return path + ": " + std::generic_category().message(error);
}

// Appends all of `lines` to a file of `size` bytes, or nothing.
bool write_lines(int fd, std::uint64_t size, std::string_view lines)
{
    auto written =
        uninterrupted([&] { return write(fd, lines.data(), lines.size()); });
    if (written == static_cast<ssize_t>(lines.size())) {
        return true;
    }

    if (written >= 0) {
        // A disk that fills up midway takes a part without an error.
        (void)!truncate(fd, size);
        errno = ENOSPC;
    }
    return false;
}

bool read_at(int fd, std::uint64_t from, char* data, std::size_t n)
{
    while (n != 0) {
        auto got = uninterrupted(
            [&] { return pread(fd, data, n, static_cast<off_t>(from)); });
        if (got <= 0) {
            return false;
        }

        data += got;
        from += static_cast<std::uint64_t>(got);
        n -= static_cast<std::size_t>(got);
    }
    return true;
}

// Cuts a torn last line off; `size` is what remains.
bool cut_torn_line(int fd, std::uint64_t& size)
{
    char block[64 * 1024];
    std::uint64_t end = size;

    while (end != 0) {
        std::size_t n = std::min<std::uint64_t>(end, sizeof(block));
        if (!read_at(fd, end - n, block, n)) {
            return false;
        }

        auto newline = std::string_view(block, n).rfind('\n');
        if (newline != std::string_view::npos) {
            end = end - n + newline + 1;
            break;
        }
        end -= n;
    }

    if (end == size) {
        return true;
    }
    size = end;
    return truncate(fd, size);
}

bool is_segment(std::string_view name, std::string_view prefix)
{
    return name.starts_with(prefix) && name.ends_with(extension) &&
           name != rejected_name;
}

std::vector<fs::path> segments_in(const std::string& dir,
                                  std::string_view prefix)
{
    std::vector<fs::path> paths;
    std::error_code ec;
    for (fs::directory_iterator it(dir, ec), end; !ec && it != end;
         it.increment(ec)) {
        if (is_segment(it->path().filename().native(), prefix)) {
            paths.push_back(it->path());
        }
    }
    std::sort(paths.begin(), paths.end());
    return paths;
}

std::uint64_t total_size(const std::vector<fs::path>& paths)
{
    std::uint64_t total = 0;
    for (const auto& path : paths) {
        std::error_code ec;  // it may have been removed meanwhile
        auto size = fs::file_size(path, ec);
        total += ec ? 0 : size;
    }
    return total;
}

// Whether `path` still is the file that is open as `fd`.
bool still_there(const std::string& path, int fd, struct stat& opened)
{
    struct stat named;
    return fstat(fd, &opened) == 0 && lstat(path.c_str(), &named) == 0 &&
           S_ISREG(opened.st_mode) && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

// Gives the blocks back that were reserved and not used.
void trim(const Segment& segment)
{
    (void)!truncate(segment.fd, segment.size);
}

// Takes over the locked segment `fd`; returns false if there is nothing in it
// to ship, or somebody else dealt with it before the lock was ours.
bool take_over(Segment& segment)
{
    struct stat opened;
    if (!lock(segment.fd, LOCK_EX | LOCK_NB) ||
        !still_there(segment.path, segment.fd, opened)) {
        return false;
    }

    segment.size = static_cast<std::uint64_t>(opened.st_size);
    if (!cut_torn_line(segment.fd, segment.size)) {
        return false;
    }
    trim(segment);

    if (segment.size == 0) {
        unlink(segment.path.c_str());
    }
    return segment.size != 0;
}

bool is_held(const std::string& path)
{
    int fd = open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (fd == -1) {
        return false;
    }

    bool held = !lock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

void close_segment(const Segment& segment)
{
    if (segment.shipped == segment.size) {
        unlink(segment.path.c_str());
    }
    close(segment.fd);
}

}  // namespace

// A journal smaller than a few segments gets smaller segments, so that some can
// be shipped while another is written; a large one larger segments, as each
// that waits takes a descriptor, but not any, as their blocks are reserved.
Journal::Journal(std::string dir, std::string name, std::uint64_t max_size,
                 bool ships)
    : dir_(std::move(dir)),
      name_(std::move(name)),
      max_size_(max_size),
      ships_(ships),
      segment_size_(std::clamp(max_size / usual_segments,
                               std::min(usual_segment, max_size / 4),
                               max_segment))
{
}

Journal::~Journal()
{
    retire();
    for (const auto& segment : queue_) {
        close_segment(segment);
    }
}

bool Journal::has_room()
{
    look_after_current();
    return is_roomy() || rotate();
}

void Journal::look_after_current()
{
    auto now = std::chrono::steady_clock::now();
    if (current_.fd == -1 || now < look_at_) {
        return;
    }

    struct stat opened;
    look_at_ = now + look_interval;
    if (!still_there(current_.path, current_.fd, opened)) {
        lost_ = current_.path;
        retire();
        retry_at_ = {};
    }
}

std::string Journal::take_lost()
{
    return std::exchange(lost_, {});
}

bool Journal::is_roomy() const
{
    return current_.fd != -1 &&
           current_.size <= segment_size_ - segment_size_ / 4;
}

bool Journal::append(std::string_view lines)
{
    look_after_current();
    if (!fits(lines.size()) && !rotate()) {
        return false;
    }

    if (write_lines(current_.fd, current_.size, lines)) {
        current_.size += lines.size();
        return true;
    }

    // What cannot be written to now is not tried for each request: a new
    // segment shows when things are better.
    fail(current_.path, errno);
    retire();
    return false;
}

// A batch larger than a segment gets one of its own.
bool Journal::fits(std::uint64_t n) const
{
    return current_.fd != -1 &&
           (current_.size == 0 || current_.size + n <= segment_size_);
}

// Makes a new current segment.  The old one, if any, stays current on failure:
// what was let in already can use the rest of it.
bool Journal::rotate()
{
    if (std::chrono::steady_clock::now() < retry_at_) {
        return false;
    }

    if (total_size(segments_in(dir_, "")) + segment_size_ > max_size_) {
        error_ = dir_ + ": its max_size is reached";
        retry_at_ = std::chrono::steady_clock::now() + retry_interval;
        return false;
    }
    return replace_current();
}

bool Journal::replace_current()
{
    Segment segment;
    if (!make(segment)) {
        return false;
    }

    retire();
    current_ = std::move(segment);
    return true;
}

bool Journal::make(Segment& segment)
{
    const std::string stem = dir_ + "/" + name_ + "-" + utc_now() + "-" +
                             std::to_string(getpid()) + "-";
    struct stat opened;

    // A file of that name may be there; and an adopter may lock, and then
    // remove, a new one before it is locked here.
    for (int lost = 0;;) {
        segment.path = stem + std::to_string(++made_) + std::string(extension);
        segment.fd =
            open_file(segment.path, O_RDWR | O_CREAT | O_EXCL | O_APPEND);
        if (segment.fd == -1) {
            if (errno == EEXIST) {
                continue;
            }
            return fail(segment.path, errno);
        }

        bool locked = lock(segment.fd, LOCK_EX | LOCK_NB);
        int error = locked ? EWOULDBLOCK : errno;
        if (locked && still_there(segment.path, segment.fd, opened)) {
            break;
        }

        // Not every file system has locks.
        close_segment(segment);
        if (error != EWOULDBLOCK || ++lost == max_lost) {
            return fail(segment.path, error);
        }
    }

    if (!reserve(segment)) {
        close_segment(segment);
        return false;
    }
    return true;
}

// Allocates the blocks ahead, so that a disk that fills up later is no
// surprise.
bool Journal::reserve(const Segment& segment)
{
    int rc = uninterrupted([&] {
        return fallocate(segment.fd, FALLOC_FL_KEEP_SIZE, 0,
                         static_cast<off_t>(segment_size_));
    });

    // Not every file system can.
    return rc == 0 || errno == EOPNOTSUPP || fail(segment.path, errno);
}

void Journal::retire()
{
    if (current_.fd == -1) {
        return;
    }

    trim(current_);
    if (ships_ && current_.shipped != current_.size) {
        queue_.push_back(std::move(current_));
    } else {
        close_segment(current_);
    }
    current_ = {};
}

bool Journal::fail(const std::string& path, int error)
{
    error_ = describe(path, error);
    retry_at_ = std::chrono::steady_clock::now() + retry_interval;
    return false;
}

Slice Journal::next_slice()
{
    empty_current();
    const Segment& segment = queue_.empty() ? current_ : queue_.front();

    shipping_ = segment.fd;
    return {segment.fd, segment.shipped, segment.size};
}

void Journal::shipped(std::uint64_t n)
{
    auto it = std::find_if(queue_.begin(), queue_.end(),
                           [&](const auto& s) { return s.fd == shipping_; });
    Segment& segment = it == queue_.end() ? current_ : *it;
    if (segment.fd != std::exchange(shipping_, -1)) {
        return;
    }

    segment.shipped = std::min(segment.shipped + n, segment.size);
    if (it == queue_.end()) {
        empty_current();
    } else if (segment.shipped == segment.size) {
        close_segment(segment);
        queue_.erase(it);
        retry_at_ = {};
    }
}

// To be emptied, the segment is replaced: its blocks are needed by what was let
// in already, until there are others.  That takes longer than a hundred
// appends: so not after each of them.
void Journal::empty_current()
{
    if (current_.size == 0 || current_.shipped != current_.size) {
        return;
    }

    auto now = std::chrono::steady_clock::now();
    if (now < empty_at_ && current_.size < segment_size_ / 16) {
        return;
    }

    empty_at_ = now + empty_interval;
    if (replace_current() || is_roomy()) {
        return;
    }

    // A disk too full for both has room for one.
    if (!truncate(current_.fd, 0)) {
        fail(current_.path, errno);
        retire();
        return;
    }
    current_.size = current_.shipped = 0;
    if (!reserve(current_)) {
        retire();
    }
}

void Journal::adopt(std::vector<Segment> orphans)
{
    if (!ships_) {
        std::for_each(orphans.begin(), orphans.end(), close_segment);
        return;
    }

    queue_.insert(queue_.begin(), std::make_move_iterator(orphans.begin()),
                  std::make_move_iterator(orphans.end()));
}

std::uint64_t Journal::backlog() const
{
    std::uint64_t bytes = current_.size - current_.shipped;
    for (const auto& segment : queue_) {
        bytes += segment.size - segment.shipped;
    }
    return bytes;
}

std::vector<Segment> find_orphans(const std::string& dir,
                                  const std::string& prefix, std::string& error)
{
    std::vector<Segment> orphans;
    error.clear();
    for (const auto& path : segments_in(dir, prefix)) {
        Segment segment;
        segment.path = path.native();
        segment.fd = open_file(segment.path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
        if (segment.fd == -1) {
            if (error.empty() && errno != ENOENT) {
                error = describe(segment.path, errno);
            }
            continue;
        }

        if (take_over(segment)) {
            orphans.push_back(std::move(segment));
        } else {
            close(segment.fd);
        }
    }
    return orphans;
}

std::vector<std::string> find_abandoned(const std::string& dir,
                                        const std::string& prefix)
{
    std::vector<std::string> found;
    for (const auto& path : segments_in(dir, prefix)) {
        if (total_size({path}) != 0 && !is_held(path.native())) {
            found.push_back(path.native());
        }
    }
    return found;
}

bool read_slice(const Slice& slice, std::string& lines)
{
    const std::uint64_t total = slice.to - slice.from;

    for (std::uint64_t want = Journal::max_slice;; want *= 2) {
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

// Several processes append to the same file; one that dies halfway leaves a
// torn line, which would spoil the next one.
bool set_aside(const std::string& dir, std::string_view lines)
{
    const std::string path = dir + "/" + std::string(rejected_name);
    int fd = open_file(path, O_RDWR | O_CREAT | O_APPEND);
    if (fd == -1) {
        return false;
    }

    struct stat opened;
    bool done = lock(fd, LOCK_EX) && fstat(fd, &opened) == 0;
    if (done) {
        std::uint64_t size = static_cast<std::uint64_t>(opened.st_size);
        done = cut_torn_line(fd, size) && write_lines(fd, size, lines);
    }
    close(fd);
    return done;
}

}  // namespace chatbot
