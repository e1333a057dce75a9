#include "actors/worker/thread_lane.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <new>

#include "base/check.h"

namespace runahead {

ThreadLane::ThreadLane(Clock& clock) : clock_(clock), thread_([this] { serve(); }) {}

ThreadLane::~ThreadLane() {
  {
    std::lock_guard lock(mutex_);
    RUNAHEAD_CHECK(jobs_.empty(), "a lane is empty when it ends");
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

asio::awaitable<ComputeLane::Timing> ThreadLane::run(LaneOrder order, std::function<void()> work) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const Time queued = clock_.now();
  Timing timing;
  std::exception_ptr no_memory;
  const auto enqueue = [&](auto handler) {
    auto job = [this, queued, executor, &timing, &work, &no_memory, handler = std::move(handler)]() mutable {
      const Time started = turn_began_ = clock_.now();
      try {
        work();
      } catch (const std::bad_alloc&) {
        no_memory = std::current_exception();
      }
      timing = {.waited = started - queued, .computed = clock_.now() - started};
      asio::post(executor, std::move(handler));
    };
    std::lock_guard lock(mutex_);
    jobs_.push(order, std::move(job));
    changed_.notify_one();
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(enqueue, asio::use_awaitable);
  if (no_memory) std::rethrow_exception(no_memory);
  co_return timing;
}

bool ThreadLane::may_go_on(LaneOrder order) {
  if (clock_.now() - turn_began_ >= kLaneTurn) return false;
  std::lock_guard lock(mutex_);
  return !jobs_.is_wanted_before(order);
}

void ThreadLane::hold(LaneOrder order) {
  std::lock_guard lock(mutex_);
  jobs_.hold(order);
}

void ThreadLane::release(LaneOrder order) {
  std::lock_guard lock(mutex_);
  jobs_.release(order);
  changed_.notify_one();
}

void ThreadLane::serve() {
  while (std::optional<Job> job = next_job()) {
    (*job)();
    job.reset();  // what it holds goes before the next one waits
    std::lock_guard lock(mutex_);
    jobs_.job_ended(clock_.now());
  }
}

// None: the lane ends.
std::optional<ThreadLane::Job> ThreadLane::next_job() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const Time now = clock_.now();
    if (std::optional<Job> job = jobs_.take(now)) return job;
    if (stopping_) return std::nullopt;
    if (const std::optional<Time> until = jobs_.wait_until()) changed_.wait_for(lock, *until - now);
    else changed_.wait(lock);
  }
}

}  // namespace runahead
