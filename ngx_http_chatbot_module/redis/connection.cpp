#include "redis/connection.hpp"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "text/invariant.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::size_t max_error_size = 200;
constexpr std::size_t kept_buffer_size = 256 * 1024;

// No command of ours is answered with an array, so nobody shall make us reserve
// memory for one.
redisReplyObjectFunctions* without_arrays(const redisReader& reader)
{
    static redisReplyObjectFunctions functions = [&] {
        auto changed = *reader.fn;
        changed.createArray = [](const redisReadTask*, auto) -> void* {
            return nullptr;
        };
        return changed;
    }();
    return &functions;
}

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

void RedisConnection::FreeReader::operator()(redisReader* reader) const
{
    redisReaderFree(reader);
}

void RedisConnection::FreeReply::operator()(redisReply* reply) const
{
    freeReplyObject(reply);
}

RedisConnection::RedisConnection(const RedisSettings& settings, Poller& poller,
                                 Resolver& resolver, Owner& owner)
    : settings_(settings),
      poller_(poller),
      resolver_(resolver),
      owner_(owner)
{
}

RedisConnection::~RedisConnection()
{
    close();
}

void RedisConnection::open()
{
    if (!invariant(!is_open(), "a connection is opened twice")) {
        close();
    }
    reader_.reset(redisReaderCreate());
    if (!reader_) {
        throw std::bad_alloc();
    }
    reader_->fn = without_arrays(*reader_);
    reader_->maxbuf = kept_buffer_size;
    refused_.clear();

    if (settings_.host.empty()) {
        stage_ = Stage::connecting;
        if (!connect_unix()) {
            lose(std::strerror(errno));
        }
        return;
    }

    stage_ = Stage::resolving;
    alive_ = std::make_shared<bool>(true);
    resolver_.resolve(settings_.host, [this, alive = alive_](auto& result) {
        if (*alive) {
            on_resolved(result);
        }
    });
}

void RedisConnection::close()
{
    stage_ = Stage::closed;
    if (alive_) {
        *std::exchange(alive_, nullptr) = false;
    }
    close_socket();
    reader_.reset();
    addresses_.clear();
    next_address_ = 0;
    out_.clear();
    sent_ = 0;
    owed_ = 0;
}

void RedisConnection::close_socket()
{
    tls_.reset();
    if (fd_ == -1) {
        return;
    }
    watch(0);
    ::close(std::exchange(fd_, -1));
}

void RedisConnection::send(std::initializer_list<std::string_view> command)
{
    invariant(is_open(), "a command for a connection that is closed");
    owed_++;
    out_ += '*' + std::to_string(command.size()) + "\r\n";
    for (auto word : command) {
        out_ += '$' + std::to_string(word.size()) + "\r\n";
        out_.append(word).append("\r\n");
    }
}

void RedisConnection::flush()
{
    if (stage_ != Stage::ready || unsent() == 0) {
        return;
    }

    auto io = write_some();
    if (io == Io::failed) {
        return;
    }
    watch(Poller::readable | (io == Io::again ? Poller::writable : 0));
}

void RedisConnection::on_resolved(const Resolver::Result& result)
{
    if (result.addresses.empty()) {
        lose(result.error);
        return;
    }

    addresses_ = result.addresses;
    connect_next();
}

// Tries the addresses in turn, until one does not fail at once.
void RedisConnection::connect_next()
{
    stage_ = Stage::connecting;
    while (next_address_ < addresses_.size()) {
        close_socket();
        if (connect_to(addresses_[next_address_++])) {
            return;
        }
        refused_ = std::strerror(errno);
    }
    lose(refused_);
}

bool RedisConnection::connect_to(const std::string& address)
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

    errno = EAFNOSUPPORT;
    return false;
}

bool RedisConnection::connect_unix()
{
    sockaddr_un un{};
    if (settings_.path.size() >= sizeof(un.sun_path)) {
        errno = ENAMETOOLONG;
        return false;
    }
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, settings_.path.c_str(), settings_.path.size() + 1);
    return connect_socket(&un, sizeof(un));
}

bool RedisConnection::connect_socket(const void* address, unsigned size)
{
    auto to = static_cast<const sockaddr*>(address);
    fd_ = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ == -1) {
        return false;
    }

    const int on = 1;
    if (to->sa_family != AF_UNIX) {
        setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd_, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }

    // A unix socket whose backlog is full says EAGAIN: nobody accepts.
    if (connect(fd_, to, size) == -1 && errno != EINPROGRESS) {
        const int error = errno;
        close_socket();
        errno = error;
        return false;
    }
    watch(Poller::writable);
    return true;
}

void RedisConnection::on_ready(int, unsigned ready)
try {
    switch (stage_) {
        case Stage::connecting:
            on_connected();
            break;
        case Stage::handshaking:
            shake_hands();
            break;
        case Stage::ready:
            if (ready & Poller::writable) {
                flush();
            }
            if (ready & Poller::readable && stage_ == Stage::ready) {
                read();
            }
            break;
        case Stage::closed:
        case Stage::resolving:
            break;
    }
} catch (const std::bad_alloc&) {
    lose("no memory");
}

void RedisConnection::on_connected()
{
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        refused_ = std::strerror(error);
        connect_next();
        return;
    }

    if (!settings_.tls) {
        set_ready();
    } else if (start_tls()) {
        stage_ = Stage::handshaking;
        shake_hands();
    } else {
        lose("TLS cannot be set up");
    }
}

void RedisConnection::set_ready()
{
    stage_ = Stage::ready;
    watch(Poller::readable);
    flush();
}

bool RedisConnection::start_tls()
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

void RedisConnection::shake_hands()
{
    ERR_clear_error();
    const int result = SSL_do_handshake(tls_.get());
    if (result == 1) {
        set_ready();
    } else if (tls_result(result) == Io::failed) {
        lose(tls_reason());
    }
}

// What is to be waited for after a call of libssl that did not succeed.
RedisConnection::Io RedisConnection::tls_result(int result)
{
    switch (SSL_get_error(tls_.get(), result)) {
        case SSL_ERROR_WANT_READ:
            watch(Poller::readable);
            return Io::again;
        case SSL_ERROR_WANT_WRITE:
            watch(Poller::readable | Poller::writable);
            return Io::again;
        default:
            return Io::failed;
    }
}

std::string RedisConnection::tls_reason() const
{
    const auto verified = SSL_get_verify_result(tls_.get());
    if (verified != X509_V_OK) {
        return std::string("TLS: ") + X509_verify_cert_error_string(verified);
    }

    const char* reason = ERR_reason_error_string(ERR_peek_last_error());
    return std::string("TLS: ") +
           (reason ? reason : "the connection was closed");
}

RedisConnection::Io RedisConnection::write_some()
{
    while (unsent() > 0) {
        const char* data = out_.data() + sent_;
        ssize_t n;
        if (tls_) {
            ERR_clear_error();
            n = SSL_write(tls_.get(), data, static_cast<int>(unsent()));
            if (n <= 0 && tls_result(static_cast<int>(n)) == Io::again) {
                return Io::again;
            }
        } else {
            n = ::send(fd_, data, unsent(), MSG_NOSIGNAL);
            if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
                return Io::again;
            }
        }
        if (n <= 0) {
            lose(tls_ ? tls_reason() : std::strerror(errno));
            return Io::failed;
        }
        sent_ += static_cast<std::size_t>(n);
    }

    sent_ = 0;
    out_.clear();
    if (out_.capacity() > kept_buffer_size) {
        out_.shrink_to_fit();
    }
    return Io::done;
}

void RedisConnection::read()
{
    while (stage_ == Stage::ready) {
        auto io = read_some();
        if (io == Io::failed) {
            return;
        }

        take_replies();
        if (io == Io::again) {
            return;
        }
    }
}

// Done: there may be more to read.
RedisConnection::Io RedisConnection::read_some()
{
    char bytes[16 * 1024];
    ssize_t n;
    if (tls_) {
        ERR_clear_error();
        n = SSL_read(tls_.get(), bytes, sizeof(bytes));
        if (n <= 0 && tls_result(static_cast<int>(n)) == Io::again) {
            return Io::again;
        }
    } else {
        n = recv(fd_, bytes, sizeof(bytes), 0);
        if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
            return Io::again;
        }
    }

    if (n <= 0) {
        lose(n == 0 ? "the connection was closed"
             : tls_ ? tls_reason()
                    : std::strerror(errno));
        return Io::failed;
    }

    if (redisReaderFeed(reader_.get(), bytes, static_cast<std::size_t>(n)) !=
        REDIS_OK) {
        throw std::bad_alloc();
    }
    return tls_ || n == sizeof(bytes) ? Io::done : Io::again;
}

void RedisConnection::take_replies()
{
    while (stage_ == Stage::ready) {
        void* read = nullptr;
        const auto status = redisReaderGetReply(reader_.get(), &read);
        const std::unique_ptr<redisReply, FreeReply> reply(
            static_cast<redisReply*>(read));

        if (status != REDIS_OK || (reply && owed_ == 0) ||
            (!reply && reader_->len - reader_->pos > max_reply_size)) {
            lose("answers nonsense");
            return;
        }
        if (!reply) {
            return;
        }
        owed_--;
        owner_.on_reply(*reply);
    }
}

void RedisConnection::watch(unsigned what)
{
    if (fd_ != -1 && watched_ != what) {
        watched_ = what;
        poller_.watch(fd_, what, *this);
    }
}

void RedisConnection::lose(std::string_view reason)
{
    const std::string told = one_line(reason, max_error_size);
    close();
    owner_.on_lost(told);
}

}  // namespace chatbot
