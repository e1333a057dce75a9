// A short check of the kernels against plain loops in double, as one function that says what is wrong. It is compiled once with
// kernels/cuda as it is, and once with each planted fault (CMakeLists.txt), in a namespace of its own each.
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/decode_attention.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/gemm.cuh"

namespace runahead::cuda {
namespace {

template <class Args>
void start(void (*kernel)(Args), simt::Dim3 grid, unsigned threads, const Args& args) {
  simt::launch(grid, threads, [&] { kernel(args); });
}

float value_at(size_t i) { return static_cast<float>(static_cast<int>(i * 7919 % 31) - 15) / 16; }
std::vector<float> floats(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = value_at(i);
  return values;
}
std::vector<uint16_t> bf16s(size_t count) {
  std::vector<uint16_t> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = to_bf16(value_at(i + 3));
  return values;
}
std::string wrong(const char* what, size_t at, double got, double expected) {
  return std::string(what) + " at " + std::to_string(at) + " is " + std::to_string(got) + ", not " +
         std::to_string(expected);
}

std::string check_norm() {
  const std::vector<float> x = floats(200), gain = floats(200);
  std::vector<uint16_t> out(224);
  const RmsNormArgs args{.x = x.data(),
                         .gain = gain.data(),
                         .epsilon = 1e-5f,
                         .rows = 1,
                         .dim = 200,
                         .out = out.data(),
                         .out_stride = 224};
  start(rms_norm_kernel, {1}, kRowThreads, args);
  double squares = 0;
  for (const float value : x) squares += double{value} * value;
  for (size_t i = 0; i < 200; ++i) {
    const double expected = x[i] * gain[i] / std::sqrt(squares / 200 + 1e-5);
    if (std::abs(from_bf16(out[i]) - expected) > 1e-2) return wrong("the norm", i, from_bf16(out[i]), expected);
  }
  return "";
}

std::string check_product() {
  constexpr size_t kRows = 65, kCols = 72, kDepth = 96;
  const std::vector<uint16_t> a = bf16s(kRows * kDepth), w = bf16s(kCols * kDepth);
  std::vector<float> out(kRows * kCols);
  const GemmArgs args{.a = a.data(),
                      .weights = w.data(),
                      .rows = kRows,
                      .n = kCols,
                      .k = kDepth,
                      .out = out.data(),
                      .out_stride = kCols};
  start(gemm_kernel<Epilogue::kStore>, {2, 2}, kGemmThreads, args);
  for (size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < kDepth; ++k)
      sum += double{from_bf16(a[i / kCols * kDepth + k])} * from_bf16(w[i % kCols * kDepth + k]);
    if (std::abs(out[i] - sum) > 1e-3) return wrong("the product", i, out[i], sum);
  }
  return "";
}

// One head of 64 over three pages.
struct Sequence {
  static constexpr size_t kDim = 64, kPages = 3, kRows = 70, kFirst = 100;
  std::vector<uint16_t> memory = bf16s(kPages * 2 * kPage * kDim), queries = bf16s(kRows * kDim);
  std::vector<const uint16_t*> pages;
  std::vector<float> sums = std::vector<float>(kRows * kDim), state = std::vector<float>(kRows * 2);

  static size_t page_of(size_t i) { return i / (2 * kPage * kDim); }
  Sequence() {
    // Later pages have larger keys, so that the largest score grows from page to page.
    for (size_t i = 0; i < memory.size(); ++i)
      memory[i] = to_bf16(from_bf16(memory[i]) * static_cast<float>(page_of(i) + 1) / 4);
    for (size_t p = 0; p < kPages; ++p) pages.push_back(memory.data() + p * 2 * kPage * kDim);
  }
  std::string check(const char* what, size_t row, size_t seen) const {
    std::vector<double> out(kDim);
    double total = 0;
    for (size_t t = 0; t < seen; ++t) {
      const uint16_t* key = pages[t / kPage] + t % kPage * kDim;
      double score = 0;
      for (size_t d = 0; d < kDim; ++d) score += double{from_bf16(queries[row * kDim + d])} * from_bf16(key[d]);
      const double weight = std::exp2(score);
      total += weight;
      for (size_t d = 0; d < kDim; ++d) out[d] += weight * from_bf16(key[kPage * kDim + d]);
    }
    for (size_t d = 0; d < kDim; ++d) {
      const double got = sums[row * kDim + d] / state[row * 2 + 1];
      if (!(std::abs(got - out[d] / total) < 2e-2)) return wrong(what, row * kDim + d, got, out[d] / total);
    }
    return "";
  }
};

std::string check_attention() {
  Sequence s;
  const AttendArgs args{.queries = s.queries.data(),
                        .pages = s.pages.data(),
                        .value_offset = kPage * Sequence::kDim,
                        .row_end = Sequence::kRows,
                        .position = Sequence::kFirst,
                        .page_end = Sequence::kPages,
                        .heads = 1,
                        .kv_heads = 1,
                        .padded_dim = Sequence::kDim,
                        .anew = true,
                        .sums = s.sums.data(),
                        .state = s.state.data()};
  start(attend_kernel<Sequence::kDim>, {2}, kAttendThreads, args);
  for (size_t row = 0; row < Sequence::kRows; ++row)
    if (auto told = s.check("attention", row, Sequence::kFirst + row + 1); !told.empty()) return told;
  return "";
}

std::string check_decode() {
  Sequence s;
  const std::vector<int32_t> positions = {Sequence::kFirst};
  std::vector<float> parts(Sequence::kDim + 2);
  const DecodeAttendArgs args{.queries = s.queries.data(),
                              .pages = s.pages.data(),
                              .positions = positions.data(),
                              .value_offset = kPage * Sequence::kDim,
                              .rows = 1,
                              .pages_stride = Sequence::kPages,
                              .heads = 1,
                              .kv_heads = 1,
                              .padded_dim = Sequence::kDim,
                              .parts = parts.data(),
                              .sums = s.sums.data(),
                              .state = s.state.data()};
  start(decode_part_kernel<Sequence::kDim>, {1}, kDecodeThreads, args);
  start(decode_join_kernel<Sequence::kDim>, {1}, kDecodeThreads, args);
  return s.check("decode attention", 0, Sequence::kFirst + 1);
}

}  // namespace

// Empty: all is well.
std::string KERNEL_CHECK() {
  for (const auto& check : {check_norm, check_product, check_attention, check_decode}) try {
      if (std::string told = check(); !told.empty()) return told;
    } catch (const simt::Fault& fault) {
      return fault.what();
    }
  return "";
}

}  // namespace runahead::cuda
