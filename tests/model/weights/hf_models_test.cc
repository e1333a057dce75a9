// Every model_type that is read from a folder, against transformers itself (tests/golden/make_hf_models.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/transformer/prefill.h"
#include "model/transformer/transformer.h"
#include "tests/support/hf_folder_builder.h"
#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;

const ordered_json& golden() {
  static const ordered_json kGolden =
      ordered_json::parse(std::ifstream(std::string(RUNAHEAD_SOURCE_DIR) + "/tests/golden/hf_models.json"));
  return kGolden;
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& [name, value] : golden().items())
    if (value.is_object()) all.push_back(name);
  return all;
}

// shards: over how many files the tensors are spread.
void write_model(const std::filesystem::path& folder, const ordered_json& model, size_t shards) {
  const std::string type = model["type"].get<std::string>();
  const bool gemma = model["config"]["model_type"].get<std::string>().starts_with("gemma");
  std::vector<test::SafetensorsBuilder> files(shards);
  ordered_json index;
  size_t next = 0;
  const auto file_name = [&](size_t i) {
    return "model-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(shards) + ".safetensors";
  };
  for (const auto& [name, shape] : model["tensors"].items()) {
    const auto dims = shape.get<std::vector<int64_t>>();
    const size_t i = next++ % shards;
    files[i].tensor(name, type, dims, test::hf_weights(name, dims, gemma));
    index["weight_map"][name] = file_name(i);
  }
  test::write_file(folder / "config.json", to_ordered_text(model["config"]));
  if (shards == 1) return test::write_file(folder / "model.safetensors", files[0].build());
  test::write_file(folder / "model.safetensors.index.json", to_ordered_text(index));
  for (size_t i = 0; i < shards; ++i) test::write_file(folder / file_name(i), files[i].build());
}

std::vector<float> logits_of(const std::filesystem::path& folder, const std::vector<TokenId>& prompt) {
  auto engine = Transformer::load({.model = folder, .compute = ComputeMode::kFp32, .threads = 2});
  if (!engine) {
    ADD_FAILURE() << engine.error().message;
    return {};
  }
  const auto count = static_cast<int32_t>(prompt.size());
  SequenceCache cache(**engine, count);
  const std::shared_ptr<KvLease> kv = *cache.lease(count);
  return prefill(**engine, *kv, prompt);
}

class HfModelsTest : public ::testing::TestWithParam<std::string> {
 protected:
  test::TempDir dir_;
};

TEST_P(HfModelsTest, SaysWhatTransformersSays) {
  const ordered_json& model = golden()[GetParam()];
  write_model(dir_ / "m", model, 1);
  const auto prompt = model["prompt"].get<std::vector<TokenId>>();
  const auto theirs = model["logits"].get<std::vector<float>>();
  const std::vector<float> ours = logits_of(dir_ / "m", prompt);
  ASSERT_EQ(ours.size(), theirs.size());
  // Falcon's GELU is the exact one to transformers, the tanh formula here and in llama.cpp. Else the order of sums differs.
  const float tolerance = GetParam().starts_with("falcon") ? 5e-3f : 5e-5f;
  float worst = 0;
  for (size_t i = 0; i < ours.size(); ++i) worst = std::max(worst, std::fabs(ours[i] - theirs[i]));
  EXPECT_LT(worst, tolerance);
  RecordProperty("worst", std::to_string(worst));
  std::printf("[          ] %s: %.2g\n", GetParam().c_str(), double{worst});
}

INSTANTIATE_TEST_SUITE_P(All, HfModelsTest, ::testing::ValuesIn(names()), [](const auto& one) {
  std::string name = one.param;
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
});

TEST(HfModels, ShardsAreOneModel) {
  for (const char* name : {"qwen3", "qwen3-moe"}) {  // experts of one layer in all of them
    const ordered_json& model = golden()[name];
    const test::TempDir dir;
    write_model(dir / "one", model, 1), write_model(dir / "three", model, 3);
    const auto prompt = model["prompt"].get<std::vector<TokenId>>();
    EXPECT_EQ(logits_of(dir / "one", prompt), logits_of(dir / "three", prompt)) << name;
  }
}

TEST(HfModels, ExpertsThatAreNotThoseOfTheModelAreNamed) {
  const auto says = [](const std::string& name, const std::string& instead) {
    ordered_json model = golden()["mixtral"];
    const std::string prefix = "model.layers.1.block_sparse_moe.";
    const ordered_json shape = model["tensors"].at(prefix + name);
    if (instead != "beside") model["tensors"].erase(prefix + name);
    if (!instead.empty()) model["tensors"][prefix + (instead == "beside" ? "experts.4.w1.weight" : instead)] = shape;
    const test::TempDir dir;
    write_model(dir / "m", model, 1);
    const auto engine = Transformer::load({.model = dir / "m", .compute = ComputeMode::kFp32, .threads = 1});
    return engine ? "loaded" : engine.error().message;
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(says("experts.2.w3.weight", ""), HasSubstr("'blk.1.ffn_up.2.weight' is missing"));
  EXPECT_THAT(says("experts.0.w1.weight", ""), HasSubstr("'blk.1.ffn_gate.0.weight' is missing"));
  EXPECT_THAT(says("gate.weight", ""), HasSubstr("'blk.1.ffn_gate_inp.weight' is missing"));
  EXPECT_THAT(says("experts.1.w1.weight", "beside"), HasSubstr("does not use the tensor 'blk.1.ffn_gate.4.weight'"));
  EXPECT_THAT(says("experts.1.w1.weight", "experts.00.w1.weight"),
              HasSubstr("two tensors are 'blk.1.ffn_gate.0.weight'"));
  for (const char* name : {"experts.w1.weight", "experts.-1.w1.weight", "experts.1w1.weight", "experts.1.w4.weight",
                           "experts.1.w1.bias", "experts.99999999999999999999.w1.weight"})
    EXPECT_THAT(says("experts.1.w1.weight", name), HasSubstr("does not use the tensor")) << name;
  EXPECT_THAT(says("experts.1.w1.weight", "experts.1.w2.weight"), HasSubstr("ffn_gate.1.weight' is missing"));
}

}  // namespace
}  // namespace runahead
