#include "nginx/content.hpp"

#include "nginx/setters.hpp"

namespace chatbot {

namespace {

ngx_http_core_loc_conf_t* core_loc_conf(ngx_conf_t* cf)
{
    return static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
}

}  // namespace

// A handler that is there already stays, so that the difference can be seen.
void set_content(ngx_conf_t* cf, LocConf& lcf, ngx_http_handler_pt handler)
{
    lcf.content = handler;
    lcf.content_set_by = {.name = args(cf)[0],
                          .file = cf->conf_file->file.name,
                          .line = cf->conf_file->line};

    auto clcf = core_loc_conf(cf);
    if (!clcf->handler) {
        clcf->handler = handler;
    }
}

char* check_content(ngx_conf_t* cf, const LocConf& lcf)
{
    if (!lcf.content || core_loc_conf(cf)->handler == lcf.content) {
        return conf_ok;
    }
    AtDirective at(cf, lcf.content_set_by);
    return conf_fail(cf, "\"%V\" in a location that serves something else, too",
                     &lcf.content_set_by.name);
}

AtDirective::AtDirective(ngx_conf_t* cf, const Directive& directive)
    : cf_(cf),
      saved_(cf->conf_file)
{
    if (directive.line != 0) {
        there_.file.name = directive.file;
        there_.line = directive.line;
        cf->conf_file = &there_;
    }
}

}  // namespace chatbot
