#pragma once

#include <functional>
#include <string>
#include <vector>

namespace chatbot {

// Finds the addresses of a host without blocking.
class Resolver {
public:
    struct Result {
        std::vector<std::string> addresses;  // numeric, in the order to try
        std::string error;                   // if there are none
    };
    using Done = std::function<void(const Result&)>;

    // Calls `done` exactly once: within the call if the addresses are known,
    // else later on the same thread; `done` must not throw then.  After
    // std::bad_alloc it is not called.  The caller sets the time limit: a
    // lookup has none.
    virtual void resolve(const std::string& host, Done done) = 0;

    // No connection could be made to the addresses of `host`, which may have
    // changed: they are soon looked up anew.
    virtual void doubt(const std::string& host) noexcept = 0;

protected:
    ~Resolver() = default;
};

}  // namespace chatbot
