#include "openai/alarms.hpp"

#include "openai/call.hpp"

namespace chatbot {

Call* Alarms::take_due(Clock::time_point now)
{
    if (earliest() > now || all_.empty()) {
        return nullptr;
    }

    Call* call = all_.begin()->second;
    call->alarm.set(never);
    return call;
}

}  // namespace chatbot
