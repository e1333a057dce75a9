#include "kernels/quant_blocks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "base/check.h"

namespace runahead {
namespace {

constexpr int kSuperblock = KQuantBlock::kWeights;

float load_half(const uint8_t* p) { return half_to_float(static_cast<uint16_t>(p[0] | p[1] << 8)); }

uint32_t load_u32(const uint8_t* p) {
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}

// One block of a format -> its weights. The order of the floating-point operations is the reference's: it decides bits.
using DequantizeBlock = void (*)(const uint8_t* block, float* out);

void dequantize_f32(const uint8_t* block, float* out) { std::memcpy(out, block, sizeof(float)); }
void dequantize_f16(const uint8_t* block, float* out) { *out = load_half(block); }
void dequantize_bf16(const uint8_t* block, float* out) {
  *out = bf16_to_float(static_cast<uint16_t>(block[0] | block[1] << 8));
}

void dequantize_f8(const uint8_t* block, float* out) { *out = float8_to_float(*block); }

// Bytes of 4-bit formats hold weight i in the low and weight i + 16 in the high half.
void dequantize_q4_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

void dequantize_q4_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

// The fifth bits of the 32 weights lie in one little-endian word, weight 0 in the lowest bit.
void dequantize_q5_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint32_t high = load_u32(block + 2);
  for (int i = 0; i < 32; ++i) {
    const int low = i < 16 ? block[6 + i] & 15 : block[6 + i - 16] >> 4;
    out[i] = d * static_cast<float>((low | static_cast<int>(high >> i & 1) << 4) - 16);
  }
}

void dequantize_q5_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  const uint32_t high = load_u32(block + 4);
  for (int i = 0; i < 32; ++i) {
    const int low = i < 16 ? block[8 + i] & 15 : block[8 + i - 16] >> 4;
    out[i] = d * static_cast<float>(low | static_cast<int>(high >> i & 1) << 4) + m;
  }
}

void dequantize_q8_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

void dequantize_iq4_nl(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const auto weight = [&](size_t code) { return d * static_cast<float>(kIq4Codes[code] - kIq4Bias); };
  for (int i = 0; i < 16; ++i) {
    out[i] = weight(block[2 + i] & 15);
    out[i + 16] = weight(block[2 + i] >> 4);
  }
}

// The scale is a power of two from 2^-128, below what fp32 holds where denormals are flushed; double holds all of them.
void dequantize_mxfp4(const uint8_t* block, float* out) {
  const double d = std::ldexp(1.0, block[0] - 128);
  const auto weight = [&](size_t code) { return static_cast<float>(d * (kMxfp4Codes[code] - kMxfp4Bias)); };
  for (int i = 0; i < 16; ++i) {
    out[i] = weight(block[1 + i] & 15);
    out[i + 16] = weight(block[1 + i] >> 4);
  }
}

// Q2_K and Q3_K: weight w = 128 h + 32 s + j lies in byte 32 h + j at bit 2 s.
int two_bits(const uint8_t* quants, size_t w) { return quants[w / 128 * 32 + w % 32] >> (w % 128 / 32 * 2) & 3; }

KQuantBlock read_q2_k(const uint8_t* block) {
  KQuantBlock k{.d = load_half(block + 80), .m = -load_half(block + 82)};
  for (size_t g = 0; g < k.scales.size(); ++g) {
    k.scales[g] = static_cast<int8_t>(block[g] & 15);
    k.minima[g] = static_cast<int8_t>(block[g] >> 4);
  }
  for (size_t w = 0; w < k.codes.size(); ++w) k.codes[w] = static_cast<uint8_t>(two_bits(block + 16, w));
  return k;
}

// 16 scales of 6 bits: low halves in 8 bytes, the upper two bits of scale g in byte 8 + g % 4 at bit 2 (g / 4).
int q3_k_scale(const uint8_t* scales, size_t g) {
  const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
  return (low | (scales[8 + g % 4] >> (2 * (g / 4)) & 3) << 4) - 32;
}

KQuantBlock read_q3_k(const uint8_t* block) {
  KQuantBlock k{.d = load_half(block + 108), .bias = 4};
  for (size_t g = 0; g < k.scales.size(); ++g) k.scales[g] = static_cast<int8_t>(q3_k_scale(block + 96, g));
  for (size_t w = 0; w < k.codes.size(); ++w)  // the third bit
    k.codes[w] = static_cast<uint8_t>(two_bits(block + 32, w) | (block[w % 32] >> (w / 32) & 1) << 2);
  return k;
}

// Q4_K and Q5_K: 8 scales and 8 minima of 6 bits in 12 bytes; the last four of each are split over two bytes.
void read_scales_and_minima(const uint8_t* packed, KQuantBlock& k) {
  for (size_t g = 0; g < 8; ++g) {
    const int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4;
    const int minimum = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | (packed[g] >> 6) << 4;
    k.scales[2 * g] = k.scales[2 * g + 1] = static_cast<int8_t>(scale);
    k.minima[2 * g] = k.minima[2 * g + 1] = static_cast<int8_t>(minimum);
  }
}

KQuantBlock read_q4_k(const uint8_t* block) {
  KQuantBlock k{.d = load_half(block), .m = -load_half(block + 2)};
  read_scales_and_minima(block + 4, k);
  for (size_t w = 0; w < k.codes.size(); ++w) k.codes[w] = block[16 + w / 64 * 32 + w % 32] >> (w / 32 % 2 * 4) & 15;
  return k;
}

KQuantBlock read_q5_k(const uint8_t* block) {
  KQuantBlock k{.d = load_half(block), .m = -load_half(block + 2)};
  read_scales_and_minima(block + 4, k);
  for (size_t w = 0; w < k.codes.size(); ++w) {
    const int low = block[48 + w / 64 * 32 + w % 32] >> (w / 32 % 2 * 4) & 15;
    k.codes[w] = static_cast<uint8_t>(low | (block[16 + w % 32] >> (w / 32) & 1) << 4);
  }
  return k;
}

// Weight w = 128 h + r: low four bits in byte 64 h + r % 64 (upper half from r = 64), high two in byte 32 h + r % 32.
KQuantBlock read_q6_k(const uint8_t* block) {
  KQuantBlock k{.d = load_half(block + 208), .bias = 32};
  for (size_t g = 0; g < k.scales.size(); ++g) k.scales[g] = static_cast<int8_t>(block[192 + g]);
  for (size_t w = 0; w < k.codes.size(); ++w) {
    const size_t h = w / 128, r = w % 128;
    const int low = block[64 * h + r % 64] >> (r / 64 * 4) & 15,
              high = block[128 + 32 * h + r % 32] >> (r / 32 * 2) & 3;
    k.codes[w] = static_cast<uint8_t>(low | high << 4);
  }
  return k;
}

// 8 scales of 6 bits: low halves as nibbles in four bytes, the upper two bits of scale g in a word at bit 2 g.
KQuantBlock read_iq4_xs(const uint8_t* block) {
  KQuantBlock k{.d = load_half(block), .bias = kIq4Bias};
  const uint32_t high = block[2] | uint32_t{block[3]} << 8;
  for (size_t g = 0; g < 8; ++g) {
    const uint32_t scale = (block[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (2 * g) & 3) << 4;
    k.scales[2 * g] = k.scales[2 * g + 1] = static_cast<int8_t>(static_cast<int>(scale) - 32);
  }
  for (size_t w = 0; w < k.codes.size(); ++w)
    k.codes[w] = kIq4Codes[block[8 + w / 32 * 16 + w % 16] >> (w / 16 % 2 * 4) & 15];
  return k;
}

template <KQuantBlock (*kRead)(const uint8_t*)>
void dequantize_k(const uint8_t* block, float* out) {
  const KQuantBlock k = kRead(block);
  for (size_t w = 0; w < k.codes.size(); ++w) {
    const size_t g = w / KQuantBlock::kGroup;
    out[w] = k.d * k.scales[g] * static_cast<float>(k.codes[w] - k.bias);
    if (k.bias == 0) out[w] += k.m * k.minima[g];
  }
}

// Every scale is a number; the largest of them, times a large level, is beyond fp32.
bool is_finite_mxfp4(std::span<const std::byte> blocks) {
  constexpr size_t kBytes = 17, kWeights = 32;
  constexpr uint8_t kSafe = 252;  // 12 * 2^124 is below 2^128
  float weights[kWeights];
  for (size_t at = 0; at < blocks.size(); at += kBytes) {
    const auto* block = reinterpret_cast<const uint8_t*>(blocks.data() + at);
    if (block[0] <= kSafe) continue;
    dequantize_mxfp4(block, weights);
    if (!std::ranges::all_of(weights, [](float w) { return std::isfinite(w); })) return false;
  }
  return true;
}

struct Row {
  QuantType type;
  QuantFormat format;
  DequantizeBlock dequantize;
  uint32_t exponent = 0;  // the bits that are all set in an infinity or a NaN of the block's own floats
  std::array<int32_t, 2> floats = {};  // where in a block those stand; -1: there is only one
};
constexpr uint32_t kF32Exponent = 0x7f800000, kF16Exponent = 0x7c00, kBf16Exponent = 0x7f80;

constexpr Row kRows[] = {
    {QuantType::kF32, {"F32", 1, 4}, dequantize_f32, kF32Exponent, {0, -1}},
    {QuantType::kF16, {"F16", 1, 2}, dequantize_f16, kF16Exponent, {0, -1}},
    {QuantType::kBF16, {"BF16", 1, 2}, dequantize_bf16, kBf16Exponent, {0, -1}},
    {QuantType::kQ4_0, {"Q4_0", 32, 18}, dequantize_q4_0, kF16Exponent, {0, -1}},
    {QuantType::kQ4_1, {"Q4_1", 32, 20}, dequantize_q4_1, kF16Exponent, {0, 2}},
    {QuantType::kQ5_0, {"Q5_0", 32, 22}, dequantize_q5_0, kF16Exponent, {0, -1}},
    {QuantType::kQ5_1, {"Q5_1", 32, 24}, dequantize_q5_1, kF16Exponent, {0, 2}},
    {QuantType::kQ8_0, {"Q8_0", 32, 34}, dequantize_q8_0, kF16Exponent, {0, -1}},
    {QuantType::kIQ4_NL, {"IQ4_NL", 32, 18}, dequantize_iq4_nl, kF16Exponent, {0, -1}},
    {QuantType::kQ2_K, {"Q2_K", kSuperblock, 84}, dequantize_k<read_q2_k>, kF16Exponent, {80, 82}},
    {QuantType::kQ3_K, {"Q3_K", kSuperblock, 110}, dequantize_k<read_q3_k>, kF16Exponent, {108, -1}},
    {QuantType::kQ4_K, {"Q4_K", kSuperblock, 144}, dequantize_k<read_q4_k>, kF16Exponent, {0, 2}},
    {QuantType::kQ5_K, {"Q5_K", kSuperblock, 176}, dequantize_k<read_q5_k>, kF16Exponent, {0, 2}},
    {QuantType::kQ6_K, {"Q6_K", kSuperblock, 210}, dequantize_k<read_q6_k>, kF16Exponent, {208, -1}},
    {QuantType::kIQ4_XS, {"IQ4_XS", kSuperblock, 136}, dequantize_k<read_iq4_xs>, kF16Exponent, {0, -1}},
    {QuantType::kMXFP4, {"MXFP4", 32, 17}, dequantize_mxfp4, 0, {-1, -1}},
    {QuantType::kF8_E4M3, {"F8_E4M3", 1, 1}, dequantize_f8, 0, {-1, -1}},
};
bool is_of_gguf(const Row& row) { return row.type != QuantType::kF8_E4M3; }

// ggml's other types, so that a file of them is told what it is. Those that ggml has taken back are among them.
struct OtherType {
  uint32_t type;
  std::string_view name;
};
constexpr OtherType kOtherTypes[] = {
    {4, "Q4_2"},      {5, "Q4_3"},   {9, "Q8_1"},   {15, "Q8_K"},       {16, "IQ2_XXS"},    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},  {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},      {24, "I8"},         {25, "I16"},
    {26, "I32"},      {27, "I64"},   {28, "F64"},   {29, "IQ1_M"},      {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},
    {33, "Q4_0_8_8"}, {34, "TQ1_0"}, {35, "TQ2_0"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"},
    {40, "NVFP4"},    {41, "Q1_0"},  {42, "Q2_0"},
};

std::string name_of_other(uint32_t gguf_type) {
  for (const OtherType& other : kOtherTypes)
    if (other.type == gguf_type) return std::string(other.name);
  return "number " + std::to_string(gguf_type);
}

const Row* find_row(uint32_t gguf_type) {
  for (const Row& row : kRows) {
    if (static_cast<uint32_t>(row.type) == gguf_type) return &row;
  }
  return nullptr;
}

const Row& row_of(QuantType type) {
  const Row* row = find_row(static_cast<uint32_t>(type));
  RUNAHEAD_CHECK(row != nullptr, "a QuantType that is not in the table");
  return *row;
}

}  // namespace

Result<QuantFormat> quant_format(uint32_t gguf_type) {
  if (const Row* row = find_row(gguf_type); row != nullptr && is_of_gguf(*row)) return row->format;
  std::string supported;
  for (const Row& row : kRows)
    if (is_of_gguf(row)) supported += (supported.empty() ? "" : ", ") + std::string(row.format.name);
  return fail(ErrorCode::kUnsupported, "tensors of the type " + name_of_other(gguf_type) +
                                           " are not read; choose a file of the types " + supported);
}

const QuantFormat& quant_format(QuantType type) { return row_of(type).format; }

bool is_finite(QuantType type, std::span<const std::byte> blocks) {
  if (type == QuantType::kMXFP4) return is_finite_mxfp4(blocks);
  if (type == QuantType::kF8_E4M3)
    return std::ranges::none_of(blocks, [](std::byte b) { return (b & std::byte{0x7F}) == std::byte{0x7F}; });
  const Row& row = row_of(type);
  const auto block_bytes = static_cast<size_t>(row.format.block_bytes);
  const size_t float_bytes = type == QuantType::kF32 ? 4 : 2;
  RUNAHEAD_CHECK(blocks.size() % block_bytes == 0, "whole blocks");
  for (const int32_t place : row.floats) {
    if (place < 0) continue;
    for (size_t at = static_cast<size_t>(place); at < blocks.size(); at += block_bytes) {
      uint32_t bits = 0;
      std::memcpy(&bits, blocks.data() + at, float_bytes);
      if ((bits & row.exponent) == row.exponent) return false;
    }
  }
  return true;
}

void dequantize(QuantType type, std::span<const std::byte> blocks, std::span<float> out) {
  const Row& row = row_of(type);
  const auto block_len = static_cast<size_t>(row.format.block_len);
  const auto block_bytes = static_cast<size_t>(row.format.block_bytes);
  const size_t num_blocks = blocks.size() / block_bytes;
  RUNAHEAD_CHECK(blocks.size() == num_blocks * block_bytes && out.size() == num_blocks * block_len,
                 "whole blocks and as many floats as they hold weights");
  const auto* in = reinterpret_cast<const uint8_t*>(blocks.data());
  for (size_t b = 0; b < num_blocks; ++b) row.dequantize(in + b * block_bytes, out.data() + b * block_len);
}

bool is_k_quant(QuantType type) { return quant_format(type).block_len == KQuantBlock::kWeights; }

KQuantBlock read_k_quant(QuantType type, const std::byte* block) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(block);
  switch (type) {
    case QuantType::kQ2_K:
      return read_q2_k(bytes);
    case QuantType::kQ3_K:
      return read_q3_k(bytes);
    case QuantType::kQ4_K:
      return read_q4_k(bytes);
    case QuantType::kQ5_K:
      return read_q5_k(bytes);
    case QuantType::kQ6_K:
      return read_q6_k(bytes);
    case QuantType::kIQ4_XS:
      return read_iq4_xs(bytes);
    default:
      RUNAHEAD_CHECK(false, "not a K-quant");
  }
}

float float8_to_float(uint8_t bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  if (exponent == 15 && fraction == 7) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                        : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return (bits & 0x80) == 0 ? magnitude : -magnitude;
}

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24, exact
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide_exponent << 23 | fraction << 13);
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 1023));  // quiet NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and above round to infinity
  if (magnitude < 0x38800000) {  // below 2^-14: 0.5 + x has a unit in the last place of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000) >> 13);
}

float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // quiet NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace runahead
