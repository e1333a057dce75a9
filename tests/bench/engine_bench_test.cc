#include "bench/engine_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "bench/kernel_bench.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {
namespace {

TEST(Bench, SpreadIsTheFiveNumbersOfItsValues) {
  const Spread s = spread_of({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(s.min, 1);
  EXPECT_DOUBLE_EQ(s.lower_quartile, 1.75);
  EXPECT_DOUBLE_EQ(s.median, 2.5);
  EXPECT_DOUBLE_EQ(s.upper_quartile, 3.25);
  EXPECT_DOUBLE_EQ(s.max, 4);
  EXPECT_DOUBLE_EQ(spread_of({7}).upper_quartile, 7);
}

// Two operations a weight and token, and four a pair of query and key and dimension, one product after the other.
double operations_of_loops(const ModelShape& s, int32_t tokens) {
  double operations = 0;
  for (int32_t layer = 0; layer < s.num_layers; ++layer) {
    for (int32_t t = 0; t < tokens; ++t) {
      operations += 2.0 * s.model_dim * s.num_kv_heads * s.head_dim * 2;  // K and V
      if (layer == s.num_layers - 1 && t < tokens - 1) continue;
      operations += 2.0 * s.model_dim * s.num_heads * s.head_dim * 2;  // Q and the output projection
      operations += 2.0 * s.model_dim * s.ffn_dim * 3;                 // gate, up, down
      for (int32_t key = 0; key <= t; ++key) operations += 4.0 * s.num_heads * s.head_dim;
    }
  }
  return operations + 2.0 * s.model_dim * s.vocab_size;
}

TEST(Bench, PrefillOperationsAreThoseOfTheLoops) {
  const ModelShape shape{.architecture = "llama",
                         .num_layers = 3,
                         .model_dim = 96,
                         .num_heads = 6,
                         .num_kv_heads = 2,
                         .head_dim = 32,
                         .ffn_dim = 160,
                         .vocab_size = 500,
                         .context_len = 512};
  for (int32_t tokens : {1, 2, 65, 300})
    EXPECT_DOUBLE_EQ(prefill_operations(shape, tokens), operations_of_loops(shape, tokens)) << tokens;
  EXPECT_DOUBLE_EQ(decode_operations(shape, 1), operations_of_loops(shape, 1));
  EXPECT_DOUBLE_EQ(decode_operations(shape, 10) - decode_operations(shape, 9), 4.0 * 3 * 6 * 32);
}

TEST(Bench, DecodeBeginsAtAnEmptyContextAndReadsTheWeightsOnceForTheBatch) {
  TempDir dir;
  write_tiny_llama(dir / "m.gguf", 7);
  auto engine = *Transformer::load({.model = dir / "m.gguf", .compute = ComputeMode::kFp32});
  const int32_t batches[] = {1, 3};
  for (int32_t context : {0, 100}) {
    const auto results = bench_decode(*engine, context, batches, 4);
    ASSERT_TRUE(results.has_value()) << results.error().message;
    ASSERT_EQ(results->size(), 2u);
    const BenchResult &one = results->at(0), &three = results->at(1);
    EXPECT_EQ(three.tokens, 3);
    EXPECT_EQ(three.context, context);
    EXPECT_DOUBLE_EQ(three.operations, 3 * one.operations);
    const double kv_bytes = one.bytes - static_cast<double>(engine->packed_bytes());
    EXPECT_DOUBLE_EQ(three.bytes, one.bytes + 2 * kv_bytes);
    // K and V in fp32 of the tokens before the middle step and its own: context + 3.
    const ModelShape& s = engine->shape();
    EXPECT_DOUBLE_EQ(kv_bytes, (context + 3.0) * s.num_layers * s.num_kv_heads * s.head_dim * 2 * sizeof(float));
    EXPECT_GT(one.seconds.min, 0);
    EXPECT_DOUBLE_EQ(three.tokens_per_second(), 3 / three.seconds.median);
  }
  const auto too_long = bench_decode(*engine, engine->shape().context_len, batches, 4);
  ASSERT_FALSE(too_long.has_value());
  EXPECT_EQ(too_long.error().code, ErrorCode::kContextOverflow);
}

// Every table but plain C++, which is slow. Only what does not depend on the time is checked: a test machine is busy.
TEST(KernelBench, ReportsEveryKernelWithTheOperationsOfItsShape) {
  const ModelShape shape{.architecture = "llama",
                         .num_layers = 1,
                         .model_dim = 128,
                         .num_heads = 4,
                         .num_kv_heads = 2,
                         .head_dim = 64,
                         .ffn_dim = 256,
                         .vocab_size = 100,
                         .context_len = 8192};
  constexpr int32_t kRows[] = {1, 16}, kContexts[] = {64, 512};
  for (const OpTable* ops : runnable_ops()) {
    if (ops->isa == "generic") continue;
    std::map<std::string, KernelResult> results;
    bench_kernels(*ops, shape, {.name = "tiny", .rows = kRows, .contexts = kContexts, .repetitions = 1},
                  [&](const KernelResult& r) { results[r.what + "/" + std::to_string(r.rows)] = r; });
    EXPECT_EQ(results.size(), 1u + 5u * 2u + 2u) << ops->isa;  // dot; five products, two heights; two contexts
    EXPECT_DOUBLE_EQ(results["tiny qkv 128 -> 512 Q4_1/1"].operations, 2.0 * 128 * 512);
    EXPECT_DOUBLE_EQ(results["tiny gate_up 128 -> 512 Q4_1/16"].operations, 2.0 * 16 * 128 * 512);
    EXPECT_DOUBLE_EQ(results["tiny vocabulary 128 -> 100 Q8_0/16"].operations, 2.0 * 16 * 128 * 100);
    for (int32_t context : kContexts) {
      double pairs = 0;
      for (int32_t token = context - 64; token < context; ++token)
        for (int32_t key = 0; key <= token; ++key) pairs += 2;  // two heads share the page
      const KernelResult& r = results["tiny head_dim 64, last 64 of " + std::to_string(context) + " tokens/128"];
      EXPECT_DOUBLE_EQ(r.pairs, pairs);
      EXPECT_DOUBLE_EQ(r.operations, 4 * 64 * pairs);
      EXPECT_GT(r.of_first, 0);
      if (context == kContexts[0]) {
        EXPECT_DOUBLE_EQ(r.of_first, 1);
      }
    }
    for (const auto& [what, r] : results) {
      EXPECT_GT(r.seconds.min, 0) << what;
      EXPECT_GT(r.peak_fraction(), 0) << what;
    }
  }
}

TEST(KernelBench, MeasuresTheLengthsThatTheKernelsSee) {
  constexpr int32_t kRows[] = {1}, kContexts[] = {64};
  const ModelShape shape{.architecture = "llama",
                         .num_layers = 1,
                         .model_dim = 42,
                         .num_heads = 4,
                         .num_kv_heads = 2,
                         .head_dim = 100,
                         .ffn_dim = 172,
                         .vocab_size = 0,
                         .context_len = 64};
  std::vector<std::string> names;
  bench_kernels(*runnable_ops().front(), shape, {.name = "odd", .rows = kRows, .contexts = kContexts, .repetitions = 1},
                [&](const KernelResult& r) { names.push_back(r.what); });
  EXPECT_THAT(names, ::testing::IsSupersetOf({"odd qkv 64 -> 1024 Q4_1", "odd down 192 -> 64 Q4_1"}));
}

}  // namespace
}  // namespace runahead::test
