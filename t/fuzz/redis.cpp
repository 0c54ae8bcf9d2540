// What Redis says: whole conversations with anything in the place of Redis, and
// the values it keeps (redis/cache.hpp, redis/value.hpp).

#include "redis/cache.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <optional>
#include <semaphore>
#include <thread>

#include "fuzz.hpp"
#include "reactor/epoll.hpp"
#include "redis/value.hpp"

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

class NoResolver final : public Resolver {
public:
    void resolve(const std::string&, Done) override { std::abort(); }
    void doubt(const std::string&) noexcept override {}
};

// What became of the two lookups of a conversation.
struct Outcome {
    bool ended = false;
    std::optional<Answer> answer;
};

std::array<Outcome, 2> ask(Parrot& parrot, bool greets)
{
    RedisSettings settings;
    settings.path = parrot.path();
    settings.timeout_ms = 5000;
    if (greets) {
        settings.password = "secret";
        settings.db = 1;
    }

    std::array<Outcome, 2> outcomes;
    {
        Epoll epoll;
        NoResolver resolver;
        RedisCache cache(settings, epoll, resolver,
                         [&](FlightId flight, auto&& answer) {
                             assert(!outcomes.at(flight).ended);
                             outcomes[flight] = {true, std::move(answer)};
                         });

        const bool asked = cache.look_up(0, {}) && cache.look_up(1, {});
        assert(asked);
        cache.store({}, 1, Answer());
        cache.flush();
        while (cache.busy()) {
            epoll.wait(cache.deadline());
            cache.on_time(Clock::now());
        }
        for (const auto& notice : cache.take_notices()) {
            assert(is_text(notice.text) && notice.text.size() < 300);
        }
    }
    parrot.rest();
    return outcomes;
}

void check_outcome(const Outcome& outcome)
{
    assert(outcome.ended);
    if (outcome.answer) {
        assert(!outcome.answer->text.empty());
        assert(is_text(outcome.answer->text));
    }
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
                              "\r\n$-1\r\n+OK\r\n"
                        : bytes);

    const auto outcomes = ask(parrot, greets);
    for (const auto& outcome : outcomes) {
        check_outcome(outcome);
    }
    if (framed && !greets) {
        assert(outcomes[0].answer.has_value() ==
               read_cache_value(bytes).has_value());
        assert(!outcomes[1].answer);
    }
    return 0;
}
