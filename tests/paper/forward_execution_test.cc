// Paper 4.1 and App A: traffic, waits and when parallel prefill pays.
#include <gtest/gtest.h>

#include "planner/strategies.h"

namespace runahead {
namespace {

// Equations 4 to 7: Net_tsp = (p-1) C, Net_kvr = sum of i C / p = (p-1) C / 2 for even chunks.
TEST(Paper41, TotalTrafficIsHalfOfAllGathers) {
  for (int32_t ranks : {2, 3, 4, 8, 16}) {
    const int32_t context_len = ranks * 1024;
    const int64_t all_gather = static_cast<int64_t>(ranks) * (ranks - 1) * (context_len / ranks);
    EXPECT_EQ(all_gather, static_cast<int64_t>(ranks - 1) * context_len);
    EXPECT_EQ(chain_traffic_rows(even_partition(context_len, ranks)) * 2, all_gather);
  }
}

// Figures 4 and 5: C = 9, p = 3, chunks [4,3,2]: 16, 21, 18 dot products against 27 each; 22 K,V rows (11 of each)
// against 36.
TEST(Paper41, TheExampleOfNineTokensCountsAsInTheFigures) {
  const Partition chunks = {{0, 4}, {4, 7}, {7, 9}};
  ModelCost dense{.num_layers = 1, .diagonal_share = 1, .skip_last_layer = false};
  const double products[] = {16, 21, 18};
  for (size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(chunk_work(dense, chunks[rank], rank == 2).pairs, products[rank]);
  EXPECT_EQ(2 * chain_traffic_rows(chunks), 22);
  const int32_t ranks = 3, context_len = 9;
  EXPECT_EQ(2 * (ranks - 1) * context_len, 36);
}

// "Only the last process ends with the full (K,V)": nobody receives more than its prefix, and the last one the most.
TEST(Paper41, TheBusiestLinkIsTheOneIntoTheLastProcess) {
  const Partition even = even_partition(8192, 4);
  for (size_t rank = 1; rank < 4; ++rank) EXPECT_GT(even[rank].begin, even[rank - 1].begin);
  EXPECT_EQ(even.back().end, 8192);
}

// App A, Table 3: at 1 GB/s more GPUs are not always better (8k: 1.31 s on 2, 2.06 s on 4), at 300 GB/s they are.
TEST(PaperAppA, ParallelPrefillHelpsOnlyIfTheLinkIsFastEnough) {
  ModelCost model = model_cost({.num_layers = 32,
                                .model_dim = 4096,
                                .num_heads = 32,
                                .num_kv_heads = 32,
                                .head_dim = 128,
                                .ffn_dim = 11008,
                                .vocab_size = 32000},
                               2 * 2 * 64 * 32 * 128);
  model.diagonal_share = 1;
  const WorkerSpeed a100{.a = 0.0790 / 1024, .b = 0.02075 / (1024.0 * 1024)};
  auto ranks_at = [&](double bytes_per_second, int32_t context_len) {
    const WorkerProfile worker{.speed = a100,
                               .ingress = {.latency_seconds = 20e-6, .bytes_per_second = bytes_per_second}};
    return make_plan({.context_len = context_len, .model = model, .workers = std::vector(4, worker)})->ranks.size();
  };
  EXPECT_EQ(ranks_at(300e9, 8192), 4u);
  EXPECT_EQ(ranks_at(0.02e9, 1024), 1u);  // a hopeless link: stay on one
  EXPECT_LE(ranks_at(0.3e9, 4096), ranks_at(10e9, 4096));
}

// "Or the prompt long enough": the same link carries a chain for a long prompt that it does not for a short one.
TEST(PaperAppA, LongPromptsGainMoreFromTheChain) {
  ModelCost model = model_cost({.num_layers = 32,
                                .model_dim = 4096,
                                .num_heads = 32,
                                .num_kv_heads = 32,
                                .head_dim = 128,
                                .ffn_dim = 11008,
                                .vocab_size = 32000},
                               2 * 2 * 64 * 32 * 128);
  const WorkerProfile worker{.speed = {.a = 0.0790 / 1024, .b = 0.02075 / (1024.0 * 1024)},
                             .ingress = {.latency_seconds = 20e-6, .bytes_per_second = 3e9}};
  double last_speedup = 0;
  for (int32_t context_len : {1024, 4096, 16384, 65536}) {
    PlanRequest request{.context_len = context_len, .model = model, .workers = std::vector(4, worker)};
    const double chain = make_plan(request)->predicted_ttft_seconds;
    request.strategy = Strategy::kSingle;
    const double speedup = make_plan(request)->predicted_ttft_seconds / chain;
    EXPECT_GT(speedup, last_speedup);
    last_speedup = speedup;
  }
  EXPECT_GT(last_speedup, 3.5);
}

// reference/paper.md 4.1: compute-bound, the chain's skew is paid once, not once a layer.
TEST(Paper41, ComputeBoundTheSkewIsPaidOnce) {
  ModelCost model = model_cost({.num_layers = 32,
                                .model_dim = 4096,
                                .num_heads = 32,
                                .num_kv_heads = 32,
                                .head_dim = 128,
                                .ffn_dim = 11008,
                                .vocab_size = 32000},
                               2 * 2 * 64 * 32 * 128);
  const WorkerProfile worker{.speed = {.a = 0.0790 / 1024, .b = 0.02075 / (1024.0 * 1024)},
                             .ingress = {.latency_seconds = 20e-6, .bytes_per_second = 300e9}};
  const Plan plan = *make_plan({.context_len = 16384, .model = model, .workers = std::vector(8, worker), .ranks = 8});
  double longest = 0;
  for (const PlannedRank& rank : plan.ranks) longest = std::max(longest, rank.compute_seconds);
  EXPECT_LT(plan.predicted_ttft_seconds, longest * 1.02);
}

}  // namespace
}  // namespace runahead
