#include "base/async/wake.h"

#include "base/async/gate.h"
#include "base/async/stall_timer.h"
#include "tests/support/loop.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

asio::awaitable<void> notify_after(Wake& wake, Clock& clock, Duration delay) {
  co_await clock.sleep_for(delay);
  wake.notify();
}

TEST(Wake, ANotifyWithoutAWaiterIsKept) {
  Loop loop;
  Wake wake(loop.io.get_executor(), loop.clock);
  wake.notify();
  wake.notify();
  EXPECT_TRUE(loop.run(wake.wait_until(loop.clock.after(1s))));
  EXPECT_FALSE(loop.run(wake.wait_until(loop.clock.after(5ms)))) << "several count once";
}

TEST(Wake, ADeadlinePassesOnTimeAndAnEarlierOneIsNotMissed) {
  Loop loop;
  Wake wake(loop.io.get_executor(), loop.clock);
  loop.spawn(notify_after(wake, loop.clock, 10ms));
  EXPECT_TRUE(loop.run(wake.wait_until(loop.clock.after(5s)))) << "a late deadline's timer still sleeps";
  const Time begin = loop.clock.now();
  EXPECT_FALSE(loop.run(wake.wait_until(loop.clock.after(20ms))));
  EXPECT_GE(loop.clock.now() - begin, 20ms);
  EXPECT_LT(loop.clock.now() - begin, 240ms) << "and it does not decide when the earlier one ends";
}

TEST(Wake, ALongDeadlineIsWaitedFor) {
  Loop loop;
  Wake wake(loop.io.get_executor(), loop.clock);
  const Time begin = loop.clock.now();
  EXPECT_FALSE(loop.run(wake.wait_until(loop.clock.after(600ms))));
  EXPECT_GE(loop.clock.now() - begin, 600ms);
}

asio::awaitable<bool> both_wake(Loop& loop, Wake& wake) {
  int woken = 0;
  bool late = true;
  asio::co_spawn(loop.io, wake.wait(), [&](std::exception_ptr) { ++woken; });
  asio::co_spawn(loop.io, wake.wait_until(loop.clock.after(5s)), [&](std::exception_ptr, bool told) { woken += told; });
  asio::co_spawn(loop.io, wake.wait_until(loop.clock.after(5ms)), [&](std::exception_ptr, bool told) { late = told; });
  co_await loop.clock.sleep_for(50ms);
  EXPECT_FALSE(late) << "the earliest deadline has its own end";
  EXPECT_EQ(woken, 0);
  wake.notify();
  co_await loop.clock.sleep_for(1ms);
  co_return woken == 2;
}

TEST(Wake, ANotifyWakesAllWhoWait) {
  Loop loop;
  Wake wake(loop.io.get_executor(), loop.clock);
  EXPECT_TRUE(loop.run(both_wake(loop, wake)));
}

// What waits for a Wake that it owns itself: a stream, an actor.
struct Owner {
  Owner(Loop& loop, bool& gone_in) : wake(loop.io.get_executor(), loop.clock), gone(gone_in) {}
  ~Owner() { gone = true; }
  Wake wake;
  bool& gone;
};

asio::awaitable<void> wait_on(std::shared_ptr<Owner> owner) { co_await owner->wake.wait(); }
asio::awaitable<void> wait_on_until(std::shared_ptr<Owner> owner, Deadline deadline) {
  co_await owner->wake.wait_until(deadline);
}

TEST(Wake, WhatStillWaitsEndsWithItsExecutor) {
  bool gone = false, other_gone = false;
  {
    Loop loop;
    loop.spawn(wait_on(std::make_shared<Owner>(loop, gone)));
    loop.spawn(wait_on_until(std::make_shared<Owner>(loop, other_gone), loop.clock.after(3600s)));
    loop.io.run_for(5ms);
    EXPECT_FALSE(gone || other_gone);
  }
  EXPECT_TRUE(gone && other_gone);
}

TEST(Wake, ItsTimerGoesWithIt) {
  Loop loop;
  auto wake = std::make_unique<Wake>(loop.io.get_executor(), loop.clock);
  loop.spawn(wake->wait_until(loop.clock.after(3600s)));
  loop.io.run_for(5ms);
  wake.reset();
  const Time begin = loop.clock.now();
  loop.io.restart();
  loop.io.run();  // until nothing is left
  EXPECT_LT(loop.clock.now() - begin, 10s);
}

struct Stalls {
  explicit Stalls(Loop& loop) : timer(loop.io.get_executor(), loop.clock, [this] { ++count; }) {}
  int count = 0;
  StallTimer timer;
};

asio::awaitable<bool> progress_for(Loop& loop, std::shared_ptr<Stalls> stalls) {
  stalls->timer.start(1s, stalls);
  for (int i = 0; i < 4; ++i) {
    co_await loop.clock.sleep_for(300ms);
    stalls->timer.progress();
  }
  co_return stalls->count == 0;
}

TEST(StallTimer, ItCallsOnceWhenNothingMovesAndLetsItsOwnerGo) {
  Loop loop;
  auto stalls = std::make_shared<Stalls>(loop);
  EXPECT_TRUE(loop.run(progress_for(loop, stalls)));
  loop.io.restart();
  loop.io.run();
  EXPECT_EQ(stalls->count, 1);
  stalls->timer.start(3600s, stalls);
  loop.io.restart();
  loop.io.run_for(2ms);
  stalls->timer.start(5ms, stalls);  // sooner than what it waits for
  loop.io.restart();
  loop.io.run();
  EXPECT_EQ(stalls->count, 2);
  stalls->timer.start(3600s, stalls);
  loop.io.restart();
  loop.io.run_for(2ms);
  stalls->timer.cancel();
  loop.io.restart();
  loop.io.run_for(10ms);
  EXPECT_EQ(stalls->count, 2);
  EXPECT_EQ(stalls.use_count(), 1);
}

asio::awaitable<void> count_after(int& count, Clock& clock, Duration delay) {
  co_await clock.sleep_for(delay);
  ++count;
}

asio::awaitable<bool> close_gate(Gate& gate) {
  co_await gate.close();
  co_return true;
}

TEST(Gate, CloseWaitsForAllThatWereSpawnedAndForPasses) {
  Loop loop;
  Gate gate(loop.io.get_executor(), loop.clock);
  int count = 0;
  gate.spawn(count_after(count, loop.clock, 5ms));
  gate.spawn(count_after(count, loop.clock, 20ms));
  EXPECT_EQ(gate.running(), 2);
  EXPECT_TRUE(loop.run(close_gate(gate)));
  EXPECT_EQ(count, 2);
  auto pass = std::make_unique<Gate::Pass>(gate.enter());
  bool closed = false;
  asio::co_spawn(loop.io, gate.close(), [&](std::exception_ptr) { closed = true; });
  loop.io.run_for(10ms);
  EXPECT_FALSE(closed);
  pass.reset();
  loop.io.restart();
  loop.io.run_for(10ms);
  EXPECT_TRUE(closed);
}

}  // namespace
}  // namespace runahead::test
