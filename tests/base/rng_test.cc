#include "base/rng.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

TEST(Philox, KnownAnswers) {  // Random123's kat_vectors: philox4x32 10 rounds
  const std::array<uint32_t, 4> zeros = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  EXPECT_EQ(philox4x32(0, 0, 0), zeros);
  const std::array<uint32_t, 4> ones = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  EXPECT_EQ(philox4x32(~0ull, ~0ull, ~0ull), ones);
}

TEST(Philox, UniformStaysInsideTheUnitInterval) {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = philox_uniform(42, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);  // standard error 0.003
}

}  // namespace
}  // namespace runahead
