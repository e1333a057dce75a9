#include "services/gateway/page/page_routes.h"

#include "base/sha256.h"

namespace runahead {

extern const char kPageHtml[], kPageCss[], kPageJs[];  // embedded by CMake

namespace {

// Nothing but our own files and our own API: no script or style in the page's text, no other host, no frame around it.
constexpr const char* kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

bool knows(const HttpRequest& request, const std::string& etag) {
  const std::string_view known = request.header("if-none-match");
  return known == "*" || known.find(etag) != std::string_view::npos;
}

Task<HttpReply> file(const char* text, const char* type, std::string etag, bool known) {
  HttpReply reply{.status = known ? 304 : 200, .content_type = type};
  if (!known) reply.body = text;
  reply.headers = {{"ETag", std::move(etag)},
                   {"Cache-Control", "no-cache"},  // kept, and asked for at every visit: an upgrade shows at once
                   {"Content-Security-Policy", kContentSecurityPolicy},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Referrer-Policy", "no-referrer"}};
  co_return reply;
}

void add_file(HttpRouter& router, const char* path, const char* text, const char* type) {
  constexpr size_t kDigits = 16;
  const std::string etag = "\"" + hex(sha256(text)).substr(0, kDigits) + "\"";
  router.answer(
      "GET", path, [=](const HttpRequest& request) { return file(text, type, etag, knows(request, etag)); },
      HttpRouter::Access::kProbe);
}

}  // namespace

void add_page_routes(HttpRouter& router) {
  add_file(router, "/", kPageHtml, "text/html; charset=utf-8");
  add_file(router, "/page.css", kPageCss, "text/css; charset=utf-8");
  add_file(router, "/page.js", kPageJs, "text/javascript; charset=utf-8");
}

}  // namespace runahead
