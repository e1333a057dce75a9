#include "model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/default_model.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::TinyShape;

TEST(ModelConfig, ReadsEveryFieldOfATinyModel) {
  const TinyShape shape{.num_layers = 2, .tied_head = false};
  const std::vector<std::byte> bytes = testing::tiny_llama(1, shape, QuantType::kQ8_0).build();
  const Gguf file = Gguf::parse(bytes, "tiny.gguf").value();
  const auto config = read_model_config(file);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->shape.architecture, "llama");
  EXPECT_EQ(config->shape.num_layers, 2);
  EXPECT_EQ(config->shape.model_dim, 64);
  EXPECT_EQ(config->shape.num_heads, 4);
  EXPECT_EQ(config->shape.num_kv_heads, 2);
  EXPECT_EQ(config->shape.head_dim, 32);
  EXPECT_EQ(config->shape.ffn_dim, 160);
  EXPECT_EQ(config->shape.vocab_size, 300);
  EXPECT_EQ(config->shape.context_len, 4096);
  EXPECT_FLOAT_EQ(config->norm_epsilon, 1e-5f);
  EXPECT_FALSE(config->tied_head);
  EXPECT_EQ(config->rope.pairing, RopePairing::kInterleaved);
  ASSERT_EQ(config->rope.frequencies.size(), 16u);
  EXPECT_DOUBLE_EQ(config->rope.frequencies[0], 1.0);
  EXPECT_DOUBLE_EQ(config->rope.frequencies[8], 0.01);  // 10000^(-16/32)
  EXPECT_EQ(config->special.bos, 1);
  EXPECT_EQ(config->special.eos, 2);
  EXPECT_EQ(config->special.eot, kNoToken);
}

TEST(ModelConfig, EveryFormatMakesATinyModelWithWeightsOfTheAskedSize) {
  const TinyShape shape{.num_layers = 1, .model_dim = 256, .num_heads = 8, .ffn_dim = 512};
  for (const QuantType type :
       {QuantType::kF32, QuantType::kF16, QuantType::kBF16, QuantType::kQ4_0, QuantType::kQ4_1, QuantType::kQ5_0,
        QuantType::kQ5_1, QuantType::kQ8_0, QuantType::kIQ4_NL, QuantType::kQ2_K, QuantType::kQ3_K, QuantType::kQ4_K,
        QuantType::kQ5_K, QuantType::kQ6_K}) {
    const std::vector<std::byte> bytes = testing::tiny_llama(7, shape, type).build();
    const auto file = Gguf::parse(bytes, "tiny.gguf");
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_TRUE(read_model_config(*file));
    const QuantMatrixView up = file->matrix("blk.0.ffn_up.weight").value();
    std::vector<float> weights(static_cast<size_t>(up.rows * up.cols));
    dequantize(type, file->tensor("blk.0.ffn_up.weight")->bytes, weights);
    double sum = 0, squares = 0;
    for (const float w : weights) sum += w, squares += double{w} * w;
    const auto n = static_cast<double>(weights.size());
    EXPECT_NEAR(std::sqrt(squares / n), 1 / 16.0, 0.005) << quant_format(type).name;
    EXPECT_NEAR(sum / n, 0, 0.01) << quant_format(type).name;
  }
}

// A file that has the tiny model's keys and embedding, then what `change` adds or spoils.
Result<ModelConfig> config_with(const std::function<void(GgufBuilder&)>& change, TinyShape shape = {}) {
  GgufBuilder file;
  testing::add_tiny_keys(file, shape, 300);
  const auto cols = static_cast<uint64_t>(shape.model_dim);
  file.f32_tensor("token_embd.weight", {cols, 300}, std::vector<float>(cols * 300));
  change(file);
  const std::vector<std::byte> bytes = file.build();
  const Gguf gguf = TRY(Gguf::parse(bytes, "test.gguf"));
  return read_model_config(gguf);
}

TEST(ModelConfig, LinearScalingAndRopeFreqsDivideTheFrequencies) {
  const auto linear = config_with([](GgufBuilder& file) {
    file.str("llama.rope.scaling.type", "linear");
    file.f32("llama.rope.scaling.factor", 4);
  });
  ASSERT_TRUE(linear) << linear.error().message;
  EXPECT_DOUBLE_EQ(linear->rope.frequencies[8], 0.0025);
  std::vector<float> divisors(16, 1);
  divisors[8] = 2;
  const auto llama31 = config_with([&](GgufBuilder& file) { file.f32_tensor("rope_freqs.weight", {16}, divisors); });
  ASSERT_TRUE(llama31) << llama31.error().message;
  EXPECT_DOUBLE_EQ(llama31->rope.frequencies[8], 0.005);
  EXPECT_DOUBLE_EQ(llama31->rope.frequencies[0], 1.0);
}

TEST(ModelConfig, TheContextEndsWithASlidingWindow) {
  EXPECT_EQ(config_with([](GgufBuilder& file) { file.u32("llama.attention.sliding_window", 1024); })->shape.context_len,
            1024);
}

TEST(ModelConfig, WhatWouldBeComputedWronglyIsUnsupported) {
  const auto expect_unsupported = [](const std::function<void(GgufBuilder&)>& change, const char* word) {
    const auto config = config_with(change);
    ASSERT_FALSE(config) << word;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(config.error().message, HasSubstr(word));
  };
  expect_unsupported([](GgufBuilder& file) { file.u32("llama.expert_count", 8); }, "experts");
  expect_unsupported([](GgufBuilder& file) { file.str("llama.rope.scaling.type", "yarn"); }, "yarn");
  expect_unsupported([](GgufBuilder& file) { file.f32_tensor("blk.0.attn_q.bias", {1}, {0}); }, "attn_q.bias");
}

TEST(ModelConfig, AnotherArchitectureIsRefusedByName) {
  GgufBuilder file;
  file.str("general.architecture", "mamba");
  const std::vector<std::byte> bytes = file.build();
  const Gguf gguf = Gguf::parse(bytes, "test.gguf").value();
  const auto config = read_model_config(gguf);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(config.error().message, HasSubstr("'mamba'"));
  EXPECT_THAT(config.error().message, HasSubstr("llama"));
}

TEST(ModelConfig, ShapesThatContradictThemselvesAreRefused) {
  const auto nothing = [](GgufBuilder&) {};
  const auto expect_invalid = [](const Result<ModelConfig>& config) {
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().code, ErrorCode::kInvalidModel) << config.error().message;
  };
  expect_invalid(config_with(nothing, {.num_layers = 0}));
  expect_invalid(config_with(nothing, {.num_layers = 1 << 30}));
  expect_invalid(config_with(nothing, {.num_heads = 5, .num_kv_heads = 2}));
  expect_invalid(config_with(nothing, {.num_heads = 4, .num_kv_heads = 0}));
  expect_invalid(config_with(nothing, {.head_dim = 1 << 20}));
  expect_invalid(config_with(nothing, {.context_len = -1}));
  expect_invalid(config_with(nothing, {.rope_base = -1}));
  expect_invalid(config_with([](GgufBuilder& file) { file.u32("tokenizer.ggml.eos_token_id", 300); }));
  expect_invalid(config_with([](GgufBuilder& file) { file.boolean("tokenizer.ggml.add_bos_token", true); }));
  expect_invalid(
      config_with([](GgufBuilder& file) { file.f32_tensor("rope_freqs.weight", {16}, std::vector<float>(16)); }));
}

TEST(ModelConfig, ReadsTheDefaultModel) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const Gguf file = Gguf::open(testing::default_model()).value();
  const auto config = read_model_config(file);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->shape.num_layers, 30);
  EXPECT_EQ(config->shape.model_dim, 576);
  EXPECT_EQ(config->shape.num_heads, 9);
  EXPECT_EQ(config->shape.num_kv_heads, 3);
  EXPECT_EQ(config->shape.head_dim, 64);
  EXPECT_EQ(config->shape.ffn_dim, 1536);
  EXPECT_EQ(config->shape.vocab_size, 49152);
  EXPECT_EQ(config->shape.context_len, 8192);
  EXPECT_TRUE(config->tied_head);
  EXPECT_EQ(config->rope.base, 100000.0f);
  EXPECT_EQ(config->special.eos, 2);
}

}  // namespace
}  // namespace runahead
