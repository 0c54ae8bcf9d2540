// Both names of a function are defined: fstat and fstat64.
#undef _FILE_OFFSET_BITS

#include "journal/failing_call.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

using How = chatbot::FailingCall::How;

bool armed = false;
unsigned left = 0;  // calls that succeed before
How how = How::io_error;
const char* failed = nullptr;

// Whether this is the N-th of the calls that count.
bool is_next(const char* name)
{
    if (!armed || failed || left-- != 0) {
        return false;
    }
    failed = name;
    return true;
}

bool fails(const char* name)
{
    return how != How::out_of_memory && is_next(name);
}

// Those of files on a local disk that no signal interrupts.
bool fails_uninterrupted(const char* name)
{
    return how != How::interrupted && fails(name);
}

// An error other than a signal is the loss of the connection.
bool fails_on_socket(int fd, const char* name)
{
    const bool failing = fails(name);
    if (failing && how != How::interrupted && how != How::partly) {
        shutdown(fd, SHUT_RDWR);
    }
    return failing;
}

int error()
{
    switch (how) {
        case How::no_space:
            return ENOSPC;
        case How::interrupted:
            return EINTR;
        case How::partly:
            return EOPNOTSUPP;
        case How::io_error:
        case How::out_of_memory:
            break;
    }
    return EIO;
}

template <class Function>
Function next(Function, const char* name)
{
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

void* allocate(std::size_t n)
{
    if (how == How::out_of_memory && is_next("operator new")) {
        return nullptr;
    }
    return std::malloc(n ? n : 1);
}

}  // namespace

namespace chatbot {

FailingCall::FailingCall(unsigned n, How how_to)
{
    left = n - 1;
    how = how_to;
    failed = nullptr;
    armed = true;
}

FailingCall::~FailingCall()
{
    armed = false;
}

bool FailingCall::happened()
{
    return failed;
}

const char* FailingCall::name()
{
    return failed ? failed : "";
}

}  // namespace chatbot

void* operator new(std::size_t n)
{
    void* p = allocate(n);
    if (!p) {
        throw std::bad_alloc();
    }
    return p;
}

void* operator new(std::size_t n, const std::nothrow_t&) noexcept
{
    return allocate(n);
}

void operator delete(void* p) noexcept
{
    std::free(p);
}

void operator delete(void* p, std::size_t) noexcept
{
    std::free(p);
}

void operator delete(void* p, const std::nothrow_t&) noexcept
{
    std::free(p);
}

// A function NAME(parameters) that is called with (arguments).
#define CHATBOT_FAILING_IF(fails, name, parameters, arguments)        \
    int name parameters                                               \
    {                                                                 \
        static auto real = next(&name, #name);                        \
        return fails(#name) ? (errno = error(), -1) : real arguments; \
    }
#define CHATBOT_FAILING(name, parameters, arguments) \
    CHATBOT_FAILING_IF(fails, name, parameters, arguments)
#define CHATBOT_UNINTERRUPTED(name, parameters, arguments) \
    CHATBOT_FAILING_IF(fails_uninterrupted, name, parameters, arguments)

// The same for those that may take a part of the `n` bytes.
#define CHATBOT_PARTLY_IF(fails, name, parameters, arguments) \
    ssize_t name parameters                                   \
    {                                                         \
        static auto real = next(&name, #name);                \
        if (fails) {                                          \
            if (how != How::partly || n < 2) {                \
                errno = error();                              \
                return -1;                                    \
            }                                                 \
            n /= 2;                                           \
        }                                                     \
        return real arguments;                                \
    }
#define CHATBOT_PARTLY(name, parameters, arguments) \
    CHATBOT_PARTLY_IF(fails(#name), name, parameters, arguments)

#define CHATBOT_OPEN(name)                                                     \
    int name(const char* path, int flags, ...)                                 \
    {                                                                          \
        static auto real = reinterpret_cast<int (*)(const char*, int, ...)>(   \
            dlsym(RTLD_NEXT, #name));                                          \
        va_list list;                                                          \
        va_start(list, flags);                                                 \
        auto mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;                \
        va_end(list);                                                          \
        return fails(#name) ? (errno = error(), -1) : real(path, flags, mode); \
    }

extern "C" {

CHATBOT_OPEN(open)
CHATBOT_OPEN(open64)

CHATBOT_PARTLY(write, (int fd, const void* data, size_t n), (fd, data, n))
CHATBOT_PARTLY(pread, (int fd, void* data, size_t n, off_t from),
               (fd, data, n, from))
CHATBOT_PARTLY(pread64, (int fd, void* data, size_t n, off64_t from),
               (fd, data, n, from))

CHATBOT_PARTLY_IF(fails_on_socket(fd, "recv"), recv,
                  (int fd, void* data, size_t n, int flags),
                  (fd, data, n, flags))
CHATBOT_PARTLY_IF(fails_on_socket(fd, "send"), send,
                  (int fd, const void* data, size_t n, int flags),
                  (fd, data, n, flags))

CHATBOT_FAILING(poll, (pollfd * fds, nfds_t n, int timeout_ms),
                (fds, n, timeout_ms))
CHATBOT_UNINTERRUPTED(connect, (int fd, const sockaddr* to, socklen_t size),
                      (fd, to, size))
CHATBOT_UNINTERRUPTED(socket, (int domain, int type, int protocol) noexcept,
                      (domain, type, protocol))

CHATBOT_FAILING(fallocate, (int fd, int mode, off_t from, off_t n),
                (fd, mode, from, n))
CHATBOT_FAILING(fallocate64, (int fd, int mode, off64_t from, off64_t n),
                (fd, mode, from, n))
CHATBOT_FAILING(ftruncate, (int fd, off_t n) noexcept, (fd, n))
CHATBOT_FAILING(ftruncate64, (int fd, off64_t n) noexcept, (fd, n))
CHATBOT_FAILING(flock, (int fd, int operation) noexcept, (fd, operation))
CHATBOT_UNINTERRUPTED(unlink, (const char* path) noexcept, (path))
CHATBOT_UNINTERRUPTED(rename, (const char* from, const char* to) noexcept,
                      (from, to))
CHATBOT_UNINTERRUPTED(fstat, (int fd, struct stat* state) noexcept, (fd, state))
CHATBOT_UNINTERRUPTED(fstat64, (int fd, struct stat64* state) noexcept,
                      (fd, state))
CHATBOT_UNINTERRUPTED(lstat, (const char* path, struct stat* state) noexcept,
                      (path, state))
CHATBOT_UNINTERRUPTED(lstat64,
                      (const char* path, struct stat64* state) noexcept,
                      (path, state))
CHATBOT_UNINTERRUPTED(fstatvfs, (int fd, struct statvfs* disk) noexcept,
                      (fd, disk))
CHATBOT_UNINTERRUPTED(fstatvfs64, (int fd, struct statvfs64* disk) noexcept,
                      (fd, disk))

DIR* opendir(const char* path)
{
    static auto real = next(&opendir, "opendir");
    return fails_uninterrupted("opendir") ? (errno = error(), nullptr)
                                          : real(path);
}

}  // extern "C"
