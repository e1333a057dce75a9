// A small Llama model with random weights and a byte-level BPE vocabulary, for tests that need a whole model in a
// few hundred kilobytes. The same (seed, shape, type) makes the same file on every machine.
#pragma once

#include <array>
#include <cmath>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "kernels/quant_blocks.h"
#include "tests/support/gguf_builder.h"

namespace runahead::test {

struct TinyShape {
  int32_t num_layers = 3;
  int32_t model_dim = 64;  // multiples of the type's block length: model_dim, heads * head_dim, ffn_dim
  int32_t num_heads = 4;
  int32_t num_kv_heads = 2;
  int32_t head_dim = 32;
  int32_t ffn_dim = 160;
  int32_t context_len = 4096;
  float rope_base = 10000;
  bool tied_head = true;
  bool fused_qkv = false;  // one tensor in place of three
};

// Lengths that no kernel takes as they are, with a format that can hold them: heads of 16, 48, 80 and 100, so that
// blocks of the output projection belong to two heads; FFN widths and a model_dim that are no multiple of 32.
struct OddModel {
  const char* name;
  TinyShape shape;
  QuantType type;
  std::optional<QuantType> finer_type = {};  // of V, down and the embedding
};
inline const OddModel kOddModels[] = {
    {"heads_of_16",
     {.num_layers = 2, .num_heads = 4, .num_kv_heads = 2, .head_dim = 16, .ffn_dim = 96},
     QuantType::kQ4_1},
    {"heads_of_48",
     {.num_layers = 2, .model_dim = 96, .num_heads = 2, .num_kv_heads = 2, .head_dim = 48, .ffn_dim = 256},
     QuantType::kQ8_0},
    {"heads_of_80",
     {.num_layers = 2, .model_dim = 160, .num_heads = 2, .num_kv_heads = 1, .head_dim = 80, .ffn_dim = 224},
     QuantType::kQ4_0},
    {"heads_of_16_in_k_quants",
     {.num_layers = 2, .model_dim = 256, .num_heads = 16, .num_kv_heads = 4, .head_dim = 16, .ffn_dim = 256},
     QuantType::kQ4_K},
    {"heads_of_100",
     {.num_layers = 2, .model_dim = 64, .num_heads = 8, .num_kv_heads = 4, .head_dim = 100, .ffn_dim = 172},
     QuantType::kF16},
    {"heads_of_8",
     {.num_layers = 2, .num_heads = 8, .num_kv_heads = 4, .head_dim = 8, .ffn_dim = 172},
     QuantType::kF32},
    {"narrow_ffn_beside_codes",  // as quantisers leave it: rows of 172 stay F16
     {.num_layers = 2, .num_heads = 4, .num_kv_heads = 2, .head_dim = 16, .ffn_dim = 172},
     QuantType::kQ4_1,
     QuantType::kF16},
    {"nothing_even",
     {.num_layers = 2,
      .model_dim = 42,
      .num_heads = 3,
      .num_kv_heads = 1,
      .head_dim = 30,
      .ffn_dim = 77,
      .tied_head = false},
     QuantType::kBF16},
};

// GPT-2's printable stand-in for each byte, as UTF-8.
inline std::string byte_stand_in(int byte) {
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  if (code < 128) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

struct TinyVocabulary {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;  // 1 normal, 3 control
};

// The merges of the tiny vocabulary, two parts each; _ is a space.
inline constexpr const char* kTinyMerges =
    "_ t h e _ a i n _t he e r o n r e _ s a t e n o r _ w _ c i s i t n d _ b e s l l _ f _ m o u in g _ "
    "p a n _ o a l e d a r _a nd _t o l o o m v er l e _ n i on _o n en t";

// Tokens 0 to 2 are control tokens, 3 to 258 the bytes, then one token a merge: 300 in all.
inline TinyVocabulary tiny_vocabulary() {
  std::vector<std::pair<std::string, std::string>> merges;
  std::istringstream parts(kTinyMerges);
  const auto with_spaces = [](const std::string& part) {
    return part.front() == '_' ? byte_stand_in(' ') + part.substr(1) : part;
  };
  for (std::string left, right; parts >> left >> right;) merges.emplace_back(with_spaces(left), with_spaces(right));
  merges.emplace_back(byte_stand_in(0xC3), byte_stand_in(0xA9));
  TinyVocabulary vocabulary;
  vocabulary.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  vocabulary.types = {3, 3, 3};
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(byte_stand_in(byte));
  for (const auto& [left, right] : merges) {
    vocabulary.tokens.push_back(left + right);
    vocabulary.merges.push_back(left + " " + right);
  }
  vocabulary.types.resize(vocabulary.tokens.size(), 1);
  return vocabulary;
}

// Where a block's half-precision scales lie, and how large the second is for a first of one, so that weights centre on
// 0.
struct BlockScales {
  int scale_at = -1;
  int minimum_at = -1;
  float minimum = 0;
};

inline BlockScales block_scales(QuantType type) {
  switch (type) {
    case QuantType::kQ4_1:
      return {0, 2, -7.5f};
    case QuantType::kQ5_1:
      return {0, 2, -15.5f};
    case QuantType::kQ2_K:
      return {80, 82, 1.5f};
    case QuantType::kQ3_K:
      return {108};
    case QuantType::kQ4_K:
      return {0, 2, 7.5f};
    case QuantType::kQ5_K:
      return {0, 2, 15.5f};
    case QuantType::kQ6_K:
      return {208};
    default:
      return {0};  // Q4_0 Q5_0 Q8_0 IQ4_NL
  }
}

// Random blocks of any format whose weights have about the given standard deviation.
class RandomWeights {
 public:
  explicit RandomWeights(uint64_t seed) : rng_(seed) {}

  float uniform() { return static_cast<float>(rng_.next() >> 40) * 0x1p-23f - 1.0f; }  // [-1, 1)

  std::vector<std::byte> blocks(QuantType type, size_t weights, float deviation) {
    const QuantFormat& format = quant_format(type);
    const auto block_bytes = static_cast<size_t>(format.block_bytes);
    RUNAHEAD_CHECK(weights % static_cast<size_t>(format.block_len) == 0, "rows must be whole blocks");
    std::vector<std::byte> bytes(weights / static_cast<size_t>(format.block_len) * block_bytes);
    if (format.block_len == 1) {
      for (size_t i = 0; i < weights; ++i)
        store_float(type, bytes.data() + i * block_bytes, uniform() * deviation * 1.732f);
      return bytes;
    }
    for (std::byte& b : bytes) b = static_cast<std::byte>(rng_.next() >> 56);
    set_scales(type, bytes, 1);
    std::vector<float> unit(weights);
    dequantize(type, bytes, unit);
    double squares = 0;
    for (const float w : unit) squares += double{w} * w;
    set_scales(type, bytes, deviation / static_cast<float>(std::sqrt(squares / static_cast<double>(weights))));
    return bytes;
  }

 private:
  static void store_float(QuantType type, std::byte* at, float value) {
    if (type == QuantType::kF32) {
      std::memcpy(at, &value, 4);
    } else {
      const uint16_t bits = type == QuantType::kF16 ? float_to_half(value) : float_to_bf16(value);
      std::memcpy(at, &bits, 2);
    }
  }
  static void set_scales(QuantType type, std::vector<std::byte>& bytes, float scale) {
    const BlockScales at = block_scales(type);
    const auto step = static_cast<size_t>(quant_format(type).block_bytes);
    for (size_t b = 0; b < bytes.size(); b += step) {
      store_float(QuantType::kF16, bytes.data() + b + at.scale_at, scale);
      if (at.minimum_at >= 0) store_float(QuantType::kF16, bytes.data() + b + at.minimum_at, scale * at.minimum);
    }
  }

  SeededRng rng_;
};

inline void add_tiny_tokenizer(GgufBuilder& file, const TinyVocabulary& vocabulary) {
  file.str("tokenizer.ggml.model", "gpt2");
  file.str("tokenizer.ggml.pre", "smollm");
  file.strings("tokenizer.ggml.tokens", vocabulary.tokens);
  file.i32s("tokenizer.ggml.token_type", vocabulary.types);
  file.strings("tokenizer.ggml.merges", vocabulary.merges);
  file.u32("tokenizer.ggml.bos_token_id", 1);
  file.u32("tokenizer.ggml.eos_token_id", 2);
  file.u32("tokenizer.ggml.unknown_token_id", 0);
  file.boolean("tokenizer.ggml.add_bos_token", false);
  file.str(
      "tokenizer.chat_template",
      "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
      "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
}

inline void add_tiny_keys(GgufBuilder& file, const TinyShape& shape, uint32_t vocab_size,
                          const std::string& architecture = "llama") {
  const auto u32 = [&](const char* name, int32_t value) {
    file.u32(architecture + "." + name, static_cast<uint32_t>(value));
  };
  file.str("general.architecture", architecture);
  file.str("general.name", "tiny");
  u32("block_count", shape.num_layers);
  u32("context_length", shape.context_len);
  u32("embedding_length", shape.model_dim);
  u32("feed_forward_length", shape.ffn_dim);
  u32("attention.head_count", shape.num_heads);
  u32("attention.head_count_kv", shape.num_kv_heads);
  u32("attention.key_length", shape.head_dim);
  u32("attention.value_length", shape.head_dim);
  u32("rope.dimension_count", shape.head_dim);
  file.f32(architecture + ".rope.freq_base", shape.rope_base);
  file.f32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
  file.u32(architecture + ".vocab_size", vocab_size);
}

// `type` is the format of every matrix but for V, down and the embedding if they have their own; norms are F32.
inline GgufBuilder tiny_llama(uint64_t seed, const TinyShape& shape, QuantType type,
                              std::optional<QuantType> finer_type = {}) {
  const TinyVocabulary vocabulary = tiny_vocabulary();
  RandomWeights random(seed);
  GgufBuilder file;
  add_tiny_keys(file, shape, static_cast<uint32_t>(vocabulary.tokens.size()));
  add_tiny_tokenizer(file, vocabulary);
  // deviation: 1 / sqrt(inputs) keeps activations of order one through the layers.
  const auto matrix = [&](const std::string& name, int32_t rows, int32_t cols, float gain) {
    const bool finer = name.find("attn_v") != std::string::npos || name.find("down") != std::string::npos ||
                       name.find("token_embd") != std::string::npos;
    const QuantType own = finer ? finer_type.value_or(type) : type;
    const auto r = static_cast<uint64_t>(rows), c = static_cast<uint64_t>(cols);
    file.tensor(name, {c, r}, own, random.blocks(own, r * c, gain / std::sqrt(static_cast<float>(cols))));
  };
  const auto qkv = [&](const std::string& block) {
    const int32_t q_dim = shape.num_heads * shape.head_dim, kv_dim = shape.num_kv_heads * shape.head_dim;
    if (shape.fused_qkv) return matrix(block + "attn_qkv.weight", q_dim + 2 * kv_dim, shape.model_dim, 2);
    matrix(block + "attn_q.weight", q_dim, shape.model_dim, 2);
    matrix(block + "attn_k.weight", kv_dim, shape.model_dim, 2);
    matrix(block + "attn_v.weight", kv_dim, shape.model_dim, 1);
  };
  const auto norm = [&](const std::string& name) {
    std::vector<float> weights(static_cast<size_t>(shape.model_dim));
    for (float& w : weights) w = 1 + 0.2f * random.uniform();
    file.f32_tensor(name, {weights.size()}, weights);
  };
  const auto vocab_size = static_cast<int32_t>(vocabulary.tokens.size());
  matrix("token_embd.weight", vocab_size, shape.model_dim, 4);
  for (int32_t layer = 0; layer < shape.num_layers; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    norm(block + "attn_norm.weight");
    qkv(block);
    matrix(block + "attn_output.weight", shape.model_dim, shape.num_heads * shape.head_dim, 1);
    norm(block + "ffn_norm.weight");
    matrix(block + "ffn_gate.weight", shape.ffn_dim, shape.model_dim, 1);
    matrix(block + "ffn_up.weight", shape.ffn_dim, shape.model_dim, 1);
    matrix(block + "ffn_down.weight", shape.model_dim, shape.ffn_dim, 1);
  }
  norm("output_norm.weight");
  if (!shape.tied_head) matrix("output.weight", vocab_size, shape.model_dim, 4);
  return file;
}

inline void write_odd_model(const std::filesystem::path& path, const OddModel& odd) {
  tiny_llama(90, odd.shape, odd.type, odd.finer_type).write(path);
}

inline void write_tiny_llama(const std::filesystem::path& path, uint64_t seed, const TinyShape& shape = {},
                             QuantType type = QuantType::kQ4_1) {
  tiny_llama(seed, shape, type).write(path);
}

// Of the formats of a Q4_K_M file.
inline void write_tiny_k_quants(const std::filesystem::path& path, uint64_t seed) {
  const TinyShape shape{
      .num_layers = 2, .model_dim = 256, .num_heads = 4, .num_kv_heads = 2, .head_dim = 64, .ffn_dim = 512};
  tiny_llama(seed, shape, QuantType::kQ4_K, QuantType::kQ6_K).write(path);
}

}  // namespace runahead::test
