#include "kernels/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

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
uint16_t offset_of(uint16_t d, float bias) { return float_to_half(-bias * half_to_float(d)); }

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

// MXFP4's scale is a power of two, 2^(byte - 128), which fp16 does not always hold; of a block of zeros it is anything.
bool is_zero_mxfp4(const std::byte* p) {
  const auto is_zero = [](std::byte codes) { return (codes & std::byte{0x77}) == std::byte{0}; };
  return std::all_of(p + 1, p + 17, is_zero);
}
bool scale_fits_mxfp4(const std::byte* p) {
  constexpr int kLeast = 128 - 24, kMost = 128 + 12;  // of d, and of m = -12 * d
  const int power = static_cast<int>(p[0]);
  return (power >= kLeast && power <= kMost) || is_zero_mxfp4(p);
}
uint16_t scale_of_mxfp4(const std::byte* p) {
  return is_zero_mxfp4(p) ? uint16_t{0} : float_to_half(std::ldexp(1.0f, static_cast<int>(p[0]) - 128));
}

void look_up(const std::array<uint8_t, 16>& levels, Block& block) {
  for (uint8_t& code : block.codes) code = levels[code];
}

Block read_block(QuantType type, const std::byte* p) {
  Block block;
  block.d = type == QuantType::kMXFP4 ? scale_of_mxfp4(p) : read_u16(p);
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
      block.m = offset_of(block.d, kIq4Bias);
      read_nibbles(p + 2, block);
      look_up(kIq4Codes, block);
      break;
    case QuantType::kMXFP4:
      block.m = offset_of(block.d, kMxfp4Bias);
      read_nibbles(p + 1, block);
      look_up(kMxfp4Codes, block);
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
      return PanelFormat::kCodes8;
    case QuantType::kIQ4_NL:
      return PanelFormat::kIq4;
    case QuantType::kMXFP4:
      return PanelFormat::kMxfp4;
    case QuantType::kQ4_K:
      return PanelFormat::kCodes4K;
    case QuantType::kIQ4_XS:
      return PanelFormat::kIq4K;
    case QuantType::kQ5_K:
      return PanelFormat::kCodes6K;
    case QuantType::kQ2_K:
    case QuantType::kQ3_K:
    case QuantType::kQ6_K:
      return PanelFormat::kCodes6K16;
    case QuantType::kF16:
      return PanelFormat::kFloat16;
    case QuantType::kBF16:
      return PanelFormat::kBfloat16;
    case QuantType::kF32:
      return PanelFormat::kFloat32;
    case QuantType::kF8_E4M3:
      break;
  }
  RUNAHEAD_CHECK(false, "a tensor format that is not packed");
}

bool is_of_floats(PanelFormat format) { return panel_layout(format).code_bits == 0; }
bool has_levels(PanelFormat format) { return panel_layout(format).levels != nullptr; }

// What the minima of a block are multiplied with: the bias of signed formats is taken off with m = -bias * d, t = s.
float offset_of(const KQuantBlock& block) {
  return block.bias == 0 ? block.m : -static_cast<float>(block.bias) * block.d;
}

bool has_superblocks(PanelFormat format) { return panel_layout(format).blocks > 1; }

size_t weights_of(const RowSource& row) {
  const QuantFormat& format = quant_format(row.type);
  return row.blocks.size() / static_cast<size_t>(format.block_bytes) * static_cast<size_t>(format.block_len);
}

bool scales_fit(QuantType type, const std::byte* block) {
  constexpr float kHalfMax = 65504, kScaleMax = kHalfMax / 128;
  if (type == QuantType::kMXFP4) return scale_fits_mxfp4(block);
  if (is_k_quant(type)) return std::fabs(offset_of(read_k_quant(type, block))) <= kHalfMax;
  return std::fabs(half_to_float(read_u16(block))) <= kScaleMax;
}

// The smallest format that holds a row exactly. Scales that are no fp16, or so large that m = -128 * d is none, do not
// occur in real models; such rows are kept as floats, those of MXFP4, whose weights have two bits, as bf16.
PanelFormat format_of(const RowSource& row) {
  const PanelFormat format = format_of(row.type);
  if (is_of_floats(format)) return format;
  const auto block_bytes = static_cast<size_t>(quant_format(row.type).block_bytes);
  for (size_t at = 0; at < row.blocks.size(); at += block_bytes)
    if (!scales_fit(row.type, row.blocks.data() + at))
      return row.type == QuantType::kMXFP4 ? PanelFormat::kBfloat16 : PanelFormat::kFloat32;
  return format;
}

// The smallest that holds what is of either format. Rows whose scales are organised differently share a panel only as
// floats, and so do codes with floats of 16 bits, but for MXFP4's.
PanelFormat common_format(PanelFormat a, PanelFormat b) {
  const auto [least, most] = std::minmax(a, b);
  if (least == most) return most;
  if (is_of_floats(most))
    return least == PanelFormat::kMxfp4 && most == PanelFormat::kBfloat16 ? most : PanelFormat::kFloat32;
  if (has_superblocks(least) != has_superblocks(most)) return PanelFormat::kFloat32;
  // Levels among codes are bytes, or floats where there are no superblocks of bytes.
  if (!has_levels(least) && !has_levels(most)) return most;
  return has_superblocks(most) ? PanelFormat::kFloat32 : PanelFormat::kCodes8;
}

PanelFormat common_format(std::span<const RowSource> rows) {
  std::optional<PanelFormat> all;
  for (const RowSource& row : rows) {
    if (row.blocks.empty()) continue;
    const PanelFormat format = format_of(row);
    all = all ? common_format(*all, format) : format;
  }
  return all.value_or(PanelFormat::kCodes4);
}

// Where a level stands in its table.
constexpr std::array<uint8_t, 256> places_of(const std::array<uint8_t, 16>& levels) {
  std::array<uint8_t, 256> places{};
  for (size_t i = levels.size(); i-- > 0;) places[levels[i]] = static_cast<uint8_t>(i);
  return places;
}
constexpr std::array<uint8_t, 256> kIq4Places = places_of(kIq4Codes), kMxfp4Places = places_of(kMxfp4Codes);

// The codes of 32 values of k of one output, into the zeroed codes of a block.
void put_codes(const uint8_t* from, const PanelLayout& layout, int32_t output, std::byte* out) {
  auto* codes = reinterpret_cast<uint8_t*>(out);
  std::array<uint8_t, kPanelBlock> places;
  if (layout.levels != nullptr) {
    const std::array<uint8_t, 256>& place_of = layout.levels == &kIq4Codes ? kIq4Places : kMxfp4Places;
    std::transform(from, from + kPanelBlock, places.begin(), [&](uint8_t level) { return place_of[level]; });
    from = places.data();
  }
  if (layout.code_bits == 8) {
    for (int g = 0; g < kGroups; ++g) std::memcpy(codes + (g * kPanelOutputs + output) * 4, from + 4 * g, 4);
    return;
  }
  const int half = output / 16;
  for (int k = 0; k < kPanelBlock; ++k) {
    const int at = output % 16 * 4 + k % 4, g = k / 4;
    codes[g * 64 + at] |= static_cast<uint8_t>((from[k] & 15) << (4 * half));
    if (layout.code_bits == 6)
      codes[kGroups * 64 + g / 2 * 64 + at] |= static_cast<uint8_t>(from[k] >> 4 << (4 * (g % 2) + 2 * half));
  }
}

void put_halves(uint16_t d, uint16_t m, int32_t output, std::byte* out) {
  std::memcpy(out + 2 * output, &d, sizeof(d));
  std::memcpy(out + 2 * (kPanelOutputs + output), &m, sizeof(m));
}

void pack_codes(const RowSource& row, PanelFormat format, int32_t output, std::byte* out) {
  const PanelLayout& layout = panel_layout(format);
  const auto in_bytes = static_cast<size_t>(quant_format(row.type).block_bytes);
  for (size_t at = 0; at < row.blocks.size(); at += in_bytes, out += layout.block_bytes) {
    const Block block = read_block(row.type, row.blocks.data() + at);
    put_halves(block.d, block.m, output, out);
    put_codes(block.codes.data(), layout, output, out + layout.scale_bytes);
  }
}

void pack_superblocks(const RowSource& row, PanelFormat format, int32_t output, std::byte* out) {
  const PanelLayout& layout = panel_layout(format);
  const int32_t group = kPanelBlock / layout.sub_blocks;  // weights of a scale
  const auto in_bytes = static_cast<size_t>(quant_format(row.type).block_bytes);
  for (size_t at = 0; at < row.blocks.size(); at += in_bytes) {
    const KQuantBlock from = read_k_quant(row.type, row.blocks.data() + at);
    put_halves(float_to_half(from.d), float_to_half(offset_of(from)), output, out);  // exact: they come from fp16
    out += layout.shared_bytes;
    for (int32_t k = 0; k < KQuantBlock::kWeights; k += kPanelBlock, out += layout.block_bytes) {
      for (int32_t sub = 0; sub < layout.sub_blocks; ++sub) {
        const auto g = static_cast<size_t>((k + sub * group) / KQuantBlock::kGroup);
        auto* scales = reinterpret_cast<int8_t*>(out) + sub * 2 * kPanelOutputs;
        scales[output] = from.scales[g];
        scales[kPanelOutputs + output] = from.bias == 0 ? from.minima[g] : from.scales[g];
      }
      put_codes(from.codes.data() + k, layout, output, out + layout.scale_bytes);
    }
  }
}

// Where a panel of 16-bit floats has the weight i of an output.
size_t place_of_half(PanelFormat format, size_t i, int32_t output) {
  const auto at = static_cast<size_t>(output);
  if (format == PanelFormat::kFloat16) return i * kPanelOutputs + at;
  return (i / 2 * kPanelOutputs + at) * 2 + i % 2;
}

// Bits of 16-bit floats stay as they are; the weights of MXFP4 are bf16, too.
void pack_halves(const RowSource& row, PanelFormat format, int32_t output, std::vector<float>& values,
                 std::byte* panel) {
  auto* out = reinterpret_cast<uint16_t*>(panel);
  const size_t count = weights_of(row);
  if (format_of(row.type) == format) {
    for (size_t i = 0; i < count; ++i) out[place_of_half(format, i, output)] = read_u16(row.blocks.data() + 2 * i);
    return;
  }
  values.resize(count);
  dequantize(row.type, row.blocks, values);
  for (size_t i = 0; i < count; ++i) out[place_of_half(format, i, output)] = float_to_bf16(values[i]);
}

// `values` is room that is used again.
void pack_row(const RowSource& row, PanelFormat format, int32_t output, std::vector<float>& values, std::byte* panel) {
  if (has_superblocks(format)) return pack_superblocks(row, format, output, panel);
  if (!is_of_floats(format)) return pack_codes(row, format, output, panel);
  if (format != PanelFormat::kFloat32) return pack_halves(row, format, output, values, panel);
  values.resize(weights_of(row));
  dequantize(row.type, row.blocks, values);
  auto* out = reinterpret_cast<float*>(panel);
  for (size_t i = 0; i < values.size(); ++i) out[i * kPanelOutputs + static_cast<size_t>(output)] = values[i];
}

}  // namespace

const PanelLayout& panel_layout(PanelFormat format) { return kPanelLayouts[static_cast<size_t>(format)]; }

size_t panel_bytes(PanelFormat format, int32_t k) {
  const PanelLayout& layout = panel_layout(format);
  const int32_t blocks = k / kPanelBlock;
  return static_cast<size_t>(blocks / layout.blocks) * layout.shared_bytes +
         static_cast<size_t>(blocks) * layout.block_bytes;
}

PackedMatrix::PackedMatrix(std::span<const RowSource> rows, int32_t k) : k_(k) {
  RUNAHEAD_CHECK(k > 0 && k % kPanelBlock == 0, "a packed matrix has whole blocks");
  const size_t num_panels = (rows.size() + kPanelOutputs - 1) / kPanelOutputs;
  const auto rows_of = [&](size_t p) {
    return rows.subspan(p * kPanelOutputs, std::min<size_t>(kPanelOutputs, rows.size() - p * kPanelOutputs));
  };
  std::vector<PanelFormat> formats;
  size_t bytes = 0;
  for (size_t p = 0; p < num_panels; ++p) {
    formats.push_back(common_format(rows_of(p)));
    widest_ = std::max(widest_, formats.back());
    bytes += panel_bytes(formats.back(), k);
  }
  buffer_ = AlignedBuffer(bytes);
  data_ = {buffer_.data(), bytes};
  std::vector<float> values;
  std::byte* at = buffer_.data();
  for (size_t p = 0; p < num_panels; ++p) {
    panels_.push_back({formats[p], at});
    int32_t output = 0;
    for (const RowSource& row : rows_of(p)) {
      RUNAHEAD_CHECK(weights_of(row) <= static_cast<size_t>(k), "a row fits its matrix");
      if (!row.blocks.empty()) pack_row(row, formats[p], output, values, at);
      ++output;
    }
    at += panel_bytes(formats[p], k);
  }
}

PackedMatrix::PackedMatrix(std::span<const PanelFormat> formats, int32_t k, std::span<const std::byte> data)
    : k_(k), data_(data) {
  const std::byte* at = data.data();
  for (const PanelFormat format : formats) {
    panels_.push_back({format, at});
    widest_ = std::max(widest_, format);
    at += panel_bytes(format, k);
  }
  RUNAHEAD_CHECK(at == data.data() + data.size(), "the panels do not fill their bytes");
}

}  // namespace runahead
