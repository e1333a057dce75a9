#include "sim_clock.h"

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <optional>

namespace runahead::test {
namespace {

// A handler that the timer or a cancellation may complete, whichever comes first. The timer owns it: the slot is the sleeper's
// own, and the two would keep each other.
template <class Handler>
void sleep(Process& process, Time at, Handler handler) {
  auto slot = asio::get_associated_cancellation_slot(handler);
  auto sleeper = std::make_shared<std::optional<Handler>>(std::move(handler));
  const auto fire = [&process](std::optional<Handler>& who) {
    if (!who) return;
    process.post([handler = std::move(*who)]() mutable { handler(); });
    who.reset();
  };
  if (slot.is_connected())
    slot.assign([fire, weak = std::weak_ptr(sleeper)](asio::cancellation_type) {
      if (const auto held = weak.lock()) fire(*held);
    });
  process.at(at, [fire, sleeper] { fire(*sleeper); });
}

}  // namespace

asio::awaitable<void> SimClock::sleep_until(Time at) {
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
      [this, at](auto handler) { sleep(process_, at, std::move(handler)); }, asio::use_awaitable);
}

}  // namespace runahead::test
