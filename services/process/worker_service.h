// A worker process: one engine, one K/V pool, one transport, one actor (prefill or decode), and a small HTTP listener for
// probes and metrics. This is the only place where these parts are put together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/machine_limits.h"
#include "base/result.h"
#include "services/engine/engine_flags.h"
#include "transport/tls/tls_identity.h"

namespace runahead {

enum class WorkerKind { kPrefill, kDecode };

struct WorkerServiceOptions {
  WorkerKind role = WorkerKind::kPrefill;
  EngineFlags engine{.threads = machine_limits().usable_cpus()};
  std::string coordinator = "127.0.0.1:7070";
  std::string transport = "auto";
  std::string data_listen = "127.0.0.1:0";  // K/V pages
  std::string advertise;  // host, or host:port, that peers reach data_listen by; empty: its own host,
      // or, where that is every address, the one the coordinator is reached from
  std::string admin;  // host:port of probes and metrics; empty: none
  std::vector<std::string> http_hosts;  // that clients may call it by, on loopback
  std::string name;  // empty: host:pid
  int64_t kv_memory_mib = 0;  // of the page pool; 0: four full contexts, or what base/machine_limits leaves
  int slots = 0;  // decode: sequences in one step; 0: all that the memory holds
  int sharers = 1;  // workers that share this machine's memory, this one included
  TlsFiles tls;
  bool insecure_network = false;  // listen beyond loopback without TLS
  bool authenticate_pages = false;  // those that UCX moves; needs TLS
  bool insecure_http = false;  // let `admin` do so
  bool progress = false;  // a bar while the weights load
  int announce_fd = -1;  // set by services/cluster/local_cluster
};

// Until SIGTERM, or until the coordinator refuses this worker.
Result<void> run_worker_service(const WorkerServiceOptions& options);

}  // namespace runahead
