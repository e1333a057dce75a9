#include "services/gateway/http_router.h"

#include "services/gateway/api_error.h"

namespace runahead {
namespace {

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> segments;
  path.remove_prefix(1);
  for (;;) {
    const size_t slash = path.find('/');
    segments.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return segments;
    path.remove_prefix(slash + 1);
  }
}

bool is_variable(const std::string& segment) {
  return segment.starts_with('{');
}

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  if (pattern.size() != path.size()) return false;
  for (size_t i = 0; i < path.size(); ++i) {
    if (is_variable(pattern[i]) ? path[i].empty() : pattern[i] != path[i]) return false;
  }
  return true;
}

asio::awaitable<void> respond_with(HttpRouter::Answer answer, Exchange& exchange) {
  Result<HttpReply> result = co_await answer(exchange.request());
  HttpReply reply = reply_of(std::move(result));
  co_await exchange.respond(std::move(reply));
}

}  // namespace

void HttpRouter::add(std::string method, std::string pattern, Handler handler, Access access) {
  routes_.push_back({std::move(method), split(pattern), std::move(handler), access});
}

void HttpRouter::answer(std::string method, std::string pattern, Answer answer, Access access) {
  add(
      std::move(method), std::move(pattern),
      [answer = std::move(answer)](Exchange& exchange) { return respond_with(answer, exchange); }, access);
}

asio::awaitable<void> HttpRouter::handle(Exchange& exchange) const {
  HttpRequest& request = exchange.request();
  const std::vector<std::string> path = split(request.path);
  const Route* found = nullptr;
  std::string allowed;
  for (const Route& route : routes_) {
    if (!matches(route.segments, path)) continue;
    allowed += (allowed.empty() ? "" : ", ") + route.method;
    if (route.method == request.method) found = &route;
  }
  request.authorized = !keys_ || keys_->accepts(request.header("authorization"));
  if (keys_ && request.authorized) request.owner = ApiKeys::owner_of(request.header("authorization"));
  const bool is_public = found != nullptr && found->access == Access::kPublic;
  if (!request.authorized && !is_public) {
    HttpReply reply = error_reply(
        {ErrorCode::kUnauthorized, "a valid API key is needed; send it as 'Authorization: Bearer KEY'", ""});
    reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    co_await exchange.respond(std::move(reply));
  } else if (found != nullptr) {
    for (size_t i = 0; i < path.size(); ++i) {
      const std::string& segment = found->segments[i];
      if (is_variable(segment)) request.path_params[segment.substr(1, segment.size() - 2)] = path[i];
    }
    co_await found->handler(exchange);
  } else if (!allowed.empty()) {
    HttpReply reply = http_error(405, "method_not_allowed", "this route accepts " + allowed + " only");
    reply.headers.emplace_back("Allow", allowed);
    co_await exchange.respond(std::move(reply));
  } else {
    co_await exchange.respond(http_error(404, "not_found", "no such route; /openapi.json lists them all"));
  }
}

}  // namespace runahead
