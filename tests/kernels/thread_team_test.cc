#include "kernels/thread_team.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include <chrono>
#include <limits>

namespace runahead {
namespace {

TEST(ThreadTeam, RunsEveryPartOnce) {
  for (int32_t threads : {1, 2, 3, 5}) {
    ThreadTeam team(threads);
    for (int32_t parts : {0, 1, 2, 7, 100}) {
      for (int round = 0; round < 50; ++round) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(parts));
        team.run(parts, [&](int32_t part, int32_t thread) {
          ASSERT_LT(thread, threads);
          ++seen[static_cast<size_t>(part)];
        });
        for (const auto& count : seen) ASSERT_EQ(count.load(), 1);
      }
    }
  }
}

TEST(ThreadTeam, FlushesDenormalsOnEveryThreadAndRestoresTheCaller) {
  volatile float tiny = std::numeric_limits<float>::min();
  const auto is_flushed = [&] { return tiny / 2 == 0.0f; };
  ASSERT_FALSE(is_flushed());
  ThreadTeam team(2);
  std::atomic<int> flushed{0};
  team.run(64, [&](int32_t, int32_t) { flushed += is_flushed(); });
  EXPECT_EQ(flushed.load(), 64);
  EXPECT_FALSE(is_flushed());
}

TEST(ThreadTeam, BurnsNothingWhenIdle) {
  ThreadTeam team(3);
  team.run(3, [](int32_t, int32_t) {});
  const auto cpu_seconds = [] {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  };
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(cpu_seconds() - before, 0.02);
}

}  // namespace
}  // namespace runahead
