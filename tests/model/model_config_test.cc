#include "model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/support/default_model.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using test::GgufBuilder;
using test::TinyShape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(ModelConfig, ReadsEveryFieldOfATinyModel) {
  const TinyShape shape{.num_layers = 2, .tied_head = false};
  const std::vector<std::byte> bytes = test::tiny_llama(1, shape, QuantType::kQ8_0).build();
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
  EXPECT_FLOAT_EQ(config->layer.norm.epsilon, 1e-5f);
  EXPECT_FALSE(config->tied_head);
  EXPECT_EQ(config->layer.rope_pairing, RopePairing::kInterleaved);
  ASSERT_EQ(config->ropes.front().frequencies.size(), 16u);
  EXPECT_DOUBLE_EQ(config->ropes.front().frequencies[0], 1.0);
  EXPECT_DOUBLE_EQ(config->ropes.front().frequencies[8], 0.01);  // 10000^(-16/32)
  EXPECT_EQ(config->special.bos, 1);
  EXPECT_EQ(config->special.eos, 2);
  EXPECT_EQ(config->special.eot, kNoToken);
}

TEST(ModelConfig, EveryFormatMakesATinyModelWithWeightsOfTheAskedSize) {
  const TinyShape shape{.num_layers = 1, .model_dim = 256, .num_heads = 8, .ffn_dim = 512};
  for (const QuantType type :
       {QuantType::kF32, QuantType::kF16, QuantType::kBF16, QuantType::kQ4_0, QuantType::kQ4_1, QuantType::kQ5_0,
        QuantType::kQ5_1, QuantType::kQ8_0, QuantType::kIQ4_NL, QuantType::kQ2_K, QuantType::kQ3_K, QuantType::kQ4_K,
        QuantType::kQ5_K, QuantType::kQ6_K, QuantType::kIQ4_XS, QuantType::kMXFP4}) {
    const std::vector<std::byte> bytes = test::tiny_llama(7, shape, type).build();
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
  test::add_tiny_keys(file, shape, 300);
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
  EXPECT_DOUBLE_EQ(linear->ropes.front().frequencies[8], 0.0025);
  std::vector<float> divisors(16, 1);
  divisors[8] = 2;
  const auto llama31 = config_with([&](GgufBuilder& file) { file.f32_tensor("rope_freqs.weight", {16}, divisors); });
  ASSERT_TRUE(llama31) << llama31.error().message;
  EXPECT_DOUBLE_EQ(llama31->ropes.front().frequencies[8], 0.005);
  EXPECT_DOUBLE_EQ(llama31->ropes.front().frequencies[0], 1.0);
}

TEST(ModelConfig, ASlidingWindowIsThatOfEveryLayer) {
  const auto config = config_with([](GgufBuilder& file) { file.u32("llama.attention.sliding_window", 1024); });
  EXPECT_EQ(config->shape.context_len, 4096);
  EXPECT_EQ(config->shape.windows, std::vector<int32_t>(3, 1024));
}

// The keys of `llama`, told by another architecture.
Result<ModelConfig> config_of(const char* architecture, const std::function<void(GgufBuilder&)>& change,
                              int32_t layers) {
  GgufBuilder file;
  test::add_tiny_keys(file, {.num_layers = layers}, 300, architecture);
  file.f32_tensor("token_embd.weight", {64, 300}, std::vector<float>(64 * 300));
  change(file);
  const std::vector<std::byte> bytes = file.build();
  return read_model_config(TRY(Gguf::parse(bytes, "test.gguf")));
}

TEST(ModelConfig, WhichLayersHaveAWindowTheFileOrItsArchitectureSays) {
  const auto windows = [](const char* architecture, const std::function<void(GgufBuilder&)>& change) {
    const auto config = config_of(architecture, change, 7);
    EXPECT_TRUE(config) << config.error().message;
    return config ? config->shape.windows : std::vector<int32_t>();
  };
  const auto none = [](GgufBuilder&) {};
  EXPECT_THAT(windows("gemma3", [](GgufBuilder& file) { file.u32("gemma3.attention.sliding_window", 512); }),
              ElementsAre(512, 512, 512, 512, 512, 0, 512));
  EXPECT_THAT(windows("gemma3", none), IsEmpty());
  EXPECT_THAT(windows("gemma2", [](GgufBuilder& file) { file.u32("gemma2.attention.sliding_window", 100); }),
              ElementsAre(100, 0, 100, 0, 100, 0, 100));
  EXPECT_THAT(windows("gemma3",
                      [](GgufBuilder& file) {
                        file.u32("gemma3.attention.sliding_window", 512);
                        file.u32("gemma3.attention.sliding_window_pattern", 3);
                      }),
              ElementsAre(512, 512, 0, 512, 512, 0, 512));
  EXPECT_THAT(windows("olmo2",
                      [](GgufBuilder& file) {
                        file.u32("olmo2.attention.sliding_window", 512);
                        file.booleans("olmo2.attention.sliding_window_pattern",
                                      {true, false, true, true, false, false, true});
                      }),
              ElementsAre(512, 0, 512, 512, 0, 0, 512));
  EXPECT_THAT(windows("phi3", [](GgufBuilder& file) { file.u32("phi3.attention.sliding_window", 512); }), IsEmpty());
  // Where nobody knows which layers are meant, the context ends with the window.
  const auto qwen = config_of("qwen2", [](GgufBuilder& file) { file.u32("qwen2.attention.sliding_window", 512); }, 7);
  EXPECT_EQ(qwen->shape.context_len, 512);
  EXPECT_THAT(qwen->shape.windows, IsEmpty());
  const auto short_list = config_of(
      "olmo2",
      [](GgufBuilder& file) {
        file.u32("olmo2.attention.sliding_window", 512);
        file.booleans("olmo2.attention.sliding_window_pattern", {true, false});
      },
      7);
  EXPECT_EQ(short_list.error().code, ErrorCode::kInvalidModel);
}

// A window that no context reaches changes no score, but the layers that have it turn by another base.
TEST(ModelConfig, LayersWithAWindowBeyondTheContextKeepTheirBase) {
  const auto config =
      config_of("gemma3", [](GgufBuilder& file) { file.u32("gemma3.attention.sliding_window", 1u << 20); }, 7);
  ASSERT_EQ(config->ropes.size(), 2u);
  EXPECT_EQ(config->rope_of_layer, (std::vector<int32_t>{1, 1, 1, 1, 1, 0, 1}));
  EXPECT_EQ(config->shape.windows[0], config->shape.context_len);
}

TEST(ModelConfig, WhatWouldBeComputedWronglyIsUnsupported) {
  const auto expect_unsupported = [](const std::function<void(GgufBuilder&)>& change, const char* word) {
    const auto config = config_with(change);
    ASSERT_FALSE(config) << word;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(config.error().message, HasSubstr(word));
  };
  expect_unsupported([](GgufBuilder& file) { file.u32("llama.expert_shared_count", 1); }, "expert_shared_count");
  expect_unsupported([](GgufBuilder& file) { file.str("llama.rope.scaling.type", "dynamic"); }, "dynamic");
  expect_unsupported([](GgufBuilder& file) { file.f32_tensor("blk.0.ffn_up.bias", {1}, {0}); }, "ffn_up.bias");
}

// Where there are none, what is said of experts changes nothing.
TEST(ModelConfig, OfExpertsThatAreThereEveryKeyCounts) {
  const auto config_of_experts = [](uint32_t count, const std::function<void(GgufBuilder&)>& change) {
    return config_with([&](GgufBuilder& file) {
      file.u32("llama.expert_count", count);
      file.u32("llama.expert_used_count", count / 2);
      change(file);
    });
  };
  const std::function<void(GgufBuilder&)> plain = [](GgufBuilder& file) {
    file.boolean("llama.expert_weights_norm", true);
    file.u32("llama.leading_dense_block_count", 0);
  };
  ASSERT_TRUE(config_of_experts(4, plain));
  EXPECT_EQ(config_of_experts(4, plain)->layer.experts_used, 2);
  const std::pair<const char*, std::function<void(GgufBuilder&)>> changes[] = {
      {"expert_weights_norm", [](GgufBuilder& file) { file.boolean("llama.expert_weights_norm", false); }},
      {"leading_dense_block_count", [](GgufBuilder& file) { file.u32("llama.leading_dense_block_count", 1); }},
      {"interleave_moe_layer_step", [](GgufBuilder& file) { file.u32("llama.interleave_moe_layer_step", 2); }},
      {"router_logit_softcapping", [](GgufBuilder& file) { file.f32("llama.router_logit_softcapping", 30); }},
      {"expert_shared_feed_forward_length",
       [](GgufBuilder& file) { file.u32("llama.expert_shared_feed_forward_length", 64); }}};
  for (const auto& [key, change] : changes) {
    const auto config = config_of_experts(4, change);
    ASSERT_FALSE(config) << key;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(config.error().message, HasSubstr(key));
    EXPECT_TRUE(config_of_experts(0, change)) << key;
  }
}

// What a file says in other words than ours, with the same meaning.
TEST(ModelConfig, WhatChangesNothingIsAccepted) {
  const auto expect_plain = [](const std::function<void(GgufBuilder&)>& change, const char* what) {
    const auto config = config_with(change);
    ASSERT_TRUE(config) << what << ": " << config.error().message;
    EXPECT_EQ(config->shape.context_len, 4096) << what;
    EXPECT_DOUBLE_EQ(config->ropes.front().frequencies[8], 0.01) << what;
  };
  for (const char* key : {"attention.sliding_window", "expert_count", "expert_used_count", "nextn_predict_layers"})
    expect_plain([&](GgufBuilder& file) { file.u32(std::string("llama.") + key, 0); }, key);
  expect_plain([](GgufBuilder& file) { file.u64("llama.attention.sliding_window", 1u << 30); }, "a window beyond");
  for (const char* key : {"rope.scaling.factor", "rope.scale_linear", "logit_scale", "residual_scale",
                          "embedding_scale", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale",
                          "attn_logit_softcapping", "final_logit_softcapping"})
    expect_plain([&](GgufBuilder& file) { file.f32(std::string("llama.") + key, 0); }, key);
  for (const char* key : {"logit_scale", "residual_scale", "embedding_scale", "rope.scaling.attn_factor"})
    expect_plain([&](GgufBuilder& file) { file.f64(std::string("llama.") + key, 1); }, key);
  expect_plain([](GgufBuilder& file) { file.f32("llama.attention.scale", 0.17677669f); }, "1 / sqrt(32)");
  expect_plain([](GgufBuilder& file) { file.boolean("llama.attention.causal", true); }, "causal");
  expect_plain([](GgufBuilder& file) { file.boolean("llama.use_parallel_residual", false); }, "parallel residual");
  expect_plain([](GgufBuilder& file) { file.u32("llama.embedding_length_out", 64); }, "the same length");
  expect_plain([](GgufBuilder& file) { file.f32("llama.rope.freq_base_swa", 10000); }, "the same base");
  expect_plain([](GgufBuilder& file) { file.str("llama.tensor_data_layout", "Meta AI original pth"); }, "a remark");
  expect_plain(
      [](GgufBuilder& file) {
        file.str("llama.rope.scaling.type", "none");
        file.f32("llama.rope.scaling.factor", 4);
        file.u32("llama.rope.scaling.original_context_length", 2048);
      },
      "no scaling");
  expect_plain([](GgufBuilder& file) { file.u32("general.quantization_version", 1); }, "nothing is quantised");
  expect_plain([](GgufBuilder& file) { file.u32("tokenizer.ggml.padding_token_id", 300); }, "padding");
  expect_plain([](GgufBuilder& file) { file.i32("tokenizer.ggml.padding_token_id", -1); }, "padding");
  expect_plain([](GgufBuilder& file) { file.u32("tokenizer.ggml.unknown_token_id", 1u << 31); }, "unknown");
  expect_plain([](GgufBuilder& file) { file.i32("tokenizer.ggml.eot_token_id", -1); }, "none");
  expect_plain([](GgufBuilder& file) { file.strings("tokenizer.ggml.tokens", std::vector<std::string>(300)); }, "300");
}

// The keys of a tiny model, one of them given again by `change` in another form.
Result<ModelConfig> config_without(const char* key, const std::function<void(GgufBuilder&)>& change) {
  GgufBuilder file;
  file.str("general.architecture", "llama");
  const auto u32 = [&](const std::string& name, uint32_t value) {
    if (name != key) file.u32("llama." + name, value);
  };
  u32("block_count", 3), u32("context_length", 4096), u32("embedding_length", 64), u32("feed_forward_length", 160);
  u32("attention.head_count", 4), u32("attention.head_count_kv", 2), u32("attention.key_length", 32);
  u32("attention.value_length", 32), u32("rope.dimension_count", 32), u32("vocab_size", 300);
  if (std::string_view(key) != "attention.layer_norm_rms_epsilon")
    file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.f32_tensor("token_embd.weight", {64, 300}, std::vector<float>(64 * 300));
  change(file);
  const std::vector<std::byte> bytes = file.build();
  const Gguf gguf = TRY(Gguf::parse(bytes, "test.gguf"));
  return read_model_config(gguf);
}

TEST(ModelConfig, NumbersOfEachLayerAreOneIfTheyAreEqual) {
  const auto array = [](const char* key, const std::vector<int32_t>& values) {
    return config_without(key, [&](GgufBuilder& file) { file.i32s(std::string("llama.") + key, values); });
  };
  const auto heads = array("attention.head_count", {4, 4, 4});
  ASSERT_TRUE(heads) << heads.error().message;
  EXPECT_EQ(heads->shape.num_heads, 4);
  EXPECT_EQ(array("attention.head_count_kv", {2, 2, 2})->shape.num_kv_heads, 2);
  EXPECT_EQ(array("feed_forward_length", {160, 160, 160})->shape.ffn_dim, 160);
  for (const char* key : {"attention.head_count", "attention.head_count_kv", "feed_forward_length"}) {
    const auto unequal = array(key, {4, 4, 2});
    ASSERT_FALSE(unequal) << key;
    EXPECT_EQ(unequal.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(unequal.error().message, HasSubstr(std::string("llama.") + key + " (4 and 2)"));
    EXPECT_EQ(array(key, {4, 4}).error().code, ErrorCode::kInvalidModel) << "two numbers for three layers";
    EXPECT_EQ(array(key, {4, 4, -4}).error().code, ErrorCode::kInvalidModel);
    EXPECT_EQ(array(key, {}).error().code, ErrorCode::kInvalidModel);
    EXPECT_THAT(array(key, {4, 4, 4, 4}).error().message, HasSubstr("4 numbers for 3 layers"));
  }
}

TEST(ModelConfig, IntegersAndFloatsOfAnyWidthAreNumbers) {
  const auto eps = [](const std::function<void(GgufBuilder&)>& change) {
    return config_without("attention.layer_norm_rms_epsilon", change);
  };
  constexpr const char* kEps = "llama.attention.layer_norm_rms_epsilon";
  EXPECT_FLOAT_EQ(eps([](GgufBuilder& file) { file.f64(kEps, 1e-6); })->layer.norm.epsilon, 1e-6f);
  for (const float bad : {0.0f, -1e-5f, 1.0f, INFINITY, NAN}) {
    const auto config = eps([&](GgufBuilder& file) { file.f32(kEps, bad); });
    ASSERT_FALSE(config) << bad;
    EXPECT_THAT(config.error().message, HasSubstr("not more than 0 and less than 1"));
  }
  EXPECT_EQ(config_without("context_length", [](GgufBuilder& file) { file.u64("llama.context_length", 1u << 24); })
                ->shape.context_len,
            1 << 24);
  const auto negative =
      config_without("context_length", [](GgufBuilder& file) { file.i32("llama.context_length", -5); });
  EXPECT_THAT(negative.error().message, HasSubstr("llama.context_length"));
}

// The rows of the embedding are the model's vocabulary, whatever llama.vocab_size says: nothing reads that key.
TEST(ModelConfig, TheKeyVocabSizeIsNotRead) {
  const auto config = config_without("vocab_size", [](GgufBuilder& file) { file.u32("llama.vocab_size", 32000); });
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->shape.vocab_size, 300);
}

TEST(ModelConfig, TokensWithoutARowOrRowsWithoutATokenAreRefused) {
  for (const size_t count : {299u, 301u, 0u}) {
    const auto config =
        config_with([&](GgufBuilder& file) { file.strings("tokenizer.ggml.tokens", std::vector<std::string>(count)); });
    ASSERT_FALSE(config) << count;
    EXPECT_EQ(config.error().code, ErrorCode::kInvalidModel);
    EXPECT_THAT(config.error().message, HasSubstr(std::to_string(count) + " tokens"));
    EXPECT_THAT(config.error().message, HasSubstr("300 rows"));
  }
}

TEST(ModelConfig, AKeyThatCouldChangeAnAnswerIsRefusedByNameAndValue) {
  const auto expect_refused = [](const std::function<void(GgufBuilder&)>& change, const char* name, const char* value) {
    const auto config = config_with(change);
    ASSERT_FALSE(config) << name;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported) << config.error().message;
    EXPECT_THAT(config.error().message, HasSubstr(name));
    EXPECT_THAT(config.error().message, HasSubstr(value));
    EXPECT_THAT(config.error().message, Not(HasSubstr("convert the model again"))) << "the file is a valid one";
  };
  for (const char* key : {"logit_scale", "residual_scale", "embedding_scale", "attention.scale", "attention.clamp_kqv",
                          "attn_logit_softcapping", "final_logit_softcapping", "attention.max_alibi_bias",
                          "rope.scaling.yarn_ext_factor", "rope.freq_base_swa"}) {
    const std::string full = std::string("llama.") + key;
    expect_refused([&](GgufBuilder& file) { file.f32(full, 0.5f); }, full.c_str(), "0.5");
    expect_refused([&](GgufBuilder& file) { file.f32(full, NAN); }, full.c_str(), "nan");
    expect_refused([&](GgufBuilder& file) { file.f32s(full, {0.5f, 0.5f}); }, full.c_str(), "an array of 2 values");
    expect_refused([&](GgufBuilder& file) { file.str(full, "half"); }, full.c_str(), "'half'");
  }
  expect_refused([](GgufBuilder& file) { file.boolean("llama.attention.causal", false); }, "llama.attention.causal",
                 "false");
  expect_refused([](GgufBuilder& file) { file.boolean("llama.use_parallel_residual", true); },
                 "llama.use_parallel_residual", "true");
  expect_refused([](GgufBuilder& file) { file.u32("llama.expert_used_count", 2); }, "llama.expert_used_count", "2");
  expect_refused([](GgufBuilder& file) { file.u32("llama.never_heard_of", 7); }, "llama.never_heard_of", "7");
  expect_refused([](GgufBuilder& file) { file.u32("llama.ssm.state_size", 16); }, "llama.ssm.state_size", "16");
  expect_refused([](GgufBuilder& file) { file.u32("llama.a\nb\xff", 7); }, "'llama.a?b?'", "7");
  expect_refused(
      [](GgufBuilder& file) {
        file.u32("general.quantization_version", 1);
        file.tensor("output.weight", {32, 1}, QuantType::kQ8_0, std::vector<std::byte>(34));
      },
      "general.quantization_version", "1");
}

// Each of them was ignored once, and the answers were wrong without a word.
TEST(ModelConfig, ATensorThatNothingReadsIsRefusedByName) {
  for (const char* name : {"blk.0.attn_q.scale",
                           "blk.0.attn_q.input_scale",
                           "blk.0.ffn_down.scale",
                           "blk.2.post_attention_norm.weight",
                           "blk.0.post_ffw_norm.weight",
                           "blk.0.attn_q_norm.weight",
                           "blk.0.attn_k_norm.weight",
                           "blk.1.ffn_gate_inp.weight",
                           "blk.0.ffn_gate_exps.weight",
                           "blk.0.ffn_norm_exps.weight",
                           "blk.0.ffn_gate.bias",
                           "blk.0.attn_sub_norm.weight",
                           "blk.0.attn_sinks.weight",
                           "blk.0.attn_norm_2.weight",
                           "blk.0.attn_q.weight.lora_a",
                           "blk.00.attn_q.weight",
                           "blk.-1.attn_q.weight",
                           "token_embd_norm.weight",
                           "position_embd.weight",
                           "token_types.weight",
                           "output.bias",
                           "output_norm.bias",
                           "output.scale",
                           "rope_factors_long.weight",
                           "cls.weight",
                           "mm.0.weight",
                           "stranger"}) {
    const auto config = config_with([&](GgufBuilder& file) { file.f32_tensor(name, {1}, {0}); });
    ASSERT_FALSE(config) << name;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported) << name;
    EXPECT_THAT(config.error().message, HasSubstr("'" + std::string(name) + "'"));
    EXPECT_THAT(config.error().message, Not(HasSubstr("convert the model again")));
  }
}

TEST(ModelConfig, OneOfTwoFormsOfQKAndVIsReadAndBothAreRefused) {
  const auto with = [](const std::vector<std::string>& names) {
    return config_with([&](GgufBuilder& file) {
      for (const std::string& name : names) file.f32_tensor(name, {1}, {0});
    });
  };
  EXPECT_TRUE(with({"blk.0.attn_q.weight", "blk.1.attn_qkv.weight"}));
  EXPECT_THAT(with({"blk.0.attn_k.weight", "blk.0.attn_qkv.weight"}).error().message, HasSubstr("blk.0.attn_k.weight"));
}

TEST(ModelConfig, ALayerBeyondTheBlockCountIsRefused) {
  const auto config = config_with([](GgufBuilder& file) { file.f32_tensor("blk.3.attn_norm.weight", {1}, {0}); });
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kInvalidModel);
  EXPECT_THAT(config.error().message, HasSubstr("'blk.3.attn_norm.weight'"));
  EXPECT_THAT(config.error().message, HasSubstr("the 3 of llama.block_count"));
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
  const Gguf file = Gguf::open(test::default_model()).value();
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
  EXPECT_EQ(config->ropes.front().base, 100000.0f);
  EXPECT_EQ(config->special.eos, 2);
}

}  // namespace
}  // namespace runahead
