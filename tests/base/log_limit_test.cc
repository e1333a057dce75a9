#include "base/log_limit.h"

#include <gtest/gtest.h>

#include "base/limits.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

TEST(LogLimit, ABurstThenOneLineAPauseWithTheNumberOfThoseLeftOut) {
  LogLimit limit;
  Time now{100s};
  int written = 0;
  for (int i = 0; i < 100'000; ++i) written += limit.admit(now);
  EXPECT_EQ(written, limits::kLogBurst);
  now += limits::kLogPause;
  EXPECT_TRUE(limit.admit(now));
  EXPECT_EQ(limit.take_left_out(), 100'000u - limits::kLogBurst);
  for (int i = 0; i < 1000; ++i) written += limit.admit(now);
  EXPECT_EQ(written, limits::kLogBurst) << "the burst is over";
  now += 2 * limits::kLogPause;
  EXPECT_TRUE(limit.admit(now));
  EXPECT_EQ(limit.take_left_out(), 1000u);
}

TEST(LogLimit, AfterAQuietTimeABurstIsAllowedAgain) {
  LogLimit limit;
  Time now{100s};
  for (int i = 0; i < 50; ++i) limit.admit(now);
  now += limits::kLogPause;
  EXPECT_TRUE(limit.admit(now));  // alone in its window
  limit.take_left_out();
  now += limits::kLogPause;
  int written = 0;
  for (int i = 0; i < 50; ++i) written += limit.admit(now);
  EXPECT_EQ(written, limits::kLogBurst);
}

TEST(Foreign, LongTextIsCutAndSaysHowLongItWas) {
  EXPECT_EQ(foreign("short"), "short");
  const std::string cut = foreign(std::string(4 << 20, 'x'));
  EXPECT_LT(cut.size(), limits::kForeignTextBytesMax + 40);
  EXPECT_NE(cut.find("4194304 bytes"), std::string::npos);
}

}  // namespace
}  // namespace runahead
