// WorkerLink: a worker's membership. It connects to the coordinator, says who this is, keeps the lease by heartbeats,
// drops what is of another epoch, and starts again from nothing whenever the coordinator is lost: everything of the old
// epoch is ended before the next Hello, so a Hello always means free pages.
//   threads  the executor's one thread. owner: the worker, which is the role and outlives run().
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "actors/messages.h"
#include "actors/worker/worker_env.h"

namespace runahead {

// What a link drives: PrefillWorker and DecodeWorker.
class WorkerRole {
 public:
  virtual ~WorkerRole() = default;
  virtual void on_message(const proto::Envelope& message) = 0;  // about an attempt, of the current epoch
  virtual void end_all() = 0;  // the coordinator is lost
  virtual asio::awaitable<void> all_ended() = 0;
  virtual int running() const = 0;
};

// When to say that the coordinator is away: at once, then once a minute, so that a night without one fills no disk.
class AbsenceReports {
 public:
  // How long it has been away, if it is time to say so.
  std::optional<Duration> due(Time now);
  void over() { *this = {}; }

 private:
  std::optional<Time> since_;
  Time next_{0};
};

class WorkerLink {
 public:
  WorkerLink(const WorkerEnv& env, const WorkerOptions& options, proto::Hello::Role kind, WorkerRole& role);

  Task<void> run();
  bool registered() const { return epoch_ != 0; }
  void drain();
  void stop();
  // Dropped if the coordinator of the message's epoch is not there any more.
  void send(const proto::Envelope& message);
  void send_failed(AttemptId id, const Failure& failure);
  void send_ended(AttemptId id);  // nothing of it is held

 private:
  Task<void> serve();  // one connection; the error says why it ended
  Result<void> on_event(const ControlEvent& event);
  Result<void> on_message(const proto::Envelope& message);
  bool drained() const;
  proto::Envelope hello() const;
  proto::Envelope heartbeat() const;

  const WorkerEnv& env_;
  const WorkerOptions& options_;
  proto::Hello::Role kind_;
  WorkerRole& role_;
  uint64_t incarnation_;
  std::unique_ptr<ControlPlane> plane_;
  std::optional<PeerId> peer_;
  uint64_t epoch_ = 0;  // of the coordinator that has welcomed us; 0: none
  Time lease_until_{0};  // the coordinator is lost if nothing is heard of it by then
  Time heartbeat_at_{0};
  std::optional<Time> drain_until_;
  AbsenceReports absence_;
  bool stopping_ = false;
};

}  // namespace runahead
