// JobService: requests that outlive connections and the process. A job is committed before it is acknowledged;
// unfinished ones run again after a restart and give the same tokens, because sampling is keyed by seed and position.
// A job is seen by its owner only; to others it does not exist.
//   threads  the executor's one thread.
//   owner    the running jobs' streams. Of a waiting job it holds the head: the prompt is in the store until it runs,
//   and so are results of ended jobs. Destroy it only after stop() has returned.
//   limits   kJobsRunningMax at once, kJobsWaitingMax waiting (then kOverloaded).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/inference.h"
#include "actors/jobs/job_store.h"
#include "actors/test_faults.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/rng.h"

namespace runahead {

struct JobSubmission {
  InferenceRequest request;
  std::string owner;            // empty: everybody's
  std::string idempotency_key;  // empty: none
  std::string request_digest;   // as JobHead
  std::string kind;             // as JobHead
  std::string client_json;      // as StoredRequest
};

struct JobView {
  JobHead head;                                // completion_tokens: so far
  double prefill_fraction = 0;                 // 0 to 1
  std::string client_json;                     // empty in lists
  std::shared_ptr<const StoredResult> result;  // once it has ended; null in lists
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
  Duration deadline = limits::kJobDeadline;  // of one run of a job that names none
};

class JobService {
 public:
  JobService(JobServiceEnv env, TestFaults faults = {});
  ~JobService();

  // Runs what was accepted before the restart. Once, before the first submit.
  void resume(std::vector<JobHead> unfinished);
  // Returns when the job is durable. The same idempotency key of the same owner returns the first job, and kKeyReused
  // if the request is another one.
  Task<JobView> submit(JobSubmission submission);
  Task<JobView> find(std::string owner, std::string id);  // kNotFound
  Task<std::vector<JobView>> list(JobQuery query);  // newest first; kNotFound if there is no job JobQuery::after
  Task<JobView> cancel(std::string owner, std::string id);  // kNotFound; an ended job stays as it is
  // Events from token `first_index` on.
  Task<std::shared_ptr<JobEvents>> subscribe(std::string owner, std::string id, int32_t first_index);
  // Stops running jobs without ending them: they are resumed at the next start.
  asio::awaitable<void> stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // running jobs and subscriptions share it
};

}  // namespace runahead
