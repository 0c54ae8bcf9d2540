#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/exchange.hpp"
#include "core/poller.hpp"

namespace chatbot {

// What was learned of services for the next hour: models that they do not
// serve, members of the request that they do not take.  And what was told of
// them once and need not be told again.
//
// Threads:  one at a time.  Time is passed in.
class Knowledge {
public:
    explicit Knowledge(std::vector<Notice>& notices)
        : notices_(notices)
    {
    }

    // "Missing" may mean that the key has no access: so the key counts, too.
    [[nodiscard]] bool is_missing(const ModelServer& server,
                                  const std::string& model,
                                  Clock::time_point now) const;
    void learn_missing(const ModelServer& server, const std::string& model,
                       const std::string& reason, Clock::time_point now);

    // The members to be left out of requests for that model.
    [[nodiscard]] std::vector<std::string> left_out(
        const ModelServer& server, const std::string& model,
        Clock::time_point now) const;
    void learn_refused(const ModelServer& server, const std::string& model,
                       const std::string& name, const std::string& reason,
                       Clock::time_point now);

    // Warns of something, but of the same thing only once.
    void warn_once(const std::string& text);

private:
    using Model = std::tuple<std::string, std::string, std::string>;
    using Until = Clock::time_point;

    static Model key_of(const ModelServer& server, const std::string& model)
    {
        return {server.url, server.api_key, model};
    }

    void warn(std::string text, Change&& change = {});

    std::vector<Notice>& notices_;
    std::map<Model, Until> missing_;
    std::map<Model, std::map<std::string, Until>> refused_;
    std::set<std::string> told_;
};

}  // namespace chatbot
