// WorkerRegistry: who is in the cluster, how fast each worker is, and which pages are promised to whom. A worker is one
// connection of one process (peer, incarnation): whoever comes back gets a new WorkerId and starts with nothing but the
// speed that it had (SpeedMemory).
//   pure     no clock, no I/O; owned by CoordinatorCore. limits: kWorkersMax workers.
//   agreement  workers share pages, so all run one fingerprint, page size and K/V transport. What the options leave open
//            is agreed as soon as a prefill and a decode worker say the same; until then every worker of the model is
//            let in and none works. One alone binds nobody, and who has gone binds nobody either (docs/adr).
//   ledger   a hold is the pages of one attempt on one worker. It ends when the worker says that they are back
//            (RankDone, DecodeDone, AttemptEnded), or with the worker.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "actors/coordinator/coordinator_options.h"
#include "actors/coordinator/worker_prefixes.h"
#include "base/ids.h"
#include "base/limits.h"
#include "planner/cost_model.h"
#include "planner/profile.h"
#include "proto/control.pb.h"
#include "transport/control/control_plane.h"

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
  LinkEstimate given;  // of what decode workers have given it, before it computed: chains' pages come while it does
  bool speed_known = false, ingress_known = false;  // from an earlier life
  double remembered_seconds = 0;  // of a typical chunk, in that life; 0: it had none
  int32_t link_idle = 0;  // requests since the link into it was last measured

  std::string fingerprint, compute, kv_transport;
  size_t page_bytes = 0;

  Time heard_at{0};
  bool agreed = false;  // it runs what the cluster runs: only such workers get work
  bool draining = false;
  uint64_t work_done = 0;  // jobs and pages that it counts in its heartbeats: a beating heart is not work
  Time worked_at{0};  // when that grew, or something of an attempt was reported
  bool stuck = false;  // an attempt stalled on it, and it has neither done anything since nor given everything back
  int64_t trusted = limits::kAttemptsWhenFresh;  // attempts that it may have in work at once, beside attempts_max
  std::optional<Time> idle_since;  // its heartbeats say that nothing is in work, though it holds something
  int64_t pages_free_reported = 0;  // by its heartbeat, for people
  std::map<AttemptId, int64_t> holds;  // pages
  int64_t pages_held = 0;
  WorkerPrefixes prefixes;

  int32_t running() const { return static_cast<int32_t>(holds.size()); }
};

class WorkerRegistry {
 public:
  explicit WorkerRegistry(const CoordinatorOptions& options)
      : shape_(options.shape),
        required_{options.model, options.fingerprint, options.kv_transport},
        memory_(options.speeds) {}

  // May it join? kIncompatible, kOverloaded. A worker that comes back is not counted twice.
  Result<void> check(const proto::Hello& hello) const;
  // After check().
  Worker& join(PeerId peer, const proto::Hello& hello, Time now);
  void remove(WorkerId id);
  // Those that run something else than what has been agreed meanwhile, with the reason.
  std::vector<std::pair<WorkerId, Error>> outvoted() const;
  // Why nothing has been agreed although both roles are here, for people; empty otherwise.
  std::string disagreement() const;
  bool agreed() const { return agreed_.has_value(); }
  Worker* find(WorkerId id);
  const Worker* find(WorkerId id) const { return const_cast<WorkerRegistry*>(this)->find(id); }
  Worker* by_peer(PeerId peer);
  Worker* by_incarnation(uint64_t incarnation);
  std::map<WorkerId, Worker>& workers() { return workers_; }
  const std::map<WorkerId, Worker>& workers() const { return workers_; }

  static bool is_suspect(const Worker& worker, Time now);
  // Is there another one of its role that works?
  bool has_other(const Worker& worker, Time now) const;
  // Silent for limits::kLeaseDuration.
  std::vector<WorkerId> lost(Time now) const;
  // Pages that no attempt has; what it keeps of earlier prompts is given up for one.
  static int64_t room(const Worker& worker);
  // May it take one more attempt that needs `pages`?
  static bool can_take(const Worker& worker, int64_t pages, Time now);

  // It has done something.
  static void note_work(Worker& worker, Time now);
  // It has done its part of an attempt, or begun to give tokens; an attempt has failed by it.
  static void note_success(Worker& worker);
  static void note_failure(Worker& worker) { worker.trusted = limits::kAttemptsWhenHealed; }
  // By its heartbeat. A message about an attempt was lost: connections lose none but by a bug, and a new one begins with a
  // clean account.
  static bool has_lost_count(Worker& worker, uint32_t running, Time now);
  // The coordinator was away for so long: nobody could be heard.
  void forgive(Duration absence);

  // What it keeps is dropped, the oldest first, as far as the claim's lease has no room beside it.
  static void hold(Worker& worker, AttemptId attempt, WorkerPrefixes::Claim claim);
  // Columns of its prompt are a prefix now, which it reads beside others: they are not its own any more.
  static void keep_prompt(Worker& worker, AttemptId attempt, int32_t kept);
  // kept: so many columns of it are a prefix now, as the claim asks.
  static void release(Worker& worker, AttemptId attempt, int32_t kept);

  // That a decode worker with so many pages holds.
  int64_t tokens_in(int64_t pages) const;
  // What plans reckon with. A worker that has served nothing is as fast as the median of those of its role and device, the
  // measured ones where there are any: what each measured at its start, while all started at once, tells them apart by chance.
  // One that has is what those of its device showed together, as far from it as it is for sure; one that is only remembered
  // differs from them as it differed from its like (planner/profile.h).
  WorkerSpeed speed_of(const Worker& worker) const;
  // The link into it. What was measured long ago fades towards what links of its role are like: a link that other traffic slowed
  // down for a while is avoided, and would never be measured again.
  LinkSpeed ingress_of(const Worker& worker) const;
  void learn_link(Worker& worker, double bytes, double seconds);
  static void learn_given(Worker& worker, double bytes, double seconds) { worker.given.add_transfer(bytes, seconds); }
  void count_request();
  // What it took for a chunk.
  void learn(Worker& worker, TokenRange chunk, bool is_last_rank, double seconds);
  static bool is_measured(const Worker& worker) { return worker.speed_known || worker.speed.samples() > 0; }
  static bool is_link_measured(const Worker& worker) { return worker.ingress_known || worker.ingress.samples() > 0; }
  // What requests have taught, of workers that are here and of those that were.
  SpeedMemory speeds() const;
  // The model and mode, the device and the name: a process that comes back under its name is the same worker.
  static std::string memory_key(const Worker& worker);
  // Of the agreement: there is one when somebody can_take.
  const ModelCost& model_cost() const { return *cost_; }
  // Empty as long as they are open.
  std::string fingerprint() const { return agreed_ ? agreed_->fingerprint : required_.fingerprint; }
  std::string compute() const { return agreed_ ? agreed_->compute : ""; }
  std::string kv_transport() const { return agreed_ ? agreed_->kv_transport : required_.kv_transport; }

 private:
  // What all workers must have in common.
  struct Agreement {
    std::string fingerprint, compute, kv_transport;
    size_t page_bytes = 0;
    bool holds_for(const Worker& worker) const {
      return worker.fingerprint == fingerprint && worker.page_bytes == page_bytes &&
             worker.kv_transport == kv_transport;
    }
  };
  struct Required {
    std::string model, fingerprint, kv_transport;  // empty: open
  };
  Result<void> check_agreement(const std::string& fingerprint, size_t page_bytes,
                               const std::string& kv_transport) const;
  void agree_with(const Worker& newcomer);

  void remember(const Worker& worker, SpeedMemory& memory) const;
  DeviceEstimate::WasSlower was_slower(const std::string& device) const;

  ModelShape shape_;
  Required required_;
  SpeedMemory memory_;  // of those that have gone; kWorkersRememberedMax
  std::map<std::string, DeviceEstimate> devices_;  // prefill workers', by Worker::device
  std::optional<Agreement> agreed_;
  std::optional<ModelCost> cost_;
  WorkerId last_id_ = 0;
  std::map<WorkerId, Worker> workers_;
};

}  // namespace runahead
