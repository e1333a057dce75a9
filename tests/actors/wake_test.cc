#include "base/async/wake.h"

#include "actors/worker/thread_lane.h"
#include "base/async/gate.h"
#include "loop.h"
#include "tests/actors/mailbox.h"

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

TEST(Wake, ADeadlineLongerThanASliceIsWaitedFor) {
  Loop loop;
  Wake wake(loop.io.get_executor(), loop.clock);
  const Time begin = loop.clock.now();
  EXPECT_FALSE(loop.run(wake.wait_until(loop.clock.after(600ms))));
  EXPECT_GE(loop.clock.now() - begin, 600ms);
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

TEST(Mailbox, ItIsAQueueWithABound) {
  Loop loop;
  Mailbox<int> box(loop.io.get_executor(), loop.clock, 2);
  EXPECT_TRUE(box.push(1));
  EXPECT_TRUE(box.push(2));
  EXPECT_FALSE(box.push(3)) << "a full queue rejects";
  EXPECT_EQ(*loop.run(box.pop(loop.clock.after(1s))), 1);
  EXPECT_EQ(*loop.run(box.pop(loop.clock.after(1s))), 2);
  EXPECT_EQ(loop.run(box.pop(loop.clock.after(1ms))).error().code, ErrorCode::kDeadlineExceeded);
}

// No patience ends while it stands still, however late the machine is.
struct StandingClock final : Clock {
  Time now() const override { return 1s; }
  asio::awaitable<void> sleep_until(Time) override { co_return; }
};

asio::awaitable<bool> run_jobs(ThreadLane& lane, std::vector<int>& order, int id, int jobs) {
  const LaneOrder place{.due = static_cast<uint64_t>(id)};
  LaneHold turn(lane, place);
  for (int i = 0; i < jobs; ++i) co_await lane.run(place, [&] { order.push_back(id); });  // the lane is one thread
  co_return true;
}

TEST(ThreadLane, TheFirstInOrderIsDoneBeforeTheNextBegins) {
  Loop loop;
  StandingClock clock;
  ThreadLane lane(clock);
  std::vector<int> order;
  bool other = false;
  asio::co_spawn(loop.io, run_jobs(lane, order, 1, 4), [&](std::exception_ptr, bool ok) { other = ok; });
  EXPECT_TRUE(loop.run(run_jobs(lane, order, 2, 4)));
  EXPECT_TRUE(other);
  EXPECT_EQ(order, (std::vector<int>{1, 1, 1, 1, 2, 2, 2, 2})) << "though the second one's job waited all the time";
}

asio::awaitable<bool> is_timed(ThreadLane& lane) {
  const ComputeLane::Timing timing = co_await lane.run({}, [] { std::this_thread::sleep_for(2ms); });
  co_return timing.computed >= 2ms && timing.waited >= 0ms;
}

TEST(ThreadLane, AJobIsTimed) {
  Loop loop;
  ThreadLane lane(loop.clock);
  EXPECT_TRUE(loop.run(is_timed(lane)));
}

}  // namespace
}  // namespace runahead::test
