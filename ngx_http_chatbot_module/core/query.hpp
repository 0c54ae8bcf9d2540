#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/exchange.hpp"

namespace chatbot {

// The question in what a client sent.
//
// Threads:  functions without state; call them anywhere.

// What may be asked at most.
struct QuestionLimits {
    std::size_t text_size = 16 * 1024;     // bytes of the question
    std::size_t messages = 20;             // before it
    std::size_t history_size = 64 * 1024;  // bytes of these

    // The longest body that is read: all of it escaped as \uXXXX, and room for
    // all else.
    [[nodiscard]] constexpr std::size_t body_size() const
    {
        return 6 * (text_size + (messages ? history_size : 0)) + 16 * 1024;
    }
};

// How the answer is wanted.
//
// `chunks` are OpenAI's events of completions, see openai/events.hpp; `relayed`
// are events that are sent on as they came.
enum class AnswerForm { json, events, text, chunks, relayed };

// What a client asks, as it came.
struct Question {
    std::optional<std::string> text;
    std::vector<Message> history;  // before it, oldest first
    std::optional<std::string> stream;
};

// Whether a body of so many bytes is read: 413 if it is too long, 415 if it is
// compressed.
[[nodiscard]] Problem check_body(std::size_t size,
                                 std::string_view content_encoding,
                                 std::size_t max_size);

// Takes the fields "query" and "stream" of a form.  Absent ones are left alone;
// of several the last counts.
void question_from_form(std::string_view form, Question& question);

// The same of the body of a POST; of JSON "messages" too, the last of which is
// the question.  Returns the problem: 400 for a body that is malformed, 415 for
// a type that is neither JSON nor a form, and for a charset other than UTF-8,
// 422 for members that mean nothing.
[[nodiscard]] Problem question_from_body(std::string_view content_type,
                                         std::string_view body,
                                         Question& question);

// Whether the question can be asked: 422 if there is none or it is blank, 400
// if it is not UTF-8 or contains U+0000, 413 if it is larger than the limits.
[[nodiscard]] Problem check_question(const Question& question,
                                     const QuestionLimits& limits);

// `accept` is the request's Accept header, which counts where the question does
// not say.  Returns the problem: 422 for a "stream" that means nothing.
[[nodiscard]] Problem read_form(const Question& question,
                                std::string_view accept, AnswerForm& form);

}  // namespace chatbot
