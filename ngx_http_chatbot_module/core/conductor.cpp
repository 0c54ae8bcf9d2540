#include "core/conductor.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "text/invariant.hpp"

namespace chatbot {

namespace {

// Time that the reactor's own timeouts get before the conductor answers for it.
constexpr int grace_ms = 1000;

constexpr auto no_deadline = std::numeric_limits<std::uint64_t>::max();

SharedReply refusal(const char* detail, const char* reason = "")
{
    auto reply = std::make_shared<Reply>();
    reply->problem = {503, detail, reason, 1};
    return reply;
}

}  // namespace

struct Flight {
    Flight(FlightId new_id, const Route& its_route,
           const std::optional<Key>& its_key, bool is_renewal)
        : id(new_id),
          route(its_route),
          key(its_key),
          renews(is_renewal)
    {
    }

    const FlightId id;
    const Route& route;
    const std::optional<Key> key;
    const bool renews;  // does not look into the cache
    std::uint64_t deadline_ms = no_deadline;
    bool heard = false;  // the reactor was told to hand on pieces
    bool told = false;   // waiters are soon told that there is more text
    std::list<Seat> seats{};
    std::string text{};  // so far
};

Conductor::Conductor(Services& services, std::size_t journals,
                     std::size_t max_in_flight)
    : services_(services),
      max_in_flight_(max_in_flight),
      recorder_(services, journals)
{
}

Conductor::~Conductor() = default;

Seat* Conductor::ask(Waiter& waiter, const Route& route, std::optional<Key> key,
                     Record&& record, AskOptions&& options) noexcept
{
    if (options.cache == CacheUse::nothing) {
        key.reset();
    }

    std::list<Seat> seats(1);
    auto& seat = seats.back();
    seat.waiter = &waiter;
    seat.reserved = record.request_text.size() + answer_room;
    seat.record = std::move(record);
    seat.journal = route.journal;
    seat.since_ms = services_.now_ms();
    seat.stream = options.stream;
    ++in_flight_;

    if (auto refused = refuse(seat, route)) {
        recorder_.add(seats, refused);
        services_.settle_soon();
        return &seat;
    }

    auto flight = key ? find_open(route, *key, options.cache) : nullptr;
    if (flight) {
        join(*flight, seats);
    } else {
        take_off(route, key, std::move(options), seats);
    }
    return &seat;
}

// Null: there is none to join.  A question that wants a new answer does not
// join a flight that may land with a cached one.
Flight* Conductor::find_open(const Route& route, const Key& key, CacheUse use)
{
    auto it = open_.find({&route, key});
    return it != open_.end() && (use != CacheUse::renew || it->second->renews)
               ? it->second
               : nullptr;
}

// Null: the request is let in.
SharedReply Conductor::refuse(Seat& seat, const Route& route)
{
    if (route.journal != Route::none &&
        !services_.reserve(route.journal, seat.reserved)) {
        seat.journal = Route::none;
        return Recorder::refusal();
    }
    if (in_flight_ > max_in_flight_) {
        return refusal("Too many requests are in progress.",
                       "\"chatbot_max_in_flight\" is reached");
    }
    return nullptr;
}

void Conductor::join(Flight& flight, std::list<Seat>& seats)
{
    auto& seat = seats.back();
    seat.status = CacheStatus::collapsed;
    seat.flight = &flight;

    if (seat.stream && !std::exchange(flight.heard, true)) {
        services_.listen(flight.id);
    } else if (seat.stream && !flight.text.empty()) {
        tell_later(flight);
        services_.settle_soon();
    }
    flight.seats.splice(flight.seats.end(), seats);
}

void Conductor::take_off(const Route& route, const std::optional<Key>& key,
                         AskOptions&& options, std::list<Seat>& seats)
{
    auto id = ++last_id_;
    const bool renews = options.cache == CacheUse::renew;
    auto& flight =
        flights_.try_emplace(id, id, route, key, renews).first->second;
    if (route.cache_lock && key) {
        // Later questions get the newer answer.
        const bool is_new =
            open_.insert_or_assign(Topic{&route, *key}, &flight).second;
        invariant(is_new || renews, "an equal question is asked already");
    }

    auto& seat = seats.back();
    seat.status = key && options.cache == CacheUse::usual ? CacheStatus::miss
                                                          : CacheStatus::bypass;
    seat.flight = &flight;
    flight.heard = seat.stream;

    Errand errand;
    errand.call.history = std::move(options.history);
    errand.call.client = std::move(options.client);
    errand.call.api = std::move(options.api);
    errand.call.flight = id;
    errand.call.settings = route.model;
    errand.call.question = seat.record.request_text;
    errand.call.listen = seat.stream;
    if (route.cache != Route::none && key) {
        errand.cache = route.cache;
        errand.key = *key;
        errand.cache_valid_s = route.cache_valid_s;
        errand.look_up = !renews;
    }

    flight.seats.splice(flight.seats.end(), seats);
    flight.deadline_ms = services_.now_ms() + route.cache_timeout_ms +
                         route.model->timeout_ms + grace_ms;
    wake_at(flight.deadline_ms);
    services_.send(std::move(errand));
}

void Conductor::leave(Seat* seat)
{
    seat->waiter = nullptr;

    auto flight = seat->flight;
    if (!flight || !flight->route.cancel_abandoned ||
        std::any_of(flight->seats.begin(), flight->seats.end(),
                    [](const auto& other) { return other.waiter; })) {
        return;
    }

    close_to_joiners(*flight);
    services_.cancel(flight->id);
}

std::string_view Conductor::text(const Seat* seat)
{
    return seat->flight ? std::string_view(seat->flight->text)
                        : std::string_view();
}

CacheStatus Conductor::status(const Seat* seat)
{
    return seat->status;
}

FlightId Conductor::flight(const Seat* seat)
{
    return seat->flight ? seat->flight->id : 0;
}

// A flight that was given up may still land when another took its place.
void Conductor::close_to_joiners(const Flight& flight)
{
    if (!flight.key) {
        return;
    }

    auto it = open_.find({&flight.route, *flight.key});
    if (it != open_.end() && it->second == &flight) {
        open_.erase(it);
    }
}

// Answers all waiters; the flight itself may go on.
void Conductor::dismiss(Flight& flight, const SharedReply& reply)
{
    close_to_joiners(flight);
    recorder_.add(flight.seats, reply);
}

void Conductor::land(Flight& flight, const SharedReply& reply)
{
    dismiss(flight, reply);
    flights_.erase(flight.id);
}

void Conductor::on_events(std::list<FlightEvent> events)
{
    for (auto& event : events) {
        auto flight = find(event.flight);
        if (!invariant(flight, "an event of a flight that has ended")) {
            continue;
        }
        if (event.kind != FlightEvent::Kind::piece) {
            on_end(*flight, event);
            continue;
        }
        flight->text += event.piece;
        tell_later(*flight);
    }

    on_settle();
}

// Pieces that come together are told of once.
void Conductor::tell_later(Flight& flight)
{
    if (!std::exchange(flight.told, true)) {
        told_.push_back(flight.id);
    }
}

void Conductor::on_end(Flight& flight, FlightEvent& event)
{
    auto reply = std::make_shared<Reply>();
    reply->hit = event.kind == FlightEvent::Kind::hit;
    reply->ttl_s = event.ttl_s;
    reply->call = std::move(event.call);
    reply->problem = std::move(event.problem);
    if (event.kind == FlightEvent::Kind::failed) {
        reply->answer.text = std::move(flight.text);
    } else {
        reply->answer = std::move(event.answer);
    }
    land(flight, reply);
}

void Conductor::wake_at(std::uint64_t when_ms)
{
    if (when_ms < timer_ms_) {
        timer_ms_ = when_ms;
        services_.set_timer(when_ms);
    }
}

// Flights are over long before their deadlines.  So these are kept in no order,
// and all are looked at when the earliest that was set has come, even if its
// flight has landed.
void Conductor::on_timer()
{
    auto now_ms = services_.now_ms();
    auto next_ms = never;
    invariant(timer_ms_ <= now_ms, "the timer was not set to this time");
    timer_ms_ = never;

    for (auto& [id, flight] : flights_) {
        if (flight.deadline_ms <= now_ms) {
            on_deadline(flight);
        } else {
            next_ms = std::min(next_ms, flight.deadline_ms);
        }
    }

    wake_at(next_ms);
    on_settle();
}

void Conductor::on_deadline(Flight& flight)
{
    auto reply = std::make_shared<Reply>();
    reply->problem = {504, "The model did not answer in time.",
                      "the reactor's thread did not answer in time"};
    flight.deadline_ms = no_deadline;
    dismiss(flight, reply);
}

void Conductor::on_settle()
{
    tell_texts();

    auto recorded = recorder_.record_some();
    for (auto& seat : recorded) {
        seat.move_on(Seat::Stage::answered);
        in_flight_ -=
            invariant(in_flight_ > 0, "more is answered than was asked");
        if (auto waiter = std::exchange(seat.waiter, nullptr)) {
            waiter->on_answer(seat.reply, seat.status);
        }
    }

    if (!recorder_.empty()) {
        services_.settle_soon();
    }
}

void Conductor::tell_texts()
{
    for (auto id : std::exchange(told_, {})) {
        auto flight = find(id);
        if (!flight) {
            continue;  // its waiters are told of the answer
        }

        flight->told = false;
        for (auto& seat : flight->seats) {
            if (seat.stream && seat.waiter) {
                seat.waiter->on_text();
            }
        }
    }
}

void Conductor::leave_all()
{
    for (auto& [id, flight] : flights_) {
        for (auto& seat : flight.seats) {
            seat.waiter = nullptr;
        }
    }
    recorder_.leave_all();
}

void Conductor::close()
{
    for (auto& [id, flight] : flights_) {
        dismiss(flight, refusal("The server was stopped."));
    }
    flights_.clear();
    while (!recorder_.empty()) {
        on_settle();
    }
    invariant(in_flight_ == 0, "a question has no answer at the end");
}

Flight* Conductor::find(FlightId id)
{
    auto it = flights_.find(id);
    return it == flights_.end() ? nullptr : &it->second;
}

}  // namespace chatbot
