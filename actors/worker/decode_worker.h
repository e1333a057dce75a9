// DecodeWorker: the last link of the chain, with an empty range (docs/ARCHITECTURE.md, idea 5). It receives K/V of the
// whole prompt by the same path as every rank, joins a sequence to the running batch when its manifest is complete and
// its first token is known, and sends tokens as they are made. Decisions: actors/worker/decode_core.h.
//   threads  the executor's one thread; the model runs on the lane.
//   owner    leases and streams of its sequences. Destroy it only after run() has returned.
//   limits   WorkerOptions::attempts_max sequences; pages for prompt + max_new_tokens are leased at the start, so a
//            sequence that has joined never waits for memory.
#pragma once

#include <memory>

#include "actors/worker/worker_env.h"

namespace runahead {

class DecodeWorker {
 public:
  DecodeWorker(WorkerEnv env, WorkerOptions options);
  ~DecodeWorker();

  // As PrefillWorker's.
  Task<void> run();
  bool registered() const;
  void drain();
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
