// The coordinator's process: control plane, coordinator actor, job service and HTTP gateway on one event loop. This is the
// only place where these parts are put together.
#pragma once

#include <ctime>
#include <string>

#include "base/clock.h"
#include "base/limits.h"
#include "base/result.h"
#include "services/engine/engine_flags.h"
#include "services/process/api_front.h"
#include "transport/tls/tls_identity.h"

namespace runahead {

struct CoordinatorServiceOptions {
  ModelFlags model;  // for its tokenizer, chat template, shape and content hash
  std::string chat_template;  // a file with a template to use instead of the model's; empty: the model's
  std::string compute = "auto";  // of the workers; auto: what a prefill and a decode worker first agree on
  std::string listen = "127.0.0.1:7070";  // control plane
  std::string http = "127.0.0.1:8000";  // API
  std::string split_table;  // file of `runahead plan search`; empty: none
  bool prefix_cache = true;
  std::string job_store;  // SQLite file; empty: jobs live in memory
  ApiFrontOptions api;  // as far as flags say it
  GenerationFlags generation;
  double stall_timeout_s = seconds(limits::kStallTimeout);  // of an attempt on which nothing moves
  TlsFiles tls;  // of the control plane
  bool insecure_network = false;  // listen beyond loopback without TLS
  bool insecure_http = false;  // let `http` do so
  int announce_fd = -1;  // set by services/cluster/local_cluster
};

// Wall clock and time zone of this machine, for chat templates that print a date.
std::tm local_time_now();

// Until SIGTERM: then it drains and ends.
Result<void> run_coordinator_service(const CoordinatorServiceOptions& options);

}  // namespace runahead
