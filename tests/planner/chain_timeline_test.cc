#include "planner/chain_timeline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/rng.h"
#include "page_simulation.h"

namespace runahead {
namespace {

// SmolLM2-135M's shape with float32 pages: what the tests and the default deployment run.
ModelCost small_model() {
  return model_cost({.num_layers = 30,
                     .model_dim = 576,
                     .num_heads = 9,
                     .num_kv_heads = 3,
                     .head_dim = 64,
                     .ffn_dim = 1536,
                     .vocab_size = 49152},
                    2 * 4 * 64 * 3 * 64);
}

double uniform(SeededRng& rng, double low, double high) {
  return low + (high - low) * static_cast<double>(rng.next() >> 11) * 0x1.0p-53;
}
double log_uniform(SeededRng& rng, double low, double high) {
  return std::exp(uniform(rng, std::log(low), std::log(high)));
}

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
                       .bytes_per_second = bandwidth * uniform(rng, 0.6, 1.5)}});
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
