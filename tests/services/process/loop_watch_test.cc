// What keeps the event loop from its work is found, with the place; a loop that is idle, or busy with much that is short, is
// not.
#include "services/process/loop_watch.h"

#include <gtest/gtest.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <vector>

namespace runahead {
namespace {

using namespace std::chrono_literals;

[[gnu::noinline]] void compute_for(std::chrono::milliseconds time) {
  volatile unsigned turns = 0;
  for (const auto end = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < end;)
    turns = turns + 1;
}

struct Watched {
  asio::io_context io{1};
  std::vector<LoopWatch::Stall> stalls;
  LoopWatch watch{io, [this](const LoopWatch::Stall& stall) { stalls.push_back(stall); }};

  // Runs the loop until a stall is reported, or the time is over.
  void run(std::chrono::milliseconds most, size_t wanted = 1) {
    for (const auto end = std::chrono::steady_clock::now() + most;
         stalls.size() < wanted && std::chrono::steady_clock::now() < end;)
      io.run_for(5ms), io.restart();
  }
};

TEST(LoopWatch, AHandlerThatComputesForLongIsReportedWithItsPlace) {
  Watched w;
  asio::post(w.io, [] { compute_for(400ms); });
  w.run(20s);
  ASSERT_EQ(w.stalls.size(), 1u);
  const LoopWatch::Stall& stall = w.stalls.front();
  EXPECT_GE(stall.lasted, LoopWatch::kLate);
  EXPECT_GT(stall.computed, 20ms) << "of the thread of the loop";
  EXPECT_NE(stall.where.find("loop_watch_test.cc:"), std::string::npos) << stall.where;
}

TEST(LoopWatch, AHandlerThatWaitsForSomethingElseIsReportedAsNotComputing) {
  Watched w;
  asio::post(w.io, [] { std::this_thread::sleep_for(400ms); });
  w.run(20s);
  ASSERT_EQ(w.stalls.size(), 1u);
  EXPECT_LT(w.stalls.front().computed, w.stalls.front().lasted / 2);
}

TEST(LoopWatch, EachStallIsReportedAndTheLoopGoesOn) {
  Watched w;
  for (size_t stalls = 1; stalls <= 3; ++stalls) {
    asio::post(w.io, [] { compute_for(400ms); });
    w.run(20s, stalls);
    ASSERT_EQ(w.stalls.size(), stalls);
  }
}

// A machine that gives the loop's thread no processor for 50 ms looks like a stall, so this one does not count them.
TEST(LoopWatch, ManyShortHandlersAreNotTakenForALongOne) {
  Watched w;
  std::function<void()> again = [&] {
    compute_for(1ms);
    asio::post(w.io, again);
  };
  asio::post(w.io, again);
  w.io.run_for(600ms);
  for (const LoopWatch::Stall& stall : w.stalls)
    EXPECT_LT(stall.lasted, 400ms) << "a tenth of a second of others' work";
}

TEST(LoopWatch, EndsWhileTheLoopStandsStillAndWhileItNeverRan) {
  {
    Watched never_run;
  }
  asio::io_context io{1};
  std::optional<LoopWatch> watch;
  watch.emplace(io, [](const LoopWatch::Stall&) { FAIL() << "nobody asks any more"; });
  std::this_thread::sleep_for(120ms);  // a question is out, and late
  watch.reset();
  io.run_for(20ms);
}

}  // namespace
}  // namespace runahead
