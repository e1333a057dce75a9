// Runs coroutines of a test on one io_context with a bound on real time, as a process's actor thread would.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>

#include "base/clock.h"
#include "base/task.h"

namespace runahead {

class RunLoop {
 public:
  asio::io_context& io() { return io_; }
  asio::any_io_executor executor() { return io_.get_executor(); }
  const AsioClock& clock() const { return clock_; }
  AsioClock& clock() { return clock_; }
  Deadline in(Duration d) const { return clock_.after(d); }

  // Runs until `body` has ended; a body that hangs fails the test.
  void run(asio::awaitable<void> body, std::chrono::seconds bound = std::chrono::seconds(30)) {
    bool ended = false;
    asio::co_spawn(io_, std::move(body), [&](std::exception_ptr error) {
      ended = true;
      if (error) std::rethrow_exception(error);
    });
    const auto end = std::chrono::steady_clock::now() + bound;
    while (!ended && std::chrono::steady_clock::now() < end) {
      io_.restart();
      if (io_.run_one_for(std::chrono::milliseconds(200)) == 0 && io_.stopped()) io_.restart();
    }
    ASSERT_TRUE(ended) << "the test's coroutine did not end within " << bound.count() << " s";
  }

 private:
  asio::io_context io_{1};
  AsioClock clock_;
};

}  // namespace runahead
