// The n-th allocation fails, n upward until a run passes untouched: each call
// ends once all the same, or is refused and leaves nothing behind.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "core/errands.hpp"
#include "fake_resolver.hpp"
#include "journal/failing_call.hpp"
#include "openai/origin.hpp"
#include "openai/transfers.hpp"
#include "quiet_server.hpp"
#include "reactor/epoll.hpp"

namespace chatbot {
namespace {

// The same to each request.
bool answer(int fd, std::string_view, std::string_view reply)
{
    QuietServer::say(fd, reply);
    return false;
}

// Errands over the real Transfers.
class OutOfMemoryTest : public testing::Test, public Errands::Services {
protected:
    // Runs for all n, with a reply to each request.
    void fail_each(std::string_view reply)
    {
        std::size_t n = 1;
        while (run(n, reply) && n < 2000 && !HasFailure()) {
            n++;
        }
        EXPECT_GT(n, 20u);
        EXPECT_LT(n, 2000u);
        EXPECT_GT(failed_, 0u);
        EXPECT_EQ(events_.back().kind, FlightEvent::Kind::answered);
    }

    // Returns whether an allocation failed.
    bool run(std::size_t n, std::string_view reply)
    {
        QuietServer server(answer, reply);
        ModelSettings settings;
        settings.url = "http://127.0.0.1:" + std::to_string(server.port());
        settings.models = {"m"};
        settings.retries = 0;
        settings.connect_timeout_ms = settings.read_timeout_ms = 300;

        begin();
        Errand errand;
        errand.call.flight = n;
        errand.call.settings = &settings;
        errand.call.question = std::string(100, 'q');
        errand.call.api = api_;
        errand.call.listen = true;

        bool refused = false;
        {
            const FailingCall failing(n, FailingCall::How::out_of_memory);
            try {
                errands_->take(std::move(errand));
            } catch (const std::bad_alloc&) {
                refused = true;
            }
            finish();
        }
        const bool failed = FailingCall::happened();

        EXPECT_EQ(transfers_->in_flight(), 0u) << n;
        EXPECT_EQ(errands_->in_flight(), 0u) << n;
        EXPECT_EQ(ends(), refused ? 0 : 1) << n;
        return failed;
    }

    void begin()
    {
        events_.clear();
        events_.reserve(100);
        transfers_.reset();
        epoll_ = std::make_unique<Epoll>();
        errands_ = std::make_unique<Errands>(*this);
        transfers_ = std::make_unique<Transfers>(
            *epoll_, resolver_, 100,
            [this](auto&& event) { errands_->on_model(std::move(event)); });
    }

    // As the reactor does, which goes on after a failure.
    void finish()
    {
        const auto limit = Clock::now() + std::chrono::seconds(20);
        while (transfers_->in_flight() > 0 && Clock::now() < limit) {
            try {
                transfers_->flush();
                epoll_->wait(std::min(
                    Clock::now() + std::chrono::milliseconds(1), limit));
                transfers_->on_time(Clock::now());
            } catch (const std::bad_alloc&) {
                failed_++;
            }
        }
    }

    std::ptrdiff_t ends() const
    {
        return std::count_if(events_.begin(), events_.end(),
                             [](const auto& event) {
                                 return event.kind != FlightEvent::Kind::piece;
                             });
    }

    std::int64_t time_s() override { return 0; }
    bool look_up(std::size_t, FlightId, const Key&) override { return false; }
    void store(std::size_t, const Key&, int, const Answer&) override {}
    void ask(ModelCall&& call) override { transfers_->ask(std::move(call)); }
    void listen(FlightId) override {}
    void cancel(FlightId) override {}
    void tell(FlightEvent&& event) override
    {
        failed_ += event.kind == FlightEvent::Kind::failed;
        events_.push_back(std::move(event));
    }

    ApiCall api_;
    std::size_t failed_ = 0;
    FakeResolver resolver_;
    std::vector<FlightEvent> events_;
    std::unique_ptr<Epoll> epoll_;
    std::unique_ptr<Errands> errands_;
    std::unique_ptr<Transfers> transfers_;
};

TEST_F(OutOfMemoryTest, EachCallEndsOnceOrIsRefused)
{
    fail_each(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        "Connection: close\r\n\r\n"
        R"({"choices": [{"message": {"content": "Paris, on the river Seine"},)"
        R"("finish_reason": "stop"}]})");
}

constexpr std::string_view stream =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    "Connection: close\r\n\r\n"
    "data: {\"choices\": [{\"delta\": {\"content\": \"Paris, on the\"}}]}"
    "\n\n"
    "data: {\"choices\": [{\"delta\": {\"content\": \" river Seine\"},"
    "\"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";

TEST_F(OutOfMemoryTest, SoDoesEachStream)
{
    fail_each(stream);
}

TEST_F(OutOfMemoryTest, SoDoesEachStreamOfTheApi)
{
    api_ = {.model = "m", .members = R"("messages":[])"};
    fail_each(stream);
    EXPECT_NE(events_.back().answer.reply.find("Paris, on the river Seine"),
              std::string::npos);
}

// An error is asked again without the member that it names, then of another
// model; both are remembered.
TEST_F(OutOfMemoryTest, TheEndOfACallThatFailed)
{
    constexpr std::string_view error =
        "HTTP/1.1 400 X\r\nConnection: close\r\n\r\n"
        R"({"error": {"message": "no such member as this one",)"
        R"("param": "stream_options", "code": "unsupported_parameter"}})";
    std::size_t n = 1;
    while (run(n, error) && n < 2000 && !HasFailure()) {
        n++;
    }
    EXPECT_LT(n, 2000u);
    EXPECT_EQ(events_.back().problem.status, 502);
}

TEST_F(OutOfMemoryTest, AnOriginIsReadOrNothingIsKept)
{
    const std::string host = "a-host-whose-name-is-not-short.example";
    std::size_t n = 0;
    Origin origin;
    do {
        const FailingCall failing(++n, FailingCall::How::out_of_memory);
        try {
            origin = read_origin("https://" + host + "/v1");
            set_addresses(origin, {"127.0.0.1", "::1"});
        } catch (const std::bad_alloc&) {
        }
    } while (FailingCall::happened() && n < 100);
    EXPECT_GT(n, 5u);
    EXPECT_EQ(origin.host, host);
    EXPECT_TRUE(origin.resolved);
}

}  // namespace
}  // namespace chatbot
