#include "base/async/wake.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/post.hpp>
#include <functional>
#include <list>
#include <optional>
#include <unordered_set>

namespace runahead {
namespace {

struct Waiter {
  std::move_only_function<void()> resume;
  std::optional<Deadline> deadline;
  bool* expired;  // in the frame that waits
};

using Waiters = std::list<Waiter>;

// The waits of all Wakes of one executor. A frame that waits may own its Wake through what it holds, and the Wake holds
// the frame: the end of the executor cuts that circle.
class WaitsOfContext final : public asio::execution_context::service {
 public:
  using key_type = WaitsOfContext;
  using Registry = std::unordered_set<Waiters*>;

  explicit WaitsOfContext(asio::execution_context& context) : service(context) {}
  std::shared_ptr<Registry> registry() const { return registry_; }

 private:
  void shutdown() override {
    Waiters ended;
    for (Waiters* waiters : *registry_) ended.splice(ended.end(), *waiters);
  }
  std::shared_ptr<Registry> registry_ = std::make_shared<Registry>();  // shared with Wakes that outlive the executor
};

asio::execution_context& context_of(const asio::any_io_executor& executor) {
  return asio::query(executor, asio::execution::context);
}

}  // namespace

struct Wake::State {
  State(asio::any_io_executor executor_in, Clock& clock_in)
      : executor(std::move(executor_in)),
        clock(clock_in),
        registry(asio::use_service<WaitsOfContext>(context_of(executor)).registry()) {
    registry->insert(&waiters);
  }
  ~State() { registry->erase(&waiters); }

  // The sleep of one coroutine of watch().
  struct Timer {
    asio::cancellation_signal cancel;
    Time at;  // when it wakes up
    bool begun = false;
  };

  asio::any_io_executor executor;
  Clock& clock;
  std::shared_ptr<WaitsOfContext::Registry> registry;
  Waiters waiters;  // in the order in which they came
  bool signalled = false;
  std::shared_ptr<Timer> timer;  // shared with its coroutine; null: none sleeps

  std::optional<Time> next_deadline() const {
    std::optional<Time> next;
    for (const Waiter& waiter : waiters)
      if (waiter.deadline && (!next || waiter.deadline->at < *next)) next = waiter.deadline->at;
    return next;
  }

  void resume_all() {
    for (Waiter& waiter : waiters) asio::post(executor, std::move(waiter.resume));
    waiters.clear();
  }

  void resume_expired(Time now) {
    for (auto it = waiters.begin(); it != waiters.end();) {
      const auto waiter = it++;
      if (!waiter->deadline || now < waiter->deadline->at) continue;
      *waiter->expired = true;
      asio::post(executor, std::move(waiter->resume));
      waiters.erase(waiter);
    }
  }

  // One that has not begun ends by itself. It may not be cancelled: co_spawn of Boost.Asio 1.74 then throws out of the event
  // loop, as it awaits once more before it calls its handler.
  void cancel_timer() {
    const auto sleeping = std::exchange(timer, nullptr);
    if (sleeping && sleeping->begun) sleeping->cancel.emit(asio::cancellation_type::terminal);
  }

  // Sleeps until the first deadline, again and again while there is one. A timer that is not in charge any more ends.
  static asio::awaitable<void> watch(std::shared_ptr<State> state, std::shared_ptr<Timer> timer) {
    // Also when the frame is destroyed in its sleep: what it slept on cannot be cancelled then.
    struct InCharge {
      ~InCharge() {
        if (state->timer == timer) state->timer = nullptr;
      }
      State* state;
      std::shared_ptr<Timer> timer;
    } const in_charge{state.get(), timer};
    timer->begun = true;
    while (state->timer == timer) {
      const auto next = state->next_deadline();
      if (!next) co_return;
      timer->at = *next;
      co_await state->clock.sleep_until(*next);
      if (state->timer != timer) co_return;
      state->resume_expired(state->clock.now());
    }
  }

  static void add_waiter(const std::shared_ptr<State>& state, Waiter waiter) {
    const auto deadline = waiter.deadline;
    state->waiters.push_back(std::move(waiter));
    if (!deadline || (state->timer && state->timer->at <= deadline->at)) return;
    state->cancel_timer();
    const auto timer = state->timer = std::make_shared<Timer>();
    timer->at = deadline->at;
    // Asio keeps its own signal of the coroutine inside this one until the handler has been called: the handler owns it.
    asio::co_spawn(state->executor, watch(state, timer),
                   asio::bind_cancellation_slot(timer->cancel.slot(), [timer](std::exception_ptr) {}));
  }

  static asio::awaitable<bool> wait(std::shared_ptr<State> state, std::optional<Deadline> deadline) {
    if (std::exchange(state->signalled, false)) co_return true;
    if (deadline && state->clock.now() >= deadline->at) co_return false;
    bool expired = false;
    co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
        [&](auto handler) { add_waiter(state, {std::move(handler), deadline, &expired}); }, asio::use_awaitable);
    co_return !expired;
  }
};

Wake::Wake(asio::any_io_executor executor, Clock& clock)
    : state_(std::make_shared<State>(std::move(executor), clock)) {}

Wake::~Wake() {
  state_->cancel_timer();
  const Waiters gone = std::exchange(state_->waiters, {});  // their frames are destroyed, not resumed
}

void Wake::notify() {
  if (state_->waiters.empty()) state_->signalled = true;
  else state_->resume_all();
}

asio::awaitable<void> Wake::wait() { co_await State::wait(state_, std::nullopt); }

asio::awaitable<bool> Wake::wait_until(Deadline deadline) { return State::wait(state_, deadline); }

}  // namespace runahead
