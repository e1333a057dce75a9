#include "base/async/gate.h"

#include <boost/asio/co_spawn.hpp>
#include <exception>

#include "base/async/wake.h"

namespace runahead {

struct Gate::State {
  State(asio::any_io_executor executor_in, Clock& clock) : executor(std::move(executor_in)), left(executor, clock) {}
  asio::any_io_executor executor;
  int running = 0;
  Wake left;
};

Gate::Pass::Pass(std::shared_ptr<State> state) : state_(std::move(state)) { ++state_->running; }

Gate::Pass::~Pass() {
  if (state_ && --state_->running == 0) state_->left.notify();
}

// The frame holds the pass: it leaves however the frame ends.
asio::awaitable<void> Gate::Pass::run(Pass, asio::awaitable<void> coroutine) { co_await std::move(coroutine); }

Gate::Gate(asio::any_io_executor executor, Clock& clock)
    : state_(std::make_shared<State>(std::move(executor), clock)) {}

void Gate::spawn(asio::awaitable<void> coroutine) {
  asio::co_spawn(state_->executor, Pass::run(Pass(state_), std::move(coroutine)), [](std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
  });
}

int Gate::running() const { return state_->running; }

asio::awaitable<void> Gate::close() {
  const auto state = state_;
  while (state->running > 0) co_await state->left.wait();
}

}  // namespace runahead
