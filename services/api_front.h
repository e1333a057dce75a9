// ApiFront: jobs and HTTP over one InferenceService: what the coordinator process and the in-process cluster both put in
// front of their coordinator.
//   threads  the executor's thread. Destroy it after shutdown() has returned.
//   owner    what is passed in outlives it.
#pragma once

#include <string>

#include "actors/job_service.h"
#include "services/gateway/gateway.h"
#include "services/metrics.h"
#include "transport/tcp_socket.h"

namespace runahead {

struct ApiFrontOptions {
  HostPort http{"127.0.0.1", 0};
  bool allow_remote = false;
  std::string api_keys;    // file; empty: the API is open
  std::string model_name;   // what /v1/models shows
  std::string model_alias;  // what requests may say too: the name on the command line
};

struct ApiFrontEnv {
  asio::any_io_executor executor;
  Clock& clock;
  Rng& rng;
  InferenceService& inference;
  JobStore& job_store;
  const TextCodec& codec;
  CoordinatorMetrics& metrics;
};

class ApiFront {
 public:
  ApiFront(ApiFrontEnv env, const ApiFrontOptions& options);

  // Listens, then runs again the jobs that an earlier process left unfinished.
  Result<void> start(std::vector<JobHead> unfinished);
  std::string address() const { return gateway_.address(); }
  // Answers what is in work, then closes; jobs that still run are left for the next start.
  asio::awaitable<void> shutdown();

 private:
  JobService jobs_;
  JobServiceApi jobs_api_;
  Gateway gateway_;
};

}  // namespace runahead
