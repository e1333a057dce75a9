// The coordinator's process: control plane, coordinator actor, job service and HTTP gateway on one event loop. This is the
// only place where these parts are put together.
#pragma once

#include <ctime>
#include <string>

#include "base/result.h"
#include "services/api_front.h"

namespace runahead {

struct CoordinatorServiceOptions {
  std::string model = "smollm2";          // for its tokenizer, chat template and shape; the weights stay untouched
  std::string listen = "127.0.0.1:7070";  // control plane
  std::string http = "127.0.0.1:8000";    // API
  std::string job_store;                  // SQLite file; empty: jobs live in memory
  ApiSettings api;
  bool insecure_network = false;          // listen beyond loopback without TLS
  int announce_fd = -1, parent_pid = 0;   // set by services/local_cluster
};

// Wall clock and time zone of this machine, for chat templates that print a date.
std::tm local_time_now();

// Until SIGTERM: then it drains and ends.
Result<void> run_coordinator_service(const CoordinatorServiceOptions& options);

}  // namespace runahead
