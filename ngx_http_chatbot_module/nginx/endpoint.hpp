#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/exchange.hpp"
#include "core/query.hpp"
#include "nginx/chatbot.hpp"

namespace chatbot {

// What a request asks for.
struct Wanted {
    std::string text;              // the question, as it is recorded
    std::vector<Message> history;  // before it
    std::string client{};          // for the safety identifier
    std::string client_name{};     // as $chatbot_user
    AnswerForm form = AnswerForm::json;

    // Of a call of the API.
    ApiCall api{};
    std::string canonical{};     // see api_request.hpp
    bool include_usage = false;  // at the end of a stream

    // Where no model need be asked: the status of the response, and its JSON.
    ngx_uint_t status = 0;
    std::string body{};
};

// What differs between kinds of locations: how a request is read, and how what
// becomes of it is written.  How an answer is cut into the pieces of a stream
// is said by its AnswerForm, see stream.hpp.
//
// Threads:  event loop only.
struct Endpoint {
    // The status with which a request is refused for its headers alone; 0: it
    // is not.
    ngx_uint_t (*refuse)(ngx_http_request_t* r);

    // The longest body that is read.
    std::size_t (*body_max_size)(const LocConf& lcf);

    // Returns the problem of a request that cannot be asked.
    Problem (*read)(ngx_http_request_t* r, std::string_view body,
                    Wanted& wanted);

    // Names equal questions, unless "chatbot_cache_key" does; none: the answer
    // is no other's.
    std::optional<Key> (*key)(const LocConf& lcf, const Wanted& wanted);

    // The body of a whole answer, which the answer holds, or which is made and
    // put into `made`; what a stream of it is made of.
    std::string_view (*body_of)(const Answer& answer, bool hit,
                                std::string& made);
    std::string_view (*stream_of)(const Answer& answer);

    // The body of an error, its type, and the headers that belong to it.
    const char* error_type;
    std::string (*write_error)(ngx_uint_t status, const Problem& problem);
    ngx_int_t (*add_error_headers)(ngx_http_request_t* r, ngx_uint_t status);
};

// Of a location.
[[nodiscard]] const Endpoint& endpoint_of(const LocConf& lcf);

// "chatbot_protocol chat" (chat.cpp) and "openai" (api.cpp).
[[nodiscard]] const Endpoint& chat_endpoint();
[[nodiscard]] const Endpoint& api_endpoint();

// Sets `text` to the value of a directive's parameter with variables.
[[nodiscard]] Problem evaluate(ngx_http_request_t* r,
                               ngx_http_complex_value_t* value,
                               std::string& text);

}  // namespace chatbot
