#include "model/weights/decoded_matrix.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace runahead {
namespace {

// One for each block of rows and columns, the last ones of which may be smaller.
struct Scales {
  std::vector<float> values;  // [block rows, block columns]
  int64_t rows = 1, cols = 1;  // of a block
  int64_t cols_of_blocks = 1;
};

int64_t blocks_in(int64_t size, int64_t block) { return (size + block - 1) / block; }

Result<Scales> scales_of(const Gguf& file, const std::string& name, const QuantMatrixView& m) {
  constexpr const char* kBlock = "runahead.float8.block";
  const QuantMatrixView s = TRY(file.matrix(name));
  const auto bad = [&](const std::string& what) {
    return fail(ErrorCode::kInvalidModel,
                "the scales " + runahead::quoted(name) + " " + what + "; download the model again");
  };
  Scales scales{.rows = m.rows, .cols = m.cols};
  if (file.has(kBlock)) {
    const std::vector<int32_t> block = TRY(file.i32s(kBlock));
    if (block.size() != 2 || block[0] < 1 || block[1] < 1) return bad("have blocks that are none");
    scales.rows = block[0], scales.cols = block[1];
  } else if (s.rows == m.rows) {
    scales.rows = 1;
  }
  scales.cols_of_blocks = blocks_in(m.cols, scales.cols);
  if (s.rows != blocks_in(m.rows, scales.rows) || s.cols != scales.cols_of_blocks)
    return bad("are [" + std::to_string(s.rows) + ", " + std::to_string(s.cols) +
               "], which is no scale for each block of [" + std::to_string(m.rows) + ", " + std::to_string(m.cols) +
               "]");
  const std::span<const std::byte> bytes(s.data, s.row_bytes() * static_cast<size_t>(s.rows));
  if (!is_finite(s.type, bytes)) return bad("hold some that are no numbers");
  scales.values.resize(static_cast<size_t>(s.rows * s.cols));
  dequantize(s.type, bytes, scales.values);
  return scales;
}

// What each of the 256 codes stands for with this scale.
std::array<uint16_t, 256> levels_of(float scale) {
  std::array<uint16_t, 256> levels;
  for (size_t code = 0; code < levels.size(); ++code)
    levels[code] = float_to_bf16(float8_to_float(static_cast<uint8_t>(code)) * scale);
  return levels;
}

}  // namespace

Result<QuantMatrixView> packable_matrix(const Gguf& file, const std::string& name, DecodedBytes& decoded) {
  const QuantMatrixView m = TRY(file.matrix(name));
  if (m.type != QuantType::kF8_E4M3) return m;
  const Scales scales = TRY(scales_of(file, name + "_scale", m));
  std::vector<std::byte>& bytes = decoded.emplace_back(static_cast<size_t>(m.rows * m.cols) * sizeof(uint16_t));
  std::vector<uint16_t> part;
  for (size_t block = 0; block < scales.values.size(); ++block) {
    const int64_t top = static_cast<int64_t>(block) / scales.cols_of_blocks * scales.rows;
    const int64_t left = static_cast<int64_t>(block) % scales.cols_of_blocks * scales.cols;
    const int64_t bottom = std::min(m.rows, top + scales.rows);
    part.resize(static_cast<size_t>(std::min(m.cols - left, scales.cols)));
    const std::array<uint16_t, 256> levels = levels_of(scales.values[block]);
    for (int64_t row = top; row < bottom; ++row) {
      const std::byte* codes = m.row(row).data() + left;
      for (size_t i = 0; i < part.size(); ++i) part[i] = levels[static_cast<uint8_t>(codes[i])];
      std::memcpy(bytes.data() + static_cast<size_t>(row * m.cols + left) * sizeof(uint16_t), part.data(),
                  part.size() * sizeof(uint16_t));
    }
  }
  return QuantMatrixView{.type = QuantType::kBF16, .rows = m.rows, .cols = m.cols, .data = bytes.data()};
}

}  // namespace runahead
