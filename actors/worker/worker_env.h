// What a worker gets from outside: every seam to time, randomness, network, memory and model, and its options. Services
// (or tests/sim) build these; the worker owns none of them and they outlive it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "actors/test_faults.h"
#include "actors/worker/compute_lane.h"
#include "actors/worker/worker_sink.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/rng.h"
#include "model/engine.h"
#include "model/grammar/grammars.h"
#include "model/kv_pages.h"
#include "transport/control/control_plane.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

// A new connection to the coordinator: TcpControlClient::connect in production. The worker calls it again, with
// backoff, whenever the last connection has ended.
using ConnectControl = std::function<Task<std::unique_ptr<ControlPlane>>(Deadline)>;

struct WorkerEnv {
  asio::any_io_executor executor;
  Clock& clock;
  Rng& rng;
  KvTransport& kv;  // its memory is registered: register_memory(pool.memory())
  ComputeLane& lane;
  Engine& engine;
  KvPool& pool;
  WorkerSink& metrics;
  grammar::Grammars& grammars;  // used on the lane
  ConnectControl connect;
  // Jobs of the lane that have ended and pages that have come. Shared with the attempts; told in heartbeats.
  std::shared_ptr<uint64_t> work_done = std::make_shared<uint64_t>(0);
};

struct WorkerOptions {
  std::string name;  // for people: host:pid or --name
  std::string device;  // "cpu avx512 bf16, 2 threads"
  double seconds_per_token = 0;  // WorkerSpeed, measured at start; 0: not measured
  double seconds_per_pair = 0;
  int32_t attempts_max = 8;  // in work at once; the coordinator sends no more (attempts_for_pool())
  int32_t decode_slots = 0;  // sequences that one decode step takes; 0: all that have joined
  std::function<void()> on_registered;  // called whenever a coordinator has welcomed it
  TestFaults faults;
};

// As many attempts as the pool holds, each at least a page in every layer.
inline int32_t attempts_for_pool(int64_t pages, int32_t num_layers) {
  return static_cast<int32_t>(std::clamp<int64_t>(pages / num_layers, 1, limits::kAttemptsPerWorkerMax));
}

}  // namespace runahead
