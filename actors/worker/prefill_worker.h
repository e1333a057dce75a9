// PrefillWorker: one rank of the chain per attempt, several attempts at once (paper 4.1). Each attempt
// is one straight coroutine; while it waits for pages, the lane works for another one.
//   threads  the executor's one thread; the model runs on the lane.
//   owner    leases and streams of its attempts. Destroy it only after run() has returned.
//   limits   WorkerOptions::attempts_max attempts; every wait ends by the attempt's deadline.
#pragma once

#include <memory>

#include "actors/worker/worker_env.h"

namespace runahead {

class PrefillWorker {
 public:
  PrefillWorker(WorkerEnv env, WorkerOptions options);
  ~PrefillWorker();

  // Connects, registers and serves, and again whenever the coordinator was lost, until stop() or the end of drain().
  // kIncompatible (with the coordinator's reason) if the coordinator will never take this worker.
  Task<void> run();
  bool registered() const;
  // Takes no new work; run() returns when what runs has ended, or after limits::kDrainTimeout.
  void drain();
  // Ends everything now; run() returns when all streams are closed and all pages are back.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
