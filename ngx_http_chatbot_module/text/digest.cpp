#include "text/digest.hpp"

#include <openssl/evp.h>

#include <stdexcept>

#include "text/hex.hpp"

namespace chatbot {
namespace {

// Looked up once: that takes longer than to hash a question.
const EVP_MD* sha256()
{
    static const EVP_MD* const found =
        EVP_MD_fetch(nullptr, "SHA2-256", nullptr);
    return found;
}

}  // namespace

Digest digest(std::initializer_list<std::string_view> parts)
{
    std::string all;
    all.reserve(256);  // enough for most questions
    for (auto part : parts) {
        all.append(std::to_string(part.size())).append(":").append(part);
    }

    return sha256(all);
}

Digest sha256(std::string_view text)
{
    Digest hash;
    if (!EVP_Digest(text.data(), text.size(), hash.data(), nullptr, sha256(),
                    nullptr)) {
        throw std::runtime_error("OpenSSL has no SHA-256");
    }
    return hash;
}

Digest hmac(std::string_view key, std::string_view text)
{
    Digest code;
    if (!EVP_Q_mac(nullptr, "HMAC", nullptr, "SHA256", nullptr,
                   key.empty() ? "" : key.data(), key.size(),
                   reinterpret_cast<const unsigned char*>(text.data()),
                   text.size(), code.data(), code.size(), nullptr)) {
        throw std::runtime_error("OpenSSL has no HMAC");
    }
    return code;
}

std::string hex(const Digest& digest)
{
    std::string text;
    text.reserve(2 * digest.size());
    for (auto byte : digest) {
        append_hex(text, byte);
    }
    return text;
}

}  // namespace chatbot
