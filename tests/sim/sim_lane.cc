#include "sim_lane.h"

#include <boost/asio/use_awaitable.hpp>
#include <utility>

namespace runahead::test {

asio::awaitable<ComputeLane::Timing> SimLane::run(LaneOrder order, std::function<void()> work) {
  auto job = std::make_shared<Job>(Job{.work = std::move(work), .queued = process_.now()});
  // By reference: GCC 12 destroys what a lambda inside a co_await captures by value once too often.
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
      [this, order, &job](auto handler) {
        job->resume = [handler = std::move(handler)]() mutable { handler(); };
        jobs_.push(order, job);
        start_next();
      },
      asio::use_awaitable);
  co_return Timing{.waited = job->started - job->queued, .computed = process_.now() - job->started};
}

void SimLane::release(LaneOrder order) {
  jobs_.release(order);
  start_next();
}

void SimLane::start_next() {
  if (busy_) return;
  if (auto job = jobs_.take(process_.now())) return start(std::move(*job));
  if (const auto until = jobs_.wait_until()) process_.at(*until, [this] { start_next(); });
}

void SimLane::start(std::shared_ptr<Job> job) {
  busy_ = true;
  job->started = process_.now();
  Duration takes = rng_.exponential(weather_.job_mean);
  if (rng_.chance(weather_.slow_probability)) takes *= weather_.slow_factor;
  takes += std::exchange(stuck_for_, Duration{0});
  const bool at_start = rng_.chance(0.5);
  if (at_start) job->work();
  process_.at(job->started + takes, [this, job, at_start] {
    if (!at_start) job->work();
    busy_ = false;
    jobs_.job_ended(process_.now());
    process_.post(std::move(job->resume));
    start_next();
  });
}

}  // namespace runahead::test
