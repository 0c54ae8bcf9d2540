#include "reactor/threaded_resolver.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace chatbot {
namespace {

Resolver::Result look_up(const std::string& host)
{
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;

    Resolver::Result result;
    addrinfo* found = nullptr;
    int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
    if (error == EAI_NONAME || error == EAI_ADDRFAMILY) {
        // AI_ADDRCONFIG does not count loopback, which may be all there is.
        hints.ai_flags = 0;
        error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
    }
    if (error) {
        result.error = host + ": " + gai_strerror(error);
        return result;
    }

    for (auto at = found; at; at = at->ai_next) {
        char text[INET6_ADDRSTRLEN];
        if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof(text),
                        nullptr, 0, NI_NUMERICHOST) == 0) {
            result.addresses.push_back(text);
        }
    }
    freeaddrinfo(found);
    return result;
}

bool is_numeric(const std::string& host)
{
    in6_addr address;
    return inet_pton(AF_INET, host.c_str(), &address) == 1 ||
           inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

}  // namespace

// What a lookup's thread may touch.
struct ThreadedResolver::Shared {
    std::mutex mutex;
    std::function<void()> wake;  // null: the resolver is gone
    std::vector<std::pair<std::string, Result>> results;
};

ThreadedResolver::ThreadedResolver(std::function<void()> wake)
    : shared_(std::make_shared<Shared>())
{
    shared_->wake = std::move(wake);
}

ThreadedResolver::~ThreadedResolver()
{
    std::lock_guard lock(shared_->mutex);
    shared_->wake = nullptr;
}

void ThreadedResolver::resolve(const std::string& host, Done done)
{
    if (is_numeric(host)) {
        done({{host}, {}});
        return;
    }

    auto& known = hosts_[host];
    if (!known.result.addresses.empty() && Clock::now() < known.until) {
        done(known.result);
        return;
    }

    known.waiting.push_back(std::move(done));
    if (known.waiting.size() == 1) {
        start(host);
    }
}

void ThreadedResolver::start(const std::string& host)
try {
    std::thread([shared = shared_, host] {
        auto result = look_up(host);
        std::lock_guard lock(shared->mutex);
        if (shared->wake) {
            shared->results.emplace_back(host, std::move(result));
            shared->wake();
        }
    }).detach();
} catch (const std::system_error& e) {
    std::lock_guard lock(shared_->mutex);
    shared_->results.emplace_back(host, Result{{}, host + ": " + e.what()});
    shared_->wake();
}

void ThreadedResolver::take_results()
{
    std::vector<std::pair<std::string, Result>> results;
    {
        std::lock_guard lock(shared_->mutex);
        std::swap(results, shared_->results);
    }

    for (auto& [host, result] : results) {
        auto& known = hosts_[host];
        const auto waiting = std::exchange(known.waiting, {});

        // Old addresses are better than none.
        if (!result.addresses.empty() || known.result.addresses.empty()) {
            known.result = std::move(result);
        }
        known.until = Clock::now() + valid;
        const auto told = known.result;
        for (const auto& done : waiting) {
            done(told);
        }
    }
}

}  // namespace chatbot
