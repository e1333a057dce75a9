#include "services/commands/plan_profile.h"

#include <gtest/gtest.h>

#include <set>

#include "planner/partition.h"

namespace runahead {
namespace {

// What a fit needs: of each worker chunks of unlike lengths behind unlike prefixes.
TEST(PlanProfile, EveryRankGetsUnlikeChunksBehindUnlikePrefixes) {
  for (const int32_t ranks : {2, 3, 4, 8}) {
    const auto ways = profile_cuts(4096, ranks);
    ASSERT_EQ(ways.size(), 3u);
    for (size_t rank = 0; rank < static_cast<size_t>(ranks); ++rank) {
      std::set<int32_t> lengths, prefixes;
      for (const auto& cuts : ways) {
        const Partition partition = partition_by_hand(4096, cuts).value();
        ASSERT_EQ(std::ssize(partition), ranks);
        lengths.insert(partition[rank].size());
        prefixes.insert(partition[rank].begin);
      }
      EXPECT_GE(lengths.size(), ranks % 2 == 1 && rank == static_cast<size_t>(ranks) / 2 ? 1u : 2u) << rank;
      EXPECT_GE(prefixes.size(), rank == 0 ? 1u : 2u) << rank;
    }
  }
}

TEST(PlanProfile, ShortPromptsAreCutInFewerWaysAndOneWorkerInOne) {
  EXPECT_EQ(profile_cuts(128, 2), (std::vector<std::vector<int32_t>>{{64}}));
  EXPECT_EQ(profile_cuts(1000, 1), (std::vector<std::vector<int32_t>>{{}}));
}

}  // namespace
}  // namespace runahead
