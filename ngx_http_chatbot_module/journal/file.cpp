#include "journal/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <system_error>

namespace chatbot {
namespace {

template <class Call>
auto uninterrupted(Call call)
{
    decltype(call()) result;
    do {
        result = call();
    } while (result == -1 && errno == EINTR);
    return result;
}

}  // namespace

File::~File()
{
    if (fd_ != -1) {
        close(fd_);
    }
}

File open_file(const std::string& path, int flags)
{
    File file(uninterrupted([&] {
        return open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
                    0640);
    }));

    struct stat state;
    if (file && look_at(file, state) && !S_ISREG(state.st_mode)) {
        errno = 0;
        return {};
    }
    if (!file && (errno == ELOOP || errno == EISDIR || errno == ENXIO)) {
        errno = 0;
    }
    return file;
}

bool try_lock(const File& file, int how)
{
    return uninterrupted([&] { return flock(file.fd(), how | LOCK_NB); }) == 0;
}

bool look_at(const File& file, struct stat& state)
{
    return fstat(file.fd(), &state) == 0;
}

bool still_there(const std::string& path, const File& file, struct stat& state)
{
    struct stat named;
    return look_at(file, state) && lstat(path.c_str(), &named) == 0 &&
           state.st_dev == named.st_dev && state.st_ino == named.st_ino;
}

bool truncate(const File& file, std::uint64_t size)
{
    return uninterrupted([&] {
               return ftruncate(file.fd(), static_cast<off_t>(size));
           }) == 0;
}

bool allocate(const File& file, std::uint64_t size)
{
    return uninterrupted([&] {
               return fallocate(file.fd(), FALLOC_FL_KEEP_SIZE, 0,
                                static_cast<off_t>(size));
           }) == 0;
}

bool has_space(const File& file, std::uint64_t bytes)
{
    struct statvfs disk;
    return fstatvfs(file.fd(), &disk) == 0 &&
           bytes / disk.f_frsize < disk.f_bavail;
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

Written write_lines(const File& file, std::uint64_t size,
                    std::string_view lines)
{
    auto written = uninterrupted(
        [&] { return write(file.fd(), lines.data(), lines.size()); });
    if (written == static_cast<ssize_t>(lines.size())) {
        return Written::all;
    }
    if (written == -1) {
        return Written::nothing;
    }

    // A disk that fills up midway takes a part without an error.
    bool cut = truncate(file, size);
    errno = ENOSPC;
    return cut ? Written::nothing : Written::torn;
}

bool cut_torn_line(const File& file, std::uint64_t& size)
{
    char block[64 * 1024];
    std::uint64_t end = size;

    while (end != 0) {
        std::size_t n = std::min<std::uint64_t>(end, sizeof(block));
        if (!read_at(file.fd(), end - n, block, n)) {
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
    return truncate(file, size);
}

std::uint64_t disk_size(const struct stat& state)
{
    constexpr std::uint64_t block_size = 512;  // whatever st_blksize is
    return std::max(static_cast<std::uint64_t>(state.st_size),
                    static_cast<std::uint64_t>(state.st_blocks) * block_size);
}

std::string describe(const std::string& path, int error)
{
    return path + ": " +
           (error ? std::generic_category().message(error)
                  : "not a regular file");
}

std::string utc_now()
{
    std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);

    char text[32];
    return {text, std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &utc)};
}

}  // namespace chatbot
