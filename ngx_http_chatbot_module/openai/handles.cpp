#include "openai/handles.hpp"

#include <new>
#include <utility>

namespace chatbot {

Handles::Handles()
    : share_((curl_global_init(CURL_GLOBAL_DEFAULT), curl_share_init()))
{
    if (!share_) {
        throw std::bad_alloc();
    }

    idle_.reserve(max_idle);
    curl_share_setopt(share_.get(), CURLSHOPT_SHARE,
                      CURL_LOCK_DATA_SSL_SESSION);
}

Easy Handles::take()
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

void Handles::give_back(Easy easy) noexcept
{
    curl_easy_reset(easy.get());
    if (idle_.size() < max_idle) {
        idle_.push_back(std::move(easy));
    }
}

}  // namespace chatbot
