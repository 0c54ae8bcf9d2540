#pragma once

#include <string>

#include "text/json.hpp"

namespace chatbot {

// What a service says went wrong, as far as it says so.
//
// Threads:  nothing is shared; use each object in one thread at a time.
struct ErrorText {
    int status = 0;  // as the error itself names it, or 0
    std::string code;
    std::string type;
    std::string param;
    std::string message;
};

// Reads an error in any of the forms in use: {"error": {"message"...}} (OpenAI
// and most), the same as an array's element (Gemini), {"error": "..."}
// (Ollama), {"message": ...} (older vLLM), {"detail": ...} (FastAPI),
// {"errors": [...]} (Cloudflare), {"base_resp": {"status_code", "status_msg"}}
// (MiniMax), {"error_code", "error_msg"} (Baidu), {"Response": {"Error":
// {"Code", "Message"}}} (Tencent).
[[nodiscard]] ErrorText read_error_text(const cJSON* json);

// MiniMax's part of a reply that tells of a failure, or null: there is one in
// each reply, with the status code 0 if all is well.
[[nodiscard]] const cJSON* failed_base(const cJSON* json);

// The first of the elements, if it is an array.
[[nodiscard]] const cJSON* first_of(const cJSON* json);

}  // namespace chatbot
