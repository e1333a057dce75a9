// SimJobStore: the job store on a faulty disk. The disk outlives processes; a commit becomes durable some time after it
// was asked for and says so later still, and a crash in between loses it or not, by chance.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "actors/jobs/job_store.h"
#include "sim_world.h"

namespace runahead::test {

struct DiskWeather {
  Duration write_mean = std::chrono::milliseconds(2);
  double error_probability = 0;  // a commit fails and is not durable: EIO, ENOSPC
};

struct SimDisk {
  struct Row {
    JobHead head;
    std::shared_ptr<const StoredRequest> request;
    std::shared_ptr<const StoredResult> result;
  };
  uint64_t epoch = 0;
  std::map<std::string, Row> rows;
};

class SimJobStore final : public JobStore {
 public:
  SimJobStore(SimWorld& world, Process& process, SimDisk& disk, const DiskWeather& weather)
      : world_(world), process_(process), disk_(disk), weather_(weather) {}

  Result<Loaded> load() override;
  Task<void> accept(JobHead head, std::shared_ptr<const StoredRequest> request) override;
  Task<void> end(JobHead head, std::shared_ptr<const StoredResult> result) override;
  Task<void> keep(JobHead ended, std::shared_ptr<const StoredRequest> request,
                  std::shared_ptr<const StoredResult> result) override;
  Task<void> remove(std::string id) override;
  Task<std::shared_ptr<const JobHead>> find_by_key(std::string owner, std::string idempotency_key) override;
  Task<std::shared_ptr<const JobRecord>> find(std::string id) override;
  Task<std::shared_ptr<const StoredRequest>> request(std::string id) override;
  Task<std::vector<JobHead>> list(JobQuery query) override;

 private:
  asio::awaitable<void> pass_time(Duration mean);
  Task<void> commit(std::function<void(SimDisk&)> change);

  SimWorld& world_;
  Process& process_;
  SimDisk& disk_;
  const DiskWeather& weather_;
  Time writer_free_{0};  // on the process's clock
};

}  // namespace runahead::test
