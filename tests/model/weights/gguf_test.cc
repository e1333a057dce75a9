#include "model/weights/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "tests/support/default_model.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using test::GgufBuilder;
using test::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kF32Type = 0;

GgufBuilder small_file() {
  GgufBuilder file;
  file.str("general.architecture", "llama");
  file.u32("answer", 42);
  file.i32("negative", -1);
  file.f32("half", 0.5f);
  file.boolean("yes", true);
  file.strings("words", {"a", "", "longer"});
  file.i32s("ids", {1, -2, 3});
  file.f32s("scores", {0.25f, -1});
  file.f32_tensor("matrix", {4, 3}, {0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23});
  file.f32_tensor("vector", {2}, {7, 8});
  return file;
}

// The error of a file that must not open.
Error error_of(const GgufBuilder& file) {
  const std::vector<std::byte> bytes = file.build();
  const auto gguf = Gguf::parse(bytes, "test.gguf");
  EXPECT_FALSE(gguf);
  return gguf ? Error{} : gguf.error();
}

TEST(Gguf, GivesBackEveryKindOfValueAndTensor) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder builder = small_file();
    builder.version = version;
    const std::vector<std::byte> bytes = builder.build();
    const auto file = Gguf::parse(bytes, "test.gguf");
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ(file->str("general.architecture"), "llama");
    EXPECT_EQ(file->u64("answer"), 42u);
    EXPECT_EQ(file->f32("half"), 0.5f);
    EXPECT_EQ(file->boolean("yes"), true);
    EXPECT_THAT(file->strings("words").value(), ElementsAre("a", "", "longer"));
    EXPECT_THAT(file->i32s("ids").value(), ElementsAre(1, -2, 3));
    EXPECT_THAT(file->f32s("scores").value(), ElementsAre(0.25f, -1.0f));
    EXPECT_EQ(file->u64_or("absent", 5), 5u);
    EXPECT_THAT(file->tensor_names(), ElementsAre("matrix", "vector"));
    const auto matrix = file->matrix("matrix");
    ASSERT_TRUE(matrix);
    EXPECT_EQ(matrix->rows, 3);
    EXPECT_EQ(matrix->cols, 4);
    std::vector<float> row(4);
    dequantize(matrix->type, matrix->row(1), row);
    EXPECT_THAT(row, ElementsAre(10, 11, 12, 13));
    EXPECT_THAT(file->vector("vector", 2).value(), ElementsAre(7, 8));
  }
}

TEST(Gguf, AWrongTypeOrAMissingKeyIsAnErrorThatNamesTheKey) {
  const std::vector<std::byte> bytes = small_file().build();
  const Gguf file = Gguf::parse(bytes, "test.gguf").value();
  const auto expect_bad = [](const auto& result, const char* key) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidModel);
    EXPECT_EQ(result.error().param, key);
    EXPECT_THAT(result.error().message, HasSubstr(key));
  };
  expect_bad(file.u64("absent"), "absent");
  expect_bad(file.u64("negative"), "negative");
  expect_bad(file.u64("half"), "half");
  expect_bad(file.u64("ids"), "ids");
  expect_bad(file.u64_or("words", 1), "words");
  expect_bad(file.f32("answer"), "answer");
  expect_bad(file.str("answer"), "answer");
  expect_bad(file.str("words"), "words");
  expect_bad(file.strings("ids"), "ids");
  expect_bad(file.strings("general.architecture"), "general.architecture");
  expect_bad(file.i32s("scores"), "scores");
  expect_bad(file.boolean("answer"), "answer");
  EXPECT_THAT(file.matrix("vector").error().message, HasSubstr("vector"));
  EXPECT_THAT(file.vector("matrix", 4).error().message, HasSubstr("matrix"));
  EXPECT_THAT(file.tensor("absent").error().message, HasSubstr("absent"));
}

TEST(Gguf, AFileCutAtAnyByteIsRefused) {
  const std::vector<std::byte> bytes = small_file().build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));  // ASan sees the end
    const auto file = Gguf::parse(cut, "test.gguf");
    ASSERT_FALSE(file) << "cut at " << size;
    EXPECT_EQ(file.error().code, ErrorCode::kInvalidModel);
  }
}

TEST(Gguf, AChangedByteNeverReadsOutsideTheFile) {  // run under the address sanitizer too
  const std::vector<std::byte> good = small_file().build();
  size_t opened = 0;
  for (size_t at = 0; at < good.size(); ++at) {
    for (const unsigned value : {0x00u, 0x01u, 0x7fu, 0x80u, 0xffu}) {
      std::vector<std::byte> bytes = good;
      bytes[at] = static_cast<std::byte>(value);
      const auto file = Gguf::parse(bytes, "test.gguf");
      if (!file) continue;
      ++opened;
      for (const TensorInfo& info : file->tensors()) {
        ASSERT_GE(info.bytes.data(), bytes.data());
        ASSERT_LE(info.bytes.data() + info.bytes.size(), bytes.data() + bytes.size());
      }
      static_cast<void>(file->strings("words"));
    }
  }
  EXPECT_GT(opened, good.size());  // most bytes are content
}

TEST(Gguf, HugeCountsAreRefusedBeforeMemoryIsAskedFor) {
  for (const uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 40, UINT64_MAX}) {
    GgufBuilder tensors = small_file(), values = small_file(), array = small_file(), text = small_file();
    tensors.num_tensors = count;
    EXPECT_EQ(error_of(tensors).code, ErrorCode::kInvalidModel);
    values.num_values = count;
    EXPECT_EQ(error_of(values).code, ErrorCode::kInvalidModel);
    array.key("huge", 9).number<uint32_t>(0).number(count);
    EXPECT_EQ(error_of(array).code, ErrorCode::kInvalidModel);
    text.key("huge", 8).number(count);
    EXPECT_EQ(error_of(text).code, ErrorCode::kInvalidModel);
  }
}

TEST(Gguf, ImpossibleTensorsAreRefused) {
  const auto error_with = [](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    GgufBuilder file;
    file.f32_tensor("room", {64}, std::vector<float>(64));
    file.tensor_info("bad", dims, type, offset);
    return error_of(file);
  };
  EXPECT_THAT(error_with({}, kF32Type, 0).message, HasSubstr("dimensions"));
  EXPECT_THAT(error_with({1, 1, 1, 1, 1}, kF32Type, 0).message, HasSubstr("dimensions"));
  EXPECT_THAT(error_with({0}, kF32Type, 0).message, HasSubstr("impossible"));
  EXPECT_THAT(error_with({UINT64_MAX}, kF32Type, 0).message, HasSubstr("impossible"));
  EXPECT_THAT(error_with({uint64_t{1} << 32, uint64_t{1} << 32}, kF32Type, 0).message, HasSubstr("impossible"));
  EXPECT_THAT(error_with({uint64_t{1} << 62}, kF32Type, 0).message,
              HasSubstr("inside the file"));  // 4 x 2^62 bytes wraps to 0
  EXPECT_THAT(error_with({65}, kF32Type, 0).message, HasSubstr("inside the file"));
  EXPECT_THAT(error_with({1}, kF32Type, 256).message, HasSubstr("inside the file"));
  EXPECT_THAT(error_with({1}, kF32Type, 4).message, HasSubstr("inside the file"));  // not aligned
  EXPECT_THAT(error_with({1}, kF32Type, UINT64_MAX - 31).message, HasSubstr("inside the file"));
  EXPECT_THAT(error_with({33}, static_cast<uint32_t>(QuantType::kQ4_1), 0).message, HasSubstr("Q4_1"));
  EXPECT_EQ(error_with({256}, 21, 0).code, ErrorCode::kUnsupported);  // IQ3_S
  EXPECT_EQ(error_with({32}, UINT32_MAX, 0).code, ErrorCode::kUnsupported);
}

TEST(Gguf, TrailingDimensionsOfOneAreNone) {
  GgufBuilder file;
  file.f32_tensor("vector", {2, 1, 1}, {7, 8});
  file.f32_tensor("matrix", {2, 3, 1, 1}, {0, 1, 10, 11, 20, 21});
  file.f32_tensor("cube", {2, 3, 2}, std::vector<float>(12));
  file.f32_tensor("row", {1, 2}, {7, 8});
  const std::vector<std::byte> bytes = file.build();
  const Gguf gguf = Gguf::parse(bytes, "test.gguf").value();
  EXPECT_THAT(gguf.vector("vector", 2).value(), ElementsAre(7, 8));
  const auto matrix = gguf.matrix("matrix");
  ASSERT_TRUE(matrix) << matrix.error().message;
  EXPECT_EQ(matrix->rows, 3);
  EXPECT_EQ(matrix->cols, 2);
  EXPECT_THAT(gguf.matrix("cube").error().message, HasSubstr("'cube'"));
  EXPECT_THAT(gguf.vector("matrix", 2).error().message, HasSubstr("'matrix'"));
  EXPECT_THAT(gguf.vector("row", 2).error().message, HasSubstr("'row'"));
}

TEST(Gguf, NumbersComeFromEveryNumericType) {
  GgufBuilder file;
  file.f64("double", 1e-6);
  file.key("tiny", 0).number<uint8_t>(7);
  file.i32("negative", -3);
  file.i32s("list", {5, 5});
  const std::vector<std::byte> bytes = file.build();
  const Gguf gguf = Gguf::parse(bytes, "test.gguf").value();
  EXPECT_FLOAT_EQ(gguf.f32("double").value(), 1e-6f);
  EXPECT_EQ(gguf.number("tiny"), 7.0);
  EXPECT_EQ(gguf.number("negative"), -3.0);
  EXPECT_FALSE(gguf.number("list"));
  EXPECT_THAT(gguf.u64s("list").value(), ElementsAre(5u, 5u));
  EXPECT_THAT(gguf.u64s("tiny").value(), ElementsAre(7u));
  EXPECT_EQ(gguf.u64s("negative").error().param, "negative");
  EXPECT_EQ(gguf.array_size("list"), 2u);
  EXPECT_EQ(gguf.array_size("tiny").error().param, "tiny");
  EXPECT_THAT(gguf.keys(), ElementsAre("double", "list", "negative", "tiny"));
}

// A tensor type that we do not read is called by ggml's name, and the message says what we read.
TEST(Gguf, TensorTypesAreNamed) {
  const std::pair<uint32_t, const char*> types[] = {
      {4, "Q4_2"},     {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"},  {17, "IQ2_XS"},
      {18, "IQ3_XXS"}, {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},    {24, "I8"},
      {26, "I32"},     {28, "F64"},   {29, "IQ1_M"}, {33, "Q4_0_8_8"}, {34, "TQ1_0"},
      {35, "TQ2_0"},   {40, "NVFP4"}, {41, "Q1_0"},  {42, "Q2_0"},     {137, "number 137"}};
  for (const auto& [type, name] : types) {
    GgufBuilder file;
    file.tensor_info("blk.0.odd.weight", {256}, type, 0);
    const Error error = error_of(file);
    EXPECT_EQ(error.code, ErrorCode::kUnsupported) << name;
    EXPECT_THAT(error.message, HasSubstr("blk.0.odd.weight"));
    EXPECT_THAT(error.message, HasSubstr("of the type " + std::string(name) + " are not read"));
    EXPECT_THAT(error.message, HasSubstr("F32, F16, BF16, Q4_0"));
  }
}

TEST(Gguf, TensorsThatOverlapAreRefused) {
  GgufBuilder file;
  file.f32_tensor("first", {16}, std::vector<float>(16));
  file.f32_tensor("second", {16}, std::vector<float>(16));
  file.tensor_info("third", {16}, kF32Type, 32);
  EXPECT_THAT(error_of(file).message, HasSubstr("'first' and 'third' overlap"));
}

TEST(Gguf, WhatIsNoGgufIsNamed) {
  const std::pair<std::string, const char*> files[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"},
      {"<!DOCTYPE html><html>", "web page"},
      {std::string("PK\3\4", 4) + std::string(60, 'x'), "PyTorch"},
      {"tjgg" + std::string(60, '\0'), "GGJT"},
      {std::string("\x40\0\0\0\0\0\0\0{\"a\":1}", 15), "safetensors"},
      {std::string(64, 'x'), "not a GGUF file"}};
  for (const auto& [content, name] : files) {
    const auto file = Gguf::parse(std::as_bytes(std::span(content)), "m.gguf");
    ASSERT_FALSE(file) << name;
    EXPECT_THAT(file.error().message, HasSubstr(name));
  }
}

TEST(Gguf, NamesThatComeTwiceAreRefused) {
  GgufBuilder keys = small_file(), tensors = small_file();
  keys.u32("answer", 43);
  EXPECT_THAT(error_of(keys).message, HasSubstr("'answer' comes twice"));
  tensors.f32_tensor("vector", {1}, {1});
  EXPECT_THAT(error_of(tensors).message, HasSubstr("'vector' comes twice"));
}

TEST(Gguf, AnAlignmentThatIsNoSmallPowerOfTwoIsRefused) {
  for (const uint32_t alignment : {0u, 1u, 4u, 24u, 1u << 21, UINT32_MAX}) {
    GgufBuilder file = small_file();
    file.u32("general.alignment", alignment);
    EXPECT_THAT(error_of(file).message, HasSubstr("general.alignment")) << alignment;
  }
  GgufBuilder text = small_file();
  text.str("general.alignment", "32");
  EXPECT_THAT(error_of(text).message, HasSubstr("general.alignment"));
  GgufBuilder wide;
  wide.alignment = 4096;
  wide.u32("general.alignment", 4096);
  wide.f32_tensor("a", {1}, {1});
  wide.f32_tensor("b", {1}, {2});
  const std::vector<std::byte> bytes = wide.build();
  EXPECT_THAT(Gguf::parse(bytes, "wide.gguf")->vector("b", 1).value(), ElementsAre(2));
}

TEST(Gguf, OtherFormsOfFileAreNamedInTheError) {
  GgufBuilder big_endian = small_file(), old = small_file(), nested = small_file(), unknown = small_file();
  big_endian.version = 0x03000000;
  EXPECT_THAT(error_of(big_endian).message, HasSubstr("big-endian"));
  old.version = 1;
  EXPECT_THAT(error_of(old).message, HasSubstr("version 1"));
  old.version = 4;
  EXPECT_THAT(error_of(old).message, HasSubstr("version 4"));
  EXPECT_THAT(error_of(old).message, Not(HasSubstr("convert the model again")));
  nested.key("nested", 9).number<uint32_t>(9).number<uint64_t>(1);
  EXPECT_THAT(error_of(nested).message, HasSubstr("type 9"));
  unknown.key("unknown", 77).number<uint64_t>(1);
  EXPECT_THAT(error_of(unknown).message, HasSubstr("type 77"));
  const std::string html = "<html>this is no model, and longer than a header is</html>";
  const auto page = Gguf::parse(std::as_bytes(std::span(html)), "page.gguf");
  EXPECT_THAT(page.error().message, HasSubstr("not a GGUF file"));
  EXPECT_EQ(Gguf::open("/nonexistent/model.gguf").error().code, ErrorCode::kNotFound);
}

class SplitGguf : public ::testing::Test {
 protected:
  // Part `number` (from 0) of `count` with one tensor of one weight, in a file of the right name.
  std::filesystem::path write_part(uint32_t number, uint32_t count, uint32_t tensors) {
    GgufBuilder file;
    if (number == 0) file.u32("answer", 42);
    file.u32("split.no", number);
    file.u32("split.count", count);
    file.i32("split.tensors.count", static_cast<int32_t>(tensors));
    file.f32_tensor("t" + std::to_string(number), {1}, {static_cast<float>(number)});
    const auto path = dir_ / ("m-0000" + std::to_string(number + 1) + "-of-0000" + std::to_string(count) + ".gguf");
    file.write(path);
    return path;
  }
  TempDir dir_;
};

TEST_F(SplitGguf, ThePartsAreReadAsOneModel) {
  const auto first = write_part(0, 3, 3);
  write_part(1, 3, 3);
  write_part(2, 3, 3);
  const auto file = Gguf::open(first);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->u64("answer"), 42u);
  EXPECT_THAT(file->tensor_names(), ElementsAre("t0", "t1", "t2"));
  EXPECT_THAT(file->vector("t2", 1).value(), ElementsAre(2));
}

TEST_F(SplitGguf, PartsThatAreMissingOrDoNotBelongTogetherAreRefused) {
  const auto first = write_part(0, 3, 3);
  const auto second = write_part(1, 3, 3);
  EXPECT_EQ(Gguf::open(first).error().code, ErrorCode::kNotFound);
  EXPECT_THAT(Gguf::open(second).error().message, HasSubstr("part 2 of 3"));
  std::filesystem::copy_file(second, dir_ / "m-00003-of-00003.gguf");
  EXPECT_FALSE(Gguf::open(first));
  std::filesystem::remove(dir_ / "m-00003-of-00003.gguf");
  write_part(2, 3, 4);  // claims a tensor that no part has
  EXPECT_THAT(Gguf::open(first).error().message, HasSubstr("do not belong together"));
  std::filesystem::rename(first, dir_ / "renamed.gguf");
  EXPECT_THAT(Gguf::open(dir_ / "renamed.gguf").error().message, HasSubstr("-00001-of-00003.gguf"));
}

TEST(Gguf, TheContentHashSeesEveryByte) {
  std::vector<std::byte> bytes = small_file().build();
  const std::string hash = Gguf::parse(bytes, "test.gguf")->content_hash();
  EXPECT_EQ(hash.size(), 32u);
  EXPECT_EQ(Gguf::parse(bytes, "other name.gguf")->content_hash(), hash);
  bytes.back() ^= std::byte{1};
  EXPECT_NE(Gguf::parse(bytes, "test.gguf")->content_hash(), hash);
}

TEST(Gguf, OpensTheDefaultModel) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const auto file = Gguf::open(test::default_model());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 272u);
  EXPECT_EQ(file->strings("tokenizer.ggml.tokens")->size(), 49152u);
  const auto embedding = file->matrix("token_embd.weight");
  EXPECT_EQ(embedding->type, QuantType::kQ8_0);
  EXPECT_EQ(embedding->rows, 49152);
  EXPECT_EQ(embedding->cols, 576);
  EXPECT_EQ(embedding->data - file->tensors()[0].bytes.data(), 0);
}

}  // namespace
}  // namespace runahead
