// Folders of Hugging Face's: what they become, and what of them is refused, by which name.
#include "model/weights/hf_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/model_config.h"
#include "tests/support/hf_folder_builder.h"
#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

constexpr int64_t kVocab = 50;

class HfFolderTest : public ::testing::Test {
 protected:
  HfFolderTest() { test::write_tiny_hf_folder(folder_, kVocab); }

  void write(const char* name, const std::string& text) { test::write_file(folder_ / name, text); }
  void write_config(const ordered_json& config) { write("config.json", to_ordered_text(config)); }
  // config.json with one member changed.
  void set(const char* name, ordered_json value) {
    ordered_json config = test::tiny_hf_config(kVocab);
    config[name] = std::move(value);
    write_config(config);
  }
  Result<ModelConfig> config_of(const std::vector<std::string>& overrides = {}) {
    auto file = Gguf::open(folder_, parse_kv_overrides(overrides).value());
    return file ? read_model_config(*file) : Result<ModelConfig>(std::unexpected(file.error()));
  }
  void expect_refused(ErrorCode code, const std::string& says) {
    const auto config = config_of();
    ASSERT_FALSE(config) << says;
    EXPECT_EQ(config.error().code, code) << config.error().message;
    EXPECT_THAT(config.error().message, HasSubstr(says));
  }

  test::TempDir dir_;
  std::filesystem::path folder_ = dir_ / "m";
};

TEST_F(HfFolderTest, IsReadAsTheGgufThatItWouldBecome) {
  const auto config = config_of();
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->shape.architecture, "llama");
  EXPECT_EQ(config->shape.vocab_size, kVocab);
  EXPECT_EQ(config->shape.head_dim, 16);
  EXPECT_EQ(config->layer.rope_pairing, RopePairing::kHalves);
  EXPECT_TRUE(config->tied_head);
  const auto file = Gguf::open(folder_).value();
  EXPECT_TRUE(file.has_tensor("blk.1.ffn_down.weight"));
  const QuantMatrixView matrix = file.matrix("blk.0.ffn_down.weight").value();
  EXPECT_EQ(matrix.rows, 32);
  EXPECT_EQ(matrix.cols, 64);
}

TEST_F(HfFolderTest, OverridesCountAsInAnyFile) {
  EXPECT_EQ(config_of({"llama.context_length=int:99"}).value().shape.context_len, 99);
  EXPECT_FALSE(config_of({"llama.context_length=str:99"}));
}

TEST_F(HfFolderTest, EveryFileCountsInTheHash) {
  std::set<std::string> hashes = {Gguf::open(folder_)->bytes_hash()};
  set("rms_norm_eps", 1e-6);
  hashes.insert(Gguf::open(folder_)->bytes_hash());
  write("model.safetensors", [] {
    test::SafetensorsBuilder weights = test::tiny_hf_weights(kVocab);
    weights.data[5] ^= std::byte{1};
    return weights.build();
  }());
  hashes.insert(Gguf::open(folder_)->bytes_hash());
  const std::string tokenizer = R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer":
      {"type": "ByteLevel", "add_prefix_space": false}})";
  write("tokenizer.json", tokenizer);
  hashes.insert(Gguf::open(folder_)->bytes_hash());
  write("tokenizer_config.json", "{}");
  hashes.insert(Gguf::open(folder_)->bytes_hash());
  write("chat_template.jinja", "x");
  hashes.insert(Gguf::open(folder_)->bytes_hash());
  write("generation_config.json", "{}");
  hashes.insert(Gguf::open(folder_)->bytes_hash());
  EXPECT_EQ(hashes.size(), 7u);
}

TEST_F(HfFolderTest, WhatIsNotComputedIsRefusedByName) {
  const auto refused = [&](const char* name, ordered_json value, const std::string& says) {
    set(name, std::move(value));
    expect_refused(ErrorCode::kUnsupported, says);
  };
  for (const char* method : {"awq", "gptq", "compressed-tensors", "bitsandbytes"})
    refused("quantization_config", {{"quant_method", method}}, "quantized by the layout '" + std::string(method) + "'");
  refused("model_type", "mamba", "the model_type 'mamba' is not supported; choose a model of llama, mistral");
  refused("vision_config", {{"a", 1}}, "parts for images or sound");
  refused("architectures", {"LlamaForSequenceClassification"},
          "'architectures' is [\"LlamaForSequenceClassification\"]");
  refused("num_local_experts", 8, "'num_local_experts' is 8");
  refused("hidden_act", "relu", "'hidden_act' is \"relu\"");
  refused("rope_scaling", {{"rope_type", "proportional"}}, "'rope_scaling.rope_type' is \"proportional\"");
  refused("rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}, {"truncate", false}}, "'rope_scaling.truncate'");
  refused("rope_scaling", {{"type", "linear"}, {"factor", 2}, {"mrope_section", {1, 2}}},
          "'rope_scaling.mrope_section'");
  refused("sparsity", 0.5, "'sparsity' is 0.5, and this version does not know what that changes");
  set("sparsity", nullptr);
  EXPECT_TRUE(config_of()) << "null says nothing";
}

TEST_F(HfFolderTest, NumbersThatCannotBeAreRefused) {
  const auto refused = [&](const char* name, ordered_json value, const std::string& says) {
    set(name, std::move(value));
    expect_refused(ErrorCode::kInvalidModel, says);
  };
  refused("hidden_size", nullptr, "config.json: 'hidden_size' is missing");
  refused("hidden_size", "32", "'hidden_size' is \"32\", not a number");
  refused("hidden_size", 1e30, "not a whole number from 1 to");
  refused("num_hidden_layers", 0, "not a whole number from 1 to");
  refused("num_attention_heads", 3, "no multiple");
  refused("rope_theta", -1, "'rope_theta' is not over 1");
  refused("attention_bias", true, "does not fit the weights");
  refused("rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}, "not a positive number");
  refused("rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}, {"low_freq_factor", 4}, {"high_freq_factor", 4}},
          "not over low_freq_factor");
}

TEST_F(HfFolderTest, FilesThatAreNoJsonAreCalledByName) {
  for (const char* text : {"", "{", "[]", "{\"a\": 1, \"a\": 2}", "\xff"}) {
    write("config.json", text);
    const auto file = Gguf::open(folder_);
    ASSERT_FALSE(file) << text;
    EXPECT_THAT(file.error().message, HasSubstr("config.json")) << text;
  }
  write("config.json", std::string(100000, '[') + std::string(100000, ']'));
  expect_refused(ErrorCode::kInvalidModel, "nests deeper than 64 levels");
}

TEST_F(HfFolderTest, TensorsAreCheckedAgainstTheModel) {
  test::SafetensorsBuilder weights = test::tiny_hf_weights(kVocab);
  weights.tensor("model.layers.0.self_attn.sinks", "F32", {2}, std::vector<float>(2));
  write("model.safetensors", weights.build());
  expect_refused(ErrorCode::kUnsupported, "does not use the tensor 'model.layers.0.self_attn.sinks'");
  weights = test::tiny_hf_weights(kVocab);
  weights.tensor("model.layers.0.self_attn.k_scale", "F8_E4M3", {2}, std::vector<std::byte>(2));
  write("model.safetensors", weights.build());
  expect_refused(ErrorCode::kUnsupported, "has the type F8_E4M3");
  weights = test::tiny_hf_weights(kVocab);
  weights.tensor("blk.0.attn_q.bias", "F32", {32}, std::vector<float>(32));
  write("model.safetensors", weights.build());
  expect_refused(ErrorCode::kUnsupported, "does not use the tensor 'blk.0.attn_q.bias'");
  weights = test::tiny_hf_weights(kVocab);
  weights.tensor("lm_head.weight", "F32", {kVocab, 32}, std::vector<float>(static_cast<size_t>(kVocab * 32)));
  weights.tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {8}, std::vector<float>(8));
  write("model.safetensors", weights.build());
  EXPECT_TRUE(config_of()->tied_head) << "a tied head that is there all the same, and an old table";
  set("tie_word_embeddings", false);
  EXPECT_FALSE(config_of()->tied_head);
  write("model.safetensors", test::tiny_hf_weights(kVocab).build());
  expect_refused(ErrorCode::kInvalidModel, "lm_head.weight is missing");
}

TEST_F(HfFolderTest, TensorsThatLieAtOddPlacesAreRead) {
  test::SafetensorsBuilder weights = test::tiny_hf_weights(kVocab);
  std::string text = to_ordered_text(weights.header);
  while (text.size() % 8 != 3) text += ' ';
  const uint64_t size = text.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof(size));
  file += text + std::string(reinterpret_cast<const char*>(weights.data.data()), weights.data.size());
  const auto plain = Gguf::open(folder_)->vector("output_norm.weight", 32).value();
  write("model.safetensors", file);
  EXPECT_EQ(Gguf::open(folder_)->vector("output_norm.weight", 32).value(), plain);
}

class HfShardsTest : public HfFolderTest {
 protected:
  HfShardsTest() {
    std::filesystem::remove(folder_ / "model.safetensors");
    const test::SafetensorsBuilder all = test::tiny_hf_weights(kVocab);
    for (const auto& [name, info] : all.header.items()) {
      const auto place = info["data_offsets"].get<std::vector<size_t>>();
      const bool first = name.starts_with("model.layers.0");
      index_["weight_map"][name] = first ? kFirst : kSecond;
      (first ? first_ : second_)
          .tensor(name, "F32", info["shape"].get<std::vector<int64_t>>(),
                  std::vector<std::byte>(all.data.begin() + static_cast<int64_t>(place[0]),
                                         all.data.begin() + static_cast<int64_t>(place[1])));
    }
    write(kFirst, first_.build()), write(kSecond, second_.build()), write_index();
  }
  void write_index() { write("model.safetensors.index.json", to_ordered_text(index_)); }

  static constexpr const char* kFirst = "model-00001-of-00002.safetensors";
  static constexpr const char* kSecond = "model-00002-of-00002.safetensors";
  test::SafetensorsBuilder first_, second_;
  ordered_json index_;
};

TEST_F(HfShardsTest, AreOneModel) { EXPECT_TRUE(config_of()) << config_of().error().message; }

TEST_F(HfShardsTest, AMissingOneIsNamed) {
  std::filesystem::remove(folder_ / kSecond);
  expect_refused(ErrorCode::kNotFound, kSecond);
}

TEST_F(HfShardsTest, AnIndexThatLiesIsRefused) {
  index_["weight_map"]["model.norm.weight"] = kFirst;
  write_index();
  expect_refused(ErrorCode::kInvalidModel, "of the");
  for (const char* place : {"../m.safetensors", "/etc/passwd", "a/b.safetensors", "m.bin", ""}) {
    index_["weight_map"]["model.norm.weight"] = place;
    write_index();
    expect_refused(ErrorCode::kInvalidModel, "'model.norm.weight' is in no file of this folder");
  }
  index_["weight_map"].erase("model.norm.weight");
  write_index();
  expect_refused(ErrorCode::kInvalidModel, "holds the tensor 'model.norm.weight', which");
  index_["weight_map"] = 5;
  write_index();
  expect_refused(ErrorCode::kInvalidModel, "no weight_map");
}

TEST_F(HfShardsTest, WithoutAnIndexThereAreNoWeights) {
  std::filesystem::remove(folder_ / "model.safetensors.index.json");
  expect_refused(ErrorCode::kInvalidModel, "neither model.safetensors nor model.safetensors.index.json");
  write("pytorch_model.bin", "x");
  expect_refused(ErrorCode::kInvalidModel, "pickled");
}

}  // namespace
}  // namespace runahead
