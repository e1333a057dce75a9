#include "base/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace runahead {
namespace {

Result<int> half(int n) {
  if (n % 2) return fail(ErrorCode::kInvalidArgument, "odd", "n");
  return n / 2;
}
Result<int> quarter(int n) {
  const int once = TRY(half(n));
  return TRY(half(once));
}
Result<void> check_even(int n) {
  TRY(half(n));
  return {};
}
Result<std::unique_ptr<int>> boxed(int n) {
  TRY(check_even(n));
  auto box = TRY(Result<std::unique_ptr<int>>(std::make_unique<int>(n)));
  return box;
}

TEST(Result, TryPassesValuesAndReturnsErrors) {
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_EQ(quarter(6).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(quarter(6).error().param, "n");
  EXPECT_EQ(**boxed(4), 4);
  EXPECT_FALSE(boxed(3));
}

TEST(Result, EveryCodeHasANameAStatusAndAnExitCode) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    EXPECT_FALSE(name(code).empty());
    EXPECT_GE(http_status(code), 400);
    EXPECT_NE(exit_code(code), 0);
  }
  EXPECT_EQ(http_status(ErrorCode::kOverloaded), 429);
  EXPECT_EQ(exit_code(ErrorCode::kDeadlineExceeded), 124);
}

}  // namespace
}  // namespace runahead
