// Files that share the format and are no language models: each is called by its name.
#include "model/weights/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "model/model_config.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using test::GgufBuilder;
using ::testing::HasSubstr;
using ::testing::Not;

std::string refusal_of(const std::function<void(GgufBuilder&)>& fill) {
  GgufBuilder file;
  fill(file);
  const std::vector<std::byte> bytes = file.build();
  const Gguf gguf = Gguf::parse(bytes, "test.gguf").value();
  const auto config = read_model_config(gguf);
  EXPECT_FALSE(config);
  if (config) return "";
  EXPECT_EQ(config.error().code, ErrorCode::kUnsupported) << config.error().message;
  EXPECT_THAT(config.error().message, Not(HasSubstr("convert the model again")));
  return config.error().message;
}

std::string refusal_of_keys(const std::vector<std::pair<std::string, std::string>>& keys) {
  return refusal_of([&](GgufBuilder& file) {
    for (const auto& [key, value] : keys) file.str(key, value);
  });
}

TEST(FileKind, ALoraAdapterIsCalledOneWithItsBaseModel) {
  const std::string message = refusal_of_keys({{"general.type", "adapter"},
                                               {"general.architecture", "llama"},
                                               {"adapter.type", "lora"},
                                               {"general.base_model.0.name", "Llama 3\n8B"}});
  EXPECT_THAT(message, HasSubstr("a LoRA adapter for 'Llama 3?8B', not a model; merge it"));
  EXPECT_THAT(refusal_of_keys({{"adapter.type", "lora"}}), HasSubstr("a LoRA adapter, not a model"));
}

TEST(FileKind, WhatElseSharesTheFormatIsCalledByItsName) {
  EXPECT_THAT(refusal_of_keys({{"general.type", "imatrix"}}), HasSubstr("an importance matrix"));
  EXPECT_THAT(refusal_of_keys({{"general.type", "mmproj"}, {"general.architecture", "clip"}}), HasSubstr("mmproj"));
  EXPECT_THAT(refusal_of_keys({{"general.architecture", "clip"}}), HasSubstr("mmproj"));
  EXPECT_THAT(refusal_of_keys({{"general.architecture", "controlvector"}}), HasSubstr("a control vector"));
  EXPECT_THAT(refusal_of_keys({{"general.architecture", "nomic-bert"}}), HasSubstr("an embedding model"));
  EXPECT_THAT(refusal_of_keys({{"general.architecture", "flux"}}), HasSubstr("images"));
  EXPECT_THAT(refusal_of_keys({{"general.architecture", "eagle3"}}), HasSubstr("a draft head"));
  EXPECT_THAT(refusal_of_keys({{"general.architecture", "llama"}}), HasSubstr("a vocabulary without weights"));
  EXPECT_THAT(refusal_of_keys({{"general.name", "x"}}), HasSubstr("general.architecture"));
}

TEST(FileKind, ALlamaThatPoolsIsAnEmbeddingModel) {
  const auto pooled = [](uint32_t type) {
    GgufBuilder file = test::tiny_llama(1, {}, QuantType::kF32);
    file.u32("llama.pooling_type", type);
    const std::vector<std::byte> bytes = file.build();
    return refuse_other_kinds(Gguf::parse(bytes, "test.gguf").value());
  };
  EXPECT_THAT(pooled(3).error().message, HasSubstr("an embedding model"));
  EXPECT_TRUE(pooled(0)) << "0 is none";
}

TEST(FileKind, OddValuesOfTheseKeysAreNoReasonToStop) {
  GgufBuilder file = test::tiny_llama(1, {}, QuantType::kF32);
  file.u32("general.type", 3);
  file.str("llama.pooling_type", "mean");
  const std::vector<std::byte> bytes = file.build();
  EXPECT_TRUE(refuse_other_kinds(Gguf::parse(bytes, "test.gguf").value()));
}

TEST(FileKind, AnIncompleteDownloadIsCalledSo) {
  const std::vector<std::byte> whole = test::tiny_llama(1, {}, QuantType::kF32).build();
  for (const size_t bytes : {whole.size() - 1, whole.size() / 2, size_t{4000}, size_t{25}, size_t{6}}) {
    const auto file = Gguf::parse(std::span(whole).first(bytes), "test.gguf");
    ASSERT_FALSE(file) << bytes;
    EXPECT_EQ(file.error().code, ErrorCode::kInvalidModel);
    EXPECT_THAT(file.error().message, HasSubstr("download it again")) << bytes;
    EXPECT_THAT(file.error().message, Not(HasSubstr("convert"))) << bytes;
  }
}

}  // namespace
}  // namespace runahead
