// config.json of published models, as transformers 4 wrote them: all are taken, and mean what they mean there.
#include "model/weights/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json_text.h"
#include "model/weights/gguf.h"
#include "model/weights/hf_object.h"

namespace runahead {
namespace {

using nlohmann::json;

// What most of them say.
constexpr const char* kUsual =
    R"({"attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
  "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
  "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
  "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 32000})";

struct Read {
  HfModel model;
  std::vector<std::byte> bytes;
  std::unique_ptr<Gguf> file;
};

Read read(const std::string& changes) {
  json config = json::parse(kUsual);
  config.update(json::parse(changes));
  for (auto at = config.begin(); at != config.end();)
    at = at->is_string() && *at == "absent" ? config.erase(at) : std::next(at);
  GgufKeys keys;
  auto model = read_hf_config(config, "config.json", keys);
  if (!model) {
    ADD_FAILURE() << model.error().message << " in " << changes;
    return {};
  }
  Read out{.model = std::move(*model), .bytes = keys.build(), .file = nullptr};
  out.file = std::make_unique<Gguf>(Gguf::parse(out.bytes, "config.json").value());
  return out;
}

TEST(HfConfig, Llama) {
  const Read one =
      read(R"({"architectures": ["LlamaForCausalLM"], "eos_token_id": [128001, 128008, 128009], "head_dim": 64,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "pretraining_tp": 1, "rope_theta": 500000.0,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3"}, "tie_word_embeddings": true})");
  EXPECT_TRUE(one.model.tied);
  ASSERT_EQ(one.model.vectors.size(), 1u);
  EXPECT_EQ(one.model.vectors[0].first, "rope_freqs.weight");
  EXPECT_EQ(one.model.vectors[0].second.front(), 1);
  EXPECT_EQ(one.model.vectors[0].second.back(), 32);
  const Read smollm2 = read(R"({"model_type": "llama", "is_llama_config": true, "rope_interleaved": false,
    "transformers.js_config": {"dtype": "q4"}, "_name_or_path": "x", "rope_theta": 100000})");
  EXPECT_FALSE(smollm2.model.tied);
  EXPECT_EQ(smollm2.file->f32("llama.rope.freq_base").value(), 100000);
}

TEST(HfConfig, MistralQwen) {
  EXPECT_FALSE(
      read(R"({"model_type": "mistral", "sliding_window": null})").file->has("llama.attention.sliding_window"));
  EXPECT_EQ(
      read(R"({"model_type": "mistral", "sliding_window": 4096})").file->u64("llama.attention.sliding_window").value(),
      4096u);
  read(R"({"model_type": "qwen2", "attention_bias": "absent", "max_window_layers": 28, "sliding_window": 131072,
    "use_sliding_window": false, "use_mrope": false})");
  read(
      R"({"model_type": "qwen3", "head_dim": 128, "max_window_layers": 28, "sliding_window": null,
    "use_sliding_window": false})");
  const Read yarn =
      read(R"({"model_type": "qwen2", "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768,
    "type": "yarn"}})");
  EXPECT_EQ(yarn.file->str("qwen2.rope.scaling.type").value(), "yarn");
  EXPECT_EQ(yarn.file->f32("qwen2.rope.scaling.attn_factor").value(), 1);
}

TEST(HfConfig, Experts) {
  const Read mixtral =
      read(R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_experts_per_tok": 2,
    "attention_bias": "absent", "num_local_experts": 8, "output_router_logits": false, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02, "sliding_window": null, "tie_word_embeddings": false})");
  EXPECT_EQ(mixtral.file->str("general.architecture").value(), "llama");
  EXPECT_EQ(mixtral.file->u64("llama.expert_count").value(), 8u);
  EXPECT_EQ(mixtral.file->u64("llama.expert_used_count").value(), 2u);
  EXPECT_EQ(mixtral.file->u64("llama.expert_feed_forward_length").value(), 8192u);
  const Read qwen =
      read(R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1,
    "head_dim": 128, "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": true,
    "num_experts": 128, "num_experts_per_tok": 8, "output_router_logits": false, "router_aux_loss_coef": 0.001,
    "sliding_window": null, "use_sliding_window": false})");
  EXPECT_EQ(qwen.file->u64("qwen3moe.expert_count").value(), 128u);
  EXPECT_EQ(qwen.file->u64("qwen3moe.expert_feed_forward_length").value(), 768u);
}

// What a layer with experts could be, and ours is not: as Qwen's configuration says it.
TEST(HfConfig, ExpertsOfAnotherKindAreRefusedByName) {
  const std::string usual = R"({"model_type": "qwen3_moe", "norm_topk_prob": true, "num_experts": 8,
      "num_experts_per_tok": 2, "moe_intermediate_size": 768, "head_dim": 128})";
  read(usual);
  const auto refused = [&](const char* name, json value, ErrorCode code, const std::string& says) {
    json config = json::parse(kUsual);
    config.update(json::parse(usual));
    config[name] = std::move(value);
    GgufKeys keys;
    const auto model = read_hf_config(config, "config.json", keys);
    ASSERT_FALSE(model) << name;
    EXPECT_EQ(model.error().code, code) << model.error().message;
    EXPECT_THAT(model.error().message, ::testing::HasSubstr(says));
  };
  const auto unsupported = ErrorCode::kUnsupported, invalid = ErrorCode::kInvalidModel;
  refused("norm_topk_prob", false, unsupported, "'norm_topk_prob' is false");
  refused("norm_topk_prob", nullptr, unsupported, "'norm_topk_prob' is missing");
  refused("decoder_sparse_step", 2, unsupported, "'decoder_sparse_step' is 2");
  refused("mlp_only_layers", {0}, unsupported, "'mlp_only_layers' is [0]");
  refused("shared_expert_intermediate_size", 5632, unsupported, "'shared_expert_intermediate_size' is 5632");
  refused("use_sliding_window", true, unsupported, "'use_sliding_window' is true");
  refused("model_type", "qwen2_moe", unsupported, "the model_type 'qwen2_moe' is not supported");
  refused("num_local_experts", 16, invalid, "'num_local_experts' is 16, and num_experts says otherwise");
  refused("num_experts", nullptr, invalid, "'num_local_experts' is missing");
  refused("num_experts", 1025, invalid, "not a whole number from 1 to 1024");
  refused("num_experts_per_tok", 9, invalid, "not a whole number from 1 to 8");
  refused("moe_intermediate_size", nullptr, invalid, "'moe_intermediate_size' is missing");
}

TEST(HfConfig, Gemma) {
  read(
      R"({"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": null, "head_dim": 256, "pad_token_id": 0})");
  const Read two = read(R"({"model_type": "gemma2", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    "cache_implementation": "hybrid", "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": "absent"})");
  EXPECT_TRUE(two.model.tied);
  EXPECT_EQ(two.file->f32("gemma2.attention.scale").value(), 0.0625f);
  const Read three =
      read(R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "attn_logit_softcapping": null,
    "cache_implementation": "hybrid", "final_logit_softcapping": null, "head_dim": 256, "hidden_act": "absent",
    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000,
    "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6})");
  EXPECT_EQ(three.file->f32("gemma3.rope.freq_base_swa").value(), 10000);
  const auto windowed = three.file->booleans("gemma3.attention.sliding_window_pattern").value();
  EXPECT_TRUE(windowed[4]);
  EXPECT_FALSE(windowed[5]);
}

TEST(HfConfig, Falcon) {
  const Read seven = read(R"({"model_type": "falcon", "alibi": false, "apply_residual_connection_post_layernorm": false,
    "attention_bias": "absent", "auto_map": {}, "bias": false, "hidden_dropout": 0.0, "layer_norm_epsilon": 1e-05,
    "multi_query": true, "new_decoder_architecture": false, "parallel_attn": true, "max_position_embeddings": "absent",
    "intermediate_size": "absent", "num_key_value_heads": "absent", "hidden_act": "absent", "rms_norm_eps": "absent"})");
  EXPECT_EQ(seven.model.num_kv_heads, 1u);
  EXPECT_FALSE(seven.model.grouped_qkv);
  EXPECT_EQ(seven.file->u64("falcon.context_length").value(), 2048u);
  EXPECT_EQ(seven.file->u64("falcon.feed_forward_length").value(), 4u * 2048);
  const Read eleven =
      read(R"({"model_type": "falcon", "activation": "gelu", "alibi": false, "bias": false, "ff_factor": 4,
    "ffn_hidden_size": 16384, "layer_norm_epsilon": 1e-05, "multi_query": true, "new_decoder_architecture": true,
    "num_kv_heads": 8, "num_ln_in_parallel_attn": 1, "parallel_attn": true, "hidden_dropout": 0.0, "attention_bias": "absent",
    "intermediate_size": "absent", "num_key_value_heads": "absent", "hidden_act": "absent", "rms_norm_eps": "absent"})");
  EXPECT_EQ(eleven.model.num_kv_heads, 8u);
  EXPECT_TRUE(eleven.model.grouped_qkv);
}

TEST(HfConfig, Phi) {
  const Read three = read(R"({"model_type": "phi3", "auto_map": {}, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
    "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "sliding_window": 2047})");
  EXPECT_EQ(three.file->u64("phi3.context_length").value(), 2047u);
  json factors = json::array();
  for (int i = 0; i < 24; ++i) factors.push_back(1.5);
  const Read four = read(R"({"model_type": "phi3", "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": false,
    "mlp_bias": false, "partial_rotary_factor": 0.75, "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096, "sliding_window": 262144, "rope_scaling": {"type": "longrope", "long_factor": )" +
                         to_text(factors) + R"(, "short_factor": )" + to_text(factors) + "}}");
  EXPECT_EQ(four.model.vectors.size(), 2u);
  EXPECT_EQ(four.file->u64("phi3.rope.dimension_count").value(), 48u);
  EXPECT_NEAR(four.file->f32("phi3.rope.scaling.attn_factor").value(), 1.190238, 1e-6);
}

TEST(HfConfig, Others) {
  read(
      R"({"model_type": "smollm3", "max_window_layers": 28, "mlp_bias": false, "no_rope_layer_interval": 4, "pretraining_tp": 2,
    "no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0], "sliding_window": null, "use_sliding_window": false})");
  read(
      R"({"model_type": "granite", "attention_multiplier": 0.015625, "embedding_multiplier": 12.0, "logits_scaling": 8.0,
    "mlp_bias": false, "residual_multiplier": 0.22, "tie_word_embeddings": true})");
  read(R"({"model_type": "olmo2"})");
  const Read olmo3 = read(R"({"model_type": "olmo3", "sliding_window": 4096, "rope_scaling": {"attention_factor":
    1.2079441541679836, "beta_fast": 32, "beta_slow": 1, "factor": 8.0, "original_max_position_embeddings": 8192,
    "rope_type": "yarn"}})");
  EXPECT_NEAR(olmo3.file->f32("olmo2.rope.scaling.attn_factor").value(), 1, 1e-6) << "it is YaRN's own";
  read(R"({"model_type": "stablelm", "attention_bias": "absent", "hidden_dropout": 0.0, "layer_norm_eps": 1e-05,
    "partial_rotary_factor": 0.25, "rms_norm_eps": "absent", "use_qkv_bias": true, "use_parallel_residual": false})");
  read(
      R"({"model_type": "starcoder2", "attention_bias": "absent", "embedding_dropout": 0.1, "hidden_act": "gelu_pytorch_tanh",
    "mlp_type": "default", "norm_epsilon": 1e-05, "norm_type": "layer_norm", "residual_dropout": 0.1, "rms_norm_eps": "absent",
    "sliding_window": 4096, "use_bias": true})");
}

}  // namespace
}  // namespace runahead
