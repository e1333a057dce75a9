// A Gateway over the real JobService and a store in memory.
#pragma once

#include <boost/asio/co_spawn.hpp>

#include "actors/jobs/job_service.h"
#include "services/gateway/job_text.h"
#include "services/job_store/sqlite_job_store.h"
#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {

class KeepingTest : public GatewayTest {
 protected:
  void SetUp() override {
    store_ = std::move(*SqliteJobStore::open(""));
    service_ = std::make_unique<JobService>(
        JobServiceEnv{io_.get_executor(), clock_, rng_, inference_, *store_, [] { return int64_t{5000}; },
                      [this](const std::string& json) { return job_stop_rule(codec_, json); }});
    start();
  }
  void TearDown() override {
    asio::co_spawn(io_, service_->stop(), asio::use_future).get();
    stop();
    service_.reset();
    store_.reset();
  }
  JobsApi* jobs() override { return service_.get(); }

  SeededRng rng_{1};
  std::unique_ptr<SqliteJobStore> store_;
  std::unique_ptr<JobService> service_;
};

}  // namespace runahead
