#include "transport/control/frame.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"

namespace runahead {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST(Preamble, IsTheDocumentedEightBytes) {
  const auto bytes = encode_preamble(Plane::kControl);
  const std::array<unsigned char, 8> expected = {'R', 'N', 'H', 'D', 'C', 0, 3, 0};
  EXPECT_EQ(0, std::memcmp(bytes.data(), expected.data(), expected.size()));
  EXPECT_TRUE(check_preamble(bytes, Plane::kControl).has_value());
}

TEST(Preamble, AnyOtherByteIsRefused) {
  for (size_t at = 0; at < kPreambleBytes; ++at)
    for (int bit = 0; bit < 8; ++bit) {
      auto bytes = encode_preamble(Plane::kData);
      bytes[at] ^= std::byte(1 << bit);
      const auto checked = check_preamble(bytes, Plane::kData);
      ASSERT_FALSE(checked.has_value()) << at << " " << bit;
      EXPECT_EQ(checked.error().code, ErrorCode::kIncompatible);
    }
  EXPECT_FALSE(check_preamble(encode_preamble(Plane::kData), Plane::kControl).has_value());
}

TEST(Frame, LengthIsLittleEndianAndPayloadFollows) {
  const std::string frame = encode_frame(std::string(0x0102, 'x'));
  EXPECT_EQ(frame.substr(0, 4), std::string("\x02\x01\x00\x00", 4));
  EXPECT_EQ(frame.size(), 4u + 0x0102);
}

TEST(FrameParser, GivesTheSameFramesForEveryWayToCutTheStream) {
  SeededRng rng(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> sent, received;
    std::string stream;
    for (int i = 0; i < 10; ++i) {
      sent.emplace_back(1 + rng.next() % (round % 2 ? 20 : 5000), static_cast<char>('a' + i));
      stream += encode_frame(sent.back());
    }
    FrameParser parser;
    for (size_t at = 0; at < stream.size();) {
      const size_t take = std::min<size_t>(1 + rng.next() % 700, stream.size() - at);
      ASSERT_TRUE(parser.feed(bytes_of(stream).subspan(at, take), received).has_value());
      at += take;
    }
    ASSERT_EQ(received, sent);
  }
}

TEST(FrameParser, RefusesEmptyAndOversizeFramesAtTheirLength) {
  std::vector<std::string> frames;
  auto fed = FrameParser(100).feed(bytes_of(std::string("\x65\x00\x00\x00", 4)), frames);
  ASSERT_FALSE(fed.has_value());
  EXPECT_EQ(fed.error().code, ErrorCode::kTooLarge);
  fed = FrameParser(100).feed(bytes_of(std::string("\x00\x00\x00\x00", 4)), frames);
  ASSERT_FALSE(fed.has_value());
  EXPECT_EQ(fed.error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(FrameParser(100).feed(bytes_of(encode_frame(std::string(100, 'x'))), frames).has_value());
  EXPECT_EQ(frames.size(), 1u);
}

}  // namespace
}  // namespace runahead
