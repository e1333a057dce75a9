// Folders whose weights are F8_E4M3 with scales, against transformers (tests/golden/make_hf_float8.py), and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "model/transformer/prefill.h"
#include "model/transformer/transformer.h"
#include "tests/support/hf_folder_builder.h"
#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

const ordered_json& float8_golden() {
  static const ordered_json kGolden =
      ordered_json::parse(std::ifstream(std::string(RUNAHEAD_SOURCE_DIR) + "/tests/golden/hf_float8.json"));
  return kGolden;
}

std::vector<std::string> float8_cases() {
  std::vector<std::string> all;
  for (const auto& [name, value] : float8_golden().items())
    if (value.is_object()) all.push_back(name);
  return all;
}

void add_tensor(test::SafetensorsBuilder& file, const std::string& name, const ordered_json& tensor) {
  const auto shape = tensor["shape"].get<std::vector<int64_t>>();
  const auto type = tensor["type"].get<std::string>();
  if (type == "F8_E4M3") file.tensor(name, type, shape, test::hf_float8_codes(name, shape));
  else if (tensor.contains("cols"))
    file.tensor(name, type, shape, test::hf_float8_scales(name, shape, tensor["cols"].get<int64_t>()));
  else file.tensor(name, type, shape, test::hf_weights(name, shape, false));
}

using Change = std::function<void(ordered_json& config, test::SafetensorsBuilder& file)>;

class HfFloat8Test : public ::testing::Test {
 protected:
  void write(const std::string& name, const Change& change = nullptr) {
    const ordered_json& model = float8_golden()[name];
    ordered_json config = model["config"];
    test::SafetensorsBuilder file;
    for (const auto& [tensor, what] : model["tensors"].items()) add_tensor(file, tensor, what);
    if (change) change(config, file);
    test::write_file(folder_ / "config.json", to_ordered_text(config));
    test::write_file(folder_ / "model.safetensors", file.build());
  }
  Result<std::unique_ptr<Transformer>> load(ComputeMode mode = ComputeMode::kFp32) const {
    return Transformer::load({.model = folder_, .compute = mode, .threads = 2});
  }
  void expect_refused(const std::string& name, ErrorCode code, const std::string& says, const Change& change) {
    write(name, change);
    const auto engine = load();
    ASSERT_FALSE(engine) << says;
    EXPECT_EQ(engine.error().code, code) << engine.error().message;
    EXPECT_THAT(engine.error().message, HasSubstr(says));
  }

  test::TempDir dir_;
  std::filesystem::path folder_ = dir_ / "m";
};

TEST_F(HfFloat8Test, EveryLayoutSaysWhatTransformersSays) {
  for (const std::string& name : float8_cases()) {
    write(name);
    const auto engine = load();
    ASSERT_TRUE(engine) << name << ": " << engine.error().message;
    const auto prompt = float8_golden()[name]["prompt"].get<std::vector<TokenId>>();
    const auto theirs = float8_golden()[name]["logits"].get<std::vector<float>>();
    SequenceCache cache(**engine, static_cast<int32_t>(prompt.size()));
    const std::vector<float> ours = prefill(**engine, **cache.lease(static_cast<int32_t>(prompt.size())), prompt);
    ASSERT_EQ(ours.size(), theirs.size());
    float worst = 0;
    for (size_t i = 0; i < ours.size(); ++i) worst = std::max(worst, std::fabs(ours[i] - theirs[i]));
    EXPECT_LT(worst, 5e-5f) << name;
    std::printf("[          ] %s: %.2g\n", name.c_str(), double{worst});
  }
}

TEST_F(HfFloat8Test, EachCodeIsItsNumber) {
  for (size_t code = 0; code < 256; ++code) {
    const ordered_json& theirs = float8_golden()["codes"][code];
    const float ours = float8_to_float(static_cast<uint8_t>(code));
    const auto byte = static_cast<std::byte>(code);
    EXPECT_EQ(is_finite(QuantType::kF8_E4M3, {&byte, 1}), !theirs.is_null()) << code;
    if (theirs.is_null()) {
      EXPECT_TRUE(std::isnan(ours)) << code;
      continue;
    }
    EXPECT_EQ(ours, theirs.get<float>()) << code;
    EXPECT_EQ(std::signbit(ours), code >= 128) << code;
  }
}

// No GGUF file has a tensor of this type, whatever number it writes.
TEST_F(HfFloat8Test, IsNoTypeOfGguf) {
  const auto format = quant_format(static_cast<uint32_t>(QuantType::kF8_E4M3));
  ASSERT_FALSE(format);
  EXPECT_EQ(format.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(format.error().message.find("F8"), std::string::npos);
}

constexpr const char* kQ = "model.layers.1.self_attn.q_proj.weight";
constexpr const char* kQScale = "model.layers.1.self_attn.q_proj.weight_scale_inv";

// Renames a tensor, or takes another type or shape for its bytes.
void rename(test::SafetensorsBuilder& file, const std::string& from, const std::string& to) {
  file.header[to] = file.header.at(from);
  file.header.erase(from);
}
float* floats_at(test::SafetensorsBuilder& file, const char* name) {
  return reinterpret_cast<float*>(file.data.data() + file.header.at(name)["data_offsets"][0].get<size_t>());
}

TEST_F(HfFloat8Test, ScalesThatAreNoneAreRefused) {
  const auto bad = ErrorCode::kInvalidModel, unsupported = ErrorCode::kUnsupported;
  const auto expect = [&](ErrorCode code, const std::string& says, const Change& change) {
    expect_refused("blocks-that-divide", code, says, change);
  };
  expect(unsupported, "does not use the tensor 'model.layers.1.self_attn.q_proj.scale'",
         [](auto&, auto& file) { rename(file, kQScale, "model.layers.1.self_attn.q_proj.scale"); });
  expect(unsupported, "does not use the tensor 'blk.1.attn_norm.weight_scale'",
         [](auto&, auto& file) { rename(file, kQScale, "model.layers.1.input_layernorm.weight_scale_inv"); });
  expect(bad, "two tensors are 'blk.1.attn_k.weight_scale'",
         [](auto&, auto& file) { rename(file, kQScale, "model.layers.1.self_attn.k_proj.weight_scale"); });
  expect(bad, "the scales 'blk.1.attn_q.weight_scale' are [2, 4]",
         [](auto&, auto& file) { file.header[kQScale]["shape"] = {2, 4}; });
  expect(bad, "the scales 'blk.1.attn_q.weight_scale' are [8, 1]",
         [](auto&, auto& file) { file.header[kQScale]["shape"] = {8}; });
  expect(bad, "is not a matrix", [](auto&, auto& file) { file.header[kQScale]["shape"] = {2, 2, 2}; });
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    expect(bad, "the scales 'blk.1.attn_q.weight_scale' hold some that are no numbers",
           [&](auto&, auto& file) { floats_at(file, kQScale)[3] = value; });
  expect(bad, "tensor blk.1.attn_q.weight holds weights that are no numbers (row 48)",
         [&](auto&, auto& file) { floats_at(file, kQScale)[6] = 1e38f; });
  expect(bad, "tensor blk.1.attn_q.weight holds weights that are no numbers (row 2)", [](auto&, auto& file) {
    file.data[file.header.at(kQ)["data_offsets"][0].template get<size_t>() + 2 * 64 + 5] = std::byte{0xFF};
  });
  expect(unsupported, "has the type F8_E5M2", [](auto&, auto& file) { file.header[kQ]["dtype"] = "F8_E5M2"; });
}

TEST_F(HfFloat8Test, OnlyProductsOfLayersMayBeOfEightBits) {
  const auto expect = [&](const char* tensor, const std::string& says) {
    expect_refused("blocks-that-divide", ErrorCode::kUnsupported, says, [&](auto&, auto& file) {
      const auto shape = file.header.at(tensor)["shape"].template get<std::vector<int64_t>>();
      test::SafetensorsBuilder anew;
      for (const auto& [name, what] : float8_golden()["blocks-that-divide"]["tensors"].items()) {
        if (name == tensor) anew.tensor(name, "F8_E4M3", shape, test::hf_float8_codes(name, shape));
        else add_tensor(anew, name, what);
      }
      file = anew;
    });
  };
  expect("model.embed_tokens.weight", "'model.embed_tokens.weight' has the type F8_E4M3, which is read of products");
  expect("lm_head.weight", "'lm_head.weight' has the type F8_E4M3, which is read of products");
  expect("model.layers.0.input_layernorm.weight", "has the type F8_E4M3, which is read of products");
  expect_refused("blocks-that-divide", ErrorCode::kUnsupported, "has the type F8_E4M3, and this version reads BF16",
                 [](auto& config, auto&) { config.erase("quantization_config"); });
}

TEST_F(HfFloat8Test, ConfigurationsThatSayOtherwiseAreRefused) {
  const auto refused = [&](const char* name, const char* pointer, ordered_json value, const std::string& says,
                           ErrorCode code = ErrorCode::kUnsupported) {
    expect_refused(name, code, says, [&](ordered_json& config, auto&) {
      config["quantization_config"][ordered_json::json_pointer(pointer)] = value;
    });
  };
  const auto bad = ErrorCode::kInvalidModel;
  refused("blocks", "/quant_method", "awq", "quantized by the layout 'awq'");
  refused("blocks", "/quant_method", 5, "quantized by the layout of an unknown name");
  refused("blocks", "/fmt", "e5m2", "'quantization_config.fmt' is \"e5m2\"");
  refused("blocks", "/unheard_of", 1, "'quantization_config.unheard_of' is 1");
  for (const ordered_json& block : {ordered_json({0, 32}), ordered_json({32}), ordered_json({32, 32, 32}),
                                    ordered_json({1.5, 32}), ordered_json({32, 1e30}), ordered_json({-32, 32})})
    refused("blocks", "/weight_block_size", block, "'quantization_config.weight_block_size' is not two sizes", bad);
  refused("blocks", "/weight_block_size", {64, 48}, "which is no scale for each block", bad);
  const std::string group = "/config_groups/group_0";
  refused("compressed-channel", "/format", "pack-quantized", "'compressed-tensors', 'pack-quantized'");
  refused("compressed-channel", "/kv_cache_scheme", {{"num_bits", 8}}, "'quantization_config.kv_cache_scheme'");
  refused("compressed-channel", "/sparsity_config", {{"format", "sparse-bitmask"}},
          "'quantization_config.sparsity_con");
  refused("compressed-channel", "/config_groups", ordered_json::array(), "is no object of one group", bad);
  refused("compressed-channel", "/config_groups/more", ordered_json::object(), "no object of one group", bad);
  refused("compressed-channel", group.c_str(), 5, "no object of objects", bad);
  refused("compressed-channel", (group + "/weights").c_str(), 5, "'quantization_config.config_groups.group_0.weights'",
          bad);
  refused("compressed-channel", (group + "/weights/num_bits").c_str(), 4, "group_0.weights.num_bits' is 4");
  refused("compressed-channel", (group + "/weights/type").c_str(), "int", "group_0.weights.type' is \"int\"");
  refused("compressed-channel", (group + "/weights/symmetric").c_str(), false, "symmetric' is false");
  refused("compressed-channel", (group + "/weights/strategy").c_str(), "group", "strategy' is \"group\"");
  refused("compressed-channel", (group + "/weights/group_size").c_str(), 32, "group_size' is 32");
  refused("compressed-channel", (group + "/output_activations").c_str(), {{"num_bits", 8}}, "output_activations'");
  refused("compressed-block", (group + "/weights/block_structure").c_str(), nullptr, "block_structure' is missing",
          bad);
}

// Of every format that is packed the rows of one layer lie side by side: F8 and BF16 matrices of one layer, and the cache.
TEST_F(HfFloat8Test, EveryModeRunsAndTheCacheGivesTheSameBits) {
  write("blocks");
  const auto prompt = float8_golden()["blocks"]["prompt"].get<std::vector<TokenId>>();
  const auto logits_of = [&](ComputeMode mode, const std::filesystem::path& cache) {
    auto engine = Transformer::load({.model = folder_, .compute = mode, .threads = 2, .packed_cache = cache});
    if (!engine) {
      ADD_FAILURE() << engine.error().message;
      return std::vector<float>();
    }
    SequenceCache pages(**engine, static_cast<int32_t>(prompt.size()));
    return prefill(**engine, **pages.lease(static_cast<int32_t>(prompt.size())), prompt);
  };
  for (const ComputeMode mode : {ComputeMode::kFp32, ComputeMode::kInt16, ComputeMode::kInt8}) {
    const std::vector<float> packed = logits_of(mode, {});
    EXPECT_EQ(logits_of(mode, dir_ / "cache"), packed) << "written";
    EXPECT_EQ(logits_of(mode, dir_ / "cache"), packed) << "mapped";
  }
}

}  // namespace
}  // namespace runahead
