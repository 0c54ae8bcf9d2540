#include "core/conductor.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace chatbot {

namespace {

// Time that the model's own timeout gets to come back before the conductor
// answers for it.
constexpr int grace_ms = 1000;

constexpr int min_backoff_ms = 100;
constexpr int max_backoff_ms = 5000;

constexpr const char* unrecordable =
    "The request cannot be recorded at the moment.";

Reply refusal(const char* detail, const char* reason = "")
{
    Reply reply;
    reply.problem = {503, detail, reason, 1};
    return reply;
}

Reply too_many()
{
    return refusal("Too many requests are in progress.",
                   "\"chatbot_max_in_flight\" is reached");
}

}  // namespace

struct Conductor::Seat {
    Waiter* waiter;  // null: gone
    Record record;
    std::size_t journal;
    std::uint64_t since_ms;
    bool stream;
    CacheStatus status = CacheStatus::none;
    std::shared_ptr<const Reply> reply{};  // once it is settled
};

struct Conductor::Flight {
    FlightId id;
    const Route& route;
    std::optional<Key> key;
    bool asking = false;                // the model was asked
    std::uint64_t deadline_ms = never;  // of lookup or model
    std::list<Seat> seats{};
    std::string received{};  // in pieces
};

Conductor::Conductor(Services& services, std::size_t caches,
                     std::size_t journals, std::size_t max_in_flight)
    : services_(services),
      max_in_flight_(max_in_flight),
      caches_(caches),
      lines_(journals)
{
}

Conductor::~Conductor() = default;

Conductor::Seat* Conductor::ask(Waiter& waiter, const Route& route,
                                std::optional<Key> key, Record record,
                                bool stream) noexcept
{
    std::list<Seat> seats;
    seats.push_back({&waiter, std::move(record), route.journal,
                     services_.now_ms(), stream});
    auto& seat = seats.back();
    ++in_flight_;

    std::optional<Reply> refused;
    if (route.journal != Route::none && !services_.has_room(route.journal)) {
        // What room is left belongs to those who were let in.
        seat.journal = Route::none;
        refused = refusal(unrecordable);
    } else if (in_flight_ > max_in_flight_) {
        refused = too_many();
    }
    if (refused) {
        settle(seats, std::move(*refused));
        services_.settle_soon();
        return &seat;
    }

    if (route.cache_lock && key) {
        auto it = open_.find({&route, *key});
        if (it != open_.end()) {
            auto& flight = *it->second;
            seat.status = CacheStatus::collapsed;
            if (stream && !flight.received.empty()) {
                waiter.on_piece(flight.received);
            }
            flight.seats.splice(flight.seats.end(), seats);
            return &seat;
        }
    }

    auto& flight = take_off(route, key);
    seat.status = CacheStatus::miss;
    flight.seats.splice(flight.seats.end(), seats);

    if (may_cache(flight)) {
        look_up(flight);
    } else {
        ask_model(flight);
    }

    return &seat;
}

void Conductor::leave(Seat* seat)
{
    seat->waiter = nullptr;
}

Conductor::Flight& Conductor::take_off(const Route& route,
                                       std::optional<Key> key)
{
    auto id = ++last_id_;
    auto& flight =
        flights_.try_emplace(id, Flight{id, route, key}).first->second;
    if (route.cache_lock && key) {
        open_.emplace(Topic{&route, *key}, &flight);
    }

    return flight;
}

bool Conductor::may_cache(const Flight& flight) const
{
    auto cache = flight.route.cache;
    return !closing_ && flight.key && cache != Route::none &&
           !caches_[cache].down;
}

void Conductor::look_up(Flight& flight)
{
    CacheItem item;
    item.kind = CacheItem::Kind::lookup;
    item.flight = flight.id;
    item.key = *flight.key;

    if (!services_.ask_cache(flight.route.cache, std::move(item))) {
        ask_model(flight);
        return;
    }

    flight.deadline_ms = services_.now_ms() + flight.route.cache_timeout_ms;
    wake_at(flight.deadline_ms);
}

void Conductor::ask_model(Flight& flight)
{
    if (closing_) {
        return;  // close() tells what becomes of it
    }

    ModelCall call;
    call.flight = flight.id;
    call.settings = flight.route.model;
    call.question = flight.seats.front().record.request_text;
    call.stream = std::any_of(flight.seats.begin(), flight.seats.end(),
                              [](const auto& seat) { return seat.stream; });
    flight.asking = true;

    if (!services_.ask_model(std::move(call))) {
        land(flight, too_many());
        services_.settle_soon();
        return;
    }

    flight.deadline_ms =
        services_.now_ms() + flight.route.model->timeout_ms + grace_ms;
    wake_at(flight.deadline_ms);
}

// Answers all who wait, and lets go of them: the flight itself may go on.
void Conductor::dismiss(Flight& flight, Reply reply)
{
    // A flight that was given up may still land when another took its place.
    if (flight.key) {
        auto it = open_.find({&flight.route, *flight.key});
        if (it != open_.end() && it->second == &flight) {
            open_.erase(it);
        }
    }

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
        seat.reply = shared;
        if (shared->hit) {
            seat.status = CacheStatus::hit;
        }
    }
    settled_.splice(settled_.end(), seats);
}

void Conductor::on_cache(std::size_t cache, std::vector<CacheItem>& batch)
{
    for (auto& item : batch) {
        if (item.kind == CacheItem::Kind::store) {
            continue;  // Redis may be full and answer lookups all the same
        }

        if (item.status == CacheItem::Status::unavailable) {
            on_unavailable(cache, item.kind == CacheItem::Kind::probe);
        } else {
            caches_[cache] = {};
        }
        if (item.kind == CacheItem::Kind::lookup) {
            on_lookup(item);
        }
    }

    on_settle();
}

void Conductor::on_lookup(CacheItem& item)
{
    auto flight = find(item.flight);
    if (!flight || flight->asking) {
        return;
    }

    if (item.status != CacheItem::Status::hit) {
        ask_model(*flight);
        return;
    }

    auto age_s = services_.time_s() - item.answer.created;
    auto left_s = flight->route.cache_valid_s - age_s;

    Reply reply;
    reply.hit = true;
    reply.ttl_s = static_cast<int>(
        std::clamp<std::int64_t>(left_s, 0, flight->route.cache_valid_s));
    reply.answer = std::move(item.answer);
    land(*flight, std::move(reply));
}

// A cache that is down is not asked; probes at growing intervals find out when
// it is back.
void Conductor::on_unavailable(std::size_t cache, bool probed)
{
    auto& health = caches_[cache];
    if (health.down && !probed) {
        return;  // a probe is under way, or to come
    }

    health.down = true;
    health.backoff_ms =
        std::clamp(2 * health.backoff_ms, min_backoff_ms, max_backoff_ms);
    health.probe_ms = services_.now_ms() + health.backoff_ms;
    wake_at(health.probe_ms);

    // Those whose lookup is still queued need not wait for it.
    for (auto it = flights_.begin(); it != flights_.end();) {
        auto& flight = (it++)->second;  // which may land
        if (!flight.asking && flight.route.cache == cache) {
            ask_model(flight);
        }
    }
}

void Conductor::probe(std::size_t cache)
{
    CacheItem item;
    item.kind = CacheItem::Kind::probe;
    if (!services_.ask_cache(cache, std::move(item))) {
        on_unavailable(cache, true);
    }
}

void Conductor::store(const Flight& flight, const Answer& answer)
{
    CacheItem item;
    item.kind = CacheItem::Kind::store;
    item.key = *flight.key;
    item.expire_s = flight.route.cache_valid_s;
    item.answer = answer;
    item.answer.created = services_.time_s();  // the model's clock may be off

    // Refused only if Redis is far behind; then the answer is asked for again.
    (void)services_.ask_cache(flight.route.cache, std::move(item));
}

void Conductor::on_model(std::vector<ModelEvent> events,
                         std::vector<ModelCall>& refused)
{
    for (auto& event : events) {
        on_event(event);
    }

    for (auto& call : refused) {
        auto flight = find(call.flight);
        if (flight && !closing_) {
            land(*flight, too_many());
        }
    }

    on_settle();
}

void Conductor::on_event(ModelEvent& event)
{
    auto flight = find(event.flight);
    if (!flight) {
        return;
    }

    if (event.kind == ModelEvent::Kind::piece) {
        flight->received += event.piece;
        for (auto& seat : flight->seats) {
            if (seat.stream && seat.waiter) {
                seat.waiter->on_piece(event.piece);
            }
        }
        return;
    }

    Reply reply;
    reply.upstream_ms = event.duration_ms;
    reply.problem = std::move(event.problem);

    if (event.kind == ModelEvent::Kind::answered) {
        reply.stored = event.answer.complete && may_cache(*flight);
        if (reply.stored) {
            store(*flight, event.answer);
        }
        reply.answer = std::move(event.answer);
    }

    land(*flight, std::move(reply));
}

void Conductor::wake_at(std::uint64_t when_ms)
{
    if (when_ms < timer_ms_) {
        timer_ms_ = when_ms;
        services_.set_timer(when_ms);
    }
}

// Most lookups are over long before their deadlines.  So these are kept in no
// order, and all are looked at when the earliest that was set has come, even if
// its flight has landed.
void Conductor::on_timer()
{
    auto now_ms = services_.now_ms();
    auto next_ms = never;
    timer_ms_ = never;

    for (auto it = flights_.begin(); it != flights_.end();) {
        auto& flight = (it++)->second;  // which may land
        if (flight.deadline_ms <= now_ms) {
            on_deadline(flight);
        } else {
            next_ms = std::min(next_ms, flight.deadline_ms);
        }
    }
    for (std::size_t i = 0; i < caches_.size(); ++i) {
        if (caches_[i].probe_ms <= now_ms) {
            caches_[i].probe_ms = never;
            probe(i);
        }
        next_ms = std::min(next_ms, caches_[i].probe_ms);
    }

    wake_at(next_ms);
    on_settle();
}

void Conductor::on_deadline(Flight& flight)
{
    if (!flight.asking) {
        ask_model(flight);
        return;
    }

    Reply reply;
    reply.problem = {504, "The model did not answer in time.",
                     "the model's thread did not answer in time"};
    flight.deadline_ms = never;
    dismiss(flight, std::move(reply));
}

void Conductor::on_settle()
{
    auto settled = std::exchange(settled_, {});
    write_records(settled);

    for (auto& seat : settled) {
        --in_flight_;
        if (auto waiter = std::exchange(seat.waiter, nullptr)) {
            waiter->on_answer(*seat.reply, seat.status);
        }
    }
}

// One write for each journal.  Who cannot be recorded gets a 503.
void Conductor::write_records(std::list<Seat>& settled)
{
    constexpr int client_closed_request = 499;  // nginx's own

    for (auto& seat : settled) {
        if (seat.journal == Route::none) {
            continue;
        }

        auto& record = seat.record;
        auto& reply = seat.reply;
        auto& problem = reply->problem;
        record.status = problem ? "error" : reply->hit ? "cached" : "success";
        record.response_text =
            problem ? "Error: " + problem.detail : reply->answer.text;
        record.http_status = !seat.waiter ? client_closed_request
                             : problem    ? problem.status
                                          : 200;
        record.model = reply->answer.model;
        record.prompt_tokens = reply->answer.prompt_tokens;
        record.completion_tokens = reply->answer.completion_tokens;
        record.cache_status = to_string(seat.status);
        record.duration_ms =
            static_cast<int>(services_.now_ms() - seat.since_ms);
        append_line(lines_[seat.journal], record);
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
                }
            }
        }
        lines.clear();
    }
}

void Conductor::leave_all()
{
    closing_ = true;
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
    on_settle();
}

Conductor::Flight* Conductor::find(FlightId id)
{
    auto it = flights_.find(id);
    return it == flights_.end() ? nullptr : &it->second;
}

}  // namespace chatbot
