#include "nginx/former.hpp"

#include <exception>
#include <set>
#include <string>

#include "journal/segment.hpp"
#include "nginx/task.hpp"

namespace chatbot {

namespace {

constexpr ngx_msec_t look_ms = 2000;
constexpr const char* prefix = "log-";  // those that were to be shipped

// Of this master process, and thus of the workers it forks; paths.
std::set<std::string>& former_journals()
{
    static std::set<std::string> paths;
    return paths;
}

// Null if there is none, or the module was not even loaded.
ngx_path_t* journal_of(const ngx_cycle_t* cycle)
{
    bool loaded = false;
    for (auto module = cycle->modules; module && *module; ++module) {
        loaded = loaded || *module == &ngx_http_chatbot_module;
    }
    if (!loaded || !cycle->conf_ctx) {
        return nullptr;
    }

    auto mcf = main_conf(const_cast<ngx_cycle_t*>(cycle));
    return mcf && !mcf->routes.empty() ? mcf->journal : nullptr;
}

// Tells what is left behind, and forgets a directory from which nothing more
// can be left behind.
void look_into_former_journals()
{
    std::erase_if(former_journals(), [](const std::string& dir) {
        auto left = find_abandoned(dir, prefix);
        if (!left.empty()) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                          "chatbot: records are left behind in \"%s\", which "
                          "was chatbot_log_journal before the reload, in %uz "
                          "file(s), \"%s\" first; move them to the new "
                          "directory",
                          dir.c_str(), left.size(), left.front().c_str());
        }
        return !left.empty() || !has_held(dir, prefix);
    });
}

}  // namespace

void remember_former_journal(ngx_cycle_t* cycle)
{
    auto former = journal_of(cycle->old_cycle);
    auto journal = journal_of(cycle);
    if (former) {
        former_journals().emplace(view(former->name));
    }
    if (journal) {
        former_journals().erase(std::string(view(journal->name)));
    }
}

void watch_former_journals()
{
    // Never destroyed: nginx's timers are gone when static objects are.
    static auto& timer = *new Event([] {
        look_into_former_journals();
        if (!former_journals().empty()) {
            watch_former_journals();
        }
    });

    if (ngx_worker == 0 && ngx_process != NGX_PROCESS_HELPER &&
        !former_journals().empty()) {
        timer.hold_worker(false);
        timer.set_timer(look_ms);
    }
}

}  // namespace chatbot
