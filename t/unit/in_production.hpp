#pragma once

#include <string>

#include "text/invariant.hpp"

namespace chatbot {

// While it lives, a violated invariant ends no test: the code goes on, as in
// production.
class InProduction {
public:
    InProduction() { abort_on_violation(false); }
    ~InProduction() { abort_on_violation(true); }

    InProduction(const InProduction&) = delete;
    InProduction& operator=(const InProduction&) = delete;

    // What was violated at places that were not violated before.
    static std::string violated()
    {
        std::string all;
        for (std::string one; !(one = take_violation()).empty();) {
            all += one.substr(0, one.find(" in ")) + "; ";
        }
        return all;
    }
};

}  // namespace chatbot
