// TracedRequest: what is known of one request, or of one job, for its timeline: identity, numbers and the report, never a text.
// TraceSink takes those that have ended.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "actors/inference.h"
#include "services/http/trace_context.h"

namespace runahead {

struct TracedRequest {
  std::string id;  // "chatcmpl-...", "job-..."
  std::string kind;  // "chat", "completions", "messages"
  std::string model;
  std::string status;  // as /v1/requests and /v1/jobs say it
  TraceContext trace;
  int64_t begin_unix_ns = 0;  // of its first byte
  double elapsed_seconds = 0;  // since then, to its end or to now
  int64_t prompt_tokens = 0, completion_tokens = 0;
  std::optional<Error> error;
  std::optional<TtftReport> report;  // of the first choice, when it has ended
};

// How the client's API is called in OpenTelemetry's conventions: "chat", "text_completion".
inline const char* operation_name(const TracedRequest& request) {
  return request.kind == "completions" ? "text_completion" : "chat";
}

class TraceSink {
 public:
  virtual ~TraceSink() = default;
  // On the io_context thread; returns at once.
  virtual void request_ended(std::shared_ptr<const TracedRequest> request) = 0;
};

}  // namespace runahead
