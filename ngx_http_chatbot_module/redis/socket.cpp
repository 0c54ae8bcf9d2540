#include "redis/socket.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace chatbot {
namespace {

// Made once: with it the certificates of all CAs are read.  Null if that fails.
SSL_CTX* tls_settings()
{
    static SSL_CTX* const made = [] {
        SSL_CTX* tls = SSL_CTX_new(TLS_client_method());
        if (tls && !SSL_CTX_set_default_verify_paths(tls)) {
            SSL_CTX_free(std::exchange(tls, nullptr));
        }
        if (tls) {
            SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, nullptr);
            SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
            SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        }
        return tls;
    }();
    return made;
}

}  // namespace

bool RedisSocket::connect_to(const std::string& address)
{
    sockaddr_in v4{};
    if (inet_pton(AF_INET, address.c_str(), &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(static_cast<in_port_t>(settings_.port));
        return connect_socket(&v4, sizeof(v4));
    }

    sockaddr_in6 v6{};
    if (inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr) == 1) {
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(static_cast<in_port_t>(settings_.port));
        return connect_socket(&v6, sizeof(v6));
    }

    fail(std::strerror(EAFNOSUPPORT));
    return false;
}

bool RedisSocket::connect_unix()
{
    sockaddr_un un{};
    if (settings_.path.size() >= sizeof(un.sun_path)) {
        fail(std::strerror(ENAMETOOLONG));
        return false;
    }
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, settings_.path.c_str(), settings_.path.size() + 1);
    return connect_socket(&un, sizeof(un));
}

bool RedisSocket::connect_socket(const void* address, unsigned size)
{
    auto to = static_cast<const sockaddr*>(address);
    fd_ = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ == -1) {
        fail(std::strerror(errno));
        return false;
    }

    const int on = 1;
    if (to->sa_family != AF_UNIX) {
        setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd_, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }

    // EAGAIN: the backlog of a unix socket is full.
    if (connect(fd_, to, size) == -1 && errno != EINPROGRESS) {
        fail(std::strerror(errno));
        close();
        return false;
    }
    watch(Poller::writable);
    return true;
}

void RedisSocket::close()
{
    tls_.reset();
    if (fd_ == -1) {
        return;
    }
    watch(0);
    ::close(std::exchange(fd_, -1));
}

bool RedisSocket::finish_connecting()
{
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        fail(std::strerror(error));
    }
    return error == 0;
}

bool RedisSocket::start_tls()
{
    if (!tls_settings()) {
        return false;
    }

    tls_.reset(SSL_new(tls_settings()));
    if (!tls_ || !SSL_set_fd(tls_.get(), fd_)) {
        return false;
    }

    const char* host = settings_.host.c_str();
    SSL_set_connect_state(tls_.get());
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls_.get()), host) ||
           (SSL_set1_host(tls_.get(), host) &&
            SSL_set_tlsext_host_name(tls_.get(), host));
}

RedisSocket::Io RedisSocket::shake_hands()
{
    if (!tls_ && !start_tls()) {
        return fail("TLS cannot be set up");
    }

    std::size_t n = 0;
    ERR_clear_error();
    return tls_result(SSL_do_handshake(tls_.get()), n);
}

// What a call of the kernel came to: `n` bytes, or what is to be waited for.
RedisSocket::Io RedisSocket::plain_result(ssize_t result, std::size_t& n)
{
    n = static_cast<std::size_t>(std::max<ssize_t>(result, 0));
    if (result >= 0) {
        return Io::done;
    }
    return errno == EAGAIN || errno == EINTR ? Io::again
                                             : fail(std::strerror(errno));
}

// The same for a call of libssl.
RedisSocket::Io RedisSocket::tls_result(int result, std::size_t& n)
{
    n = static_cast<std::size_t>(std::max(result, 0));
    if (result > 0) {
        return Io::done;
    }
    switch (SSL_get_error(tls_.get(), result)) {
        case SSL_ERROR_WANT_READ:
            watch(Poller::readable);
            return Io::again;
        case SSL_ERROR_WANT_WRITE:
            watch(Poller::readable | Poller::writable);
            return Io::again;
        default:
            return fail(tls_reason());
    }
}

std::string RedisSocket::tls_reason() const
{
    const auto verified = SSL_get_verify_result(tls_.get());
    if (verified != X509_V_OK) {
        return std::string("TLS: ") + X509_verify_cert_error_string(verified);
    }

    const char* reason = ERR_reason_error_string(ERR_peek_last_error());
    return std::string("TLS: ") +
           (reason ? reason : "the connection was closed");
}

RedisSocket::Io RedisSocket::write(std::string_view bytes, std::size_t& n)
{
    if (tls_) {
        ERR_clear_error();
        return tls_result(
            SSL_write(tls_.get(), bytes.data(), static_cast<int>(bytes.size())),
            n);
    }
    return plain_result(send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), n);
}

RedisSocket::Io RedisSocket::read(std::span<char> bytes, std::size_t& n)
{
    if (tls_) {
        ERR_clear_error();
        return tls_result(
            SSL_read(tls_.get(), bytes.data(), static_cast<int>(bytes.size())),
            n);
    }

    const auto io = plain_result(recv(fd_, bytes.data(), bytes.size(), 0), n);
    if (io == Io::done && n == 0) {
        return fail("the connection was closed");
    }
    return io == Io::done && n < bytes.size() ? Io::again : io;
}

void RedisSocket::watch(unsigned what)
{
    if (fd_ != -1 && watched_ != what) {
        watched_ = what;
        poller_.watch(fd_, what, watcher_);
    }
}

RedisSocket::Io RedisSocket::fail(std::string_view why)
{
    error_ = why;
    return Io::failed;
}

}  // namespace chatbot
