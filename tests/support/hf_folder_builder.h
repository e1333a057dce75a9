// HfFolderBuilder: writes small folders as Hugging Face's models lie in them. Every header can be made wrong.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_text.h"
#include "kernels/quant_blocks.h"

namespace runahead::test {

// One .safetensors file, its tensors in the order they came.
class SafetensorsBuilder {
 public:
  void tensor(const std::string& name, const std::string& type, const std::vector<int64_t>& shape,
              const std::vector<std::byte>& bytes) {
    header[name] = {{"dtype", type}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data.insert(data.end(), bytes.begin(), bytes.end());
  }
  // In the type: F32, F16 or BF16.
  void tensor(const std::string& name, const std::string& type, const std::vector<int64_t>& shape,
              const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * (type == "F32" ? 4 : 2));
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = type == "F16" ? float_to_half(values[i]) : float_to_bf16(values[i]);
      if (type == "F32") std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      else std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
    tensor(name, type, shape, bytes);
  }
  std::string build() const { return build(to_ordered_text(header)); }
  // With a header of one's own, padded to eight bytes as the library does.
  std::string build(std::string text) const {
    while (text.size() % 8 != 0) text += ' ';
    const uint64_t size = text.size();
    std::string out(reinterpret_cast<const char*>(&size), sizeof(size));
    return out + text + std::string(reinterpret_cast<const char*>(data.data()), data.size());
  }

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::vector<std::byte> data;
};

inline void write_file(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

// Numbers by a tensor's name alone, as tests/golden/make_hf_models.py makes them.
inline std::vector<uint64_t> hf_numbers(std::string_view name, size_t count) {
  uint64_t seed = 0xcbf29ce484222325;
  for (const char c : name) seed = (seed ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  std::vector<uint64_t> numbers(count);
  for (size_t i = 0; i < count; ++i) {
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    numbers[i] = z ^ z >> 31;
  }
  return numbers;
}
inline double uniform_of(uint64_t number) { return static_cast<double>(number >> 11) * 0x1p-52 - 1; }
inline size_t hf_count(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (const int64_t dim : shape) count *= static_cast<size_t>(dim);
  return count;
}

// The weights of a tensor.
inline std::vector<float> hf_weights(std::string_view name, const std::vector<int64_t>& shape, bool gains_from_zero) {
  std::vector<float> values;
  for (const uint64_t number : hf_numbers(name, hf_count(shape))) {
    const double uniform = uniform_of(number);
    if (shape.size() > 1)
      values.push_back(static_cast<float>(uniform * std::sqrt(3.0 / static_cast<double>(shape[1]))));
    else if (name.ends_with("bias")) values.push_back(static_cast<float>(uniform * 0.3));
    else values.push_back(static_cast<float>(uniform * 0.4 + (gains_from_zero ? 0 : 1)));
  }
  return values;
}

// Codes of F8_E4M3, none of which is NaN, and scales that make weights of them for a matrix of `cols` columns, as
// tests/golden/make_hf_float8.py.
inline std::vector<std::byte> hf_float8_codes(std::string_view name, const std::vector<int64_t>& shape) {
  std::vector<std::byte> codes;
  for (const uint64_t number : hf_numbers(name, hf_count(shape))) {
    const auto code = static_cast<uint8_t>(number >> 56);
    codes.push_back(static_cast<std::byte>((code & 0x7F) == 0x7F ? code ^ 1 : code));
  }
  return codes;
}
inline std::vector<float> hf_float8_scales(std::string_view name, const std::vector<int64_t>& shape, int64_t cols) {
  std::vector<float> scales;
  for (const uint64_t number : hf_numbers(name, hf_count(shape)))
    scales.push_back(
        static_cast<float>((0.75 + 0.25 * uniform_of(number)) / (150 * std::sqrt(static_cast<double>(cols)))));
  return scales;
}

// config.json of a Llama of two layers, tied, and its tensors.
inline nlohmann::ordered_json tiny_hf_config(int64_t vocab_size) {
  return {{"model_type", "llama"},          {"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", vocab_size},       {"hidden_size", 32},
          {"intermediate_size", 64},        {"num_hidden_layers", 2},
          {"num_attention_heads", 2},       {"num_key_value_heads", 1},
          {"max_position_embeddings", 256}, {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},          {"tie_word_embeddings", true},
          {"hidden_act", "silu"},           {"torch_dtype", "float32"}};
}

inline SafetensorsBuilder tiny_hf_weights(int64_t vocab_size) {
  SafetensorsBuilder file;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    file.tensor(name, "F32", shape, hf_weights(name, shape, false));
  };
  add("model.embed_tokens.weight", {vocab_size, 32}), add("model.norm.weight", {32});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    add(layer + "input_layernorm.weight", {32}), add(layer + "post_attention_layernorm.weight", {32});
    add(layer + "self_attn.q_proj.weight", {32, 32}), add(layer + "self_attn.k_proj.weight", {16, 32});
    add(layer + "self_attn.v_proj.weight", {16, 32}), add(layer + "self_attn.o_proj.weight", {32, 32});
    add(layer + "mlp.gate_proj.weight", {64, 32}), add(layer + "mlp.up_proj.weight", {64, 32});
    add(layer + "mlp.down_proj.weight", {32, 64});
  }
  return file;
}

inline void write_tiny_hf_folder(const std::filesystem::path& folder, int64_t vocab_size) {
  write_file(folder / "config.json", to_ordered_text(tiny_hf_config(vocab_size)));
  write_file(folder / "model.safetensors", tiny_hf_weights(vocab_size).build());
}

}  // namespace runahead::test
