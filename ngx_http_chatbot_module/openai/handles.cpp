#include "openai/handles.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace chatbot {

Handles::Handles()
    : share_((curl_global_init(CURL_GLOBAL_DEFAULT), curl_share_init()))
{
    if (!share_) {
        throw std::bad_alloc();
    }
    curl_share_setopt(share_.get(), CURLSHOPT_SHARE,
                      CURL_LOCK_DATA_SSL_SESSION);
}

Handle Handles::take(const ModelSettings& settings, const ModelServer& server,
                     ApiPath path, bool stream)
{
    auto& idle = idle_[{&settings, &server, path, stream}];
    if (idle.empty()) {
        idle.reserve(max_idle);
        return make_handle(settings, server, path, stream, share_.get());
    }

    Handle handle = std::move(idle.back());
    idle.pop_back();
    all_idle_--;
    return handle;
}

// libcurl (7.88) counts in the handle how often it sent a request again, and
// never starts anew: the sixth time would fail.  So only a handle whose request
// was answered the first time is kept.
void Handles::give_back(Attempt& attempt) noexcept
{
    if (attempt.sent_again || attempt.header_size == 0) {
        return;
    }

    if (all_idle_ == max_idle) {
        std::max_element(idle_.begin(), idle_.end(),
                         [](const auto& one, const auto& other) {
                             return one.second.size() < other.second.size();
                         })
            ->second.pop_back();
        all_idle_--;
    }

    detach(attempt);
    idle_
        .find(
            {&attempt.settings, &attempt.server, attempt.path, attempt.stream})
        ->second.push_back(std::move(attempt.handle));
    all_idle_++;
}

}  // namespace chatbot
