// BatchService: batches, line by line, over the durable jobs: a line is a job whose idempotency key is the batch and the line,
// and what it gave goes into the batch's output or error file, once.
//   survives a line is done when it is in one of those files. A start reads which are, and submits the others again: the job
//            service gives back the jobs that it has already. docs/adr/0030-batches-are-files-and-jobs.md
//   gives way kBatchLinesInWork lines of all batches run at once, in turns, of the kJobsRunningMax jobs that may; and none
//            begins while requests wait for room on the workers.
//   threads  the executor's one thread.
//   owner    outlives nothing: stop() before what is passed in dies.
//   limits   kBatchesOpenMax that have not ended (then kOverloaded), the newest kBatchesKeptMax that have.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "actors/jobs/jobs_api.h"
#include "services/file_store/file_store.h"
#include "services/gateway/batch_lines.h"
#include "services/gateway/generation_routes.h"

namespace runahead {

inline constexpr int kBatchLinesInWork = 4;  // half of kJobsRunningMax: single jobs find a place
inline constexpr size_t kBatchesOpenMax = 64;  // 1 MiB each, of where their lines are
inline constexpr size_t kBatchesKeptMax = 10'000;

class BatchService {
 public:
  BatchService(const GatewayContext& context, JobsApi& jobs, FileStore& files);
  ~BatchService();

  // Goes on with what was under way before the restart. Once, after the jobs have been resumed.
  void resume();
  // Returns when it is durable. kNotFound: no such file of this owner; kOverloaded.
  Task<BatchRecord> create(std::string owner, BatchRequest request);
  const BatchRecord* find(const std::string& owner, const std::string& id) const;  // null: none that this owner may see
  std::vector<const BatchRecord*> of(const std::string& owner) const;  // newest first
  Task<BatchRecord> cancel(std::string owner, std::string id);  // kNotFound; kIncompatible: it has ended
  bool reads(const std::string& file_id) const;  // a batch that has not ended
  // Stops without ending what runs: it goes on at the next start.
  asio::awaitable<void> stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace runahead
