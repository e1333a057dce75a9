// ActorCluster: coordinator, prefill workers and a decode worker in one process on one event loop: the same actors as the
// processes have, joined by the memory control plane and any K/V transport. For `run --in-process` and for tests.
//   owner    everything that the actors need: engines, pools, lanes, transports.
//   threads  the executor's thread, and one lane thread a worker. Destroy it after stop() has returned.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/coordinator/coordinator.h"
#include "actors/worker/decode_worker.h"
#include "actors/worker/prefill_worker.h"
#include "actors/worker/thread_lane.h"
#include "base/async/gate.h"
#include "base/rng.h"
#include "transport/control/memory_control.h"
#include "transport/kv/memory_kv_transport.h"

namespace runahead {

struct ActorClusterOptions {
  int32_t prefill_workers = 2;
  std::string transport = "memory";  // make_kv_transport's names
  int32_t kv_contexts = 4;  // full contexts that one worker's pool holds
  // One engine a worker; `index` counts prefill workers first, the decode worker is the last.
  std::function<Result<std::unique_ptr<Engine>>(int32_t index)> make_engine;
  grammar::Grammars::MakeTree make_token_tree;
};

class ActorCluster {
 public:
  ActorCluster(asio::any_io_executor executor, Clock& clock, Rng& rng, CoordinatorSink& metrics,
               ActorClusterOptions options);

  // Builds everything and starts the actors.
  Result<void> start();
  Coordinator& coordinator() { return *coordinator_; }
  // Waits until every worker has registered; kDeadlineExceeded.
  Task<void> ready(Deadline deadline);
  // Pages of every pool that attempts have; 0 at rest.
  int64_t pages_in_use() const;
  asio::awaitable<void> stop();

 private:
  struct Worker {
    std::unique_ptr<Engine> engine;
    std::unique_ptr<KvPool> pool;
    std::unique_ptr<ThreadLane> lane;
    std::unique_ptr<grammar::Grammars> grammars;
    std::unique_ptr<KvTransport> kv;
    std::unique_ptr<PrefillWorker> prefill;  // one of the two
    std::unique_ptr<DecodeWorker> decode;
    bool registered() const { return prefill ? prefill->registered() : decode->registered(); }
  };
  Result<std::unique_ptr<Worker>> build_worker(int32_t index);
  asio::awaitable<void> run_worker(Worker& worker);

  asio::any_io_executor executor_;
  Clock& clock_;
  Rng& rng_;
  CoordinatorSink& metrics_;
  WorkerSink worker_metrics_;
  ActorClusterOptions options_;
  std::shared_ptr<MemoryKvHub> kv_hub_ = std::make_shared<MemoryKvHub>();  // shared with the transports
  MemoryControlHub control_hub_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<Coordinator> coordinator_;
  Gate workers_gate_, coordinator_gate_;
};

}  // namespace runahead
