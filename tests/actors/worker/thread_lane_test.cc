#include "actors/worker/thread_lane.h"

#include "tests/support/loop.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

// No hold times out while it stands still, however late the machine is.
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
