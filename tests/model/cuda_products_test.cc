// The engine with products of prefill by a library, a double of cuBLASLt (tests/support/cublaslt): no cut, call or batch mate
// changes a bit, and its fingerprint is another than that of an engine whose products are all our kernel's.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "kernels/cuda/library_gemm.h"
#include "model/cuda_transformer/cuda_transformer.h"
#include "simt.h"
#include "simt_ops.h"
#include "tests/model/transformer/engine_cases.h"
#include "tests/support/cublaslt/cublaslt_double.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kDouble = RUNAHEAD_BINARY_DIR "/tests/support/cublaslt/librunahead_cublaslt_double.so";

template <class Function>
Function of_double(const char* name) {
  return reinterpret_cast<Function>(dlsym(dlopen(kDouble, RTLD_NOW | RTLD_LOCAL), name));
}
int products() {
  return of_double<cuda::CublasLtDoubleGet>("cublaslt_double_get")(static_cast<int>(cuda::CublasLtDouble::kProducts));
}

// A device with the library: one, for a process has one table.
const cuda::CudaOps& device_with_library() {
  static cuda::CudaOps ops = cuda::simt_device();
  static const bool added = [] {
    setenv("RUNAHEAD_CUBLASLT_LIBRARY", kDouble, 1);
    std::string why;
    const auto note = [](const char* failure) { throw simt::Fault(failure); };
    const bool done = cuda::add_library_gemm({.ops = ops, .multiprocessors = 132}, ops, note, why);
    unsetenv("RUNAHEAD_CUBLASLT_LIBRARY");
    return done;
  }();
  EXPECT_TRUE(added);
  return ops;
}

TEST(CudaProducts, ByALibraryNoCutOrCallOrMateChangesABit) {
  const TempDir dir;
  write_tiny_llama(dir / "tiny.gguf", 5, {.num_layers = 2});
  const auto engine = *CudaTransformer::load(device_with_library(), {.model = dir / "tiny.gguf"});
  const auto ours = *CudaTransformer::load(cuda::simt_device(), {.model = dir / "tiny.gguf"});
  Case c(9), same(9);
  const std::vector<TokenId> prompt = prompt_of(c, 200, 300), continuation = prompt_of(c, 2, 300);
  const Outcome want = run_case(*engine, prompt, continuation, {}, 0, c);
  const Outcome near = run_case(*ours, prompt, continuation, {}, 0, same);
  EXPECT_FALSE(want.pages == near.pages) << "they are the library's";
  double squares = 0, off = 0;
  for (size_t i = 0; i < want.logits.size(); ++i) {
    squares += std::pow(double{near.logits[i]}, 2);
    off += std::pow(double{want.logits[i]} - near.logits[i], 2);
  }
  EXPECT_LT(off, squares * 1e-3) << "and differ by last bits of bf16 only";
  for (uint64_t seed = 0; seed < 3; ++seed) {
    Case variation(100 + seed);
    const Outcome got = run_case(*engine, prompt, continuation, variation.cuts(200), 2, variation);
    EXPECT_TRUE(same_bits(got.logits, want.logits)) << seed;
    EXPECT_EQ(got.pages, want.pages) << seed;
    for (size_t step = 0; step < want.decoded.size(); ++step)
      EXPECT_TRUE(same_bits(got.decoded[step], want.decoded[step])) << seed << " step " << step;
  }
}

TEST(CudaProducts, OfADecodeStepAreOurKernels) {
  const TempDir dir;
  write_tiny_llama(dir / "tiny.gguf", 5, {.num_layers = 1});
  const auto engine = *CudaTransformer::load(device_with_library(), {.model = dir / "tiny.gguf"});
  const auto pool = *make_kv_pool(*engine, 1);
  const auto kv = *pool->lease(1, 10);
  Case c(1);
  const int before = products();
  run_chunk(*engine, *kv, prompt_of(c, 9, 300), {0, 9}, true, c);
  const int prefilled = products();
  EXPECT_GT(prefilled, before);
  const DecodeRow row{.kv = kv.get(), .token = 3, .position = 9};
  std::vector<float> logits(static_cast<size_t>(engine->shape().vocab_size));
  engine->decode({&row, 1}, logits);
  EXPECT_EQ(products(), prefilled);
}

// Who computes otherwise shares no pages.
TEST(CudaProducts, AreNamedByTheFingerprint) {
  const TempDir dir;
  const auto fingerprint = [&](const cuda::CudaOps& ops, int32_t model_dim) {
    write_tiny_llama(dir / "tiny.gguf", 5, {.num_layers = 1, .model_dim = model_dim});
    const auto engine = *CudaTransformer::load(ops, {.model = dir / "tiny.gguf"});
    return engine->fingerprint();
  };
  EXPECT_THAT(fingerprint(device_with_library(), 64), HasSubstr("cuda-bf16 simt/products-"));
  EXPECT_THAT(fingerprint(cuda::simt_device(), 64), Not(HasSubstr("products")));
  const auto set = of_double<cuda::CublasLtDoubleSet>("cublaslt_double_set");
  set(static_cast<int>(cuda::CublasLtDouble::kAreWrong), 8);
  const std::string refused = fingerprint(device_with_library(), 96);
  set(static_cast<int>(cuda::CublasLtDouble::kAreWrong), 0);
  EXPECT_EQ(refused, fingerprint(cuda::simt_device(), 96));
  EXPECT_THAT(device_with_library().gemm_text(), HasSubstr("its sums are not those of our kernel"));
}

}  // namespace
}  // namespace runahead::test
