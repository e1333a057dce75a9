#include "transport/async.h"

#include <algorithm>

namespace runahead {
namespace {

// A timer cannot be set to the end of time; callers of Signal::wait loop anyway.
constexpr Duration kLongestWait = std::chrono::hours(24);

}  // namespace

void Signal::notify() {
  for (asio::steady_timer* waiter : waiters_) waiter->cancel();
}

asio::awaitable<void> Signal::wait(Deadline deadline) {
  struct Entry {
    Entry(std::vector<asio::steady_timer*>& list, asio::any_io_executor executor, Duration wait)
        : waiters(list), timer(std::move(executor), wait) {
      waiters.push_back(&timer);
    }
    ~Entry() { std::erase(waiters, &timer); }
    std::vector<asio::steady_timer*>& waiters;
    asio::steady_timer timer;
  };
  const Time now = clock_.now();
  const Duration left = deadline.at <= now ? Duration(0) : std::min<Duration>(deadline.at - now, kLongestWait);
  Entry entry(waiters_, executor_, left);
  co_await entry.timer.async_wait(kAsTuple);
}

void StallTimer::start(Duration limit, std::shared_ptr<const void> owner) {
  limit_ = limit;
  started_ = true;
  progress();
  // A pending wait does, unless it was for a longer limit and would fire too late.
  if (!waiting_ || timer_.expiry() > std::chrono::steady_clock::now() + limit) wait(std::move(owner));
}

void StallTimer::cancel() {
  started_ = waiting_ = false;
  timer_.cancel();
}

void StallTimer::wait(std::shared_ptr<const void> owner) {
  waiting_ = true;
  timer_.expires_after(std::max<Duration>(last_ + limit_ - clock_.now(), Duration(0)));  // ends an earlier wait
  timer_.async_wait([this, owner](const boost::system::error_code& error) {
    if (error) return;  // moved to an earlier time, or cancelled
    waiting_ = false;
    if (!started_) return;
    if (clock_.now() < last_ + limit_) return wait(owner);
    started_ = false;
    on_stall_();
  });
}

}  // namespace runahead
