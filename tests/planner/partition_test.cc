#include "planner/partition.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "base/rng.h"

namespace runahead {
namespace {

TEST(Partition, EvenSplitCoversEveryTokenOnceForAnyLengthAndRanks) {
  SeededRng rng(1);
  for (int round = 0; round < 2000; ++round) {
    const auto context_len = static_cast<int32_t>(1 + rng.next() % 70000);
    const auto ranks = static_cast<int32_t>(1 + rng.next() % 80);
    const Partition partition = even_partition(context_len, ranks);
    ASSERT_TRUE(check_partition(partition, context_len)) << context_len << " " << ranks;
    ASSERT_EQ(partition.size(), static_cast<size_t>(std::min({ranks, pages_for(context_len), kPlannedWorkersMax})));
    int32_t least = INT32_MAX, most = 0;  // full pages a rank
    for (const TokenRange& range : partition) {
      least = std::min(least, pages_for(range.size()));
      most = std::max(most, pages_for(range.size()));
    }
    ASSERT_LE(most - least, 1) << context_len << " " << ranks;
  }
}

TEST(Partition, AnInvalidOneIsRefusedWithAReason) {
  EXPECT_TRUE(check_partition(Partition{{0, 100}}, 100));
  EXPECT_FALSE(check_partition(Partition{}, 100));
  EXPECT_FALSE(check_partition(Partition{{0, 64}}, 100));                       // ends early
  EXPECT_FALSE(check_partition(Partition{{0, 64}, {128, 200}}, 200));           // a gap
  EXPECT_FALSE(check_partition(Partition{{0, 128}, {64, 200}}, 200));           // an overlap
  EXPECT_FALSE(check_partition(Partition{{0, 100}, {100, 200}}, 200));          // inside a page
  EXPECT_FALSE(check_partition(Partition{{0, 64}, {64, 64}, {64, 200}}, 200));  // an empty rank
  EXPECT_FALSE(check_partition(Partition{{64, 200}}, 200));                     // does not begin at 0
  EXPECT_FALSE(check_partition(even_partition(64 * 64, 64), 64 * 64 + 1));
}

TEST(Partition, CutsByHandMakeOneRankMoreThanCuts) {
  const int32_t cuts[] = {128, 192};
  const auto partition = partition_by_hand(500, cuts);
  ASSERT_TRUE(partition);
  EXPECT_EQ(*partition, (Partition{{0, 128}, {128, 192}, {192, 500}}));
  EXPECT_EQ(cuts_of(*partition), (std::vector<int32_t>{128, 192}));
  EXPECT_EQ(partition_by_hand(500, {})->size(), 1u);
}

TEST(Partition, AWrongCutIsOneClearSentence) {
  auto error = [](std::vector<int32_t> cuts) { return partition_by_hand(500, cuts).error().message; };
  EXPECT_EQ(error({100}), "cut 100 is not a multiple of the page length; use 64 or 128");
  EXPECT_EQ(error({128, 128}), "cut 128 must be above 128; give the cuts in ascending order");
  EXPECT_EQ(error({-64}), "cut -64 must be above 0; give the cuts in ascending order");
  EXPECT_EQ(error({512}), "cut 512 leaves nothing to the last rank; the prompt has 500 tokens");
  EXPECT_FALSE(partition_by_hand(0, {}));
  EXPECT_FALSE(partition_by_hand(1 << 20, std::vector<int32_t>(64, 64)));
}

}  // namespace
}  // namespace runahead
