#include "model/kernel_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/memory.h"
#include "base/rng.h"

namespace runahead {
namespace {

constexpr double kSampleSeconds =
    2e-3;  // a sample is at least so long: the clock and a cold start are little beside it
constexpr double kCallSecondsMax = 3;
constexpr int32_t kDistinctRows = 64;  // weight rows that are made up; a matrix repeats them
// Both are multiples of every tile height up to 16 that kernels use, so that no call has a narrower last tile.
constexpr int32_t kWidenRows = 48, kWidenRowsTwice = 96;
constexpr int32_t kGemmRows[] = {1, 4, 16, 132, 512};

struct Product {
  std::string name;
  int32_t outputs, k;
  Epilogue epilogue;
};

std::vector<Product> layer_products(const ModelShape& s) {
  const int32_t q_dim = s.num_heads * s.head_dim, kv_dim = s.num_kv_heads * s.head_dim;
  return {{"qkv", q_dim + 2 * kv_dim, s.model_dim, Epilogue::kStore},
          {"attention_out", s.model_dim, q_dim, Epilogue::kAdd},
          {"gate_up", 2 * s.ffn_dim, s.model_dim, Epilogue::kSiluMul},
          {"down", s.model_dim, s.ffn_dim, Epilogue::kAdd}};
}

void fill_uniform(Rng& rng, std::span<float> out) {
  for (float& x : out) x = static_cast<float>(static_cast<double>(rng.next() >> 11) * 0x1p-52 - 1);
}

// outputs x k weights of about +-0.08, the size that trained ones have.
PackedMatrix seeded_matrix(Rng& rng, QuantType type, int32_t outputs, int32_t k) {
  const QuantFormat& format = quant_format(type);
  const auto block_bytes = static_cast<size_t>(format.block_bytes);
  const size_t row_bytes = static_cast<size_t>(k / format.block_len) * block_bytes;
  std::vector<std::byte> pool(kDistinctRows * row_bytes);
  for (std::byte& byte : pool) byte = static_cast<std::byte>(rng.next());
  const bool codes4 = type == QuantType::kQ4_1;  // d, m and 16 bytes of codes; Q8_0: d and 32 codes
  const uint16_t scales[2] = {float_to_half(codes4 ? 0.01f : 0.0006f), float_to_half(-0.075f)};
  const auto* scale_bytes = reinterpret_cast<const std::byte*>(scales);
  for (size_t at = 0; at < pool.size(); at += block_bytes)
    std::copy_n(scale_bytes, codes4 ? sizeof(scales) : sizeof(uint16_t), pool.data() + at);
  std::vector<RowSource> rows;
  for (int32_t n = 0; n < outputs; ++n)
    rows.push_back({type, {pool.data() + static_cast<size_t>(n % kDistinctRows) * row_bytes, row_bytes}});
  return PackedMatrix(rows, k);
}

class KernelBench {
 public:
  KernelBench(const OpTable& ops, const ModelShape& shape, const std::string& name, int32_t repetitions,
              const KernelReport& report)
      : ops_(ops), shape_(shape), name_(name), repetitions_(repetitions), report_(report), peak_(ops, team_) {}

  void products();
  void attention();
  void row_kernels();

 private:
  // A matrix with room for its operands and results.
  struct Gemm {
    const Product& product;
    PackedMatrix weights;
    AlignedBuffer operands, out, scratch;
  };
  // One KV head: a tile of queries and the pages before and at it.
  struct Head {
    int32_t pages, group, tile_tokens;
    AlignedBuffer cache, queries, out, row_max, row_sum;
  };

  Gemm make_gemm(const Product& product, QuantType type);
  void multiply(Gemm& gemm, int32_t rows);
  void widen(Gemm& gemm, const std::string& what);
  Head make_head(int32_t tile_tokens);
  void attend(Head& head, int32_t position, int32_t first_page, int32_t end_page);
  void measure_attention(Head& head, const std::string& what, int32_t position, int32_t first_page, int32_t end_page);

  void measure(KernelResult result, const std::function<void()>& call);
  void finish(KernelResult result, std::vector<double> seconds);

  const OpTable& ops_;
  const ModelShape& shape_;
  const std::string& name_;
  int32_t repetitions_;
  const KernelReport& report_;
  ThreadTeam team_{1};
  InstructionPeak peak_;
  SeededRng rng_{2026};
};

void KernelBench::finish(KernelResult result, std::vector<double> seconds) {
  peak_.measure();
  result.seconds = spread_of(std::move(seconds));
  result.peak_operations_per_second = peak_.operations_per_second();
  report_(result);
}

void KernelBench::measure(KernelResult result, const std::function<void()>& call) {
  call();
  const auto calls = static_cast<int32_t>(std::max(1.0, std::ceil(kSampleSeconds / std::max(1e-9, seconds_of(call)))));
  peak_.measure();
  std::vector<double> seconds;
  for (int32_t i = 0; i < repetitions_; ++i) {
    seconds.push_back(seconds_of([&] {
                        for (int32_t c = 0; c < calls; ++c) call();
                      }) /
                      calls);
  }
  finish(std::move(result), std::move(seconds));
}

KernelBench::Gemm KernelBench::make_gemm(const Product& product, QuantType type) {
  const int32_t rows = *std::max_element(std::begin(kGemmRows), std::end(kGemmRows));
  Gemm gemm{product, seeded_matrix(rng_, type, product.outputs, product.k),
            AlignedBuffer(static_cast<size_t>(rows) * ops_.row_bytes(product.k)), AlignedBuffer(),
            AlignedBuffer(ops_.panel_scratch_bytes(product.k))};
  gemm.out = AlignedBuffer(static_cast<size_t>(rows) * static_cast<size_t>(gemm.weights.num_panels()) * kPanelOutputs *
                           sizeof(float));
  std::vector<float> row(static_cast<size_t>(product.k));
  for (int32_t r = 0; r < rows; ++r) {
    fill_uniform(rng_, row);
    ops_.pack_row(row.data(), product.k, gemm.operands.data() + static_cast<size_t>(r) * ops_.row_bytes(product.k));
  }
  return gemm;
}

void KernelBench::multiply(Gemm& gemm, int32_t rows) {
  ops_.gemm({.a = gemm.operands.data(),
             .rows = rows,
             .k = gemm.product.k,
             .panels = gemm.weights.panels(),
             .panel_begin = 0,
             .panel_end = gemm.weights.num_panels(),
             .epilogue = gemm.product.epilogue,
             .out = gemm.out.as<float>().data(),
             .out_stride = static_cast<size_t>(gemm.weights.num_panels()) * kPanelOutputs,
             .scratch = gemm.scratch.data()});
}

// What a panel costs before the first row: twice the time of 48 rows less the time of 96.
void KernelBench::widen(Gemm& gemm, const std::string& what) {
  const auto calls =
      static_cast<int32_t>(std::ceil(kSampleSeconds / std::max(1e-9, seconds_of([&] { multiply(gemm, kWidenRows); }))));
  const auto timed = [&](int32_t rows) {
    return seconds_of([&] {
             for (int32_t c = 0; c < calls; ++c) multiply(gemm, rows);
           }) /
           calls;
  };
  std::vector<double> seconds;
  for (int32_t i = 0; i < repetitions_; ++i) seconds.push_back(2 * timed(kWidenRows) - timed(kWidenRowsTwice));
  finish({.kernel = "widen", .what = what, .bytes = static_cast<double>(gemm.weights.bytes())}, std::move(seconds));
}

void KernelBench::products() {
  for (QuantType type : {QuantType::kQ4_1, QuantType::kQ8_0}) {
    for (const Product& product : layer_products(shape_)) {
      Gemm gemm = make_gemm(product, type);
      const std::string what =
          fmt::format("{} {} {} x {} {}", name_, product.name, product.k, product.outputs, quant_format(type).name);
      double seconds_a_row = 0;
      for (int32_t rows : kGemmRows) {
        if (seconds_a_row * rows > kCallSecondsMax) break;
        seconds_a_row = seconds_of([&] { multiply(gemm, rows); }) / rows;
        if (seconds_a_row * rows > kCallSecondsMax) break;
        const double n = rows, k = product.k, outputs = product.outputs;
        measure({.kernel = "gemm",
                 .what = what,
                 .rows = rows,
                 .operations = 2 * n * k * outputs,
                 .bytes = static_cast<double>(gemm.weights.bytes()) +
                          n * (static_cast<double>(ops_.row_bytes(product.k)) + outputs * sizeof(float))},
                [&] { multiply(gemm, rows); });
      }
      if (seconds_a_row * kWidenRowsTwice < kCallSecondsMax) widen(gemm, what);
    }
  }
}

KernelBench::Head KernelBench::make_head(int32_t tile_tokens) {
  constexpr int32_t kPages = 128;  // 8,192 tokens
  const int32_t group = shape_.num_heads / shape_.num_kv_heads, head_dim = shape_.head_dim;
  const auto rows = static_cast<size_t>(tile_tokens * group);
  const KvLayout layout = ops_.kv_layout(1, head_dim);
  Head head{kPages,
            group,
            tile_tokens,
            AlignedBuffer(kPages * layout.page_bytes()),
            AlignedBuffer(rows * ops_.query_row_bytes(head_dim)),
            AlignedBuffer(rows * static_cast<size_t>(head_dim) * sizeof(float)),
            AlignedBuffer(rows * sizeof(float)),
            AlignedBuffer(rows * 16 * sizeof(float))};
  std::vector<float> row(static_cast<size_t>(head_dim));
  for (int32_t token = 0; token < kPages * kPageTokens; ++token) {
    std::byte* page = head.cache.data() + static_cast<size_t>(token / kPageTokens) * layout.page_bytes();
    fill_uniform(rng_, row);
    ops_.store_key(row.data(), head_dim, token % kPageTokens, page + layout.key_offset(0));
    fill_uniform(rng_, row);
    ops_.store_value(row.data(), head_dim, token % kPageTokens, page + layout.value_offset(0));
  }
  const float scale = 1.44269504f / std::sqrt(static_cast<float>(head_dim));  // log2(e): the softmax has powers of two
  for (size_t r = 0; r < rows; ++r) {
    fill_uniform(rng_, row);
    ops_.store_query(row.data(), scale, head_dim, head.queries.data() + r * ops_.query_row_bytes(head_dim));
  }
  return head;
}

// The tile's first query is at `position`; pages [first_page, end_page).
void KernelBench::attend(Head& head, int32_t position, int32_t first_page, int32_t end_page) {
  const KvLayout layout = ops_.kv_layout(1, shape_.head_dim);
  std::ranges::fill(head.out.as<float>(), 0.0f);
  std::ranges::fill(head.row_max.as<float>(), kNoScore);
  std::ranges::fill(head.row_sum.as<float>(), 0.0f);
  AttendArgs args{.query = head.queries.data(),
                  .out = head.out.as<float>().data(),
                  .row_max = head.row_max.as<float>().data(),
                  .row_sum = head.row_sum.as<float>().data(),
                  .rows = head.tile_tokens * head.group,
                  .group = head.group,
                  .position = position,
                  .head_dim = shape_.head_dim};
  for (int32_t p = first_page; p < end_page; ++p) {
    const std::byte* page = head.cache.data() + static_cast<size_t>(p) * layout.page_bytes();
    args.page_position = p * kPageTokens;
    args.keys = page + layout.key_offset(0);
    args.values = page + layout.value_offset(0);
    ops_.attend_page(args);
  }
}

void KernelBench::measure_attention(Head& head, const std::string& what, int32_t position, int32_t first_page,
                                    int32_t end_page) {
  double pairs = 0;
  for (int32_t t = 0; t < head.tile_tokens; ++t)
    pairs += head.group * (std::min(position + t + 1, end_page * kPageTokens) - first_page * kPageTokens);
  const double page_bytes = static_cast<double>(ops_.kv_layout(1, shape_.head_dim).page_bytes());
  measure({.kernel = "attention",
           .what = fmt::format("{} head_dim {}, {}", name_, shape_.head_dim, what),
           .rows = head.tile_tokens * head.group,
           .operations = 4 * pairs * shape_.head_dim,
           .bytes = (end_page - first_page) * page_bytes},
          [&] { attend(head, position, first_page, end_page); });
}

void KernelBench::attention() {
  Head tile = make_head(kPageTokens);
  const int32_t last = tile.pages - 1, late = last * kPageTokens;
  measure_attention(tile, "own page (half of it is masked)", late, last, tile.pages);
  measure_attention(tile, "early pages 0 to 7 of 128", late, 0, 8);
  measure_attention(tile, "late pages 119 to 126 of 128", late, last - 8, last);
  for (int32_t context : {512, 2048, 8192})
    measure_attention(tile, fmt::format("the last 64 of {} tokens", context), context - kPageTokens, 0,
                      context / kPageTokens);
  Head single = make_head(1);
  measure_attention(single, "one token after 2047", 2047, 0, 32);
}

void KernelBench::row_kernels() {
  for (int32_t k : {shape_.model_dim, shape_.ffn_dim}) {
    const auto size = static_cast<size_t>(k);
    std::vector<float> x(size), gain(size), out(size);
    fill_uniform(rng_, x);
    fill_uniform(rng_, gain);
    AlignedBuffer operand(ops_.row_bytes(k));
    const std::string what = fmt::format("{} {} values", name_, k);
    measure({.kernel = "rms_norm", .what = what, .rows = 1, .bytes = 3.0 * k * sizeof(float)},
            [&] { ops_.rms_norm(x.data(), gain.data(), 1e-5f, k, out.data()); });
    measure({.kernel = "pack_row",
             .what = what,
             .rows = 1,
             .bytes = static_cast<double>(size * sizeof(float) + ops_.row_bytes(k))},
            [&] { ops_.pack_row(x.data(), k, operand.data()); });
  }
  const int32_t head_dim = shape_.head_dim;
  const KvLayout layout = ops_.kv_layout(1, head_dim);
  AlignedBuffer page(layout.page_bytes());
  std::vector<float> key(static_cast<size_t>(head_dim)), value(key.size()), turn(key.size());
  fill_uniform(rng_, key);
  fill_uniform(rng_, value);
  std::fill_n(turn.begin(), turn.size() / 2, 0.6f);                               // cosines
  std::fill_n(turn.begin() + head_dim / 2, turn.size() - turn.size() / 2, 0.8f);  // sines: the key keeps its length
  measure({.kernel = "rotate_store",
           .what = fmt::format("{} one token's key and value of {}", name_, head_dim),
           .rows = 1,
           .bytes = 2.0 * head_dim * (sizeof(float) + layout.element_bytes)},
          [&] {
            ops_.rotate(key.data(), turn.data(), head_dim);
            ops_.store_key(key.data(), head_dim, 17, page.data() + layout.key_offset(0));
            ops_.store_value(value.data(), head_dim, 17, page.data() + layout.value_offset(0));
          });
}

}  // namespace

void bench_kernels(const OpTable& ops, const ModelShape& shape, const std::string& name, int32_t repetitions,
                   const KernelReport& report) {
  const FlushDenormals flush;
  KernelBench bench(ops, shape, name, repetitions, report);
  bench.products();
  bench.attention();
  bench.row_kernels();
}

ModelShape llama3_8b_shape() {
  return {.architecture = "llama",
          .num_layers = 32,
          .model_dim = 4096,
          .num_heads = 32,
          .num_kv_heads = 8,
          .head_dim = 128,
          .ffn_dim = 14336,
          .vocab_size = 128256,
          .context_len = 8192};
}

}  // namespace runahead
