// Products by cuBLASLt, over a double of the library (tests/support/cublaslt) and the emulation of a device: they are our
// kernel's but for the last bits, whatever the sizes; and what does not keep its promises is not used.
#include "kernels/cuda/library_gemm.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "base/rng.h"
#include "kernels/cuda/gemm_check.h"
#include "kernels/quant_blocks.h"
#include "simt_ops.h"
#include "tests/support/cublaslt/cublaslt_double.h"

namespace runahead::cuda {
namespace {

using ::testing::HasSubstr;
using Fault = CublasLtDouble;

constexpr const char* kDouble = RUNAHEAD_BINARY_DIR "/tests/support/cublaslt/librunahead_cublaslt_double.so";

class LibraryGemmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("RUNAHEAD_CUBLASLT_LIBRARY", kDouble, 1);
    unsetenv("RUNAHEAD_CUDA_GEMM");
    void* library = dlopen(kDouble, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    set_ = reinterpret_cast<CublasLtDoubleSet>(dlsym(library, "cublaslt_double_set"));
    get_ = reinterpret_cast<CublasLtDoubleGet>(dlsym(library, "cublaslt_double_get"));
    set(Fault::kVersion, 130100);
    set(Fault::kAlgorithms, 2);
    for (const Fault fault : {Fault::kHasNoDevice, Fault::kSplitK, Fault::kNeedWorkspace, Fault::kSumByRows,
                              Fault::kAreWrong, Fault::kFailForFew, Fault::kRefuseSome})
      set(fault, 0);
  }
  void TearDown() override {
    unsetenv("RUNAHEAD_CUBLASLT_LIBRARY");
    unsetenv("RUNAHEAD_CUDA_GEMM");
  }

  void set(Fault what, int value) { set_(static_cast<int>(what), value); }
  int products() { return get_(static_cast<int>(Fault::kProducts)); }
  std::unique_ptr<LibraryGemm> open(int multiprocessors = 132, const CudaOps& ops = simt_ops()) {
    return LibraryGemm::open({.ops = ops, .multiprocessors = multiprocessors}, why_);
  }
  // Why the library makes no product of the shape.
  std::string refusal(const GemmShape& shape = {64, 64}) {
    const auto library = open();
    return library->choose(shape).empty() ? library->text() : "it makes them";
  }

  std::string why_;

 private:
  CublasLtDoubleSet set_ = nullptr;
  CublasLtDoubleGet get_ = nullptr;
};

std::vector<uint16_t> random_values(size_t count, uint64_t seed) {
  SeededRng rng(seed);
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = float_to_bf16(static_cast<float>(rng.next() >> 40) * 0x1p-23f - 1.0f);
  return values;
}

// What a product leaves in an output that held 9 everywhere, by our kernel or as it was chosen.
struct LibraryProduct {
  int rows;
  GemmShape shape;
  int stride;  // of the output
  std::vector<uint16_t> a = random_values(static_cast<size_t>(rows * shape.k), 1);
  std::vector<uint16_t> weights = random_values(static_cast<size_t>(shape.n * shape.k), 2);

  GemmArgs args(void* out, int first = 0) const {
    return {.a = a.data() + static_cast<int64_t>(first) * shape.k,
            .weights = weights.data(),
            .rows = rows - first,
            .n = shape.n,
            .k = shape.k,
            .epilogue = shape.epilogue,
            .out = out,
            .out_stride = stride,
            .as_chosen = true};
  }
  template <class Multiply>
  std::vector<float> result(Multiply multiply, int first = 0) const {
    const auto size = static_cast<size_t>((rows - first) * stride);
    std::vector<float> sums(size, 9.0f);
    if (shape.epilogue != Epilogue::kSiluMul) {
      multiply(args(sums.data(), first));
      return sums;
    }
    std::vector<uint16_t> activated(size, float_to_bf16(9.0f));
    multiply(args(activated.data(), first));
    std::ranges::transform(activated, sums.begin(), bf16_to_float);
    return sums;
  }
};

TEST_F(LibraryGemmTest, ProductsOfOddSizesAreThoseOfOurKernel) {
  for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluMul})
    for (const auto& [rows, n, k] : {std::tuple{1, 4, 32}, {7, 76, 96}, {65, 132, 160}, {130, 64, 64}}) {
      const auto library = open();
      ASSERT_NE(library, nullptr) << why_;
      const LibraryProduct product{.rows = rows, .shape = {n, k, epilogue}, .stride = n + 4};
      ASSERT_FALSE(library->choose(product.shape).empty()) << library->text();
      ASSERT_TRUE(library->makes(product.args(nullptr)));
      set(Fault::kProducts, 0);
      const auto got = product.result([&](const GemmArgs& args) { ASSERT_EQ(library->multiply(args), nullptr); });
      const auto want = product.result(simt_ops().gemm);
      EXPECT_EQ(products(), 1);
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_NEAR(got[i], want[i], epilogue == Epilogue::kSiluMul ? std::abs(want[i]) / 100 + 1e-4 : 1e-3)
            << rows << " " << n << " " << k << ": " << i;
    }
}

// Also where many are made piece by piece.
TEST_F(LibraryGemmTest, ARowsProductDependsOnNoOther) {
  for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluMul}) {
    const auto library = open();
    const LibraryProduct product{.rows = GemmCheck::kMany + 70, .shape = {12, 32, epilogue}, .stride = 12};
    ASSERT_FALSE(library->choose(product.shape).empty()) << library->text();
    const auto multiply = [&](const GemmArgs& args) { ASSERT_EQ(library->multiply(args), nullptr); };
    const auto all = product.result(multiply);
    for (const int first : {1, 77, product.rows - 1}) {
      const auto some = product.result(multiply, first);
      EXPECT_TRUE(std::ranges::equal(some, std::span(all).subspan(static_cast<size_t>(first) * 12))) << first;
    }
  }
}

TEST_F(LibraryGemmTest, OnlyWhatWasChosenAndIsAskedForIsTheLibrarys) {
  const auto library = open();
  const LibraryProduct product{.rows = 1, .shape = {8, 32}, .stride = 8};
  GemmArgs args = product.args(nullptr);
  EXPECT_FALSE(library->makes(args)) << "its way was not chosen";
  const std::string name = library->choose(product.shape);
  EXPECT_TRUE(library->makes(args));
  args.epilogue = Epilogue::kAdd;
  EXPECT_FALSE(library->makes(args)) << "another shape";
  args = product.args(nullptr), args.as_chosen = false;
  EXPECT_FALSE(library->makes(args)) << "a decode step's";
  set(Fault::kAlgorithms, 0);
  EXPECT_EQ(library->choose(product.shape), name) << "once and for all";
}

TEST_F(LibraryGemmTest, WhatBreaksAPromiseIsNotUsed) {
  const struct {
    Fault fault;
    const char* said;
  } faults[] = {{Fault::kSplitK, "no algorithm that sums in one sequence"},
                {Fault::kNeedWorkspace, "no algorithm that sums in one sequence"},
                {Fault::kSumByRows, "a row's bits depend on how many there are"},
                {Fault::kAreWrong, "its sums are not those of our kernel"},
                {Fault::kRefuseSome, "there are numbers of rows that it does not take"},
                {Fault::kFailForFew, "CUBLAS_STATUS_NOT_SUPPORTED"}};
  for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluMul})
    for (const auto& [fault, said] : faults) {
      set(fault, 2);
      EXPECT_THAT(refusal({64, 64, epilogue}), HasSubstr(std::string("; not for [64, 64]: "))) << said;
      EXPECT_THAT(refusal({64, 64, epilogue}), HasSubstr(said));
      set(fault, 0);
    }
  EXPECT_EQ(refusal(), "it makes them");
  EXPECT_THAT(refusal({6, 32}), HasSubstr("its rows of the output are not aligned"));
  set(Fault::kAlgorithms, 0);
  EXPECT_THAT(refusal(), HasSubstr("no algorithm that sums in one sequence"));
}

TEST_F(LibraryGemmTest, TheFirstAlgorithmThatKeepsThemIsChosen) {
  const std::string first = open()->choose({64, 64});
  for (const Fault fault : {Fault::kSplitK, Fault::kSumByRows, Fault::kRefuseSome, Fault::kFailForFew}) {
    set(fault, 1);
    const std::string second = open()->choose({64, 64});
    EXPECT_NE(second, "");
    EXPECT_NE(second, first) << "workers that chose otherwise are to tell each other apart";
    set(fault, 0);
  }
}

TEST_F(LibraryGemmTest, EqualDevicesAndLibrariesAgree) {
  const std::string name = open()->choose({64, 64});
  EXPECT_THAT(name, HasSubstr("cuBLASLt 13.1.0 for 132 multiprocessors, algorithm "));
  EXPECT_EQ(open()->choose({64, 64}), name);
  EXPECT_NE(open(114)->choose({64, 64}), name);
  set(Fault::kVersion, 130200);
  EXPECT_NE(open()->choose({64, 64}), name);
}

// simt_device() tells the host's memory from its own.
TEST_F(LibraryGemmTest, ItsCheckUsesTheDevicesMemory) {
  EXPECT_NE(open(132, simt_device())->choose({64, 64, Epilogue::kSiluMul}), "");
  CudaOps full = simt_device();
  full.allocate_apart = [](size_t) -> void* { return nullptr; };
  const auto library = open(132, full);
  EXPECT_EQ(library->choose({64, 64}), "");
  EXPECT_THAT(library->text(), HasSubstr("there is no room to check it"));
}

TEST_F(LibraryGemmTest, WithoutTheLibraryItSaysWhatIsMissing) {
  set(Fault::kHasNoDevice, 1);
  EXPECT_EQ(open(), nullptr);
  EXPECT_EQ(why_, "cuBLASLt 13.1.0 cannot be used: CUBLAS_STATUS_NOT_INITIALIZED");
  set(Fault::kVersion, 110000);
  EXPECT_EQ(open(), nullptr);
  EXPECT_THAT(why_, HasSubstr("librunahead_cublaslt_double.so is no cuBLASLt, or one older than 12"));
  setenv("RUNAHEAD_CUBLASLT_LIBRARY", "libm.so.6", 1);
  EXPECT_EQ(open(), nullptr);
  EXPECT_EQ(why_, "libm.so.6 is no cuBLASLt, or one older than 12");
  setenv("RUNAHEAD_CUBLASLT_LIBRARY", "/nowhere/libcublasLt.so.13", 1);
  EXPECT_EQ(open(), nullptr);
  EXPECT_THAT(why_, HasSubstr("/nowhere/libcublasLt.so.13: cannot open shared object file"));
  EXPECT_FALSE(LibraryGemm::is_demanded());
}

TEST_F(LibraryGemmTest, AWayCanBeForced) {
  setenv("RUNAHEAD_CUDA_GEMM", "own", 1);
  EXPECT_EQ(open(), nullptr);
  EXPECT_EQ(why_, "RUNAHEAD_CUDA_GEMM says so");
  EXPECT_FALSE(LibraryGemm::is_demanded());
  setenv("RUNAHEAD_CUDA_GEMM", "cublaslt", 1);
  EXPECT_NE(open(), nullptr);
  EXPECT_TRUE(LibraryGemm::is_demanded());
  setenv("RUNAHEAD_CUDA_GEMM", "fast", 1);
  EXPECT_EQ(open(), nullptr);
  EXPECT_EQ(why_, "RUNAHEAD_CUDA_GEMM is own or cublaslt, not fast");
  EXPECT_TRUE(LibraryGemm::is_demanded());
}

// The library itself (tests/run.sh cuda): what we say of products has the sizes that it expects, and wrong ones are refused.
TEST(CublasLtLibrary, TakesWhatWeSayOfAProduct) {
  const char* path = std::getenv("RUNAHEAD_TEST_CUBLASLT_LIBRARY");
  if (path == nullptr) GTEST_SKIP() << "RUNAHEAD_TEST_CUBLASLT_LIBRARY names no library";
  setenv("RUNAHEAD_CUBLASLT_LIBRARY", path, 1);
  std::string why;
  const auto api = open_cublaslt(why);
  unsetenv("RUNAHEAD_CUBLASLT_LIBRARY");
  ASSERT_TRUE(api) << why;
  void *product = nullptr, *layout = nullptr, *preference = nullptr;
  ASSERT_EQ(api->product_create(&product, kCublasCompute32F, kCudaFloat), kCublasSuccess);
  EXPECT_EQ(api->product_set(product, kLtTransposeA, &kCublasTransposed, sizeof kCublasTransposed), kCublasSuccess);
  EXPECT_NE(api->product_set(product, kLtTransposeA, &kCublasTransposed, 1), kCublasSuccess);
  ASSERT_EQ(api->layout_create(&layout, kCudaBf16, 64, 130, 64), kCublasSuccess);
  ASSERT_EQ(api->preference_create(&preference), kCublasSuccess);
  const uint64_t no_bytes = 0;
  const uint32_t alignment = 16;
  EXPECT_EQ(api->preference_set(preference, kLtWorkspaceMax, &no_bytes, sizeof no_bytes), kCublasSuccess);
  EXPECT_EQ(api->preference_set(preference, kLtReductionSchemes, &kLtNoReduction, sizeof kLtNoReduction),
            kCublasSuccess);
  for (const int operand : kLtAlignment)
    EXPECT_EQ(api->preference_set(preference, operand, &alignment, sizeof alignment), kCublasSuccess);
  EXPECT_EQ(api->preference_destroy(preference), kCublasSuccess);
  EXPECT_EQ(api->layout_destroy(layout), kCublasSuccess);
  EXPECT_EQ(api->product_destroy(product), kCublasSuccess);
}

}  // namespace
}  // namespace runahead::cuda
