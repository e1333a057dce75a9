// The cluster under faults, many seeds: issue point 9. A failure prints the command that replays it.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/log.h"
#include "seed_run.h"

namespace runahead::test {
namespace {

constexpr uint64_t kSeedsDefault = 300;
constexpr uint64_t kMutantSeedsMax = 1000;  // a planted bug shows within so many seeds

uint64_t seeds_from_environment() {
  const char* text = std::getenv("RUNAHEAD_SIM_SEEDS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : kSeedsDefault;
}

class Simulation : public testing::Test {
 protected:
  void SetUp() override { log::set_level(log::Level::kOff); }
};

TEST_F(Simulation, EveryAcceptedRequestEndsWithTheRightTokensAndNothingLeaks) {
  SeedResult sum;
  const uint64_t seeds = seeds_from_environment();
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const SeedResult result = run_seed(seed, {});
    ASSERT_EQ(result.failure, "") << "replay: " << replay_command(seed, "none");
    sum.requests += result.requests, sum.finished += result.finished, sum.retried += result.retried;
    sum.kills += result.kills, sum.pauses += result.pauses, sum.cuts += result.cuts;
    sum.corrupted_pages += result.corrupted_pages;
    sum.sticks += result.sticks;
  }
  // A run in which little happened proves little: it is void.
  EXPECT_GT(sum.finished, sum.requests / 2);
  EXPECT_GT(sum.retried, static_cast<int32_t>(seeds) / 20);
  EXPECT_GT(sum.kills, static_cast<int32_t>(seeds) / 2);
  EXPECT_GT(sum.pauses + sum.cuts, static_cast<int32_t>(seeds) / 2);
  EXPECT_GT(sum.corrupted_pages, static_cast<int64_t>(seeds) / 20);
  if (seeds >= 100) EXPECT_GT(sum.sticks, static_cast<int32_t>(seeds) / 20);  // rarer: a few seeds may have none
}

TEST_F(Simulation, TheSameSeedGivesTheSameTrace) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const SeedResult first = run_seed(seed, {}), second = run_seed(seed, {});
    EXPECT_EQ(first.trace, second.trace) << seed;
    EXPECT_EQ(first.steps, second.steps) << seed;
  }
}

class PlantedBug : public testing::TestWithParam<NamedMutant> {
 protected:
  void SetUp() override { log::set_level(log::Level::kOff); }
};

TEST_P(PlantedBug, IsFound) {
  for (uint64_t seed = 1; seed <= kMutantSeedsMax; ++seed) {
    const SeedResult result = run_seed(seed, GetParam().mutant);
    if (result.failure.empty()) continue;
    std::printf("%s: seed %llu: %s\n", GetParam().name, static_cast<unsigned long long>(seed), result.failure.c_str());
    return;
  }
  FAIL() << GetParam().name << " survived " << kMutantSeedsMax << " seeds";
}

INSTANTIATE_TEST_SUITE_P(All, PlantedBug, testing::ValuesIn(all_mutants().begin() + 1, all_mutants().end()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace runahead::test
