#include "actors/worker/worker_link.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

using namespace std::chrono_literals;

TEST(AbsenceReports, SayItAtOnceThenOnceAMinuteWithHowLong) {
  AbsenceReports reports;
  int said = 0;
  for (Time now = 100s; now < 100s + 10min; now += 1s) said += reports.due(now).has_value();
  EXPECT_EQ(said, 10);
  EXPECT_EQ(reports.due(100s + 10min), std::optional<Duration>(10min));
  EXPECT_EQ(reports.due(100s + 10min + 1s), std::nullopt);
}

TEST(AbsenceReports, ANewAbsenceIsSaidAtOnce) {
  AbsenceReports reports;
  EXPECT_EQ(reports.due(100s), std::optional<Duration>(0s));
  reports.over();
  EXPECT_EQ(reports.due(101s), std::optional<Duration>(0s));
}

}  // namespace
}  // namespace runahead
