#include "redis/connection.hpp"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <new>
#include <utility>

#include "text/invariant.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::size_t max_error_size = 200;
constexpr std::size_t kept_buffer_size = 256 * 1024;

// None of our commands is answered with an array, so no memory is reserved for
// one that comes all the same.
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
      resolver_(resolver),
      owner_(owner),
      socket_(settings, poller, *this)
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
        if (!socket_.connect_unix()) {
            lose(socket_.error());
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

void RedisConnection::doubt_host()
{
    resolver_.doubt(settings_.host);
}

void RedisConnection::close()
{
    if (std::exchange(stage_, Stage::closed) == Stage::connecting) {
        doubt_host();
        tried_ += next_address_;
    }
    if (alive_) {
        *std::exchange(alive_, nullptr) = false;
    }
    socket_.close();
    reader_.reset();
    addresses_.clear();
    next_address_ = 0;
    out_.clear();
    sent_ = 0;
    owed_ = 0;
}

void RedisConnection::send(std::initializer_list<std::string_view> command)
{
    constexpr std::size_t max_frame = 32;  // of a word: "$123\r\n", "\r\n"

    invariant(is_open(), "a command for a connection that is closed");
    auto size = out_.size() + max_frame;
    for (auto word : command) {
        size += max_frame + word.size();
    }
    out_.reserve(size);  // what follows cannot fail midway

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
    socket_.watch(Poller::readable | (io == Io::again ? Poller::writable : 0));
}

void RedisConnection::on_resolved(const Resolver::Result& result)
try {
    if (result.addresses.empty()) {
        lose(result.error);
        return;
    }

    addresses_ = result.addresses;
    const auto first = tried_ % addresses_.size();
    std::rotate(addresses_.begin(),
                addresses_.begin() + static_cast<std::ptrdiff_t>(first),
                addresses_.end());
    connect_next();
} catch (const std::bad_alloc&) {
    lose("no memory");
}

// Tries the addresses in turn, until one does not fail at once.
void RedisConnection::connect_next()
{
    stage_ = Stage::connecting;
    while (next_address_ < addresses_.size()) {
        socket_.close();
        if (socket_.connect_to(addresses_[next_address_++])) {
            return;
        }
        refused_ = socket_.error();
    }
    lose(refused_);
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
    if (!socket_.finish_connecting()) {
        refused_ = socket_.error();
        connect_next();
    } else if (settings_.tls) {
        shake_hands();
    } else {
        set_ready();
    }
}

void RedisConnection::set_ready()
{
    stage_ = Stage::ready;
    socket_.watch(Poller::readable);
    flush();
}

const char* RedisConnection::awaited() const
{
    switch (stage_) {
        case Stage::resolving:
            return "address of the host";
        case Stage::connecting:
            return "connection";
        case Stage::handshaking:
            return "TLS handshake (does it speak TLS?)";
        default:
            return "answer";
    }
}

void RedisConnection::shake_hands()
{
    stage_ = Stage::handshaking;
    const auto io = socket_.shake_hands();
    if (io == Io::done) {
        set_ready();
    } else if (io == Io::failed) {
        lose(socket_.error());
    }
}

RedisConnection::Io RedisConnection::write_some()
{
    while (unsent() > 0) {
        std::size_t n = 0;
        const auto io = socket_.write({out_.data() + sent_, unsent()}, n);
        if (io == Io::failed) {
            lose(socket_.error());
        }
        if (io != Io::done) {
            return io;
        }
        sent_ += n;
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
    std::size_t n = 0;
    const auto io = socket_.read(bytes, n);
    if (io == Io::failed) {
        lose(socket_.error());
    } else if (n != 0 && redisReaderFeed(reader_.get(), bytes, n) != REDIS_OK) {
        throw std::bad_alloc();
    }
    return io;
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
            lose("sent an invalid reply");
            return;
        }
        if (!reply) {
            return;
        }
        owed_--;
        owner_.on_reply(*reply);
    }
}

void RedisConnection::lose(std::string_view reason)
{
    const std::string told = one_line(reason, max_error_size);
    close();
    owner_.on_lost(told);
}

}  // namespace chatbot
