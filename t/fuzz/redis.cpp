// What Redis says: whole conversations with anything in the place of Redis, and
// the values it keeps (cache_redis.hpp, cache_value.hpp).

#include "redis/cache.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <semaphore>
#include <thread>

#include "redis/value.hpp"
#include "fuzz.hpp"

using namespace chatbot;

namespace {

// Says the same to everybody who connects, whatever they ask.
class Parrot {
public:
    Parrot()
        : fd_(socket(AF_UNIX, SOCK_STREAM, 0))
    {
        signal(SIGPIPE, SIG_IGN);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path().copy(address.sun_path, sizeof(address.sun_path) - 1);
        if (bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) ||
            listen(fd_, 16)) {
            std::abort();
        }
        std::thread([this] { serve(); }).detach();
    }

    std::string path() const { return dir_ / "redis.sock"; }

    void learn(std::string words) { words_ = std::move(words); }

    // Returns once the last who connected is gone.  Call it for each of them.
    void rest() { done_.acquire(); }

private:
    void serve()
    {
        for (int peer; (peer = accept(fd_, nullptr, nullptr)) != -1;) {
            (void)!write(peer, words_.data(), words_.size());
            shutdown(peer, SHUT_WR);
            char asked[4096];
            while (read(peer, asked, sizeof(asked)) > 0) {
            }
            close(peer);
            done_.release();
        }
    }

    const Directory dir_;
    const int fd_;
    std::string words_;
    std::counting_semaphore<> done_{0};
};

std::vector<CacheItem> ask(Parrot& parrot, bool greets)
{
    RedisSettings settings;
    settings.path = parrot.path();
    settings.timeout_ms = 5000;
    if (greets) {
        settings.password = "secret";
        settings.db = 1;
    }

    std::vector<CacheItem> batch(4);
    batch[1].kind = CacheItem::Kind::store;
    batch[2].kind = CacheItem::Kind::probe;
    {
        RedisCache cache(settings, [] { return false; });
        cache.run(batch);
        for (const auto& notice : cache.take_notices()) {
            assert(is_text(notice.text) && notice.text.size() < 300);
        }
    }
    parrot.rest();
    return batch;
}

void check_item(const CacheItem& item)
{
    using Status = CacheItem::Status;

    bool lookup = item.kind == CacheItem::Kind::lookup;
    assert(lookup ? item.status != Status::done
                  : item.status == Status::done ||
                        item.status == Status::unavailable);
    assert((item.status == Status::hit) == !item.answer.text.empty());
    assert(is_text(item.answer.text));
}

bool equal(const Answer& a, const Answer& b)
{
    return a.text == b.text && a.model == b.model && a.created == b.created &&
           a.prompt_tokens == b.prompt_tokens &&
           a.completion_tokens == b.completion_tokens;
}

void check_value(std::string_view value)
{
    // A space more, and it is not read the fast way.
    auto answer = read_cache_value(value);
    auto thorough = read_cache_value(std::string(value) + " ");
    assert(answer.has_value() == thorough.has_value());
    if (!answer) {
        return;
    }

    assert(equal(*answer, *thorough));
    assert(is_text(answer->text) && is_text(answer->model));
    assert(!answer->text.empty());
    assert(answer->created >= 0);

    auto written = write_cache_value(*answer);
    assert(is_strict_json(written));
    auto again = read_cache_value(written);
    assert(again && equal(*again, *answer));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    static Parrot parrot;

    FuzzedDataProvider input(data, size);
    bool greets = input.ConsumeBool();
    bool framed = input.ConsumeBool();
    auto bytes = input.ConsumeRemainingBytesAsString();
    check_value(bytes);

    parrot.learn(framed ? "$" + std::to_string(bytes.size()) + "\r\n" + bytes +
                              "\r\n+OK\r\n+PONG\r\n$-1\r\n"
                        : bytes);

    auto batch = ask(parrot, greets);
    for (const auto& item : batch) {
        check_item(item);
    }
    if (framed && !greets) {
        bool good = read_cache_value(bytes).has_value();
        assert(batch[0].status ==
               (good ? CacheItem::Status::hit : CacheItem::Status::miss));
        assert(batch[3].status == CacheItem::Status::miss);
    }
    return 0;
}
