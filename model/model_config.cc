#include "model/model_config.h"

#include <cmath>
#include <string>

#include "base/limits.h"
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

// Keys of the architecture: "llama." + name, each bounded by what the model may have.
class Keys {
 public:
  Keys(const Gguf& file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  std::string full(std::string_view name) const { return prefix_ + std::string(name); }
  bool has(std::string_view name) const { return file_.has(full(name)); }
  Result<int32_t> size(std::string_view name, uint64_t max) const {
    return checked(name, TRY(file_.u64(full(name))), max);
  }
  Result<int32_t> size_or(std::string_view name, uint64_t max, int32_t fallback) const {
    return has(name) ? size(name, max) : Result<int32_t>(fallback);
  }
  // One number for all layers, or an array with the same number for each.
  Result<int32_t> size_of_layers(std::string_view name, uint64_t max, int32_t num_layers) const {
    const Result<uint64_t> count = file_.array_size(full(name));
    if (count && *count != static_cast<uint64_t>(num_layers))
      return contradiction(full(name) + " has " + std::to_string(*count) + " numbers for " +
                           std::to_string(num_layers) + " layers");
    const std::vector<uint64_t> values = TRY(file_.u64s(full(name)));
    for (const uint64_t value : values)
      if (value != values.front())
        return unsupported("a model whose layers differ in " + full(name) + " (" + std::to_string(values.front()) +
                           " and " + std::to_string(value) + ")");
    return checked(name, values.front(), max);
  }
  Result<float> positive_or(std::string_view name, float fallback) const {
    const float value = TRY(file_.f32_or(full(name), fallback));
    if (!(value > 0) || !std::isfinite(value))
      return contradiction(full(name) + " is " + file_.shown(full(name)) + ", not a positive number");
    return value;
  }

 private:
  Result<int32_t> checked(std::string_view name, uint64_t value, uint64_t max) const {
    if (value == 0 || value > max)
      return contradiction(full(name) + " is " + std::to_string(value) + ", not 1 to " + std::to_string(max));
    return static_cast<int32_t>(value);
  }

  const Gguf& file_;
  std::string prefix_;
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

// Within the window, sliding and full attention are the same. A window of 0 is none.
Result<int32_t> read_context(const Gguf& file, const Keys& keys) {
  const int32_t context = TRY(keys.size("context_length", limits::kModelContextMax));
  const uint64_t window = TRY(file.u64_or(keys.full("attention.sliding_window"), 0));
  return window == 0 || window >= static_cast<uint64_t>(context) ? context : static_cast<int32_t>(window);
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
  const int32_t rotated = TRY(keys.size_or("rope.dimension_count", limits::kModelHeadDimMax, head_dim));
  if (rotated != head_dim)
    return unsupported("RoPE over a part of a head (" + keys.full("rope.dimension_count") + " is " +
                       std::to_string(rotated) + " of " + std::to_string(head_dim) + ")");
  return head_dim;
}

Result<ModelShape> read_shape(const Gguf& file, const Keys& keys) {
  ModelShape shape;
  shape.architecture = TRY(file.str("general.architecture"));
  shape.num_layers = TRY(keys.size("block_count", limits::kModelLayersMax));
  shape.model_dim = TRY(keys.size("embedding_length", limits::kModelDimMax));
  shape.ffn_dim = TRY(keys.size_of_layers("feed_forward_length", limits::kModelDimMax, shape.num_layers));
  shape.num_heads = TRY(keys.size_of_layers("attention.head_count", limits::kModelHeadsMax, shape.num_layers));
  shape.num_kv_heads = shape.num_heads;
  if (keys.has("attention.head_count_kv"))
    shape.num_kv_heads = TRY(keys.size_of_layers("attention.head_count_kv", limits::kModelHeadsMax, shape.num_layers));
  if (shape.num_heads % shape.num_kv_heads != 0)
    return contradiction(std::to_string(shape.num_heads) + " heads cannot share " + std::to_string(shape.num_kv_heads) +
                         " KV heads");
  shape.context_len = TRY(read_context(file, keys));
  shape.head_dim = TRY(read_head_dim(keys, shape));
  shape.vocab_size = TRY(read_vocab_size(file));
  return shape;
}

// 1 for none.
Result<float> read_linear_scaling(const Gguf& file, const Keys& keys) {
  // Llama 3.1 and later scale by rope_freqs.weight alone; a factor without a type is linear, as is the old key.
  if (keys.has("rope.scaling.type")) {
    const std::string_view type = TRY(file.str(keys.full("rope.scaling.type")));
    if (type == "none") return 1.0f;
    if (type != "linear") return unsupported("RoPE scaling of the type " + quoted(type));
  }
  const char* key = keys.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
  if (TRY(file.f32_or(keys.full(key), 1)) == 0) return 1.0f;  // converters write 0 for none
  return keys.positive_or(key, 1);
}

Result<RopeConfig> read_rope(const Gguf& file, const Keys& keys, RopePairing pairing, int32_t head_dim) {
  RopeConfig rope{.pairing = pairing};
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

Result<NormConfig> read_norm(const Gguf& file, const Keys& keys, NormKind kind) {
  constexpr const char* kEpsilon = "attention.layer_norm_rms_epsilon";
  NormConfig norm{.kind = kind};
  norm.epsilon = TRY(file.f32(keys.full(kEpsilon)));
  if (!(norm.epsilon > 0 && norm.epsilon < 1))  // of 0, a row of zeros would make no number
    return contradiction(keys.full(kEpsilon) + " is " + file.shown(keys.full(kEpsilon)) +
                         ", not more than 0 and less than 1");
  return norm;
}

Result<LayerConfig> read_layer(const Gguf& file, const Keys& keys, const Architecture& architecture, int32_t head_dim) {
  LayerConfig layer{.ffn = architecture.ffn};
  layer.norm = TRY(read_norm(file, keys, architecture.norm));
  layer.rope = TRY(read_rope(file, keys, architecture.rope_pairing, head_dim));
  return layer;
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
  if (TRY(file.u64_or(keys.full("expert_count"), 0)) != 0)
    return unsupported("a mixture of experts (" + keys.full("expert_count") + " is " +
                       file.shown(keys.full("expert_count")) + ")");
  ModelConfig config;
  config.shape = TRY(read_shape(file, keys));
  const QuantMatrixView embedding = TRY(file.matrix("token_embd.weight"));
  if (embedding.cols != config.shape.model_dim)
    return contradiction("token_embd.weight does not have embedding_length columns");
  config.layer = TRY(read_layer(file, keys, architecture, config.shape.head_dim));
  config.output_norm = config.layer.norm;
  config.tied_head = !file.has_tensor("output.weight");
  config.special = TRY(read_special_tokens(file, config.shape.vocab_size));
  TRY(refuse_unread_parts(file, config));
  return config;
}

}  // namespace runahead
