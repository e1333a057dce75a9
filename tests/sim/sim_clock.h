// SimClock: a process's clock.
#pragma once

#include "base/clock.h"
#include "sim_world.h"

namespace runahead::test {

class SimClock final : public Clock {
 public:
  explicit SimClock(Process& process) : process_(process) {}
  Time now() const override { return process_.now(); }
  asio::awaitable<void> sleep_until(Time at) override;

 private:
  Process& process_;
};

}  // namespace runahead::test
