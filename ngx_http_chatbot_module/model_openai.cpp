#include "model_openai.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <list>
#include <map>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "openai_json.hpp"

namespace chatbot {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr auto missing_model_rest = std::chrono::hours(1);
constexpr auto max_upstream_delay = std::chrono::seconds(60);
constexpr auto timeout_check_interval = milliseconds(20);
constexpr int default_retry_after_s = 5;
constexpr int max_retry_after_s = 24 * 60 * 60;
constexpr std::size_t max_header_size = 256 * 1024;
constexpr std::size_t max_error_size = 64 * 1024;
constexpr std::size_t max_idle_handles = 128;

struct EasyDeleter {
    void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiDeleter {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct ShareDeleter {
    void operator()(CURLSH* share) const { curl_share_cleanup(share); }
};
struct ListDeleter {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

using Easy = std::unique_ptr<CURL, EasyDeleter>;
using Multi = std::unique_ptr<CURLM, MultiDeleter>;
using Share = std::unique_ptr<CURLSH, ShareDeleter>;
using List = std::unique_ptr<curl_slist, ListDeleter>;

// One HTTP exchange with the upstream.
struct Attempt {
    // Why the rest of the reply is not read.
    enum class Stop { none, headers_too_large, body_too_large, bad_stream };

    explicit Attempt(Easy handle)
        : easy(std::move(handle))
    {
    }

    Easy easy;
    List headers;
    std::string body;
    char error[CURL_ERROR_SIZE] = "";

    Clock::time_point started = Clock::now();
    Clock::time_point last_byte;  // or the request's, if sent
    bool sent = false;  // at least begun: it may cost money from now on

    Stop stop = Stop::none;
    std::size_t header_size = 0;
    std::string reply;
    std::optional<StreamReader> stream;  // instead of `reply`
};

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
    std::string piece;       // received, but not handed on yet
    bool handed_on = false;  // the client has seen a piece: no way back
    std::unique_ptr<Attempt> attempt;  // null while it waits for a retry
    std::list<Call>::iterator self;
};

// How an attempt ended.
struct Outcome {
    std::optional<Answer> answer;
    Problem problem;
    bool retry = false;                 // asking again may help
    bool model_missing = false;         // asking for another model may
    std::optional<milliseconds> delay;  // as the upstream wishes
};

// "api.openai.com" of "https://api.openai.com/v1".
std::string_view host_of(std::string_view url)
{
    const auto scheme = url.find("://");
    if (scheme != url.npos) {
        url.remove_prefix(scheme + 3);
    }

    url = url.substr(0, url.find('/'));
    return url.substr(url.rfind('@') + 1);
}

std::string upstream(const Call& call)
{
    return "upstream " + std::string(host_of(call.settings().url));
}

// What a client is told: the reason is none of its business.
const char* detail_of(int status)
{
    switch (status) {
        case 503:
            return "The model is not available right now. "
                   "Please try again later.";
        case 504:
            return "The model did not answer in time.";
        default:
            return "The model failed to answer.";
    }
}

Problem make_problem(int status, std::string reason)
{
    Problem problem;
    problem.status = status;
    problem.detail = detail_of(status);
    problem.reason = std::move(reason);
    problem.retry_after_s = status == 503 ? default_retry_after_s : 0;
    return problem;
}

Problem out_of_memory()
{
    return make_problem(503, "no memory for a call of the model");
}

bool is_success(long status)
{
    return status >= 200 && status < 300;
}

long status_of(const Attempt& attempt)
{
    long status = 0;
    curl_easy_getinfo(attempt.easy.get(), CURLINFO_RESPONSE_CODE, &status);
    return status;
}

// A header of the reply, or null.
const char* header(const Attempt& attempt, const char* name)
{
    curl_header* found = nullptr;
    const auto code =
        curl_easy_header(attempt.easy.get(), name, 0, CURLH_HEADER, -1, &found);
    return code == CURLHE_OK ? found->value : nullptr;
}

bool is_event_stream(const Attempt& attempt)
{
    constexpr std::string_view type = "text/event-stream";
    const char* value = header(attempt, "Content-Type");
    return value && curl_strnequal(value, type.data(), type.size());
}

std::optional<double> number(const char* text)
{
    if (!text) {
        return {};
    }

    char* end;
    const double value = std::strtod(text, &end);
    if (end == text || *end != '\0' || !std::isfinite(value)) {
        return {};
    }

    return value;
}

// How long the upstream wants to be left alone.
std::optional<milliseconds> delay_of(const Attempt& attempt)
{
    const char* retry_after = header(attempt, "Retry-After");
    double seconds = 0;

    if (auto ms = number(header(attempt, "Retry-After-Ms"))) {
        seconds = *ms / 1000;
    } else if (auto s = number(retry_after)) {
        seconds = *s;
    } else if (retry_after) {
        const std::time_t date = curl_getdate(retry_after, nullptr);
        seconds = date < 0 ? 0 : std::difftime(date, std::time(nullptr));
    }

    if (seconds <= 0) {
        return {};
    }

    seconds = std::min<double>(seconds, max_retry_after_s);
    return milliseconds(std::lround(seconds * 1000));
}

// Whether OpenAI's own SDKs would ask again.
bool may_retry(const Attempt& attempt, long status)
{
    const char* wish = header(attempt, "X-Should-Retry");
    if (wish && curl_strequal(wish, "true")) {
        return true;
    }
    if (wish && curl_strequal(wish, "false")) {
        return false;
    }

    return status == 408 || status == 409 || status == 429 || status >= 500;
}

// The status for the client, of a status of the upstream.
int status_for(long status)
{
    switch (status) {
        case 429:
        case 503:
        case 529:  // "overloaded" with some compatible services
            return 503;
        case 408:
        case 504:
            return 504;
        default:
            return 502;
    }
}

Outcome too_large(const Call& call)
{
    Outcome outcome;
    outcome.problem = make_problem(
        502, upstream(call) + " sent more than the largest answer allowed");
    return outcome;
}

Outcome read_success(const Call& call)
{
    Attempt& attempt = *call.attempt;
    if (attempt.stop == Attempt::Stop::body_too_large) {
        return too_large(call);
    }

    Outcome outcome;
    outcome.answer = attempt.stream
                         ? attempt.stream->finish(outcome.problem)
                         : read_reply(attempt.reply, outcome.problem);

    if (!outcome.answer) {
        outcome.problem.reason = upstream(call) + ": " + outcome.problem.reason;
        return outcome;
    }

    if (outcome.answer->text.size() > call.settings().answer_max_size) {
        return too_large(call);
    }

    if (outcome.answer->created == 0) {
        outcome.answer->created = std::time(nullptr);
    }

    return outcome;
}

Outcome read_failure(const Call& call, long status)
{
    const Attempt& attempt = *call.attempt;
    ReplyError error = read_error(static_cast<int>(status), attempt.reply);

    Outcome outcome;
    outcome.problem =
        make_problem(error.money ? 502 : status_for(status),
                     upstream(call) + " answered " + std::to_string(status) +
                         (error.reason.empty() ? "" : ": " + error.reason));
    outcome.model_missing = error.model_missing;
    outcome.delay = delay_of(attempt);

    if (outcome.delay && outcome.problem.status == 503) {
        outcome.problem.retry_after_s = static_cast<int>(
            std::chrono::ceil<std::chrono::seconds>(*outcome.delay).count());
    }

    // Who asks for more than a minute is not asked again.
    outcome.retry =
        !error.money && may_retry(attempt, status) &&
        outcome.delay.value_or(milliseconds(0)) <= max_upstream_delay;
    return outcome;
}

// The connection could not be made, or broke: another one may do better.
bool is_connection_error(CURLcode code)
{
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_SEND_ERROR:
        case CURLE_RECV_ERROR:
        case CURLE_GOT_NOTHING:
        case CURLE_PARTIAL_FILE:
        case CURLE_HTTP2:
        case CURLE_HTTP2_STREAM:
            return true;
        default:
            return false;
    }
}

Outcome read_timeout(const Call& call)
{
    Outcome outcome;
    const auto& settings = call.settings();
    const auto after = [](int ms) { return std::to_string(ms) + " ms"; };

    // libcurl, which has that deadline too, may be early by its rounding.
    if (Clock::now() + timeout_check_interval >= call.deadline) {
        outcome.problem =
            make_problem(504, upstream(call) + " gave no answer within " +
                                  after(settings.timeout_ms));
    } else if (!call.attempt->sent) {
        outcome.retry = true;
        outcome.problem =
            make_problem(503, upstream(call) + " could not be reached within " +
                                  after(settings.connect_timeout_ms));
    } else {
        outcome.problem =
            make_problem(504, upstream(call) + " sent nothing for " +
                                  after(settings.read_timeout_ms));
    }

    return outcome;
}

Outcome read_outcome(const Call& call, CURLcode code)
{
    const Attempt& attempt = *call.attempt;

    if (attempt.stop == Attempt::Stop::headers_too_large) {
        Outcome outcome;
        outcome.problem =
            make_problem(502, upstream(call) + " sent too large a header");
        return outcome;
    }

    if (code == CURLE_OK || attempt.stop != Attempt::Stop::none) {
        const long status = status_of(attempt);
        return is_success(status) ? read_success(call)
                                  : read_failure(call, status);
    }

    // A stream that was told to its end is whole, however it is closed.
    if (attempt.stream && is_success(status_of(attempt))) {
        Outcome outcome = read_success(call);
        if (outcome.answer && outcome.answer->complete) {
            return outcome;
        }
    }

    if (code == CURLE_OPERATION_TIMEDOUT) {
        return read_timeout(call);
    }

    Outcome outcome;
    outcome.retry = is_connection_error(code);
    outcome.problem = make_problem(
        outcome.retry && !attempt.sent ? 503 : 502,
        upstream(call) + ": " +
            (*attempt.error ? attempt.error : curl_easy_strerror(code)));
    return outcome;
}

// An upstream may repeat the key in its message.
void conceal(std::string& text, const std::string& key)
{
    if (key.empty()) {
        return;
    }

    for (auto at = text.find(key); at != text.npos; at = text.find(key, at)) {
        text.replace(at, key.size(), "***");
        at += 3;
    }
}

// libcurl's callbacks.  Bytes not accepted end the transfer.

int on_connected(void* data, char*, char*, int, int) noexcept
{
    Attempt& attempt = *static_cast<Call*>(data)->attempt;
    attempt.sent = true;
    attempt.last_byte = Clock::now();
    return CURL_PREREQFUNC_OK;
}

std::size_t on_header(char*, std::size_t, std::size_t size, void* data) noexcept
{
    Attempt& attempt = *static_cast<Call*>(data)->attempt;
    attempt.last_byte = Clock::now();
    attempt.header_size += size;
    if (attempt.header_size > max_header_size) {
        attempt.stop = Attempt::Stop::headers_too_large;
        return 0;
    }

    return size;
}

std::size_t on_body(char* bytes, std::size_t, std::size_t size,
                    void* data) noexcept
try {
    Call& call = *static_cast<Call*>(data);
    Attempt& attempt = *call.attempt;
    attempt.last_byte = Clock::now();

    const bool success = is_success(status_of(attempt));
    const std::size_t answer_max_size = call.settings().answer_max_size;

    if (success && !attempt.stream && attempt.reply.empty() &&
        is_event_stream(attempt)) {
        attempt.stream.emplace(answer_max_size);
    }

    if (attempt.stream) {
        const bool usable = attempt.stream->feed({bytes, size}, call.piece);
        if (!call.ask.stream) {
            call.piece.clear();
        }
        if (!usable) {
            attempt.stop = Attempt::Stop::bad_stream;
            return 0;
        }
        return size;
    }

    // A byte of the answer takes up to six ("\u0001") in JSON.
    const std::size_t max_size =
        success ? 6 * answer_max_size + max_error_size : max_error_size;
    if (size > max_size - attempt.reply.size()) {
        attempt.stop = Attempt::Stop::body_too_large;
        return 0;
    }

    attempt.reply.append(bytes, size);
    return size;
} catch (...) {
    return 0;
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
    using MissingModel = std::pair<std::string, std::string>;  // url, model

    void take(ModelCall& ask);
    std::vector<const std::string*> models_of(const ModelSettings&) const;
    bool is_missing(const MissingModel& model) const;
    void move();
    void wait();
    void start_due();
    void check_timeouts();
    void start(Call& call);
    void set_options(Call& call);
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
        return !is_missing({settings.url, *model});
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
        if (!call.attempt) {
            continue;
        }

        const Attempt& attempt = *call.attempt;
        const auto& settings = call.settings();
        const auto limit =
            attempt.sent
                ? attempt.last_byte + milliseconds(settings.read_timeout_ms)
                : attempt.started + milliseconds(settings.connect_timeout_ms);

        if (now >= std::min(limit, call.deadline)) {
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

    call.attempt = std::make_unique<Attempt>(std::move(easy));
    call.attempts++;
    set_options(call);

    if (curl_multi_add_handle(multi_.get(), call.attempt->easy.get()) !=
        CURLM_OK) {
        throw std::bad_alloc();
    }
} catch (const std::bad_alloc&) {
    Outcome outcome;
    outcome.problem = out_of_memory();
    finish(call, std::move(outcome));
}

void ModelOpenai::Impl::set_options(Call& call)
{
    const ModelSettings& settings = call.settings();
    Attempt& attempt = *call.attempt;
    CURL* easy = attempt.easy.get();

    attempt.body = request_body(settings, *call.models[call.model],
                                call.ask.question, call.ask.stream);

    const auto add_header = [&](const std::string& line) {
        curl_slist* list =
            curl_slist_append(attempt.headers.get(), line.c_str());
        if (!list) {
            throw std::bad_alloc();
        }
        (void)attempt.headers.release();
        attempt.headers.reset(list);
    };

    add_header("Content-Type: application/json");
    add_header(call.ask.stream ? "Accept: text/event-stream"
                               : "Accept: application/json");
    add_header("Expect:");  // no round trip ahead of a large question
    if (!settings.api_key.empty()) {
        add_header("Authorization: Bearer " + settings.api_key);
    }

    const auto left =
        std::chrono::ceil<milliseconds>(call.deadline - attempt.started);
    const bool https = curl_strnequal(settings.url.c_str(), "https:", 6);
    const auto set = [easy](CURLoption option, auto value) {
        // The only failure that the values below leave.
        if (curl_easy_setopt(easy, option, value) == CURLE_OUT_OF_MEMORY) {
            throw std::bad_alloc();
        }
    };

    curl_easy_reset(easy);
    set(CURLOPT_PRIVATE, &call);
    set(CURLOPT_ERRORBUFFER, attempt.error);
    set(CURLOPT_SHARE, share_.get());
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_QUICK_EXIT, 1L);  // do not wait for a resolver given up

    set(CURLOPT_URL, (settings.url + "/chat/completions").c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    set(CURLOPT_PIPEWAIT, https ? 1L : 0L);
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_CONNECTTIMEOUT_MS, long{settings.connect_timeout_ms});
    set(CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>(left.count())));

    set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    set(CURLOPT_SSL_VERIFYPEER, settings.ssl_verify ? 1L : 0L);
    set(CURLOPT_SSL_VERIFYHOST, settings.ssl_verify ? 2L : 0L);
    if (!settings.ssl_trusted_certificate.empty()) {
        set(CURLOPT_CAINFO, settings.ssl_trusted_certificate.c_str());
    }
    if (!settings.ssl_trusted_certificate.empty() ||
        curl_version_info(CURLVERSION_NOW)->cainfo) {
        // The file alone: with a directory, libcurl would trust more, and
        // parse it all anew for each connection.
        set(CURLOPT_CAPATH, static_cast<char*>(nullptr));
    }

    set(CURLOPT_USERAGENT, "ngx_http_chatbot_module");
    set(CURLOPT_HTTPHEADER, attempt.headers.get());
    set(CURLOPT_POSTFIELDSIZE, static_cast<long>(attempt.body.size()));
    set(CURLOPT_POSTFIELDS, attempt.body.c_str());

    set(CURLOPT_PREREQFUNCTION, on_connected);
    set(CURLOPT_PREREQDATA, &call);
    set(CURLOPT_HEADERFUNCTION, on_header);
    set(CURLOPT_HEADERDATA, &call);
    set(CURLOPT_WRITEFUNCTION, on_body);
    set(CURLOPT_WRITEDATA, &call);
}

void ModelOpenai::Impl::ended(Call& call, CURLcode code)
{
    Outcome outcome;
    try {
        outcome = read_outcome(call, code);
        conceal(outcome.problem.reason, call.settings().api_key);
        drop_attempt(call);
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
    const MissingModel missing{settings.url, model};
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
    call.piece.clear();
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
    if (call.piece.empty()) {
        return;
    }

    ModelEvent event;
    event.flight = call.ask.flight;
    event.kind = ModelEvent::Kind::piece;
    event.piece = std::exchange(call.piece, {});
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
