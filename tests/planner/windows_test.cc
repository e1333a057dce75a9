// What a model costs whose layers see the last tokens only.
#include <gtest/gtest.h>

#include <algorithm>

#include "planner/chain_timeline.h"
#include "planner/strategies.h"

namespace runahead {
namespace {

// Gemma 3 4B's shape: five of six layers see 1,024 tokens.
ModelShape gemma3_shape() {
  ModelShape shape{.num_layers = 34,
                   .model_dim = 2560,
                   .num_heads = 8,
                   .num_kv_heads = 4,
                   .head_dim = 256,
                   .ffn_dim = 10240,
                   .vocab_size = 262144};
  for (int32_t layer = 0; layer < shape.num_layers; ++layer) shape.windows.push_back(layer % 6 < 5 ? 1024 : 0);
  return shape;
}

constexpr size_t kPageBytes = 2 * 2 * 64 * 4 * 256;

TEST(Windows, PairsAreThoseThatTheLayersSee) {
  const ModelCost model = model_cost(gemma3_shape(), kPageBytes);
  for (const auto& [prefix, n] : {std::pair{0, 500}, {0, 4000}, {300, 64}, {700, 2000}, {8000, 1000}}) {
    double pairs = 0;  // of all layers
    for (const int32_t window : gemma3_shape().windows)
      for (int32_t at = prefix; at < prefix + n; ++at) {
        const double sees = window > 0 ? std::min<double>(window + kPageTokens / 2.0, at) : at;
        pairs += sees + 0.5;  // a token's own pair counts half, as in n^2 / 2
      }
    EXPECT_NEAR(attention_pairs(model, prefix, n), pairs / model.num_layers, 0.002 * pairs / model.num_layers)
        << n << " behind " << prefix;
  }
}

TEST(Windows, ALinkCarriesWhatIsInReach) {
  const ModelCost model = model_cost(gemma3_shape(), kPageBytes);
  EXPECT_DOUBLE_EQ(tokens_in_reach(model, 640), 640);
  const double full = 5.0 / 34;  // of the layers see all
  EXPECT_NEAR(tokens_in_reach(model, 8192), full * 8192 + (1 - full) * (1024 + 32), 1e-6);
  for (const double prefix : {10.0, 1056.0, 5000.0, 100000.0})
    EXPECT_NEAR(prefix_of_reach(model, tokens_in_reach(model, prefix)), prefix, 1e-6 * prefix);
}

TEST(Windows, AModelWithoutAnyIsAsBefore) {
  ModelShape shape = gemma3_shape();
  shape.windows.clear();
  const ModelCost model = model_cost(shape, kPageBytes);
  EXPECT_DOUBLE_EQ(attention_pairs(model, 300, 200), 300 * 200 + 0.5 * 200 * 200);
  EXPECT_DOUBLE_EQ(tokens_in_reach(model, 12345), 12345);
  EXPECT_DOUBLE_EQ(prefix_of_reach(model, 12345), 12345);
}

// Chunks are cut so that all ranks are done at about the same time; with windows they are less uneven.
TEST(Windows, ChunksAreBalanced) {
  ModelShape shape = gemma3_shape();
  std::vector<double> unevenness;
  for (const bool windowed : {true, false}) {
    if (!windowed) shape.windows.clear();
    const ModelCost model = model_cost(shape, kPageBytes);
    const WorkerProfile worker{.speed = {.seconds_per_token = 1e-3, .seconds_per_pair = 4e-7},
                               .ingress = {.latency_seconds = 0, .bytes_per_second = 1e12}};
    const std::vector<WorkerProfile> chain(4, worker);
    const std::vector<double> chunks = balanced_chunks(model, chain, 16384);
    double begin = 0, least = 1e9, most = 0;
    for (size_t rank = 0; rank < chunks.size(); ++rank) {
      const Work work = chunk_work(model, {static_cast<int32_t>(begin), static_cast<int32_t>(begin + chunks[rank])},
                                   rank + 1 == chunks.size());
      least = std::min(least, compute_seconds(worker.speed, work));
      most = std::max(most, compute_seconds(worker.speed, work));
      begin += chunks[rank];
    }
    EXPECT_NEAR(begin, 16384, 1);
    EXPECT_LT(most / least, 1.06) << windowed;
    unevenness.push_back(chunks.front() / chunks.back());
  }
  EXPECT_GT(unevenness[0], 1.1);
  EXPECT_GT(unevenness[1], 1.2 * unevenness[0]);
}

}  // namespace
}  // namespace runahead
