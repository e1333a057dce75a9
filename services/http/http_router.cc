#include "services/http/http_router.h"

#include <algorithm>
#include <cctype>

#include "base/json_text.h"
#include "services/http/api_error.h"
#include "services/http/header_check.h"
#include "services/http/http_target.h"

namespace runahead {
namespace {

// What scripts of other origins may read of an answer, beside what browsers always show.
constexpr const char* kExposedHeaders = "X-Request-Id, Traceparent, Server-Timing, Retry-After, Location";
constexpr const char* kAllowedHeaders =
    "Authorization, X-Api-Key, Anthropic-Version, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id, "
    "Traceparent";
constexpr size_t kShownParamBytes = 64;  // of a query parameter's name, in the error that refuses it
constexpr const char* kPreflightSeconds = "600";

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> segments;
  path.remove_prefix(1);
  for (;;) {
    const size_t slash = path.find('/');
    segments.push_back(percent_decoded(path.substr(0, slash)));
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  if (segments.size() > 1 && segments.back().empty()) segments.pop_back();
  return segments;
}

bool is_variable(const std::string& segment) { return segment.starts_with('{'); }

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  if (pattern.size() != path.size()) return false;
  for (size_t i = 0; i < path.size(); ++i) {
    if (is_variable(pattern[i]) ? path[i].empty() : pattern[i] != path[i]) return false;
  }
  return true;
}

// Names of fields as a browser lists them: anything else is not repeated in an answer.
bool is_field_list(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == ',' || c == ' ';
  });
}

// Anthropic's clients send the key alone, in a header of its own; a proxy may have put something else into the other one.
std::string authorization_of(const HttpRequest& request, const ApiKeys& keys) {
  const std::string key = "Bearer " + std::string(request.header("x-api-key"));
  return keys.accepts(key) ? key : std::string(request.header("authorization"));
}

// The first parameter of a query that the route does not know. By names alone, which are told apart in any bytes: what a value
// may be, and how often, is the route's to say.
std::optional<Error> refused_param(std::string_view query, const std::vector<std::string>& known) {
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view param = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (param.empty()) continue;
    const std::string name = percent_decoded(param.substr(0, param.find('=')));
    const std::string shown = printable_line(name, kShownParamBytes);
    if (std::ranges::find(known, name) == known.end()) {
      std::string all;
      for (const std::string& other : known) all += (all.empty() ? "" : ", ") + other;
      return Error{ErrorCode::kInvalidArgument,
                   "unknown query parameter '" + shown + "'; " +
                       (all.empty() ? "this route takes none" : "this route takes " + all),
                   shown};
    }
  }
  return {};
}

HttpReply options_reply(const HttpRequest& request, const std::string& allowed, bool cross_origin) {
  HttpReply reply{.status = 204};
  reply.headers.emplace_back("Allow", allowed);
  if (!cross_origin || request.header("access-control-request-method").empty()) return reply;
  const std::string_view asked = request.header("access-control-request-headers");
  reply.headers.emplace_back("Access-Control-Allow-Methods", allowed);
  reply.headers.emplace_back("Access-Control-Allow-Headers",
                             is_field_list(asked) ? std::string(asked) : std::string(kAllowedHeaders));
  reply.headers.emplace_back("Access-Control-Max-Age", kPreflightSeconds);
  return reply;
}

asio::awaitable<void> respond_with(HttpRouter::Answer answer, Exchange& exchange) {
  Result<HttpReply> result = co_await answer(exchange.request());
  exchange.body_is_gone();
  HttpReply reply = reply_of(std::move(result));
  co_await exchange.respond(std::move(reply));
}

}  // namespace

void HttpRouter::add(std::string method, std::string pattern, Handler handler, Rules rules) {
  routes_.push_back({std::move(method), split(pattern), std::move(handler), std::move(rules)});
}

void HttpRouter::answer(std::string method, std::string pattern, Answer answer, Rules rules) {
  add(
      std::move(method), std::move(pattern),
      [answer = std::move(answer)](Exchange& exchange) { return respond_with(answer, exchange); }, std::move(rules));
}

std::vector<std::string> HttpRouter::routes() const {
  std::vector<std::string> names;
  for (const Route& route : routes_) {
    std::string name = route.method + " ";
    for (const std::string& segment : route.segments) name += "/" + segment;
    names.push_back(std::move(name));
  }
  return names;
}

void HttpRouter::require_hosts(std::vector<std::string> names) {
  for (std::string& name : names) name = lower(name);
  guard_.hosts = std::move(names);
}

HttpRouter::Found HttpRouter::find(const HttpRequest& request, const std::vector<std::string>& path) const {
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  Found found;
  for (const Route& route : routes_) {
    if (!matches(route.segments, path)) continue;
    found.allowed += (found.allowed.empty() ? "" : ", ") + route.method + (route.method == "GET" ? ", HEAD" : "");
    if (route.method == method) found.route = &route;
  }
  if (!found.allowed.empty()) found.allowed += ", OPTIONS";
  return found;
}

std::optional<std::string> HttpRouter::allowed_origin(const HttpRequest& request) const {
  const std::string origin(request.header("origin"));
  if (origin.empty() || !guard_.allows_origin(origin)) return {};
  return std::ranges::find(guard_.origins, "*") != guard_.origins.end() ? "*" : origin;
}

std::optional<HttpReply> HttpRouter::admit(HttpRequest& request) const {
  const std::string authorization = keys_ ? authorization_of(request, *keys_) : std::string();
  const bool has_key = !keys_ || keys_->accepts(authorization);
  std::optional<HttpReply> stranger = guard_.refuses(request);
  request.authorized = has_key && !stranger;
  if (keys_ && has_key) request.owner = ApiKeys::owner_of(authorization);
  const std::optional<std::string> origin = allowed_origin(request);
  if (!guard_.origins.empty()) request.reply_headers.emplace_back("Vary", "Origin");
  if (origin) {
    request.reply_headers.emplace_back("Access-Control-Allow-Origin", *origin);
    request.reply_headers.emplace_back("Access-Control-Expose-Headers", kExposedHeaders);
  }
  if (request.path == "*") return options_reply(request, "GET, HEAD, POST, DELETE, OPTIONS", origin.has_value());
  const std::vector<std::string> path = split(request.path);
  const Found found = find(request, path);
  const Access access = found.route != nullptr ? found.route->rules.access : Access::kKey;
  request.is_probe = access == Access::kProbe || (access == Access::kWatch && request.authorized);
  // A browser asks for leave without a key.
  if (request.method == "OPTIONS" && !found.allowed.empty())
    return options_reply(request, found.allowed, origin.has_value());
  if (has_key && stranger && !request.is_probe) return stranger;
  if (!has_key && !request.is_probe) {
    HttpReply reply = error_reply(
        {ErrorCode::kUnauthorized, "a valid API key is needed; send it as 'Authorization: Bearer KEY'", ""});
    reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    return reply;
  }
  if (found.allowed.empty()) return http_error(404, "not_found", "no such route; /openapi.json lists them all");
  if (found.route == nullptr) {
    HttpReply reply = http_error(405, "method_not_allowed", "this route accepts " + found.allowed + " only");
    reply.headers.emplace_back("Allow", found.allowed);
    return reply;
  }
  for (size_t i = 0; i < path.size(); ++i) {
    const std::string& segment = found.route->segments[i];
    if (is_variable(segment)) request.path_params[segment.substr(1, segment.size() - 2)] = path[i];
  }
  request.route = static_cast<size_t>(found.route - routes_.data());
  request.takes = found.route->rules.body;
  if (auto refused = refused_param(request.query, found.route->rules.query)) return error_reply(*refused);
  return {};
}

asio::awaitable<void> HttpRouter::handle(Exchange& exchange) const {
  return routes_.at(exchange.request().route).handler(exchange);
}

}  // namespace runahead
