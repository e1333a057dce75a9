// Who computes first: the order of requests, the lane's queue, and both together, simulated: one lane on virtual time, with
// today's slices, against taking turns and against first come, first served.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "actors/worker/lane_queue.h"
#include "actors/worker/lane_slices.h"
#include "base/rng.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

TEST(LaneOrder, EqualRequestsGoInTheOrderTheyCame) {
  EXPECT_LT(lane_order(1s, 0.5, 1), lane_order(1s, 0.5, 2));
  EXPECT_LT(lane_order(1s, 0.5, 9), lane_order(1s + 1ms, 0.5, 2));
}

TEST(LaneOrder, AShortOnePassesALongOneUntilThatIsDue) {
  const LaneOrder long_one = lane_order(10s, 8, 1);
  EXPECT_LT(lane_order(11s, 0.1, 2), long_one);
  EXPECT_LT(lane_order(41s, 0.1, 2), long_one) << "it has waited for less than four times its own time";
  EXPECT_LT(long_one, lane_order(42s, 0.1, 2));
}

TEST(LaneOrder, NoEstimateHoweverOddMovesARequestOutOfSight) {
  const LaneOrder now = lane_order(1s, 0, 1);
  for (const double odd : {-1.0, std::numeric_limits<double>::quiet_NaN(), 0.0}) EXPECT_EQ(lane_order(1s, odd, 1), now);
  const LaneOrder latest = lane_order(1s, std::numeric_limits<double>::infinity(), 1);
  EXPECT_EQ(latest.due, now.due + 600'000'000);
  EXPECT_GT(lane_order(0s, 0, 1).due, 0u) << "0 is decoding's";
}

TEST(LaneQueue, TheFirstInOrderIsTakenWheneverItCame) {
  LaneQueue<int> queue;
  queue.push({.due = 5, .request = 1}, 51);
  queue.push({.due = 9, .request = 2}, 92);
  queue.push({.due = 5, .request = 1}, 52);
  queue.push({.due = 0, .request = 0}, 0);
  queue.push({.due = 7, .request = 3}, 73);
  std::vector<int> taken;
  while (const auto job = queue.take(1s)) taken.push_back(*job);
  EXPECT_EQ(taken, (std::vector<int>{0, 51, 52, 73, 92}));
  EXPECT_TRUE(queue.empty());
}

TEST(LaneQueue, WhoHoldsItsPlaceIsWaitedForButNotForEver) {
  LaneQueue<int> queue;
  const LaneOrder first{.due = 1, .request = 1}, second{.due = 2, .request = 2};
  queue.hold(first);
  queue.push(second, 2);
  queue.job_ended(1s);
  EXPECT_FALSE(queue.take(1s));
  EXPECT_EQ(queue.wait_until(), 1s + kLaneHoldTimeout);
  queue.push(first, 1);
  EXPECT_EQ(queue.take(1s + 1us), 1) << "its own jobs are not held up";
  queue.job_ended(1s + 1ms);
  EXPECT_FALSE(queue.take(1s + 1ms));
  EXPECT_EQ(queue.take(1s + 1ms + kLaneHoldTimeout), 2) << "the hold has timed out";
  queue.push(second, 2);
  queue.job_ended(2s);
  queue.release(first);
  EXPECT_EQ(queue.take(2s), 2);
  EXPECT_FALSE(queue.wait_until()) << "an empty queue has nothing to wait for";
}

TEST(LaneQueue, AHoldOfALaterOneHoldsNobodyUp) {
  LaneQueue<int> queue;
  queue.job_ended(1s);
  queue.hold({.due = 8, .request = 8});
  queue.push({.due = 7, .request = 7}, 7);
  EXPECT_EQ(queue.take(1s), 7);
}

TEST(LaneSlices, TheyAreShortButNotShorterThanTheEngineLikes) {
  const LayerSpeed speed{.rows_at_once = 256};
  EXPECT_EQ(slice_rows(speed, 0), 256) << "not measured";
  EXPECT_EQ(slice_rows(speed, 1e-3), 256) << "0.26 s, but fewer rows cost more";
  EXPECT_EQ(slice_rows(speed, 2e-5), 768) << "1,000 rows are 20 ms";
  EXPECT_EQ(slice_rows(speed, 1e-12), 256 * 4096);
}

TEST(LaneSlices, TheyCoverTheRowsOnceAndTheLastTakesWhatIsLeft) {
  for (const int32_t rows : {1, 255, 256, 511, 512, 513, 7000}) {
    const auto parts = cut_rows(rows, 256);
    int32_t next = 0;
    for (const RowRange part : parts) {
      EXPECT_EQ(part.begin, next);
      EXPECT_GE(part.size(), std::min(rows, 256));
      EXPECT_LT(part.size(), 512);
      next = part.end;
    }
    EXPECT_EQ(next, rows);
  }
}

// ---- simulated ----

struct Job {
  double arrival = 0, service = 0;  // seconds
  double ended = 0;
};
enum class Policy { kOurs, kTurns, kFirstCome };

LaneOrder place(Policy policy, const Job& job, size_t index) {
  if (policy == Policy::kOurs) return lane_order(from_seconds(job.arrival), job.service, index + 1);
  if (policy == Policy::kFirstCome) return {.due = static_cast<uint64_t>(job.arrival * 1e6) + 1, .request = index + 1};
  return {};  // all equal: one slice each, round and round
}

// One lane, each request's work in slices, the next one on its way as soon as the last one has ended.
void simulate(Policy policy, std::vector<Job>& jobs) {
  LaneQueue<size_t> queue;
  std::vector<double> left;
  std::vector<size_t> arrivals(jobs.size());
  std::iota(arrivals.begin(), arrivals.end(), 0);
  std::ranges::stable_sort(arrivals, {}, [&](size_t i) { return jobs[i].arrival; });
  for (const Job& job : jobs) left.push_back(job.service);
  double now = 0;
  size_t arrived = 0;
  const auto admit = [&] {
    for (; arrived < arrivals.size() && jobs[arrivals[arrived]].arrival <= now; ++arrived)
      queue.push(place(policy, jobs[arrivals[arrived]], arrivals[arrived]), arrivals[arrived]);
  };
  for (;;) {
    admit();
    const std::optional<size_t> index = queue.take(from_seconds(now));
    if (!index) {
      if (arrived == arrivals.size()) return;
      now = jobs[arrivals[arrived]].arrival;
      continue;
    }
    const double slice = std::min(left[*index], seconds(kLaneSlice));
    now += slice;
    left[*index] -= slice;
    queue.job_ended(from_seconds(now) - kLaneHoldTimeout);
    if (left[*index] > 1e-9) {
      admit();
      queue.push(place(policy, jobs[*index], *index), *index);
    } else {
      jobs[*index].ended = now;
    }
  }
}

double mean_ttft(const std::vector<Job>& jobs) {
  double sum = 0;
  for (const Job& job : jobs) sum += job.ended - job.arrival;
  return sum / static_cast<double>(jobs.size());
}
double last_end(const std::vector<Job>& jobs) { return std::ranges::max(jobs, {}, &Job::ended).ended; }

TEST(LanePolicy, EightEqualPromptsEndOneAfterTheOther) {
  std::vector<Job> turns(8, {.service = 0.5}), ours = turns;
  simulate(Policy::kTurns, turns);
  simulate(Policy::kOurs, ours);
  EXPECT_LE(mean_ttft(ours), 0.6 * mean_ttft(turns));
  EXPECT_LE(last_end(ours), last_end(turns) + 1e-6);
  EXPECT_NEAR(std::ranges::min(ours, {}, &Job::ended).ended, 0.5, 1e-6) << "the first one is as if it were alone";
}

TEST(LanePolicy, AShortPromptBesideALongOneIsLateByASliceOnly) {
  for (const double arrival : {0.001, 3.33, 15.9}) {
    std::vector<Job> jobs = {{.service = 16}, {.arrival = arrival, .service = 0.17}};
    simulate(Policy::kOurs, jobs);
    EXPECT_LE(jobs[1].ended - arrival, 0.17 + seconds(kLaneSlice) + 1e-6) << arrival;
    EXPECT_NEAR(jobs[0].ended, 16.17, 1e-6) << "it costs the long one no more than it takes";
  }
}

TEST(LanePolicy, ALongPromptIsNotStarvedByShortOnesThatNeverEnd) {
  std::vector<Job> jobs = {{.arrival = 1, .service = 8}};
  for (double at = 0; at < 100; at += 0.1) jobs.push_back({.arrival = at, .service = 0.1});  // they alone fill the lane
  simulate(Policy::kOurs, jobs);
  EXPECT_LE(jobs[0].ended, 1 + 8 * (kLaneStretch + 1) + 0.5);
  EXPECT_GE(jobs[0].ended, 1 + 8 * kLaneStretch) << "and until it is due, they pass";
}

// Whoever comes at or after a request is due is done after it; so nobody waits for more than what came before.
TEST(LanePolicy, RandomMixesEndSoonerOnAverageAndNobodyIsForgotten) {
  double ours_sum = 0, turns_sum = 0, first_come_sum = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRng rng(seed);
    const auto unit = [&] { return (static_cast<double>(rng.next() >> 11) + 1) * 0x1.0p-53; };
    std::vector<Job> jobs;
    double at = 0;
    for (int i = 0; i < 60; ++i) {
      const double service = 0.05 * std::pow(200.0, std::pow(unit(), 2.5));  // 0.05 to 10 s, most of them short
      at += -std::log(unit()) * 1.4;
      jobs.push_back({.arrival = at, .service = service});
    }
    std::vector<Job> turns = jobs, first_come = jobs;
    simulate(Policy::kOurs, jobs);
    simulate(Policy::kTurns, turns);
    simulate(Policy::kFirstCome, first_come);
    EXPECT_NEAR(last_end(jobs), last_end(first_come), 1e-6)
        << "the lane never idles while there is work; seed " << seed;
    ours_sum += mean_ttft(jobs);
    turns_sum += mean_ttft(turns);
    first_come_sum += mean_ttft(first_come);
    for (size_t i = 0; i < jobs.size(); ++i) {
      const double due = static_cast<double>(place(Policy::kOurs, jobs[i], i).due) * 1e-6;
      double before = 0;  // all work that could go before it
      for (const Job& other : jobs)
        if (other.arrival < due) before += other.service;
      EXPECT_LE(jobs[i].ended, std::max(due, jobs[i].arrival) + before + 1) << "seed " << seed << ", request " << i;
    }
  }
  EXPECT_LT(ours_sum, turns_sum);
  EXPECT_LT(ours_sum, 0.8 * first_come_sum);
}

}  // namespace
}  // namespace runahead::test
