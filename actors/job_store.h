// JobStore: jobs survive the process. A job is acknowledged only after commit() has returned (promise P5 of
// reference/reliability.md). SQLite in production (services/sqlite_job_store), a faulty one in simulation.
//   threads  called on the io_context thread; the store does its I/O elsewhere and resumes there.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/task.h"

namespace runahead {

enum class JobStatus { kQueued, kRunning, kSucceeded, kFailed, kCancelled };

struct JobRow {
  std::string id;                     // "job-" and 24 hex digits
  std::string idempotency_key;        // empty: none; a second submit with the same key returns the first job
  JobStatus status = JobStatus::kQueued;
  std::string request_json;  // what is needed to run it again: token ids, sampling, strategy (actors/job_service)
  std::string result_json;            // set when it has ended
  int64_t created_unix_ms = 0;
  int64_t ended_unix_ms = 0;
};

class JobStore {
 public:
  virtual ~JobStore() = default;
  // Everything that was committed before. Also increments and returns the coordinator epoch, durably.
  struct Loaded {
    uint64_t epoch = 0;
    std::vector<JobRow> unfinished;
  };
  virtual Result<Loaded> load() = 0;
  // Inserts or replaces one row; durable when it returns.
  virtual Task<void> commit(JobRow row) = 0;
  virtual Task<std::shared_ptr<const JobRow>> find(std::string id) = 0;                    // null: no such job
  virtual Task<std::shared_ptr<const JobRow>> find_by_key(std::string idempotency_key) = 0;
  // Newest first.
  virtual Task<std::vector<JobRow>> list(int32_t limit) = 0;
};

}  // namespace runahead
