// HttpRequest, HttpReply: one parsed request and one whole answer, free of sockets and of Beast.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "services/http/trace_context.h"

namespace runahead {

// What a route takes as a body.
struct RequestBody {
  std::string type = "application/json";  // a Content-Type without its parameters; a body that names none is taken, too
  size_t bytes_max = limits::kJsonBodyBytesMax;
};

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;  // "/v1/models", without the query
  std::string query;  // after '?', as sent
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string request_id;  // X-Request-Id of the client, or ours
  TraceContext trace;  // that it is part of: the client's, or one that begins here
  std::string peer;  // "address:port" of the client
  bool authorized = true;  // no key is needed, or a valid one was sent, and by no page of others; set by the router
  std::string owner;  // whose key it was (ApiKeys::owner_of); empty where none is needed
  bool is_probe = false;  // a health check, a scrape, or what a page asks each second; set by the router
  size_t route = 0;  // the router's
  RequestBody takes;  // the route; set by the router
  Time received_at{0};  // when its first byte had come
  int64_t received_unix_ns = 0;  // the same by the wall clock
  std::map<std::string, std::string> path_params;  // {"id": "job-..."}, filled in by the router
  // On every answer to this request, whoever gives it; filled in by the router.
  std::vector<std::pair<std::string, std::string>> reply_headers;

  std::string_view header(const std::string& lower_case_name) const {
    const auto it = headers.find(lower_case_name);
    return it == headers.end() ? std::string_view{} : std::string_view(it->second);
  }
};

struct HttpReply {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string error_code;  // the `code` of an error's body; empty: no error
};

// Now, for the header Date: "Sat, 28 Nov 2026 19:00:00 GMT" (RFC 9110, 5.6.7).
std::string http_date();

}  // namespace runahead
