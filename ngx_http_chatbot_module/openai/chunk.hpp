#pragma once

#include <string>
#include <string_view>

#include "core/exchange.hpp"
#include "text/json.hpp"

namespace chatbot {

// One event of a streamed reply: what it adds to the answer.
//
// Threads:  nothing is shared; use each object in one thread at a time.
struct Chunk {
    std::string text;
    std::string_view written;  // of the text, see scan_chunk()
    std::string refusal;
    std::string finish_reason;  // empty: the answer goes on
    Answer head;                // what it says of model, time and usage
    bool grows_otherwise = false;

    // The halves of characters (of surrogate pairs) that what is added starts
    // and ends with, as JSON's escapes, see read_halves(); or empty.
    std::string low;
    std::string high;

    void clear();
};

// Reads the chunk that nearly all events are: one choice with a content,
// nothing told of usage or errors.  Returns false if `data` is anything else,
// then `chunk` is of no use, and read_chunk() says what it is.
//
// `written` becomes the part of `data` between the quotes of the text.  It
// stays empty where more than the text grows with each chunk: else chunks that
// differ in the text alone say the same as one with all their texts.
[[nodiscard]] bool scan_chunk(std::string_view data, Chunk& chunk);

// Reads any chunk that is an object without an error.
void read_chunk(const cJSON* json, Chunk& chunk);

// Some services cut a text between the halves of a character.  Takes those that
// text and refusal have at their ends, where they are U+FFFD.  Does nothing if
// `data` has none.
void read_halves(std::string_view data, Chunk& chunk);

// The text of a reply that came whole in a stream, as one event; or empty.
[[nodiscard]] std::string read_whole_message(const cJSON* json);

// What replies and chunks have in common.

// The first choice, or null: we ask for one, but chatbot_param may ask for
// more, each of which has events of its own.
[[nodiscard]] const cJSON* first_choice(const cJSON* json);

// The text of a content: a string, a part, or an array of such.
[[nodiscard]] std::string read_content(const cJSON* message);

// Takes model, time and usage; what is absent leaves `answer` as it is.
void read_head(const cJSON* json, Answer& answer);
void merge_head(const Answer& head, Answer& answer);

}  // namespace chatbot
