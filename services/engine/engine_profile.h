// Measures how fast this worker's engine is, before its first request: the planner's cost model (planner/cost_model.h)
// needs a first guess, which live measurements then refine. About 50 ms for SmolLM2 on two cores.
#pragma once

#include "base/clock.h"
#include "model/engine.h"

namespace runahead {

struct EngineProfile {
  double seconds_per_token = 0;    // all layers: QKV, output projection, MLP
  double seconds_per_pair = 0;  // all layers, per (query token, key token)
};

// kOverloaded if a device has no room for the pages of one layer.
Result<EngineProfile> measure_engine(Engine& engine, const Clock& clock);

}  // namespace runahead
