#include "openai/knowledge.hpp"

#include <chrono>
#include <utility>

namespace chatbot {
namespace {

constexpr auto rest = std::chrono::hours(1);
constexpr std::size_t max_told = 1000;  // a service may invent new ones

}  // namespace

bool Knowledge::is_missing(const ModelServer& server, const std::string& model,
                           Clock::time_point now) const
{
    const auto found = missing_.find(key_of(server, model));
    return found != missing_.end() && now < found->second;
}

void Knowledge::learn_missing(const ModelServer& server,
                              const std::string& model,
                              const std::string& reason, Clock::time_point now)
{
    if (is_missing(server, model, now)) {
        return;
    }
    missing_[key_of(server, model)] = now + rest;
    warn("model \"" + model + "\" is passed over for an hour: " + reason,
         {.kind = Change::Kind::model_passed_over,
          .server = server.name,
          .model = model});
}

std::vector<std::string> Knowledge::left_out(const ModelServer& server,
                                             const std::string& model,
                                             Clock::time_point now) const
{
    std::vector<std::string> names;
    const auto found = refused_.find(key_of(server, model));
    if (found != refused_.end()) {
        for (const auto& [name, until] : found->second) {
            if (now < until) {
                names.push_back(name);
            }
        }
    }
    return names;
}

void Knowledge::learn_refused(const ModelServer& server,
                              const std::string& model, const std::string& name,
                              const std::string& reason, Clock::time_point now)
{
    auto& until = refused_[key_of(server, model)][name];
    if (now < until) {
        return;
    }
    until = now + rest;
    warn("\"" + name + "\" is left out for model \"" + model +
             "\" for an hour: " + reason,
         {.kind = Change::Kind::member_left_out,
          .server = server.name,
          .model = model});
}

void Knowledge::warn_once(const std::string& text)
{
    if (told_.size() < max_told && told_.insert(text).second) {
        warn(text);
    }
}

void Knowledge::warn(std::string text, Change&& change)
{
    notices_.push_back(
        {Notice::Level::warn, std::move(text), std::move(change)});
}

}  // namespace chatbot
