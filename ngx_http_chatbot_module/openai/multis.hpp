#pragma once

#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "openai/multi.hpp"
#include "openai/origin.hpp"

namespace chatbot {

// The multis of a worker process, and which transfer goes where.
//
// libcurl walks its list of connections for each call that starts or ends, so
// above some hundred calls several smaller lists are cheaper (measured: 5 to 10
// times, above 1,000 calls).  That is for HTTP/1.1.  An HTTP/2 server carries
// some 100 calls on each connection, so its calls share one multi; without a
// limit libcurl makes a connection for each call that finds the others full.
//
// Threads:  all on the thread of the poller.
class Multis {
public:
    // `max_connections` bounds transfers by HTTP/1.1.
    Multis(Poller& poller, std::size_t max_connections, Multi::Moved moved,
           Multi::Ended ended);

    // Where to add a transfer; null while there are as many connections as
    // there may be.  Throws std::bad_alloc.
    [[nodiscard]] Multi* choose(const Origin& origin);

    // Transfers by HTTP/2 to this server get other connections from now on:
    // this multi's may be dead.  Throws std::bad_alloc.
    void renew(const Origin& origin, const Multi* multi);

    // The multi of an https server, by HTTP/2; null if there is none.
    [[nodiscard]] Multi* http2_multi(const Origin& origin);

    // Of all multis.
    [[nodiscard]] std::size_t transfers() const;

    void flush();
    [[nodiscard]] Clock::time_point deadline() const;
    void on_time(Clock::time_point now);

    static constexpr std::size_t max_transfers = 400;  // of one multi
    static constexpr std::size_t http2_connections =
        64;                                             // and more, if need be
    static constexpr std::size_t http2_transfers = 64;  // on each, then

private:
    Multi& add(long max_per_host, std::size_t max_idle);

    Poller& poller_;
    const std::size_t max_connections_;
    const Multi::Moved moved_;
    const Multi::Ended ended_;
    std::vector<std::unique_ptr<Multi>> all_;
    std::vector<Multi*> http1_;
    std::unordered_map<std::string, Multi*> http2_;  // by host, port, proxy
    std::set<const Multi*> old_;  // get no more transfers, go with their last
};

}  // namespace chatbot
