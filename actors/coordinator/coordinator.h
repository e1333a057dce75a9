// Coordinator: the shell around CoordinatorCore (actors/coordinator/coordinator_core.h). It turns control-plane events, time and
// the gateway's calls into steps of the core, and the core's actions into messages and stream events.
//   threads  the executor's one thread; so is every call of InferenceService.
//   owner    the core and the ends of all token streams. Token streams may outlive it; they then say kUnavailable.
//   limits   base/limits.h, requests. Timers are as fine as kTick.
#pragma once

#include <memory>
#include <string>

#include "actors/inference.h"
#include "actors/metrics_sink.h"
#include "actors/test_faults.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/rng.h"
#include "model/engine.h"
#include "transport/control/control_plane.h"

namespace runahead {

struct CoordinatorEnv {
  asio::any_io_executor executor;
  Clock& clock;
  Rng& rng;               // stream tokens: seed it from the operating system
  ControlPlane& control;  // the server side
  MetricsSink& metrics;
};

struct CoordinatorOptions {
  uint64_t epoch = 1;        // from JobStore::load: grows with every start
  ModelShape shape;          // of the model that is served
  // What workers must have; what is left empty the workers agree on (actors/coordinator/worker_registry.h).
  std::string model;         // what their fingerprint begins with: the hash of the model file
  std::string fingerprint;   // Engine::fingerprint()
  std::string kv_transport;  // KvTransport::name()
  Duration stall_timeout = limits::kStallTimeout;  // of an attempt on which nothing moves
  TestFaults faults;
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

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;  // token streams hold it weakly
};

}  // namespace runahead
