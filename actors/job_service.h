// JobService: requests that outlive connections and the process. A job is committed before it is acknowledged;
// unfinished ones run again after a restart and give the same tokens, because sampling is keyed by seed and position.
//   threads  the executor's one thread.
//   owner    the running jobs' streams; results of ended jobs are in the store. Destroy it only after stop() has
//   returned. limits   kJobsRunningMax at once, kJobsWaitingMax waiting (then kOverloaded).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/inference.h"
#include "actors/job_store.h"
#include "actors/test_faults.h"
#include "base/clock.h"
#include "base/rng.h"

namespace runahead {

struct JobSubmission {
  InferenceRequest request;
  std::string idempotency_key;  // empty: none
  std::string client_json;      // the gateway's own: given back in every view, never read here
};

struct JobView {
  std::string id;
  JobStatus status = JobStatus::kQueued;
  std::string client_json;
  int64_t created_unix_ms = 0;
  int64_t ended_unix_ms = 0;
  int32_t prompt_tokens = 0;
  std::vector<SampledToken> tokens;       // so far; all of them when it has succeeded
  double prefill_fraction = 0;            // 0 to 1
  std::optional<FinishedEvent> finished;  // kSucceeded
  std::optional<Error> error;             // kFailed
};

// One reader's view of a job's events, from an index on: tokens in order, then FinishedEvent, or the job's error.
class JobEvents {
 public:
  virtual ~JobEvents() = default;
  // As TokenStream::next. After a restart of the coordinator the tokens are made again; the reader sees each index
  // once.
  virtual Task<StreamEvent> next(Deadline deadline) = 0;
};

// Asked about each generated token in order: is the answer over with this one? Text is the gateway's, and so are stop
// strings; a job ends by them as a streamed answer does.
using StopRule = std::function<bool(const SampledToken&)>;

struct JobServiceEnv {
  asio::any_io_executor executor;
  Clock& clock;
  Rng& rng;                               // job ids
  InferenceService& inference;
  JobStore& store;
  std::function<int64_t()> unix_time_ms;  // wall clock, for people
  std::function<StopRule(const std::string& client_json)> stop_rule;  // of a job; empty: only stop tokens end it
};

class JobService {
 public:
  JobService(JobServiceEnv env, TestFaults faults = {});
  ~JobService();

  // Runs what was accepted before the restart. Once, before the first submit.
  void resume(std::vector<JobRow> unfinished);
  // Returns when the job is durable. The same idempotency key returns the first job.
  Task<JobView> submit(JobSubmission submission);
  Task<JobView> find(std::string id);                 // kNotFound
  Task<std::vector<JobView>> list(int32_t limit);     // newest first
  Task<JobView> cancel(std::string id);               // kNotFound; an ended job stays as it is
  // Events from token `first_index` on.
  Task<std::shared_ptr<JobEvents>> subscribe(std::string id, int32_t first_index);
  // Stops running jobs without ending them: they are resumed at the next start.
  asio::awaitable<void> stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // running jobs and subscriptions share it
};

}  // namespace runahead
