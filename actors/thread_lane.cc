#include "actors/thread_lane.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>

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

asio::awaitable<ComputeLane::Timing> ThreadLane::run(std::function<void()> work) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const Time queued = clock_.now();
  Timing timing;
  const auto enqueue = [&](auto handler) {
    auto job = [this, queued, executor, &timing, &work, handler = std::move(handler)]() mutable {
      const Time started = clock_.now();
      work();
      timing = {.waited = started - queued, .computed = clock_.now() - started};
      asio::post(executor, std::move(handler));
    };
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    changed_.notify_one();
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(enqueue, asio::use_awaitable);
  co_return timing;
}

void ThreadLane::serve() {
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    std::move_only_function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
  }
}

}  // namespace runahead
