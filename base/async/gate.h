// Gate: counts the coroutines of an actor, so that an actor never dies under them (after Seastar's gate). Every
// co_spawn of an actor goes through spawn(); close() returns when all of them have ended.
//   threads  the actor's executor only.
//   limits   none of its own: what is spawned is bounded by the attempts and streams that spawn it.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/task.h"

namespace runahead {

class Gate {
  struct State;

 public:
  // One running thing: close() waits for it. For work that is no coroutine of its own.
  class Pass {
   public:
    Pass(Pass&& other) = default;
    ~Pass();

   private:
    friend class Gate;
    explicit Pass(std::shared_ptr<State> state);
    static asio::awaitable<void> run(Pass pass, asio::awaitable<void> coroutine);
    std::shared_ptr<State> state_;
  };

  Gate(asio::any_io_executor executor, Clock& clock);
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Starts `coroutine` on the executor. An exception in it ends the process: expected failures are values.
  void spawn(asio::awaitable<void> coroutine);
  Pass enter() { return Pass(state_); }
  int running() const;
  // Waits for all that were spawned, also those spawned meanwhile; they end by their own deadlines. One caller at a
  // time.
  asio::awaitable<void> close();

 private:
  std::shared_ptr<State> state_;  // a coroutine that is destroyed with its executor leaves through it, after the Gate
};

}  // namespace runahead
