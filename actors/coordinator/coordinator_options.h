// CoordinatorOptions: what the core and the registry are told of the cluster.
#pragma once

#include <optional>
#include <string>

#include "actors/test_faults.h"
#include "base/clock.h"
#include "base/limits.h"
#include "model/engine.h"
#include "planner/profile.h"
#include "planner/split_table.h"

namespace runahead {

struct CoordinatorOptions {
  uint64_t epoch = 1;        // from JobStore::load: grows with every start
  ModelShape shape;          // of the model that is served
  // What workers must have; what is left empty the workers agree on (actors/coordinator/worker_registry.h).
  std::string model;         // what their fingerprint begins with: the hash of the model file
  std::string fingerprint;   // Engine::fingerprint()
  std::string kv_transport;  // KvTransport::name()
  std::optional<SplitTable> split_table;  // of `runahead plan search`, for the strategies that read one
  SpeedMemory speeds;  // learnt in an earlier life
  bool prefix_cache = true;  // workers keep prompts' pages for prompts that begin alike
  Duration stall_timeout = limits::kStallTimeout;  // of an attempt on which nothing moves
  Duration queue_wait = limits::kQueueWait;  // refused is whose first token is predicted later, from kQueueWaitFrom on
  TestFaults faults;
};

}  // namespace runahead
