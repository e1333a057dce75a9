#include "base/memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>

namespace runahead {
namespace {

TEST(AlignedBuffer, IsZeroedAndAlignedAtEverySize) {
  for (size_t size : {1u, 63u, 64u, 4096u, (2u << 20) - 1, 2u << 20, (5u << 20) + 3}) {
    AlignedBuffer buffer(size);
    ASSERT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    for (std::byte b : buffer.as<std::byte>()) ASSERT_EQ(b, std::byte{0});
    buffer.data()[size - 1] = std::byte{1};
    AlignedBuffer moved = std::move(buffer);
    EXPECT_EQ(moved.data()[size - 1], std::byte{1});
    EXPECT_EQ(buffer.data(), nullptr);  // NOLINT(bugprone-use-after-move): what is left is empty
  }
}

TEST(MappedFile, GivesTheBytesOfAFileOrSaysWhyNot) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "mapped_file_test";
  std::ofstream(path) << "pages";
  const auto file = MappedFile::open(path);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(file->bytes()[4]), 's');
  EXPECT_EQ(MappedFile::open("/nonexistent").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(MappedFile::open(::testing::TempDir()).error().code, ErrorCode::kInvalidArgument);
  std::ofstream(path, std::ios::trunc).flush();
  EXPECT_FALSE(MappedFile::open(path));
}

}  // namespace
}  // namespace runahead
