#include "model/weights/kv_override.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/transformer/transformer.h"
#include "model/weights/gguf.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using test::GgufBuilder;
using ::testing::HasSubstr;

// A file with one key of each kind, under `overrides`.
Result<Gguf> file_with(const std::vector<std::string>& overrides) {
  static const std::vector<std::byte> kBytes = [] {
    GgufBuilder file;
    file.u32("a.count", 7);
    file.f32("a.ratio", 0.5f);
    file.boolean("a.flag", false);
    file.str("a.name", "old");
    file.strings("a.list", {"x"});
    return file.build();
  }();
  Gguf file = TRY(Gguf::parse(kBytes, "test.gguf"));
  TRY(file.set_overrides(TRY(parse_kv_overrides(overrides))));
  return file;
}

TEST(KvOverride, EachTypeTakesThePlaceOfTheFilesValue) {
  const Gguf file =
      file_with({"a.count=int:9", "a.ratio=float:1e-3", "a.flag=bool:true", "a.name=str:new, and=more:it"}).value();
  EXPECT_EQ(file.u64("a.count").value(), 9u);
  EXPECT_EQ(file.f32("a.ratio").value(), 1e-3f);
  EXPECT_TRUE(file.boolean("a.flag").value());
  EXPECT_EQ(file.str("a.name").value(), "new, and=more:it");
}

TEST(KvOverride, AKeyThatTheFileLacksIsAdded) {
  const Gguf file = file_with({"b.new=str:", "b.low=int:-1"}).value();
  EXPECT_EQ(file.str("b.new").value(), "");
  EXPECT_FALSE(file.u64("b.low"));
}

TEST(KvOverride, CommasPartSeveralInOneAndTheLaterCounts) {
  const Gguf file = file_with({"a.count=int:1,a.name=str:x,y,a.flag=bool:true", "a.count=int:2"}).value();
  EXPECT_EQ(file.u64("a.count").value(), 2u);
  EXPECT_EQ(file.str("a.name").value(), "x,y");
  EXPECT_TRUE(file.boolean("a.flag").value());
}

TEST(KvOverride, WhatIsWrongIsSaid) {
  const auto error = [](const std::string& text) {
    const auto file = file_with({text});
    EXPECT_FALSE(file) << text;
    return file ? std::string() : file.error().message;
  };
  for (const char* text : {"", "a", "a=1", "a=int", "=int:1", "a=uint:1", "a:int=1", "a=INT:1"})
    EXPECT_THAT(error(text), HasSubstr("write KEY=TYPE:VALUE")) << text;
  for (const char* text : {"a=int:", "a=int:1.5", "a=int:0x10", "a=int:99999999999999999999", "a=int: 1", "a=int:1,b"})
    EXPECT_THAT(error(text), HasSubstr("no whole number")) << text;
  for (const char* text : {"a=float:", "a=float:x", "a=float:nan", "a=float:inf", "a=float:1e99"})
    EXPECT_THAT(error(text), HasSubstr("no finite number")) << text;
  for (const char* text : {"a=bool:1", "a=bool:True", "a=bool:"})
    EXPECT_THAT(error(text), HasSubstr("true or false")) << text;
  EXPECT_THAT(error("a.list=str:x"), HasSubstr("lists cannot be overridden"));
  EXPECT_THAT(error("a.count=str:x"), HasSubstr("the file holds int; write a.count=int:VALUE"));
  EXPECT_THAT(error("a.ratio=int:1"), HasSubstr("write a.ratio=float:VALUE"));
  EXPECT_THAT(error("split.count=int:1"), HasSubstr("cannot be changed"));
  EXPECT_THAT(error("general.alignment=int:64"), HasSubstr("cannot be changed"));
  EXPECT_THAT(error("a=str:" + std::string(1 << 20, 'x')), HasSubstr("longer than"));
  std::vector<std::string> many;
  for (int i = 0; i < 65; ++i) many.push_back("k" + std::to_string(i) + "=int:1");
  EXPECT_EQ(file_with(many).error().code, ErrorCode::kTooLarge);
}

TEST(KvOverride, ChangesTheModelsIdentity) {
  const auto hash = [](const std::vector<std::string>& overrides) { return file_with(overrides)->content_hash(); };
  const std::string plain = hash({});
  EXPECT_EQ(plain, file_with({})->bytes_hash());
  EXPECT_NE(hash({"a.count=int:9"}), plain);
  EXPECT_NE(hash({"a.count=int:9"}), hash({"a.count=int:8"}));
  EXPECT_EQ(hash({"a.count=int:9", "a.flag=bool:true"}), hash({"a.flag=bool:true,a.count=int:9"})) << "in any order";
  const Gguf tokenizer = file_with({"tokenizer.ggml.add_bos_token=bool:true"}).value();
  EXPECT_NE(tokenizer.content_hash(), plain);
  EXPECT_EQ(tokenizer.with_weight_overrides(tokenizer.bytes_hash()), plain) << "packs nothing anew";
}

TEST(KvOverride, WorkersWithOtherOverridesHaveOtherFingerprints) {
  const test::TempDir dir;
  test::write_tiny_llama(dir / "m.gguf", 1);
  const auto fingerprint = [&](const std::vector<std::string>& overrides) {
    return (*Transformer::load(
                {.model = dir / "m.gguf", .compute = ComputeMode::kFp32, .overrides = *parse_kv_overrides(overrides)}))
        ->fingerprint();
  };
  EXPECT_NE(fingerprint({}), fingerprint({"llama.rope.freq_base=float:5000"}));
  EXPECT_EQ(fingerprint({"llama.rope.freq_base=float:5000"}), fingerprint({"llama.rope.freq_base=float:5000.0"}));
}

}  // namespace
}  // namespace runahead
