#include "core/errands.hpp"

#include <new>
#include <utility>

#include "core/freshness.hpp"
#include "text/invariant.hpp"

namespace chatbot {

void Errands::take(Errand&& errand)
{
    const auto flight = errand.call.flight;
    const auto [it, is_new] = errands_.try_emplace(
        flight, State{std::move(errand), Stage::looking_up});
    if (!invariant(is_new, "a flight has two errands")) {
        return;
    }

    if (!look_up(it)) {
        ask(it);
    }
}

// False: the cache is not asked.
bool Errands::look_up(States::iterator it)
try {
    const auto& errand = it->second.errand;
    return errand.cache != Errand::no_cache && errand.look_up &&
           services_.look_up(errand.cache, it->first, errand.key);
} catch (const std::bad_alloc&) {
    errands_.erase(it);
    throw;
}

void Errands::ask(States::iterator it)
try {
    it->second.stage = Stage::asking;
    services_.ask(std::move(it->second.errand.call));
} catch (const std::bad_alloc&) {
    fail(it, out_of_memory());
}

void Errands::listen(FlightId flight)
{
    auto it = errands_.find(flight);
    if (it == errands_.end()) {
        return;  // its end is on the way to the conductor
    }

    if (it->second.stage == Stage::looking_up) {
        it->second.errand.call.listen = true;
    } else {
        services_.listen(flight);
    }
}

void Errands::cancel(FlightId flight)
{
    auto it = errands_.find(flight);
    if (it == errands_.end()) {
        return;
    }

    if (it->second.stage == Stage::asking) {
        services_.cancel(flight);
        return;
    }

    fail(it, client_left());
}

void Errands::on_lookup(FlightId flight, std::optional<Answer>&& found)
{
    auto it = errands_.find(flight);
    if (it == errands_.end() || it->second.stage != Stage::looking_up) {
        return;
    }

    const int ttl_s =
        found ? fresh_for_s(found->created, it->second.errand.cache_valid_s,
                            services_.time_s())
              : 0;
    if (ttl_s == 0) {
        ask(it);
        return;
    }

    FlightEvent event;
    event.flight = flight;
    event.kind = FlightEvent::Kind::hit;
    event.ttl_s = ttl_s;
    event.answer = std::move(*found);
    end(it, std::move(event));
}

void Errands::on_model(FlightEvent&& event)
{
    auto it = errands_.find(event.flight);
    if (!invariant(it != errands_.end() && it->second.stage == Stage::asking,
                   "an answer to what was not asked")) {
        return;
    }

    if (event.kind == FlightEvent::Kind::piece) {
        services_.tell(std::move(event));
        return;
    }

    // The answer leaves before it is stored, so that nobody waits for that.
    const auto errand = std::move(it->second.errand);
    const auto kept = to_keep(errand, event);
    end(it, std::move(event));
    if (kept) {
        services_.store(errand.cache, errand.key, errand.cache_valid_s, *kept);
    }
}

// The answer for the cache, if it is worth it and there is memory for it.
std::optional<Answer> Errands::to_keep(const Errand& errand,
                                       const FlightEvent& event)
try {
    if (event.kind != FlightEvent::Kind::answered || !event.answer.complete ||
        errand.cache == Errand::no_cache) {
        return std::nullopt;
    }

    auto kept = event.answer;
    kept.created = services_.time_s();  // the model's clock may be off
    return kept;
} catch (const std::bad_alloc&) {
    return std::nullopt;
}

void Errands::fail(States::iterator it, Problem&& problem)
{
    FlightEvent event;
    event.flight = it->first;
    event.problem = std::move(problem);
    end(it, std::move(event));
}

void Errands::end(States::iterator it, FlightEvent&& event)
{
    errands_.erase(it);
    services_.tell(std::move(event));
}

}  // namespace chatbot
