// ServiceProcess: what every long-running process has: the event loop and its watch, the clock, randomness seeded once from
// the operating system, stop signals. One thread runs the loop; compute has its own lane.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <functional>
#include <optional>

#include "base/clock.h"
#include "base/rng.h"
#include "base/task.h"
#include "services/process/loop_watch.h"

namespace runahead {

// 64 bits from the operating system: seeds, incarnations.
uint64_t random_seed();

class ServiceProcess {
 public:
  ServiceProcess();

  asio::io_context& io() { return io_; }
  AsioClock& clock() { return clock_; }
  Rng& rng() { return rng_; }

  // Before run(): what is called for each time that the loop kept other work waiting for over LoopWatch::kLate.
  void on_stall(std::function<void(double seconds)> counted) { stalled_ = std::move(counted); }

  // Runs `body` to its end on the loop. The first SIGTERM or SIGINT calls on_drain (finish what runs, take nothing new),
  // the second one on_stop (end now).
  Result<void> run(Task<void> body, std::function<void()> on_drain, std::function<void()> on_stop);

 private:
  void report(const LoopWatch::Stall& stall);
  asio::awaitable<void> handle_signals(std::function<void()> on_drain, std::function<void()> on_stop);

  asio::io_context io_{1};
  AsioClock clock_;
  SystemRng rng_;
  asio::signal_set signals_{io_};
  std::function<void(double)> stalled_;
  std::optional<Time> stall_told_;  // when the log last said one
};

}  // namespace runahead
