// Clock: the only source of time for actors and transports. Production: AsioClock (steady_timer); simulation: virtual time.
// Time is nanoseconds since an arbitrary start, monotonic within one process; it is never sent to another machine.
#pragma once

#include <chrono>

#include "base/task.h"

namespace runahead {

using Duration = std::chrono::nanoseconds;
using Time = std::chrono::nanoseconds;  // since the clock's own start

constexpr double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
constexpr Duration from_seconds(double s) { return Duration(static_cast<int64_t>(s * 1e9)); }

// When a wait must end. No awaitable API exists without one.
struct Deadline {
  Time at;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;
  // Resumes on the caller's executor when `at` is reached. Cancelled with the coroutine that awaits it.
  virtual asio::awaitable<void> sleep_until(Time at) = 0;

  asio::awaitable<void> sleep_for(Duration d) { return sleep_until(now() + d); }
  Deadline after(Duration d) const { return {now() + d}; }
};

// The production clock: std::chrono::steady_clock and Asio timers.
class AsioClock final : public Clock {
 public:
  Time now() const override;
  asio::awaitable<void> sleep_until(Time at) override;
};

}  // namespace runahead
