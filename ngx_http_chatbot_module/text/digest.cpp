#include "text/digest.hpp"

#include <openssl/evp.h>

#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "text/hex.hpp"

namespace chatbot {
namespace {

// Of a text that comes in parts; one at a time in each thread.
class Sha256 {
public:
    Sha256() { check(EVP_DigestInit_ex2(context(), algorithm(), nullptr)); }

    void add(std::string_view text)
    {
        check(EVP_DigestUpdate(context(), text.data(), text.size()));
    }

    [[nodiscard]] Digest end()
    {
        Digest hash;
        check(EVP_DigestFinal_ex(context(), hash.data(), nullptr));
        return hash;
    }

private:
    // Both are made once: each takes longer than to hash a question.
    static const EVP_MD* algorithm()
    {
        static const EVP_MD* const found =
            EVP_MD_fetch(nullptr, "SHA2-256", nullptr);
        return found;
    }

    static EVP_MD_CTX* context()
    {
        thread_local const std::unique_ptr<EVP_MD_CTX,
                                           decltype(&EVP_MD_CTX_free)>
            made(new_context(), EVP_MD_CTX_free);
        return made.get();
    }

    static EVP_MD_CTX* new_context()
    {
        const auto made = EVP_MD_CTX_new();
        if (!made) {
            throw std::bad_alloc();
        }
        return made;
    }

    static void check(int done)
    {
        if (!done) {
            throw std::runtime_error("OpenSSL has no SHA-256");
        }
    }
};

}  // namespace

Digest digest(std::initializer_list<std::string_view> parts)
{
    Sha256 hash;
    for (auto part : parts) {
        hash.add(std::to_string(part.size()));
        hash.add(":");
        hash.add(part);
    }
    return hash.end();
}

Digest sha256(std::string_view text)
{
    Sha256 hash;
    hash.add(text);
    return hash.end();
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
