#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/poller.hpp"
#include "core/resolver.hpp"

namespace chatbot {

// A Resolver by getaddrinfo(3), which blocks: each host that is looked up has
// one thread as long as that takes, however many ask for it.
//
// Threads:  all on one thread, the reactor's; only `wake` is called in others.
// Exit:     a lookup that hangs does not hold up the destructor: its thread is
//           detached, and shares nothing with the resolver but its result.
class ThreadedResolver final : public Resolver {
public:
    // `wake` has the owner call take_results() soon; it must outlive the
    // process' threads, as must what it captures.
    explicit ThreadedResolver(std::function<void()> wake);
    ~ThreadedResolver();

    ThreadedResolver(const ThreadedResolver&) = delete;
    ThreadedResolver& operator=(const ThreadedResolver&) = delete;

    void resolve(const std::string& host, Done done) override;

    void doubt(const std::string& host) noexcept override;

    // Tells whoever waits for a lookup that has ended.
    void take_results();

    // How long addresses are used, and those that are in doubt.
    static constexpr std::chrono::seconds valid{60};
    static constexpr std::chrono::seconds valid_in_doubt{1};

private:
    struct Shared;
    struct Host {
        Result result;
        Clock::time_point found_at;
        bool in_doubt = false;
        std::vector<Done> waiting;
    };

    void start(const std::string& host);

    std::shared_ptr<Shared> shared_;
    std::unordered_map<std::string, Host> hosts_;
};

}  // namespace chatbot
