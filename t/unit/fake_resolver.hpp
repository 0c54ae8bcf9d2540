#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/resolver.hpp"

namespace chatbot {

// A Resolver that knows what the test told it; or is silent until told.
class FakeResolver final : public Resolver {
public:
    void resolve(const std::string& host, Done done) override
    {
        ++lookups;
        if (silent) {
            waiting.emplace_back(host, std::move(done));
        } else {
            done(result_of(host));
        }
    }

    void doubt(const std::string& host) noexcept override
    {
        doubted.push_back(host);
    }

    // The name server answers at last.
    void answer()
    {
        for (auto& [host, done] : std::exchange(waiting, {})) {
            done(result_of(host));
        }
    }

    std::map<std::string, Result> hosts;
    bool silent = false;
    int lookups = 0;
    std::vector<std::string> doubted;
    std::vector<std::pair<std::string, Done>> waiting;

private:
    // As the product's: an address is its own.
    Result result_of(const std::string& host) const
    {
        const auto it = hosts.find(host);
        return it == hosts.end() ? Result{{host}, ""} : it->second;
    }
};

}  // namespace chatbot
