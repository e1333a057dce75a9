// SimJobStore: the job store on a faulty disk. The disk outlives processes; a commit becomes durable some time after it
// was asked for and says so later still, and a crash in between loses it or not, by chance.
#pragma once

#include <map>
#include <string>

#include "actors/job_store.h"
#include "sim_world.h"

namespace runahead::sim {

struct DiskWeather {
  Duration write_mean = std::chrono::milliseconds(2);
  double error_probability = 0;  // a commit fails and is not durable: EIO, ENOSPC
};

struct SimDisk {
  uint64_t epoch = 0;
  std::map<std::string, JobRow> rows;
};

class SimJobStore final : public JobStore {
 public:
  SimJobStore(SimWorld& world, Process& process, SimDisk& disk, const DiskWeather& weather)
      : world_(world), process_(process), disk_(disk), weather_(weather) {}

  Result<Loaded> load() override;
  Task<void> commit(JobRow row) override;
  Task<std::shared_ptr<const JobRow>> find(std::string id) override;
  Task<std::shared_ptr<const JobRow>> find_by_key(std::string idempotency_key) override;
  Task<std::vector<JobRow>> list(int32_t limit) override;

 private:
  asio::awaitable<void> pass_time(Duration mean);

  SimWorld& world_;
  Process& process_;
  SimDisk& disk_;
  const DiskWeather& weather_;
  Time writer_free_{0};  // on the process's clock
};

}  // namespace runahead::sim
