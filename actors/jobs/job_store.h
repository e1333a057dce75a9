// JobStore: jobs survive the process. A job is acknowledged only after accept() has returned, so what was acknowledged is
// run, or its loss is said. SQLite in production (services/job_store/sqlite_job_store), a faulty one in simulation.
// What is big (the prompt, the answer) is asked for by itself, and becomes bytes on the store's side (actors/jobs/job_rows).
//   threads  called on the io_context thread; the store does its I/O elsewhere and resumes there.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/inference.h"
#include "base/clock.h"
#include "base/task.h"

namespace runahead {

enum class JobStatus { kQueued, kRunning, kSucceeded, kFailed, kCancelled };

// As the API says it.
constexpr std::string_view name(JobStatus status) {
  constexpr std::array<std::string_view, 5> kNames = {"queued", "running", "succeeded", "failed", "cancelled"};
  return kNames[static_cast<size_t>(status)];
}

inline bool has_ended(JobStatus status) { return status != JobStatus::kQueued && status != JobStatus::kRunning; }

// What is known of a job without its prompt and its answer: a few hundred bytes.
struct JobHead {
  std::string id;  // "job-" and 24 hex digits, or what its submission names it; at most 39 bytes
  std::string owner;  // who may see it; empty: everybody
  std::string idempotency_key;  // empty: none; a second submit of its owner with the same key returns the first job
  std::string request_digest;  // of what the client wrote: a repeat with the same key must have the same
  std::string kind;  // the gateway's own word, for lists
  JobStatus status = JobStatus::kQueued;
  int64_t created_unix_ms = 0;
  int64_t ended_unix_ms = 0;
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  std::optional<Error> error;  // kFailed
};

// All that is needed to run a job, again and again: sampling is keyed by seed and position.
struct StoredRequest {
  InferenceRequest request;
  std::string client_json;  // the gateway's own: given back in every view, never read here
};
struct StoredResult {
  std::vector<SampledToken> tokens;
  std::optional<FinishedEvent> finished;  // kSucceeded
};

struct JobRecord {
  JobHead head;
  std::string client_json;
  std::shared_ptr<const StoredResult> result;  // null until it has ended
};

struct JobQuery {
  std::string owner;  // its jobs, and those of nobody
  int32_t limit = 50;  // newest first
  std::string after;  // a job's id: only those that are older; empty: from the newest on
};

class JobStore {
 public:
  virtual ~JobStore() = default;
  // Everything that was committed before. Also increments and returns the coordinator epoch, durably.
  struct Loaded {
    uint64_t epoch = 0;
    std::vector<JobHead> unfinished;  // in the order of submission
    std::vector<std::string> damage;  // what was lost since the last start: a sentence each, for the log
  };
  virtual Result<Loaded> load() = 0;
  // A new job; durable when it returns. kInvalidArgument if another one has its id or its key.
  virtual Task<void> accept(JobHead head, std::shared_ptr<const StoredRequest> request) = 0;
  // How a job ended; durable when it returns.
  virtual Task<void> end(JobHead head, std::shared_ptr<const StoredResult> result) = 0;
  // A request that has run elsewhere, with how it ended; durable when it returns.
  virtual Task<void> keep(JobHead ended, std::shared_ptr<const StoredRequest> request,
                          std::shared_ptr<const StoredResult> result) = 0;
  // A job that has ended is forgotten, for good when it returns; nothing if there is none.
  virtual Task<void> remove(std::string id) = 0;
  virtual Task<std::shared_ptr<const JobHead>> find_by_key(std::string owner, std::string idempotency_key) = 0;
  // These give null where there is no such job, and kCorrupt where its row is damaged.
  virtual Task<std::shared_ptr<const JobRecord>> find(std::string id) = 0;
  virtual Task<std::shared_ptr<const StoredRequest>> request(std::string id) = 0;
  // kNotFound if there is no job JobQuery::after.
  virtual Task<std::vector<JobHead>> list(JobQuery query) = 0;
};

}  // namespace runahead
