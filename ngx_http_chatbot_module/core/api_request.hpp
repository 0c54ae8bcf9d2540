#pragma once

#include <string>
#include <string_view>

#include "core/exchange.hpp"

namespace chatbot {

// What a client of OpenAI's API sends to POST /chat/completions or /responses.
// (https://platform.openai.com/docs/api-reference/chat/create)
// (https://platform.openai.com/docs/api-reference/responses/create)
//
// Threads:  functions without state; call them anywhere.
struct ApiRequest {
    ApiCall call;
    bool stream = false;
    bool include_usage = false;  // at the end of the stream
    std::string question;        // the text of the last message of the user
    std::string canonical;       // equal for bodies that mean the same: members
                            // sorted, white space gone, without those that do
                            // not change the answer
};

// REQUIRES: request.call.path is set.
//
// Takes linear time, but for the sorting of members.  Returns the problem: 400
// for a body that is no such request.
[[nodiscard]] Problem read_api_request(std::string_view body,
                                       ApiRequest& request);

}  // namespace chatbot
