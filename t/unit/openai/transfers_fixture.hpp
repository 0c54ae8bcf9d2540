#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fake_resolver.hpp"
#include "fake_server.hpp"
#include "openai/transfers.hpp"
#include "reactor/epoll.hpp"

namespace chatbot {

using std::chrono::milliseconds;

// A fake upstream: answers each request as told.
class Upstream {
public:
    // Gets the connection, the request, and the request's number from 1.
    using Script = std::function<void(Peer&, const std::string&, int)>;

    explicit Upstream(Script script)
        : script_(std::move(script)),
          server_([this](Peer& peer, int) { serve(peer); })
    {
    }

    std::string address() const
    {
        return "127.0.0.1:" + std::to_string(server_.port());
    }
    int connections() const { return server_.connections(); }
    int requests() const { return requests_; }

    std::string last_request()
    {
        std::lock_guard lock(mutex_);
        return last_request_;
    }

private:
    void serve(Peer& peer)
    {
        std::string buffer;
        for (;;) {
            const std::string request = read_request(peer, buffer);
            if (request.empty()) {
                return;
            }
            {
                std::lock_guard lock(mutex_);
                last_request_ = request;
            }
            script_(peer, request, ++requests_);
        }
    }

    // Empty at the end of the connection.
    static std::string read_request(Peer& peer, std::string& buffer)
    {
        std::size_t size = std::string::npos;
        while (buffer.size() < size) {
            const std::string bytes = peer.receive();
            if (bytes.empty()) {
                return {};
            }
            buffer += bytes;

            const auto end = buffer.find("\r\n\r\n");
            const auto length = buffer.find("Content-Length: ");
            if (end != buffer.npos && length != buffer.npos) {
                size = end + 4 + std::stoul(buffer.substr(length + 16));
            }
        }

        std::string request = buffer.substr(0, size);
        buffer.erase(0, size);
        return request;
    }

    const Script script_;
    std::atomic<int> requests_ = 0;
    std::mutex mutex_;
    std::string last_request_;
    FakeServer server_;  // its threads use all of the above
};

inline void reply(Peer& peer, int status, std::string_view body,
                  std::string_view headers = "")
{
    peer.send("HTTP/1.1 " + std::to_string(status) +
              " X\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
              std::string(headers) + "\r\n" + std::string(body));
}

inline std::string completion(const std::string& text)
{
    return R"({"model": "m-1", "created": 7, "choices": [{"index": 0,)"
           R"("message": {"role": "assistant", "content": ")" +
           text +
           R"("}, "finish_reason": "stop"}],)"
           R"("usage": {"prompt_tokens": 3, "completion_tokens": 2}})";
}

inline std::string error(const std::string& code,
                         const std::string& message = "m")
{
    return R"({"error": {"code": ")" + code + R"(", "message": ")" + message +
           R"("}})";
}

inline std::string delta(const std::string& text)
{
    return R"(data: {"choices": [{"index": 0, "delta": {"content": ")" + text +
           "\"}}]}\n\n";
}

inline const std::string stream_head =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Connection: close\r\n\r\n";
inline const std::string stream_end =
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, "
    "\"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";

// The test plays the event loop and the worker thread, and turns events into
// text: "+Hel +lo =Hello" is a stream, "!503 reason" a failure.
class TransfersTest : public testing::Test {
protected:
    TransfersTest()
    {
        settings_.api_key = "sk-secret";
        settings_.models = {"m-1", "m-2"};
        settings_.stream = false;
        unsetenv("http_proxy");
        use(1000);
    }

    void start(Upstream::Script script)
    {
        upstream_ = std::make_unique<Upstream>(std::move(script));
        settings_.url = "http://" + upstream_->address() + "/v1";
    }

    // Has every request answered so.
    void answer(int status, std::string body, std::string headers = "")
    {
        start([=](Peer& peer, auto&, int) {
            reply(peer, status, body, headers);
        });
    }

    // Begins a call; `listen`: its pieces are wanted.
    FlightId begin(std::string question, bool listen = false)
    {
        ModelCall call;
        call.flight = ++last_flight_;
        call.settings = &settings();
        call.question = std::move(question);
        call.listen = listen;
        transfers_->ask(std::move(call));
        return last_flight_;
    }

    // As they are now, at an address of their own: servers are remembered by
    // it.
    const ModelSettings& settings()
    {
        const auto found = std::find(used_.begin(), used_.end(), settings_);
        return found == used_.end() ? used_.emplace_back(settings_) : *found;
    }

    std::string ask(std::string question, bool listen = false)
    {
        events_.clear();
        begin(std::move(question), listen);
        return finish();
    }

    // As the reactor's turn.  A flush may end a call (libcurl 8), so a wait
    // comes before it, not after.
    void turn(Clock::time_point until = Clock::time_point::max())
    {
        epoll_.wait(std::min(until, transfers_->deadline()));
        transfers_->on_time(Clock::now());
        transfers_->flush();
    }

    // Runs until all calls have ended, but not for ever.
    std::string finish()
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        transfers_->flush();
        while (transfers_->in_flight() && Clock::now() < limit) {
            turn(limit);
        }

        std::string text;
        for (const auto& event : events_) {
            text += (text.empty() ? "" : " ") + describe(event);
        }
        return text;
    }

    // Until the condition holds.
    template <class Condition>
    void turn_until(const Condition& condition)
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (!condition()) {
            ASSERT_LT(Clock::now(), limit);
            turn(Clock::now() + milliseconds(5));
        }
    }

    void use(std::size_t max_connections)
    {
        transfers_.reset();
        transfers_ = std::make_unique<Transfers>(
            epoll_, resolver_, max_connections, [this](auto&& event) {
                events_.push_back(std::move(event));
                seen_++;
            });
    }

    static std::string describe(const FlightEvent& event)
    {
        switch (event.kind) {
            case FlightEvent::Kind::piece:
                return "+" + event.piece;
            case FlightEvent::Kind::answered:
                return "=" + event.answer.text;
            default:
                return "!" + std::to_string(event.problem.status) + " " +
                       event.problem.reason;
        }
    }

    // `text` with the upstream's name, which differs from run to run, as "U".
    std::string plain(std::string text) const
    {
        const std::string name =
            "upstream " + upstream_->address() + "/v1/chat/completions";
        for (auto at = text.find(name); at != text.npos; at = text.find(name)) {
            text.replace(at, name.size(), "U");
        }
        return text;
    }

    const Problem& problem() const { return events_.back().problem; }

    ModelSettings settings_;
    std::list<ModelSettings> used_;

    // For scripts, which may outlive a test that fails.
    std::atomic<int> waiting_ = 0;  // requests
    std::atomic<int> seen_ = 0;     // events

    std::unique_ptr<Upstream> upstream_;
    Epoll epoll_;
    FakeResolver resolver_;
    std::vector<FlightEvent> events_;
    FlightId last_flight_ = 0;
    std::unique_ptr<Transfers> transfers_;
};

}  // namespace chatbot
