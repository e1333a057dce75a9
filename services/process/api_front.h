// ApiFront: jobs and HTTP over one InferenceService: what the coordinator process and the in-process cluster both put in
// front of their coordinator.
//   threads  the executor's thread. Destroy it after shutdown() has returned.
//   owner    what is passed in outlives it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/jobs/job_service.h"
#include "base/async/gate.h"
#include "services/file_store/file_store.h"
#include "services/metrics/coordinator_metrics.h"
#include "services/process/admin_endpoints.h"
#include "services/process/canary.h"
#include "services/process/gateway.h"
#include "services/tracing/otlp_exporter.h"
#include "transport/tcp_socket.h"

namespace runahead {

struct ApiFrontOptions {
  GatewayOptions gateway;
  FileStoreOptions files;  // of who opens ApiFrontEnv::files
  std::string admin;  // host:port of probes and metrics without a key; empty: none
  std::string otlp_endpoint;  // of a collector of traces; empty: none
  std::string metrics_compat;  // "vllm": its names, too; read where the metrics are made
  Duration queue_wait = limits::kQueueWait;  // read where the coordinator is made, as CoordinatorOptions has it
  Duration canary_deadline{0};  // of a completion that readiness depends on; 0: it does not
};

struct ApiFrontEnv {
  asio::any_io_executor executor;
  Clock& clock;
  Rng& rng;
  InferenceService& inference;
  JobStore& job_store;
  const TextCodec& codec;
  CoordinatorMetrics& metrics;
  FileStore* files = nullptr;  // null: no files, no batches
};

class ApiFront {
 public:
  ApiFront(ApiFrontEnv env, const ApiFrontOptions& options);

  // Listens, also for probes, then runs again the jobs that an earlier process left unfinished, and goes on with its batches.
  Result<void> start(std::vector<JobHead> unfinished);
  std::string address() const { return gateway_.address(); }
  std::string admin_address() const { return admin_ ? admin_->address() : std::string(); }
  // Answers what is in work, then closes; jobs that still run are left for the next start.
  asio::awaitable<void> shutdown();

 private:
  JobServiceEnv jobs_env(const ApiFrontEnv& env);
  GatewayOptions gateway_options(GatewayOptions options, FileStore* files);
  std::vector<std::string> reasons_not_ready() const;

  InferenceService& inference_;
  Result<std::unique_ptr<OtlpExporter>> traces_;  // null: none
  std::unique_ptr<Canary> canary_;  // null: none
  Gate gate_;  // of the canary
  JobService jobs_;
  const bool allow_remote_;
  const std::string admin_listen_;
  const std::vector<std::string> hosts_;
  Gateway gateway_;
  std::unique_ptr<AdminEndpoints> admin_;  // null: none
};

}  // namespace runahead
