#include "openai/transfers.hpp"

#include <algorithm>
#include <chrono>
#include <new>
#include <optional>
#include <utility>

#include "openai/api_call.hpp"
#include "openai/protocol.hpp"
#include "text/invariant.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

void note_attempts(Problem& problem, int attempts) noexcept
try {
    problem.reason += " (" + std::to_string(attempts) + " attempts)";
} catch (const std::bad_alloc&) {
    // The reason is told without it.
}

// Whether the connection may be dead: a transfer by HTTP/2 that times out
// leaves it open, and the next would use it.
bool is_silent(const Attempt& attempt, CURLcode code)
{
    return code == CURLE_OPERATION_TIMEDOUT && attempt.sent &&
           (attempt.header_size == 0 ||
            Clock::now() >= attempt.last_byte +
                                milliseconds(attempt.settings.read_timeout_ms));
}

std::string body_of(const Call& call, bool stream)
{
    if (call.ask.api) {
        const bool refused =
            std::count(call.left_out.begin(), call.left_out.end(),
                       "stream_options") > 0;
        return api_body(call.ask.api, stream, !refused);
    }
    return request_body(
        call.settings(), call.model, call.ask.history, call.ask.question,
        stream, call.left_out, call.server().url,
        safety_identifier(call.settings(), call.server(), call.ask.client));
}

}  // namespace

Transfers::Transfers(Poller& poller, Resolver& resolver,
                     std::size_t max_connections, Tell tell)
    : resolver_(resolver),
      tell_(std::move(tell)),
      multis_(
          poller, max_connections, [this] { on_moved(); },
          [this](CURL* easy, CURLcode code) {
              Call* call = nullptr;
              curl_easy_getinfo(easy, CURLINFO_PRIVATE, &call);
              if (invariant(call && call->multi &&
                                call->attempt->handle.easy.get() == easy,
                            "a transfer ends that no call has")) {
                  ended(*call, code);
              }
          })
{
}

Transfers::~Transfers()
{
    *alive_ = false;
    for (auto& [flight, call] : calls_) {
        drop_attempt(call);
    }
}

void Transfers::ask(ModelCall&& ask)
{
    const auto flight = ask.flight;
    auto& targets = policy_.targets_of(*ask.settings);
    const auto [it, is_new] =
        calls_.try_emplace(flight, std::move(ask), targets, alarms_);
    if (invariant(is_new, "a flight has two calls")) {
        start(it->second);
    }
}

void Transfers::listen(FlightId flight)
{
    if (Call* call = find(flight)) {
        call->ask.listen = true;
        touch(flight);
    }
}

void Transfers::cancel(FlightId flight)
{
    if (Call* call = find(flight)) {
        end_soon(*call, client_left());
    }
}

void Transfers::flush()
{
    multis_.flush();
    on_moved();
}

Clock::time_point Transfers::deadline() const
{
    return std::min(alarms_.earliest(), multis_.deadline());
}

void Transfers::on_time(Clock::time_point now)
{
    multis_.on_time(now);
    while (Call* call = alarms_.take_due(now)) {
        on_alarm(*call);
    }
}

Call* Transfers::find(FlightId flight)
{
    const auto found = calls_.find(flight);
    return found == calls_.end() ? nullptr : &found->second;
}

Origin& Transfers::origin_of(const Call& call)
{
    const auto& server = call.server();
    const auto found = origins_.find(&server);
    return found != origins_.end()
               ? found->second
               : origins_
                     .emplace(&server, read_origin(server.url, server.proxy))
                     .first->second;
}

void Transfers::on_alarm(Call& call)
{
    const auto due =
        call.stage == Stage::transferring ? expiry(*call.attempt) : call.due;
    if (Clock::now() < due) {
        call.wake_at(due);
        return;
    }

    switch (call.stage) {
        case Stage::resolving:
            end_unreachable(call, "the name server does not answer");
            return;
        case Stage::queued:
            end_unreachable(call, "no connection became free in time");
            return;
        case Stage::transferring:
            ended(call, CURLE_OPERATION_TIMEDOUT);
            return;
        case Stage::resting:
            start(call);
            return;
        case Stage::ending:
            end(call, std::exchange(call.outcome, {}));
            return;
    }
}

// Begins an attempt.
void Transfers::start(Call& call) noexcept
try {
    if (!policy_.choose(call)) {
        end_soon(call, out_of_memory());  // REQUIRES: there is one
        return;
    }

    const auto& origin = origin_of(call);
    call.set_stage(
        Stage::resolving,
        Clock::now() + milliseconds(call.settings().connect_timeout_ms));

    // A proxy looks the host up itself.
    if (origin.numeric || !call.server().proxy.empty()) {
        transfer(call);
        return;
    }

    resolver_.resolve(
        origin.host,
        [this, alive = alive_, flight = call.ask.flight](const auto& result) {
            if (*alive) {
                on_resolved(flight, result);
            }
        });
} catch (const std::bad_alloc&) {
    end_soon(call, out_of_memory());
}

void Transfers::on_resolved(FlightId flight,
                            const Resolver::Result& result) noexcept
{
    Call* call = find(flight);
    if (!call || call->stage != Stage::resolving) {
        return;
    }

    try {
        if (result.addresses.empty()) {
            call->outcome = unreachable(call->server(), result.error);
            call->set_stage(Stage::ending, Clock::now());
            return;
        }
        set_addresses(origin_of(*call), result.addresses);
    } catch (const std::bad_alloc&) {
        end_soon(*call, out_of_memory());
        return;
    }
    transfer(*call);
}

void Transfers::transfer(Call& call) noexcept
try {
    if (!transfer_if_room(call)) {
        queue_.push_back(call.ask.flight);
        call.set_stage(Stage::queued, call.deadline);
    }
} catch (const std::bad_alloc&) {
    end_soon(call, out_of_memory());
}

// False: there are as many connections as there may be.
bool Transfers::transfer_if_room(Call& call)
{
    const auto& origin = origin_of(call);
    Multi* multi = multis_.choose(origin);
    if (!multi) {
        return false;
    }

    prepare_attempt(call, origin);
    multi->add(call.attempt->handle.easy.get());
    call.multi = multi;
    call.set_stage(Stage::transferring, expiry(*call.attempt));
    return true;
}

void Transfers::prepare_attempt(Call& call, const Origin& origin)
{
    const ModelSettings& settings = call.settings();
    const auto& api = call.ask.api;
    const bool stream = (settings.stream && !api) || call.ask.listen;
    call.attempt = std::make_unique<Attempt>(
        handles_.take(settings, call.server(), api.path, stream), settings,
        call.server(), call.deadline, stream, api);
    call.report.attempts++;

    Attempt& attempt = *call.attempt;
    attempt.resolved = origin.resolved;
    attempt.on_progress = [this, flight = call.ask.flight] { touch(flight); };
    prepare(attempt, body_of(call, stream), origin.may_speak_http2());
    if (curl_easy_setopt(attempt.handle.easy.get(), CURLOPT_PRIVATE, &call) !=
        CURLE_OK) {
        throw std::bad_alloc();
    }
}

void Transfers::start_queued() noexcept
{
    for (auto left = queue_.size(); left > 0; left--) {
        Call* call = find(queue_.front());
        try {
            if (call && call->stage == Stage::queued &&
                !transfer_if_room(*call)) {
                return;
            }
        } catch (const std::bad_alloc&) {
            end_soon(*call, out_of_memory());
        }
        queue_.pop_front();
    }
}

// Something came, or is wanted, that is to be handed on.
void Transfers::touch(FlightId flight) noexcept
try {
    touched_.push_back(flight);
} catch (const std::bad_alloc&) {
    // It is handed on with the next bytes, or with the end.
}

// libcurl has moved some transfers: hands on what came.
void Transfers::on_moved()
{
    for (auto flight : std::exchange(touched_, {})) {
        Call* call = find(flight);
        if (!call || !call->attempt) {
            continue;
        }

        call->wake_at(expiry(*call->attempt));
        if (call->attempt->http1 && origin_of(*call).may_speak_http2()) {
            learn_http1(*call);
        }
        hand_on(*call);
    }
}

// An https server turns out not to speak HTTP/2: its calls that wait for one of
// the few connections that HTTP/2 needs start anew, with one each.
void Transfers::learn_http1(const Call& known) noexcept
try {
    auto& origin = origin_of(known);
    const Multi* multi = multis_.http2_multi(origin);
    origin.http1 = true;

    for (auto& [flight, call] : calls_) {
        if (call.stage == Stage::transferring && call.multi == multi &&
            !call.attempt->sent) {
            call.report.attempts--;
            drop_attempt(call);
            transfer(call);
        }
    }
} catch (const std::bad_alloc&) {
    // It is learned with the next bytes.
}

// Hands on what the model wrote since the last time, if that is wanted.
void Transfers::hand_on(Call& call) noexcept
try {
    if (!call.ask.listen || !call.attempt || !call.attempt->reader) {
        return;
    }

    const auto& reader = *call.attempt->reader;
    const auto& text = call.ask.api ? reader.events() : reader.text();
    if (text.size() == call.told) {
        return;
    }

    FlightEvent event;
    event.flight = call.ask.flight;
    event.kind = FlightEvent::Kind::piece;
    event.piece = text.substr(call.told);
    tell_(std::move(event));
    call.told = text.size();
} catch (const std::bad_alloc&) {
    // It is handed on with the next bytes, or with the end.
}

void Transfers::drop_attempt(Call& call) noexcept
{
    if (!call.attempt) {
        return;
    }

    if (call.multi) {
        std::exchange(call.multi, nullptr)
            ->remove(call.attempt->handle.easy.get());
    }
    handles_.give_back(*call.attempt);
    call.attempt.reset();
}

// Not from within libcurl's callbacks.
void Transfers::ended(Call& call, CURLcode code)
{
    if (call.stage != Stage::transferring) {
        return;  // it was cancelled: its end is told soon
    }

    hand_on(call);
    Outcome outcome;
    try {
        if (code != CURLE_OK && !call.attempt->sent) {
            resolver_.doubt(origin_of(call).host);
        }
        if (is_silent(*call.attempt, code)) {
            multis_.renew(origin_of(call), call.multi);
        }
        outcome = read_outcome(*call.attempt, code);
    } catch (const std::bad_alloc&) {
        outcome.problem = out_of_memory();
    }
    end(call, std::move(outcome));
}

void Transfers::end_unreachable(Call& call, const char* reason)
{
    Outcome outcome;
    try {
        outcome = unreachable(call.server(), reason);
    } catch (const std::bad_alloc&) {
        outcome.problem = out_of_memory();
    }
    end(call, std::move(outcome));
}

void Transfers::end_soon(Call& call, Problem&& problem) noexcept
{
    call.outcome = {};
    call.outcome.problem = std::move(problem);
    call.set_stage(Stage::ending, Clock::now());
}

// The call goes on with another attempt, or has ended.
void Transfers::end(Call& call, Outcome&& outcome)
{
    const auto next = policy_.after(call, outcome);
    drop_attempt(call);
    if (next.kind == Policy::Next::Kind::at_once) {
        start(call);
    } else if (next.kind == Policy::Next::Kind::later) {
        call.set_stage(Stage::resting, next.at);
    }

    start_queued();  // its connection may be free
    if (next.kind == Policy::Next::Kind::end) {
        finish(call, std::move(outcome));
    }
}

// Tells the end of a call, and forgets it.
void Transfers::finish(Call& call, Outcome&& outcome)
{
    FlightEvent event;
    event.flight = call.ask.flight;
    event.call = std::move(call.report);
    event.call.duration_ms = call.since_taken(Clock::now());

    if (outcome.answer) {
        event.kind = FlightEvent::Kind::answered;
        event.answer = std::move(*outcome.answer);
    } else {
        event.kind = FlightEvent::Kind::failed;
        event.problem = std::move(outcome.problem);
        if (event.call.attempts > 1) {
            note_attempts(event.problem, event.call.attempts);
        }
    }

    invariant(!call.choice && !call.multi, "a call ends with an attempt");
    calls_.erase(event.flight);
    invariant(!calls_.empty() || multis_.transfers() == 0,
              "a transfer outlives its call");
    tell_(std::move(event));
}

}  // namespace chatbot
