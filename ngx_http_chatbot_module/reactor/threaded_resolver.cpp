#include "reactor/threaded_resolver.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <list>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

namespace chatbot {
namespace {

struct FreeAddresses {
    void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

Resolver::Result look_up(const std::string& host)
{
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;

    addrinfo* list = nullptr;
    int error = getaddrinfo(host.c_str(), nullptr, &hints, &list);
    if (error == EAI_NONAME || error == EAI_ADDRFAMILY) {
        // AI_ADDRCONFIG does not count loopback, which may be all there is.
        hints.ai_flags = 0;
        error = getaddrinfo(host.c_str(), nullptr, &hints, &list);
    }
    Resolver::Result result;
    if (error) {
        result.error = host + ": " + gai_strerror(error);
        return result;
    }

    const std::unique_ptr<addrinfo, FreeAddresses> found(list);
    for (auto at = list; at; at = at->ai_next) {
        char text[INET6_ADDRSTRLEN];
        if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof(text),
                        nullptr, 0, NI_NUMERICHOST) == 0) {
            result.addresses.push_back(text);
        }
    }
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
    // The host and what was found of it.
    using Results = std::list<std::pair<std::string, Result>>;

    void add(Results&& result) noexcept
    {
        std::lock_guard lock(mutex);
        if (wake) {
            results.splice(results.end(), result);
            wake();
        }
    }

    std::mutex mutex;
    std::function<void()> wake;  // null: the resolver is gone
    Results results;
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
    const auto until =
        known.found_at + (known.in_doubt ? valid_in_doubt : valid);
    if (!known.result.addresses.empty() && Clock::now() < until) {
        done(known.result);
        return;
    }

    known.waiting.push_back(std::move(done));
    if (known.waiting.size() > 1) {
        return;
    }
    try {
        start(host);
    } catch (const std::bad_alloc&) {
        known.waiting.pop_back();
        throw;
    }
}

void ThreadedResolver::doubt(const std::string& host) noexcept
{
    const auto known = hosts_.find(host);
    if (known != hosts_.end()) {
        known->second.in_doubt = true;
    }
}

// Room for the result is made first: the end of a lookup needs no memory.
void ThreadedResolver::start(const std::string& host)
{
    Shared::Results room;
    room.emplace_back(host, Result{});
    try {
        std::thread([shared = shared_, room]() mutable noexcept {
            auto& [name, result] = room.front();
            try {
                result = look_up(name);
            } catch (const std::bad_alloc&) {
                result.error = "no memory";
            }
            shared->add(std::move(room));
        }).detach();
    } catch (const std::system_error& e) {
        room.front().second.error = host + ": " + e.what();
        shared_->add(std::move(room));
    }
}

void ThreadedResolver::take_results()
{
    Shared::Results results;
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
        known.found_at = Clock::now();
        known.in_doubt = false;
        for (const auto& done : waiting) {
            done(known.result);
        }
    }
}

}  // namespace chatbot
