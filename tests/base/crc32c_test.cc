#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace runahead {
namespace {

uint32_t of(const std::string& text) { return crc32c(std::as_bytes(std::span(text))); }

// Bit by bit, from the definition: the oracle.
uint32_t bitwise(std::span<const std::byte> bytes) {
  uint32_t crc = ~0u;
  for (std::byte b : bytes) {
    crc ^= static_cast<uint32_t>(b);
    for (int i = 0; i < 8; ++i) crc = (crc & 1) ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
  }
  return ~crc;
}

TEST(Crc32c, KnownAnswers) {  // RFC 3720, B.4
  EXPECT_EQ(of("123456789"), 0xE3069283u);
  EXPECT_EQ(of(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(of(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(of(""), 0u);
}

TEST(Crc32c, EveryLengthAndOffsetAgreesWithTheDefinition) {
  std::vector<std::byte> data(9000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 131 + (i >> 5));
  for (size_t size : {0, 1, 7, 8, 9, 63, 1023, 3071, 3072, 3073, 6144, 6200, 8990})
    for (size_t offset : {0, 1, 3, 7}) {
      const auto part = std::span<const std::byte>(data).subspan(offset, size);
      EXPECT_EQ(crc32c(part), bitwise(part)) << size << " at " << offset;
    }
}

TEST(Crc32c, ContinuesFromASeed) {
  const std::string text = "the chain carries pages";
  const auto bytes = std::as_bytes(std::span(text));
  EXPECT_EQ(crc32c(bytes.subspan(5), crc32c(bytes.first(5))), crc32c(bytes));
}

}  // namespace
}  // namespace runahead
