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

// Whether a job of order 5 may go on: alone, with who comes behind it, with who is before it, and with who is about to be.
asio::awaitable<std::vector<bool>> may_go_on(ThreadLane& lane) {
  constexpr LaneOrder kMine{.due = 5}, kBehind{.due = 9}, kBefore{.due = 2};
  std::vector<bool> may;
  co_await lane.run(kMine, [&] { may.push_back(lane.may_go_on(kMine)); });
  {
    const LaneHold behind(lane, kBehind), mine(lane, kMine);
    co_await lane.run(kMine, [&] { may.push_back(lane.may_go_on(kMine)); });
  }
  co_await lane.run(kMine, [&] {
    const LaneHold before(lane, kBefore);
    may.push_back(lane.may_go_on(kMine));
  });
  co_await lane.run(kMine, [&] { may.push_back(lane.may_go_on(kMine)); });
  co_return may;
}

TEST(ThreadLane, AJobGoesOnUnlessSomebodyIsBeforeIt) {
  Loop loop;
  StandingClock clock;
  ThreadLane lane(clock);
  EXPECT_EQ(loop.run(may_go_on(lane)), (std::vector<bool>{true, true, false, true}));
}

asio::awaitable<int> slices_of_a_turn(ThreadLane& lane) {
  int slices = 0;
  co_await lane.run({}, [&] {
    do {
      ++slices;
      std::this_thread::sleep_for(kLaneTurn / 4);
    } while (lane.may_go_on({}));
  });
  co_return slices;
}

TEST(ThreadLane, ATurnEndsThoughNobodyWaits) {
  Loop loop;
  ThreadLane lane(loop.clock);
  const int slices = loop.run(slices_of_a_turn(lane));
  EXPECT_GE(slices, 1);
  EXPECT_LE(slices, 4);
}

}  // namespace
}  // namespace runahead::test
