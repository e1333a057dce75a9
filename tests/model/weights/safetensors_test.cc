// Headers of .safetensors files: what is read, and every way that one may lie.
#include "model/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "tests/support/hf_folder_builder.h"

namespace runahead {
namespace {

using ::testing::HasSubstr;

Result<std::vector<SafeTensor>> read(const std::string& file) {
  return read_safetensors(std::as_bytes(std::span(file)), "m.safetensors");
}

// A header of one's own before eight bytes of data.
std::string with_header(const std::string& header) {
  test::SafetensorsBuilder builder;
  builder.data.resize(8);
  return builder.build(header);
}

void expect_refused(const std::string& file, const std::string& says) {
  const auto tensors = read(file);
  ASSERT_FALSE(tensors) << says;
  EXPECT_EQ(tensors.error().code, ErrorCode::kInvalidModel);
  EXPECT_THAT(tensors.error().message, HasSubstr(says));
  EXPECT_THAT(tensors.error().message, HasSubstr("m.safetensors: "));
}

TEST(Safetensors, TensorsComeInTheOrderOfTheirBytes) {
  test::SafetensorsBuilder builder;
  builder.tensor("b", "F32", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  builder.tensor("a", "BF16", {4}, std::vector<float>{1, 2, 3, 4});
  builder.tensor("c", "F16", {}, std::vector<float>{1});
  builder.header["__metadata__"] = {{"format", "pt"}};
  const std::string file = builder.build();
  const auto tensors = read(file);
  ASSERT_TRUE(tensors) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "b");
  EXPECT_EQ((*tensors)[0].num_dims, 2);
  EXPECT_EQ((*tensors)[0].shape[1], 3);
  EXPECT_EQ((*tensors)[1].type, "BF16");
  EXPECT_EQ((*tensors)[2].num_dims, 0);
  EXPECT_EQ((*tensors)[2].bytes.data() + 2, reinterpret_cast<const std::byte*>(file.data() + file.size()));
}

TEST(Safetensors, LengthsThatLie) {
  expect_refused("", "ends inside its header");
  expect_refused(std::string(7, '\0'), "ends inside its header");
  expect_refused(std::string("\x40\0\0\0\0\0\0\0{}", 10), "download is incomplete");
  expect_refused(std::string(8, '\xff') + "{}", "its header claims 18446744073709551615 bytes");
  expect_refused(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10), "its header claims 100000001 bytes");
  expect_refused("version https://git-lfs.github.com/spec/v1", "git lfs pull");
}

TEST(Safetensors, HeadersThatAreNone) {
  expect_refused(with_header("[]"), "no JSON object");
  expect_refused(with_header("{"), "no valid JSON");
  expect_refused(with_header(R"({"a": {"shape": )" + std::string(100000, '[')), "says 'shape' of 'a'");
  expect_refused(with_header("{\"a\xff\": 1}"), "no valid JSON");
  expect_refused(with_header(R"({"a": 1})"), "says something of 'a'");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "shape": [2]}})"),
                 "lacks the dtype, the shape or the data_offsets of 'a'");
  expect_refused(with_header(R"({"a": {"shape": [2], "data_offsets": [0, 8]}})"), "lacks the dtype");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "data_offsets": [0, 8]}})"), "lacks the dtype");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}})"), "lacks the dtype");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}})"), "data_offsets");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})"),
                 "dtype");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "shape": [2], "shape": [2], "data_offsets": [0, 8]}})"),
                 "shape");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "more": 1}})"), "more");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "shape": [[2]], "data_offsets": [0, 8]}})"), "shape");
  expect_refused(with_header(R"({"": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})"), "name has 0 bytes");
  expect_refused(with_header(R"({"__metadata__": {"a": {}}})"), "more than texts");
  expect_refused(with_header(R"({"__metadata__": {"a": 1}})"), "more than texts");
  expect_refused(with_header(R"({"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 8]}})"), "no valid JSON");
}

TEST(Safetensors, PlacesThatLie) {
  const auto one = [](const std::string& type, const std::string& shape, const std::string& offsets) {
    return with_header(R"({"a": {"dtype": ")" + type + R"(", "shape": )" + shape + R"(, "data_offsets": )" + offsets +
                       "}}");
  };
  EXPECT_TRUE(read(one("F32", "[2]", "[0, 8]")));
  expect_refused(one("F32", "[2]", "[4, 12]"), "bytes before the tensor 'a'");
  expect_refused(one("F32", "[4]", "[0, 16]"), "ends behind the file");
  expect_refused(one("F32", "[2]", "[8, 0]"), "another number of bytes");
  expect_refused(one("F32", "[1]", "[0, 8]"), "another number of bytes");
  expect_refused(one("F32", "[1]", "[0, 4]"), "4 bytes at its end belong to no tensor");
  expect_refused(one("F32", "[0]", "[0, 0]"), "no weights");
  expect_refused(one("F32", "[-2]", "[0, 8]"), "shape");
  expect_refused(one("F32", "[1.5]", "[0, 8]"), "shape");
  expect_refused(one("F32", "[1, 1, 1, 1, 2]", "[0, 8]"), "more than 4 dimensions");
  expect_refused(one("F32", "[4294967296, 4294967296, 4294967296]", "[0, 8]"), "another number of bytes");
  expect_refused(one("F32", "[18446744073709551615]", "[0, 8]"), "too many");
  expect_refused(one("F32", "[2]", "[0, 18446744073709551615]"), "another number of bytes");
  expect_refused(one("F32", "[2]", "[-1, 8]"), "data_offsets");
  expect_refused(one("F33", "[2]", "[0, 8]"), "unknown type 'F33'");
}

TEST(Safetensors, NoByteBelongsToTwoTensorsAndNoNameComesTwice) {
  const std::string a = R"("dtype": "F32", "shape": [1], "data_offsets": [0, 4])",
                    b = R"("dtype": "F32", "shape": [1], "data_offsets": )";
  EXPECT_TRUE(read(with_header("{\"a\": {" + a + "}, \"b\": {" + b + "[4, 8]}}")));
  expect_refused(with_header("{\"a\": {" + a + "}, \"b\": {" + b + "[0, 4]}}"), "'b' overlaps another");
  expect_refused(with_header("{\"a\": {" + a + "}, \"b\": {" + b + "[2, 6]}}"), "'b' overlaps another");
  expect_refused(with_header("{\"a\": {" + a + "}, \"a\": {" + b + "[4, 8]}}"), "'a' comes twice");
}

TEST(Safetensors, AFileCutShortAnywhereIsRefused) {
  test::SafetensorsBuilder builder;
  builder.tensor("a", "F32", {2, 3}, std::vector<float>(6));
  const std::string file = builder.build();
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(read(file.substr(0, size))) << size;
  EXPECT_TRUE(read(file));
}

}  // namespace
}  // namespace runahead
