// Shared by the tests of the op table: random operands, and "for every table that this machine runs".
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/ops.h"
#include "kernels/thread_team.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {

// A matrix of random blocks and its packed form.
struct TestMatrix {
  TestMatrix(uint64_t seed, QuantType format, int32_t n, int32_t k) : type(format), rows(n), cols(k) {
    bytes = RandomWeights(seed).blocks(type, static_cast<size_t>(n) * static_cast<size_t>(k), 1.0f);
    const QuantMatrixView view{type, n, k, bytes.data()};
    std::vector<RowSource> sources;
    for (int32_t r = 0; r < n; ++r) sources.push_back({type, view.row(r)});
    packed = PackedMatrix(sources, k);
    weights.resize(static_cast<size_t>(n) * static_cast<size_t>(k));
    dequantize(type, bytes, weights);
  }
  QuantType type;
  int32_t rows, cols;
  std::vector<std::byte> bytes;
  std::vector<float> weights;  // [rows, cols]
  PackedMatrix packed;
};

inline std::vector<float> random_floats(uint64_t seed, size_t count, float scale = 1.0f) {
  RandomWeights random(seed);
  std::vector<float> values(count);
  for (float& v : values) v = random.uniform() * scale;
  return values;
}

inline std::vector<std::byte> pack_rows(const OpTable& ops, const std::vector<float>& x, const Operand& operand) {
  std::vector<std::byte> packed(static_cast<size_t>(operand.rows) * ops.row_bytes(operand.k));
  for (int32_t r = 0; r < operand.rows; ++r)
    ops.pack_row(x.data() + static_cast<size_t>(r) * static_cast<size_t>(operand.k), operand,
                 packed.data() + static_cast<size_t>(r) * ops.row_bytes(operand.k));
  return packed;
}

// fp32 sums of a few hundred products differ from sums in double by about 1e-6 of their size.
inline void expect_close(const std::vector<float>& got, const std::vector<float>& want, float tolerance,
                         const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], want[i], tolerance * (1 + std::fabs(want[i]))) << what << ", index " << i;
}

class EveryOpTable : public ::testing::TestWithParam<const OpTable*> {
 protected:
  const OpTable& ops() const { return *GetParam(); }
  const OpTable& reference() const { return reference_ops(ops().mode); }

 private:
  FlushDenormals flush_;
};

inline std::string table_name(const ::testing::TestParamInfo<const OpTable*>& info) {
  return std::string(info.param->isa) + "_" + std::string(name(info.param->mode));
}

}  // namespace runahead::test
