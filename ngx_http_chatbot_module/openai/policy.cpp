#include "openai/policy.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <string>
#include <utility>

#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t max_name_size = 200;  // of a server, in the log

}  // namespace

std::vector<ModelServer> servers_of(const ModelSettings& settings)
{
    if (!settings.servers.empty()) {
        return settings.servers;
    }

    const auto query = settings.url.find('?');  // it may hold a secret
    return {{.name = settings.url.substr(0, query),
             .url = settings.url,
             .api_key = settings.api_key,
             .models = settings.models,
             .proxy = settings.proxy}};
}

std::string told_name(const ModelServer& server)
{
    return one_line(server.name, max_name_size);
}

Policy::Policy(std::vector<Notice>& notices)
    : notices_(notices)
{
}

Targets& Policy::targets_of(const ModelSettings& settings)
{
    const auto found = targets_.find(&settings);
    if (found != targets_.end()) {
        return found->second;
    }

    return targets_.try_emplace(&settings, servers_of(settings), notices_)
        .first->second;
}

bool Policy::choose(Call& call)
{
    if (call.choice) {
        return true;
    }

    call.choice = call.targets.choose(call.tried, Clock::now());
    call.missing.clear();
    if (!call.choice) {
        return false;
    }

    call.report.upstream = told_name(call.server());
    return choose_model(call);
}

// A model that is known to be missing comes last, so that there is always one
// to ask.
bool Policy::choose_model(Call& call)
{
    if (call.ask.api) {
        ask_model(call, call.ask.api.model);
        return true;
    }

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

    ask_model(call, *last);
    return true;
}

void Policy::ask_model(Call& call, const std::string& model)
{
    call.model = call.report.model = model;
    call.left_out =
        knowledge_.left_out(call.server(), call.model, Clock::now());
}

Policy::Next Policy::after(Call& call, const Outcome& outcome) noexcept
try {
    const bool may_go_on = !outcome.answer && call.told == 0;
    if (may_go_on &&
        (ask_without(call, outcome) || ask_other_model(call, outcome))) {
        return {Next::Kind::at_once};
    }

    report(call, outcome);
    if (!may_go_on) {
        return {Next::Kind::end};
    }
    return ask_other_server(call, outcome) ? Next{Next::Kind::at_once}
                                           : ask_again(call, outcome);
} catch (const std::bad_alloc&) {
    give_up(call);
    return {Next::Kind::end};
}

// A member of the request is not taken: the same once more without it.
bool Policy::ask_without(Call& call, const Outcome& outcome)
{
    const auto& name = outcome.refused_member;
    if (name.empty() ||
        (call.ask.api && (name != "stream_options" ||
                          call.ask.api.path == ApiPath::responses)) ||
        std::count(call.left_out.begin(), call.left_out.end(), name) > 0) {
        return false;
    }

    knowledge_.learn_refused(call.server(), call.model, name,
                             outcome.problem.reason, Clock::now());
    call.left_out.push_back(name);
    return true;
}

bool Policy::ask_other_model(Call& call, const Outcome& outcome)
{
    if (!outcome.model_missing || call.ask.api ||
        (call.server().models.size() == 1 &&
         call.settings().servers.size() < 2)) {
        return false;
    }

    knowledge_.learn_missing(call.server(), call.model, outcome.problem.reason,
                             Clock::now());
    call.missing.insert(call.model);
    return choose_model(call);
}

// Tells how the server did.
void Policy::report(Call& call, const Outcome& outcome)
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

    call.tried.insert(call.choice->server);
    const auto choice = *std::exchange(call.choice, std::nullopt);
    call.targets.report(choice, result, Clock::now(), outcome.delay,
                        outcome.problem.reason);
    if (!outcome.unsure.empty()) {
        knowledge_.warn_once("answers are not kept: " + outcome.unsure);
    }
    note(call, outcome);
}

// Keeps what is to be told of the attempt.
void Policy::note(Call& call, const Outcome& outcome)
{
    call.report.first_byte_ms = -1;
    call.report.upstream_request_id.clear();
    if (!call.attempt) {
        return;
    }

    const auto& attempt = *call.attempt;
    call.report.upstream_request_id = request_id_of(attempt);
    if (attempt.first_byte && (outcome.answer || attempt.reader)) {
        call.report.first_byte_ms = call.since_taken(*attempt.first_byte);
    }
}

// A call that may be tried again goes to another server at once.
bool Policy::ask_other_server(Call& call, const Outcome& outcome)
{
    if (!(outcome.elsewhere || outcome.model_missing) ||
        !call.targets.has_other(call.tried, Clock::now())) {
        return false;
    }
    return outcome.fault != Outcome::Fault::server ||
           call.retries++ < call.settings().retries;
}

Policy::Next Policy::ask_again(Call& call, const Outcome& outcome)
{
    if (!outcome.retry || call.retries >= call.settings().retries) {
        return {Next::Kind::end};
    }

    const auto due =
        Clock::now() + (outcome.delay ? *outcome.delay : backoff(call.retries));
    if (due >= call.deadline) {
        return {Next::Kind::end};
    }

    call.retries++;
    call.tried.clear();
    return {Next::Kind::later, due};
}

// 0.5 s doubling to 8 s, less up to a quarter, so that calls that failed
// together are not repeated together.
milliseconds Policy::backoff(int retries)
{
    const double base = std::min(500.0 * std::exp2(retries), 8000.0);
    std::uniform_real_distribution<double> share(0.75, 1.0);
    return milliseconds(std::lround(base * share(random_)));
}

void Policy::give_up(Call& call) noexcept
{
    if (const auto choice = std::exchange(call.choice, std::nullopt)) {
        call.targets.report(*choice, Targets::Result::nothing, Clock::now());
    }
}

}  // namespace chatbot
