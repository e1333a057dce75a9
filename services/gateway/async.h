// Signal and Group: the two waits that the gateway's coroutines need among themselves. One thread (the io_context's).
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>

#include <utility>

#include "base/task.h"

namespace runahead {

// A condition that coroutines wait for in a loop: `while (!ready) co_await signal.wait();`
class Signal {
 public:
  explicit Signal(asio::any_io_executor executor) : timer_(std::move(executor)) {}

  // Wakes everybody who waits now.
  void notify() { timer_.cancel(); }
  asio::awaitable<void> wait() { return wait_until(asio::steady_timer::time_point::max()); }
  // Returns at `at` at the latest. Those who wait at once must all name the same time or none.
  asio::awaitable<void> wait_until(asio::steady_timer::time_point at) {
    if (waiting_++ == 0) timer_.expires_at(at);  // setting it again would wake the others
    co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
    --waiting_;
  }

 private:
  asio::steady_timer timer_;
  int waiting_ = 0;
};

// Counts child coroutines; join() returns when all have ended. The parent must join before it lets go of what they use.
class Group {
 public:
  explicit Group(asio::any_io_executor executor) : executor_(executor), ended_(executor) {}

  void spawn(asio::awaitable<void> child) {
    ++running_;
    asio::co_spawn(executor_, std::move(child), [this](std::exception_ptr error) {
      if (error) std::rethrow_exception(error);  // a programming error: expected failures are Results
      --running_;
      ended_.notify();
    });
  }
  asio::awaitable<void> join() {
    while (running_ > 0) co_await ended_.wait();
  }
  int running() const { return running_; }

 private:
  asio::any_io_executor executor_;
  Signal ended_;
  int running_ = 0;
};

}  // namespace runahead
