#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace chatbot {

// The system calls of the journal.  A call that a signal interrupts is
// repeated.  None blocks: locks are tried, and only regular files are opened.
//
// Errors:  as in C, errno says why a call failed; 0: not a regular file.

// An open file, or none.
class File {
public:
    File() = default;
    explicit File(int fd)
        : fd_(fd)
    {
    }
    File(File&& other) noexcept
        : fd_(std::exchange(other.fd_, -1))
    {
    }
    File& operator=(File&& other) noexcept
    {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~File();

    [[nodiscard]] explicit operator bool() const { return fd_ != -1; }
    [[nodiscard]] int fd() const { return fd_; }

private:
    int fd_ = -1;
};

[[nodiscard]] File open_file(const std::string& path, int flags);

// `how` is LOCK_SH or LOCK_EX.
[[nodiscard]] bool try_lock(const File& file, int how);

[[nodiscard]] bool look_at(const File& file, struct stat& state);

// Whether `path` still is the file that is open; `state` is the open file's.
[[nodiscard]] bool still_there(const std::string& path, const File& file,
                               struct stat& state);

[[nodiscard]] bool truncate(const File& file, std::uint64_t size);

// Takes blocks of the disk for the first `size` bytes; the file stays as long
// as it is.
[[nodiscard]] bool allocate(const File& file, std::uint64_t size);

// Whether the disk has `bytes` left.
[[nodiscard]] bool has_space(const File& file, std::uint64_t bytes);

[[nodiscard]] bool read_at(int fd, std::uint64_t from, char* data,
                           std::size_t n);

// Appends all of `lines` to a file of `size` bytes, or nothing.  Torn: a part
// was written, and could not be cut off again.
enum class Written { all, nothing, torn };
[[nodiscard]] Written write_lines(const File& file, std::uint64_t size,
                                  std::string_view lines);

// Cuts a torn last line off; `size` is what remains.
[[nodiscard]] bool cut_torn_line(const File& file, std::uint64_t& size);

// What a file takes on the disk: its blocks, or its bytes where the file system
// does not tell.
[[nodiscard]] std::uint64_t disk_size(const struct stat& state);

// "PATH: No space left on device"
[[nodiscard]] std::string describe(const std::string& path, int error);

// "20261123T061300Z"
[[nodiscard]] std::string utc_now();

}  // namespace chatbot
