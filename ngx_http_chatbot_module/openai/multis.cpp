#include "openai/multis.hpp"

#include <algorithm>
#include <utility>

#include "text/invariant.hpp"

namespace chatbot {
namespace {

std::string key_of(const Origin& origin)
{
    return origin.host + ":" + origin.port + " " + origin.proxy;
}

}  // namespace

Multis::Multis(Poller& poller, std::size_t max_connections, Multi::Moved moved,
               Multi::Ended ended)
    : poller_(poller),
      max_connections_(std::max<std::size_t>(max_connections, 1)),
      moved_(std::move(moved)),
      ended_(std::move(ended))
{
}

Multi* Multis::choose(const Origin& origin)
{
    if (origin.may_speak_http2()) {
        auto& multi = http2_[key_of(origin)];
        if (!multi) {
            multi = &add(http2_connections, max_connections_);
        }
        multi->set_max_per_host(static_cast<long>(std::max(
            http2_connections, (multi->transfers() + 1) / http2_transfers)));
        return multi;
    }

    std::size_t transfers = 0;
    Multi* roomy = nullptr;
    for (auto multi : http1_) {
        transfers += multi->transfers();
        if (!roomy && multi->transfers() < max_transfers) {
            roomy = multi;
        }
    }
    invariant(transfers <= max_connections_,
              "more transfers by HTTP/1.1 than there may be");
    if (transfers >= max_connections_) {
        return nullptr;
    }

    if (!roomy) {
        roomy = &add(0, std::min(max_transfers, max_connections_));
        http1_.push_back(roomy);
    }
    return roomy;
}

std::size_t Multis::transfers() const
{
    std::size_t transfers = 0;
    for (const auto& multi : all_) {
        transfers += multi->transfers();
    }
    return transfers;
}

Multi* Multis::http2_multi(const Origin& origin)
{
    const auto found = http2_.find(key_of(origin));
    return found == http2_.end() ? nullptr : found->second;
}

void Multis::renew(const Origin& origin, const Multi* multi)
{
    if (multi == http2_multi(origin)) {
        old_.insert(multi);
        http2_.erase(key_of(origin));
    }
}

Multi& Multis::add(long max_per_host, std::size_t max_idle)
{
    all_.push_back(std::make_unique<Multi>(
        poller_, max_per_host, static_cast<long>(max_idle), moved_, ended_));
    return *all_.back();
}

// The callbacks may add a multi, so these loops count.
void Multis::flush()
{
    for (std::size_t i = 0; i < all_.size(); i++) {
        all_[i]->flush();
    }
}

void Multis::on_time(Clock::time_point now)
{
    std::erase_if(all_, [this](const auto& multi) {
        return multi->transfers() == 0 && old_.erase(multi.get()) != 0;
    });
    for (std::size_t i = 0; i < all_.size(); i++) {
        all_[i]->on_time(now);
    }
}

Clock::time_point Multis::deadline() const
{
    auto earliest = Clock::time_point::max();
    for (const auto& multi : all_) {
        earliest = std::min(earliest, multi->deadline());
    }
    return earliest;
}

}  // namespace chatbot
