#pragma once

#include <optional>
#include <string>

#include "core/exchange.hpp"
#include "openai/error.hpp"

namespace chatbot {

// An answer, or why there is none, as a line.
inline std::string told(const std::optional<Answer>& answer,
                        const ReplyError& error)
{
    if (!answer) {
        return std::to_string(error.status) + " " + error.reason;
    }
    return "<" + answer->text + "> " + answer->model + " " +
           std::to_string(answer->created) + " " +
           std::to_string(answer->prompt_tokens) + "+" +
           std::to_string(answer->completion_tokens) +
           (answer->complete ? " complete" : "");
}

}  // namespace chatbot
