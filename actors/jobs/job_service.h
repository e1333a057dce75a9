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
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "actors/jobs/job_store.h"
#include "actors/jobs/jobs_api.h"
#include "actors/test_faults.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/rng.h"

namespace runahead {

struct JobCounts {
  int64_t waiting = 0, running = 0;  // now
  std::map<JobStatus, int64_t> ended;  // since the start
};

struct JobServiceEnv {
  asio::any_io_executor executor;
  Clock& clock;
  Rng& rng;                               // job ids
  InferenceService& inference;
  JobStore& store;
  std::function<int64_t()> unix_time_ms;  // wall clock, for people
  std::function<StopRule(const std::string& client_json)> stop_rule;  // of a job; empty: only stop tokens end it
  Duration deadline = limits::kJobDeadline;  // of one run of a job that names none
  std::function<void(const JobCounts&)> on_change = {};  // after every acceptance and end
  std::function<void(const JobView&)> on_end = {};  // of each job that has run
};

class JobService final : public JobsApi {
 public:
  JobService(JobServiceEnv env, TestFaults faults = {});
  ~JobService() override;

  // Runs what was accepted before the restart. Once, before the first submit.
  void resume(std::vector<JobHead> unfinished);
  Task<JobView> submit(JobSubmission submission) override;
  Task<JobView> find(std::string owner, std::string id) override;
  Task<std::vector<JobView>> list(JobQuery query) override;
  Task<JobView> cancel(std::string owner, std::string id) override;
  Task<JobView> keep(JobSubmission submission, EndedRun run) override;
  Task<void> remove(std::string owner, std::string id) override;
  Task<std::shared_ptr<JobEvents>> subscribe(std::string owner, std::string id, int32_t first_index) override;
  // Stops running jobs without ending them: they are resumed at the next start.
  asio::awaitable<void> stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // running jobs and subscriptions share it
};

}  // namespace runahead
