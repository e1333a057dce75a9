#include "planner/chain_timeline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/rng.h"
#include "page_simulation.h"
#include "planner/split_table.h"
#include "planner/strategies.h"
#include "small_model.h"

namespace runahead {
namespace {

Partition random_partition(SeededRng& rng, int32_t context_len, size_t ranks) {
  const int32_t pages = pages_for(context_len);
  std::vector<int32_t> cuts;
  while (cuts.size() + 1 < ranks) {
    const auto cut = static_cast<int32_t>(1 + rng.next() % static_cast<uint64_t>(pages - 1)) * kPageTokens;
    if (std::ranges::find(cuts, cut) == cuts.end()) cuts.push_back(cut);
  }
  std::ranges::sort(cuts);
  return *partition_by_hand(context_len, cuts);
}

TEST(ChainTimeline, OneRankIsThePlainCost) {
  const ModelCost model = small_model();
  const WorkerProfile worker{.speed = {.seconds_per_token = 1e-4, .seconds_per_pair = 2e-8}, .ingress = default_link()};
  const TokenRange all{0, 1000};
  const ChainTimeline timeline = chain_timeline(model, std::span(&worker, 1), std::span(&all, 1));
  EXPECT_NEAR(timeline.ttft_seconds, compute_seconds(worker.speed, chunk_work(model, all, true)), 1e-12);
  EXPECT_EQ(timeline.ranks[0].kv_wait_seconds, 0);
}

// Any workers, links and cuts: the recurrence against the chain played page by page.
TEST(ChainTimeline, AgreesWithThePageByPageSimulation) {
  SeededRng rng(7);
  std::vector<double> errors;
  for (int round = 0; round < 400; ++round) {
    const ModelCost model = small_model();
    const auto context_len = static_cast<int32_t>(log_uniform(rng, 600, 9000));
    const size_t ranks = 2 + rng.next() % 5;
    std::vector<WorkerProfile> chain;
    const double bandwidth = log_uniform(rng, 5e6, 5e9);  // from hopelessly link-bound to free
    for (size_t i = 0; i < ranks; ++i)
      chain.push_back(
          {.speed = {.seconds_per_token = uniform(rng, 0.7e-4, 1.4e-4), .seconds_per_pair = uniform(rng, 1e-8, 3e-8)},
           .ingress = {.latency_seconds = log_uniform(rng, 1e-5, 1e-3),
                       .bytes_per_second = bandwidth * uniform(rng, 0.6, 1.5),
                       .links = 1 + round % 3}});
    const Partition partition = round % 2 == 0 ? even_partition(context_len, static_cast<int32_t>(ranks))
                                               : random_partition(rng, context_len, ranks);
    const ChainTimeline predicted = chain_timeline(model, chain, partition);
    const ChainTimeline played = simulate_pages(model, chain, partition);
    errors.push_back(std::abs(predicted.ttft_seconds / played.ttft_seconds - 1));
    EXPECT_LT(errors.back(), 0.03) << "round " << round << " ranks " << ranks << " tokens " << context_len;
    for (size_t i = 0; i < partition.size(); ++i)
      EXPECT_NEAR(predicted.ranks[i].compute_seconds, played.ranks[i].compute_seconds,
                  1e-9 + 1e-9 * played.ranks[i].compute_seconds)
          << "round " << round;
  }
  std::ranges::sort(errors);
  std::printf("timeline against pages: median %.4f p90 %.4f p99 %.4f max %.4f\n", errors[200], errors[360], errors[396],
              errors[399]);
  EXPECT_LT(errors[200], 0.002);  // so little that what a measurement differs by is noise and speeds, not the formula
  EXPECT_LT(errors[380], 0.01);
}

// 1,024 workers and 10 million tokens on Llama's shape: no less than the work divided, and within a tenth of it on fast links.
TEST(ChainTimeline, ReachesInternetScale) {
  const ModelCost model = model_cost({.num_layers = 32,
                                      .model_dim = 4096,
                                      .num_heads = 32,
                                      .num_kv_heads = 8,
                                      .head_dim = 128,
                                      .ffn_dim = 14336,
                                      .vocab_size = 128256},
                                     2 * 2 * 64 * 8 * 128);
  const WorkerProfile worker{.speed = {.seconds_per_token = 2.4e-5, .seconds_per_pair = 1e-9},
                             .ingress = {.latency_seconds = 1e-5, .bytes_per_second = 400e9, .links = 8}};
  const std::vector<WorkerProfile> chain(1024, worker);
  constexpr int32_t kTokens = 10'000'000;
  const Plan plan = make_plan({.context_len = kTokens, .model = model, .workers = chain, .ranks = 1024}).value();
  ASSERT_EQ(plan.ranks.size(), 1024u);
  const double alone = compute_seconds(worker.speed, chunk_work(model, {0, kTokens}, true));
  EXPECT_GT(plan.predicted_ttft_seconds, 0.97 * alone / 1024) << "but for the last layer, which nobody waits for";
  EXPECT_LT(plan.predicted_ttft_seconds, 1.1 * alone / 1024);
}

TEST(ChainTimeline, JitterIsDrawnFromItsSeedAndCostsMoreTheSlowerTheLinks) {
  const ModelCost model = small_model();
  const auto grown = [&](double bytes_per_second, const Jitter& jitter) {
    const std::vector<WorkerProfile> chain(
        8, {.speed = {.seconds_per_token = 1e-4, .seconds_per_pair = 2e-8}, .ingress = {1e-4, bytes_per_second}});
    const Partition partition = pages_of(balanced_chunks(model, chain, 8192), 8192);
    const double steady = chain_timeline(model, chain, partition).ttft_seconds;
    double sum = 0;
    for (uint64_t seed = 1; seed <= 50; ++seed) {
      Jitter one = jitter;
      one.seed = seed;
      const double seconds = chain_timeline(model, chain, partition, one).ttft_seconds;
      EXPECT_EQ(seconds, chain_timeline(model, chain, partition, one).ttft_seconds);
      sum += seconds;
    }
    return sum / 50 / steady - 1;
  };
  EXPECT_NEAR(grown(1e9, {}), 0, 1e-12);
  const double fast = grown(3e10, {.stall_probability = 0.05}), slow = grown(1e9, {.stall_probability = 0.05});
  EXPECT_GE(fast, 0);
  EXPECT_LT(fast, 0.037) << "the paper's bar for side traffic";
  EXPECT_GT(slow, fast);
  EXPECT_GT(grown(3e10, {.compute_spread = 0.1}), 0.01) << "ranks wait for whoever stutters";
}

TEST(ChainTimeline, FasterLinksAndWorkersNeverPredictALaterToken) {
  SeededRng rng(3);
  for (int round = 0; round < 300; ++round) {
    const ModelCost model = small_model();
    const auto context_len = static_cast<int32_t>(log_uniform(rng, 600, 9000));
    const size_t ranks = 2 + rng.next() % 6;
    std::vector<WorkerProfile> chain(ranks, {.speed = {.seconds_per_token = 1e-4, .seconds_per_pair = 2e-8},
                                             .ingress = {1e-4, log_uniform(rng, 1e7, 1e9)}});
    const Partition partition = random_partition(rng, context_len, ranks);
    const double before = chain_timeline(model, chain, partition).ttft_seconds;
    WorkerProfile& one = chain[rng.next() % ranks];
    switch (round % 4) {
      case 0:
        one.speed.seconds_per_token *= 0.8;
        break;
      case 1:
        one.speed.seconds_per_pair *= 0.8;
        break;
      case 2:
        one.ingress.bytes_per_second *= 1.3;
        break;
      default:
        one.ingress.latency_seconds = 0;
        break;
    }
    EXPECT_LE(chain_timeline(model, chain, partition).ttft_seconds, before * (1 + 1e-12)) << "round " << round;
  }
}

TEST(ChainTimeline, TimeIsNeverBelowTheLongestRankNorTheBusiestLink) {
  SeededRng rng(5);
  for (int round = 0; round < 300; ++round) {
    const ModelCost model = small_model();
    const size_t ranks = 2 + rng.next() % 6;
    std::vector<WorkerProfile> chain(ranks, {.speed = {.seconds_per_token = 1e-4, .seconds_per_pair = 2e-8},
                                             .ingress = {1e-4, log_uniform(rng, 1e7, 1e9)}});
    const Partition partition = random_partition(rng, 4096, ranks);
    const ChainTimeline timeline = chain_timeline(model, chain, partition);
    const double last_compute = timeline.ranks.back().compute_seconds;
    EXPECT_GE(timeline.ttft_seconds * (1 + 1e-9), last_compute + timeline.ranks.back().kv_wait_seconds);
    EXPECT_GE(timeline.ttft_seconds,
              model.kv_bytes_per_token * partition.back().begin / chain.back().ingress.bytes_per_second);
  }
}

}  // namespace
}  // namespace runahead
