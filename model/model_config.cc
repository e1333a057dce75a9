#include "model/model_config.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "base/limits.h"
#include "model/rope.h"
#include "model/weights/file_kind.h"
#include "model/weights/unread_parts.h"

namespace runahead {
namespace {

std::unexpected<Error> unsupported(const std::string& what) {
  return fail(ErrorCode::kUnsupported, what + " is not supported; choose another model");
}

std::unexpected<Error> contradiction(const std::string& what) {
  return fail(ErrorCode::kInvalidModel, what + "; download or convert the model again");
}

// Keys of the architecture: "llama." + name, each bounded by what the model may have. Those that were asked for are read, as
// far as model/weights/unread_parts.h is concerned.
class Keys {
 public:
  Keys(const Gguf& file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  std::string full(std::string_view name) const {
    asked_.emplace(name);
    return prefix_ + std::string(name);
  }
  const std::set<std::string, std::less<>>& asked() const { return asked_; }
  bool has(std::string_view name) const { return file_.has(full(name)); }
  Result<int32_t> size(std::string_view name, uint64_t max) const {
    return checked(name, TRY(file_.u64(full(name))), max);
  }
  Result<int32_t> size_or(std::string_view name, uint64_t max, int32_t fallback) const {
    return has(name) ? size(name, max) : Result<int32_t>(fallback);
  }
  // One number for all layers, or an array with the same number for each.
  Result<int32_t> size_of_layers(std::string_view name, uint64_t max, int32_t num_layers) const {
    const std::vector<uint64_t> values = TRY(numbers_of_layers(name, num_layers));
    for (const uint64_t value : values)
      if (value != values.front())
        return unsupported("a model whose layers differ in " + full(name) + " (" + std::to_string(values.front()) +
                           " and " + std::to_string(value) + ")");
    return checked(name, values.front(), max);
  }
  // One for all, or as many as there are layers.
  Result<std::vector<uint64_t>> numbers_of_layers(std::string_view name, int32_t num_layers) const {
    const Result<uint64_t> count = file_.array_size(full(name));
    if (count && *count != static_cast<uint64_t>(num_layers))
      return contradiction(full(name) + " has " + std::to_string(*count) + " numbers for " +
                           std::to_string(num_layers) + " layers");
    return file_.u64s(full(name));
  }
  Result<float> positive_or(std::string_view name, float fallback) const {
    const float value = TRY(file_.f32_or(full(name), fallback));
    if (!(value > 0) || !std::isfinite(value))
      return contradiction(full(name) + " is " + file_.shown(full(name)) + ", not a positive number");
    return value;
  }
  // A factor that writers give as 0 where there is none.
  Result<float> factor_or(std::string_view name, float fallback) const {
    return TRY(file_.f32_or(full(name), fallback)) == 0 ? Result<float>(fallback) : positive_or(name, fallback);
  }

 private:
  Result<int32_t> checked(std::string_view name, uint64_t value, uint64_t max) const {
    if (value == 0 || value > max)
      return contradiction(full(name) + " is " + std::to_string(value) + ", not 1 to " + std::to_string(max));
    return static_cast<int32_t>(value);
  }

  const Gguf& file_;
  std::string prefix_;
  mutable std::set<std::string, std::less<>> asked_;
};

// A file of one architecture, and what its keys say.
struct Source {
  const Gguf& file;
  const Keys& keys;
  const Architecture& architecture;
};

// Rows of the embedding, one a token.
Result<int32_t> read_vocab_size(const Gguf& file) {
  constexpr const char* kTokens = "tokenizer.ggml.tokens";
  const QuantMatrixView embedding = TRY(file.matrix("token_embd.weight"));
  if (embedding.rows > limits::kVocabMax)
    return contradiction("token_embd.weight has " + std::to_string(embedding.rows) + " rows, at most " +
                         std::to_string(limits::kVocabMax) + " are read");
  const auto rows = static_cast<uint64_t>(embedding.rows),
             tokens = file.has(kTokens) ? TRY(file.array_size(kTokens)) : rows;
  if (tokens != rows)
    return contradiction("the vocabulary has " + std::to_string(tokens) + " tokens, but token_embd.weight has " +
                         std::to_string(rows) + " rows");
  return static_cast<int32_t>(rows);
}

// Of attention.sliding_window, at most the context; 0: none.
Result<int32_t> read_window(const Source& s, int32_t context) {
  const std::string key = s.keys.full("attention.sliding_window");
  if (s.architecture.windowed == WindowedLayers::kIgnored) return 0;
  const uint64_t window = TRY(s.file.u64_or(key, static_cast<uint64_t>(s.architecture.window)));
  if (window == 1) return contradiction(key + " is 1: a token would see nothing but itself");
  return static_cast<int32_t>(std::min(window, static_cast<uint64_t>(context)));
}

// Which layers have the window: what the file says, or all but every so many-th.
Result<std::vector<bool>> read_windowed_layers(const Source& s, int32_t num_layers) {
  constexpr const char* kPattern = "attention.sliding_window_pattern";
  std::vector<bool> windowed;
  auto period = static_cast<uint64_t>(s.architecture.window_period);
  if (s.keys.has(kPattern)) {
    if (s.file.array_size(s.keys.full(kPattern))) {
      for (const bool is : TRY(s.file.booleans(s.keys.full(kPattern)))) windowed.push_back(is);
      if (windowed.size() != static_cast<size_t>(num_layers))
        return contradiction(s.keys.full(kPattern) + " is not one of a flag a layer");
      return windowed;
    }
    period = TRY(s.file.u64(s.keys.full(kPattern)));
  }
  for (uint64_t layer = 0; layer < static_cast<uint64_t>(num_layers); ++layer)
    windowed.push_back(period == 0 || layer % period < period - 1);
  return windowed;
}

Result<void> read_context(const Source& s, ModelShape& shape) {
  shape.context_len = TRY(s.keys.size("context_length", limits::kModelContextMax));
  const int32_t window = TRY(read_window(s, shape.context_len));
  // One that no context reaches is none, unless its layers turn by another base.
  if (window == 0 || (window == shape.context_len && !s.architecture.window_rope_base)) return {};
  // Within the window, sliding and full attention are the same.
  if (s.architecture.windowed == WindowedLayers::kUnknown) {
    shape.context_len = window;
    return {};
  }
  for (const bool windowed : TRY(read_windowed_layers(s, shape.num_layers)))
    shape.windows.push_back(windowed ? window : 0);
  return {};
}

Result<int32_t> read_head_dim(const Keys& keys, const ModelShape& shape) {
  if (!keys.has("attention.key_length") && shape.model_dim % shape.num_heads != 0)
    return contradiction("embedding_length is no multiple of attention.head_count");
  const int32_t head_dim =
      TRY(keys.size_or("attention.key_length", limits::kModelHeadDimMax, shape.model_dim / shape.num_heads));
  const int32_t value_length = TRY(keys.size_or("attention.value_length", limits::kModelHeadDimMax, head_dim));
  if (value_length != head_dim)
    return unsupported("a model whose values have another length than its keys (" +
                       keys.full("attention.value_length") + " is " + std::to_string(value_length) + ", a key has " +
                       std::to_string(head_dim) + ")");
  if (head_dim % 2 != 0 || head_dim > static_cast<int32_t>(limits::kModelHeadDimMax))
    return unsupported("a head_dim of " + std::to_string(head_dim));
  return head_dim;
}

Result<int32_t> read_rotated(const Keys& keys, int32_t head_dim) {
  const int32_t rotated = TRY(keys.size_or("rope.dimension_count", limits::kModelHeadDimMax, head_dim));
  if (rotated > head_dim || rotated % 2 != 0)
    return contradiction(keys.full("rope.dimension_count") + " is " + std::to_string(rotated) +
                         ", not an even part of a head of " + std::to_string(head_dim));
  return rotated;
}

Result<ModelShape> read_shape(const Source& s) {
  const Keys& keys = s.keys;
  ModelShape shape;
  shape.architecture = s.architecture.name;
  shape.num_layers = TRY(keys.size("block_count", limits::kModelLayersMax));
  shape.model_dim = TRY(keys.size("embedding_length", limits::kModelDimMax));
  shape.ffn_dim = TRY(keys.size_of_layers("feed_forward_length", limits::kModelDimMax, shape.num_layers));
  if (s.architecture.ffn == FfnKind::kGelu) shape.ffn_matrices = 2;
  shape.num_heads = TRY(keys.size_of_layers("attention.head_count", limits::kModelHeadsMax, shape.num_layers));
  shape.num_kv_heads = shape.num_heads;
  if (keys.has("attention.head_count_kv"))
    shape.num_kv_heads = TRY(keys.size_of_layers("attention.head_count_kv", limits::kModelHeadsMax, shape.num_layers));
  if (shape.num_heads % shape.num_kv_heads != 0)
    return contradiction(std::to_string(shape.num_heads) + " heads cannot share " + std::to_string(shape.num_kv_heads) +
                         " KV heads");
  TRY(read_context(s, shape));
  shape.head_dim = TRY(read_head_dim(keys, shape));
  shape.vocab_size = TRY(read_vocab_size(s.file));
  return shape;
}

// What divides each pair's frequency; empty: nothing does. long_rope: there is one list for contexts beyond the original one, and
// one for those within.
Result<std::vector<float>> read_divisors(const Source& s, int32_t rotated, bool long_rope, bool beyond) {
  std::string name = "rope_freqs.weight";
  if (long_rope) name = beyond ? "rope_factors_long.weight" : "rope_factors_short.weight";
  else if (!s.file.has_tensor(name)) return std::vector<float>();
  std::vector<float> divisors = TRY(s.file.vector(name, rotated / 2));
  for (const float divisor : divisors)
    if (!(divisor > 0) || !std::isfinite(divisor)) return contradiction(name + " holds a number that is not positive");
  return divisors;
}

Result<RopeScaling> read_rope_scaling(const Source& s, ModelConfig& config) {
  RopeScaling scaling;
  // Llama 3.1 and later scale by rope_freqs.weight alone; a factor without a type is linear, as is the old key.
  const std::string_view type =
      s.keys.has("rope.scaling.type") ? TRY(s.file.str(s.keys.full("rope.scaling.type"))) : "linear";
  if (type != "none" && type != "linear" && type != "yarn" && type != "longrope")
    return unsupported("RoPE scaling of the type " + quoted(type));
  const int32_t context = config.shape.context_len;
  scaling.original_context =
      TRY(s.keys.size_or("rope.scaling.original_context_length", limits::kModelContextMax, context));
  scaling.attention_factor = TRY(s.keys.positive_or("rope.scaling.attn_factor", 1));
  config.long_rope = type == "longrope" || (s.architecture.long_rope && s.file.has_tensor("rope_factors_long.weight"));
  scaling.divisors = TRY(read_divisors(s, config.layer.rotated, config.long_rope, context > scaling.original_context));
  if (type == "none") return scaling;
  scaling.factor =
      TRY(s.keys.factor_or(s.keys.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear", 1));
  scaling.yarn = type == "yarn";
  scaling.beta_fast = TRY(s.keys.positive_or("rope.scaling.yarn_beta_fast", 32));
  scaling.beta_slow = TRY(s.keys.positive_or("rope.scaling.yarn_beta_slow", 1));
  return scaling;
}

// Of all layers: the first is that of layers without a window, the second, if there is one, what others turn by.
Result<void> read_ropes(const Source& s, ModelConfig& config) {
  const ModelShape& shape = config.shape;
  const Architecture& a = s.architecture;
  const int32_t rotated = config.layer.rotated;
  const float base = TRY(s.keys.positive_or("rope.freq_base", 10000));
  config.ropes = {scaled_rope(base, shape.head_dim, rotated, TRY(read_rope_scaling(s, config)))};
  config.rope_of_layer.assign(static_cast<size_t>(shape.num_layers), 0);
  const bool own_base = a.window_rope_base.has_value(), unscaled = a.window_rope_unscaled;
  if (!shape.windows.empty() && (own_base || unscaled)) {
    const float windowed = own_base ? TRY(s.keys.positive_or("rope.freq_base_swa", *a.window_rope_base)) : base;
    config.ropes.push_back(scaled_rope(windowed, shape.head_dim, rotated, {}));
    for (int32_t layer = 0; layer < shape.num_layers; ++layer)
      if (shape.window(layer) > 0) config.rope_of_layer[static_cast<size_t>(layer)] = 1;
  }
  if (a.unrotated_period > 0) {
    config.ropes.push_back(no_rope(shape.head_dim));
    for (int32_t layer = a.unrotated_period - 1; layer < shape.num_layers; layer += a.unrotated_period)
      config.rope_of_layer[static_cast<size_t>(layer)] = static_cast<int32_t>(config.ropes.size()) - 1;
  }
  return {};
}

Result<NormConfig> read_norm(const Source& s) {
  const bool rms = s.architecture.norm == NormKind::kRms;
  const std::string key = s.keys.full(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon");
  NormConfig norm{.kind = s.architecture.norm};
  norm.epsilon = TRY(s.file.f32(key));
  if (!(norm.epsilon > 0 && norm.epsilon < 1))  // of 0, a row of zeros would make no number
    return contradiction(key + " is " + s.file.shown(key) + ", not more than 0 and less than 1");
  return norm;
}

// The FFN that `shape` has is one of them.
Result<void> read_experts(const Source& s, LayerConfig& layer, ModelShape& shape) {
  if (!s.architecture.experts || TRY(s.file.u64_or(s.keys.full("expert_count"), 0)) == 0) return {};
  layer.experts = TRY(s.keys.size("expert_count", limits::kModelExpertsMax));
  layer.experts_used = TRY(s.keys.size("expert_used_count", static_cast<uint64_t>(layer.experts)));
  if (s.keys.has("expert_feed_forward_length"))
    shape.ffn_dim = TRY(s.keys.size_of_layers("expert_feed_forward_length", limits::kModelDimMax, shape.num_layers));
  shape.ffn_matrices *= layer.experts_used;
  return {};
}

Result<LayerConfig> read_layer(const Source& s, ModelShape& shape) {
  const Architecture& a = s.architecture;
  LayerConfig layer{.rope_pairing = a.rope_pairing,
                    .qk_norm = a.qk_norm,
                    .ffn = a.ffn,
                    .pre_norms = a.pre_norms,
                    .post_norms = a.post_norms,
                    .parallel = a.parallel,
                    .shared_norm = a.parallel && !s.file.has_tensor("blk.0.attn_norm_2.weight"),
                    .fused_gate_up = a.fused_gate_up};
  if (constexpr const char* kPairing = "runahead.rope_pairing"; s.file.has(kPairing)) {  // of a folder (hf_config.cc)
    if (TRY(s.file.str(kPairing)) != "halves")
      return contradiction(std::string(kPairing) + " is " + s.file.shown(kPairing));
    layer.rope_pairing = RopePairing::kHalves;
  }
  layer.norm = TRY(read_norm(s));
  TRY(read_experts(s, layer, shape));
  layer.rotated = TRY(read_rotated(s.keys, shape.head_dim));
  if (a.optional_norms && !s.file.has_tensor("blk.0.attn_q_norm.weight")) layer.qk_norm = QkNorm::kNone;
  if (a.optional_norms && !s.file.has_tensor("blk.0.ffn_norm.weight")) layer.parallel = layer.shared_norm = true;
  const bool narrow = shape.num_layers == a.narrow_scale_layers;
  layer.attention_scale =
      1 / std::sqrt(static_cast<float>(narrow ? shape.model_dim / shape.num_heads : shape.head_dim));
  if (a.multipliers) {
    layer.attention_scale = TRY(s.keys.factor_or("attention.scale", layer.attention_scale));
    layer.residual_scale = TRY(s.keys.factor_or("residual_scale", 1));
  }
  if (a.soft_caps)
    layer.attention_soft_cap = TRY(s.file.f32_or(s.keys.full("attn_logit_softcapping"), a.attention_soft_cap));
  if (layer.norm.kind == NormKind::kLayer && layer.qk_norm != QkNorm::kNone && shape.head_dim % 32 != 0)
    return unsupported("LayerNorm over heads of " + std::to_string(shape.head_dim));
  return layer;
}

Result<void> read_ends(const Source& s, ModelConfig& config) {
  const Architecture& a = s.architecture;
  if (a.scales_embedding) config.embedding_scale = std::sqrt(static_cast<float>(config.shape.model_dim));
  if (a.multipliers) {
    config.embedding_scale = TRY(s.keys.factor_or("embedding_scale", 1));
    config.logit_scale = 1 / TRY(s.keys.factor_or("logit_scale", 1));
  }
  if (a.soft_caps) config.logit_soft_cap = TRY(s.file.f32_or(s.keys.full("final_logit_softcapping"), a.logit_soft_cap));
  for (const float cap : {config.logit_soft_cap, config.layer.attention_soft_cap})
    if (!(cap >= 0) || !std::isfinite(cap)) return contradiction("a soft cap is " + std::to_string(cap));
  return {};
}

// What files of SentencePiece leave out, because its own models have it so.
SpecialTokens usual_special_tokens(const Gguf& file, int32_t vocab_size) {
  const auto kind = file.str("tokenizer.ggml.model");
  SpecialTokens special;
  if (kind && *kind == "llama") special = {.bos = 1, .eos = 2, .add_bos = true};
  if (kind && *kind == "t5") special = {.eos = 1, .add_eos = true};
  for (TokenId* id : {&special.bos, &special.eos})
    if (*id >= vocab_size) *id = kNoToken;
  return special;
}

}  // namespace

Result<SpecialTokens> read_special_tokens(const Gguf& file, int32_t vocab_size) {
  SpecialTokens special = usual_special_tokens(file, vocab_size);
  const auto read = [&](std::string_view key, TokenId& id) -> Result<void> {
    if (!file.has(key)) return {};
    id = kNoToken;
    const double value = TRY(file.number(key));
    if (value == -1 || value == UINT32_MAX) return {};  // converters write -1 for "none"
    if (!(value >= 0 && value < vocab_size) || value != std::floor(value))
      return contradiction(std::string(key) + " is " + file.shown(key) + ", outside the vocabulary of " +
                           std::to_string(vocab_size));
    id = static_cast<TokenId>(value);
    return {};
  };
  // An end that the model cannot say does no harm: llama.cpp, too, goes on without it.
  const auto read_if_known = [&](std::string_view key, TokenId& id) -> Result<void> {
    const Result<double> value = file.number(key);
    return value && (*value < 0 || *value >= vocab_size) ? Result<void>() : read(key, id);
  };
  TRY(read("tokenizer.ggml.bos_token_id", special.bos));
  TRY(read("tokenizer.ggml.eos_token_id", special.eos));
  TRY(read_if_known("tokenizer.ggml.eot_token_id", special.eot));
  TRY(read_if_known("tokenizer.ggml.eom_token_id", special.eom));
  special.add_bos = TRY(file.boolean_or("tokenizer.ggml.add_bos_token", special.add_bos && special.bos != kNoToken));
  special.add_eos = TRY(file.boolean_or("tokenizer.ggml.add_eos_token", special.add_eos && special.eos != kNoToken));
  const auto lacks = [](const char* name) {
    const std::string token(name);
    return fail(ErrorCode::kInvalidModel,
                "the file asks for a token around every text (add_" + token + "_token) and does not name it (" + token +
                    "_token_id); give it or switch it off: --override-kv tokenizer.ggml." + token +
                    "_token_id=int:ID or --override-kv tokenizer.ggml.add_" + token + "_token=bool:false",
                "tokenizer.ggml.add_" + token + "_token");
  };
  if (special.add_bos && special.bos == kNoToken) return lacks("bos");
  if (special.add_eos && special.eos == kNoToken) return lacks("eos");
  return special;
}

Result<ModelConfig> read_model_config(const Gguf& file) {
  TRY(refuse_other_kinds(file));
  const Architecture& architecture = *TRY(find_architecture(TRY(file.str("general.architecture"))));
  const Keys keys(file, std::string(architecture.name));
  const Source source{file, keys, architecture};
  ModelConfig config;
  config.shape = TRY(read_shape(source));
  const QuantMatrixView embedding = TRY(file.matrix("token_embd.weight"));
  if (embedding.cols != config.shape.model_dim)
    return contradiction("token_embd.weight does not have embedding_length columns");
  config.layer = TRY(read_layer(source, config.shape));
  TRY(read_ropes(source, config));
  TRY(read_ends(source, config));
  config.output_norm = config.layer.norm;
  config.tied_head = !file.has_tensor("output.weight");
  config.special = TRY(read_special_tokens(file, config.shape.vocab_size));
  TRY(refuse_unread_parts(file, config, keys.asked()));
  return config;
}

}  // namespace runahead
