// Wake: how one coroutine of an actor waits until another one says "look again". A notify() without a waiter is kept,
// so none is lost; several count once. The waiter checks its condition itself.
//   threads  the actor's executor only.
//   owner    the state that both coroutines share; one waiter at a time.
//   limits   at most one timer sleeps for it in earnest; what sleeps when the Wake dies goes within kSleepSlice.
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

  void notify();
  // Returns at notify(). For waits that another bounded wait ends for certain; say which one where it is used.
  asio::awaitable<void> wait();
  // False if `deadline` passes first.
  asio::awaitable<bool> wait_until(Deadline deadline);

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the sleeping timer and with waits, which may outlive the Wake
};

}  // namespace runahead
