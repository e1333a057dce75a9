// Wake: how the coroutines of one executor wait until another one says "look again". Whoever waits checks its condition
// itself. A notify() that finds nobody waiting is kept for the next wait, so none is lost; several count once.
//   threads  the executor's only.
//   owner    the state that the coroutines share. Who still waits when the Wake or the executor dies is destroyed, not
//            resumed.
//   limits   one timer sleeps for all of its waits, and goes with the Wake.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/task.h"

namespace runahead {

class Wake {
 public:
  Wake(asio::any_io_executor executor, Clock& clock);
  ~Wake();
  Wake(const Wake&) = delete;
  Wake& operator=(const Wake&) = delete;

  void notify();  // all who wait
  // Returns at notify(). For waits that another bounded wait ends for certain; say which one where it is used.
  asio::awaitable<void> wait();
  // False if `deadline` passes first.
  asio::awaitable<bool> wait_until(Deadline deadline);

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the timer and with waits, which may outlive the Wake
};

}  // namespace runahead
