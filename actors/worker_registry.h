// WorkerRegistry: who is in the cluster, how fast each worker is, and which pages are promised to whom. A worker is one
// connection of one process (peer, incarnation): whoever comes back gets a new WorkerId and starts with nothing.
//   pure     no clock, no I/O; owned by CoordinatorCore. limits: kWorkersMax workers.
//   ledger   a hold is the pages of one attempt on one worker. It ends when the worker says that they are back
//   (RankDone,
//            DecodeDone, AttemptEnded), or with the worker.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "actors/coordinator.h"
#include "base/ids.h"
#include "planner/cost_model.h"
#include "planner/profile.h"
#include "proto/control.pb.h"

namespace runahead {

struct Worker {
  WorkerId id = 0;
  PeerId peer = 0;
  uint64_t incarnation = 0;
  bool is_prefill = true;
  std::string name, device, kv_address;
  int64_t pages_total = 0;
  int32_t attempts_max = 0;
  WorkerEstimate speed;
  LinkEstimate ingress;

  Time heard_at{0};
  bool draining = false;
  int64_t pages_free_reported = 0;         // by its heartbeat, for people
  std::map<AttemptId, int64_t> holds;      // pages
  int64_t pages_held = 0;

  int32_t running() const { return static_cast<int32_t>(holds.size()); }
};

class WorkerRegistry {
 public:
  WorkerRegistry(ModelShape shape, std::string fingerprint, std::string kv_transport)
      : shape_(std::move(shape)), fingerprint_(std::move(fingerprint)), kv_transport_(std::move(kv_transport)) {}

  // kIncompatible, for good; kOverloaded: perhaps later. The first worker decides what the options left open.
  Result<Worker*> join(PeerId peer, const proto::Hello& hello, Time now);
  void remove(WorkerId id) { workers_.erase(id); }
  Worker* find(WorkerId id);
  Worker* by_peer(PeerId peer);
  Worker* by_incarnation(uint64_t incarnation);
  std::map<WorkerId, Worker>& workers() { return workers_; }
  const std::map<WorkerId, Worker>& workers() const { return workers_; }

  static bool is_suspect(const Worker& worker, Time now);
  // Silent for limits::kLeaseDuration.
  std::vector<WorkerId> lost(Time now) const;
  // May it take one more attempt that needs `pages`?
  static bool can_take(const Worker& worker, int64_t pages, Time now);

  static void hold(Worker& worker, AttemptId attempt, int64_t pages);
  static void release(Worker& worker, AttemptId attempt);

  int64_t pages_for_tokens(int32_t tokens) const;  // in all layers
  // Known when the first worker has joined.
  const ModelCost& model_cost() const { return *cost_; }
  const std::string& fingerprint() const { return fingerprint_; }
  const std::string& compute() const { return compute_; }
  const std::string& kv_transport() const { return kv_transport_; }

 private:
  Result<void> check(const proto::Hello& hello) const;

  ModelShape shape_;
  std::string fingerprint_;   // all workers'; empty until the first one
  std::string compute_;       // the same, in a word for people
  std::string kv_transport_;  // likewise
  size_t page_bytes_ = 0;
  std::optional<ModelCost> cost_;
  WorkerId last_id_ = 0;
  std::map<WorkerId, Worker> workers_;
};

}  // namespace runahead
