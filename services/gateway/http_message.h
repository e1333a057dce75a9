// HttpRequest, HttpReply: one parsed request and one whole answer, free of sockets and of Beast.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace runahead {

struct HttpRequest {
  std::string method;                          // "GET"
  std::string path;                            // "/v1/models", without the query
  std::string query;                           // after '?', as sent
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string request_id;                          // X-Request-Id of the client, or ours
  bool authorized = true;                          // no key is needed, or a valid one was sent; set by the router
  std::string owner;                               // whose key it was (ApiKeys::owner_of); empty where none is needed
  Time received_at{0};                             // when its first byte had come
  std::map<std::string, std::string> path_params;  // {"id": "job-..."}, filled in by the router

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
};

}  // namespace runahead
