// The machine of the paper's experiments: Llama 7B in FP16 with dense attention ("BLAS-3, then the mask"), 8 A100.
//   a and b are fitted to the column of one GPU in Table 3; PaperTable3.TwoConstantsGiveTheTimesOfOneGpu shows how well.
#pragma once

#include <vector>

#include "planner/strategies.h"

namespace runahead {

constexpr double kK = 1024;  // the paper's "k"
constexpr WorkerSpeed kA100{.seconds_per_token = 0.0790 / kK, .seconds_per_pair = 0.02075 / (kK * kK)};
constexpr double kHighBandwidth = 300e9, kLowBandwidth = 10e9, kPoorBandwidth = 1e9;  // section 5, App A

// The paper's chain: every rank computes all of every layer.
inline ModelCost llama7b() {
  ModelCost model = model_cost({.num_layers = 32,
                                .model_dim = 4096,
                                .num_heads = 32,
                                .num_kv_heads = 32,
                                .head_dim = 128,
                                .ffn_dim = 11008,
                                .vocab_size = 32000},
                               2 * 2 * 64 * 32 * 128);
  model.diagonal_share = 1;
  model.skip_last_layer = false;
  model.head_tokens = 0;
  return model;
}

inline std::vector<WorkerProfile> gpus(size_t count, double bytes_per_second = kHighBandwidth) {
  return std::vector(count, WorkerProfile{.speed = kA100,
                                          .ingress = {.latency_seconds = 20e-6, .bytes_per_second = bytes_per_second}});
}

// balanced chooses the number of GPUs unless `ranks` says it.
inline Plan plan(int32_t context_len, const std::vector<WorkerProfile>& workers,
                 Strategy strategy = Strategy::kBalanced, int32_t ranks = 0) {
  return *make_plan(
      {.strategy = strategy, .context_len = context_len, .model = llama7b(), .workers = workers, .ranks = ranks});
}

}  // namespace runahead
