// The simulation's own rules: what it promises to the tests that stand on it.
#include "sim_world.h"

#include <gtest/gtest.h>

#include "base/async/wake.h"
#include "sim_clock.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

asio::awaitable<void> count_ticks(SimClock& clock, int& ticks) {
  for (;;) {
    co_await clock.sleep_for(10ms);
    ++ticks;
  }
}

TEST(SimWorld, TimeJumpsToTheNextTimerAndClocksDriftLittle) {
  SimWorld world(1);
  Process& process = world.start(1);
  SimClock clock(process);
  int ticks = 0;
  process.spawn(count_ticks(clock, ticks));
  const Time local_begin = clock.now();
  while (world.step(1s)) {
  }
  EXPECT_EQ(world.now(), 1s);
  EXPECT_NEAR(ticks, 99, 1);
  EXPECT_NEAR(seconds(clock.now() - local_begin), 1, 0.0006);
  world.end(process);
}

TEST(SimWorld, APausedProcessRunsNothingAndThenCatchesUp) {
  SimWorld world(2);
  Process& process = world.start(1);
  SimClock clock(process);
  int ticks = 0;
  process.spawn(count_ticks(clock, ticks));
  while (world.step(100ms)) {
  }
  const int before = ticks;
  world.pause(process);
  while (world.step(2s)) {
  }
  EXPECT_EQ(ticks, before);
  world.resume(process);
  while (world.step(2100ms)) {
  }
  EXPECT_GT(ticks, before);
  world.end(process);
}

TEST(SimWorld, AnIsolatedProcessRunsInPrivateTimeOnly) {
  SimWorld world(3);
  Process& process = world.start(1);
  SimClock clock(process);
  int ticks = 0;
  process.spawn(count_ticks(clock, ticks));
  while (world.step(100ms)) {
  }
  world.isolate(process);
  while (world.step(1s)) {
  }
  const int before = ticks;
  EXPECT_TRUE(world.run_isolated(process, [&] { return ticks >= before + 50; }, 1000));
  EXPECT_EQ(world.now(), 1s);
  world.end(process);
}

struct Witness {
  int& destroyed;
  ~Witness() { ++destroyed; }
};
asio::awaitable<void> hold(SimClock& clock, int& destroyed) {
  Witness witness{destroyed};
  co_await clock.sleep_for(24h);
}

TEST(SimWorld, EndingAProcessDestroysItsCoroutines) {
  SimWorld world(4);
  Process& process = world.start(1);
  SimClock clock(process);
  int destroyed = 0;
  process.spawn(hold(clock, destroyed));
  while (world.step(1s)) {
  }
  world.end(process);
  EXPECT_EQ(destroyed, 1);
}

TEST(SimWorld, TheOrderOfReadyTasksIsTheSeeds) {
  auto order = [](uint64_t seed) {
    SimWorld world(seed);
    Process& process = world.start(1);
    std::vector<int> ran;
    for (int i = 0; i < 20; ++i) process.post([&ran, i] { ran.push_back(i); });
    while (world.step(1s)) {
    }
    return ran;
  };
  EXPECT_EQ(order(7), order(7));
  EXPECT_NE(order(7), order(8));
}

asio::awaitable<void> wait_for(Wake& wake, SimClock& clock, Duration timeout, std::vector<double>& woke) {
  const Time begin = clock.now();
  co_await wake.wait_until({begin + timeout});
  woke.push_back(seconds(clock.now() - begin));
}

TEST(SimWorld, AWakeSleepsInVirtualTime) {
  SimWorld world(5);
  Process& process = world.start(1);
  SimClock clock(process);
  Wake wake(process.executor(), clock);
  std::vector<double> woke;
  process.spawn(wait_for(wake, clock, 3s, woke));
  process.spawn(wait_for(wake, clock, 1s, woke));  // an earlier deadline than the one that is slept for
  while (world.step(2s)) {
  }
  ASSERT_EQ(woke.size(), 1u);
  EXPECT_NEAR(woke[0], 1, 0.01);
  while (world.step(4s)) {
  }
  ASSERT_EQ(woke.size(), 2u);
  EXPECT_NEAR(woke[1], 3, 0.01);
  process.spawn(wait_for(wake, clock, 1s, woke));
  world.at(world.now() + 100ms, [&] { process.post([&] { wake.notify(); }); });
  while (world.step(8s)) {
  }
  ASSERT_EQ(woke.size(), 3u);
  EXPECT_NEAR(woke[2], 0.1, 0.01);
  world.end(process);
}

// Between its spawn and its first step, in an order that the seed decides.
TEST(SimWorld, AWakesTimerIsReplacedAlsoBeforeItHasBegun) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SimWorld world(seed);
    Process& process = world.start(1);
    SimClock clock(process);
    Wake wake(process.executor(), clock);
    std::vector<double> woke;
    for (const Duration timeout : {3s, 2s, 1s}) process.spawn(wait_for(wake, clock, timeout, woke));
    while (world.step(4s)) {
    }
    ASSERT_EQ(woke.size(), 3u) << seed;
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(woke[i], 1.0 + static_cast<double>(i), 0.01) << seed;
    world.end(process);
  }
}

}  // namespace
}  // namespace runahead::test
