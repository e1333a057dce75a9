// ChainTimeline: the predicted way of one prompt through a chain, layer by layer: paper 4.1 and what is ours
// (docs/paper.md). Receives of all layers are posted in advance, own K,V leave right after QKV, upstream pages are forwarded
// as they arrive (a page is held back by one page time and one latency a hop), a link serves the lowest layer first,
// attention takes prefix pages as they come and its own chunk last. Pure arithmetic, any thread; O(layers x ranks), a
// few microseconds. As large as anybody has: 1,024 workers and 10 million tokens take a millisecond.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planner/cost_model.h"
#include "planner/partition.h"

namespace runahead {

struct RankTimeline {
  double compute_seconds = 0;
  double kv_wait_seconds = 0;  // waiting for prefix pages, summed over layers
};

struct ChainTimeline {
  double ttft_seconds = 0;  // from now to the first token's logits; a rank begins after its busy_seconds
  std::vector<RankTimeline> ranks;
};

// chain[r] is the worker of rank r. The partition is valid (check_partition) and as long as the chain.
ChainTimeline chain_timeline(const ModelCost& model, std::span<const WorkerProfile> chain,
                             std::span<const TokenRange> partition);

// How unsteady workers and links are, for simulations.
struct Jitter {
  double stall_probability = 0;  // of a layer's transfer over one link: it takes stall_factor times as long
  double stall_factor = 5;
  double compute_spread = 0;  // of a rank's time for a layer: the standard deviation of its logarithm
  uint64_t seed = 1;
};
// One way that it may go. Each layer of each rank draws anew.
ChainTimeline chain_timeline(const ModelCost& model, std::span<const WorkerProfile> chain,
                             std::span<const TokenRange> partition, const Jitter& jitter);

// K/V rows (tokens of one layer) that cross any link of the chain: sum of all prefixes. Paper equations 6 and 7.
int64_t chain_traffic_rows(std::span<const TokenRange> partition);

}  // namespace runahead
