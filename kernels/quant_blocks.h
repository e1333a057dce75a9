// GGUF's tensor formats: blocks of quantised weights and their exact meaning. Dequantisation is bit-exact against the
// reference implementation of the PyPI package `gguf` (tests/kernels). Layouts: ggml-common.h.
//   threads  pure functions on views.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace runahead {

// The values are GGUF's own type numbers.
enum class QuantType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39,
  kF8_E4M3 = 0x10000,  // no number of GGUF's: of folders of Hugging Face's, decoded before it is packed
};

struct QuantFormat {
  std::string_view name;    // "Q4_1"
  int32_t block_len = 0;    // weights a block: 1, 32 or 256
  int32_t block_bytes = 0;
};

// kUnsupported for a type that we do not read: names it (its number, if ggml has no such type) and those that we read.
Result<QuantFormat> quant_format(uint32_t gguf_type);
const QuantFormat& quant_format(QuantType type);

// ggml's tables of the levels that codes of 4 bits stand for, shifted by a bias to be unsigned. MXFP4's are OCP's, doubled.
inline constexpr std::array<uint8_t, 16> kIq4Codes = {1,   24,  45,  63,  79,  93,  106, 118,
                                                      129, 141, 153, 166, 181, 197, 217, 241};
inline constexpr std::array<uint8_t, 16> kMxfp4Codes = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
inline constexpr int32_t kIq4Bias = 128, kMxfp4Bias = 12;

// A weight matrix as it lies in the file. out = W x: rows are output features.
struct QuantMatrixView {
  QuantType type = QuantType::kF32;
  int64_t rows = 0;  // N
  int64_t cols = 0;  // K, a multiple of block_len
  const std::byte* data = nullptr;  // [rows, cols / block_len] blocks

  size_t row_bytes() const {
    const QuantFormat& f = quant_format(type);
    return static_cast<size_t>(cols / f.block_len) * static_cast<size_t>(f.block_bytes);
  }
  std::span<const std::byte> row(int64_t r) const { return {data + static_cast<size_t>(r) * row_bytes(), row_bytes()}; }
};

// blocks: a whole number of blocks; out.size() == number of weights in them.
void dequantize(QuantType type, std::span<const std::byte> blocks, std::span<float> out);

// Whether every weight is a number: no NaN or infinity, be it a weight itself or the scale of a block.
bool is_finite(QuantType type, std::span<const std::byte> blocks);

// The 256 weights of a block of Q2_K to Q6_K or IQ4_XS, exactly: d * scales[i / 16] * (codes[i] - bias) + m * minima[i / 16].
// A format has a bias or minima; those with a scale for 32 weights have each twice.
struct KQuantBlock {
  static constexpr int kWeights = 256, kGroup = 16;
  float d = 0, m = 0;  // fp16 values
  int32_t bias = 0;
  std::array<int8_t, kWeights / kGroup> scales{}, minima{};
  std::array<uint8_t, kWeights> codes{};
};
bool is_k_quant(QuantType type);
KQuantBlock read_k_quant(QuantType type, const std::byte* block);

float float8_to_float(uint8_t bits);  // E4M3 without infinities ("fn"); exact
float half_to_float(uint16_t bits);
uint16_t float_to_half(float value);  // round to nearest even
float bf16_to_float(uint16_t bits);
uint16_t float_to_bf16(float value);  // round to nearest even

}  // namespace runahead
