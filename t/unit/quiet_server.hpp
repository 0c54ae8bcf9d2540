#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string_view>
#include <thread>

#include "fake_server.hpp"

namespace chatbot {

// A server for tests in which the N-th allocation fails: it allocates nothing.
// One connection is served after the other, by a thread of the server's own.
class QuietServer {
public:
    // Answers what has come; false: the connection is to be closed.
    using Answer = bool (*)(int fd, std::string_view came,
                            std::string_view reply);

    QuietServer(Answer answer, std::string_view reply)
        : answer_(answer),
          reply_(reply),
          thread_([this] { serve(); })
    {
    }

    ~QuietServer()
    {
        shutdown(listener_.fd(), SHUT_RDWR);
        thread_.join();
    }

    [[nodiscard]] int port() const { return listener_.port(); }

    // For `answer`.
    static void say(int fd, std::string_view text)
    {
        (void)send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    }

private:
    void serve()
    {
        for (int peer; (peer = accept(listener_.fd(), nullptr, nullptr)) >= 0;
             close(peer)) {
            while (receive(peer)) {
            }
        }
    }

    // Leaves a client that stays when the server is to end.
    bool receive(int peer)
    {
        std::array<char, 4096> bytes;
        pollfd events[] = {{peer, POLLIN, 0}, {listener_.fd(), POLLIN, 0}};
        poll(events, 2, -1);
        if (events[0].revents == 0) {
            return false;
        }
        const auto n = recv(peer, bytes.data(), bytes.size(), 0);
        return n > 0 &&
               answer_(peer, {bytes.data(), static_cast<std::size_t>(n)},
                       reply_);
    }

    const Answer answer_;
    const std::string_view reply_;
    Listener listener_;
    std::thread thread_;
};

}  // namespace chatbot
