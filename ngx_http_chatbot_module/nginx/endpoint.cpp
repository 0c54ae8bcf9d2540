#include "nginx/endpoint.hpp"

namespace chatbot {

const Endpoint& endpoint_of(const LocConf& lcf)
{
    return lcf.protocol == protocol_openai ? api_endpoint() : chat_endpoint();
}

Problem evaluate(ngx_http_request_t* r, ngx_http_complex_value_t* value,
                 std::string& text)
{
    ngx_str_t found;
    if (ngx_http_complex_value(r, value, &found) != NGX_OK) {
        return {.status = 500,
                .detail = "The request cannot be read.",
                .reason = {}};
    }
    text = view(found);
    return {};
}

}  // namespace chatbot
