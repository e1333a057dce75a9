#include "model/weights/unread_parts.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <unordered_set>

#include "model/weights/layer_tensors.h"

namespace runahead {
namespace {

// Whatever their value, the logits are the same, unless model/model_config.cc asked for them.
constexpr std::string_view kHarmlessKeys[] = {
    "vocab_size",  // the embedding's rows and the tokens decide; fine-tunes leave it behind
    "tensor_data_layout",  // a remark of old converters
    "pooling_type",  // of embeddings, not of logits
    "attention.layer_norm_epsilon",  // of norms of the other kind
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window_pattern",  // the context ends with the window, within which all layers are alike
    "rope.scaling.factor",  // of a scaling whose type is none, as the old key is behind the new one
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",  // a remark
    "rope.scaling.yarn_beta_fast",  // of YaRN
    "rope.scaling.yarn_beta_slow",
    "expert_feed_forward_length",  // of experts: where there are any, keys_of_shape comes first
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
    "leading_dense_block_count",
    "interleave_moe_layer_step",
    "router_logit_softcapping",
};

// Their value must be one of two that change nothing. Most writers leave such a key out, some write its zero.
struct NeutralKey {
  std::string_view name;
  double value, other;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"expert_count", 0, 0},
    {"expert_used_count", 0, 0},
    {"expert_shared_count", 0, 0},
    {"expert_weights_scale", 1, 0},
    {"expert_gating_func", 1, 0},  // a softmax
    {"expert_group_count", 0, 0},
    {"expert_group_used_count", 0, 0},
    {"moe_every_n_layers", 0, 0},
    {"nextn_predict_layers", 0, 0},
    {"n_deepstack_layers", 0, 0},
    {"decoder_block_count", 0, 0},
    {"embedding_length_per_layer_input", 0, 0},
    {"use_parallel_residual", 0, 0},
    {"swin_norm", 0, 0},
    {"rescale_every_n_layers", 0, 0},
    {"activation_sparsity_scale", 0, 0},
    {"attn_logit_softcapping", 0, 0},
    {"final_logit_softcapping", 0, 0},
    {"logit_scale", 1, 0},  // 0: none
    {"residual_scale", 1, 0},
    {"embedding_scale", 1, 0},
    {"attention.causal", 1, 1},
    {"attention.max_alibi_bias", 0, 0},
    {"attention.clamp_kqv", 0, 0},
    {"attention.output_scale", 1, 0},
    {"attention.temperature_length", 0, 0},
    {"attention.temperature_scale", 0, 0},
    {"attention.shared_kv_layers", 0, 0},
    {"attention.q_lora_rank", 0, 0},
    {"attention.kv_lora_rank", 0, 0},
    {"attention.key_length_mla", 0, 0},
    {"attention.value_length_mla", 0, 0},
    {"rope.scaling.alpha", 1, 0},
    {"rope.scaling.attn_factor", 1, 1},
    {"rope.scaling.yarn_log_multiplier", 0, 0},
    {"rope.scaling.yarn_ext_factor", 0, -1},  // -1: as rope.scaling.type says
    {"rope.scaling.yarn_attn_factor", 1, 1},
};

// The values that say what we compute anyway.
std::vector<NeutralKey> keys_of_shape(const ModelConfig& config) {
  const ModelShape& s = config.shape;
  const double head_dim = s.head_dim, base = config.ropes.front().base, rotated = config.layer.rotated;
  std::vector<NeutralKey> keys = {
      {"embedding_length_out", double{1} * s.model_dim, 0}, {"attention.scale", config.layer.attention_scale, 0},
      {"attention.key_length_swa", head_dim, head_dim},     {"attention.value_length_swa", head_dim, head_dim},
      {"rope.dimension_count_swa", rotated, rotated},       {"rope.freq_base_swa", base, base}};
  // Experts in every layer, none of them shared, and weights that sum to 1 (model/transformer/experts.cc).
  if (config.layer.experts > 0)
    keys.insert(keys.end(), {{"expert_shared_feed_forward_length", 0, 0},
                             {"expert_weights_norm", 1, 1},
                             {"leading_dense_block_count", 0, 0},
                             {"interleave_moe_layer_step", 0, 1},
                             {"router_logit_softcapping", 0, 0}});
  return keys;
}

std::unexpected<Error> unsupported(const std::string& what) {
  return fail(ErrorCode::kUnsupported, what + "; answers would be wrong, so choose another model");
}

Result<void> check_key(const Gguf& file, std::string_view key, std::string_view name,
                       std::span<const NeutralKey> of_shape) {
  const std::string what = "the key " + quoted(key) + " is " + file.shown(key);
  for (const std::span<const NeutralKey> list : {of_shape, std::span<const NeutralKey>(kNeutralKeys)}) {
    const auto known = std::ranges::find(list, name, &NeutralKey::name);
    if (known == list.end()) continue;
    const Result<double> value = file.number(key);
    const auto is = [&](double neutral) { return std::fabs(*value - neutral) <= 1e-6 * std::fabs(neutral); };
    if (value && (is(known->value) || is(known->other))) return {};
    return unsupported(what + ", which this version does not compute with");
  }
  if (std::ranges::find(kHarmlessKeys, name) != std::end(kHarmlessKeys)) return {};
  return unsupported(what + ", and this version does not know what that changes");
}

Result<void> check_keys(const Gguf& file, const ModelConfig& config,
                        const std::set<std::string, std::less<>>& read_keys) {
  const std::string prefix = config.shape.architecture + ".";
  const std::vector<NeutralKey> of_shape = keys_of_shape(config);
  for (const std::string_view key : file.keys())
    if (key.starts_with(prefix) && !read_keys.contains(key.substr(prefix.size())))
      TRY(check_key(file, key, key.substr(prefix.size()), of_shape));
  return {};
}

// The tensors that model/weights/weights.cc and model/model_config.cc read.
std::unordered_set<std::string> read_tensors(const Gguf& file, const ModelConfig& config) {
  std::unordered_set<std::string> names = {"token_embd.weight", "output_norm.weight", "output.weight",
                                           "rope_freqs.weight"};
  if (config.long_rope) names.insert({"rope_factors_long.weight", "rope_factors_short.weight"});
  if (config.output_norm.kind == NormKind::kLayer) names.insert("output_norm.bias");
  for (int32_t layer = 0; layer < config.shape.num_layers; ++layer)
    for (std::string& name : LayerTensors(file, config.layer, layer).all()) {
      const Result<TensorInfo> info = file.tensor(name);
      if (info && info->type == QuantType::kF8_E4M3) names.insert(name + "_scale");
      names.insert(std::move(name));
    }
  return names;
}

// N of "blk.N.", or -1.
int64_t layer_of(std::string_view tensor) {
  constexpr std::string_view kBlock = "blk.";
  int64_t layer = -1;
  if (!tensor.starts_with(kBlock)) return -1;
  const char* end = tensor.data() + tensor.size();
  const auto parsed = std::from_chars(tensor.data() + kBlock.size(), end, layer);
  return parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '.' ? layer : -1;
}

Result<void> check_tensors(const Gguf& file, const ModelConfig& config) {
  const int32_t num_layers = config.shape.num_layers;
  const std::unordered_set<std::string> known = read_tensors(file, config);
  for (const std::string_view name : file.tensor_names()) {
    if (known.contains(std::string(name))) continue;
    if (layer_of(name) >= num_layers)
      return fail(ErrorCode::kInvalidModel, "the tensor " + quoted(name) + " is of a layer beyond the " +
                                                std::to_string(num_layers) + " of " + config.shape.architecture +
                                                ".block_count; download or convert the model again");
    return unsupported("this version does not use the tensor " + quoted(name));
  }
  return {};
}

// Blocks of the formats' first version had other bytes.
Result<void> check_quantization(const Gguf& file) {
  constexpr std::string_view kKey = "general.quantization_version";
  if (!file.has(kKey)) return {};
  const bool any =
      std::ranges::any_of(file.tensors(), [](const TensorInfo& info) { return quant_format(info.type).block_len > 1; });
  const Result<double> version = file.number(kKey);
  if (any && !(version && *version == 2))
    return unsupported("the key " + quoted(kKey) + " is " + file.shown(kKey) + ", and this version reads 2");
  return {};
}

}  // namespace

Result<void> refuse_unread_parts(const Gguf& file, const ModelConfig& config,
                                 const std::set<std::string, std::less<>>& read_keys) {
  TRY(check_keys(file, config, read_keys));
  TRY(check_tensors(file, config));
  return check_quantization(file);
}

}  // namespace runahead
