// GatewayMetrics: what the gateway tells the metrics, and asks of them. services/metrics implements it.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace runahead {

enum class RequestStatus {
  kOk,           // the whole answer was made
  kClientError,  // 4xx: the request is at fault
  kRejected,     // 429: there is no room now
  kServerError,  // 5xx, also when it ends a stream that has begun
  kCancelled,    // the client went away before the answer was whole
};

inline RequestStatus request_status(const Error& error) {
  if (error.code == ErrorCode::kCancelled) return RequestStatus::kCancelled;
  if (error.code == ErrorCode::kOverloaded) return RequestStatus::kRejected;
  return http_status(error.code) >= 500 ? RequestStatus::kServerError : RequestStatus::kClientError;
}

class GatewayMetrics {
 public:
  virtual ~GatewayMetrics() = default;
  // endpoint: "completions", "chat", "messages", "responses", "jobs". seconds: from the first byte of the request to the last of
  // the answer.
  virtual void http_request(std::string_view endpoint, RequestStatus status, double seconds) = 0;
  // Answered with an error before any work was done for it. reason: the error's `code`.
  virtual void request_rejected(std::string_view reason) = 0;
  virtual void batches_open(int64_t count) = 0;  // that have not ended
  // A line of a batch is in its output file, or in its error file.
  virtual void batch_line(bool completed) = 0;
  virtual std::string text() = 0;  // of /metrics, in Prometheus' text format
};

}  // namespace runahead
