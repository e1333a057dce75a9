// ApiFront: jobs and HTTP over one InferenceService: what the coordinator process and the in-process cluster both put in
// front of their coordinator.
//   threads  the executor's thread. Destroy it after shutdown() has returned.
//   owner    what is passed in outlives it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/jobs/job_service.h"
#include "services/gateway/gateway.h"
#include "services/metrics/metrics.h"
#include "services/process/admin_endpoints.h"
#include "transport/tcp_socket.h"

namespace runahead {

// What people set about the API; times in seconds.
struct ApiSettings {
  std::string api_keys;  // file; empty: the API is open
  std::string admin;  // host:port of probes and metrics without a key; empty: none
  std::vector<std::string> cors_origins;  // whose pages may read answers in a browser; "*": all
  double request_timeout = seconds(limits::kRequestDeadline);
  double job_timeout = seconds(limits::kJobDeadline);  // of one run
  double idle_timeout = seconds(limits::kHttpIdleTimeout);
  double header_timeout = seconds(limits::kHttpHeaderTimeout);
  double body_timeout = seconds(limits::kHttpBodyTimeout);
  double send_timeout = seconds(limits::kHttpSendTimeout);
};

struct ApiFrontOptions {
  HostPort http{"127.0.0.1", 0};
  bool allow_remote = false;
  ApiSettings settings;
  std::string model_name;  // what /v1/models shows
  std::string model_alias;  // what requests may say too: the name on the command line
  GenerationDefaults generation_defaults = {};
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

  // Listens, also for probes, then runs again the jobs that an earlier process left unfinished.
  Result<void> start(std::vector<JobHead> unfinished);
  std::string address() const { return gateway_.address(); }
  std::string admin_address() const { return admin_ ? admin_->address() : std::string(); }
  // Answers what is in work, then closes; jobs that still run are left for the next start.
  asio::awaitable<void> shutdown();

 private:
  JobService jobs_;
  JobServiceApi jobs_api_;
  Gateway gateway_;
  const bool allow_remote_;
  const std::string admin_listen_;
  std::unique_ptr<AdminEndpoints> admin_;  // null: none
};

}  // namespace runahead
