// A model to plan for, and numbers by chance.
#pragma once

#include <cmath>

#include "base/rng.h"
#include "planner/profile.h"

namespace runahead {

// SmolLM2-135M's shape with float32 pages: what the tests and the default deployment run.
inline ModelCost small_model() {
  return model_cost({.num_layers = 30,
                     .model_dim = 576,
                     .num_heads = 9,
                     .num_kv_heads = 3,
                     .head_dim = 64,
                     .ffn_dim = 1536,
                     .vocab_size = 49152},
                    2 * 4 * 64 * 3 * 64);
}

inline double uniform(SeededRng& rng, double low, double high) {
  return low + (high - low) * static_cast<double>(rng.next() >> 11) * 0x1.0p-53;
}
inline double log_uniform(SeededRng& rng, double low, double high) {
  return std::exp(uniform(rng, std::log(low), std::log(high)));
}

}  // namespace runahead
