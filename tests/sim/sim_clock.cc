#include "sim_clock.h"

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <optional>

namespace runahead::test {
namespace {

// A handler that the timer or a cancellation may complete, whichever comes first.
template <class Handler>
void sleep(Process& process, Time at, Handler handler) {
  auto slot = asio::get_associated_cancellation_slot(handler);
  auto shared = std::make_shared<std::optional<Handler>>(std::move(handler));
  auto fire = [&process, shared] {
    if (!*shared) return;
    process.post([handler = std::move(**shared)]() mutable { handler(); });
    shared->reset();
  };
  if (slot.is_connected()) slot.assign([fire](asio::cancellation_type) { fire(); });
  process.at(at, fire);
}

}  // namespace

asio::awaitable<void> SimClock::sleep_until(Time at) {
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
      [this, at](auto handler) { sleep(process_, at, std::move(handler)); }, asio::use_awaitable);
}

}  // namespace runahead::test
