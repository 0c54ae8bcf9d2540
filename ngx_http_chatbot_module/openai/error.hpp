#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "openai/error_text.hpp"
#include "text/json.hpp"

namespace chatbot {

// What an error of an API means for the caller, in the words of OpenAI and of
// the services that are compatible with it.
//
// Threads:  nothing is shared; use each object in one thread at a time.
struct ReplyError {
    int status = 0;  // HTTP; of an error in a 200, the one that it names; 0: a
                     // reply that is no error and cannot be used either
    bool model_missing = false;    // ask another model
    bool money = false;            // quota or billing: asking again cannot help
    std::string refused_member{};  // of the request: ask without it; or empty
    std::string reason;  // for the error log: the service's code and message,
                         // or how its body starts if it has none; may be empty;
                         // one line of at most 500 bytes, without what looks
                         // like an OpenAI key

    // For a client of the API: what the service says, made fit as above; each
    // may be empty.
    std::string message{};
    std::string code{};
    std::string param{};
};

// `request` is the body that was sent, or empty if that is not known: it tells
// the model's name, and which members can have been refused.
[[nodiscard]] ReplyError read_error(int status, std::string_view body,
                                    std::string_view request = {});

// The error that a reply of status 200 tells of, at the top or in its choice.
[[nodiscard]] std::optional<ReplyError> find_error(
    const cJSON* json, std::string_view request = {});

// What is wrong with a reply of status 200 without choices: an error, where its
// words say which.
[[nodiscard]] ReplyError read_without_choices(const cJSON* json,
                                              std::string_view request = {});

// The error that the text of an event of type "error" tells of.
[[nodiscard]] ReplyError read_error_event(std::string_view data,
                                          std::string_view request = {});

// Whether the service says that it does not serve the model, in whatever words:
// see missing_model.cpp.  `status` is the HTTP status.
[[nodiscard]] bool is_missing_model(int status, const ErrorText& error,
                                    std::string_view model);

// Makes a text of a service fit for the error log: one short line without keys.
[[nodiscard]] std::string loggable(std::string_view text);

}  // namespace chatbot
