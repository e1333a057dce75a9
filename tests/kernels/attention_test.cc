#include <algorithm>

#include "tests/kernels/op_cases.h"

namespace runahead::test {
namespace {

struct AttentionCase {
  int32_t head_dim, group, tokens, position, pages;  // queries of `tokens` tokens from `position`, over `pages` pages
  int32_t window = 0;
  float soft_cap = 0;

  // The first that a token sees something of.
  int32_t first_page(int32_t token) const { return window > 0 ? std::max(0, token - window + 1) / kPageTokens : 0; }
};

// Queries, pages and online-softmax state of one KV head, in one table's formats.
class AttentionState {
 public:
  AttentionState(const OpTable& ops, const AttentionCase& c) : ops_(ops), c_(c), layout_(ops.kv_layout(1, c.head_dim)) {
    const auto dim = static_cast<size_t>(c.head_dim);
    const size_t rows = static_cast<size_t>(c.tokens * c.group);
    const std::vector<float> q = random_floats(21, rows * dim, 2.0f);
    tile_ = {.rows = c.tokens * c.group, .group = c.group, .head_dim = c.head_dim};
    queries_ = AlignedBuffer(ops.attention_tile_bytes(tile_.rows, c.head_dim));
    tile_.data = queries_.data();
    for (size_t r = 0; r < rows; ++r) ops.store_query(q.data() + r * dim, 0.37f, tile_, static_cast<int32_t>(r));
    pages = AlignedBuffer(static_cast<size_t>(c.pages) * layout_.page_bytes());
    const int32_t keys = std::min(c.pages * kPageTokens, c.position + c.tokens);
    const std::vector<float> k = random_floats(22, static_cast<size_t>(keys) * dim, 2.0f),
                             v = random_floats(23, static_cast<size_t>(keys) * dim);
    for (int32_t t = 0; t < keys; ++t) {
      std::byte* page = pages.data() + static_cast<size_t>(t / kPageTokens) * layout_.page_bytes();
      ops.store_key(k.data() + static_cast<size_t>(t) * dim, c.head_dim, t % kPageTokens, page + layout_.key_offset(0));
      ops.store_value(v.data() + static_cast<size_t>(t) * dim, c.head_dim, t % kPageTokens,
                      page + layout_.value_offset(0));
    }
    out.assign(rows * dim, 0.0f);
  }

  // Tokens [begin, end) of the queries as a tile of their own, over all pages.
  void run(int32_t begin, int32_t end) {
    AttentionTile tile = tile_;
    tile.rows = (end - begin) * c_.group;
    AlignedBuffer state(ops_.attention_tile_bytes(tile.rows, c_.head_dim));
    tile.data = state.data();
    for (int32_t r = 0; r < tile.rows; ++r) ops_.copy_query(tile_, begin * c_.group + r, tile, r);
    const int32_t first = c_.first_page(c_.position + begin);
    for (int32_t p = first; p < c_.pages && p * kPageTokens <= c_.position + begin; ++p) {
      const std::byte* page = pages.data() + static_cast<size_t>(p) * layout_.page_bytes();
      ops_.attend_page({.tile = tile,
                        .position = c_.position + begin,
                        .page_position = p * kPageTokens,
                        .anew = p == first,
                        .window = c_.window,
                        .soft_cap = c_.soft_cap,
                        .keys = page + layout_.key_offset(0),
                        .values = page + layout_.value_offset(0)});
    }
    for (int32_t r = 0; r < tile.rows; ++r)
      ops_.finish_attention(tile, r, out.data() + static_cast<size_t>((begin * c_.group + r) * c_.head_dim));
  }

  // All tokens, at most kPartRowsMax rows: every page's part, in any order, then folds of `pages_a_fold` of them.
  void run_in_parts(int32_t pages_a_fold) {
    const size_t page_floats = static_cast<size_t>(tile_.rows) * ops_.part_row_floats(c_.head_dim);
    AlignedBuffer parts(static_cast<size_t>(c_.pages) * page_floats * sizeof(float));
    const auto part = [&](int32_t p) { return parts.as<float>().data() + static_cast<size_t>(p) * page_floats; };
    const int32_t first = c_.first_page(c_.position);
    for (int32_t p = c_.pages - 1; p >= first; --p) {
      const std::byte* page = pages.data() + static_cast<size_t>(p) * layout_.page_bytes();
      ops_.attend_page_part({.tile = tile_,
                             .position = c_.position,
                             .page_position = p * kPageTokens,
                             .window = c_.window,
                             .soft_cap = c_.soft_cap,
                             .keys = page + layout_.key_offset(0),
                             .values = page + layout_.value_offset(0)},
                            part(p));
    }
    for (int32_t p = first; p < c_.pages; p += pages_a_fold)
      ops_.fold_page_parts(tile_, p == first, part(p), std::min(pages_a_fold, c_.pages - p));
    for (int32_t r = 0; r < tile_.rows; ++r)
      ops_.finish_attention(tile_, r, out.data() + static_cast<size_t>(r * c_.head_dim));
  }

  std::vector<float> out;  // [tokens, group, head_dim]

 private:
  const OpTable& ops_;
  AttentionCase c_;
  KvLayout layout_;
  AttentionTile tile_;
  AlignedBuffer queries_, pages;
};

constexpr AttentionCase kCases[] = {{32, 2, 64, 0, 1}, {64, 3, 64, 128, 3}, {64, 3, 1, 200, 4},  {96, 1, 17, 64, 2},
                                    {128, 4, 5, 3, 1}, {64, 9, 30, 34, 1},  {160, 2, 64, 64, 2}, {64, 1, 7, 57, 1},
                                    // Windows that begin within a page, on its edge, and that are shorter than one.
                                    {64, 3, 64, 128, 3, 70}, {64, 2, 64, 192, 4, 128}, {32, 1, 64, 128, 3, 5},
                                    {64, 3, 1, 200, 4, 65},  {64, 2, 64, 128, 3, 1},   {96, 2, 30, 64, 2, 1000},
                                    {64, 3, 64, 128, 3, 0, 5.0f}, {64, 2, 1, 200, 4, 100, 3.0f}};

class Attention : public EveryOpTable {};

// The probabilities are rounded before they meet the values: to 8 bits in bf16, to 13 bits of the page's largest in int16.
TEST_P(Attention, AgreesWithTheReference) {
  const float tolerance = ops().mode == ComputeMode::kFp32   ? 1e-5f
                          : ops().mode == ComputeMode::kBf16 ? 8e-3f
                          : ops().mode == ComputeMode::kInt8 ? 2e-2f
                                                             : 5e-4f;
  for (const AttentionCase& c : kCases) {
    AttentionState fast(ops(), c), naive(reference(), c);
    fast.run(0, c.tokens);
    naive.run(0, c.tokens);
    expect_close(fast.out, naive.out, tolerance,
                 "head_dim " + std::to_string(c.head_dim) + " group " + std::to_string(c.group));
  }
}

TEST_P(Attention, ARowDoesNotDependOnItsMates) {
  for (const AttentionCase& c : kCases) {
    AttentionState together(ops(), c), apart(ops(), c);
    together.run(0, c.tokens);
    for (int32_t t = 0; t < c.tokens;) {
      const int32_t end = std::min(c.tokens, t + 1 + t % 5);
      apart.run(t, end);
      t = end;
    }
    ASSERT_EQ(0, std::memcmp(together.out.data(), apart.out.data(), apart.out.size() * sizeof(float))) << c.head_dim;
  }
}

TEST_P(Attention, PartsOfPagesFoldToTheSameBits) {
  for (const AttentionCase& c : {AttentionCase{64, 3, 1, 330, 6}, {128, 4, 1, 255, 4}, {96, 1, 5, 66, 2},
                                 {64, 3, 1, 330, 6, 100}, {64, 1, 5, 250, 4, 60}, {64, 4, 1, 255, 4, 128, 4.0f}}) {
    AttentionState whole(ops(), c);
    whole.run(0, c.tokens);
    for (int32_t pages_a_fold : {1, 2, 4, 6}) {
      AttentionState parts(ops(), c);
      parts.run_in_parts(pages_a_fold);
      ASSERT_EQ(0, std::memcmp(whole.out.data(), parts.out.data(), whole.out.size() * sizeof(float))) << pages_a_fold;
    }
  }
}

TEST_P(Attention, EveryInstructionSetGivesTheSameBits) {
  for (const OpTable* other : runnable_ops()) {
    if (other->mode != ops().mode) continue;
    for (const AttentionCase& c : kCases) {
      AttentionState a(ops(), c), b(*other, c);
      a.run(0, c.tokens);
      b.run(0, c.tokens);
      ASSERT_EQ(0, std::memcmp(a.out.data(), b.out.data(), a.out.size() * sizeof(float)))
          << ops().isa << " and " << other->isa;
    }
  }
}

// Keys after a row's own token, whatever they are, weigh exactly nothing.
TEST_P(Attention, TheFutureWeighsNothing) {
  AttentionCase c{64, 3, 20, 0, 1};
  AttentionState with_future(ops(), c);
  with_future.run(0, 10);
  c.tokens = 10;
  AttentionState without(ops(), c);
  // The first ten queries, keys and values of both are the same random numbers.
  without.run(0, 10);
  ASSERT_EQ(0, std::memcmp(with_future.out.data(), without.out.data(), without.out.size() * sizeof(float)));
}

class Elementwise : public EveryOpTable {};

TEST_P(Elementwise, NormAndRotationAgreeWithTheReferenceAndGiveTheSameBitsEverywhere) {
  for (int32_t k : {32, 64, 576, 1536}) {
    const std::vector<float> x = random_floats(31, static_cast<size_t>(k), 3.0f),
                             gain = random_floats(32, static_cast<size_t>(k));
    std::vector<float> fast(x.size()), naive(x.size());
    NormArgs args{.x = x.data(), .gain = gain.data(), .epsilon = 1e-5f, .count = k, .padded = k};
    const auto into = [&](std::vector<float>& out) { return args.out = out.data(), args; };
    ops().rms_norm(into(fast));
    reference().rms_norm(into(naive));
    expect_close(fast, naive, 1e-6f, "norm of " + std::to_string(k));
    std::vector<float> generic(x.size());
    runnable_ops().back()->rms_norm(into(generic));
    ASSERT_EQ(0, std::memcmp(fast.data(), generic.data(), fast.size() * sizeof(float)));
  }
  for (int32_t dim : {32, 64, 96, 128}) {
    std::vector<float> fast = random_floats(33, static_cast<size_t>(dim)), naive = fast;
    const std::vector<float> angles = random_floats(34, static_cast<size_t>(dim));
    ops().rotate(fast.data(), angles.data(), dim);
    reference().rotate(naive.data(), angles.data(), dim);
    expect_close(fast, naive, 1e-6f, "rotation");
  }
}

TEST_P(Elementwise, LayerNormAgreesWithTheReferenceAndGivesTheSameBitsEverywhere) {
  for (int32_t count : {33, 42, 64, 576}) {
    const int32_t padded = (count + 31) / 32 * 32;
    std::vector<float> x = random_floats(41, static_cast<size_t>(padded), 3.0f),
                       gain = random_floats(42, static_cast<size_t>(padded)), bias = random_floats(43, gain.size());
    for (float& v : x) v += 5;  // the mean matters
    for (std::vector<float>* row : {&x, &gain, &bias}) std::fill(row->begin() + count, row->end(), 0.0f);
    for (const float* added : {static_cast<const float*>(nullptr), static_cast<const float*>(bias.data())}) {
      std::vector<float> fast(x.size()), naive(x.size()), generic(x.size());
      NormArgs args{.x = x.data(), .gain = gain.data(), .bias = added, .epsilon = 1e-5f, .count = count, .padded = padded};
      const auto into = [&](std::vector<float>& out) { return args.out = out.data(), args; };
      ops().layer_norm(into(fast));
      reference().layer_norm(into(naive));
      runnable_ops().back()->layer_norm(into(generic));
      expect_close(fast, naive, 2e-6f, "LayerNorm of " + std::to_string(count));
      ASSERT_EQ(0, std::memcmp(fast.data(), generic.data(), fast.size() * sizeof(float)));
      for (int32_t i = count; i < padded; ++i) ASSERT_EQ(fast[static_cast<size_t>(i)], 0.0f);
    }
  }
}

TEST_P(Elementwise, GeluAndSoftCapAgreeWithTheReferenceAndGiveTheSameBitsEverywhere) {
  std::vector<float> x = random_floats(44, 256, 8.0f);
  x[0] = 0, x[1] = 1e4f, x[2] = -1e4f, x[3] = 1e-6f;
  const auto compare = [&](const auto& apply, float tolerance) {
    std::vector<float> fast = x, naive = x, generic = x;
    apply(ops(), fast);
    apply(reference(), naive);
    apply(*runnable_ops().back(), generic);
    expect_close(fast, naive, tolerance, "value by value");
    ASSERT_EQ(0, std::memcmp(fast.data(), generic.data(), fast.size() * sizeof(float)));
  };
  compare([](const OpTable& ops, std::vector<float>& row) { ops.gelu(row.data(), 256); }, 1e-6f);
  for (float cap : {5.0f, 30.0f})
    compare([&](const OpTable& ops, std::vector<float>& row) { ops.soft_cap(row.data(), cap, 256); }, cap * 3e-7f);
}

TEST_P(Elementwise, OperandsAndPagesAreTheReferencesBitByBit) {
  const std::vector<float> x = random_floats(35, 128, 5.0f);
  const KvLayout layout = ops().kv_layout(1, 128);
  std::vector<std::byte> fast(layout.page_bytes()), naive(layout.page_bytes());
  for (int32_t slot : {0, 1, 5, 62, 63}) {
    ops().store_key(x.data(), 128, slot, fast.data());
    reference().store_key(x.data(), 128, slot, naive.data());
    ops().store_value(x.data(), 128, slot, fast.data() + layout.value_offset(0));
    reference().store_value(x.data(), 128, slot, naive.data() + layout.value_offset(0));
  }
  if (ops().mode == ComputeMode::kInt16) return;  // its scales come from sums that the reference makes in double
  // So do the rotated keys of int8: those are held to the reference by the scores.
  const size_t compared = ops().mode == ComputeMode::kInt8 ? layout.value_offset(0) : 0;
  EXPECT_EQ(std::vector(fast.begin() + static_cast<ptrdiff_t>(compared), fast.end()),
            std::vector(naive.begin() + static_cast<ptrdiff_t>(compared), naive.end()));
  const std::vector<float> activations = random_floats(37, 5 * 64, 3.0f);
  for (PanelFormat weights : {PanelFormat::kCodes4, PanelFormat::kCodes8})
    for (int32_t rows : {1, 5}) {  // few and many: int8 packs them in different ways
      const Operand operand{64, rows, weights};
      EXPECT_EQ(pack_rows(ops(), activations, operand), pack_rows(reference(), activations, operand));
    }
}

TEST_P(Elementwise, Int16OperandsAreWithinOneStepOfWhatTheyStandFor) {
  if (ops().mode != ComputeMode::kInt16) GTEST_SKIP() << "another mode";
  const std::vector<float> x = random_floats(36, 576, 40.0f);
  const std::vector<std::byte> operand = pack_rows(ops(), x, {576, 1});
  const auto* codes = reinterpret_cast<const int16_t*>(operand.data());
  const auto* sums = reinterpret_cast<const float*>(operand.data() + 576 * 2);
  constexpr size_t kOrder[] = {0, 2, 1, 3};  // of each four
  for (size_t i = 0; i < 576; ++i)
    ASSERT_NEAR(static_cast<float>(codes[i]) * sums[18], x[i / 4 * 4 + kOrder[i % 4]], 0.51f * sums[18]) << i;
  for (size_t b = 0; b < 18; ++b) {
    float sum = 0;
    for (size_t i = 0; i < 32; ++i) sum += codes[b * 32 + i];
    ASSERT_EQ(sums[b], sum);
  }
  const std::vector<std::byte> zeros = pack_rows(ops(), std::vector<float>(32), {32, 1});
  EXPECT_EQ(std::count(zeros.begin(), zeros.end(), std::byte{0}), static_cast<ptrdiff_t>(zeros.size()));
}

INSTANTIATE_TEST_SUITE_P(Cpu, Attention, ::testing::ValuesIn(runnable_ops().begin(), runnable_ops().end()), table_name);
INSTANTIATE_TEST_SUITE_P(Cpu, Elementwise, ::testing::ValuesIn(runnable_ops().begin(), runnable_ops().end()),
                         table_name);

}  // namespace
}  // namespace runahead::test
