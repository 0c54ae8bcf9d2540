#include "core/conductor.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "text/invariant.hpp"

namespace chatbot {

namespace {

// Time that the reactor's own timeouts get before the conductor answers for it.
constexpr int grace_ms = 1000;

constexpr std::size_t max_portion = 256 * 1024;  // bytes of answers

constexpr int client_closed_request = 499;  // nginx's own

constexpr const char* unrecordable =
    "The request cannot be recorded at the moment.";

Reply refusal(const char* detail, const char* reason = "")
{
    Reply reply;
    reply.problem = {503, detail, reason, 1};
    return reply;
}

}  // namespace

struct Conductor::Seat {
    enum class Stage { asked, settled, recorded, answered };

    void move_on(Stage next);

    Waiter* waiter;  // null: gone
    Record record;
    std::size_t journal;
    std::size_t reserved;  // bytes in the journal
    std::uint64_t since_ms;
    bool stream;
    Flight* flight{};  // until it is settled
    CacheStatus status = CacheStatus::none;
    std::shared_ptr<const Reply> reply{};  // once it is settled
    Stage stage = Stage::asked;
};

// Each question goes through all stages, once.
void Conductor::Seat::move_on(Stage next)
{
    invariant(static_cast<int>(next) == static_cast<int>(stage) + 1,
              "a question is not settled, recorded, answered, each once");
    stage = next;
}

struct Conductor::Flight {
    FlightId id;
    const Route& route;
    std::optional<Key> key;
    bool renews;  // does not look into the cache
    std::uint64_t deadline_ms = never;
    bool heard = false;  // the reactor was told to hand on pieces
    bool told = false;   // waiters are soon told that there is more text
    std::list<Seat> seats{};
    std::shared_ptr<Answer> answer = std::make_shared<Answer>();  // so far
};

Conductor::Conductor(Services& services, std::size_t journals,
                     std::size_t max_in_flight)
    : services_(services),
      max_in_flight_(max_in_flight),
      lines_(journals)
{
}

Conductor::~Conductor() = default;

Conductor::Seat* Conductor::ask(Waiter& waiter, const Route& route,
                                std::optional<Key> key, Record record,
                                AskOptions options) noexcept
{
    if (options.cache == CacheUse::nothing) {
        key.reset();
    }

    std::list<Seat> seats;
    auto reserved = record.request_text.size() + answer_room;
    seats.push_back({&waiter, std::move(record), route.journal, reserved,
                     services_.now_ms(), options.stream});
    auto& seat = seats.back();
    ++in_flight_;

    if (auto refused = refuse(seat, route)) {
        settle(seats, std::move(*refused));
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

// Null: there is none to join.  Who wants a new answer does not join a flight
// that may land with one that is kept.
Conductor::Flight* Conductor::find_open(const Route& route, const Key& key,
                                        CacheUse use)
{
    auto it = open_.find({&route, key});
    return it != open_.end() && (use != CacheUse::renew || it->second->renews)
               ? it->second
               : nullptr;
}

// Why the request is not let in.
std::optional<Reply> Conductor::refuse(Seat& seat, const Route& route)
{
    if (route.journal != Route::none &&
        !services_.reserve(route.journal, seat.reserved)) {
        seat.journal = Route::none;
        return refusal(unrecordable);
    }
    if (in_flight_ > max_in_flight_) {
        return refusal("Too many requests are in progress.",
                       "\"chatbot_max_in_flight\" is reached");
    }
    return std::nullopt;
}

void Conductor::join(Flight& flight, std::list<Seat>& seats)
{
    auto& seat = seats.back();
    seat.status = CacheStatus::collapsed;
    seat.flight = &flight;

    if (seat.stream && !std::exchange(flight.heard, true)) {
        services_.listen(flight.id);
    } else if (seat.stream && !flight.answer->text.empty()) {
        tell_later(flight);
        services_.settle_soon();
    }
    flight.seats.splice(flight.seats.end(), seats);
}

void Conductor::take_off(const Route& route, std::optional<Key> key,
                         AskOptions options, std::list<Seat>& seats)
{
    auto id = ++last_id_;
    const bool renews = options.cache == CacheUse::renew;
    auto& flight =
        flights_.try_emplace(id, Flight{id, route, key, renews}).first->second;
    if (route.cache_lock && key) {
        // Who comes later gets the newer answer.
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
    return seat->flight ? std::string_view(seat->flight->answer->text)
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

// Answers all who wait, and lets go of them: the flight itself may go on.
void Conductor::dismiss(Flight& flight, Reply reply)
{
    close_to_joiners(flight);
    settle(flight.seats, std::move(reply));
}

void Conductor::land(Flight& flight, Reply reply)
{
    dismiss(flight, std::move(reply));
    flights_.erase(flight.id);
}

void Conductor::settle(std::list<Seat>& seats, Reply reply)
{
    auto shared = std::make_shared<const Reply>(std::move(reply));
    for (auto& seat : seats) {
        seat.move_on(Seat::Stage::settled);
        seat.reply = shared;
        seat.flight = nullptr;
        if (shared->hit) {
            seat.status = CacheStatus::hit;
        }
    }
    settled_.splice(settled_.end(), seats);
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
        flight->answer->text += event.piece;
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
    Reply reply;
    reply.hit = event.kind == FlightEvent::Kind::hit;
    reply.ttl_s = event.ttl_s;
    reply.call = std::move(event.call);
    reply.problem = std::move(event.problem);
    if (event.kind != FlightEvent::Kind::failed) {
        *flight.answer = std::move(event.answer);
    }
    reply.answer = flight.answer;
    land(flight, std::move(reply));
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
    Reply reply;
    reply.problem = {504, "The model did not answer in time.",
                     "the reactor's thread did not answer in time"};
    flight.deadline_ms = never;
    dismiss(flight, std::move(reply));
}

void Conductor::on_settle()
{
    tell_texts();

    auto settled = take_portion();
    write_records(settled);

    for (auto& seat : settled) {
        seat.move_on(Seat::Stage::answered);
        in_flight_ -=
            invariant(in_flight_ > 0, "more is answered than was asked");
        if (auto waiter = std::exchange(seat.waiter, nullptr)) {
            waiter->on_answer(*seat.reply, seat.status);
        }
    }

    if (!settled_.empty()) {
        services_.settle_soon();
    }
}

// Some of those who are answered: many long answers at once would hold up all
// other requests of the worker.
std::list<Conductor::Seat> Conductor::take_portion()
{
    std::size_t bytes = 0;
    auto end = settled_.begin();
    while (end != settled_.end() && bytes < max_portion) {
        const auto& answer = (end++)->reply->answer;
        bytes += answer ? answer->text.size() + answer->reply.size() : 0;
    }

    std::list<Seat> portion;
    portion.splice(portion.end(), settled_, settled_.begin(), end);
    return portion;
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

// Fills in what the answer says.
void Conductor::complete(Seat& seat)
{
    const auto& reply = *seat.reply;
    auto& record = seat.record;

    record.cache_status = to_string(seat.status);
    record.duration_ms = static_cast<int>(services_.now_ms() - seat.since_ms);
    record.call = reply.call;
    if (reply.problem) {
        record.status = "error";
        record.response_text = "Error: " + reply.problem.detail;
        record.http_status = reply.problem.status;
    } else {
        record.status = reply.hit ? "cached" : "success";
        record.response_text = reply.answer->text;
        record.http_status = 200;
        record.model = reply.answer->model;
        record.prompt_tokens = reply.answer->prompt_tokens;
        record.completion_tokens = reply.answer->completion_tokens;
        record.cached_tokens = reply.answer->cached_tokens;
        record.reasoning_tokens = reply.answer->reasoning_tokens;
    }
    if (!seat.waiter) {
        record.http_status = client_closed_request;
    }
}

// One write for each journal.  A request that cannot be recorded is answered
// with 503.
void Conductor::write_records(std::list<Seat>& settled)
{
    for (auto& seat : settled) {
        complete(seat);
        if (seat.journal != Route::none) {
            append_line(lines_[seat.journal], seat.record);
            services_.release(seat.journal, seat.reserved);
        }
    }

    for (std::size_t journal = 0; journal < lines_.size(); ++journal) {
        auto& lines = lines_[journal];
        if (lines.empty()) {
            continue;
        }

        if (!services_.record(journal, lines)) {
            auto unrecorded =
                std::make_shared<const Reply>(refusal(unrecordable));
            for (auto& seat : settled) {
                if (seat.journal == journal) {
                    seat.reply = unrecorded;
                    seat.journal = Route::none;
                }
            }
        }
        lines.clear();
    }

    for (auto& seat : settled) {
        seat.move_on(Seat::Stage::recorded);
        services_.settled(seat.record, seat.journal != Route::none);
    }
}

void Conductor::leave_all()
{
    for (auto& [id, flight] : flights_) {
        for (auto& seat : flight.seats) {
            seat.waiter = nullptr;
        }
    }
    for (auto& seat : settled_) {
        seat.waiter = nullptr;
    }
}

void Conductor::close()
{
    for (auto& [id, flight] : flights_) {
        dismiss(flight, refusal("The server was stopped."));
    }
    flights_.clear();
    while (!settled_.empty()) {
        on_settle();
    }
    invariant(in_flight_ == 0, "a question has no answer at the end");
}

Conductor::Flight* Conductor::find(FlightId id)
{
    auto it = flights_.find(id);
    return it == flights_.end() ? nullptr : &it->second;
}

}  // namespace chatbot
