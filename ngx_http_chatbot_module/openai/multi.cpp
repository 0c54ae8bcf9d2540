#include "openai/multi.hpp"

#include <new>
#include <utility>

#include "text/invariant.hpp"

namespace chatbot {

Multi::Multi(Poller& poller, long max_per_host, long max_idle, Moved moved,
             Ended ended)
    : poller_(poller),
      moved_(std::move(moved)),
      ended_(std::move(ended)),
      multi_(curl_multi_init())
{
    if (!multi_) {
        throw std::bad_alloc();
    }

    auto multi = multi_.get();
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, &Multi::on_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, &Multi::on_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, max_idle);
    set_max_per_host(max_per_host);
}

Multi::~Multi()
{
    invariant(transfers_ == 0, "a transfer outlives its multi");
}

void Multi::add(CURL* easy)
{
    const auto added = curl_multi_add_handle(multi_.get(), easy);
    invariant(added != CURLM_ADDED_ALREADY, "a transfer is in two multis");
    if (added != CURLM_OK) {
        throw std::bad_alloc();
    }
    transfers_++;
    added_ = true;
}

void Multi::remove(CURL* easy)
{
    const auto removed = curl_multi_remove_handle(multi_.get(), easy);
    if (invariant(removed == CURLM_OK && transfers_ > 0,
                  "a transfer is removed that was not added")) {
        transfers_--;
    }
}

void Multi::set_max_per_host(long max_per_host)
{
    curl_multi_setopt(multi_.get(), CURLMOPT_MAX_HOST_CONNECTIONS,
                      max_per_host);
}

void Multi::flush()
{
    if (std::exchange(added_, false)) {
        move(CURL_SOCKET_TIMEOUT, 0);
    }
}

void Multi::on_time(Clock::time_point now)
{
    if (timer_ <= now) {
        timer_ = Clock::time_point::max();
        move(CURL_SOCKET_TIMEOUT, 0);
    }
}

void Multi::on_ready(int fd, unsigned ready)
{
    move(fd, (ready & Poller::readable ? CURL_CSELECT_IN : 0) |
                 (ready & Poller::writable ? CURL_CSELECT_OUT : 0));
}

void Multi::move(curl_socket_t socket, int bits)
{
    // What fails as a whole here shows as a timeout of the calls.
    int running;
    curl_multi_socket_action(multi_.get(), socket, bits, &running);
    moved_();

    int left;
    while (auto message = curl_multi_info_read(multi_.get(), &left)) {
        ended_(message->easy_handle, message->data.result);
    }
}

int Multi::on_socket(CURL*, curl_socket_t socket, int what, void* multi,
                     void*) noexcept
try {
    auto& self = *static_cast<Multi*>(multi);
    const unsigned bits = what == CURL_POLL_IN    ? Poller::readable
                          : what == CURL_POLL_OUT ? Poller::writable
                          : what == CURL_POLL_INOUT
                              ? Poller::readable | Poller::writable
                              : 0;
    self.poller_.watch(socket, bits, self);
    return 0;
} catch (const std::bad_alloc&) {
    return 0;  // it ends by its time-out: after -1, libcurl (7.88) crashes
}

int Multi::on_timer(CURLM*, long timeout_ms, void* multi) noexcept
{
    static_cast<Multi*>(multi)->timer_ =
        timeout_ms < 0 ? Clock::time_point::max()
                       : Clock::now() + std::chrono::milliseconds(timeout_ms);
    return 0;
}

}  // namespace chatbot
