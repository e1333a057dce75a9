#include "bench/kernel_bench.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/weights/padded_shape.h"

namespace runahead {
namespace {

constexpr double kSampleSeconds =
    2e-3;  // a sample is at least so long: the clock and a cold start are little beside it
constexpr double kCallSecondsMax = 3;  // ten minutes would go by on one large product otherwise
constexpr int32_t kDistinctRows = 64;  // weight rows that are made up; a matrix repeats them
constexpr size_t kOutlierPeriod = 12;  // of the activations' blocks (kernel_bench.h)
constexpr uint64_t kOutliersPer1024 = 31;  // of the other blocks

struct Product {
  std::string name;
  QuantType type;
  int32_t outputs, k;
  Epilogue epilogue;
};

std::vector<Product> products_of(const ModelShape& s) {
  const int32_t q_dim = s.num_heads * s.head_dim, kv_dim = s.num_kv_heads * s.head_dim;
  std::vector<Product> products = {
      {"qkv", QuantType::kQ4_1, q_dim + 2 * kv_dim, s.model_dim, Epilogue::kStore},
      {"attention_out", QuantType::kQ4_1, s.model_dim, q_dim, Epilogue::kAdd},
      {"gate_up", QuantType::kQ4_1, 2 * s.ffn_dim, s.model_dim, Epilogue::kSiluMul},
      {"down", QuantType::kQ4_1, s.model_dim, s.ffn_dim, Epilogue::kAdd},
  };
  if (s.vocab_size > 0)
    products.push_back({"vocabulary", QuantType::kQ8_0, s.vocab_size, s.model_dim, Epilogue::kStore});
  return products;
}

// Of this thread on its core: what other processes take in turn is not ours, and on a shared machine it is most of the
// noise.
double core_seconds_of(const std::function<void()>& work) {
  const auto now = [] {
    timespec t{};
    RUNAHEAD_CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0, "Linux has a clock of every thread");
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double start = now();
  work();
  return now() - start;
}

// Uniform in [-1, 1).
void fill_uniform(Rng& rng, std::span<float> out) {
  for (float& x : out) x = static_cast<float>(static_cast<double>(rng.next() >> 11) * 0x1p-52 - 1);
}

void fill_activations(Rng& rng, std::span<float> out) {
  fill_uniform(rng, out);
  for (size_t b = 0; b * kPanelBlock < out.size(); ++b) {
    if (b % kOutlierPeriod != 0 && rng.next() % 1024 >= kOutliersPer1024) continue;
    for (float& x : out.subspan(b * kPanelBlock, kPanelBlock)) x *= 3;
  }
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

// A product with its operands: [up to rows_max, k] x [k, outputs].
class Gemm {
 public:
  Gemm(const OpTable& ops, Rng& rng, const Product& product, int32_t rows_max)
      : ops_(ops),
        product_(product),
        weights_(seeded_matrix(rng, product.type, product.outputs, product.k)),
        operands_(static_cast<size_t>(rows_max) * ops.row_bytes(product.k)),
        out_(static_cast<size_t>(rows_max) * out_stride() * sizeof(float)),
        scratch_(ops.panel_scratch_bytes(product.k)) {}

  void pack(Rng& rng, int32_t rows) {
    operand_ = {product_.k, rows, weights_.widest()};
    std::vector<float> row(static_cast<size_t>(product_.k));
    for (int32_t r = 0; r < rows; ++r) {
      fill_activations(rng, row);
      ops_.pack_row(row.data(), operand_, operands_.data() + static_cast<size_t>(r) * ops_.row_bytes(product_.k));
    }
  }

  void multiply() {
    ops_.gemm({.a = operands_.data(),
               .operand = operand_,
               .panels = weights_.panels(),
               .panel_begin = 0,
               .panel_end = weights_.num_panels(),
               .epilogue = product_.epilogue,
               .out = out_.as<float>().data(),
               .out_stride = out_stride(),
               .scratch = scratch_.data()});
  }

 private:
  size_t out_stride() const { return static_cast<size_t>(weights_.num_panels()) * kPanelOutputs; }

  const OpTable& ops_;
  Product product_;
  PackedMatrix weights_;
  Operand operand_;
  AlignedBuffer operands_, out_, scratch_;
};

// One KV head: a tile of kPageTokens tokens' queries, and the pages up to the tile's own.
class AttentionHead {
 public:
  AttentionHead(const OpTable& ops, Rng& rng, const ModelShape& shape, int32_t pages)
      : ops_(ops),
        layout_(ops.kv_layout(1, shape.head_dim)),
        cache_(static_cast<size_t>(pages) * layout_.page_bytes()),
        tile_{.rows = kPageTokens * shape.num_heads / shape.num_kv_heads,
              .group = shape.num_heads / shape.num_kv_heads,
              .head_dim = shape.head_dim},
        tile_data_(ops.attention_tile_bytes(tile_.rows, tile_.head_dim)) {
    tile_.data = tile_data_.data();
    std::vector<float> row(static_cast<size_t>(tile_.head_dim));
    for (int32_t token = 0; token < pages * kPageTokens; ++token) {
      std::byte* page = page_at(token / kPageTokens);
      fill_uniform(rng, row);
      ops.store_key(row.data(), tile_.head_dim, token % kPageTokens, page + layout_.key_offset(0));
      fill_uniform(rng, row);
      ops.store_value(row.data(), tile_.head_dim, token % kPageTokens, page + layout_.value_offset(0));
    }
    const float scale = 1.44269504f / std::sqrt(static_cast<float>(tile_.head_dim));  // log2(e): powers of two
    for (int32_t r = 0; r < tile_.rows; ++r) {
      fill_uniform(rng, row);
      ops.store_query(row.data(), scale, tile_, r);
    }
  }

  // The last kPageTokens of `context` tokens attend to all of them.
  void attend(int32_t context) {
    for (int32_t p = 0; p < context / kPageTokens; ++p) {
      const std::byte* page = page_at(p);
      ops_.attend_page({.tile = tile_,
                        .position = context - kPageTokens,
                        .page_position = p * kPageTokens,
                        .anew = p == 0,
                        .keys = page + layout_.key_offset(0),
                        .values = page + layout_.value_offset(0)});
    }
  }

  int32_t rows() const { return tile_.rows; }
  double pairs(int32_t context) const {
    return tile_.group * (kPageTokens * (context - kPageTokens) + kPageTokens * (kPageTokens + 1) / 2.0);
  }

 private:
  std::byte* page_at(int32_t page) { return cache_.data() + static_cast<size_t>(page) * layout_.page_bytes(); }

  const OpTable& ops_;
  KvLayout layout_;
  AlignedBuffer cache_;
  AttentionTile tile_;
  AlignedBuffer tile_data_;
};

// With the lengths that the kernels see.
ModelShape padded(ModelShape shape) {
  const PaddedShape lengths(shape);
  shape.model_dim = lengths.model_dim, shape.head_dim = lengths.head_dim, shape.ffn_dim = lengths.ffn_dim;
  return shape;
}

class KernelBench {
 public:
  KernelBench(const OpTable& ops, const ModelShape& shape, const KernelBenchOptions& options,
              const KernelReport& report)
      : ops_(ops), shape_(padded(shape)), options_(options), report_(report), peak_(ops, team_) {}

  void dots();
  void products();
  void attention();

 private:
  // Calls that take kSampleSeconds together, given what one takes; the time of one.
  static double sample(const std::function<void()>& call, double call_seconds);
  void report(KernelResult result, std::vector<double> seconds);

  const OpTable& ops_;
  const ModelShape shape_;
  const KernelBenchOptions& options_;
  const KernelReport& report_;
  ThreadTeam team_{1};
  InstructionPeak peak_;
  SeededRng rng_{2026};
};

double KernelBench::sample(const std::function<void()>& call, double call_seconds) {
  const double calls = std::max(1.0, std::ceil(kSampleSeconds / std::max(1e-7, call_seconds)));
  return core_seconds_of([&] {
           for (double c = 0; c < calls; ++c) call();
         }) /
         calls;
}

void KernelBench::report(KernelResult result, std::vector<double> seconds) {
  peak_.measure();
  result.seconds = spread_of(std::move(seconds));
  result.peak_operations_per_second = peak_.operations_per_second();
  report_(result);
}

void KernelBench::dots() {
  constexpr int64_t kRounds = 400'000;  // about 2 ms
  std::vector<double> seconds_an_operation;
  for (int32_t i = 0; i < options_.repetitions; ++i) {
    peak_.measure();
    double done = 0;
    const double elapsed = core_seconds_of([&] { done = ops_.issue_dots(kRounds); });
    seconds_an_operation.push_back(elapsed / done);
  }
  peak_.measure();
  const double operations = peak_.operations_per_second();
  for (double& seconds : seconds_an_operation) seconds *= operations;
  report({.kernel = "dot", .what = "the mode's dot instruction alone", .operations = operations},
         std::move(seconds_an_operation));
}

void KernelBench::products() {
  for (const Product& product : products_of(shape_)) {
    Gemm gemm(ops_, rng_, product, options_.rows.back());
    double seconds_a_row = 0;
    for (int32_t rows : options_.rows) {
      if (seconds_a_row * rows > kCallSecondsMax) break;
      gemm.pack(rng_, rows);
      const auto call = [&] { gemm.multiply(); };
      const double first = core_seconds_of(call);  // warms up
      peak_.measure();
      std::vector<double> seconds;
      for (int32_t i = 0; i < options_.repetitions; ++i) seconds.push_back(sample(call, first));
      seconds_a_row = seconds.back() / rows;
      report({.kernel = "gemm",
              .what = fmt::format("{} {} {} -> {} {}", options_.name, product.name, product.k, product.outputs,
                                  quant_format(product.type).name),
              .rows = rows,
              .operations = 2.0 * rows * product.k * product.outputs},
             std::move(seconds));
    }
  }
}

void KernelBench::attention() {
  AttentionHead head(ops_, rng_, shape_, options_.contexts.back() / kPageTokens);
  std::vector<std::vector<double>> seconds(options_.contexts.size()), of_first(options_.contexts.size());
  std::vector<double> first;
  for (int32_t context : options_.contexts)
    first.push_back(core_seconds_of([&] { head.attend(context); }));  // warms up
  for (int32_t i = 0; i < options_.repetitions; ++i) {
    peak_.measure();
    for (size_t c = 0; c < options_.contexts.size(); ++c) {  // in turn, so that a ratio is of neighbours in time
      const int32_t context = options_.contexts[c];
      seconds[c].push_back(sample([&] { head.attend(context); }, first[c]));
      of_first[c].push_back(head.pairs(context) / seconds[c].back() /
                            (head.pairs(options_.contexts[0]) / seconds[0].back()));
    }
  }
  for (size_t c = 0; c < options_.contexts.size(); ++c) {
    const double pairs = head.pairs(options_.contexts[c]);
    report({.kernel = "attention",
            .what = fmt::format("{} head_dim {}, last {} of {} tokens", options_.name, shape_.head_dim, kPageTokens,
                                options_.contexts[c]),
            .rows = head.rows(),
            .operations = 4 * pairs * shape_.head_dim,
            .pairs = pairs,
            .of_first = spread_of(of_first[c]).median},
           std::move(seconds[c]));
  }
}

}  // namespace

void bench_kernels(const OpTable& ops, const ModelShape& shape, const KernelBenchOptions& options,
                   const KernelReport& report) {
  RUNAHEAD_CHECK(!options.rows.empty() && !options.contexts.empty() && options.repetitions > 0,
                 "there is something to measure");
  for (int32_t context : options.contexts)
    RUNAHEAD_CHECK(context > 0 && context % kPageTokens == 0, "a context is whole pages");
  const FlushDenormals flush;
  KernelBench bench(ops, shape, options, report);
  bench.dots();
  bench.products();
  bench.attention();
}

ModelShape llama3_8b_shape() {
  return {.architecture = "llama",
          .num_layers = 32,
          .model_dim = 4096,
          .num_heads = 32,
          .num_kv_heads = 8,
          .head_dim = 128,
          .ffn_dim = 14336,
          .vocab_size = 0,
          .context_len = 8192};
}

}  // namespace runahead
