// Paper 4.2, context-level load-balancing, and the bounds of paper section 3: what the planner must reproduce.
#include <gtest/gtest.h>

#include <numeric>

#include "planner/strategies.h"

namespace runahead {
namespace {

constexpr double kK = 1024;  // the paper's "k"

// The paper's machine: Llama 7B on A100, dense attention, FP16. a and b fitted to Table 3's column of one GPU
// (reference/paper.md 2.6: 0.1, .24, .65, 1.95, 3.95 s for 1k, 2k, 4k, 8k, 12k).
constexpr WorkerSpeed kA100{.a = 0.0790 / kK, .b = 0.02075 / (kK * kK)};

ModelCost llama7b() {
  ModelCost model = model_cost({.num_layers = 32,
                                .model_dim = 4096,
                                .num_heads = 32,
                                .num_kv_heads = 32,
                                .head_dim = 128,
                                .ffn_dim = 11008,
                                .vocab_size = 32000},
                               2 * 2 * 64 * 32 * 128);
  model.diagonal_share = 1;  // "dense BLAS-3 QK^T, then mask"
  model.skip_last_layer = false;
  model.head_tokens = 0;
  return model;
}

std::vector<WorkerProfile> gpus(size_t count, double bytes_per_second = 300e9) {
  return std::vector(count, WorkerProfile{.speed = kA100,
                                          .ingress = {.latency_seconds = 20e-6, .bytes_per_second = bytes_per_second}});
}

std::vector<double> shares(int32_t context_len, size_t ranks) {
  std::vector<double> chunks = balanced_chunks(llama7b(), gpus(ranks), context_len);
  for (double& chunk : chunks) chunk /= context_len;
  return chunks;
}

// Table 3's column of one GPU: the two constants are the paper's.
TEST(PaperTable3, TwoConstantsGiveTheTimesOfOneGpu) {
  const std::pair<int32_t, double> column[] = {{1024, .10}, {2048, .24}, {4096, .65}, {8192, 1.95}, {12288, 3.95}};
  for (const auto& [context_len, seconds] : column) {
    const PlanRequest request{
        .strategy = Strategy::kSingle, .context_len = context_len, .model = llama7b(), .workers = gpus(1)};
    EXPECT_NEAR(make_plan(request)->predicted_ttft_seconds, seconds, 0.016)
        << context_len;  // printed with two decimals
  }
}

// "[0.350, 0.255, 0.210, 0.185]": the interpolated split of 10k tokens on 4 GPUs.
TEST(Paper42, BalancedReproducesThePredictedPartitionOf10kOn4Gpus) {
  const double paper[] = {.350, .255, .210, .185};
  const std::vector<double> ours = shares(10240, 4);
  for (size_t rank = 0; rank < 4; ++rank) EXPECT_NEAR(ours[rank], paper[rank], 0.003) << rank;
}

// "16k: ... [0, 9728, 16384]": the binary search on 2 GPUs.
TEST(Paper42, BalancedReproducesTheBinarySearchOf16kOn2Gpus) {
  EXPECT_NEAR(shares(16384, 2)[0], 9728.0 / 16384, 0.004);
}

// "Earlier processes need to consume more contexts, and the later ones consume less."
TEST(Paper42, EarlierProcessesConsumeMoreContexts) {
  for (size_t ranks : {2, 3, 4, 8})
    for (int32_t context_len : {2048, 8192, 16384, 65536}) {
      const std::vector<double> ours = shares(context_len, ranks);
      for (size_t rank = 1; rank < ranks; ++rank) EXPECT_LT(ours[rank], ours[rank - 1]);
    }
}

// Table 4: 11 words on 4 ranks, TSP [3,3,3,2], KVR [5,3,2,1]. Attention only, to the word.
TEST(PaperTable4, TheExampleOf11WordsHasThePapersShape) {
  std::vector<WorkerProfile> ranks = gpus(4, 1e15);
  for (WorkerProfile& rank : ranks) rank.speed = {.a = 1e-12, .b = 1};
  const std::vector<double> words = balanced_chunks(llama7b(), ranks, 11);
  const double paper[] = {5, 3, 2, 1};
  for (size_t rank = 0; rank < 4; ++rank) EXPECT_NEAR(words[rank], paper[rank], 1.0) << rank;
}

// "Two conflicting aims: early parts small (others wait), late parts small (they finish last)": all ranks end together.
TEST(Paper42, AllRanksComputeEquallyLong) {
  for (size_t ranks : {2, 4, 8}) {
    const ModelCost model = llama7b();
    const std::vector<double> chunks = balanced_chunks(model, gpus(ranks), 16384);
    double prefix = 0;
    std::vector<double> times;
    for (double chunk : chunks) {
      times.push_back(kA100.a * chunk + kA100.b * chunk * (prefix + chunk));
      prefix += chunk;
    }
    EXPECT_NEAR(prefix, 16384, 1e-6);
    for (double time : times) EXPECT_NEAR(time, times[0], 1e-6 * times[0]);
  }
}

// Fig 10 compares KVR-S with KVR-E: balance beats even chunks, the more so the longer the prompt.
TEST(Paper42, BalancedBeatsEven) {
  double last_gain = 1;
  for (int32_t context_len : {4096, 8192, 16384}) {
    PlanRequest request{
        .strategy = Strategy::kEven, .context_len = context_len, .model = llama7b(), .workers = gpus(8)};
    const double even = make_plan(request)->predicted_ttft_seconds;
    request.strategy = Strategy::kBalanced;
    const double gain = even / make_plan(request)->predicted_ttft_seconds;
    EXPECT_GT(gain, last_gain);
    last_gain = gain;
  }
  EXPECT_NEAR(last_gain, 1.52, 0.05);  // reference/paper.md 2.6: 16k on 8 GPUs
}

// Equations 2 and 3: TTFT*(p) = TTFT(1)/2 * (1/p + 1/p^2) for attention only, dense: x2.67, x6.4, x14.2.
TEST(PaperSection3, LowerBoundOfTheDenseKernel) {
  for (const auto& [ranks, speedup] : {std::pair{2, 2.67}, {4, 6.4}, {8, 14.2}}) {
    const double bound = 2.0 / (1.0 / ranks + 1.0 / (ranks * ranks));
    EXPECT_NEAR(bound, speedup, 0.03);
    std::vector<WorkerProfile> chain = gpus(static_cast<size_t>(ranks), 1e18);
    for (WorkerProfile& rank : chain) rank.speed = {.a = 1e-15, .b = 1e-9};
    PlanRequest request{.context_len = 1 << 20, .model = llama7b(), .workers = chain, .ranks = ranks};
    const double parallel = make_plan(request)->predicted_ttft_seconds;
    request.strategy = Strategy::kSingle;
    const double speedup_ours = make_plan(request)->predicted_ttft_seconds / parallel;
    EXPECT_LT(speedup_ours, bound * 1.001)
        << ranks;  // a bound: uneven chunks waste more of the diagonal than even ones
    EXPECT_GT(speedup_ours, bound * 0.84) << ranks;
  }
}

// With a causal kernel on every side, TTFT(1) already has the half, and the best speedup is exactly p; but for the last
// layer's attention and MLP of the first ranks, which nobody waits for: less than one layer in 32.
TEST(PaperSection3, ACausalKernelScalesByExactlyP) {
  ModelCost model = llama7b();
  model.diagonal_share = 0.5;
  for (int32_t ranks : {2, 4, 8}) {
    PlanRequest request{
        .context_len = 1 << 18, .model = model, .workers = gpus(static_cast<size_t>(ranks), 1e18), .ranks = ranks};
    for (WorkerProfile& worker : request.workers) worker.ingress.latency_seconds = 0;
    const double parallel = make_plan(request)->predicted_ttft_seconds;
    request.strategy = Strategy::kSingle;
    EXPECT_NEAR(make_plan(request)->predicted_ttft_seconds / parallel, ranks, ranks / 32.0);
  }
}

}  // namespace
}  // namespace runahead
