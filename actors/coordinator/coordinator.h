// Coordinator: the shell around CoordinatorCore (actors/coordinator/coordinator_core.h). It turns control-plane events, time and
// the gateway's calls into steps of the core, and the core's actions into messages and stream events.
//   threads  the executor's one thread; so is every call of InferenceService.
//   owner    the core and the ends of all token streams. Token streams may outlive it; they then say kUnavailable.
//   limits   base/limits.h, requests. Timers are as fine as kTick.
#pragma once

#include <memory>

#include "actors/coordinator/coordinator_options.h"
#include "actors/coordinator/coordinator_sink.h"
#include "actors/inference.h"
#include "base/clock.h"
#include "base/rng.h"
#include "transport/control/control_plane.h"

namespace runahead {

struct CoordinatorEnv {
  asio::any_io_executor executor;
  Clock& clock;
  Rng& rng;  // stream tokens: SystemRng wherever they keep anybody out
  ControlPlane& control;  // the server side
  CoordinatorSink& metrics;
};

class Coordinator final : public InferenceService {
 public:
  Coordinator(CoordinatorEnv env, CoordinatorOptions options);
  ~Coordinator() override;  // after run() has returned

  // Serves until stop().
  asio::awaitable<void> run();
  void stop();
  // Takes no new requests; returns when those accepted have ended, or ends them at limits::kDrainTimeout.
  asio::awaitable<void> drain();

  Result<std::shared_ptr<TokenStream>> submit(InferenceRequest request) override;
  ClusterView cluster() const override;
  // What requests have taught of workers, for CoordinatorOptions::speeds of the next life.
  SpeedMemory speeds() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // token streams hold it weakly
};

}  // namespace runahead
