#include <bit>

#include "tests/kernels/op_cases.h"

namespace runahead::test {
namespace {

class Gemm : public EveryOpTable {
 protected:
  std::vector<float> run(const OpTable& table, const TestMatrix& m, const std::vector<float>& x, int32_t rows,
                         Epilogue epilogue, int32_t panel_begin, int32_t panel_end) const {
    const Operand operand{m.cols, rows, m.packed.widest()};
    const std::vector<std::byte> packed = pack_rows(table, x, operand);
    const size_t width = static_cast<size_t>(m.packed.num_panels()) * (is_gated(epilogue) ? 16 : 32);
    std::vector<float> out = random_floats(99, static_cast<size_t>(rows) * width);  // kAdd starts from something
    AlignedBuffer scratch(table.panel_scratch_bytes(m.cols));
    table.gemm({.a = packed.data(),
                .operand = operand,
                .panels = m.packed.panels(),
                .panel_begin = panel_begin,
                .panel_end = panel_end,
                .epilogue = epilogue,
                .out = out.data(),
                .out_stride = width,
                .scratch = scratch.data()});
    return out;
  }
};

constexpr QuantType kTypes[] = {QuantType::kQ4_0, QuantType::kQ4_1,   QuantType::kQ5_0, QuantType::kQ5_1,
                                QuantType::kQ8_0, QuantType::kIQ4_NL, QuantType::kQ2_K, QuantType::kQ3_K,
                                QuantType::kQ4_K, QuantType::kQ5_K,   QuantType::kQ6_K, QuantType::kF32,
                                QuantType::kF16,  QuantType::kBF16};

// K-quants come in 256 values; `k` for the others.
int32_t depth_of(QuantType type, int32_t k) { return is_k_quant(type) ? (k + 255) / 256 * 256 : k; }

TEST_P(Gemm, AgreesWithTheReferenceForEveryFormatAndRowCount) {
  for (QuantType type : kTypes) {
    const int32_t k = depth_of(type, 96);
    const TestMatrix m(7, type, 70, k);  // 70: the last panel is partly padding
    for (int32_t rows : {1, 2, 3, 5, 11, 12, 13, 23, 30}) {
      const std::vector<float> x =
          random_floats(static_cast<uint64_t>(rows), static_cast<size_t>(rows) * static_cast<size_t>(k));
      // int16 rounds weights that come as floats to 12 bits; everything else is exact but for the order of sums.
      const bool rounds = ops().mode == ComputeMode::kInt16 && m.packed.panels()->format == PanelFormat::kFloat32;
      for (Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluMul, Epilogue::kGeluMul})
        expect_close(run(ops(), m, x, rows, epilogue, 0, 3), run(reference(), m, x, rows, epilogue, 0, 3),
                     rounds ? 2e-2f : 1e-4f,
                     std::string(quant_format(type).name) + " with " + std::to_string(rows) + " rows");
    }
  }
}

TEST_P(Gemm, TouchesOnlyItsPanels) {
  const TestMatrix m(3, QuantType::kQ4_1, 128, 64);
  const std::vector<float> x = random_floats(4, 5 * 64);
  const std::vector<float> all = run(ops(), m, x, 5, Epilogue::kStore, 0, 4),
                           part = run(ops(), m, x, 5, Epilogue::kStore, 1, 3);
  const std::vector<float> untouched = random_floats(99, 5 * 128);
  for (size_t i = 0; i < part.size(); ++i) {
    const bool inside = i % 128 >= 32 && i % 128 < 96;
    ASSERT_EQ(part[i], inside ? all[i] : untouched[i]) << i;
  }
}

TEST_P(Gemm, ARowDoesNotDependOnItsMates) {
  const TestMatrix m(5, QuantType::kQ8_0, 64, 160);
  const std::vector<float> x = random_floats(6, 40 * 160);
  const std::vector<float> all = run(ops(), m, x, 40, Epilogue::kStore, 0, 2);
  for (int32_t begin = 0; begin < 40; ++begin) {
    for (int32_t rows : {1, 7, 12, 40 - begin}) {
      if (begin + rows > 40) continue;
      const std::vector<float> some(x.begin() + begin * 160, x.begin() + (begin + rows) * 160);
      const std::vector<float> got = run(ops(), m, some, rows, Epilogue::kStore, 0, 2);
      ASSERT_EQ(0, std::memcmp(got.data(), all.data() + begin * 64, got.size() * sizeof(float)))
          << begin << " " << rows;
    }
  }
}

// Rows of which some blocks stand out, all of one size, all zero but one value, and all zero: in int8 each takes
// another path, and a tile holds several.
std::vector<float> uneven_rows(int32_t rows, int32_t k) {
  std::vector<float> x = random_floats(17, static_cast<size_t>(rows) * static_cast<size_t>(k));
  for (int32_t r = 0; r < rows; ++r) {
    float* row = x.data() + static_cast<size_t>(r) * static_cast<size_t>(k);
    if (r % 5 == 1) row[(r * 37) % k] = 300;
    if (r % 5 == 2)
      for (int32_t i = 0; i < k; i += 32) row[i] = i % 64 == 0 ? -7.0f : 2.0f;
    if (r % 5 >= 3) std::fill_n(row, k, 0.0f);
    if (r % 5 == 4) row[(r * 11) % k] = 1e-3f;
  }
  return x;
}

// Activations far outside what models have: as small as they come, and too large for int8's scales, which saturate.
TEST_P(Gemm, ExtremeActivationsAgreeWithTheReferenceInEveryPathAndStayFinite) {
  const TestMatrix m(22, QuantType::kQ4_1, 64, 96);
  for (float size : {1e-30f, 1e-12f, 1e12f, 1e17f}) {
    const std::vector<float> x = random_floats(18, 40 * 96, size);
    const std::vector<float> all = run(ops(), m, x, 40, Epilogue::kStore, 0, 2);
    for (float y : all) ASSERT_TRUE(std::isfinite(y)) << size;
    if (ops().mode == ComputeMode::kInt8) {
      const std::vector<float> want = run(reference(), m, x, 40, Epilogue::kStore, 0, 2);
      for (size_t i = 0; i < all.size(); ++i) ASSERT_NEAR(all[i], want[i], 1e-4f * (size + std::fabs(want[i]))) << size;
    }
    for (int32_t rows : {1, 4, 5, 31}) {
      const std::vector<float> got = run(ops(), m, x, rows, Epilogue::kStore, 0, 2);
      ASSERT_EQ(0, std::memcmp(got.data(), all.data(), got.size() * sizeof(float))) << size << ", " << rows << " rows";
    }
  }
}

TEST_P(Gemm, UnevenRowsAgreeWithTheReferenceAndDoNotDependOnTheirMates) {
  for (int32_t depth : {32, 96, 1056}) {  // 1056: more than a span of blocks
    for (QuantType type :
         {QuantType::kQ4_1, QuantType::kQ5_1, QuantType::kQ8_0, QuantType::kQ4_K, QuantType::kQ5_K, QuantType::kQ6_K}) {
      const int32_t k = depth_of(type, depth);
      const TestMatrix m(21, type, 64, k);
      const std::vector<float> x = uneven_rows(40, k);
      const std::vector<float> all = run(ops(), m, x, 40, Epilogue::kStore, 0, 2);
      if (ops().mode != ComputeMode::kBf16)  // whose sums of large products round differently
        expect_close(all, run(reference(), m, x, 40, Epilogue::kStore, 0, 2), 2e-4f, "uneven rows");
      for (int32_t rows = 1; rows <= 40; rows += depth == 96 ? 1 : 13) {  // few rows take their codes from other places
        const std::vector<float> some(x.end() - rows * k, x.end());
        const std::vector<float> got = run(ops(), m, some, rows, Epilogue::kStore, 0, 2);
        ASSERT_EQ(0, std::memcmp(got.data(), all.data() + (40 - rows) * 64, got.size() * sizeof(float)))
            << rows << " rows, k " << k;
      }
    }
  }
}

// More rows than a group, more panels than a group, more blocks than a span, and none of them whole groups.
TEST_P(Gemm, ManyRowsPanelsAndBlocksGiveTheSameBitsAsFew) {
  constexpr int32_t kRows = 300, kOutputs = 192;
  for (QuantType type : {QuantType::kQ4_1, QuantType::kQ8_0, QuantType::kQ4_K, QuantType::kQ6_K}) {
    const int32_t k = depth_of(type, 1184);
    const TestMatrix m(24, type, kOutputs, k);
    const std::vector<float> x = uneven_rows(kRows, k);
    const std::vector<float> all = run(ops(), m, x, kRows, Epilogue::kStore, 0, 6);
    for (int32_t begin : {0, 7, 263, 264, 297}) {
      const std::vector<float> some(x.begin() + begin * k, x.begin() + (begin + 3) * k);
      const std::vector<float> got = run(ops(), m, some, 3, Epilogue::kStore, 0, 6);
      ASSERT_EQ(0, std::memcmp(got.data(), all.data() + begin * kOutputs, got.size() * sizeof(float)))
          << quant_format(type).name << ", row " << begin;
    }
    const std::vector<float> last(x.end() - k, x.end());
    if (ops().mode != ComputeMode::kBf16)  // whose sums of large products round differently
      expect_close({all.end() - kOutputs, all.end()}, run(reference(), m, last, 1, Epilogue::kStore, 0, 6), 2e-4f,
                   "the last row");
  }
}

// A product of codes of 4 bits takes rotated activations: a value that stands out costs its block about a
// quarter of the precision that it costs unrotated (0.8 a step), and few rows are the same numbers, rotated back.
TEST(Int8, RotatesWhatMeetsCodesOfFourBits) {
  const FlushDenormals flush;
  const OpTable& ops = **select_ops(ComputeMode::kInt8);
  const int32_t k = 96;
  std::vector<float> x = random_floats(23, 5 * 96);  // the first of five rows is looked at
  x[40] = 100;
  const std::vector<std::byte> row = pack_rows(ops, x, {k, 5, PanelFormat::kCodes4}),
                               few = pack_rows(ops, x, {k, 4, PanelFormat::kCodes4});
  const auto* codes = reinterpret_cast<const int8_t*>(row.data());
  const auto* planes = reinterpret_cast<const int8_t*>(few.data());
  const auto* powers = reinterpret_cast<const int32_t*>(row.data() + 2 * k);  // in units of 2^-50, as float exponents
  const int32_t* quarters = powers + 3 * (k / 32);
  for (int32_t i = 0; i < k; ++i) {
    const int32_t block = i / 32;
    const float scale = std::ldexp(1 + static_cast<float>(quarters[block]) / 4, (powers[block] >> 23) - 50 - 4);
    int32_t back = 0;
    for (int32_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j)
      if ((i & 2) == (j & 2)) back += (std::popcount(static_cast<uint32_t>(i & j & 0b11101)) % 2 ? -1 : 1) * codes[j];
    ASSERT_EQ(16 * planes[i] + planes[k + i], back) << i;
    ASSERT_NEAR(static_cast<float>(back) * scale, x[static_cast<size_t>(i)], i / 32 == 1 ? 0.2f : 0.012f) << i;
  }
}

// Of a block that stands out, int8 keeps 15 bits where it does not rotate; of the others 7 of their own block's largest.
TEST(Int8, RoundsEachBlockByItsOwnSize) {
  const FlushDenormals flush;
  const OpTable& ops = **select_ops(ComputeMode::kInt8);
  const int32_t k = 1056;
  std::vector<float> x = random_floats(23, static_cast<size_t>(k));
  for (int32_t i = 0; i < 32; ++i) x[static_cast<size_t>(64 + i)] *= 200;
  const std::vector<std::byte> row = pack_rows(ops, x, {k, 1, PanelFormat::kCodes8});
  const auto* planes = reinterpret_cast<const int8_t*>(row.data());
  const auto* scales = reinterpret_cast<const float*>(row.data() + 2 * k);
  for (int32_t b = 0; b < k / 32; ++b) {
    float top = 0;
    for (int32_t i = b * 32; i < b * 32 + 32; ++i) top = std::max(top, std::fabs(x[static_cast<size_t>(i)]));
    for (int32_t i = b * 32; i < b * 32 + 32; ++i) {
      const float back = (static_cast<float>(planes[i]) + static_cast<float>(planes[k + i]) / 256) * scales[b];
      ASSERT_NEAR(back, x[static_cast<size_t>(i)], top * (b == 2 ? 1.6e-5f : 4e-3f)) << i;
    }
  }
}

TEST_P(Gemm, EveryInstructionSetGivesTheSameBits) {
  for (QuantType type : {QuantType::kQ4_1, QuantType::kQ8_0, QuantType::kQ4_K, QuantType::kQ6_K}) {
    const int32_t k = depth_of(type, 576);
    const TestMatrix m(8, type, 64, k);
    const std::vector<float> x = uneven_rows(13, k);
    for (const OpTable* other : runnable_ops()) {
      if (other->mode != ops().mode) continue;
      for (Epilogue epilogue : {Epilogue::kStore, Epilogue::kSiluMul})
        for (int32_t rows : {3, 13}) {
          const std::vector<float> a = run(ops(), m, x, rows, epilogue, 0, 2),
                                   b = run(*other, m, x, rows, epilogue, 0, 2);
          ASSERT_EQ(0, std::memcmp(a.data(), b.data(), a.size() * sizeof(float)))
              << ops().isa << " and " << other->isa << ", " << rows << " rows of " << quant_format(type).name;
        }
    }
  }
}

// Q, K and V of one product often have different formats: each of the two panels has its own.
TEST_P(Gemm, PanelsOfSeveralFormatsAgreeWithTheReference) {
  constexpr std::pair<QuantType, QuantType> kPairs[] = {{QuantType::kQ4_1, QuantType::kQ8_0},
                                                        {QuantType::kQ4_K, QuantType::kQ6_K},
                                                        {QuantType::kQ4_K, QuantType::kQ4_0},
                                                        {QuantType::kQ5_K, QuantType::kQ4_1}};
  constexpr int32_t kDepth = 256;
  for (const auto& [first, second] : kPairs) {
    const TestMatrix a(31, first, 32, kDepth), b(32, second, 32, kDepth);
    TestMatrix both(33, first, 64, kDepth);
    std::vector<RowSource> rows;
    for (const auto& [m, type] : {std::pair(&a, first), std::pair(&b, second)})
      for (int r = 0; r < 32; ++r) rows.push_back({type, QuantMatrixView{type, 32, kDepth, m->bytes.data()}.row(r)});
    both.packed = PackedMatrix(rows, kDepth);
    ASSERT_EQ(both.packed.panels()[0].format, a.packed.widest());
    ASSERT_EQ(both.packed.panels()[1].format, b.packed.widest());
    const std::vector<float> x = uneven_rows(40, kDepth);
    const std::vector<float> all = run(ops(), both, x, 40, Epilogue::kStore, 0, 2);
    if (ops().mode != ComputeMode::kBf16)
      expect_close(all, run(reference(), both, x, 40, Epilogue::kStore, 0, 2), 2e-4f, "panels of two formats");
    for (int32_t count : {1, 4, 5, 31}) {
      const std::vector<float> got = run(ops(), both, x, count, Epilogue::kStore, 0, 2);
      ASSERT_EQ(0, std::memcmp(got.data(), all.data(), got.size() * sizeof(float)))
          << count << " rows of " << quant_format(first).name << " and " << quant_format(second).name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Gemm, ::testing::ValuesIn(runnable_ops().begin(), runnable_ops().end()), table_name);

// A unit vector picks one column of the weights: the fp32 product must give back the file's numbers, bit by bit.
TEST(PackedMatrix, HoldsTheWeightsOfTheFileExactly) {
  const FlushDenormals flush;
  const OpTable& ops = **select_ops(ComputeMode::kFp32);
  for (QuantType type : kTypes) {
    const int32_t depth = depth_of(type, 64);
    const TestMatrix m(11, type, 50, depth);
    AlignedBuffer scratch(ops.panel_scratch_bytes(depth));
    for (int32_t k = 0; k < depth; ++k) {
      std::vector<float> unit(static_cast<size_t>(depth)), out(64);
      unit[static_cast<size_t>(k)] = 1;
      const Operand operand{depth, 1, m.packed.widest()};
      const std::vector<std::byte> packed = pack_rows(ops, unit, operand);
      ops.gemm({.a = packed.data(),
                .operand = operand,
                .panels = m.packed.panels(),
                .panel_end = 2,
                .out = out.data(),
                .out_stride = 64,
                .scratch = scratch.data()});
      for (int32_t n = 0; n < 50; ++n)
        ASSERT_EQ(out[static_cast<size_t>(n)], m.weights[static_cast<size_t>(n * depth + k)])
            << quant_format(type).name << " " << n << " " << k;
      for (int32_t n = 50; n < 64; ++n) ASSERT_EQ(out[static_cast<size_t>(n)], 0.0f) << "padding";
    }
  }
}

// As small as the file's: a panel format that holds floats would run every K-quant, and no test of numbers would tell.
TEST(PackedMatrix, KeepsCodesAsCodes) {
  const auto bits = [](QuantType type) {
    const TestMatrix m(12, type, 64, 256);
    return 8.0 * static_cast<double>(m.packed.bytes()) / (64 * 256);
  };
  for (QuantType type : {QuantType::kQ4_0, QuantType::kQ4_1}) EXPECT_EQ(bits(type), 5.0) << quant_format(type).name;
  EXPECT_EQ(bits(QuantType::kQ4_K), 4.625);
  EXPECT_EQ(bits(QuantType::kQ5_K), 6.625);
  EXPECT_EQ(bits(QuantType::kQ8_0), 9.0);
  for (QuantType type : {QuantType::kQ2_K, QuantType::kQ3_K, QuantType::kQ6_K})
    EXPECT_EQ(bits(type), 7.125) << quant_format(type).name;
}

TEST(PackedMatrix, MixesFormatsInOnePanel) {
  const FlushDenormals flush;
  const TestMatrix a(1, QuantType::kQ4_1, 16, 32), b(2, QuantType::kF16, 16, 32);
  std::vector<RowSource> rows;
  for (int r = 0; r < 16; ++r)
    rows.push_back({QuantType::kQ4_1, QuantMatrixView{QuantType::kQ4_1, 16, 32, a.bytes.data()}.row(r)});
  for (int r = 0; r < 16; ++r)
    rows.push_back({QuantType::kF16, QuantMatrixView{QuantType::kF16, 16, 32, b.bytes.data()}.row(r)});
  const PackedMatrix packed(rows, 32);
  ASSERT_EQ(packed.num_panels(), 1);
  ASSERT_EQ(packed.panels()[0].format, PanelFormat::kFloat32);
  const OpTable& ops = **select_ops(ComputeMode::kFp32);
  AlignedBuffer scratch(ops.panel_scratch_bytes(32));
  std::vector<float> unit(32), out(32);
  unit[9] = 1;
  const Operand operand{32, 1, packed.widest()};
  const std::vector<std::byte> row = pack_rows(ops, unit, operand);
  ops.gemm({.a = row.data(),
            .operand = operand,
            .panels = packed.panels(),
            .panel_end = 1,
            .out = out.data(),
            .out_stride = 32,
            .scratch = scratch.data()});
  for (size_t n = 0; n < 16; ++n) {
    EXPECT_EQ(out[n], a.weights[n * 32 + 9]);
    EXPECT_EQ(out[16 + n], b.weights[n * 32 + 9]);
  }
}

TEST(SelectOps, ChoosesOneTableForEveryModeAndNamesThemAll) {
  for (ComputeMode mode : {ComputeMode::kFp32, ComputeMode::kBf16, ComputeMode::kInt16, ComputeMode::kInt8}) {
    ASSERT_TRUE(select_ops(mode).has_value());
    EXPECT_EQ((*select_ops(mode))->mode, mode);
    EXPECT_EQ(*parse_compute_mode(name(mode)), mode);
  }
  const auto missing = parse_compute_mode("int4");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(missing.error().message.find("int8"), std::string::npos);
  int chosen = 0;
  for (const KernelTiming& timing : kernel_report()) chosen += timing.chosen && timing.mode == ComputeMode::kFp32;
  EXPECT_EQ(chosen, 1);
}

}  // namespace
}  // namespace runahead::test
