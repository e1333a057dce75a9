// kernels/cuda against plain loops in double: odd sizes, page edges, every weight format, every head length. Over the emulation,
// or on a device (tested_device.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/crc32c.h"
#include "base/rng.h"
#include "kernels/ops.h"
#include "kernels/quant_blocks.h"
#include "tests/kernels/cuda/tested_device.h"
#include "tests/support/tiny_model.h"

namespace runahead::cuda {
namespace {

const CudaOps& ops = tested_ops();

class Random {
 public:
  explicit Random(uint64_t seed) : rng_(seed) {}
  float uniform() { return static_cast<float>(rng_.next() >> 40) * 0x1p-23f - 1.0f; }  // [-1, 1)
  Array<float> floats(size_t count) {
    Array<float> values(count);
    for (float& value : values) value = uniform();
    return values;
  }
  Array<uint16_t> bf16s(size_t count) {
    Array<uint16_t> values(count);
    for (uint16_t& value : values) value = float_to_bf16(uniform());
    return values;
  }

 private:
  SeededRng rng_;
};

constexpr QuantType kTypes[] = {QuantType::kF32,    QuantType::kF16,  QuantType::kBF16,   QuantType::kQ4_0,
                                QuantType::kQ4_1,   QuantType::kQ5_0, QuantType::kQ5_1,   QuantType::kQ8_0,
                                QuantType::kIQ4_NL, QuantType::kQ2_K, QuantType::kQ3_K,   QuantType::kQ4_K,
                                QuantType::kQ5_K,   QuantType::kQ6_K, QuantType::kIQ4_XS, QuantType::kMXFP4};

TEST(CudaOps, WeightsOfEveryFormatAreTheReadersBitByBit) {
  for (const QuantType type : kTypes) {
    const QuantFormat& format = quant_format(type);
    const int64_t cols = format.block_len == 1 ? 37 : 2 * format.block_len, rows = 3, stride = (cols + 31) / 32 * 32;
    const auto made = test::RandomWeights(7).blocks(type, static_cast<size_t>(rows * cols), 0.5f);
    const Array<std::byte> blocks(made.begin(), made.end());
    const auto* bytes = reinterpret_cast<const uint8_t*>(blocks.data());
    Array<float> expected(static_cast<size_t>(rows * cols));
    dequantize(type, blocks, expected);
    Array<uint16_t> out(static_cast<size_t>(rows * stride), 0xffff);
    ops.dequantize({.type = static_cast<uint32_t>(type),
                    .blocks = bytes,
                    .rows = rows,
                    .cols = cols,
                    .block_bytes = format.block_bytes,
                    .block_len = format.block_len,
                    .out = out.data(),
                    .out_stride = stride});
    ops.finish();
    const Array<int32_t> tokens = {2, 0};
    Array<float> embedded(2 * static_cast<size_t>(cols));
    ops.embed({.type = static_cast<uint32_t>(type),
               .table = bytes,
               .cols = cols,
               .block_bytes = format.block_bytes,
               .block_len = format.block_len,
               .tokens = tokens.data(),
               .rows = 2,
               .out = embedded.data()});
    ops.finish();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < stride; ++c)
        ASSERT_EQ(out[static_cast<size_t>(r * stride + c)],
                  c < cols ? float_to_bf16(expected[static_cast<size_t>(r * cols + c)]) : 0)
            << format.name << " row " << r << " column " << c;
    for (size_t i = 0; i < embedded.size(); ++i) {
      const auto c = static_cast<int64_t>(i) % cols;
      ASSERT_EQ(embedded[i], expected[static_cast<size_t>(tokens[i / static_cast<size_t>(cols)] * cols + c)])
          << format.name;
    }
  }
}

TEST(CudaOps, RmsNormIsThatOfTheRow) {
  for (const int dim : {30, 64, 576, 1000}) {
    const int rows = 3, stride = (dim + 31) / 32 * 32;
    Random random(static_cast<uint64_t>(dim));
    const Array<float> x = random.floats(static_cast<size_t>(rows * dim)),
                       gain = random.floats(static_cast<size_t>(dim));
    Array<uint16_t> out(static_cast<size_t>(rows * stride), 0xffff);
    ops.rms_norm({.x = x.data(),
                  .gain = gain.data(),
                  .epsilon = 1e-5f,
                  .rows = rows,
                  .dim = dim,
                  .out = out.data(),
                  .out_stride = stride});
    ops.finish();
    for (int r = 0; r < rows; ++r) {
      double squares = 0;
      for (int i = 0; i < dim; ++i) squares += std::pow(x[static_cast<size_t>(r * dim + i)], 2);
      for (int i = 0; i < stride; ++i) {
        const double expected = i < dim ? x[static_cast<size_t>(r * dim + i)] * gain[static_cast<size_t>(i)] /
                                              std::sqrt(squares / dim + 1e-5)
                                        : 0;
        EXPECT_NEAR(bf16_to_float(out[static_cast<size_t>(r * stride + i)]), expected, std::abs(expected) / 200) << dim;
      }
    }
  }
}

struct Product {
  int rows, n, k;
  Array<uint16_t> a, w;
  double at(int r, int c) const {
    double sum = 0;
    for (int i = 0; i < k; ++i)
      sum +=
          double{bf16_to_float(a[static_cast<size_t>(r * k + i)])} * bf16_to_float(w[static_cast<size_t>(c * k + i)]);
    return sum;
  }
};
Product random_product(int rows, int n, int k) {
  Random random(static_cast<uint64_t>(rows * 1000 + n + k));
  return {rows, n, k, random.bf16s(static_cast<size_t>(rows * k)), random.bf16s(static_cast<size_t>(n * k))};
}
GemmArgs args_of(const Product& p, Epilogue epilogue, void* out, int stride) {
  return {.a = p.a.data(),
          .weights = p.w.data(),
          .rows = p.rows,
          .n = p.n,
          .k = p.k,
          .epilogue = epilogue,
          .out = out,
          .out_stride = stride};
}

TEST(CudaOps, ProductsOfOddSizesAreThoseOfTheOracle) {
  for (const auto& [rows, n, k] : {std::tuple{1, 8, 32}, {7, 77, 96}, {64, 64, 64}, {65, 130, 160}, {130, 33, 32}}) {
    const Product p = random_product(rows, n, k);
    const int stride = n + 3;
    Array<float> stored(static_cast<size_t>(rows * stride), 9.0f), added(stored);
    ops.gemm(args_of(p, Epilogue::kStore, stored.data(), stride));
    ops.finish();
    ops.gemm(args_of(p, Epilogue::kAdd, added.data(), stride));
    ops.finish();
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < stride; ++c) {
        const auto at = static_cast<size_t>(r * stride + c);
        const double expected = c < n ? p.at(r, c) : 0;
        ASSERT_NEAR(stored[at], c < n ? expected : 9.0, 1e-4) << rows << " " << n << " " << k << ": " << r << " " << c;
        ASSERT_NEAR(added[at], expected + 9.0, 1e-4);
      }
  }
}

TEST(CudaOps, GateAndUpAreNeighboursOfOneProduct) {
  const Product p = random_product(33, 2 * 45, 64);
  Array<uint16_t> out(33 * 64, 0);
  ops.gemm(args_of(p, Epilogue::kSiluMul, out.data(), 64));
  ops.finish();
  for (int r = 0; r < 33; ++r)
    for (int c = 0; c < 64; ++c) {
      const double gate = c < 45 ? p.at(r, 2 * c) : 0, up = c < 45 ? p.at(r, 2 * c + 1) : 0;
      const double expected = gate / (1 + std::exp(-gate)) * up;
      ASSERT_NEAR(bf16_to_float(out[static_cast<size_t>(r * 64 + c)]), expected, std::abs(expected) / 200 + 1e-6)
          << r << " " << c;
    }
}

// Those of a product that lies there are the epilogue's, bit by bit.
TEST(CudaOps, GateAndUpAreActivatedApartAsInTheProduct) {
  const Product p = random_product(33, 2 * 145, 64);
  Array<uint16_t> together(33 * 160, 7), apart(together);
  Array<float> y(33 * 290);
  ops.gemm(args_of(p, Epilogue::kSiluMul, together.data(), 160));
  ops.gemm(args_of(p, Epilogue::kStore, y.data(), 290));
  ops.silu_mul({.y = y.data(), .rows = 33, .cols = 145, .out = apart.data(), .out_stride = 160});
  ops.finish();
  EXPECT_EQ(apart, together);
}

// By a library where the device has one, and whose it is only the last bits tell.
TEST(CudaOps, ProductsAsChosenAreThoseOfTheOracle) {
  for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd}) {
    const std::string way = ops.choose_gemm({.n = 132, .k = 160, .epilogue = epilogue});
    for (const int rows : {1, 65, 130}) {
      const Product p = random_product(rows, 132, 160);
      Array<float> out(static_cast<size_t>(rows * 132), 0.0f);
      GemmArgs args = args_of(p, epilogue, out.data(), 132);
      args.as_chosen = true;
      ops.gemm(args);
      ops.finish();
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < 132; ++c)
          ASSERT_NEAR(out[static_cast<size_t>(r * 132 + c)], p.at(r, c), 1e-4) << way << " " << r << " " << c;
    }
  }
  EXPECT_STRNE(ops.gemm_text(), "");
}

TEST(CudaOps, ARowsProductDependsOnNoOther) {
  const Product many = random_product(130, 72, 96);
  Product one = many;
  one.rows = 1, one.a.erase(one.a.begin(), one.a.begin() + 77 * 96);
  Array<float> all(130 * 72), alone(72);
  ops.gemm(args_of(many, Epilogue::kStore, all.data(), 72));
  ops.finish();
  ops.gemm(args_of(one, Epilogue::kStore, alone.data(), 72));
  ops.finish();
  EXPECT_TRUE(std::ranges::equal(alone, std::span(all).subspan(77 * 72, 72)));
}

// K and V of a sequence in pages, and queries for some of its last tokens.
struct Sequence {
  Sequence(int tokens, int rows, int heads, int kv_heads, int dim, uint64_t seed)
      : tokens(tokens), rows(rows), heads(heads), kv_heads(kv_heads), dim(dim) {
    Random random(seed);
    const int pages = (tokens + kPage - 1) / kPage;
    for (int p = 0; p < pages; ++p) pages_.push_back(random.bf16s(static_cast<size_t>(2 * kv_heads * kPage * dim)));
    for (const auto& page : pages_) table.push_back(page.data());
    queries = random.bf16s(static_cast<size_t>(rows * heads * dim));
    for (uint16_t& query : queries) query = float_to_bf16(bf16_to_float(query) * 0.5f);
    sums.assign(queries.size(), 9.0f);
    state.assign(static_cast<size_t>(rows * heads * 2), 9.0f);
  }
  int64_t value_offset() const { return int64_t{kv_heads} * kPage * dim; }
  double element(int token, int kv_head, int d, bool value) const {
    return bf16_to_float(pages_[static_cast<size_t>(token / kPage)][static_cast<size_t>(
        (value ? value_offset() : 0) + (static_cast<int64_t>(kv_head) * kPage + token % kPage) * dim + d)]);
  }
  // Of one row and head that sees `seen` tokens: [dim].
  std::vector<double> expected(int row, int head, int seen) const {
    std::vector<double> scores, out(static_cast<size_t>(dim));
    const int kv_head = head / (heads / kv_heads);
    double total = 0;
    for (int t = 0; t < seen; ++t) {
      double score = 0;
      for (int d = 0; d < dim; ++d)
        score +=
            bf16_to_float(queries[static_cast<size_t>((row * heads + head) * dim + d)]) * element(t, kv_head, d, false);
      scores.push_back(std::exp2(score));
      total += scores.back();
    }
    for (int t = 0; t < seen; ++t)
      for (int d = 0; d < dim; ++d)
        out[static_cast<size_t>(d)] += scores[static_cast<size_t>(t)] / total * element(t, kv_head, d, true);
    return out;
  }
  void check(int row, int head, int seen) const {
    const std::vector<double> right = expected(row, head, seen);
    for (int d = 0; d < dim; ++d) {
      const auto at = static_cast<size_t>(row * heads + head);
      ASSERT_NEAR(sums[at * static_cast<size_t>(dim) + static_cast<size_t>(d)] / state[at * 2 + 1],
                  right[static_cast<size_t>(d)], 4e-3)
          << "row " << row << " head " << head << " d " << d << " of " << dim;
    }
  }
  AttendArgs attend(int position, int row_begin, int row_end, int page_begin, int page_end) {
    return {.queries = queries.data(),
            .pages = table.data(),
            .value_offset = value_offset(),
            .row_begin = row_begin,
            .row_end = row_end,
            .position = position,
            .page_begin = page_begin,
            .page_end = page_end,
            .heads = heads,
            .kv_heads = kv_heads,
            .padded_dim = dim,
            .anew = page_begin == 0,
            .sums = sums.data(),
            .state = state.data()};
  }

  int tokens, rows, heads, kv_heads, dim;
  Array<const uint16_t*> table;
  Array<uint16_t> queries;
  Array<float> sums, state;

 private:
  std::vector<Array<uint16_t>> pages_;
};

TEST(CudaOps, AttentionOfEveryHeadLengthIsThatOfTheOracle) {
  for (const int dim : kHeadDims) {
    const int position = 128, rows = 70;  // behind two pages; the last block has six rows
    Sequence s(position + rows, rows, 3, 1, dim, static_cast<uint64_t>(dim));
    ops.attend(s.attend(position, 0, rows, 0, 4));
    ops.finish();
    for (const int row : {0, 1, 15, 63, 64, 69})
      for (int head = 0; head < 3; ++head) s.check(row, head, position + row + 1);
  }
}

TEST(CudaOps, AttentionDoesNotDependOnHowItIsCutIntoCalls) {
  const int position = 192, rows = 100;
  Sequence whole(position + rows, rows, 4, 2, 64, 3), cut = whole;
  ops.attend(whole.attend(position, 0, rows, 0, 5));
  ops.finish();
  for (const auto& [begin, end] : {std::pair{0, 1}, {1, 3}, {3, 5}}) {
    ops.attend(cut.attend(position, 0, 64, begin, end));
    ops.finish();
    ops.attend(cut.attend(position, 64, rows, begin, end));
    ops.finish();
  }
  EXPECT_EQ(whole.sums, cut.sums);
  EXPECT_EQ(whole.state, cut.state);
  for (const int row : {0, 63, 64, 99}) whole.check(row, 3, position + row + 1);
}

TEST(CudaOps, DecodeAttentionIsThatOfTheOracleAndOfNobodyElse) {
  for (const auto& [dim, heads, kv_heads] : {std::tuple{64, 9, 3}, {32, 20, 1}, {128, 2, 2}, {96, 4, 2}, {256, 2, 1}}) {
    // Rows of unlike lengths: one token, the end of a page, the end of a part, one behind it.
    const Array<int32_t> positions = {0, 63, kPagesPerPart * kPage - 1, kPagesPerPart * kPage + 5};
    const int rows = static_cast<int>(positions.size()), pages = kPagesPerPart + 1;
    Sequence s(pages * kPage, rows, heads, kv_heads, dim, 11);
    Array<const uint16_t*> table;
    for (int r = 0; r < rows; ++r) table.insert(table.end(), s.table.begin(), s.table.end());
    Array<float> parts(static_cast<size_t>(rows * heads * decode_parts(pages) * (dim + 2)));
    DecodeAttendArgs args{.queries = s.queries.data(),
                          .pages = table.data(),
                          .positions = positions.data(),
                          .value_offset = s.value_offset(),
                          .rows = rows,
                          .pages_stride = pages,
                          .heads = heads,
                          .kv_heads = kv_heads,
                          .padded_dim = dim,
                          .parts = parts.data(),
                          .sums = s.sums.data(),
                          .state = s.state.data()};
    ops.decode_attend(args);
    ops.finish();
    for (int row = 0; row < rows; ++row)
      for (int head = 0; head < heads; ++head) s.check(row, head, positions[static_cast<size_t>(row)] + 1);
    const Array<float> together = s.sums;
    args.rows = 1;
    args.queries += 3 * heads * dim, args.positions += 3, args.pages += 3 * pages;
    ops.decode_attend(args);
    ops.finish();
    EXPECT_TRUE(std::equal(s.sums.begin(), s.sums.begin() + heads * dim, together.begin() + 3 * heads * dim)) << dim;
  }
}

TEST(CudaOps, RotationAndPagesAreWhereTheyBelong) {
  const int rows = 3, heads = 4, kv_heads = 2, dim = 30, padded = 32, rotated = 20, all = heads + 2 * kv_heads;
  Random random(5);
  const Array<float> qkv = random.floats(static_cast<size_t>(rows * all * dim));
  const Array<float> cos_sin = random.floats(static_cast<size_t>(rows * rotated));
  Array<uint16_t> page(static_cast<size_t>(2 * kv_heads * kPage * padded)),
      queries(static_cast<size_t>(rows * heads * padded));
  Array<uint16_t*> keys;
  for (int r = 0; r < rows; ++r) keys.push_back(page.data() + (r + 5) * padded);
  const int64_t value_offset = int64_t{kv_heads} * kPage * padded;
  ops.store_qkv({.qkv = qkv.data(),
                 .cos_sin = cos_sin.data(),
                 .rows = rows,
                 .heads = heads,
                 .kv_heads = kv_heads,
                 .head_dim = dim,
                 .padded_dim = padded,
                 .rotated = rotated,
                 .query_scale = 0.5f,
                 .queries = queries.data(),
                 .keys = keys.data(),
                 .value_offset = value_offset});
  ops.finish();
  for (int r = 0; r < rows; ++r)
    for (int h = 0; h < all; ++h)
      for (int d = 0; d < padded; ++d) {
        const float* head = qkv.data() + (r * all + h) * dim;
        const float* turn = cos_sin.data() + r * rotated;
        float value = d < dim ? head[d] : 0;
        if (h < heads + kv_heads && d < rotated) {
          const int pair = d % (rotated / 2);
          const float low = head[pair], high = head[pair + rotated / 2], cosine = turn[pair],
                      sine = turn[rotated / 2 + pair];
          value = d < rotated / 2 ? low * cosine - high * sine : high * cosine + low * sine;
        }
        const int kv = h - heads, slot = r + 5;
        const uint16_t found =
            h < heads       ? queries[static_cast<size_t>((r * heads + h) * padded + d)]
            : kv < kv_heads ? page[static_cast<size_t>((kv * kPage + slot) * padded + d)]
                            : page[static_cast<size_t>(value_offset + ((kv - kv_heads) * kPage + slot) * padded + d)];
        ASSERT_NEAR(bf16_to_float(found), h < heads ? value * 0.5f : value, 1e-2) << r << " " << h << " " << d;
      }
  EXPECT_EQ(std::ranges::count_if(page, [](uint16_t value) { return value != 0; }), rows * 2 * kv_heads * dim)
      << "and nothing else";
}

// The processor's own stores make the page that is compared with.
TEST(CudaOps, PagesOfBf16AreTheProcessorsAndComeBackAsTheyWere) {
  constexpr int kKvHeads = 2;
  for (const auto& [dim, padded, host_dim] :
       {std::tuple{64, 64, 64}, {30, 32, 32}, {48, 64, 64}, {100, 128, 128}, {160, 256, 160}}) {
    const OpTable& cpu = reference_ops(ComputeMode::kBf16);
    const KvLayout layout = cpu.kv_layout(kKvHeads, host_dim);
    Random random(static_cast<uint64_t>(dim));
    Array<uint16_t> device(static_cast<size_t>(2 * kKvHeads * kPage * padded)), host(layout.page_bytes() / 2),
        expected(host);
    for (int part = 0; part < 2 * kKvHeads; ++part)
      for (int token = 0; token < kPage; ++token) {
        Array<float> head(static_cast<size_t>(host_dim));
        for (int d = 0; d < dim; ++d) {
          const float value = random.uniform();
          device[static_cast<size_t>((part * kPage + token) * padded + d)] = float_to_bf16(value);
          const bool second_half = part < kKvHeads && d >= dim / 2;
          head[static_cast<size_t>(second_half ? host_dim / 2 + d - dim / 2 : d)] = value;
        }
        auto* page = reinterpret_cast<std::byte*>(expected.data());
        if (part < kKvHeads) cpu.store_key(head.data(), host_dim, token, page + layout.key_offset(part));
        else cpu.store_value(head.data(), host_dim, token, page + layout.value_offset(part - kKvHeads));
      }
    RepackArgs args{.from = device.data(),
                    .to = host.data(),
                    .to_host_form = true,
                    .kv_heads = kKvHeads,
                    .head_dim = dim,
                    .padded_dim = padded,
                    .host_dim = host_dim};
    ops.repack(args);
    ops.finish();
    EXPECT_EQ(host, expected) << dim;
    Array<uint16_t> back(device.size(), 0xffff);
    args.from = host.data(), args.to = back.data(), args.to_host_form = false;
    ops.repack(args);
    ops.finish();
    EXPECT_EQ(back, device) << dim;
  }
}

TEST(CudaOps, ChecksumsArePagesCrc32c) {
  for (const size_t bytes : {16u, 2048u, 24576u, 4112u}) {
    std::vector<Array<std::byte>> pages(3, Array<std::byte>(bytes));
    SeededRng rng(bytes);
    Array<const uint8_t*> table;
    for (auto& page : pages) {
      for (std::byte& byte : page) byte = static_cast<std::byte>(rng.next());
      table.push_back(reinterpret_cast<const uint8_t*>(page.data()));
    }
    Array<uint32_t> sums(3);
    ops.checksum_pages(
        {.pages = table.data(), .count = 3, .page_bytes = static_cast<int64_t>(bytes), .out = sums.data()});
    ops.finish();
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(sums[i], crc32c(pages[i])) << bytes;
  }
}

}  // namespace
}  // namespace runahead::cuda
