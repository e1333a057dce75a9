// MemoryJobStore: jobs that end with the process, for a coordinator without --job-store.
//   threads  the io_context thread.
//   limits   kRows: the oldest ended job is forgotten beyond it.
#pragma once

#include <deque>
#include <map>

#include "actors/job_store.h"

namespace runahead {

class MemoryJobStore final : public JobStore {
 public:
  explicit MemoryJobStore(uint64_t epoch) : epoch_(epoch) {}

  Result<Loaded> load() override { return Loaded{.epoch = epoch_, .unfinished = {}}; }
  Task<void> commit(JobRow row) override;
  Task<std::shared_ptr<const JobRow>> find(std::string id) override;
  Task<std::shared_ptr<const JobRow>> find_by_key(std::string idempotency_key) override;
  Task<std::vector<JobRow>> list(int32_t limit) override;

 private:
  static constexpr size_t kRows = 4096;  // results of some KiB each
  uint64_t epoch_;
  std::map<std::string, std::shared_ptr<const JobRow>> rows_;
  std::deque<std::string> order_;  // ids, oldest first
};

}  // namespace runahead
