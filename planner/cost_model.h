// The cost model: what a chunk costs a worker and what K/V costs a link. Pure arithmetic, any thread.
//
//   T(prefix, n) = c + w * prefix + a * n + b * (n * prefix + g * n^2)   seconds of one worker for n tokens behind `prefix`
//   link(bytes)  = latency + bytes / bandwidth
//
// Where layers have a window, prefix stands for what of it is in their reach, n * prefix + g n^2 for the pairs that they see.
// a is WorkerSpeed::seconds_per_token (projections, MLP), b is seconds_per_pair (attention): these two alone reproduce the
// paper's searched splits (docs/paper.md). Measured workers have two more: c, seconds_per_chunk, whatever its length, and w,
// seconds_per_prefix_token, for pages that are received, checked and walked once. g is the share of the diagonal block that
// the kernel computes: 1/2 for a causal kernel (ours), 1 for the paper's dense one. Exact work, not only its leading terms:
// ranks before the last one stop after K,V of the last layer, and the last rank computes the last layer for its last token
// only.
#pragma once

#include <cstdint>
#include <span>

#include "base/model_shape.h"
#include "base/token_range.h"

namespace runahead {

// One worker's speed for one model.
struct WorkerSpeed {
  double seconds_per_token = 0;  // all that is linear in the tokens, all layers
  double seconds_per_pair = 0;  // attention of one (query, key) pair, all layers
  double seconds_per_chunk = 0;  // of any length
  double seconds_per_prefix_token = 0;  // K/V of one token before the chunk, all layers
};

inline WorkerSpeed scaled(const WorkerSpeed& speed, double factor) {
  return {speed.seconds_per_token * factor, speed.seconds_per_pair * factor, speed.seconds_per_chunk * factor,
          speed.seconds_per_prefix_token * factor};
}

// The link into a worker.
struct LinkSpeed {
  double latency_seconds = 0;
  double bytes_per_second = 0;  // of all links together
  int32_t links = 1;  // side by side; a page takes one of them
};

struct WorkerProfile {
  WorkerSpeed speed;
  LinkSpeed ingress;
  double busy_seconds = 0;  // of work that goes before this prompt's
};

// What the planner knows of a model.
struct ModelCost {
  int32_t num_layers = 0;
  double kv_bytes_per_token = 0;  // all layers, as on the wire
  double qkv_share = 0;  // QKV's part of the linear work of a layer, (0, 1)
  double head_tokens = 0;  // the output head for one row, in units of one token's linear work
  double linear_flops_per_token = 0;  // for speeds before the first measurement
  double attention_flops_per_pair = 0;
  double diagonal_share = 0.5;  // g
  // Layers that see the last tokens only: their share, and how many tokens they see, on average, to whole pages.
  double windowed_share = 0;
  double window = 0;
  bool skip_last_layer = true;  // false is the paper's chain
};

// page_bytes: of one page of one layer (Engine::page_bytes).
ModelCost model_cost(const ModelShape& shape, size_t page_bytes);

// Means over the layers, for `n` tokens behind `prefix` others: (query, key) pairs; and how many of those others are in reach,
// which is what K/V is sent for.
double attention_pairs(const ModelCost& model, double prefix, double n);
double tokens_in_reach(const ModelCost& model, double prefix);
// The longest prefix of which so many tokens are in reach; infinite if there is none.
double prefix_of_reach(const ModelCost& model, double tokens);

// The work of one chunk, in units of WorkerSpeed.
struct Work {
  double tokens = 0;  // linear work, in tokens through all layers
  double pairs = 0;  // attention, in (query, key) pairs through all layers
  double chunks = 0;
  double prefix_tokens = 0;  // through all layers; those in reach
};

Work chunk_work(const ModelCost& model, TokenRange chunk, bool is_last_rank);

inline double compute_seconds(const WorkerSpeed& speed, const Work& work) {
  return speed.seconds_per_token * work.tokens + speed.seconds_per_pair * work.pairs +
         speed.seconds_per_chunk * work.chunks + speed.seconds_per_prefix_token * work.prefix_tokens;
}

// A whole prompt on all workers at once, as if it could be divided without loss and they had nothing else to do.
double service_seconds(const ModelCost& model, std::span<const WorkerProfile> workers, int32_t context_len);

// Before the first measurement. A rate of one server core pair; wrong by a factor at most until the first request ends,
// and the same factor for all workers, so the cuts are right at once.
WorkerSpeed default_speed(const ModelCost& model);
LinkSpeed default_link();

}  // namespace runahead
