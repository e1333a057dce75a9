// LaneQueue: which job the compute lane does next. The lowest order first; equal ones in the order they came. An attempt
// whose next job is on its way holds its place, so that nobody behind it begins a job in the gap between two of its own.
//   pure     time is an argument. owner: a lane, which guards it if it has threads.
//   bound    a holder that stays away (the event loop is late) is waited for kLaneHoldTimeout, after each job anew.
#pragma once

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <set>

#include "actors/lane_order.h"
#include "base/clock.h"

namespace runahead {

// Far longer than an idle event loop takes to bring the next job (0.1 ms), short beside a job.
inline constexpr Duration kLaneHoldTimeout = std::chrono::milliseconds(2);

template <class Job>
class LaneQueue {
 public:
  void push(LaneOrder order, Job job) {
    const auto after = std::ranges::upper_bound(jobs_, order, {}, &Entry::order);
    jobs_.insert(after, {order, std::move(job)});
  }
  void hold(LaneOrder order) { holds_.insert(order); }
  void release(LaneOrder order) { holds_.erase(holds_.find(order)); }
  void job_ended(Time now) { free_since_ = now; }

  // What a free lane does now. None: wait for a change, or until wait_until(), if there is one.
  std::optional<Job> take(Time now) {
    if (jobs_.empty() || (is_held() && now < free_since_ + kLaneHoldTimeout)) return std::nullopt;
    Job job = std::move(jobs_.front().job);
    jobs_.pop_front();
    return job;
  }
  std::optional<Time> wait_until() const {
    return jobs_.empty() ? std::nullopt : std::optional(free_since_ + kLaneHoldTimeout);
  }
  bool empty() const { return jobs_.empty(); }
  // Somebody before `order` waits, or is about to.
  bool is_wanted_before(LaneOrder order) const {
    return (!jobs_.empty() && jobs_.front().order < order) || (!holds_.empty() && *holds_.begin() < order);
  }

 private:
  struct Entry {
    LaneOrder order;
    Job job;
  };
  bool is_held() const { return !holds_.empty() && *holds_.begin() < jobs_.front().order; }

  std::deque<Entry> jobs_;  // in order; bounded by the attempts in work: each has one job at a time
  std::multiset<LaneOrder> holds_;
  Time free_since_{0};
};

}  // namespace runahead
