#include "services/commands/fail_if.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace runahead {
namespace {

using testing::HasSubstr;

const Measures kMeasured = {
    {"ttft_p95_s", 2.31}, {"tpot_mean_s", 0.05}, {"failed_ratio", 0.02}, {"tokens_per_second", 90}, {"e2e_max_s", NAN}};

bool holds(const std::string& text) {
  const auto condition = FailIf::parse(text, kMeasured);
  EXPECT_TRUE(condition) << (condition ? "" : condition.error().message);
  return condition && condition->holds(kMeasured);
}

TEST(FailIf, ComparesInTheUnitThatIsGiven) {
  EXPECT_TRUE(holds("ttft_p95>2s"));
  EXPECT_TRUE(holds("ttft_p95 > 2000 ms"));
  EXPECT_FALSE(holds("ttft_p95>2.5s"));
  EXPECT_TRUE(holds("ttft_p95<=2310ms"));
  EXPECT_TRUE(holds("tpot_mean>=50ms"));
  EXPECT_FALSE(holds("tpot_mean>50ms"));
  EXPECT_TRUE(holds("failed_ratio>1%"));
  EXPECT_FALSE(holds("failed_ratio>0.05"));
  EXPECT_TRUE(holds("tokens_per_second<100"));
  EXPECT_FALSE(holds("tokens_per_second<9e1"));
}

TEST(FailIf, WhatCouldNotBeMeasuredIsNotFine) {
  EXPECT_TRUE(holds("e2e_max>100s"));
  EXPECT_TRUE(holds("e2e_max<100s"));
  EXPECT_EQ(FailIf::parse("e2e_max>1s", kMeasured)->sentence(kMeasured),
            "e2e_max is not measured: --fail-if e2e_max>1s");
}

TEST(FailIf, SaysWhatWasMeasured) {
  EXPECT_EQ(FailIf::parse(" ttft_p95 > 2s ", kMeasured)->sentence(kMeasured),
            "ttft_p95 is 2.310 s: --fail-if ttft_p95>2s");
  EXPECT_EQ(FailIf::parse("failed_ratio>1%", kMeasured)->sentence(kMeasured),
            "failed_ratio is 2.0 %: --fail-if failed_ratio>1%");
}

TEST(FailIf, RefusesWhatIsNoCondition) {
  for (const auto& [text, why] : std::initializer_list<std::pair<const char*, const char*>>{
           {"", "no <, <=, > or >="},
           {"ttft_p95", "no <, <=, > or >="},
           {"ttft_p95=2s", "no <, <=, > or >="},
           {"ttft_p95>", "a number must follow"},
           {"ttft_p95>fast", "a number must follow"},
           {"ttft_p95>infs", "a number must follow"},
           {"ttft_p95>nan", "a number must follow"},
           {"ttft_p95>1e999s", "a number must follow"},
           {"ttft_p95>2", "a time ends in s or ms"},
           {"ttft_p95>2h", "a time ends in s or ms"},
           {"ttft_p95>2s>1s", "a time ends in s or ms"},
           {"tokens_per_second>2s", "no unit of this number"},
           {"tokens_per_second>2%", "no unit of this number"},
           {"ttft_p96>2s", "there are e2e_max, failed_ratio, tokens_per_second, tpot_mean, ttft_p95"},
           {">2s", "there is no such number"}}) {
    const auto condition = FailIf::parse(text, kMeasured);
    ASSERT_FALSE(condition) << text;
    EXPECT_EQ(condition.error().param, "fail-if");
    EXPECT_THAT(condition.error().message, HasSubstr(why)) << text;
  }
}

}  // namespace
}  // namespace runahead
