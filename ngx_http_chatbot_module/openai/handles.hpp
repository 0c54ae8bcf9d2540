#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "openai/attempt.hpp"

namespace chatbot {

// libcurl's handles: those that no transfer uses are kept, with the options
// that all calls of their kind share, for the next ones.
//
// Threads:    one at a time.
// Ownership:  the settings and servers outlive it.
class Handles {
public:
    // Throws std::bad_alloc, as take() does.
    Handles();

    [[nodiscard]] Handle take(const ModelSettings& settings,
                              const ModelServer& server, ApiPath path,
                              bool stream);

    // Takes back the handle of an attempt whose transfer is over.
    void give_back(Attempt& attempt) noexcept;

    static constexpr std::size_t max_idle = 1024;  // of all kinds

private:
    struct ShareDeleter {
        void operator()(CURLSH* share) const { curl_share_cleanup(share); }
    };

    using Kind = std::tuple<const ModelSettings*, const ModelServer*, ApiPath,
                            bool>;  // the last: a stream

    std::unique_ptr<CURLSH, ShareDeleter> share_;  // of TLS sessions
    std::map<Kind, std::vector<Handle>> idle_;
    std::size_t all_idle_ = 0;
};

}  // namespace chatbot
