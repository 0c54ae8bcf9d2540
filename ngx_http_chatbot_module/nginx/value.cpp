#include "nginx/value.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <sstream>
#include <utility>

#include "nginx/content.hpp"
#include "nginx/setters.hpp"
#include "text/unicode.hpp"

namespace chatbot {

namespace {

// Removes what editors put around a value: U+FEFF before it, newlines behind.
void strip_frame(std::string& text)
{
    if (text.starts_with("\xEF\xBB\xBF")) {
        text.erase(0, 3);
    }
    while (text.ends_with('\n') || text.ends_with('\r')) {
        text.pop_back();
    }
}

bool read(ngx_conf_t* cf, ngx_str_t path, std::string& text)
{
    if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return false;
    }

    std::unique_ptr<FILE, int (*)(FILE*)> file(
        std::fopen(reinterpret_cast<char*>(path.data), "re"), std::fclose);
    if (!file) {
        return false;
    }

    char block[4096];
    while (auto n = std::fread(block, 1, sizeof(block), file.get())) {
        text.append(block, n);
    }
    return !std::ferror(file.get());
}

}  // namespace

char* read_file(ngx_conf_t* cf, ngx_str_t path, std::string& text)
{
    ngx_set_errno(0);
    if (read(cf, path, text)) {
        return conf_ok;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                       "file \"%V\" of \"%V\" cannot be read", &path,
                       &args(cf)[0]);
    return conf_error;
}

// Follows env:NAME and file:PATH.
char* resolve_value(ngx_conf_t* cf, ngx_str_t& value)
{
    auto text = view(value);
    auto directive = &args(cf)[0];
    std::string found;

    if (text.starts_with("env:")) {
        auto name = std::string(text.substr(4));
        auto variable = environment(cf, name.c_str());
        if (!variable && name == "OPENAI_BASE_URL") {
            variable = "https://api.openai.com/v1";  // as OpenAI's own SDKs
        }
        if (!variable) {
            return conf_fail(cf,
                             "environment variable \"%s\" of \"%V\" is not set",
                             name.c_str(), directive);
        }
        found = *variable;
    } else if (text.starts_with("file:")) {
        ngx_str_t path{value.len - 5, value.data + 5};
        if (auto rv = read_file(cf, path, found); rv != conf_ok) {
            return rv;
        }
        strip_frame(found);
    } else {
        return conf_ok;
    }

    value = pool_copy(cf->pool, found);
    return value.data ? conf_ok : conf_error;
}

const char* wrong_url(std::string url)
{
    if (!url.starts_with("https://") && !url.starts_with("http://")) {
        return "neither http:// nor https://";
    }

    // What a base URL cannot have; curl accepts some of it.
    constexpr std::pair<const char*, const char*> unwanted[] = {
        {"@", "a user, or \"@\","},
        {"#", "a fragment"},
        {" ", "a space"},
        {"///", "no host, or \"///\","},
    };
    for (auto [part, what] : unwanted) {
        if (url.find(part) != url.npos) {
            return what;
        }
    }
    if (std::any_of(url.begin(), url.end(),
                    [](unsigned char c) { return c < ' '; })) {
        return "a control character";
    }

    std::unique_ptr<CURLU, void (*)(CURLU*)> parsed(curl_url(),
                                                    curl_url_cleanup);
    auto rc = curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0);
    return rc == CURLUE_OK ? nullptr : curl_url_strerror(rc);
}

std::string base_url(std::string_view url)
{
    constexpr std::string_view endpoint = "/chat/completions";

    const auto without_slashes = [](std::string_view text) {
        return text.substr(0, text.find_last_not_of('/') + 1);
    };

    const auto query = url.substr(std::min(url.find('?'), url.size()));
    url = without_slashes(url.substr(0, url.size() - query.size()));
    if (url.ends_with(endpoint)) {
        url.remove_suffix(endpoint.size());
    }
    return std::string(without_slashes(url)) + std::string(query);
}

ngx_path_t* journal_path(ngx_conf_t* cf, ngx_str_t dir)
{
    auto name = dir;
    if (ngx_conf_full_name(cf->cycle, &name, 0) != NGX_OK) {
        return nullptr;
    }

    // A file nginx would take, and change its owner and mode.
    ngx_file_info_t info;
    if (ngx_file_info(reinterpret_cast<const char*>(name.data), &info) == 0 &&
        !ngx_is_dir(&info)) {
        conf_fail(cf, "\"%V\" of \"chatbot_log_journal\" is no directory",
                  &dir);
        return nullptr;
    }

    auto path =
        static_cast<ngx_path_t*>(ngx_pcalloc(cf->pool, sizeof(ngx_path_t)));
    if (path) {
        path->name = name;
        path->conf_file = cf->conf_file->file.name.data;
        path->line = cf->conf_file->line;
    }
    return path;
}

// nginx itself does not name the directive if it cannot make the directory.
ngx_int_t add_journal(ngx_conf_t* cf, ngx_path_t& journal)
{
    ngx_file_info_t info;
    auto path = std::string(view(journal.name));
    if (ngx_file_info(path.c_str(), &info) == NGX_FILE_ERROR) {
        path.erase(path.find_last_not_of('/') + 1);
        path.erase(path.rfind('/') + 1);
        if (access(path.c_str(), W_OK | X_OK) != 0) {
            const auto error = ngx_errno;
            ngx_str_t file{
                journal.conf_file ? ngx_strlen(journal.conf_file) : 0,
                journal.conf_file};
            AtDirective at(cf,
                           {.name = {}, .file = file, .line = journal.line});
            ngx_conf_log_error(NGX_LOG_EMERG, cf, error,
                               "\"%V\" of \"chatbot_log_journal\" cannot be "
                               "made in \"%s\"",
                               &journal.name, path.c_str());
            return NGX_ERROR;
        }
    }

    auto added = &journal;
    return ngx_test_config ? NGX_OK : ngx_add_path(cf, &added);
}

std::vector<std::string> model_names(std::string_view text)
{
    std::istringstream words{std::string(text)};
    return {std::istream_iterator<std::string>(words), {}};
}

bool valid_model(std::string_view name)
{
    return !name.empty() && is_utf8(name) &&
           name.find_first_of("\r\n") == name.npos;
}

std::optional<std::string> environment(ngx_conf_t* cf, const char* name)
{
    auto value = std::getenv(name);
    std::string text = value ? value : "";
    strip_frame(text);
    if (text.empty()) {
        return std::nullopt;
    }

    auto ccf = reinterpret_cast<ngx_core_conf_t*>(
        ngx_get_conf(cf->cycle->conf_ctx, ngx_core_module));
    if (auto kept = static_cast<ngx_str_t*>(ngx_array_push(&ccf->env))) {
        *kept = pool_copy(cf->pool, name);
    }
    return text;
}

char* fail_environment(ngx_conf_t* cf, const std::string& name,
                       const std::string& why)
{
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "environment variable \"%s\": %s",
                  name.c_str(), why.c_str());
    return conf_error;
}

}  // namespace chatbot
