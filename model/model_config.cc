#include "model/model_config.h"

#include <cmath>
#include <string>

#include "base/limits.h"
#include "model/file_kind.h"

namespace runahead {
namespace {

std::unexpected<Error> unsupported(const std::string& what) {
  return fail(ErrorCode::kUnsupported, what + " is not supported; choose another model");
}

std::unexpected<Error> contradiction(const std::string& what) {
  return fail(ErrorCode::kInvalidModel, what + "; download or convert the model again");
}

// Keys of the architecture: "llama." + name, each bounded by what the model may have.
class Keys {
 public:
  Keys(const Gguf& file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  std::string full(std::string_view name) const { return prefix_ + std::string(name); }
  bool has(std::string_view name) const { return file_.has(full(name)); }
  Result<int32_t> size(std::string_view name, uint64_t max) const {
    const uint64_t value = TRY(file_.u64(full(name)));
    if (value == 0 || value > max)
      return contradiction(full(name) + " is " + std::to_string(value) + ", not 1 to " + std::to_string(max));
    return static_cast<int32_t>(value);
  }
  Result<int32_t> size_or(std::string_view name, uint64_t max, int32_t fallback) const {
    return has(name) ? size(name, max) : Result<int32_t>(fallback);
  }
  Result<float> positive_or(std::string_view name, float fallback) const {
    const float value = TRY(file_.f32_or(full(name), fallback));
    if (!(value > 0) || !std::isfinite(value)) return contradiction(full(name) + " is not a positive number");
    return value;
  }

 private:
  const Gguf& file_;
  std::string prefix_;
};

Result<int32_t> read_vocab_size(const Gguf& file, const Keys& keys) {
  const QuantMatrixView embedding = TRY(file.matrix("token_embd.weight"));
  if (embedding.rows > limits::kVocabMax)
    return contradiction("token_embd.weight has " + std::to_string(embedding.rows) + " rows, over the limit");
  const auto rows = static_cast<int32_t>(embedding.rows);
  if (TRY(keys.size_or("vocab_size", limits::kVocabMax, rows)) != rows)
    return contradiction("vocab_size and the rows of token_embd.weight differ");
  return rows;
}

Result<ModelShape> read_shape(const Gguf& file, const Keys& keys) {
  ModelShape shape;
  shape.architecture = TRY(file.str("general.architecture"));
  shape.num_layers = TRY(keys.size("block_count", limits::kModelLayersMax));
  shape.model_dim = TRY(keys.size("embedding_length", limits::kModelDimMax));
  shape.ffn_dim = TRY(keys.size("feed_forward_length", limits::kModelDimMax));
  shape.num_heads = TRY(keys.size("attention.head_count", limits::kModelHeadsMax));
  shape.num_kv_heads = TRY(keys.size_or("attention.head_count_kv", limits::kModelHeadsMax, shape.num_heads));
  shape.context_len = TRY(keys.size("context_length", limits::kModelContextMax));
  // Within the window, sliding and full attention are the same.
  const int32_t window = TRY(keys.size_or("attention.sliding_window", limits::kModelContextMax, shape.context_len));
  shape.context_len = std::min(shape.context_len, window);
  if (shape.num_heads % shape.num_kv_heads != 0)
    return contradiction(std::to_string(shape.num_heads) + " heads cannot share " + std::to_string(shape.num_kv_heads) +
                         " KV heads");
  shape.head_dim =
      TRY(keys.size_or("attention.key_length", limits::kModelHeadDimMax, shape.model_dim / shape.num_heads));
  if (!keys.has("attention.key_length") && shape.model_dim % shape.num_heads != 0)
    return contradiction("embedding_length is no multiple of attention.head_count");
  if (TRY(keys.size_or("attention.value_length", limits::kModelHeadDimMax, shape.head_dim)) != shape.head_dim)
    return unsupported("a model whose keys and values have different lengths");
  if (shape.head_dim % 2 != 0 || shape.head_dim > static_cast<int32_t>(limits::kModelHeadDimMax))
    return unsupported("a head_dim of " + std::to_string(shape.head_dim));
  if (TRY(keys.size_or("rope.dimension_count", limits::kModelHeadDimMax, shape.head_dim)) != shape.head_dim)
    return unsupported("RoPE over a part of a head");
  shape.vocab_size = TRY(read_vocab_size(file, keys));
  return shape;
}

Result<float> read_linear_scaling(const Gguf& file, const Keys& keys) {
  if (keys.has("rope.scaling.type")) {
    const std::string_view type = TRY(file.str(keys.full("rope.scaling.type")));
    if (type == "none") return 1.0f;
    if (type != "linear") return unsupported("RoPE scaling of type '" + std::string(type) + "'");
    return keys.positive_or("rope.scaling.factor", 1);
  }
  // Llama 3.1 and later scale by rope_freqs.weight alone; a factor without a type is linear, as is the old key.
  return keys.positive_or(keys.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear", 1);
}

Result<RopeConfig> read_rope(const Gguf& file, const Keys& keys, int32_t head_dim) {
  RopeConfig rope;
  rope.base = TRY(keys.positive_or("rope.freq_base", 10000));
  const float factor = TRY(read_linear_scaling(file, keys));
  const int32_t pairs = head_dim / 2;
  std::vector<float> divisors(static_cast<size_t>(pairs), 1.0f);
  if (file.has_tensor("rope_freqs.weight")) divisors = TRY(file.vector("rope_freqs.weight", pairs));
  for (int32_t i = 0; i < pairs; ++i) {
    const double divisor = divisors[static_cast<size_t>(i)];
    if (!(divisor > 0) || !std::isfinite(divisor))
      return contradiction("rope_freqs.weight holds a number that is not positive");
    rope.frequencies.push_back(std::pow(double{rope.base}, -2.0 * i / head_dim) / divisor / factor);
  }
  return rope;
}

// Tensors that change the result and that the forward pass does not read.
Result<void> refuse_unknown_parts(const Gguf& file, const Keys& keys) {
  if (TRY(file.u64_or(keys.full("expert_count"), 0)) != 0) return unsupported("a mixture of experts");
  for (const std::string_view name : file.tensor_names()) {
    const bool is_bias = name.ends_with(".bias");
    if (is_bias || name.ends_with("_q_norm.weight") || name.ends_with("_k_norm.weight"))
      return unsupported("the tensor '" + std::string(name) + "' of a `llama` model");
  }
  return {};
}

}  // namespace

Result<SpecialTokens> read_special_tokens(const Gguf& file, int32_t vocab_size) {
  SpecialTokens special;
  const auto read = [&](std::string_view key, TokenId& id) -> Result<void> {
    if (!file.has(key)) return {};
    const uint64_t value = TRY(file.u64(key));
    if (value == UINT32_MAX) return {};  // converters write -1 for "none"
    if (value >= static_cast<uint64_t>(vocab_size))
      return contradiction(std::string(key) + " is " + std::to_string(value) + ", outside the vocabulary");
    id = static_cast<TokenId>(value);
    return {};
  };
  // An end that the model cannot say does no harm: llama.cpp, too, goes on without it.
  const auto read_if_known = [&](std::string_view key, TokenId& id) -> Result<void> {
    const Result<uint64_t> value = file.u64(key);
    return value && *value >= static_cast<uint64_t>(vocab_size) ? Result<void>() : read(key, id);
  };
  TRY(read("tokenizer.ggml.bos_token_id", special.bos));
  TRY(read("tokenizer.ggml.eos_token_id", special.eos));
  TRY(read_if_known("tokenizer.ggml.eot_token_id", special.eot));
  TRY(read_if_known("tokenizer.ggml.eom_token_id", special.eom));
  TRY(read_if_known("tokenizer.ggml.unknown_token_id", special.unknown));
  TRY(read_if_known("tokenizer.ggml.padding_token_id", special.padding));
  special.add_bos = TRY(file.boolean_or("tokenizer.ggml.add_bos_token", false));
  special.add_eos = TRY(file.boolean_or("tokenizer.ggml.add_eos_token", false));
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
  const std::string architecture(TRY(file.str("general.architecture")));
  if (architecture != "llama")
    return fail(ErrorCode::kUnsupported, "the model's architecture '" + architecture +
                                             "' is not supported; choose a model of architecture llama");
  const Keys keys(file, architecture);
  TRY(refuse_unknown_parts(file, keys));
  ModelConfig config;
  config.shape = TRY(read_shape(file, keys));
  const QuantMatrixView embedding = TRY(file.matrix("token_embd.weight"));
  if (embedding.cols != config.shape.model_dim)
    return contradiction("token_embd.weight does not have embedding_length columns");
  config.norm_epsilon = TRY(file.f32(keys.full("attention.layer_norm_rms_epsilon")));
  if (!(config.norm_epsilon >= 0 && config.norm_epsilon < 1))
    return contradiction("layer_norm_rms_epsilon is not in [0, 1)");
  config.tied_head = !file.has_tensor("output.weight");
  config.rope = TRY(read_rope(file, keys, config.shape.head_dim));
  config.special = TRY(read_special_tokens(file, config.shape.vocab_size));
  return config;
}

}  // namespace runahead
