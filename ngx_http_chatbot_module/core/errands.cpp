#include "core/errands.hpp"

#include <utility>

#include "core/freshness.hpp"

namespace chatbot {

void Errands::take(Errand&& errand)
{
    const auto flight = errand.call.flight;
    auto& state =
        errands_
            .try_emplace(flight, State{std::move(errand), Stage::looking_up})
            .first->second;

    const auto cache = state.errand.cache;
    if (cache == Errand::no_cache ||
        !services_.look_up(cache, flight, state.errand.key)) {
        ask(state);
    }
}

void Errands::ask(State& state)
{
    state.stage = Stage::asking;
    services_.ask(std::move(state.errand.call));
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

    FlightEvent event;
    event.flight = flight;
    event.problem = {.status = 499,
                     .detail = "The client left.",
                     .reason = {},
                     .retry_after_s = 0};
    end(it, std::move(event));
}

void Errands::on_lookup(FlightId flight, std::optional<Answer>&& found)
{
    auto it = errands_.find(flight);
    if (it == errands_.end() || it->second.stage != Stage::looking_up) {
        return;
    }

    auto& state = it->second;
    const int ttl_s =
        found ? fresh_for_s(found->created, state.errand.cache_valid_s,
                            services_.time_s())
              : 0;
    if (ttl_s == 0) {
        ask(state);
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
    if (it == errands_.end()) {
        return;
    }

    if (event.kind == FlightEvent::Kind::piece) {
        services_.tell(std::move(event));
        return;
    }

    // The answer leaves before it is stored, so that nobody waits for that.
    const auto& errand = it->second.errand;
    if (event.kind == FlightEvent::Kind::answered && event.answer.complete &&
        errand.cache != Errand::no_cache) {
        const auto cache = errand.cache;
        const auto key = errand.key;
        const auto valid_s = errand.cache_valid_s;
        auto kept = event.answer;
        kept.created = services_.time_s();  // the model's clock may be off
        end(it, std::move(event));
        services_.store(cache, key, valid_s, kept);
        return;
    }

    end(it, std::move(event));
}

void Errands::end(States::iterator it, FlightEvent&& event)
{
    errands_.erase(it);
    services_.tell(std::move(event));
}

}  // namespace chatbot
