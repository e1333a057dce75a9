// LocalCluster: a whole cluster of real processes on loopback: coordinator with gateway, prefill workers, a decode worker,
// each `runahead <role>` of this same binary. Used by `runahead run` (one prompt) and `runahead serve` (until a signal).
//   owner    the children; they end with this object, and with this process even if it is killed.
//   threads  one, blocking: the parent has no event loop.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "services/engine/engine_flags.h"
#include "services/gateway/request/generation_defaults.h"

namespace runahead {

struct LocalClusterOptions {
  // Of a prefill process; 0 threads: an equal part of the CPUs that this process may use.
  EngineFlags engine{.threads = 0};
  std::string chat_template;  // a file; empty: the model's own template
  int workers = 2;  // prefill processes
  int decode_threads = 0;  // 0: likewise
  int slots = 0;  // of the decode worker, as WorkerServiceOptions::slots
  std::string transport = "auto";
  std::string http = "127.0.0.1:0";
  std::string control = "127.0.0.1:0";
  std::string log_level = "warn";
  GenerationFlags generation;
  std::string log_format = "text";
  std::string split_table;  // file of `runahead plan search`; empty: none
  bool prefix_cache = true;
  std::string job_store;  // path of the SQLite file; empty: jobs live in memory
  std::vector<std::string> coordinator_flags;  // passed on as they are
  bool progress = false;  // the first worker shows a progress bar while weights load

  // Compute threads of a prefill worker, or of the decode worker.
  int threads_of(bool prefill) const;
};

class LocalCluster {
 public:
  // Starts every process and waits until the gateway listens and every worker has joined. A child that fails to start
  // ends it all, with that child's own error.
  static Result<LocalCluster> start(LocalClusterOptions options);
  ~LocalCluster();  // stop()
  LocalCluster(LocalCluster&&) noexcept;
  LocalCluster& operator=(LocalCluster&&) = delete;

  const std::string& http_address() const { return http_; }
  // Waits until SIGINT or SIGTERM; a child that dies meanwhile is started again after a second.
  Result<void> supervise();
  // SIGTERM to the workers, then to the coordinator; SIGKILL to what is left after the drain timeout or a second signal.
  void stop();

 private:
  struct Child {
    std::string role;  // "coordinator", "prefill", "decode"
    std::vector<std::string> arguments;
    pid_t pid = -1;
    int announce_fd = -1;  // reading end of what it announces (services/process/announcer.h)
  };
  explicit LocalCluster(LocalClusterOptions options) : options_(std::move(options)) {}
  Result<void> spawn(Child& child);
  // What the child announces when it is ready; its error if it announces one or dies.
  Result<nlohmann::json> await_ready(Child& child, std::chrono::seconds timeout);
  std::string last_words(Child& child);
  void plan_children();
  void restart_dead_children();

  LocalClusterOptions options_;
  std::vector<Child> children_;  // [0] is the coordinator
  std::string http_, control_;
  bool started_ = false;
};

// A sentence if there are more compute threads than CPUs, else nothing.
std::string shared_cores_warning(int workers, int threads_per_worker, int decode_threads, int cpus);

// Logs it for the CPUs that this process may use.
void warn_of_shared_cores(const LocalClusterOptions& options);

// Blocks SIGINT and SIGTERM for this process; await_stop_signal() then takes them one by one.
void block_stop_signals();
// The signal's number, or nothing after the timeout.
std::optional<int> await_stop_signal(std::chrono::milliseconds timeout);

}  // namespace runahead
