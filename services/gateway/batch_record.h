// BatchRecord: what is kept of a batch, and how the API shows it. Its lines are in its input file, what they gave in its output
// and error files: services/gateway/batch_service.
//   threads  pure; any.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "services/gateway/request/openai_request.h"

namespace runahead {

enum class BatchStatus {
  kValidating,
  kFailed,
  kInProgress,
  kFinalizing,
  kCompleted,
  kExpired,
  kCancelling,
  kCancelled
};

// As OpenAI says it.
constexpr std::string_view name(BatchStatus status) {
  constexpr std::array<std::string_view, 8> kNames = {"validating", "failed",  "in_progress", "finalizing",
                                                      "completed",  "expired", "cancelling",  "cancelled"};
  return kNames[static_cast<size_t>(status)];
}

inline bool has_ended(BatchStatus status) {
  return status == BatchStatus::kFailed || status == BatchStatus::kCompleted || status == BatchStatus::kExpired ||
         status == BatchStatus::kCancelled;
}

// What is wrong with a line of the input: no line of that batch runs.
struct BatchFault {
  std::string code, message, param;
  int64_t line = 0;  // from 1; 0: the file as a whole
};

struct BatchCounts {
  int64_t total = 0, completed = 0, failed = 0;
};

struct BatchRecord {
  std::string id;  // "batch_" and 24 hex digits
  std::string owner;  // as FileHead
  Endpoint endpoint = Endpoint::kChat;
  std::string input_file_id;
  std::string output_file_id, error_file_id;  // chosen when its lines begin; shown when the file is there
  nlohmann::json metadata;  // the client's own; null: none
  BatchStatus status = BatchStatus::kValidating;
  // Every line has given its result, and this is how the batch ends: only files are finished. kValidating: not yet.
  BatchStatus ending = BatchStatus::kValidating;
  std::array<int64_t, 8> at_unix_ms{};  // when it came to each status; 0: it has not
  int64_t expires_unix_ms = 0;
  BatchCounts counts;
  std::vector<BatchFault> faults;

  void enter(BatchStatus next, int64_t unix_ms) {
    status = next;
    at_unix_ms[static_cast<size_t>(next)] = unix_ms;
  }
  bool is_cancelled() const { return at_unix_ms[static_cast<size_t>(BatchStatus::kCancelling)] != 0; }
  int64_t created_unix_ms() const { return at_unix_ms[static_cast<size_t>(BatchStatus::kValidating)]; }
};

std::string path_of(Endpoint endpoint);  // "/v1/chat/completions"

// Of the store.
std::string stored(const BatchRecord& record);
Result<BatchRecord> parse_stored_batch(std::string id, const std::string& text);  // kCorrupt

nlohmann::json batch_json(const BatchRecord& record);

struct BatchRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::string input_file_id;
  nlohmann::json metadata;
};
// The body of POST /v1/batches. kInvalidArgument, kUnsupported, by name.
Result<BatchRequest> parse_batch_request(const std::string& body);

}  // namespace runahead
