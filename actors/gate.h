// Gate: counts the coroutines of an actor, so that an actor never dies under them (after Seastar's gate). Every co_spawn of
// an actor goes through spawn(); close() returns when all of them have ended.
//   threads  the actor's executor only.
//   limits   none of its own: what is spawned is bounded by the attempts and streams that spawn it.
#pragma once

#include <memory>

#include "base/task.h"

namespace runahead {

class Gate {
 public:
  explicit Gate(asio::any_io_executor executor);
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Starts `coroutine` on the executor. An exception in it ends the process: expected failures are values.
  void spawn(asio::awaitable<void> coroutine);
  int running() const;
  // Waits for all that were spawned, also those spawned meanwhile. One caller at a time.
  asio::awaitable<void> close();

 private:
  struct State;
  std::shared_ptr<State> state_;  // a coroutine that is destroyed with its executor leaves through it, after the Gate
};

}  // namespace runahead
