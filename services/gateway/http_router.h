// HttpRouter: method and path to handler; 404, 405 and 401 in one place. A pattern's "{name}" matches one path segment.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "services/gateway/api_keys.h"
#include "services/gateway/http_server.h"

namespace runahead {

class HttpRouter {
 public:
  using Handler = std::function<asio::awaitable<void>(Exchange&)>;    // answers by itself
  using Answer = std::function<Task<HttpReply>(const HttpRequest&)>;  // an Error becomes an error reply

  // Public routes are served without a key; all others need one as soon as keys are set.
  enum class Access { kKey, kPublic };

  void add(std::string method, std::string pattern, Handler handler, Access access = Access::kKey);
  void answer(std::string method, std::string pattern, Answer answer, Access access = Access::kKey);
  void require_keys(ApiKeys keys) { keys_ = std::move(keys); }

  asio::awaitable<void> handle(Exchange& exchange) const;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
    Access access;
  };
  std::vector<Route> routes_;
  std::optional<ApiKeys> keys_;
};

}  // namespace runahead
