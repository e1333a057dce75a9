#include "kernels/quant_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>

#include "kernels/thread_team.h"

namespace runahead {
namespace {

// tests/golden/quant_blocks.bin, made by make_quant_blocks.py with PyPI `gguf` 0.19.0.
std::vector<char> read_fixture() {
  std::ifstream file(RUNAHEAD_SOURCE_DIR "/tests/golden/quant_blocks.bin", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(QuantBlocks, EveryFormatDequantisesToTheBitsOfTheReferenceImplementation) {
  const std::vector<char> fixture = read_fixture();
  ASSERT_GT(fixture.size(), 4u);
  size_t at = 0;
  const auto u32 = [&] {
    uint32_t value;
    std::memcpy(&value, fixture.data() + at, 4);
    at += 4;
    return value;
  };
  std::set<uint32_t> types;
  for (uint32_t left = u32(); left > 0; --left) {
    const uint32_t type = u32(), block_bytes = u32(), weights = u32();
    ASSERT_LE(at + block_bytes + weights * 4, fixture.size());
    std::vector<float> want(weights), got(weights);
    std::memcpy(want.data(), fixture.data() + at + block_bytes, weights * 4);
    dequantize(static_cast<QuantType>(type), std::as_bytes(std::span(fixture).subspan(at, block_bytes)), got);
    for (uint32_t i = 0; i < weights; ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
          << quant_format(static_cast<QuantType>(type)).name << " weight " << i << ": " << got[i] << " not " << want[i];
    at += block_bytes + weights * 4;
    types.insert(type);
  }
  EXPECT_EQ(at, fixture.size());
  EXPECT_EQ(types, (std::set<uint32_t>{0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 30, 39}));
}

// Every two bytes of a block made an infinity and a NaN of each width: found if and only if a weight is none of the numbers.
TEST(QuantBlocks, WhatIsNoNumberIsFoundWhereverItStands) {
  for (const uint32_t type : {0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 30, 39}) {
    const auto quant = static_cast<QuantType>(type);
    const QuantFormat& format = quant_format(quant);
    const size_t blocks = 2, bytes = blocks * static_cast<size_t>(format.block_bytes);
    std::vector<float> weights(blocks * static_cast<size_t>(format.block_len));
    int found = 0;
    for (size_t at = 0; at + 2 <= bytes; at += 2)
      for (const uint16_t bits : {0x7c00, 0xfe01, 0x7f80, 0x7fc0, 0x3c00, 0x7bff}) {
        std::vector<std::byte> data(bytes, std::byte{0x11});
        std::memcpy(data.data() + at, &bits, 2);
        dequantize(quant, data, weights);
        const bool all = std::ranges::all_of(weights, [](float w) { return std::isfinite(w); });
        EXPECT_EQ(is_finite(quant, data), all) << format.name << " at " << at << ", bits " << bits;
        found += !all;
      }
    EXPECT_GT(found, 0) << format.name;
  }
}

// Scales of MXFP4 go from 2^-128 to 2^127, past fp32 on both sides where the model's threads flush denormals.
TEST(QuantBlocks, EveryScaleOfMxfp4IsExactWhereDenormalsAreFlushed) {
  const FlushDenormals flush;
  std::array<std::byte, 17> block{};
  std::array<float, 32> weights;
  for (int scale = 0; scale < 256; ++scale) {
    block[0] = static_cast<std::byte>(scale);
    block[1] = std::byte{0xf7};  // 12, -12
    dequantize(QuantType::kMXFP4, block, weights);
    const double want = std::ldexp(12.0, scale - 128);
    EXPECT_EQ(is_finite(QuantType::kMXFP4, block), want <= double{std::numeric_limits<float>::max()}) << scale;
    if (want > double{std::numeric_limits<float>::max()}) continue;
    EXPECT_EQ(double{weights[0]}, want) << scale;
    EXPECT_EQ(double{weights[16]}, -want) << scale;
  }
}

TEST(QuantBlocks, AnUnknownTypeIsRefusedByItsNameWithTheSupportedOnes) {
  const auto format = quant_format(uint32_t{21});  // IQ3_S
  ASSERT_FALSE(format);
  EXPECT_EQ(format.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(format.error().message.find("IQ3_S"), std::string::npos) << format.error().message;
  EXPECT_NE(format.error().message.find("Q4_1"), std::string::npos);
}

TEST(HalfPrecision, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = half_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(float_to_half(value), bits);
  }
}

// The definition: of all halves, the nearest; of two equally near, the one with an even fraction.
TEST(HalfPrecision, RoundsToTheNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {  // every pair of neighbours up to 65504
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
    const float middle = (half_to_float(low) + half_to_float(high)) / 2;  // exact: one more bit of fraction
    ASSERT_EQ(float_to_half(middle), (low & 1) == 0 ? low : high);
    ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(float_to_half(std::nextafter(middle, 1e9f)), high);
    ASSERT_EQ(float_to_half(-middle), ((low & 1) == 0 ? low : high) | 0x8000);
  }
  EXPECT_EQ(float_to_half(65519.99f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_TRUE(std::isnan(half_to_float(float_to_half(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(BrainFloat, RoundsToTheNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const uint32_t wide = bits << 16;
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(wide)), bits);
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(wide | 0x7fff)), bits);
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(wide | 0x8000)), bits + (bits & 1));
    ASSERT_EQ(float_to_bf16(std::bit_cast<float>(wide | 0x8001)), bits + 1);
    ASSERT_EQ(bf16_to_float(static_cast<uint16_t>(bits)), std::bit_cast<float>(wide));
  }
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace runahead
