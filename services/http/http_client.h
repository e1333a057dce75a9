// HttpClient: what `runahead run`, `serve` and `submit` need to talk to a gateway. Blocking, one request at a time; not for
// the event loop. Reads whole bodies, or server-sent events one by one.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace runahead {

struct HttpAnswer {
  int status = 0;
  std::string body;
};

class HttpClient {
 public:
  // address: "host:port". timeout: without any byte from the server. api_key: empty, none is sent.
  HttpClient(std::string address, std::chrono::milliseconds timeout, std::string api_key = {})
      : address_(std::move(address)), timeout_(timeout), api_key_(std::move(api_key)) {}

  // kUnavailable if the server cannot be reached, kDeadlineExceeded if it stays silent.
  Result<HttpAnswer> get(const std::string& target) const { return request("GET", target, ""); }
  Result<HttpAnswer> post(const std::string& target, const std::string& json) const {
    return request("POST", target, json);
  }
  Result<HttpAnswer> request(const std::string& method, const std::string& target, const std::string& json) const;

  // Posts and calls on_event(event, data) for every server-sent event ("message" if it names none) until the server ends
  // or on_event returns false. An answer that is no event stream comes back as HttpAnswer with its body.
  Result<HttpAnswer> post_stream(
      const std::string& target, const std::string& json,
      const std::function<bool(std::string_view event, std::string_view data)>& on_event) const;
  // The same of GET, from behind the event whose id is `last_event_id` (empty: from the start). Leaves there the id of the
  // last event that on_event was called for, so that a broken stream can be taken up again.
  Result<HttpAnswer> get_stream(
      const std::string& target, std::string& last_event_id,
      const std::function<bool(std::string_view event, std::string_view data)>& on_event) const;

 private:
  struct Call;
  Result<HttpAnswer> call(Call call) const;

  std::string address_;
  std::chrono::milliseconds timeout_;
  std::string api_key_;
};

// The error of an OpenAI error body, or a sentence with the status if it is none.
Error error_of(const HttpAnswer& response);

}  // namespace runahead
