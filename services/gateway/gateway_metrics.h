// GatewayMetrics: what the gateway tells the metrics, and asks of them. services/metrics implements it.
#pragma once

#include <string>
#include <string_view>

namespace runahead {

enum class RequestStatus { kOk, kError, kCancelled, kRejected };

class GatewayMetrics {
 public:
  virtual ~GatewayMetrics() = default;
  // endpoint: "completions", "chat", "jobs". seconds: from the first byte of the request to the last of the answer.
  virtual void http_request(std::string_view endpoint, RequestStatus status, double seconds) = 0;
  virtual std::string text() = 0;  // of /metrics, in Prometheus' text format
};

}  // namespace runahead
