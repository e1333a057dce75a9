#include "kernels/cuda/gemm_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace runahead::cuda {
namespace {

// Tiles of algorithms have up to 256 rows: parts of one, and of three.
constexpr int kFew[] = {1, 16, 130, 520};
constexpr int kFirst = 77;  // row of the few, at another place of a tile than among the many
constexpr int kKept = kFirst + 520;  // rows of an output that the host sees, at most
constexpr int kCompared = 130;  // with our kernel

// Two orders of the same fp32 sum differ by less than 2^-20 of sqrt(k) by far; a product too few, by far more.
float tolerance(int k) { return std::sqrt(static_cast<float>(k)) * 0x1p-12f; }

constexpr size_t kValues = 65537;  // a prime: no row of a matrix that is made of so many values is another's

// bf16 of both signs and of seven powers of two below 1, so that sums are rounded, and by their order.
std::vector<uint16_t> random_values() {
  std::vector<uint16_t> values(kValues);
  uint32_t state = 25;
  for (uint16_t& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<uint16_t>((state >> 31 << 15) | ((120u + (state >> 16) % 7u) << 7) | (state >> 9 & 127u));
  }
  return values;
}
std::vector<float> values_before() {
  std::vector<float> values(kValues);
  for (size_t i = 0; i < kValues; ++i) values[i] = static_cast<float>(i % 1009) * 0.01f - 5.0f;
  return values;
}

template <class T>
T* device_array(const CudaOps& ops, int64_t rows, int cols) {
  return static_cast<T*>(ops.allocate_apart(static_cast<size_t>(rows * cols) * sizeof(T)));
}

// Elements [begin, end) of a matrix of the values over and over, to the device.
template <class T>
void fill(const CudaOps& ops, T* to, const std::vector<T>& values, int64_t begin, int64_t end) {
  for (int64_t at = begin; at < end;) {
    const auto skip = static_cast<size_t>(at) % kValues;
    const int64_t piece = std::min(end - at, static_cast<int64_t>(kValues - skip));
    ops.to_device(to + (at - begin), values.data() + skip, static_cast<size_t>(piece) * sizeof(T));
    at += piece;
  }
}

}  // namespace

GemmCheck::GemmCheck(const CudaOps& ops, const GemmShape& shape)
    : ops_(ops),
      shape_(shape),
      a_(device_array<uint16_t>(ops, kMany, shape.k)),
      weights_(device_array<uint16_t>(ops, shape.n, shape.k)),
      out_(device_array<float>(ops, kMany, shape.n)) {
  if (!has_room()) return;
  const std::vector<uint16_t> values = random_values();
  const int64_t other = 12345;  // where the weights begin
  fill(ops, a_, values, 0, int64_t{kMany} * shape.k);
  fill(ops, weights_, values, other, other + int64_t{shape.n} * shape.k);
}

GemmCheck::~GemmCheck() {
  ops_.finish();
  for (void* memory : {static_cast<void*>(a_), static_cast<void*>(weights_), static_cast<void*>(out_)})
    if (memory != nullptr) ops_.release_apart(memory);
}

// Of rows from `first` on; the host is given the first ones.
const char* GemmCheck::run(const Multiply& multiply, int first, int rows, std::vector<float>& sums) const {
  static const std::vector<float> before = values_before();
  fill(ops_, out_, before, int64_t{first} * shape_.n, int64_t{first + rows} * shape_.n);
  sums.resize(static_cast<size_t>(std::min(rows, kKept)) * static_cast<size_t>(shape_.n));
  const char* failure = multiply({.a = a_ + static_cast<int64_t>(first) * shape_.k,
                                  .weights = weights_,
                                  .rows = rows,
                                  .n = shape_.n,
                                  .k = shape_.k,
                                  .epilogue = shape_.epilogue,
                                  .out = out_,
                                  .out_stride = shape_.n});
  ops_.to_host(sums.data(), out_, sums.size() * sizeof(float));
  return failure;
}

std::string GemmCheck::fault_of(const Multiply& multiply) const {
  const Multiply our_kernel = [this](const GemmArgs& args) -> const char* {
    ops_.gemm(args);
    return nullptr;
  };
  std::vector<float> ours, many, few;
  run(our_kernel, 0, kCompared, ours);
  if (const char* failure = run(multiply, 0, kMany, many)) return failure;
  for (size_t i = 0; i < ours.size(); ++i)
    if (!(std::abs(ours[i] - many[i]) <= tolerance(shape_.k))) return "its sums are not those of our kernel";
  for (const int rows : kFew) {
    if (const char* failure = run(multiply, kFirst, rows, few)) return failure;
    const float* among_many = many.data() + static_cast<size_t>(kFirst) * static_cast<size_t>(shape_.n);
    if (std::memcmp(few.data(), among_many, few.size() * sizeof(float)) != 0)
      return "a row's bits depend on how many there are";
  }
  return "";
}

}  // namespace runahead::cuda
