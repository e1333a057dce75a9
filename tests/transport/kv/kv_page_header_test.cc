#include "transport/kv/kv_page_header.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/crc32c.h"
#include "base/limits.h"
#include "transport/kv/stream_hello.h"

namespace runahead {
namespace {

constexpr KvPageHeader kHeader{.attempt = {0x0102030405060708, 0x1112131415161718, 0x21222324},
                               .stream_token = {0x3132333435363738, 0x8182838485868788},
                               .key = {0x41424344, 0x51525354},
                               .page_bytes = 0x61626364,
                               .page_crc32c = 0x71727374,
                               .mac = {std::byte{0x91}, std::byte{0x92}}};

TEST(KvPageHeader, EveryByteIsWhereTheWireDocumentSaysItIs) {
  const auto bytes = encode(kHeader);
  const unsigned char expected[76] = {
      'R',  'A',  'K',  'V',                           // 0  magic
      2,    0,                                         // 4  version
      80,   0,                                         // 6  bytes of the header
      0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,  // 8  epoch
      0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,  // 16 request
      0x24, 0x23, 0x22, 0x21,                          // 24 attempt
      0x44, 0x43, 0x42, 0x41,                          // 28 layer
      0x54, 0x53, 0x52, 0x51,                          // 32 page
      0x74, 0x73, 0x72, 0x71,                          // 36 crc32c of the page
      0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,  // 40 stream token
      0x88, 0x87, 0x86, 0x85, 0x84, 0x83, 0x82, 0x81,  // 48
      0x91, 0x92, 0,    0,    0,    0,    0,    0,     // 56 authentication
      0,    0,    0,    0,    0,    0,    0,    0,     // 64
      0x64, 0x63, 0x62, 0x61,                          // 72 bytes of the page
  };
  EXPECT_EQ(0, memcmp(bytes.data(), expected, sizeof expected));
  const uint32_t crc = crc32c(std::span(bytes).first(76));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(static_cast<uint32_t>(bytes[76 + i]), (crc >> (8 * i)) & 0xff);
}

TEST(KvPageHeader, ParsesToWhatWasEncoded) {
  const auto parsed = parse_page_header(encode(kHeader));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(*parsed, kHeader);
}

TEST(KvPageHeader, AnyFlippedBitIsCorrupt) {
  for (size_t bit = 0; bit < 8 * kKvPageHeaderBytes; ++bit) {
    auto bytes = encode(kHeader);
    bytes[bit / 8] ^= std::byte(1 << bit % 8);
    const auto parsed = parse_page_header(bytes);
    ASSERT_FALSE(parsed.has_value()) << bit;
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt);
  }
}

TEST(KvPageHeader, AnotherVersionIsIncompatible) {
  auto bytes = encode(kHeader);
  bytes[4] = std::byte{1};
  const uint32_t crc = crc32c(std::span(bytes).first(76));
  memcpy(&bytes[76], &crc, 4);
  const auto parsed = parse_page_header(bytes);
  ASSERT_FALSE(parsed.has_value());
  EXPECT_EQ(parsed.error().code, ErrorCode::kIncompatible);
}

TEST(StreamHello, RoundTripsAndAnyFlippedBitIsCorrupt) {
  const StreamHello hello{{1, 2, 3}, {4, 9}, 5, {6, 7, 8}, 6};
  const auto parsed = parse_stream_hello(encode(hello));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(*parsed, hello);
  for (size_t bit = 0; bit < 8 * kStreamHelloBytes; ++bit) {
    auto bytes = encode(hello);
    bytes[bit / 8] ^= std::byte(1 << bit % 8);
    const auto damaged = parse_stream_hello(bytes);
    ASSERT_FALSE(damaged.has_value()) << bit;
    EXPECT_EQ(damaged.error().code, ErrorCode::kCorrupt);
  }
}

TEST(StreamHello, AGeometryOutOfBoundsIsCorruptThoughItsChecksumIsRight) {
  for (const KvGeometryDigest bad :
       {KvGeometryDigest{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {-1, 1, 1}, {1, 1 << 30, 1}, {1, 1, 1u << 31}})
    EXPECT_FALSE(parse_stream_hello(encode(StreamHello{{1, 2, 3}, {4, 9}, 5, bad, 1})).has_value());
  for (const int32_t layers : {-1, 0, 7})
    EXPECT_FALSE(parse_stream_hello(encode(StreamHello{{1, 2, 3}, {4, 9}, 5, {6, 7, 8}, layers})).has_value());
}

TEST(LayersOpen, IsToldFromAReply) {
  for (const int32_t count : {1, 2, limits::kKvLayersMax})
    EXPECT_EQ(parse_layers_open(encode_layers_open(count)), count);
  EXPECT_EQ(parse_layers_open(encode_layers_open(0)), std::nullopt);
  for (uint32_t reply = 0; reply < 300; ++reply)
    EXPECT_EQ(parse_layers_open(encode(static_cast<StreamReply>(reply))), std::nullopt);
}

TEST(StreamReply, UnknownNumbersAreErrors) {
  EXPECT_TRUE(parse_stream_reply(encode(StreamReply::kOk)).has_value());
  for (uint32_t reply = 1; reply < 300; ++reply)
    EXPECT_FALSE(parse_stream_reply(encode(static_cast<StreamReply>(reply))).has_value());
}

}  // namespace
}  // namespace runahead
