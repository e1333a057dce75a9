// The state of the attention of 16 query rows, one a lane, and what makes and reads it.
//   block  16 rows: query [head_dim / kPack, 16, kPack], then scale, row_max, row_sum [16] each, then the sums of the
//          values out [head_dim, 16], fp32
#pragma once

#include <type_traits>

#include "kernels/cpu/attention_formats.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr int kBlockRows = 16;

template <class Mode>
struct BlockLayout {
  explicit BlockLayout(int32_t head_dim)
      : scale(static_cast<size_t>(head_dim) * kBlockRows * sizeof(typename Mode::Scores::Element)),
        row_max(scale + kFieldBytes),
        row_sum(row_max + kFieldBytes),
        out(row_sum + kFieldBytes),
        bytes(out + static_cast<size_t>(head_dim) * kFieldBytes) {}
  static constexpr size_t kFieldBytes = kBlockRows * sizeof(float);
  size_t scale, row_max, row_sum, out, bytes;
};

template <class Mode>
size_t attention_tile_bytes(int32_t rows, int32_t head_dim) {
  const auto blocks = static_cast<size_t>((rows + kBlockRows - 1) / kBlockRows);
  return blocks * BlockLayout<Mode>(head_dim).bytes;
}

template <class Mode>
inline std::byte* block_of(const AttentionTile& tile, int32_t row, const BlockLayout<Mode>& layout) {
  return tile.data + static_cast<size_t>(row / kBlockRows) * layout.bytes;
}

// A field's entry of a row of the first block.
inline float* row_field(const AttentionTile& tile, size_t field, int32_t row) {
  return reinterpret_cast<float*>(tile.data + field) + row;
}

template <class Mode>
void store_query(const float* head, float scale, const AttentionTile& tile, int32_t row) {
  using Element = typename Mode::Scores::Element;
  constexpr int kPack = Mode::Scores::kPack;
  const BlockLayout<Mode> layout(tile.head_dim);
  std::byte* block = block_of(tile, row, layout);
  const int lane = row % kBlockRows;
  Element codes[kHeadDimMax];
  float scaled[kHeadDimMax];
  for (int32_t i = 0; i < tile.head_dim; i += 16) store(scaled + i, mul(load(head + i), set1(scale)));
  const float undo = Mode::encode_query(scaled, tile.head_dim, codes);
  auto* to = reinterpret_cast<Element*>(block) + lane * kPack;
  for (int32_t i = 0; i < tile.head_dim; i += kPack, to += kBlockRows * kPack)
    std::memcpy(to, codes + i, kPack * sizeof(Element));
  reinterpret_cast<float*>(block + layout.scale)[lane] = undo;
}

template <class Mode>
void copy_query(const AttentionTile& from, int32_t from_row, const AttentionTile& to, int32_t to_row) {
  const BlockLayout<Mode> layout(from.head_dim);
  const auto* source = reinterpret_cast<const uint32_t*>(block_of(from, from_row, layout)) + from_row % kBlockRows;
  auto* target = reinterpret_cast<uint32_t*>(block_of(to, to_row, layout)) + to_row % kBlockRows;
  for (size_t at = 0; at < layout.row_max / sizeof(uint32_t); at += kBlockRows) target[at] = source[at];
}

template <class Mode>
void finish_attention(const AttentionTile& tile, int32_t row, float* out) {
  const BlockLayout<Mode> layout(tile.head_dim);
  const std::byte* block = block_of(tile, row, layout);
  const int lane = row % kBlockRows;
  const float scale = 1.0f / reinterpret_cast<const float*>(block + layout.row_sum)[lane];
  const auto* sums = reinterpret_cast<const float*>(block + layout.out) + lane;
  for (int32_t i = 0; i < tile.head_dim; ++i) out[i] = sums[i * kBlockRows] * scale;
}

inline VecF as_float(VecF x) { return x; }
inline VecF as_float(VecI x) { return to_float(x); }
template <class Sum>
inline Sum zero_sum() {
  if constexpr (std::is_same_v<Sum, VecF>) return zero();
  else return zero_int();
}

}  // namespace runahead::RUNAHEAD_ISA
