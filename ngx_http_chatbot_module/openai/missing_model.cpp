// Whether an error says that a model is not served.
//
// Services have no common code for this, and each has its own sentence.  What
// the sentences share: they name the model (by its name, as "model", or as
// "deployment") right beside words that say it is not there.  "Right beside" is
// what tells "the model does not exist" from "the model does not support
// images": between the two only words without a meaning of their own may stand.

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "openai/error.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using Words = std::vector<std::string>;

// Stands for the model's name; no word of a sentence looks like it.
constexpr std::string_view model_name = "\x01";

// What is said of a model that is not there ("the model ..."), or in front of
// it ("... model").
const std::initializer_list<std::string_view> absences = {
    "not found",      "not be found",   "not exist",        "doesn't exist",
    "unknown",        "unsupported",    "not supported",    "invalid",
    "not valid",      "not a valid",    "unavailable",      "not available",
    "deprecated",     "decommissioned", "retired",          "discontinued",
    "shut down",      "no longer",      "not recognized",   "unrecognized",
    "inaccessible",   "not accessible", "not deployed",     "no such",
    "cannot find",    "can't find",     "couldn't find",    "could not find",
    "unable to find", "unable to load", "unable to access", "not a supported",
    "not enabled",
};

// The same, said only behind it.
const std::initializer_list<std::string_view> states = {
    "removed",
    "disabled",
    "sunset",
    "access denied",
    "not open",
    "not allowed",
    "not one of",
    "not in the list",
    "not support chat",
    "blocked at the",
    "requires terms acceptance",
    "requires a subscription",
    "reached its end of life",
    "reached its end-of-life",
    "reached end-of-life",
    "reached the end of its life",
    "with on-demand throughput is not supported",
    "is marked by provider as legacy",
};

// The same, said only in front of it.
const std::initializer_list<std::string_view> absences_of = {
    "no endpoints found for",
    "no endpoint found for",
    "no router for",
    "no access to",
    "no allowed providers are available for",
    "no deployments available for",
    "no",
    "not have access to",
    "not allowed to access",
    "not activated the",
    "not work with the",
    "malformed",
    "could not resolve",
};

// Says it without a subject that is known, or not beside it.
const std::initializer_list<std::string_view> sayings = {
    "not found for account",  // NVIDIA, of a "function"
    "specified function in account",
    "period for this model has ended",  // OpenRouter
    "llm provider not provided",        // LiteLLM
    "allowed now your model",           // FastChat
    "no available channel",             // one-api
};

const std::initializer_list<std::string_view> subjects = {
    model_name, "model", "models", "modelid", "deployment"};

// May stand between what is said and the model.
const std::initializer_list<std::string_view> attributes = {
    "the",   "a",    "requested", "selected",   "specified",
    "error", "real", "publisher", "foundation", "non-serverless",
};

// May stand between the model and what is said of it.
const std::initializer_list<std::string_view> fillers = {
    "the",       "a",         "an",         "this",    "that",   "is",
    "was",       "are",       "has",        "have",    "been",   "be",
    "does",      "do",        "could",      "can",     "id",     "name",
    "named",     "called",    "identifier", "version", "you",    "requested",
    "specified", "selected",  "provided",   "or",      "either", "currently",
    "already",   "resource",  "endpoint",   "for",     "error",  "publisher",
    "and",       "therefore", "thus",       "passed",  "in",     "api",
    "inference", "your",      "provider",   "anymore",
};

// Whose access to a model it is, in a code.
const std::initializer_list<std::string_view> holders = {"key", "team", "user",
                                                         "org", "project"};

// "Invalid model parameters" is said of the parameters.
const std::initializer_list<std::string_view> other_subjects = {
    "parameter", "parameters", "input",       "inputs",       "output",
    "outputs",   "option",     "options",     "setting",      "settings",
    "config",    "argument",   "feature",     "features",     "configuration",
    "arguments", "response",   "format",      "kwargs",       "capability",
    "support",   "training",   "fine-tuning", "distillation", "behavior",
    "behaviour", "error",
};

// Said of a model that is there, but not for what was asked for, if "with
// tools", "when streaming", "for batches" follows.
const std::initializer_list<std::string_view> weak_absences = {
    "unsupported", "not supported", "invalid",         "not valid",
    "unavailable", "not available", "not a supported", "not enabled",
    "not allowed", "disabled",
};

bool has(std::initializer_list<std::string_view> list, std::string_view word)
{
    return std::find(list.begin(), list.end(), word) != list.end();
}

bool is_word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '\'' ||
           c == '_' || c == '-' || c == '\x01' || c == '\x02' ||
           static_cast<unsigned char>(c) >= 0x80;
}

void replace_all(std::string& text, std::string_view what, std::string_view by)
{
    for (auto at = text.find(what); at != text.npos;
         at = text.find(what, at + by.size())) {
        text.replace(at, what.size(), by);
    }
}

// Puts `by` where `name` stands as a word of its own.
void replace_name(std::string& text, std::string_view name, std::string_view by)
{
    const auto is_part = [&](std::size_t at) {
        return at < text.size() && text[at] != '\'' && is_word_byte(text[at]);
    };

    for (auto at = text.find(name); at != text.npos;) {
        const bool alone =
            (at == 0 || !is_part(at - 1)) && !is_part(at + name.size());
        if (alone) {
            text.replace(at, name.size(), by);
        }
        at = text.find(name, at + (alone ? by.size() : 1));
    }
}

// A model 'x' may be another name of the one that was asked for.
void replace_quoted_names(std::string& text, std::string_view by)
{
    for (auto at = text.find("model "); at != text.npos;
         at = text.find("model ", at + 1)) {
        const auto quote = at + 6;
        const auto end = text.find_first_of(" '\"`", quote + 1);
        if (quote < text.size() && end != text.npos && text[end] != ' ' &&
            text[quote] == text[end]) {
            text.replace(quote, end + 1 - quote, by);
        }
    }
}

// The words of a text in small letters, the model's name as one word, the end
// of a sentence as another.
Words words_of(std::string_view said, std::string_view model)
{
    static constexpr std::size_t max_size = 1000;
    static constexpr std::pair<std::string_view, std::string_view> alike[] = {
        {"\u2018", "'"},
        {"\u2019", "'"},
        {"\u201C", "\""},
        {"\u201D", "\""},
        {". ", " \x02 "},
        {"; ", " \x02 "},
        {"。", " \x02 "},
        {"，", " \x02 "},
        {"模型", " model "},
        {"不存在", " not exist "},
        {"无权访问", " not have access to "},
        {"无可用渠道", " no available channel "},
        {"n't ", " not "},
    };

    auto text = fold(one_line(said, max_size));
    for (auto [word, plain] : alike) {
        replace_all(text, word, plain);
    }
    if (auto name = fold(to_utf8(model)); !name.empty()) {
        replace_name(text, name, model_name);
    }
    replace_quoted_names(text, model_name);
    replace_all(text, model_name, " \x01 ");

    Words words;
    for (auto at = text.begin();;) {
        at = std::find_if(at, text.end(), is_word_byte);
        if (at == text.end()) {
            return words;
        }
        auto end = std::find_if_not(at, text.end(), is_word_byte);
        std::string word(at, end);
        word.erase(0, word.find_first_not_of('\''));
        word.erase(word.find_last_not_of('\'') + 1);
        if (!word.empty()) {
            words.push_back(word);
        }
        at = end;
    }
}

// The words of a name: DeploymentNotFound, model_not_found, "not found error".
Words words_of_name(std::string_view name)
{
    std::string spaced;
    for (std::size_t i = 0; i < name.size(); ++i) {
        auto c = name[i];
        bool upper = c >= 'A' && c <= 'Z';
        bool after_lower = i > 0 && name[i - 1] >= 'a' && name[i - 1] <= 'z';
        spaced += upper && after_lower ? " " : "";
        spaced += c == '_' || c == '-' ? ' ' : c;
    }
    return words_of(spaced, {});
}

// How many words of `phrase` stand at `at`: all of them, or 0.
std::size_t match(const Words& words, std::size_t at, std::string_view phrase)
{
    std::size_t count = 0;
    while (!phrase.empty()) {
        auto word = phrase.substr(0, phrase.find(' '));
        if (at + count >= words.size() || words[at + count] != word) {
            return 0;
        }
        ++count;
        phrase.remove_prefix(std::min(word.size() + 1, phrase.size()));
    }
    return count;
}

std::size_t match_any(const Words& words, std::size_t at,
                      std::initializer_list<std::string_view> phrases)
{
    for (auto phrase : phrases) {
        if (auto count = match(words, at, phrase)) {
            return count;
        }
    }
    return 0;
}

// What may stand behind the model.
std::size_t match_absence(const Words& words, std::size_t at)
{
    const auto count = match_any(words, at, absences);
    return count > 0 ? count : match_any(words, at, states);
}

// Whether what comes at `at`, behind a weak absence, narrows it down.
bool is_narrowed(const Words& words, std::size_t at)
{
    if (match_any(words, at, {"with", "when", "while", "together", "to"})) {
        return true;
    }
    return match(words, at, "for") &&
           !match_any(words, at + 1, {"your", "you", "this", "api"});
}

// "The model `x` does not exist", read on from behind its subject.
bool absence_follows(const Words& words, std::size_t at)
{
    while (at < words.size()) {
        if (auto count = match_absence(words, at)) {
            return !match_any(words, at, weak_absences) ||
                   !is_narrowed(words, at + count);
        }
        if (!has(fillers, words[at]) && !has(subjects, words[at])) {
            return false;
        }
        ++at;
    }
    return false;
}

// "Unknown model: x", read on from behind what is said of it.
bool subject_follows(const Words& words, std::size_t at)
{
    while (at < words.size() && has(attributes, words[at])) {
        ++at;
    }
    if (at == words.size() || !has(subjects, words[at])) {
        return false;
    }
    return at + 1 == words.size() || !has(other_subjects, words[at + 1]);
}

bool is_about_model(const Words& words)
{
    for (std::size_t at = 0; at < words.size(); ++at) {
        if (match_any(words, at, sayings) ||
            (has(subjects, words[at]) && absence_follows(words, at + 1))) {
            return true;
        }
        for (auto phrases : {absences, absences_of}) {
            auto count = match_any(words, at, phrases);
            if (count > 0 && subject_follows(words, at + count)) {
                return true;
            }
        }
    }
    return false;
}

bool says_absence(const Words& words)
{
    for (std::size_t at = 0; at < words.size(); ++at) {
        if (match_any(words, at, absences) ||
            match_any(words, at,
                      {"only supported", "not a chat", "input should be"})) {
            return true;
        }
    }
    return false;
}

// Whether a name says it all: "model_not_found", but not
// "unsupported_model_feature".
bool names_absence(std::string_view name)
{
    auto words = words_of_name(name);
    bool subject = false;
    bool absence = false;
    for (std::size_t at = 0; at < words.size();) {
        if (auto count = match_absence(words, at)) {
            absence = true;
            at += count;
        } else if (has(subjects, words[at])) {
            subject = true;
            ++at;
        } else if (has(fillers, words[at]) || has(holders, words[at]) ||
                   words[at] == "exception") {
            ++at;
        } else {
            return false;
        }
    }
    return subject && absence;
}

// Gateways of the one-api family say so of a model that none of their services
// has, with a status that means something else.
bool is_without_channel(const Words& words)
{
    for (std::size_t at = 0; at < words.size(); ++at) {
        if (match(words, at, "no available channel")) {
            return true;
        }
    }
    return false;
}

bool is_nothing(std::string_view param)
{
    auto folded = fold(param);
    return folded.empty() || folded == "none" || folded == "null";
}

}  // namespace

bool is_missing_model(int status, const ErrorText& error,
                      std::string_view model)
{
    const bool named = names_absence(error.code) || names_absence(error.type);
    auto words = words_of(error.message, model);
    if (status == 401) {
        return named;  // a key that may not ask this model
    }
    if (status == 503) {
        return is_without_channel(words);
    }
    if (status != 400 && status != 403 && status != 404 && status != 410 &&
        status != 422) {
        return false;
    }
    if (named) {
        return true;
    }

    if (error.param == "model") {
        return says_absence(words) || is_about_model(words);
    }
    if (!is_nothing(error.param)) {
        return false;
    }

    // Some leave it to the type: {"type": "not_found_error",
    // "message": "model: x"}.
    auto sentence = words_of_name(error.type);
    std::move(words.begin(), words.end(), std::back_inserter(sentence));
    return is_about_model(sentence);
}

}  // namespace chatbot
