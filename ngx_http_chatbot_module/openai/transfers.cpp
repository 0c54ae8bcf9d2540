#include "openai/transfers.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <new>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "openai/attempt.hpp"
#include "openai/knowledge.hpp"
#include "openai/multis.hpp"
#include "openai/protocol.hpp"
#include "openai/targets.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t max_idle_handles = 1024;
constexpr std::size_t max_name_size = 200;  // of a server, in the log

struct ShareDeleter {
    void operator()(CURLSH* share) const { curl_share_cleanup(share); }
};
using Share = std::unique_ptr<CURLSH, ShareDeleter>;

// What a call does.
enum class Stage {
    resolving,     // the address of the host is looked up
    queued,        // for one of the connections there may be
    transferring,  // an attempt is under way
    resting,       // until the next attempt
    ending,        // soon told, or tried again
};

// A question, from ask() to its last event.
struct Call {
    Call(ModelCall&& what, Targets& where)
        : ask(std::move(what)),
          targets(where)
    {
    }

    const ModelSettings& settings() const { return *ask.settings; }

    // REQUIRES: one is chosen.
    const ModelServer& server() const { return targets.server(choice->server); }

    ModelCall ask;
    const Clock::time_point taken = Clock::now();
    const Clock::time_point deadline =
        taken + milliseconds(settings().timeout_ms);

    Targets& targets;
    std::optional<Targets::Choice> choice;  // from start() until release()
    std::set<std::size_t> tried;            // servers that did not serve it
    std::string model;                      // asked of the server
    std::set<std::string> missing;          // asked in vain of the server
    std::vector<std::string> left_out;      // members of the request
    int retries = 0;
    CallReport report{.attempts = 0};

    Stage stage = Stage::resolving;
    Clock::time_point due;  // when the stage has ended, or takes too long
    Clock::time_point alarm = Clock::time_point::max();  // the earliest set
    Outcome outcome;                                     // while ending
    std::unique_ptr<Attempt> attempt;                    // while transferring
    Multi* multi = nullptr;                              // of the attempt
    std::size_t told = 0;  // bytes of the answer; if any, there is no way back
};

int since_taken(const Call& call, Clock::time_point when)
{
    return static_cast<int>((when - call.taken) / milliseconds(1));
}

Outcome out_of_memory()
{
    Outcome outcome;
    outcome.problem = make_problem(503, "no memory for a call of the model");
    return outcome;
}

Outcome canceled()
{
    Outcome outcome;
    outcome.problem.status = 499;
    outcome.problem.detail = "The client left.";
    return outcome;
}

}  // namespace

class Transfers::Impl {
public:
    Impl(Poller& poller, Resolver& resolver, std::size_t max_connections,
         Tell tell);
    ~Impl();

    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    void ask(ModelCall&& ask);
    void listen(FlightId flight);
    void cancel(FlightId flight);
    void flush();
    Clock::time_point deadline() const;
    void on_time(Clock::time_point now);

    std::size_t in_flight() const { return calls_.size(); }
    std::vector<Notice> take_notices() { return std::exchange(notices_, {}); }

private:
    struct Alarm {
        Clock::time_point at;
        FlightId flight;

        bool operator>(const Alarm& other) const { return at > other.at; }
    };

    Targets& targets_of(const ModelSettings& settings);
    bool choose_server(Call& call);
    bool choose_model(Call& call);
    Call* find(FlightId flight);
    Origin& origin_of(const Call& call);

    void set_stage(Call& call, Stage stage, Clock::time_point due);
    void set_alarm(Call& call, Clock::time_point at);
    void on_alarm(Call& call);
    void start(Call& call);
    void on_resolved(FlightId flight, const Resolver::Result& result);
    void transfer(Call& call);
    void prepare_attempt(Call& call, const Origin& origin);
    void start_queued();

    void on_moved();
    void learn_http1(const Call& call);
    void ended(Call& call, CURLcode code);
    bool goes_on(Call& call, const Outcome& outcome);
    bool ask_without(Call& call, const Outcome& outcome);
    bool ask_other_model(Call& call, const Outcome& outcome);
    bool ask_other_server(Call& call, const Outcome& outcome);
    void note(Call& call, const Outcome& outcome);
    void release(Call& call, const Outcome& outcome);
    bool ask_again(Call& call, const Outcome& outcome);
    milliseconds backoff(int retries);
    Easy take_handle();
    void drop_attempt(Call& call) noexcept;

    void end_soon(Call& call, Outcome&& outcome);
    void end(Call& call, Outcome&& outcome);
    void finish(Call& call, Outcome&& outcome);
    void hand_on(Call& call);

    Resolver& resolver_;
    const Tell tell_;

    // Destroyed from the bottom up: libcurl wants it in this order.
    Share share_;
    Multis multis_;
    std::vector<Easy> idle_;
    std::unordered_map<FlightId, Call> calls_;

    std::unordered_map<std::string, Origin> origins_;  // by base URL
    std::vector<FlightId> touched_;                    // since the last move
    std::deque<FlightId> queue_;
    std::priority_queue<Alarm, std::vector<Alarm>, std::greater<>> alarms_;
    std::unordered_map<const ModelSettings*, Targets> targets_;
    std::minstd_rand random_{std::random_device{}()};
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::vector<Notice> notices_;
    Knowledge knowledge_{notices_};
};

Transfers::Impl::Impl(Poller& poller, Resolver& resolver,
                      std::size_t max_connections, Tell tell)
    : resolver_(resolver),
      tell_(std::move(tell)),
      share_((curl_global_init(CURL_GLOBAL_DEFAULT), curl_share_init())),
      multis_(
          poller, max_connections, [this] { on_moved(); },
          [this](CURL* easy, CURLcode code) {
              Call* call;
              curl_easy_getinfo(easy, CURLINFO_PRIVATE, &call);
              ended(*call, code);
          })
{
    if (!share_) {
        throw std::bad_alloc();
    }

    idle_.reserve(max_idle_handles);
    curl_share_setopt(share_.get(), CURLSHOPT_SHARE,
                      CURL_LOCK_DATA_SSL_SESSION);
}

Transfers::Impl::~Impl()
{
    *alive_ = false;
    for (auto& [flight, call] : calls_) {
        drop_attempt(call);
    }
}

void Transfers::Impl::ask(ModelCall&& ask)
{
    const auto flight = ask.flight;
    auto& targets = targets_of(*ask.settings);
    start(calls_.try_emplace(flight, std::move(ask), targets).first->second);
}

// What was received by now is told with the next bytes, or with the end.
void Transfers::Impl::listen(FlightId flight)
{
    if (Call* call = find(flight)) {
        call->ask.listen = true;
        touched_.push_back(flight);
    }
}

void Transfers::Impl::cancel(FlightId flight)
{
    if (Call* call = find(flight)) {
        end_soon(*call, canceled());
    }
}

void Transfers::Impl::flush()
{
    multis_.flush();
    on_moved();
}

Clock::time_point Transfers::Impl::deadline() const
{
    return alarms_.empty() ? multis_.deadline()
                           : std::min(alarms_.top().at, multis_.deadline());
}

void Transfers::Impl::on_time(Clock::time_point now)
{
    multis_.on_time(now);

    while (!alarms_.empty() && alarms_.top().at <= now) {
        const Alarm alarm = alarms_.top();
        alarms_.pop();
        Call* call = find(alarm.flight);
        if (call && call->alarm == alarm.at) {
            call->alarm = Clock::time_point::max();
            on_alarm(*call);
        }
    }
}

Targets& Transfers::Impl::targets_of(const ModelSettings& settings)
{
    const auto found = targets_.find(&settings);
    if (found != targets_.end()) {
        return found->second;
    }

    auto servers = settings.servers;
    if (servers.empty()) {
        const auto query = settings.url.find('?');  // it may hold a secret
        servers.push_back({.name = settings.url.substr(0, query),
                           .url = settings.url,
                           .api_key = settings.api_key,
                           .models = settings.models,
                           .proxy = settings.proxy});
    }
    return targets_.try_emplace(&settings, std::move(servers), notices_)
        .first->second;
}

// Chooses server and model, unless the call stays where it is.
bool Transfers::Impl::choose_server(Call& call)
{
    if (call.choice) {
        return true;
    }

    call.choice = call.targets.choose(call.tried, Clock::now());
    call.missing.clear();
    if (!call.choice) {
        return false;
    }

    call.report.upstream = one_line(call.server().name, max_name_size);
    return choose_model(call);
}

// A model that is known to be missing comes last, so that there is always one
// to ask.
bool Transfers::Impl::choose_model(Call& call)
{
    const auto now = Clock::now();
    const auto& server = call.server();
    const std::string* last = nullptr;
    for (const auto& model : server.models) {
        if (call.missing.contains(model)) {
            continue;
        }
        last = last ? last : &model;
        if (!knowledge_.is_missing(server, model, now)) {
            last = &model;
            break;
        }
    }
    if (!last) {
        return false;
    }

    call.model = *last;
    call.left_out = knowledge_.left_out(server, call.model, now);
    return true;
}

Call* Transfers::Impl::find(FlightId flight)
{
    const auto found = calls_.find(flight);
    return found == calls_.end() ? nullptr : &found->second;
}

Origin& Transfers::Impl::origin_of(const Call& call)
{
    const auto& url = call.server().url;
    const auto found = origins_.find(url);
    return found != origins_.end()
               ? found->second
               : origins_.emplace(url, read_origin(url)).first->second;
}

void Transfers::Impl::set_stage(Call& call, Stage stage, Clock::time_point due)
{
    call.stage = stage;
    call.due = std::min(due, call.deadline);
    set_alarm(call, call.due);
}

void Transfers::Impl::set_alarm(Call& call, Clock::time_point at)
{
    if (at < call.alarm) {
        call.alarm = at;
        alarms_.push({at, call.ask.flight});
    }
}

// An alarm that comes too early is set anew: most calls end before theirs.
void Transfers::Impl::on_alarm(Call& call)
{
    const auto due =
        call.stage == Stage::transferring ? expiry(*call.attempt) : call.due;
    if (Clock::now() < due) {
        set_alarm(call, due);
        return;
    }

    switch (call.stage) {
        case Stage::resolving:
            end(call,
                unreachable(call.server(), "the name server does not answer"));
            return;
        case Stage::queued:
            end(call, unreachable(call.server(),
                                  "no connection became free in time"));
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
void Transfers::Impl::start(Call& call)
{
    if (!choose_server(call)) {
        end_soon(call, out_of_memory());  // REQUIRES: there is one
        return;
    }

    const auto& origin = origin_of(call);
    set_stage(call, Stage::resolving,
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
}

void Transfers::Impl::on_resolved(FlightId flight,
                                  const Resolver::Result& result)
{
    Call* call = find(flight);
    if (!call || call->stage != Stage::resolving) {
        return;
    }

    if (result.addresses.empty()) {
        end_soon(*call, unreachable(call->server(), result.error));
        return;
    }

    set_addresses(origin_of(*call), result.addresses);
    transfer(*call);
}

void Transfers::Impl::transfer(Call& call)
try {
    const auto& origin = origin_of(call);
    Multi* multi = multis_.choose(origin);
    if (!multi) {
        set_stage(call, Stage::queued, call.deadline);
        queue_.push_back(call.ask.flight);
        return;
    }

    prepare_attempt(call, origin);
    multi->add(call.attempt->easy.get());
    call.multi = multi;
    set_stage(call, Stage::transferring, expiry(*call.attempt));
} catch (const std::bad_alloc&) {
    end_soon(call, out_of_memory());
}

void Transfers::Impl::prepare_attempt(Call& call, const Origin& origin)
{
    const ModelSettings& settings = call.settings();
    const bool stream = settings.stream || call.ask.listen;
    call.attempt = std::make_unique<Attempt>(
        take_handle(), settings, call.server(), call.deadline, stream);
    call.report.attempts++;

    Attempt& attempt = *call.attempt;
    attempt.resolved = origin.resolved;
    attempt.on_progress = [this, flight = call.ask.flight] {
        touched_.push_back(flight);
    };
    prepare(
        attempt,
        request_body(settings, call.model, call.ask.history, call.ask.question,
                     stream, call.left_out, call.server().url),
        share_.get());
    if (curl_easy_setopt(attempt.easy.get(), CURLOPT_PRIVATE, &call) !=
        CURLE_OK) {
        throw std::bad_alloc();
    }
}

void Transfers::Impl::start_queued()
{
    for (auto left = queue_.size(); left > 0; left--) {
        Call* call = find(queue_.front());
        if (call && call->stage == Stage::queued) {
            if (!multis_.choose(origin_of(*call))) {
                return;
            }
            transfer(*call);
        }
        queue_.pop_front();
    }
}

// libcurl has moved some transfers: hands on what came.
void Transfers::Impl::on_moved()
{
    for (auto flight : std::exchange(touched_, {})) {
        Call* call = find(flight);
        if (!call || !call->attempt) {
            continue;
        }

        if (call->attempt->http1 && origin_of(*call).may_speak_http2()) {
            learn_http1(*call);
        }
        hand_on(*call);
        if (is_done(*call->attempt)) {
            set_alarm(*call, expiry(*call->attempt));
        }
    }
}

// An https server turns out not to speak HTTP/2: its calls that wait for one of
// the few connections that HTTP/2 needs start anew, with one each.
void Transfers::Impl::learn_http1(const Call& known)
{
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
}

// Not from within libcurl's callbacks.
void Transfers::Impl::ended(Call& call, CURLcode code)
{
    Outcome outcome;
    try {
        hand_on(call);
        outcome = read_outcome(*call.attempt, code);
    } catch (const std::bad_alloc&) {
        outcome = out_of_memory();
    }
    end(call, std::move(outcome));
}

void Transfers::Impl::end_soon(Call& call, Outcome&& outcome)
{
    call.outcome = std::move(outcome);
    set_stage(call, Stage::ending, Clock::now());
}

void Transfers::Impl::end(Call& call, Outcome&& outcome)
{
    if (!goes_on(call, outcome)) {
        finish(call, std::move(outcome));
    }
    start_queued();  // its connection may be free
}

bool Transfers::Impl::goes_on(Call& call, const Outcome& outcome)
{
    if (!outcome.answer && call.told == 0 &&
        (ask_without(call, outcome) || ask_other_model(call, outcome))) {
        return true;
    }

    release(call, outcome);
    return !outcome.answer && call.told == 0 &&
           (ask_other_server(call, outcome) || ask_again(call, outcome));
}

// Keeps what is to be told of the attempt.
void Transfers::Impl::note(Call& call, const Outcome& outcome)
{
    call.report.first_byte_ms = -1;
    call.report.upstream_request_id.clear();
    if (!call.attempt) {
        return;
    }

    const auto& attempt = *call.attempt;
    call.report.upstream_request_id = request_id_of(attempt);
    if (attempt.first_byte && (outcome.answer || attempt.reader)) {
        call.report.first_byte_ms = since_taken(call, *attempt.first_byte);
    }
}

// Tells how the server did.
void Transfers::Impl::release(Call& call, const Outcome& outcome)
{
    if (!call.choice) {
        return;
    }

    auto result = Targets::Result::nothing;
    if (outcome.answer || outcome.fault == Outcome::Fault::request) {
        result = Targets::Result::ok;
    } else if (outcome.fault == Outcome::Fault::server) {
        result = Targets::Result::failed;
    } else if (outcome.fault == Outcome::Fault::key) {
        result = Targets::Result::spent;
    }

    call.targets.report(*call.choice, result, Clock::now(), outcome.delay,
                        outcome.problem.reason);
    if (!outcome.unsure.empty()) {
        knowledge_.warn_once("answers are not kept: " + outcome.unsure);
    }
    call.tried.insert(call.choice->server);
    note(call, outcome);
    drop_attempt(call);
    call.choice.reset();
}

// A member of the request is not taken: the same once more without it.
bool Transfers::Impl::ask_without(Call& call, const Outcome& outcome)
{
    const auto& name = outcome.refused_member;
    if (name.empty() ||
        std::count(call.left_out.begin(), call.left_out.end(), name) > 0) {
        return false;
    }

    knowledge_.learn_refused(call.server(), call.model, name,
                             outcome.problem.reason, Clock::now());
    call.left_out.push_back(name);
    drop_attempt(call);
    start(call);
    return true;
}

// A call that may be tried again goes to another server at once.
bool Transfers::Impl::ask_other_server(Call& call, const Outcome& outcome)
{
    if (!(outcome.elsewhere || outcome.model_missing) ||
        !call.targets.has_other(call.tried, Clock::now())) {
        return false;
    }
    if (outcome.fault == Outcome::Fault::server &&
        call.retries++ >= call.settings().retries) {
        return false;
    }

    start(call);
    return true;
}

bool Transfers::Impl::ask_other_model(Call& call, const Outcome& outcome)
{
    if (!outcome.model_missing || (call.server().models.size() == 1 &&
                                   call.settings().servers.size() < 2)) {
        return false;
    }

    knowledge_.learn_missing(call.server(), call.model, outcome.problem.reason,
                             Clock::now());
    call.missing.insert(call.model);
    if (!choose_model(call)) {
        return false;
    }

    drop_attempt(call);
    start(call);
    return true;
}

bool Transfers::Impl::ask_again(Call& call, const Outcome& outcome)
{
    if (!outcome.retry || call.retries >= call.settings().retries) {
        return false;
    }

    const auto due =
        Clock::now() + (outcome.delay ? *outcome.delay : backoff(call.retries));
    if (due >= call.deadline) {
        return false;
    }

    call.retries++;
    call.tried.clear();
    set_stage(call, Stage::resting, due);
    return true;
}

// 0.5 s doubling to 8 s, less up to a quarter, so that those who failed
// together do not come back together.
milliseconds Transfers::Impl::backoff(int retries)
{
    const double base = std::min(500.0 * std::exp2(retries), 8000.0);
    std::uniform_real_distribution<double> share(0.75, 1.0);
    return milliseconds(std::lround(base * share(random_)));
}

// Tells the end of a call, and forgets it.
void Transfers::Impl::finish(Call& call, Outcome&& outcome)
{
    FlightEvent event;
    event.flight = call.ask.flight;
    event.call = std::move(call.report);
    event.call.duration_ms = since_taken(call, Clock::now());

    if (outcome.answer) {
        event.kind = FlightEvent::Kind::answered;
        event.answer = std::move(*outcome.answer);
    } else {
        event.kind = FlightEvent::Kind::failed;
        event.problem = std::move(outcome.problem);
        if (event.call.attempts > 1) {
            event.problem.reason +=
                " (" + std::to_string(event.call.attempts) + " attempts)";
        }
    }

    drop_attempt(call);
    calls_.erase(event.flight);
    tell_(std::move(event));
}

// Hands on what the model wrote since the last time, if somebody listens.
void Transfers::Impl::hand_on(Call& call)
{
    if (!call.ask.listen || !call.attempt || !call.attempt->reader) {
        return;
    }

    const auto& text = call.attempt->reader->text();
    if (text.size() == call.told) {
        return;
    }

    FlightEvent event;
    event.flight = call.ask.flight;
    event.kind = FlightEvent::Kind::piece;
    event.piece = text.substr(call.told);
    call.told = text.size();
    tell_(std::move(event));
}

Easy Transfers::Impl::take_handle()
{
    Easy easy;
    if (idle_.empty()) {
        easy.reset(curl_easy_init());
    } else {
        easy = std::move(idle_.back());
        idle_.pop_back();
    }

    if (!easy) {
        throw std::bad_alloc();
    }
    return easy;
}

void Transfers::Impl::drop_attempt(Call& call) noexcept
{
    if (!call.attempt) {
        return;
    }

    Easy easy = std::move(call.attempt->easy);
    if (call.multi) {
        std::exchange(call.multi, nullptr)->remove(easy.get());
    }
    curl_easy_reset(easy.get());
    call.attempt.reset();

    if (idle_.size() < max_idle_handles) {
        idle_.push_back(std::move(easy));
    }
}

Transfers::Transfers(Poller& poller, Resolver& resolver,
                     std::size_t max_connections, Tell tell)
    : impl_(std::make_unique<Impl>(poller, resolver, max_connections,
                                   std::move(tell)))
{
}

Transfers::~Transfers() = default;

void Transfers::ask(ModelCall&& call)
{
    impl_->ask(std::move(call));
}

void Transfers::listen(FlightId flight)
{
    impl_->listen(flight);
}

void Transfers::cancel(FlightId flight)
{
    impl_->cancel(flight);
}

void Transfers::flush()
{
    impl_->flush();
}

Clock::time_point Transfers::deadline() const
{
    return impl_->deadline();
}

void Transfers::on_time(Clock::time_point now)
{
    impl_->on_time(now);
}

std::size_t Transfers::in_flight() const
{
    return impl_->in_flight();
}

std::vector<Notice> Transfers::take_notices()
{
    return impl_->take_notices();
}

}  // namespace chatbot
