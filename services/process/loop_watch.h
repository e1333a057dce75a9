// LoopWatch: says what keeps an event loop from its other work. A thread of its own asks the loop for a sign of life twenty
// times a second; where none comes in time, the loop's thread is asked by a signal where it stands. Heartbeats, leases and
// /livez wait for the same loop, so a handler that computes for long is a fault of ours, and this is how it is found.
//   threads   made and destroyed on the loop's thread, which reports are called on
//   signal    SIGURG, which nothing else here uses; one watch a process
//   limits    a process that was stopped as a whole, or got no processor, is no stall: then the watch was late itself, or the
//             loop waits and nobody wakes it
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"

namespace runahead {

class LoopWatch {
 public:
  static constexpr Duration kLate = std::chrono::milliseconds(50);

  struct Stall {
    Duration lasted{0};  // from the question to its answer
    Duration computed{0};  // processor time of the loop's thread meanwhile
    std::string where;  // the innermost places in our sources, "file:line < file:line"; without debug lines, names
  };
  using Report = std::function<void(const Stall&)>;

  LoopWatch(asio::io_context& io, Report report);
  ~LoopWatch();
  LoopWatch(const LoopWatch&) = delete;
  LoopWatch& operator=(const LoopWatch&) = delete;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
