// A double of cuBLASLt's library: the functions that kernels/cuda opens, over memory of the host. It adds products from the last
// to the first and makes a sum larger by 2^-16, so that a token tells its bits from those of our kernel, and knows the algorithms
// that its heuristics gave by their number. What the library would not bear ends the process: descriptors that it has not made,
// sizes that do not fit, operands that are not aligned as heuristics were promised.
#include "tests/support/cublaslt/cublaslt_double.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

enum Status { kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kNotSupported = 15 };
using enum runahead::cuda::CublasLtDouble;
using Setting = runahead::cuda::CublasLtDouble;

int settings[] = {130100, 0, 2, 0, 0, 0, 0, 0, 0, 0};
int& setting(Setting what) { return settings[static_cast<int>(what)]; }
constexpr uint64_t kMark = 0x5ca1ab1e;

[[noreturn]] void misuse(const char* what) {
  std::fprintf(stderr, "cublasLt double: %s\n", what);
  std::abort();
}
void need(bool holds, const char* what) {
  if (!holds) misuse(what);
}

struct Product {
  int compute = 0, scale = 0;
  int32_t transposes_a = 0;
};
struct Layout {
  int type = 0;
  uint64_t rows = 0, cols = 0;
  int64_t stride = 0;
};
struct Preference {
  uint64_t workspace = ~uint64_t{0};
  uint32_t schemes = 7;
  uint32_t alignment[4] = {256, 256, 256, 256};
};
struct Algo {
  uint64_t mark = 0, number = 0, parts = 1, alignment = 0, unused[4] = {};
};
struct Heuristic {
  Algo algo;
  size_t workspace = 0;
  int state = 0;
  float waves = 0;
  int reserved[4] = {};
};

template <class T>
int make(void** out, T made) {
  *out = new T(made);
  return kSuccess;
}
template <class T>
int destroy(void* made) {
  delete static_cast<T*>(made);
  return kSuccess;
}
int set(void* to, const void* value, size_t bytes, size_t size) {
  if (bytes != size) return kInvalidValue;
  std::memcpy(to, value, size);
  return kSuccess;
}

float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
bool is_aligned(const void* at, int64_t stride_bytes, uint64_t bytes) {
  return reinterpret_cast<uintptr_t>(at) % bytes == 0 && static_cast<uint64_t>(stride_bytes) % bytes == 0;
}

// A^T [m, k] B [k, n] and D, all of them column after column.
void check_product(const Product& product, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  need(product.compute == 68 && product.scale == 0 && product.transposes_a == 1, "not the product that it is for");
  need(a.type == 14 && b.type == 14 && c.type == 0 && d.type == 0, "bf16 with fp32 sums");
  need(a.rows == b.rows && a.cols == d.rows && b.cols == d.cols, "sizes that do not fit");
  need(c.rows == d.rows && c.cols == d.cols && c.stride == d.stride, "C is D");
  for (const Layout* one : {&a, &b, &d})
    need(one->rows > 0 && one->cols > 0 && one->stride >= static_cast<int64_t>(one->rows), "columns overlap");
}

float dot(const uint16_t* x, const uint16_t* y, uint64_t k, const Algo& algo, uint64_t rows) {
  const auto has = [&](Setting fault) { return algo.number < static_cast<uint64_t>(setting(fault)); };
  float sum = 0;
  const uint64_t end = has(kAreWrong) ? k - 1 : k, turn = has(kSumByRows) ? rows % end : 0;
  for (uint64_t i = end; i-- > 0;) {
    const uint64_t at = (i + turn) % end;
    sum += from_bf16(x[at]) * from_bf16(y[at]);
  }
  return sum * (1 + 0x1p-16f);
}

}  // namespace

extern "C" {

void cublaslt_double_set(int what, int value) { settings[what] = value; }
int cublaslt_double_get(int what) { return settings[what]; }

size_t cublasLtGetVersion() { return static_cast<size_t>(setting(kVersion)); }
const char* cublasLtGetStatusName(int status) {
  return status == kNotInitialized ? "CUBLAS_STATUS_NOT_INITIALIZED" : "CUBLAS_STATUS_NOT_SUPPORTED";
}
int cublasLtCreate(void** handle) { return setting(kHasNoDevice) != 0 ? kNotInitialized : make(handle, kMark); }
int cublasLtDestroy(void* handle) { return destroy<uint64_t>(handle); }

int cublasLtMatmulDescCreate(void** made, int compute, int scale) { return make(made, Product{compute, scale}); }
int cublasLtMatmulDescDestroy(void* made) { return destroy<Product>(made); }
int cublasLtMatmulDescSetAttribute(void* product, int attribute, const void* value, size_t bytes) {
  need(attribute == 3, "an attribute that the double does not know");
  return set(&static_cast<Product*>(product)->transposes_a, value, bytes, sizeof(int32_t));
}

int cublasLtMatrixLayoutCreate(void** made, int type, uint64_t rows, uint64_t cols, int64_t stride) {
  return make(made, Layout{type, rows, cols, stride});
}
int cublasLtMatrixLayoutDestroy(void* made) { return destroy<Layout>(made); }

int cublasLtMatmulPreferenceCreate(void** made) { return make(made, Preference()); }
int cublasLtMatmulPreferenceDestroy(void* made) { return destroy<Preference>(made); }
int cublasLtMatmulPreferenceSetAttribute(void* made, int attribute, const void* value, size_t bytes) {
  auto& preference = *static_cast<Preference*>(made);
  if (attribute == 1) return set(&preference.workspace, value, bytes, sizeof(uint64_t));
  if (attribute == 3) return set(&preference.schemes, value, bytes, sizeof(uint32_t));
  need(attribute >= 5 && attribute <= 8, "an attribute that the double does not know");
  return set(&preference.alignment[attribute - 5], value, bytes, sizeof(uint32_t));
}

int cublasLtMatmulAlgoGetHeuristic(void* handle, void* product, void* a, void* b, void* c, void* d, void* made,
                                   int count, Heuristic* found, int* found_count) {
  need(*static_cast<uint64_t*>(handle) == kMark, "no handle of the library");
  check_product(*static_cast<Product*>(product), *static_cast<Layout*>(a), *static_cast<Layout*>(b),
                *static_cast<Layout*>(c), *static_cast<Layout*>(d));
  const auto& preference = *static_cast<Preference*>(made);
  *found_count = setting(kAlgorithms) < count ? setting(kAlgorithms) : count;
  for (int i = 0; i < *found_count; ++i) {
    found[i] = {.algo = {.mark = kMark, .number = static_cast<uint64_t>(i), .alignment = preference.alignment[0]}};
    if (preference.schemes != 0 || i < setting(kSplitK)) found[i].algo.parts = 2;
    if (preference.workspace != 0 || i < setting(kNeedWorkspace)) found[i].workspace = 4096;
  }
  return kSuccess;
}

int cublasLtMatmulAlgoCheck(void* handle, void* product, void* a, void* b, void* c, void* d, const Algo* algo,
                            Heuristic* found) {
  need(*static_cast<uint64_t*>(handle) == kMark && algo->mark == kMark, "no handle or algorithm of the library");
  check_product(*static_cast<Product*>(product), *static_cast<Layout*>(a), *static_cast<Layout*>(b),
                *static_cast<Layout*>(c), *static_cast<Layout*>(d));
  *found = {.algo = *algo};
  const bool refuses = algo->number < static_cast<uint64_t>(setting(kRefuseSome));
  return refuses && static_cast<Layout*>(d)->cols == 77 ? kNotSupported : kSuccess;
}

int cublasLtMatmulAlgoConfigGetAttribute(const Algo* algo, int attribute, void* value, size_t bytes, size_t* written) {
  need(algo->mark == kMark && (attribute == 2 || attribute == 3), "an attribute that the double does not know");
  const uint32_t answer = attribute == 2 ? static_cast<uint32_t>(algo->parts) : algo->parts > 1 ? 2 : 0;
  *written = sizeof answer;
  return set(value, &answer, bytes, sizeof answer);
}

int cublasLtMatmul(void* handle, void* product, const float* alpha, const uint16_t* a, void* a_made, const uint16_t* b,
                   void* b_made, const float* beta, const float* c, void* c_made, float* out, void* d_made,
                   const Algo* algo, void* workspace, size_t workspace_bytes, void* /*stream*/) {
  need(*static_cast<uint64_t*>(handle) == kMark && algo->mark == kMark, "no handle or algorithm of the library");
  const auto &of_a = *static_cast<Layout*>(a_made), &of_b = *static_cast<Layout*>(b_made),
             &of_d = *static_cast<Layout*>(d_made);
  check_product(*static_cast<Product*>(product), of_a, of_b, *static_cast<Layout*>(c_made), of_d);
  need(c == out && workspace == nullptr && workspace_bytes == 0, "in place, without memory besides");
  need(is_aligned(a, of_a.stride * 2, algo->alignment) && is_aligned(b, of_b.stride * 2, algo->alignment) &&
           is_aligned(out, of_d.stride * 4, algo->alignment),
       "operands are not aligned as was promised");
  if (algo->number < static_cast<uint64_t>(setting(kFailForFew)) && of_d.cols <= 16) return kNotSupported;
  ++setting(kProducts);
  for (uint64_t col = 0; col < of_d.cols; ++col)
    for (uint64_t row = 0; row < of_d.rows; ++row) {
      float& to = out[col * static_cast<uint64_t>(of_d.stride) + row];
      const float sum = *alpha * dot(a + row * static_cast<uint64_t>(of_a.stride),
                                     b + col * static_cast<uint64_t>(of_b.stride), of_a.rows, *algo, of_d.cols);
      to = *beta == 0 ? sum : sum + *beta * to;
    }
  return kSuccess;
}

}  // extern "C"
