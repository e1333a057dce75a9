#include "services/engine/kernel_timings.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

std::vector<KernelTiming> some_timings() {
  return {{.isa = "avx512", .mode = ComputeMode::kInt8, .giga_ops_per_second = 472.5, .gemm_giga_ops_per_second = 310},
          {.isa = "generic", .mode = ComputeMode::kFp32}};
}

TEST(KernelTimings, ComeBackAsTheyWereWritten) {
  const auto read = parse_kernel_timings(encode_kernel_timings(some_timings(), "a machine"), "a machine");
  ASSERT_TRUE(read.has_value()) << read.error().message;
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].isa, "avx512");
  EXPECT_EQ((*read)[0].mode, ComputeMode::kInt8);
  EXPECT_EQ((*read)[0].giga_ops_per_second, 472.5);
  EXPECT_EQ((*read)[0].gemm_giga_ops_per_second, 310);
  EXPECT_EQ((*read)[1].giga_ops_per_second, 0);
}

TEST(KernelTimings, OfAnotherMachineOrDamagedAreRefused) {
  const std::string text = encode_kernel_timings(some_timings(), "a machine");
  EXPECT_FALSE(parse_kernel_timings(text, "another machine").has_value());
  for (const char* bad :
       {"", "[]", "{}", R"({"machine":"a machine","tables":3})", R"({"machine":"a machine","tables":[3]})",
        R"({"machine":"a machine","tables":[{"isa":"x","compute":"int8","dot_giga_ops_per_second":-1,
                          "product_giga_ops_per_second":1}]})"})
    EXPECT_FALSE(parse_kernel_timings(bad, "a machine").has_value()) << bad;
  for (size_t length = 0; length + 2 < text.size(); ++length)
    EXPECT_FALSE(parse_kernel_timings(text.substr(0, length), "a machine").has_value()) << length;
}

TEST(KernelTimings, OfOtherTablesThanRunHereAreNotUsed) { EXPECT_FALSE(use_kernel_timings(some_timings())); }

TEST(KernelTimings, TheProcessUsesWhatItReports) {
  const KernelTimings& prepared = prepare_kernels();
  ASSERT_EQ(prepared.timings.size(), runnable_ops().size());
  EXPECT_EQ(&prepare_kernels(), &prepared);
}

}  // namespace
}  // namespace runahead
