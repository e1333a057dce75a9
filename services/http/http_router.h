// HttpRouter: method and path to handler; 404, 405, 401, 403, OPTIONS and CORS in one place, before a body is read. HEAD is
// GET, whose body the server leaves out. A pattern's "{name}" matches one path segment, percent-decoded; a slash at the
// end of a path makes no other route. What a route's query may name, and what it takes as a body, is in its rules: a
// parameter that is not there is refused by name, on every route.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "services/http/api_keys.h"
#include "services/http/browser_guard.h"
#include "services/http/http_server.h"

namespace runahead {

class HttpRouter final : public HttpHandler {
 public:
  using Handler = std::function<asio::awaitable<void>(Exchange&)>;  // answers by itself
  using Answer = std::function<Task<HttpReply>(HttpRequest&)>;  // an Error becomes an error reply

  // Probes are served without a key, and to any page under any name; all other routes need a key as soon as keys are set, and
  // are kept from others' pages. What a page asks each second (kWatch) is logged as a probe is.
  enum class Access { kKey, kWatch, kProbe };

  struct Rules {
    Access access = Access::kKey;
    std::vector<std::string> query = {};  // names of the parameters it knows
    RequestBody body = {};
  };

  void add(std::string method, std::string pattern, Handler handler, Rules rules);
  void answer(std::string method, std::string pattern, Answer answer, Rules rules);
  void add(std::string method, std::string pattern, Handler handler, Access access = Access::kKey) {
    add(std::move(method), std::move(pattern), std::move(handler), Rules{.access = access});
  }
  void answer(std::string method, std::string pattern, Answer answer, Access access = Access::kKey) {
    this->answer(std::move(method), std::move(pattern), std::move(answer), Rules{.access = access});
  }
  std::vector<std::string> routes() const;  // "GET /v1/jobs/{id}", in the order they were added
  void require_keys(ApiKeys keys) { keys_ = std::move(keys); }
  // As BrowserGuard::hosts: for a listener on loopback that needs no key.
  void require_hosts(std::vector<std::string> names);
  // Origins whose pages may read the answers in a browser ("https://chat.example"), or "*" for all. None by default.
  void allow_origins(std::vector<std::string> origins) { guard_.origins = std::move(origins); }

  std::optional<HttpReply> admit(HttpRequest& request) const override;
  asio::awaitable<void> handle(Exchange& exchange) const override;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
    Rules rules;
  };
  struct Found {
    const Route* route = nullptr;  // null: none for this path, or none for this method
    std::string allowed;  // the methods of this path; empty: no such path
  };
  Found find(const HttpRequest& request, const std::vector<std::string>& path) const;
  std::optional<std::string> allowed_origin(const HttpRequest& request) const;

  std::vector<Route> routes_;
  std::optional<ApiKeys> keys_;
  BrowserGuard guard_;
};

}  // namespace runahead
