#include "base/async/wake.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <functional>
#include <optional>

#include "base/check.h"

namespace runahead {
namespace {

// A timer cannot be called back, so it sleeps in slices: a Wake that is gone costs one more wake-up, no more.
constexpr Duration kSleepSlice = std::chrono::milliseconds(250);

}  // namespace

struct Wake::State {
  State(asio::any_io_executor executor_in, Clock& clock_in) : executor(std::move(executor_in)), clock(clock_in) {}

  asio::any_io_executor executor;
  Clock& clock;
  std::move_only_function<void()> waiter;  // resumes the waiting coroutine
  bool signalled = false;
  bool gone = false;                // the Wake was destroyed
  std::optional<Deadline> waiting;  // of the present wait
  bool expired = false;             // the present wait ended by its deadline
  uint64_t timer = 0;               // the timer in charge; earlier ones end when they wake up
  std::optional<Time> timer_at;     // when it wakes up; none: no timer sleeps

  void resume() {
    waiting.reset();
    asio::post(executor, std::exchange(waiter, nullptr));
  }

  static asio::awaitable<void> suspend(std::shared_ptr<State> state) {
    RUNAHEAD_CHECK(!state->waiter, "a Wake has one waiter");
    co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
        [&state](auto handler) { state->waiter = std::move(handler); }, asio::use_awaitable);
  }

  static asio::awaitable<void> watch(std::shared_ptr<State> state, uint64_t timer) {
    while (!state->gone && state->timer == timer && state->waiting) {
      const Time at = std::min(state->waiting->at, state->clock.now() + kSleepSlice);
      state->timer_at = at;
      co_await state->clock.sleep_until(at);
      if (state->gone || state->timer != timer) co_return;
      if (state->waiting && state->clock.now() >= state->waiting->at) {
        state->expired = true;
        state->resume();
      }
    }
    if (state->timer == timer) state->timer_at.reset();
  }

  static asio::awaitable<bool> wait(std::shared_ptr<State> state, std::optional<Deadline> deadline) {
    if (std::exchange(state->signalled, false)) co_return true;
    if (deadline && state->clock.now() >= deadline->at) co_return false;
    state->expired = false;
    state->waiting = deadline;
    if (deadline && (!state->timer_at || deadline->at < *state->timer_at)) {
      state->timer_at = deadline->at;
      asio::co_spawn(state->executor, watch(state, ++state->timer), asio::detached);
    }
    co_await suspend(state);
    co_return !state->expired;
  }
};

Wake::Wake(asio::any_io_executor executor, Clock& clock)
    : state_(std::make_shared<State>(std::move(executor), clock)) {}

Wake::~Wake() {
  state_->gone = true;
  // A waiter that is still there is destroyed with its executor (a process that ends), not resumed.
  state_->waiter = nullptr;
}

void Wake::notify() {
  if (state_->waiter) return state_->resume();
  state_->signalled = true;
}

asio::awaitable<void> Wake::wait() { co_await State::wait(state_, std::nullopt); }

asio::awaitable<bool> Wake::wait_until(Deadline deadline) { return State::wait(state_, deadline); }

}  // namespace runahead
