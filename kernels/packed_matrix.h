// PackedMatrix: the weights of one product, laid out once at load in panels of 32 outputs, as small as in the file. The
// kernels read a panel front to back and widen it once for all rows of a call (kernels/cpu/unpack.h).
//   layout  the same for every compute mode and instruction set. A panel is k / 32 blocks; a block holds, for
//           32 outputs x 32 values of k:
//             kCodes4     d [32] fp16, m [32] fp16, codes [8, 16, 4]: byte (g, j, i) holds the code of output j,
//                         k = 4g + i in its low half, and of output 16 + j in its high half: 640 B
//             kCodes8     d [32] fp16, m [32] fp16, codes [8, 32, 4]: 1,152 B
//             kIq4, kMxfp4  as kCodes4, but each code is a place in a table of levels (kernels/quant_blocks.h): 640 B
//             kFloat16    [32 values of k, 32 outputs] fp16: 2,048 B
//             kBfloat16   [16 pairs of k, 32 outputs, 2] bf16, as the products in bf16 read them: 2,048 B
//             kFloat32    [32 values of k, 32 outputs]: 4,096 B
//           weight = d * code + m, codes unsigned, exactly as the file format defines it (signed formats: m = -bias *
//           d). K-quants come as superblocks of 8 blocks, which share d [32] fp16, m [32] fp16 before them:
//             kCodes4K    s [32] int8, t [32] int8, codes as kCodes4: 592 B with a block's share of d and m
//             kIq4K       the same with places in a table: 592 B
//             kCodes6K    s, t, the low halves of the codes as kCodes4, then their two high bits [4, 16, 4]: byte (h, j, i)
//                         holds those of outputs j and 16 + j for k = 8h + i, then for k = 8h + 4 + i: 848 B
//             kCodes6K16  s [32], t [32] for k 0..15, the same for k 16..31, codes as kCodes6K: 912 B
//           weight = d * s * code + m * t
//   owner   the matrix owns its panels, or it is a view of panels that were packed before (model/weights/packed_cache).
//   threads constant after construction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "kernels/quant_blocks.h"

namespace runahead {

inline constexpr int32_t kPanelOutputs = 32;  // two vectors of 16: the width of the register tile
inline constexpr int32_t kPanelBlock = 32;  // values of k that share a scale: the block length of GGUF's simple formats

enum class PanelFormat : uint8_t {
  kCodes4,
  kCodes4K,
  kIq4,
  kIq4K,
  kMxfp4,
  kCodes8,
  kCodes6K,
  kCodes6K16,
  kFloat16,
  kBfloat16,
  kFloat32
};
inline constexpr PanelFormat kLastPanelFormat = PanelFormat::kFloat32;

struct PanelLayout {
  int32_t code_bits = 0;  // 0: floats
  int32_t blocks = 1;  // of a superblock
  int32_t sub_blocks = 1;  // of a block: parts of k with scales of their own
  size_t shared_bytes = 0;  // before the blocks of a superblock
  size_t scale_bytes = 0;  // of a block, before its codes
  size_t block_bytes = 0;  // scales and codes
  const std::array<uint8_t, 16>* levels = nullptr;  // codes are places in it
};
inline constexpr PanelLayout kPanelLayouts[] = {
    {4, 1, 1, 0, 128, 640},  // kCodes4
    {4, 8, 1, 128, 64, 576},  // kCodes4K
    {4, 1, 1, 0, 128, 640, &kIq4Codes},  // kIq4
    {4, 8, 1, 128, 64, 576, &kIq4Codes},  // kIq4K
    {4, 1, 1, 0, 128, 640, &kMxfp4Codes},  // kMxfp4
    {8, 1, 1, 0, 128, 1152},  // kCodes8
    {6, 8, 1, 128, 64, 832},  // kCodes6K
    {6, 8, 2, 128, 128, 896},  // kCodes6K16
    {0, 1, 1, 0, 0, 2048},  // kFloat16
    {0, 1, 1, 0, 0, 2048},  // kBfloat16
    {0, 1, 1, 0, 0, 4096},  // kFloat32
};
const PanelLayout& panel_layout(PanelFormat format);
size_t panel_bytes(PanelFormat format, int32_t k);
// Grows when the bytes of a panel change meaning, or which rows stand in it (model/weights/weights.cc).
inline constexpr uint32_t kPackedLayoutVersion = 3;

struct Panel {
  PanelFormat format = PanelFormat::kFloat32;
  const std::byte* data = nullptr;  // of k / 32 blocks, 64-byte aligned
};

// One output row as it lies in the file.
struct RowSource {
  QuantType type = QuantType::kF32;
  std::span<const std::byte> blocks;  // up to k weights; the rest, and all of an empty row, is zero (padding)
};

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Rows in output order; k is a multiple of kPanelBlock. The number of outputs is rounded up to a whole panel with
  // zeros.
  PackedMatrix(std::span<const RowSource> rows, int32_t k);
  // Panels that lie one after the other in `data`, which outlives the matrix, is 64-byte aligned and holds as many
  // bytes as the formats say.
  PackedMatrix(std::span<const PanelFormat> formats, int32_t k, std::span<const std::byte> data);

  int32_t k() const { return k_; }
  int32_t num_panels() const { return static_cast<int32_t>(panels_.size()); }
  const Panel* panels() const { return panels_.data(); }
  PanelFormat widest() const { return widest_; }  // format of its panels, in the order of the enum
  std::span<const std::byte> data() const { return data_; }
  size_t bytes() const { return data_.size(); }

 private:
  int32_t k_ = 0;
  PanelFormat widest_ = PanelFormat::kCodes4;
  AlignedBuffer buffer_;  // empty if the panels are someone else's
  std::span<const std::byte> data_;
  std::vector<Panel> panels_;
};

}  // namespace runahead
