#include "openai/transfers.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <list>
#include <map>
#include <new>
#include <random>
#include <string>
#include <tuple>
#include <utility>

#include "openai/attempt.hpp"
#include "openai/protocol.hpp"

namespace chatbot {
namespace {

using Clock = Attempt::Clock;
using std::chrono::milliseconds;

constexpr auto missing_model_rest = std::chrono::hours(1);
constexpr auto timeout_check_interval = milliseconds(20);
constexpr std::size_t max_idle_handles = 128;

struct MultiDeleter {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct ShareDeleter {
    void operator()(CURLSH* share) const { curl_share_cleanup(share); }
};

using Multi = std::unique_ptr<CURLM, MultiDeleter>;
using Share = std::unique_ptr<CURLSH, ShareDeleter>;

// A question, from run() to its last event.
struct Call {
    Call(ModelCall&& what, std::vector<const std::string*>&& which)
        : ask(std::move(what)),
          models(std::move(which))
    {
    }

    const ModelSettings& settings() const { return *ask.settings; }

    ModelCall ask;
    const Clock::time_point taken = Clock::now();
    const Clock::time_point deadline =
        taken + milliseconds(settings().timeout_ms);
    std::vector<const std::string*> models;  // to ask, in this order
    std::size_t model = 0;                   // the one asked now
    int retries = 0;
    int attempts = 0;
    bool handed_on = false;  // the client has seen a piece: no way back
    std::unique_ptr<Attempt> attempt;  // null while it waits for a retry
    std::list<Call>::iterator self;
};

Problem out_of_memory()
{
    return make_problem(503, "no memory for a call of the model");
}

}  // namespace

class ModelOpenai::Impl {
public:
    Impl();
    ~Impl();

    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    void run(std::vector<ModelCall>& calls);
    void wake() { curl_multi_wakeup(multi_.get()); }
    std::size_t in_flight() const { return calls_.size(); }

    std::vector<ModelEvent> take_events() { return std::exchange(events_, {}); }
    std::vector<Notice> take_notices() { return std::exchange(notices_, {}); }

private:
    // Its url, key and name: "missing" may mean that the key has no access.
    using MissingModel = std::tuple<std::string, std::string, std::string>;

    void take(ModelCall& ask);
    std::vector<const std::string*> models_of(const ModelSettings&) const;
    bool is_missing(const MissingModel& model) const;
    void move();
    void wait();
    void start_due();
    void check_timeouts();
    void start(Call& call);
    void ended(Call& call, CURLcode code);
    bool goes_on(Call& call, const Outcome& outcome);
    bool ask_other_model(Call& call, const Outcome& outcome);
    bool ask_again(Call& call, const Outcome& outcome);
    milliseconds backoff(int retries);
    void drop_attempt(Call& call) noexcept;

    // Without memory for these, nobody could be told anything.
    void finish(Call& call, Outcome&& outcome) noexcept;
    void hand_on_pieces() noexcept;
    void hand_on(Call& call) noexcept;

    // Destroyed from the bottom up: libcurl wants it in this order.
    Share share_;
    Multi multi_;
    std::vector<Easy> idle_;
    std::list<Call> calls_;

    std::multimap<Clock::time_point, Call*> waiting_;    // for a retry
    std::map<MissingModel, Clock::time_point> missing_;  // until then
    Clock::time_point next_timeout_check_;
    std::minstd_rand random_{std::random_device{}()};

    std::vector<ModelEvent> events_;
    std::vector<Notice> notices_;
};

ModelOpenai::Impl::Impl()
{
    static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);

    if (initialized == CURLE_OK) {
        share_.reset(curl_share_init());
        multi_.reset(curl_multi_init());
    }
    if (!share_ || !multi_) {
        throw std::bad_alloc();
    }

    idle_.reserve(max_idle_handles);

    // A multi shares all but these by itself.
    curl_share_setopt(share_.get(), CURLSHOPT_SHARE,
                      CURL_LOCK_DATA_SSL_SESSION);
}

ModelOpenai::Impl::~Impl()
{
    for (Call& call : calls_) {
        drop_attempt(call);
    }
}

void ModelOpenai::Impl::run(std::vector<ModelCall>& calls)
{
    for (ModelCall& call : calls) {
        take(call);
    }
    calls.clear();

    move();
    if (events_.empty() && !calls_.empty()) {
        wait();
        move();
    }
}

void ModelOpenai::Impl::take(ModelCall& ask)
try {
    auto models = models_of(*ask.settings);
    Call& call = calls_.emplace_back(std::move(ask), std::move(models));
    call.self = std::prev(calls_.end());
    start(call);
} catch (const std::bad_alloc&) {
    ModelEvent& event = events_.emplace_back();
    event.flight = ask.flight;
    event.problem = out_of_memory();
}

// Those known to be missing come last, so that there is always one to ask.
std::vector<const std::string*> ModelOpenai::Impl::models_of(
    const ModelSettings& settings) const
{
    std::vector<const std::string*> models;
    for (const std::string& model : settings.models) {
        models.push_back(&model);
    }

    std::stable_partition(models.begin(), models.end(), [&](auto* model) {
        return !is_missing({settings.url, settings.api_key, *model});
    });
    return models;
}

bool ModelOpenai::Impl::is_missing(const MissingModel& model) const
{
    const auto found = missing_.find(model);
    return found != missing_.end() && Clock::now() < found->second;
}

void ModelOpenai::Impl::move()
{
    start_due();

    // What fails as a whole here shows as a timeout of the calls.
    int running;
    curl_multi_perform(multi_.get(), &running);

    int left;
    while (CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
        Call* call;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
        ended(*call, message->data.result);
    }

    check_timeouts();
    hand_on_pieces();
}

void ModelOpenai::Impl::wait()
{
    auto time = milliseconds(max_wait_ms);
    if (!waiting_.empty()) {
        const auto due = std::chrono::ceil<milliseconds>(
            waiting_.begin()->first - Clock::now());
        time = std::clamp(due, milliseconds(0), time);
    }

    curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(time.count()),
                    nullptr);
}

void ModelOpenai::Impl::start_due()
{
    const auto now = Clock::now();
    while (!waiting_.empty() && waiting_.begin()->first <= now) {
        Call& call = *waiting_.begin()->second;
        waiting_.erase(waiting_.begin());
        start(call);
    }
}

// libcurl knows no timeout between two bytes that is shorter than seconds, and
// none at all for a call that waits for another's connection.
void ModelOpenai::Impl::check_timeouts()
{
    const auto now = Clock::now();
    if (now < next_timeout_check_) {
        return;
    }
    next_timeout_check_ = now + timeout_check_interval;

    for (auto next = calls_.begin(); next != calls_.end();) {
        Call& call = *next++;
        if (call.attempt && now >= expiry(*call.attempt)) {
            ended(call, CURLE_OPERATION_TIMEDOUT);
        }
    }
}

// Starts an attempt.
void ModelOpenai::Impl::start(Call& call)
try {
    Easy easy;
    if (!idle_.empty()) {
        easy = std::move(idle_.back());
        idle_.pop_back();
    } else {
        easy.reset(curl_easy_init());
    }

    if (!easy) {
        throw std::bad_alloc();
    }

    const ModelSettings& settings = call.settings();
    call.attempt = std::make_unique<Attempt>(std::move(easy), settings,
                                             call.deadline, call.ask.stream);
    call.attempts++;
    prepare(*call.attempt,
            request_body(settings, *call.models[call.model], call.ask.question,
                         call.ask.stream),
            share_.get());

    CURL* handle = call.attempt->easy.get();
    if (curl_easy_setopt(handle, CURLOPT_PRIVATE, &call) != CURLE_OK ||
        curl_multi_add_handle(multi_.get(), handle) != CURLM_OK) {
        throw std::bad_alloc();
    }
} catch (const std::bad_alloc&) {
    Outcome outcome;
    outcome.problem = out_of_memory();
    finish(call, std::move(outcome));
}

void ModelOpenai::Impl::ended(Call& call, CURLcode code)
{
    Outcome outcome;
    try {
        outcome = read_outcome(*call.attempt, code);
        if (goes_on(call, outcome)) {
            return;
        }
    } catch (const std::bad_alloc&) {
        outcome = {};
        outcome.problem = out_of_memory();
    }

    finish(call, std::move(outcome));
}

bool ModelOpenai::Impl::goes_on(Call& call, const Outcome& outcome)
{
    if (outcome.answer || call.handed_on) {
        return false;
    }

    return ask_other_model(call, outcome) || ask_again(call, outcome);
}

bool ModelOpenai::Impl::ask_other_model(Call& call, const Outcome& outcome)
{
    const ModelSettings& settings = call.settings();
    if (!outcome.model_missing || settings.models.size() == 1) {
        return false;
    }

    const std::string& model = *call.models[call.model];
    const MissingModel missing{settings.url, settings.api_key, model};
    if (!is_missing(missing)) {
        missing_[missing] = Clock::now() + missing_model_rest;
        notices_.push_back(
            {Notice::Level::warn,
             "model \"" + model +
                 "\" is passed over for an hour: " + outcome.problem.reason});
    }

    if (call.model + 1 == call.models.size()) {
        return false;
    }

    call.model++;
    drop_attempt(call);
    start(call);
    return true;
}

bool ModelOpenai::Impl::ask_again(Call& call, const Outcome& outcome)
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
    drop_attempt(call);
    waiting_.emplace(due, &call);
    return true;
}

// 0.5 s doubling to 8 s, less up to a quarter, so that those who failed
// together do not come back together.
milliseconds ModelOpenai::Impl::backoff(int retries)
{
    const double base = std::min(500.0 * std::exp2(retries), 8000.0);
    std::uniform_real_distribution<double> share(0.75, 1.0);
    return milliseconds(std::lround(base * share(random_)));
}

// Tells the end of a call, and forgets it.
void ModelOpenai::Impl::finish(Call& call, Outcome&& outcome) noexcept
{
    hand_on(call);

    ModelEvent event;
    event.flight = call.ask.flight;
    event.duration_ms =
        static_cast<int>((Clock::now() - call.taken) / milliseconds(1));

    if (outcome.answer) {
        event.kind = ModelEvent::Kind::answered;
        event.answer = std::move(*outcome.answer);
    } else {
        event.kind = ModelEvent::Kind::failed;
        event.problem = std::move(outcome.problem);
        if (call.attempts > 1) {
            event.problem.reason +=
                " (" + std::to_string(call.attempts) + " attempts)";
        }
    }

    events_.push_back(std::move(event));
    drop_attempt(call);
    calls_.erase(call.self);
}

void ModelOpenai::Impl::hand_on_pieces() noexcept
{
    for (Call& call : calls_) {
        hand_on(call);
    }
}

void ModelOpenai::Impl::hand_on(Call& call) noexcept
{
    if (!call.attempt || call.attempt->piece.empty()) {
        return;
    }

    ModelEvent event;
    event.flight = call.ask.flight;
    event.kind = ModelEvent::Kind::piece;
    event.piece = std::exchange(call.attempt->piece, {});
    events_.push_back(std::move(event));
    call.handed_on = true;
}

void ModelOpenai::Impl::drop_attempt(Call& call) noexcept
{
    if (!call.attempt) {
        return;
    }

    Easy easy = std::move(call.attempt->easy);
    curl_multi_remove_handle(multi_.get(), easy.get());
    curl_easy_reset(easy.get());
    call.attempt.reset();

    if (idle_.size() < max_idle_handles) {
        idle_.push_back(std::move(easy));
    }
}

ModelOpenai::ModelOpenai()
    : impl_(std::make_unique<Impl>())
{
}

ModelOpenai::~ModelOpenai() = default;

void ModelOpenai::run(std::vector<ModelCall>& calls) noexcept
{
    impl_->run(calls);
}

void ModelOpenai::wake() noexcept
{
    impl_->wake();
}

std::size_t ModelOpenai::in_flight() const
{
    return impl_->in_flight();
}

std::vector<ModelEvent> ModelOpenai::take_events()
{
    return impl_->take_events();
}

std::vector<Notice> ModelOpenai::take_notices()
{
    return impl_->take_notices();
}

}  // namespace chatbot
