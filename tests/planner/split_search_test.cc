#include "planner/split_search.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/rng.h"
#include "planner/split_table.h"
#include "planner/strategies.h"

namespace runahead {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The paper's machine (docs/paper.md), whose searched and predicted splits are printed.
constexpr double kA = 0.0790 / 1024, kB = 0.02075 / (1024 * 1024);

std::vector<WorkerProfile> a100s(size_t count, double bytes_per_second = 300e9) {
  return std::vector<WorkerProfile>(count,
                                    {.speed = {.seconds_per_token = kA, .seconds_per_pair = kB},
                                     .ingress = {.latency_seconds = 2e-5, .bytes_per_second = bytes_per_second}});
}
ModelCost paper_model() {
  return {.num_layers = 32,
          .kv_bytes_per_token = 0.537e9 / 1024,
          .qkv_share = 0.249,
          .head_tokens = 0.5,
          .diagonal_share = 1,
          .skip_last_layer = false};
}

double ttft(const std::vector<int32_t>& cuts, int32_t context_len, size_t workers) {
  return chain_timeline(paper_model(), a100s(workers), *partition_by_hand(context_len, cuts)).ttft_seconds;
}

SplitSearch run_search(int32_t context_len, int32_t ranks, double noise = 0, uint64_t seed = 1) {
  SplitSearch search(context_len, ranks);
  SeededRng rng(seed);
  while (const auto cuts = search.next()) {
    const double factor = 1 + noise * (2 * static_cast<double>(rng.next() >> 11) * 0x1.0p-53 - 1);
    search.measured(ttft(*cuts, context_len, static_cast<size_t>(ranks)) * factor);
  }
  return search;
}

TEST(SplitSearch, FindsThePapersSearchedSplitOf16kOnTwo) {
  const SplitSearch search = run_search(16384, 2);
  EXPECT_NEAR(search.best_cuts().at(0) / 16384.0, 9728 / 16384.0, 0.01);
  EXPECT_LT(search.measurements(), 40);
}

TEST(SplitSearch, NoNeighbourOfWhatItFoundIsBetterAndBalancedIsWithinOnePercent) {
  for (const int32_t ranks : {2, 3, 4, 8}) {
    const int32_t context_len = 8192;
    const SplitSearch search = run_search(context_len, ranks);
    for (size_t i = 0; i < search.best_cuts().size(); ++i)
      for (const int32_t step : {-kPageTokens, kPageTokens}) {
        std::vector<int32_t> moved = search.best_cuts();
        moved[i] += step;
        EXPECT_GE(ttft(moved, context_len, static_cast<size_t>(ranks)), search.best_seconds());
      }
    PlanRequest request{
        .context_len = context_len, .model = paper_model(), .workers = a100s(static_cast<size_t>(ranks))};
    request.ranks = ranks;
    const Plan balanced = *make_plan(request);
    EXPECT_LT(balanced.predicted_ttft_seconds, 1.013 * search.best_seconds()) << ranks << " ranks; paper: 1.3 %";
  }
}

TEST(SplitSearch, EndsWithNoiseAndGoesOnFromItsAnswers) {
  const SplitSearch whole = run_search(8192, 4, 0.05, 7);
  EXPECT_LT(whole.measurements(), 1000);
  // Broken off anywhere, and begun again with the answers that are known.
  std::map<std::vector<int32_t>, double> answers;
  SeededRng rng(7);
  SplitSearch first(8192, 4);
  for (int i = 0; i < 20; ++i) {
    const auto cuts = *first.next();
    EXPECT_EQ(*first.next(), cuts) << "asked again, the same";
    const double factor = 1 + 0.05 * (2 * static_cast<double>(rng.next() >> 11) * 0x1.0p-53 - 1);
    answers[cuts] = ttft(cuts, 8192, 4) * factor;
    first.measured(answers[cuts]);
  }
  SplitSearch second(8192, 4);
  while (answers.contains(*second.next())) second.measured(answers[*second.next()]);
  EXPECT_EQ(second.measurements(), 20);
  EXPECT_EQ(*second.next(), *first.next());
  EXPECT_EQ(second.best_cuts(), first.best_cuts());
}

TEST(SplitSearch, EveryChainThatAPromptCanHave) {
  for (const int32_t context_len : {1, 64, 65, 200, 640, 5000})
    for (int32_t ranks = 1; ranks <= std::min(ranks_max(context_len), 6); ++ranks) {
      SplitSearch search(context_len, ranks);
      while (const auto cuts = search.next()) {
        ASSERT_TRUE(partition_by_hand(context_len, *cuts)) << context_len;
        ASSERT_EQ(std::ssize(*cuts), ranks - 1);
        search.measured(1.0 + static_cast<double>(cuts->empty() ? 0 : cuts->front()));
      }
      EXPECT_EQ(search.progress(), 1);
      EXPECT_FALSE(search.next());
    }
}

SplitTable two_entries() {
  return {.identity = "m", .entries = {{8192, {0.4, 0.25, 0.2, 0.15}, 0.4}, {12288, {0.3, 0.26, 0.22, 0.22}, 0.8}}};
}

// Paper 4.2: 10k of 8k and 12k is their mean.
TEST(SplitTable, PredictsByTheTwoNearestLengths) {
  const Partition partition = predicted_partition(two_entries(), 10240);
  EXPECT_THAT(cuts_of(partition), ElementsAre(3584, 6208, 8320));  // .35, .605, .815 at the nearest page
  EXPECT_EQ(cuts_of(predicted_partition(two_entries(), 8192)), cuts_of(*searched_partition(two_entries(), 8192)));
  const Partition shorter = predicted_partition(two_entries(), 1024);
  EXPECT_NEAR(shorter[0].size() / 1024.0, 0.4, 0.04) << "the first entry's";
  const Partition longer = predicted_partition(two_entries(), 65536);
  EXPECT_NEAR(longer[0].size() / 65536.0, 0.3, 0.001) << "the last entry's";
}

TEST(SplitTable, SearchedIsForTheVeryLength) {
  EXPECT_THAT(searched_partition(two_entries(), 9000).error().message, HasSubstr("only for 8192, 12288"));
}

TEST(SplitTable, RefusesWhatIsNone) {
  const auto why = [](std::vector<SplitEntry> entries) {
    return check_table({.identity = "m", .entries = std::move(entries)}).error().message;
  };
  EXPECT_TRUE(check_table(two_entries()));
  EXPECT_THAT(why({}), HasSubstr("no entry"));
  EXPECT_THAT(why({{8192, {0.5, 0.6}, 1}}), HasSubstr("parts of 1"));
  EXPECT_THAT(why({{8192, {1.5, -0.5}, 1}}), HasSubstr("parts of 1"));
  EXPECT_THAT(why({{8192, {0.5, 0.5}, 1}, {8192, {0.5, 0.5}, 1}}), HasSubstr("not longer"));
  EXPECT_THAT(why({{8192, {0.5, 0.5}, 1}, {9000, {1.0}, 1}}), HasSubstr("another number of ranks"));
  EXPECT_THAT(why({{64, {0.5, 0.5}, 1}}), HasSubstr("has 2 ranks"));
  EXPECT_THAT(why({{8192, {}, 1}}), HasSubstr("has 0 ranks"));
}

}  // namespace
}  // namespace runahead
