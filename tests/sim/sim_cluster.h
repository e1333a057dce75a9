// SimCluster: the production actors, wired as services wire them, on simulated seams. One node is one process of a real
// deployment: node 0 the coordinator with its job service, then the prefill workers, then the decode workers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/coordinator/coordinator.h"
#include "actors/jobs/job_service.h"
#include "actors/worker/decode_worker.h"
#include "actors/worker/prefill_worker.h"
#include "hash_engine.h"
#include "scenario.h"

namespace runahead::test {

// One incarnation of one node: its process and all that lives in it.
class Host {
 public:
  Host(SimWorld& world, NodeId node) : process(world.start(node)), clock(process), rng(world.rng.next()) {}
  virtual ~Host() = default;
  virtual void stop() = 0;  // orderly, from any state
  virtual std::optional<KvPool::Usage> pages() const { return std::nullopt; }
  virtual void stick_lane(Duration) {}
  bool stopped() const { return process.coroutines() == 0; }

  Process& process;
  SimClock clock;
  Prng rng;
  bool was_paused = false;  // since it started
};

class CoordinatorHost final : public Host {
 public:
  CoordinatorHost(SimWorld& world, SimNetwork& network, SimDisk& disk, const Scenario& scenario, const Mutant& mutant);
  void stop() override;

  SimControlServer control;
  SimJobStore store;
  CoordinatorSink metrics;
  std::unique_ptr<Coordinator> coordinator;
  std::unique_ptr<JobService> jobs;
  bool stopping = false;

 private:
  asio::awaitable<void> stop_in_order();
};

// Worker is PrefillWorker or DecodeWorker.
template <class Worker>
class WorkerHost final : public Host {
 public:
  WorkerHost(SimWorld& world, SimNetwork& network, SimKvHub& hub, NodeId node, const Scenario& scenario,
             const Mutant& mutant);
  void stop() override { worker->stop(); }
  std::optional<KvPool::Usage> pages() const override { return pool.usage(); }
  void stick_lane(Duration time) override { lane.stick(time); }

  HashEngine engine;
  KvPool pool;
  SimKvTransport kv;
  SimLane lane;
  WorkerSink metrics;
  grammar::Grammars grammars{hash_token_tree};
  std::unique_ptr<Worker> worker;
};

class SimCluster {
 public:
  SimCluster(const Scenario& scenario, const Mutant& mutant);
  ~SimCluster();

  int32_t nodes() const { return static_cast<int32_t>(hosts_.size()); }
  bool up(NodeId node) const { return hosts_[static_cast<size_t>(node)] != nullptr; }
  Host& host(NodeId node) { return *hosts_[static_cast<size_t>(node)]; }
  bool is_prefill(NodeId node) const { return node >= 1 && node <= scenario.prefill_workers; }
  CoordinatorHost* coordinator();  // null while it is down

  void start(NodeId node);
  // The process is gone for everybody else; what it held is taken down. A failure if that does not end or leaves pages.
  void kill(NodeId node);
  void take_down();  // kills all; at the end of a seed
  const std::string& failure() const { return failure_; }

  Scenario scenario;  // its weather is what blows now
  const Mutant mutant;
  SimWorld world;
  SimNetwork network;
  SimKvHub hub;
  SimDisk disk;

 private:
  std::vector<std::unique_ptr<Host>> hosts_;  // by node
  std::string failure_;
};

}  // namespace runahead::test
