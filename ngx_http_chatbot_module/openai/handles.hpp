#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "openai/attempt.hpp"

namespace chatbot {

// libcurl's handles: those that no transfer uses are kept for the next ones.
//
// Threads:  one at a time.
class Handles {
public:
    // Throws std::bad_alloc, as take() does.
    Handles();

    // A fresh one.
    [[nodiscard]] Easy take();
    void give_back(Easy easy) noexcept;

    // What all transfers share: TLS sessions.
    [[nodiscard]] CURLSH* share() const { return share_.get(); }

    static constexpr std::size_t max_idle = 1024;

private:
    struct ShareDeleter {
        void operator()(CURLSH* share) const { curl_share_cleanup(share); }
    };

    std::unique_ptr<CURLSH, ShareDeleter> share_;
    std::vector<Easy> idle_;
};

}  // namespace chatbot
