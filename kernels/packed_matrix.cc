#include "kernels/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace runahead {
namespace {

constexpr int32_t kGroups = kPanelBlock / 4;  // groups of four values of k: what one int8 dot instruction sums

// The 32 codes of one file block, unsigned, and the scale and offset that turn them into weights.
struct Block {
  uint16_t d = 0, m = 0;  // fp16
  std::array<uint8_t, kPanelBlock> codes{};
};

uint16_t read_u16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

// -bias * d as fp16: exact for the power-of-two biases unless it leaves fp16's range, which pack() checks beforehand.
uint16_t offset_of(uint16_t d, float bias) {
  return float_to_half(-bias * half_to_float(d));
}

void read_nibbles(const std::byte* packed, Block& block) {
  for (int i = 0; i < 16; ++i) {
    block.codes[i] = static_cast<uint8_t>(packed[i]) & 15;
    block.codes[16 + i] = static_cast<uint8_t>(packed[i]) >> 4;
  }
}

void add_fifth_bits(const std::byte* bits, Block& block) {
  uint32_t high;
  std::memcpy(&high, bits, sizeof(high));
  for (int i = 0; i < kPanelBlock; ++i) block.codes[i] |= static_cast<uint8_t>(((high >> i) & 1) << 4);
}

// ggml's fixed table of IQ4_NL, shifted by 128 to be unsigned.
constexpr std::array<uint8_t, 16> kIq4Codes = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

Block read_block(QuantType type, const std::byte* p) {
  Block block;
  block.d = read_u16(p);
  switch (type) {
    case QuantType::kQ4_0:
      block.m = offset_of(block.d, 8);
      read_nibbles(p + 2, block);
      break;
    case QuantType::kQ4_1:
      block.m = read_u16(p + 2);
      read_nibbles(p + 4, block);
      break;
    case QuantType::kQ5_0:
      block.m = offset_of(block.d, 16);
      read_nibbles(p + 6, block);
      add_fifth_bits(p + 2, block);
      break;
    case QuantType::kQ5_1:
      block.m = read_u16(p + 2);
      read_nibbles(p + 8, block);
      add_fifth_bits(p + 4, block);
      break;
    case QuantType::kQ8_0:
      block.m = offset_of(block.d, 128);
      for (int i = 0; i < kPanelBlock; ++i) block.codes[i] = static_cast<uint8_t>(p[2 + i]) ^ 0x80;
      break;
    case QuantType::kIQ4_NL:
      block.m = offset_of(block.d, 128);
      read_nibbles(p + 2, block);
      for (uint8_t& code : block.codes) code = kIq4Codes[code];
      break;
    default:
      RUNAHEAD_CHECK(false, "not a format of codes");
  }
  return block;
}

// The smallest panel format that holds the rows exactly.
PanelFormat format_of(QuantType type) {
  switch (type) {
    case QuantType::kQ4_0:
    case QuantType::kQ4_1:
      return PanelFormat::kCodes4;
    case QuantType::kQ5_0:
    case QuantType::kQ5_1:
    case QuantType::kQ8_0:
    case QuantType::kIQ4_NL:
      return PanelFormat::kCodes8;
    default:
      return PanelFormat::kFloat32;
  }
}

// Scales so large that -128 * d is no fp16 do not occur in real models; such rows are kept as floats.
bool scales_fit(const RowSource& row) {
  if (row.blocks.empty() || format_of(row.type) == PanelFormat::kFloat32) return true;
  constexpr float kScaleMax = 65504.0f / 128;
  const auto block_bytes = static_cast<size_t>(quant_format(row.type).block_bytes);
  for (size_t at = 0; at < row.blocks.size(); at += block_bytes) {
    const float d = half_to_float(read_u16(row.blocks.data() + at));
    if (!(d <= kScaleMax && d >= -kScaleMax)) return false;
  }
  return true;
}

PanelFormat common_format(std::span<const RowSource> rows) {
  PanelFormat widest = PanelFormat::kCodes4;
  for (const RowSource& row : rows) {
    if (row.blocks.empty()) continue;
    const PanelFormat format = scales_fit(row) ? format_of(row.type) : PanelFormat::kFloat32;
    widest = std::max(widest, format);
  }
  return widest;
}

void put_codes(const Block& block, PanelFormat format, int32_t output, std::byte* out) {
  std::memcpy(out + 2 * output, &block.d, sizeof(block.d));
  std::memcpy(out + 2 * (kPanelOutputs + output), &block.m, sizeof(block.m));
  auto* codes = reinterpret_cast<uint8_t*>(out + 4 * kPanelOutputs);
  if (format == PanelFormat::kCodes8) {
    for (int g = 0; g < kGroups; ++g) std::memcpy(codes + (g * kPanelOutputs + output) * 4, &block.codes[4 * g], 4);
    return;
  }
  const int shift = output < 16 ? 0 : 4;
  for (int k = 0; k < kPanelBlock; ++k)
    codes[((k / 4) * 16 + output % 16) * 4 + k % 4] |= static_cast<uint8_t>(block.codes[k] << shift);
}

void pack_codes(const RowSource& row, PanelFormat format, int32_t output, std::byte* panel) {
  const auto in_bytes = static_cast<size_t>(quant_format(row.type).block_bytes);
  const size_t num_blocks = row.blocks.size() / in_bytes;
  for (size_t b = 0; b < num_blocks; ++b)
    put_codes(read_block(row.type, row.blocks.data() + b * in_bytes), format, output,
              panel + b * panel_block_bytes(format));
}

void pack_floats(const RowSource& row, int32_t k, int32_t output, std::vector<float>& values, std::byte* panel) {
  values.resize(static_cast<size_t>(k));
  dequantize(row.type, row.blocks, values);
  auto* out = reinterpret_cast<float*>(panel);
  for (int32_t i = 0; i < k; ++i)
    out[static_cast<size_t>(i) * kPanelOutputs + static_cast<size_t>(output)] = values[static_cast<size_t>(i)];
}

}  // namespace

size_t panel_block_bytes(PanelFormat format) {
  constexpr size_t kScaleBytes = 2 * sizeof(uint16_t) * kPanelOutputs;
  switch (format) {
    case PanelFormat::kCodes4:
      return kScaleBytes + kPanelOutputs * kPanelBlock / 2;
    case PanelFormat::kCodes8:
      return kScaleBytes + kPanelOutputs * kPanelBlock;
    case PanelFormat::kFloat32:
      return sizeof(float) * kPanelOutputs * kPanelBlock;
  }
  return 0;
}

PackedMatrix::PackedMatrix(std::span<const RowSource> rows, int32_t k) : k_(k) {
  RUNAHEAD_CHECK(k > 0 && k % kPanelBlock == 0, "a packed matrix has whole blocks");
  const size_t num_panels = (rows.size() + kPanelOutputs - 1) / kPanelOutputs;
  const auto blocks = static_cast<size_t>(k / kPanelBlock);
  const auto rows_of = [&](size_t p) {
    return rows.subspan(p * kPanelOutputs, std::min<size_t>(kPanelOutputs, rows.size() - p * kPanelOutputs));
  };
  std::vector<PanelFormat> formats;
  size_t bytes = 0;
  for (size_t p = 0; p < num_panels; ++p) {
    formats.push_back(common_format(rows_of(p)));
    widest_ = std::max(widest_, formats.back());
    bytes += blocks * panel_block_bytes(formats.back());
  }
  buffer_ = AlignedBuffer(bytes);
  data_ = {buffer_.data(), bytes};
  std::vector<float> values;
  std::byte* at = buffer_.data();
  for (size_t p = 0; p < num_panels; ++p) {
    panels_.push_back({formats[p], at});
    int32_t output = 0;
    for (const RowSource& row : rows_of(p)) {
      if (!row.blocks.empty()) {
        if (formats[p] == PanelFormat::kFloat32)
          pack_floats(row, k, output, values, at);
        else
          pack_codes(row, formats[p], output, at);
      }
      ++output;
    }
    at += blocks * panel_block_bytes(formats[p]);
  }
}

PackedMatrix::PackedMatrix(std::span<const PanelFormat> formats, int32_t k, std::span<const std::byte> data)
    : k_(k), data_(data) {
  const std::byte* at = data.data();
  for (const PanelFormat format : formats) {
    panels_.push_back({format, at});
    widest_ = std::max(widest_, format);
    at += static_cast<size_t>(k / kPanelBlock) * panel_block_bytes(format);
  }
  RUNAHEAD_CHECK(at == data.data() + data.size(), "the panels do not fill their bytes");
}

}  // namespace runahead
